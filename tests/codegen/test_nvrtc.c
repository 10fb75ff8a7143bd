#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codegen/arch.h"
#include "codegen/nvrtc.h"
#include "tests/support/cmocka.h"
#include "tests/support/folder.h"
#include "tests/support/printed.h"

/* Sources of this test's own, so that it does not depend on kernels/. */
static const qgc_kernel_source sources[] = {
    {"scale.cu",
     "#include \"twice.cuh\"\n"
     "#ifndef BY\n#define BY 1\n#endif\n"
     "extern \"C\" __global__ void scale(float *x) { x[threadIdx.x] = BY * twice(x[threadIdx.x]); }\n"},
    {"twice.cuh", "inline float twice(float x) { return 2 * x; }\n"},
    {"broken.cu", "#include \"twice.cuh\"\n"
                  "extern \"C\" __global__ void broken(float *x) {\n"
                  "    x[0] = twice(y);\n"
                  "}\n"},
    {"broken_header.cu", "#include \"unclosed.cuh\"\n"},
    {"unclosed.cuh", "#ifdef BAD\ninline float half(float x) { return 0.5f * x }\n#endif\n"},
    {"noisy.cu", "#define A(x) x##0; x##1; x##2; x##3;\n"
                 "#define B(x) A(x##0) A(x##1) A(x##2) A(x##3)\n"
                 "__global__ void noisy() { B(a) B(b) B(c) B(d) }\n"},
    {0},
};

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_nvrtc *nvrtc;
    char *text;
} fixture;

/* True if there is no NVRTC here and the test is to be skipped. */
static bool start(fixture *f) {
    *f = (fixture){.arena = qgc_arena_new()};
    f->diag = qgc_diag_new(f->arena);
    if (qgc_nvrtc_open(&f->nvrtc, NULL, &f->diag) == QGC_OK)
        return false;
    qgc_diag_print(&f->diag, stderr, false);
    qgc_arena_drop(f->arena);
    return true;
}

/* skip() jumps, so it stands in the test itself. */
#define START(f)     \
    fixture f;       \
    if (start(&f)) { \
        skip();      \
        return;      \
    }

static void stop(fixture *f) {
    qgc_nvrtc_close(f->nvrtc);
    qgc_arena_drop(f->arena);
}

static qgc_nvrtc_job job_of(const char *file) {
    return (qgc_nvrtc_job){.sources = sources, .file = file, .arch = "sm_90", .node = "scale x"};
}

static void opens_a_version_it_can_use(void **state) {
    (void)state;
    START(f);
    assert_true(qgc_nvrtc_version(f.nvrtc) >= 12040);
    assert_non_null(strstr(qgc_nvrtc_library(f.nvrtc), "nvrtc"));
    stop(&f);
}

static void says_what_it_tried_where_there_is_no_library(void **state) {
    (void)state;
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a);
    qgc_nvrtc *n;
    unsetenv("XDG_DATA_HOME"); /* it is part of the command */
    assert_int_equal(qgc_nvrtc_open(&n, "/nowhere/libnvrtc.so.13", &d), QGC_ERR_DEVICE);
    assert_null(n);
    assert_string_equal(
        qgc_test_printed(a, &d),
        "qgc: error: could not load NVRTC, the compiler for kernels\n"
        "qgc: note: tried \"/nowhere/libnvrtc.so.13\": /nowhere/libnvrtc.so.13: cannot open shared object file: No "
        "such file or directory\n"
        "  hint: This brings it, and needs no GPU: python3 -m pip install --target ~/.local/share/qgc/cuda "
        "nvidia-cuda-nvrtc. It is part of the CUDA toolkit (12.4 or newer), too; where that is in an unusual place, set "
        "CUDA_PATH, or give --nvrtc FILE.\n");
    qgc_arena_drop(a);
}

static void refuses_a_library_that_is_not_nvrtc(void **state) {
    (void)state;
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a);
    qgc_nvrtc *n;
    assert_int_equal(qgc_nvrtc_open(&n, "libpthread.so.0", &d), QGC_ERR_DEVICE);
    assert_non_null(strstr(qgc_test_printed(a, &d), "function nvrtcVersion is missing"));
    qgc_arena_drop(a);
}

