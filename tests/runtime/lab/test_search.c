#include <string.h>

#include "codegen/stage/stage.h"
#include "graph/load.h"
#include "graph/print.h"
#include "passes/bind_weights.h"
#include "passes/load.h"
#include "passes/rewrite.h"
#include "runtime/lab/cut.h"
#include "runtime/lab/search.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"
#include "tests/support/text.h"

static const char tiny[] = "models/tiny/tiny.yaml";
static const char with_splits[] =
    "split-attention,split-sample,fuse-swiglu,fuse-qkv,fuse-rope-append,fuse-residual,"
    "fuse-norm-linear,fuse-embed,fuse-head-sample,fuse-merge-linear,plan-memory";

/* --- a pass that makes steps cheaper and computes something else -------------------------------------------- */

enum { ACT, UP };

static bool forget_up(qgc_rewriter *rw, const qgc_match *m) {
    qgc_replace(rw, m->root->out[0], m->node[ACT]->out[0]);
    qgc_erase(rw, m->root);
    return true;
}

static const qgc_rule cheat_rules[] = {{"silu * up", P(ANY, MUL, P1(ACT, SILU, FREE), FREE), forget_up}, {0}};

static qgc_status cheat(qgc_pass_context *c, qgc_diag *d) {
    return qgc_rewrite(c, cheat_rules, d);
}

/* Of this GGUF, and not of a folder of safetensors. */
static qgc_status other_tensor(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    c->run->n_fired++;
    for (size_t i = 0; i < c->graph->n_weights; i++)
        if (strcmp(c->graph->weights[i].name, "wk") == 0)
            c->graph->weights[i].hf = "model.layers.{l}.self_attn.v_proj.weight";
    return QGC_OK;
}

static void add_cheat(fixture *f) {
    static bool is_added;
    static const qgc_pass_info passes[] = {
        {"cheat", cheat, NULL, "a test"}, {"other-tensor", other_tensor, NULL, "a test"}, {0}};
    static const qgc_pass_rows rows = {.abi = QGC_PASS_ABI, .passes = passes};
    if (!is_added)
        ok(f, qgc_passes_add("the test", &rows, &f->diag));
    is_added = true;
}

/* --- searches ---------------------------------------------------------------------------------------------- */

static qgc_search run_search(fixture *f, qgc_search_options o) {
    static const int32_t tokens[] = {5, 300, 41, 7, 1000, 2};
    qgc_weights *w;
    ok(f, qgc_weights_open(&w, "models/tiny/tiny.gguf", &f->diag));
    qgc_pool *pool = qgc_pool_new(1);
    o.run.weights = w;
    o.run.pool = pool;
    o.run.tokens = tokens;
    o.run.n_tokens = 6;
    o.ctx = 64;
    o.seconds = 600;
    qgc_search s;
    ok(f, qgc_search_run(&o, &s, &f->diag));
    qgc_pool_drop(pool);
    qgc_weights_close(w);
    return s;
}

static qgc_search search(fixture *f, const char *graph, const char *passes, uint64_t seed, int most) {
    return run_search(
        f, (qgc_search_options){.run.graph = graph, .run.passes = passes, .seed = seed, .most = most});
}

static qgc_search search_layers(fixture *f, const char *graph, const char *passes, int layers) {
    return run_search(
        f, (qgc_search_options){.run.graph = graph, .run.passes = passes, .seed = 1, .layers = layers});
}

static double best_of(const qgc_search *s) {
    return s->tries[s->best].model;
}

