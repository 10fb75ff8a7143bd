#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "graph/base/str.h"
#include "graph/eval.h"
#include "graph/load.h"
#include "graph/print.h"
#include "models/weights.h"
#include "passes/bind_weights.h"
#include "passes/passes.h"
#include "passes/rewrite.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"
#include "tests/support/same_graph.h"
#include "tests/support/subset.h"
#include "tests/support/usual.h"

static qgc_graph *load(fixture *f, const char *path) {
    qgc_graph *g;
    ok(f, qgc_graph_load(&g, path, f->arena, &f->diag));
    return g;
}

static qgc_pass_report run(fixture *f, qgc_graph *g, const char *passes) {
    qgc_pass_report report;
    ok(f, qgc_passes_run(g, &(qgc_pass_options){.passes = passes}, &report, &f->diag));
    return report;
}

/* The nodes of a layer, groups in brackets: "norm(h q) attention(...)". */
static const char *layout(fixture *f, const qgc_graph *g, int layer) {
    qgc_str text = qgc_str_new(f->arena);
    for (const qgc_node *n = g->first; n; n = n->next) {
        if (n->layer != layer)
            continue;
        bool opens = n->group >= 0 && (!n->prev || n->prev->group != n->group || n->prev->layer != layer);
        bool closes = n->group >= 0 && (!n->next || n->next->group != n->group);
        qgc_str_printf(&text, "%s%s%s%s%s", text.bytes ? " " : "", opens ? g->groups[n->group].name : "",
                       opens ? "(" : "", n->out[0]->name, closes ? ")" : "");
    }
    return text.text;
}

static int kernels_of_layer(const qgc_graph *g, int layer) {
    int n = 0;
    for (const qgc_node *node = g->first; node; node = node->next)
        n += node->layer == layer &&
             (node->group < 0 || node->prev->group != node->group || node->prev->layer != layer);
    return n;
}

static void the_pipeline_brings_a_layer_to_five_kernels(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, "models/qwen2.5-0.5b.yaml");
    run(f, g, NULL);
    for (int layer = 0; layer < 24; layer++) {
        assert_int_equal(kernels_of_layer(g, layer), 5);
        assert_string_equal(
            layout(f, g, layer),
            "qkv(h q k v qr kr k_all v_all) a out(o x_mid) mlp(m gate up act ff) out_2(down x)");
    }
    g = load(f, "models/qwen2.5-0.5b.yaml");
    run(f, g,
        "split-attention,fuse-swiglu,fuse-qkv,fuse-rope-append,fuse-residual,fuse-norm-linear,fuse-merge-linear");
    assert_string_equal(layout(f, g, 3), "qkv(h q k v qr kr k_all v_all) a_parts out(a o x_mid) "
                                         "mlp(m gate up act ff) out_2(down x)");
}

static void every_model_can_be_printed_after_the_pipeline(void **state) {
    fixture *f = *state;
    static const char *const paths[] = {
        "models/qwen2.5-0.5b.yaml",
        "models/qwen2.5-1.5b.yaml",
        "models/qwen2.5-3b.yaml",
        "models/qwen2.5-7b.yaml",
        "models/tiny/tiny.yaml",
        "tests/gpu/shapes/odd.yaml",
        "tests/gpu/shapes/eights.yaml",
        "tests/gpu/shapes/smallest.yaml",
        "tests/gpu/shapes/wide.yaml",
        "tests/gpu/shapes/tall.yaml",
        "tests/gpu/shapes/qwen3-0.6b.yaml",
        "tests/gpu/shapes/qwen3-8b.yaml",
        "tests/gpu/shapes/llama-3.2-1b.yaml",
        "tests/gpu/shapes/llama-3.1-8b.yaml",
        "tests/gpu/shapes/olmo-2-1b.yaml",
        "tests/gpu/shapes/qwen2.5-32b.yaml",
        "tests/gpu/cases/biases_in_some_layers.yaml",
        "tests/gpu/cases/old_cache.yaml",
        "tests/gpu/cases/silu_first.yaml",
        "tests/gpu/cases/unrotated_layer.yaml",
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        qgc_graph *g = load(f, paths[i]);
        run(f, g, NULL);
        round_trip(f->arena, g);
    }
}