static void compiles_a_kernel_with_a_header_and_a_define(void **state) {
    (void)state;
    START(f);
    qgc_nvrtc_job job = job_of("scale.cu");
    job.options = (const char *const[]){"-DBY=3"};
    job.n_options = 1;
    const void *cubin;
    size_t bytes;
    assert_int_equal(qgc_nvrtc_compile(f.nvrtc, &job, &cubin, &bytes, &f.diag), QGC_OK);
    assert_true(bytes > 64);
    assert_memory_equal(cubin, "\177ELF", 4);
    stop(&f);
}

static void gives_the_same_bytes_in_any_folder(void **state) {
    (void)state;
    START(f);
    char back[PATH_MAX];
    assert_non_null(getcwd(back, sizeof back));
    qgc_nvrtc_job job = job_of("scale.cu");
    const void *here, *there;
    size_t here_bytes, there_bytes;
    assert_int_equal(qgc_nvrtc_compile(f.nvrtc, &job, &here, &here_bytes, &f.diag), QGC_OK);
    assert_int_equal(chdir("/usr"), 0);
    assert_int_equal(qgc_nvrtc_compile(f.nvrtc, &job, &there, &there_bytes, &f.diag), QGC_OK);
    assert_int_equal(chdir(back), 0);
    assert_int_equal(here_bytes, there_bytes);
    assert_memory_equal(here, there, here_bytes);
    stop(&f);
}

/* The messages are NVRTC's own; these two have been the same from 12.4 to 13.0. */
static void shows_the_line_of_a_kernel_that_is_wrong(void **state) {
    (void)state;
    START(f);
    qgc_source yaml = {"m.yaml", NULL, 0};
    qgc_nvrtc_job job = job_of("broken.cu");
    job.options = (const char *const[]){"-DBY=3"};
    job.n_options = 1;
    job.at = (qgc_loc){&yaml, 4, 5};
    const void *cubin;
    size_t bytes;
    assert_int_equal(qgc_nvrtc_compile(f.nvrtc, &job, &cubin, &bytes, &f.diag), QGC_ERR_INPUT);
    assert_string_equal(
        qgc_test_printed(f.arena, &f.diag),
        "m.yaml:4:5: error: NVRTC could not compile \"kernels/broken.cu\" for sm_90\n"
        "m.yaml:4:5: note: it is the kernel of \"scale x\"\n"
        "kernels/broken.cu:3:18: note: error: identifier \"y\" is undefined\n"
        "     3 |     x[0] = twice(y);\n"
        "       |                  ^\n"
        "qgc: note: options: --gpu-architecture=sm_90 --std=c++17 -default-device --fmad=true "
        "-lineinfo -DBY=3\n");
    stop(&f);
}

static void shows_the_line_of_a_header_that_is_wrong(void **state) {
    (void)state;
    START(f);
    qgc_nvrtc_job job = job_of("broken_header.cu");
    job.options = (const char *const[]){"-DBAD"};
    job.n_options = 1;
    const void *cubin;
    size_t bytes;
    assert_int_equal(qgc_nvrtc_compile(f.nvrtc, &job, &cubin, &bytes, &f.diag), QGC_ERR_INPUT);
    assert_non_null(strstr(qgc_test_printed(f.arena, &f.diag),
                           "kernels/unclosed.cuh:2:46: note: error: expected a \";\"\n"
                           "     2 | inline float half(float x) { return 0.5f * x }\n"));
    stop(&f);
}

static void cuts_a_log_that_is_long(void **state) {
    (void)state;
    START(f);
    qgc_nvrtc_job job = job_of("noisy.cu");
    const void *cubin;
    size_t bytes;
    assert_int_equal(qgc_nvrtc_compile(f.nvrtc, &job, &cubin, &bytes, &f.diag), QGC_ERR_INPUT);
    const char *text = qgc_test_printed(f.arena, &f.diag);
    int n_notes = 0;
    for (const char *p = text; (p = strstr(p, ": note: error: ")); p++)
        n_notes++;
    assert_int_equal(n_notes, 20);
    assert_non_null(strstr(text, "lines more\nqgc: note: options: "));
    stop(&f);
}

