/* Both sides of the rules, in double precision: what a graph computes before a pass and after it, over
 * several steps, for the cases of the rules and for models of random shapes. The evaluator that everybody
 * goes by, in float32, is held against the same numbers. */

#include <math.h>
#include <string.h>

#include "graph/eval.h"
#include "graph/load.h"
#include "passes/passes.h"
#include "passes/rewrite.h"
#include "tests/passes/rule_cases.h"
#include "tests/support/cmocka.h"
#include "tests/support/eval_double.h"
#include "tests/support/printed.h"
#include "tests/support/random_model.h"
#include "tests/support/subset.h"

#ifndef ROUNDS /* fewer where a sanitizer makes them slow */
#define ROUNDS 600
#endif

enum { RANDOM = 4, SHUFFLED = 6, MAX_STEPS = 6 };

/* Sums in another order, and no more. */
static const double bound = 1e-12;

/* --- a model, and what it computes ----------------------------------------------------------------------- */

typedef struct {
    int64_t tokens;
    bool all_rows;
} step;

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    uint64_t seed;
    const char *yaml;
    qgc_graph *g;
    const qgc_tensor **weights;
    qgc_sampling sampling;
    int64_t ctx;
    step steps[MAX_STEPS];
    int n_steps;
    int32_t *tokens; /* of all steps */
} model;

static unsigned below(model *m, unsigned n) {
    return (unsigned)(test_random(&m->seed) % n);
}

static qgc_graph *load(model *m) {
    qgc_graph *g;
    if (qgc_graph_load_text(&g, "model.yaml", m->yaml, strlen(m->yaml), m->arena, &m->diag) != QGC_OK)
        fail_msg("%s\n%s", qgc_test_printed(m->arena, &m->diag), m->yaml);
    return g;
}

static int64_t vocab_of(const qgc_graph *g) {
    for (const qgc_node *n = g->first; n; n = n->next)
        if (n->op == QGC_OP_EMBEDDING)
            return n->in[1]->shape.dim[0];
    return 1;
}

/* A prompt, in some models so long that a split attention has several parts with something in them, then
 * steps of one token, one of several again, one more. */
static void choose_steps(model *m) {
    const int64_t prompt = below(m, 4) == 0 ? 65 + below(m, 80) : 1 + below(m, 6);
    const int64_t lengths[MAX_STEPS] = {prompt, 1, 1, 1, 1 + below(m, 4), 1};
    m->n_steps = MAX_STEPS;
    for (int i = 0; i < MAX_STEPS; i++) {
        m->steps[i] = (step){lengths[i], below(m, 2) == 0};
        m->ctx += lengths[i];
    }
    m->tokens = qgc_arena_array(m->arena, (size_t)m->ctx, sizeof *m->tokens);
    for (int64_t i = 0; i < m->ctx; i++)
        m->tokens[i] = (int32_t)below(m, (unsigned)vocab_of(m->g));
    m->ctx += below(m, 3);
}

static void choose_sampling(model *m) {
    m->sampling = (qgc_sampling){.top_p = 1, .repeat_penalty = 1, .seed = test_random(&m->seed)};
    if (below(m, 2) == 0)
        m->sampling.repeat_penalty = 1.5f;
    if (below(m, 3) == 0)
        return;
    m->sampling.temperature = 0.5f + (float)below(m, 4) / 4;
    m->sampling.top_k = below(m, 2) == 0 ? 0 : 1 + (int32_t)below(m, 20);
    m->sampling.top_p = below(m, 2) == 0 ? 1 : 0.8f;
    m->sampling.min_p = below(m, 2) == 0 ? 0 : 0.1f;
}

static model *new_model(const char *yaml, uint64_t seed) {
    qgc_arena *a = qgc_arena_new();
    model *m = qgc_arena_alloc(a, sizeof *m);
    *m = (model){.arena = a, .diag = qgc_diag_new(a), .seed = seed};
    m->yaml = yaml ? yaml : random_model_yaml(&m->seed, a);
    m->g = load(m);
    m->weights = random_model_weights(m->g, &m->seed, a);
    choose_steps(m);
    choose_sampling(m);
    return m;
}

