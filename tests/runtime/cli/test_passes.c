/* The options of qgc that choose, print and explain passes. */

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "graph/base/str.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/command.h"
#include "tests/support/folder.h"
#include "tests/support/text.h"

static const char *output(qgc_arena *a, const char *arguments, int want) {
    return qgc_test_output(a, arguments, want);
}

/* The text without the times of passes, ", 30 us". */
static const char *without_times(qgc_arena *a, const char *text) {
    qgc_str out = qgc_str_new(a);
    while (*text) {
        const size_t line = strcspn(text, "\n");
        const char *end = qgc_arena_strndup(a, text, line), *comma = strrchr(end, ',');
        const bool timed = comma && line > 3 && strcmp(end + line - 3, " us") == 0;
        qgc_str_add_bytes(&out, text, timed ? (size_t)(comma - end) : line);
        qgc_str_add(&out, text[line] ? "\n" : "");
        text += line + (text[line] == '\n');
    }
    return out.text;
}

static void prints(void **state, const char *arguments, int status, const char *want) {
    assert_string_equal(without_times(*state, output(*state, arguments, status)), want);
}

static void contains(void **state, const char *arguments, const char *want) {
    const char *text = output(*state, arguments, 0);
    if (!strstr(text, want))
        fail_msg("qgc %s does not print \"%s\", but:\n%s", arguments, want, text);
}

static void explain_names_layers_by_ranges(void **state) {
    prints(
        state, "explain models/tiny/tiny.yaml --passes fuse-residual,fuse-norm-linear", 0,
        qgc_arena_printf(
            *state,
            "fuse-residual: 8 fired, 78 nodes in 70 kernels\n"
            "  fired     residual + linear            x_mid[0..3]: in group \"out\"  (models/tiny/../llama.yaml:%d)\n"
            "  fired     residual + linear            x[0..3]: in group \"out_2\"  (models/tiny/../llama.yaml:%d)\n"
            "fuse-norm-linear: 1 fired, 78 nodes in 69 kernels\n"
            "  declined  linear(rms_norm)             h[0..3]: \"q\" and \"k\", which read it, are different "
            "kernels  (models/tiny/../llama.yaml:%d)\n"
            "  declined  linear(rms_norm)             m[0..3]: \"gate\" and \"up\", which read it, are different "
            "kernels  (models/tiny/../llama.yaml:%d)\n"
            "  fired     linear(rms_norm)             logits: in group \"norm\"  (models/tiny/../llama.yaml:%d)\n",
            line_of("models/llama.yaml", "add, in: [x, o]"),
            line_of("models/llama.yaml", "add, in: [x_mid, down]"),
            line_of("models/llama.yaml", "op: rms_norm"), line_of("models/llama.yaml", "op: rms_norm"),
            line_of("models/llama.yaml", "[x_out, head, head_b]")));
}

static void explain_can_be_about_one_node(void **state) {
    prints(
        state, "explain models/tiny/tiny.yaml --passes fuse-residual --node 'x[2]'", 0,
        qgc_arena_printf(
            *state,
            "fuse-residual: 8 fired, 78 nodes in 70 kernels\n"
            "  fired     residual + linear            x[2]: in group \"out_2\"  (models/tiny/../llama.yaml:%d)\n"
            "x[2]: add in group \"out_2\" of down x\n",
            line_of("models/llama.yaml", "add, in: [x_mid, down]")));
    contains(state, "explain models/tiny/tiny.yaml --node down",
             "\ndown[0]: linear in group \"out_2\" of down x\n");
    /* not the root of any match: what of the whole pipeline concerns it, and nothing else */
    const char *all = output(*state, "explain models/tiny/tiny.yaml --node 'kr[1]'", 0);
    assert_null(strstr(all, "fuse-swiglu"));
    assert_null(strstr(all, "dead-code"));
    assert_null(strstr(all, "plan-memory"));
    assert_non_null(strstr(all, "append(rope"));
    assert_non_null(strstr(all, "k_all[1]: in group \"qkv\""));
    all = output(*state, "explain models/tiny/tiny.yaml --passes fuse-swiglu --node up", 0);
    assert_non_null(strstr(all, "  fired     silu(gate) * up              ff[0..3]: in group \"mlp\""));
    prints(state, "explain models/tiny/tiny.yaml --node nix", 2,
           "qgc: error: the graph has no node \"nix\"\n");
}

