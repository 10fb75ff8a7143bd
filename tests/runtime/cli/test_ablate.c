/* qgc ablate, as a user calls it. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "tests/support/cmocka.h"
#include "tests/support/command.h"
#include "tests/support/fixture.h"
#include "tests/support/plugin.h"
#include "tests/support/text.h"

#define TINY "ablate models/tiny/tiny.yaml --weights models/tiny/tiny.gguf --device cpu --steps 8 "

static const char *output(fixture *f, const char *arguments, int want) {
    return qgc_test_output(f->arena, arguments, want);
}

static const char *with_file(fixture *f, const char *arguments, const char *path) {
    return qgc_arena_printf(f->arena, "%s '%s'", arguments, path);
}

/* A plug-in whose pass gives all nodes of an op another number. */
static const char *compile_pass(fixture *f, const char *op, const char *attribute, const char *number) {
    return plugin_of_pass(f, "wrong", "",
                          qgc_arena_printf(f->arena,
                                           "    for (qgc_node *n = c->graph->first; n; n = n->next)\n"
                                           "        if (n->op == %s) {\n"
                                           "            n->attr[qgc_attr_index(n->op, \"%s\")].number = %s;\n"
                                           "            c->run->n_fired++;\n"
                                           "        }\n"
                                           "    return QGC_OK;",
                                           op, attribute, number));
}

static void passes_that_make_groups_only_keep_a_strict_budget(void **state) {
    fixture *f = *state;
    const char *budget = fixture_write(f, "b.yaml",
                                       "max_kl: 0\nmax_drift: 0\nmax_flips: 0\npasses:\n"
                                       "  fuse-qkv: {max_kl: 1e-9, max_drift: 1e-3}\n"
                                       "  fuse-swiglu: {min_kernels: 4}\n");
    const char *text = output(f, with_file(f, TINY "--budget", budget), 0);
    has(text,
        "models/tiny/tiny.yaml, weights models/tiny/tiny.gguf, cpu\n"
        "logits over 8 positions: 5 tokens of \"Once upon a time\", then what the pipeline makes of them\n");
    has(text, "\nfuse-swiglu              4 ");
    has(text, "\nfuse-swiglu             12 ");
    has(text, "b.yaml is kept\n");
}

/* Caches have 512 positions by default, where a model takes so many. */
static void a_model_may_take_fewer_positions_than_there_are_by_default(void **state) {
    fixture *f = *state;
    char *text = qgc_arena_strdup(f->arena, output(f, "dump tests/gpu/shapes/smallest.yaml", 0)), *most;
    assert_non_null(most = strstr(text, "max_positions: "));
    assert_non_null(most = strstr(most, "4096"));
    memcpy(most, "  64", 4);
    const char *graph = fixture_write(f, "short.yaml", text);
    has(output(f,
               qgc_arena_printf(
                   f->arena, "ablate '%s' --weights random --device cpu --steps 8 --passes fuse-qkv?", graph),
               0),
        "a decode step with none");
    has(output(f, qgc_arena_printf(f->arena, "search '%s' --weights random --device cpu --most 1", graph), 0),
        "best: ");
    has(output(f, qgc_arena_printf(f->arena, "search '%s' --weights random --device cpu --ctx 65", graph), 2),
        "a context of 65 positions, \"smallest\" can have at most 64");
}

