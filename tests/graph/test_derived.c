/* Weights that are derived of others, in YAML. */

#include <string.h>

#include "graph/load.h"
#include "graph/print.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"

static const char *text_of(fixture *f, const char *weights) {
    return qgc_arena_printf(f->arena,
                            "qgc: 2\nname: case\narch: case\nweights:\n"
                            "  t: {shape: [40, 8], dtype: f32, gguf: t}\n"
                            "  n: {per: l, shape: [8], dtype: f32, gguf: \"n.{l}\"}\n"
                            "  w: {per: l, shape: [8, 8], dtype: bf16, gguf: \"w.{l}\"}\n%s"
                            "inputs: {tokens: [T], positions: [T], rows: [R]}\ngraph:\n"
                            "  - {op: embedding, in: [tokens, t], out: x}\n"
                            "  - repeat: {index: l, count: 3, carry: x}\n    body:\n"
                            "      - {op: rms_norm, in: [x, n], eps: 1e-5, out: h}\n"
                            "      - {op: linear, in: [h, w], out: y}\n"
                            "      - {op: linear, in: [y, d], out: x}\n"
                            "outputs: [x]\n",
                            weights);
}

static qgc_status load(fixture *f, const char *weights, qgc_graph **g) {
    const char *text = text_of(f, weights);
    return qgc_graph_load_text(g, "case.yaml", text, strlen(text), f->arena, &f->diag);
}

static void a_derived_weight_is_printed_as_it_was_read(void **state) {
    static const char *const weights[] = {
        "  d: {per: l, shape: [8, 8], dtype: f32, derived: {op: scale_columns, of: [w, n]}}\n",
        "  d: {per: l, shape: [8, 8], dtype: bf16, derived: {op: rows, of: [t], first: 8, last: 16}}\n",
        "  d: {per: l, shape: [8, 8], dtype: f16, derived: {op: scale, of: [w], factor: 0.25}}\n",
        ("  high: {per: l, shape: [4, 8], dtype: bf16, derived: {op: rows, of: [w], first: 4, last: 8}}\n"
         "  d: {per: l, shape: [8, 8], dtype: bf16, derived: {op: concat_rows, of: [high, high]}}\n"),
    };
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        fixture *f = *state;
        qgc_graph *g;
        ok(f, load(f, weights[i], &g));
        ok(f, qgc_verify(g, &f->diag));
        qgc_arena *other = qgc_arena_new();
        qgc_str text = qgc_str_new(f->arena);
        qgc_graph_print_yaml(qgc_graph_clone(g, other), &text);
        if (!strstr(text.text, weights[i]))
            fail_msg("%s is printed as\n%s", weights[i], text.text);
        qgc_arena_drop(other);
    }
}

static void its_type_is_that_of_what_it_copies(void **state) {
    fixture *f = *state;
    qgc_graph *g;
    ok(f, load(f, "  d: {per: l, shape: [8, 8], derived: {op: rows, of: [w], first: 0, last: 8}}\n", &g));
    assert_int_equal(g->weights[3].values[2]->dtype, QGC_BF16);
    ok(f, load(f, "  d: {per: l, shape: [8, 8], derived: {op: scale_columns, of: [w, n]}}\n", &g));
    assert_int_equal(g->weights[3].values[2]->dtype, QGC_F32);
}

static void what_cannot_be_derived_is_refused(void **state) {
    static const struct {
        const char *weights, *message;
    } cases[] = {
        {"  d: {per: l, shape: [8, 8], derived: {op: twist, of: [w]}}\n",
         "weights are not derived by \"twist\""},
        {"  d: {per: l, shape: [8, 8], derived: {op: scale, of: [e], factor: 2}}\n",
         "weight \"d\" is derived of \"e\", which is no weight declared above it"},
        {"  d: {per: l, shape: [8, 8], derived: {op: scale, of: [d], factor: 2}}\n",
         "weight \"d\" is derived of \"d\", which is no weight declared above it"},
        {"  d: {per: l, shape: [8, 9], derived: {op: scale, of: [w], factor: 2}}\n",
         "weight \"d[0]\" cannot be derived: its shape would be [8, 8]"},
        {"  d: {per: l, shape: [8, 8], derived: {op: rows, of: [w], first: 4, last: 12}}\n",
         "weight \"d[0]\" cannot be derived: 4 to 11 is not within 8"},
        {"  d: {per: l, shape: [8, 8], gguf: \"d.{l}\", derived: {op: scale, of: [w], factor: 2}}\n",
         "weight \"d\" is derived, and has \"gguf\" too"},
        {"  d: {per: l, shape: [8, 8], derived: {op: scale, of: [w, w, w, w, w], factor: 2}}\n",
         "weight \"d\" is derived of 5 weights, at most 4 can be"},
        {"  e: {per: l, shape: [8, 8], derived: {op: scale, of: [w], factor: 2}}\n"
         "  d: {per: l, shape: [8, 8], gguf: \"d.{l}\", tied: e}\n",
         "weight \"d\" is tied to \"e\", which is derived"},
        {"  e: {per: l, turns: [0, 2], shape: [8, 8], gguf: \"e.{l}\"}\n"
         "  d: {per: l, shape: [8, 8], derived: {op: scale, of: [e], factor: 2}}\n",
         "weight \"d[1]\" cannot be derived: there is no \"e\" that it could be made of"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture *f = *state;
        qgc_graph *g;
        f->diag = qgc_diag_new(f->arena);
        assert_int_equal(load(f, cases[i].weights, &g), QGC_ERR_INPUT);
        assert_string_equal(qgc_diag_message(&f->diag), cases[i].message);
    }
}

static void a_pass_that_breaks_one_is_found(void **state) {
    fixture *f = *state;
    qgc_graph *g;
    ok(f, load(f, "  d: {per: l, shape: [8, 8], derived: {op: scale_columns, of: [w, n]}}\n", &g));
    g->weights[3].derived.from[1] = 0;
    assert_int_equal(qgc_verify(g, &f->diag), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&f->diag),
                        "weight \"d[0]\" cannot be derived: rows of 8 columns are no multiple of 40 numbers");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_derived_weight_is_printed_as_it_was_read),
        FIXTURE_TEST(its_type_is_that_of_what_it_copies),
        FIXTURE_TEST(what_cannot_be_derived_is_refused),
        FIXTURE_TEST(a_pass_that_breaks_one_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
