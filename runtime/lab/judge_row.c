#include <math.h>
#include <string.h>

#include "runtime/lab/judge_impl.h"

/* A graph over the steps of the text, and over more of it up to the far position, with its own states. */
typedef struct {
    const qgc_judge *j;
    const judge_known *k;
    const judge_step *steps;
    size_t n_steps, n_text;       /* n_text of them are the text */
    qgc_arena *arena, *of_step;   /* what is left, and what one step holds */
    judge_numbers *now;           /* by value id; of a state in `arena` */
    judge_numbers *logits, *next; /* [steps] */
} row_of_steps;

/* Tokens of a step after the text: what it holds is held in doubles, all of it. */
enum { CHUNK = 32 };

static judge_step *plan_row(const qgc_judge *j, size_t *n_steps, size_t *n_text, qgc_arena *a) {
    judge_step *all = NULL;
    size_t n = 0;
    int64_t at = 0;
    for (; n < j->n_steps && !j->steps[n].is_far; n++) {
        all = qgc_arena_grow(a, all, n, sizeof *all);
        all[n] = j->steps[n];
        at = all[n].first + all[n].sizes.tokens;
    }
    *n_text = n;
    const int64_t ctx = j->steps[0].sizes.ctx;
    while (at < ctx) {
        const int64_t most = j->o.phase == QGC_PHASE_ONLY_DECODE ? 1 : CHUNK, left = ctx - 1 - at;
        const int64_t tokens = left < 1 ? 1 : left < most ? left : most; /* the last by itself */
        all = qgc_arena_grow(a, all, n, sizeof *all);
        all[n++] = (judge_step){.first = at, .sizes = {tokens, 1, ctx}};
        at += tokens;
    }
    *n_steps = n;
    return all;
}

static size_t bytes_of(const qgc_value *v, const judge_step *s, int lanes) {
    return (size_t)(qgc_shape_elems(&v->shape, &s->sizes) * lanes) * judge_elem_bytes(v->dtype);
}

static judge_numbers fresh(const qgc_value *v, const judge_step *s, int lanes, qgc_arena *a) {
    return (judge_numbers){v->dtype, NULL, lanes, qgc_arena_alloc(a, bytes_of(v, s, lanes))};
}

static void start_row(row_of_steps *r) {
    const qgc_graph *g = r->k->shown.graph;
    r->now = qgc_arena_array(r->arena, g->n_values, sizeof *r->now);
    r->logits = qgc_arena_array(r->arena, r->n_steps, sizeof *r->logits);
    r->next = qgc_arena_array(r->arena, r->n_steps, sizeof *r->next);
    for (size_t i = 0; i < g->n_values; i++) {
        const qgc_value *v = g->values[i];
        if (v->kind == QGC_WEIGHT && r->k->class_of[i] >= 0)
            r->now[i] = r->j->classes[r->k->class_of[i]].at[0];
        if (v->kind == QGC_STATE)
            r->now[i] = fresh(v, &r->steps[0], 1, r->arena);
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
        r->now[n->out[i]->id] = fresh(n->out[i], s, lanes, r->of_step);
        out[i] = &r->now[n->out[i]->id];
    }
    return judge_compute(n, s, in, out, r->j->o.pool, d);
}

/* Keeps an output of a step when the others go. */
static judge_numbers keep(const row_of_steps *r, const qgc_value *v, const judge_step *s) {
    if (!v)
        return (judge_numbers){.data = NULL};
    const judge_numbers *from = &r->now[v->id];
    judge_numbers to = fresh(v, s, from->lanes, r->arena);
    memcpy(to.data, from->data, bytes_of(v, s, from->lanes));
    return to;
}

static qgc_status run_step(row_of_steps *r, size_t at, qgc_diag *d) {
    const qgc_graph *g = r->k->shown.graph;
    const judge_step *s = &r->steps[at];
    for (size_t i = 0; i < g->n_inputs; i++) {
        const qgc_value *v = g->inputs[i];
        r->now[v->id] = fresh(v, s, 1, r->of_step);
        judge_fill_input(v->name, s, r->j->o.tokens, r->j->o.n_tokens, r->now[v->id].data);
    }
    for (const qgc_node *n = g->first; n; n = n->next)
        QGC_TRY(compute_in_row(r, n, s, d));
    for (size_t i = 0; i < g->n_values; i++)
        if (r->k->newest[i] && r->k->newest[i] != g->values[i])
            memcpy(r->now[i].data, r->now[r->k->newest[i]->id].data, bytes_of(g->values[i], s, 1));
    r->logits[at] = keep(r, qgc_graph_output(g, "logits"), s);
    r->next[at] = keep(r, qgc_graph_output(g, "next"), s);
    return QGC_OK;
}

static qgc_status run_steps(row_of_steps *r, size_t from, size_t to, qgc_diag *d) {
    qgc_status status = QGC_OK;
    for (size_t s = from; s < to && status == QGC_OK; s++) {
        r->of_step = qgc_arena_new();
        status = run_step(r, s, d);
        qgc_arena_drop(r->of_step);
    }
    return status;
}

typedef struct {
    row_of_steps good, bad;
    judge_difference logits, next;
    double made; /* choices */
} two_rows;

/* Runs steps of both and adds what they differ by. Do they agree so far? */
static bool agree_over(two_rows *t, size_t from, size_t to) {
    const judge_step *steps = t->good.steps;
    qgc_diag d = qgc_diag_new(t->good.arena);
    if (run_steps(&t->good, from, to, &d) != QGC_OK || run_steps(&t->bad, from, to, &d) != QGC_OK) {
        t->logits.apart = INFINITY;
        return false;
    }
    for (size_t s = from; s < to; s++) {
        const int64_t rows = steps[s].sizes.rows;
        const qgc_value *v = qgc_graph_output(t->bad.k->shown.graph, "logits");
        if (t->good.logits[s].data && t->bad.logits[s].data)
            judge_compare_rows(&t->good.logits[s], &t->bad.logits[s], rows * v->shape.dim[1], v->shape.dim[1],
                               s, &t->logits);
        if (t->good.next[s].data && t->bad.next[s].data)
            judge_compare_rows(&t->good.next[s], &t->bad.next[s], rows, rows, s, &t->next);
        t->made += (double)(rows * JUDGE_LANES);
    }
    return t->logits.apart <= QGC_JUDGE_BOUND && t->next.apart == 0;
}

bool judge_agree_in_a_row(judge_work *w, const judge_known *right, judge_difference *logits,
                          double *choices) {
    qgc_arena *a = qgc_arena_new();
    row_of_steps row = {.j = w->j, .k = right, .arena = a};
    row.steps = plan_row(w->j, &row.n_steps, &row.n_text, a);
    two_rows t = {.good = row, .bad = row};
    t.bad.k = w->now;
    start_row(&t.good);
    start_row(&t.bad);
    const bool agree = agree_over(&t, 0, row.n_text) && agree_over(&t, row.n_text, row.n_steps);
    qgc_arena_drop(a);
    *logits = t.logits;
    *choices = t.made > 0 ? t.next.others / t.made : 0;
    return agree;
}