/* Beside what else a command does, errors too. */
static void any_command_explains_its_passes(void **state) {
    contains(state, "dump models/tiny/tiny.yaml --passes fuse-swiglu --explain",
             "  fired     silu(gate) * up              ff[0..3]: in group \"mlp\"");
    contains(state,
             "run models/tiny/tiny.yaml --weights models/tiny/tiny.gguf --device cpu -n 1 -p a --explain",
             "\n  fired     silu(gate) * up ");
    const char *text = output(*state, "dump models/tiny/tiny.yaml --passes fuse-embed --explain", 2);
    assert_non_null(strstr(text, "fuse-embed: 0 fired, 78 nodes in 78 kernels, "));
    assert_non_null(strstr(text, " us\n  declined  "));
    assert_non_null(strstr(text, "error: pass \"fuse-embed\" matched nothing"));
}

static void explain_prints_json(void **state) {
    const char *text =
        output(*state, "explain models/tiny/tiny.yaml --passes fuse-residual --json --node 'x[2]'", 0);
    assert_non_null(strstr(text,
                           "[\n  {\n    \"pass\": \"fuse-residual\",\n    \"fired\": 8,\n    \"nodes\": 78,\n"
                           "    \"kernels\": 70,\n"));
    assert_non_null(strstr(text, "    \"note\": null,\n    \"events\": [\n      {\n"
                                 "        \"rule\": \"residual + linear\",\n        \"node\": \"x[2]\",\n"
                                 "        \"text\": \"in group \\\"out_2\\\"\",\n"
                                 "        \"file\": \"models/tiny/../llama.yaml\",\n"));
    assert_non_null(strstr(text, "        \"layer\": 2,\n        \"fired\": true\n      }\n    ]\n  }\n]\n"));
}

/* What comes of it is known after lowering only. */
static void explain_says_where_to_look_for_what_lowering_does(void **state) {
    prints(state, "explain models/tiny/tiny.yaml --passes plan-memory", 0,
           "plan-memory: 1 fired, 78 nodes in 78 kernels\n"
           "  qgc inspect says how much scratch memory that takes\n");
    contains(
        state, "explain models/tiny/tiny.yaml --passes plan-memory --json",
        "\"note\": \"qgc inspect says how much scratch memory that takes\",\n    \"events\": []\n  }\n]\n");
}

/* Two names of older pipelines, on the command line and in a file. */
static void what_is_a_mode_now_is_noted_once(void **state) {
    static const char both[] =
        "passes \"pdl-edges\" and \"persistent\" are modes now: --mode pdl, --mode persistent\n";
    prints(state, "explain models/tiny/tiny.yaml --passes 'plan-memory,pdl-edges?,persistent'", 0,
           qgc_arena_printf(*state,
                            "%splan-memory: 1 fired, 78 nodes in 78 kernels\n"
                            "  qgc inspect says how much scratch memory that takes\n",
                            both));
    const char *dump = output(*state, "dump models/tiny/tiny.yaml --skip 'persistent(x=1)'", 0);
    const char *noted = "pass \"persistent\" is a mode now: --mode persistent\nqgc: 2\n";
    assert_memory_equal(dump, noted, strlen(noted));
    const char *folder = qgc_test_folder(*state);
    const char *text = qgc_arena_printf(
        *state, "qgc: 1\nextends: ../..%s/models/tiny/tiny.yaml\npasses: [fuse-qkv, pdl-edges, persistent]\n",
        QGC_SOURCE_DIR);
    const char *path = qgc_test_write(*state, folder, "old.yaml", text, strlen(text));
    const char *options = "--weights models/tiny/tiny.gguf --device cpu --steps 2";
    const char *ablated = output(*state, qgc_arena_printf(*state, "ablate '%s' %s", path, options), 0);
    assert_int_equal(count(ablated, both), 1);
    assert_int_equal(count(ablated, "\nfuse-qkv "), 2);
    assert_int_equal(count(ablated, "\npersistent "), 0);
    assert_int_equal(
        count(output(*state, qgc_arena_printf(*state, "bisect '%s' %s", path, options), 0), both), 1);
    assert_int_equal(
        count(output(*state, qgc_arena_printf(*state, "view '%s' -o '%s/v.html'", path, folder), 0), both),
        1);
    qgc_test_folder_drop(*state, folder);
    prints(state, "dump models/tiny/tiny.yaml --after persistent", 2,
           "qgc: error: unknown pass \"persistent\"\n  hint: It is a mode now: --mode persistent.\n");
}

