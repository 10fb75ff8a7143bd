/* Which groups one kernel can compute. */

#include <string.h>

#include "codegen/stage/stage.h"
#include "graph/base/file.h"
#include "graph/load.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"

/* tests/golden/stages/NAME.yaml loads, for a graph knows nothing of kernels, and the check says what NAME.txt has. */
static void says_why_no_kernel_computes_a_group(void **state) {
    static const char *const names[] = {"fuse_no_kernel", "fuse_read_outside"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        fixture *f = *state;
        qgc_diag d = qgc_diag_new(f->arena);
        qgc_graph *g;
        qgc_source golden;
        ok(f, qgc_graph_load(&g, qgc_arena_printf(f->arena, "tests/golden/stages/%s.yaml", names[i]),
                             f->arena, &f->diag));
        assert_int_equal(qgc_stages_check(g, &d), QGC_ERR_INPUT);
        ok(f, qgc_file_read(&golden, qgc_arena_printf(f->arena, "tests/golden/stages/%s.txt", names[i]),
                            1 << 16, "golden text", &f->diag));
        assert_string_equal(qgc_test_printed(f->arena, &d), golden.text);
    }
}

/* What a group makes and reads again, with the reason if no kernel does so. */
static void each_node_finds_what_it_reads(void **state) {
    fixture *f = *state;
#define IN_GROUP(text, y) "  - {" text ", out: " y ", fuse: g}\n"
    static const struct {
        const char *nodes, *why; /* NULL: a kernel computes it */
    } cases[] = {
        {IN_GROUP("op: linear, in: [a, w]", "r") IN_GROUP("op: add, in: [a, r]", "y"), NULL},
        {IN_GROUP("op: silu, in: [a]", "p") IN_GROUP("op: linear, in: [p, w]", "r")
             IN_GROUP("op: add, in: [p, r]", "y"),
         "the kernel does not have \"p\" where it computes \"r\""},
        {IN_GROUP("op: linear, in: [a, w]", "p") IN_GROUP("op: linear, in: [p, w]", "r")
             IN_GROUP("op: add, in: [p, r]", "y"),
         "products \"p\" and \"r\" read different values"},
        {IN_GROUP("op: rms_norm, in: [a, n], eps: 1e-5", "p") IN_GROUP("op: linear, in: [p, w]", "r")
             IN_GROUP("op: silu, in: [r]", "y"),
         NULL},
        {IN_GROUP("op: rms_norm, in: [a, n], eps: 1e-5", "p") IN_GROUP("op: linear, in: [p, w]", "r")
             IN_GROUP("op: mul, in: [r, p]", "y"),
         "the kernel does not have \"p\" where it computes \"y\""},
        {IN_GROUP("op: rms_norm, in: [a, n], eps: 1e-5", "p") IN_GROUP("op: mul, in: [a, p]", "y"), NULL},
        {IN_GROUP("op: silu, in: [a]", "p") IN_GROUP("op: rms_norm, in: [p, n], eps: 1e-5", "q")
             IN_GROUP("op: linear, in: [q, w]", "r") IN_GROUP("op: add, in: [p, r]", "y"),
         "the kernel does not have \"p\" where it computes \"q\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *text = qgc_arena_printf(
            f->arena,
            "qgc: 1\nname: case\narch: case\nweights:\n  t: {shape: [40, 8]}\n  n: {shape: [8]}\n  w: {shape: [8, 8]}\n"
            "inputs: {tokens: [T], positions: [T], rows: [R]}\ngraph:\n"
            "  - {op: embedding, in: [tokens, t], out: b}\n  - {op: rms_norm, in: [b, n], eps: 1, out: e}\n"
            "  - {op: linear, in: [e, w], out: a}\n%soutputs: [y]\n",
            cases[i].nodes);
        qgc_graph *g;
        qgc_diag d = qgc_diag_new(f->arena);
        ok(f, qgc_graph_load_text(&g, "case.yaml", text, strlen(text), f->arena, &f->diag));
        const qgc_status s = qgc_stages_check(g, &d);
        if ((s == QGC_OK) != !cases[i].why)
            fail_msg("case %zu: %s", i, s ? qgc_diag_message(&d) : "a kernel is said to compute it");
        if (cases[i].why)
            assert_non_null(strstr(qgc_diag_message(&d), cases[i].why));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(says_why_no_kernel_computes_a_group),
        FIXTURE_TEST(each_node_finds_what_it_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
