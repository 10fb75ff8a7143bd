#ifndef QGC_CLI_CLI_H
#define QGC_CLI_CLI_H

#include <stdio.h>

#include "graph/base/diag.h"
#include "graph/base/pool.h"
#include "graph/base/str.h"
#include "graph/graph.h"
#include "models/weights.h"
#include "runtime/cli/options.h"
#include "runtime/engine/engine.h"

/* The qgc command: one function for each sub-command, and what they share. */

/* What every command is handed. */
typedef struct {
    qgc_arena *arena; /* for the whole run of the command */
    qgc_diag *diag;
    const char *color; /* --color: "auto", "always" or "never" */
    bool quiet;        /* --quiet: results and errors only */
} cli_context;

/* Are messages to be coloured? */
bool cli_has_color(const cli_context *c);

qgc_status cmd_compile(cli_context *c, int argc, char **argv);
qgc_status cmd_run(cli_context *c, int argc, char **argv);
qgc_status cmd_dump(cli_context *c, int argc, char **argv);
qgc_status cmd_passes(cli_context *c, int argc, char **argv);
qgc_status cmd_explain(cli_context *c, int argc, char **argv);
qgc_status cmd_view(cli_context *c, int argc, char **argv);
qgc_status cmd_ops(cli_context *c, int argc, char **argv);
qgc_status cmd_schema(cli_context *c, int argc, char **argv);
qgc_status cmd_inspect(cli_context *c, int argc, char **argv);
qgc_status cmd_devices(cli_context *c, int argc, char **argv);
qgc_status cmd_verify(cli_context *c, int argc, char **argv);
qgc_status cmd_bench(cli_context *c, int argc, char **argv);
qgc_status cmd_tune(cli_context *c, int argc, char **argv);
qgc_status cmd_tokenize(cli_context *c, int argc, char **argv);
qgc_status cmd_eval(cli_context *c, int argc, char **argv);
qgc_status cmd_ablate(cli_context *c, int argc, char **argv);
qgc_status cmd_bisect(cli_context *c, int argc, char **argv);
qgc_status cmd_search(cli_context *c, int argc, char **argv);

/* Options that every command has, at the end of its table, and some that several have. */
/* clang-format off */
#define CLI_COMMON_OPTIONS(c) \
    {"color", 0, OPTION_TEXT, &(c)->color, "auto|always|never", "of messages", 0, 0}, \
    {"quiet", 'q', OPTION_FLAG, &(c)->quiet, NULL, "results and errors only", 0, 0}
#define CLI_THREADS_OPTION(n) {"threads", 0, OPTION_INT, &(n), "N", "of the CPU; 0: all", 0, 1024}
#define CLI_CARD_OPTION(card) \
    {"card", 0, OPTION_TEXT, &(card), "CARD", "the GPU stands in for it: t4, or arch=80,sms=40,smem=65536", 0, 0}
#define CLI_ALLOW_UNUSED_OPTION(flag) \
    {"allow-unused", 0, OPTION_FLAG, &(flag), NULL, "let weights pass that the graph does not use", 0, 0}
/* clang-format on */

/* A line of progress on stderr: a bar that is drawn over itself where stderr is a terminal, for what takes
 * longer than a moment; nothing else. Begins as {.label = "what is done"}, or zeroed for cli_listener. */
typedef struct {
    const char *label;
    double begun; /* 0: not yet */
    int last_percent;
    bool drawn;
} cli_progress;
void cli_progress_show(void *progress, size_t done, size_t total);
void cli_progress_clear(cli_progress *p);

/* What an engine reports goes to the bar and, as lines, to stderr; with `quiet` to neither. */
qgc_engine_listener cli_listener(cli_progress *p, bool quiet);

/* What -o names; where it is not given (*output is NULL), "qwen2.5-0.5b.qgc" of "models/qwen2.5-0.5b.yaml" and "qgc". Errors:
 * standard input has no name; that file cannot be written. */
QGC_MUST_USE qgc_status cli_default_output(const char **output, const char *path, const char *extension,
                                           qgc_diag *d);

/* An error if two files of a command, given by --`name` and --`other_name`, are both standard output. Either may be NULL. */
QGC_MUST_USE qgc_status cli_check_stdout(const char *name, const char *file, const char *other_name,
                                         const char *other, qgc_diag *d);

/* Opens weights by a path or a name (runtime/engine/find.h). */
QGC_MUST_USE qgc_status cli_open_weights(qgc_weights **out, const char *name, qgc_diag *d);

/* --mode: NULL where it is not given. An error if there is no such mode. */
QGC_MUST_USE qgc_status cli_check_mode(const char *mode, qgc_diag *d);

/* A line on stderr, unless --quiet is given. */
void cli_note(const cli_context *c, const char *line);

/* The line that says that compiled kernels are not kept, if `fault` (qgc_compiled) is not NULL. */
void cli_note_cache(const cli_context *c, const char *fault);

/* Prints a report for a reader, in which names and paths may be: what a terminal could take for a command
 * is '?'. */
void cli_print_report(qgc_str *text, FILE *out);

/* Where what is printed for a reader goes: stdout, or stderr where one of the files to write (either may
 * be NULL) is stdout. */
FILE *cli_report_stream(const char *file, const char *other);

#endif
