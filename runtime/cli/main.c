/* qgc: compiles op graphs of language models to CUDA kernels and runs them. See README.md. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codegen/nvrtc.h"
#include "graph/base/cuda_places.h"
#include "graph/base/file.h"
#include "graph/base/str.h"
#include "graph/base/times.h"
#include "graph/base/utf8.h"
#include "graph/base/version.h"
#include "runtime/cli/aside.h"
#include "runtime/cli/cli.h"
#include "runtime/cli/contain.h"
#include "runtime/cli/manual.h"

static const cli_summary summaries[] = {
    {"compile", "a graph (YAML) to an artifact (.qgc); needs no GPU"},
    {"run", "text from a prompt, or a conversation"},
    {"dump", "the graph as YAML or for GraphViz"},
    {"passes", "the fusion passes, in the order of the pipeline"},
    {"explain", "which fusion rules fired where, and why others did not"},
    {"view", "a page that shows the graph before and after each pass"},
    {"ops", "the ops that a graph may use"},
    {"schema", "a JSON Schema of model files, for editors"},
    {"bench", "what a token takes in every mode, and what memory allows"},
    {"tune", "the fastest settings of a graph's kernels on this GPU"},
    {"inspect", "what is in an artifact"},
    {"devices", "the GPUs here, and what artifacts would do on them"},
    {"verify", "the text of a receipt once more, and what differs"},
    {"tokenize", "token ids and pieces of a text"},
    {"eval", "perplexity of texts, and how far predictions are from another model's"},
    {"ablate", "what each pass saves, and what it does to the logits"},
    {"bisect", "the pass, its change and the value at which a graph goes wrong"},
    {"search", "the fastest pipeline of a graph"},
};
enum { N_COMMANDS = sizeof summaries / sizeof *summaries };

/* In the same order. */
static qgc_status (*const commands[N_COMMANDS])(cli_context *, int, char **) = {
    cmd_compile, cmd_run,      cmd_dump,  cmd_passes, cmd_explain, cmd_view,
    cmd_ops,     cmd_schema,   cmd_bench, cmd_tune,   cmd_inspect, cmd_devices,
    cmd_verify,  cmd_tokenize, cmd_eval,  cmd_ablate, cmd_bisect,  cmd_search,
};

static void print_usage(FILE *out) {
    fputs("usage: qgc COMMAND [options]\n\n", out);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", summaries[i].name, summaries[i].summary);
    fputs("\nqgc COMMAND --help says more, qgc --version which qgc this is.\n"
          "Exit codes: 0 ok, 1 the input is at fault, 2 usage, 3 the device or memory, 130 Ctrl-C.\n",
          out);
}

static void draw(cli_progress *p, int percent) {
    enum { WIDTH = 30 };
    char bar[WIDTH + 1];
    for (int i = 0; i < WIDTH; i++)
        bar[i] = i < percent * WIDTH / 100 ? '#' : '.';
    bar[WIDTH] = 0;
    fprintf(stderr, "\r%s [%s] %3d%%\033[K", p->label, bar, percent);
    fflush(stderr);
    p->drawn = true;
    p->last_percent = percent;
}

void cli_progress_show(void *progress, size_t done, size_t total) {
    static const double moment = 0.3; /* seconds: what is done sooner is not shown */
    cli_progress *p = progress;
    if (!isatty(STDERR_FILENO))
        return;
    if (p->begun <= 0)
        p->begun = qgc_seconds();
    const int percent = total ? (int)(100.0 * (double)done / (double)total) : 100;
    if (qgc_seconds() - p->begun > moment && !(p->drawn && percent == p->last_percent))
        draw(p, percent);
}

void cli_progress_clear(cli_progress *p) {
    if (p->drawn)
        fputs("\r\033[K", stderr);
    p->drawn = false;
    p->begun = 0;
}

/* The bar of something else begins anew, and one that is full goes. */
static void show_step(void *progress, const char *what, size_t done, size_t total) {
    cli_progress *p = progress;
    if (!p->label || strcmp(p->label, what) != 0)
        cli_progress_clear(p);
    p->label = what;
    cli_progress_show(p, done, total);
    if (done == total)
        cli_progress_clear(p);
}

static void say_line(void *progress, const char *line) {
    cli_progress_clear(progress);
    fprintf(stderr, "%s\n", line);
}

qgc_engine_listener cli_listener(cli_progress *p, bool quiet) {
    const qgc_engine_listener none = {0};
    if (quiet)
        return none;
    return (qgc_engine_listener){.progress = show_step, .note = say_line, .context = p};
}

qgc_status cli_default_output(const char **output, const char *path, const char *extension, qgc_diag *d) {
    if (*output)
        return QGC_OK;
    if (strcmp(path, "-") == 0) {
        qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                                "standard input gives the output no name, and -o is missing");
        qgc_hint(d, "Give one: -o FILE.%s, or -o - for standard output.", extension);
        return s;
    }
    const char *base = qgc_path_base(path), *dot = strrchr(base, '.');
    const size_t length = dot && dot != base ? (size_t)(dot - base) : strlen(base);
    *output = qgc_arena_printf(d->arena, "%.*s.%s", (int)length, base, extension);
    const qgc_status s = qgc_file_check_output(*output, d);
    if (s != QGC_OK)
        qgc_hint(d, "-o FILE writes it elsewhere.");
    return s;
}

