#include <math.h>
#include <string.h>

#include "graph/ops.h"

/* What holds between any two passes. The YAML reader makes graphs that pass, so an error here is a fault of
 * the pass that ran last; the hint says so, and the frames of the driver name the pass. */

typedef struct {
    const qgc_graph *g;
    qgc_diag *d;
    bool *taken;        /* [next_node_id] ids */
    bool *made;         /* [n_values] may be read by the node at hand */
    qgc_value **newest; /* [n_values] of a state: its newest version so far */
    qgc_value **state;  /* [n_values] of a version: the state it belongs to; NULL for other values */
    int *members;       /* [n_groups] nodes */
} checker;

static bool known(const checker *c, const qgc_value *v) {
    return v && v->id >= 0 && (size_t)v->id < c->g->n_values && c->g->values[v->id] == v;
}

/* The label of a node that may have lost its outputs. */
static const char *label(const checker *c, const qgc_node *n) {
    return n->n_out > 0 && known(c, n->out[0]) ? qgc_node_label(n, c->d->arena) : "?";
}

/* Ids are indices of tables beside the graph. */
static bool takes_id(const checker *c, const qgc_node *n) {
    if (n->id < 0 || n->id >= c->g->next_node_id || c->taken[n->id])
        return false;
    return c->taken[n->id] = true;
}

static qgc_status check_list(const checker *c) {
    const qgc_graph *g = c->g;
    size_t n_nodes = 0;
    const qgc_node *last = NULL;
    for (const qgc_node *n = g->first; n && n_nodes <= g->n_nodes; last = n, n = n->next, n_nodes++) {
        if (!takes_id(c, n))
            return qgc_fail(c->d, QGC_ERR_INPUT, g->at,
                            "a node of the list has the id %d, which is another's or none", n->id);
        if (n->prev != last)
            return qgc_fail(c->d, QGC_ERR_INPUT, n->at,
                            "the list of nodes is not linked both ways at node %d", n->id);
        if (last && n->order <= last->order)
            return qgc_fail(c->d, QGC_ERR_INPUT, n->at,
                            "node %d does not have a higher number than the one before it in the list",
                            n->id);
    }
    if (last != g->last || n_nodes != g->n_nodes)
        return qgc_fail(c->d, QGC_ERR_INPUT, g->at,
                        "the list of nodes has another length or end than the graph says (%zu nodes)",
                        g->n_nodes);
    return QGC_OK;
}

/* Is there such a turn of a repeat? -1 is none. */
static bool has_turn(const checker *c, int repeat, int layer) {
    return repeat >= -1 && repeat < (int)c->g->n_repeats && layer >= -1 &&
           (repeat < 0 || layer < c->g->repeats[repeat].count);
}

/* A weight or a state may be there for more turns than its repeat has. */
static bool stands_in_turn(const checker *c, const qgc_value *v) {
    return v->kind == QGC_RESULT ? has_turn(c, v->repeat, v->layer) : v->repeat < (int)c->g->n_repeats;
}

/* What the fields of a value may be. */
static qgc_status check_value(const checker *c, const qgc_value *v) {
    bool declared = true;
    if (v->kind == QGC_WEIGHT)
        declared = v->decl >= 0 && (size_t)v->decl < c->g->n_weights;
    if (v->kind == QGC_STATE)
        declared = v->decl >= 0 && (size_t)v->decl < c->g->n_states;
    if (!declared)
        return qgc_fail(c->d, QGC_ERR_INPUT, v->at, "%s \"%s\" has no declaration", qgc_value_word(v),
                        qgc_value_label(v, c->d->arena));
    if (!stands_in_turn(c, v))
        return qgc_fail(c->d, QGC_ERR_INPUT, v->at,
                        "%s \"%s\" is of turn %d of a repeat that has no such turn", qgc_value_word(v),
                        v->name, v->layer);
    if (v->kind > QGC_RESULT || v->dtype >= QGC_N_DTYPES || v->shape.rank < 0 || v->shape.rank > QGC_MAX_RANK)
        return qgc_fail(c->d, QGC_ERR_INPUT, v->at, "\"%s\" has a kind, a dtype or a rank that there is not",
                        qgc_value_label(v, c->d->arena));
    return QGC_OK;
}

