#include "graph/graph.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "graph/base/str.h"
#include "graph/ops.h"

qgc_graph *qgc_graph_new(qgc_arena *arena) {
    qgc_graph *g = qgc_arena_alloc(arena, sizeof *g);
    g->arena = arena;
    g->group_index = qgc_map_new(arena);
    return g;
}

qgc_value *qgc_graph_value(qgc_graph *g, qgc_value_kind kind, const char *name, qgc_loc at) {
    qgc_value *v = qgc_arena_alloc(g->arena, sizeof *v);
    *v = (qgc_value){.kind = kind,
                     .id = (int)g->n_values,
                     .name = name,
                     .repeat = -1,
                     .layer = -1,
                     .dtype = QGC_F32,
                     .at = at,
                     .decl = -1};
    g->values = qgc_arena_grow(g->arena, g->values, g->n_values, sizeof(qgc_value *));
    g->values[g->n_values++] = v;
    return v;
}

/* Between its neighbours; where there is no room between them, all nodes get new numbers. */
static void number_node(qgc_graph *g, qgc_node *n) {
    enum { STEP = 1 << 20 };
    int64_t before = n->prev ? n->prev->order : 0;
    n->order = n->next ? before + (n->next->order - before) / 2 : before + STEP;
    if (n->order > before)
        return;
    int64_t order = 0;
    for (qgc_node *node = g->first; node; node = node->next)
        node->order = order += STEP;
}

qgc_node *qgc_graph_node(qgc_graph *g, qgc_op op, qgc_node *before, qgc_loc at) {
    qgc_node *n = qgc_arena_alloc(g->arena, sizeof *n);
    *n = (qgc_node){.op = op, .id = g->next_node_id++, .repeat = -1, .layer = -1, .group = -1, .at = at};
    for (int i = 0; qgc_ops[op].attrs[i].name; i++)
        n->attr[i].number = qgc_ops[op].attrs[i].usual;
    n->next = before;
    n->prev = before ? before->prev : g->last;
    if (n->prev)
        n->prev->next = n;
    else
        g->first = n;
    if (before)
        before->prev = n;
    else
        g->last = n;
    g->n_nodes++;
    number_node(g, n);
    return n;
}

qgc_value *qgc_node_output(qgc_graph *g, qgc_node *n, const char *name) {
    assert(n->n_out < QGC_MAX_OUTPUTS);
    qgc_value *v = qgc_graph_value(g, QGC_RESULT, name, n->at);
    v->repeat = n->repeat;
    v->layer = n->layer;
    v->maker = n;
    v->out = n->n_out;
    n->out[n->n_out++] = v;
    return v;
}

static void unlink_node(qgc_graph *g, qgc_node *n) {
    if (n->prev)
        n->prev->next = n->next;
    else
        g->first = n->next;
    if (n->next)
        n->next->prev = n->prev;
    else
        g->last = n->prev;
}

void qgc_graph_remove(qgc_graph *g, qgc_node *n) {
    unlink_node(g, n);
    g->n_nodes--;
}

static const char *group_key(qgc_arena *a, const char *name, int repeat, int layer) {
    return qgc_arena_printf(a, "%d/%d/%s", repeat, layer, name);
}

int qgc_graph_find_group(const qgc_graph *g, const char *name, int repeat, int layer) {
    const int *found = qgc_map_get(&g->group_index, group_key(g->arena, name, repeat, layer));
    return found ? *found : -1;
}

int qgc_graph_group(qgc_graph *g, const char *name, int repeat, int layer, qgc_loc at) {
    int found = qgc_graph_find_group(g, name, repeat, layer);
    if (found >= 0)
        return found;
    int *index = qgc_arena_alloc(g->arena, sizeof *index);
    *index = (int)g->n_groups;
    qgc_map_put(&g->group_index, group_key(g->arena, name, repeat, layer), index);
    g->groups = qgc_arena_grow(g->arena, g->groups, g->n_groups, sizeof *g->groups);
    g->groups[g->n_groups] =
        (qgc_group){.name = qgc_arena_strdup(g->arena, name), .repeat = repeat, .layer = layer, .at = at};
    return (int)g->n_groups++;
}

/* --- gathering ------------------------------------------------------------------------------------------- */

/* Nodes of a part of the list on their way into three runs: what needs nothing of the group, the group, what needs
 * something of it. */