static void each_pass_alone(void **state) {
    fixture *f = *state;
    const char *const want[][2] = {
        {"", "h q k v qr kr k_all v_all a o x_mid m gate up act ff down x"},
        {"dead-code", "h q k v qr kr k_all v_all a o x_mid m gate up act ff down x"},
        {"split-attention", "h q k v qr kr k_all v_all a_parts a o x_mid m gate up act ff down x"},
        {"split-sample", "h q k v qr kr k_all v_all a o x_mid m gate up act ff down x"},
        {"fuse-swiglu", "h q k v qr kr k_all v_all a o x_mid m mlp(gate up act ff) down x"},
        {"fuse-qkv", "h qkv(q k v) qr kr k_all v_all a o x_mid m qkv_2(gate up) act ff down x"},
        {"fuse-rope-append",
         "h heads(q qr) heads_2(k kr k_all) heads_3(v v_all) a o x_mid m gate up act ff down x"},
        {"fuse-residual", "h q k v qr kr k_all v_all a out(o x_mid) m gate up act ff out_2(down x)"},
        {"fuse-norm-linear", "h q k v qr kr k_all v_all a o x_mid m gate up act ff down x"},
        {"fuse-embed", "h q k v qr kr k_all v_all a o x_mid m gate up act ff down x"},
        {"fuse-head-sample", "h q k v qr kr k_all v_all a o x_mid m gate up act ff down x"},
        {"fuse-merge-linear", "h q k v qr kr k_all v_all a o x_mid m gate up act ff down x"},
        {"fuse-pointwise", "h q k v qr kr k_all v_all a o x_mid m gate up pointwise(act ff) down x"},
        {"plan-memory", "h q k v qr kr k_all v_all a o x_mid m gate up act ff down x"},
    };
    assert_int_equal(sizeof want / sizeof *want, qgc_pass_count() + 1);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        qgc_graph *g = load(f, "models/tiny/tiny.yaml");
        run(f, g, want[i][0]);
        assert_string_equal(layout(f, g, 1), want[i][1]);
        assert_string_equal(layout(f, load_graph_text(f->arena, round_trip(f->arena, g)), 1), want[i][1]);
    }
}

/* The text of the first event of a pass at a node. */
static const char *event(const qgc_pass_report *r, const char *node, bool fired) {
    for (size_t i = 0; i < r->n_runs; i++)
        for (size_t k = 0; k < r->runs[i].n_events; k++)
            if (r->runs[i].events[k].fired == fired && strcmp(r->runs[i].events[k].node, node) == 0)
                return r->runs[i].events[k].text;
    return "nothing";
}

static void a_rule_that_declines_says_why(void **state) {
    fixture *f = *state;
    qgc_pass_report r = run(f, load(f, "models/tiny/tiny.yaml"), "fuse-norm-linear");
    assert_string_equal(event(&r, "h[2]", false), "\"q\" and \"k\", which read it, are different kernels");
    assert_string_equal(event(&r, "logits", true), "in group \"norm\"");

    r = run(f, load(f, "models/tiny/tiny.yaml"), "fuse-pointwise(max=1)");
    assert_string_equal(event(&r, "ff[0]", false), "2 nodes, and at most 1 are wanted in a kernel");

    qgc_graph *g = load(f, "tests/gpu/shapes/odd.yaml");
    r = run(f, g, "fuse-swiglu,fuse-qkv");
    assert_string_equal(event(&r, "ff[0]", true), "in group \"mlp\""); /* of f32 and bf16 */
    assert_string_equal(event(&r, "q[0]", true), "in group \"qkv\"");

    r = run(f, load(f, "models/tiny/tiny.yaml"), "split-attention(parts=1)");
    assert_string_equal(event(&r, "a[0]", false), "option parts is 1, expected 2 to 64");
}