static void drop_model(model *m) {
    qgc_arena_drop(m->arena);
}

/* Outputs and states after each step, one after the other. */
typedef struct {
    double *x;
    size_t *ends; /* of each value */
    size_t n, n_values;
} trace;

static void add_to_trace(model *m, trace *t, const double *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        t->x = qgc_arena_grow(m->arena, t->x, t->n, sizeof *t->x);
        t->x[t->n++] = x[i];
    }
    t->ends = qgc_arena_grow(m->arena, t->ends, t->n_values, sizeof *t->ends);
    t->ends[t->n_values++] = t->n;
}

static void add_value(model *m, trace *t, const eval_double *e, const qgc_value *v) {
    int64_t n;
    const double *x = eval_double_value(e, v, &n);
    add_to_trace(m, t, x, n);
}

static trace run_graph(model *m, const qgc_graph *g) {
    trace t = {0};
    eval_double *e = eval_double_new(g, m->weights, m->ctx, m->arena);
    eval_double_set_sampling(e, &m->sampling);
    for (int64_t s = 0, at = 0; s < m->n_steps; at += m->steps[s++].tokens) {
        eval_double_step(e, m->tokens + at, m->steps[s].tokens, at, m->steps[s].all_rows);
        for (size_t i = 0; i < g->n_outputs; i++)
            add_value(m, &t, e, g->outputs[i]);
        for (size_t i = 0; i < g->n_states; i++)
            for (int k = 0; k < g->states[i].count; k++)
                add_value(m, &t, e, g->states[i].values[k]);
    }
    eval_double_drop(e);
    return t;
}

/* Largest difference of n numbers, relative to the largest of `want`, or to `least` where that is larger.
 * What is no number, or infinite in one of them only, counts as infinite. */
static double difference_of(const double *got, const double *want, size_t n, double least) {
    double worst = 0, size = least;
    for (size_t i = 0; i < n; i++) {
        const double apart = got[i] == want[i] ? 0 : fabs(got[i] - want[i]);
        if (!(apart <= worst))
            worst = isfinite(apart) ? apart : INFINITY;
        if (isfinite(want[i]))
            size = fmax(size, fabs(want[i]));
    }
    return worst / size;
}

static double difference(const trace *got, const trace *want) {
    double worst = 0;
    assert_int_equal(got->n_values, want->n_values);
    for (size_t i = 0, first = 0; i < want->n_values; first = want->ends[i++]) {
        assert_int_equal(got->ends[i], want->ends[i]);
        worst = fmax(worst, difference_of(got->x + first, want->x + first, want->ends[i] - first, 1e-300));
    }
    return worst;
}

/* --- before and after passes ---------------------------------------------------------------------------- */

static void check_passes(model *m, const qgc_pass_options *o, const trace *want, qgc_pass_report *report) {
    qgc_graph *g = load(m);
    if (qgc_passes_run(g, o, report, &m->diag) != QGC_OK)
        fail_msg("%s\n%s", qgc_test_printed(m->arena, &m->diag), m->yaml);
    bool sums = false; /* in another order */
    for (size_t i = 0; i < report->n_runs; i++)
        sums = sums || strncmp(report->runs[i].name, "split-attention", strlen("split-attention")) == 0;
    const trace got = run_graph(m, g);
    const double apart = difference(&got, want);
    if (apart <= (sums ? bound : 0))
        return;
    if (o->limit)
        print_error("only %zu passes, the last with %d changes:\n", o->limit->passes, o->limit->changes);
    fail_msg("with passes \"%s\" results differ by %g:\n%s", o->passes, apart, m->yaml);
}

