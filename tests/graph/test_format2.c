#include <math.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/arena.h"
#include "tests/support/folder.h"
#include "tests/support/same_graph.h"

/* Format 2: parts, conditions, parameters that are computed. */

#define HEAD "qgc: 2\nname: small\narch: none\n"
#define WEIGHTS                                                             \
    "weights:\n  embed: {shape: [16, 8]}\n  norm: {per: l, shape: [8]}\n"   \
    "  w: {per: l, shape: [8, 8]}\n  b: {per: l, when: bias, shape: [8]}\n" \
    "inputs: {tokens: [T]}\n"
#define GRAPH                                                                      \
    "graph:\n  - {op: embedding, in: [tokens, embed], out: x}\n"                   \
    "  - repeat: {index: l, count: layers, carry: x}\n    body: [{part: layer}]\n" \
    "outputs: [x]\n"
#define PARTS                                                                    \
    "parts:\n  layer:\n    - {op: rms_norm, in: [x, norm], eps: 1e-5, out: h}\n" \
    "    - {part: mlp}\n    - {op: add, in: [x, y], out: x}\n"                   \
    "  mlp: [{op: linear, in: [h, w, b], out: y}]\n"

/* "rms_norm linear+ add | ..." : the ops, + for each input more than the op needs. */
static const char *ops_of(qgc_arena *a, const qgc_graph *g) {
    qgc_str text = qgc_str_new(a);
    int layer = -1;
    for (const qgc_node *n = g->first; n; n = n->next) {
        qgc_str_printf(&text, "%s%s%s", n->prev ? " " : "", n->layer != layer ? "| " : "",
                       qgc_ops[n->op].name);
        for (int i = qgc_ops[n->op].min_inputs; i < n->n_in; i++)
            qgc_str_add(&text, "+");
        layer = n->layer;
    }
    return text.text;
}

static void a_condition_is_decided_in_each_turn(void **state) {
    const qgc_graph *g = load_graph_text(
        *state, HEAD "params: {layers: 3, bias: {per: l, value: l % 2}}\n" WEIGHTS GRAPH PARTS);
    assert_string_equal(ops_of(*state, g),
                        "embedding | rms_norm linear add | rms_norm linear+ add | rms_norm linear add");
    assert_int_equal(g->weights[3].count, 1);
    assert_int_equal(g->weights[3].values[0]->layer, 1);
}

static void a_weight_that_no_turn_has_is_not_there(void **state) {
    const qgc_graph *g = load_graph_text(*state, HEAD "params: {layers: 2, bias: 0}\n" WEIGHTS GRAPH PARTS);
    assert_string_equal(ops_of(*state, g), "embedding | rms_norm linear add | rms_norm linear add");
    assert_int_equal(g->n_weights, 3);
}

static void a_choice_has_two_sides(void **state) {
    const qgc_graph *g = load_graph_text(
        *state, HEAD
        "params: {layers: 2, bias: 1}\n" WEIGHTS "graph:\n"
        "  - {op: embedding, in: [tokens, embed], out: x}\n"
        "  - repeat: {index: l, count: layers, carry: x}\n    body:\n"
        "      - {op: rms_norm, in: [x, norm], eps: 1e-5, out: h}\n"
        "      - when: l == 0\n        do: [{op: linear, in: [h, w, b], out: y}]\n"
        "        else:\n          - {op: linear, in: [h, w, b], out: y}\n          - {op: silu, in: [y], out: y}\n"
        "      - {op: add, in: [x, y], out: x}\n"
        "outputs: [x]\n");
    assert_string_equal(ops_of(*state, g), "embedding | rms_norm linear+ add | rms_norm linear+ silu add");
}

