#ifndef QGC_CLI_PIPELINE_H
#define QGC_CLI_PIPELINE_H

#include "passes/passes.h"
#include "runtime/cli/cli.h"

/* The options by which commands choose passes. */
typedef struct {
    const char *passes; /* --passes: NULL for the whole pipeline */
    const char *skip;   /* --skip */
} cli_pipeline;

#define CLI_PIPELINE_OPTIONS(p)                                                                              \
    {"passes", 0, OPTION_TEXT, &(p).passes, "LIST", "these passes, 'a,b(max=4)', '' for none; all", 0, 0}, { \
        "skip", 0, OPTION_TEXT, &(p).skip, "LIST", "all passes but these", 0, 0                              \
    }

/* Runs the passes on a graph. `report` may be NULL. */
QGC_MUST_USE qgc_status cli_run_passes(qgc_graph *g, const cli_pipeline *p, qgc_pass_report *report,
                                       qgc_diag *d);

#endif
