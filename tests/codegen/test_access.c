/* What launches say that their kernels do with their buffers (qgc_plan_arg.access), against what the kernels do: each is
 * compiled to PTX, in which loads and stores are led back to the parameters that they go through. So a wrong declaration is
 * found, and so is a kernel that reads more before its wait than its launches say. */

#include <dlfcn.h>
#include <string.h>

#include "codegen/kernel_sources.h"
#include "codegen/lower.h"
#include "codegen/nvrtc.h"
#include "graph/base/map.h"
#include "graph/base/pool.h"
#include "graph/base/str.h"
#include "graph/load.h"
#include "passes/passes.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/printed.h"
#include "tests/support/ptx.h"

/* --- kernels to PTX -------------------------------------------------------------------------------------- */

/* The part of NVRTC that qgc does without. */
typedef struct {
    int (*create)(void **program, const char *text, const char *name, int n, const char *const *headers,
                  const char *const *names);
    int (*compile)(void *program, int n, const char *const *options);
    int (*ptx_size)(void *program, size_t *bytes);
    int (*ptx)(void *program, char *text);
    int (*destroy)(void **program);
} ptx_compiler;

static bool find(void *library, const char *name, void *function) {
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

/* False if there is no NVRTC here. */
static bool open_compiler(ptx_compiler *c, qgc_diag *d) {
    qgc_nvrtc *nvrtc;
    if (qgc_nvrtc_open(&nvrtc, NULL, d) != QGC_OK)
        return false;
    void *library = dlopen(qgc_nvrtc_library(nvrtc), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    qgc_nvrtc_close(nvrtc);
    return library && find(library, "nvrtcCreateProgram", &c->create) &&
           find(library, "nvrtcCompileProgram", &c->compile) &&
           find(library, "nvrtcGetPTXSize", &c->ptx_size) && find(library, "nvrtcGetPTX", &c->ptx) &&
           find(library, "nvrtcDestroyProgram", &c->destroy);
}

static const char *source_of(const char *file, const qgc_kernel_source *sources) {
    for (const qgc_kernel_source *s = sources; s->name; s++)
        if (strcmp(s->name, file) == 0)
            return s->text;
    return NULL;
}

/* NULL if it does not compile. */
static const char *to_ptx(const ptx_compiler *c, const qgc_kernel_source *sources, const char *file,
                          const char *const *options, int n_options, qgc_arena *a) {
    enum { MOST = 128 };
    const char *headers[MOST], *names[MOST],
        *all[MOST] = {"--std=c++17", "-default-device", "--fmad=true", "--gpu-architecture=compute_90a"};
    int n_headers = 0, n = 4;
    for (const qgc_kernel_source *s = sources; s->name && n_headers < MOST; s++) {
        headers[n_headers] = s->text;
        names[n_headers++] = s->name;
    }
    for (int i = 0; i < n_options && n < MOST; i++)
        all[n++] = options[i];
    void *program = NULL;
    char *text = NULL;
    size_t bytes;
    if (c->create(&program, source_of(file, sources), file, n_headers, headers, names) != 0)
        return NULL;
    if (c->compile(program, n, all) == 0 && c->ptx_size(program, &bytes) == 0) {
        text = qgc_arena_alloc(a, bytes + 1);
        if (c->ptx(program, text) != 0)
            text = NULL;
    }
    c->destroy(&program);
    return text;
}

/* --- the reader of PTX ----------------------------------------------------------------------------------- */

static const qgc_kernel_source made_up[] = {
    {"made.cu",
     "#define WAIT asm volatile(\"griddepcontrol.wait;\" ::: \"memory\")\n"
     "#define SPIN(i) asm volatile(\"{ .reg .pred p; again: setp.ne.s32 p, %0, 77; @p bra over; bra again;\" \\\n"
     "                             \" over: }\" :: \"r\"(i) : \"memory\")\n"
     "extern \"C\" __global__ void made(const float *early, const float *late, float *out, int *count,\n"
     "                                float *unused, const float *const *addresses, bool again) {\n"
     "    float x = early[threadIdx.x];\n"
     "#ifdef SPINS\n    SPIN(threadIdx.x); out[1] = x; SPIN(threadIdx.y); *count = 1;\n#endif\n"
     "    if (again) WAIT;\n"
     "#ifdef STORES\n    else out[1] = 1.0f;\n    if (!again) WAIT;\n#endif\n"
     "#ifdef LEAKS\n    else return;\n#endif\n"
     "#ifdef RETURNS\n    if (x == 3.0f) return;\n#endif\n"
     "    WAIT;\n"
     "    const float *p = addresses[again];\n"
     "    atomicAdd(count, 1);\n"
     "    for (int i = 0; i < 3 * count[0]; i++) out[i] = x + p[i] + late[i];\n"
     "}\n"},
    {0},
};

static const char *access_text(const int *access, int n, qgc_arena *a) {
    qgc_str text = qgc_str_new(a);
    for (int i = 0; i < n; i++)
        qgc_str_printf(&text, "%s%s%s%s%s%s", i ? " " : "", access[i] ? "" : "-",
                       access[i] & QGC_READS ? "r" : "", access[i] & QGC_WRITES ? "w" : "",
                       access[i] & QGC_EARLY ? "e" : "", access[i] & QGC_FOLLOWS ? "f" : "");
    return text.text;
}

static void check_made_up(const ptx_compiler *c, const char *option, const char *want, bool waits,
                          qgc_arena *a) {
    const char *ptx = to_ptx(c, made_up, "made.cu", &option, 1, a);
    assert_non_null(ptx);
    ptx_effects e = ptx_effects_of(ptx, "made", a);
    assert_true(e.found && !e.hands_on && !e.unclear);
    assert_string_equal(access_text(e.access, 7, a), want);
    assert_int_equal(e.waits, waits);
}

static void the_effects_of_a_kernel_are_read_off_its_ptx(void **state) {
    qgc_arena *a = *state;
    qgc_diag d = qgc_diag_new(a);
    ptx_compiler c;
    if (!open_compiler(&c, &d)) {
        skip();
        return;
    }
    check_made_up(&c, "-DPLAIN", "re r w rw - rf -", true, a);
    check_made_up(&c, "-DSTORES", "re r we rw - rf -", true, a);
    check_made_up(&c, "-DSPINS", "re r we rwe - rf -", true, a); /* two blocks with the same labels */
    check_made_up(&c, "-DLEAKS", "re r w rw - rf -", false, a);
    check_made_up(&c, "-DRETURNS", "re r w rw - rf -", false, a);
}

/* --- the kernels ----------------------------------------------------------------------------------------- */

/* A kernel of some plan, with what its launches say. */
typedef struct {
    const char *file, *entry, *options;
    const qgc_kernel_job *job;
    const qgc_plan_kernel *plan;
    int n_args;
    int declared[QGC_MAX_ARGS]; /* by any launch */
    bool differ;                /* launches do not say the same */
    ptx_effects found;
} kernel;

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    ptx_compiler compiler;
    qgc_map by_name;
    kernel **kernels;
    size_t n;
} collection;

static kernel *kernel_of(collection *all, const qgc_lowered *l, int i, int n_args) {
    const qgc_plan_kernel *k = &l->plan->kernels[i];
    const char *name =
        qgc_arena_printf(all->arena, "%s %s %s", k->name, k->options, k->program ? k->program : "");
    kernel *known = qgc_map_get(&all->by_name, name);
    if (known)
        return known;
    known = qgc_arena_alloc(all->arena, sizeof *known);
    *known = (kernel){.file = k->name,
                      .entry = k->entry,
                      .options = k->options,
                      .job = &l->jobs[i],
                      .plan = k,
                      .n_args = n_args};
    for (int arg = 0; arg < n_args; arg++)
        known->declared[arg] = -1;
    qgc_map_put(&all->by_name, name, known);
    all->kernels = qgc_arena_grow(all->arena, all->kernels, all->n, sizeof(kernel *));
    all->kernels[all->n++] = known;
    return known;
}

typedef enum { WHOLE, TRACED, WITHOUT_PERSISTENT } extent;

static void collect(collection *all, const char *path, const char *passes, extent of) {
    qgc_graph *g;
    qgc_pass_report report;
    qgc_lowered l;
    qgc_diag *d = &all->diag;
    if (qgc_graph_load(&g, path, all->arena, d) != QGC_OK ||
        qgc_passes_run(g, &(qgc_pass_options){.passes = passes}, &report, d) != QGC_OK ||
        qgc_lower(g, &(qgc_lower_options){.chunk = 8, .probe = of == TRACED ? QGC_PROBE_TRACE : 0}, &l, d) !=
            QGC_OK)
        fail_msg("%s", qgc_test_printed(all->arena, d));
    for (int phase = 0; phase < QGC_N_PHASES; phase++)
        for (size_t i = 0; i < l.plan->phases[phase].n_launches; i++) {
            const qgc_plan_launch *launch = &l.plan->phases[phase].launches[i];
            if (launch->kind != QGC_LAUNCH_KERNEL ||
                (phase == QGC_PHASE_PERSISTENT && of == WITHOUT_PERSISTENT))
                continue;
            kernel *k = kernel_of(all, &l, launch->kernel, launch->n_args);
            for (int arg = 0; arg < launch->n_args; arg++) {
                int access = launch->args[arg].access, *known = &k->declared[arg];
                k->differ = k->differ || (*known >= 0 && *known != access);
                *known = *known < 0 ? access : *known | access;
            }
        }
}

/* The kernels, with a program.cuh of its own for one that has it. */
static const qgc_kernel_source *sources_of(const kernel *k, qgc_arena *a) {
    size_t n = 0;
    while (qgc_kernel_sources[n].name)
        n++;
    qgc_kernel_source *sources = qgc_arena_array(a, n + 1, sizeof *sources);
    for (size_t i = 0; i < n; i++) {
        sources[i] = qgc_kernel_sources[i];
        if (k->plan->program && strcmp(sources[i].name, "program.cuh") == 0)
            sources[i].text = k->plan->program;
    }
    return sources;
}

static void compile(void *context, size_t first, size_t last) {
    collection *all = context;
    for (size_t i = first; i < last; i++) {
        kernel *k = all->kernels[i];
        qgc_arena *a = qgc_arena_new();
        const char *ptx =
            to_ptx(&all->compiler, sources_of(k, a), k->file, k->job->options, k->job->n_options, a);
        if (ptx)
            k->found = ptx_effects_of(ptx, k->entry, a);
        if (k->found.unclear)
            k->found.unclear = "an instruction";
        qgc_arena_drop(a);
    }
}

static void must_be(const kernel *k, bool holds, const char *what, qgc_arena *a) {
    if (!holds)
        fail_msg("%s %s: %s\ndeclared  %s\nfound     %s", k->file, k->options, what,
                 access_text(k->declared, k->n_args, a), access_text(k->found.access, k->n_args, a));
}

static qgc_next lets_next(const ptx_effects *e) {
    return e->before_wait       ? QGC_NEXT_BEFORE_WAIT
           : e->lets_next_start ? QGC_NEXT_BEHIND_WAIT
                                : QGC_NEXT_AT_END;
}

static void check_kernel(collection *all, kernel *k) {
    qgc_arena *a = all->arena;
    const bool persistent = strcmp(k->file, "persistent.cu") == 0, pack = strcmp(k->file, "pack.cu") == 0;
    must_be(k, k->found.found, "it does not compile", a);
    must_be(k, k->found.waits == k->plan->waits, "not on every way does it wait", a);
    must_be(k, lets_next(&k->found) == k->plan->lets_next, "it lets the next one start at another time", a);
    must_be(k, pack || !k->differ, "its launches do not agree", a);
    must_be(k, !k->found.unclear, "its PTX is not understood", a);
    must_be(k, !k->found.hands_on, "it hands a pointer to a function", a);
    for (int i = 0; i < k->n_args; i++) {
        int declared = k->declared[i], found = k->found.access[i];
        if (!k->plan->waits) /* all that it does is early */
            found &= ~QGC_EARLY;
        must_be(k, (found & ~declared) == 0, "it does more than is declared", a);
        must_be(k, persistent || declared == found, "more is declared than it does", a);
    }
}

/* Models of several shapes, with all passes and with none; launches of the small one with each pass alone. */
static void launches_declare_what_their_kernels_do(void **state) {
    collection all = {.arena = *state, .diag = qgc_diag_new(*state), .by_name = qgc_map_new(*state)};
    static const char *const paths[] = {
        "models/qwen2.5-0.5b.yaml",       "models/tiny/tiny.yaml",         "tests/gpu/shapes/odd.yaml",
        "tests/gpu/shapes/smallest.yaml", "tests/gpu/shapes/wide.yaml",    "tests/gpu/shapes/tall.yaml",
        "tests/gpu/shapes/gemma.yaml",    "tests/gpu/shapes/experts.yaml", "tests/gpu/shapes/long.yaml"};
    if (!open_compiler(&all.compiler, &all.diag)) {
        skip();
        return;
    }
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        for (int none = 0; none < 2; none++)
            collect(&all, paths[i], none ? "" : NULL, WHOLE);
    collect(&all, "models/qwen2.5-0.5b.yaml", NULL, TRACED);
    for (size_t i = 0; i < qgc_pass_count(); i++)
        collect(&all, "models/tiny/tiny.yaml", qgc_pass_at(i)->name, WITHOUT_PERSISTENT);
    qgc_pool *pool = qgc_pool_new(0);
    qgc_pool_for(pool, all.n, 1, compile, &all);
    qgc_pool_drop(pool);
    assert_true(all.n > 60);
    for (size_t i = 0; i < all.n; i++)
        check_kernel(&all, all.kernels[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(the_effects_of_a_kernel_are_read_off_its_ptx),
        ARENA_TEST(launches_declare_what_their_kernels_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