static void refuses_an_option_that_nvrtc_does_not_know(void **state) {
    (void)state;
    START(f);
    qgc_nvrtc_job job = job_of("scale.cu");
    job.options = (const char *const[]){"--no-such-option"};
    job.n_options = 1;
    const void *cubin;
    size_t bytes;
    assert_int_equal(qgc_nvrtc_compile(f.nvrtc, &job, &cubin, &bytes, &f.diag), QGC_ERR_INPUT);
    assert_non_null(strstr(qgc_test_printed(f.arena, &f.diag), "NVRTC_ERROR_INVALID_OPTION"));
    stop(&f);
}

static void compiles_for_every_arch_it_lists(void **state) {
    (void)state;
    START(f);
    const int *archs;
    int n = qgc_nvrtc_archs(f.nvrtc, &archs);
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        assert_true(i == 0 || archs[i] > archs[i - 1]);
        qgc_nvrtc_job job = job_of("scale.cu");
        job.arch = qgc_arena_printf(f.arena, "sm_%d", archs[i]);
        assert_int_equal(qgc_nvrtc_check_arch(f.nvrtc, job.arch, &f.diag), QGC_OK);
        if (archs[i] < 75)
            continue;
        const void *cubin;
        size_t bytes;
        assert_int_equal(qgc_nvrtc_compile(f.nvrtc, &job, &cubin, &bytes, &f.diag), QGC_OK);
    }
    stop(&f);
}

/* PTX names the oldest GPU that it is for, and what compiles it reads on to a zero. */
static void makes_ptx_for_a_virtual_arch(void **state) {
    (void)state;
    START(f);
    const char *const archs[] = {"compute_75", "compute_80", "compute_90", "compute_90a"};
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        qgc_nvrtc_job job = job_of("scale.cu");
        job.arch = archs[i];
        assert_int_equal(qgc_nvrtc_check_arch(f.nvrtc, job.arch, &f.diag), QGC_OK);
        const char *first, *second;
        size_t bytes, again;
        assert_int_equal(qgc_nvrtc_compile(f.nvrtc, &job, (const void **)&first, &bytes, &f.diag), QGC_OK);
        assert_int_equal(qgc_nvrtc_compile(f.nvrtc, &job, (const void **)&second, &again, &f.diag), QGC_OK);
        assert_int_equal(first[bytes - 1], 0);
        assert_int_equal(strlen(first), bytes - 1);
        assert_int_equal(bytes, again);
        assert_memory_equal(first, second, bytes);
        const int version = qgc_ptx_version(first, bytes);
        assert_true(version >= 84);
        assert_true(qgc_ptx_driver(version) <= qgc_nvrtc_version(f.nvrtc)); /* 12.6 makes what 12.5 makes */
        assert_int_equal(qgc_ptx_driver(version) / 1000, qgc_nvrtc_version(f.nvrtc) / 1000);
        assert_non_null(strstr(first, qgc_arena_printf(f.arena, ".target sm_%s\n", archs[i] + 8)));
    }
    stop(&f);
}

static void accepts_the_letters_that_an_arch_has(void **state) {
    (void)state;
    START(f);
    assert_int_equal(qgc_nvrtc_check_arch(f.nvrtc, "sm_90a", &f.diag), QGC_OK);
    if (qgc_nvrtc_version(f.nvrtc) >= 13000) {
        const char *const more[] = {"sm_100a", "sm_103a", "sm_110a", "sm_120a",
                                    "sm_121a", "sm_100f", "sm_120f"};
        for (size_t i = 0; i < sizeof more / sizeof *more; i++)
            assert_int_equal(qgc_nvrtc_check_arch(f.nvrtc, more[i], &f.diag), QGC_OK);
    }
    const char *const none[] = {"sm_80a", "sm_90f", "sm_999", "sm_999a", "compute_80a", "compute_999"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        qgc_diag d = qgc_diag_new(f.arena);
        assert_int_equal(qgc_nvrtc_check_arch(f.nvrtc, none[i], &d), QGC_ERR_USAGE);
        assert_non_null(strstr(qgc_test_printed(f.arena, &d), "sm_80, "));
    }
    const char *const malformed[] = {"",        "90",     "sm_",      "sm_9",    "sm_90b",
                                     "sm_90aa", "sm_90 ", "compute_", "sm_99999"};
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        qgc_diag d = qgc_diag_new(f.arena);
        assert_int_equal(qgc_nvrtc_check_arch(f.nvrtc, malformed[i], &d), QGC_ERR_USAGE);
        assert_non_null(strstr(qgc_diag_message(&d), "is malformed"));
    }
    stop(&f);
}

