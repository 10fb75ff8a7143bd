#include <math.h>
#include <string.h>

#include "graph/base/str.h"
#include "runtime/lab/judge_impl.h"

/* --- in words -------------------------------------------------------------------------------------------- */

void judge_settings_text(const qgc_sampling *s, qgc_str *out) {
    qgc_str_printf(out, ", temperature %g", (double)s->temperature);
    if (s->top_k)
        qgc_str_printf(out, ", top-k %d", s->top_k);
    if (s->top_p < 1)
        qgc_str_printf(out, ", top-p %g", (double)s->top_p);
    if (s->min_p > 0)
        qgc_str_printf(out, ", min-p %g", (double)s->min_p);
    if (s->repeat_penalty != 1)
        qgc_str_printf(out, ", penalty %g", (double)s->repeat_penalty);
}

static const char *where_text(const qgc_judge *j, size_t step, int lane, bool chosen, qgc_arena *a) {
    const judge_step *s = &j->steps[step];
    qgc_str text = qgc_str_new(a);
    if (s->sizes.tokens == 1)
        qgc_str_add(&text, "in a decode step");
    else
        qgc_str_printf(&text, "in a prefill of %lld tokens%s", (long long)s->sizes.tokens,
                       s->sizes.rows > 1 ? ", all rows wanted" : "");
    if (s->is_far)
        qgc_str_add(&text, " over random caches");
    if (!chosen)
        return text.text;
    judge_settings_text(&judge_sampling[lane], &text);
    return text.text;
}

void judge_tell(judge_work *w, const qgc_value *v, const judge_difference *d) {
    const qgc_judge *j = w->j;
    const judge_step *s = &j->steps[d->step];
    const int class = w->now->class_of[v->id];
    const int64_t rows = v->shape.rank > 0 ? qgc_dim_size(v->shape.dim[0], &s->sizes) : 1;
    int64_t row = d->row;
    if (v->shape.rank > 0 && v->shape.dim[0] == QGC_DIM_R && rows < s->sizes.tokens)
        row = s->sizes.tokens - 1;
    if (v->shape.rank == 0 || v->shape.dim[0] > 0) /* a state */
        row = s->sizes.tokens - 1;
    w->out->value = v;
    w->out->other = w->now->place[v->id] ? w->now->place[v->id] : w->now->shown.twin[v->id];
    w->out->apart = d->apart;
    w->out->position = s->first + row;
    w->out->where =
        where_text(j, d->step, d->lane, class >= 0 && j->classes[class].at[0].lanes > 1, j->arena);
}

/* --- the verdict ----------------------------------------------------------------------------------------- */

static bool is_equal(const judge_work *w, const qgc_value *v, const qgc_value *before) {
    return w->now->class_of[v->id] == w->before->class_of[before->id];
}

static const char *form_of(const qgc_value *v, qgc_arena *a) {
    return qgc_arena_printf(a, "%s %s", qgc_dtypes[v->dtype].name, qgc_shape_text(&v->shape, a));
}

/* Is an output there, in its form? If not, the finding says so. */
static bool has_output(judge_work *w, const qgc_value *v, const qgc_value *before) {
    qgc_arena *a = w->j->arena;
    if (!v)
        w->out->why = qgc_arena_printf(a, "output \"%s\" is gone", before->name);
    else if (v->dtype != before->dtype || !qgc_shape_equal(&v->shape, &before->shape))
        w->out->why = qgc_arena_printf(a, "output \"%s\" is %s and was %s", before->name, form_of(v, a),
                                       form_of(before, a));
    return !w->out->why;
}

static bool outputs_agree(judge_work *w) {
    const qgc_graph *g = w->now->shown.graph, *before = w->before->shown.graph;
    bool agree = true;
    for (size_t i = 0; i < before->n_outputs; i++) {
        const qgc_value *v = qgc_graph_output(g, before->outputs[i]->name);
        agree = has_output(w, v, before->outputs[i]) && is_equal(w, v, before->outputs[i]) && agree;
    }
    return agree;
}