static void from_no_pass_it_gets_to_the_cost_of_the_pipeline(void **state) {
    fixture *f = *state;
    const qgc_search pipeline = search(f, tiny, NULL, 1, 1), none = search(f, tiny, "", 1, 0);
    assert_int_equal(pipeline.n_tries, 1);
    assert_false(pipeline.is_complete);
    assert_true(none.tries[0].model > 2 * best_of(&pipeline));
    assert_true(best_of(&none) <= best_of(&pipeline));
    assert_true(none.is_complete);
    assert_null(none.mode);
    assert_int_equal(none.n_rivals, 2);
    assert_string_equal(none.rivals[0].what, "the start");
    assert_string_equal(none.rivals[0].passes, "");
    assert_true(none.rivals[0].of.model == none.tries[0].model);
    assert_string_equal(none.rivals[1].what, "the default");
    assert_true(none.rivals[1].of.model == best_of(&pipeline));
    assert_int_equal(pipeline.n_rivals, 0); /* the best is the start, and that is the default */
    /* the parents of the best are those that were better */
    for (int i = none.best; i > 0; i = none.tries[i].parent)
        assert_int_equal(none.tries[i].verdict, QGC_SEARCH_BETTER);
}

static void a_seed_decides_the_order_and_not_the_result(void **state) {
    fixture *f = *state;
    const qgc_search a = search(f, tiny, "", 7, 0), b = search(f, tiny, "", 7, 0),
                     c = search(f, tiny, "", 8, 0);
    assert_int_equal(a.n_tries, b.n_tries);
    for (int i = 0; i < a.n_tries; i++) {
        assert_string_equal(a.tries[i].change, b.tries[i].change);
        assert_int_equal(a.tries[i].verdict, b.tries[i].verdict);
    }
    assert_string_equal(a.yaml, b.yaml);
    bool differs = c.n_tries != a.n_tries;
    for (int i = 0; !differs && i < a.n_tries; i++)
        differs = strcmp(a.tries[i].change, c.tries[i].change) != 0;
    assert_true(differs);
    assert_true(best_of(&c) == best_of(&a));
}

static void what_it_writes_has_the_pipeline_that_it_found(void **state) {
    fixture *f = *state;
    const qgc_search s = search(f, tiny, "", 3, 0);
    const char *path = fixture_write(f, "found.yaml", s.yaml);
    const qgc_search again = search(f, path, NULL, 3, 1);
    assert_true(best_of(&again) == best_of(&s));
    assert_int_equal(again.tries[0].cost.kernels, s.tries[s.best].cost.kernels);
    assert_true(again.tries[0].cost.scratch_bytes == s.tries[s.best].cost.scratch_bytes);
    qgc_graph *g; /* and it can be compiled: a pass that finds nothing may find nothing */
    qgc_pass_report r;
    ok(f, qgc_graph_load(&g, path, f->arena, &f->diag));
    ok(f, qgc_passes_run(g, &(qgc_pass_options){.want_matches = true}, &r, &f->diag));
}

/* Passes that help by themselves are put together, the one that saves most first, before anything else is tried. */
static void what_helps_is_put_together(void **state) {
    fixture *f = *state;
    const qgc_search s = search(f, tiny, "", 1, 20);
    int singles = 0, i = 1, most = 0; /* that is the start, which costs more than what is better */
    for (; i < s.n_tries && s.tries[i].parent == 0; i++)
        if (s.tries[i].verdict == QGC_SEARCH_BETTER) {
            singles++;
            most = s.tries[i].model < s.tries[most].model ? i : most;
        }
    assert_true(singles > 4);
    assert_int_equal(s.tries[i].parent, most);
    for (int n = 1; n < singles && i < s.n_tries; n++, i++) {
        assert_int_equal(s.tries[i].change[0], '+');
        bool known = false;
        for (int k = 1; k < s.n_tries; k++)
            known = known || (s.tries[k].parent == 0 && s.tries[k].verdict == QGC_SEARCH_BETTER &&
                              strcmp(s.tries[k].change, s.tries[i].change) == 0);
        assert_true(known);
    }
}