static void a_norm_that_another_node_reads_stays_alone(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, "models/tiny/tiny.yaml");
    for (qgc_node *n = g->first; n; n = n->next) /* x_mid + m instead of x_mid + down */
        if (n->op == QGC_OP_ADD && n->layer == 0 && strcmp(n->out[0]->name, "x") == 0)
            for (qgc_node *norm = g->first; norm; norm = norm->next)
                if (norm->layer == 0 && strcmp(norm->out[0]->name, "m") == 0)
                    n->in[0] = norm->out[0];
    qgc_pass_report r = run(f, g, "fuse-swiglu,fuse-norm-linear");
    assert_string_equal(event(&r, "m[0]", false), "\"gate\" and \"x\", which read it, are different kernels");
}

static void dead_code_goes_with_what_fed_it(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, "models/tiny/tiny.yaml");
    size_t n_nodes = g->n_nodes;
    qgc_value *ff = NULL;
    for (qgc_node *n = g->first; n; n = n->next) {
        if (n->layer == 3 && strcmp(n->out[0]->name, "m") == 0)
            ff = n->out[0];
        if (n->layer == 3 && strcmp(n->out[0]->name, "x") == 0)
            n->in[1] = ff; /* so nobody reads down, ff, act, up and gate */
    }
    qgc_pass_report r = run(f, g, "dead-code");
    assert_int_equal(r.runs[0].n_fired, 5);
    assert_int_equal(g->n_nodes, n_nodes - 5);
}

enum { MOST_VOCAB = 1536 };

/* The logits of a model after a few tokens. */
static void evaluate(fixture *f, qgc_graph *g, const qgc_weights *w, qgc_pool *pool, float *logits) {
    const int32_t tokens[] = {5, 100, 41, 7, 200};
    const qgc_tensor **tensors;
    ok(f, qgc_graph_bind(g, w, false, &tensors, &f->diag));
    qgc_eval *e = qgc_eval_new(g, tensors, 64, 5, pool);
    ok(f, qgc_eval_step(e, tokens, 4, 0, false, &f->diag));
    ok(f, qgc_eval_step(e, tokens + 4, 1, 4, false, &f->diag));
    int64_t n;
    const float *got = qgc_eval_value(e, qgc_graph_output(g, "logits"), &n);
    assert_true(n <= MOST_VOCAB);
    memcpy(logits, got, (size_t)n * sizeof *logits);
    qgc_eval_drop(e);
}

#ifndef EVERY /* more than 1 where a sanitizer makes it slow: so many times fewer pipelines that are drawn, and nodes */
#define EVERY 1
#endif

/* None, all, each by itself, each left out, then random ones, then as many in random orders: a valid graph that can be
 * printed and read, and the same logits. Caches are in f32: in f16 a sum in another order may round a key the other way. */
static void any_subset_computes_the_same(fixture *all, const char *graph, const char *weights,
                                         unsigned n_random) {
    float want[MOST_VOCAB] = {0}, got[MOST_VOCAB] = {0};
    qgc_weights *w;
    ok(all, qgc_weights_open(&w, weights, &all->diag));
    qgc_pool *pool = qgc_pool_new(1);
    evaluate(all, load(all, graph), w, pool, want);
    const unsigned shuffled = test_chosen_pipelines() + n_random;
    uint64_t seed = 1;
    for (unsigned i = 0; i < shuffled + n_random; i++) {
        qgc_arena *arena = qgc_arena_new();
        fixture f = {.arena = arena, .diag = qgc_diag_new(arena)};
        const char *passes = test_pipeline(arena, i, shuffled, &seed);
        qgc_graph *g = load(&f, graph);
        run(&f, g, passes);
        round_trip(arena, g);
        evaluate(&f, g, w, pool, got);
        for (int k = 0; k < MOST_VOCAB; k++)
            if (!(fabsf(got[k] - want[k]) <= 1e-5f * 20))
                fail_msg("%s, passes \"%s\": logit %d is %g, not %g", graph, passes, k, (double)got[k],
                         (double)want[k]);
        qgc_arena_drop(arena);
    }
    qgc_pool_drop(pool);
    qgc_weights_close(w);
}

