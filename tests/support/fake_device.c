#include "tests/support/fake_device.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "graph/base/tensor.h"
#include "runtime/capture.h"

enum { MAX_ARGS = 28, ALIGN = 256 };

struct qgc_function {
    const fake_kernel *kernel;
};

struct qgc_event {
    int unused;
};

typedef struct {
    const fake_kernel *kernel; /* NULL: a product */
    qgc_launch launch;
    uint64_t args[MAX_ARGS];
    qgc_gemm gemm;
} recorded;

struct qgc_capture {
    recorded *launches;
    size_t n;
};

static void *pointer(qgc_address p) {
    return (void *)(uintptr_t)p; /* NOLINT(performance-no-int-to-ptr) */
}

qgc_device *fake_device_new(const fake_kernel *kernels) {
    qgc_arena *arena = qgc_arena_new();
    qgc_device *dev = qgc_arena_alloc(arena, sizeof *dev);
    dev->arena = arena;
    dev->kernels = kernels;
    dev->log = qgc_str_new(arena);
    dev->noise = 0xA5;
    dev->info = (qgc_device_info){.name = "Fake GPU", .major = 9, .minor = 0, .sms = 1};
    return dev;
}

int qgc_device_count(void) {
    return 1;
}

bool qgc_device_present(void) {
    return true;
}

qgc_device *(*fake_device_opened)(void) = NULL;

qgc_status qgc_device_open(qgc_device **out, int index, qgc_diag *d) {
    (void)index, (void)d;
    *out = fake_device_opened ? fake_device_opened() : fake_device_new(NULL);
    return QGC_OK;
}

void qgc_device_close(qgc_device *dev) {
    if (dev)
        qgc_arena_drop(dev->arena);
}

const qgc_device_info *qgc_device_about(qgc_device *dev) {
    return &dev->info;
}

void qgc_device_show(qgc_device *dev, const qgc_device_info *info) {
    dev->info = *info;
}

/* Memory is not what a test may rely on: it starts as noise. */
static unsigned char *noise(qgc_device *dev, size_t bytes) {
    unsigned char *p = qgc_arena_alloc(dev->arena, bytes + ALIGN);
    p += (ALIGN - (uintptr_t)p % ALIGN) % ALIGN;
    memset(p, dev->noise, bytes);
    return p;
}

static unsigned char *allocate(qgc_device *dev, const char *owner, size_t bytes) {
    assert(!dev->recording && dev->n_allocations < FAKE_MAX_ALLOCATIONS);
    unsigned char *p = noise(dev, bytes);
    dev->allocations[dev->n_allocations++] = (fake_allocation){owner, p, bytes};
    dev->n_made++;
    return p;
}

qgc_status qgc_device_alloc(qgc_device *dev, const char *owner, size_t bytes, qgc_address *out, qgc_diag *d) {
    *out = 0;
    if (dev->full_for && strcmp(dev->full_for, owner) == 0)
        return qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "%zu bytes for \"%s\" do not fit", bytes, owner);
    *out = (qgc_address)(uintptr_t)allocate(dev, owner, bytes);
    return QGC_OK;
}

qgc_status qgc_device_alloc_pinned(qgc_device *dev, size_t bytes, void **host, qgc_address *address,
                                   qgc_diag *d) {
    (void)d;
    *host = allocate(dev, "pinned", bytes);
    memset(*host, 0, bytes);
    *address = (qgc_address)(uintptr_t)*host;
    return QGC_OK;
}

void qgc_device_free(qgc_device *dev, qgc_address p) {
    if (!p)
        return;
    for (int i = 0; i < dev->n_allocations; i++)
        if (dev->allocations[i].start == pointer(p)) {
            assert(dev->allocations[i].owner);
            dev->allocations[i].owner = NULL;
            return;
        }
    assert(false && "an address that was not allocated");
}

int fake_device_held(const qgc_device *dev) {
    int held = 0;
    for (int i = 0; i < dev->n_allocations; i++)
        held += dev->allocations[i].owner != NULL;
    return held;
}

int qgc_device_memory(const qgc_device *dev, const qgc_memory_row **rows) {
    (void)dev;
    *rows = NULL;
    return 0;
}

long qgc_device_n_allocations(const qgc_device *dev) {
    return dev->n_made;
}

/* The allocation that has all of [p, p + bytes). */
static const fake_allocation *owner_of(const qgc_device *dev, qgc_address p, size_t bytes) {
    const unsigned char *at = pointer(p);
    for (int i = 0; i < dev->n_allocations; i++) {
        const fake_allocation *a = &dev->allocations[i];
        if (a->owner && at >= a->start && at <= a->start + a->bytes &&
            bytes <= (size_t)(a->start + a->bytes - at))
            return a;
    }
    fprintf(stderr, "the device was given an address that it does not own\n");
    assert(false);
    return NULL;
}

