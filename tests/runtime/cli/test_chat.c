/* A conversation as a person has it: the test types into a pseudo-terminal. */

#define _DEFAULT_SOURCE /* TIOCSCTTY */
#define _XOPEN_SOURCE 700
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "tests/support/command.h"
#include "tests/support/fixture.h"
#include "tests/support/text.h"

enum { MOST_SECONDS = 1800, MOST_WORDS = 24 };

/* A command on a terminal, and all that it has shown there. */
typedef struct {
    int terminal;
    pid_t process;
    qgc_str shown;
    size_t seen; /* what was shown before the last wait_for ended */
} talk;

static _Noreturn void be_the_command(const char *path, char **words) {
    const int fd = open(path, O_RDWR);
    setsid();
    ioctl(fd, TIOCSCTTY, 0);
    for (int i = 0; i < 3; i++)
        dup2(fd, i);
    execv(QGC_COMMAND, words);
    _exit(99);
}

/* `arguments` are separated by blanks. */
static talk start(fixture *f, const char *arguments) {
    char *text = qgc_arena_strdup(f->arena, arguments), *rest = text,
         *words[MOST_WORDS] = {(char *)(size_t) "qgc"};
    for (int i = 1; i < MOST_WORDS - 1 && (words[i] = strtok_r(rest ? rest : NULL, " ", &text)); i++)
        rest = NULL;
    talk t = {.terminal = posix_openpt(O_RDWR | O_NOCTTY), .shown = qgc_str_new(f->arena)};
    assert_true(t.terminal >= 0 && grantpt(t.terminal) == 0 && unlockpt(t.terminal) == 0);
    fcntl(t.terminal, F_SETFD, FD_CLOEXEC); /* the command would hold its own terminal open */
    const char *path = qgc_arena_strdup(f->arena, ptsname(t.terminal));
    const struct winsize size = {.ws_row = 50, .ws_col = 200};
    ioctl(t.terminal, TIOCSWINSZ, &size);
    t.process = fork();
    assert_true(t.process >= 0);
    if (t.process == 0)
        be_the_command(path, words);
    return t;
}

/* Reads for a moment; false where the command has ended. */
static bool read_some(talk *t) {
    char piece[4096];
    struct pollfd wait = {.fd = t->terminal, .events = POLLIN};
    if (poll(&wait, 1, 100) <= 0)
        return true;
    const ssize_t n = read(t->terminal, piece, sizeof piece);
    if (n <= 0)
        return false; /* EIO: nobody has the other end */
    qgc_str_add_bytes(&t->shown, piece, (size_t)n);
    return true;
}

/* Reads until `words` were shown after what the last call waited for. */
static void wait_for(talk *t, const char *words) {
    const time_t end = time(NULL) + MOST_SECONDS;
    const char *at = NULL;
    while (!(at = strstr(t->shown.text + t->seen, words)) && time(NULL) < end && read_some(t))
        ;
    if (!at)
        fail_msg("\"%s\" was not shown after:\n%s", words, t->shown.text);
    t->seen = (size_t)(at - t->shown.text) + strlen(words);
}

static void type(const talk *t, const char *keys) {
    if (write(t->terminal, keys, strlen(keys)) != (ssize_t)strlen(keys))
        print_message("the terminal is gone\n");
}

/* At the start of a line: the editor may draw it again where it is. */
static const char prompt[] = "\n> ";

/* Waits for the prompt, and for the editor to take the terminal over, which it does a moment later: what is typed before is not its
 * own. */
static void wait_for_prompt(talk *t) {
    const time_t last = time(NULL) + MOST_SECONDS;
    struct termios how;
    wait_for(t, prompt);
    while (QGC_HAS_LIBEDIT && time(NULL) < last && tcgetattr(t->terminal, &how) == 0 &&
           (how.c_lflag & ICANON) != 0 && read_some(t))
        ;
}

/* Types a line at the prompt. */
static void say(talk *t, const char *line) {
    wait_for_prompt(t);
    type(t, line);
    type(t, "\r");
}

/* Ends the input. */
static void hang_up(talk *t) {
    const time_t last = time(NULL) + MOST_SECONDS;
    wait_for_prompt(t);
    do
        type(t, "\x04");
    while (time(NULL) < last && read_some(t));
}

