#include <string.h>

#include "graph/base/str.h"
#include "graph/load.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"

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

static void another_group_stays_whole(void **state) {
    qgc_graph *g = load(*state);
    int qk = put_in_group(g, (const char *const[]){"q", "kr"}, 2, 1);
    int other = qgc_graph_group(g, "other", -1, 1, QGC_NO_LOC);
    find(g, "v", 1)->group = find(g, "qr", 1)->group = other; /* v needs nothing of q, qr does */
    assert_true(qgc_group_gather(g, other, NULL));
    assert_string_equal(order(*state, g, 1), "h q k v qr kr k_all v_all a o x_mid m gate up act ff down x");
    assert_true(qgc_group_gather(g, qk, NULL));
    assert_string_equal(order(*state, g, 1), "h k q kr v qr k_all v_all a o x_mid m gate up act ff down x");
}

static void refuses_two_groups_that_need_each_other(void **state) {
    qgc_graph *g = load(*state);
    int other = qgc_graph_group(g, "other", -1, 1, QGC_NO_LOC);
    find(g, "k", 1)->group = find(g, "qr", 1)->group = other;
    assert_true(qgc_group_gather(g, other, NULL));
    const char *before = order(*state, g, 1);
    int group = put_in_group(g, (const char *const[]){"q", "kr"}, 2, 1); /* q -> qr, k -> kr */
    const qgc_node *between = NULL;
    assert_false(qgc_group_gather(g, group, &between));
    assert_string_equal(between->out[0]->name, "k");
    assert_string_equal(order(*state, g, 1), before);
}

/* A graph in which attention looks at the cache as it was before this step's append. */
static qgc_graph *load_old_reader(qgc_arena *a) {
    qgc_graph *g = load(a);
    qgc_node *attention = find(g, "a", 1), *append = find(g, "k_all", 1), *values = find(g, "v_all", 1);
    attention->in[1] = append->in[0];
    attention->in[2] = values->in[0];
    attention->prev->next = attention->next; /* to before the appends */
    attention->next->prev = attention->prev;
    attention->prev = append->prev;
    attention->next = append;
    append->prev->next = attention;
    append->prev = attention;
    attention->order = append->order - 1;
    qgc_diag d = qgc_diag_new(a);
    assert_int_equal(qgc_verify(g, &d), QGC_OK);
    return g;
}

static void refuses_to_append_before_a_reader_of_the_old_cache(void **state) {
    qgc_graph *g = load_old_reader(*state);
    const char *before = order(*state, g, 1);
    int group = put_in_group(g, (const char *const[]){"q", "qr", "k", "kr", "k_all"}, 5, 1);
    const qgc_node *between = NULL;
    assert_false(qgc_group_gather(g, group, &between));
    assert_string_equal(between->out[0]->name, "a");
    assert_string_equal(order(*state, g, 1), before);
}

static void an_append_stays_behind_readers_of_the_old_cache(void **state) {
    qgc_graph *g = load_old_reader(*state);
    int group = put_in_group(g, (const char *const[]){"qr", "o"}, 2, 1);
    assert_false(qgc_group_gather(g, group, NULL));
    find(g, "o", 1)->group = -1;
    find(g, "v_all", 1)->group = group; /* a has to go after qr, and so before no append */
    const qgc_node *between = NULL;
    assert_false(qgc_group_gather(g, group, &between));
    assert_string_equal(between->out[0]->name, "a");
    find(g, "v_all", 1)->group = -1;
    find(g, "seen_now", -1)->group = group;
    assert_true(qgc_group_gather(g, group, NULL));
    for (qgc_node *n = g->first; n; n = n->next)
        n->group = -1;
    qgc_diag d = qgc_diag_new(*state);
    assert_int_equal(qgc_verify(g, &d), QGC_OK);
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
        ARENA_TEST(gathers_nodes_around_what_needs_nothing_of_them),
        ARENA_TEST(what_needs_the_group_goes_behind_it),
        ARENA_TEST(refuses_a_group_with_a_stranger_on_a_path_inside),
        ARENA_TEST(another_group_stays_whole),
        ARENA_TEST(refuses_two_groups_that_need_each_other),
        ARENA_TEST(refuses_to_append_before_a_reader_of_the_old_cache),
        ARENA_TEST(an_append_stays_behind_readers_of_the_old_cache),
        ARENA_TEST(an_empty_group_and_one_of_one_node_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
