/* qgc bisect, as a user calls it: faults are planted by passes from outside, and have to be found. */

#include <stdio.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "tests/support/cmocka.h"
#include "tests/support/command.h"
#include "tests/support/fixture.h"
#include "tests/support/plugin.h"
#include "tests/support/text.h"

#define TINY "bisect models/tiny/tiny.yaml --weights models/tiny/tiny.gguf --device cpu --steps 8 "

static const char *output(fixture *f, const char *arguments, int want) {
    return qgc_test_output(f->arena, arguments, want);
}

/* A plug-in of one pass, "plant", with one rule. */
static const char *plant(fixture *f, const char *pattern, const char *body) {
    const char *rules = qgc_arena_printf(f->arena,
                                         "#include <string.h>\n"
                                         "#include \"passes/rewrite.h\"\n"
                                         "enum { A, B, C, D };\n"
                                         "static bool apply(qgc_rewriter *rw, const qgc_match *m) {\n%s}\n"
                                         "static const qgc_rule rules[] = {{\"planted\", %s, apply}, {0}};\n",
                                         body, pattern);
    return plugin_of_pass(f, "plant", rules, "    return qgc_rewrite(c, rules, d);");
}

/* silu(up) * gate where silu(gate) * up stood, in one layer only. */
static const char *plant_swapped_operands(fixture *f, int layer) {
    const char *apply = qgc_arena_printf(
        f->arena,
        "    qgc_node *ff = m->node[C], *act = m->node[B];\n"
        "    qgc_value *gate = m->node[A]->out[0], *up = m->node[D]->out[0];\n"
        "    if (ff->layer != %d || strcmp(gate->name, \"gate\") != 0)\n"
        "        return qgc_decline(rw, ff, \"elsewhere\");\n"
        "    qgc_node *silu = qgc_insert(rw, ff, QGC_OP_SILU, \"act_of_up\", &up, 1);\n"
        "    qgc_settle(rw, silu);\n"
        "    qgc_node *mul = qgc_insert(rw, ff, QGC_OP_MUL, \"ff\", (qgc_value *[]){silu->out[0], gate}, 2);\n"
        "    qgc_settle(rw, mul);\n"
        "    qgc_replace(rw, ff->out[0], mul->out[0]);\n"
        "    qgc_erase(rw, ff);\n"
        "    qgc_erase(rw, act);\n"
        "    return true;\n",
        layer);
    return plant(f, "P(C, MUL, P1(B, SILU, P1(A, LINEAR, FREE)), P1(D, LINEAR, FREE))", apply);
}

/* The bias of the keys, in every layer from 1 on. */
static const char *plant_dropped_bias(fixture *f) {
    return plant(f, "P(A, LINEAR, FREE, FREE, V(B))",
                 "    qgc_node *n = m->node[A];\n"
                 "    if (n->n_in < 3 || n->layer < 1 || strcmp(n->out[0]->name, \"k\") != 0)\n"
                 "        return false;\n"
                 "    qgc_node *now = qgc_insert(rw, n, QGC_OP_LINEAR, \"k\", n->in, 2);\n"
                 "    qgc_settle(rw, now);\n"
                 "    qgc_replace(rw, n->out[0], now->out[0]);\n"
                 "    qgc_erase(rw, n);\n"
                 "    return true;\n");
}

/* x + (o + down) where (x + o) + down stood. */
static const char *plant_reordered_sum(fixture *f) {
    return plant(f, "P(B, ADD, P(A, ADD, V(C), FREE), P1(D, LINEAR, FREE))",
                 "    qgc_node *inner = m->node[A], *outer = m->node[B], *down = m->node[D];\n"
                 "    if (outer->in[0] != inner->out[0])\n"
                 "        return false;\n"
                 "    qgc_value *late[] = {inner->in[1], down->out[0]};\n"
                 "    qgc_node *sum = qgc_insert(rw, outer, QGC_OP_ADD, \"late\", late, 2);\n"
                 "    qgc_settle(rw, sum);\n"
                 "    qgc_node *now = qgc_insert(rw, outer, QGC_OP_ADD, outer->out[0]->name,\n"
                 "                               (qgc_value *[]){inner->in[0], sum->out[0]}, 2);\n"
                 "    qgc_settle(rw, now);\n"
                 "    qgc_replace(rw, outer->out[0], now->out[0]);\n"
                 "    qgc_erase(rw, outer);\n"
                 "    return true;\n");
}