static void any_subset_in_any_order_computes_the_same(void **state) {
    any_subset_computes_the_same(*state, "tests/golden/tiny/tiny-f32.yaml", "models/tiny/tiny.gguf",
                                 250 / EVERY);
    any_subset_computes_the_same(*state, "tests/golden/small/qwen3-f32.yaml", "tests/golden/small/qwen3",
                                 100 / EVERY);
    any_subset_computes_the_same(*state, "tests/golden/small/olmo2-f32.yaml", "tests/golden/small/olmo2",
                                 100 / EVERY);
    any_subset_computes_the_same(*state, "tests/golden/small/llama-f32.yaml", "tests/golden/small/llama",
                                 100 / EVERY);
}

static void refuses(fixture *f, const char *passes, const char *text) {
    qgc_diag d = qgc_diag_new(f->arena);
    qgc_pass_report report;
    qgc_status s =
        qgc_passes_run(load(f, "models/tiny/tiny.yaml"), &(qgc_pass_options){.passes = passes}, &report, &d);
    assert_int_equal(s, QGC_ERR_USAGE);
    assert_string_equal(qgc_test_printed(f->arena, &d), text);
}

static void names_what_is_wrong_with_a_pipeline(void **state) {
    refuses(*state, "fuse-qvk",
            "qgc: error: unknown pass \"fuse-qvk\"\n  hint: Did you mean \"fuse-qkv\"?\n");
    refuses(*state, "xyz", "qgc: error: unknown pass \"xyz\"\n  hint: qgc passes lists them.\n");
    refuses(*state, "fuse-pointwise(min=2)",
            "qgc: error: pass \"fuse-pointwise\" has no option \"min\"\n  hint: It has: max.\n");
    refuses(*state, "fuse-qkv(max=2)", "qgc: error: pass \"fuse-qkv\" has no option \"max\"\n");
    refuses(*state, "fuse-pointwise(max=two)",
            "qgc: error: option \"max=two\" of pass \"fuse-pointwise\" is not NAME=WHOLE NUMBER\n");
    refuses(
        *state, "fuse-pointwise(max=99999999999999999999)",
        "qgc: error: option \"max=99999999999999999999\" of pass \"fuse-pointwise\" is not NAME=WHOLE NUMBER\n");
    refuses(*state, "fuse-pointwise(max=inf)",
            "qgc: error: option \"max=inf\" of pass \"fuse-pointwise\" is not NAME=WHOLE NUMBER\n");
    refuses(*state, "fuse-pointwise(max=2",
            "qgc: error: pass \"fuse-pointwise(max=2\" lacks a closing bracket\n");
    refuses(*state, "fuse-qkv fuse-swiglu",
            "qgc: error: \"fuse-qkv fuse-swiglu\" has a blank where the name of one pass is expected\n"
            "  hint: Passes are separated by commas.\n");
    refuses(
        *state, "fuse-qkv, fuse-pointwise(max=2)? fuse-swiglu",
        "qgc: error: \"fuse-pointwise(max=2)? fuse-swiglu\" has a blank where the name of one pass is expected\n"
        "  hint: Passes are separated by commas.\n");
}

static void leaves_out_what_is_a_mode_now(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, "models/tiny/tiny.yaml");
    qgc_pass_report r;
    const qgc_pass_options o = {.passes = "persistent, fuse-qkv ,pdl-edges?,persistent(x=1)?,dead-code?",
                                .skip = "persistent"};
    ok(f, qgc_passes_run(g, &o, &r, &f->diag));
    assert_int_equal(r.n_runs, 2);
    assert_string_equal(r.runs[0].name, "fuse-qkv");
    assert_string_equal(r.runs[1].name, "dead-code");
    assert_string_equal(g->passes, "");
    assert_string_equal(
        qgc_passes_modes(o.passes, f->arena),
        "passes \"persistent\" and \"pdl-edges\" are modes now: --mode persistent, --mode pdl");
    assert_string_equal(qgc_passes_modes("fuse-qkv,pdl-edges?,pdl-edges", f->arena),
                        "pass \"pdl-edges\" is a mode now: --mode pdl");
    assert_null(qgc_passes_modes("fuse-qkv,persistently,,", f->arena));
    refuses(f, "persistent(x", "qgc: error: pass \"persistent(x\" lacks a closing bracket\n");
}

