#include <string.h>

#include "tests/support/arena.h"
#include "tests/support/random.h"
#include "tests/support/same_graph.h"

static qgc_graph *load_file(qgc_arena *a, const char *path) {
    qgc_diag d = qgc_diag_new(a);
    qgc_graph *g;
    if (qgc_graph_load(&g, path, a, &d) != QGC_OK)
        fail_msg("%s", qgc_test_printed(a, &d));
    return g;
}

/* The part of a printed graph between `graph:` and `outputs:`. */
static const char *nodes_of(qgc_arena *a, const char *text) {
    const char *from = strstr(text, "graph:\n") + 7;
    return qgc_arena_strndup(a, from, (size_t)(strstr(from, "outputs:") - from));
}

static void round_trips_every_model(void **state) {
    static const char *const paths[] = {"models/qwen2.5-0.5b.yaml", "models/qwen2.5-1.5b.yaml",
                                        "models/qwen2.5-3b.yaml", "models/qwen2.5-7b.yaml",
                                        "models/tiny/tiny.yaml"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        round_trip(*state, load_file(*state, paths[i]));
}

static void writes_numbers_in_full(void **state) {
    const char *text = round_trip(*state, load_file(*state, "models/qwen2.5-0.5b.yaml"));
    assert_non_null(
        strstr(text, "wk: {per: l, shape: [128, 896], dtype: bf16, gguf: \"blk.{l}.attn_k.weight\""));
    assert_non_null(strstr(
        text, "rope_base: {gguf: \"{arch}.rope.freq_base\", hf: [rope_theta, rope_parameters.rope_theta, "
              "rope_scaling.rope_theta], fixed: 1000000, value: 10000}"));
    assert_non_null(strstr(text, "  - repeat: {index: l, count: 24, carry: x}\n"));
    assert_non_null(strstr(text, "scale: 0.125, out: a}"));
    assert_non_null(strstr(text, "tied: embed}"));
}

/* Six layers of x + silu(norm(x)), small enough to read. */
#define SMALL                                                             \
    "qgc: 1\nname: small\narch: none\nparams: {layers: 6}\n"              \
    "weights:\n  embed: {shape: [16, 8]}\n  norm: {per: l, shape: [8]}\n" \
    "inputs: {tokens: [T]}\ngraph:\n"                                     \
    "  - {op: embedding, in: [tokens, embed], out: x}\n"
#define BODY                                                       \
    "  - repeat: {index: l, count: layers, carry: x}\n    body:\n" \
    "      - {op: rms_norm, in: [x, norm], eps: 1e-5, out: h}\n"   \
    "      - {op: silu, in: [h], out: s}\n"                        \
    "      - {op: add, in: [x, s], out: x}\n"

static qgc_node *node_of(qgc_graph *g, qgc_op op, int layer) {
    for (qgc_node *n = g->first; n; n = n->next)
        if (n->op == op && n->layer == layer)
            return n;
    fail_msg("no such node");
    return NULL;
}

static void splits_a_repeat_where_a_layer_differs(void **state) {
    qgc_graph *g = load_graph_text(*state, SMALL BODY "outputs: [x]\n");
    node_of(g, QGC_OP_RMS_NORM, 2)->attr[0].number = 1e-6;
    assert_string_equal(nodes_of(*state, round_trip(*state, g)),
                        "  - {op: embedding, in: [tokens, embed], out: x}\n"
                        "  - repeat: {index: l, count: 2, carry: x}\n    body:\n"
                        "      - {op: rms_norm, in: [x, norm], eps: 1e-05, out: h}\n"
                        "      - {op: silu, in: [h], out: s}\n"
                        "      - {op: add, in: [x, s], out: x}\n"
                        "  - repeat: {index: l, from: 2, count: 1, carry: x}\n    body:\n"
                        "      - {op: rms_norm, in: [x, norm], eps: 1e-06, out: h}\n"
                        "      - {op: silu, in: [h], out: s}\n"
                        "      - {op: add, in: [x, s], out: x}\n"
                        "  - repeat: {index: l, from: 3, count: 3, carry: x}\n    body:\n"
                        "      - {op: rms_norm, in: [x, norm], eps: 1e-05, out: h}\n"
                        "      - {op: silu, in: [h], out: s}\n"
                        "      - {op: add, in: [x, s], out: x}\n");
}

/* An optional attribute that is as usual is not printed, and what is not written is as usual. */
static void leaves_out_what_is_usual(void **state) {
    qgc_graph *g = load_graph_text(
        *state,
        "qgc: 1\nname: small\narch: none\nweights:\n  embed: {shape: [16, 8]}\n"
        "inputs: {tokens: [T], positions: [T]}\ngraph:\n"
        "  - {op: embedding, in: [tokens, embed], out: x}\n"
        "  - {op: rope, in: [x, positions], style: neox, base: 10, head_dim: 8, first: 0, rotary_dim: 0, out: y}\n"
        "  - {op: rope, in: [y, positions], style: interleaved, base: 10, head_dim: 8, rotary_dim: 6, out: z}\n"
        "outputs: [z]\n");
    assert_string_equal(nodes_of(*state, round_trip(*state, g)),
                        "  - {op: embedding, in: [tokens, embed], out: x}\n"
                        "  - {op: rope, in: [x, positions], style: neox, base: 10, head_dim: 8, out: y}\n"
                        "  - {op: rope, in: [y, positions], style: interleaved, base: 10, head_dim: 8, "
                        "rotary_dim: 6, out: z}\n");
}

/* Op rope_freqs has no inputs, which need not be written. */
static void reads_an_op_without_inputs(void **state) {
    qgc_graph *g = load_graph_text(
        *state, "qgc: 1\nname: small\narch: none\nweights:\n  embed: {shape: [16, 8]}\n"
                "inputs: {tokens: [T], positions: [T]}\ngraph:\n"
                "  - {op: embedding, in: [tokens, embed], out: x}\n"
                "  - {op: rope_freqs, base: 1e4, rotary_dim: 4, out: f}\n"
                "  - {op: rope, in: [x, positions, f], style: neox, head_dim: 8, scale: 2, out: y}\n"
                "outputs: [y]\n");
    assert_string_equal(
        nodes_of(*state, round_trip(*state, g)),
        "  - {op: embedding, in: [tokens, embed], out: x}\n"
        "  - {op: rope_freqs, in: [], base: 10000, rotary_dim: 4, out: f}\n"
        "  - {op: rope, in: [x, positions, f], style: neox, head_dim: 8, scale: 2, out: y}\n");
}

static void names_turns_of_other_layers(void **state) {
    qgc_graph *g = load_graph_text(*state, SMALL BODY "outputs: [x]\n");
    qgc_node *norm = node_of(g, QGC_OP_RMS_NORM, 4), *add = node_of(g, QGC_OP_ADD, 5);
    norm->in[1] = node_of(g, QGC_OP_RMS_NORM, 1)->in[1];
    add->in[1] = node_of(g, QGC_OP_SILU, 3)->out[0];
    const char *text = round_trip(*state, g);
    assert_non_null(strstr(text, "{op: rms_norm, in: [x, \"norm[1]\"], eps: 1e-05, out: h}"));
    assert_non_null(strstr(text, "{op: add, in: [x, \"s[3]\"], out: x}"));
}

static void reads_turns_by_name_outside_of_repeats(void **state) {
    qgc_graph *g =
        load_graph_text(*state, SMALL BODY "  - {op: add, in: [x, \"s[2]\"], out: y}\n"
                                           "  - {op: rms_norm, in: [y, \"norm[5]\"], eps: 1e-6, out: z}\n"
                                           "outputs: [z]\n");
    const char *text = round_trip(*state, g);
    assert_non_null(strstr(text, "{op: add, in: [x, \"s[2]\"], out: y}"));
    assert_non_null(strstr(text, "{op: rms_norm, in: [y, \"norm[5]\"], eps: 1e-06, out: z}"));
}

static void renames_what_the_carried_name_would_hide(void **state) {
    qgc_graph *g = load_graph_text(*state, SMALL BODY "  - {op: silu, in: [x], out: y}\noutputs: [y]\n");
    g->last->in[0] = g->first->out[0]; /* the embedding, whose name the repeat took over */
    assert_string_equal(nodes_of(*state, round_trip(*state, g)),
                        "  - {op: embedding, in: [tokens, embed], out: x}\n"
                        "  - repeat: {index: l, count: 6, carry: {x_2: x}}\n    body:\n"
                        "      - {op: rms_norm, in: [x_2, norm], eps: 1e-05, out: h}\n"
                        "      - {op: silu, in: [h], out: s}\n"
                        "      - {op: add, in: [x_2, s], out: x_2}\n"
                        "  - {op: silu, in: [x], out: y}\n");
}

static void keeps_a_carried_value_that_starts_under_another_name(void **state) {
    qgc_graph *g =
        load_graph_text(*state, SMALL "  - {op: silu, in: [x], out: start}\n"
                                      "  - repeat: {index: l, count: layers, carry: {y: start}}\n    body:\n"
                                      "      - {op: rms_norm, in: [y, norm], eps: 1, out: h}\n"
                                      "      - {op: add, in: [h, x], out: y}\n"
                                      "outputs: [y]\n");
    assert_int_equal(g->n_nodes, 2 + 12);
    const char *text = round_trip(*state, g);
    assert_non_null(strstr(text, "  - repeat: {index: l, count: 6, carry: {y: start}}\n"));
}

#define TWO_REPEATS                                                                               \
    "qgc: 1\nname: two\narch: none\n"                                                             \
    "weights:\n  embed: {shape: [16, 8]}\n  a: {per: l, shape: [8]}\n  b: {per: m, shape: [8]}\n" \
    "inputs: {tokens: [T]}\ngraph:\n"                                                             \
    "  - {op: embedding, in: [tokens, embed], out: x}\n"                                          \
    "  - repeat: {index: l, count: 3, carry: x}\n    body:\n"                                     \
    "      - {op: rms_norm, in: [x, a], eps: 1, out: h}\n"                                        \
    "      - {op: add, in: [x, h], out: x}\n"                                                     \
    "  - repeat: {index: m, count: 2, carry: x}\n    body:\n"                                     \
    "      - {op: rms_norm, in: [x, b], eps: 1, out: h}\n"                                        \
    "      - {op: mul, in: [x, h], out: x}\n"                                                     \
    "  - {op: add, in: [x, \"h[l=1]\"], out: y}\n"                                                \
    "  - {op: add, in: [y, \"h[m=1]\"], out: z}\n"                                                \
    "  - {op: add, in: [z, \"x[l=2]\"], out: end}\n"                                              \
    "outputs: [end]\n"

static void keeps_two_repeats_apart(void **state) {
    qgc_graph *g = load_graph_text(*state, TWO_REPEATS);
    const char *text = round_trip(*state, g);
    assert_non_null(strstr(text, "{op: add, in: [x, \"h[l=1]\"], out: y}"));
    assert_non_null(strstr(text, "{op: add, in: [z, \"x[2]\"], out: end}")); /* m has no turn 2 */
}

static void numbers_names_that_a_pass_made_twice(void **state) {
    qgc_graph *g = load_graph_text(*state, SMALL BODY "outputs: [x]\n");
    for (int layer = 0; layer < 6; layer++) {
        qgc_node *silu = node_of(g, QGC_OP_SILU, layer);
        silu->out[0]->name = "h"; /* as the norm before it */
    }
    g->first->out[0]->name = "embed"; /* as the weight */
    const char *text = round_trip(*state, g);
    assert_string_equal(nodes_of(*state, text),
                        "  - {op: embedding, in: [tokens, embed], out: embed_2}\n"
                        "  - repeat: {index: l, count: 6, carry: {x: embed_2}}\n    body:\n"
                        "      - {op: rms_norm, in: [x, norm], eps: 1e-05, out: h}\n"
                        "      - {op: silu, in: [h], out: h_2}\n"
                        "      - {op: add, in: [x, h_2], out: x}\n");
}

static void makes_names_legal(void **state) {
    qgc_graph *g = load_graph_text(*state, SMALL BODY "  - {op: silu, in: [x], out: y}\noutputs: [x]\n");
    g->last->out[0]->name = "3 x.y";
    assert_non_null(strstr(round_trip(*state, g), "out: _3_x_y}"));
    g->last->out[0]->name = "ctx";
    assert_non_null(strstr(round_trip(*state, g), "out: _ctx}"));
}

static void leaves_out_what_nothing_reads(void **state) {
    qgc_graph *g = load_graph_text(*state, SMALL BODY "outputs: [x]\n");
    for (int layer = 0; layer < 6; layer++) {
        qgc_node *norm = node_of(g, QGC_OP_RMS_NORM, layer);
        node_of(g, QGC_OP_SILU, layer)->in[0] = norm->in[0];
        qgc_graph_remove(g, norm);
    }
    const char *text = round_trip(*state, g);
    assert_null(strstr(text, "norm"));
}

static void keeps_a_count_that_the_repeats_do_not_tell(void **state) {
    qgc_graph *g = load_graph_text(*state, SMALL BODY "outputs: [x]\n");
    g->outputs[0] = node_of(g, QGC_OP_ADD, 3)->out[0]; /* so that the last two turns can go */
    for (int layer = 4; layer < 6; layer++) {
        qgc_graph_remove(g, node_of(g, QGC_OP_RMS_NORM, layer));
        qgc_graph_remove(g, node_of(g, QGC_OP_SILU, layer));
        qgc_graph_remove(g, node_of(g, QGC_OP_ADD, layer));
    }
    const char *text = round_trip(*state, g);
    assert_non_null(strstr(text, "norm: {per: l, count: 6, shape: [8], dtype: f32}"));
    assert_non_null(strstr(text, "count: 4, carry: x}"));
}

static void writes_a_dtype_for_each_layer_where_they_differ(void **state) {
    qgc_graph *g = load_graph_text(*state, SMALL BODY "outputs: [x]\n");
    g->weights[1].values[2]->dtype = QGC_F16;
    assert_non_null(strstr(round_trip(*state, g), "dtype: [f32, f32, f16, f32, f32, f32]}"));
}

static void carries_several_values(void **state) {
    qgc_graph *g = load_graph_text(*state, SMALL
                                   "  - repeat: {index: l, count: layers, carry: {x: x, y: x}}\n    body:\n"
                                   "      - {op: rms_norm, in: [x, norm], eps: 1, out: n}\n"
                                   "      - {op: add, in: [n, y], out: x}\n"
                                   "      - {op: silu, in: [n], out: y}\n"
                                   "  - {op: mul, in: [x, y], out: z}\n"
                                   "outputs: [z]\n");
    assert_non_null(strstr(round_trip(*state, g), "count: 6, carry: {x: x, y: x}}\n"));
}

/* A turn that reads the old x after its own x can't be said in a repeat: the turns are named. */
static void unrolls_what_a_repeat_cannot_say(void **state) {
    qgc_graph *g = load_graph_text(*state, SMALL BODY "outputs: [x]\n");
    for (int layer = 1; layer < 6; layer++) {
        qgc_node *add = node_of(g, QGC_OP_ADD, layer),
                 *late = qgc_graph_node(g, QGC_OP_ADD, add->next, add->at);
        late->repeat = add->repeat;
        late->layer = layer;
        late->n_in = 2;
        late->in[0] = add->out[0];
        late->in[1] = node_of(g, QGC_OP_ADD, layer - 1)->out[0];
        qgc_node_output(g, late, "late")->shape = add->out[0]->shape;
    }
    const char *text = round_trip(*state, g);
    assert_non_null(strstr(text, "  - repeat: {index: l, from: 3, count: 1, carry: x}\n"));
    assert_non_null(strstr(text, "      - {op: add, in: [x, \"x[2]\"], out: late}\n"));
}

/* Puts the nodes of a layer (-1: outside) that make these names into a group of the name given. */
static void fuse(qgc_graph *g, const char *group, int layer, const char *const *names, int n) {
    int index = qgc_graph_group(g, group, layer < 0 ? -1 : 0, layer, QGC_NO_LOC);
    for (qgc_node *node = g->first; node; node = node->next)
        for (int i = 0; i < n; i++)
            if (node->layer == layer && strcmp(node->out[0]->name, names[i]) == 0)
                node->group = index;
}

#define FUSE(g, group, layer, ...)                            \
    fuse(g, group, layer, (const char *const[]){__VA_ARGS__}, \
         sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *))

