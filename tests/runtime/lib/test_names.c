/* Which names libqgc shows, and that its header does for C++ and for a program by itself. */

#include <stdlib.h>

#include "tests/support/fixture.h"
#include "tests/support/shell.h"
#include "tests/support/text.h"

static const char *output(fixture *f, const char *command, int want) {
    return qgc_test_shell(f->arena, command, want);
}

/* Every name of the header that is followed by a bracket on a line that begins with QGC_API. */
static const char *declared(fixture *f) {
    return output(
        f,
        "tr '\\n' ' ' <include/qgc.h | grep -o 'QGC_API [^;(]*(' | grep -o 'qgc_[a-z_]*($' | tr -d '(' | sort -u",
        0);
}

static void the_libraries_show_what_the_header_declares(void **state) {
    fixture *f = *state;
    const char *want = declared(f);
    has(want, "qgc_open\n");
    has(want, "qgc_inspect_file\n");
    assert_string_equal(
        output(f, "nm -D --defined-only '" QGC_LIBRARY "' | sed -n 's/.* T \\([^@]*\\).*/\\1/p' | sort -u",
               0),
        want);
    /* a later clang's sanitizer keeps its own */
    assert_string_equal(
        output(f,
               "nm -g --defined-only '" QGC_STATIC
               "' | sed -n 's/.* [A-Z] //p' | grep -v '^___asan_globals_registered$' | sort -u",
               0),
        want);
}

static void the_library_has_no_path_to_load_from(void **state) {
    fixture *f = *state;
    const char *const files[] = {QGC_LIBRARY, QGC_COMMAND};
    for (int i = 0; i < 2; i++) {
        const char *said = output(f, qgc_arena_printf(f->arena, "readelf -d '%s'", files[i]), 0);
        has(said, "NEEDED");
        assert_int_equal(count(said, "PATH)"), 0);
    }
}

#define EXAMPLE_RUNS " models/tiny/tiny.yaml models/tiny/tiny.gguf 'It is a truth universally'"
static const char example_text[] = " different. I am sure it is not very likely to";

static void the_example_in_c_runs_with_both_libraries(void **state) {
    fixture *f = *state;
    const char *program = fixture_path(f, "embed");
    output(f,
           qgc_arena_printf(
               f->arena,
               "'" QGC_CC
               "' -std=c11 -Wall -Wextra -Werror -Iinclude docs/examples/embed.c -o %s '" QGC_LIBRARY
               "' -Wl,-rpath,\"$(dirname '" QGC_LIBRARY "')\" " QGC_LINK_FLAGS,
               program),
           0);
    has(output(f, qgc_arena_printf(f->arena, "CUDA_VISIBLE_DEVICES= %s" EXAMPLE_RUNS, program), 0),
        example_text);
    has(output(f, qgc_arena_printf(f->arena, "%s none.qgc models/tiny/tiny.gguf hello", program), 1),
        "none.qgc");
    output(
        f,
        qgc_arena_printf(
            f->arena,
            "'" QGC_CC "' -Iinclude docs/examples/embed.c -o %s '" QGC_STATIC
            "' $(pkg-config --libs yaml-0.1 libpcre2-8 libutf8proc jansson) -lpthread -ldl -lm " QGC_LINK_FLAGS,
            program),
        0);
    has(output(f, qgc_arena_printf(f->arena, "CUDA_VISIBLE_DEVICES= %s" EXAMPLE_RUNS, program), 0),
        example_text);
}

static void the_example_in_python_runs(void **state) {
    fixture *f = *state;
    if (*QGC_LINK_FLAGS)
        skip(); /* a sanitizer has to be in the program */
    if (strcmp(output(f, "command -v python3 >/dev/null || echo none", 0), "none\n") == 0)
        skip();
    has(output(f, "CUDA_VISIBLE_DEVICES= python3 docs/examples/embed.py" EXAMPLE_RUNS " '" QGC_LIBRARY "'",
               0),
        example_text);
    has(output(f, "python3 docs/examples/embed.py none.qgc models/tiny/tiny.gguf hello '" QGC_LIBRARY "'", 1),
        "none.qgc");
}

static void the_header_is_good_for_cxx(void **state) {
    fixture *f = *state;
    const char *source =
        fixture_write(f, "a.cc", "#include <qgc.h>\nint main() { return qgc_abi() != QGC_ABI; }\n");
    output(f,
           qgc_arena_printf(
               f->arena,
               "command -v g++ >/dev/null || exit 0; g++ -Wall -Wextra -Wpedantic -Werror -Iinclude "
               "-fsyntax-only %s",
               source),
           0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(the_libraries_show_what_the_header_declares),
        FIXTURE_TEST(the_library_has_no_path_to_load_from),
        FIXTURE_TEST(the_example_in_c_runs_with_both_libraries),
        FIXTURE_TEST(the_example_in_python_runs),
        FIXTURE_TEST(the_header_is_good_for_cxx),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
