#ifndef QGC_CLI_PIPELINE_H
#define QGC_CLI_PIPELINE_H

#include "graph/base/str.h"
#include "passes/edit.h"
#include "passes/passes.h"
#include "runtime/cli/cli.h"

/* The options by which commands choose passes. */
typedef struct {
    const char *passes;      /* --passes: NULL for the whole pipeline */
    const char *skip;        /* --skip */
    qgc_pass_edits edits;    /* --without, --replace, --before, --after */
    const char *load;        /* --load-pass */
    const char *print_after; /* --print-after */
    const char *dump_folder; /* --dump-passes */
    const char *until;       /* --after PASS of dump: the last pass to run */
    bool explain;            /* --explain */
    bool verify_each;        /* --verify-each */
    bool contain;            /* --contain: main has looked at it */
    double pass_limit;       /* --pass-limit: seconds; 0: the usual one */
    qgc_str *source;         /* gets the graph before the first pass, with its pipeline; NULL: not wanted */
} cli_pipeline;

/* clang-format off */
#define CLI_LOAD_OPTION(p) \
    {"load-pass", 0, OPTION_TEXT, &(p).load, "LIST", "shared objects with passes of your own", 0, 0}

#define CLI_EDIT_OPTIONS(p) \
    {"without", 0, OPTION_TEXT, &(p).edits.without, "LIST", "the pipeline without these, which it has", 0, 0}, \
    {"replace", 0, OPTION_TEXT, &(p).edits.replace, "A=B,...", "pass B in the place of A", 0, 0}, \
    {"before", 0, OPTION_TEXT, &(p).edits.before, "A=B,...", "pass B before A, and nowhere else", 0, 0}, \
    {"after", 0, OPTION_TEXT, &(p).edits.after, "A=B,...", "pass B after A, and nowhere else", 0, 0}

#define CLI_CHOICE_OPTIONS(p) \
    {"passes", 0, OPTION_TEXT, &(p).passes, "LIST", "only these, in this order: 'a,b?,c(max=4)'; '' for none", 0, 0}, \
    {"skip", 0, OPTION_TEXT, &(p).skip, "LIST", "all passes but these", 0, 0}, \
    CLI_EDIT_OPTIONS(p), \
    CLI_LOAD_OPTION(p), \
    {"verify-each", 0, OPTION_FLAG, &(p).verify_each, NULL, "verify the graph after each change of a pass", 0, 0}, \
    {"contain", 0, OPTION_FLAG, &(p).contain, NULL, "run passes in a process of their own, so that one that crashes is named", 0, 0}, \
    {"pass-limit", 0, OPTION_NUMBER, &(p).pass_limit, "SECONDS", "that a pass run so may take for a change; 0: 60", 0, 1e6}

#define CLI_PIPELINE_OPTIONS(p) \
    CLI_CHOICE_OPTIONS(p), \
    {"print-after", 0, OPTION_TEXT, &(p).print_after, "PASS", "print the graph after it; 'all', 'changed'", 0, 0}, \
    {"dump-passes", 0, OPTION_TEXT, &(p).dump_folder, "DIR", "a numbered file before and after each pass", 0, 0}, \
    {"explain", 0, OPTION_FLAG, &(p).explain, NULL, "say on standard error which rules fired, and which did not and why", 0, 0}
/* clang-format on */

/* Loads a graph whose numbers may be stated by the weights at a path (NULL: there are none), of which nothing else is used. */
QGC_MUST_USE qgc_status cli_load_stated(qgc_graph **g, const char *path, const char *weights, cli_context *c);

/* Loads the plug-ins that --load-pass names. */
QGC_MUST_USE qgc_status cli_load_passes(const cli_pipeline *p, qgc_diag *d);

/* What looks on while passes run: containment, what keeps what passes from outside print out of the output, and, if it is asked for
 * and `verify` says so, the verifier after each change. NULL: nothing does. In arena `a`; plug-ins are loaded before. */
const qgc_pass_watch *cli_watch(const cli_pipeline *p, bool verify, qgc_arena *a);

/* Puts the edits into p->passes, for the pipeline of a graph. Without edits nothing changes. */
QGC_MUST_USE qgc_status cli_edit_pipeline(cli_pipeline *p, const qgc_graph *g, qgc_diag *d);

/* Says on standard error if the pipeline of a graph, of the command line or of its file, names what is a mode now. */
void cli_note_modes(const qgc_graph *g, const cli_pipeline *p, qgc_arena *a);

/* Loads plug-ins and runs the passes on a graph. A pass that is named and matches nothing is an error, unless there is a
 * `report`, which then tells of it. */
QGC_MUST_USE qgc_status cli_run_passes(qgc_graph *g, const cli_pipeline *p, qgc_pass_report *report,
                                       qgc_diag *d);

/* The same for an engine: `p` outlives what is returned. */
qgc_engine_passes cli_passes(cli_pipeline *p);

/* An error if passes are chosen for an artifact, whose passes have been run. */
QGC_MUST_USE qgc_status cli_want_no_passes(const cli_pipeline *p, const char *path, qgc_diag *d);

#endif