static void a_name_may_be_made_again(void **state) {
    const qgc_graph *g = load_graph_text(
        *state, HEAD
        "params: {layers: 2, bias: 0}\n" WEIGHTS "graph:\n"
        "  - {op: embedding, in: [tokens, embed], out: x}\n  - {op: silu, in: [x], out: x}\n"
        "  - repeat: {index: l, count: layers, carry: x}\n    body:\n"
        "      - {op: rms_norm, in: [x, norm], eps: 1e-5, out: y}\n      - {op: linear, in: [y, w, b], out: y}\n"
        "      - {when: l, op: silu, in: [y], out: y}\n      - {op: add, in: [x, y], out: x}\n"
        "outputs: [x]\n");
    assert_string_equal(ops_of(*state, g), "embedding silu | rms_norm linear add | rms_norm linear silu add");
    const qgc_node *sum = g->last;
    assert_string_equal(sum->in[1]->name, "y_3");
    assert_ptr_equal(sum->in[1]->maker, sum->prev);
    assert_ptr_equal(sum->prev->in[0]->maker, sum->prev->prev);
    assert_string_equal(g->first->next->out[0]->name, "x_2");
    assert_ptr_equal(g->first->next->next->in[0], g->first->next->out[0]);
    round_trip(*state, g);
}

/* Names of 63 letters that begin alike, each made twice, and one that a part gives: no two values have one name. */
static void long_names_that_are_made_again_stay_apart(void **state) {
#define LONG "a23456789012345678901234567890123456789012345678"
    qgc_graph *g = load_graph_text(
        *state, HEAD
        "weights: {embed: {shape: [16, 8]}}\ninputs: {tokens: [T]}\ngraph:\n"
        "  - {op: embedding, in: [tokens, embed], out: x}\n"
        "  - {op: silu, in: [x], out: " LONG "_one}\n  - {op: silu, in: [x], out: " LONG "_two}\n"
        "  - {op: silu, in: [" LONG "_one], out: " LONG "_one}\n"
        "  - {op: silu, in: [" LONG "_two], out: " LONG "_two}\n"
        "  - {part: sum, with: {a: " LONG "_one, b: " LONG "_two, c: " LONG "_2}}\noutputs: [" LONG "_2]\n"
        "parts:\n  sum: [{op: add, in: [a, b], out: c}]\n");
    for (size_t i = 0; i < g->n_values; i++)
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(g->values[i]->name, g->values[k]->name);
    assert_ptr_equal(qgc_graph_output(g, LONG "_2"), g->last->out[0]);
    round_trip(*state, g);
#undef LONG
}

/* Who asks for an output asks by its name. */
static void an_output_that_is_made_again_keeps_its_name(void **state) {
    const qgc_graph *g = load_graph_text(
        *state,
        "qgc: 2\nname: small\narch: none\nweights: {embed: {shape: [16, 8]}}\ninputs: {tokens: [T]}\ngraph:\n"
        "  - {op: embedding, in: [tokens, embed], out: x}\n  - {op: silu, in: [x], out: x}\n"
        "  - {op: mul, in: [x, x], out: x}\noutputs: [x]\n");
    assert_ptr_equal(qgc_graph_output(g, "x"), g->last->out[0]);
    assert_string_equal(g->first->out[0]->name, "x_3");
    assert_string_equal(g->first->next->out[0]->name, "x_2");
    round_trip(*state, g);
}

static void a_part_takes_other_names(void **state) {
    const qgc_graph *g = load_graph_text(
        *state,
        HEAD "params: {layers: 1, bias: 0}\n" WEIGHTS "graph:\n"
             "  - {op: embedding, in: [tokens, embed], out: x}\n"
             "  - repeat: {index: l, count: layers, carry: x}\n    body:\n"
             "      - {part: outer, with: {in: x, out: z, n: norm}}\n      - {op: add, in: [x, z], out: x}\n"
             "outputs: [x]\nparts:\n"
             "  outer: [{part: inner, with: {a: in, w: n, b: t}}, {op: linear, in: [t, w], out: out}]\n"
             "  inner: [{op: rms_norm, in: [a, w], eps: 1, out: b}]\n");
    const qgc_node *norm = g->first->next;
    assert_ptr_equal(norm->in[0], g->first->out[0]);
    assert_string_equal(norm->in[1]->name, "norm");
    assert_string_equal(norm->out[0]->name, "t");
    assert_string_equal(norm->next->in[1]->name, "w");
    assert_string_equal(norm->next->out[0]->name, "z");
}