static void note(qgc_device *dev, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void note(qgc_device *dev, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (!dev->quiet)
        qgc_str_add(&dev->log, text);
}

static void log_address(qgc_device *dev, qgc_address p) {
    const fake_allocation *a = owner_of(dev, p, 0);
    note(dev, "%s+%zu", a->owner, (size_t)((unsigned char *)pointer(p) - a->start));
}

qgc_status qgc_device_stage(qgc_device *dev, size_t want, void **room, size_t *bytes, qgc_diag *d) {
    (void)d;
    assert(!dev->recording);
    *room = dev->stage;
    *bytes = want < sizeof dev->stage ? want : sizeof dev->stage;
    return QGC_OK;
}

qgc_status qgc_device_send(qgc_device *dev, qgc_address to, size_t bytes, qgc_diag *d) {
    (void)d;
    owner_of(dev, to, bytes);
    memcpy(pointer(to), dev->stage, bytes);
    return QGC_OK;
}

qgc_status qgc_device_upload(qgc_device *dev, qgc_address to, const void *from, size_t bytes, qgc_diag *d) {
    (void)d;
    assert(!dev->recording);
    owner_of(dev, to, bytes);
    memcpy(pointer(to), from, bytes);
    if (dev->log_uploads) {
        note(dev, "upload %zu to ", bytes);
        log_address(dev, to);
        note(dev, "\n");
    }
    return QGC_OK;
}

qgc_status qgc_device_download(qgc_device *dev, void *to, qgc_address from, size_t bytes, qgc_diag *d) {
    (void)d;
    owner_of(dev, from, bytes);
    memcpy(to, pointer(from), bytes);
    return QGC_OK;
}

qgc_status qgc_device_fill(qgc_device *dev, qgc_address p, unsigned char byte, size_t bytes, qgc_diag *d) {
    (void)d;
    if (bytes == 0)
        return QGC_OK;
    owner_of(dev, p, bytes);
    memset(pointer(p), byte, bytes);
    return QGC_OK;
}

qgc_status qgc_device_sync(qgc_device *dev, qgc_diag *d) {
    (void)d;
    assert(!dev->recording);
    return QGC_OK;
}

qgc_status qgc_device_load(qgc_device *dev, const void *cubin, size_t bytes, const char *entry,
                           int shared_bytes, qgc_function **out, qgc_diag *d) {
    *out = NULL;
    note(dev, "load %s from %.*s, %d shared\n", entry, (int)bytes, (const char *)cubin, shared_bytes);
    const fake_kernel *k = dev->load ? dev->load(dev, cubin, bytes) : dev->kernels;
    while (!dev->load && k->entry && strcmp(k->entry, entry) != 0)
        k++;
    if (k && k->entry) {
        *out = qgc_arena_alloc(dev->arena, sizeof **out);
        (*out)->kernel = k;
        return QGC_OK;
    }
    return qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "the code has no kernel \"%s\"", entry);
}

qgc_status qgc_device_residence(qgc_device *dev, qgc_function *f, int threads, int shared_bytes,
                                qgc_residence *out, qgc_diag *d) {
    (void)f, (void)threads, (void)shared_bytes, (void)d;
    *out = (qgc_residence){.blocks = dev->no_room ? 0 : 1, .registers = 128};
    return QGC_OK;
}

void qgc_device_unload(qgc_device *dev, qgc_function *f) {
    (void)dev, (void)f;
}

static void log_launch(qgc_device *dev, const fake_kernel *k, const qgc_launch *l) {
    note(dev, "%s<%ux%ux%u, %u, %u>", k->entry, l->grid[0], l->grid[1], l->grid[2], l->threads,
         l->shared_bytes);
    for (int i = 0; k->signature[i]; i++) {
        note(dev, "%s", i ? ", " : " ");
        if (k->signature[i] == 'p')
            log_address(dev, *(const qgc_address *)l->args[i]);
        else
            note(dev, "%d", *(const int32_t *)l->args[i]);
    }
    note(dev, "%s", l->early ? ", early\n" : "\n");
}

static recorded *new_record(qgc_device *dev) {
    struct qgc_capture *c = dev->recording;
    c->launches = qgc_arena_grow(dev->arena, c->launches, c->n, sizeof *c->launches);
    return &c->launches[c->n++];
}

static void record(qgc_device *dev, const fake_kernel *k, const qgc_launch *l) {
    recorded *r = new_record(dev);
    *r = (recorded){.kernel = k, .launch = *l};
    assert(strlen(k->signature) <= MAX_ARGS);
    for (int i = 0; k->signature[i]; i++)
        memcpy(&r->args[i], l->args[i], k->signature[i] == 'p' ? sizeof(qgc_address) : sizeof(int32_t));
}

