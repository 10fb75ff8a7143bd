/* Kernels of every architecture that NVRTC knows, against what a multiprocessor of it has: a kernel that takes more is refused at
 * its launch, on a card that this machine need not have. */

#include <string.h>

#include "codegen/compile.h"
#include "codegen/nvrtc.h"
#include "graph/load.h"
#include "passes/passes.h"
#include "tests/support/cmocka.h"
#include "tests/support/cubin.h"
#include "tests/support/folder.h"
#include "tests/support/printed.h"

/* CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". */
enum {
    FIRST_ARCH = 75,
    REGISTERS = 65536, /* of a block, in all of them */
    MOST_OF_A_THREAD = 255,
    MOST_THREADS = 1024,
    MOST_STATIC = 48 << 10,
    UNIT = 256, /* registers are given to warps in units of so many */
    WARP = 32,
};

static struct {
    qgc_arena *arena;
    const char *folder, *cache;
    int archs[64], n_archs;
} f;

static bool is_persistent(const qgc_plan_kernel *k) {
    return strcmp(k->name, "persistent.cu") == 0;
}

/* Registers that a block takes. */
static int registers_of(const cubin_facts *facts, int threads) {
    const int a_warp = (facts->registers * WARP + UNIT - 1) / UNIT * UNIT;
    return a_warp * ((threads + WARP - 1) / WARP);
}

/* What is wrong with a kernel on an architecture, or NULL. */
static const char *fault_of(const qgc_plan_kernel *k, const cubin_facts *facts, const char *arch) {
    const int wanted = qgc_kernel_shared_bytes(k, arch), shared = facts->shared_bytes + wanted,
              has = qgc_arch_shared_bytes(qgc_arch_number(arch)), threads = qgc_kernel_threads(k, arch);
    if (facts->registers > MOST_OF_A_THREAD || registers_of(facts, threads) > REGISTERS)
        return "too many registers";
    if (threads > MOST_THREADS || (facts->threads && threads > facts->threads))
        return "too many threads";
    if (facts->shared_bytes > MOST_STATIC)
        return "too much static shared memory";
    /* the step that a card has no room for is a mode that it does not have (runtime/mode.h) */
    if (shared > has && !(is_persistent(k) && wanted > has))
        return "too much shared memory";
    return NULL;
}

/* One of each sort: the oldest, one with little shared memory, one with a persistent step. */
static bool is_typical(int arch) {
    return arch == 75 || arch == 86 || arch == 90;
}

typedef struct {
    const char *path, *passes;
    bool every; /* architecture, or only one of each sort */
    bool decode_only;
} subject;

static qgc_plan *compile(const subject *s, qgc_arena *a, qgc_diag *d) {
    const char *archs[64];
    int n = 0;
    qgc_graph *g;
    qgc_pass_report report;
    qgc_compiled compiled;
    for (int i = 0; i < f.n_archs; i++)
        if (s->every || is_typical(f.archs[i]))
            archs[n++] = qgc_arena_printf(a, "sm_%d", f.archs[i]);
    qgc_pool *pool = qgc_pool_new(0);
    const qgc_compile_options o = {.archs = archs,
                                   .n_archs = n,
                                   .chunk = 64,
                                   .decode_only = s->decode_only,
                                   .cache_folder = f.cache,
                                   .pool = pool};
    qgc_status status = qgc_graph_load(&g, s->path, a, d);
    if (status == QGC_OK)
        status = qgc_passes_run(g, &(qgc_pass_options){.passes = s->passes}, &report, d);
    if (status == QGC_OK)
        status = qgc_compile(g, &o, &compiled, d);
    qgc_pool_drop(pool);
    if (status != QGC_OK)
        fail_msg("%s", qgc_test_printed(a, d));
    return compiled.plan;
}

/* A stack of a few words is an array that is indexed; more is spilled registers. Before sm_90 the persistent kernel of a large model
 * spills some (docs/performance.md). */
static int most_stack(const qgc_plan_kernel *k, const char *arch) {
    return is_persistent(k) && qgc_arch_number(arch) < 90 ? 160 : 64;
}

/* All faults are printed before the test fails. */
static void check(subject s) {
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a);
    const qgc_plan *p = compile(&s, a, &d);
    int n_faults = 0, most = 0, stack = 0;
    for (size_t i = 0; i < p->n_images; i++) {
        const qgc_plan_kernel *k = &p->kernels[p->images[i].kernel];
        const char *arch = p->archs[p->images[i].arch];
        cubin_facts facts;
        if (!cubin_read(p->images[i].data, p->images[i].bytes, k->entry, &facts))
            fail_msg("%s for %s: no kernel \"%s\"", k->name, arch, k->entry);
        const char *fault = fault_of(k, &facts, arch);
        if (!fault && facts.stack_bytes > most_stack(k, arch))
            fault = "a large stack";
        most = facts.registers > most ? facts.registers : most;
        stack = facts.stack_bytes > stack ? facts.stack_bytes : stack;
        if (fault && ++n_faults)
            print_error(
                "%s for %s: %s: %d registers, %d threads, %d + %d bytes of shared memory, a stack of %d; %s\n",
                k->name, arch, fault, facts.registers, qgc_kernel_threads(k, arch), facts.shared_bytes,
                qgc_kernel_shared_bytes(k, arch), facts.stack_bytes, k->options);
    }
    print_message("%s: %zu images, at most %d registers, a stack of %d bytes\n", s.path, p->n_images, most,
                  stack);
    assert_true(p->n_images >= 12);
    assert_int_equal(n_faults, 0);
    qgc_arena_drop(a);
}