static const qgc_param *param(const qgc_graph *g, const char *name) {
    const qgc_param *p = qgc_graph_param(g, name);
    if (!p)
        fail_msg("no parameter \"%s\"", name);
    return p;
}

static void parameters_are_computed_from_others(void **state) {
    const qgc_graph *g = load_graph_text(
        *state, HEAD
        "params:\n  layers: {value: 'wide > 4 ? 2 : 1'}\n  wide: {value: 3*half}\n  half: 2\n"
        "  bias: {per: l, value: l == wide - 5}\n  unread: {value: 1/nothing}\n  nothing: {}\n" WEIGHTS GRAPH
            PARTS);
    assert_string_equal(ops_of(*state, g), "embedding | rms_norm linear add | rms_norm linear+ add");
    assert_true(param(g, "layers")->value == 2 && param(g, "wide")->value == 6);
    assert_false(param(g, "unread")->used);
}

/* --- files that extend one another ------------------------------------------------------------------------ */

static qgc_graph *load_files(qgc_arena *a, const char *base, const char *over) {
    const char *folder = qgc_test_folder(a);
    qgc_test_write(a, folder, "base.yaml", base, strlen(base));
    qgc_test_write(a, folder, "over.yaml", over, strlen(over));
    qgc_diag d = qgc_diag_new(a);
    qgc_graph *g;
    const qgc_status s = qgc_graph_load(&g, qgc_test_path(a, folder, "over.yaml"), a, &d);
    qgc_test_folder_drop(a, folder);
    if (s != QGC_OK)
        fail_msg("%s", qgc_test_printed(a, &d));
    return g;
}

#define FAMILY HEAD "params: {layers: {hf: n, value: 2}, bias: {hf: bias, value: 0}}\n" WEIGHTS GRAPH PARTS

static void a_part_is_replaced_by_itself(void **state) {
    const qgc_graph *g =
        load_files(*state, FAMILY,
                   "qgc: 2\nextends: base.yaml\nparts:\n  mlp:\n    - {op: linear, in: [h, w], out: y}\n"
                   "    - {op: silu, in: [y], out: y}\n");
    assert_string_equal(ops_of(*state, g), "embedding | rms_norm linear silu add | rms_norm linear silu add");
}

static void a_file_of_format_1_gives_sizes_to_a_family(void **state) {
    const qgc_graph *g =
        load_files(*state, FAMILY, "qgc: 1\nextends: base.yaml\nparams: {layers: 1, bias: 1}\n");
    assert_string_equal(ops_of(*state, g), "embedding | rms_norm linear+ add");
    assert_true(param(g, "layers")->fixed);
    assert_true(param(g, "layers")->otherwise[0] == 2);
}

static void a_value_takes_back_what_was_fixed(void **state) {
    const qgc_graph *g = load_files(*state, HEAD "params: {layers: 3, bias: 1}\n" WEIGHTS GRAPH PARTS,
                                    "qgc: 2\nextends: base.yaml\nparams: {layers: {value: 1, hf: n}}\n");
    assert_string_equal(ops_of(*state, g), "embedding | rms_norm linear+ add");
    assert_false(param(g, "layers")->fixed);
}

static void what_was_loaded_is_printed_and_loads_again(void **state) {
    static const char *const params[] = {
        "params: {layers: 3, bias: {per: l, value: l % 2}}\n",
        "params: {layers: {hf: n, value: 5}, bias: {per: l, hf: biases, words: [none, some|all], value: l > 2}}\n",
        "params: {layers: {hf: n, value: 5}, bias: {per: l, gguf: [a, b], value: l < 2}}\n",
        "params: {layers: {hf: n, value: 1}, bias: 0}\n",
    };
    for (size_t i = 0; i < sizeof params / sizeof *params; i++)
        round_trip(*state, load_graph_text(
                               *state, qgc_arena_printf(*state, HEAD "%s" WEIGHTS GRAPH PARTS, params[i])));
}

