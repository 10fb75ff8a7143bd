/* Passes from outside that crash, abort, end the process or hang: the command names them, and leaves the
 * graph. */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "tests/support/fixture.h"
#include "tests/support/plugin.h"
#include "tests/support/shell.h"
#include "tests/support/text.h"

#define TINY "'" QGC_SOURCE_DIR "/models/tiny/tiny.yaml'"
#define WITH_WEIGHTS TINY " --weights '" QGC_SOURCE_DIR "/models/tiny/tiny.gguf' --device cpu --steps 4 -q"

/* The fault comes with the third change. */
static const char passes_text[] =
    "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n"
    "#include \"passes/load.h\"\n#include \"passes/rewrite.h\"\n"
    "static int kind;\n"
    "static volatile int spins;\n"
    "static int *volatile nowhere;\n"
    "static void fail(void) {\n"
    "    if (kind == 0) *nowhere = 1;\n"
    "    if (kind == 1) abort();\n"
    "    if (kind == 2) exit(0);\n"
    "    if (kind == 3) _exit(0);\n"
    "    while (kind == 4) spins++;\n"
    "}\n"
    "static bool apply(qgc_rewriter *rw, const qgc_match *m) {\n"
    "    if (strcmp(m->root->out[0]->name, \"act\") != 0) return false;\n"
    "    if (m->root->layer == 2) fail();\n"
    "    qgc_node *n = qgc_insert(rw, m->root, QGC_OP_SILU, \"act_now\", m->root->in, 1);\n"
    "    qgc_settle(rw, n);\n"
    "    qgc_replace(rw, m->root->out[0], n->out[0]);\n"
    "    qgc_erase(rw, m->root);\n"
    "    return true;\n"
    "}\n"
    "static const qgc_rule rules[] = {{\"silu again\", P(ANY, SILU, V(0)), apply}, {0}};\n"
    "#define PASS_OF(name, k) \\\n"
    "    static qgc_status name(qgc_pass_context *c, qgc_diag *d) { kind = k; return qgc_rewrite(c, rules, d); }\n"
    "PASS_OF(crash, 0)\nPASS_OF(abort_it, 1)\nPASS_OF(end, 2)\nPASS_OF(end_at_once, 3)\nPASS_OF(hang, 4)\n"
    "static qgc_status bare(qgc_pass_context *c, qgc_diag *d) {\n"
    "    (void)c; (void)d; *nowhere = 1; return QGC_OK;\n}\n"
    "static bool break_it(qgc_rewriter *rw, const qgc_match *m) {\n"
    "    (void)rw;\n"
    "    if (m->root->layer != 1 || m->root->n_in == 1) return false;\n"
    "    m->root->n_in = 1;\n"
    "    return true;\n"
    "}\n"
    "static const qgc_rule breaking[] = {{\"one input\", P(ANY, MUL, V(0)), break_it}, {0}};\n"
    "static qgc_status invalid(qgc_pass_context *c, qgc_diag *d) { return qgc_rewrite(c, breaking, d); }\n"
    "static qgc_status events(qgc_pass_context *c, qgc_diag *d) {\n"
    "    (void)d; c->run->n_events = 3; return QGC_OK;\n}\n"
    "static qgc_status gives_up(qgc_pass_context *c, qgc_diag *d) { (void)c; (void)d; return QGC_ERR_INPUT; }\n"
    "static qgc_status wild(qgc_pass_context *c, qgc_diag *d) {\n"
    "    (void)d; c->graph->first->next->in[0] = (qgc_value *)64; return QGC_OK;\n}\n"
    "static qgc_status prints(qgc_pass_context *c, qgc_diag *d) {\n"
    "    (void)c; (void)d; c->run->n_fired++; printf(\"it runs\\n\"); return QGC_OK;\n}\n"
    "const qgc_pass_rows *qgc_pass_plugin(void) {\n"
    "    static const qgc_pass_info p[] = {\n"
    "        {\"crash\", crash, 0, \"x\"}, {\"abort\", abort_it, 0, \"x\"}, {\"end\", end, 0, \"x\"},\n"
    "        {\"end-at-once\", end_at_once, 0, \"x\"}, {\"hang\", hang, 0, \"x\"}, {\"bare\", bare, 0, \"x\"},\n"
    "        {\"invalid\", invalid, 0, \"x\"}, {\"events\", events, 0, \"x\"}, {\"gives-up\", gives_up, 0, \"x\"}, {\"wild\", wild, 0, \"x\"},\n"
    "        {\"prints\", prints, 0, \"x\"}, {0}};\n"
    "    static const qgc_pass_rows rows = {.abi = QGC_PASS_ABI, .passes = p};\n"
    "    return &rows;\n"
    "}\n";

/* What qgc prints in the fixture's folder. */
static const char *output(const fixture *f, const char *arguments, int want) {
    return qgc_test_shell(
        f->arena, qgc_arena_printf(f->arena, "cd '%s' && '" QGC_COMMAND "' %s", f->folder, arguments), want);
}