static void both_sides_of_each_rule_compute_the_same(void **state) {
    (void)state;
    for (size_t i = 0; i < N_RULE_CASES; i++) {
        const rule_case *c = &rule_cases[i];
        qgc_arena *a = qgc_arena_new();
        model *m = new_model(rule_yaml(c, a), i);
        const trace want = run_graph(m, m->g);
        const char *passes = c->before ? qgc_arena_printf(a, "%s,%s", c->before, c->pass) : c->pass;
        qgc_pass_report report;
        check_passes(m, &(qgc_pass_options){.passes = passes}, &want, &report);
        drop_model(m);
        qgc_arena_drop(a);
    }
}

static void count_fired(const qgc_pass_report *report, int *fired) {
    for (size_t i = 0; i < report->n_runs; i++)
        for (size_t k = 0; k < qgc_pass_count(); k++)
            if (strcmp(qgc_pass_at(k)->name, report->runs[i].name) == 0)
                fired[k] += report->runs[i].n_fired > 0;
}

/* One pass, all, random ones, and random ones in random orders, some of which end in the middle of a pass. */
static void check_random(model *m, unsigned round, int *fired) {
    const unsigned chosen = test_chosen_pipelines();
    const trace want = run_graph(m, m->g);
    for (unsigned i = 0; i < RANDOM + SHUFFLED + 1; i++) {
        const unsigned which = i > 0 ? chosen - 1 + i - 1 : round % (unsigned)qgc_pass_count();
        const qgc_pass_limit limit = {1 + below(m, (unsigned)qgc_pass_count()), (int)below(m, 4)};
        const qgc_pass_options o = {.passes = test_pipeline(m->arena, which, chosen + RANDOM, &m->seed),
                                    .limit = i > RANDOM + SHUFFLED / 2 ? &limit : NULL};
        qgc_pass_report report;
        check_passes(m, &o, &want, &report);
        count_fired(&report, fired);
    }
}

static void random_models_compute_the_same_behind_any_passes(void **state) {
    (void)state;
    int fired[64] = {0};
    assert_true(qgc_pass_count() <= sizeof fired / sizeof *fired);
    for (unsigned r = 0; r < ROUNDS; r++) {
        model *m = new_model(NULL, r);
        check_random(m, r, fired);
        drop_model(m);
    }
    for (size_t k = 0; k < qgc_pass_count(); k++)
        if (fired[k] < ROUNDS / 20)
            fail_msg("pass \"%s\" fired in %d pipelines of %d random models", qgc_pass_at(k)->name, fired[k],
                     ROUNDS);
}

/* --- the evaluator in float32 ---------------------------------------------------------------------------- */

/* What it has for a value, as doubles. */
static const double *widened(model *m, const qgc_eval *e, const qgc_value *v, int64_t *n) {
    const void *from = qgc_eval_value(e, v, n);
    double *x = qgc_arena_array(m->arena, (size_t)*n, sizeof *x);
    float *f = qgc_arena_array(m->arena, (size_t)*n, sizeof *f);
    if (v->dtype != QGC_I32)
        qgc_to_f32(v->dtype, from, f, *n);
    for (int64_t i = 0; i < *n; i++)
        x[i] = v->dtype == QGC_I32 ? ((const int32_t *)from)[i] : (double)f[i];
    return x;
}

/* The size of activations: a value of few numbers may be what is left of a sum of larger ones. */
static const double usual = 0.1;

/* Of float32, in one op; and in outputs, where a norm of few numbers may have made much of little, and a cache of
 * 16 bits may have rounded the other way. */
static const double op_bound = 1e-5, outputs_bound = 1e-2;

/* Of double precision. */
static const double double_bound = 1e-11;

/* Both evaluators over the same steps. */
typedef struct {
    model *m;
    qgc_eval *e;
    eval_double *exact;
    double worst;
    int *compared; /* results of each op */
} pair;

static void run_step(pair *p, const step *now, const int32_t *tokens, int64_t at) {
    model *m = p->m;
    if (qgc_eval_step(p->e, tokens + at, now->tokens, at, now->all_rows, &m->diag) != QGC_OK)
        fail_msg("%s", qgc_test_printed(m->arena, &m->diag));
    eval_double_step(p->exact, tokens + at, now->tokens, at, now->all_rows);
}

