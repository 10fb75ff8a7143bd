/* A prompt in chunks in persistent mode, from the stream of the persistent step, against the same in graph mode, by cuBLAS from the weights
 * as they are stored; and how long it takes. */

#include <stdlib.h>
#include <string.h>

#include "graph/base/times.h"
#include "runtime/lab/random_weights.h"
#include "runtime/session.h"
#include "tests/support/cmocka.h"
#include "tests/support/golden.h"
#include "tests/support/gpu_model.h"

enum { CHUNK = 512, LONG = 2048, CTX = 2200 };

/* QGC_PREFILL_CHUNK is another size of chunks. */
static int chunk_size(void) {
    const char *other = getenv("QGC_PREFILL_CHUNK");
    const int n = other ? atoi(other) : CHUNK; // NOLINT(cert-err34-c)
    assert_true(n > 0 && n <= CTX);
    return n;
}

typedef gpu_model fixture;

static void open_model(fixture *f, const char *name, const char *types) {
    gpu_model_begin(f, name);
    must(f, qgc_random_weights_open(&f->weights, f->graph, types, 7, &f->diag));
    gpu_model_rewrite(f, NULL);
    gpu_model_load(f, (qgc_compile_options){.chunk = chunk_size()}, &(qgc_program_options){.later = true});
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

static const char *file_of(const fixture *f, const qgc_plan_launch *l) {
    return l->kernel < 0 ? "cuBLAS" : f->plan->kernels[l->kernel].name;
}

/* Marks launches of the same kernel for the same node of each layer as that of launch i; how many, 0 if i is not the first. */
static int mark_kind(const fixture *f, const qgc_phase *p, size_t i, bool *wanted) {
    const qgc_plan_launch *l = &p->launches[i];
    const size_t stem = strcspn(l->node, "[");
    int n = 0;
    for (size_t k = 0; k < p->n_launches; k++) {
        const qgc_plan_launch *other = &p->launches[k];
        wanted[k] = strcmp(file_of(f, l), file_of(f, other)) == 0 && strcspn(other->node, "[") == stem &&
                    strncmp(other->node, l->node, stem) == 0;
        if (k < i && wanted[k])
            return 0;
        n += wanted[k];
    }
    return n;
}

/* What each sort of kernel takes of a chunk of so many tokens. */
static void print_times(fixture *f, qgc_session *s, const char *name, int tokens, float *logits) {
    const qgc_phase_kind phase = qgc_session_prefill_phase(s, tokens);
    const qgc_phase *p = &f->plan->phases[phase];
    bool *wanted = qgc_arena_array(f->arena, p->n_launches, sizeof *wanted);
    double all, us;
    if (tokens > qgc_session_largest_chunk(s))
        return;
    feed(f, s, tokens, logits); /* so that the times are of the first positions */
    must(f, qgc_session_time_prefill(s, tokens, NULL, 5, &all, &f->diag));
    print_message("%s, %s: %d tokens in %.0f us, %zu launches\n", name, qgc_phase_name(phase), tokens, all,
                  p->n_launches);
    for (size_t i = 0; i < p->n_launches; i++) {
        const qgc_plan_launch *l = &p->launches[i];
        const int n = mark_kind(f, p, i, wanted);
        if (n == 0)
            continue;
        must(f, qgc_session_time_prefill(s, tokens, wanted, 5, &us, &f->diag));
        const double flops = 2.0 * tokens * (double)(l->weight_bytes / 2) * n;
        print_message("  %8.1f us  %4d x %-18s %-.*s  %.0f TFLOP/s  %s\n", us, n, file_of(f, l),
                      (int)strcspn(l->node, "["), l->node, flops / us * 1e-6,
                      l->kernel < 0 ? "" : f->plan->kernels[l->kernel].options);
    }
}

/* Prompts as a user waits for them, the host included: the best of five. */
static void print_prompts(fixture *f, qgc_session *s, const char *name, float *logits) {
    static const int64_t tokens[] = {128, 512, 1024, 2048};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        double best = 0;
        for (int k = 0; k < 5; k++) {
            const double start = qgc_seconds();
            feed(f, s, tokens[i], logits);
            const double took = qgc_seconds() - start;
            best = best == 0 || took < best ? took : best;
        }
        print_message("%s, %s: prompt of %lld tokens in %.2f ms, with its logits read\n", name,
                      qgc_phase_name(qgc_session_prefill_phase(s, tokens[i])), (long long)tokens[i],
                      1e3 * best);
    }
}

static void print_all_times(fixture *f, qgc_session *s, const char *name, float *logits) {
    print_prompts(f, s, name, logits);
    print_times(f, s, name, chunk_size(), logits);
    print_times(f, s, name, LONG, logits);
}

static void compare(const char *name, const char *types, double tolerance) {
    static const int64_t tokens[] = {1, 7, 64, 100, 200, 512, 513, 600, 1100, LONG, LONG + 100};
    fixture f;
    open_model(&f, name, types);
    if (!gpu_test_runs(f.program, QGC_MODE_PERSISTENT, f.arena)) {
        gpu_model_close(&f);
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
        print_message("%s%s%s, %lld tokens: logits differ by %.1e of the largest\n", name,
                      types ? " in " : "", types ? types : "", (long long)tokens[i], by);
        assert_true(by <= tolerance);
        assert_memory_equal(got, again, bytes);
    }
    if (getenv("QGC_TIMES"))
        print_all_times(&f, packed, name, got), print_all_times(&f, graph, name, got);
    qgc_session_drop(packed);
    qgc_session_drop(graph);
    gpu_model_close(&f);
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

/* Each format by itself, in rows of several chunks, and several formats in one layer. */
static void block_formats(void **state) {
    (void)state;
    static const char *const types[] = {"q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        compare("tests/gpu/shapes/blocks-two-chunks", types[i], 2e-2);
    compare("tests/gpu/shapes/blocks", "q4_k_m", 2e-2);
    compare("tests/gpu/shapes/blocks-wide-v", "q4_k_m", 2e-2);
}

static void the_half_billion(void **state) {
    (void)state;
    compare("models/qwen2.5-0.5b", NULL, 2e-2);
    compare("models/qwen2.5-0.5b", "q4_k_m", 2e-2);
}

/* The argument is the name of one test, to run it alone. */
int main(int argc, char **argv) {
    gpu_test_begin(argc > 1 ? argv[1] : NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_models),
        cmocka_unit_test(block_formats),
        cmocka_unit_test(the_half_billion),
        cmocka_unit_test(the_model_that_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
