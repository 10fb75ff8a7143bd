#include <string.h>

#include "graph/base/str.h"
#include "runtime/lab/judge_impl.h"

/* --- graphs ---------------------------------------------------------------------------------------------- */

judge_known *judge_copy_graph(const qgc_graph *g) {
    qgc_arena *a = qgc_arena_new();
    judge_known *k = qgc_arena_alloc(a, sizeof *k);
    qgc_graph *copy = qgc_graph_clone(g, a);
    k->shown = (qgc_judge_graph){.arena = a, .graph = copy};
    k->shown.twin = qgc_arena_array(a, g->n_values, sizeof(qgc_value *));
    k->place = qgc_arena_array(a, g->n_values, sizeof(qgc_value *));
    k->shown.differs = qgc_arena_array(a, g->n_values, sizeof(bool));
    k->class_of = qgc_arena_array(a, g->n_values, sizeof *k->class_of);
    k->is_new = qgc_arena_array(a, g->n_values, sizeof *k->is_new);
    k->newest = qgc_arena_array(a, g->n_values, sizeof(qgc_value *));
    k->nodes = qgc_arena_array(a, (size_t)g->next_node_id, sizeof(qgc_node *));
    qgc_value **state = qgc_arena_array(a, g->n_values, sizeof(qgc_value *)); /* of a version */
    for (size_t i = 0; i < g->n_values; i++) {
        k->class_of[i] = -1;
        if (copy->values[i]->kind == QGC_STATE)
            state[i] = k->newest[i] = copy->values[i];
    }
    for (qgc_node *n = copy->first; n; n = n->next) {
        k->nodes[n->id] = n;
        if (!(qgc_ops[n->op].traits & QGC_IN_PLACE) || !state[n->in[0]->id])
            continue;
        state[n->out[0]->id] = state[n->in[0]->id];
        k->newest[state[n->in[0]->id]->id] = n->out[0];
    }
    return k;
}

void judge_drop_graph(judge_known *k) {
    if (k)
        qgc_arena_drop(k->shown.arena);
}

/* --- classes --------------------------------------------------------------------------------------------- */

static int add_class(qgc_judge *j, const qgc_value *v, const qgc_tensor *tensor, int lanes) {
    judge_numbers *at = qgc_arena_array(j->arena, j->n_steps, sizeof *at);
    for (size_t s = 0; s < j->n_steps; s++)
        at[s] = (judge_numbers){.dtype = v->dtype, .tensor = tensor, .lanes = lanes};
    j->classes = qgc_arena_grow(j->arena, j->classes, j->n_classes, sizeof *j->classes);
    j->classes[j->n_classes] = (judge_class){.shape = v->shape, .at = at};
    return (int)j->n_classes++;
}

static void *room_for(const qgc_judge *j, const judge_class *c, size_t step) {
    const size_t elems = (size_t)qgc_shape_elems(&c->shape, &j->steps[step].sizes);
    return qgc_arena_array(j->arena, elems * (size_t)c->at[step].lanes, judge_elem_bytes(c->at[step].dtype));
}

int judge_find_class(const qgc_judge *j, const void *key, size_t bytes) {
    const int *found = qgc_map_get_bytes(&j->by_key, key, bytes);
    return found ? *found : -1;
}

int judge_put_class(qgc_judge *j, const void *key, size_t bytes, int class) {
    int *to = qgc_arena_alloc(j->arena, sizeof *to);
    *to = class;
    qgc_map_put_bytes(&j->by_key, key, bytes, to);
    return class;
}

/* The state of the first graph that a state stands for: that of its label, else the one in its place among
 * those of its shape. NULL: there is none. */
static const qgc_value *first_state(const qgc_judge *j, const qgc_graph *g, const qgc_value *v,
                                    qgc_arena *a) {
    const qgc_graph *first = j->first->shown.graph;
    int place = 0;
    for (size_t i = 0; i < g->n_values && g->values[i] != v; i++)
        place += g->values[i]->kind == QGC_STATE && qgc_shape_equal(&g->values[i]->shape, &v->shape);
    const qgc_value *by_place = NULL;
    for (size_t i = 0; i < first->n_values; i++) {
        const qgc_value *s = first->values[i];
        if (s->kind != QGC_STATE || !qgc_shape_equal(&s->shape, &v->shape))
            continue;
        if (strcmp(qgc_value_label(s, a), qgc_value_label(v, a)) == 0)
            return s;
        if (place-- == 0)
            by_place = s;
    }
    return by_place;
}