qgc_status cli_check_stdout(const char *name, const char *file, const char *other_name, const char *other,
                            qgc_diag *d) {
    if (!file || !other || !qgc_file_is_stdout(file) || !qgc_file_is_stdout(other))
        return QGC_OK;
    qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                            "options --%s and --%s both write to standard output", name, other_name);
    qgc_hint(d, "Give one of them a file: --%s=FILE.", other_name);
    return s;
}

bool cli_has_color(const cli_context *c) {
    const char *no_color = getenv("NO_COLOR");
    if (strcmp(c->color, "auto") != 0)
        return strcmp(c->color, "always") == 0;
    return isatty(STDERR_FILENO) && !(no_color && *no_color);
}

void cli_note(const cli_context *c, const char *line) {
    if (!c->quiet)
        fprintf(stderr, "%s\n", line);
}

void cli_print_report(qgc_str *text, FILE *out) {
    qgc_make_printable(text->text, "\n\t");
    fputs(text->text, out);
}

void cli_note_cache(const cli_context *c, const char *fault) {
    if (fault)
        cli_note(c, qgc_arena_printf(c->arena, "note: compiled kernels are not kept: %s",
                                     qgc_printable(c->arena, fault)));
}

FILE *cli_report_stream(const char *file, const char *other) {
    cli_aside_end(); /* an error has left a pass where it was */
    return (file && qgc_file_is_stdout(file)) || (other && qgc_file_is_stdout(other)) ? stderr : stdout;
}

/* "qgc 0.1.0 (1a2b3c4d5e6f)" and "NVRTC 13.0, /usr/lib/...", or how to get one. */
static void print_version(qgc_arena *a) {
    qgc_diag ignored = qgc_diag_new(a);
    qgc_nvrtc *nvrtc;
    printf("qgc %s\n", qgc_version_text);
    if (qgc_nvrtc_open(&nvrtc, NULL, &ignored) != QGC_OK) {
        printf("no NVRTC; %s\n", qgc_cuda_install("nvidia-cuda-nvrtc", a));
        return;
    }
    const int version = qgc_nvrtc_version(nvrtc);
    printf("NVRTC %d.%d, %s\n", version / 1000, version % 1000 / 10,
           qgc_printable(a, qgc_nvrtc_library(nvrtc)));
    qgc_nvrtc_close(nvrtc);
}

/* "--help=bash", for all commands. */
static qgc_status print_manual(cli_context *c, char *word) {
    const char *format = word + strlen("--help=");
    QGC_TRY(cli_manual_begin(summaries, N_COMMANDS, format, c->diag));
    for (int i = 0; i < N_COMMANDS && strcmp(format, "man") != 0 && strcmp(format, "names") != 0; i++)
        QGC_TRY(commands[i](c, 1, &word));
    cli_manual_end(summaries, N_COMMANDS, format);
    return QGC_OK;
}

static qgc_status run_command(cli_context *c, int argc, char **argv) {
    if (argc < 2) {
        print_usage(stderr);
        return QGC_ERR_USAGE;
    }
    static char help[] = "--help";
    if (strcmp(argv[1], "help") == 0 && argc > 2)
        return run_command(c, 3, (char *[]){argv[0], argv[2], help});
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return QGC_OK;
    }
    if (strncmp(argv[1], "--help=", 7) == 0)
        return print_manual(c, argv[1]);
    if (strcmp(argv[1], "--version") == 0) {
        print_version(c->arena);
        return QGC_OK;
    }
    const char *names[N_COMMANDS + 2] = {"--help", "--version"};
    for (int i = 0; i < N_COMMANDS; i++) {
        names[i + 2] = summaries[i].name;
        if (strcmp(argv[1], summaries[i].name) == 0)
            return commands[i](c, argc - 2, argv + 2);
    }
    qgc_status s = qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC, "unknown %s \"%s\"",
                            argv[1][0] == '-' ? "option" : "command", argv[1]);
    const char *near = qgc_nearest(argv[1], names, N_COMMANDS + 2);
    if (near)
        qgc_hint(c->diag, "Did you mean qgc %s?", near);
    else
        qgc_hint(c->diag, "qgc --help lists the commands.");
    return s;
}

/* A pass from outside, or a library, may end the process: without a word that would look as if all were done. Where the command is
 * contained, its parent tells more. */
static bool is_done;

static void tell_of_exit(void) {
    if (is_done)
        return;
    fputs(
        "qgc: error: the process was ended before the command was done, by a pass from outside or a library\n"
        "  hint: --contain names the pass.\n",
        stderr);
    _exit(QGC_ERR_INPUT);
}

static int run(qgc_arena *arena, int argc, char **argv) {
    qgc_diag diag = qgc_diag_new(arena);
    cli_context context = {.arena = arena, .diag = &diag, .color = "auto"};
    int status = 0;
    if (!cli_contain_wanted(argc, argv) || !cli_contain(&status, &diag))
        status = (int)run_command(&context, argc, argv);
    cli_aside_end();
    cli_contain_end();
    if (fflush(stdout) != 0 || ferror(stdout))
        status = (int)qgc_fail(&diag, QGC_ERR_INPUT, QGC_NO_LOC, "could not write the output");
    qgc_diag_print(&diag, stderr, cli_has_color(&context));
    return status;
}

int main(int argc, char **argv) {
    qgc_file_guard();
    qgc_arena *arena = qgc_arena_new();
    if (!cli_contain_wanted(argc, argv))
        atexit(tell_of_exit);
    const int status = run(arena, argc, argv);
    qgc_arena_drop(arena);
    is_done = true;
    return status;
}
