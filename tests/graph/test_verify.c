#include <math.h>

#include "tests/support/graph.h"

enum { T = QGC_DIM_T, CTX = QGC_DIM_CTX };

#define BLAME \
    "  hint: The graph no longer holds together: the pass that ran last is at fault, not the model file.\n"

/* Two appends and an attention that reads the second: enough for every rule. */
typedef struct {
    test_graph *t;
    qgc_value *x, *positions, *k_cache, *v_cache, *k, *v, *a, *y;
} fixture;

static fixture make(void **state) {
    test_graph *t = *state;
    fixture f = {.t = t};
    f.x = test_input(t, "x", QGC_F32, SHAPE(T, 8));
    f.positions = test_input(t, "positions", QGC_I32, SHAPE(T));
    f.k_cache = test_state(t, "k_cache", QGC_F32, SHAPE(2, CTX, 4));
    f.v_cache = test_state(t, "v_cache", QGC_F32, SHAPE(2, CTX, 4));
    f.k = test_op(t, QGC_OP_APPEND, "k", INPUTS(f.k_cache, f.x, f.positions));
    f.v = test_op(t, QGC_OP_APPEND, "v", INPUTS(f.v_cache, f.x, f.positions));
    f.a = test_op(t, QGC_OP_ATTENTION, "a", INPUTS(f.x, f.k, f.v, f.positions));
    test_number(f.a, "scale", 1);
    f.y = test_op(t, QGC_OP_ADD, "y", INPUTS(f.a, f.x));
    test_output(t, f.y);
    assert_int_equal(qgc_infer(t->g, &t->diag), QGC_OK);
    return f;
}

static void fails(const fixture *f, const char *golden) {
    assert_int_equal(qgc_verify(f->t->g, &f->t->diag), QGC_ERR_INPUT);
    assert_diag(&f->t->diag, golden);
}

static void a_sound_graph_passes_and_is_not_changed(void **state) {
    fixture f = make(state);
    assert_int_equal(qgc_verify(f.t->g, &f.t->diag), QGC_OK);
    assert_string_equal(qgc_shape_text(&f.y->shape, f.t->arena), "[T, 8]");
}

static void broken_links(void **state) {
    fixture f = make(state);
    f.a->maker->prev = f.k->maker;
    fails(&f, "model.yaml:7:1: error: the list of nodes is not linked both ways at node 2\n" BLAME);
}

static void wrong_count_of_nodes(void **state) {
    fixture f = make(state);
    f.t->g->n_nodes = 3;
    fails(&f,
          "qgc: error: the list of nodes has another length or end than the graph says (3 nodes)\n" BLAME);
}

static void a_value_out_of_its_place(void **state) {
    fixture f = make(state);
    f.positions->id = 0;
    fails(&f, "qgc: error: value 1 does not stand at its place in the graph\n" BLAME);
}

static void a_state_without_declaration(void **state) {
    fixture f = make(state);
    f.v_cache->decl = 2;
    fails(&f, "model.yaml:4:1: error: state \"v_cache\" has no declaration\n" BLAME);
}

static void too_few_inputs(void **state) {
    fixture f = make(state);
    f.y->maker->n_in = 1;
    fails(&f, "model.yaml:8:1: error: add \"y\" has 1 inputs, expected a, b\n" BLAME);
}

static void an_output_too_many(void **state) {
    fixture f = make(state);
    qgc_node_output(f.t->g, f.y->maker, "z");
    fails(&f, "model.yaml:8:1: error: add \"y\" has 2 outputs, expected 1\n" BLAME);
}

static void an_input_of_another_graph(void **state) {
    fixture f = make(state);
    qgc_value stray = *f.x;
    f.y->maker->in[1] = &stray;
    fails(&f, "model.yaml:8:1: error: input 1 of add \"y\" is not a value of the graph\n" BLAME);
}

static void an_output_with_another_maker(void **state) {
    fixture f = make(state);
    f.y->maker = f.a->maker;
    fails(&f, "model.yaml:8:1: error: output 0 of add \"y\" does not name it as its maker\n" BLAME);
}

static void an_attribute_without_value(void **state) {
    fixture f = make(state);
    test_number(f.a, "scale", NAN);
    fails(&f, "model.yaml:7:1: error: \"scale\" of attention \"a\" has no value\n" BLAME);
}

static void a_word_that_is_none_of_the_choices(void **state) {
    fixture f = make(state);
    qgc_value *q = test_op(f.t, QGC_OP_ROPE, "q", INPUTS(f.x, f.positions));
    q->maker->attr[qgc_attr_index(QGC_OP_ROPE, "style")].choice = 2;
    fails(&f, "model.yaml:9:1: error: \"style\" of rope \"q\" has no value\n" BLAME);
}