/* Two of four layers have the kernels of all, so the result is the same, and it is of the whole model. */
static void a_model_may_be_searched_on_few_of_its_layers(void **state) {
    fixture *f = *state;
    const qgc_search all = search(f, tiny, "", 1, 0), few = search_layers(f, tiny, "", 2);
    assert_int_equal(few.layers_left, 2);
    assert_int_equal(few.layers_of, 4);
    assert_true(few.tries[0].cost.kernels < all.tries[0].cost.kernels);
    assert_string_equal(few.passes, all.passes);
    assert_string_equal(few.yaml, all.yaml);
    assert_true(few.result.model == all.result.model);
    assert_int_equal(few.result.cost.kernels, all.tries[all.best].cost.kernels);
    assert_true(few.rivals[0].of.model == all.tries[0].model);
    qgc_str text = qgc_str_new(f->arena);
    qgc_search_text(&few, &(qgc_search_options){.run.graph = tiny}, &text);
    has(text.text, "\ncandidates have 2 of 4 layers; the result is of all\n");
    has(text.text, "\nthe start, '': 79 kernels, cost ");
    has(text.text, "\nthe default, 'dead-code,split-sample,");
}

static void it_ends_where_it_is_told_to(void **state) {
    fixture *f = *state;
    const qgc_search s = search(f, tiny, "", 1, 6);
    assert_int_equal(s.n_tries, 6);
    assert_false(s.is_complete);
}

static void no_cut_of_the_pipeline_is_wrong(void **state) {
    fixture *f = *state;
    const qgc_search s = search(f, tiny, NULL, 2, 0);
    int cuts = 0;
    for (int i = 0; i < s.n_tries; i++) {
        const bool is_cut = strncmp(s.tries[i].change, "cut ", 4) == 0;
        cuts += is_cut;
        if (is_cut && s.tries[i].verdict != QGC_SEARCH_NO_BETTER && s.tries[i].verdict != QGC_SEARCH_SAME)
            fail_msg("%s: %s", s.tries[i].change, s.tries[i].why);
    }
    assert_true(cuts >= 8);
}

static void a_pass_that_is_wrong_is_never_taken(void **state) {
    fixture *f = *state;
    add_cheat(f);
    const qgc_search s = search(f, tiny, "", 5, 0);
    int wrong = 0, others = 0;
    for (int i = 0; i < s.n_tries; i++) {
        const bool is_other = strstr(s.tries[i].change, "+other-tensor");
        if (!is_other && !strstr(s.tries[i].change, "+cheat"))
            continue;
        *(is_other ? &others : &wrong) += s.tries[i].verdict == QGC_SEARCH_WRONG;
        if (s.tries[i].verdict == QGC_SEARCH_BETTER || s.tries[i].verdict == QGC_SEARCH_NO_BETTER)
            fail_msg("%s: %d kernels", s.tries[i].change, s.tries[i].cost.kernels);
    }
    assert_true(wrong > 0 && others > 0);
    assert_null(strstr(s.passes, "cheat"));
    assert_null(strstr(s.passes, "other-tensor"));
    qgc_str text = qgc_str_new(f->arena);
    qgc_search_text(&s, &(qgc_search_options){.run.graph = tiny}, &text);
    has(text.text, "without a GPU: no times, but a model of them");
    has(text.text, "  wrong      \"");
    has(text.text, "no change of one thing, and none of two passes, is better\n");
}

/* --- cuts -------------------------------------------------------------------------------------------------- */

/* The values of layer 1, groups in brackets. */
static const char *layer_of(fixture *f, const qgc_graph *g) {
    qgc_str text = qgc_str_new(f->arena);
    for (const qgc_node *n = g->first; n; n = n->next) {
        const bool opens = n->group >= 0 && (!n->prev || n->prev->group != n->group);
        const bool closes = n->group >= 0 && (!n->next || n->next->group != n->group);
        if (n->layer == 1)
            qgc_str_printf(&text, "%s%s%s%s", text.bytes ? " " : "", opens ? "(" : "", n->out[0]->name,
                           closes ? ")" : "");
    }
    return text.text;
}

