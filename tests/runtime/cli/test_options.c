/* What all commands have in common on the command line, and what is made from the tables of options. */

#include <stdlib.h>

#include "tests/support/command.h"
#include "tests/support/fixture.h"
#include "tests/support/text.h"

#define RUN "run models/tiny/tiny.yaml --weights models/tiny/tiny.gguf "

/* $qgc is found by its name, as its path may have blanks. */
static const char *shell(fixture *f, const char *command, int want) {
    return qgc_test_shell(
        f->arena,
        qgc_arena_printf(f->arena, "qgc=qgc; PATH=\"$(dirname '" QGC_COMMAND "'):$PATH\"; (%s)", command),
        want);
}

static void a_value_may_follow_its_letter(void **state) {
    fixture *f = *state;
    const char *apart = qgc_test_output(f->arena, RUN "--device cpu -p hi -n 5 -q", 0);
    assert_string_equal(qgc_test_output(f->arena, RUN "--device cpu -phi -n5 -q", 0), apart);
    has(qgc_test_output(f->arena, RUN "-p hi -n5x", 2), "option --n wants a whole number, got \"5x\"");
    has(qgc_test_output(f->arena, RUN "-p hi -qn5", 2), "unknown option \"-qn5\"");
}

static void variables_are_defaults(void **state) {
    fixture *f = *state;
    has(shell(f, "QGC_DEVICE=cpu QGC_THREADS=1 $qgc " RUN "-p hi -n1", 0), "cpu, 1 thread; prompt ");
    has(shell(f, "QGC_DEVICE=tpu QGC_THREADS=1 $qgc " RUN "--device cpu --threads 2 -p hi -n1", 0),
        "cpu, 2 threads");
    has(shell(f, "QGC_THREADS= $qgc " RUN "--device cpu -p hi -n1 -q", 0), "\n");
    const char *said = shell(f, "QGC_THREADS=many $qgc " RUN "--device cpu -p hi -n1", 2);
    has(said, "option --threads wants a whole number, got \"many\"");
    has(said, "the environment variable QGC_THREADS gives it");
    said = shell(f, "QGC_DEVICE=tpu $qgc run -p x", 2);
    has(said, "unknown device \"tpu\", expected auto, gpu, gpu:N or cpu");
    has(said, "the environment variable QGC_DEVICE gives it");
    said = shell(f, "$qgc --verison", 2);
    has(said, "unknown option \"--verison\"");
    has(said, "Did you mean qgc --version?");
    has(shell(f, "QGC_THREADS=many $qgc run --help", 0), "($QGC_THREADS)");
}

static void messages_are_coloured_where_it_is_asked_for(void **state) {
    fixture *f = *state;
    assert_null(strchr(shell(f, "$qgc tokenize", 2), '\033'));
    assert_null(strchr(shell(f, "$qgc tokenize --color auto", 2), '\033'));
    assert_non_null(strchr(shell(f, "NO_COLOR=1 $qgc tokenize --color always", 2), '\033'));
    assert_non_null(strchr(shell(f, "QGC_COLOR=always $qgc tokenize", 2), '\033'));
    assert_null(strchr(shell(f, "QGC_COLOR=always $qgc tokenize --color=never", 2), '\033'));
    has(shell(f, "$qgc run -n -5", 2), "option --n is -5, expected -1 to 16777216\n");
    has(shell(f, "$qgc ops --color red", 2), "option --color is \"red\", expected auto, always or never");
}

static void every_command_can_be_quiet(void **state) {
    fixture *f = *state;
    const char *names = shell(f, "$qgc --help=names", 0);
    assert_true(count(names, "\n") >= 13);
    has(names, "run\n");
    for (const char *at = names; *at; at += strcspn(at, "\n") + 1) {
        const char *name = qgc_arena_strndup(f->arena, at, strcspn(at, "\n"));
        has(shell(f, qgc_arena_printf(f->arena, "$qgc %s --help", name), 0), "-q, --quiet");
    }
}

/* groff finds nothing to complain about. */
static void every_command_has_a_manual_page(void **state) {
    fixture *f = *state;
    const char *formatted = shell(f, "$qgc run --help=man", 0);
    has(formatted, ".TH QGC-RUN 1");
    has(formatted, "\\fB\\-n\\fR, \\fB\\-\\-n\\fR \\fIN\\fR\n");
    has(formatted, "(default 256)");
    has(shell(f, "$qgc --help=man", 0), "\\fBqgc\\-run\\fR(1)\n");
    has(shell(f, "$qgc --help=html", 2),
        "option --help is \"html\", expected nothing, man, bash, zsh or fish");
    has(shell(f, "$qgc run --help=html", 2), "option --help is \"html\"");
    const char *warnings =
        shell(f,
              "command -v groff >/dev/null || exit 0; for name in $($qgc --help=names); do "
              "$qgc $name --help=man | groff -man -Tutf8 -ww -z; done",
              0);
    assert_string_equal(warnings, "");
}

