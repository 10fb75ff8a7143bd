#include <string.h>

#include "graph/graph.h"

typedef struct {
    const qgc_graph *from;
    qgc_graph *to;
} cloning;

static qgc_value **copies_of(const cloning *c, qgc_value *const *values, size_t n) {
    qgc_value **copies = qgc_arena_array(c->to->arena, n, sizeof(qgc_value *));
    for (size_t i = 0; i < n; i++)
        copies[i] = c->to->values[values[i]->id];
    return copies;
}

static void copy_values(const cloning *c) {
    qgc_graph *to = c->to;
    to->values = NULL;
    for (size_t i = 0; i < c->from->n_values; i++) {
        to->values = qgc_arena_grow(to->arena, to->values, i, sizeof(qgc_value *));
        qgc_value *v = to->values[i] = qgc_arena_alloc(to->arena, sizeof *v);
        *v = *c->from->values[i];
        v->maker = NULL; /* until its node is copied; for good where that is not in the list any more */
    }
}

static void copy_nodes(const cloning *c) {
    qgc_graph *to = c->to;
    to->first = to->last = NULL;
    for (const qgc_node *from = c->from->first; from; from = from->next) {
        qgc_node *n = qgc_arena_alloc(to->arena, sizeof *n);
        *n = *from;
        n->prev = to->last;
        n->next = NULL;
        *(to->last ? &to->last->next : &to->first) = n;
        to->last = n;
        for (int i = 0; i < n->n_in; i++)
            n->in[i] = to->values[from->in[i]->id];
        for (int i = 0; i < n->n_out; i++) {
            n->out[i] = to->values[from->out[i]->id];
            n->out[i]->maker = n;
        }
    }
}

static void copy_declarations(const cloning *c) {
    qgc_graph *to = c->to;
    to->weights = qgc_arena_array(to->arena, c->from->n_weights, sizeof *to->weights);
    to->states = qgc_arena_array(to->arena, c->from->n_states, sizeof *to->states);
    for (size_t i = 0; i < c->from->n_weights; i++) {
        to->weights[i] = c->from->weights[i];
        to->weights[i].values = copies_of(c, to->weights[i].values, (size_t)to->weights[i].count);
    }
    for (size_t i = 0; i < c->from->n_states; i++) {
        to->states[i] = c->from->states[i];
        to->states[i].values = copies_of(c, to->states[i].values, (size_t)to->states[i].count);
    }
    to->inputs = copies_of(c, c->from->inputs, c->from->n_inputs);
    to->outputs = copies_of(c, c->from->outputs, c->from->n_outputs);
}

static void copy_groups(const cloning *c) {
    qgc_graph *to = c->to;
    to->groups = NULL;
    to->n_groups = 0;
    to->group_index = qgc_map_new(to->arena);
    for (size_t i = 0; i < c->from->n_groups; i++) {
        const qgc_group *group = &c->from->groups[i];
        const int copy = qgc_graph_group(to, group->name, group->repeat, group->layer, group->at);
        to->groups[copy].kernel = group->kernel;
    }
    to->kernels = qgc_arena_array(to->arena, c->from->n_kernels + 1, sizeof *to->kernels);
    for (size_t i = 0; i < c->from->n_kernels; i++)
        to->kernels[i] = c->from->kernels[i];
}

qgc_graph *qgc_graph_clone(const qgc_graph *g, qgc_arena *arena) {
    cloning c = {.from = g, .to = qgc_arena_alloc(arena, sizeof *c.to)};
    *c.to = *g;
    c.to->arena = arena;
    copy_values(&c);
    copy_nodes(&c);
    copy_declarations(&c);
    copy_groups(&c);
    return c.to;
}
