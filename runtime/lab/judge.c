#include <math.h>

#include "runtime/lab/judge_impl.h"

/* --- values ---------------------------------------------------------------------------------------------- */

/* A known value with the numbers of class `new`, or -1: what is in the place of v first. */
static int find_equal(judge_work *w, const qgc_value *v, int new, judge_difference *d, const char **why) {
    qgc_judge *j = w->j;
    const char *of = NULL, *route = NULL;
    const qgc_value *twin = w->now->place[v->id];
    const qgc_graph *g = w->before->shown.graph;
    for (size_t i = 0; i <= g->n_values; i++) {
        const qgc_value *u = i == 0 ? twin : g->values[i - 1];
        const int class = u ? w->before->class_of[u->id] : -1;
        if (!judge_may_be_equal(j, class, new))
            continue;
        *d = judge_apart(j, class, new, QGC_JUDGE_BOUND);
        if (d->apart <= QGC_JUDGE_BOUND && !(route = judge_objection_to_route(w, v, u)) &&
            !(*why = judge_objection_in_range(w, v, u)) && !(of = judge_objection_to_choice(w, v, u))) {
            w->now->shown.twin[v->id] = u;
            return class;
        }
    }
    if (of && !w->choice) {
        w->choice = v;
        w->choice_why = of;
    }
    if (route && !w->route && w->is_live[v->id]) {
        w->route = v;
        w->route_why = route;
    }
    return -1;
}

/* Numbers that are near those of a known value are that value's. */
static void settle_result(judge_work *w, const qgc_value *v, const judge_key *key) {
    qgc_judge *j = w->j;
    judge_difference d = {0};
    int class = w->now->class_of[v->id];
    const char *why = NULL;
    const int known = find_equal(w, v, class, &d, &why);
    if (known >= 0) {
        class = w->now->class_of[v->id] = known;
        if (d.any && (!w->drifts || !w->out->value))
            judge_tell(w, v, &d);
        w->drifts = w->drifts || d.any;
        if (!w->out->value) {
            w->out->value = v;
            w->out->other = w->now->shown.twin[v->id];
        }
    } else
        w->now->is_new[v->id] = true;
    if (known < 0 && why && !w->misfit && w->is_live[v->id]) { /* no step shows it */
        w->misfit = v;
        w->out->why = why;
    }
    judge_put_class(j, key, sizeof *key, class);
}

static qgc_status settle_node(judge_work *w, const qgc_node *n, qgc_diag *d) {
    qgc_judge *j = w->j;
    judge_known *k = w->now;
    judge_key keys[QGC_MAX_OUTPUTS];
    bool known = true;
    if (!judge_is_placed(k, n))
        return qgc_fail(d, QGC_ERR_INPUT, n->at, "a weight of \"%s\" is not bound", n->out[0]->name);
    for (int i = 0; i < n->n_out; i++) {
        keys[i] = judge_key_of(k, n, i);
        k->class_of[n->out[i]->id] = judge_find_class(j, &keys[i], sizeof keys[i]);
        known = known && k->class_of[n->out[i]->id] >= 0;
    }
    if (known)
        return QGC_OK;
    judge_add_results(j, k, n);
    w->computed = true;
    for (size_t s = 0; s < j->n_steps; s++)
        QGC_TRY(judge_compute_step(j, k, n, s, d));
    judge_check_squares(w, n);
    for (int i = 0; i < n->n_out; i++) {
        judge_check_range(w, n->out[i]);
        settle_result(w, n->out[i], &keys[i]);
    }
    return QGC_OK;
}

static int n_sources(const qgc_graph *g, size_t value) {
    return g->weights[g->values[value]->decl].derived.n_from;
}