static void skips_what_it_is_told_to(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, "models/tiny/tiny.yaml");
    qgc_pass_report r;
    ok(f, qgc_passes_run(g, &(qgc_pass_options){.skip = "fuse-residual,split-attention"}, &r, &f->diag));
    assert_int_equal(r.n_runs, usual_passes() - 1); /* one of them is not there anyway */
    assert_string_equal(layout(f, g, 0),
                        "qkv(h q k v qr kr k_all v_all) a o x_mid mlp(m gate up act ff) down x");
}

/* The tiny model with a hundred times a thousand nodes: what the passes do grows with the nodes, not with their square,
 * which would be minutes. Seconds are those of the processor, and many more than it takes. */
static void a_graph_of_100000_nodes_takes_seconds(void **state) {
    fixture *f = *state;
    enum { LAYERS = 5500 / EVERY, SECONDS = 60 };
    const char *text = print_graph(f->arena, load(f, "models/tiny/tiny.yaml"));
    const char *count = strstr(text, "{index: l, count: 4, ");
    assert_non_null(count);
    const char *deep = qgc_arena_printf(f->arena, "%.*s{index: l, count: %d, %s", (int)(count - text), text,
                                        LAYERS, count + strlen("{index: l, count: 4, "));
    qgc_graph *g;
    clock_t start = clock();
    ok(f, qgc_graph_load_text(&g, "deep.yaml", deep, strlen(deep), f->arena, &f->diag));
    assert_int_equal(g->n_nodes, LAYERS * 18 + 6);
    run(f, g, NULL);
    assert_int_equal(kernels_of_layer(g, LAYERS - 1), 5);
    print_graph(f->arena, g);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (!(seconds <= SECONDS))
        fail_msg("%d layers took %g s", LAYERS, seconds);
}

/* A rule that is at fault: it groups what no kernel computes, and does not ask. */
static void the_driver_finds_a_group_that_no_kernel_computes(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, "models/tiny/tiny.yaml");
    g->first->group = g->first->next->group = qgc_graph_group(g, "bad", -1, -1, QGC_NO_LOC);
    ok(f, qgc_verify(g, &f->diag));
    qgc_pass_report report;
    assert_int_equal(qgc_passes_run(g, &(qgc_pass_options){.passes = ""}, &report, &f->diag), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&f->diag),
                        "no kernel computes group \"bad\": embedding \"x\" without a product");
}

/* For who looks for the change that does harm: any beginning of the pipeline can be run. */
static void a_limit_stops_at_a_change(void **state) {
    fixture *f = *state;
    const struct {
        const char *pass;
        int all;
    } passes[] = {{"split-attention", 4}, {"fuse-swiglu", 4}, {"fuse-qkv", 8}};
    for (size_t i = 0; i < sizeof passes / sizeof *passes; i++)
        for (int most = 0; most <= passes[i].all + 1; most++) {
            qgc_graph *g = load(f, "models/tiny/tiny.yaml");
            const qgc_pass_limit limit = {2, most};
            const qgc_pass_options o = {
                .passes = qgc_arena_printf(f->arena, "dead-code,%s,fuse-residual", passes[i].pass),
                .limit = &limit};
            qgc_pass_report report;
            ok(f, qgc_passes_run(g, &o, &report, &f->diag));
            assert_int_equal(report.n_runs, 2);
            assert_int_equal(report.runs[1].n_fired, most < passes[i].all ? most : passes[i].all);
            assert_string_equal(g->passes, "fuse-residual");
        }
    qgc_graph *g = load(f, "models/tiny/tiny.yaml");
    qgc_pass_report report;
    ok(f, qgc_passes_run(g, &(qgc_pass_options){.limit = &(qgc_pass_limit){0, 0}}, &report, &f->diag));
    assert_int_equal(report.n_runs, 0);
}

/* What a watcher was told of the pass that runs. */
typedef struct {
    int before, fired, declined, ended;
} watched;

static void note_before(void *context, const char *pass, const char *rule, const qgc_node *at,
                        const qgc_graph *g) {
    assert_true(pass && g && !rule == !at);
    ((watched *)context)->before += rule != NULL;
}

