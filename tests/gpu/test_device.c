#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "codegen/nvrtc.h"
#include "graph/base/pool.h"
#include "graph/base/tensor.h"
#include "runtime/capture.h"
#include "runtime/device.h"
#include "tests/support/cmocka.h"
#include "tests/support/gpu.h"
#include "tests/support/printed.h"

/* The device on a real GPU. Kernels of this test's own come through NVRTC; where that cannot be loaded, the
 * tests that launch are skipped. */

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { MIB = 1 << 20, STAGE = 32 * MIB };

static const qgc_kernel_source sources[] = {
    {"add.cu", "extern \"C\" __global__ void add(int *x, int by, int n) {\n"
               "    int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
               "    if (i < n) x[i] += by;\n"
               "}\n"},
    {"coordinates.cu", "extern \"C\" __global__ void coordinates(int *x) {\n"
                       "    int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;\n"
                       "    x[block * blockDim.x + threadIdx.x] =\n"
                       "        1000000 * blockIdx.z + 10000 * blockIdx.y + 100 * blockIdx.x + threadIdx.x;\n"
                       "}\n"},
    {"shared.cu", "extern \"C\" __global__ void shared(int *x, int n) {\n"
                  "    extern __shared__ int s[];\n"
                  "    for (int i = threadIdx.x; i < n; i += blockDim.x) s[i] = 3 * i;\n"
                  "    __syncthreads();\n"
                  "    for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = s[n - 1 - i];\n"
                  "}\n"},
    {"wait.cu", "extern \"C\" __global__ void wait(long long cycles) {\n"
                "    long long start = clock64();\n"
                "    while (clock64() - start < cycles) { }\n"
                "}\n"},
    {0},
};

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_device *dev;
    qgc_nvrtc *nvrtc; /* NULL: could not be loaded */
    char arch[16];
} fixture;

static int setup(void **state) {
    qgc_arena *a = qgc_arena_new();
    fixture *f = qgc_arena_alloc(a, sizeof *f);
    *f = (fixture){.arena = a, .diag = qgc_diag_new(a)};
    *state = f;
    if (qgc_device_open(&f->dev, 0, &f->diag) != QGC_OK) {
        qgc_diag_print(&f->diag, stderr, false);
        return -1;
    }
    const qgc_device_info *about = qgc_device_about(f->dev);
    snprintf(f->arch, sizeof f->arch, "sm_%d%d", about->major, about->minor);
    qgc_diag d = qgc_diag_new(a);
    if (qgc_nvrtc_open(&f->nvrtc, NULL, &d) != QGC_OK)
        qgc_diag_print(&d, stderr, false);
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    if (f->nvrtc)
        qgc_nvrtc_close(f->nvrtc);
    qgc_device_close(f->dev);
    qgc_arena_drop(f->arena);
    return 0;
}

static void must(const fixture *f, qgc_status s, const char *call) {
    if (s == QGC_OK)
        return;
    qgc_diag_print(&f->diag, stderr, false);
    fail_msg("%s failed", call);
}

#define MUST(f, call) must((f), (call), #call)

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static unsigned char *pattern(qgc_arena *a, size_t bytes, unsigned seed) {
    unsigned char *p = qgc_arena_alloc(a, bytes);
    uint32_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i < bytes; i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = (unsigned char)(x >> 24);
    }
    return p;
}

static qgc_address allocated(fixture *f, size_t bytes) {
    qgc_address p = 0;
    MUST(f, qgc_device_alloc(f->dev, "test", bytes, &p, &f->diag));
    assert_int_equal(p % 256, 0);
    return p;
}

static void compile(fixture *f, const char *entry, const void **cubin, size_t *bytes) {
    const qgc_nvrtc_job job = {
        .sources = sources, .file = qgc_arena_printf(f->arena, "%s.cu", entry), .arch = f->arch};
    MUST(f, qgc_nvrtc_compile(f->nvrtc, &job, cubin, bytes, &f->diag));
}

static qgc_function *loaded(fixture *f, const char *entry, int shared_bytes) {
    const void *cubin;
    size_t bytes;
    compile(f, entry, &cubin, &bytes);
    qgc_function *function = NULL;
    MUST(f, qgc_device_load(f->dev, cubin, bytes, entry, shared_bytes, &function, &f->diag));
    return function;
}

