#include <math.h>
#include <string.h>

#include "graph/base/map.h"
#include "graph/base/str.h"
#include "runtime/lab/judge_parts.h"

/* All values that are computed from the same by the same op, and those with the same numbers. */
typedef struct {
    qgc_shape shape;
    judge_numbers *at; /* [steps] */
} value_class;

typedef struct {
    qgc_judge_graph shown;
    const qgc_value **place; /* by value id: what was in its place in the graph before, NULL if nothing was */
    int *class_of;           /* by value id; -1: it has no numbers */
    bool *is_new;            /* by value id: its class is in no graph before this one */
    qgc_node **nodes;        /* by id; NULL for one that is gone */
    qgc_value **newest;      /* by value id of a state: its last version */
    bool is_kept;
} known_graph;

struct qgc_judge {
    qgc_arena *arena;
    qgc_judge_options o;
    judge_step *steps;
    size_t n_steps;
    value_class *classes;
    size_t n_classes;
    qgc_map by_key; /* an int: index into classes */
    uint64_t seed;
    known_graph *first, *before, *now;
    known_graph *kept[2];
    bool
        own_states; /* states are other functions than in the first graph: only steps in a row compare with it */
    double row_logits; /* then: how far the logits of the last graph that was right are from its */
    bool is_dead;      /* a graph could not be computed: there is nothing to hold the next one against */
};

/* --- graphs ---------------------------------------------------------------------------------------------- */

