/* qgc: compiles op graphs of language models to CUDA kernels and runs them. See README.md. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "graph/base/utf8.h"
#include "runtime/cli/cli.h"

static const struct {
    const char *name;
    qgc_status (*run)(cli_context *, int, char **);
    const char *summary;
} commands[] = {
    {"compile", cmd_compile, "a graph (YAML) to an artifact (.qgc); needs no GPU"},
    {"run", cmd_run, "text from a prompt, or a conversation"},
    {"dump", cmd_dump, "the graph as YAML or for GraphViz"},
    {"passes", cmd_passes, "the fusion passes, in the order of the pipeline"},
    {"explain", cmd_explain, "which fusion rules fired where, and why others did not"},
    {"view", cmd_view, "a page that shows the graph before and after each pass"},
    {"ops", cmd_ops, "the ops that a graph may use"},
    {"bench", cmd_bench, "what a token takes in every mode, and what memory allows"},
    {"tune", cmd_tune, "the fastest settings of a graph's kernels on this GPU"},
    {"inspect", cmd_inspect, "what is in an artifact"},
    {"tokenize", cmd_tokenize, "token ids and pieces of a text"},
    {"ablate", cmd_ablate, "what each pass saves, and what it does to the logits"},
    {"bisect", cmd_bisect, "the pass, its change and the value at which a graph goes wrong"},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_usage(FILE *out) {
    fputs("usage: qgc COMMAND [options]\n\n", out);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
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
        p->begun = cli_seconds();
    const int percent = total ? (int)(100.0 * (double)done / (double)total) : 100;
    if (cli_seconds() - p->begun > moment && !(p->drawn && percent == p->last_percent))
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
    return quiet ? (qgc_engine_listener){0}
                 : (qgc_engine_listener){.progress = show_step, .note = say_line, .context = p};
}

double cli_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *cli_default_output(const char *path, const char *extension, qgc_arena *a) {
    const char *base = qgc_path_base(path), *dot = strrchr(base, '.');
    const size_t length = dot && dot != base ? (size_t)(dot - base) : strlen(base);
    return qgc_arena_printf(a, "%.*s.%s", (int)length, base, extension);
}

void cli_print_report(qgc_str *text, FILE *out) {
    qgc_make_printable(text->text, "\n\t");
    fputs(text->text, out);
}

void cli_note_cache(const char *fault, qgc_arena *a) {
    static bool told;
    if (fault && !told)
        fprintf(stderr, "note: compiled kernels are not kept: %s\n", qgc_printable(a, fault));
    told = told || fault;
}

FILE *cli_report_stream(const char *file, const char *other) {
    return (file && qgc_file_is_stdout(file)) || (other && qgc_file_is_stdout(other)) ? stderr : stdout;
}

static qgc_status run_command(cli_context *c, int argc, char **argv) {
    if (argc < 2) {
        print_usage(stderr);
        return QGC_ERR_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return QGC_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("qgc " QGC_VERSION);
        return QGC_OK;
    }
    const char *names[N_COMMANDS];
    for (int i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i].name;
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(c, argc - 2, argv + 2);
    }
    qgc_status s = qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC, "unknown command \"%s\"", argv[1]);
    const char *near = qgc_nearest(argv[1], names, N_COMMANDS);
    if (near)
        qgc_hint(c->diag, "Did you mean qgc %s?", near);
    else
        qgc_hint(c->diag, "qgc --help lists the commands.");
    return s;
}

int main(int argc, char **argv) {
    qgc_file_guard();
    qgc_arena *arena = qgc_arena_new();
    qgc_diag diag = qgc_diag_new(arena);
    cli_context context = {arena, &diag, isatty(STDERR_FILENO) && !getenv("NO_COLOR")};
    qgc_status status = run_command(&context, argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout))
        status = qgc_fail(&diag, QGC_ERR_INPUT, QGC_NO_LOC, "could not write the output");
    qgc_diag_print(&diag, stderr, context.colour);
    qgc_arena_drop(arena);
    return (int)status;
}
