#ifndef TESTS_SUPPORT_SAME_GRAPH_H
#define TESTS_SUPPORT_SAME_GRAPH_H

#include <string.h>

#include "graph/load.h"
#include "graph/print.h"
#include "tests/support/cmocka.h"
#include "tests/support/printed.h"

/* Graphs that are to be equal in all but the names of values, and what the printer makes of one. */

static inline const char *print_graph(qgc_arena *a, const qgc_graph *g) {
    qgc_str text = qgc_str_new(a);
    qgc_graph_print_yaml(g, &text);
    return text.text;
}

static inline qgc_graph *load_graph_text(qgc_arena *a, const char *text) {
    qgc_diag d = qgc_diag_new(a);
    qgc_graph *g;
    if (qgc_graph_load_text(&g, "text", text, strlen(text), a, &d) != QGC_OK)
        fail_msg("%s\nin:\n%s", qgc_test_printed(a, &d), text);
    return g;
}

/* Pairs of values found so far: other[a->id] is the one of the second graph. */
static inline void check_same_value(const qgc_value **other, const qgc_value *a, const qgc_value *b) {
    if (!other[a->id]) {
        assert_int_equal(a->kind, b->kind);
        assert_int_equal(a->layer, b->layer);
        assert_int_equal(a->dtype, b->dtype);
        assert_true(qgc_shape_equal(&a->shape, &b->shape));
        other[a->id] = b;
    }
    assert_ptr_equal(other[a->id], b);
}

/* The same for groups, whose numbers count from 1 in `other`. */
static inline void check_same_group(int *other, const qgc_node *a, const qgc_node *b) {
    assert_int_equal(a->group < 0, b->group < 0);
    if (a->group < 0)
        return;
    if (!other[a->group])
        other[a->group] = b->group + 1;
    assert_int_equal(other[a->group], b->group + 1);
}

static inline void check_same_graph(qgc_arena *arena, const qgc_graph *a, const qgc_graph *b) {
    const qgc_value **other = qgc_arena_array(arena, a->n_values, sizeof(qgc_value *));
    int *group = qgc_arena_array(arena, a->n_groups, sizeof *group);
    int *back = qgc_arena_array(arena, b->n_groups, sizeof *back);
    assert_int_equal(a->n_nodes, b->n_nodes);
    assert_int_equal(a->shares_memory, b->shares_memory);
    const qgc_node *n = a->first, *m = b->first;
    for (; n && m; n = n->next, m = m->next) {
        assert_int_equal(n->op, m->op);
        assert_int_equal(n->layer, m->layer);
        assert_int_equal(n->repeat < 0, m->repeat < 0);
        assert_memory_equal(n->attr, m->attr, sizeof n->attr);
        assert_int_equal(n->n_in, m->n_in);
        assert_int_equal(n->n_out, m->n_out);
        check_same_group(group, n, m);
        check_same_group(back, m, n);
        for (int i = 0; i < n->n_in; i++)
            check_same_value(other, n->in[i], m->in[i]);
        for (int i = 0; i < n->n_out; i++)
            check_same_value(other, n->out[i], m->out[i]);
    }
    assert_int_equal(a->n_outputs, b->n_outputs);
    for (size_t i = 0; i < a->n_outputs; i++)
        check_same_value(other, a->outputs[i], b->outputs[i]);
}

/* Prints, reads, compares, prints again; gives the text. */
static inline const char *round_trip(qgc_arena *a, const qgc_graph *g) {
    const char *text = print_graph(a, g);
    const qgc_graph *again = load_graph_text(a, text);
    check_same_graph(a, g, again);
    assert_string_equal(print_graph(a, again), text);
    return text;
}

#endif
