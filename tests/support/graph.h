#ifndef TESTS_SUPPORT_GRAPH_H
#define TESTS_SUPPORT_GRAPH_H

#include <string.h>

#include "graph/graph.h"
#include "tests/support/cmocka.h"
#include "tests/support/printed.h"

/* Graphs for tests, built by hand as if from a file "model.yaml" in which every thing has a line of its own:
 * the first made stands in line 1. */
typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_graph *g;
    qgc_source source;
    int line;
    int layer; /* of what is made next, -1 outside of repeats */
} test_graph;

#define SHAPE(...) ((qgc_shape){(int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), {__VA_ARGS__}})
#define INPUTS(...) ((qgc_value *[QGC_MAX_INPUTS]){__VA_ARGS__})

static inline int test_graph_setup(void **state) {
    qgc_arena *arena = qgc_arena_new();
    test_graph *t = qgc_arena_alloc(arena, sizeof *t);
    *t = (test_graph){.arena = arena, .diag = qgc_diag_new(arena), .g = qgc_graph_new(arena), .layer = -1};
    t->source.name = "model.yaml";
    t->g->name = t->g->arch = "test";
    *state = t;
    return 0;
}

static inline int test_graph_teardown(void **state) {
    qgc_arena_drop(((test_graph *)*state)->arena);
    return 0;
}

static inline qgc_value *test_value(test_graph *t, qgc_value_kind kind, const char *name, qgc_dtype dtype,
                                    qgc_shape shape) {
    qgc_value *v = qgc_graph_value(t->g, kind, name, (qgc_loc){&t->source, ++t->line, 1});
    v->dtype = dtype;
    v->shape = shape;
    v->layer = t->layer;
    v->repeat = t->layer < 0 ? -1 : 0;
    return v;
}

static inline qgc_value *test_input(test_graph *t, const char *name, qgc_dtype dtype, qgc_shape shape) {
    qgc_value *v = test_value(t, QGC_INPUT, name, dtype, shape);
    t->g->inputs = qgc_arena_grow(t->arena, t->g->inputs, t->g->n_inputs, sizeof(qgc_value *));
    t->g->inputs[t->g->n_inputs++] = v;
    return v;
}

/* Weights and states get a declaration each, also those of layers. */
static inline qgc_value *test_weight(test_graph *t, const char *name, qgc_shape shape) {
    qgc_value *v = test_value(t, QGC_WEIGHT, name, QGC_F32, shape);
    v->decl = (int)t->g->n_weights;
    t->g->weights = qgc_arena_grow(t->arena, t->g->weights, t->g->n_weights, sizeof *t->g->weights);
    qgc_value **values = qgc_arena_alloc(t->arena, sizeof *values);
    *values = v;
    t->g->weights[t->g->n_weights++] =
        (qgc_weight_decl){.name = name, .at = v->at, .repeat = -1, .count = 1, .tied = -1, .values = values};
    return v;
}

static inline qgc_value *test_state(test_graph *t, const char *name, qgc_dtype dtype, qgc_shape shape) {
    qgc_value *v = test_value(t, QGC_STATE, name, dtype, shape);
    v->decl = (int)t->g->n_states;
    t->g->states = qgc_arena_grow(t->arena, t->g->states, t->g->n_states, sizeof *t->g->states);
    qgc_value **values = qgc_arena_alloc(t->arena, sizeof *values);
    *values = v;
    t->g->states[t->g->n_states++] =
        (qgc_state_decl){.name = name, .at = v->at, .repeat = -1, .count = 1, .values = values};
    return v;
}

/* The graph has a repeat with this turn. */
static inline void test_turn(test_graph *t, int layer) {
    qgc_graph *g = t->g;
    if (g->n_repeats == 0) {
        g->repeats = qgc_arena_alloc(t->arena, sizeof *g->repeats);
        *g->repeats = (qgc_repeat){.index = "l"};
        g->n_repeats = 1;
    }
    if (g->repeats->count <= layer)
        g->repeats->count = layer + 1;
}

/* A node with one output; inputs end at the first NULL. Returns the output. */
static inline qgc_value *test_op(test_graph *t, qgc_op op, const char *name,
                                 qgc_value *const in[QGC_MAX_INPUTS]) {
    qgc_node *n = qgc_graph_node(t->g, op, NULL, (qgc_loc){&t->source, ++t->line, 1});
    n->layer = t->layer;
    n->repeat = t->layer < 0 ? -1 : 0;
    if (t->layer >= 0)
        test_turn(t, t->layer);
    while (n->n_in < QGC_MAX_INPUTS && in[n->n_in]) {
        n->in[n->n_in] = in[n->n_in];
        n->n_in++;
    }
    return qgc_node_output(t->g, n, name);
}

static inline void test_number(const qgc_value *v, const char *attr, double number) {
    v->maker->attr[qgc_attr_index(v->maker->op, attr)].number = number;
}

static inline void test_output(test_graph *t, qgc_value *v) {
    t->g->outputs = qgc_arena_grow(t->arena, t->g->outputs, t->g->n_outputs, sizeof(qgc_value *));
    t->g->outputs[t->g->n_outputs++] = v;
}

/* The whole printed error is `golden`. */
static inline void assert_diag(const qgc_diag *d, const char *golden) {
    assert_string_equal(qgc_test_printed(d->arena, d), golden);
}

/* Every node reads `by` where it read `v`, from `first` on. */
static inline void test_read_other(qgc_node *first, const qgc_value *v, qgc_value *by) {
    for (qgc_node *n = first; n; n = n->next)
        for (int i = 0; i < n->n_in; i++)
            if (n->in[i] == v)
                n->in[i] = by;
}

#endif
