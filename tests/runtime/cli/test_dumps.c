/* Pipelines in files: the `passes` key, dumps from which work goes on, passes that match nothing. */

#include <glob.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "tests/support/cmocka.h"
#include "tests/support/command.h"
#include "tests/support/fixture.h"
#include "tests/support/plugin.h"
#include "tests/support/text.h"

static const char *output(fixture *f, const char *arguments, int want) {
    return qgc_test_output(f->arena, arguments, want);
}

/* The folder of the dumps. */
static const char *dumps(const fixture *f) {
    return fixture_path(f, "dumps");
}

static glob_t files(fixture *f) {
    glob_t found;
    assert_int_equal(glob(qgc_arena_printf(f->arena, "%s/*.yaml", dumps(f)), 0, NULL, &found), 0);
    return found;
}

static void work_goes_on_from_every_dump(void **state) {
    fixture *f = *state;
    const char *whole =
        output(f,
               qgc_arena_printf(f->arena, "dump models/tiny/tiny.yaml --after plan-memory --dump-passes '%s'",
                                dumps(f)),
               0);
    assert_non_null(strstr(whole, "\npasses: []\n"));
    glob_t found = files(f);
    assert_int_equal(found.gl_pathc, 13); /* 12 passes, and the graph as loaded */
    assert_non_null(strstr(found.gl_pathv[0], "/00-loaded.yaml"));
    assert_non_null(strstr(found.gl_pathv[4], "/04-fuse-qkv.yaml"));
    for (size_t i = 0; i < found.gl_pathc; i++)
        assert_string_equal(
            output(f, qgc_arena_printf(f->arena, "dump '%s' --skip ''", found.gl_pathv[i]), 0), whole);
    globfree(&found);
}

/* The same launches, of kernels that are all in the cache by then. */
static void a_dump_compiles_to_the_same_plan(void **state) {
    fixture *f = *state;
    const char *cache = qgc_test_folder(f->arena), *summary[2];
    for (int i = 0; i < 2; i++) {
        const char *from =
            i ? qgc_arena_printf(f->arena, "'%s/03-fuse-swiglu.yaml'", dumps(f))
              : qgc_arena_printf(f->arena, "models/tiny/tiny.yaml --dump-passes '%s'", dumps(f));
        const char *text =
            output(f,
                   qgc_arena_printf(f->arena, "compile %s --arch sm_90a --cache '%s' -o '%s/a.qgc'", from,
                                    cache, f->folder),
                   0);
        summary[i] = strstr(text, "a.qgc: ");
        assert_non_null(summary[i]);
    }
    qgc_test_folder_drop(f->arena, cache);
    const char *end = strstr(summary[0], " (");
    assert_int_equal(strncmp(summary[0], summary[1], (size_t)(end - summary[0])), 0);
    assert_non_null(strstr(summary[1], " (0 compiled, "));
}

static void the_file_says_which_passes_run(void **state) {
    fixture *f = *state;
    const char *tiny = QGC_SOURCE_DIR "/models/tiny/tiny.yaml";
    const char *absolute = output(f, qgc_arena_printf(f->arena, "dump '%s'", tiny), 0);
    const char *rest = strstr(absolute, "params:");
    const char *path = fixture_write(
        f, "p.yaml",
        qgc_arena_printf(f->arena, "qgc: 2\nname: tiny\narch: qwen2\npasses: [fuse-qkv]\n%s", rest));
    const char *text = output(f, qgc_arena_printf(f->arena, "dump '%s' --after fuse-qkv", path), 0);
    assert_non_null(strstr(text, "fuse: qkv"));
    assert_null(strstr(text, "fuse: mlp"));
    text = output(f, qgc_arena_printf(f->arena, "dump '%s' --passes fuse-swiglu", path), 0);
    assert_null(strstr(text, "fuse: qkv"));
    assert_non_null(strstr(text, "fuse: mlp"));

    path = fixture_write(f, "q.yaml",
                         qgc_arena_printf(f->arena,
                                          "qgc: 2\nname: tiny\narch: qwen2\npasses: \"fuse-qkv, fuse-x\"\n%s",
                                          rest));
    text = output(f, qgc_arena_printf(f->arena, "dump '%s' --skip ''", path), 1);
    assert_non_null(strstr(text, "q.yaml:4:9: error: unknown pass \"fuse-x\"\n"));
    path = fixture_write(
        f, "r.yaml", qgc_arena_printf(f->arena, "qgc: 2\nname: tiny\narch: qwen2\npasses: {a: b}\n%s", rest));
    assert_non_null(
        strstr(output(f, qgc_arena_printf(f->arena, "dump '%s'", path), 1), "r.yaml:4:9: error: "));
}

