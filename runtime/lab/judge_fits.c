#include "runtime/lab/judge_impl.h"

/* Double precision has room for numbers that the evaluator in float32, a device, a cache or a stored weight has not. */

static void set_misfit(judge_work *w, const qgc_value *v, const char *what, const qgc_value *of,
                       const char *why) {
    qgc_arena *a = w->j->arena;
    w->misfit = v;
    w->out->why = qgc_arena_printf(a, "%s of \"%s\" are %s", what, qgc_value_label(of, a), why);
}

void judge_check_squares(judge_work *w, const qgc_node *n) {
    const qgc_judge *j = w->j;
    const qgc_value *x = n->in[0];
    const judge_class *c = &j->classes[w->now->class_of[x->id]];
    if ((n->op != QGC_OP_RMS_NORM && n->op != QGC_OP_LAYER_NORM) || !w->is_live[n->out[0]->id])
        return;
    for (size_t s = 0; s < j->n_steps && !j->steps[s].is_far && !w->misfit; s++) {
        const qgc_sizes *sizes = &j->steps[s].sizes;
        const char *why = judge_misfit_of_squares(c->at[s].data, qgc_shape_elems(&x->shape, sizes),
                                                  qgc_dim_size(x->shape.dim[1], sizes),
                                                  n->attr[qgc_attr_index(n->op, "eps")].number);
        if (why)
            set_misfit(w, n->out[0], "squares", x, why);
    }
}

void judge_check_range(judge_work *w, const qgc_value *v) {
    const qgc_judge *j = w->j;
    const judge_class *c = &j->classes[w->now->class_of[v->id]];
    judge_extent extent = {0};
    if (w->misfit || v->dtype == QGC_I32 || !w->is_live[v->id])
        return;
    for (size_t s = 0; s < j->n_steps && !j->steps[s].is_far; s++) {
        const qgc_sizes *sizes = &j->steps[s].sizes;
        const int64_t n = qgc_shape_elems(&v->shape, sizes);
        const int64_t row = v->shape.rank > 0 ? qgc_dim_size(v->shape.dim[v->shape.rank - 1], sizes) : n;
        judge_measure(c->at[s].data, n, row, &extent);
    }
    const char *why = judge_misfit(v->dtype, &extent);
    if (why)
        set_misfit(w, v, "numbers", v, why);
}

/* Is it the numbers of its sources, stored as those are? */
static bool is_copy(const qgc_graph *g, const qgc_value *v) {
    const qgc_derivation *how = &g->weights[v->decl].derived;
    bool same = qgc_derive_copies(how->kind);
    for (int i = 0; i < how->n_from; i++)
        same = same && qgc_weight_source(g, v, i)->dtype == v->dtype;
    return same;
}

void judge_check_derived(judge_work *w) {
    const qgc_graph *g = w->now->shown.graph;
    for (size_t i = 0; i < g->n_values && !w->misfit; i++) {
        const qgc_value *v = g->values[i];
        const int class = w->now->class_of[i];
        if (class < 0 || !qgc_weight_is_derived(g, v) || !w->is_live[i] || is_copy(g, v))
            continue;
        const char *why = judge_misfit(v->shape.rank < 2 ? QGC_F32 : v->dtype, &w->j->classes[class].extent);
        if (why)
            set_misfit(w, v, "numbers", v, why);
    }
}