static void a_pass_that_changes_the_result_shows_its_drift_and_breaks_the_budget(void **state) {
    fixture *f = *state;
    const char *budget = fixture_write(f, "b.yaml", "max_kl: 1e-4\n");
    const char *plugin = compile_pass(f, "QGC_OP_RMS_NORM", "eps", "0.5"), *json = fixture_path(f, "x.json");
    const char *text =
        output(f,
               qgc_arena_printf(f->arena, TINY "--load-pass '%s' --budget '%s' --json='%s' --subsets 6",
                                plugin, budget, json),
               1);
    has(text, "b.yaml:1:9: error: pass \"wrong\" in the pipeline changes the logits by a KL divergence of ");
    assert_null(strstr(text, "error: pass \"fuse"));
    assert_null(strstr(text, "note: pass \"fuse"));
    /* Both tables have the drift of this pass, which is no small one, and the file is written all the same. */
    const char *line = strstr(text, "\nwrong ");
    for (int i = 0; i < 2; i++, line = strstr(line + 1, "\nwrong ")) {
        assert_non_null(line);
        char *at = NULL;
        assert_int_equal(strtol(line + strlen("\nwrong"), &at, 10), 0); /* kernels, then bytes */
        assert_int_equal(strtol(at, &at, 10), 0);
        double drift = strtod(at, NULL);
        assert_true(drift > 0.01 && drift < 100);
    }
    qgc_diag d = qgc_diag_new(f->arena);
    qgc_source written;
    assert_int_equal(qgc_file_read(&written, json, 1 << 20, "JSON", &d), QGC_OK);
    has(written.text, "\"pass\": \"wrong\",\n      \"fired\": 9,\n");
    /* A subset with it differs most. */
    static const char subsets[] = "\n6 random subsets in random orders, against no pass: max drift ";
    has(text, subsets);
    assert_true(strtod(strstr(text, subsets) + sizeof subsets - 1, NULL) > 0.01);
    const char *worst = strstr(text, "\nthe largest drift: --passes '");
    assert_non_null(worst);
    assert_non_null(strstr(worst, "wrong"));
    has(written.text, "\"random_subsets\": {\n    \"subsets\": 6,\n");
}

static void a_pass_that_is_wrong_is_an_error_within_any_budget(void **state) {
    fixture *f = *state;
    const char *budget = fixture_write(f, "b.yaml", "max_kl: 1e30\n");
    const char *text =
        output(f,
               qgc_arena_printf(f->arena, TINY "--passes 'wrong,fuse-qkv' --load-pass '%s' --budget '%s'",
                                compile_pass(f, "QGC_OP_ATTENTION", "scale", "3e38"), budget),
               1);
    has(text, "b.yaml is kept\n");
    has(text, "error: pass \"wrong\" makes a graph that computes something else: qgc bisect says where\n");
}

static void writes_json_and_a_chart(void **state) {
    fixture *f = *state;
    const char *json = fixture_path(f, "x.json");
    const char *svg = fixture_path(f, "x.svg");
    output(f, qgc_arena_printf(f->arena, TINY "--passes fuse-qkv --json='%s' --svg '%s'", json, svg), 0);
    qgc_diag d = qgc_diag_new(f->arena);
    qgc_source text;
    assert_int_equal(qgc_file_read(&text, json, 1 << 20, "JSON", &d), QGC_OK);
    has(text.text, "{\n  \"graph\": \"models/tiny/tiny.yaml\",\n");
    has(text.text, "\"positions\": 8,\n");
    has(text.text, "\"pairs\": null,\n");
    assert_int_equal(qgc_file_read(&text, svg, 1 << 20, "SVG", &d), QGC_OK);
    assert_memory_equal(text.text, "<svg ", 5);
    has(text.text, ">fuse-qkv</text>");
}

static void takes_a_text_from_a_file_or_the_line(void **state) {
    fixture *f = *state;
    const char *file = fixture_write(f, "text.txt",
                                     "It is a truth universally acknowledged, that a single man in "
                                     "possession of a good fortune, must be in want of a wife.");
    has(output(f, with_file(f, TINY "--passes fuse-qkv --tokens", file), 0),
        qgc_arena_printf(f->arena, "logits over 8 positions: %s\n", file));
    has(output(f, TINY "--passes fuse-qkv --prompt 'She was'", 0),
        "logits over 8 positions: 2 tokens of \"She was\", then what the pipeline makes of them\n");
}