static void rolls_up_groups_of_one_name(void **state) {
    qgc_graph *g = load_graph_text(*state, SMALL BODY "outputs: [x]\n");
    for (int layer = 0; layer < 6; layer++)
        FUSE(g, layer == 4 ? "other" : "tail", layer, "s", "x");
    assert_string_equal(nodes_of(*state, round_trip(*state, g)),
                        "  - {op: embedding, in: [tokens, embed], out: x}\n"
                        "  - repeat: {index: l, count: 4, carry: x}\n    body:\n"
                        "      - {op: rms_norm, in: [x, norm], eps: 1e-05, out: h}\n"
                        "      - {op: silu, in: [h], out: s, fuse: tail}\n"
                        "      - {op: add, in: [x, s], out: x, fuse: tail}\n"
                        "  - repeat: {index: l, from: 4, count: 1, carry: x}\n    body:\n"
                        "      - {op: rms_norm, in: [x, norm], eps: 1e-05, out: h}\n"
                        "      - {op: silu, in: [h], out: s, fuse: other}\n"
                        "      - {op: add, in: [x, s], out: x, fuse: other}\n"
                        "  - repeat: {index: l, from: 5, count: 1, carry: x}\n    body:\n"
                        "      - {op: rms_norm, in: [x, norm], eps: 1e-05, out: h}\n"
                        "      - {op: silu, in: [h], out: s, fuse: tail}\n"
                        "      - {op: add, in: [x, s], out: x, fuse: tail}\n");
}