static void passes_lists_the_table(void **state) {
    const char *text = output(*state, "passes", 0);
    assert_int_equal(count(text, "\n"), 13);
    assert_non_null(strstr(text, "fuse-pointwise     neighbouring pointwise ops in one kernel (max)\n"));
}

/* The text but for the line of passes. */
static const char *without_passes(qgc_arena *a, const char *text) {
    const char *line = strstr(text, "\npasses: ");
    assert_non_null(line);
    return qgc_arena_printf(a, "%.*s%s", (int)(line - text), text, strchr(line + 1, '\n'));
}

static void dump_stops_after_a_pass(void **state) {
    const char *plain = output(*state, "dump models/tiny/tiny.yaml", 0);
    assert_int_equal(count(plain, "attention_merge"), 0);
    assert_null(strstr(plain, "passes"));
    const char *text = output(*state, "dump models/tiny/tiny.yaml --after dead-code", 0);
    assert_string_equal(without_passes(*state, text), plain);
    assert_non_null(strstr(text, "passes: [\"split-sample?\", "));
    contains(state, "dump models/tiny/tiny.yaml --after split-sample", "- {op: sample_merge, ");
    contains(state,
             "dump models/tiny/tiny.yaml --passes split-attention,fuse-qkv --print-after split-attention",
             "- {op: attention_merge, ");
    prints(state, "dump models/tiny/tiny.yaml --after fuse-qvk", 2,
           "qgc: error: unknown pass \"fuse-qvk\"\n  hint: Did you mean \"fuse-qkv\"?\n");
    prints(state, "dump models/tiny/tiny.yaml --after fuse-qkv --skip fuse-qkv", 2,
           "qgc: error: pass \"fuse-qkv\" is not in the pipeline\n");
}

static void a_pipeline_is_edited_and_printed(void **state) {
    prints(state, "passes --print --passes 'fuse-swiglu,fuse-qkv' --before fuse-swiglu=fuse-qkv", 0,
           "fuse-qkv,fuse-swiglu\n");
    prints(state, "passes models/tiny/tiny.yaml", 2,
           "qgc: error: a graph is given without --print\n"
           "  hint: With --print its pipeline is printed; without, the list of all passes.\n");
    prints(state, "dump models/tiny/tiny.yaml --after dead-code=nothing", 2,
           "qgc: error: unknown pass \"nothing\"\n  hint: qgc passes lists them.\n");
    const char *line = output(*state, "passes --print models/tiny/tiny.yaml --without plan-memory", 0);
    const char *plain = output(*state, "dump models/tiny/tiny.yaml --skip plan-memory", 0);
    prints(
        state,
        qgc_arena_printf(*state, "dump models/tiny/tiny.yaml --passes '%.*s'", (int)strlen(line) - 1, line),
        0, plain);
    prints(state, "dump models/tiny/tiny.yaml --without plan-memory", 0, plain);
    /* the same in every command that takes passes */
    contains(state, "explain models/tiny/tiny.yaml --after dead-code=fuse-swiglu --without fuse-qkv",
             "fuse-swiglu: 4 fired, 78 nodes in 66 kernels");
    contains(state,
             "bisect models/tiny/tiny.yaml --weights models/tiny/tiny.gguf --device cpu --steps 2 "
             "--passes 'fuse-qkv,dead-code' --replace dead-code=fuse-swiglu --before fuse-qkv=split-sample",
             "\n3 passes, ");
}