static void fill_leaf(qgc_judge *j, const qgc_value *v, int class) {
    judge_class *c = &j->classes[class];
    for (size_t s = 0; s < j->n_steps; s++) {
        c->at[s].data = room_for(j, c, s); /* of a state zeros, until judge_new knows better */
        if (v->kind == QGC_INPUT)
            judge_fill_input(v->name, &j->steps[s], j->o.tokens, j->o.n_tokens, c->at[s].data);
    }
}

/* Of doubles that are computed of others' tensors, in every step the same. */
static int class_of_derived(qgc_judge *j, const judge_known *k, const qgc_value *v,
                            const qgc_tensor *const *tensors) {
    const qgc_graph *g = k->shown.graph;
    const qgc_derivation *how = &g->weights[v->decl].derived;
    const char *key =
        qgc_arena_printf(k->shown.arena, "derived %d %lld %lld %a %lld of", (int)how->kind,
                         (long long)how->first, (long long)how->last, how->factor, (long long)how->head_dim);
    for (int i = 0; i < how->n_from; i++) {
        const int from = k->class_of[qgc_weight_source(g, v, i)->id];
        if (from < 0)
            return -1;
        key = qgc_arena_printf(k->shown.arena, "%s %d", key, from);
    }
    const int known = judge_find_class(j, key, strlen(key));
    if (known >= 0)
        return known;
    const double *reals = qgc_weight_reals(g, v, tensors, j->o.pool, j->arena);
    if (!reals)
        return -1;
    const int class = judge_put_class(j, key, strlen(key), add_class(j, v, NULL, 1));
    for (size_t s = 0; s < j->n_steps; s++)
        j->classes[class].at[s] =
            (judge_numbers){.dtype = QGC_F32, .lanes = 1, .data = (void *)(uintptr_t)reals};
    judge_measure(reals, qgc_shape_elems_from(&v->shape, 0), v->shape.dim[v->shape.rank - 1],
                  &j->classes[class].extent);
    return class;
}

/* Of an input, a weight or a state, made if there is none; -1: its weight is not bound. */
static int class_of_leaf(qgc_judge *j, const judge_known *k, const qgc_value *v,
                         const qgc_tensor *const *tensors) {
    const qgc_graph *g = k->shown.graph;
    const char *key = "";
    if (qgc_weight_is_derived(g, v))
        return class_of_derived(j, k, v, tensors);
    const qgc_tensor *tensor = v->kind == QGC_WEIGHT ? tensors[v->id] : NULL;
    const qgc_value *state = v->kind == QGC_STATE ? first_state(j, g, v, k->shown.arena) : NULL;
    if (v->kind == QGC_WEIGHT && !tensor)
        return -1;
    if (tensor) /* whatever its name: tied weights are one */
        key = qgc_arena_printf(k->shown.arena, "weight %p %d %s", tensor->data, (int)tensor->dtype,
                               qgc_shape_text(&v->shape, k->shown.arena));
    else if (v->kind == QGC_INPUT)
        key = qgc_arena_printf(k->shown.arena, "input %s", v->name);
    else
        key = qgc_arena_printf(k->shown.arena, "%s %s", state ? "state" : "other state",
                               qgc_value_label(state ? state : v, k->shown.arena));
    const int known = judge_find_class(j, key, strlen(key));
    if (known >= 0)
        return known;
    const int class = judge_put_class(j, key, strlen(key), add_class(j, v, tensor, 1));
    if (!tensor)
        fill_leaf(j, v, class);
    return class;
}

/* Weights that only others are derived of count too. */
static bool *find_read(const judge_known *k) {
    const qgc_graph *g = k->shown.graph;
    bool *read = qgc_arena_array(k->shown.arena, g->n_values, sizeof *read);
    for (const qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; i < n->n_in; i++)
            read[n->in[i]->id] = true;
    for (size_t i = g->n_values; i-- > 0;) /* sources come before what is made of them */
        if (read[i] && qgc_weight_is_derived(g, g->values[i]))
            for (int s = 0; s < g->weights[g->values[i]->decl].derived.n_from; s++)
                read[qgc_weight_source(g, g->values[i], s)->id] = true;
    return read;
}

