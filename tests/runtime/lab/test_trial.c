/* Trials on the CPU: the tiny model token by token. */

#include <string.h>

#include "graph/load.h"
#include "passes/bind_weights.h"
#include "passes/passes.h"
#include "tests/support/golden.h"
#include "tests/support/tiny.h"

enum { VOCAB = 1536, CTX = 64 };

static qgc_trial *begin(fixture *f, const char *passes, bool keep_values) {
    const qgc_tensor **tensors;
    qgc_pass_report report;
    ok(f, qgc_graph_load(&f->graph, "models/tiny/tiny.yaml", f->arena, &f->diag));
    ok(f, qgc_graph_bind(f->graph, f->weights, false, &tensors, &f->diag));
    ok(f, qgc_passes_run(f->graph, &(qgc_pass_options){.passes = passes}, &report, &f->diag));
    qgc_trial_options o = {.ctx = CTX, .keep_values = keep_values, .pool = f->pool};
    qgc_trial_drop(f->trial);
    ok(f, qgc_trial_new(&f->trial, f->graph, f->weights, tensors, &o, &f->diag));
    return f->trial;
}

static const qgc_value *value(const fixture *f, const char *label) {
    for (size_t i = 0; i < f->graph->n_values; i++)
        if (f->graph->values[i]->kind == QGC_RESULT &&
            strcmp(qgc_value_label(f->graph->values[i], f->arena), label) == 0)
            return f->graph->values[i];
    fail_msg("no value \"%s\"", label);
    return NULL;
}

/* What a trial kept of a value; NULL if it kept nothing. */
static const float *read(fixture *f, const char *label, int64_t *n) {
    const float *to;
    bool kept;
    ok(f, qgc_trial_value(f->trial, value(f, label), &to, n, &kept, &f->diag));
    assert_int_equal(kept, to != NULL);
    return to;
}

static void steps_give_the_logits_of_transformers(void **state) {
    fixture *f = *state;
    golden g = golden_read(f->arena, "tests/golden/tiny");
    const golden_case *c = &g.cases[0];
    float logits[VOCAB];
    begin(f, NULL, false);
    assert_int_equal(qgc_trial_vocab(f->trial), VOCAB);
    for (int32_t t = 0; t < c->n_ids && t < CTX; t++) {
        assert_int_equal(qgc_trial_position(f->trial), t);
        ok(f, qgc_trial_step(f->trial, c->ids[t], logits, &f->diag));
        /* caches in f16: tests/passes/test_golden.c */
        assert_true(golden_difference(logits, c->logits + (int64_t)t * VOCAB, VOCAB) <= 1e-3);
    }
}

static void kept_values_can_be_read_after_a_step(void **state) {
    fixture *f = *state;
    float logits[VOCAB];
    int64_t n;
    begin(f, "", true);
    assert_null(read(f, "h[3]", &n));
    ok(f, qgc_trial_step(f->trial, 7, logits, &f->diag));
    ok(f, qgc_trial_step(f->trial, 9, logits, &f->diag));
    assert_non_null(read(f, "h[3]", &n));
    assert_int_equal(n, 192);
    assert_memory_equal(read(f, "logits", &n), logits, sizeof logits);
    assert_int_equal(n, VOCAB);
    const float *k = read(f, "k_all[0]", &n);
    assert_int_equal(n, 2 * CTX * 32);
    for (int i = 0; i < CTX * 32; i++)
        if (i >= 2 * 32 && k[i] != 0)
            fail_msg("key %d is %g, and only two tokens were taken", i, (double)k[i]);
    assert_true(k[0] != 0 && k[32] != 0);
    const float *seen = read(f, "seen_now", &n);
    assert_int_equal(n, VOCAB);
    for (int i = 0; i < VOCAB; i++)
        assert_true(seen[i] == (i == 7 || i == 9 ? 1.0f : 0.0f));
}

static void without_keep_values_there_are_outputs_and_states(void **state) {
    fixture *f = *state;
    float logits[VOCAB];
    int64_t n;
    begin(f, "", false);
    ok(f, qgc_trial_step(f->trial, 7, logits, &f->diag));
    assert_null(read(f, "h[3]", &n));
    assert_non_null(read(f, "v_all[3]", &n));
    assert_memory_equal(read(f, "logits", &n), logits, sizeof logits);
    const float *next = read(f, "next", &n);
    int best = 0;
    for (int i = 1; i < VOCAB; i++)
        best = logits[i] > logits[best] ? i : best;
    assert_int_equal(n, 1);
    assert_true(next[0] == (float)best);
}

