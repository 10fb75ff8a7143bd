/* qgc view, as a user calls it. */

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

static void says_as_json_what_it_drew(void **state) {
    fixture *f = *state;
    const char *line = qgc_arena_printf(f->arena, TINY "--passes fuse-qkv,fuse-swiglu -o '%s'", page_path(f));
    const char *json = qgc_test_output(f->arena, qgc_arena_printf(f->arena, "%s --json", line), 0);
    assert_int_equal(json[0], '{');
    has(json, qgc_arena_printf(f->arena, "\"page\": \"%s\"", page_path(f)));
    has(json, "\"name\": \"fuse-swiglu\",\n      \"fired\": ");
    const char *told =
        qgc_test_output(f->arena, qgc_arena_printf(f->arena, "%s --json='%s/v.json'", line, f->folder), 0);
    has(told, ": 2 passes, ");
    assert_true(qgc_file_exists(fixture_path(f, "v.json")));
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

static void kernels_have_their_bytes_without_times(void **state) {
    fixture *f = *state;
    const char *page = page_of(f, "--weights models/tiny/tiny.gguf");
    has(page,
        "Bytes of weights and caches that they read at position 512, and the least time that this takes on a h100-sxm");
    has(page, "<td><code>mlp</code></td><td><code>linear.cu</code></td><td>4</td><td class=\"meter\">");
    has(page, "<span class=\"takes\">");
    has(page_of(f, "--card t4"), "takes on a t4");
}

/* Changes of what is drawn, layer 1, and not of other layers. */
static void changes_can_be_gone_through(void **state) {
    fixture *f = *state;
    const char *page = page_of(f, "--passes fuse-qkv");
    has(page,
        "<section class=\"stage change\" id=\"after=fuse-qkv.3\" data-stage=\"fuse-qkv.3\" data-of=\"fuse-qkv\">");
    assert_null(strstr(page, "data-stage=\"fuse-qkv.1\""));
    has(page, "<p class=\"summary\">Change 3 of the pass.</p>");
    has(page, "layer 1 (of 0 to 3)");
    has(page, "class=\"legend\"");
}

static void two_pipelines_stand_side_by_side(void **state) {
    fixture *f = *state;
    const char *page = page_of(f, "--passes fuse-qkv --against fuse-swiglu,fuse-residual");
    has(page, "<code>fuse-qkv</code></p><iframe");
    has(page, "<code>fuse-swiglu,fuse-residual</code></p><iframe");
    has(page, "data-stage=&quot;fuse-residual&quot;");
    has(qgc_test_output(
            f->arena,
            qgc_arena_printf(f->arena, TINY "--against no-such -o '%s'", fixture_path(f, "no.html")), 2),
        "unknown pass \"no-such\"");
}

/* The pass and the value that are at fault are shown at first, and what was said of them. */
static void bisect_writes_the_page_too(void **state) {
    fixture *f = *state;
    const char *plugin = plugin_of_pass(f, "wrong", "",
                                        "    for (qgc_node *n = c->graph->first; n; n = n->next)\n"
                                        "        if (n->op == QGC_OP_RMS_NORM && n->layer == 2) {\n"
                                        "            n->attr[0].number = 0.5;\n"
                                        "            c->run->n_fired++;\n"
                                        "        }\n"
                                        "    return QGC_OK;");
    qgc_test_output(
        f->arena,
        qgc_arena_printf(f->arena,
                         "bisect models/tiny/tiny.yaml --weights models/tiny/tiny.gguf --device cpu "
                         "--load-pass '%s' --passes split-attention,wrong --view '%s'",
                         plugin, page_path(f)),
        1);
    qgc_source page;
    ok(f, qgc_file_read(&page, page_path(f), 1 << 24, "page", &f->diag));
    has(page.text, "<main data-first=\"wrong\" data-node=\"h[2]\">");
    has(page.text, "<pre class=\"said\">");
    has(page.text, "layer 2 (of 0 to 3)");
}

/* What the script makes of the page, where there is a browser. */
static void a_browser_shows_what_the_address_says(void **state) {
    fixture *f = *state;
    if (system("command -v chromium >/dev/null") != 0)
        skip();
    page_of(f, "--passes fuse-qkv,fuse-swiglu");
    int ended;
    const char *text = qgc_test_shell_run(
        f->arena,
        qgc_arena_printf(
            f->arena,
            "timeout 1200 chromium --headless=new --no-sandbox --disable-gpu --user-data-dir='%s' "
            "--window-size=1400,900 --dump-dom 'file://%s#after=fuse-qkv&node=q' 2>/dev/null; "
            "rm -rf '%s'",
            fixture_path(f, "browser"), page_path(f), fixture_path(f, "browser")),
        &ended);
    if (!*text)
        skip(); /* it does not start here */
    has(text, "data-after=\"fuse-qkv\"");
    has(text, "data-node=\"q[1]\"");
    assert_null(strstr(text, "id=\"after=fuse-qkv\"")); /* so that nothing scrolls away */
    has(text, "<aside id=\"detail\">");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(writes_a_page),
        FIXTURE_TEST(says_as_json_what_it_drew),
        FIXTURE_TEST(takes_a_layer_and_passes),
        FIXTURE_TEST(weights_have_to_be_those_of_the_graph),
        FIXTURE_TEST(says_what_is_wrong),
        FIXTURE_TEST(kernels_have_their_bytes_without_times),
        FIXTURE_TEST(changes_can_be_gone_through),
        FIXTURE_TEST(two_pipelines_stand_side_by_side),
        FIXTURE_TEST(bisect_writes_the_page_too),
        FIXTURE_TEST(a_browser_shows_what_the_address_says),
    };
    return cmocka_run_group_tests_name("cli/view", tests, NULL, NULL);
}