static qgc_status note_after(void *context, const qgc_pass_step *step, qgc_graph *g, qgc_diag *d) {
    (void)d;
    watched *w = context;
    assert_true(g && !step->rule == !step->node);
    w->ended += !step->rule;
    w->fired += step->fired;
    w->declined += step->rule && !step->fired;
    if (step->rule && step->fired)
        assert_int_equal(step->run->n_fired, w->fired);
    if (step->rule)
        return QGC_OK;
    assert_int_equal(step->run->n_fired, w->fired);
    assert_int_equal(w->before, w->fired + w->declined);
    *w = (watched){.ended = w->ended};
    return QGC_OK;
}

static qgc_status stop_at_second(void *context, const qgc_pass_step *step, qgc_graph *g, qgc_diag *d) {
    (void)g;
    int *fired = context;
    *fired += step->fired;
    return *fired < 2 ? QGC_OK : qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "enough of \"%s\"", step->node);
}

static void a_watcher_sees_each_change_and_can_stop(void **state) {
    fixture *f = *state;
    watched w = {0};
    qgc_pass_watch watch = {.before = note_before, .after = note_after, .context = &w};
    const qgc_pass_options o = {
        .passes = "split-attention,fuse-swiglu,fuse-qkv,fuse-rope-append,fuse-residual", .watch = &watch};
    qgc_pass_report report;
    ok(f, qgc_passes_run(load(f, "models/tiny/tiny.yaml"), &o, &report, &f->diag));
    assert_int_equal(w.ended, 5);
    int fired = 0;
    watch.before = NULL;
    watch.after = stop_at_second;
    watch.context = &fired;
    assert_int_equal(qgc_passes_run(load(f, "models/tiny/tiny.yaml"), &o, &report, &f->diag), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&f->diag), "enough of \"a[1]\"");
    assert_int_equal(report.runs[0].n_fired, 2);
}

static const char *yaml_of(fixture *f, const qgc_graph *g) {
    qgc_str text = qgc_str_new(f->arena);
    qgc_graph_print_yaml(g, &text);
    return text.text;
}

static void a_copy_of_a_graph_goes_on_by_itself(void **state) {
    fixture *f = *state;
    qgc_graph *g = load(f, "models/tiny/tiny.yaml");
    run(f, g, "split-attention,fuse-swiglu");
    const char *before = yaml_of(f, g);
    qgc_graph *copy = qgc_graph_clone(g, f->arena);
    assert_string_equal(yaml_of(f, copy), before);
    run(f, copy, "fuse-qkv,fuse-rope-append,split-sample");
    assert_string_equal(yaml_of(f, g), before);
    run(f, g, "fuse-qkv,fuse-rope-append,split-sample");
    assert_string_equal(yaml_of(f, copy), yaml_of(f, g));
    for (const qgc_node *n = copy->first, *m = g->first; n; n = n->next, m = m->next)
        assert_true(n != m && n->id == m->id && n->out[0]->id == m->out[0]->id && n->out[0] != m->out[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(the_pipeline_brings_a_layer_to_five_kernels),
        FIXTURE_TEST(every_model_can_be_printed_after_the_pipeline),
        FIXTURE_TEST(each_pass_alone),
        FIXTURE_TEST(a_rule_that_declines_says_why),
        FIXTURE_TEST(a_norm_that_another_node_reads_stays_alone),
        FIXTURE_TEST(dead_code_goes_with_what_fed_it),
        FIXTURE_TEST(a_limit_stops_at_a_change),
        FIXTURE_TEST(a_watcher_sees_each_change_and_can_stop),
        FIXTURE_TEST(a_copy_of_a_graph_goes_on_by_itself),
        FIXTURE_TEST(any_subset_in_any_order_computes_the_same),
        FIXTURE_TEST(names_what_is_wrong_with_a_pipeline),
        FIXTURE_TEST(leaves_out_what_is_a_mode_now),
        FIXTURE_TEST(skips_what_it_is_told_to),
        FIXTURE_TEST(a_graph_of_100000_nodes_takes_seconds),
        FIXTURE_TEST(the_driver_finds_a_group_that_no_kernel_computes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
