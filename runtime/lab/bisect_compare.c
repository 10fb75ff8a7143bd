#include <math.h>
#include <string.h>

#include "graph/base/map.h"
#include "runtime/lab/bisect_impl.h"

/* Two sides over the same text, value by value. Rounding and what came in explain some difference of a result:
 *
 *   at most  SLACK * (distance of the inputs + 2^-24 * (1 + sqrt(terms of its longest sum))) + one step of a stored state
 *
 * and in steps of several tokens, whose products round what they read to bf16, 2^-7 where there is a sum.
 *
 * A result that differs by more parts from its counterpart there and not before: that holds at every position by itself, as
 * both sides are fed the same tokens. */

enum { SLACK = 16 };

/* What is known of values that cannot be compared: how far off they may be by what they were computed from. */
typedef struct {
    double inputs, terms;
} carried;

typedef struct {
    const bisect_side *good, *bad;
    bisect_comparison *out;
    double *apart;      /* [bad values] at this position; < 0: not compared */
    carried *bad_in;    /* [bad values] */
    double *good_terms; /* [good values] of sums since the last values that both sides have */
    int64_t positions;
    bool prefill; /* steps of several tokens: products round what they read to bf16 */
    qgc_diag *d;
} work;

/* --- pairs of values ------------------------------------------------------------------------------------- */

/* By their labels; of several the last, which is the newest. */
static void find_pairs(work *w, qgc_value **in_bad) {
    qgc_arena *a = w->bad->arena;
    const qgc_value **named = qgc_arena_array(a, w->good->graph->n_values, sizeof(qgc_value *));
    qgc_map labels = qgc_map_new(a);
    for (const qgc_node *n = w->good->graph->last; n; n = n->prev)
        for (int i = 0; i < n->n_out; i++) {
            named[n->out[i]->id] = n->out[i];
            qgc_map_put(&labels, qgc_value_label(n->out[i], a), n->out[i]);
        }
    for (const qgc_node *n = w->bad->graph->last; n; n = n->prev)
        for (int i = 0; i < n->n_out; i++) {
            qgc_value *v = n->out[i], *other = qgc_map_get(&labels, qgc_value_label(v, a));
            if (!other || !named[other->id] || other->dtype != v->dtype ||
                !qgc_shape_equal(&other->shape, &v->shape) ||
                qgc_value_is_version(other) != qgc_value_is_version(v))
                continue;
            named[other->id] = NULL; /* taken */
            w->out->values[v->id].other = other;
            in_bad[other->id] = v;
        }
}

/* Terms of the longest sum in one result. */
static double terms_of(const qgc_node *n, int64_t positions) {
    if (n->n_in == 0)
        return 0;
    const qgc_shape *in = &n->in[0]->shape;
    if (qgc_ops[n->op].traits & (QGC_POINTWISE | QGC_IN_PLACE) || n->op == QGC_OP_EMBEDDING ||
        n->op == QGC_OP_SELECT_ROWS || in->rank == 0 || in->dim[in->rank - 1] < 0)
        return 0;
    return (double)(in->dim[in->rank - 1] + positions);
}

static void count_good_terms(work *w, qgc_value *const *in_bad) {
    for (const qgc_node *n = w->good->graph->first; n; n = n->next) {
        double terms = terms_of(n, w->positions);
        for (int i = 0; i < n->n_in; i++)
            if (n->in[i]->maker && !in_bad[n->in[i]->id])
                terms += w->good_terms[n->in[i]->id];
        for (int i = 0; i < n->n_out; i++)
            w->good_terms[n->out[i]->id] = terms;
    }
}

/* --- one position ---------------------------------------------------------------------------------------- */

static carried inputs_of(const work *w, const qgc_node *n) {
    carried in = {0, terms_of(n, w->positions)};
    for (int i = 0; i < n->n_in; i++) {
        const qgc_value *v = n->in[i];
        if (!v->maker)
            continue;
        const bool compared = w->apart[v->id] >= 0;
        in.inputs = fmax(in.inputs, compared ? w->apart[v->id] : w->bad_in[v->id].inputs);
        in.terms += compared ? 0 : w->bad_in[v->id].terms;
    }
    return in;
}

/* One step of how a state is stored: a value near the middle of two may go either way. */
static double step_of(qgc_dtype t) {
    return t == QGC_F16 ? ldexp(1, -10) : t == QGC_BF16 ? ldexp(1, -7) : 0;
}

static qgc_status choice_distance(const work *w, const float *good, const float *bad, double *apart) {
    const qgc_value *logits = qgc_graph_output(w->good->graph, "logits");
    const float *at;
    int64_t n;
    bool kept;
    QGC_TRY(qgc_trial_value(w->good->trial, logits, &at, &n, &kept, w->d));
    *apart = bisect_choice_distance(at, kept ? n : 0, (int64_t)good[0], (int64_t)bad[0]);
    return QGC_OK;
}

