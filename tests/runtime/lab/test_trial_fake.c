/* Trials on a fake device, against the CPU. */

#include <math.h>
#include <string.h>

#include "graph/load.h"
#include "passes/bind_weights.h"
#include "passes/passes.h"
#include "runtime/lab/ablate.h"
#include "runtime/lab/random_weights.h"
#include "runtime/lab/search.h"
#include "runtime/lab/trial.h"
#include "tests/support/cmocka.h"
#include "tests/support/fake_toy.h"
#include "tests/support/folder.h"
#include "tests/support/printed.h"
#include "tests/support/text.h"

enum { CTX = 64 };

/* --- fixture --------------------------------------------------------------------------------------------- */

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    const char *folder;
    qgc_pool *pool;
    qgc_device *dev;
    qgc_weights *weights;
    qgc_graph *graph; /* of the last trial */
    qgc_trial *trials[3];
} fixture;

static void ok(fixture *f, qgc_status s) {
    if (s != QGC_OK)
        fail_msg("%s", qgc_test_printed(f->arena, &f->diag));
}

static qgc_graph *load(fixture *f) {
    qgc_graph *g;
    ok(f, qgc_graph_load_text(&g, "toy.yaml", toy_model, strlen(toy_model), f->arena, &f->diag));
    return g;
}

static int setup(void **state) {
    qgc_arena *arena = qgc_arena_new();
    fixture *f = qgc_arena_alloc(arena, sizeof *f);
    *f = (fixture){.arena = arena,
                   .diag = qgc_diag_new(arena),
                   .folder = qgc_test_folder(arena),
                   .pool = qgc_pool_new(1),
                   .dev = fake_device_new(toy_kernels)};
    const char *path = qgc_test_path(arena, f->folder, "toy.gguf");
    ok(f, qgc_random_weights_write(load(f), path, 1, &f->diag));
    ok(f, qgc_weights_open(&f->weights, path, &f->diag));
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    for (int i = 2; i >= 0; i--)
        qgc_trial_drop(f->trials[i]);
    int held = fake_device_held(f->dev);
    qgc_device_close(f->dev);
    qgc_weights_close(f->weights);
    qgc_pool_drop(f->pool);
    qgc_test_folder_drop(f->arena, f->folder);
    qgc_arena_drop(f->arena);
    return held; /* everything must have been given back */
}

static qgc_trial *begin(fixture *f, int i, const char *passes, qgc_trial_options o) {
    const qgc_tensor **tensors;
    qgc_pass_report report;
    f->graph = load(f);
    ok(f, qgc_graph_bind(f->graph, f->weights, false, &tensors, &f->diag));
    ok(f, qgc_passes_run(f->graph, &(qgc_pass_options){.passes = passes}, &report, &f->diag));
    o.ctx = CTX;
    o.pool = f->pool;
    o.cache_folder = toy_cache.folder;
    ok(f, qgc_trial_new(&f->trials[i], f->graph, f->weights, tensors, &o, &f->diag));
    return f->trials[i];
}

static void assert_near(const float *got, const float *want, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabsf(got[i] - want[i]) <= 1e-5f))
            fail_msg("number %d is %g, not %g", (int)i, (double)got[i], (double)want[i]);
}

static const qgc_value *value(const qgc_graph *g, const char *name) {
    for (size_t i = 0; i < g->n_values; i++)
        if (g->values[i]->kind == QGC_RESULT && strcmp(g->values[i]->name, name) == 0)
            return g->values[i];
    fail_msg("no value \"%s\"", name);
    return NULL;
}

static const float *read(fixture *f, qgc_trial *t, const char *name, int64_t *n) {
    const float *to;
    bool kept;
    ok(f, qgc_trial_value(t, value(f->graph, name), &to, n, &kept, &f->diag));
    assert_int_equal(kept, to != NULL);
    return to;
}

/* --- tests ----------------------------------------------------------------------------------------------- */

static void a_device_and_the_cpu_give_the_same_logits(void **state) {
    fixture *f = *state;
    static const int32_t tokens[] = {3, 1, 4, 1, 5, 39};
    qgc_trial *cpu = begin(f, 0, "", (qgc_trial_options){0});
    qgc_trial *gpu = begin(f, 1, FUSED, (qgc_trial_options){.device = f->dev});
    float want[VOCAB], got[VOCAB];
    for (int turn = 0; turn < 2; turn++) {
        for (int i = 0; i < 6; i++) {
            ok(f, qgc_trial_step(cpu, tokens[i], want, &f->diag));
            ok(f, qgc_trial_step(gpu, tokens[i], got, &f->diag));
            assert_near(got, want, VOCAB);
        }
        assert_int_equal(qgc_trial_position(gpu), 6);
        ok(f, qgc_trial_reset(cpu, &f->diag));
        ok(f, qgc_trial_reset(gpu, &f->diag));
        assert_int_equal(qgc_trial_position(gpu), 0);
    }
}

