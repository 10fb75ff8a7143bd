#include "runtime/cli/pipeline.h"

#include <stdio.h>
#include <string.h>

#include "graph/load.h"

qgc_status cli_run_passes(qgc_graph *g, const cli_pipeline *p, qgc_pass_report *report, qgc_diag *d) {
    qgc_pass_report unread;
    const qgc_pass_options options = {.passes = p->passes, .skip = p->skip};
    return qgc_passes_run(g, &options, report ? report : &unread, d);
}

qgc_status cmd_passes(cli_context *c, int argc, char **argv) {
    const cli_option options[] = {{0}};
    const cli_command command = {
        .name = "passes",
        .arguments = "",
        .summary = "Lists the passes in the order of the pipeline. Any of them may be left out.",
        .options = options,
    };
    cli_line line;
    QGC_TRY(cli_parse(&command, argc, argv, &line, c->diag));
    for (size_t i = 0; !line.help && i < qgc_pass_count(); i++) {
        const qgc_pass_info *info = qgc_pass_at(i);
        printf("%-18s %s%s%s%s\n", info->name, info->summary, info->options ? " (" : "",
               info->options ? info->options : "", info->options ? ")" : "");
    }
    return QGC_OK;
}

/* "down", from "down[3]": events of one node in several layers are one line. */
static size_t base_length(const char *node) {
    return strcspn(node, "[");
}

static bool alike(const qgc_pass_event *a, const qgc_pass_event *b) {
    size_t n = base_length(a->node);
    return a->fired == b->fired && strcmp(a->rule, b->rule) == 0 && base_length(b->node) == n &&
           strncmp(a->node, b->node, n) == 0 && a->at.line == b->at.line;
}

static void print_events(const qgc_pass_run *run, const char *node) {
    for (size_t i = 0; i < run->n_events; i++) {
        const qgc_pass_event *e = &run->events[i];
        bool first = true;
        int times = 0;
        for (size_t k = 0; k < run->n_events; k++) {
            first = first && (k >= i || !alike(&run->events[k], e));
            times += alike(&run->events[k], e);
        }
        if (!first ||
            (node && (strlen(node) != base_length(e->node) || strncmp(node, e->node, strlen(node)) != 0)))
            continue;
        printf("  %s  %-28s %s", e->fired ? "fired   " : "declined", e->rule, e->node);
        if (times > 1)
            printf(" and %d like it", times - 1);
        printf("%s%s", *e->text ? ": " : "", e->text);
        if (e->at.source)
            printf("  (%s:%d)", e->at.source->name, e->at.line);
        putchar('\n');
    }
}

qgc_status cmd_explain(cli_context *c, int argc, char **argv) {
    cli_pipeline pipeline = {0};
    const char *node = NULL;
    const cli_option options[] = {
        CLI_PIPELINE_OPTIONS(pipeline),
        {"node", 0, OPTION_TEXT, &node, "NAME", "only what concerns this node", 0, 0},
        {0},
    };
    const cli_command command = {
        .name = "explain",
        .arguments = "GRAPH.yaml",
        .summary = "Says which rules fired where, and which nearly did and what stopped them.",
        .options = options,
        .min_arguments = 1,
        .max_arguments = 1,
    };
    cli_line line;
    QGC_TRY(cli_parse(&command, argc, argv, &line, c->diag));
    if (line.help)
        return QGC_OK;
    qgc_graph *g;
    qgc_pass_report report;
    QGC_TRY(qgc_graph_load(&g, line.arguments[0], c->arena, c->diag));
    QGC_TRY(cli_run_passes(g, &pipeline, &report, c->diag));
    for (size_t i = 0; i < report.n_runs; i++) {
        const qgc_pass_run *run = &report.runs[i];
        printf("%s: %d fired, %d nodes in %d kernels\n", run->name, run->n_fired, run->n_nodes,
               run->n_kernels);
        print_events(run, node);
    }
    return QGC_OK;
}