/* The result of one op, from the inputs that the evaluator in float32 had; it goes on with what that made. */
static void compare_result(void *context, const qgc_node *node, double *x, int64_t n) {
    pair *p = context;
    int64_t n_got;
    const double *got = widened(p->m, p->e, node->out[0], &n_got);
    assert_int_equal(n_got, n);
    const double apart = difference_of(got, x, (size_t)n, usual);
    if (!(apart <= op_bound))
        fail_msg("%s \"%s\" differs by %g in float32:\n%s", qgc_ops[node->op].name,
                 qgc_value_label(node->out[0], p->m->arena), apart, p->m->yaml);
    p->worst = fmax(p->worst, apart);
    p->compared[node->op]++;
    memcpy(x, got, (size_t)n * sizeof *x);
}

/* Of the outputs of `want`, with every number of its own. */
static void compare_outputs(pair *p, const qgc_graph *g, const qgc_graph *want) {
    for (size_t i = 0; i < g->n_outputs; i++) {
        int64_t n, n_want;
        const double *got = widened(p->m, p->e, g->outputs[i], &n);
        const double *x = eval_double_value(p->exact, want->outputs[i], &n_want);
        assert_int_equal(n, n_want);
        p->worst = fmax(p->worst, difference_of(got, x, (size_t)n, usual));
    }
}

/* The largest difference of what `g` computes in float32 and `want` in double precision: of the outputs, or with
 * `compared` of each op by itself, where the graphs are the same. */
static double float32_difference(model *m, qgc_graph *g, const qgc_graph *want, int *compared) {
    qgc_pool *pool = qgc_pool_new(1);
    pair p = {.m = m};
    p.compared = compared;
    p.e = qgc_eval_new(g, m->weights, m->ctx, m->ctx, pool);
    p.exact = eval_double_new(want, m->weights, m->ctx, m->arena);
    qgc_eval_set_sampling(p.e, &m->sampling);
    eval_double_set_sampling(p.exact, &m->sampling);
    if (compared)
        eval_double_watch(p.exact, compare_result, &p);
    for (int64_t s = 0, at = 0; s < m->n_steps; at += m->steps[s++].tokens) {
        run_step(&p, &m->steps[s], m->tokens, at);
        if (!compared)
            compare_outputs(&p, g, want);
    }
    eval_double_drop(p.exact);
    qgc_eval_drop(p.e);
    qgc_pool_drop(pool);
    return p.worst;
}

static void the_evaluator_in_float32_computes_the_same(void **state) {
    (void)state;
    int compared[QGC_N_OPS] = {0};
    double worst = 0, worst_outputs = 0;
    for (unsigned r = 0; r < ROUNDS; r++) {
        model *m = new_model(NULL, r);
        worst = fmax(worst, float32_difference(m, m->g, m->g, compared));
        const double apart = float32_difference(m, m->g, m->g, NULL);
        if (!(apart <= outputs_bound))
            fail_msg("round %u: outputs differ by %g in float32:\n%s", r, apart, m->yaml);
        worst_outputs = fmax(worst_outputs, apart);
        drop_model(m);
    }
    for (int op = 0; op < QGC_N_OPS; op++)
        if (compared[op] == 0)
            fail_msg("no random model has op \"%s\": add it to tests/support/random_model.c",
                     qgc_ops[op].name);
    print_message("largest relative difference of an op %.2g, of an output %.2g\n", worst, worst_outputs);
}

/* --- the evaluator in double precision ------------------------------------------------------------------- */

/* What it has for a value. */
static const double *as_doubles(model *m, const qgc_eval *e, const qgc_value *v, int64_t *n) {
    const void *from = qgc_eval_value(e, v, n);
    if (v->dtype == QGC_F32)
        return from;
    return widened(m, e, v, n);
}

