/* qgc run on the CPU, as a user and a script call it: conversations, options that do nothing, Ctrl-C. */

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "graph/base/file.h"
#include "tests/support/command.h"
#include "tests/support/fixture.h"
#include "tests/support/text.h"

#define MODEL "models/tiny/tiny.yaml --weights models/tiny/tiny.gguf --device cpu "

/* With these lines on stdin. */
static const char *talk(fixture *f, const char *lines, const char *options, int want) {
    const char *path = fixture_write(f, "lines", lines);
    return qgc_test_output(f->arena, qgc_arena_printf(f->arena, "run " MODEL "--chat %s <%s", options, path),
                           want);
}

/* The ids that begin the prompt of turn `i`. */
static void prompt_begins(const char *said, int i, const char *ids) {
    for (; i >= 0; i--) {
        said = strstr(said, "prompt: ");
        assert_non_null(said);
        said += strlen("prompt: ");
    }
    if (strncmp(said, ids, strlen(ids)) != 0)
        fail_msg("the prompt is not %s...:\n%s", ids, said);
}

/* An answer without a token leaves none, and one that was cut leaves its last, once. */
static void what_an_answer_leaves_is_its_last_token_and_its_end(void **state) {
    const char *said = talk(*state, "Hello\nAgain\n", "-n 0 --verbose-prompt", 0);
    prompt_begins(said, 0, "1534 ");
    prompt_begins(said, 1, "1535 198 1534 ");
    said = talk(*state, "Hello\nAgain\n", "-n 4 --temp 0 --verbose-prompt", 0);
    prompt_begins(said, 1, "424 1535 198 1534 ");
    const char *whole = talk(*state, "Hello\nAgain\n", "-n 40 --temp 0 --verbose-prompt", 0);
    prompt_begins(whole, 1, "1535 198 1534 ");
}

/* The tiny model with another chat template. */
static const char *with_template(fixture *f, const char *template, const char *options, const char *lines,
                                 int want) {
    qgc_test_write(f->arena, f->folder, "chat_template.jinja", template, strlen(template));
    const char *const names[] = {"config.json", "model.safetensors", "tokenizer.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *from = qgc_arena_printf(f->arena, QGC_SOURCE_DIR "/models/tiny/safetensors/%s", names[i]);
        (void)!symlink(from, qgc_test_path(f->arena, f->folder, names[i])); /* it may be there already */
    }
    const char *path = fixture_write(f, "lines", lines);
    return qgc_test_output(
        f->arena,
        qgc_arena_printf(f->arena, "run models/tiny/tiny.yaml --weights %s --device cpu --chat %s <%s",
                         f->folder, options, path),
        want);
}

/* A conversation that begins otherwise than the model has taken it is taken anew. */
static void a_template_may_drop_what_was_said(void **state) {
    fixture *f = *state;
    const char *said =
        with_template(f, "<|im_start|>user\n{{ messages[-1].content }}<|im_end|>\n<|im_start|>assistant\n",
                      "-n 4 --temp 0 --verbose-prompt", "Hello\nHello\n", 0);
    const char *first = strstr(said, "prompt: ");
    assert_non_null(first);
    const char *second = strstr(first + 8, "prompt: ");
    assert_non_null(second);
    const size_t n = strcspn(first, "\n");
    assert_true(n > 20 && strncmp(first, second, n + 1) == 0);
}

static void options_reach_the_template(void **state) {
    fixture *f = *state;
    static const char template[] = "{{ raise_exception(strftime_now('%A, %d %B %Y') ~ enable_thinking) }}";
    has(with_template(f, template, "--date 2024-02-29 --think on -p x", "", 1),
        "chat_template.jinja:1:4: error: chat template: the conversation is refused: Thursday, 29 February 2024True");
    has(with_template(f, template, "--date 1999-12-31 --think off -p x", "", 1),
        "Friday, 31 December 1999False");
    has(with_template(f, template, "--date 1999-12-31 -p x", "", 1), "Friday, 31 December 1999\n");
    has(with_template(f, "x", "--think off -p x", "", 1), "chat template has no choice about thinking");
}