#define COMPLETE                                                                        \
    "command -v bash >/dev/null || { echo skipped; exit 0; }; $qgc --help=bash >%s/c; " \
    "bash -c '. %s/c; COMP_WORDS=(%s); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _qgc; echo ${COMPREPLY[@]}'"

static const char *completions(fixture *f, const char *words) {
    return shell(f, qgc_arena_printf(f->arena, COMPLETE, f->folder, f->folder, words), 0);
}

static void bash_completes_commands_options_and_values(void **state) {
    fixture *f = *state;
    if (strcmp(completions(f, "qgc compi"), "skipped\n") == 0)
        skip();
    assert_string_equal(completions(f, "qgc compi"), "compile\n");
    assert_string_equal(completions(f, "qgc run --wei"), "--weights\n");
    assert_string_equal(completions(f, "qgc run --device g"), "gpu\n");
    assert_string_equal(completions(f, "qgc run models/tiny/tiny.g"), "models/tiny/tiny.gguf\n");
    assert_string_equal(completions(f, "qgc run --weights models/tiny/tiny.g"), "models/tiny/tiny.gguf\n");
    assert_string_equal(completions(f, "qgc run -n models/tiny/tiny.g"), "\n");
}

static void other_shells_can_read_theirs(void **state) {
    fixture *f = *state;
    has(shell(f, "$qgc --help=zsh", 0), "#compdef qgc\n");
    has(shell(f, "$qgc --help=fish", 0),
        "complete -c qgc -n '__fish_seen_subcommand_from run' -l weights -r -F");
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "fish" : "zsh";
        shell(f,
              qgc_arena_printf(f->arena,
                               "command -v %s >/dev/null || exit 0; $qgc --help=%s >%s/x && %s -n %s/x", name,
                               name, f->folder, name, f->folder),
              0);
    }
}

/* A flag: on stdout and nothing else there, or in a file. */
static void results_are_json_where_it_is_asked_for(void **state) {
    fixture *f = *state;
    static const struct {
        const char *command;
        bool timed; /* there are times in it, or what the cache had */
    } cases[] = {{"passes", false},
                 {"ops", false},
                 {"tokenize --weights models/tiny/tiny.gguf 'Hello there'", false},
                 {"passes --print", false},
                 {"devices --known", false},
                 {"explain models/tiny/tiny.yaml", true},
                 {"compile models/tiny/tiny.yaml -o /dev/null", true}};
    const char *path = fixture_path(f, "result.json");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *said = shell(f, qgc_arena_printf(f->arena, "$qgc %s --json", cases[i].command), 0);
        assert_true(*said == '[' || *said == '{');
        const char *text =
            shell(f, qgc_arena_printf(f->arena, "$qgc %s --json='%s'", cases[i].command, path), 0);
        assert_true(*text && *text != '[' && *text != '{'); /* what there is without it */
        const char *written = shell(f, qgc_arena_printf(f->arena, "cat '%s'", path), 0);
        assert_int_equal(*written, *said);
        if (!cases[i].timed)
            assert_string_equal(written, said);
    }
    has(shell(f, "$qgc tokenize --weights models/tiny/tiny.gguf 'Hello' --ids --json", 0), "[\n  ");
    has(shell(f, "$qgc tokenize --weights models/tiny/tiny.gguf Hi --json=nowhere/x", 1), "nowhere");
}