static qgc_status launch_add(fixture *f, qgc_function *add, qgc_address x, int by, int n, unsigned threads) {
    void *args[] = {&x, &by, &n};
    const qgc_launch l = {
        .grid = {((unsigned)n + threads - 1) / threads, 1, 1}, .threads = threads, .args = args};
    return qgc_device_launch(f->dev, add, &l, &f->diag);
}

/* skip() jumps, so it stands in the test itself. */
#define NEEDS_NVRTC(f)                     \
    do {                                   \
        if (!(f)->nvrtc) {                 \
            fprintf(stderr, "no NVRTC: "); \
            skip();                        \
        }                                  \
    } while (0)

static void knows_the_gpu(void **state) {
    fixture *f = *state;
    const qgc_device_info *about = qgc_device_about(f->dev);
    print_message("%s, sm_%d%d, %d SMs, %zu MiB, %zu free, L2 %zu KiB, shared %d KiB, driver %d\n",
                  about->name, about->major, about->minor, about->sms, about->total_bytes / MIB,
                  about->free_bytes / MIB, about->l2_bytes / 1024, about->shared_bytes_max / 1024,
                  about->driver_version);
    assert_true(about->name[0] && about->major >= 7 && about->sms > 0);
    assert_true(about->free_bytes > 0 && about->free_bytes <= about->total_bytes);
    assert_true(about->shared_bytes_max >= 48 * 1024 && about->driver_version >= 12000);
}

static void refuses_a_gpu_that_is_not_there(void **state) {
    fixture *f = *state;
    const int wrong[] = {999, -1};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        qgc_diag d = qgc_diag_new(f->arena);
        qgc_device *dev;
        assert_int_equal(qgc_device_open(&dev, wrong[i], &d), QGC_ERR_DEVICE);
        assert_null(dev);
        const char *text = qgc_test_printed(f->arena, &d);
        assert_non_null(strstr(text, qgc_arena_printf(f->arena, "no GPU number %d: there ", wrong[i])));
        assert_non_null(strstr(text, "note: GPU 0 is "));
    }
}

static void brings_back_what_went_up_in_any_size(void **state) {
    fixture *f = *state;
    const size_t sizes[] = {0, 1, 3, 255, 4097, STAGE - 1, STAGE, STAGE + 1, 3 * (size_t)STAGE + 12345};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        const size_t n = sizes[i];
        unsigned char *up = pattern(f->arena, n, (unsigned)i + 1), *copy = qgc_arena_alloc(f->arena, n);
        unsigned char *down = qgc_arena_alloc(f->arena, n + 1);
        memcpy(copy, up, n);
        down[n] = 0x5A;
        qgc_address p = allocated(f, n);
        MUST(f, qgc_device_upload(f->dev, p, up, n, &f->diag));
        memset(up, 0, n); /* it was said that the source may be reused */
        MUST(f, qgc_device_download(f->dev, down, p, n, &f->diag));
        assert_true(memcmp(down, copy, n) == 0);
        assert_int_equal(down[n], 0x5A);
        qgc_device_free(f->dev, p);
    }
}

/* More than both rooms of the staging, in small uploads, each from the same source changed in between. */
static void many_small_uploads_keep_their_order(void **state) {
    fixture *f = *state;
    enum { N = 700, BYTES = 150001 };
    qgc_address p = allocated(f, (size_t)N * BYTES);
    unsigned char *source = qgc_arena_alloc(f->arena, BYTES),
                  *down = qgc_arena_alloc(f->arena, (size_t)N * BYTES);
    for (int i = 0; i < N; i++) {
        memset(source, i % 251, BYTES);
        MUST(f, qgc_device_upload(f->dev, p + (size_t)i * BYTES, source, BYTES, &f->diag));
    }
    MUST(f, qgc_device_download(f->dev, down, p, (size_t)N * BYTES, &f->diag));
    for (int i = 0; i < N; i++) {
        memset(source, i % 251, BYTES);
        assert_true(memcmp(down + (size_t)i * BYTES, source, BYTES) == 0);
    }
}