/* Outputs and states after each step. */
static trace run_evaluator(model *m, qgc_graph *g) {
    trace t = {0};
    int64_t n;
    qgc_pool *pool = qgc_pool_new(1);
    qgc_eval *e = qgc_eval_new_double(g, m->weights, m->ctx, m->ctx, pool);
    qgc_eval_set_sampling(e, &m->sampling);
    for (int64_t s = 0, at = 0; s < m->n_steps; at += m->steps[s++].tokens) {
        if (qgc_eval_step(e, m->tokens + at, m->steps[s].tokens, at, m->steps[s].all_rows, &m->diag))
            fail_msg("%s", qgc_test_printed(m->arena, &m->diag));
        for (size_t i = 0; i < g->n_outputs; i++) {
            const double *x = as_doubles(m, e, g->outputs[i], &n);
            add_to_trace(m, &t, x, n);
        }
        for (size_t i = 0; i < g->n_states; i++)
            for (int k = 0; k < g->states[i].count; k++) {
                const double *x = as_doubles(m, e, g->states[i].values[k], &n);
                add_to_trace(m, &t, x, n);
            }
    }
    qgc_eval_drop(e);
    qgc_pool_drop(pool);
    return t;
}

/* Two orders of summation, and where a key or a value lies half-way between two numbers of a cache the two may round it one way
 * and the other: that is a difference of 2^-11. It shows in few models. */
static void the_evaluator_in_double_computes_the_same(void **state) {
    (void)state;
    double worst = 0;
    int rounded_otherwise = 0;
    for (unsigned r = 0; r < ROUNDS; r++) {
        model *m = new_model(NULL, r);
        const trace want = run_graph(m, m->g), got = run_evaluator(m, m->g);
        const double apart = difference(&got, &want);
        if (!(apart <= outputs_bound))
            fail_msg("round %u: results differ by %g in double precision:\n%s", r, apart, m->yaml);
        if (apart > double_bound)
            rounded_otherwise++;
        else
            worst = fmax(worst, apart);
        drop_model(m);
    }
    print_message("largest relative difference %.2g; a cache rounded otherwise in %d models\n", worst,
                  rounded_otherwise);
    assert_true(rounded_otherwise <= ROUNDS / 100);
}

/* --- rules that are wrong -------------------------------------------------------------------------------- */

enum { A, B, C };

/* A node in place of the match's root, which reads other values. */
static bool plant(qgc_rewriter *rw, const qgc_match *m, qgc_value *const *in, int n_in) {
    const char *name = qgc_arena_printf(qgc_rewriter_graph(rw)->arena, "%s_planted", m->root->out[0]->name);
    qgc_node *n = qgc_insert(rw, m->root, m->root->op, name, in, n_in);
    memcpy(n->attr, m->root->attr, sizeof n->attr);
    assert_true(qgc_settle(rw, n));
    qgc_replace(rw, m->root->out[0], n->out[0]);
    qgc_erase(rw, m->root);
    return true;
}

/* silu(a) * b becomes a * b */
static bool lose_silu(qgc_rewriter *rw, const qgc_match *m) {
    return plant(rw, m, (qgc_value *[]){m->value[A], m->value[B]}, 2);
}

static bool swap_keys_and_values(qgc_rewriter *rw, const qgc_match *m) {
    qgc_value *const *in = m->root->in;
    return plant(rw, m, (qgc_value *[]){in[0], in[2], in[1], in[3]}, 4);
}

static bool lose_bias(qgc_rewriter *rw, const qgc_match *m) {
    return m->root->n_in == 3 && plant(rw, m, m->root->in, 2);
}

/* Far less than float32 would show. */
static bool change_eps(qgc_rewriter *rw, const qgc_match *m) {
    m->root->attr[qgc_attr_index(m->root->op, "eps")].number += 1e-9;
    return plant(rw, m, m->root->in, 2);
}