static qgc_status check_values(const checker *c) {
    for (size_t i = 0; i < c->g->n_values; i++) {
        const qgc_value *v = c->g->values[i];
        if (!v || v->id != (int)i || !v->name)
            return qgc_fail(c->d, QGC_ERR_INPUT, c->g->at,
                            "value %zu does not stand at its place in the graph", i);
        QGC_TRY(check_value(c, v));
    }
    return QGC_OK;
}

/* The values of a weight or a state that is declared. */
static qgc_status check_declared(const checker *c, qgc_value_kind kind, size_t i) {
    const qgc_weight_decl *w = kind == QGC_WEIGHT ? &c->g->weights[i] : NULL;
    const qgc_state_decl *s = w ? NULL : &c->g->states[i];
    const char *name = w ? w->name : s->name;
    qgc_value *const *values = w ? w->values : s->values;
    const int count = w ? w->count : s->count;
    bool fits = name && count >= 0 && (count == 0 || values);
    for (int k = 0; fits && k < count; k++)
        fits = known(c, values[k]) && values[k]->kind == kind && values[k]->decl == (int)i;
    return fits ? QGC_OK
                : qgc_fail(c->d, QGC_ERR_INPUT, w ? w->at : s->at, "the values of %s \"%s\" are not its own",
                           w ? "weight" : "state", name ? name : "?");
}

static qgc_status check_derived(const checker *c) {
    qgc_arena *scratch = qgc_arena_new();
    qgc_status s = QGC_OK;
    for (size_t i = 0; i < c->g->n_values && s == QGC_OK; i++) {
        const qgc_value *v = c->g->values[i];
        qgc_tensor made = {.name = NULL};
        if (!qgc_weight_is_derived(c->g, v))
            continue;
        const char *why = qgc_weight_misfit(c->g, v, &made, scratch);
        if (!why && (made.rank != v->shape.rank ||
                     memcmp(made.shape, v->shape.dim, (size_t)made.rank * sizeof *made.shape) != 0))
            why = "its shape is another";
        if (why)
            s = qgc_fail(c->d, QGC_ERR_INPUT, v->at, "weight \"%s\" cannot be derived: %s",
                         qgc_value_label(v, scratch), why);
    }
    qgc_arena_drop(scratch);
    return s;
}

static qgc_status check_arity(const checker *c, const qgc_node *n) {
    if (n->op < 0 || n->op >= QGC_N_OPS)
        return qgc_fail(c->d, QGC_ERR_INPUT, n->at, "node %d has no op that is in the table", n->id);
    const qgc_op_info *op = &qgc_ops[n->op];
    if (n->n_in < op->min_inputs || n->n_in > op->max_inputs)
        return qgc_fail(c->d, QGC_ERR_INPUT, n->at, "%s \"%s\" has %d inputs, expected %s", op->name,
                        label(c, n), n->n_in, op->signature);
    if (n->n_out != op->n_outputs)
        return qgc_fail(c->d, QGC_ERR_INPUT, n->at, "%s \"%s\" has %d outputs, expected %d", op->name,
                        label(c, n), n->n_out, op->n_outputs);
    for (int i = 0; i < n->n_in; i++)
        if (!known(c, n->in[i]))
            return qgc_fail(c->d, QGC_ERR_INPUT, n->at, "input %d of %s \"%s\" is not a value of the graph",
                            i, op->name, label(c, n));
    for (int i = 0; i < n->n_out; i++) {
        const qgc_value *v = n->out[i];
        if (!known(c, v) || v->kind != QGC_RESULT || v->maker != n || v->out != i)
            return qgc_fail(c->d, QGC_ERR_INPUT, n->at,
                            "output %d of %s \"%s\" does not name it as its maker", i, op->name, label(c, n));
    }
    return QGC_OK;
}