static void a_read_before_the_making(void **state) {
    fixture f = make(state);
    f.v->maker->in[1] = f.y;
    fails(&f, "model.yaml:6:1: error: append \"v\" reads \"y\" before it is made\n" BLAME);
}

static void a_read_of_a_removed_node(void **state) {
    fixture f = make(state);
    qgc_graph_remove(f.t->g, f.a->maker);
    fails(&f, "model.yaml:8:1: error: add \"y\" reads \"a\", which no node makes any more\n" BLAME);
}

static void a_read_of_an_old_version(void **state) {
    fixture f = make(state);
    f.a->maker->in[1] = f.k_cache;
    fails(&f, "model.yaml:7:1: error: attention \"a\" reads \"k_cache\" after its change to \"k\"\n" BLAME);
}

static void a_second_change_of_an_old_version(void **state) {
    fixture f = make(state);
    test_op(f.t, QGC_OP_APPEND, "k2", INPUTS(f.k_cache, f.x, f.positions));
    fails(&f, "model.yaml:9:1: error: append \"k2\" reads \"k_cache\" after its change to \"k\"\n" BLAME);
}

static void a_reader_of_the_old_version_before_the_change(void **state) {
    fixture f = make(state);
    qgc_node *early = qgc_graph_node(f.t->g, QGC_OP_ATTENTION, f.k->maker, f.a->at);
    *early = (qgc_node){.op = QGC_OP_ATTENTION,
                        .id = early->id,
                        .prev = early->prev,
                        .next = early->next,
                        .repeat = -1,
                        .layer = -1,
                        .group = -1,
                        .at = early->at,
                        .n_in = 4,
                        .in = {f.x, f.k_cache, f.v_cache, f.positions}};
    qgc_node_output(f.t->g, early, "early");
    assert_int_equal(qgc_infer(f.t->g, &f.t->diag), QGC_OK);
    assert_int_equal(qgc_verify(f.t->g, &f.t->diag), QGC_OK);
}

static void a_shape_that_the_rule_does_not_give(void **state) {
    fixture f = make(state);
    f.y->shape.dim[1] = 9;
    fails(&f, "model.yaml:8:1: error: add \"y\" is f32 [T, 9], but its inputs give f32 [T, 8]\n" BLAME);
    assert_int_equal(f.y->shape.dim[1], 9);
}

static void inputs_that_do_not_fit_any_more(void **state) {
    fixture f = make(state);
    f.y->maker->in[0] = f.positions;
    fails(&f, "model.yaml:8:1: error: a of add \"y\" must be f32, but input \"positions\" is i32\n"
              "model.yaml:2:1: note: input \"positions\" is declared here\n" BLAME);
}

static void an_output_that_is_not_made(void **state) {
    fixture f = make(state);
    qgc_graph_remove(f.t->g, f.y->maker);
    fails(&f, "model.yaml:8:1: error: output \"y\" is not made\n" BLAME);
}

static void an_output_that_is_an_old_version(void **state) {
    fixture f = make(state);
    test_output(f.t, f.k_cache);
    fails(&f, "model.yaml:3:1: error: output \"k_cache\" is an old version of state \"k_cache\"\n" BLAME);
}

/* What no walk over the graph would survive is found before there is one. */
static void cannot_be_gone_over(const fixture *f, const char *golden) {
    assert_int_equal(qgc_verify_links(f->t->g, &f->t->diag), QGC_ERR_INPUT);
    f->t->diag = qgc_diag_new(f->t->arena);
    fails(f, golden);
    f->t->diag = qgc_diag_new(f->t->arena);
}

static void a_list_without_end(void **state) {
    fixture f = make(state);
    f.y->maker->next = f.t->g->first;
    cannot_be_gone_over(&f,
                        "qgc: error: a node of the list has the id 0, which is another's or none\n" BLAME);
}

static void an_id_that_is_none(void **state) {
    fixture f = make(state);
    f.y->maker->id = 1 << 30;
    cannot_be_gone_over(
        &f, "qgc: error: a node of the list has the id 1073741824, which is another's or none\n" BLAME);
}

static void an_input_that_is_none(void **state) {
    fixture f = make(state);
    f.y->maker->in[1] = NULL;
    cannot_be_gone_over(&f,
                        "model.yaml:8:1: error: input 1 of add \"y\" is not a value of the graph\n" BLAME);
}

