/* Files that are not what a command wants: an error that names the file and what is wrong with it, never a crash. */

#include <stdlib.h>
#include <string.h>

#include "tests/support/command.h"
#include "tests/support/fixture.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/text.h"

/* A GGUF whose tokenizer has no tokens, of the architecture of the tiny model. */
static const char *without_tokens(fixture *f) {
    qgc_str s = qgc_str_new(f->arena);
    gguf_put_header(&s, 3, 0, 3);
    gguf_put_key_string(&s, "general.architecture", "qwen2");
    gguf_put_key_string(&s, "tokenizer.ggml.model", "gpt2");
    gguf_put_key_string(&s, "tokenizer.ggml.pre", "qwen2");
    return qgc_test_write(f->arena, f->folder, "no-tokens.gguf", s.text, s.bytes);
}

/* The weights are gone when the error is printed; what is freed is overwritten, so that a stale name shows. */
static void an_error_outlives_the_file_that_it_names(void **state) {
    fixture *f = *state;
    const char *path = without_tokens(f);
    static const char *const commands[] = {"tokenize --weights %s hi",
                                           "ablate models/tiny/tiny.yaml --weights %s --device cpu -p hi",
                                           "bisect models/tiny/tiny.yaml --weights %s --device cpu -p hi"};
    assert_int_equal(setenv("MALLOC_PERTURB_", "165", 1), 0);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const char *before = strstr(commands[i], "%s");
        const char *text = qgc_test_output(f->arena,
                                           qgc_arena_printf(f->arena, "%.*s%s%s", (int)(before - commands[i]),
                                                            commands[i], path, before + 2),
                                           1);
        has(text, qgc_arena_printf(f->arena, "%s: error: tokenizer has 0 tokens", path));
    }
    const char *artifact = fixture_write(f, "cut.qgc", "QGC\x1a and no more");
    has(qgc_test_output(f->arena, qgc_arena_printf(f->arena, "inspect %s", artifact), 1),
        qgc_arena_printf(f->arena, "%s: error: ", artifact));
    has(qgc_test_output(f->arena, qgc_arena_printf(f->arena, "bisect %s --device cpu", artifact), 1),
        qgc_arena_printf(f->arena, "%s: error: ", artifact));
    unsetenv("MALLOC_PERTURB_");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(an_error_outlives_the_file_that_it_names),
    };
    return cmocka_run_group_tests_name("runtime/cli/odd_files", tests, NULL, NULL);
}