static qgc_status check_attrs(const checker *c, const qgc_node *n) {
    const qgc_op_info *op = &qgc_ops[n->op];
    for (int i = 0; op->attrs[i].name; i++) {
        int n_choices = 0;
        while (n_choices < QGC_MAX_CHOICES && op->attrs[i].choices[n_choices])
            n_choices++;
        bool fits =
            n_choices ? n->attr[i].choice >= 0 && n->attr[i].choice < n_choices : isfinite(n->attr[i].number);
        if (!fits)
            return qgc_fail(c->d, QGC_ERR_INPUT, n->at, "\"%s\" of %s \"%s\" has no value", op->attrs[i].name,
                            op->name, label(c, n));
    }
    return QGC_OK;
}

/* Order: values are made before they are read, once; of a state only the newest version is read, so that
 * doing the nodes in their order in one memory gives what the data flow says. */
static qgc_status check_order(checker *c, const qgc_node *n) {
    const qgc_op_info *op = &qgc_ops[n->op];
    for (int i = 0; i < n->n_in; i++) {
        const qgc_value *v = n->in[i], *state = c->state[v->id];
        if (!c->made[v->id])
            return qgc_fail(c->d, QGC_ERR_INPUT, n->at, "%s \"%s\" reads \"%s\" before it is made", op->name,
                            label(c, n), qgc_value_label(v, c->d->arena));
        if (state && c->newest[state->id] != v)
            return qgc_fail(c->d, QGC_ERR_INPUT, n->at, "%s \"%s\" reads \"%s\" after its change to \"%s\"",
                            op->name, label(c, n), qgc_value_label(v, c->d->arena),
                            qgc_value_label(c->newest[state->id], c->d->arena));
    }
    for (int i = 0; i < n->n_out; i++) {
        if (c->made[n->out[i]->id])
            return qgc_fail(c->d, QGC_ERR_INPUT, n->at, "%s \"%s\" is made a second time", op->name,
                            label(c, n));
        c->made[n->out[i]->id] = true;
    }
    qgc_value *state = op->traits & QGC_IN_PLACE ? c->state[n->in[0]->id] : NULL;
    if (state) {
        c->state[n->out[0]->id] = state;
        c->newest[state->id] = n->out[0];
    }
    return QGC_OK;
}

/* The rule writes what it finds into the outputs; what was there is put back. */
static qgc_status check_shapes(const checker *c, qgc_node *n) {
    qgc_shape shape[QGC_MAX_OUTPUTS];
    qgc_dtype dtype[QGC_MAX_OUTPUTS];
    const int n_out = n->n_out;
    for (int i = 0; i < n_out; i++) {
        shape[i] = n->out[i]->shape;
        dtype[i] = n->out[i]->dtype;
    }
    QGC_TRY(qgc_ops[n->op].infer(n, c->d));
    for (int i = 0; i < n_out; i++) {
        qgc_value *v = n->out[i];
        qgc_shape by_rule = v->shape;
        qgc_dtype dtype_by_rule = v->dtype;
        v->shape = shape[i];
        v->dtype = dtype[i];
        if (!qgc_shape_equal(&by_rule, &v->shape) || dtype_by_rule != v->dtype)
            return qgc_fail(c->d, QGC_ERR_INPUT, n->at, "%s \"%s\" is %s %s, but its inputs give %s %s",
                            qgc_ops[n->op].name, qgc_value_label(v, c->d->arena), qgc_dtypes[v->dtype].name,
                            qgc_shape_text(&v->shape, c->d->arena), qgc_dtypes[dtype_by_rule].name,
                            qgc_shape_text(&by_rule, c->d->arena));
    }
    return QGC_OK;
}

