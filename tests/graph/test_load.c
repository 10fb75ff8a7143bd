#include <math.h>
#include <string.h>

#include "graph/load.h"
#include "tests/support/cmocka.h"
#include "tests/support/diag_text.h"

static int setup(void **state) {
    *state = qgc_arena_new();
    return 0;
}

static int teardown(void **state) {
    qgc_arena_drop(*state);
    return 0;
}

static qgc_graph *load_good(qgc_arena *a, const char *path) {
    qgc_diag d = qgc_diag_new(a);
    qgc_graph *g;
    if (qgc_graph_load(&g, path, a, &d) != QGC_OK)
        fail_msg("%s", diag_text(&d, a));
    return g;
}

static const qgc_weight_decl *weight(const qgc_graph *g, const char *name) {
    for (size_t i = 0; i < g->n_weights; i++)
        if (strcmp(g->weights[i].name, name) == 0)
            return &g->weights[i];
    fail_msg("no weight %s", name);
    return NULL;
}

static const qgc_node *last_of(const qgc_graph *g, qgc_op op) {
    for (const qgc_node *n = g->last; n; n = n->prev)
        if (n->op == op)
            return n;
    fail_msg("no op %s", qgc_ops[op].name);
    return NULL;
}

static void unrolls_the_half_billion_model(void **state) {
    const qgc_graph *g = load_good(*state, "models/qwen2.5-0.5b.yaml");
    assert_string_equal(g->name, "qwen2.5-0.5b");
    assert_string_equal(g->arch, "qwen2");
    assert_int_equal(g->n_nodes, 24 * 18 + 6);
    assert_int_equal(g->n_repeats, 1);
    assert_int_equal(g->repeats[0].count, 24);
    assert_int_equal(g->n_inputs, 3);

    const qgc_param *base = qgc_graph_param(g, "rope_base");
    assert_true(base->value == 1e6);
    assert_int_equal(base->n_hf, 2);
    assert_string_equal(base->hf[1], "rope_parameters.rope_theta");

    const qgc_value *logits = qgc_graph_output(g, "logits"), *next = qgc_graph_output(g, "next");
    assert_string_equal(qgc_shape_text(&logits->shape, *state), "[R, 151936]");
    assert_int_equal(next->dtype, QGC_I32);
}

static void gives_layers_their_own_weights_and_the_last_x(void **state) {
    const qgc_graph *g = load_good(*state, "models/qwen2.5-0.5b.yaml");
    const qgc_weight_decl *w_down = weight(g, "w_down");
    assert_int_equal(w_down->count, 24);
    const qgc_node *select = last_of(g, QGC_OP_SELECT_ROWS);
    assert_string_equal(qgc_value_label(select->in[0], *state), "x[23]");
    const qgc_node *down = select->in[0]->maker->in[1]->maker;
    assert_ptr_equal(down->in[1], w_down->values[23]);
    assert_int_equal(down->layer, 23);
    assert_string_equal(qgc_value_label(down->in[1], *state), "w_down[23]");

    const qgc_node *first_add = g->first;
    while (first_add->op != QGC_OP_ADD)
        first_add = first_add->next;
    assert_ptr_equal(first_add->in[0], g->first->out[0]); /* x of the first turn is the embedding */

    const qgc_node *attention = last_of(g, QGC_OP_ATTENTION);
    assert_true(attention->attr[0].number == 0.125);
}

static void stores_matrices_in_bf16_and_vectors_in_f32(void **state) {
    const qgc_graph *g = load_good(*state, "models/qwen2.5-0.5b.yaml");
    assert_int_equal(weight(g, "wq")->values[3]->dtype, QGC_BF16);
    assert_int_equal(weight(g, "bq")->values[3]->dtype, QGC_F32);
    assert_int_equal(g->states[0].values[0]->dtype, QGC_F16);
}

static void ties_the_head_but_for_7b(void **state) {
    const qgc_graph *g = load_good(*state, "models/qwen2.5-0.5b.yaml");
    assert_int_equal(weight(g, "head")->tied, (int)(weight(g, "embed") - g->weights));
    g = load_good(*state, "models/qwen2.5-7b.yaml");
    assert_int_equal(weight(g, "head")->tied, -1);
    assert_string_equal(qgc_shape_text(&weight(g, "head")->values[0]->shape, *state), "[152064, 3584]");
}

static void loads_every_model(void **state) {
    static const struct {
        const char *path;
        int layers;
    } models[] = {
        {"models/qwen2.5-1.5b.yaml", 28},
        {"models/qwen2.5-3b.yaml", 36},
        {"models/qwen2.5-7b.yaml", 28},
        {"models/tiny/tiny.yaml", 4},
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const qgc_graph *g = load_good(*state, models[i].path);
        assert_int_equal(g->n_nodes, (size_t)models[i].layers * 18 + 6);
    }
}

static void lets_a_file_override_single_keys(void **state) {
    const qgc_graph *g = load_good(*state, "models/tiny/tiny.yaml");
    assert_string_equal(g->states[0].name, "k_cache");
    assert_int_equal(g->states[0].values[0]->dtype, QGC_F32);
    assert_string_equal(qgc_shape_text(&g->states[0].values[0]->shape, *state), "[2, ctx, 32]");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(unrolls_the_half_billion_model, setup, teardown),
        cmocka_unit_test_setup_teardown(gives_layers_their_own_weights_and_the_last_x, setup, teardown),
        cmocka_unit_test_setup_teardown(stores_matrices_in_bf16_and_vectors_in_f32, setup, teardown),
        cmocka_unit_test_setup_teardown(ties_the_head_but_for_7b, setup, teardown),
        cmocka_unit_test_setup_teardown(loads_every_model, setup, teardown),
        cmocka_unit_test_setup_teardown(lets_a_file_override_single_keys, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