static void names_the_turn_of_a_group_in_several(void **state) {
    qgc_graph *g = load_graph_text(*state, SMALL BODY "  - {op: silu, in: [x], out: y}\noutputs: [y]\n");
    FUSE(g, "end", 5, "s", "x");
    g->last->group = node_of(g, QGC_OP_ADD, 5)->group;
    FUSE(g, "end", 4, "x");
    const char *text = round_trip(*state, g);
    assert_non_null(strstr(text, "      - {op: add, in: [x, s], out: x, fuse: end}\n"
                                 "  - {op: silu, in: [x], out: y, fuse: \"end[l=5]\"}\n"));
    qgc_graph *at_the_end =
        load_graph_text(*state, SMALL BODY "  - {op: silu, in: [x], out: y}\noutputs: [y]\n");
    at_the_end->last->group = qgc_graph_group(at_the_end, "end", -1, -1, QGC_NO_LOC);
    node_of(at_the_end, QGC_OP_ADD, 5)->group = at_the_end->last->group;
    assert_non_null(strstr(round_trip(*state, at_the_end), "fuse: \"end[l=5]\"}\n"));
}

static void numbers_and_mends_names_of_groups(void **state) {
    qgc_graph *g = load_graph_text(*state, SMALL BODY "  - {op: silu, in: [x], out: y}\noutputs: [y]\n");
    g->last->group = qgc_graph_group(g, "my group", -1, -1, QGC_NO_LOC);
    g->first->next->group = -1;
    FUSE(g, "a-b", 0, "s");
    FUSE(g, "a b", 0, "x");
    const char *text = round_trip(*state, g);
    assert_non_null(strstr(text, "out: s, fuse: a_b}\n"));
    assert_non_null(strstr(text, "out: x, fuse: a_b_2}\n"));
    assert_non_null(strstr(text, "out: y, fuse: my_group}\n"));
}

