/* Any subset of passes is right: small models under many pipelines, in graph and in persistent mode, against transformers. */

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
#include "tests/support/gpu.h"
#include "tests/support/subset.h"

typedef struct {
    const char *name, *graph, *weights, *golden; /* YAML, file or folder, folder */
} model;

#define SMALL(name) \
    { name, "tests/golden/small/" name ".yaml", "tests/golden/small/" name, "tests/golden/small/" name }

static const model models[] = {
    {"tiny", "models/tiny/tiny.yaml", "models/tiny/tiny.gguf", "tests/golden/tiny"},
    SMALL("llama"),
    SMALL("qwen3"),
    SMALL("olmo2"),
};

enum { N_MODELS = sizeof models / sizeof *models };

/* A model in a mode, and what was seen over all pipelines. */
typedef struct {
    const model *model;
    qgc_mode mode;
    qgc_weights *weights;
    golden golden;
    double decode, prefill; /* largest differences of logits */
    size_t fewest, most;    /* launches a step */
    int ties;               /* choices that differ at near ties */
} subject;

static struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_pool *pool;
    qgc_device *device;
    qgc_card card;
    const char *arch, *cache;
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
    must(gpu_test_open(&f.device, &f.diag), "");
    f.arch = qgc_program_arch_for(f.device, f.arena);
    f.card = qgc_card_of_device(f.device, f.arena);
    f.cache = qgc_test_folder(f.arena);
    return 0;
}

static int close_all(void **state) {
    (void)state;
    qgc_device_close(f.device);
    qgc_pool_drop(f.pool);
    qgc_test_folder_drop(f.arena, f.cache);
    qgc_arena_drop(f.arena);
    return 0;
}

enum { CHUNK = 32, CTX = 512, RANDOM = 100, SHUFFLED = 100, FEW = 5, PREFILL_EVERY = 10, AFTER_PREFILL = 4 };
static const double decode_allowed = 2e-3, prefill_allowed = 2e-2; /* as parts of the largest logit */

/* One pipeline of those that a model is run with. */
typedef struct {
    const char *passes;
    bool with_prefill;
} pipeline;

static qgc_status compile_on(const subject *s, const pipeline *p, qgc_pool *pool, qgc_arena *a,
                             qgc_plan **out, qgc_diag *d) {
    qgc_graph *g;
    const qgc_tensor **tensors;
    qgc_pass_report report;
    QGC_TRY(qgc_graph_load(&g, s->model->graph, a, d));
    QGC_TRY(qgc_graph_bind(g, s->weights, false, &tensors, d));
    QGC_TRY(qgc_passes_run(g, &(qgc_pass_options){.passes = p->passes}, &report, d));
    qgc_compile_options options = {.archs = &f.arch,
                                   .n_archs = 1,
                                   .card = &f.card,
                                   .chunk = CHUNK,
                                   .decode_only = !p->with_prefill && s->mode != QGC_MODE_PERSISTENT,
                                   .cache_folder = f.cache,
                                   .pool = pool};
    qgc_compiled compiled;
    QGC_TRY(qgc_compile(g, &options, &compiled, d));
    *out = compiled.plan;
    return QGC_OK;
}

typedef struct {
    const subject *subject;
    const pipeline *pipelines;
} work;

/* Fills the cache of kernels, on all cores: most of the time of a pipeline is that of its persistent kernel. An error comes again
 * when the pipeline's turn has come. */
static void compile_ahead(void *context, size_t first, size_t last) {
    const work *w = context;
    qgc_pool *alone = qgc_pool_new(1);
    for (size_t i = first; i < last; i++) {
        qgc_arena *a = qgc_arena_new();
        qgc_diag d = qgc_diag_new(a);
        qgc_plan *plan;
        if (compile_on(w->subject, &w->pipelines[i], alone, a, &plan, &d) != QGC_OK)
            qgc_diag_print(&d, stderr, false);
        qgc_arena_drop(a);
    }
    qgc_pool_drop(alone);
}

/* A program under one pipeline. */
typedef struct {
    subject *subject;
    const golden_case *c;
    const char *passes;
    qgc_program *program;
    float *logits; /* [vocab] */
} run;

