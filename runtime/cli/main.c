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
#include "runtime/program.h"

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

void cli_progress_show(void *progress, size_t done, size_t total) {
    cli_progress *p = progress;
    if (!isatty(STDERR_FILENO))
        return;
    int percent = total ? (int)(100.0 * (double)done / (double)total) : 100;
    if (p->drawn && percent == p->last_percent)
        return;
    p->drawn = true;
    p->last_percent = percent;
    char bar[31];
    for (int i = 0; i < 30; i++)
        bar[i] = i < percent * 30 / 100 ? '#' : '.';
    bar[30] = 0;
    fprintf(stderr, "\r%s [%s] %3d%%", p->label, bar, percent);
    fflush(stderr);
}

void cli_progress_clear(cli_progress *p) {
    if (p->drawn)
        fputs("\r\033[K", stderr);
    p->drawn = false;
}

double cli_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *cli_bytes(size_t bytes, qgc_arena *a) {
    if (bytes >= 1000000000)
        return qgc_arena_printf(a, "%.2f GB", (double)bytes * 1e-9);
    if (bytes >= 1000000)
        return qgc_arena_printf(a, "%.1f MB", (double)bytes * 1e-6);
    return qgc_arena_printf(a, "%.1f kB", (double)bytes * 1e-3);
}

const char *cli_default_output(const char *path, const char *extension, qgc_arena *a) {
    const char *base = qgc_path_base(path), *dot = strrchr(base, '.');
    const size_t length = dot && dot != base ? (size_t)(dot - base) : strlen(base);
    return qgc_arena_printf(a, "%.*s.%s", (int)length, base, extension);
}

const char *cli_default_arch(qgc_arena *a) {
    qgc_diag ignored = qgc_diag_new(a);
    qgc_device *dev;
    if (!qgc_device_present() || qgc_device_open(&dev, 0, &ignored) != QGC_OK)
        return "sm_90a";
    const char *arch = qgc_program_arch_for(dev, a);
    qgc_device_close(dev);
    return arch;
}

void cli_print_report(qgc_str *text, FILE *out) {
    qgc_make_printable(text->text, "\n\t");
    fputs(text->text, out);
}

void cli_note_recorded(const char *path, qgc_diag *d) {
    qgc_note(d, QGC_NO_LOC, "the artifact \"%s\" records that its weights are there", path);
    qgc_hint(d, "Say with --weights where they are now.");
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

bool cli_is_artifact(const char *path) {
    static const char magic[] = "QGC\x1a";
    qgc_arena *scratch = qgc_arena_new();
    qgc_diag ignored = qgc_diag_new(scratch);
    qgc_file f;
    bool yes = qgc_file_open(&f, path, &ignored) == QGC_OK && f.bytes >= 4 && memcmp(f.data, magic, 4) == 0;
    qgc_file_close(&f);
    qgc_arena_drop(scratch);
    return yes;
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