static bool has_state(const judge_known *k, int class) {
    const qgc_graph *g = k->shown.graph;
    for (size_t i = 0; i < g->n_values; i++)
        if (g->values[i]->kind == QGC_STATE && k->class_of[i] == class)
            return true;
    return false;
}

/* Do outputs, or states that the graph before has, depend on state number `state`, which it has not? */
static bool is_used(const judge_work *w, size_t state) {
    const judge_known *k = w->now;
    const qgc_graph *g = k->shown.graph;
    bool *after = qgc_arena_array(k->shown.arena, g->n_values, sizeof *after), used = false;
    after[state] = true;
    for (const qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; i < n->n_in * n->n_out; i++)
            after[n->out[i % n->n_out]->id] |= after[n->in[i / n->n_out]->id];
    for (size_t i = 0; i < g->n_outputs; i++)
        used = used || after[g->outputs[i]->id];
    for (size_t i = 0; i < g->n_values; i++)
        used = used || (k->newest[i] && after[k->newest[i]->id] && has_state(w->before, k->class_of[i]));
    return used;
}

/* Every state of the one before has a counterpart of its type, which ends as the same, and nothing depends on
 * others. */
static bool states_agree(judge_work *w) {
    const qgc_graph *g = w->now->shown.graph, *before = w->before->shown.graph;
    bool agree = true;
    for (size_t k = 0; k < before->n_values; k++)
        agree = agree && (before->values[k]->kind != QGC_STATE || has_state(w->now, w->before->class_of[k]));
    for (size_t i = 0; i < g->n_values; i++) {
        if (g->values[i]->kind != QGC_STATE)
            continue;
        bool found = false;
        for (size_t k = 0; k < before->n_values; k++) {
            if (before->values[k]->kind != QGC_STATE || w->now->class_of[i] != w->before->class_of[k])
                continue;
            found = true;
            agree = agree && is_equal(w, w->now->newest[i], w->before->newest[k]);
            if (g->values[i]->dtype != before->values[k]->dtype)
                w->out->why = qgc_arena_printf(w->j->arena, "state \"%s\" is stored as %s and was as %s",
                                               qgc_value_label(g->values[i], w->j->arena),
                                               qgc_dtypes[g->values[i]->dtype].name,
                                               qgc_dtypes[before->values[k]->dtype].name);
        }
        agree = agree && (found || !is_used(w, i));
    }
    return agree;
}

static double apart_over_the_text(const qgc_judge *j, int good, int bad) {
    judge_difference out = {0};
    const qgc_shape *shape = &j->classes[good].shape;
    for (size_t s = 0; s < j->n_steps && !j->steps[s].is_far; s++) {
        const int64_t elems = qgc_shape_elems(shape, &j->steps[s].sizes);
        const int64_t row = shape->rank > 1 ? shape->dim[shape->rank - 1] : elems;
        judge_compare_rows(&j->classes[good].at[s], &j->classes[bad].at[s], elems, row, s, &out);
    }
    return out.apart;
}

/* Do the states hold the same after each step of the text, and are they those of the graph before? Then they are the same functions there, and where far steps,
 * which begin with the same random numbers, tell them apart, it is not that the graphs keep other things in them. */
static bool states_agree_over_the_text(const judge_work *w) {
    const qgc_graph *g = w->now->shown.graph, *before = w->before->shown.graph;
    for (size_t i = 0; i < g->n_values; i++)
        if (g->values[i]->kind == QGC_STATE && !has_state(w->before, w->now->class_of[i]))
            return false;
    for (size_t i = 0; i < g->n_values; i++)
        for (size_t k = 0; w->now->newest[i] && k < before->n_values; k++) {
            if (!w->before->newest[k] || w->now->class_of[i] != w->before->class_of[k])
                continue;
            const int now = w->now->class_of[w->now->newest[i]->id],
                      then = w->before->class_of[w->before->newest[k]->id];
            if (now != then && (!judge_may_be_equal(w->j, then, now) ||
                                !(apart_over_the_text(w->j, then, now) <= QGC_JUDGE_BOUND)))
                return false;
        }
    return true;
}

