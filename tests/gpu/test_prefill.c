/* A prompt in chunks in persistent mode, from the stream of the persistent step, against the same in graph mode, by cuBLAS from the weights
 * as they are stored; and how long it takes. */

#include <stdlib.h>
#include <string.h>

#include "codegen/compile.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "passes/passes.h"
#include "runtime/lab/random_weights.h"
#include "runtime/session.h"
#include "tests/support/cmocka.h"
#include "tests/support/golden.h"
#include "tests/support/gpu.h"

enum { CHUNK = 512, CTX = 2200 };

/* QGC_PREFILL_CHUNK is another size of chunks. */
static int chunk_size(void) {
    const char *other = getenv("QGC_PREFILL_CHUNK");
    const int n = other ? atoi(other) : CHUNK; // NOLINT(cert-err34-c)
    assert_true(n > 0 && n <= CTX);
    return n;
}

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_pool *pool;
    qgc_graph *graph;
    qgc_weights *weights;
    qgc_device *device;
    qgc_program *program;
    const qgc_plan *plan;
} fixture;

static void must(fixture *f, qgc_status status) {
    if (status != QGC_OK) {
        qgc_diag_print(&f->diag, stderr, false);
        fail();
    }
}

static void open_model(fixture *f, const char *name, const char *types) {
    *f = (fixture){.arena = qgc_arena_new()};
    f->diag = qgc_diag_new(f->arena);
    f->pool = qgc_pool_new(0);
    qgc_diag *d = &f->diag;
    const qgc_tensor **tensors;
    qgc_pass_report report;
    qgc_compiled compiled;
    must(f, qgc_graph_load(&f->graph, qgc_arena_printf(f->arena, "%s.yaml", name), f->arena, d));
    must(f, qgc_random_weights_open(&f->weights, f->graph, types, 7, d));
    must(f, qgc_graph_bind(f->graph, f->weights, false, &tensors, d));
    must(f, qgc_passes_run(f->graph, &(qgc_pass_options){0}, &report, d));
    must(f, gpu_test_open(&f->device, d));
    const char *arch = qgc_program_arch_for(f->device, f->arena);
    const qgc_card card = qgc_card_of_device(f->device, f->arena);
    qgc_compile_options options = {.archs = &arch,
                                   .n_archs = 1,
                                   .chunk = chunk_size(),
                                   .card = &card,
                                   .no_cache = true,
                                   .pool = f->pool};
    must(f, qgc_compile(f->graph, &options, &compiled, d));
    f->plan = compiled.plan;
    must(f, qgc_program_load(&f->program, f->plan, f->device, f->weights, f->pool,
                             &(qgc_program_options){.later = true}, d));
}

static void close_model(fixture *f) {
    qgc_program_drop(f->program);
    qgc_device_close(f->device);
    qgc_weights_close(f->weights);
    qgc_pool_drop(f->pool);
    qgc_arena_drop(f->arena);
}

static qgc_session *session(fixture *f, qgc_mode mode) {
    qgc_session *s;
    qgc_session_options o = {.ctx = CTX,
                             .mode = mode,
                             .prefill = mode == QGC_MODE_PERSISTENT ? QGC_PREFILL_PACKED : QGC_PREFILL_CHUNKS,
                             .sampling = {.top_p = 1, .repeat_penalty = 1}};
    must(f, qgc_session_new(&s, f->program, &o, &f->diag));
    return s;
}

static void feed(fixture *f, qgc_session *s, int64_t n, float *logits) {
    int32_t tokens[CTX], next;
    for (int i = 0; i < n; i++)
        tokens[i] = (int32_t)((i * 7919 + 13) % f->plan->vocab);
    must(f, qgc_session_reset(s, &f->diag));
    must(f, qgc_session_feed(s, tokens, n, &next, &f->diag));
    must(f, qgc_session_logits(s, logits, &f->diag));
}

