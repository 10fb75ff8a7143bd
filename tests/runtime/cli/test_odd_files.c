/* Files that are not what a command wants: an error that names the file and what is wrong with it, never a crash. */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* What a shell prints for a line in which qgc is the command and $src the sources, in the test's folder. A command that
 * waits for ever is ended, with status 124. */
static const char *shell(fixture *f, const char *line, int want) {
    return qgc_test_shell(f->arena,
                          qgc_arena_printf(f->arena,
                                           "exec </dev/null; qgc() { timeout 1200 '" QGC_COMMAND
                                           "' \"$@\"; }; src='" QGC_SOURCE_DIR "'; cd '%s'; %s",
                                           f->folder, line),
                          want);
}

#define TINY "\"$src\"/models/tiny/tiny.yaml --weights \"$src\"/models/tiny/tiny.gguf --device cpu "

/* A pipe that nothing is written to, in the place of each kind of file. */
static void no_command_waits_for_a_pipe(void **state) {
    fixture *f = *state;
    static const char *const lines[] = {
        "qgc compile p",
        "qgc compile \"$src\"/models/tiny/tiny.yaml --weights p",
        "qgc run p --weights \"$src\"/models/tiny/tiny.gguf --device cpu -p hi",
        "qgc run " TINY "-f p",
        "qgc run " TINY "--load-pass p -p hi",
        "qgc inspect p",
        "qgc ablate " TINY "--tokens p",
        "qgc ablate " TINY "--budget p",
        "qgc bisect " TINY "--against p",
        "qgc view \"$src\"/models/tiny/tiny.yaml --bench p",
        "qgc tokenize --weights \"$src\"/models/tiny/tiny.gguf -f p",
        "qgc view \"$src\"/models/tiny/tiny.yaml -o p",
        "mkfifo d/config.json; qgc tokenize --weights d hi",
        "rm -f d/config.json; echo '{}' >d/config.json; mkfifo d/model.safetensors; qgc tokenize --weights d hi",
        "rm -f d/model.safetensors; mkfifo d/model.safetensors.index.json; qgc tokenize --weights d hi",
    };
    shell(f, "mkfifo p; mkdir d", 0);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        has(shell(f, lines[i], 1), i == 11                      ? "No such device"
                                   : strstr(lines[i], "--load") ? "is not a regular file"
                                                                : "is a pipe");
}

static void outputs_are_written_where_they_were_asked_for(void **state) {
    fixture *f = *state;
    shell(
        f,
        "cp \"$src\"/models/qwen2.yaml \"$src\"/models/llama.yaml . && sed 's#[.][.]/##' \"$src\"/models/tiny/tiny.yaml >tiny.yaml",
        0);
    has(shell(f, "qgc view tiny.yaml -o tiny.yaml", 1),
        "tiny.yaml: error: could not write the file: it is an input");
    has(shell(f, "qgc view tiny.yaml -o qwen2.yaml", 1), "it is an input of this command");
    has(shell(f, "qgc view tiny.yaml -o nowhere/x", 1),
        "nowhere/x: error: could not write the file: No such file");
    shell(f, "qgc view tiny.yaml -o page && qgc view tiny.yaml -o - 2>err | cmp - page", 0);
    shell(f, "qgc view tiny.yaml -o /dev/stdout 2>err >again && cmp again page", 0);
    shell(f, "qgc dump tiny.yaml >a && qgc dump - <tiny.yaml >b && cmp a b", 0);
    shell(f,
          "echo 'A text' >text && qgc tokenize --weights \"$src\"/models/tiny/tiny.gguf -f text >a && "
          "qgc tokenize --weights \"$src\"/models/tiny/tiny.gguf -f - <text >b && cmp a b",
          0);
}

/* Where no output was named, the error says how to name one. */
static void an_output_by_default_that_cannot_be_can_be_named(void **state) {
    fixture *f = *state;
    has(shell(f, "mkdir tiny.qgc && qgc compile \"$src\"/models/tiny/tiny.yaml", 1),
        "tiny.qgc: error: could not write the file: it is a folder\n  hint: -o FILE writes it elsewhere.\n");
    has(shell(f, "mkdir tiny.html && qgc view \"$src\"/models/tiny/tiny.yaml", 1),
        "  hint: -o FILE writes it elsewhere.\n");
}

/* They are numbers in memory, in the types that a quantiser would give the tensors. */
static void random_weights_are_no_files(void **state) {
    const char *said = shell(
        *state,
        "mkdir tmp && TMPDIR=\"$PWD\"/tmp qgc bisect \"$src\"/models/tiny/tiny.yaml --weights random:q4_k_m && "
        "test -z \"$(ls -A tmp)\"",
        0);
    has(said, "\nequal: bit for bit\n");
}