static void a_turn_that_is_too_long_is_told_and_the_next_is_taken(void **state) {
    fixture *f = *state;
    qgc_str lines = qgc_str_new(f->arena);
    for (int i = 0; i < 3000; i++)
        qgc_str_add(&lines, "word ");
    qgc_str_add(&lines, "\nHello\n");
    const char *said = talk(f, lines.text, "-n 5 --temp 0", 1);
    has(said, "the context has room for 1024");
    has(said, "I am afraid");
    has(said, "prompt 15 tokens"); /* as if the first had not been */
}

static void a_zero_byte_does_not_cut_a_message(void **state) {
    fixture *f = *state;
    const char *path = qgc_test_write(f->arena, f->folder, "zero", "a\0b\nHello\n", 10);
    const char *said = qgc_test_output(
        f->arena, qgc_arena_printf(f->arena, "run " MODEL "--chat -n 1 --temp 0 <%s", path), 1);
    has(said, "the message has a zero byte at byte 1");
    has(said, "prompt 15 tokens");
    has(qgc_test_output(f->arena, qgc_arena_printf(f->arena, "run " MODEL "--chat -n 1 -f %s", path), 1),
        "the message has a zero byte at byte 1");
}

static void options_that_would_do_nothing_are_refused(void **state) {
    fixture *f = *state;
    static const struct {
        const char *options, *want;
    } cases[] = {
        {"-p hi --system Obey", "option --system is for a conversation"},
        {"--chat -p hi --specials", "option --specials is for a prompt"},
        {"-p hi --think on", "option --think is for a conversation"},
        {"-p hi --date 2024-07-26", "option --date is for a conversation"},
        {"--chat -p hi --think maybe", "option --think is \"maybe\", expected on or off"},
        {"--chat -p hi --date 2024-02-30", "option --date is \"2024-02-30\", expected a day like"},
        {"--chat -p hi --date 26.07.2024", "option --date is \"26.07.2024\", expected a day like"},
        {"-p hi --top-k 5", "option --top-k is for a temperature above 0"},
        {"-p hi --top-p 0.5", "option --top-p is for a temperature above 0"},
        {"-p hi --min-p 0.5 --temp 0", "option --min-p is for a temperature above 0"},
        {"-p hi --mode graph", "option --mode is graph, and steps run on the CPU"},
        {"-p hi --prefill steps", "option --prefill is for a GPU"},
        {"-p hi --strict-arch sm_90", "option --strict-arch is for a GPU"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        has(qgc_test_output(f->arena, qgc_arena_printf(f->arena, "run " MODEL "%s", cases[i].options), 2),
            cases[i].want);
    has(qgc_test_output(f->arena,
                        "run " MODEL "-p She -n 3 --temp 0.5 --top-k 5 --top-p 0.9 --min-p 0.1 --seed 1", 0),
        "seed 1");
}

/* Runs qgc on a prompt, interrupts it when `sign` is in what it said, and returns all that it said. */
static const char *interrupt(fixture *f, const char *options, const char *sign, int *ended) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t id = fork();
    if (id == 0) {
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        signal(SIGINT, SIG_DFL);
        execl("/bin/sh", "sh", "-c",
              qgc_arena_printf(f->arena, "exec '" QGC_COMMAND "' run " MODEL "%s", options), (char *)NULL);
        _exit(126);
    }
    close(ends[1]);
    qgc_str said = qgc_str_new(f->arena);
    char piece[4096];
    bool sent = false;
    for (ssize_t n; (n = read(ends[0], piece, sizeof piece)) > 0;) {
        qgc_str_add_bytes(&said, piece, (size_t)n);
        if (!sent && strstr(said.text, sign)) {
            assert_int_equal(kill(id, SIGINT), 0);
            sent = true;
        }
    }
    close(ends[0]);
    assert_true(sent);
    assert_int_equal(waitpid(id, ended, 0), id);
    return said.text;
}

static void a_receipt_is_verified(void **state) {
    fixture *f = *state;
    const char *receipt = fixture_path(f, "r.json");
    qgc_test_output(
        f->arena,
        qgc_arena_printf(f->arena, "run " MODEL "-p 'It is' -n 8 --temp 0.9 --seed 3 --receipt %s", receipt),
        0);
    const char *verify = qgc_arena_printf(f->arena, "verify %s", receipt);
    assert_string_equal(qgc_test_output(f->arena, verify, 0),
                        "the chain is the same\nall 8 tokens are the same\n");
    const char *json = qgc_test_output(f->arena, qgc_arena_printf(f->arena, "%s --json", verify), 0);
    has(json, "\"same\": true,\n");
    has(json, "\"differs\": []\n");
    qgc_source text;
    ok(f, qgc_file_read(&text, receipt, 1 << 20, "it", &f->diag));
    char *seed = strstr(text.text, "\"seed\": 3");
    assert_non_null(seed);
    fixture_write(
        f, "r.json",
        qgc_arena_printf(f->arena, "%.*s\"seed\": 4%s", (int)(seed - text.text), text.text, seed + 9));
    const char *said = qgc_test_output(f->arena, verify, 1);
    has(said, "first in the chain: settings is ctx ");
    has(said, " of 8 is ");
    has(said, "error: the tokens are not those of the receipt; settings differs\n");
    has(qgc_test_output(f->arena, "run " MODEL "--chat --receipt r.json </dev/null", 2),
        "--receipt is for one prompt");
    has(qgc_test_output(f->arena, "verify models/tiny/tiny.yaml", 1), "is no receipt of qgc\n");
}

static void the_start_is_told_lap_by_lap(void **state) {
    fixture *f = *state;
    const char *said = qgc_test_output(f->arena, "run " MODEL "-q -p She -n 2 --times", 0);
    has(said, " ms  weights opened\n");
    has(said, " ms  rest of the tokenizer\n");
    double sum = 0, ms;
    int read;
    for (const char *p = said; sscanf(p, "%lf ms  %n", &ms, &read) == 1; p = strchr(p, '\n') + 1) {
        if (strncmp(p + read, "to the first token\n", 19) == 0)
            break;
        sum += ms;
    }
    assert_true(fabs(ms - sum) < 1); /* each is rounded */
    assert_null(strstr(qgc_test_output(f->arena, "run " MODEL "-q -p She -n 2", 0), " ms "));
}

static void ctrl_c_ends_a_prompt_and_an_answer_with_code_130(void **state) {
    fixture *f = *state;
    qgc_str text = qgc_str_new(f->arena);
    for (int i = 0; i < 240; i++)
        qgc_str_add(&text, "a walk ");
    const char *options = qgc_arena_printf(f->arena, "-f %s --ignore-eos -n -1 --verbose-prompt",
                                           fixture_write(f, "text", text.text));
    int ended;
    const char *said = interrupt(f, options, "prompt: ", &ended); /* the ids stand before the prompt is fed */
    assert_true(WIFEXITED(ended));
    assert_int_equal(WEXITSTATUS(ended), 130);
    has(said, "tok/s"); /* the statistics */

    said = interrupt(f, "-p She --ignore-eos -n -1 --temp 0", " was", &ended);
    assert_true(WIFEXITED(ended));
    assert_int_equal(WEXITSTATUS(ended), 130);
    has(said, "tok/s");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(what_an_answer_leaves_is_its_last_token_and_its_end),
        FIXTURE_TEST(a_turn_that_is_too_long_is_told_and_the_next_is_taken),
        FIXTURE_TEST(a_zero_byte_does_not_cut_a_message),
        FIXTURE_TEST(a_template_may_drop_what_was_said),
        FIXTURE_TEST(options_reach_the_template),
        FIXTURE_TEST(options_that_would_do_nothing_are_refused),
        FIXTURE_TEST(a_receipt_is_verified),
        FIXTURE_TEST(the_start_is_told_lap_by_lap),
        FIXTURE_TEST(ctrl_c_ends_a_prompt_and_an_answer_with_code_130),
    };
    return cmocka_run_group_tests_name("runtime/cli/run", tests, NULL, NULL);
}
