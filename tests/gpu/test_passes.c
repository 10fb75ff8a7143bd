/* Any subset of passes is right: the tiny model under many pipelines, against transformers. */

#include <stdio.h>
#include <string.h>

#include "codegen/compile.h"
#include "graph/load.h"
#include "models/weights.h"
#include "passes/bind_weights.h"
#include "passes/passes.h"
#include "runtime/session.h"
#include "tests/support/cmocka.h"
#include "tests/support/folder.h"
#include "tests/support/golden.h"
#include "tests/support/subset.h"

static struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_pool *pool;
    qgc_weights *weights;
    qgc_device *device;
    const char *arch, *cache;
    golden golden;
} f;

static void must(qgc_status status, const char *passes) {
    if (status != QGC_OK) {
        print_error("with passes \"%s\":\n", passes);
        qgc_diag_print(&f.diag, stderr, false);
        fail();
    }
}

static int open_all(void **state) {
    (void)state;
    f.arena = qgc_arena_new();
    f.diag = qgc_diag_new(f.arena);
    f.pool = qgc_pool_new(0);
    f.golden = golden_read(f.arena, "tests/golden/tiny");
    must(qgc_weights_open(&f.weights, "models/tiny/tiny.gguf", &f.diag), "");
    must(qgc_device_open(&f.device, 0, &f.diag), "");
    f.arch = qgc_program_arch_for(f.device, f.arena);
    f.cache = qgc_test_folder(f.arena);
    return 0;
}

static int close_all(void **state) {
    (void)state;
    qgc_device_close(f.device);
    qgc_weights_close(f.weights);
    qgc_pool_drop(f.pool);
    qgc_test_folder_drop(f.arena, f.cache);
    qgc_arena_drop(f.arena);
    return 0;
}

enum { CHUNK = 32, CTX = 512, NEW = 64, RANDOM = 100, SHUFFLED = 100, PREFILL_EVERY = 10 };

static qgc_plan *compile(const char *passes, bool decode_only, qgc_arena *a) {
    qgc_graph *g;
    const qgc_tensor **tensors;
    qgc_pass_report report;
    must(qgc_graph_load(&g, "models/tiny/tiny.yaml", a, &f.diag), passes);
    must(qgc_graph_bind(g, f.weights, false, &tensors, &f.diag), passes);
    must(qgc_passes_run(g, &(qgc_pass_options){.passes = passes}, &report, &f.diag), passes);
    qgc_compile_options options = {.archs = &f.arch,
                                   .n_archs = 1,
                                   .chunk = CHUNK,
                                   .decode_only = decode_only,
                                   .cache_folder = f.cache,
                                   .pool = f.pool};
    qgc_compiled compiled;
    must(qgc_compile(g, &options, &compiled, &f.diag), passes);
    return compiled.plan;
}

static qgc_session *open_session(qgc_program *p, qgc_prefill prefill, const char *passes) {
    qgc_session *s;
    qgc_session_options o = {.ctx = CTX,
                             .mode = QGC_MODE_GRAPH,
                             .prefill = prefill,
                             .sampling = {.top_p = 1, .repeat_penalty = 1}};
    must(qgc_session_new(&s, p, &o, &f.diag), passes);
    return s;
}

/* Logits behind each token of a prompt by decode steps; and the greedy answer is that of transformers,
 * which is the CPU evaluator's too (tests/passes/test_golden.c). */