static qgc_session *open_session(const run *r, qgc_prefill prefill) {
    qgc_session *s;
    qgc_session_options o = {.ctx = CTX,
                             .mode = r->subject->mode,
                             .prefill = gpu_test_prefill(f.device, prefill),
                             .sampling = {.top_p = 1, .repeat_penalty = 1}};
    must(qgc_session_new(&s, r->program, &o, &f.diag), r->passes);
    return s;
}

/* Feeds tokens of the prompt from `from` to before `to`; the difference of the logits after the last. */
static double feed(const run *r, qgc_session *s, int32_t from, int32_t to, int32_t *next) {
    const int64_t vocab = r->subject->golden.vocab;
    must(qgc_session_feed(s, r->c->ids + from, to - from, next, &f.diag), r->passes);
    must(qgc_session_logits(s, r->logits, &f.diag), r->passes);
    return golden_difference(r->logits, r->c->logits + (to - 1) * vocab, vocab);
}

/* The greedy answer, `next` being the first token of it. After a near tie it goes on with the token of transformers. */
static void compare_answer(const run *r, qgc_session *s, int32_t next) {
    const golden_case *c = r->c;
    for (int32_t k = 0; k < c->n_new; k++) {
        const bool same = next == c->new_ids[k];
        if (!same && !golden_near_tie(&r->subject->golden, c, k, decode_allowed))
            fail_msg("with passes \"%s\": token %d is %d, expected %d", r->passes, k, next, c->new_ids[k]);
        r->subject->ties += !same;
        if (k + 1 == c->n_new)
            break;
        if (same)
            must(qgc_session_step(s, &next, &f.diag), r->passes);
        else
            must(qgc_session_feed(s, &c->new_ids[k], 1, &next, &f.diag), r->passes);
    }
}

/* Logits after each token of a prompt by decode steps, and the greedy answer. */
static double decode_difference(const run *r) {
    qgc_session *s = open_session(r, QGC_PREFILL_STEPS);
    double worst = 0;
    int32_t next = -1;
    for (int32_t t = 0; t < r->c->n_ids; t++) {
        double here = feed(r, s, t, t + 1, &next);
        worst = here > worst ? here : worst;
    }
    compare_answer(r, s, next);
    qgc_session_drop(s);
    return worst;
}

/* The prompt by chunks, but for its end: that goes through decode steps, which read the caches that the chunks wrote. */
static double prefill_difference(const run *r) {
    qgc_session *s = open_session(r, QGC_PREFILL_CHUNKS);
    int32_t next, first = r->c->n_ids - AFTER_PREFILL;
    double worst = feed(r, s, 0, first, &next);
    qgc_session_drop(s);
    s = open_session(r, QGC_PREFILL_CHUNKS);
    must(qgc_session_feed(s, r->c->ids, first, &next, &f.diag), r->passes);
    for (int32_t t = first; t < r->c->n_ids; t++) {
        double here = feed(r, s, t, t + 1, &next);
        worst = here > worst ? here : worst;
    }
    qgc_session_drop(s);
    return worst;
}

/* False if the card cannot run the mode; a plan without a persistent phase is a failure. */
static bool compare(subject *s, const pipeline *p, qgc_arena *a) {
    const bool persistent = s->mode == QGC_MODE_PERSISTENT, with_prefill = p->with_prefill;
    const char *passes = p->passes;
    qgc_plan *plan;
    must(compile_on(s, p, f.pool, a, &plan, &f.diag), passes);
    if (persistent && plan->not_persistent)
        fail_msg("with passes \"%s\": not persistent: %s", passes, plan->not_persistent);
    run r = {.subject = s, .c = &s->golden.cases[s->golden.n_cases - 1], .passes = passes};
    r.logits = qgc_arena_array(a, (size_t)s->golden.vocab, sizeof *r.logits);
    must(qgc_program_load(&r.program, plan, f.device, s->weights, f.pool, &(qgc_program_options){0}, &f.diag),
         passes);
    if (!gpu_test_runs(r.program, s->mode, a)) {
        qgc_program_drop(r.program);
        return false;
    }
    double decode = decode_difference(&r), prefill = with_prefill ? prefill_difference(&r) : 0;
    qgc_program_drop(r.program);
    if (!(decode <= decode_allowed) || !(prefill <= prefill_allowed))
        fail_msg("with passes \"%s\": logits differ by %g, by %g after a prefill", passes, decode, prefill);
    s->decode = decode > s->decode ? decode : s->decode;
    s->prefill = prefill > s->prefill ? prefill : s->prefill;
    size_t launches = plan->phases[persistent ? QGC_PHASE_PERSISTENT : QGC_PHASE_DECODE].n_launches;
    s->fewest = launches < s->fewest ? launches : s->fewest;
    s->most = launches > s->most ? launches : s->most;
    return true;
}