static known_graph *copy_graph(const qgc_graph *g) {
    qgc_arena *a = qgc_arena_new();
    known_graph *k = qgc_arena_alloc(a, sizeof *k);
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

static void drop_graph(known_graph *k) {
    if (k)
        qgc_arena_drop(k->shown.arena);
}

/* --- classes --------------------------------------------------------------------------------------------- */

static int add_class(qgc_judge *j, const qgc_value *v, const qgc_tensor *tensor, int lanes) {
    judge_numbers *at = qgc_arena_array(j->arena, j->n_steps, sizeof *at);
    for (size_t s = 0; s < j->n_steps; s++)
        at[s] = (judge_numbers){.dtype = v->dtype, .tensor = tensor, .lanes = lanes};
    j->classes = qgc_arena_grow(j->arena, j->classes, j->n_classes, sizeof *j->classes);
    j->classes[j->n_classes] = (value_class){v->shape, at};
    return (int)j->n_classes++;
}

static void *room_for(const qgc_judge *j, const value_class *c, size_t step) {
    const size_t elems = (size_t)qgc_shape_elems(&c->shape, &j->steps[step].sizes);
    return qgc_arena_array(j->arena, elems * (size_t)c->at[step].lanes, judge_elem_bytes(c->at[step].dtype));
}

static int find_class(const qgc_judge *j, const void *key, size_t bytes) {
    const int *found = qgc_map_get_bytes(&j->by_key, key, bytes);
    return found ? *found : -1;
}

static int put_class(qgc_judge *j, const void *key, size_t bytes, int class) {
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
    value_class *c = &j->classes[class];
    for (size_t s = 0; s < j->n_steps; s++) {
        c->at[s].data = room_for(j, c, s); /* of a state zeros, until judge_new knows better */
        if (v->kind == QGC_INPUT)
            judge_fill_input(v->name, &j->steps[s], j->o.tokens, j->o.n_tokens, c->at[s].data);
    }
}

/* Of doubles that are computed of others' tensors, in every step the same. */
static int class_of_derived(qgc_judge *j, const known_graph *k, const qgc_value *v,
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
    const int known = find_class(j, key, strlen(key));
    if (known >= 0)
        return known;
    const double *reals = qgc_weight_reals(g, v, tensors, j->o.pool, j->arena);
    if (!reals)
        return -1;
    const int class = put_class(j, key, strlen(key), add_class(j, v, NULL, 1));
    for (size_t s = 0; s < j->n_steps; s++)
        j->classes[class].at[s] =
            (judge_numbers){.dtype = QGC_F32, .lanes = 1, .data = (void *)(uintptr_t)reals};
    return class;
}

static int class_of_leaf(qgc_judge *j, const known_graph *k, const qgc_value *v,
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
    const int known = find_class(j, key, strlen(key));
    if (known >= 0)
        return known;
    const int class = put_class(j, key, strlen(key), add_class(j, v, tensor, 1));
    if (!tensor)
        fill_leaf(j, v, class);
    return class;
}

typedef struct {
    int64_t op, out, n_in, in[QGC_MAX_INPUTS], choice[QGC_MAX_ATTRS]; /* no bytes between them */
    double number[QGC_MAX_ATTRS];
} node_key;

static node_key key_of(const known_graph *k, const qgc_node *n, int out) {
    node_key key;
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
static void add_results(qgc_judge *j, known_graph *k, const qgc_node *n) {
    int lanes = judge_samples(n->op) ? JUDGE_LANES : 1;
    for (int i = 0; i < n->n_in; i++) {
        const int from = j->classes[k->class_of[n->in[i]->id]].at[0].lanes;
        lanes = from > lanes ? from : lanes;
    }
    for (int i = 0; i < n->n_out; i++)
        k->class_of[n->out[i]->id] = add_class(j, n->out[i], NULL, lanes);
}

static qgc_status compute_step(qgc_judge *j, const known_graph *k, const qgc_node *n, size_t step,
                               qgc_diag *d) {
    const judge_numbers *in[QGC_MAX_INPUTS], *out[QGC_MAX_OUTPUTS];
    for (int i = 0; i < n->n_in; i++)
        in[i] = &j->classes[k->class_of[n->in[i]->id]].at[step];
    for (int i = 0; i < n->n_out; i++) {
        value_class *c = &j->classes[k->class_of[n->out[i]->id]];
        c->at[step].data = room_for(j, c, step);
        out[i] = &c->at[step];
    }
    return judge_compute(n, &j->steps[step], in, out, j->o.pool, d);
}

/* --- differences ----------------------------------------------------------------------------------------- */

static bool may_be_equal(const qgc_judge *j, int good, int bad) {
    return good >= 0 && bad >= 0 && j->classes[good].at[0].dtype == j->classes[bad].at[0].dtype &&
           !j->classes[good].at[0].tensor && !j->classes[bad].at[0].tensor &&
           qgc_shape_equal(&j->classes[good].shape, &j->classes[bad].shape);
}

/* Of two classes of one shape and type; no more is looked at after a step in which more than `enough` was
 * found. Steps of the text come first, and what they show is told before what the others do. */
static judge_difference difference(const qgc_judge *j, int good, int bad, double enough) {
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

/* --- pairs ----------------------------------------------------------------------------------------------- */

static bool pair(known_graph *now, const qgc_value *v, const qgc_value *before) {
    if (now->place[v->id] || v->dtype != before->dtype || !qgc_shape_equal(&v->shape, &before->shape))
        return false;
    now->place[v->id] = now->shown.twin[v->id] = before;
    return true;
}

/* Outputs by name, and states. */
static void pair_ends(known_graph *now, const known_graph *before) {
    const qgc_graph *g = now->shown.graph;
    for (size_t i = 0; i < g->n_outputs; i++) {
        const qgc_value *other = qgc_graph_output(before->shown.graph, g->outputs[i]->name);
        if (other)
            pair(now, g->outputs[i], other);
    }
    for (size_t i = 0; i < g->n_values; i++)
        for (size_t k = 0; now->newest[i] && k < before->shown.graph->n_values; k++)
            if (before->newest[k] && now->class_of[i] == before->class_of[k])
                pair(now, now->newest[i], before->newest[k]);
}

/* Two states of one graph: a node that both have makes what it made, and where it reads something else now,
 * that is in the place of what it read. */
static void pair_by_ids(known_graph *now, const known_graph *before) {
    const int known_ids = before->shown.graph->next_node_id;
    for (const qgc_node *n = now->shown.graph->first; n; n = n->next) {
        const qgc_node *old = n->id < known_ids ? before->nodes[n->id] : NULL;
        if (!old)
            continue;
        for (int i = 0; i < n->n_out; i++)
            pair(now, n->out[i], old->out[i]);
        for (int i = 0; i < n->n_in && i < old->n_in; i++) {
            const bool is_old =
                n->in[i]->maker && n->in[i]->maker->id < known_ids && before->nodes[n->in[i]->maker->id];
            if (n->in[i]->kind == QGC_RESULT && old->in[i]->kind == QGC_RESULT && !is_old)
                pair(now, n->in[i], old->in[i]);
        }
    }
}

/* Two graphs: from pairs towards their inputs, as long as the ops are the same. From the last node to the
 * first, so that the readers of a value come before it. */
static void pair_backwards(known_graph *now) {
    for (const qgc_node *n = now->shown.graph->last; n; n = n->prev) {
        const qgc_value *twin = now->place[n->out[0]->id];
        const qgc_node *old = twin ? twin->maker : NULL;
        if (!old || old->op != n->op || old->n_in != n->n_in)
            continue;
        for (int i = 0; i < n->n_in; i++)
            if (n->in[i]->kind == QGC_RESULT && old->in[i]->kind == QGC_RESULT)
                pair(now, n->in[i], old->in[i]);
    }
}

/* --- one graph after another ----------------------------------------------------------------------------- */

typedef struct {
    qgc_judge *j;
    known_graph *now, *before;
    qgc_judge_finding *out;
    bool computed, drifts;
    const qgc_value *misfit; /* the first whose numbers do not fit into their type */
    bool is_same;
} judging;

/* A known value with the numbers of class `new`, or -1: what is in the place of v first. */
static int find_equal(judging *w, const qgc_value *v, int new, judge_difference *d) {
    qgc_judge *j = w->j;
    const qgc_value *twin = w->now->place[v->id];
    const qgc_graph *g = w->before->shown.graph;
    for (size_t i = 0; i <= g->n_values; i++) {
        const qgc_value *u = i == 0 ? twin : g->values[i - 1];
        const int class = u ? w->before->class_of[u->id] : -1;
        if (!may_be_equal(j, class, new))
            continue;
        *d = difference(j, class, new, QGC_JUDGE_BOUND);
        if (d->apart <= QGC_JUDGE_BOUND) {
            w->now->shown.twin[v->id] = u;
            return class;
        }
    }
    return -1;
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
    const qgc_sampling *o = &judge_sampling[lane];
    qgc_str_printf(&text, ", temperature %g", (double)o->temperature);
    if (o->top_k)
        qgc_str_printf(&text, ", top-k %d", o->top_k);
    if (o->top_p < 1)
        qgc_str_printf(&text, ", top-p %g", (double)o->top_p);
    if (o->min_p > 0)
        qgc_str_printf(&text, ", min-p %g", (double)o->min_p);
    if (o->repeat_penalty != 1)
        qgc_str_printf(&text, ", penalty %g", (double)o->repeat_penalty);
    return text.text;
}

static void tell_difference(judging *w, const qgc_value *v, const judge_difference *d) {
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

/* Numbers that are near those of a known value are that value's. */
static void settle_result(judging *w, const qgc_value *v, const node_key *key) {
    qgc_judge *j = w->j;
    judge_difference d = {0};
    int class = w->now->class_of[v->id];
    const int known = find_equal(w, v, class, &d);
    if (known >= 0) {
        class = w->now->class_of[v->id] = known;
        if (d.any && (!w->drifts || !w->out->value))
            tell_difference(w, v, &d);
        w->drifts = w->drifts || d.any;
        if (!w->out->value) {
            w->out->value = v;
            w->out->other = w->now->shown.twin[v->id];
        }
    } else
        w->now->is_new[v->id] = true;
    put_class(j, key, sizeof *key, class);
}

static bool is_placed(const known_graph *k, const qgc_node *n) {
    for (int i = 0; i < n->n_in; i++)
        if (k->class_of[n->in[i]->id] < 0)
            return false;
    return true;
}

/* Double precision has room for numbers that the evaluator in float32, a device or a cache has not. */
static void check_range(judging *w, const qgc_value *v) {
    const qgc_judge *j = w->j;
    const value_class *c = &j->classes[w->now->class_of[v->id]];
    if (w->misfit || v->dtype == QGC_I32)
        return;
    for (size_t s = 0; s < j->n_steps && !j->steps[s].is_far; s++) {
        const qgc_sizes *sizes = &j->steps[s].sizes;
        const int64_t n = qgc_shape_elems(&v->shape, sizes);
        const int64_t row = v->shape.rank > 0 ? qgc_dim_size(v->shape.dim[v->shape.rank - 1], sizes) : n;
        const char *why = judge_misfit(v->dtype, c->at[s].data, n, row);
        if (!why)
            continue;
        w->misfit = v;
        w->out->why =
            qgc_arena_printf(j->arena, "numbers of \"%s\" are %s", qgc_value_label(v, j->arena), why);
        return;
    }
}

static qgc_status settle_node(judging *w, const qgc_node *n, qgc_diag *d) {
    qgc_judge *j = w->j;
    known_graph *k = w->now;
    node_key keys[QGC_MAX_OUTPUTS];
    bool known = true;
    if (!is_placed(k, n))
        return qgc_fail(d, QGC_ERR_INPUT, n->at, "a weight of \"%s\" is not bound", n->out[0]->name);
    for (int i = 0; i < n->n_out; i++) {
        keys[i] = key_of(k, n, i);
        k->class_of[n->out[i]->id] = find_class(j, &keys[i], sizeof keys[i]);
        known = known && k->class_of[n->out[i]->id] >= 0;
    }
    if (known)
        return QGC_OK;
    add_results(j, k, n);
    w->computed = true;
    for (size_t s = 0; s < j->n_steps; s++)
        QGC_TRY(compute_step(j, k, n, s, d));
    for (int i = 0; i < n->n_out; i++) {
        check_range(w, n->out[i]);
        settle_result(w, n->out[i], &keys[i]);
    }
    return QGC_OK;
}

static qgc_status settle_graph(judging *w, const qgc_tensor *const *tensors, qgc_diag *d) {
    const qgc_graph *g = w->now->shown.graph;
    for (size_t i = 0; i < g->n_values; i++)
        if (g->values[i]->kind != QGC_RESULT)
            w->now->class_of[i] = class_of_leaf(w->j, w->now, g->values[i], tensors);
    if (w->is_same)
        pair_by_ids(w->now, w->before);
    pair_ends(w->now, w->before);
    if (!w->is_same)
        pair_backwards(w->now);
    for (const qgc_node *n = g->first; n; n = n->next)
        QGC_TRY(settle_node(w, n, d));
    return QGC_OK;
}

/* --- steps in a row -------------------------------------------------------------------------------------- */

/* A graph over the steps of the text, with its own states. */
typedef struct {
    const qgc_judge *j;
    const known_graph *k;
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
static bool agree_in_a_row(judging *w, const known_graph *right, judge_difference *logits, double *choices) {
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

/* --- the verdict ----------------------------------------------------------------------------------------- */

static bool is_equal(const judging *w, const qgc_value *v, const qgc_value *before) {
    return w->now->class_of[v->id] == w->before->class_of[before->id];
}

static bool outputs_agree(judging *w) {
    const qgc_graph *g = w->now->shown.graph, *before = w->before->shown.graph;
    bool agree = true;
    for (size_t i = 0; i < before->n_outputs; i++) {
        const qgc_value *v = qgc_graph_output(g, before->outputs[i]->name);
        if (!v)
            w->out->why = qgc_arena_printf(w->j->arena, "output \"%s\" is gone", before->outputs[i]->name);
        agree = agree && v && is_equal(w, v, before->outputs[i]);
    }
    return agree;
}

/* Every state of the one before has a counterpart of its type, which ends as the same, and there are no
 * others. */
static bool states_agree(judging *w) {
    const qgc_graph *g = w->now->shown.graph, *before = w->before->shown.graph;
    bool agree = true;
    size_t n = 0, n_before = 0;
    for (size_t k = 0; k < before->n_values; k++)
        n_before += before->values[k]->kind == QGC_STATE;
    for (size_t i = 0; i < g->n_values; i++) {
        if (g->values[i]->kind != QGC_STATE)
            continue;
        n++;
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
        agree = agree && found;
    }
    return agree && n == n_before;
}

static double inputs_apart(const judging *w, const qgc_node *n) {
    double most = 0;
    for (int i = 0; i < n->n_in; i++) {
        const qgc_value *v = n->in[i], *twin = w->now->place[v->id];
        if (twin && may_be_equal(w->j, w->before->class_of[twin->id], w->now->class_of[v->id]))
            most = fmax(
                most,
                difference(w->j, w->before->class_of[twin->id], w->now->class_of[v->id], INFINITY).apart);
    }
    return most;
}

/* Names the first value that is not what was in its place; of two graphs one of the same label if there is
 * any. */
static void name_value(judging *w) {
    const qgc_graph *g = w->now->shown.graph;
    bool named = false;
    w->out->value = w->out->other = NULL;
    w->out->verdict = QGC_JUDGE_WRONG;
    for (const qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; i < n->n_out; i++) {
            const qgc_value *v = n->out[i], *twin = w->now->place[v->id];
            if (!twin || !may_be_equal(w->j, w->before->class_of[twin->id], w->now->class_of[v->id]))
                continue;
            const judge_difference d =
                difference(w->j, w->before->class_of[twin->id], w->now->class_of[v->id], INFINITY);
            if (!(d.apart > QGC_JUDGE_BOUND))
                continue;
            w->now->shown.differs[v->id] = true;
            const bool fits = w->is_same || strcmp(qgc_value_label(v, w->j->arena),
                                                   qgc_value_label(twin, w->j->arena)) == 0;
            if (named || (w->out->value && !fits))
                continue;
            tell_difference(w, v, &d);
            w->out->inputs = inputs_apart(w, n);
            named = fits;
        }
}

static void measure_ends(judging *w) {
    const qgc_graph *g = w->now->shown.graph, *first = w->j->first->shown.graph;
    const qgc_value *logits = qgc_graph_output(g, "logits"), *next = qgc_graph_output(g, "next"),
                    *right = qgc_graph_output(first, "logits"), *right_next = qgc_graph_output(first, "next");
    const int *now = w->now->class_of, *then = w->j->first->class_of;
    if (logits && right && may_be_equal(w->j, then[right->id], now[logits->id]))
        w->out->logits = difference(w->j, then[right->id], now[logits->id], INFINITY).apart;
    if (!next || !right_next || !may_be_equal(w->j, then[right_next->id], now[next->id]))
        return;
    double choices = 0;
    for (size_t s = 0; s < w->j->n_steps; s++)
        choices += (double)(w->j->steps[s].sizes.rows * JUDGE_LANES);
    w->out->choices = difference(w->j, then[right_next->id], now[next->id], INFINITY).others / choices;
}

static void decide(judging *w) {
    qgc_judge_finding *out = w->out;
    const bool outputs = outputs_agree(w), states = states_agree(w);
    qgc_judge *j = w->j;
    judge_difference in_row = {0};
    if (j->own_states)
        out->logits = j->row_logits; /* until it is known to be another */
    else
        measure_ends(w);
    if (out->why) {
        out->verdict = QGC_JUDGE_WRONG;
        out->value = w->misfit;
        out->other = NULL;
        out->where = NULL;
    } else if (outputs && states)
        out->verdict = w->drifts ? QGC_JUDGE_DRIFT : w->computed ? QGC_JUDGE_EQUAL : QGC_JUDGE_SAME;
    else if (!states && agree_in_a_row(w, w->before, &in_row, &out->choices)) {
        out->verdict = QGC_JUDGE_DRIFT;
        out->by_states = j->own_states = true;
        j->row_logits = fmax(j->row_logits, in_row.apart);
        out->logits = j->row_logits;
    } else {
        name_value(w);
        if (j->own_states) {
            agree_in_a_row(w, j->first, &in_row, &out->choices);
            out->logits = in_row.apart;
        }
    }
}

static void take_place(qgc_judge *j, known_graph *k) {
    if (j->before && j->before != j->first && !j->before->is_kept)
        drop_graph(j->before);
    j->before = j->now;
    j->now = k;
}

void qgc_judge_next(qgc_judge *j, const qgc_graph *g, const qgc_tensor *const *tensors, bool is_same,
                    qgc_judge_finding *out) {
    *out = (qgc_judge_finding){.verdict = QGC_JUDGE_SAME};
    if (j->is_dead)
        return;
    qgc_diag d = qgc_diag_new(j->arena);
    judging w = {.j = j, .before = j->now, .out = out, .is_same = is_same};
    w.now = copy_graph(g);
    take_place(j, w.now);
    if (settle_graph(&w, tensors, &d) == QGC_OK) {
        decide(&w);
        return;
    }
    *out = (qgc_judge_finding){.verdict = QGC_JUDGE_WRONG, .why = qgc_diag_message(&d), .logits = INFINITY};
    j->is_dead = true;
}

/* --- the first graph ------------------------------------------------------------------------------------- */

/* The largest number of a state at the end of the text: how large its random numbers are to be. */
static double size_of_state(const qgc_judge *j, const known_graph *k, int id, size_t last) {
    const qgc_value *newest = k->newest[id];
    const judge_numbers *x = &j->classes[k->class_of[newest->id]].at[last];
    const int64_t n = qgc_shape_elems(&newest->shape, &j->steps[last].sizes);
    double size = 0;
    for (int64_t i = 0; x->dtype != QGC_I32 && i < n; i++)
        size = fmax(size, fabs(((const double *)x->data)[i]));
    return size;
}

/* States of a step: what the one before it has left, or random numbers. */
static void start_step(qgc_judge *j, const known_graph *k, size_t s) {
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

static qgc_status compute_first(qgc_judge *j, known_graph *k, const qgc_tensor *const *tensors, qgc_diag *d) {
    const qgc_graph *g = k->shown.graph;
    for (size_t i = 0; i < g->n_values; i++)
        if (g->values[i]->kind != QGC_RESULT)
            k->class_of[i] = class_of_leaf(j, k, g->values[i], tensors);
    bool *is_first = qgc_arena_array(k->shown.arena, (size_t)g->next_node_id, sizeof *is_first);
    for (const qgc_node *n = g->first; n; n = n->next) {
        if (!is_placed(k, n))
            return qgc_fail(d, QGC_ERR_INPUT, n->at, "a weight of \"%s\" is not bound", n->out[0]->name);
        const node_key first_key = key_of(k, n, 0);
        is_first[n->id] = find_class(j, &first_key, sizeof first_key) < 0;
        if (is_first[n->id])
            add_results(j, k, n);
        for (int i = 0; i < n->n_out; i++) {
            const node_key key = key_of(k, n, i);
            int *class = &k->class_of[n->out[i]->id];
            *class =
                is_first[n->id] ? put_class(j, &key, sizeof key, *class) : find_class(j, &key, sizeof key);
        }
    }
    for (size_t s = 0; s < j->n_steps; s++) {
        start_step(j, k, s);
        for (const qgc_node *n = g->first; n; n = n->next)
            if (is_first[n->id])
                QGC_TRY(compute_step(j, k, n, s, d));
    }
    return QGC_OK;
}

qgc_status qgc_judge_new(qgc_judge **out, const qgc_graph *g, const qgc_tensor *const *tensors,
                         const qgc_judge_options *o, qgc_diag *d) {
    qgc_arena *a = qgc_arena_new();
    qgc_judge *j = qgc_arena_alloc(a, sizeof *j);
    *j = (qgc_judge){.arena = a, .o = *o, .by_key = qgc_map_new(a), .seed = 1};
    j->steps = judge_plan_steps(o->n_tokens, qgc_graph_max_positions(g), o->phase, &j->n_steps, a);
    j->first = j->now = copy_graph(g);
    const qgc_status status = compute_first(j, j->first, tensors, d);
    *out = status == QGC_OK ? j : NULL;
    if (status != QGC_OK)
        qgc_judge_drop(j);
    return status;
}

void qgc_judge_drop(qgc_judge *j) {
    if (!j)
        return;
    known_graph *held[] = {j->first, j->before, j->now, j->kept[0], j->kept[1]};
    for (int i = 0; i < 5; i++) {
        bool again = false;
        for (int k = 0; k < i; k++)
            again = again || held[k] == held[i];
        if (!again)
            drop_graph(held[i]);
    }
    qgc_arena_drop(j->arena);
}

/* Values that are known get a twin of their class, where what stands in their place is of another. */
static void match_known(known_graph *now, const known_graph *before, size_t n_classes) {
    const qgc_value **of_class = qgc_arena_array(now->shown.arena, n_classes, sizeof(qgc_value *));
    for (size_t i = 0; i < before->shown.graph->n_values; i++)
        if (before->class_of[i] >= 0)
            of_class[before->class_of[i]] = before->shown.graph->values[i];
    for (size_t i = 0; i < now->shown.graph->n_values; i++) {
        const int class = now->class_of[i];
        const qgc_value **twin = &now->shown.twin[i];
        if (class >= 0 && !now->is_new[i] && (!*twin || before->class_of[(*twin)->id] != class))
            *twin = of_class[class];
    }
}

void qgc_judge_restart(qgc_judge *j) {
    if (j->now == j->first)
        return;
    if (j->before && j->before != j->first && !j->before->is_kept)
        drop_graph(j->before);
    j->before = j->now->is_kept ? NULL : j->now;
    j->now = j->first;
    j->is_dead = j->own_states = false;
    j->row_logits = 0;
}

static bool is_held(const qgc_judge *j, const known_graph *k) {
    return k == j->first || k == j->before || k == j->now;
}

static void release_kept(qgc_judge *j) {
    for (int i = 0; i < 2; i++) {
        if (j->kept[i])
            j->kept[i]->is_kept = false;
        if (j->kept[i] && !is_held(j, j->kept[i]))
            drop_graph(j->kept[i]);
        j->kept[i] = NULL;
    }
}

void qgc_judge_keep(qgc_judge *j) {
    if (!j->before)
        return;
    release_kept(j);
    match_known(j->now, j->before, j->n_classes);
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
