/* What passes do to the tiny model, on the CPU; with caches in f32, so that sums in another order stay near. */

#include <math.h>
#include <string.h>

#include "passes/load.h"
#include "runtime/lab/ablate.h"
#include "runtime/lab/ablate_report.h"
#include "tests/support/text.h"
#include "tests/support/tiny.h"
#include "tests/support/usual.h"

/* Of the test that runs. */
static qgc_ablate_options options;

static const int32_t tokens[] = {5, 300, 41, 7, 1000};

static int begin(void **state) {
    setup(state);
    const fixture *f = *state;
    options = (qgc_ablate_options){.run.graph = "tests/golden/tiny/tiny-f32.yaml",
                                   .run.weights = f->weights,
                                   .run.pool = f->pool,
                                   .run.tokens = tokens,
                                   .run.n_tokens = 5,
                                   .run.positions = 12,
                                   .ctx = 64,
                                   .pairs = 6};
    return 0;
}

static qgc_ablation measure(fixture *f) {
    qgc_ablation x;
    if (qgc_ablate(&options, &x, &f->diag) != QGC_OK)
        fail_msg("%s", qgc_test_printed(f->arena, &f->diag));
    return x;
}

static void refuses(fixture *f, qgc_status status, const char *want) {
    qgc_ablation x;
    assert_int_equal(qgc_ablate(&options, &x, &f->diag), status);
    assert_string_equal(qgc_diag_message(&f->diag), want);
}

static const qgc_ablate_row *row(const qgc_ablation *x, const char *pass) {
    for (size_t i = 0; i < x->n_rows; i++)
        if (strcmp(x->rows[i].pass, pass) == 0)
            return &x->rows[i];
    fail_msg("no row \"%s\"", pass);
    return NULL;
}

static void assert_same_logits(const qgc_ablate_row *r, const qgc_ablate_effect *e, int64_t positions) {
    if (!(e->drift.kl_max <= 1e-15) || !(e->drift.max_drift <= 1e-11) || e->is_wrong || e->drift.flips != 0)
        fail_msg("\"%s\" changes the logits by %g, with a KL divergence of %g", r->pass, e->drift.max_drift,
                 e->drift.kl_max);
    assert_int_equal(e->drift.positions, positions);
    assert_true(e->drift.logits == 1536.0 * (double)positions);
    assert_true(isnan(e->us.median) && isnan(e->us.low) && isnan(e->us.high));
}

static void no_pass_changes_the_logits(void **state) {
    fixture *f = *state;
    qgc_ablation x = measure(f);
    assert_int_equal(x.n_rows, usual_passes());
    assert_false(x.timed);
    for (size_t i = 0; i < x.n_rows; i++) {
        assert_string_equal(x.rows[i].pass, usual_pass(i));
        assert_same_logits(&x.rows[i], &x.rows[i].left_out, 12);
        assert_same_logits(&x.rows[i], &x.rows[i].alone, 12);
    }
    assert_true(x.total.drift.kl_max <= 1e-9);
    /* what only makes groups changes no bit */
    assert_true(row(&x, "fuse-swiglu")->alone.drift.max_drift == 0);
}

static void kernels_and_bytes_are_what_passes_save(void **state) {
    fixture *f = *state;
    options.run.positions = 1;
    qgc_ablation x = measure(f);
    assert_int_equal(x.none.cost.kernels, 79);
    assert_int_equal(x.total.kernels, x.none.cost.kernels - x.all.cost.kernels);
    assert_int_equal(x.total.bytes, x.none.cost.value_bytes - x.all.cost.value_bytes);
    assert_true(x.total.kernels > 50);
    const qgc_ablate_row *swiglu = row(&x, "fuse-swiglu");
    assert_int_equal(swiglu->fired, 4);
    assert_int_equal(swiglu->fired_alone, 4);
    assert_int_equal(swiglu->alone.kernels, 12); /* gate, up, silu and mul of 4 layers become one */
    assert_int_equal(swiglu->left_out.kernels,
                     4); /* fuse-pointwise brings two of them together in its place */
    options.run.passes = "split-attention,fuse-qkv";
    x = measure(f);
    const qgc_ablate_row *split = row(&x, "split-attention");
    assert_int_equal(split->alone.kernels, -4);
    assert_true(split->alone.bytes < 0);
}

static void the_pipeline_may_be_chosen(void **state) {
    fixture *f = *state;
    options.run.positions = 1;
    options.run.passes = "fuse-pointwise(max=4),fuse-qkv,fuse-residual";
    options.run.skip = "fuse-qkv";
    qgc_ablation x = measure(f);
    assert_int_equal(x.n_rows, 2);
    assert_string_equal(x.rows[0].pass, "fuse-pointwise(max=4)");
    assert_string_equal(x.rows[1].pass, "fuse-residual");
    /* fuse-pointwise leaves single additions alone: the other pass, after it, does as much as it does alone */
    assert_int_equal(x.rows[1].left_out.kernels, x.rows[1].alone.kernels);
    assert_int_equal(x.total.kernels, x.rows[0].alone.kernels + x.rows[1].alone.kernels);
}