static double inputs_apart(const judge_work *w, const qgc_node *n) {
    double most = 0;
    for (int i = 0; i < n->n_in; i++) {
        const qgc_value *v = n->in[i], *twin = w->now->place[v->id];
        if (twin && judge_may_be_equal(w->j, w->before->class_of[twin->id], w->now->class_of[v->id]))
            most = fmax(
                most,
                judge_apart(w->j, w->before->class_of[twin->id], w->now->class_of[v->id], INFINITY).apart);
    }
    return most;
}

/* Names the first value that is not what was in its place; of two graphs one of the same label if there is
 * any. */
static void name_value(judge_work *w) {
    const qgc_graph *g = w->now->shown.graph;
    bool named = false;
    w->out->value = w->out->other = NULL;
    w->out->verdict = QGC_JUDGE_WRONG;
    for (const qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; i < n->n_out; i++) {
            const qgc_value *v = n->out[i], *twin = w->now->place[v->id];
            if (!twin || !judge_may_be_equal(w->j, w->before->class_of[twin->id], w->now->class_of[v->id]))
                continue;
            const judge_difference d =
                judge_apart(w->j, w->before->class_of[twin->id], w->now->class_of[v->id], INFINITY);
            if (!(d.apart > QGC_JUDGE_BOUND))
                continue;
            w->now->shown.differs[v->id] = true;
            const bool fits = w->is_same || strcmp(qgc_value_label(v, w->j->arena),
                                                   qgc_value_label(twin, w->j->arena)) == 0;
            if (named || (w->out->value && !fits))
                continue;
            judge_tell(w, v, &d);
            w->out->inputs = inputs_apart(w, n);
            named = fits;
        }
}

static void measure_ends(judge_work *w) {
    const qgc_graph *g = w->now->shown.graph, *first = w->j->first->shown.graph;
    const qgc_value *logits = qgc_graph_output(g, "logits"), *next = qgc_graph_output(g, "next"),
                    *right = qgc_graph_output(first, "logits"), *right_next = qgc_graph_output(first, "next");
    const int *now = w->now->class_of, *then = w->j->first->class_of;
    if (logits && right && judge_may_be_equal(w->j, then[right->id], now[logits->id]))
        w->out->logits = judge_apart(w->j, then[right->id], now[logits->id], INFINITY).apart;
    if (!next || !right_next || !judge_may_be_equal(w->j, then[right_next->id], now[next->id]))
        return;
    double choices = 0;
    for (size_t s = 0; s < w->j->n_steps; s++)
        choices += (double)(w->j->steps[s].sizes.rows * JUDGE_LANES);
    w->out->choices = judge_apart(w->j, then[right_next->id], now[next->id], INFINITY).others / choices;
}

void judge_decide(judge_work *w) {
    qgc_judge_finding *out = w->out;
    const bool outputs = outputs_agree(w), states = states_agree(w);
    qgc_judge *j = w->j;
    judge_difference in_row = {0};
    if (j->own_states)
        out->logits = j->row_logits; /* until it is known to be another */
    else
        measure_ends(w);
    if (outputs && states && w->route && !out->why) {
        w->misfit = w->route;
        out->why = w->route_why;
    }
    if (out->why) {
        out->verdict = QGC_JUDGE_WRONG;
        out->value = w->misfit;
        out->other = NULL;
        out->where = NULL;
    } else if (outputs && states)
        out->verdict = w->drifts ? QGC_JUDGE_DRIFT : w->computed ? QGC_JUDGE_EQUAL : QGC_JUDGE_SAME;
    else if (!states && !states_agree_over_the_text(w) &&
             judge_agree_in_a_row(w, w->before, &in_row, &out->choices)) {
        out->verdict = QGC_JUDGE_DRIFT;
        out->by_states = j->own_states = true;
        j->row_logits = fmax(j->row_logits, in_row.apart);
        out->logits = j->row_logits;
    } else {
        name_value(w);
        if (!out->value && w->choice) {
            out->value = w->choice;
            out->other = w->now->place[w->choice->id];
            out->why = w->choice_why;
        }
        if (!out->value && !out->why)
            out->why = outputs ? "it keeps other states" : "an output is another";
        if (j->own_states) {
            judge_agree_in_a_row(w, j->first, &in_row, &out->choices);
            out->logits = in_row.apart;
        }
    }
}