static void how_weights_lie_in_files_is_printed(void **state) {
    const char *text = round_trip(
        *state,
        load_graph_text(
            *state,
            "qgc: 2\nname: small\narch: {hf: [a, b], gguf: c}\nignore: [\"*.inv_freq\"]\n"
            "params: {layers: {gguf: [\"{arch}.n\", rows(x.weight)], fixed: 1}, d: 8}\n"
            "weights:\n  embed: {shape: [16, d], hf: {name: e, transposed: 1}}\n"
            "  norm: {per: l, shape: [d], hf: {name: \"n{l}\", plus: 1}, gguf: \"g{l}\"}\n"
            "  w: {per: l, shape: [d, d], hf: {name: \"w{l}\", rows: [d, 2*d], of: 3*d}, gguf: {name: \"q{l}\", unpermute: d/4}}\n"
            "inputs: {tokens: [T]}\n"
            "graph:\n  - {op: embedding, in: [tokens, embed], out: x}\n"
            "  - repeat: {index: l, count: layers, carry: x}\n    body: [{part: layer}]\n"
            "outputs: [x]\n"
            "parts: {layer: [{op: rms_norm, in: [x, norm], eps: 1, out: h}, {op: linear, in: [h, w], out: x}]}\n"));
    assert_non_null(strstr(text, "arch: {gguf: c, hf: [a, b]}\nignore: [\"*.inv_freq\"]\n"));
    assert_non_null(strstr(text, "hf: {name: \"w{l}\", rows: [8, 16], of: 24}}\n"));
    assert_non_null(strstr(text, "gguf: {name: \"q{l}\", unpermute: 2}"));
    assert_non_null(strstr(text, "hf: {name: e, transposed: 1}"));
    assert_non_null(strstr(text, "hf: {name: \"n{l}\", plus: 1}"));
    assert_non_null(strstr(text, "layers: {gguf: [\"{arch}.n\", \"rows(x.weight)\"], fixed: 1}"));
}

/* --- what weights state ----------------------------------------------------------------------------------- */

typedef struct {
    const char *key;
    int turn;
    double number;
} fact;

static qgc_stated number_of(void *context, const qgc_param *p, const char *key, int turn, double *out) {
    (void)p;
    for (const fact *f = context; f->key; f++)
        if (strcmp(f->key, key) == 0 && (f->turn == turn || f->turn < 0)) {
            *out = f->number;
            return isnan(f->number) ? QGC_MISSTATED : QGC_STATED;
        }
    return QGC_NOT_STATED;
}

static const char *shown(void *context, const char *key, qgc_arena *a) {
    (void)context;
    return qgc_arena_printf(a, "\"what %s says\"", key);
}

static size_t count_of(void *context, const char *key) {
    size_t n = 0;
    for (const fact *f = context; f->key; f++)
        n += strcmp(f->key, key) == 0;
    return n;
}

static qgc_status load_stated(qgc_arena *a, const char *text, const fact *facts, qgc_graph **g, qgc_diag *d) {
    const char *folder = qgc_test_folder(a);
    const qgc_load_facts f = {.path = "weights",
                              .context = (void *)(uintptr_t)facts,
                              .number = number_of,
                              .shown = shown,
                              .count = count_of};
    qgc_test_write(a, folder, "family.yaml", text, strlen(text));
    const qgc_status s = qgc_graph_load_stated(g, qgc_test_path(a, folder, "family.yaml"), &f, a, d);
    qgc_test_folder_drop(a, folder);
    return s;
}

#define STATED \
    "params: {layers: {hf: n}, bias: {per: l, hf: [biases, other], words: [none, all], value: l == 0}}\n"