static int64_t random_below(uint64_t *r, int64_t n) {
    return (int64_t)(test_random(r) % (uint64_t)n);
}

/* A result made before node n. In this model all have the same shape. */
static qgc_value *any_before(uint64_t *r, const qgc_graph *g, const qgc_node *n) {
    int64_t n_before = 0;
    for (const qgc_node *m = g->first; m != n; m = m->next)
        n_before++;
    if (n_before == 0)
        fail_msg("nothing is made before the first node");
    const qgc_node *m = g->first;
    for (int64_t k = random_below(r, n_before); k > 0; k--)
        m = m->next;
    return m->out[0];
}

static void change_something(uint64_t *r, qgc_graph *g) {
    static const char *const names[] = {"x", "h", "s", "y", "x_2", "embed", "norm", "T"};
    qgc_node *n = g->first;
    for (int64_t k = random_below(r, (int64_t)g->n_nodes); k > 0; k--)
        n = n->next;
    switch (random_below(r, 7)) {
    case 0:
        n->out[0]->name = names[random_below(r, 8)];
        break;
    case 1: /* in every layer, as a pass would */
        for (qgc_node *m = g->first; m; m = m->next)
            if (m->op == n->op && m->repeat == n->repeat)
                m->out[0]->name = "fused";
        break;
    case 2:
        if (n->prev)
            n->in[0] = any_before(r, g, n);
        break;
    case 3:
        if (n->op == QGC_OP_RMS_NORM)
            n->in[1] = g->weights[1 + n->repeat].values[random_below(r, g->weights[1 + n->repeat].count)];
        break;
    case 4:
        if (n->op == QGC_OP_RMS_NORM)
            n->attr[0].number = (double)random_below(r, 3);
        break;
    case 5: /* a group of one, which any pointwise op can be */
        if (qgc_ops[n->op].traits & QGC_POINTWISE) {
            const char *name = names[random_below(r, 8)];
            if (qgc_graph_find_group(g, name, n->repeat, n->layer) < 0)
                n->group = qgc_graph_group(g, name, n->repeat, n->layer, n->at);
        }
        break;
    default:
        if (n->prev) {
            qgc_node *silu = qgc_graph_node(g, QGC_OP_SILU, n, n->at);
            silu->repeat = n->repeat;
            silu->layer = n->layer;
            silu->n_in = 1;
            silu->in[0] = any_before(r, g, silu);
            qgc_node_output(g, silu, names[random_below(r, 8)])->shape = n->out[0]->shape;
        }
    }
}

