/* qgc view, as a user calls it. */

#include <string.h>

#include "graph/base/file.h"
#include "tests/support/cmocka.h"
#include "tests/support/command.h"
#include "tests/support/fixture.h"
#include "tests/support/text.h"

#define TINY "view models/tiny/tiny.yaml "

static const char *page_path(const fixture *f) {
    return fixture_path(f, "page.html");
}

static const char *page_of(fixture *f, const char *arguments) {
    qgc_source page;
    qgc_test_output(f->arena, qgc_arena_printf(f->arena, TINY "-o '%s' %s", page_path(f), arguments), 0);
    ok(f, qgc_file_read(&page, page_path(f), 1 << 24, "page", &f->diag));
    return page.text;
}

static void writes_a_page(void **state) {
    fixture *f = *state;
    const char *told = qgc_test_output(
        f->arena, qgc_arena_printf(f->arena, TINY "--passes fuse-qkv,fuse-swiglu -o '%s'", page_path(f)), 0);
    has(told, qgc_arena_printf(f->arena, "%s: 2 passes, ", page_path(f)));
    const char *page = page_of(f, "");
    assert_memory_equal(page, "<!DOCTYPE html>\n", 16);
    has(page, "<span class=\"place\">models/tiny/tiny.yaml</span>");
    has(page, "data-node=\"q[1]\"");
    assert_string_equal(page + strlen(page) - 8, "</html>\n");
}

static void takes_a_layer_and_passes(void **state) {
    fixture *f = *state;
    has(page_of(f, "--layer 3"), "data-node=\"q[3]\"");
    const char *page = page_of(f, "--passes 'fuse-pointwise(max=4),fuse-qkv?,fuse-embed' --skip fuse-qkv");
    has(page, "<h2>fuse-pointwise(max=4)</h2>");
    has(page, "id=\"after=fuse-embed\"");
    assert_null(strstr(page, "id=\"after=fuse-qkv\""));
}

/* What goes wrong writes no page. */
static void fails(fixture *f, const char *arguments, int status, const char *want) {
    has(qgc_test_output(f->arena, qgc_arena_printf(f->arena, "view %s -o '%s'", arguments, page_path(f)),
                        status),
        want);
    assert_false(qgc_file_exists(page_path(f)));
}

static void weights_have_to_be_those_of_the_graph(void **state) {
    fixture *f = *state;
    fails(f, "models/tiny/tiny.yaml --weights no-such.gguf", 1, "no-such.gguf");
    fails(f, "models/qwen2.5-0.5b.yaml --weights models/tiny/tiny.gguf", 1, "24");
    has(page_of(f, "--weights models/tiny/tiny.gguf"), "data-node=\"q[1]\"");
    has(page_of(f, "--weights random"), "data-node=\"q[1]\"");
}

static void says_what_is_wrong(void **state) {
    fixture *f = *state;
    fails(f, "models/tiny/tiny.yaml --layer 4", 2,
          "qgc: error: the graph has no layer 4: its layers are 0 to 3\n");
    fails(f, "models/tiny/tiny.yaml --layer x", 2, "option --layer");
    fails(f, "models/tiny/tiny.yaml --passes fuse-qvk", 2, "Did you mean \"fuse-qkv\"?");
    fails(f, "models/tiny/tiny.yaml --bench models/tiny/tiny.yaml", 1,
          "models/tiny/tiny.yaml: error: is no file of qgc bench: line 1 is no JSON");
    fails(f, "no-such.yaml", 1, "no-such.yaml");
    fails(f, "", 2, "GRAPH.yaml");
    has(qgc_test_output(f->arena, TINY "-o no/such/folder/x.html", 1),
        "no/such/folder/x.html: error: could not write the file: No such file or directory\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(writes_a_page),
        FIXTURE_TEST(takes_a_layer_and_passes),
        FIXTURE_TEST(weights_have_to_be_those_of_the_graph),
        FIXTURE_TEST(says_what_is_wrong),
    };
    return cmocka_run_group_tests_name("cli/view", tests, NULL, NULL);
}
