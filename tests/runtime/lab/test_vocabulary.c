/* docs/passes.md, "The vocabulary of rules, by example": the blocks of C are a plug-in; each of its passes does
 * what the page says, and the judge finds nothing wrong. */

#include <string.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "graph/eval.h"
#include "graph/load.h"
#include "graph/print.h"
#include "passes/bind_weights.h"
#include "passes/load.h"
#include "passes/rewrite.h"
#include "runtime/lab/bisect.h"
#include "runtime/lab/random_weights.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"
#include "tests/support/plugin.h"

/* Three layers with an MLP, things that a rule can clean up, and a capped head. */
static const char model[] = "qgc: 1\nname: words\narch: words\nparams:\n"
                            "  layers: {gguf: words.block_count, value: 3}\n"
                            "weights:\n"
                            "  embed: {shape: [40, 16], gguf: embed}\n"
                            "  norm:  {per: l, shape: [16], gguf: 'norm.{l}'}\n"
                            "  wq:    {per: l, shape: [16, 16], gguf: 'q.{l}'}\n"
                            "  wk:    {per: l, shape: [8, 16], gguf: 'k.{l}'}\n"
                            "  wv:    {per: l, shape: [8, 16], gguf: 'v.{l}'}\n"
                            "  bv:    {per: l, shape: [8], gguf: 'v_bias.{l}'}\n"
                            "  wo:    {per: l, shape: [16, 16], gguf: 'o.{l}'}\n"
                            "  w_gate: {per: l, shape: [24, 16], gguf: 'gate.{l}'}\n"
                            "  w_up:  {per: l, shape: [24, 16], gguf: 'up.{l}'}\n"
                            "  w_down: {per: l, shape: [16, 24], gguf: 'down.{l}'}\n"
                            "  head:  {shape: [40, 16], gguf: head}\n"
                            "state:\n"
                            "  k_cache: {per: l, shape: [2, ctx, 4], dtype: f16}\n"
                            "  v_cache: {per: l, shape: [2, ctx, 4], dtype: f16}\n"
                            "  seen:    {shape: [40], dtype: i32}\n"
                            "inputs: {tokens: [T], positions: [T], rows: [R]}\n"
                            "graph:\n"
                            "  - {op: embedding, in: [tokens, embed], out: x}\n"
                            "  - repeat: {index: l, count: layers, carry: x}\n"
                            "    body:\n"
                            "      - {op: rms_norm, in: [x, norm], eps: 1e-6, out: h}\n"
                            "      - {op: linear, in: [h, wq], out: q}\n"
                            "      - {op: linear, in: [h, wk], out: k}\n"
                            "      - {op: linear, in: [h, wv, bv], out: v}\n"
                            "      - {op: append, in: [k_cache, k, positions], out: k_all}\n"
                            "      - {op: append, in: [v_cache, v, positions], out: v_all}\n"
                            "      - {op: attention, in: [q, k_all, v_all, positions], scale: 0.5, out: a}\n"
                            "      - {op: linear, in: [a, wo], out: o}\n"
                            "      - {op: scale, in: [o], factor: 0.5, out: half}\n"
                            "      - {op: add, in: [x, half], out: x_mid}\n"
                            "      - {op: rms_norm, in: [x_mid, norm], eps: 1e-6, out: m}\n"
                            "      - {op: rms_norm, in: [x_mid, norm], eps: 1e-6, out: m_again}\n"
                            "      - {op: linear, in: [m, w_gate], out: gate}\n"
                            "      - {op: linear, in: [m_again, w_up], out: up}\n"
                            "      - {op: silu, in: [gate], out: act}\n"
                            "      - {op: mul, in: [act, up], out: ff}\n"
                            "      - {op: mul, in: [act, ff], out: ff_2}\n"
                            "      - {op: scale, in: [ff_2], factor: 1, out: ff_1}\n"
                            "      - {op: linear, in: [ff_1, w_down], out: down}\n"
                            "      - {op: add, in: [x_mid, down], out: x}\n"
                            "  - {op: select_rows, in: [x, rows], out: x_rows}\n"
                            "  - {op: linear, in: [x_rows, head], out: raw}\n"
                            "  - {op: softcap, in: [raw], cap: 2, out: logits}\n"
                            "  - {op: mark, in: [seen, tokens], out: seen_now}\n"
                            "  - {op: sample, in: [logits, rows, positions, seen_now], out: next}\n"
                            "outputs: [logits, next]\n";

static const char *blocks_of_c(fixture *f, const char *path, const char *from) {
    qgc_file file;
    ok(f, qgc_file_open(&file, path, &f->diag));
    const char *text = qgc_arena_strndup(f->arena, (const char *)file.data, file.bytes);
    qgc_file_close(&file);
    qgc_str out = qgc_str_new(f->arena);
    text = strstr(text, from);
    assert_non_null(text);
    while ((text = strstr(text, "```c\n"))) {
        const char *start = text + strlen("```c\n"), *end = strstr(start, "```\n");
        assert_non_null(end);
        qgc_str_add_bytes(&out, start, (size_t)(end - start));
        text = end + strlen("```\n");
    }
    return out.text;
}