static qgc_status run(qgc_device *dev, const fake_kernel *k, const qgc_launch *l, qgc_diag *d) {
    if (dev->launch)
        return dev->launch(dev, k, l, d);
    k->run(l->args, l->grid);
    return QGC_OK;
}

qgc_status qgc_device_launch(qgc_device *dev, qgc_function *f, const qgc_launch *l, qgc_diag *d) {
    const fake_kernel *k = f->kernel;
    if (dev->broken_kernel && strcmp(dev->broken_kernel, k->entry) == 0)
        return qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "cuLaunchKernel failed");
    if (dev->ready)
        dev->ready(dev, k);
    if (!dev->quiet)
        log_launch(dev, k, l);
    if (!dev->recording)
        return run(dev, k, l, d);
    record(dev, k, l);
    return QGC_OK;
}

bool qgc_device_has_gemm(qgc_device *dev, const char **why) {
    *why = dev->info.no_bf16 ? "it multiplies no bf16 matrices on this GPU"
           : dev->no_cublas  ? "libcublas.so.13: cannot open shared object file"
                             : NULL;
    return !*why;
}

qgc_status qgc_device_prepare_gemm(qgc_device *dev, qgc_diag *d) {
    (void)d;
    assert(!dev->no_cublas);
    note(dev, "prepare gemm\n");
    return QGC_OK;
}

static void multiply(const qgc_gemm *g) {
    const uint16_t *a = pointer(g->a), *b = pointer(g->b);
    float *c = pointer(g->c);
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            float sum = g->accumulate ? c[i * g->n + j] : 0;
            for (int64_t k = 0; k < g->k; k++)
                sum += qgc_bf16_to_f32(a[i * g->k + k]) * qgc_bf16_to_f32(b[j * g->k + k]);
            c[i * g->n + j] = sum;
        }
}

qgc_status qgc_device_gemm(qgc_device *dev, const qgc_gemm *g, qgc_diag *d) {
    (void)d;
    note(dev, "gemm %dx%dx%d%s ", (int)g->m, (int)g->n, (int)g->k, g->accumulate ? " more" : "");
    log_address(dev, g->a);
    note(dev, ", ");
    log_address(dev, g->b);
    note(dev, ", ");
    log_address(dev, g->c);
    note(dev, "\n");
    if (dev->recording)
        *new_record(dev) = (recorded){.gemm = *g};
    else
        multiply(g);
    return QGC_OK;
}

qgc_status qgc_event_new(qgc_device *dev, qgc_event **out, qgc_diag *d) {
    (void)d;
    *out = qgc_arena_alloc(dev->arena, sizeof **out);
    return QGC_OK;
}

void qgc_event_drop(qgc_device *dev, qgc_event *e) {
    (void)dev, (void)e;
}

qgc_status qgc_device_busy(qgc_device *dev, bool *busy, qgc_diag *d) {
    (void)dev, (void)d;
    *busy = false;
    return QGC_OK;
}

qgc_status qgc_event_record(qgc_device *dev, qgc_event *e, qgc_diag *d) {
    (void)dev, (void)e, (void)d;
    return QGC_OK;
}

qgc_status qgc_event_wait(qgc_device *dev, qgc_event *e, qgc_diag *d) {
    (void)dev, (void)e, (void)d;
    return QGC_OK;
}

qgc_status qgc_event_elapsed(qgc_device *dev, qgc_event *from, qgc_event *to, double *us, qgc_diag *d) {
    (void)dev, (void)from, (void)to, (void)d;
    *us = 1;
    return QGC_OK;
}

qgc_status qgc_capture_begin(qgc_device *dev, qgc_diag *d) {
    (void)d;
    assert(!dev->recording);
    dev->recording = qgc_arena_alloc(dev->arena, sizeof *dev->recording);
    note(dev, "capture\n");
    return QGC_OK;
}

qgc_status qgc_capture_end(qgc_device *dev, qgc_capture **out, qgc_diag *d) {
    assert(dev->recording);
    *out = d->status == QGC_OK ? dev->recording : NULL;
    dev->recording = NULL;
    note(dev, "end of capture\n");
    return d->status;
}

qgc_status qgc_capture_replay(qgc_device *dev, qgc_capture *c, qgc_diag *d) {
    note(dev, "replay\n");
    for (size_t i = 0; i < c->n && !dev->deaf; i++) {
        recorded *r = &c->launches[i];
        if (!r->kernel) {
            multiply(&r->gemm);
            continue;
        }
        void *args[MAX_ARGS];
        for (int k = 0; k < MAX_ARGS; k++)
            args[k] = &r->args[k];
        r->launch.args = args;
        QGC_TRY(run(dev, r->kernel, &r->launch, d));
    }
    return QGC_OK;
}

int qgc_capture_nodes(const qgc_capture *c) {
    return (int)c->n;
}

void qgc_capture_drop(qgc_device *dev, qgc_capture *c) {
    (void)dev, (void)c;
}