static void print_after_prints_the_graph(void **state) {
    const char *plain = output(*state, "dump models/tiny/tiny.yaml", 0);
    const char *text =
        output(*state, "dump models/tiny/tiny.yaml --passes 'dead-code?' --print-after dead-code", 0);
    const char *head = "# after dead-code: 0 fired, 78 nodes in 78 kernels\n";
    assert_int_equal(strncmp(text, head, strlen(head)), 0);
    assert_int_equal(count(text, "passes: []\n"), 2);
    const char *second = strstr(text + strlen(head) + 1, "qgc: 2\n");
    assert_string_equal(without_passes(*state, second), plain);
    text = output(*state, "dump models/tiny/tiny.yaml --print-after all", 0);
    assert_int_equal(count(text, "# after "), 12);
    text = output(*state, "dump models/tiny/tiny.yaml --print-after changed", 0);
    assert_int_equal(count(text, "# after "), 9);
    assert_null(strstr(text, "# after dead-code"));
}

static void print_after_wants_a_pass_that_runs(void **state) {
    prints(state, "dump models/tiny/tiny.yaml --print-after chnged", 2,
           "qgc: error: option --print-after is \"chnged\", expected a pass, all or changed\n"
           "  hint: Did you mean \"changed\"?\n");
    prints(state, "dump models/tiny/tiny.yaml --passes dead-code? --print-after fuse-qkv", 2,
           "qgc: error: pass \"fuse-qkv\" is not in the pipeline\n");
}

static void a_plugin_that_is_not_there_is_an_error(void **state) {
    prints(state, "passes --load-pass no/such.so", 1,
           "qgc: error: could not open plug-in \"no/such.so\": No such file or directory\n");
}

static void run_says_the_same_on_a_cpu_with_and_without_passes(void **state) {
    const char *arguments =
        "run models/tiny/tiny.yaml --weights models/tiny/tiny.gguf --device cpu -q -n 8 -p 'The '";
    const char *with = output(*state, arguments, 0);
    prints(state, qgc_arena_printf(*state, "%s --passes ''", arguments), 0, with);
    contains(state,
             qgc_arena_printf(*state, "%s --passes split-attention --print-after split-attention", arguments),
             "# after split-attention: 4 fired, 82 nodes in 82 kernels\n");
}

static void a_mode_is_not_for_the_cpu(void **state) {
    static const char run[] =
        "run models/tiny/tiny.yaml --weights models/tiny/tiny.gguf --device cpu -q -n 2 -p 'The '";
    prints(state, qgc_arena_printf(*state, "%s --mode graph", run), 2,
           "qgc: error: option --mode is graph, and steps run on the CPU, which has no modes\n"
           "  hint: Leave it out, or run on a GPU (--device gpu).\n");
    prints(state, qgc_arena_printf(*state, "%s --mode fast", run), 2,
           "qgc: error: unknown mode \"fast\", expected stream, graph, pdl or persistent\n");
    prints(state, qgc_arena_printf(*state, "%s --mode auto", run), 0, output(*state, run, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(explain_names_layers_by_ranges),
        ARENA_TEST(explain_can_be_about_one_node),
        ARENA_TEST(a_pipeline_is_edited_and_printed),
        ARENA_TEST(any_command_explains_its_passes),
        ARENA_TEST(explain_prints_json),
        ARENA_TEST(explain_says_where_to_look_for_what_lowering_does),
        ARENA_TEST(what_is_a_mode_now_is_noted_once),
        ARENA_TEST(passes_lists_the_table),
        ARENA_TEST(dump_stops_after_a_pass),
        ARENA_TEST(print_after_prints_the_graph),
        ARENA_TEST(print_after_wants_a_pass_that_runs),
        ARENA_TEST(a_plugin_that_is_not_there_is_an_error),
        ARENA_TEST(a_mode_is_not_for_the_cpu),
        ARENA_TEST(run_says_the_same_on_a_cpu_with_and_without_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