/* By value id: do outputs, or what states are left as, depend on it? */
static bool *find_live(const judge_known *k) {
    const qgc_graph *g = k->shown.graph;
    bool *live = qgc_arena_array(k->shown.arena, g->n_values, sizeof *live);
    for (size_t i = 0; i < g->n_outputs; i++)
        live[g->outputs[i]->id] = true;
    for (size_t i = 0; i < g->n_values; i++)
        if (k->newest[i])
            live[k->newest[i]->id] = true;
    for (const qgc_node *n = g->last; n; n = n->prev)
        for (int i = 0; i < n->n_in * n->n_out; i++)
            live[n->in[i / n->n_out]->id] |= live[n->out[i % n->n_out]->id];
    for (size_t i = g->n_values; i-- > 0;) /* sources come before what is made of them */
        for (int s = 0; live[i] && qgc_weight_is_derived(g, g->values[i]) && s < n_sources(g, i); s++)
            live[qgc_weight_source(g, g->values[i], s)->id] = true;
    return live;
}

static qgc_status settle_graph(judge_work *w, const qgc_tensor *const *tensors, qgc_diag *d) {
    const qgc_graph *g = w->now->shown.graph;
    judge_add_leaves(w->j, w->now, tensors);
    judge_check_derived(w);
    if (w->is_same)
        judge_pair_by_ids(w->now, w->before);
    judge_pair_ends(w->now, w->before);
    if (!w->is_same)
        judge_pair_backwards(w->now);
    for (const qgc_node *n = g->first; n; n = n->next)
        QGC_TRY(settle_node(w, n, d));
    return QGC_OK;
}

static void take_place(qgc_judge *j, judge_known *k) {
    if (j->before && j->before != j->first && !j->before->is_kept)
        judge_drop_graph(j->before);
    j->before = j->now;
    j->now = k;
}

void qgc_judge_next(qgc_judge *j, const qgc_graph *g, const qgc_tensor *const *tensors, bool is_same,
                    qgc_judge_finding *out) {
    *out = (qgc_judge_finding){.verdict = QGC_JUDGE_SAME};
    if (j->is_dead)
        return;
    qgc_diag d = qgc_diag_new(j->arena);
    judge_work w = {.j = j, .before = j->now, .out = out, .is_same = is_same};
    w.now = judge_copy_graph(g);
    w.is_live = find_live(w.now);
    take_place(j, w.now);
    if (settle_graph(&w, tensors, &d) == QGC_OK) {
        judge_decide(&w);
        return;
    }
    *out = (qgc_judge_finding){.verdict = QGC_JUDGE_WRONG, .why = qgc_diag_message(&d), .logits = INFINITY};
    j->is_dead = true;
}

/* --- the first graph ------------------------------------------------------------------------------------- */

/* The largest number of a state at the end of the text: how large its random numbers are to be. */
static double size_of_state(const qgc_judge *j, const judge_known *k, int id, size_t last) {
    const qgc_value *newest = k->newest[id];
    const judge_numbers *x = &j->classes[k->class_of[newest->id]].at[last];
    const int64_t n = qgc_shape_elems(&newest->shape, &j->steps[last].sizes);
    double size = 0;
    for (int64_t i = 0; x->dtype != QGC_I32 && i < n; i++)
        size = fmax(size, fabs(((const double *)x->data)[i]));
    return size;
}

/* States of a step: what the one before it has left, or random numbers. */
static void start_step(qgc_judge *j, const judge_known *k, size_t s) {
    const qgc_graph *g = k->shown.graph;
    for (size_t i = 0; i < g->n_values && s > 0; i++) {
        if (g->values[i]->kind != QGC_STATE)
            continue;
        judge_numbers *state = &j->classes[k->class_of[i]].at[s];
        const judge_numbers *left = &j->classes[k->class_of[k->newest[i]->id]].at[s - 1];
        if (!j->steps[s].is_far)
            state->data = left->data;
        else
            judge_fill_state(state->dtype, state->data,
                             qgc_shape_elems(&g->values[i]->shape, &j->steps[s].sizes),
                             size_of_state(j, k, (int)i, s - 1), &j->seed);
    }
}