static void fills_exactly_what_it_is_told_to(void **state) {
    fixture *f = *state;
    unsigned char down[1000];
    qgc_address p = allocated(f, sizeof down);
    MUST(f, qgc_device_fill(f->dev, p, 0x11, sizeof down, &f->diag));
    MUST(f, qgc_device_fill(f->dev, p + 3, 0x22, 501, &f->diag));
    MUST(f, qgc_device_fill(f->dev, p, 0x33, 0, &f->diag));
    MUST(f, qgc_device_download(f->dev, down, p, sizeof down, &f->diag));
    for (size_t i = 0; i < sizeof down; i++)
        assert_int_equal(down[i], i >= 3 && i < 504 ? 0x22 : 0x11);
}

static size_t bytes_of(const qgc_device *dev, const char *owner) {
    const qgc_memory_row *rows;
    int n = qgc_device_memory(dev, &rows);
    for (int i = 0; i < n; i++)
        if (strcmp(rows[i].owner, owner) == 0)
            return rows[i].bytes;
    return 0;
}

static void counts_memory_by_owner(void **state) {
    fixture *f = *state;
    qgc_address a, b, c;
    MUST(f, qgc_device_alloc(f->dev, "weights", 1000, &a, &f->diag));
    MUST(f, qgc_device_alloc(f->dev, "kv cache", 500, &b, &f->diag));
    MUST(f, qgc_device_alloc(f->dev, "weights", 24, &c, &f->diag));
    assert_int_equal(bytes_of(f->dev, "weights"), 1024);
    assert_int_equal(bytes_of(f->dev, "kv cache"), 500);
    assert_int_equal(qgc_device_n_allocations(f->dev), 3);
    qgc_device_free(f->dev, a);
    qgc_device_free(f->dev, 0);
    assert_int_equal(bytes_of(f->dev, "weights"), 24);
    MUST(f, qgc_device_alloc(f->dev, "weights", 1, &a, &f->diag));
    assert_int_equal(bytes_of(f->dev, "weights"), 25);
    assert_int_equal(qgc_device_n_allocations(f->dev), 4);
}

static void says_who_holds_the_memory_when_it_does_not_fit(void **state) {
    fixture *f = *state;
    qgc_address p;
    MUST(f, qgc_device_alloc(f->dev, "weights", (size_t)3 * MIB, &p, &f->diag));
    qgc_diag d = qgc_diag_new(f->arena);
    size_t huge = 2 * qgc_device_about(f->dev)->total_bytes;
    assert_int_equal(qgc_device_alloc(f->dev, "kv cache", huge, &p, &d), QGC_ERR_DEVICE);
    assert_int_equal(p, 0);
    const char *text = qgc_test_printed(f->arena, &d);
    print_message("%s", text);
    assert_non_null(strstr(text, "MiB of device memory for \"kv cache\" do not fit\n"));
    assert_non_null(strstr(text, "note: 3.0 MiB hold \"weights\"\n"));
    assert_non_null(strstr(text, " MiB are free of the "));
    assert_non_null(strstr(text, "(--ctx)"));
    MUST(f, qgc_device_alloc(f->dev, "kv cache", 1, &p, &f->diag)); /* the device goes on working */
}

static void launches_a_kernel_with_its_arguments(void **state) {
    fixture *f = *state;
    NEEDS_NVRTC(f);
    enum { N = 10007 };
    qgc_function *add = loaded(f, "add", 0);
    int *values = qgc_arena_array(f->arena, N, sizeof *values);
    for (int i = 0; i < N; i++)
        values[i] = i;
    qgc_address x = allocated(f, N * sizeof *values);
    MUST(f, qgc_device_upload(f->dev, x, values, N * sizeof *values, &f->diag));
    MUST(f, launch_add(f, add, x, 5, N - 1, 128));
    MUST(f, qgc_device_download(f->dev, values, x, N * sizeof *values, &f->diag));
    for (int i = 0; i < N - 1; i++)
        assert_int_equal(values[i], i + 5);
    assert_int_equal(values[N - 1], N - 1);
}

