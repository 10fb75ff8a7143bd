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

/* What a shell prints for a line in which $qgc is the command and $src the sources, in the test's folder. A command that
 * waits for ever is ended, with status 124. */
static const char *shell(fixture *f, const char *line, int want) {
    FILE *p = popen(qgc_arena_printf(f->arena,
                                     "exec 2>&1 </dev/null; qgc='timeout 120 " QGC_COMMAND
                                     "'; src='" QGC_SOURCE_DIR "'; cd '%s'; %s",
                                     f->folder, line),
                    "r");
    assert_non_null(p);
    qgc_str out = qgc_str_new(f->arena);
    char piece[4096];
    for (size_t n; (n = fread(piece, 1, sizeof piece, p)) > 0;)
        qgc_str_add_bytes(&out, piece, n);
    const int status = WEXITSTATUS(pclose(p));
    if (status != want)
        fail_msg("%s: status %d, output:\n%s", line, status, out.text);
    return out.text;
}

#define TINY "$src/models/tiny/tiny.yaml --weights $src/models/tiny/tiny.gguf --device cpu "

/* A pipe that nothing is written to, in the place of each kind of file. */
static void no_command_waits_for_a_pipe(void **state) {
    fixture *f = *state;
    static const char *const lines[] = {
        "$qgc compile p",
        "$qgc compile $src/models/tiny/tiny.yaml --weights p",
        "$qgc run p --weights $src/models/tiny/tiny.gguf --device cpu -p hi",
        "$qgc run " TINY "-f p",
        "$qgc run " TINY "--load-pass p -p hi",
        "$qgc inspect p",
        "$qgc ablate " TINY "--tokens p",
        "$qgc ablate " TINY "--budget p",
        "$qgc bisect " TINY "--against p",
        "$qgc view $src/models/tiny/tiny.yaml --bench p",
        "$qgc tokenize --weights $src/models/tiny/tiny.gguf -f p",
        "$qgc view $src/models/tiny/tiny.yaml -o p",
        "mkfifo d/config.json; $qgc tokenize --weights d hi",
        "rm -f d/config.json; echo '{}' >d/config.json; mkfifo d/model.safetensors; $qgc tokenize --weights d hi",
        "rm -f d/model.safetensors; mkfifo d/model.safetensors.index.json; $qgc tokenize --weights d hi",
    };
    shell(f, "mkfifo p; mkdir d", 0);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        has(shell(f, lines[i], 1), i == 11                      ? "No such device"
                                   : strstr(lines[i], "--load") ? "is not a regular file"
                                                                : "is a pipe");
}

static void outputs_are_written_where_they_were_asked_for(void **state) {
    fixture *f = *state;
    shell(f, "cp $src/models/qwen2.yaml . && sed 's#[.][.]/##' $src/models/tiny/tiny.yaml >tiny.yaml", 0);
    has(shell(f, "$qgc view tiny.yaml -o tiny.yaml", 1),
        "tiny.yaml: error: could not write the file: it is an input");
    has(shell(f, "$qgc view tiny.yaml -o qwen2.yaml", 1), "it is an input of this command");
    has(shell(f, "$qgc view tiny.yaml -o nowhere/x", 1),
        "nowhere/x: error: could not write the file: No such file");
    shell(f, "$qgc view tiny.yaml -o page && $qgc view tiny.yaml -o - 2>err | cmp - page", 0);
    shell(f, "$qgc view tiny.yaml -o /dev/stdout 2>err >again && cmp again page", 0);
    shell(f, "$qgc dump tiny.yaml >a && $qgc dump - <tiny.yaml >b && cmp a b", 0);
    shell(f,
          "echo 'A text' >text && $qgc tokenize --weights $src/models/tiny/tiny.gguf -f text >a && "
          "$qgc tokenize --weights $src/models/tiny/tiny.gguf -f - <text >b && cmp a b",
          0);
}

/* The error comes before what takes long: no table of numbers was printed. */
static void an_output_that_cannot_be_is_refused_before_the_measuring(void **state) {
    fixture *f = *state;
    static const char *const lines[] = {
        "$qgc ablate " TINY "--steps 4 --json nowhere/x", "$qgc ablate " TINY "--steps 4 --svg nowhere/x",
        "$qgc bisect " TINY "--steps 4 --json nowhere/x", "$qgc bisect " TINY "--steps 4 -o nowhere/x"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_string_equal(shell(f, lines[i], 1),
                            "nowhere/x: error: could not write the file: No such file or directory\n");
}

/* Numbers for programs are all that goes to stdout then. */
static void json_to_stdout_stands_alone(void **state) {
    fixture *f = *state;
    const char *text = shell(f, "$qgc ablate " TINY "--steps 4 -q --json - 2>table", 0);
    assert_true(text[0] == '{' && strcmp(text + strlen(text) - 2, "}\n") == 0);
    shell(f, "grep -q 'fuse-qkv' table", 0);
}

/* Where a weight is no number, all logits are none, and each choice would be token 0. */
static void logits_that_are_no_numbers_are_an_error(void **state) {
    fixture *f = *state;
    shell(f,
          "cp $src/models/tiny/tiny.gguf . && bytes=$(stat -c %s tiny.gguf) && "
          "printf '\\377\\177' | dd of=tiny.gguf bs=1 seek=$((bytes - 2)) conv=notrunc status=none",
          0);
    const char *said =
        shell(f, "$qgc run $src/models/tiny/tiny.yaml --weights tiny.gguf --device cpu -p She", 1);
    has(said, "error: the logits are not numbers: the first value that holds ");
    has(said, "note: weight \"");
    has(said, "\" holds nan in row ");
}

/* An empty entry in the path of an executable would be the current folder, and these would be loaded and fail. */
static void no_library_comes_from_the_current_folder(void **state) {
    fixture *f = *state;
    shell(f,
          "for l in $(ldd " QGC_COMMAND
          " | sed -n 's/^[[:space:]]*\\(lib[^ ]*\\) => .*/\\1/p'); do : >$l; done; "
          "test -e libyaml-0.so.2 && $qgc --version",
          0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(an_error_outlives_the_file_that_it_names),
        FIXTURE_TEST(no_command_waits_for_a_pipe),
        FIXTURE_TEST(outputs_are_written_where_they_were_asked_for),
        FIXTURE_TEST(an_output_that_cannot_be_is_refused_before_the_measuring),
        FIXTURE_TEST(logits_that_are_no_numbers_are_an_error),
        FIXTURE_TEST(no_library_comes_from_the_current_folder),
        FIXTURE_TEST(json_to_stdout_stands_alone),
    };
    return cmocka_run_group_tests_name("runtime/cli/odd_files", tests, NULL, NULL);
}