static void kept_values_are_those_of_the_cpu(void **state) {
    fixture *f = *state;
    static const char *const names[] = {"x", "x_rows", "h", "logits", "seen_now", "next"};
    qgc_trial *cpu = begin(f, 0, "", (qgc_trial_options){.keep_values = true});
    qgc_trial *gpu = begin(f, 1, "", (qgc_trial_options){.keep_values = true, .device = f->dev});
    int64_t n, n_want;
    assert_null(read(f, gpu, "h", &n)); /* before the first step */
    for (int32_t token = 7; token < 9; token++) {
        ok(f, qgc_trial_step(cpu, token, NULL, &f->diag));
        ok(f, qgc_trial_step(gpu, token, NULL, &f->diag));
        for (int i = 0; i < 6; i++) {
            const float *want = read(f, cpu, names[i], &n_want), *got = read(f, gpu, names[i], &n);
            assert_int_equal(n, n_want);
            assert_near(got, want, n);
        }
    }
}

static void a_value_inside_a_fused_kernel_is_not_kept(void **state) {
    fixture *f = *state;
    int64_t n;
    qgc_trial *t = begin(f, 0, FUSED, (qgc_trial_options){.keep_values = true, .device = f->dev});
    ok(f, qgc_trial_step(t, 7, NULL, &f->diag));
    assert_null(read(f, t, "h", &n));
    assert_non_null(read(f, t, "x_rows", &n));
    assert_int_equal(n, D);
}

static void shared_memory_is_not_read_where_values_were_not_kept(void **state) {
    fixture *f = *state;
    int64_t n;
    qgc_trial *t = begin(f, 0, "", (qgc_trial_options){.device = f->dev});
    ok(f, qgc_trial_step(t, 7, NULL, &f->diag));
    assert_null(read(f, t, "h", &n));
    assert_non_null(read(f, t, "seen_now", &n));
    assert_non_null(read(f, t, "logits", &n));
}

static int regions(const fixture *f, const char *owner) {
    int n = 0;
    for (int i = 0; i < f->dev->n_allocations; i++)
        n += f->dev->allocations[i].owner && strcmp(f->dev->allocations[i].owner, owner) == 0;
    return n;
}

static void trials_share_one_upload_of_the_weights(void **state) {
    fixture *f = *state;
    float want[VOCAB], got[VOCAB];
    qgc_trial *first = begin(f, 0, FUSED, (qgc_trial_options){.device = f->dev});
    qgc_trial *second = begin(f, 1, "", (qgc_trial_options){.device = f->dev, .share = first});
    qgc_trial *third = begin(f, 2, "", (qgc_trial_options){.device = f->dev, .share = second});
    assert_int_equal(regions(f, "weights"), 1);
    assert_int_equal(regions(f, "scratch"), 3);
    ok(f, qgc_trial_step(first, 11, want, &f->diag));
    ok(f, qgc_trial_step(second, 11, got, &f->diag));
    assert_near(got, want, VOCAB);
    ok(f, qgc_trial_step(third, 11, got, &f->diag));
    assert_near(got, want, VOCAB);
    qgc_trial_drop(third);
    f->trials[2] = NULL;
    assert_int_equal(regions(f, "weights"), 1);
}

static void a_trial_holds_no_kernels_but_those_of_a_step(void **state) {
    fixture *f = *state;
    begin(f, 0, "", (qgc_trial_options){.device = f->dev});
    assert_int_equal(count(f->dev->log.text, "load "), 7);
    qgc_trial_cost cost;
    ok(f, qgc_trial_cost_of(f->trials[0], &cost, &f->diag));
    assert_int_equal(cost.kernels, 7);
    assert_int_equal(cost.weight_bytes, 2 * VOCAB * D);
    /* x, x_rows, h and the two chunks written and read; logits read twice; tokens in three kernels, rows in two */
    assert_int_equal(cost.value_bytes, 4 * (6 * D + 2 * 2 + 3 * VOCAB + 3 + 2 + 1 + 1));
}