static void launches_grids_of_three_axes(void **state) {
    fixture *f = *state;
    NEEDS_NVRTC(f);
    enum { X = 3, Y = 5, Z = 2, T = 7 };
    int values[X * Y * Z * T], *at = values;
    qgc_function *coordinates = loaded(f, "coordinates", 0);
    qgc_address x = allocated(f, sizeof values);
    void *args[] = {&x};
    const qgc_launch l = {.grid = {X, Y, Z}, .threads = T, .args = args};
    MUST(f, qgc_device_launch(f->dev, coordinates, &l, &f->diag));
    MUST(f, qgc_device_download(f->dev, values, x, sizeof values, &f->diag));
    for (int z = 0; z < Z; z++)
        for (int y = 0; y < Y; y++)
            for (int b = 0; b < X; b++)
                for (int t = 0; t < T; t++)
                    assert_int_equal(*at++, 1000000 * z + 10000 * y + 100 * b + t);
}

static void allows_all_the_shared_memory_that_a_block_may_have(void **state) {
    fixture *f = *state;
    NEEDS_NVRTC(f);
    const int most = qgc_device_about(f->dev)->shared_bytes_max;
    int n = most / (int)sizeof(int);
    int *values = qgc_arena_array(f->arena, (size_t)n, sizeof *values);
    qgc_function *shared = loaded(f, "shared", most);
    qgc_address x = allocated(f, (size_t)n * sizeof *values);
    void *args[] = {&x, &n};
    const qgc_launch l = {.grid = {1, 1, 1}, .threads = 256, .shared_bytes = (unsigned)most, .args = args};
    MUST(f, qgc_device_launch(f->dev, shared, &l, &f->diag));
    MUST(f, qgc_device_download(f->dev, values, x, (size_t)n * sizeof *values, &f->diag));
    for (int i = 0; i < n; i++)
        assert_int_equal(values[i], 3 * (n - 1 - i));

    const void *cubin;
    size_t bytes;
    compile(f, "shared", &cubin, &bytes);
    qgc_diag d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_device_load(f->dev, cubin, bytes, "shared", most + 4, &shared, &d), QGC_ERR_DEVICE);
    const char *words =
        qgc_arena_printf(f->arena, "kernel \"shared\" wants %d bytes of shared memory", most + 4);
    assert_non_null(strstr(qgc_diag_message(&d), words));
}

static void refuses_code_that_it_cannot_load(void **state) {
    fixture *f = *state;
    qgc_function *function;
    qgc_diag d = qgc_diag_new(f->arena);
    static const char text[100] = "no ELF at all";
    assert_int_equal(qgc_device_load(f->dev, text, sizeof text, "x", 0, &function, &d), QGC_ERR_DEVICE);
    assert_string_equal(qgc_test_printed(f->arena, &d),
                        "qgc: error: the code of kernel \"x\" is neither a cubin nor PTX\n"
                        "  while: loading kernel x\n");
    NEEDS_NVRTC(f);
    const void *cubin;
    size_t bytes;
    compile(f, "add", &cubin, &bytes);
    d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_device_load(f->dev, cubin, bytes, "subtract", 0, &function, &d), QGC_ERR_DEVICE);
    assert_string_equal(qgc_diag_message(&d), "the code has no kernel \"subtract\"");
    assert_null(function);

    const int *archs;
    int n = qgc_nvrtc_archs(f->nvrtc, &archs);
    if (archs[n - 1] / 10 == qgc_device_about(f->dev)->major)
        return;
    snprintf(f->arch, sizeof f->arch, "sm_%d", archs[n - 1]);
    compile(f, "add", &cubin, &bytes);
    d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_device_load(f->dev, cubin, bytes, "add", 0, &function, &d), QGC_ERR_DEVICE);
    print_message("%s", qgc_test_printed(f->arena, &d));
    assert_non_null(strstr(qgc_diag_message(&d), "cuModuleLoadDataEx failed with CUDA_ERROR_"));
}

static void a_launch_that_fails_says_what_was_launched(void **state) {
    fixture *f = *state;
    NEEDS_NVRTC(f);
    qgc_function *add = loaded(f, "add", 0);
    qgc_address x = allocated(f, 4);
    assert_int_equal(launch_add(f, add, x, 1, 1, 2048), QGC_ERR_DEVICE);
    const char *text = qgc_test_printed(f->arena, &f->diag);
    print_message("%s", text);
    assert_non_null(strstr(text, "cuLaunchKernelEx failed with CUDA_ERROR_INVALID_VALUE"));
    assert_non_null(strstr(text, "kernel \"add\": grid 1 x 1 x 1, 2048 threads"));
}