static const char *read_file(fixture *f, const char *name) {
    qgc_source file;
    ok(f, qgc_file_read(&file, fixture_path(f, name), 1 << 20, "file", &f->diag));
    return file.text;
}

static void a_pass_that_does_not_return_is_named(void **state) {
    fixture *f = *state;
    const char *plugin = plugin_compile(f, "p", passes_text);
    static const struct {
        const char *pass, *what;
    } cases[] = {{"crash", "pass \"crash\" "},
                 {"abort", "pass \"abort\" "},
                 {"end", "pass \"end\" ended the process with exit code 0"},
                 {"end-at-once", "pass \"end-at-once\" ended the process with exit code 0"},
                 {"hang", "pass \"hang\" did not end within 1 seconds"}};
    static const char *const commands[] = {"bisect " WITH_WEIGHTS, "ablate " WITH_WEIGHTS,
                                           "search " WITH_WEIGHTS, "dump " TINY " --contain"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t k = 0; k < sizeof commands / sizeof *commands; k++) {
            const char *file = qgc_arena_printf(f->arena, "before-%s.yaml", cases[i].pass);
            unlink(fixture_path(f, file));
            const char *text = output(
                f,
                qgc_arena_printf(f->arena, "%s --load-pass '%s' --passes 'split-attention,%s,fuse-qkv'%s",
                                 commands[k], plugin, cases[i].pass,
                                 strcmp(cases[i].pass, "hang") == 0 ? " --pass-limit 1" : ""),
                1);
            has(text, cases[i].what);
            has(text, "change 3, rule \"silu again\" at \"act[2]\"");
            has(text, file);
            /* two changes have been made, and the pass is still to be run */
            const char *yaml = read_file(f, file);
            has(yaml, "act_now");
            has(yaml, cases[i].pass);
            has(yaml, "attention_merge");
        }
}

static void what_was_left_shows_the_same(void **state) {
    fixture *f = *state;
    const char *plugin = plugin_compile(f, "p", passes_text);
    output(f,
           qgc_arena_printf(
               f->arena, "bisect " WITH_WEIGHTS " --load-pass '%s' --passes split-attention,crash,fuse-qkv",
               plugin),
           1);
    const char *again = output(
        f,
        qgc_arena_printf(f->arena, "dump before-crash.yaml --after crash --contain --load-pass '%s'", plugin),
        1);
    has(again, "pass \"crash\" ");
    has(again, "change 1, rule \"silu again\" at \"act[2]\"");
}

static void a_pass_without_rules_and_a_plug_in_are_named_too(void **state) {
    fixture *f = *state;
    const char *plugin = plugin_compile(f, "p", passes_text);
    const char *text = output(
        f, qgc_arena_printf(f->arena, "bisect " WITH_WEIGHTS " --load-pass '%s' --passes bare", plugin), 1);
    has(text, "pass \"bare\" ");
    has(text, "outside of a rule");
    has(read_file(f, "before-bare.yaml"), "passes: ");
    const char *loading = plugin_compile(f, "q",
                                         "#include <stdlib.h>\n#include \"passes/load.h\"\n"
                                         "const qgc_pass_rows *qgc_pass_plugin(void) { abort(); }\n");
    text = output(
        f, qgc_arena_printf(f->arena, "bisect " WITH_WEIGHTS " --load-pass '%s' --passes bare", loading), 1);
    has(text, "q.so\" ");
    has(text, "when it was loaded");
}

/* An error is no crash, and told of once. */
static void a_pass_that_gives_up_has_not_ended_the_process(void **state) {
    fixture *f = *state;
    const char *plugin = plugin_compile(f, "p", passes_text);
    const char *text = output(
        f, qgc_arena_printf(f->arena, "bisect " WITH_WEIGHTS " --load-pass '%s' --passes gives-up", plugin),
        1);
    has(text, "pass \"gives-up\" failed and does not say why");
    assert_null(strstr(text, "ended the process"));
}

/* Exit code 0 would say that a file is written. */
static void a_process_that_a_pass_ends_has_failed(void **state) {
    fixture *f = *state;
    const char *plugin = plugin_compile(f, "p", passes_text);
    const char *text = output(
        f, qgc_arena_printf(f->arena, "compile " TINY " --load-pass '%s' --passes end -o end.qgc", plugin),
        1);
    has(text, "the process was ended before the command was done");
    assert_int_not_equal(access(fixture_path(f, "end.qgc"), F_OK), 0);
}

static void a_pass_that_reports_nonsense_is_named(void **state) {
    fixture *f = *state;
    const char *plugin = plugin_compile(f, "p", passes_text);
    const char *text =
        output(f, qgc_arena_printf(f->arena, "explain " TINY " --load-pass '%s' --passes events", plugin), 1);
    has(text, "pass \"events\" reports what it cannot have done");
}