enum { AHEAD, MEMBERS, BEHIND, N_RUNS };

typedef struct {
    qgc_node **nodes[N_RUNS];
    size_t n[N_RUNS];
} gathering;

/* A value's `runs`: a bit for the run of its maker, and bits for the runs in which it was read. */
static unsigned made_in(const qgc_value *v) {
    return v->runs & 7u;
}

static unsigned read_in(const qgc_value *v) {
    return v->runs >> 3;
}

/* The runs, as bits, that a node has to stay after: those that make its inputs, and, if it changes a state, those that
 * read the state as it is. */
static unsigned needs(const qgc_node *n) {
    unsigned runs = 0;
    for (int i = 0; i < n->n_in; i++)
        runs |= made_in(n->in[i]);
    if (qgc_ops[n->op].traits & QGC_IN_PLACE)
        runs |= read_in(n->in[0]);
    return runs;
}

const qgc_node *qgc_group_next(const qgc_node *first, const qgc_node *n) {
    return first->group >= 0 && n->next && n->next->group == first->group ? n->next : NULL;
}

/* Another group, whose nodes stand together, stays whole: `first` speaks for all of it. */
static unsigned needs_of_group(const qgc_node *first) {
    unsigned runs = 0;
    for (const qgc_node *n = first; n; n = qgc_group_next(first, n))
        runs |= needs(n);
    return runs;
}

static void put_in_run(gathering *c, qgc_node *n, int run) {
    c->nodes[run][c->n[run]++] = n;
    for (int i = 0; i < n->n_in; i++)
        n->in[i]->runs |= (unsigned char)(8u << run);
    for (int i = 0; i < n->n_out; i++)
        n->out[i]->runs |= (unsigned char)(1u << run);
}

static bool reads(const qgc_node *n, const qgc_value *v) {
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] == v)
            return true;
    return false;
}

/* The node after the group that `n`, of the group, has to stay after. */
static const qgc_node *stranger(const gathering *c, const qgc_node *n) {
    for (int i = 0; i < n->n_in; i++)
        if (made_in(n->in[i]) & 1u << BEHIND)
            return n->in[i]->maker;
    for (size_t i = 0; i < c->n[BEHIND]; i++)
        if (reads(c->nodes[BEHIND][i], n->in[0]))
            return c->nodes[BEHIND][i];
    return NULL;
}

/* Sorts the nodes from `first` to `last`, both of the group; false if one outside lies between two of it. */
static bool sort_nodes(gathering *c, qgc_node *first, const qgc_node *last, const qgc_node **between) {
    int run = AHEAD;
    for (qgc_node *n = first; n != last->next; n = n->next) {
        if (n->group == first->group) {
            if (needs(n) & 1u << BEHIND) {
                if (between)
                    *between = stranger(c, n);
                return false;
            }
            put_in_run(c, n, MEMBERS);
            continue;
        }
        if (n->group < 0 || n->group != n->prev->group)
            run = (needs_of_group(n) & (1u << MEMBERS | 1u << BEHIND)) != 0 ? BEHIND : AHEAD;
        put_in_run(c, n, run);
    }
    return true;
}

static void forget_runs(qgc_node *first, const qgc_node *end) {
    for (qgc_node *n = first; n != end; n = n->next) {
        for (int i = 0; i < n->n_in; i++)
            n->in[i]->runs = 0;
        for (int i = 0; i < n->n_out; i++)
            n->out[i]->runs = 0;
    }
}

/* Puts `n` after `before` (NULL: at the start), as if the list ended there; returns n. */
static qgc_node *chain(qgc_graph *g, qgc_node *before, qgc_node *n) {
    n->prev = before;
    if (before)
        before->next = n;
    else
        g->first = n;
    return n;
}

/* Links the sorted nodes between `tail` and `end`, whose neighbours they are. */
static void link_runs(qgc_graph *g, const gathering *c, const int64_t *orders, qgc_node *tail,
                      qgc_node *end) {
    size_t n = 0;
    for (int i = 0; i < N_RUNS; i++)
        for (size_t k = 0; k < c->n[i]; k++) {
            tail = chain(g, tail, c->nodes[i][k]);
            tail->order = orders[n++];
        }
    tail->next = end;
    if (end)
        end->prev = tail;
    else
        g->last = tail;
}