static void round_trips_what_passes_may_leave(void **state) {
    (void)state;
    uint64_t r = 1;
    for (int i = 0; i < 2000; i++) {
        qgc_arena *a = qgc_arena_new();
        qgc_graph *g = load_graph_text(a, TWO_REPEATS);
        for (int64_t k = random_below(&r, 12); k >= 0; k--)
            change_something(&r, g);
        round_trip(a, g);
        qgc_arena_drop(a);
    }
}

static void draws_clusters_for_layers(void **state) {
    const qgc_graph *g = load_graph_text(*state, SMALL BODY "outputs: [x]\n");
    qgc_str text = qgc_str_new(*state);
    qgc_graph_print_dot(g, &text);
    assert_memory_equal(text.text, "digraph \"small\" {\n", 18);
    assert_non_null(strstr(text.text, "  n0 [label=\"embedding\\nembed [16, 8] bf16\"];\n"));
    assert_non_null(strstr(text.text, "  subgraph cluster_0_3 { label=\"l = 3\";\n"));
    assert_non_null(strstr(text.text, "  n1 -> n2 [label=\"h[0] [T, 8]\"];\n"));
    assert_non_null(strstr(text.text, "  v0 [shape=ellipse, label=\"tokens [T]\"];\n"));
    assert_non_null(strstr(text.text, "-> out0 [label=\"x[5] [T, 8]\"];\n"));
}