static double decode_difference(qgc_program *p, const golden_case *c, const char *passes, qgc_arena *a) {
    float *got = qgc_arena_array(a, (size_t)f.golden.vocab, sizeof *got);
    qgc_session *s = open_session(p, QGC_PREFILL_STEPS, passes);
    double worst = 0;
    int32_t next = -1;
    for (int32_t t = 0; t < c->n_ids; t++) {
        must(qgc_session_feed(s, &c->ids[t], 1, &next, &f.diag), passes);
        must(qgc_session_logits(s, got, &f.diag), passes);
        double here = golden_difference(got, c->logits + (int64_t)t * f.golden.vocab, f.golden.vocab);
        worst = here > worst ? here : worst;
    }
    for (int32_t k = 0; k < c->n_new; k++) {
        if (next != c->new_ids[k])
            print_error("with passes \"%s\": token %d is %d, expected %d\n", passes, k, next, c->new_ids[k]);
        assert_int_equal(next, c->new_ids[k]);
        if (k + 1 < c->n_new)
            must(qgc_session_step(s, &next, &f.diag), passes);
    }
    qgc_session_drop(s);
    return worst;
}

/* The logits behind the whole prompt, by chunks. */
static double prefill_difference(qgc_program *p, const golden_case *c, const char *passes, qgc_arena *a) {
    float *got = qgc_arena_array(a, (size_t)f.golden.vocab, sizeof *got);
    qgc_session *s = open_session(p, QGC_PREFILL_CHUNKS, passes);
    int32_t next;
    must(qgc_session_feed(s, c->ids, c->n_ids, &next, &f.diag), passes);
    must(qgc_session_logits(s, got, &f.diag), passes);
    qgc_session_drop(s);
    return golden_difference(got, c->logits + (int64_t)(c->n_ids - 1) * f.golden.vocab, f.golden.vocab);
}

/* What was seen over all pipelines. */
typedef struct {
    double decode, prefill; /* largest differences of logits */
    size_t fewest, most;    /* launches a step */
} seen;

static void compare(const char *passes, bool with_prefill, const golden_case *c, seen *s, qgc_arena *a) {
    qgc_plan *plan = compile(passes, !with_prefill, a);
    qgc_program *p;
    must(qgc_program_load(&p, plan, f.device, f.weights, f.pool, &(qgc_program_options){0}, &f.diag), passes);
    double decode = decode_difference(p, c, passes, a);
    double prefill = with_prefill ? prefill_difference(p, c, passes, a) : 0;
    qgc_program_drop(p);
    if (!(decode <= 2e-3) || !(prefill <= 2e-2))
        fail_msg("with passes \"%s\": logits differ by %g, by %g behind a prefill", passes, decode, prefill);
    s->decode = decode > s->decode ? decode : s->decode;
    s->prefill = prefill > s->prefill ? prefill : s->prefill;
    size_t launches = plan->phases[QGC_PHASE_DECODE].n_launches;
    s->fewest = launches < s->fewest ? launches : s->fewest;
    s->most = launches > s->most ? launches : s->most;
}

/* None, all, each pass by itself, each left out, then random subsets, the last of them in random orders.
 * Chunks of a prompt take other kernels: those are checked with all pipelines that are not random, and
 * with some that are. */
static void any_subset_in_any_order_gives_the_same_text(void **state) {
    (void)state;
    const golden_case *c = &f.golden.cases[f.golden.n_cases - 1]; /* the longest prompt */
    const unsigned chosen = test_chosen_pipelines(), n = chosen + RANDOM + SHUFFLED;
    assert_true(c->n_new >= NEW && c->n_ids + c->n_new <= CTX);
    seen s = {.fewest = SIZE_MAX};
    uint64_t seed = 1;
    for (unsigned i = 0; i < n; i++) {
        qgc_arena *a = qgc_arena_new();
        const char *passes = test_pipeline(a, i, chosen + RANDOM, &seed);
        compare(passes, i < chosen || i % PREFILL_EVERY == 0, c, &s, a);
        qgc_arena_drop(a);
    }
    print_message("%u pipelines of %zu passes, %zu to %zu launches a step; logits differ by at most %.2e, by "
                  "%.2e behind a prefill\n",
                  n, qgc_pass_count(), s.fewest, s.most, s.decode, s.prefill);
}

int main(void) {
    if (!qgc_device_present()) {
        print_message("skipped: no GPU\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_subset_in_any_order_gives_the_same_text),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