static void the_device_writes_into_pinned_memory(void **state) {
    fixture *f = *state;
    NEEDS_NVRTC(f);
    qgc_function *add = loaded(f, "add", 0);
    void *host;
    qgc_address address;
    MUST(f, qgc_device_alloc_pinned(f->dev, 4000, &host, &address, &f->diag));
    const volatile int *seen = host;
    assert_int_equal(seen[0], 0);
    qgc_event *done;
    MUST(f, qgc_event_new(f->dev, &done, &f->diag));
    for (int i = 1; i <= 3; i++) {
        MUST(f, launch_add(f, add, address, 7, 1000, 128));
        MUST(f, qgc_event_record(f->dev, done, &f->diag));
        MUST(f, qgc_event_wait(f->dev, done, &f->diag));
        assert_int_equal(seen[0], 7 * i);
        assert_int_equal(seen[999], 7 * i);
    }
    qgc_device_free(f->dev, address);
}

static void events_measure_time(void **state) {
    fixture *f = *state;
    NEEDS_NVRTC(f);
    qgc_function *wait = loaded(f, "wait", 0);
    long long cycles = 10000000; /* 3 to 10 ms */
    void *args[] = {&cycles};
    const qgc_launch l = {.grid = {1, 1, 1}, .threads = 1, .args = args};
    qgc_event *from, *to;
    double us = 0;
    MUST(f, qgc_event_new(f->dev, &from, &f->diag));
    MUST(f, qgc_event_new(f->dev, &to, &f->diag));
    MUST(f, qgc_event_record(f->dev, from, &f->diag));
    MUST(f, qgc_device_launch(f->dev, wait, &l, &f->diag));
    MUST(f, qgc_event_record(f->dev, to, &f->diag));
    MUST(f, qgc_event_elapsed(f->dev, from, to, &us, &f->diag));
    print_message("10 M cycles took %.0f us\n", us);
    assert_true(us > 1000 && us < 1e6);
    qgc_event_drop(f->dev, from);
    qgc_event_drop(f->dev, NULL);
}

static void a_capture_runs_when_it_is_replayed(void **state) {
    fixture *f = *state;
    NEEDS_NVRTC(f);
    qgc_function *add = loaded(f, "add", 0);
    int values[100] = {0};
    qgc_address x = allocated(f, sizeof values);
    MUST(f, qgc_device_fill(f->dev, x, 0, sizeof values, &f->diag));
    MUST(f, qgc_capture_begin(f->dev, &f->diag));
    MUST(f, launch_add(f, add, x, 1, 100, 32));
    MUST(f, launch_add(f, add, x, 10, 50, 32));
    qgc_capture *capture;
    MUST(f, qgc_capture_end(f->dev, &capture, &f->diag));
    assert_int_equal(qgc_capture_nodes(capture), 2);
    MUST(f, qgc_device_download(f->dev, values, x, sizeof values, &f->diag));
    assert_int_equal(values[0], 0); /* nothing ran so far */
    const long made = qgc_device_n_allocations(f->dev);
    for (int i = 0; i < 1000; i++)
        MUST(f, qgc_capture_replay(f->dev, capture, &f->diag));
    assert_int_equal(qgc_device_n_allocations(f->dev), made);
    MUST(f, qgc_device_download(f->dev, values, x, sizeof values, &f->diag));
    assert_int_equal(values[0], 11000);
    assert_int_equal(values[99], 1000);
    qgc_capture_drop(f->dev, capture);
    qgc_capture_drop(f->dev, NULL);
}