/* What has no name and what would be two texts in one stream. */
static void standard_output_takes_one_thing(void **state) {
    fixture *f = *state;
    static const char *const commands[] = {
        "compile models/tiny/tiny.yaml -o - --json",
        "view models/tiny/tiny.yaml -o /dev/stdout --json",
        "search models/tiny/tiny.yaml --weights random --device cpu -o - --json",
        "ablate models/tiny/tiny.yaml --weights random --device cpu --svg - --json",
        "bench models/tiny/tiny.yaml --weights random --svg - --json",
        "tune models/tiny/tiny.yaml --weights random -o - --json",
        "bisect models/tiny/tiny.yaml --weights random --device cpu --view - --json",
        RUN "-p hi --receipt - --json"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        has(shell(f, qgc_arena_printf(f->arena, "$qgc %s", commands[i]), 2),
            "both write to standard output\n");
    for (int i = 0; i < 2; i++) {
        const char *command = i ? "compile" : "view";
        const char *said =
            shell(f, qgc_arena_printf(f->arena, "$qgc %s - <models/tiny/tiny.yaml", command), 2);
        has(said, "standard input gives the output no name, and -o is missing\n");
        has(said, i ? "-o FILE.qgc" : "-o FILE.html");
    }
    has(shell(f, "$qgc view models/tiny/tiny.yaml -o - | head -c 15", 0), "<!DOCTYPE html>");
    /* what is to be read by people goes to standard error then */
    static const char *const files[][2] = {
        {"bisect models/tiny/tiny.yaml --weights random --device cpu --view -", "<!DOCTYPE html>"},
        {"ablate models/tiny/tiny.yaml --weights random --device cpu --svg -", "<svg xmlns="},
        {RUN "-p hi -n 4 --receipt -", "{\n  \"receipt\": 1,\n"}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *said = qgc_arena_strdup(f->arena, fixture_path(f, "said"));
        const char *out = shell(f, qgc_arena_printf(f->arena, "$qgc %s 2>%s", files[i][0], said), 0);
        assert_memory_equal(out, files[i][1], strlen(files[i][1]));
        assert_string_not_equal(shell(f, qgc_arena_printf(f->arena, "cat %s", said), 0), "");
    }
    assert_string_equal(shell(f, "$qgc view models/tiny/tiny.yaml -o /dev/null -q", 0), "");
}

static void an_option_that_does_nothing_is_an_error(void **state) {
    fixture *f = *state;
    static const struct {
        const char *command, *says;
    } cases[] = {
        {"run --weights '' -p hi", "option --weights wants PATH, got an empty text\n"},
        {"compile models/tiny/tiny.yaml -o ''", "option --output wants FILE, got an empty text\n"},
        {"compile models/tiny/tiny.yaml --arch ''", "option --arch names no architecture\n"},
        {"compile models/tiny/tiny.yaml -o /dev/null --card rtx-4090 --arch sm_75,compute_90",
         "no architecture of --arch runs on card \"rtx-4090\", an sm_89\n"},
        {"ops --json=", "option --json wants FILE, got an empty text\n"},
        {"inspect x.qgc --graph --launches",
         "option --graph prints the graph alone, and --launches is given\n"},
        {"inspect x.qgc --graph --json", "option --graph prints the graph alone, and --json is given\n"},
        {"inspect x.qgc --ctx 100", "option --ctx is for the list of --memory\n"},
        {"passes models/tiny/tiny.yaml", "a graph is given without --print\n"},
        {"passes --passes fuse-qkv", "a pipeline is given without --print\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        has(qgc_test_output(f->arena, cases[i].command, 2), cases[i].says);
}

static void help_of_a_command_is_its_help(void **state) {
    fixture *f = *state;
    assert_string_equal(qgc_test_output(f->arena, "help run", 0), qgc_test_output(f->arena, "run --help", 0));
    assert_string_equal(qgc_test_output(f->arena, "help help", 0), qgc_test_output(f->arena, "help", 0));
    has(qgc_test_output(f->arena, "help rnu", 2), "unknown command \"rnu\"");
}

static void readme_lists_every_command(void **state) {
    fixture *f = *state;
    assert_string_equal(
        shell(
            f,
            "for name in $($qgc --help=names); do "
            "grep -q \"^|.*\\`qgc $name\\`.*|\" README.md || echo \"README.md lists no qgc $name\"; done; echo all",
            0),
        "all\n");
}

static void the_version_says_which_compiler_it_found(void **state) {
    fixture *f = *state;
    const char *said = shell(f, "$qgc --version", 0);
    has(said, "qgc 0.");
    has(said, "NVRTC ");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_value_may_follow_its_letter),
        FIXTURE_TEST(variables_are_defaults),
        FIXTURE_TEST(messages_are_coloured_where_it_is_asked_for),
        FIXTURE_TEST(every_command_can_be_quiet),
        FIXTURE_TEST(every_command_has_a_manual_page),
        FIXTURE_TEST(bash_completes_commands_options_and_values),
        FIXTURE_TEST(other_shells_can_read_theirs),
        FIXTURE_TEST(results_are_json_where_it_is_asked_for),
        FIXTURE_TEST(standard_output_takes_one_thing),
        FIXTURE_TEST(an_option_that_does_nothing_is_an_error),
        FIXTURE_TEST(help_of_a_command_is_its_help),
        FIXTURE_TEST(readme_lists_every_command),
        FIXTURE_TEST(the_version_says_which_compiler_it_found),
    };
    for (size_t i = 0; i < 4; i++) /* what the user has set would get in */
        unsetenv((const char *const[]){"QGC_DEVICE", "QGC_THREADS", "QGC_COLOR", "NO_COLOR"}[i]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