static void a_long_text_is_cut(void **state) {
    fixture *f = *state;
    options.run.positions = 3;
    options.run.passes = "fuse-qkv";
    qgc_ablation x = measure(f);
    assert_int_equal(x.rows[0].alone.drift.positions, 3);
}

static void note_part(void *context, size_t done, size_t total) {
    size_t *parts = context;
    assert_int_equal(done, parts[0] + 1);
    parts[0] = done;
    parts[1] = total;
}

static void progress_counts_up_to_all_parts(void **state) {
    fixture *f = *state;
    options.run.positions = 1;
    size_t parts[2] = {0};
    options.run.passes = "fuse-qkv,fuse-swiglu";
    options.run.progress = note_part;
    options.run.context = parts;
    measure(f);
    assert_int_equal(parts[0], 2 + 2 * 2);
    assert_int_equal(parts[1], parts[0]);
}

static void refuses_more_steps_than_positions(void **state) {
    fixture *f = *state;
    options.run.positions = 65;
    refuses(f, QGC_ERR_USAGE, "65 steps do not fit into a context of 64 positions");
}

static void refuses_more_positions_than_the_model_takes(void **state) {
    fixture *f = *state;
    options.ctx = 1025;
    refuses(f, QGC_ERR_USAGE, "a context of 1025 positions, \"tiny-f32\" can have at most 1024");
}

static void refuses_to_compare_on_nothing(void **state) {
    fixture *f = *state;
    options.run.n_tokens = 0;
    refuses(f, QGC_ERR_USAGE, "no tokens to compare logits on");
}

static void names_an_unknown_pass(void **state) {
    fixture *f = *state;
    options.run.passes = "fuse-qvk";
    refuses(f, QGC_ERR_USAGE, "unknown pass \"fuse-qvk\"");
}

static void a_report_has_a_line_for_each_pass(void **state) {
    fixture *f = *state;
    options.run.passes = "fuse-qkv,fuse-swiglu"; /* gate and up are one kernel with either */
    qgc_ablation x = measure(f);
    const qgc_ablate_heading h = {"g.yaml", "w.gguf", "cpu", "a text", 64, 6};
    qgc_str table = qgc_str_new(f->arena), json = qgc_str_new(f->arena), svg = qgc_str_new(f->arena);
    qgc_ablate_table(&x, &h, &table);
    assert_string_equal(
        table.text,
        "g.yaml, weights w.gguf, cpu\n"
        "logits over 12 positions: a text\n"
        "a decode step with all passes: 59 kernels, 177276 bytes of values\n"
        "a decode step with none: 79 kernels, 229484 bytes of values\n"
        "\n"
        "saved a token by a pass in the pipeline, against the pipeline without it\n"
        "left out          kernels      bytes  max drift  RMS drift         KL     max KL  flips  graph\n"
        "fuse-qkv                8       6128          0          0          0          0      0  right\n"
        "fuse-swiglu             8      43024          0          0          0          0      0  right\n"
        "\n"
        "saved a token by a pass alone, against no pass\n"
        "alone             kernels      bytes  max drift  RMS drift         KL     max KL  flips  graph\n"
        "fuse-qkv               12       9184          0          0          0          0      0  right\n"
        "fuse-swiglu            12      46080          0          0          0          0      0  right\n"
        "all of them            20      52208          0          0          0          0      0  right\n");
    assert_int_equal(qgc_ablate_json(&x, &h, &json, &f->diag), QGC_OK);
    assert_non_null(strstr(json.text, "\"pass\": \"fuse-swiglu\",\n      \"fired\": 4,\n"));
    assert_non_null(strstr(json.text, "\"median\": null"));
    qgc_ablate_svg(&x, 1, &h, &svg);
    assert_non_null(strstr(svg.text, ">fuse-swiglu</text>"));
    assert_non_null(strstr(svg.text, ">kernels saved a token</text>"));
}

static void a_report_says_what_cannot_run_in_the_mode(void **state) {
    fixture *f = *state;
    options.run.passes = "fuse-qkv,fuse-swiglu";
    qgc_ablation x = measure(f);
    const qgc_ablate_heading h = {"g.yaml", "w.gguf", "a GPU", "a text", 64, 6};
    qgc_str table = qgc_str_new(f->arena), json = qgc_str_new(f->arena), svg = qgc_str_new(f->arena);
    x.mode = "persistent";
    x.none.refused = x.total.refused = x.rows[0].alone.refused = "two layers differ";
    x.rows[1].left_out.refused = "width 1 is no multiple of 64";
    x.n_subsets = x.n_refused = 3;
    qgc_ablate_table(&x, &h, &table);
    has(table.text, "g.yaml, weights w.gguf, a GPU, mode persistent\n");
    has(table.text, "\na decode step with none cannot run in the mode: two layers differ\n");
    has(table.text, "\nfuse-qkv                8 ");
    has(table.text, "\nfuse-swiglu       cannot run in the mode: width 1 is no multiple of 64\n");
    has(table.text, "\nfuse-qkv          cannot run in the mode: two layers differ\n");
    has(table.text, "\nall of them       cannot run in the mode: two layers differ\n");
    has(table.text,
        "\n3 of 3 random subsets were not compared: the graph under no pass cannot run in the mode\n");
    assert_int_equal(qgc_ablate_json(&x, &h, &json, &f->diag), QGC_OK);
    has(json.text, "\"mode\": \"persistent\"");
    has(json.text, "\"refused\": \"width 1 is no multiple of 64\"");
    has(json.text, "\"worst\": null");
    qgc_ablate_svg(&x, 1, &h, &svg);
    has(svg.text, "a GPU, mode persistent, weights");
    has(svg.text, ">-</text>");
}