static void a_capture_in_which_a_launch_fails_leaves_the_stream_usable(void **state) {
    fixture *f = *state;
    NEEDS_NVRTC(f);
    qgc_function *add = loaded(f, "add", 0);
    int value = 1;
    qgc_address x = allocated(f, sizeof value);
    MUST(f, qgc_device_upload(f->dev, x, &value, sizeof value, &f->diag));
    MUST(f, qgc_capture_begin(f->dev, &f->diag));
    assert_int_equal(launch_add(f, add, x, 1, 1, 2048), QGC_ERR_DEVICE);
    qgc_capture *capture;
    assert_int_equal(qgc_capture_end(f->dev, &capture, &f->diag), QGC_ERR_DEVICE);
    assert_null(capture);
    f->diag = qgc_diag_new(f->arena);
    MUST(f, launch_add(f, add, x, 1, 1, 32));
    MUST(f, qgc_device_download(f->dev, &value, x, sizeof value, &f->diag));
    assert_int_equal(value, 2);
}

/* Products. */

typedef struct {
    int64_t m, n, k;
    uint16_t *a, *b;
    float *c;
} product;

static float small_number(size_t i) {
    return (float)((int)(i * 2654435761u >> 16 & 255) - 128) / 64;
}

static product new_product(qgc_arena *arena, int64_t m, int64_t n, int64_t k) {
    product p = {m, n, k, NULL, NULL, NULL};
    p.a = qgc_arena_array(arena, (size_t)(m * k), sizeof *p.a);
    p.b = qgc_arena_array(arena, (size_t)(n * k), sizeof *p.b);
    p.c = qgc_arena_array(arena, (size_t)(m * n), sizeof *p.c);
    for (int64_t i = 0; i < m * k; i++)
        p.a[i] = qgc_f32_to_bf16(small_number((size_t)i));
    for (int64_t i = 0; i < n * k; i++)
        p.b[i] = qgc_f32_to_bf16(small_number((size_t)i + 977));
    for (int64_t i = 0; i < m * n; i++)
        p.c[i] = 100 + small_number((size_t)i + 5);
    return p;
}

static void assert_product(const product *p, const float *got, bool accumulate) {
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            double sum = accumulate ? (double)p->c[i * p->n + j] : 0, size = fabs(sum);
            for (int64_t k = 0; k < p->k; k++) {
                double term =
                    (double)qgc_bf16_to_f32(p->a[i * p->k + k]) * (double)qgc_bf16_to_f32(p->b[j * p->k + k]);
                sum += term;
                size += fabs(term);
            }
            if (!(fabs((double)got[i * p->n + j] - sum) <= 1e-5 * size + 1e-6))
                fail_msg("[%d, %d] of %dx%dx%d is %g, expected %g", (int)i, (int)j, (int)p->m, (int)p->n,
                         (int)p->k, (double)got[i * p->n + j], sum);
        }
}

static qgc_gemm uploaded(fixture *f, const product *p, bool accumulate) {
    qgc_gemm g = {.m = p->m, .n = p->n, .k = p->k, .accumulate = accumulate};
    const size_t a = (size_t)(p->m * p->k) * 2, b = (size_t)(p->n * p->k) * 2, c = (size_t)(p->m * p->n) * 4;
    g.a = allocated(f, a);
    g.b = allocated(f, b);
    g.c = allocated(f, c);
    MUST(f, qgc_device_upload(f->dev, g.a, p->a, a, &f->diag));
    MUST(f, qgc_device_upload(f->dev, g.b, p->b, b, &f->diag));
    MUST(f, qgc_device_upload(f->dev, g.c, p->c, c, &f->diag));
    return g;
}

static bool no_cublas(fixture *f) {
    const char *why;
    if (qgc_device_has_gemm(f->dev, &why))
        return false;
    fprintf(stderr, "no cuBLAS: %s: ", why);
    return true;
}

static void multiplies_row_major_matrices_of_odd_sizes(void **state) {
    fixture *f = *state;
    if (no_cublas(f))
        skip();
    static const int64_t sizes[][3] = {{1, 1, 1},      {3, 5, 7},      {17, 33, 65},    {2, 151, 896},
                                       {129, 130, 63}, {512, 128, 64}, {31, 1000, 4864}};
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            product p = new_product(f->arena, sizes[i][0], sizes[i][1], sizes[i][2]);
            qgc_gemm g = uploaded(f, &p, accumulate);
            float *got = qgc_arena_array(f->arena, (size_t)(p.m * p.n), sizeof *got);
            MUST(f, qgc_device_gemm(f->dev, &g, &f->diag));
            MUST(f, qgc_device_download(f->dev, got, g.c, (size_t)(p.m * p.n) * sizeof *got, &f->diag));
            assert_product(&p, got, accumulate);
        }
}

