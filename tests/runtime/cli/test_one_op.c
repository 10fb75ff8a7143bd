/* docs/one_op.md: what it says that commands print and that files hold, up to the machine code. */

#include <string.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "tests/support/cmocka.h"
#include "tests/support/command.h"
#include "tests/support/fixture.h"
#include "tests/support/text.h"

static void add_file(fixture *f, qgc_str *all, const char *path) {
    qgc_source text;
    ok(f, qgc_file_read(&text, path, 1 << 20, "source", &f->diag));
    qgc_str_add_bytes(all, text.text, text.bytes);
}

/* All that the page quotes. Where there is no NVRTC the artifact cannot be made, and its lines are left out. */
static const char *quoted(fixture *f, bool *compiled) {
    static const char *const files[] = {"models/llama.yaml", "graph/ops.def", "kernels/pointwise.cuh"};
    qgc_str all = qgc_str_new(f->arena);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        add_file(f, &all, files[i]);
    qgc_str_add(&all, qgc_test_output(f->arena, "dump models/tiny/tiny.yaml --passes ''", 0));
    qgc_str_add(&all, qgc_test_output(f->arena, "explain models/tiny/tiny.yaml --node act", 0));
    const char *artifact = fixture_path(f, "tiny.qgc");
    int status;
    qgc_test_run(
        f->arena,
        qgc_arena_printf(f->arena,
                         "compile models/tiny/tiny.yaml --weights models/tiny/tiny.gguf --arch sm_90a "
                         "--cache '%s' -o '%s'",
                         qgc_test_cache(fixture_path(f, "cache")), artifact),
        &status);
    *compiled = status == 0;
    if (*compiled)
        qgc_str_add(&all, qgc_test_output(
                              f->arena, qgc_arena_printf(f->arena, "inspect '%s' --launches", artifact), 0));
    return all.text;
}

/* Times are others each time, and so the line is compared up to its last comma. */
static const char *without_time(qgc_arena *a, const char *line) {
    const size_t n = strlen(line);
    return n > 3 && strcmp(line + n - 3, " us") == 0
               ? qgc_arena_strndup(a, line, (size_t)(strrchr(line, ',') - line))
               : line;
}

static void the_page_quotes_what_is_there(void **state) {
    fixture *f = *state;
    bool compiled, inside = false, of_artifact = false;
    const char *all = quoted(f, &compiled);
    qgc_str page = qgc_str_new(f->arena);
    add_file(f, &page, "docs/one_op.md");
    int n = 0;
    for (char *line = strtok(page.text, "\n"); line; line = strtok(NULL, "\n")) {
        if (strncmp(line, "**The machine code.**", 21) == 0)
            break;
        of_artifact = of_artifact || strncmp(line, "**The launch.**", 15) == 0;
        if (strncmp(line, "**The kernel.**", 15) == 0)
            of_artifact = false;
        if (strncmp(line, "```", 3) == 0)
            inside = !inside;
        else if (inside && (compiled || !of_artifact)) {
            const char *want = without_time(f->arena, line);
            if (!strstr(all, want))
                fail_msg("docs/one_op.md quotes \"%s\", which is not there", want);
            n++;
        }
    }
    assert_true(n >= (compiled ? 10 : 8));
}

int main(void) {
    const struct CMUnitTest tests[] = {FIXTURE_TEST(the_page_quotes_what_is_there)};
    return cmocka_run_group_tests_name("runtime/cli/one_op", tests, NULL, NULL);
}