/* Loads the plug-in once for the process. */
static void load_page(fixture *f) {
    static bool is_loaded;
    if (!is_loaded)
        ok(f, qgc_passes_load(plugin_compile(f, "vocabulary",
                                             blocks_of_c(f, "docs/passes.md", "## The vocabulary of rules")),
                              &f->diag));
    is_loaded = true;
}

static qgc_graph *load_model(fixture *f) {
    qgc_graph *g;
    ok(f, qgc_graph_load(&g, fixture_write(f, "model.yaml", model), f->arena, &f->diag));
    return g;
}

/* The values of one layer, or with -1 of what is in none; groups in brackets. */
static const char *layer_of(fixture *f, const qgc_graph *g, int layer) {
    qgc_str text = qgc_str_new(f->arena);
    for (const qgc_node *n = g->first; n; n = n->next) {
        if (n->layer != layer)
            continue;
        const bool opens = n->group >= 0 && (!n->prev || n->prev->group != n->group);
        const bool closes = n->group >= 0 && (!n->next || n->next->group != n->group);
        qgc_str_printf(&text, "%s%s%s%s", text.bytes ? " " : "", opens ? "(" : "", n->out[0]->name,
                       closes ? ")" : "");
    }
    return text.text;
}

static qgc_graph *run(fixture *f, const char *passes) {
    load_page(f);
    qgc_graph *g = load_model(f);
    qgc_pass_report r;
    ok(f, qgc_passes_run(g, &(qgc_pass_options){.passes = passes, .want_matches = true}, &r, &f->diag));
    return g;
}

static qgc_bisection judged_on(fixture *f, const char *graph, const qgc_weights *w, const char *passes) {
    static const int32_t tokens[] = {5, 30, 12, 7, 39, 2, 0, 8, 5, 5, 21, 9};
    load_page(f);
    qgc_pool *pool = qgc_pool_new(1);
    const qgc_bisect_options o = {.run.graph = graph,
                                  .run.weights = w,
                                  .run.passes = passes,
                                  .run.pool = pool,
                                  .run.tokens = tokens,
                                  .run.n_tokens = 12,
                                  .run.positions = 12};
    qgc_bisection b;
    ok(f, qgc_bisect(&o, &b, &f->diag));
    qgc_pool_drop(pool);
    return b;
}

static void expect_right(fixture *f, const qgc_bisection *b, const char *passes) {
    if (b->verdict == QGC_BISECT_WRONG)
        fail_msg("%s: wrong at %s: %g, %s", passes, b->value, b->apart, b->why ? b->why : "");
    (void)f;
}

static void is_right(fixture *f, const char *passes) {
    qgc_weights *w;
    ok(f, qgc_random_weights_open(&w, load_model(f), NULL, 3, &f->diag));
    const qgc_bisection b = judged_on(f, fixture_path(f, "model.yaml"), w, passes);
    expect_right(f, &b, passes);
    qgc_weights_close(w);
}

static qgc_bisection judged_on_tiny(fixture *f, const char *passes) {
    qgc_weights *w;
    ok(f, qgc_weights_open(&w, "models/tiny/tiny.gguf", &f->diag));
    const qgc_bisection b = judged_on(f, "models/tiny/tiny.yaml", w, passes);
    qgc_weights_close(w);
    return b;
}

static void is_right_on_tiny(fixture *f, const char *passes) {
    const qgc_bisection b = judged_on_tiny(f, passes);
    expect_right(f, &b, passes);
}

#define BEFORE "h q k v k_all v_all a o half x_mid m m_again gate up act ff ff_2 ff_1 down x"

static void two_nodes_that_compute_the_same_become_one(void **state) {
    fixture *f = *state;
    assert_string_equal(layer_of(f, load_model(f), 1), BEFORE);
    assert_string_equal(layer_of(f, run(f, "merge-same"), 1),
                        "h q k v k_all v_all a o half x_mid m gate up act ff ff_2 ff_1 down x");
    is_right(f, "merge-same");
}

static void conditions_choose_layers_and_attributes(void **state) {
    fixture *f = *state;
    const qgc_graph *g = run(f, "copy-silu");
    assert_string_equal(layer_of(f, g, 1),
                        "h q k v k_all v_all a o half x_mid m m_again gate up act ff act_too ff_2 down x");
    assert_string_equal(layer_of(f, g, 2),
                        "h q k v k_all v_all a o half x_mid m m_again gate up act ff ff_2 down x");
    is_right(f, "copy-silu");
}