static qgc_status check_ends(const checker *c) {
    const qgc_graph *g = c->g;
    for (size_t i = 0; i < g->n_outputs; i++) {
        if (!c->made[g->outputs[i]->id])
            return qgc_fail(c->d, QGC_ERR_INPUT, g->outputs[i]->at, "output \"%s\" is not made",
                            g->outputs[i]->name);
        const qgc_value *state = c->state[g->outputs[i]->id];
        if (state && c->newest[state->id] != g->outputs[i])
            return qgc_fail(c->d, QGC_ERR_INPUT, g->outputs[i]->at,
                            "output \"%s\" is an old version of state \"%s\"", g->outputs[i]->name,
                            qgc_value_label(state, c->d->arena));
    }
    return QGC_OK;
}

/* The nodes of a group stand together. Each is looked at by its first node. */
static qgc_status check_group(const checker *c, const qgc_node *first) {
    if (first->group < 0 || (first->prev && first->prev->group == first->group))
        return QGC_OK;
    const qgc_group *group = &c->g->groups[first->group];
    const qgc_node *n = first;
    int together = 0;
    for (; n && n->group == first->group; n = n->next)
        together++;
    for (; n && together < c->members[first->group]; n = n->next)
        if (n->group == first->group)
            return qgc_fail(c->d, QGC_ERR_INPUT, n->at, "the nodes of group \"%s\" do not stand together",
                            group->name);
    return QGC_OK;
}

/* How many nodes each group has. */
static void count(const checker *c) {
    const qgc_graph *g = c->g;
    for (const qgc_node *n = g->first; n; n = n->next)
        if (n->group >= 0)
            c->members[n->group]++;
}

/* Where a node stands: its group, its turn. */
static qgc_status check_place(const checker *c, const qgc_node *n) {
    if (n->group < -1 || n->group >= (int)c->g->n_groups)
        return qgc_fail(c->d, QGC_ERR_INPUT, n->at, "node \"%s\" is in a group that is not there",
                        qgc_node_label(n, c->d->arena));
    if (!has_turn(c, n->repeat, n->layer))
        return qgc_fail(c->d, QGC_ERR_INPUT, n->at,
                        "node \"%s\" is of turn %d of a repeat that has no such turn", n->out[0]->name,
                        n->layer);
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i]->repeat != n->repeat || n->out[i]->layer != n->layer)
            return qgc_fail(c->d, QGC_ERR_INPUT, n->at,
                            "\"%s\" is of another turn than the node that makes it", n->out[i]->name);
    return QGC_OK;
}

/* Inputs and outputs are values of the graph. */
static qgc_status check_end_values(const checker *c) {
    const qgc_graph *g = c->g;
    for (size_t i = 0; i < g->n_inputs; i++)
        if (!known(c, g->inputs[i]) || g->inputs[i]->kind != QGC_INPUT)
            return qgc_fail(c->d, QGC_ERR_INPUT, g->at, "input %zu of the graph is not an input value", i);
    for (size_t i = 0; i < g->n_outputs; i++)
        if (!known(c, g->outputs[i]))
            return qgc_fail(c->d, QGC_ERR_INPUT, g->at, "output %zu of the graph is not a value of it", i);
    return QGC_OK;
}

/* Is there a node of the list that makes it? */
static bool has_maker(const checker *c, const qgc_value *v) {
    const qgc_node *n = v->maker;
    return v->kind != QGC_RESULT || (n && n->id >= 0 && n->id < c->g->next_node_id && c->taken[n->id] &&
                                     v->out >= 0 && v->out < n->n_out && n->out[v->out] == v);
}

static qgc_status check_makers(const checker *c, const qgc_node *n) {
    for (int i = 0; i < n->n_in; i++)
        if (!has_maker(c, n->in[i]))
            return qgc_fail(c->d, QGC_ERR_INPUT, n->at,
                            "%s \"%s\" reads \"%s\", which no node makes any more", qgc_ops[n->op].name,
                            label(c, n), qgc_value_label(n->in[i], c->d->arena));
    return QGC_OK;
}