static void parameters_are_read_from_weights(void **state) {
    const fact facts[] = {{"n", -1, 3}, {"biases", 0, 0}, {"biases", 1, 1}, {"biases", 2, 1}, {0}};
    qgc_diag d = qgc_diag_new(*state);
    qgc_graph *g;
    if (load_stated(*state, HEAD STATED WEIGHTS GRAPH PARTS, facts, &g, &d) != QGC_OK)
        fail_msg("%s", qgc_test_printed(*state, &d));
    assert_string_equal(ops_of(*state, g),
                        "embedding | rms_norm linear add | rms_norm linear+ add | rms_norm linear+ add");
    const qgc_param *bias = param(g, "bias");
    assert_int_equal(bias->count, 3);
    for (int i = 0; i < 3; i++) {
        assert_true(bias->values[i] == (i > 0));
        assert_true(bias->otherwise[i] == (i == 0));
    }
    assert_null(param(g, "layers")->otherwise);
    round_trip(*state, g);
}

#define CACHED(ring, window)                                                                    \
    "weights:\n  embed: {shape: [16, 8]}\n"                                                     \
    "state:\n  kc: {per: l, shape: [2, ctx, 4], dtype: f16, ring: " ring "}\n"                  \
    "inputs: {tokens: [T], positions: [T]}\ngraph:\n"                                           \
    "  - {op: embedding, in: [tokens, embed], out: x}\n"                                        \
    "  - repeat: {index: l, count: layers, carry: x}\n    body:\n"                              \
    "      - {op: append, in: [kc, x, positions], out: k}\n"                                    \
    "      - {op: attention, in: [x, k, k, positions], scale: 1, window: " window ", out: x}\n" \
    "outputs: [x]\n"

/* A number for each turn; printed as a list where they differ. */
static void caches_may_be_rings(void **state) {
    qgc_graph *g = load_graph_text(
        *state, HEAD "params: {layers: 3}\n" CACHED("\"l == 1 ? 0 : 9 + l\"", "\"l == 1 ? 0 : 4\""));
    assert_string_equal(qgc_shape_text(&g->states[0].values[0]->shape, *state), "[2, min(ctx, 9), 4]");
    assert_string_equal(qgc_shape_text(&g->states[0].values[1]->shape, *state), "[2, ctx, 4]");
    assert_int_equal(qgc_shape_elems(&g->states[0].values[2]->shape, &(qgc_sizes){.ctx = 100}), 2 * 11 * 4);
    assert_int_equal(qgc_shape_elems(&g->states[0].values[2]->shape, &(qgc_sizes){.ctx = 5}), 2 * 5 * 4);
    assert_non_null(strstr(round_trip(*state, g), "dtype: f16, ring: [9, 0, 11]}"));
    g = load_graph_text(*state, HEAD "params: {layers: 2}\n" CACHED("7", "7"));
    assert_non_null(strstr(round_trip(*state, g), "shape: [2, ctx, 4], dtype: f16, ring: 7}"));
    g = load_graph_text(*state, HEAD "params: {layers: 2}\n" CACHED("0", "7"));
    assert_null(strstr(round_trip(*state, g), "ring"));
}

static void check_bad_graph(qgc_arena *a, const char *text, const char *message) {
    qgc_diag d = qgc_diag_new(a);
    qgc_graph *g;
    assert_int_equal(qgc_graph_load_text(&g, "model.yaml", text, strlen(text), a, &d), QGC_ERR_INPUT);
    assert_non_null(strstr(qgc_test_printed(a, &d), message));
}