static int end(talk *t) {
    const time_t last = time(NULL) + MOST_SECONDS;
    int status;
    while (time(NULL) < last && read_some(t))
        ;
    if (time(NULL) >= last)
        kill(t->process, SIGKILL);
    close(t->terminal);
    assert_int_equal(waitpid(t->process, &status, 0), t->process);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define TINY "run models/tiny/tiny.yaml --device cpu --threads 1 -n 12"

static int setup(void **state) {
    fixture_setup(state);
    fixture *f = *state;
    setenv("XDG_STATE_HOME", f->folder, 1);
    setenv("HOME", f->folder, 1);
    setenv("TERM", "xterm", 1);
    unsetenv("QGC_DEVICE");
    return 0;
}

/* No option but where to run: the weights are beside the graph, and a terminal is there to talk. */
static void without_a_prompt_it_is_a_conversation(void **state) {
    talk t = start(*state, TINY);
    wait_for(&t, "weights models/tiny/tiny.gguf");
    wait_for(&t, "cpu, 1 thread. /help lists the commands");
    say(&t, "Hello");
    wait_for(&t, "I am afraid, ma'am, that");
    say(&t, "/quit");
    wait_for(&t, "prompt 15 tokens");
    assert_int_equal(end(&t), 0);
}

static void lines_are_edited_and_come_back(void **state) {
    talk t = start(*state, TINY);
    say(&t, "Hellooo\x7f\x7f");
    wait_for(&t, "I am afraid, ma'am, that");
    say(&t, "/reset");
    if (!QGC_HAS_LIBEDIT) {
        hang_up(&t);
        end(&t);
        skip();
    }
    wait_for_prompt(&t);
    type(&t, "\x1b[A\x1b[A\r"); /* the line before the last */
    wait_for(&t, "I am afraid, ma'am, that");
    hang_up(&t);
    assert_int_equal(end(&t), 0);
    t = start(*state, TINY);
    wait_for_prompt(&t);
    type(&t, "\x1b[A\r"); /* another day */
    wait_for(&t, "I am afraid, ma'am, that");
    say(&t, "/quit");
    assert_int_equal(end(&t), 0);
}

static void commands_change_and_keep_the_conversation(void **state) {
    fixture *f = *state;
    const char *path = fixture_path(f, "talk.json");
    talk t = start(f, TINY " --color never");
    say(&t, "/help");
    wait_for(&t, "/save FILE");
    say(&t, "/set temp 0.7");
    say(&t, "/set");
    wait_for(&t, "temp 0.7\r\n");
    say(&t, "/set temp hot");
    wait_for(&t, "error: temp is \"hot\", expected a number from 0 to 10000");
    say(&t, "/set tmp 1");
    wait_for(&t, "hint: Did you mean temp?");
    say(&t, "/set temp 0");
    say(&t, "Hello");
    wait_for(&t, "I am afraid");
    say(&t, qgc_arena_printf(f->arena, "/save %s", path));
    wait_for(&t, "2 messages are in ");
    say(&t, "/reset");
    say(&t, "/stats");
    wait_for(&t, "0 messages; 0 of 1024 positions");
    say(&t, qgc_arena_printf(f->arena, "/load %s", path));
    wait_for(&t, "2 messages are loaded");
    say(&t, "/load");
    wait_for(&t, "error: /load wants a file: /load FILE");
    say(&t, "/load /nowhere/talk.json");
    wait_for(&t, "/nowhere/talk.json: error:");
    say(&t, "/system Obey");
    say(&t, "/stats");
    wait_for(&t, "3 messages;");
    say(&t, "/drop");
    wait_for(&t, "1 message is left");
    say(&t, "/drop");
    wait_for(&t, "error: there is no turn to forget");
    say(&t, "/system");
    say(&t, "/stats");
    wait_for(&t, "0 messages;");
    say(&t, "/hepl");
    wait_for(&t, "hint: Did you mean /help?");
    say(&t, "/quit");
    assert_int_equal(end(&t), 0);
    qgc_source saved;
    ok(f, qgc_file_read(&saved, path, 1 << 16, "the conversation", &f->diag));
    has(saved.text, "\"role\": \"user\",\n      \"content\": \"Hello\"");
}

static void a_message_may_have_several_lines(void **state) {
    fixture *f = *state;
    const char *path = fixture_path(f, "talk.json");
    talk t = start(f, TINY);
    say(&t, "one\\");
    wait_for(&t, "... ");
    type(&t, "two\r");
    say(&t, "\"\"\"three");
    wait_for(&t, "... ");
    type(&t, "\r");
    wait_for(&t, "... ");
    type(&t, "four\\\"\"\"\r");
    say(&t, "//slash");
    say(&t, qgc_arena_printf(f->arena, "/save %s", path));
    wait_for(&t, "6 messages are in ");
    say(&t, "/quit");
    assert_int_equal(end(&t), 0);
    qgc_source saved;
    ok(f, qgc_file_read(&saved, path, 1 << 16, "the conversation", &f->diag));
    has(saved.text, "\"content\": \"one\\ntwo\"");
    has(saved.text, "\"content\": \"three\\n\\nfour\\\\\"");
    has(saved.text, "\"content\": \"/slash\"");
}

/* A terminal itself holds 4,095 bytes of a line. */
static void a_long_line_is_not_cut(void **state) {
    fixture *f = *state;
    talk t = start(f, TINY);
    qgc_str line = qgc_str_new(f->arena);
    for (int i = 0; i < 2000; i++)
        qgc_str_add(&line, "ab "); /* a token */
    if (!QGC_HAS_LIBEDIT) {
        hang_up(&t);
        end(&t);
        skip();
    }
    say(&t, line.text);
    wait_for(&t, "the prompt has 2013 tokens");
    say(&t, "/quit");
    end(&t);
}

static void a_full_context_says_so_and_what_to_do(void **state) {
    talk t = start(*state, "run models/tiny/tiny.yaml --device cpu --threads 1 --ctx 24 -n -1 --ignore-eos");
    say(&t, "Hello");
    wait_for(&t, "The context is full (24 positions): /reset begins a new conversation, /drop");
    say(&t, "Hello");
    wait_for(&t, "and the context has room for");
    wait_for(&t, "/reset begins a new conversation");
    say(&t, "/reset");
    say(&t, "Hello");
    wait_for(&t, "The context is full");
    hang_up(&t);
    assert_int_equal(end(&t), 0);
}

/* It ends the answer, and the conversation goes on. */
static void an_interrupt_ends_the_answer(void **state) {
    talk t = start(*state,
                   "run models/tiny/tiny.yaml --device cpu --threads 1 -n -1 --ignore-eos --temp 1 --seed 3");
    say(&t, "Hello");
    wait_for(&t, "\r\n");
    wait_for(&t, " ");
    type(&t, "\x03");
    say(&t, "/stats");
    wait_for(&t, "2 messages;");
    say(&t, "/quit");
    end(&t);
}

static const char *shell_output(fixture *f, const char *command, int want) {
    return qgc_test_output(f->arena, command, want);
}

static void a_prompt_comes_from_standard_input_too(void **state) {
    fixture *f = *state;
    const char *want = shell_output(f, TINY " -q -p Hello", 0);
    const char *file = fixture_write(f, "prompt", "Hello");
    assert_string_equal(shell_output(f, qgc_arena_printf(f->arena, TINY " -q -p - <%s", file), 0), want);
    assert_string_equal(shell_output(f, qgc_arena_printf(f->arena, TINY " -q -f - <%s", file), 0), want);
    has(shell_output(f, TINY " </dev/null", 2), "-p -");
}

static void the_result_of_a_run_is_json_where_it_is_asked_for(void **state) {
    fixture *f = *state;
    const char *said = shell_output(f, TINY " -q --json -p Hello", 0);
    assert_int_equal(*said, '{');
    has(said, "  \"text\": \"");
    has(said, "  \"answer_tokens\": 12,\n");
    said = shell_output(f, TINY " -q --chat --json -p Hello", 0);
    has(said, "      \"content\": \"I am afraid, ma'am, that\"\n");
    const char *file = fixture_path(f, "run.json");
    said = shell_output(f, qgc_arena_printf(f->arena, TINY " -q --chat --json=%s -p Hello", file), 0);
    assert_string_equal(said, "I am afraid, ma'am, that\n");
    qgc_source written;
    ok(f, qgc_file_read(&written, file, 1 << 16, "the result", &f->diag));
    has(written.text, "\"messages\"");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, fixture_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(without_a_prompt_it_is_a_conversation),
        TEST(lines_are_edited_and_come_back),
        TEST(commands_change_and_keep_the_conversation),
        TEST(a_message_may_have_several_lines),
        TEST(a_long_line_is_not_cut),
        TEST(a_full_context_says_so_and_what_to_do),
        TEST(an_interrupt_ends_the_answer),
        TEST(a_prompt_comes_from_standard_input_too),
        TEST(the_result_of_a_run_is_json_where_it_is_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