static qgc_status check_links(const checker *c) {
    QGC_TRY(check_values(c));
    QGC_TRY(check_list(c));
    for (size_t i = 0; i < c->g->n_weights; i++)
        QGC_TRY(check_declared(c, QGC_WEIGHT, i));
    for (size_t i = 0; i < c->g->n_states; i++)
        QGC_TRY(check_declared(c, QGC_STATE, i));
    for (const qgc_node *n = c->g->first; n; n = n->next) {
        QGC_TRY(check_arity(c, n));
        QGC_TRY(check_place(c, n));
        QGC_TRY(check_makers(c, n));
    }
    return check_end_values(c);
}

static qgc_status check(checker *c) {
    QGC_TRY(check_links(c));
    QGC_TRY(check_derived(c));
    count(c);
    for (size_t i = 0; i < c->g->n_values; i++) {
        qgc_value *v = c->g->values[i];
        c->made[i] = v->kind != QGC_RESULT;
        if (v->kind == QGC_STATE)
            c->state[i] = c->newest[i] = v;
    }
    for (qgc_node *n = c->g->first; n; n = n->next) {
        QGC_TRY(check_attrs(c, n));
        QGC_TRY(check_order(c, n));
        QGC_TRY(check_shapes(c, n));
        QGC_TRY(check_group(c, n));
    }
    return check_ends(c);
}

static bool *room_for_ids(const qgc_graph *g, qgc_arena *a) {
    return qgc_arena_array(a, g->next_node_id > 0 ? (size_t)g->next_node_id : 1, sizeof(bool));
}

qgc_status qgc_verify_links(const qgc_graph *g, qgc_diag *d) {
    qgc_arena *scratch = qgc_arena_new();
    const checker c = {.g = g, .d = d, .taken = room_for_ids(g, scratch)};
    const qgc_status s = check_links(&c);
    qgc_arena_drop(scratch);
    return s;
}

qgc_status qgc_verify(qgc_graph *g, qgc_diag *d) {
    qgc_arena *scratch = qgc_arena_new();
    checker c = {.g = g, .d = d, .taken = room_for_ids(g, scratch)};
    c.made = qgc_arena_array(scratch, g->n_values, sizeof *c.made);
    c.newest = qgc_arena_array(scratch, g->n_values, sizeof *c.newest);
    c.state = qgc_arena_array(scratch, g->n_values, sizeof *c.state);
    c.members = qgc_arena_array(scratch, g->n_groups, sizeof *c.members);
    qgc_status s = check(&c);
    if (s != QGC_OK)
        qgc_hint(
            d, "The graph no longer holds together: the pass that ran last is at fault, not the model file.");
    qgc_arena_drop(scratch);
    return s;
}

static qgc_status unlike(const qgc_value *v, const char *form, qgc_diag *d) {
    return qgc_fail(d, QGC_ERR_INPUT, v->at, "output \"%s\" is %s %s, expected %s", v->name,
                    qgc_dtypes[v->dtype].name, qgc_shape_text(&v->shape, d->arena), form);
}

qgc_status qgc_verify_interface(const qgc_graph *g, qgc_diag *d) {
    static const char *const inputs[] = {"tokens", "positions", "rows"};
    for (int i = 0; i < 3; i++)
        if (!qgc_graph_input(g, inputs[i]))
            return qgc_fail(d, QGC_ERR_INPUT, g->at, "the graph has no input \"%s\"", inputs[i]);
    const qgc_value *logits = qgc_graph_output(g, "logits"), *next = qgc_graph_output(g, "next");
    if (!logits || !next)
        return qgc_fail(d, QGC_ERR_INPUT, g->at, "the graph has no output \"%s\"",
                        logits ? "next" : "logits");
    if (logits->dtype != QGC_F32 || logits->shape.rank != 2 || logits->shape.dim[0] != QGC_DIM_R ||
        logits->shape.dim[1] < 1)
        return unlike(logits, "f32 [R, vocab]", d);
    if (next->dtype != QGC_I32 || next->shape.rank != 1 || next->shape.dim[0] != QGC_DIM_R)
        return unlike(next, "i32 [R]", d);
    return QGC_OK;
}