static void a_group_keeps_what_a_kernel_computes(void **state) {
    fixture *f = *state;
    assert_string_equal(
        layer_of(f, run(f, "copy-silu,fuse-pointwise,unfold-silu"), 1),
        "h q k v k_all v_all a o (half x_mid) m m_again gate up (sig act ff sig act_too ff_2) down x");
    is_right(f, "copy-silu,fuse-pointwise,unfold-silu");
}

static void a_cap_is_in_the_kernel_of_the_head(void **state) {
    fixture *f = *state;
    assert_string_equal(layer_of(f, run(f, "fuse-capped"), -1), "x x_rows (raw logits) seen_now next");
    is_right(f, "fuse-capped,merge-same,copy-silu,unfold-silu");
}

/* --- derived weights ------------------------------------------------------------------------------------- */

static qgc_graph *run_on_tiny(fixture *f, const char *passes, const qgc_weights *w,
                              const qgc_tensor ***tensors) {
    load_page(f);
    qgc_graph *g;
    qgc_pass_report r;
    ok(f, qgc_graph_load_for(&g, "models/tiny/tiny.yaml", w, f->arena, &f->diag));
    ok(f, qgc_graph_bind(g, w, false, tensors, &f->diag));
    ok(f, qgc_passes_run(g, &(qgc_pass_options){.passes = passes, .want_matches = true}, &r, &f->diag));
    return g;
}

static void a_factor_goes_into_a_matrix(void **state) {
    fixture *f = *state;
    const qgc_graph *g = run(f, "scale-weights");
    assert_string_equal(layer_of(f, g, 1),
                        "h q k v k_all v_all a o x_mid m m_again gate up act ff ff_2 ff_1 down x");
    const qgc_weight_decl *w = &g->weights[g->n_weights - 1];
    assert_string_equal(w->name, "wo_scaled");
    assert_int_equal(w->count, 3);
    is_right(f, "scale-weights");
}

static void norms_and_biases_are_folded(void **state) {
    fixture *f = *state;
    qgc_weights *w;
    const qgc_tensor **tensors;
    ok(f, qgc_weights_open(&w, "models/tiny/tiny.gguf", &f->diag));
    const qgc_graph *g = run_on_tiny(f, "fold-weights", w, &tensors);
    int norms = 0, biased = 0;
    for (const qgc_node *n = g->first; n; n = n->next) {
        if (n->op == QGC_OP_RMS_NORM)
            norms += strcmp(qgc_derive_name(g->weights[n->in[1]->decl].derived.kind), "fill") == 0;
        if (n->op == QGC_OP_LINEAR && strcmp(n->out[0]->name, "o") == 0)
            biased += n->n_in == 3;
        if (n->op == QGC_OP_LINEAR && strcmp(n->out[0]->name, "v") == 0)
            assert_int_equal(n->n_in, 2);
    }
    assert_int_equal(norms, 9);
    assert_int_equal(biased, 4);
    qgc_weights_close(w);
    is_right_on_tiny(f, "fold-weights");
    /* caches hold something else now: from there on each graph is run with its own */
    const qgc_bisection b = judged_on_tiny(f, "fold-weights,fuse-qkv,swap-mlp?,merge-same?");
    assert_true(b.all <= 1e-12 && b.choices == 0);
    is_right_on_tiny(f, "fold-weights,split-attention,fuse-swiglu,fuse-qkv,fuse-norm-linear");
}

static void slices_are_put_together_in_another_order(void **state) {
    is_right_on_tiny(*state, "swap-mlp,scale-weights?,fold-weights");
}

static void a_weight_that_is_derived_wrongly_is_found(void **state) {
    fixture *f = *state;
    load_page(f);
    qgc_weights *w;
    const qgc_tensor **tensors;
    ok(f, qgc_weights_open(&w, "models/tiny/tiny.gguf", &f->diag));
    qgc_graph *g = run_on_tiny(f, "swap-mlp", w, &tensors);
    qgc_str right = qgc_str_new(f->arena);
    qgc_graph_print_yaml(g, &right);
    for (size_t i = 0; i < g->n_weights; i++) /* one more than it should be */
        if (strcmp(g->weights[i].name, "w_up_high_swapped") == 0)
            g->weights[i].derived.from[1] = g->weights[i].derived.from[0];
    qgc_str text = qgc_str_new(f->arena);
    qgc_graph_print_yaml(g, &text);
    const char *path = fixture_write(f, "wrong.yaml", text.text);
    static const int32_t tokens[] = {5, 30, 12};
    qgc_pool *pool = qgc_pool_new(1);
    const qgc_bisect_options o = {.run.graph = path,
                                  .run.weights = w,
                                  .run.passes = "",
                                  .run.pool = pool,
                                  .run.tokens = tokens,
                                  .run.n_tokens = 3,
                                  .run.positions = 3,
                                  .against = fixture_write(f, "right.yaml", right.text)};
    qgc_bisection b;
    ok(f, qgc_bisect(&o, &b, &f->diag));
    assert_int_equal(b.verdict, QGC_BISECT_WRONG);
    assert_string_equal(b.value, "up[0]");
    qgc_pool_drop(pool);
    qgc_weights_close(w);
}