static void a_thousand_inputs(void **state) {
    fixture f = make(state);
    f.y->maker->n_in = 1000;
    cannot_be_gone_over(&f, "model.yaml:8:1: error: add \"y\" has 1000 inputs, expected a, b\n" BLAME);
}

static void an_op_that_is_none(void **state) {
    fixture f = make(state);
    f.y->maker->op = (qgc_op)QGC_N_OPS;
    const int id = f.y->maker->id;
    cannot_be_gone_over(
        &f, qgc_arena_printf(f.t->arena,
                             "model.yaml:8:1: error: node %d has no op that is in the table\n" BLAME, id));
}

static void a_group_that_is_none(void **state) {
    fixture f = make(state);
    f.y->maker->group = 5;
    cannot_be_gone_over(&f, "model.yaml:8:1: error: node \"y\" is in a group that is not there\n" BLAME);
}

static void a_turn_that_is_none(void **state) {
    fixture f = make(state);
    f.y->maker->repeat = 1;
    cannot_be_gone_over(
        &f, "model.yaml:8:1: error: node \"y\" is of turn -1 of a repeat that has no such turn\n" BLAME);
    f.y->maker->repeat = -1;
    f.y->repeat = 1;
    cannot_be_gone_over(
        &f, "model.yaml:8:1: error: value \"y\" is of turn -1 of a repeat that has no such turn\n" BLAME);
    f.y->repeat = -1;
    f.y->layer = 1;
    cannot_be_gone_over(
        &f, "model.yaml:8:1: error: \"y\" is of another turn than the node that makes it\n" BLAME);
}

static void a_dtype_that_is_none(void **state) {
    fixture f = make(state);
    f.y->dtype = QGC_N_DTYPES;
    cannot_be_gone_over(
        &f, "model.yaml:8:1: error: \"y\" has a kind, a dtype or a rank that there is not\n" BLAME);
}

static void a_maker_that_makes_nothing(void **state) {
    fixture f = make(state);
    qgc_graph_remove(f.t->g, f.a->maker);
    f.a->maker->n_out = 0; /* as the rewriter leaves it */
    cannot_be_gone_over(&f,
                        "model.yaml:8:1: error: add \"y\" reads \"a\", which no node makes any more\n" BLAME);
}

static void an_output_that_is_none(void **state) {
    fixture f = make(state);
    f.t->g->outputs[0] = NULL;
    cannot_be_gone_over(&f, "qgc: error: output 0 of the graph is not a value of it\n" BLAME);
}

#define GRAPH_TEST(f) cmocka_unit_test_setup_teardown(f, test_graph_setup, test_graph_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        GRAPH_TEST(a_sound_graph_passes_and_is_not_changed),
        GRAPH_TEST(broken_links),
        GRAPH_TEST(wrong_count_of_nodes),
        GRAPH_TEST(a_value_out_of_its_place),
        GRAPH_TEST(a_state_without_declaration),
        GRAPH_TEST(too_few_inputs),
        GRAPH_TEST(an_output_too_many),
        GRAPH_TEST(an_input_of_another_graph),
        GRAPH_TEST(an_output_with_another_maker),
        GRAPH_TEST(an_attribute_without_value),
        GRAPH_TEST(a_word_that_is_none_of_the_choices),
        GRAPH_TEST(a_read_before_the_making),
        GRAPH_TEST(a_read_of_a_removed_node),
        GRAPH_TEST(a_read_of_an_old_version),
        GRAPH_TEST(a_second_change_of_an_old_version),
        GRAPH_TEST(a_reader_of_the_old_version_before_the_change),
        GRAPH_TEST(a_shape_that_the_rule_does_not_give),
        GRAPH_TEST(inputs_that_do_not_fit_any_more),
        GRAPH_TEST(an_output_that_is_not_made),
        GRAPH_TEST(an_output_that_is_an_old_version),
        GRAPH_TEST(a_list_without_end),
        GRAPH_TEST(an_id_that_is_none),
        GRAPH_TEST(an_input_that_is_none),
        GRAPH_TEST(a_thousand_inputs),
        GRAPH_TEST(an_op_that_is_none),
        GRAPH_TEST(a_group_that_is_none),
        GRAPH_TEST(a_turn_that_is_none),
        GRAPH_TEST(a_dtype_that_is_none),
        GRAPH_TEST(a_maker_that_makes_nothing),
        GRAPH_TEST(an_output_that_is_none),
    };
    return cmocka_run_group_tests_name("graph/verify", tests, NULL, NULL);
}
