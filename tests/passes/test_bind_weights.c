#include "passes/bind_weights.h"
#include "tests/support/fake_weights.h"
#include "tests/support/graph.h"
#include "tests/support/printed.h"

/* Three layers of wq, one embed, a head that is tied to it. */
static void make(test_graph *t) {
    qgc_value *wq = test_weight(t, "wq", SHAPE(6, 4));
    qgc_weight_decl *decl = &t->g->weights[0];
    decl->index = "l";
    decl->count = 3;
    decl->gguf = "blk.{l}.q{l}.{x}";
    decl->values = qgc_arena_array(t->arena, 3, sizeof *decl->values);
    decl->values[0] = wq;
    wq->layer = 0;
    for (int l = 1; l < 3; l++) {
        t->layer = l;
        decl->values[l] = test_value(t, QGC_WEIGHT, "wq", QGC_F32, SHAPE(6, 4));
        decl->values[l]->decl = 0;
    }
    t->layer = -1;
    test_weight(t, "head", SHAPE(10, 4));
    test_weight(t, "embed", SHAPE(10, 4));
    t->g->weights[1].gguf = "output";
    t->g->weights[1].tied = 2;
    t->g->weights[2].gguf = "embd";
    static const char *eps_keys[] = {"eps"};
    t->g->params = qgc_arena_alloc(t->arena, sizeof *t->g->params);
    *t->g->params = (qgc_param){.name = "eps", .value = 0.5, .gguf = eps_keys, .n_gguf = 1, .fixed = true};
    t->g->n_params = 1;
    t->g->at = (qgc_loc){&t->source, 1, 1};
}

static const qgc_tensor tensors[] = {
    {.name = "blk.2.q2.{x}", .rank = 2, .shape = {6, 4}},
    {.name = "blk.1.q1.{x}", .rank = 2, .shape = {6, 4}},
    {.name = "blk.0.q0.{x}", .rank = 2, .shape = {6, 4}},
    {.name = "embd", .rank = 2, .shape = {10, 4}},
    {.name = "extra", .rank = 1, .shape = {1}},
};

static const qgc_weights file = {.kind = QGC_WEIGHTS_GGUF,
                                 .path = "file",
                                 .arch = "test",
                                 .tensors = tensors,
                                 .n_tensors = 5,
                                 .keys = {"eps"},
                                 .numbers = {0.5}};

static void tensors_come_under_the_ids_of_their_values(void **state) {
    test_graph *t = *state;
    make(t);
    const qgc_tensor **found;
    assert_int_equal(qgc_graph_bind(t->g, &file, true, &found, &t->diag), QGC_OK);
    for (int l = 0; l < 3; l++)
        assert_ptr_equal(found[t->g->weights[0].values[l]->id], &tensors[2 - l]);
    for (int i = 1; i < 3; i++)
        assert_ptr_equal(found[t->g->weights[i].values[0]->id], &tensors[3]);
}

static void errors_name_the_layer(void **state) {
    test_graph *t = *state;
    make(t);
    qgc_weights w = file;
    w.n_tensors = 1;
    const qgc_tensor **found;
    assert_int_equal(qgc_graph_bind(t->g, &w, false, &found, &t->diag), QGC_ERR_INPUT);
    assert_string_equal(
        qgc_test_printed(t->arena, &t->diag),
        "model.yaml:1:1: error: weight \"wq[0]\" is missing: \"file\" has no tensor \"blk.0.q0.{x}\"\n"
        "  hint: The nearest name in it is \"blk.2.q2.{x}\".\n"
        "model.yaml:1:1: while: binding the weights of file\n");
}

static void unused_tensors_and_other_numbers_are_errors(void **state) {
    test_graph *t = *state;
    make(t);
    const qgc_tensor **found;
    assert_int_equal(qgc_graph_bind(t->g, &file, false, &found, &t->diag), QGC_ERR_INPUT);
    assert_non_null(strstr(qgc_diag_message(&t->diag), "\"extra\""));
    t->diag = qgc_diag_new(t->arena);
    t->g->params[0].value = 1;
    assert_int_equal(qgc_graph_bind(t->g, &file, true, &found, &t->diag), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&t->diag), "\"eps\" is 1, but \"file\" states 0.5 as \"eps\"");
}

#define GRAPH_TEST(f) cmocka_unit_test_setup_teardown(f, test_graph_setup, test_graph_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        GRAPH_TEST(tensors_come_under_the_ids_of_their_values),
        GRAPH_TEST(errors_name_the_layer),
        GRAPH_TEST(unused_tensors_and_other_numbers_are_errors),
    };
    return cmocka_run_group_tests_name("passes/bind_weights", tests, NULL, NULL);
}