/* An NVRTC that compiles nothing: with FAILS_AT 'a' for letters only. It is made by the compiler of this test. */
static const char fake_nvrtc[] =
    "#include <string.h>\n"
    "static const char *arch = \"\";\n"
    "int nvrtcVersion(int *a, int *b) { *a = 13; *b = 0; return 0; }\n"
    "const char *nvrtcGetErrorString(int r) { return r == 7 ? \"BUILTIN_OPERATION_FAILURE\" : \"?\"; }\n"
    "int nvrtcGetNumSupportedArchs(int *n) { *n = 1; return 0; }\n"
    "int nvrtcGetSupportedArchs(int *a) { *a = 90; return 0; }\n"
    "int nvrtcCreateProgram(void **p) { *p = 0; return 0; }\n"
    "int nvrtcDestroyProgram(void **p) { return p == 0; }\n"
    "int nvrtcCompileProgram(void *p, int n, const char *const *options) {\n"
    "    arch = strchr(options[n - 1], '=') + 1;\n"
    "    return p || !FAILS_AT || strchr(arch, FAILS_AT) ? 7 : 0;\n"
    "}\n"
    "int nvrtcGetCUBINSize(void *p, size_t *n) { *n = 1; return p != 0; }\n"
    "int nvrtcGetCUBIN(void *p, char *to) { *to = 0; return p != 0; }\n"
    "int nvrtcGetPTXSize(void *p, size_t *n) { *n = 1; return p != 0; }\n"
    "int nvrtcGetPTX(void *p, char *to) { *to = 0; return p != 0; }\n"
    "int nvrtcGetProgramLogSize(void *p, size_t *n) { *n = 64; return p != 0; }\n"
    "int nvrtcGetProgramLog(void *p, char *to) {\n"
    "    strcat(strcpy(to, \"could not open builtins for \"), arch);\n"
    "    return p != 0;\n"
    "}\n";

static qgc_nvrtc *open_fake(qgc_arena *a, const char *folder, const char *fails_at, qgc_diag *d) {
    const char *source = qgc_test_write(a, folder, "fake.c", fake_nvrtc, strlen(fake_nvrtc));
    const char *out = qgc_test_path(a, folder, *fails_at == '0' ? "fake0.so" : "fake_a.so");
    const char *command = qgc_arena_printf(
        a, "'" QGC_CC "' -std=c11 -shared -fPIC \"-DFAILS_AT=%s\" '%s' -o '%s'", fails_at, source, out);
    assert_int_equal(system(command), 0);
    qgc_nvrtc *n;
    assert_int_equal(qgc_nvrtc_open(&n, out, d), QGC_OK);
    return n;
}

static void shows_the_log_where_a_letter_cannot_be_tried(void **state) {
    (void)state;
    qgc_arena *a = qgc_arena_new();
    const char *folder = qgc_test_folder(a);
    qgc_diag broken = qgc_diag_new(a), without = qgc_diag_new(a);

    qgc_nvrtc *n = open_fake(a, folder, "0", &broken);
    assert_int_equal(qgc_nvrtc_check_arch(n, "sm_90a", &broken), QGC_ERR_DEVICE);
    assert_string_equal(
        qgc_test_printed(a, &broken),
        qgc_arena_printf(a,
                         "qgc: error: NVRTC 13.0 could not compile an empty kernel for \"sm_90a\"\n"
                         "qgc: note: \"%s/fake0.so\" says BUILTIN_OPERATION_FAILURE\n"
                         "qgc: note: could not open builtins for sm_90a\n",
                         folder));
    qgc_nvrtc_close(n);

    n = open_fake(a, folder, "'a'", &without);
    assert_int_equal(qgc_nvrtc_check_arch(n, "sm_90a", &without), QGC_ERR_USAGE);
    const char *text = qgc_test_printed(a, &without);
    assert_non_null(strstr(text, "note: could not open builtins for sm_90a\n"));
    assert_non_null(strstr(text, "hint: sm_90 has no variant \"a\".\n"));
    qgc_nvrtc_close(n);
    qgc_test_folder_drop(a, folder);
    qgc_arena_drop(a);
}