static void a_swapped_operand_is_found_in_its_layer(void **state) {
    fixture *f = *state;
    const char *plugin = plant_swapped_operands(f, 7), *folder = fixture_path(f, "r"),
               *json = fixture_path(f, "x.json");
    const char *text = output(
        f,
        qgc_arena_printf(
            f->arena,
            "bisect tests/runtime/cli/eight_layers.yaml --weights random --device cpu --ids 5,300,41,7,1000,2,77,8 --steps 8 "
            "--load-pass '%s' --passes 'split-attention,fuse-residual,plant,"
            "fuse-swiglu,fuse-qkv' -o '%s' --json='%s'",
            plugin, folder, json),
        1);
    has(text, "\npass    plant: ");
    has(text, "\nchange  1 of 1: ");
    has(text, "\n        planted at \"ff[7]\"");
    has(text, qgc_arena_printf(f->arena, "llama.yaml:%d:7\nvalue   \"ff[7]\" = mul(act_of_up[7], gate[7])",
                               line_of("models/llama.yaml", "op: mul, in: [act, up]")));
    has(text, "what goes in is 0 apart");
    has(text, "\nwrong: more than rounding explains\n");
    has(text, "\" is wrong from \"ff[7]\" on\n");
    qgc_diag d = qgc_diag_new(f->arena);
    qgc_source written;
    assert_int_equal(qgc_file_read(&written, json, 1 << 20, "JSON", &d), QGC_OK);
    has(written.text, "\"verdict\": \"wrong\"");
    has(written.text, "\"name\": \"ff[7]\"");

    /* The reproduction: a few nodes, which are as far apart. */
    const char *bad = qgc_test_path(f->arena, folder, "bad.yaml");
    assert_int_equal(qgc_file_read(&written, bad, 1 << 20, "YAML", &d), QGC_OK);
    has(written.text, "  - {op: silu, in: [up_7], out: act_of_up_7}\n"
                      "  - {op: mul, in: [act_of_up_7, gate_7], out: ff_7}\n");
    const char *again = qgc_arena_printf(
        f->arena,
        "bisect '%s/bad.yaml' --against '%s/good.yaml' --weights '%s/inputs.gguf' --ids 0-7 --steps 8 --device cpu",
        folder, folder, folder);
    has(text, "to see the same: qgc bisect ");
    const char *small = output(f, again, 1);
    has(small, "\npass    none: ");
    has(small, "\nvalue   \"ff_7\" = mul(act_of_up_7, gate_7)");
    const char *line = strstr(text, "value   \"ff[7]\""), *small_line = strstr(small, "value   \"ff_7\"");
    line = strchr(line, '\n') + 1;
    small_line = strchr(small_line, '\n') + 1;
    assert_memory_equal(line, small_line, strcspn(line, ";")); /* "0.8 apart at position 3" */
    output(f,
           qgc_arena_printf(f->arena,
                            "bisect '%s/good.yaml' --weights '%s/inputs.gguf' --allow-unused --ids 0-7 "
                            "--steps 8 --device cpu",
                            folder, folder),
           0);
}

static void the_first_of_several_dropped_biases_is_found(void **state) {
    fixture *f = *state;
    const char *plugin = plant_dropped_bias(f);
    const char *text = output(
        f, qgc_arena_printf(f->arena, TINY "--load-pass '%s' --passes split-attention,plant", plugin), 1);
    has(text, "\npass    plant: ");
    has(text, "\nchange  1 of 3: ");
    has(text, "\nvalue   \"k[1]\" = linear(h[1], wk[1])");
    has(text, "\nwrong: ");
}

static void a_reordered_sum_is_harmless(void **state) {
    fixture *f = *state;
    const char *plugin = plant_reordered_sum(f);
    const char *text =
        output(f, qgc_arena_printf(f->arena, TINY "--load-pass '%s' --passes plant", plugin), 0);
    has(text, "\npass    plant: ");
    has(text, "\nchange  1 of ");
    has(text, "\nvalue   \"x[0]\" = add(x, late[0])");
    has(text, "\nharmless: no more than rounding explains\n");
    const char *split = output(f, TINY "--passes split-attention,fuse-qkv", 0);
    has(split, "\npass    split-attention: ");
    has(split, "\nharmless: ");
}