static qgc_status compute_first(qgc_judge *j, judge_known *k, const qgc_tensor *const *tensors, qgc_diag *d) {
    const qgc_graph *g = k->shown.graph;
    judge_add_leaves(j, k, tensors);
    bool *is_first = qgc_arena_array(k->shown.arena, (size_t)g->next_node_id, sizeof *is_first);
    for (const qgc_node *n = g->first; n; n = n->next) {
        if (!judge_is_placed(k, n))
            return qgc_fail(d, QGC_ERR_INPUT, n->at, "a weight of \"%s\" is not bound", n->out[0]->name);
        const judge_key first_key = judge_key_of(k, n, 0);
        is_first[n->id] = judge_find_class(j, &first_key, sizeof first_key) < 0;
        if (is_first[n->id])
            judge_add_results(j, k, n);
        for (int i = 0; i < n->n_out; i++) {
            const judge_key key = judge_key_of(k, n, i);
            int *class = &k->class_of[n->out[i]->id];
            *class = is_first[n->id] ? judge_put_class(j, &key, sizeof key, *class)
                                     : judge_find_class(j, &key, sizeof key);
        }
    }
    for (size_t s = 0; s < j->n_steps; s++) {
        start_step(j, k, s);
        for (const qgc_node *n = g->first; n; n = n->next)
            if (is_first[n->id])
                QGC_TRY(judge_compute_step(j, k, n, s, d));
    }
    return QGC_OK;
}

qgc_status qgc_judge_new(qgc_judge **out, const qgc_graph *g, const qgc_tensor *const *tensors,
                         const qgc_judge_options *o, qgc_diag *d) {
    qgc_arena *a = qgc_arena_new();
    qgc_judge *j = qgc_arena_alloc(a, sizeof *j);
    *j = (qgc_judge){.arena = a, .o = *o, .by_key = qgc_map_new(a), .seed = 1};
    j->steps = judge_plan_steps(o->n_tokens, qgc_graph_max_positions(g), o->phase, &j->n_steps, a);
    j->first = j->now = judge_copy_graph(g);
    const qgc_status status = compute_first(j, j->first, tensors, d);
    *out = status == QGC_OK ? j : NULL;
    if (status != QGC_OK)
        qgc_judge_drop(j);
    return status;
}

void qgc_judge_drop(qgc_judge *j) {
    if (!j)
        return;
    judge_known *held[] = {j->first, j->before, j->now, j->kept[0], j->kept[1]};
    for (int i = 0; i < 5; i++) {
        bool again = false;
        for (int k = 0; k < i; k++)
            again = again || held[k] == held[i];
        if (!again)
            judge_drop_graph(held[i]);
    }
    qgc_arena_drop(j->arena);
}

const qgc_graph *qgc_judge_right(const qgc_judge *j) {
    return j->first->shown.graph;
}

void qgc_judge_restart(qgc_judge *j) {
    if (j->now == j->first)
        return;
    if (j->before && j->before != j->first && !j->before->is_kept)
        judge_drop_graph(j->before);
    j->before = j->now->is_kept ? NULL : j->now;
    j->now = j->first;
    j->is_dead = j->own_states = false;
    j->row_logits = 0;
}

static bool is_held(const qgc_judge *j, const judge_known *k) {
    return k == j->first || k == j->before || k == j->now;
}

static void release_kept(qgc_judge *j) {
    for (int i = 0; i < 2; i++) {
        if (j->kept[i])
            j->kept[i]->is_kept = false;
        if (j->kept[i] && !is_held(j, j->kept[i]))
            judge_drop_graph(j->kept[i]);
        j->kept[i] = NULL;
    }
}

void qgc_judge_keep(qgc_judge *j) {
    if (!j->before)
        return;
    release_kept(j);
    judge_match_known(j->now, j->before, j->n_classes);
    j->kept[0] = j->before;
    j->kept[1] = j->now;
    j->before->is_kept = j->now->is_kept = true;
}

bool qgc_judge_kept(const qgc_judge *j, qgc_judge_graph *before, qgc_judge_graph *now) {
    if (!j->kept[0])
        return false;
    *before = j->kept[0]->shown;
    *now = j->kept[1]->shown;
    return true;
}

int64_t qgc_judge_positions(const qgc_judge *j) {
    int64_t n = 0;
    for (size_t s = 0; s < j->n_steps; s++)
        n += j->steps[s].sizes.tokens;
    return n;
}