/* The error comes before what takes long: no table of numbers was printed. */
static void an_output_that_cannot_be_is_refused_before_the_measuring(void **state) {
    fixture *f = *state;
    static const char *const lines[] = {
        "qgc ablate " TINY "--steps 4 --json=nowhere/x", "qgc ablate " TINY "--steps 4 --svg nowhere/x",
        "qgc run " TINY "-p She --receipt nowhere/x",    "qgc run " TINY "-p She --json=nowhere/x",
        "qgc bisect " TINY "--steps 4 --json=nowhere/x", "qgc bisect " TINY "--steps 4 -o nowhere/x"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_string_equal(shell(f, lines[i], 1),
                            "nowhere/x: error: could not write the file: No such file or directory\n");
}

/* Numbers for programs are all that goes to stdout then. */
static void json_to_stdout_stands_alone(void **state) {
    fixture *f = *state;
    const char *text = shell(f, "qgc ablate " TINY "--steps 4 -q --json 2>table", 0);
    assert_true(text[0] == '{' && strcmp(text + strlen(text) - 2, "}\n") == 0);
    shell(f, "grep -q 'fuse-qkv' table", 0);
}

/* Where a weight is no number, all logits are none, and each choice would be token 0. */
static void logits_that_are_no_numbers_are_an_error(void **state) {
    fixture *f = *state;
    shell(f,
          "cp \"$src\"/models/tiny/tiny.gguf . && bytes=$(stat -c %s tiny.gguf) && "
          "printf '\\377\\177' | dd of=tiny.gguf bs=1 seek=$((bytes - 2)) conv=notrunc status=none",
          0);
    const char *said =
        shell(f, "qgc run \"$src\"/models/tiny/tiny.yaml --weights tiny.gguf --device cpu -p She", 1);
    has(said, "error: the logits are not numbers: the first value that holds ");
    has(said, "note: weight \"");
    has(said, "\" holds nan in row ");
}

/* Neither ESC nor its 8-bit form, nor a byte that is not UTF-8. */
static void is_harmless(const char *text) {
    assert_null(strchr(text, 27));
    assert_null(strstr(text, "\xC2\x9B"));
    for (const char *p = text; *p; p++)
        if (((unsigned char)*p & 0xC0) == 0x80)
            assert_true(p > text && (unsigned char)p[-1] >= 0x80);
}

static void no_terminal_gets_commands_out_of_files(void **state) {
    fixture *f = *state;
    static const char *const lines[] = {
        "printf 'qgc: 1\\narch: \"\\302\\2331m\"\\n' >a.yaml; qgc dump a.yaml",
        "printf 'qgc: 1\\narch: \"\\\\e[1m\"\\n' >a.yaml; qgc dump a.yaml",
        "printf 'qgc: 1 \\033[1m\\n' >a.yaml; qgc dump a.yaml",
        "printf 'qgc: 1\\nx\\2331m: 3\\n' >a.yaml; qgc dump a.yaml",
        "x=$(printf 'x\\033[1m\\302\\233\\233.yaml'); qgc dump $x",
        "mkdir -p d; printf '{\"model_type\": \"a\\\\u001b[1m\"}' >d/config.json; : >d/model.safetensors; "
        "qgc run \"$src\"/models/tiny/tiny.yaml --weights d --device cpu -p hi",
        "mkdir -p d; printf '{\"model_type\": \"a\\\\u009b1m\"}' >d/config.json; "
        "cp \"$src\"/models/tiny/safetensors/*.safetensors d/model.safetensors; "
        "qgc run \"$src\"/models/tiny/tiny.yaml --weights d --device cpu -p hi",
        "printf 'QGC\\032\\033[1m\\233' >x.qgc; qgc inspect x.qgc",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        is_harmless(shell(f, lines[i], 1));
    is_harmless(shell(
        f,
        "x=$(printf 'x\\033[1m\\302\\233\\233'); cp \"$src\"/models/qwen2.yaml \"$src\"/models/llama.yaml . && "
        "sed 's#[.][.]/##' \"$src\"/models/tiny/tiny.yaml >$x.yaml; qgc view $x.yaml && "
        "qgc bisect $x.yaml --weights random --steps 2 --device cpu && "
        "qgc ablate $x.yaml --weights random --steps 2 --device cpu",
        0));
    is_harmless(shell(
        f, "qgc tokenize --weights \"$src\"/models/tiny/tiny.gguf \"$(printf 'a\\033\\302\\233')\"", 0));
}

/* What stands in a file that a graph names is not shown before it is known to be a graph. */
static void the_text_of_a_file_that_is_no_graph_is_not_shown(void **state) {
    fixture *f = *state;
    static const char *const secrets[] = {
        "root:secret:0", "secret: 1\\nsecret: 2",          "- secret", "secret: [1", "\\tsecret: x",
        "secret: 1",     "qgc: secret-and-long-and-longer"};
    for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++) {
        const char *line = qgc_arena_printf(
            f->arena, "printf '%s\\n' >other; printf 'qgc: 1\\nextends: other\\n' >g.yaml; qgc dump g.yaml",
            secrets[i]);
        const char *said = shell(f, line, 1);
        has(said, "other:");
        has(said, "reading the extended file other");
        if (i < 6 && strstr(said, "secret"))
            fail_msg("the text is shown:\n%s", said);
    }
}

/* A line, the status, and what the error has to name: the file and what is wrong there. */
static void errors_name_the_file_that_is_wrong(void **state) {
    fixture *f = *state;
    static const struct {
        const char *line;
        int status;
        const char *names[3];
    } cases[] = {
        {"mkdir l; echo '{}' >l/config.json; ln -s nowhere l/model.safetensors; qgc tokenize --weights l hi",
         1,
         {"l/model.safetensors: error: could not open the file: No such file"}},
        {"cp \"$src\"/models/tiny/safetensors/model.safetensors model-00001-of-00002.safetensors; "
         "qgc tokenize --weights model-00001-of-00002.safetensors hi",
         1,
         {"model-00001-of-00002.safetensors: error: is one of the 2 files of one model", "Give the folder"}},
        {"qgc compile \"$src\"/models/tiny/tiny.yaml --arch sm_90,sm_80,sm_90 -o x.qgc",
         2,
         {"qgc: error: option --arch names sm_90 twice"}},
        {"cp \"$src\"/models/tiny/tiny.gguf w.gguf; qgc compile \"$src\"/models/tiny/tiny.yaml --weights w.gguf -q -o y.qgc; rm w.gguf; "
         "qgc run y.qgc -p hi --device cpu",
         1,
         {"w.gguf: error: could not open", "the artifact \"y.qgc\" records", "Say with --weights"}},
        {"qgc bisect y.qgc --device cpu",
         1,
         {"w.gguf: error: could not open", "the artifact \"y.qgc\" records"}},
        {"mkdir t; cp \"$src\"/models/tiny/safetensors/* t; printf '{{ never' >t/chat_template.jinja; "
         "qgc run \"$src\"/models/tiny/tiny.yaml --weights t --device cpu --chat -p hi",
         1,
         {"t/chat_template.jinja:1:9: error: chat template: the template ends inside a block"}},
        {"printf '\\357\\273\\277' >bom.yaml; sed 's#[.][.]/##' \"$src\"/models/tiny/tiny.yaml >>bom.yaml; "
         "cp \"$src\"/models/qwen2.yaml \"$src\"/models/llama.yaml .; qgc dump bom.yaml >/dev/null && echo fine",
         0,
         {"fine"}},
        {"printf '\\357\\273\\277qgc: 1\\nnme: x\\n' >bom.yaml; qgc dump bom.yaml",
         1,
         {"bom.yaml:2:1: error: unknown key \"nme\""}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *said = shell(f, cases[i].line, cases[i].status);
        for (int k = 0; k < 3 && cases[i].names[k]; k++)
            has(said, cases[i].names[k]);
    }
}

/* What all tests here rely on: their folders go, and nothing that a link in one of them leads to. */
static void a_folder_goes_without_what_its_links_lead_to(void **state) {
    fixture *f = *state;
    const char *kept = fixture_write(f, "kept", "text"), *other = qgc_test_folder(f->arena);
    assert_int_equal(symlink(f->folder, qgc_test_path(f->arena, other, "folder")), 0);
    assert_int_equal(symlink(kept, qgc_test_path(f->arena, other, "file")), 0);
    assert_int_equal(symlink("/nowhere", qgc_test_path(f->arena, other, "nothing")), 0);
    qgc_test_folder_drop(f->arena, other);
    assert_int_equal(access(kept, F_OK), 0);
    assert_int_equal(access(other, F_OK), -1);
}

/* An empty entry in the path of an executable would be the current folder, and these would be loaded and fail. */
static void no_library_comes_from_the_current_folder(void **state) {
    fixture *f = *state;
    shell(f,
          "for l in $(ldd '" QGC_COMMAND
          "' | sed -n 's/^[[:space:]]*\\(lib[^ ]*\\) => .*/\\1/p'); do : >$l; done; "
          "test -e libyaml-0.so.2 && qgc --version",
          0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(an_error_outlives_the_file_that_it_names),
        FIXTURE_TEST(no_command_waits_for_a_pipe),
        FIXTURE_TEST(outputs_are_written_where_they_were_asked_for),
        FIXTURE_TEST(an_output_that_cannot_be_is_refused_before_the_measuring),
        FIXTURE_TEST(logits_that_are_no_numbers_are_an_error),
        FIXTURE_TEST(no_terminal_gets_commands_out_of_files),
        FIXTURE_TEST(the_text_of_a_file_that_is_no_graph_is_not_shown),
        FIXTURE_TEST(errors_name_the_file_that_is_wrong),
        FIXTURE_TEST(a_folder_goes_without_what_its_links_lead_to),
        FIXTURE_TEST(no_library_comes_from_the_current_folder),
        FIXTURE_TEST(random_weights_are_no_files),
        FIXTURE_TEST(an_output_by_default_that_cannot_be_can_be_named),
        FIXTURE_TEST(json_to_stdout_stands_alone),
    };
    return cmocka_run_group_tests_name("runtime/cli/odd_files", tests, NULL, NULL);
}