static void rings_that_are_too_small_are_refused(void **state) {
    check_bad_graph(
        *state, HEAD "params: {layers: 2}\n" CACHED("6", "7"),
        "attention \"x[0]\" sees the last 7 positions, but its caches keep 6: [2, min(ctx, 6), 4]");
    check_bad_graph(*state, HEAD "params: {layers: 2}\n" CACHED("6", "0"),
                    "sees all positions, but its caches keep 6");
    check_bad_graph(*state, HEAD "params: {layers: 2}\n" CACHED("[6]", "6"),
                    "state \"kc\" has 1 rings, expected 2");
    check_bad_graph(*state, HEAD "params: {layers: 2}\n" CACHED("-1", "6"), "-1");
    check_bad_graph(*state,
                    HEAD "weights:\n  embed: {shape: [16, 8]}\n"
                         "state:\n  kc: {shape: [2, ctx, 4], dtype: f16, ring: 9}\n"
                         "inputs: {tokens: [T], positions: [T]}\ngraph:\n"
                         "  - {op: embedding, in: [tokens, embed], out: x}\n"
                         "  - {op: attention, in: [x, kc, kc, positions], scale: 1, window: 4, out: y}\n"
                         "outputs: [y]\n",
                    "\"y\" reads caches before the step puts its own positions there, but its caches keep 9");
}

/* As many as there are heads. */
static void sinks_of_other_heads_are_refused(void **state) {
#define SINKS(n)                                                        \
    HEAD "weights:\n  embed: {shape: [16, 8]}\n  s: {shape: [" n "]}\n" \
         "state:\n  kc: {shape: [2, ctx, 4], dtype: f16}\n"             \
         "inputs: {tokens: [T], positions: [T]}\ngraph:\n"              \
         "  - {op: embedding, in: [tokens, embed], out: x}\n"           \
         "  - {op: append, in: [kc, x, positions], out: k}\n"           \
         "  - {op: attention, in: [x, k, k, positions, s], scale: 1, out: y}\noutputs: [y]\n"
    round_trip(*state, load_graph_text(*state, SINKS("2")));
    check_bad_graph(*state, SINKS("3"), "attention \"y\" has 3 sinks and 2 heads");
}

static void check_refused(qgc_arena *a, const fact *facts, const char *message) {
    qgc_diag d = qgc_diag_new(a);
    qgc_graph *g;
    assert_int_equal(load_stated(a, HEAD STATED WEIGHTS GRAPH PARTS, facts, &g, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&d), message);
}

static void what_weights_state_wrongly_is_refused(void **state) {
    check_refused(*state, (const fact[]){{0}}, "parameter \"layers\" has no value");
    check_refused(
        *state, (const fact[]){{"n", -1, 1}, {"biases", 0, NAN}, {0}},
        "\"weights\" states \"biases\" as \"what biases says\", which is no value of parameter \"bias\"");
    check_refused(*state, (const fact[]){{"n", -1, 1}, {"biases", 0, 1}, {"other", 0, 0}, {0}},
                  "\"weights\" states \"biases\" as 1 and \"other\" as 0, which are both \"bias\"");
    check_refused(*state, (const fact[]){{"n", -1, 0.5}, {0}},
                  "count \"layers\" is 0.5, expected a whole number");
}

int main(void) {
    if (chdir(QGC_SOURCE_DIR) != 0)
        return 1;
    const struct CMUnitTest tests[] = {
        ARENA_TEST(a_condition_is_decided_in_each_turn),
        ARENA_TEST(a_weight_that_no_turn_has_is_not_there),
        ARENA_TEST(a_choice_has_two_sides),
        ARENA_TEST(a_name_may_be_made_again),
        ARENA_TEST(long_names_that_are_made_again_stay_apart),
        ARENA_TEST(an_output_that_is_made_again_keeps_its_name),
        ARENA_TEST(a_part_takes_other_names),
        ARENA_TEST(parameters_are_computed_from_others),
        ARENA_TEST(a_part_is_replaced_by_itself),
        ARENA_TEST(a_file_of_format_1_gives_sizes_to_a_family),
        ARENA_TEST(a_value_takes_back_what_was_fixed),
        ARENA_TEST(what_was_loaded_is_printed_and_loads_again),
        ARENA_TEST(how_weights_lie_in_files_is_printed),
        ARENA_TEST(parameters_are_read_from_weights),
        ARENA_TEST(caches_may_be_rings),
        ARENA_TEST(rings_that_are_too_small_are_refused),
        ARENA_TEST(sinks_of_other_heads_are_refused),
        ARENA_TEST(what_weights_state_wrongly_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
