#include <string.h>

#include "graph/base/str.h"
#include "graph/load.h"
#include "tests/support/cmocka.h"

static int setup(void **state) {
    *state = qgc_arena_new();
    return 0;
}

static int teardown(void **state) {
    qgc_arena_drop(*state);
    return 0;
}

static qgc_graph *load(qgc_arena *a) {
    qgc_diag d = qgc_diag_new(a);
    qgc_graph *g;
    assert_int_equal(qgc_graph_load(&g, "models/tiny/tiny.yaml", a, &d), QGC_OK);
    return g;
}

static qgc_node *find(qgc_graph *g, const char *name, int layer) {
    for (qgc_node *n = g->first; n; n = n->next)
        if (n->layer == layer && strcmp(n->out[0]->name, name) == 0)
            return n;
    fail_msg("no node %s", name);
    return NULL;
}

static int put_in_group(qgc_graph *g, const char *const *names, int n, int layer) {
    int group = qgc_graph_group(g, "test", -1, layer, QGC_NO_LOC);
    for (int i = 0; i < n; i++)
        find(g, names[i], layer)->group = group;
    return group;
}

/* The names of a layer's nodes in order; checks both directions of the list. */
static const char *order(qgc_arena *a, const qgc_graph *g, int layer) {
    qgc_str text = qgc_str_new(a);
    size_t n_nodes = 0;
    const qgc_node *last = NULL;
    for (const qgc_node *n = g->first; n; last = n, n = n->next) {
        assert_ptr_equal(n->prev, last);
        n_nodes++;
        if (n->layer == layer)
            qgc_str_printf(&text, "%s%s", text.bytes ? " " : "", n->out[0]->name);
    }
    assert_ptr_equal(g->last, last);
    assert_int_equal(n_nodes, g->n_nodes);
    return text.text;
}

static void gathers_nodes_around_what_needs_nothing_of_them(void **state) {
    qgc_graph *g = load(*state);
    int group = put_in_group(g, (const char *const[]){"q", "qr"}, 2, 1);
    assert_true(qgc_group_gather(g, group, NULL));
    assert_string_equal(order(*state, g, 1), "h k v q qr kr k_all v_all a o x_mid m gate up act ff down x");
}

static void what_needs_the_group_goes_behind_it(void **state) {
    qgc_graph *g = load(*state);
    int group = put_in_group(g, (const char *const[]){"k", "kr", "v", "v_all"}, 4, 0);
    assert_true(qgc_group_gather(g, group, NULL));
    assert_string_equal(order(*state, g, 0), "h q qr k v kr v_all k_all a o x_mid m gate up act ff down x");
    qgc_diag d = qgc_diag_new(*state);
    for (qgc_node *n = g->first; n; n = n->next)
        n->group = -1;
    assert_int_equal(qgc_verify(g, &d), QGC_OK);
}

static void refuses_a_group_with_a_stranger_on_a_path_inside(void **state) {
    qgc_graph *g = load(*state);
    const char *before = order(*state, g, 2);
    int group = put_in_group(g, (const char *const[]){"gate", "ff"}, 2, 2);
    const qgc_node *between = NULL;
    assert_false(qgc_group_gather(g, group, &between));
    assert_string_equal(between->out[0]->name, "act");
    assert_string_equal(order(*state, g, 2), before);
}

static void an_empty_group_and_one_of_one_node_change_nothing(void **state) {
    qgc_graph *g = load(*state);
    const char *before = order(*state, g, 0);
    assert_true(qgc_group_gather(g, qgc_graph_group(g, "none", -1, -1, QGC_NO_LOC), NULL));
    assert_true(qgc_group_gather(g, put_in_group(g, (const char *const[]){"h"}, 1, 0), NULL));
    assert_string_equal(order(*state, g, 0), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(gathers_nodes_around_what_needs_nothing_of_them, setup, teardown),
        cmocka_unit_test_setup_teardown(what_needs_the_group_goes_behind_it, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_a_group_with_a_stranger_on_a_path_inside, setup, teardown),
        cmocka_unit_test_setup_teardown(an_empty_group_and_one_of_one_node_change_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
