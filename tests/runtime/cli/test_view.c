/* qgc view, as a user calls it. */

#include <string.h>

#include "graph/base/file.h"
#include "tests/support/cmocka.h"
#include "tests/support/command.h"
#include "tests/support/folder.h"

#define TINY "view models/tiny/tiny.yaml "

typedef struct {
    qgc_arena *arena;
    const char *folder, *page;
} fixture;

static int setup(void **state) {
    qgc_arena *arena = qgc_arena_new();
    fixture *f = qgc_arena_alloc(arena, sizeof *f);
    const char *folder = qgc_test_folder(arena);
    *f = (fixture){arena, folder, qgc_test_path(arena, folder, "page.html")};
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    qgc_test_folder_drop(f->arena, f->folder);
    qgc_arena_drop(f->arena);
    return 0;
}

static const char *page_of(fixture *f, const char *arguments) {
    qgc_diag d = qgc_diag_new(f->arena);
    qgc_source page;
    qgc_test_output(f->arena, qgc_arena_printf(f->arena, TINY "-o '%s' %s", f->page, arguments), 0);
    assert_int_equal(qgc_file_read(&page, f->page, 1 << 24, "page", &d), QGC_OK);
    return page.text;
}

static void has(const char *text, const char *want) {
    if (!strstr(text, want))
        fail_msg("\"%s\" is not there", want);
}

static void writes_a_page(void **state) {
    fixture *f = *state;
    const char *told = qgc_test_output(
        f->arena, qgc_arena_printf(f->arena, TINY "--passes fuse-qkv,fuse-swiglu -o '%s'", f->page), 0);
    has(told, qgc_arena_printf(f->arena, "%s: 2 passes, ", f->page));
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

static void weights_have_to_be_those_of_the_graph(void **state) {
    fixture *f = *state;
    has(page_of(f, "--weights models/tiny/tiny.gguf"), "data-node=\"q[1]\"");
    has(page_of(f, "--weights random"), "data-node=\"q[1]\"");
    has(qgc_test_output(f->arena, TINY "--weights no-such.gguf -o '/dev/null'", 1), "no-such.gguf");
    has(qgc_test_output(f->arena,
                        "view models/qwen2.5-0.5b.yaml --weights models/tiny/tiny.gguf -o '/dev/null'", 1),
        "24");
}

static void says_what_is_wrong(void **state) {
    fixture *f = *state;
    qgc_arena *a = f->arena;
    assert_string_equal(qgc_test_output(a, TINY "--layer 4 -o '/dev/null'", 2),
                        "qgc: error: the graph has no layer 4: its layers are 0 to 3\n");
    has(qgc_test_output(a, TINY "--layer x", 2), "option --layer");
    has(qgc_test_output(a, TINY "--passes fuse-qvk", 2), "Did you mean \"fuse-qkv\"?");
    has(qgc_test_output(a, TINY "-o no/such/folder/x.html", 1), "error: could not");
    has(qgc_test_output(a, TINY "--bench models/tiny/tiny.yaml -o '/dev/null'", 1),
        "models/tiny/tiny.yaml: error: is no file of qgc bench: line 1 is no JSON");
    has(qgc_test_output(a, "view no-such.yaml", 1), "no-such.yaml");
    has(qgc_test_output(a, "view", 2), "GRAPH.yaml");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(writes_a_page),
        TEST(takes_a_layer_and_passes),
        TEST(weights_have_to_be_those_of_the_graph),
        TEST(says_what_is_wrong),
    };
    return cmocka_run_group_tests_name("cli/view", tests, NULL, NULL);
}