/* What each sort of kernel takes of a chunk. */
static void print_times(fixture *f, qgc_session *s, const char *name) {
    const qgc_phase *p = &f->plan->phases[qgc_session_prefill_phase(s)];
    bool *wanted = qgc_arena_array(f->arena, p->n_launches, sizeof *wanted);
    const int chunk = chunk_size();
    double all, us;
    must(f, qgc_session_time_prefill(s, chunk, NULL, 5, &all, &f->diag));
    print_message("%s, %s: %d tokens in %.0f us, %zu launches\n", name,
                  qgc_phase_name(qgc_session_prefill_phase(s)), chunk, all, p->n_launches);
    for (size_t i = 0; i < p->n_launches; i++) {
        const char *file =
            p->launches[i].kernel < 0 ? "cuBLAS" : f->plan->kernels[p->launches[i].kernel].name;
        const size_t stem = strcspn(p->launches[i].node, "[");
        bool first = true;
        int n = 0;
        for (size_t k = 0; k < p->n_launches; k++) {
            const char *other =
                p->launches[k].kernel < 0 ? "cuBLAS" : f->plan->kernels[p->launches[k].kernel].name;
            wanted[k] = strcmp(file, other) == 0 && strcspn(p->launches[k].node, "[") == stem &&
                        strncmp(p->launches[k].node, p->launches[i].node, stem) == 0;
            first = first && (k >= i || !wanted[k]);
            n += wanted[k];
        }
        if (!first)
            continue;
        must(f, qgc_session_time_prefill(s, chunk, wanted, 5, &us, &f->diag));
        const qgc_plan_launch *l = &p->launches[i];
        const double flops = 2.0 * chunk * (double)(l->weight_bytes / 2) * n;
        print_message("  %8.1f us  %4d x %-18s %-.*s", us, n, file, (int)stem, l->node);
        print_message(l->weight_bytes ? "  %.0f TFLOP/s\n" : "\n", flops / us * 1e-6);
    }
}

static void compare(const char *name, const char *types, double tolerance) {
    static const int64_t tokens[] = {1, 7, 64, 100, 200, 512, 513, 600};
    fixture f;
    open_model(&f, name, types);
    if (!gpu_test_runs(f.program, QGC_MODE_PERSISTENT, f.arena)) {
        close_model(&f);
        return;
    }
    qgc_session *packed = session(&f, QGC_MODE_PERSISTENT), *graph = session(&f, QGC_MODE_GRAPH);
    const size_t bytes = (size_t)f.plan->vocab * sizeof(float);
    float *want = qgc_arena_alloc(f.arena, bytes), *got = qgc_arena_alloc(f.arena, bytes),
          *again = qgc_arena_alloc(f.arena, bytes);
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        feed(&f, graph, tokens[i], want);
        feed(&f, packed, tokens[i], got);
        feed(&f, packed, tokens[i], again);
        const double by = golden_difference(got, want, f.plan->vocab);
        print_message("%s, %lld tokens: logits differ by %.1e of the largest\n", name, (long long)tokens[i],
                      by);
        assert_true(by <= tolerance);
        assert_memory_equal(got, again, bytes);
    }
    if (getenv("QGC_TIMES"))
        print_times(&f, packed, name), print_times(&f, graph, name);
    qgc_session_drop(packed);
    qgc_session_drop(graph);
    close_model(&f);
}

/* QGC_PREFILL_OF names the graph of another model, without ".yaml", for its times, and QGC_PREFILL_TYPES types of its weights. */
static void the_model_that_is_named(void **state) {
    (void)state;
    if (getenv("QGC_PREFILL_OF"))
        compare(getenv("QGC_PREFILL_OF"), getenv("QGC_PREFILL_TYPES"), 2e-2);
}

static void small_models(void **state) {
    (void)state;
    compare("tests/gpu/shapes/halves", NULL, 2e-2);
    compare("tests/gpu/shapes/broad", NULL, 2e-2);
    compare("tests/gpu/shapes/gemma", NULL, 2e-2);
}

static void the_half_billion(void **state) {
    (void)state;
    compare("models/qwen2.5-0.5b", NULL, 2e-2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_models),
        cmocka_unit_test(the_half_billion),
        cmocka_unit_test(the_model_that_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