static void draws_groups_in_the_cluster_of_their_layer(void **state) {
    qgc_graph *g = load_graph_text(*state, SMALL BODY "outputs: [x]\n");
    g->first->group =
        qgc_graph_group(g, "start", 0, 0, QGC_NO_LOC); /* the embedding, which is in no layer itself */
    qgc_str text = qgc_str_new(*state);
    qgc_graph_print_dot(g, &text);
    assert_non_null(strstr(text.text,
                           "  subgraph cluster_0_0 { label=\"l = 0\";\n"
                           "    subgraph cluster_g0 { style=filled; color=lightblue; label=\"start\";\n"
                           "    n0 [label=\"embedding"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(round_trips_every_model),
        ARENA_TEST(writes_numbers_in_full),
        ARENA_TEST(splits_a_repeat_where_a_layer_differs),
        ARENA_TEST(leaves_out_what_is_usual),
        ARENA_TEST(reads_an_op_without_inputs),
        ARENA_TEST(names_turns_of_other_layers),
        ARENA_TEST(reads_turns_by_name_outside_of_repeats),
        ARENA_TEST(renames_what_the_carried_name_would_hide),
        ARENA_TEST(keeps_a_carried_value_that_starts_under_another_name),
        ARENA_TEST(keeps_two_repeats_apart),
        ARENA_TEST(numbers_names_that_a_pass_made_twice),
        ARENA_TEST(makes_names_legal),
        ARENA_TEST(leaves_out_what_nothing_reads),
        ARENA_TEST(keeps_a_count_that_the_repeats_do_not_tell),
        ARENA_TEST(writes_a_dtype_for_each_layer_where_they_differ),
        ARENA_TEST(carries_several_values),
        ARENA_TEST(unrolls_what_a_repeat_cannot_say),
        ARENA_TEST(rolls_up_groups_of_one_name),
        ARENA_TEST(names_the_turn_of_a_group_in_several),
        ARENA_TEST(numbers_and_mends_names_of_groups),
        ARENA_TEST(round_trips_what_passes_may_leave),
        ARENA_TEST(draws_clusters_for_layers),
        ARENA_TEST(draws_groups_in_the_cluster_of_their_layer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