static qgc_status compare_value(work *w, const qgc_value *v, const qgc_value *other, bool *compared,
                                double *apart) {
    const float *good, *bad;
    int64_t n_good, n_bad;
    bool kept_good, kept_bad;
    *compared = false;
    QGC_TRY(qgc_trial_value(w->bad->trial, v, &bad, &n_bad, &kept_bad, w->d));
    if (!kept_bad)
        return QGC_OK;
    QGC_TRY(qgc_trial_value(w->good->trial, other, &good, &n_good, &kept_good, w->d));
    if (!kept_good || n_good != n_bad)
        return QGC_OK;
    *compared = true;
    *apart = bisect_distance(good, bad, n_good);
    if (v == qgc_graph_output(w->bad->graph, "next") && n_good == 1)
        return choice_distance(w, good, bad, apart);
    return QGC_OK;
}

static void note(work *w, const qgc_value *v, double apart, carried in, int64_t position) {
    bisect_value *at = &w->out->values[v->id];
    const double terms = fmax(in.terms, w->good_terms[at->other->id]);
    const double rounding = SLACK * ldexp(1 + sqrt(terms), -24) + step_of(v->dtype) +
                            (w->prefill && terms > 0 ? ldexp(1, -7) : 0);
    const double ratio = isinf(apart) ? INFINITY : apart / (SLACK * in.inputs + rounding);
    at->most = fmax(at->most, apart);
    if (position > 0 && ratio <= at->ratio)
        return;
    at->apart = apart;
    at->inputs = in.inputs;
    at->rounding = SLACK * in.inputs + rounding;
    at->ratio = ratio;
    at->position = position;
}

static qgc_status compare_node(work *w, const qgc_node *n, int64_t position) {
    const carried in = inputs_of(w, n);
    for (int i = 0; i < n->n_out; i++) {
        const qgc_value *v = n->out[i];
        bool compared = false;
        double apart = 0;
        if (w->out->values[v->id].other)
            QGC_TRY(compare_value(w, v, w->out->values[v->id].other, &compared, &apart));
        w->bad_in[v->id] = in;
        w->apart[v->id] = compared ? apart : -1;
        if (compared)
            note(w, v, apart, in, position);
        else
            w->out->values[v->id].other = NULL;
    }
    return QGC_OK;
}

/* --- all ------------------------------------------------------------------------------------------------- */

/* The first that rounding does not explain. If there is none: the first that differs at all, or on a device, where all
 * differ, the one that rounding explains worst. */
static const qgc_value *choose_part(const work *w, bool by_kernels) {
    const qgc_value *part = NULL;
    double worst = 0;
    for (const qgc_node *n = w->bad->graph->first; n; n = n->next)
        for (int i = 0; i < n->n_out; i++) {
            const bisect_value *v = &w->out->values[n->out[i]->id];
            if (!v->other || v->ratio <= worst)
                continue;
            if (v->ratio > 1)
                return n->out[i];
            if (part && !by_kernels)
                continue;
            part = n->out[i];
            worst = v->ratio;
        }
    return part;
}

static void count_values(work *w) {
    for (const qgc_node *n = w->bad->graph->first; n; n = n->next)
        for (int i = 0; i < n->n_out; i++)
            if (w->out->values[n->out[i]->id].other)
                w->out->n_compared++;
            else
                w->out->n_unread++;
}

qgc_status bisect_compare(const bisect_side *good, const bisect_side *bad, const int32_t *tokens,
                          int64_t positions, bool by_kernels, bisect_comparison *out, qgc_diag *d) {
    qgc_arena *a = bad->arena;
    const size_t n = bad->graph->n_values, n_good = good->graph->n_values;
    *out = (bisect_comparison){.values = qgc_arena_array(a, n, sizeof *out->values)};
    work w = {.good = good, .bad = bad, .out = out, .positions = positions, .d = d};
    w.apart = qgc_arena_array(a, n, sizeof *w.apart);
    w.bad_in = qgc_arena_array(a, n, sizeof *w.bad_in);
    w.good_terms = qgc_arena_array(a, n_good, sizeof *w.good_terms);
    qgc_value **in_bad = qgc_arena_array(a, n_good, sizeof(qgc_value *));
    find_pairs(&w, in_bad);
    count_good_terms(&w, in_bad);
    const int64_t steps = qgc_trial_steps(bad->trial, positions);
    w.prefill = steps < positions;
    for (int64_t i = 0, at = 0, end; i < steps; i++, at = end) {
        end = qgc_trial_step_end(bad->trial, positions, i);
        QGC_TRY(qgc_trial_feed(good->trial, &tokens[at], end - at, NULL, d));
        QGC_TRY(qgc_trial_feed(bad->trial, &tokens[at], end - at, NULL, d));
        for (const qgc_node *node = bad->graph->first; node; node = node->next)
            QGC_TRY(compare_node(&w, node, i));
    }
    count_values(&w);
    out->part = choose_part(&w, by_kernels);
    return QGC_OK;
}