/* w_up times one, stored as bf16. */
static bool narrow_up(qgc_rewriter *rw, const qgc_match *m) {
    if (strcmp(m->root->out[0]->name, "up") != 0 ||
        qgc_weight_is_derived(qgc_rewriter_graph(rw), m->root->in[1]))
        return false;
    const qgc_derivation same = {.kind = QGC_DERIVE_SCALE, .factor = 1};
    qgc_value *w = qgc_derive(rw, "narrow", &same, &m->root->in[1], 1);
    w->dtype = QGC_BF16;
    qgc_set_input(rw, m->root, 1, w);
    return true;
}

static const qgc_rule narrow_rules[] = {{"narrow", P(ANY, LINEAR, V(0)), narrow_up}, {0}};

static qgc_status narrow(qgc_pass_context *c, qgc_diag *d) {
    return qgc_rewrite(c, narrow_rules, d);
}

static qgc_bisection judge_narrow(fixture *f, const char *types) {
    qgc_weights *w;
    ok(f, qgc_random_weights_open(&w, load_model(f), types, 3, &f->diag));
    const qgc_bisection b = judged_on(f, fixture_path(f, "model.yaml"), w, "narrow");
    qgc_weights_close(w);
    return b;
}

/* Numbers of a derived weight are compared before they are rounded; one that loses digits to how it is stored is wrong. */
static void a_derived_weight_has_the_digits_of_its_sources(void **state) {
    fixture *f = *state;
    static const qgc_pass_info passes[] = {{"narrow", narrow, NULL, "a test"}, {0}};
    static const qgc_pass_rows rows = {.abi = QGC_PASS_ABI, .passes = passes};
    ok(f, qgc_passes_add("the test", &rows, &f->diag));
    const qgc_bisection same = judge_narrow(f, "bf16"), fewer = judge_narrow(f, "f16");
    expect_right(f, &same, "narrow");
    assert_int_equal(fewer.verdict, QGC_BISECT_WRONG);
    assert_string_equal(fewer.why,
                        "weight \"narrow[0]\" is stored as bf16, with fewer digits than what it is made of");
}

/* What is printed computes the same bits, on the evaluator. */
static void a_printed_graph_has_its_derived_weights(void **state) {
    fixture *f = *state;
    enum { VOCAB = 1536, N = 5 };
    static const int32_t tokens[N] = {5, 300, 41, 7, 1000};
    qgc_weights *w;
    ok(f, qgc_weights_open(&w, "models/tiny/tiny.gguf", &f->diag));
    const qgc_tensor **tensors[2];
    qgc_graph *g[2] = {run_on_tiny(f, "swap-mlp,fold-weights", w, &tensors[0])};
    qgc_str text = qgc_str_new(f->arena);
    qgc_graph_print_yaml(g[0], &text);
    ok(f, qgc_graph_load_text(&g[1], "printed.yaml", text.text, text.bytes, f->arena, &f->diag));
    ok(f, qgc_graph_bind(g[1], w, false, &tensors[1], &f->diag));
    float logits[2][VOCAB];
    qgc_pool *pool = qgc_pool_new(2);
    for (int i = 0; i < 2; i++) {
        qgc_eval *e = qgc_eval_new(g[i], tensors[i], 64, N, pool);
        int64_t n;
        ok(f, qgc_eval_step(e, tokens, N, 0, false, &f->diag));
        memcpy(logits[i], qgc_eval_value(e, qgc_graph_output(g[i], "logits"), &n), sizeof logits[i]);
        assert_int_equal(n, VOCAB);
        qgc_eval_drop(e);
    }
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
    qgc_pool_drop(pool);
    qgc_weights_close(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(two_nodes_that_compute_the_same_become_one),
        FIXTURE_TEST(conditions_choose_layers_and_attributes),
        FIXTURE_TEST(a_group_keeps_what_a_kernel_computes),
        FIXTURE_TEST(a_cap_is_in_the_kernel_of_the_head),
        FIXTURE_TEST(a_factor_goes_into_a_matrix),
        FIXTURE_TEST(norms_and_biases_are_folded),
        FIXTURE_TEST(slices_are_put_together_in_another_order),
        FIXTURE_TEST(a_derived_weight_has_the_digits_of_its_sources),
        FIXTURE_TEST(a_weight_that_is_derived_wrongly_is_found),
        FIXTURE_TEST(a_printed_graph_has_its_derived_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