static void a_chart_has_modes_side_by_side(void **state) {
    fixture *f = *state;
    options.run.passes = "fuse-qkv,fuse-swiglu";
    const qgc_ablation one = measure(f);
    qgc_ablation x[] = {one, one};
    const qgc_ablate_heading h = {"g.yaml", "w.gguf", "a GPU", "a text", 64, 6};
    qgc_ablate_row rows[2] = {one.rows[0], one.rows[1]};
    rows[0].left_out.kernels = 4711;
    rows[1].left_out.refused = "two layers differ";
    x[0].mode = "graph";
    x[1].mode = "persistent";
    x[1].rows = rows;
    qgc_str svg = qgc_str_new(f->arena);
    qgc_ablate_svg(x, 2, &h, &svg);
    has(svg.text, ">graph mode</text>");
    has(svg.text, ">persistent mode</text>");
    has(svg.text, ">4711</text>");
    has(svg.text, ">-</text>");
    assert_null(strstr(svg.text, ">alone</text>"));
    assert_null(strstr(svg.text, "a GPU, mode"));
}

static void json_is_not_written_of_what_is_not_utf8(void **state) {
    fixture *f = *state;
    qgc_ablation x = {.positions = 1};
    const qgc_ablate_heading h = {"\xff.yaml", "w", "cpu", "t", 64, 6};
    qgc_str json = qgc_str_new(f->arena);
    assert_int_equal(qgc_ablate_json(&x, &h, &json, &f->diag), QGC_ERR_INPUT);
    assert_int_equal(json.bytes, 0);
}

/* --- passes whose faults no logit shows ------------------------------------------------------------------ */

static qgc_status other_key(qgc_pass_context *c, qgc_diag *d) {
    static const char *key = "qwen2.context_length";
    (void)d;
    for (size_t i = 0; i < c->graph->n_params; i++)
        if (strcmp(c->graph->params[i].name, "eps") == 0)
            c->graph->params[i].gguf = &key;
    return QGC_OK;
}

static int runs;

static qgc_status unsteady(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    qgc_node *n = c->graph->first;
    while (n->op != QGC_OP_RMS_NORM)
        n = n->next;
    if (runs++ % 2 == 1)
        n->attr[0].number = 0.5;
    return QGC_OK;
}

static void what_bisect_calls_wrong_is_wrong(void **state) {
    fixture *f = *state;
    static const qgc_pass_info passes[] = {
        {"other-key", other_key, NULL, "a test"}, {"unsteady", unsteady, NULL, "a test"}, {0}};
    static const qgc_pass_rows added = {.abi = QGC_PASS_ABI, .passes = passes};
    ok(f, qgc_passes_add("the test", &added, &f->diag));
    options.run.positions = 2;
    options.run.passes = "fuse-qkv,other-key";
    qgc_ablation x = measure(f);
    assert_true(row(&x, "other-key")->alone.is_wrong);
    assert_true(row(&x, "fuse-qkv")->left_out.is_wrong && !row(&x, "fuse-qkv")->alone.is_wrong);
    options.run.passes = "fuse-qkv,unsteady";
    runs = 0;
    x = measure(f);
    assert_true(row(&x, "unsteady")->alone.is_wrong);
    assert_true(row(&x, "unsteady")->alone.drift.max_drift == 0); /* the run that is measured is right */
    assert_false(row(&x, "fuse-qkv")->alone.is_wrong);
}

#define ABLATE_TEST(f) cmocka_unit_test_setup_teardown(f, begin, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        ABLATE_TEST(no_pass_changes_the_logits),
        ABLATE_TEST(kernels_and_bytes_are_what_passes_save),
        ABLATE_TEST(the_pipeline_may_be_chosen),
        ABLATE_TEST(a_long_text_is_cut),
        ABLATE_TEST(progress_counts_up_to_all_parts),
        ABLATE_TEST(refuses_more_steps_than_positions),
        ABLATE_TEST(refuses_more_positions_than_the_model_takes),
        ABLATE_TEST(refuses_to_compare_on_nothing),
        ABLATE_TEST(names_an_unknown_pass),
        ABLATE_TEST(a_report_has_a_line_for_each_pass),
        ABLATE_TEST(a_report_says_what_cannot_run_in_the_mode),
        ABLATE_TEST(a_chart_has_modes_side_by_side),
        ABLATE_TEST(json_is_not_written_of_what_is_not_utf8),
        ABLATE_TEST(what_bisect_calls_wrong_is_wrong), /* the passes stay for the rest of the process */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
