#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "graph/eval.h"
#include "graph/load.h"
#include "models/weights.h"
#include "passes/bind_weights.h"
#include "passes/load.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"
#include "tests/support/plugin.h"
#include "tests/support/text.h"

static qgc_graph *load(fixture *f) {
    qgc_graph *g;
    ok(f, qgc_graph_load(&g, "models/tiny/tiny.yaml", f->arena, &f->diag));
    return g;
}

static void refuses(fixture *f, const char *path, const char *want) {
    qgc_diag d = qgc_diag_new(f->arena);
    size_t n = qgc_pass_count();
    assert_int_equal(qgc_passes_load(path, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_test_printed(f->arena, &d), want);
    assert_int_equal(qgc_pass_count(), n);
}

/* --- the guide ------------------------------------------------------------------------------------------- */

/* The blocks of C of a page, one after the other. */
static const char *blocks_of_c(fixture *f, const char *path) {
    qgc_file file;
    ok(f, qgc_file_open(&file, path, &f->diag));
    const char *text = qgc_arena_strndup(f->arena, (const char *)file.data, file.bytes);
    qgc_file_close(&file);
    qgc_str out = qgc_str_new(f->arena);
    while ((text = strstr(text, "```c\n"))) {
        const char *start = text + strlen("```c\n"), *end = strstr(start, "```\n");
        assert_non_null(end);
        qgc_str_add_bytes(&out, start, (size_t)(end - start));
        text = end + strlen("```\n");
    }
    return out.text;
}

/* What the last layer and what is after it compute, groups in brackets. */
static const char *tail_of(fixture *f, const qgc_graph *g) {
    qgc_str text = qgc_str_new(f->arena);
    const qgc_node *n = g->last;
    while (n->prev && n->op != QGC_OP_ATTENTION)
        n = n->prev;
    for (; n; n = n->next) {
        bool opens = n->group >= 0 && (!n->prev || n->prev->group != n->group);
        bool closes = n->group >= 0 && (!n->next || n->next->group != n->group);
        qgc_str_printf(&text, "%s%s%s%s", text.bytes ? " " : "", opens ? "(" : "", n->out[0]->name,
                       closes ? ")" : "");
    }
    return text.text;
}

static void evaluate(fixture *f, qgc_graph *g, float *logits, int64_t vocab) {
    const int32_t tokens[] = {5, 300, 41, 7, 1000};
    const qgc_tensor **tensors;
    qgc_weights *w;
    ok(f, qgc_weights_open(&w, "models/tiny/tiny.gguf", &f->diag));
    ok(f, qgc_graph_bind(g, w, false, &tensors, &f->diag));
    qgc_pool *pool = qgc_pool_new(1);
    qgc_eval *e = qgc_eval_new(g, tensors, 64, 5, pool);
    ok(f, qgc_eval_step(e, tokens, 5, 0, false, &f->diag));
    int64_t n;
    memcpy(logits, qgc_eval_value(e, qgc_graph_output(g, "logits"), &n), (size_t)vocab * sizeof *logits);
    assert_int_equal(n, vocab);
    qgc_eval_drop(e);
    qgc_pool_drop(pool);
    qgc_weights_close(w);
}

static void the_guide_builds_a_pass_that_works(void **state) {
    fixture *f = *state;
    const char *text = blocks_of_c(f, "docs/adding_a_pass.md");
    assert_true(count(text, "\n") > 10 && count(text, "\n") < 60);
    size_t n = qgc_pass_count();
    ok(f, qgc_passes_load(plugin_compile(f, "select_early", text), &f->diag));
    assert_int_equal(qgc_pass_count(), n + 1);
    assert_string_equal(qgc_pass_at(n)->name, "select-early");

    qgc_graph *plain = load(f), *early = load(f);
    assert_string_equal(tail_of(f, plain),
                        "a o x_mid m gate up act ff down x x_rows x_out logits seen_now next");
    qgc_pass_report r;
    ok(f, qgc_passes_run(early, &(qgc_pass_options){.passes = "select-early"}, &r, &f->diag));
    assert_string_equal(tail_of(f, early),
                        "a a_rows o x_rows x_mid m gate up act ff down x x_out logits seen_now next");
    ok(f, qgc_passes_run(early, &(qgc_pass_options){.passes = "fuse-swiglu,fuse-residual,fuse-norm-linear"},
                         &r, &f->diag));
    assert_string_equal(tail_of(f, early), "a a_rows x_rows (o x_mid) (m gate up act ff) (down x) "
                                           "(x_out logits) seen_now next");
    enum { VOCAB = 1536 };
    float want[VOCAB], got[VOCAB];
    evaluate(f, plain, want, VOCAB);
    evaluate(f, early, got, VOCAB);
    for (int i = 0; i < VOCAB; i++)
        if (!(fabsf(got[i] - want[i]) <= 2e-4f))
            fail_msg("logit %d is %g, not %g", i, (double)got[i], (double)want[i]);

    ok(f, qgc_passes_run(plain, &(qgc_pass_options){0}, &r, &f->diag)); /* after all others */
    const qgc_pass_run *last = &r.runs[r.n_runs - 1];
    assert_string_equal(last->name, "select-early");
    assert_int_equal(last->n_fired, 0);
    assert_int_equal(last->n_events, 1);
    assert_string_equal(last->events[0].text, "\"x\" is in a group");
}

/* --- what can be wrong with a plug-in -------------------------------------------------------------------- */

static void names_a_plugin_that_is_not_there(void **state) {
    refuses(*state, "no/such.so",
            "qgc: error: could not open plug-in \"no/such.so\": No such file or directory\n");
}

static void names_a_plugin_that_is_no_shared_object(void **state) {
    fixture *f = *state;
    const char *path = qgc_test_write(f->arena, f->folder, "text.so", "hello", 5);
    assert_int_equal(qgc_passes_load(path, &f->diag), QGC_ERR_INPUT);
    const char *want = qgc_arena_printf(f->arena, "could not load plug-in \"%s\": ", path);
    assert_memory_equal(qgc_diag_message(&f->diag), want, strlen(want));
}

static void names_a_plugin_without_its_function(void **state) {
    fixture *f = *state;
    const char *path = plugin_compile(f, "empty", "int nothing;\n");
    refuses(f, path,
            qgc_arena_printf(f->arena, "qgc: error: plug-in \"%s\" has no function qgc_pass_plugin\n", path));
}

static void names_both_versions_where_they_differ(void **state) {
    fixture *f = *state;
    const char *path = plugin_of_pass(f, "old", "#define QGC_PASS_ABI 7\n", "return QGC_OK;");
    refuses(f, path,
            qgc_arena_printf(f->arena,
                             "qgc: error: plug-in \"%s\" has ABI version 7, and this qgc has %d\n"
                             "  hint: Compile it against the headers of this qgc.\n",
                             path, QGC_PASS_ABI));
}

static void names_a_pass_that_is_there_already(void **state) {
    fixture *f = *state;
    const char *path = plugin_of_pass(f, "fuse-qkv", "", "return QGC_OK;");
    refuses(f, path,
            qgc_arena_printf(f->arena,
                             "qgc: error: plug-in \"%s\" brings pass \"fuse-qkv\", which is there already\n",
                             path));

    path = plugin_of_pass(f, "twice", "", "return QGC_OK;");
    ok(f, qgc_passes_load(path, &f->diag));
    refuses(f, path,
            qgc_arena_printf(f->arena,
                             "qgc: error: plug-in \"%s\" brings pass \"twice\", which is there already\n",
                             path));
}

static void names_a_row_that_no_pipeline_could_hold(void **state) {
    fixture *f = *state;
    const char *path = plugin_of_pass(f, "a,b", "", "return QGC_OK;");
    refuses(f, path,
            qgc_arena_printf(f->arena,
                             "qgc: error: plug-in \"%s\" names a pass \"a,b\", expected a name without "
                             "( ) , = and blanks\n",
                             path));
    const char *text = "#include \"passes/load.h\"\n"
                       "static const qgc_pass_info p[] = {{\"hollow\", 0, 0, \"a test\"}, {0}};\n"
                       "static const qgc_pass_rows rows = {.abi = QGC_PASS_ABI, .passes = p};\n"
                       "const qgc_pass_rows *qgc_pass_plugin(void) { return &rows; }\n";
    path = plugin_compile(f, "hollow", text);
    refuses(
        f, path,
        qgc_arena_printf(f->arena, "qgc: error: pass \"hollow\" of plug-in \"%s\" has no function\n", path));
}

static void an_error_in_a_pass_names_it_and_its_plugin(void **state) {
    fixture *f = *state;
    const char *path = plugin_of_pass(
        f, "breaks", "",
        "qgc_graph_remove(c->graph, c->graph->first);\n    return QGC_OK; /* somebody reads it */");
    ok(f, qgc_passes_load(path, &f->diag));
    qgc_graph *g = load(f);
    qgc_pass_report r;
    assert_int_equal(qgc_passes_run(g, &(qgc_pass_options){.passes = "breaks"}, &r, &f->diag), QGC_ERR_INPUT);
    const char *text = qgc_test_printed(f->arena, &f->diag);
    assert_non_null(strstr(text, "error: rms_norm \"h[0]\" reads \"x\", which no node makes any more\n"));
    assert_non_null(
        strstr(text, qgc_arena_printf(f->arena, "  while: running pass breaks of plug-in \"%s\"\n", path)));
}

static void a_pass_that_fails_without_a_word_is_named(void **state) {
    fixture *f = *state;
    const char *path = plugin_of_pass(f, "silent", "", "return QGC_ERR_INPUT;");
    ok(f, qgc_passes_load(path, &f->diag));
    qgc_pass_report r;
    assert_int_equal(qgc_passes_run(load(f), &(qgc_pass_options){.passes = "silent"}, &r, &f->diag),
                     QGC_ERR_INPUT);
    assert_string_equal(qgc_test_printed(f->arena, &f->diag),
                        qgc_arena_printf(f->arena,
                                         "qgc: error: pass \"silent\" failed and does not say why\n"
                                         "  while: running pass silent of plug-in \"%s\"\n",
                                         path));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(the_guide_builds_a_pass_that_works),
        FIXTURE_TEST(names_a_plugin_that_is_not_there),
        FIXTURE_TEST(names_a_plugin_that_is_no_shared_object),
        FIXTURE_TEST(names_a_plugin_without_its_function),
        FIXTURE_TEST(names_both_versions_where_they_differ),
        FIXTURE_TEST(names_a_pass_that_is_there_already),
        FIXTURE_TEST(names_a_row_that_no_pipeline_could_hold),
        FIXTURE_TEST(an_error_in_a_pass_names_it_and_its_plugin),
        FIXTURE_TEST(a_pass_that_fails_without_a_word_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