static void a_prepared_product_allocates_nothing_and_can_be_captured(void **state) {
    fixture *f = *state;
    if (no_cublas(f))
        skip();
    product p = new_product(f->arena, 33, 100, 77);
    qgc_gemm g = uploaded(f, &p, false);
    float *got = qgc_arena_array(f->arena, 3300, sizeof *got);
    MUST(f, qgc_device_prepare_gemm(f->dev, &f->diag));
    assert_int_equal(bytes_of(f->dev, "cublas"), 32 * MIB);
    const long made = qgc_device_n_allocations(f->dev);
    MUST(f, qgc_capture_begin(f->dev, &f->diag));
    MUST(f, qgc_device_gemm(f->dev, &g, &f->diag));
    qgc_capture *capture;
    MUST(f, qgc_capture_end(f->dev, &capture, &f->diag));
    MUST(f, qgc_capture_replay(f->dev, capture, &f->diag));
    MUST(f, qgc_device_download(f->dev, got, g.c, 3300 * sizeof *got, &f->diag));
    assert_product(&p, got, false);
    assert_int_equal(qgc_device_n_allocations(f->dev), made);
    qgc_capture_drop(f->dev, capture);
}

/* Speed, printed and not asserted: it depends on the machine. */

typedef struct {
    unsigned char *to;
    const unsigned char *from;
} copying;

static void copy_pages(void *context, size_t first, size_t last) {
    const copying *c = context;
    memcpy(c->to + first * 4096, c->from + first * 4096, (last - first) * 4096);
}

static void uploads_fast(void **state) {
    fixture *f = *state;
    const size_t bytes = (size_t)1024 * MIB;
    unsigned char *from = qgc_arena_alloc(f->arena, bytes);
    memset(from, 7, bytes);
    qgc_address p = allocated(f, bytes);
    MUST(f, qgc_device_upload(f->dev, p, from, 1, &f->diag)); /* makes the staging */
    double start = now();
    MUST(f, qgc_device_upload(f->dev, p, from, bytes, &f->diag));
    MUST(f, qgc_device_sync(f->dev, &f->diag));
    print_message("upload, one thread: %.1f GB/s\n", (double)bytes / (now() - start) / 1e9);

    qgc_pool *pool = qgc_pool_new(0);
    start = now();
    for (size_t done = 0, piece; done < bytes; done += piece) {
        void *room;
        MUST(f, qgc_device_stage(f->dev, bytes - done, &room, &piece, &f->diag));
        copying c = {room, from + done};
        qgc_pool_for(pool, piece / 4096, 16, copy_pages, &c);
        MUST(f, qgc_device_send(f->dev, p + done, piece, &f->diag));
    }
    MUST(f, qgc_device_sync(f->dev, &f->diag));
    print_message("upload, %d threads: %.1f GB/s\n", qgc_pool_threads(pool),
                  (double)bytes / (now() - start) / 1e9);
    qgc_pool_drop(pool);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    gpu_test_begin(NULL);
    const struct CMUnitTest tests[] = {
        TEST(knows_the_gpu),
        TEST(refuses_a_gpu_that_is_not_there),
        TEST(brings_back_what_went_up_in_any_size),
        TEST(many_small_uploads_keep_their_order),
        TEST(fills_exactly_what_it_is_told_to),
        TEST(counts_memory_by_owner),
        TEST(says_who_holds_the_memory_when_it_does_not_fit),
        TEST(launches_a_kernel_with_its_arguments),
        TEST(launches_grids_of_three_axes),
        TEST(allows_all_the_shared_memory_that_a_block_may_have),
        TEST(refuses_code_that_it_cannot_load),
        TEST(a_launch_that_fails_says_what_was_launched),
        TEST(the_device_writes_into_pinned_memory),
        TEST(events_measure_time),
        TEST(a_capture_runs_when_it_is_replayed),
        TEST(a_capture_in_which_a_launch_fails_leaves_the_stream_usable),
        TEST(multiplies_row_major_matrices_of_odd_sizes),
        TEST(a_prepared_product_allocates_nothing_and_can_be_captured),
        TEST(uploads_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
