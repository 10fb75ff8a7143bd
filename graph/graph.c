#include "graph/graph.h"

#include <assert.h>
#include <string.h>

#include "graph/base/str.h"

qgc_graph *qgc_graph_new(qgc_arena *arena) {
    qgc_graph *g = qgc_arena_alloc(arena, sizeof *g);
    g->arena = arena;
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

qgc_node *qgc_graph_node(qgc_graph *g, qgc_op op, qgc_node *before, qgc_loc at) {
    qgc_node *n = qgc_arena_alloc(g->arena, sizeof *n);
    *n = (qgc_node){.op = op, .id = g->next_node_id++, .repeat = -1, .layer = -1, .group = -1, .at = at};
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

int qgc_graph_group(qgc_graph *g, const char *name, int repeat, int layer, qgc_loc at) {
    for (size_t i = 0; i < g->n_groups; i++)
        if (g->groups[i].repeat == repeat && g->groups[i].layer == layer &&
            strcmp(g->groups[i].name, name) == 0)
            return (int)i;
    g->groups = qgc_arena_grow(g->arena, g->groups, g->n_groups, sizeof *g->groups);
    g->groups[g->n_groups] = (qgc_group){qgc_arena_strdup(g->arena, name), repeat, layer, at};
    return (int)g->n_groups++;
}

/* Nodes of a stretch of the list on their way into three runs: what needs nothing of the group, the group, what needs
 * something of it. */
enum { AHEAD, MEMBERS, BEHIND, N_RUNS };

typedef struct {
    qgc_node **nodes[N_RUNS];
    size_t n[N_RUNS];
    unsigned char *made_in; /* by value: a bit for the run of its maker ... */
    unsigned char *read_in; /* ... and for the runs in which it was read */
} gathering;

/* The runs, as bits, that a node has to stay behind: those that make its inputs, and, if it changes a state, those that
 * read the state as it is. */
static unsigned needs(const gathering *c, const qgc_node *n) {
    unsigned runs = 0;
    for (int i = 0; i < n->n_in; i++)
        runs |= c->made_in[n->in[i]->id];
    if (qgc_ops[n->op].traits & QGC_IN_PLACE)
        runs |= c->read_in[n->in[0]->id];
    return runs;
}

/* Another group, whose nodes stand together, stays whole: `first` speaks for all of it. */
static unsigned needs_of_group(const gathering *c, const qgc_node *first) {
    unsigned runs = 0;
    for (const qgc_node *n = first; n && (n == first || (n->group >= 0 && n->group == first->group));
         n = n->next)
        runs |= needs(c, n);
    return runs;
}

static void put_in_run(gathering *c, qgc_node *n, int run) {
    c->nodes[run][c->n[run]++] = n;
    for (int i = 0; i < n->n_in; i++)
        c->read_in[n->in[i]->id] |= (unsigned char)(1u << run);
    for (int i = 0; i < n->n_out; i++)
        c->made_in[n->out[i]->id] = (unsigned char)(1u << run);
}

static bool reads(const qgc_node *n, const qgc_value *v) {
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] == v)
            return true;
    return false;
}

/* The node behind the group that `n`, of the group, has to stay behind. */
static const qgc_node *stranger(const gathering *c, const qgc_node *n) {
    for (int i = 0; i < n->n_in; i++)
        if (c->made_in[n->in[i]->id] & 1u << BEHIND)
            return n->in[i]->maker;
    for (size_t i = 0; i < c->n[BEHIND]; i++)
        if (reads(c->nodes[BEHIND][i], n->in[0]))
            return c->nodes[BEHIND][i];
    return NULL;
}

/* Sorts the nodes from `first` to before `end`; false if one outside lies between two of the group. */
static bool sort_nodes(gathering *c, int group, qgc_node *first, const qgc_node *end,
                       const qgc_node **between) {
    int run = AHEAD;
    for (qgc_node *n = first; n != end; n = n->next) {
        if (n->group == group) {
            if (needs(c, n) & 1u << BEHIND) {
                if (between)
                    *between = stranger(c, n);
                return false;
            }
            put_in_run(c, n, MEMBERS);
            continue;
        }
        if (n == first || n->group < 0 || n->group != n->prev->group)
            run = needs_of_group(c, n) & (1u << MEMBERS | 1u << BEHIND) ? BEHIND : AHEAD;
        put_in_run(c, n, run);
    }
    return true;
}

/* Puts `n` behind `before` (NULL: at the start), as if the list ended there; returns n. */
static qgc_node *chain(qgc_graph *g, qgc_node *before, qgc_node *n) {
    n->prev = before;
    if (before)
        before->next = n;
    else
        g->first = n;
    return n;
}

bool qgc_group_gather(qgc_graph *g, int group, const qgc_node **between) {
    qgc_node *first = NULL, *last = NULL;
    for (qgc_node *n = g->first; n; n = n->next)
        if (n->group == group) {
            first = first ? first : n;
            last = n;
        }
    if (!first)
        return true;

    qgc_arena *scratch = qgc_arena_new();
    gathering c = {.made_in = qgc_arena_array(scratch, g->n_values, 1),
                   .read_in = qgc_arena_array(scratch, g->n_values, 1)};
    for (int i = 0; i < N_RUNS; i++)
        c.nodes[i] = qgc_arena_array(scratch, g->n_nodes, sizeof(qgc_node *));
    qgc_node *tail = first->prev, *end = last->next;
    bool apart = sort_nodes(&c, group, first, end, between);
    if (apart) {
        for (int i = 0; i < N_RUNS; i++)
            for (size_t k = 0; k < c.n[i]; k++)
                tail = chain(g, tail, c.nodes[i][k]);
        tail->next = end;
        if (end)
            end->prev = tail;
        else
            g->last = tail;
    }
    qgc_arena_drop(scratch);
    return apart;
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

const qgc_param *qgc_graph_param(const qgc_graph *g, const char *name) {
    for (size_t i = 0; i < g->n_params; i++)
        if (strcmp(g->params[i].name, name) == 0)
            return &g->params[i];
    return NULL;
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

int64_t qgc_dim_size(int64_t dim, const qgc_sizes *sizes) {
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