static void timed_steps_replay_the_captured_one(void **state) {
    fixture *f = *state;
    double us = -1;
    qgc_trial *t = begin(f, 0, FUSED, (qgc_trial_options){.device = f->dev});
    assert_int_equal(qgc_trial_time(t, 5, &us, &f->diag), QGC_ERR_USAGE);
    assert_string_equal(qgc_diag_message(&f->diag), "the session was fed no token yet");
    f->diag = qgc_diag_new(f->arena);
    ok(f, qgc_trial_step(t, 3, NULL, &f->diag));
    size_t before = f->dev->log.bytes;
    ok(f, qgc_trial_time(t, 5, &us, &f->diag));
    assert_true(us == 1); /* what the fake clock says */
    assert_string_equal(f->dev->log.text + before, "replay\nreplay\nreplay\nreplay\nreplay\n");
    assert_int_equal(qgc_trial_position(t), 6);
    assert_int_equal(qgc_trial_time(t, CTX, &us, &f->diag), QGC_ERR_INPUT);
}

static void steps_run_in_the_mode_that_is_asked_for(void **state) {
    fixture *f = *state;
    static const char *const modes[] = {"stream", "graph", "pdl", "auto"};
    float want[VOCAB], got[VOCAB];
    ok(f, qgc_trial_step(begin(f, 0, "", (qgc_trial_options){0}), 3, want, &f->diag));
    assert_null(qgc_trial_mode(f->trials[0]));
    for (int i = 0; i < 4; i++) {
        qgc_str_clear(&f->dev->log);
        qgc_trial *t = begin(f, 1, FUSED, (qgc_trial_options){.device = f->dev, .mode = modes[i]});
        assert_string_equal(qgc_trial_mode(t), i == 3 ? "pdl" : modes[i]);
        assert_null(qgc_trial_refusal(t));
        assert_int_equal(count(f->dev->log.text, ", early\n") > 0, i > 1);
        ok(f, qgc_trial_step(t, 3, got, &f->diag));
        assert_near(got, want, VOCAB);
        assert_int_equal(count(f->dev->log.text, "replay\n"), i > 0);
        qgc_trial_drop(t);
        f->trials[1] = NULL;
    }
}

/* It says why, and no more can be done with it. */
static void a_mode_in_which_a_graph_cannot_run_is_told(void **state) {
    fixture *f = *state;
    qgc_trial *t = begin(f, 0, FUSED, (qgc_trial_options){.device = f->dev, .mode = "persistent"});
    assert_string_equal(qgc_trial_mode(t), "persistent");
    assert_non_null(qgc_trial_refusal(t));
    float logits[VOCAB];
    double us;
    int64_t n;
    ok(f, qgc_trial_reset(t, &f->diag));
    assert_null(read(f, t, "h", &n));
    assert_int_equal(qgc_trial_step(t, 3, logits, &f->diag), QGC_ERR_USAGE);
    assert_string_equal(
        qgc_diag_message(&f->diag),
        qgc_arena_printf(f->arena, "\"toy\" cannot run in persistent mode: %s", qgc_trial_refusal(t)));
    assert_int_equal(qgc_trial_time(t, 3, &us, &f->diag), QGC_ERR_USAGE);
}

static void an_error_of_the_device_leaves_nothing_behind(void **state) {
    fixture *f = *state;
    const qgc_tensor **tensors;
    qgc_trial *t;
    qgc_graph *g = load(f);
    ok(f, qgc_graph_bind(g, f->weights, false, &tensors, &f->diag));
    const qgc_trial_options o = {
        .device = f->dev, .ctx = CTX, .pool = f->pool, .cache_folder = toy_cache.folder};
    static const char *const owners[] = {"weights", "scratch", "io"};
    for (int i = 0; i < 3; i++) {
        f->dev->full_for = owners[i];
        f->diag = qgc_diag_new(f->arena);
        assert_int_equal(qgc_trial_new(&t, g, f->weights, tensors, &o, &f->diag), QGC_ERR_DEVICE);
        assert_null(t);
        assert_int_equal(fake_device_held(f->dev), 0);
    }
}

