#include <string.h>

#include "graph/load.h"
#include "passes/edit.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"
#include "tests/support/usual.h"

typedef struct {
    const char *passes, *skip;
    qgc_pass_edits edits;
    const char *want; /* a pipeline, or the error */
} edit_case;

static const edit_case cases[] = {
    {"dead-code,fuse-qkv", NULL, {.before = "fuse-qkv=fuse-swiglu"}, "dead-code,fuse-swiglu,fuse-qkv"},
    {"dead-code,fuse-qkv", NULL, {.after = "fuse-qkv=fuse-swiglu?"}, "dead-code,fuse-qkv,fuse-swiglu?"},
    {"dead-code,fuse-qkv", NULL, {.before = "dead-code=fuse-qkv"}, "fuse-qkv,dead-code"},
    {"dead-code?, fuse-qkv", NULL, {.after = "fuse-qkv=dead-code"}, "fuse-qkv,dead-code"},
    {"fuse-qkv,dead-code,fuse-qkv", NULL, {.before = "dead-code=fuse-qkv"}, "fuse-qkv,dead-code"},
    {"dead-code,fuse-qkv", NULL, {.without = "fuse-qkv"}, "dead-code"},
    {"dead-code,fuse-qkv", "dead-code", {.without = "fuse-qkv"}, ""},
    {"dead-code,fuse-qkv", NULL, {.replace = "dead-code=fuse-qkv"}, "fuse-qkv"},
    {"dead-code,fuse-pointwise",
     NULL,
     {.replace = "fuse-pointwise=fuse-pointwise(max=4)"},
     "dead-code,fuse-pointwise(max=4)"},
    {"fuse-pointwise(max=3)?,dead-code",
     NULL,
     {.after = "fuse-pointwise=split-attention(parts=8),dead-code=fuse-qkv"},
     "fuse-pointwise(max=3)?,split-attention(parts=8),dead-code,fuse-qkv"},
    {"dead-code,fuse-qkv",
     NULL,
     {.without = "dead-code", .replace = "fuse-qkv=fuse-swiglu", .before = "fuse-swiglu=dead-code"},
     "dead-code,fuse-swiglu"},
    {"", NULL, {0}, ""},
    {"dead-code", NULL, {.without = "fuse-qkv"}, "pass \"fuse-qkv\" is not in the pipeline"},
    {"dead-code", NULL, {.before = "fuse-qkv=dead-code"}, "pass \"fuse-qkv\" is not in the pipeline"},
    {"dead-code", NULL, {.before = "dead-code"}, "option --before is \"dead-code\", expected PASS=PASS"},
    {"dead-code", NULL, {.after = "dead-code="}, "option --after is \"dead-code=\", expected PASS=PASS"},
    {"dead-code", NULL, {.replace = "=dead-code"}, "option --replace is \"=dead-code\", expected PASS=PASS"},
    {"dead-code",
     NULL,
     {.after = "dead-code=dead-code"},
     "option --after puts pass \"dead-code\" beside itself"},
    {"dead-code", NULL, {.after = "dead-code=fuse-qkw"}, "unknown pass \"fuse-qkw\""},
    {"dead-code", NULL, {.without = "fuse-qkw"}, "unknown pass \"fuse-qkw\""},
    {"nothing", NULL, {0}, "unknown pass \"nothing\""},
};

static void edits_are_put_into_the_line(void **state) {
    fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qgc_diag d = qgc_diag_new(f->arena);
        const char *got = NULL;
        if (qgc_pass_pipeline(&got, NULL, cases[i].passes, cases[i].skip, &cases[i].edits, &d) != QGC_OK)
            got = qgc_diag_message(&d);
        if (strcmp(got, cases[i].want) != 0)
            fail_msg("case %zu: \"%s\", not \"%s\"", i, got, cases[i].want);
    }
}

/* Of the file of a graph, or the default, whose passes may match nothing; what is printed can be run. */
static void a_pipeline_that_is_not_given_is_that_of_the_file(void **state) {
    fixture *f = *state;
    const qgc_pass_edits before = {.before = "fuse-swiglu=fuse-qkv"};
    const char *text;
    qgc_graph *g;
    ok(f, qgc_graph_load(&g, "models/tiny/tiny.yaml", f->arena, &f->diag));
    ok(f, qgc_pass_pipeline(&text, g, NULL, NULL, &before, &f->diag));
    assert_memory_equal(text, "dead-code?,split-sample?,fuse-qkv,fuse-swiglu?,fuse-rope-append?,", 63);
    qgc_pass_report report;
    ok(f, qgc_passes_run(g, &(qgc_pass_options){.passes = text, .want_matches = true}, &report, &f->diag));
    assert_int_equal(report.n_runs, usual_passes());
    g->passes = "split-sample,fuse-swiglu";
    ok(f, qgc_pass_pipeline(&text, g, NULL, NULL, &before, &f->diag));
    assert_string_equal(text, "split-sample,fuse-qkv,fuse-swiglu");
    ok(f, qgc_pass_pipeline(&text, g, "dead-code", NULL, &(qgc_pass_edits){0}, &f->diag));
    assert_string_equal(text, "dead-code");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(edits_are_put_into_the_line),
        FIXTURE_TEST(a_pipeline_that_is_not_given_is_that_of_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