static void a_fault_of_the_choice_is_found_in_one_phase(void **state) {
    fixture *f = *state;
    const char *plugin = plant(f, "P(A, SAMPLE, V(B))",
                               "    qgc_node *n = m->node[A], *mark = n->in[3]->maker;\n"
                               "    if (!mark)\n"
                               "        return false;\n"
                               "    qgc_value *in[] = {n->in[0], n->in[1], n->in[2], mark->in[0]};\n"
                               "    qgc_node *early = qgc_insert(rw, mark, QGC_OP_SAMPLE, \"next\", in, 4);\n"
                               "    qgc_settle(rw, early);\n"
                               "    qgc_replace(rw, n->out[0], early->out[0]);\n"
                               "    qgc_erase(rw, n);\n"
                               "    return true;\n");
    const char *const phases[][2] = {{"prefill", "in a prefill of "}, {"decode", "in a decode step"}};
    for (int i = 0; i < 2; i++) {
        const char *text =
            output(f,
                   qgc_arena_printf(f->arena, TINY "--load-pass '%s' --passes plant --phase %s", plugin,
                                    phases[i][0]),
                   1);
        has(text, "positions: logits 0 apart");
        has(text, "\nvalue   \"next\" = sample(logits, rows, positions, seen)");
        has(text, phases[i][1]);
        has(text, " penalty ");
    }
}

static void groups_alone_are_equal(void **state) {
    fixture *f = *state;
    has(output(f, TINY "--skip split-attention", 0), "\nequal: bit for bit\n");
}

static void an_artifact_carries_its_graph_and_pipeline(void **state) {
    fixture *f = *state;
    const char *plugin = plant_swapped_operands(f, 2), *artifact = fixture_path(f, "t.qgc");
    output(
        f,
        qgc_arena_printf(f->arena,
                         "compile models/tiny/tiny.yaml --weights models/tiny/tiny.gguf -o '%s' --load-pass "
                         "'%s' --passes fuse-residual,plant -q",
                         artifact, plugin),
        0);
    const char *text = output(
        f,
        qgc_arena_printf(f->arena, "bisect '%s' --load-pass '%s' --device cpu --steps 4", artifact, plugin),
        1);
    has(text, "\npass    plant: ");
    has(text, "\nvalue   \"ff[2]\" = mul(");
    /* without the plug-in its pass is unknown */
    has(output(f, qgc_arena_printf(f->arena, "bisect '%s' --device cpu", artifact), 1),
        "unknown pass \"plant\"");
}

static void says_what_is_wrong_with_the_command_line(void **state) {
    fixture *f = *state;
    has(output(f, "bisect models/tiny/tiny.yaml --device cpu", 2), "no weights");
    has(output(f, TINY "--ids 5,x", 2), "option --ids is \"5,x\", expected ids from 0 to 1535");
    has(output(f, TINY "--ids 1536", 2), "expected ids from 0 to 1535");
    has(output(f, TINY "--ids 7-5", 2), "expected ids");
    has(output(f, TINY "--ids 5 --prompt x", 2), "two texts are given, --prompt and --ids");
    has(output(f, TINY "--mode persistent", 2), "option --mode is persistent, and steps run on the CPU");
    has(output(f, TINY "--phase slow", 2), "option --phase is \"slow\", expected prefill, decode or both");
    has(output(f, TINY "--mode fast", 2), "unknown mode \"fast\"");
    has(output(f, TINY "--steps 2000", 2), "2000 steps, and \"tiny\" can have at most 1024");
    has(output(f, TINY "--against models/qwen2.5-0.5b.yaml", 1), "error: ");
    has(output(f, TINY "--passes split-attention -o /nowhere/at/all", 1), "could not write the file");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_swapped_operand_is_found_in_its_layer),
        FIXTURE_TEST(the_first_of_several_dropped_biases_is_found),
        FIXTURE_TEST(a_reordered_sum_is_harmless),
        FIXTURE_TEST(a_fault_of_the_choice_is_found_in_one_phase),
        FIXTURE_TEST(groups_alone_are_equal),
        FIXTURE_TEST(an_artifact_carries_its_graph_and_pipeline),
        FIXTURE_TEST(says_what_is_wrong_with_the_command_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
