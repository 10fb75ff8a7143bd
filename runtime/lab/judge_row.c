#include <math.h>

#include "runtime/lab/judge_parts.h"

/* A graph over the steps of the text, with its own states. */
typedef struct {
    const qgc_judge *j;
    const judge_known *k;
    qgc_arena *arena;
    judge_numbers *now;           /* by value id */
    judge_numbers *logits, *next; /* [steps] */
} row_of_steps;

static void *fresh(const row_of_steps *r, const qgc_value *v, const judge_step *s, int lanes) {
    return qgc_arena_array(r->arena, (size_t)(qgc_shape_elems(&v->shape, &s->sizes) * lanes),
                           judge_elem_bytes(v->dtype));
}

static void start_row(row_of_steps *r) {
    const qgc_graph *g = r->k->shown.graph;
    r->now = qgc_arena_array(r->arena, g->n_values, sizeof *r->now);
    r->logits = qgc_arena_array(r->arena, r->j->n_steps, sizeof *r->logits);
    r->next = qgc_arena_array(r->arena, r->j->n_steps, sizeof *r->next);
    for (size_t i = 0; i < g->n_values; i++) {
        const qgc_value *v = g->values[i];
        if (v->kind == QGC_WEIGHT && r->k->class_of[i] >= 0)
            r->now[i] = r->j->classes[r->k->class_of[i]].at[0];
        if (v->kind == QGC_STATE)
            r->now[i] = (judge_numbers){v->dtype, NULL, 1, fresh(r, v, &r->j->steps[0], 1)};
    }
}

static qgc_status compute_in_row(row_of_steps *r, const qgc_node *n, const judge_step *s, qgc_diag *d) {
    const judge_numbers *in[QGC_MAX_INPUTS], *out[QGC_MAX_OUTPUTS];
    int lanes = judge_samples(n->op) ? JUDGE_LANES : 1;
    for (int i = 0; i < n->n_in; i++) {
        in[i] = &r->now[n->in[i]->id];
        lanes = in[i]->lanes > lanes ? in[i]->lanes : lanes;
    }
    for (int i = 0; i < n->n_out; i++) {
        const qgc_value *v = n->out[i];
        r->now[v->id] = (judge_numbers){v->dtype, NULL, lanes, fresh(r, v, s, lanes)};
        out[i] = &r->now[v->id];
    }
    return judge_compute(n, s, in, out, r->j->o.pool, d);
}

static qgc_status run_row(row_of_steps *r, qgc_diag *d) {
    const qgc_graph *g = r->k->shown.graph;
    start_row(r);
    for (size_t s = 0; s < r->j->n_steps && !r->j->steps[s].is_far; s++) {
        for (size_t i = 0; i < g->n_inputs; i++)
            r->now[g->inputs[i]->id] = r->j->classes[r->k->class_of[g->inputs[i]->id]].at[s];
        for (const qgc_node *n = g->first; n; n = n->next)
            QGC_TRY(compute_in_row(r, n, &r->j->steps[s], d));
        for (size_t i = 0; i < g->n_values; i++)
            if (r->k->newest[i])
                r->now[i] = r->now[r->k->newest[i]->id];
        const qgc_value *logits = qgc_graph_output(g, "logits"), *next = qgc_graph_output(g, "next");
        if (logits)
            r->logits[s] = r->now[logits->id];
        if (next)
            r->next[s] = r->now[next->id];
    }
    return QGC_OK;
}

/* Are logits and choices of a graph those of the new one where each has its own states? */
bool judge_agree_in_a_row(judge_work *w, const judge_known *right, judge_difference *logits,
                          double *choices) {
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a);
    row_of_steps good = {.j = w->j, .k = right, .arena = a}, bad = {.j = w->j, .k = w->now, .arena = a};
    bool agree = run_row(&good, &d) == QGC_OK && run_row(&bad, &d) == QGC_OK;
    judge_difference next = {0};
    double made = 0;
    *logits = (judge_difference){.apart = agree ? 0 : INFINITY};
    for (size_t s = 0; agree && s < w->j->n_steps && !w->j->steps[s].is_far; s++) {
        const int64_t rows = w->j->steps[s].sizes.rows;
        const qgc_value *v = qgc_graph_output(w->now->shown.graph, "logits");
        if (good.logits[s].data && bad.logits[s].data)
            judge_compare_rows(&good.logits[s], &bad.logits[s], rows * v->shape.dim[1], v->shape.dim[1], s,
                               logits);
        if (good.next[s].data && bad.next[s].data)
            judge_compare_rows(&good.next[s], &bad.next[s], rows, rows, s, &next);
        made += (double)(rows * JUDGE_LANES);
    }
    qgc_arena_drop(a);
    *choices = made > 0 ? next.others / made : 0;
    return agree && logits->apart <= QGC_JUDGE_BOUND && next.apart == 0;
}