/* rope(x) becomes x */
static bool lose_rope(qgc_rewriter *rw, const qgc_match *m) {
    qgc_replace(rw, m->root->out[0], m->value[A]);
    qgc_erase(rw, m->root);
    return true;
}

static bool add_twice(qgc_rewriter *rw, const qgc_match *m) {
    return plant(rw, m, (qgc_value *[]){m->root->in[1], m->root->in[1]}, 2);
}

static const struct {
    qgc_rule rule;
    bool float32_shows; /* that it is wrong */
} planted[] = {
    {{"silu(a) * b", P(ANY, MUL, P(ANY, SILU, V(A)), V(B)), lose_silu}, true},
    {{"attention", P(ANY, ATTENTION, FREE, V(A), V(B)), swap_keys_and_values}, true},
    {{"linear with a bias", P(ANY, LINEAR, FREE, V(A), V(B)), lose_bias}, true},
    {{"rms_norm", P(ANY, RMS_NORM, FREE, V(A)), change_eps}, false},
    {{"rope", P(ANY, ROPE, V(A)), lose_rope}, true},
    {{"a + b", P(ANY, ADD, V(A), V(B)), add_twice}, true},
};
enum { N_PLANTED = sizeof planted / sizeof *planted };

/* The graph after one rule; NULL where it does not fire. */
static qgc_graph *apply_planted(model *m, const qgc_rule *rule) {
    const qgc_rule rules[] = {*rule, {0}};
    qgc_graph *g = load(m);
    qgc_pass_run run = {.name = rule->name};
    qgc_pass_context c = {.graph = g, .run = &run, .scratch = m->arena, .most = 1};
    assert_int_equal(qgc_rewrite(&c, rules, &m->diag), QGC_OK);
    if (qgc_verify(g, &m->diag) != QGC_OK)
        fail_msg("%s", qgc_test_printed(m->arena, &m->diag));
    return run.n_fired ? g : NULL;
}

static void a_wrong_rule_is_caught(void **state) {
    (void)state;
    int fired[N_PLANTED] = {0}, caught[N_PLANTED] = {0}, caught_in_float32[N_PLANTED] = {0};
    int caught_by_evaluator[N_PLANTED] = {0};
    for (unsigned r = 0; r < ROUNDS / 4; r++) {
        model *m = new_model(NULL, r);
        const trace want = run_graph(m, m->g), evaluated = run_evaluator(m, m->g);
        for (int i = 0; i < N_PLANTED; i++) {
            qgc_graph *g = apply_planted(m, &planted[i].rule);
            if (!g)
                continue;
            const trace got = run_graph(m, g), in_double = run_evaluator(m, g);
            fired[i]++;
            caught_by_evaluator[i] += !(difference(&in_double, &evaluated) <= bound);
            caught[i] += !(difference(&got, &want) <= bound);
            caught_in_float32[i] += !(float32_difference(m, g, m->g, NULL) <= outputs_bound);
        }
        drop_model(m);
    }
    for (int i = 0; i < N_PLANTED; i++) {
        print_message("%s: wrong in %d graphs, caught in %d, by the evaluator in %d, in float32 in %d\n",
                      planted[i].rule.name, fired[i], caught[i], caught_by_evaluator[i],
                      caught_in_float32[i]);
        assert_true(fired[i] > 0);
        assert_true(caught[i] >= fired[i] * 3 / 4); /* it may not matter: a norm after a norm */
        assert_true(caught_by_evaluator[i] >= fired[i] * 3 / 4);
        if (planted[i].float32_shows)
            assert_true(caught_in_float32[i] >= fired[i] * 3 / 4);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_sides_of_each_rule_compute_the_same),
        cmocka_unit_test(random_models_compute_the_same_behind_any_passes),
        cmocka_unit_test(the_evaluator_in_float32_computes_the_same),
        cmocka_unit_test(the_evaluator_in_double_computes_the_same),
        cmocka_unit_test(a_wrong_rule_is_caught),
    };
    return cmocka_run_group_tests_name("passes/semantics", tests, NULL, NULL);
}
