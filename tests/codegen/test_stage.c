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

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(says_why_no_kernel_computes_a_group),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