bool qgc_nodes_gather(qgc_graph *g, qgc_node *const *nodes, int n, const qgc_node **between) {
    if (n == 0)
        return true;
    qgc_node *first = nodes[0], *last = nodes[0];
    for (int i = 1; i < n; i++) {
        first = nodes[i]->order < first->order ? nodes[i] : first;
        last = nodes[i]->order > last->order ? nodes[i] : last;
    }
    size_t length = 1;
    for (const qgc_node *node = first; node != last; node = node->next) {
        assert(node->next); /* their order is that of the list */
        length++;
    }
    if (length == (size_t)n)
        return true;

    qgc_arena *scratch = qgc_arena_new();
    gathering c = {0};
    for (int i = 0; i < N_RUNS; i++)
        c.nodes[i] = qgc_arena_array(scratch, length, sizeof(qgc_node *));
    int64_t *orders = qgc_arena_array(scratch, length, sizeof *orders);
    length = 0;
    for (const qgc_node *node = first; node != last->next; node = node->next) {
        assert(node);
        orders[length++] = node->order;
    }
    qgc_node *tail = first->prev, *end = last->next;
    bool apart = sort_nodes(&c, first, last, between);
    forget_runs(first, end);
    if (apart)
        link_runs(g, &c, orders, tail, end);
    qgc_arena_drop(scratch);
    return apart;
}

bool qgc_group_gather(qgc_graph *g, int group, const qgc_node **between) {
    qgc_arena *scratch = qgc_arena_new();
    qgc_node **nodes = qgc_arena_array(scratch, g->n_nodes, sizeof(qgc_node *));
    int n = 0;
    for (qgc_node *node = g->first; node; node = node->next)
        if (node->group == group)
            nodes[n++] = node;
    bool gathered = qgc_nodes_gather(g, nodes, n, between);
    qgc_arena_drop(scratch);
    return gathered;
}

bool qgc_attr_is_written(const qgc_node *n, int i) {
    const qgc_attr_spec *spec = &qgc_ops[n->op].attrs[i];
    return !spec->optional || n->attr[i].number != spec->usual;
}

bool qgc_attrs_equal(const qgc_node *a, const qgc_node *b) {
    for (int i = 0; qgc_ops[a->op].attrs[i].name; i++)
        if (a->attr[i].number != b->attr[i].number || a->attr[i].choice != b->attr[i].choice)
            return false;
    return true;
}

bool qgc_value_is_version(const qgc_value *v) {
    return v->kind == QGC_RESULT && v->out == 0 && (qgc_ops[v->maker->op].traits & QGC_IN_PLACE);
}

int qgc_value_uses(const qgc_graph *g, const qgc_value *v) {
    int uses = 0;
    for (const qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; i < n->n_in; i++)
            uses += n->in[i] == v;
    for (size_t i = 0; i < g->n_outputs; i++)
        uses += g->outputs[i] == v;
    return uses;
}

int *qgc_graph_uses(const qgc_graph *g, qgc_arena *a) {
    int *uses = qgc_arena_array(a, g->n_values, sizeof *uses);
    for (const qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; i < n->n_in; i++)
            uses[n->in[i]->id]++;
    for (size_t i = 0; i < g->n_outputs; i++)
        uses[g->outputs[i]->id]++;
    return uses;
}

bool qgc_param_counts(const qgc_param *p) {
    return p->fixed || p->used;
}

const qgc_param *qgc_graph_param(const qgc_graph *g, const char *name) {
    for (size_t i = 0; i < g->n_params; i++)
        if (strcmp(g->params[i].name, name) == 0)
            return &g->params[i];
    return NULL;
}

int64_t qgc_graph_max_positions(const qgc_graph *g) {
    const qgc_param *stated = qgc_graph_param(g, "max_positions");
    double most = stated && stated->value < (double)INT64_MAX ? stated->value : (double)INT64_MAX;
    for (const qgc_node *n = g->first; n; n = n->next)
        if (n->op == QGC_OP_EMBEDDING && n->in[0]->kind == QGC_INPUT &&
            strcmp(n->in[0]->name, "positions") == 0)
            most = fmin(most, (double)n->in[1]->shape.dim[0]);
    return most < (double)INT64_MAX ? (int64_t)most : 0;
}

static qgc_value *named(qgc_value *const *values, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(values[i]->name, name) == 0)
            return values[i];
    return NULL;
}

qgc_value *qgc_graph_input(const qgc_graph *g, const char *name) {
    return named(g->inputs, g->n_inputs, name);
}

