#ifndef TESTS_SUPPORT_PLUGIN_H
#define TESTS_SUPPORT_PLUGIN_H

#include <stdlib.h>

#include "tests/support/fixture.h"

/* Plug-ins with passes, which the test compiles with the compiler QGC_CC. */

/* Compiles one as docs/adding_a_pass.md says; returns its path. */
static inline const char *plugin_compile(const fixture *f, const char *name, const char *text) {
    const char *source = fixture_write(f, qgc_arena_printf(f->arena, "%s.c", name), text);
    const char *out = fixture_path(f, qgc_arena_printf(f->arena, "%s.so", name));
    const char *command = qgc_arena_printf(
        f->arena,
        "'" QGC_CC "' -std=c11 -Wall -Wextra -Werror -shared -fPIC -I '" QGC_SOURCE_DIR "' '%s' -o '%s'",
        source, out);
    assert_int_equal(system(command), 0);
    return out;
}

/* One of a pass, from what stands before its function and the body of it. */
static inline const char *plugin_of_pass(const fixture *f, const char *name, const char *before,
                                         const char *body) {
    return plugin_compile(
        f, name,
        qgc_arena_printf(f->arena,
                         "#include \"passes/load.h\"\n%s"
                         "static qgc_status run(qgc_pass_context *c, qgc_diag *d) {\n"
                         "    (void)c;\n    (void)d;\n%s\n}\n"
                         "const qgc_pass_rows *qgc_pass_plugin(void) {\n"
                         "    static const qgc_pass_info p[] = {{\"%s\", run, 0, \"a test\"}, {0}};\n"
                         "    static const qgc_pass_rows rows = {.abi = QGC_PASS_ABI, .passes = p};\n"
                         "    return &rows;\n}\n",
                         before, body, name));
}

#endif