static void a_named_pass_without_matches_is_an_error_that_says_why(void **state) {
    fixture *f = *state;
    const char *text = output(f, "dump models/tiny/tiny.yaml --passes fuse-embed", 2);
    assert_non_null(strstr(text, "qgc: error: pass \"fuse-embed\" matched nothing\n"));
    assert_non_null(
        strstr(text, qgc_arena_printf(f->arena, "/llama.yaml:%d:5: note: linear(rms_norm(embedding)) at",
                                      line_of("models/llama.yaml", "op: embedding"))));
    assert_non_null(strstr(text, "is a kernel by itself"));
    assert_non_null(strstr(text, "  hint: Write \"fuse-embed?\" if it may match nothing.\n"));
    output(f, "dump models/tiny/tiny.yaml --passes 'fuse-embed?'", 0);
    output(f, "dump models/tiny/tiny.yaml --skip ''", 0); /* dead-code of the whole table finds nothing */
    output(f, "explain models/tiny/tiny.yaml --passes fuse-embed", 0);
}

static void a_crash_leaves_a_file_that_reproduces_it(void **state) {
    fixture *f = *state;
    const char *plugin = plugin_of_pass(f, "crash", "#include <stdlib.h>\n",
                                        "    for (qgc_node *n = c->graph->first; n; n = n->next)\n"
                                        "        if (n->group >= 0)\n"
                                        "            abort();\n"
                                        "    return QGC_OK;");
    int status;
    qgc_test_run(
        f->arena,
        qgc_arena_printf(f->arena,
                         "dump models/tiny/tiny.yaml --passes 'fuse-swiglu,crash,fuse-qkv' --load-pass '%s' "
                         "--dump-passes '%s'",
                         plugin, dumps(f)),
        &status);
    assert_int_equal(status, -1);
    glob_t found = files(f);
    assert_int_equal(found.gl_pathc, 2);
    const char *last = found.gl_pathv[1];
    assert_non_null(strstr(last, "/01-fuse-swiglu.yaml"));
    qgc_test_run(f->arena, qgc_arena_printf(f->arena, "dump '%s' --skip '' --load-pass '%s'", last, plugin),
                 &status);
    assert_int_equal(status, -1);
    const char *text =
        output(f, qgc_arena_printf(f->arena, "dump '%s' --skip crash --load-pass '%s'", last, plugin), 0);
    assert_non_null(strstr(text, "fuse: qkv"));
    globfree(&found);
}

/* The nodes, and the text itself. */
static void a_graph_is_json_too(void **state) {
    fixture *f = *state;
    const char *line = "dump models/tiny/tiny.yaml --passes fuse-qkv";
    const char *text = output(f, line, 0), *path = fixture_path(f, "g.json");
    const char *json = output(f, qgc_arena_printf(f->arena, "%s --json", line), 0);
    qgc_source file;
    assert_int_equal(json[0], '{');
    has(json, "\"name\": \"tiny\"");
    has(json, "\"op\": \"linear\",\n      \"in\": [\n        \"h[3]\",\n        \"wq[3]\"");
    has(json, "\"shape\": \"[T, 192]\"");
    has(json, "\"scale\": 0.17677669529663689"); /* to the last bit */
    has(json, "\"group\": \"qkv\",\n      \"layer\": 3");
    has(json, "\"yaml\": \"qgc: 2");
    assert_string_equal(output(f, qgc_arena_printf(f->arena, "%s --json='%s'", line, path), 0), text);
    ok(f, qgc_file_read(&file, path, 1 << 24, "it", &f->diag));
    assert_string_equal(file.text, json);
    has(output(f, qgc_arena_printf(f->arena, "%s --format dot --json", line), 0), "\"dot\": \"digraph");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(work_goes_on_from_every_dump),
        FIXTURE_TEST(a_dump_compiles_to_the_same_plan),
        FIXTURE_TEST(the_file_says_which_passes_run),
        FIXTURE_TEST(a_named_pass_without_matches_is_an_error_that_says_why),
        FIXTURE_TEST(a_graph_is_json_too),
        FIXTURE_TEST(a_crash_leaves_a_file_that_reproduces_it),
    };
    return cmocka_run_group_tests_name("cli/dumps", tests, NULL, NULL);
}