static void groups_are_cut_where_parts_of_a_kernel_meet(void **state) {
    fixture *f = *state;
    static const struct {
        const char *group;
        qgc_cut cut;
        const char *layer; /* NULL: there is nothing to cut */
    } cases[] = {
        {"qkv", QGC_CUT_PROLOGUE,
         "h (q k v qr kr k_all v_all) a_parts (a o x_mid) (m gate up act ff) (down x)"},
        {"qkv", QGC_CUT_EPILOGUE,
         "(h q k v) qr kr k_all v_all a_parts (a o x_mid) (m gate up act ff) (down x)"},
        {"qkv", QGC_CUT_ROWS,
         "h (q qr) (k kr k_all) (v v_all) a_parts (a o x_mid) (m gate up act ff) (down x)"},
        {"mlp", QGC_CUT_PROLOGUE,
         "(h q k v qr kr k_all v_all) a_parts (a o x_mid) m (gate up act ff) (down x)"},
        {"mlp", QGC_CUT_EPILOGUE,
         "(h q k v qr kr k_all v_all) a_parts (a o x_mid) (m gate up) (act ff) (down x)"},
        {"mlp", QGC_CUT_ROWS, NULL},
        {"mlp", QGC_CUT_PART, NULL},
        {"out", QGC_CUT_PROLOGUE,
         "(h q k v qr kr k_all v_all) a_parts a (o x_mid) (m gate up act ff) (down x)"},
        {"out_2", QGC_CUT_EPILOGUE,
         "(h q k v qr kr k_all v_all) a_parts (a o x_mid) (m gate up act ff) down x"},
        {"none", QGC_CUT_PROLOGUE, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qgc_graph *g;
        qgc_pass_report r;
        ok(f, qgc_graph_load(&g, tiny, f->arena, &f->diag));
        ok(f, qgc_passes_run(g, &(qgc_pass_options){.passes = with_splits}, &r, &f->diag));
        const char *before = layer_of(f, g);
        if (qgc_cut_groups(g, cases[i].group, cases[i].cut, f->arena) != (cases[i].layer != NULL))
            fail_msg("case %zu: %s", i, layer_of(f, g));
        const char *now = layer_of(f, g);
        const char *want = cases[i].layer ? cases[i].layer : before;
        if (strcmp(now, want) != 0)
            fail_msg("case %zu: %s, not %s", i, now, want);
        ok(f, qgc_verify(g, &f->diag));
        ok(f, qgc_stages_check(g, &f->diag));
        /* and the file that has it is a start like any other, judged as such */
        qgc_str text = qgc_str_new(f->arena);
        g->passes = "";
        qgc_graph_print_yaml(g, &text);
        const qgc_search s = search(f, fixture_write(f, "cut.yaml", text.text), NULL, 1, 1);
        assert_true(s.tries[0].cost.kernels >= 24);
    }
}

static void the_layers_of_a_printed_cut_are_the_same(void **state) {
    fixture *f = *state;
    qgc_graph *g;
    qgc_pass_report r;
    ok(f, qgc_graph_load(&g, tiny, f->arena, &f->diag));
    ok(f, qgc_passes_run(g, &(qgc_pass_options){0}, &r, &f->diag));
    assert_true(qgc_cut_groups(g, "mlp", QGC_CUT_EPILOGUE, f->arena));
    g->passes = "";
    qgc_str text = qgc_str_new(f->arena);
    qgc_graph_print_yaml(g, &text);
    has(text.text, "fuse: mlp_then");
    qgc_graph *read;
    ok(f, qgc_graph_load_text(&read, "cut.yaml", text.text, text.bytes, f->arena, &f->diag));
    assert_string_equal(layer_of(f, read), layer_of(f, g));
    assert_true(read->shares_memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(from_no_pass_it_gets_to_the_cost_of_the_pipeline),
        FIXTURE_TEST(a_seed_decides_the_order_and_not_the_result),
        FIXTURE_TEST(what_it_writes_has_the_pipeline_that_it_found),
        FIXTURE_TEST(it_ends_where_it_is_told_to),
        FIXTURE_TEST(what_helps_is_put_together),
        FIXTURE_TEST(a_model_may_be_searched_on_few_of_its_layers),
        FIXTURE_TEST(no_cut_of_the_pipeline_is_wrong),
        FIXTURE_TEST(groups_are_cut_where_parts_of_a_kernel_meet),
        FIXTURE_TEST(the_layers_of_a_printed_cut_are_the_same),
        FIXTURE_TEST(a_pass_that_is_wrong_is_never_taken), /* the pass stays for the rest of the process */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
