/* Graphs that are well formed and not what a command wants: an error that says why, never a crash. */

#include <string.h>

#include "tests/support/command.h"
#include "tests/support/fixture.h"
#include "tests/support/text.h"

/* Learned positions: a table is looked up by them. %s: which one, and the outputs. */
static const char learned[] = "qgc: 1\n"
                              "name: learned\n"
                              "arch: learned\n"
                              "weights:\n"
                              "  embed: {shape: [300, 16], gguf: embed}\n"
                              "  places: {shape: [8, 16], gguf: places}\n"
                              "  others: {shape: [8, 16], gguf: others}\n"
                              "  head: {shape: [300, 16], gguf: head}\n"
                              "state:\n"
                              "  seen: {shape: [300], dtype: i32}\n"
                              "inputs: {tokens: [T], positions: [T], rows: [R]}\n"
                              "graph:\n"
                              "  - {op: embedding, in: [tokens, embed], out: e}\n"
                              "  - {op: embedding, in: [positions, places], out: p}\n"
                              "  - {op: embedding, in: [positions, %s], out: q}\n"
                              "  - {op: embedding, in: [positions, others], out: r}\n"
                              "  - {op: add, in: [p, q], out: s}\n"
                              "  - {op: add, in: [r, s], out: t}\n"
                              "  - {op: add, in: [e, t], out: x}\n"
                              "  - {op: select_rows, in: [x, rows], out: last}\n"
                              "  - {op: linear, in: [last, head], out: logits}\n"
                              "  - {op: mark, in: [seen, tokens], out: seen_now}\n"
                              "  - {op: sample, in: [logits, rows, positions, seen_now], out: next}\n"
                              "outputs: [%s]\n";

static const char *write_learned(fixture *f, const char *name, const char *table, const char *outputs) {
    return fixture_write(f, name, qgc_arena_printf(f->arena, learned, table, outputs));
}

static void bisect_cuts_out_learned_positions(void **state) {
    fixture *f = *state;
    const char *good = write_learned(f, "good.yaml", "places", "logits, next");
    const char *bad = write_learned(f, "bad.yaml", "others", "logits, next");
    const char *text = qgc_test_output(
        f->arena,
        qgc_arena_printf(
            f->arena,
            "bisect %s --against %s --weights random --ids 290-297 --steps 8 --device cpu -q -o %s/out", bad,
            good, f->folder),
        1);
    has(text, "value   \"q\" = embedding");
    const char *again = strstr(text, "to see the same: qgc ");
    assert_non_null(again);
    again += strlen("to see the same: qgc ");
    text = qgc_test_output(f->arena, qgc_arena_strndup(f->arena, again, strcspn(again, "\n")), 1);
    has(text, "value   \"q\" = embedding");
}

static void positions_end_where_their_table_does(void **state) {
    fixture *f = *state;
    const char *good = write_learned(f, "good.yaml", "places", "logits, next");
    has(qgc_test_output(f->arena,
                        qgc_arena_printf(f->arena, "bisect %s --weights random --steps 9 --device cpu", good),
                        2),
        "9 steps, and \"learned\" can have at most 8");
    has(qgc_test_output(
            f->arena,
            qgc_arena_printf(f->arena, "ablate %s --weights random --ctx 9 --steps 4 --device cpu", good), 2),
        "a context of 9 positions, \"learned\" can have at most 8");
}

/* The tiny model with other outputs. */
static const char *cut(fixture *f, const char *outputs) {
    const char *path = fixture_path(f, "cut.yaml");
    qgc_test_output(f->arena,
                    qgc_arena_printf(f->arena,
                                     "dump models/tiny/tiny.yaml | sed 's/^outputs: .*/outputs: [%s]/' > %s",
                                     outputs, path),
                    0);
    return path;
}

static void running_wants_logits_and_a_choice(void **state) {
    fixture *f = *state;
    static const struct {
        const char *outputs, *why;
    } cases[] = {{"next", "the graph has no output \"logits\""},
                 {"logits", "the graph has no output \"next\""},
                 {"logits, x", "the graph has no output \"next\""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = cut(f, cases[i].outputs);
        has(qgc_test_output(f->arena,
                            qgc_arena_printf(f->arena,
                                             "run %s --weights models/tiny/tiny.gguf --device cpu -p hi -n 1",
                                             path),
                            1),
            cases[i].why);
        has(qgc_test_output(f->arena, qgc_arena_printf(f->arena, "compile %s -o %s.qgc", path, path), 1),
            cases[i].why);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(bisect_cuts_out_learned_positions),
        FIXTURE_TEST(positions_end_where_their_table_does),
        FIXTURE_TEST(running_wants_logits_and_a_choice),
    };
    return cmocka_run_group_tests_name("runtime/cli/odd_graphs", tests, NULL, NULL);
}