void judge_add_leaves(qgc_judge *j, judge_known *k, const qgc_tensor *const *tensors) {
    const qgc_graph *g = k->shown.graph;
    const bool *read = find_read(k);
    for (size_t i = 0; i < g->n_values; i++) {
        const bool idle = !read[i] && qgc_weight_is_derived(g, g->values[i]);
        if (g->values[i]->kind != QGC_RESULT && !idle)
            k->class_of[i] = class_of_leaf(j, k, g->values[i], tensors);
    }
}

judge_key judge_key_of(const judge_known *k, const qgc_node *n, int out) {
    judge_key key;
    memset(&key, 0, sizeof key);
    key.op = (int64_t)n->op;
    key.out = out;
    key.n_in = n->n_in;
    for (int i = 0; i < n->n_in; i++)
        key.in[i] = k->class_of[n->in[i]->id];
    for (int i = 0; qgc_ops[n->op].attrs[i].name; i++)
        if (qgc_ops[n->op].attrs[i].choices[0])
            key.choice[i] = n->attr[i].choice;
        else
            key.number[i] = n->attr[i].number;
    return key;
}

/* New classes for the results of a node, with no numbers yet. */
void judge_add_results(qgc_judge *j, judge_known *k, const qgc_node *n) {
    int lanes = judge_samples(n->op) ? JUDGE_LANES : 1;
    for (int i = 0; i < n->n_in; i++) {
        const int from = j->classes[k->class_of[n->in[i]->id]].at[0].lanes;
        lanes = from > lanes ? from : lanes;
    }
    for (int i = 0; i < n->n_out; i++)
        k->class_of[n->out[i]->id] = add_class(j, n->out[i], NULL, lanes);
}

qgc_status judge_compute_step(qgc_judge *j, const judge_known *k, const qgc_node *n, size_t step,
                              qgc_diag *d) {
    const judge_numbers *in[QGC_MAX_INPUTS], *out[QGC_MAX_OUTPUTS];
    for (int i = 0; i < n->n_in; i++)
        in[i] = &j->classes[k->class_of[n->in[i]->id]].at[step];
    for (int i = 0; i < n->n_out; i++) {
        judge_class *c = &j->classes[k->class_of[n->out[i]->id]];
        c->at[step].data = room_for(j, c, step);
        out[i] = &c->at[step];
    }
    return judge_compute(n, &j->steps[step], in, out, j->o.pool, d);
}

bool judge_is_placed(const judge_known *k, const qgc_node *n) {
    for (int i = 0; i < n->n_in; i++)
        if (k->class_of[n->in[i]->id] < 0)
            return false;
    return true;
}

/* --- differences ----------------------------------------------------------------------------------------- */

bool judge_may_be_equal(const qgc_judge *j, int good, int bad) {
    return good >= 0 && bad >= 0 && j->classes[good].at[0].dtype == j->classes[bad].at[0].dtype &&
           !j->classes[good].at[0].tensor && !j->classes[bad].at[0].tensor &&
           qgc_shape_equal(&j->classes[good].shape, &j->classes[bad].shape);
}

/* Of two classes of one shape and type; no more is looked at after a step in which more than `enough` was
 * found. Steps of the text come first, and what they show is told before what the others do. */
judge_difference judge_apart(const qgc_judge *j, int good, int bad, double enough) {
    judge_difference out = {0};
    const qgc_shape *shape = &j->classes[good].shape;
    for (size_t s = 0; good != bad && s < j->n_steps; s++) {
        if (out.apart > enough || (j->steps[s].is_far && out.apart > QGC_JUDGE_BOUND))
            break;
        const qgc_sizes *sizes = &j->steps[s].sizes;
        const int64_t elems = qgc_shape_elems(shape, sizes);
        const int64_t row = shape->rank > 1 ? qgc_dim_size(shape->dim[shape->rank - 1], sizes) : elems;
        judge_compare_rows(&j->classes[good].at[s], &j->classes[bad].at[s], elems, row, s, &out);
    }
    return out;
}