static void node_by_node(void **state) {
    (void)state;
    check((subject){.path = "models/tiny/tiny.yaml", .passes = "", .decode_only = true});
}

static void fused(void **state) {
    (void)state;
    check((subject){.path = "models/tiny/tiny.yaml", .every = true});
}

/* Wide matrices, a large vocabulary. */
static void of_a_large_model(void **state) {
    (void)state;
    check((subject){.path = "models/qwen2.5-7b.yaml"});
}

/* The reader and the rules see what they are there for. */
static void sees_what_is_too_much(void **state) {
    (void)state;
    const qgc_plan_kernel small = {.name = "x.cu", .threads = 256, .shared_bytes = 1000},
                          wide = {.name = "x.cu", .threads = 1024},
                          ring = {.name = "persistent.cu",
                                  .threads = 480,
                                  .copy_threads = 32,
                                  .shared_bytes = 232448,
                                  .least_shared_bytes = 84480},
                          wide_ring = {.name = "persistent.cu", .threads = 512, .shared_bytes = 232448},
                          large = {.name = "x.cu", .threads = 512, .shared_bytes = 70000};
    const cubin_facts plain = {.registers = 64, .shared_bytes = 1000}, many = {.registers = 65},
                      bound = {.registers = 32, .threads = 128},
                      room = {.registers = 32, .shared_bytes = 49153};
    assert_null(fault_of(&small, &plain, "sm_75"));
    assert_null(fault_of(&wide, &plain, "sm_90"));
    assert_string_equal(fault_of(&wide, &many, "sm_90"), "too many registers");
    assert_string_equal(fault_of(&small, &bound, "sm_90"), "too many threads");
    assert_string_equal(fault_of(&small, &room, "sm_90"), "too much static shared memory");
    assert_string_equal(fault_of(&large, &plain, "sm_75"), "too much shared memory");
    assert_null(fault_of(&large, &plain, "sm_86"));
    const cubin_facts full = {.registers = 128, .threads = 512}, fuller = {.registers = 136},
                      fewer = {.registers = 128, .threads = 480};
    assert_null(fault_of(&ring, &full, "sm_80"));
    assert_null(fault_of(&ring, &full, "sm_75")); /* whose GPUs do not have the mode */
    assert_string_equal(fault_of(&ring, &fuller, "sm_80"), "too many registers");
    assert_null(fault_of(&ring, &fuller, "sm_90")); /* a warp less */
    assert_string_equal(fault_of(&ring, &fewer, "sm_86"), "too many threads");
    assert_string_equal(fault_of(&ring, &plain, "sm_89"), "too much shared memory"); /* some of it static */
    assert_null(fault_of(&wide_ring, &full, "sm_80"));
    assert_string_equal(fault_of(&wide_ring, &plain, "sm_90"), "too much shared memory");
    cubin_facts facts;
    assert_false(cubin_read("\177ELF", 4, "x", &facts));
}

static int start(void **state) {
    (void)state;
    const int *archs;
    qgc_nvrtc *nvrtc;
    f.arena = qgc_arena_new();
    qgc_diag d = qgc_diag_new(f.arena);
    f.folder = qgc_test_folder(f.arena);
    f.cache = qgc_test_cache(f.folder);
    if (qgc_nvrtc_open(&nvrtc, NULL, &d) != QGC_OK)
        return 0;
    const int n = qgc_nvrtc_archs(nvrtc, &archs);
    for (int i = 0; i < n && f.n_archs < QGC_MAX_ARCHS; i++)
        if (archs[i] >= FIRST_ARCH)
            f.archs[f.n_archs++] = archs[i];
    qgc_nvrtc_close(nvrtc);
    return 0;
}

static int stop(void **state) {
    (void)state;
    qgc_test_folder_drop(f.arena, f.folder);
    qgc_arena_drop(f.arena);
    return 0;
}

int main(void) {
    const struct CMUnitTest all[] = {
        cmocka_unit_test(sees_what_is_too_much),
        cmocka_unit_test(node_by_node),
        cmocka_unit_test(fused),
        cmocka_unit_test(of_a_large_model),
    };
    const struct CMUnitTest rules[] = {cmocka_unit_test(sees_what_is_too_much)};
    start(NULL);
    const int failed =
        f.n_archs ? cmocka_run_group_tests(all, NULL, stop) : cmocka_run_group_tests(rules, NULL, stop);
    if (!f.n_archs)
        print_message("skipped: no NVRTC\n");
    return failed;
}