static void a_weight_is_no_result(void **state) {
    fixture *f = *state;
    const float *to;
    int64_t n;
    bool kept = true;
    begin(f, "", true);
    ok(f, qgc_trial_step(f->trial, 7, NULL, &f->diag));
    ok(f, qgc_trial_value(f->trial, f->graph->weights[0].values[0], &to, &n, &kept, &f->diag));
    assert_false(kept);
}

static void a_reset_trial_begins_anew(void **state) {
    fixture *f = *state;
    float first[VOCAB], other[VOCAB], again[VOCAB];
    int64_t n;
    begin(f, NULL, false);
    ok(f, qgc_trial_step(f->trial, 7, first, &f->diag));
    ok(f, qgc_trial_step(f->trial, 7, other, &f->diag));
    assert_memory_not_equal(first, other, sizeof first);
    ok(f, qgc_trial_reset(f->trial, &f->diag));
    assert_int_equal(qgc_trial_position(f->trial), 0);
    ok(f, qgc_trial_step(f->trial, 8, NULL, &f->diag));
    assert_true(read(f, "seen_now", &n)[7] == 0);
    ok(f, qgc_trial_reset(f->trial, &f->diag));
    ok(f, qgc_trial_step(f->trial, 7, again, &f->diag));
    assert_memory_equal(first, again, sizeof first);
}

static qgc_trial_cost cost(fixture *f, const char *passes) {
    qgc_trial_cost c;
    begin(f, passes, false);
    ok(f, qgc_trial_cost_of(f->trial, &c, &f->diag));
    return c;
}

static void passes_lower_what_a_step_costs(void **state) {
    qgc_trial_cost none = cost(*state, ""), all = cost(*state, NULL), swiglu = cost(*state, "fuse-swiglu"),
                   split = cost(*state, "split-attention");
    /* embedding, 4 layers of 18, select, norm, head, mark, and the two of sampling */
    assert_int_equal(none.kernels, 1 + 4 * 18 + 6);
    assert_int_equal(swiglu.kernels, none.kernels - 4 * 3);
    /* per layer gate, up and act are neither written nor read: 6 vectors of 448 floats, and m is read once */
    assert_int_equal(none.value_bytes - swiglu.value_bytes, 4 * 4 * (6 * 448 + 192));
    assert_true(all.kernels <= 1 + 4 * 5 + 5);
    /* one kernel more a layer, and what the chunks leave for it */
    assert_int_equal(split.kernels, none.kernels + 4);
    assert_true(split.value_bytes > none.value_bytes);
    assert_int_equal(all.weight_bytes, none.weight_bytes);
    assert_true(all.weight_bytes > 0);
}

static void refuses_to_time_on_a_cpu(void **state) {
    fixture *f = *state;
    double us = -1;
    begin(f, NULL, false);
    assert_int_equal(qgc_trial_time(f->trial, 4, &us, &f->diag), QGC_ERR_USAGE);
    assert_string_equal(qgc_test_printed(f->arena, &f->diag), "qgc: error: steps are timed on a GPU only\n");
}

static void names_a_token_that_is_not_there(void **state) {
    fixture *f = *state;
    begin(f, NULL, false);
    assert_int_equal(qgc_trial_step(f->trial, VOCAB, NULL, &f->diag), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&f->diag), "token 1536 is outside of the 1536 of embedding \"x\"");
    assert_int_equal(qgc_trial_position(f->trial), 0);
}

static void ends_at_its_last_position(void **state) {
    fixture *f = *state;
    begin(f, NULL, false);
    for (int i = 0; i < CTX; i++)
        ok(f, qgc_trial_step(f->trial, i, NULL, &f->diag));
    assert_int_equal(qgc_trial_step(f->trial, 1, NULL, &f->diag), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&f->diag),
                        "a step of 1 tokens at position 64 runs past the context of 64");
}

#define TRIAL_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TRIAL_TEST(steps_give_the_logits_of_transformers),
        TRIAL_TEST(kept_values_can_be_read_after_a_step),
        TRIAL_TEST(without_keep_values_there_are_outputs_and_states),
        TRIAL_TEST(a_weight_is_no_result),
        TRIAL_TEST(a_reset_trial_begins_anew),
        TRIAL_TEST(passes_lower_what_a_step_costs),
        TRIAL_TEST(refuses_to_time_on_a_cpu),
        TRIAL_TEST(names_a_token_that_is_not_there),
        TRIAL_TEST(ends_at_its_last_position),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