static void key_changes_with_all_that_it_stands_for(void **state) {
    (void)state;
    START(f);
    qgc_nvrtc_job job = job_of("scale.cu");
    const char *keys[8];
    int n = 0;
    keys[n++] = qgc_nvrtc_key(f.nvrtc, &job, f.arena);
    assert_int_equal(strlen(keys[0]), 32);
    assert_string_equal(qgc_nvrtc_key(f.nvrtc, &job, f.arena), keys[0]);

    job.node = "another node";
    job.at.line = 7;
    assert_string_equal(qgc_nvrtc_key(f.nvrtc, &job, f.arena), keys[0]);

    job.arch = "sm_90a";
    keys[n++] = qgc_nvrtc_key(f.nvrtc, &job, f.arena);
    job.options = (const char *const[]){"-DBY=1", "-DC"};
    job.n_options = 2;
    keys[n++] = qgc_nvrtc_key(f.nvrtc, &job, f.arena);
    job.options = (const char *const[]){"-DBY=1-DC"};
    job.n_options = 1;
    keys[n++] = qgc_nvrtc_key(f.nvrtc, &job, f.arena);
    job.file = "broken.cu";
    keys[n++] = qgc_nvrtc_key(f.nvrtc, &job, f.arena);
    job.sources = (const qgc_kernel_source[]){{"broken.cu", ""}, {"twice.cuh", "//"}, {0}};
    keys[n++] = qgc_nvrtc_key(f.nvrtc, &job, f.arena);
    job.sources = (const qgc_kernel_source[]){{"broken.cu", ""}, {"twice.cuh", "///"}, {0}};
    keys[n++] = qgc_nvrtc_key(f.nvrtc, &job, f.arena);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++)
            assert_string_not_equal(keys[i], keys[k]);
    stop(&f);
}

static void *compile_some(void *context) {
    fixture *f = context;
    for (int i = 0; i < 4; i++) {
        qgc_arena *a = qgc_arena_new();
        qgc_diag d = qgc_diag_new(a);
        qgc_nvrtc_job job = job_of("scale.cu");
        job.options = (const char *const[]){i & 1 ? "-DBY=5" : "-DBY=7"};
        job.n_options = 1;
        const void *cubin;
        size_t bytes;
        bool ok = qgc_nvrtc_compile(f->nvrtc, &job, &cubin, &bytes, &d) == QGC_OK;
        job.file = "broken.cu";
        bool failed = qgc_nvrtc_compile(f->nvrtc, &job, &cubin, &bytes, &d) == QGC_ERR_INPUT;
        qgc_arena_drop(a);
        if (!ok || !failed)
            return context;
    }
    return NULL;
}

static void compiles_in_two_threads_at_once(void **state) {
    (void)state;
    START(f);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, compile_some, &f), 0);
    for (int i = 0; i < 2; i++) {
        void *wrong;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
    stop(&f);
}

static void table_of_kernels_ends_with_an_empty_row(void **state) {
    (void)state;
    const qgc_kernel_source *s = qgc_kernel_sources;
    for (; s->name; s++) {
        assert_non_null(s->text);
        assert_null(strchr(s->name, '/'));
    }
    assert_null(s->text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_a_version_it_can_use),
        cmocka_unit_test(says_what_it_tried_where_there_is_no_library),
        cmocka_unit_test(refuses_a_library_that_is_not_nvrtc),
        cmocka_unit_test(compiles_a_kernel_with_a_header_and_a_define),
        cmocka_unit_test(gives_the_same_bytes_in_any_folder),
        cmocka_unit_test(shows_the_line_of_a_kernel_that_is_wrong),
        cmocka_unit_test(shows_the_line_of_a_header_that_is_wrong),
        cmocka_unit_test(cuts_a_log_that_is_long),
        cmocka_unit_test(refuses_an_option_that_nvrtc_does_not_know),
        cmocka_unit_test(compiles_for_every_arch_it_lists),
        cmocka_unit_test(makes_ptx_for_a_virtual_arch),
        cmocka_unit_test(accepts_the_letters_that_an_arch_has),
        cmocka_unit_test(shows_the_log_where_a_letter_cannot_be_tried),
        cmocka_unit_test(key_changes_with_all_that_it_stands_for),
        cmocka_unit_test(compiles_in_two_threads_at_once),
        cmocka_unit_test(table_of_kernels_ends_with_an_empty_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
