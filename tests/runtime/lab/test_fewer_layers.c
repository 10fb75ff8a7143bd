/* A model on few of its layers. */

#include <string.h>

#include "graph/eval.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "runtime/lab/fewer_layers.h"
#include "runtime/lab/random_weights.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"
#include "tests/support/text.h"

/* The caller gives the number of layers and what sets three kinds of them apart. */
static const char model[] = "qgc: 2\n"
                            "name: layered\n"
                            "arch: layered\n"
                            "params:\n"
                            "  layers: %d\n"
                            "  d: 16\n"
                            "  vocab: 40\n"
                            "  odd: %s\n"
                            "  eps: {per: l, value: \"1e-6 + odd * (l %% 3)\"}\n"
                            "weights:\n"
                            "  embed: {shape: [vocab, d], gguf: e}\n"
                            "  norm: {per: l, count: layers, shape: [d], gguf: \"n.{l}\"}\n"
                            "  w: {per: l, count: layers, shape: [d, d], gguf: \"w.{l}\"}\n"
                            "  head: {shape: [vocab, d], gguf: h}\n"
                            "state:\n"
                            "  seen: {shape: [vocab], dtype: i32}\n"
                            "inputs: {tokens: [T], positions: [T], rows: [R]}\n"
                            "graph:\n"
                            "  - {op: embedding, in: [tokens, embed], out: x}\n"
                            "  - repeat: {index: l, count: layers, carry: x}\n"
                            "    body:\n"
                            "      - {op: rms_norm, in: [x, norm], eps: eps, out: h}\n"
                            "      - {op: linear, in: [h, w], out: y}\n"
                            "      - {op: add, in: [x, y], out: x}\n"
                            "  - {op: select_rows, in: [x, rows], out: x_rows}\n"
                            "  - {op: linear, in: [x_rows, head], out: logits}\n"
                            "  - {op: mark, in: [seen, tokens], out: seen_now}\n"
                            "  - {op: sample, in: [logits, rows, positions, seen_now], out: next}\n"
                            "outputs: [logits, next]\n";

static qgc_graph *load(fixture *f, int layers, const char *odd) {
    qgc_graph *g;
    const char *text = qgc_arena_printf(f->arena, model, layers, odd);
    ok(f, qgc_graph_load_text(&g, "layered.yaml", text, strlen(text), f->arena, &f->diag));
    return g;
}

static const qgc_tensor **bind(fixture *f, qgc_graph *g, const qgc_weights *w) {
    const qgc_tensor **tensors;
    ok(f, qgc_graph_bind(g, w, true, &tensors, &f->diag));
    return tensors;
}

static const float *logits_of(fixture *f, qgc_graph *g, const qgc_tensor *const *tensors, int64_t *n) {
    static const int32_t tokens[] = {5, 30, 21, 7};
    qgc_pool *pool = qgc_pool_new(1);
    qgc_eval *e = qgc_eval_new(g, tensors, 8, 4, pool);
    ok(f, qgc_eval_step(e, tokens, 4, 0, false, &f->diag));
    const float *at = qgc_eval_value(e, qgc_graph_output(g, "logits"), n);
    float *copy = qgc_arena_array(f->arena, (size_t)*n + 1, sizeof *copy);
    memcpy(copy, at, (size_t)*n * sizeof *copy);
    qgc_eval_drop(e);
    qgc_pool_drop(pool);
    return copy;
}

static void what_is_left_computes_what_a_model_of_so_many_layers_does(void **state) {
    fixture *f = *state;
    qgc_graph *whole = load(f, 7, "0"), *small = load(f, 3, "0");
    qgc_weights *w;
    int left, of;
    int64_t n, n_small;
    ok(f, qgc_random_weights_open(&w, whole, NULL, 1, &f->diag));
    const qgc_tensor **of_whole = bind(f, whole, w), **of_small = bind(f, small, w);
    ok(f, qgc_lab_keep_layers(whole, of_whole, 3, &left, &of, &f->diag));
    assert_int_equal(left, 3);
    assert_int_equal(of, 7);
    assert_int_equal(whole->n_nodes, small->n_nodes);
    const float *a = logits_of(f, whole, of_whole, &n), *b = logits_of(f, small, of_small, &n_small);
    assert_int_equal(n, 40);
    assert_int_equal(n_small, 40);
    assert_memory_equal(a, b, 40 * sizeof *a);
    qgc_weights_close(w);
}

static void more_layers_than_there_are_leave_all(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, 3, "0");
    const size_t nodes = g->n_nodes;
    qgc_weights *w;
    int left, of;
    ok(f, qgc_random_weights_open(&w, g, NULL, 1, &f->diag));
    const qgc_tensor **tensors = bind(f, g, w);
    ok(f, qgc_lab_keep_layers(g, tensors, 9, &left, &of, &f->diag));
    assert_int_equal(left, 3);
    assert_int_equal(of, 3);
    assert_int_equal(g->n_nodes, nodes);
    qgc_weights_close(w);
}

static void layers_of_all_kinds_have_to_stay(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, 7, "1e-5"), *again = load(f, 7, "1e-5");
    qgc_weights *w;
    int left, of;
    ok(f, qgc_random_weights_open(&w, g, NULL, 1, &f->diag));
    const qgc_tensor **tensors = bind(f, g, w);
    assert_int_equal(qgc_lab_keep_layers(g, tensors, 2, &left, &of, &f->diag), QGC_ERR_USAGE);
    const char *printed = qgc_test_printed(f->arena, &f->diag);
    has(printed, "layer 2 is of another kind than the first 2");
    has(printed, "Search with --layers 3 or more, or on all layers.");
    f->diag = qgc_diag_new(f->arena);
    const qgc_tensor **others = bind(f, again, w);
    ok(f, qgc_lab_keep_layers(again, others, 3, &left, &of, &f->diag));
    assert_int_equal(left, 3);
    qgc_weights_close(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(what_is_left_computes_what_a_model_of_so_many_layers_does),
        FIXTURE_TEST(more_layers_than_there_are_leave_all),
        FIXTURE_TEST(layers_of_all_kinds_have_to_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