qgc_value *qgc_graph_output(const qgc_graph *g, const char *name) {
    return named(g->outputs, g->n_outputs, name);
}

const char *qgc_value_label(const qgc_value *v, qgc_arena *a) {
    return v->layer < 0 ? v->name : qgc_arena_printf(a, "%s[%d]", v->name, v->layer);
}

const char *qgc_tensor_name(const char *pattern, const char *index, int layer, qgc_arena *a) {
    if (!pattern || !index)
        return pattern;
    const char *mark = qgc_arena_printf(a, "{%s}", index);
    qgc_str text = qgc_str_new(a);
    for (const char *at; (at = strstr(pattern, mark)); pattern = at + strlen(mark)) {
        qgc_str_add_bytes(&text, pattern, (size_t)(at - pattern));
        qgc_str_printf(&text, "%d", layer);
    }
    qgc_str_add(&text, pattern);
    return text.text;
}

bool qgc_shape_equal(const qgc_shape *a, const qgc_shape *b) {
    return a->rank == b->rank && memcmp(a->dim, b->dim, (size_t)a->rank * sizeof a->dim[0]) == 0;
}

bool qgc_is_one_a_row(const qgc_shape *a, const qgc_shape *b) {
    const int last = a->rank - 1;
    return a->rank == b->rank && last > 0 && a->dim[last] == 1 && b->dim[last] != 1 &&
           memcmp(a->dim, b->dim, (size_t)last * sizeof a->dim[0]) == 0;
}

const char *qgc_shape_text(const qgc_shape *s, qgc_arena *a) {
    qgc_str text = qgc_str_new(a);
    qgc_str_add(&text, "[");
    for (int i = 0; i < s->rank; i++) {
        if (i)
            qgc_str_add(&text, ", ");
        switch (s->dim[i]) {
        case QGC_DIM_T:
            qgc_str_add(&text, "T");
            break;
        case QGC_DIM_R:
            qgc_str_add(&text, "R");
            break;
        case QGC_DIM_CTX:
            qgc_str_add(&text, "ctx");
            break;
        default:
            if (qgc_dim_ring(s->dim[i]))
                qgc_str_printf(&text, "min(ctx, %lld)", (long long)qgc_dim_ring(s->dim[i]));
            else
                qgc_str_printf(&text, "%lld", (long long)s->dim[i]);
        }
    }
    qgc_str_add(&text, "]");
    return text.text;
}

int64_t qgc_shape_elems_from(const qgc_shape *s, int first) {
    int64_t elems = 1;
    for (int i = first; i < s->rank; i++) {
        assert(s->dim[i] >= 0);
        elems *= s->dim[i];
    }
    return elems;
}

int64_t qgc_ring_dim(int64_t rows) {
    return QGC_DIM_CTX - rows;
}

int64_t qgc_dim_ring(int64_t dim) {
    return dim < QGC_DIM_CTX ? QGC_DIM_CTX - dim : 0;
}

int64_t qgc_node_ring(const qgc_node *n) {
    const bool attends = n->op == QGC_OP_ATTENTION || n->op == QGC_OP_ATTENTION_PART;
    return attends ? qgc_dim_ring(n->in[1]->shape.dim[1]) : 0;
}

int64_t qgc_graph_most_tokens(const qgc_graph *g) {
    int64_t most = INT64_MAX;
    for (const qgc_node *n = g->first; n; n = n->next) {
        const int64_t rows = qgc_node_ring(n);
        const int64_t fit = rows ? rows + 1 - (int64_t)qgc_node_number(n, "window") : most;
        most = fit < most ? fit : most;
    }
    return most;
}

int64_t qgc_dim_size(int64_t dim, const qgc_sizes *sizes) {
    const int64_t ring = qgc_dim_ring(dim);
    if (ring > 0)
        return ring < sizes->ctx ? ring : sizes->ctx;
    switch (dim) {
    case QGC_DIM_T:
        return sizes->tokens;
    case QGC_DIM_R:
        return sizes->rows;
    case QGC_DIM_CTX:
        return sizes->ctx;
    default:
        return dim;
    }
}

int64_t qgc_shape_elems(const qgc_shape *s, const qgc_sizes *sizes) {
    int64_t elems = 1;
    for (int i = 0; i < s->rank; i++)
        elems *= qgc_dim_size(s->dim[i], sizes);
    return elems;
}