/* It is not the pass that crashes, but who looks at what it has left. */
static void a_pass_that_leaves_what_nobody_can_read_is_named(void **state) {
    fixture *f = *state;
    const char *plugin = plugin_compile(f, "p", passes_text);
    const char *text = output(
        f, qgc_arena_printf(f->arena, "bisect " WITH_WEIGHTS " --load-pass '%s' --passes wild", plugin), 1);
    has(text, "the command ");
    has(text, "pass \"wild\"");
    has(text, "before-wild.yaml");
}

static void what_a_pass_prints_is_not_in_the_output(void **state) {
    fixture *f = *state;
    const char *plugin = plugin_compile(f, "p", passes_text);
    const char *arguments = qgc_arena_printf(f->arena, "--load-pass '%s' --passes prints", plugin);
    const char *text = output(f, qgc_arena_printf(f->arena, "dump " TINY " %s 2>err.txt", arguments), 0);
    assert_memory_equal(text, "qgc: 2\n", 7);
    has(read_file(f, "err.txt"), "it runs");
    text = output(f, qgc_arena_printf(f->arena, "bisect " WITH_WEIGHTS " --json %s 2>err.txt", arguments), 0);
    assert_memory_equal(text, "{\n", 2);
    has(read_file(f, "err.txt"), "it runs");
    text = output(f, qgc_arena_printf(f->arena, "dump " TINY " %s --verify-each 2>err.txt", arguments), 0);
    assert_memory_equal(text, "qgc: 2\n", 7);
    plugin = plugin_compile(f, "q",
                            "#include <stdio.h>\n#include \"passes/load.h\"\n"
                            "static qgc_status nothing(qgc_pass_context *c, qgc_diag *d) {\n"
                            "    (void)c; (void)d; return QGC_OK;\n}\n"
                            "const qgc_pass_rows *qgc_pass_plugin(void) {\n"
                            "    static const qgc_pass_info idle[] = {{\"idle\", nothing, 0, \"x\"}, {0}};\n"
                            "    static const qgc_pass_rows rows = {.abi = QGC_PASS_ABI, .passes = idle};\n"
                            "    printf(\"it is loaded\\n\");\n    return &rows;\n}\n");
    text = output(
        f, qgc_arena_printf(f->arena, "dump " TINY " --passes fuse-qkv --load-pass '%s' 2>err.txt", plugin),
        0);
    assert_memory_equal(text, "qgc: 2\n", 7);
    has(read_file(f, "err.txt"), "it is loaded");
}

/* Exit codes and output are those of the command. */
static void a_contained_command_is_like_any_other(void **state) {
    fixture *f = *state;
    const char *plain = output(f, "dump " TINY " --passes fuse-qkv", 0);
    assert_string_equal(output(f, "dump " TINY " --passes fuse-qkv --contain", 0), plain);
    has(output(f, "dump nowhere.yaml --contain", 1), "nowhere.yaml");
    has(output(f, "dump " TINY " --contain --passes nothing", 2), "unknown pass");
}

static void each_change_can_be_verified(void **state) {
    fixture *f = *state;
    const char *plugin = plugin_compile(f, "p", passes_text);
    const char *arguments =
        qgc_arena_printf(f->arena, TINY " --load-pass '%s' --passes split-attention,invalid", plugin);
    const char *text = output(f, qgc_arena_printf(f->arena, "dump %s --verify-each", arguments), 1);
    has(text, "rule \"one input\" at \"ff[1]\" left it so, change 1 of the pass");
    has(text, "running pass invalid of plug-in");
    text = output(f, qgc_arena_printf(f->arena, "dump %s", arguments), 1);
    assert_null(strstr(text, "left it so"));
    output(f, "dump " TINY " --verify-each", 0);
    text = output(
        f,
        qgc_arena_printf(f->arena,
                         "bisect " WITH_WEIGHTS " --load-pass '%s' --passes split-attention,invalid", plugin),
        1);
    has(text, "\nchange  1 of 1: ");
    has(text, "one input at \"ff[1]\"");
    has(text, "the graph does not hold together: ");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_pass_that_does_not_return_is_named),
        FIXTURE_TEST(what_was_left_shows_the_same),
        FIXTURE_TEST(a_pass_without_rules_and_a_plug_in_are_named_too),
        FIXTURE_TEST(a_pass_that_gives_up_has_not_ended_the_process),
        FIXTURE_TEST(a_process_that_a_pass_ends_has_failed),
        FIXTURE_TEST(a_pass_that_reports_nonsense_is_named),
        FIXTURE_TEST(a_pass_that_leaves_what_nobody_can_read_is_named),
        FIXTURE_TEST(what_a_pass_prints_is_not_in_the_output),
        FIXTURE_TEST(a_contained_command_is_like_any_other),
        FIXTURE_TEST(each_change_can_be_verified),
    };
    setenv("ASAN_OPTIONS", "handle_segv=0", 1); /* a crash is one, and not a report of the sanitizer */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