static void ablation_runs_two_ways_by_turns(void **state) {
    fixture *f = *state;
    static const int32_t tokens[] = {3, 1, 4};
    qgc_ablation x;
    qgc_ablate_options o = {.run.graph =
                                qgc_test_write(f->arena, f->folder, "toy.yaml", toy_model, strlen(toy_model)),
                            .run.weights = f->weights,
                            .run.passes = FUSED,
                            .run.device = f->dev,
                            .run.cache_folder = toy_cache.folder,
                            .run.pool = f->pool,
                            .run.tokens = tokens,
                            .run.n_tokens = 3,
                            .run.positions = 8,
                            .ctx = CTX,
                            .pairs = 7};
    ok(f, qgc_ablate(&o, &x, &f->diag));
    assert_true(x.timed && x.n_rows == 2);
    assert_true(x.all.us == 1.0 / QGC_PAIR_STEPS); /* what the fake clock says of so many steps */
    for (int i = 0; i < 2; i++) {
        const qgc_ablate_effect *e = i ? &x.rows[i].left_out : &x.rows[i].alone;
        assert_true(e->us.median == 0 && e->us.low == 0 && e->us.high == 0);
        assert_int_equal(e->kernels, i);
        assert_true(e->drift.max_drift <= 1e-5 && e->drift.kl_max <= 1e-9);
        assert_int_equal(e->drift.flips, 0);
    }
    /* Five comparisons of seven pairs. Three pairs fit into the caches, after 64 - 48 steps: the first of them is fed,
     * 15 are timed for nothing, three times over. Six variants read the text before. */
    assert_int_equal(count(f->dev->log.text, "replay\n"), 5 * 2 * (7 * QGC_PAIR_STEPS + 3 * 16) + 6 * 8);
    assert_int_equal(fake_device_held(f->dev), 0);

    assert_string_equal(x.mode, "graph");
    o.run.mode = "persistent";
    assert_int_equal(qgc_ablate(&o, &x, &f->diag), QGC_ERR_USAGE);
    has(qgc_diag_message(&f->diag), "\"toy\" cannot run in persistent mode: ");
    assert_int_equal(fake_device_held(f->dev), 0);

    f->diag = qgc_diag_new(f->arena);
    o.pairs = 5;
    assert_int_equal(qgc_ablate(&o, &x, &f->diag), QGC_ERR_USAGE);
    assert_string_equal(qgc_diag_message(&f->diag),
                        "5 pairs of timings in a context of 64 positions, expected 6 or more in 17 or more");
}

/* The clock says the same of all: nothing is better but for its memory, and all is given back. */
static void a_search_times_each_candidate_against_the_best(void **state) {
    fixture *f = *state;
    static const int32_t tokens[] = {3, 1, 4};
    qgc_search s;
    const qgc_search_options o = {
        .run.graph = qgc_test_write(f->arena, f->folder, "toy.yaml", toy_model, strlen(toy_model)),
        .run.weights = f->weights,
        .run.passes = FUSED,
        .run.device = f->dev,
        .run.cache_folder = toy_cache.folder,
        .run.pool = f->pool,
        .run.tokens = tokens,
        .run.n_tokens = 3,
        .ctx = CTX,
        .pairs = 7,
        .seed = 1,
        .seconds = 600,
        .most = 40};
    ok(f, qgc_search_run(&o, &s, &f->diag));
    assert_string_equal(s.mode, "graph");
    assert_true(s.n_tries > 20);
    int timed = 0;
    for (int i = 0; i < s.n_tries; i++)
        timed += s.tries[i].saved == 0 && s.tries[i].verdict == QGC_SEARCH_NO_BETTER;
    qgc_str text = qgc_str_new(f->arena);
    qgc_search_text(&s, &o, &text);
    if (timed == 0)
        fail_msg("%s", text.text);
    has(text.text, "toy.yaml, mode graph: times of 7 pairs, the last of 64 positions\n");
    has(text.text, ", saves 0.00 (0.00 to 0.00)\n");
    has(text.text, "\nthe default, 'dead-code,split-sample,");
    int longer = 0; /* what may be as fast is timed again */
    for (int i = 0; i < s.n_tries; i++)
        longer += strstr(s.tries[i].change, ", longer") != NULL;
    if (longer == 0)
        fail_msg("%s", text.text);
    assert_int_equal(fake_device_held(f->dev), 0);
}

#define TRIAL_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TRIAL_TEST(a_search_times_each_candidate_against_the_best),
        TRIAL_TEST(a_device_and_the_cpu_give_the_same_logits),
        TRIAL_TEST(kept_values_are_those_of_the_cpu),
        TRIAL_TEST(a_value_inside_a_fused_kernel_is_not_kept),
        TRIAL_TEST(shared_memory_is_not_read_where_values_were_not_kept),
        TRIAL_TEST(trials_share_one_upload_of_the_weights),
        TRIAL_TEST(a_trial_holds_no_kernels_but_those_of_a_step),
        TRIAL_TEST(timed_steps_replay_the_captured_one),
        TRIAL_TEST(steps_run_in_the_mode_that_is_asked_for),
        TRIAL_TEST(a_mode_in_which_a_graph_cannot_run_is_told),
        TRIAL_TEST(an_error_of_the_device_leaves_nothing_behind),
        TRIAL_TEST(ablation_runs_two_ways_by_turns),
    };
    return cmocka_run_group_tests(tests, make_toy_cache, drop_toy_cache);
}