static void print_seen(const subject *s, unsigned n) {
    print_message(
        "%s: %u pipelines of %zu passes, %zu to %zu launches a step; logits differ by at most %.2e, "
        "by %.2e after a prefill; %d choices differ at near ties\n",
        s->model->name, n, qgc_pass_count(), s->fewest, s->most, s->decode, s->prefill, s->ties);
}

/* None, all, each pass by itself, each left out, then random subsets, the last of them in random orders.
 * Chunks of a prompt take other kernels: those are checked with all pipelines that are not random, and
 * with some that are. */
static void any_subset_gives_the_same(const model *m, qgc_mode mode) {
    subject s = {.model = m, .mode = mode, .golden = golden_read(f.arena, m->golden), .fewest = SIZE_MAX};
    const golden_case *c = &s.golden.cases[s.golden.n_cases - 1]; /* the longest prompt */
    assert_true(c->n_new >= 40 && c->n_ids > AFTER_PREFILL && c->n_ids + c->n_new <= CTX);
    must(qgc_weights_open(&s.weights, m->weights, &f.diag), "");
    const unsigned chosen = test_chosen_pipelines();
    const unsigned random = gpu_test_card() ? FEW : RANDOM,
                   n = chosen + random + (gpu_test_card() ? FEW : SHUFFLED);
    uint64_t seed = 1;
    pipeline *pipelines = qgc_arena_array(f.arena, n, sizeof *pipelines);
    for (unsigned i = 0; i < n; i++)
        pipelines[i] = (pipeline){test_pipeline(f.arena, i, chosen + random, &seed),
                                  i < chosen || i % PREFILL_EVERY == 0};
    qgc_pool_for(f.pool, n, 1, compile_ahead, &(work){&s, pipelines});
    bool runs = true;
    for (unsigned i = 0; i < n && runs; i++) {
        qgc_arena *a = qgc_arena_new();
        runs = compare(&s, &pipelines[i], a);
        qgc_arena_drop(a);
    }
    qgc_weights_close(s.weights);
    if (runs)
        print_seen(&s, n);
}

static void graph_mode(void **state) {
    any_subset_gives_the_same(*state, QGC_MODE_GRAPH);
}

static void persistent_mode(void **state) {
    any_subset_gives_the_same(*state, QGC_MODE_PERSISTENT);
}

/* usage: test_gpu_passes [PATTERN of the tests to run, "qwen3*"] */
int main(int argc, char **argv) {
    gpu_test_begin(argc > 1 ? argv[1] : NULL);
    qgc_arena *a = qgc_arena_new();
    struct CMUnitTest tests[2 * N_MODELS];
    for (size_t i = 0; i < N_MODELS; i++) {
        const char *name = models[i].name;
        tests[2 * i] = (struct CMUnitTest){qgc_arena_printf(a, "%s_under_any_subset_in_graph_mode", name),
                                           graph_mode, NULL, NULL, NULL};
        tests[2 * i + 1] =
            (struct CMUnitTest){qgc_arena_printf(a, "%s_under_any_subset_in_persistent_mode", name),
                                persistent_mode, NULL, NULL, NULL};
        tests[2 * i].initial_state = tests[2 * i + 1].initial_state = (void *)(uintptr_t)&models[i];
    }
    int failed = cmocka_run_group_tests(tests, open_all, close_all);
    qgc_arena_drop(a);
    return failed;
}