static void random_weights_need_no_file(void **state) {
    const char *text = output(
        *state, "ablate models/tiny/tiny.yaml --weights random --device cpu --steps 4 --passes fuse-qkv", 0);
    has(text, "models/tiny/tiny.yaml, weights random, cpu\nlogits over 4 positions: random tokens\n");
}

static void refuses_what_does_not_go_together(void **state) {
    fixture *f = *state;
    has(output(f, "ablate models/tiny/tiny.yaml --device cpu", 2), "qgc: error: no weights\n  hint: Give ");
    assert_string_equal(output(f, TINY "--tokens a --prompt b", 2),
                        "qgc: error: two texts are given, --tokens and --prompt\n");
    assert_string_equal(
        output(f, "ablate models/tiny/tiny.yaml --weights random --prompt a", 2),
        "qgc: error: random weights come without a tokenizer, and option --prompt is a text\n");
    has(output(f, TINY "--budget no/such.yaml", 1),
        "no/such.yaml: error: could not open the budget: No such file or directory\n");
    has(output(f, TINY "--prompt ''", 1), "error: the text is empty\n");
    has(output(f, TINY "--pairs 5", 2), "option --pairs is 5, expected 6 to 100000");
    has(output(f, TINY "--mode pdl", 2),
        "qgc: error: option --mode is pdl, and steps run on the CPU, which has no modes\n"
        "  hint: Leave it out, or run on a GPU (--device gpu).\n");
    has(output(f, TINY "--mode graph,fast", 2), "unknown mode \"fast\"");
    has(output(f, TINY "--mode graph,pdl,stream,persistent,auto", 2),
        "option --mode names more than 4 modes");
    has(output(f, TINY "--mode fast", 2),
        "unknown mode \"fast\", expected stream, graph, pdl or persistent\n");
}

static void a_budget_of_times_is_not_checked_without_a_gpu(void **state) {
    fixture *f = *state;
    const char *budget = fixture_write(f, "b.yaml", "min_us: 1000\n");
    has(output(f, with_file(f, TINY "--passes fuse-qkv,fuse-swiglu --budget", budget), 0),
        "b.yaml is kept\nnot checked without a GPU: min_us of 2 passes\n");
}

/* Counted for all tokens at once, compared in pieces, and judged in such steps alone. */
static void steps_of_a_prompt_are_compared_too(void **state) {
    fixture *f = *state;
    const char *text =
        output(f, TINY "--phase prefill --ctx 64 --steps 20 --passes 'fuse-swiglu,split-sample'", 0);
    has(text,
        "\nlogits over 20 positions, 8 at a time: 5 tokens of \"Once upon a time\", then the same again\n");
    has(text, "\na prefill step of 64 tokens with none: 107 kernels, ");
    has(text, "\nsaved such a step by a pass alone, against no pass\n");
    const char *plugin = compile_pass(f, "QGC_OP_RMS_NORM", "eps", "0.5");
    text = output(
        f,
        qgc_arena_printf(f->arena, TINY "--phase prefill --ctx 64 --load-pass '%s' --passes wrong", plugin),
        1);
    has(text, "pass \"wrong\" makes a graph that computes something else");
    output(f, TINY "--phase both", 2);
    output(f, TINY "--phase prefill --steps 1", 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(passes_that_make_groups_only_keep_a_strict_budget),
        FIXTURE_TEST(a_model_may_take_fewer_positions_than_there_are_by_default),
        FIXTURE_TEST(a_pass_that_changes_the_result_shows_its_drift_and_breaks_the_budget),
        FIXTURE_TEST(a_pass_that_is_wrong_is_an_error_within_any_budget),
        FIXTURE_TEST(steps_of_a_prompt_are_compared_too),
        FIXTURE_TEST(writes_json_and_a_chart),
        FIXTURE_TEST(takes_a_text_from_a_file_or_the_line),
        FIXTURE_TEST(random_weights_need_no_file),
        FIXTURE_TEST(refuses_what_does_not_go_together),
        FIXTURE_TEST(a_budget_of_times_is_not_checked_without_a_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
