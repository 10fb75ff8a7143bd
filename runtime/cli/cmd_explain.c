/* The commands that tell of passes: passes, explain. */

#include <stdio.h>
#include <string.h>

#include "graph/base/str.h"
#include "graph/load.h"
#include "runtime/cli/explain.h"
#include "runtime/cli/json.h"
#include "runtime/cli/pipeline.h"

static qgc_status print_pipeline(cli_context *c, const cli_pipeline *p, const char *path, const char *json) {
    qgc_graph *g = NULL;
    const char *text;
    if (path)
        QGC_TRY(qgc_graph_load(&g, path, c->arena, c->diag));
    QGC_TRY(qgc_pass_pipeline(&text, g, p->passes, p->skip, &p->edits, c->diag));
    if (json)
        QGC_TRY(cli_write_json(json, json_pack("{s:s}", "passes", text), c->diag));
    if (cli_wants_text(json))
        puts(text);
    return QGC_OK;
}

static json_t *passes_json(void) {
    json_t *passes = json_array();
    for (size_t i = 0; i < qgc_pass_count(); i++) {
        const qgc_pass_info *info = qgc_pass_at(i);
        json_array_append_new(passes,
                              json_pack("{s:s, s:s?, s:s, s:b}", "name", info->name, "options", info->options,
                                        "summary", info->summary, "default", qgc_pass_is_usual(i)));
    }
    return passes;
}

qgc_status cmd_passes(cli_context *c, int argc, char **argv) {
    cli_pipeline pipeline = {0};
    const char *json = NULL;
    bool print = false;
    const cli_option options[] = {
        {"print", 0, OPTION_FLAG, &print, NULL, "print a pipeline as a line for --passes", 0, 0},
        {"passes", 0, OPTION_TEXT, &pipeline.passes, "LIST", "that pipeline", 0, 0},
        CLI_EDIT_OPTIONS(pipeline),
        CLI_LOAD_OPTION(pipeline),
        CLI_JSON_OPTION(json),
        CLI_COMMON_OPTIONS(c),
        {0}};
    const cli_command command = {
        .name = "passes",
        .arguments = "[GRAPH.yaml]",
        .summary = "Lists the passes in the order of the pipeline. Any of them may be left out.",
        .details =
            "With --print: the pipeline that a graph's file asks for, or the default, with what --without,\n"
            "--replace, --before and --after make of it.",
        .options = options,
        .max_arguments = 1,
    };
    cli_line line;
    QGC_TRY(cli_parse(&command, argc, argv, &line, c->diag));
    if (line.help)
        return QGC_OK;
    QGC_TRY(cli_load_passes(&pipeline, c->diag));
    if (print)
        return print_pipeline(c, &pipeline, line.n ? line.arguments[0] : NULL, json);
    if (line.n || pipeline.passes || qgc_pass_edits_any(&pipeline.edits)) {
        qgc_status s = qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC, "a %s is given without --print",
                                line.n ? "graph" : "pipeline");
        qgc_hint(c->diag, "With --print its pipeline is printed; without, the list of all passes.");
        return s;
    }
    if (json)
        QGC_TRY(cli_write_json(json, passes_json(), c->diag));
    for (size_t i = 0; i < qgc_pass_count() && cli_wants_text(json); i++) {
        const qgc_pass_info *info = qgc_pass_at(i);
        printf("%-18s %s%s%s%s%s\n", info->name, info->summary, info->options ? " (" : "",
               info->options ? info->options : "", info->options ? ")" : "",
               qgc_pass_is_usual(i) ? "" : "; only where it is named");
    }
    return QGC_OK;
}

/* --- explain --json: every event by itself ---------------------------------------------------------------- */

static json_t *events_json(const qgc_pass_run *run, const char *node) {
    json_t *events = json_array();
    for (size_t i = 0; i < run->n_events; i++) {
        const qgc_pass_event *e = &run->events[i];
        if (cli_explain_concerns(e, node))
            json_array_append_new(events,
                                  json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:b}", "rule", e->rule,
                                            "node", e->node, "text", e->text, "file",
                                            e->at.source ? e->at.source->name : "", "line", e->at.line, "col",
                                            e->at.col, "layer", e->layer, "fired", e->fired));
    }
    return events;
}

static json_t *report_json(const qgc_pass_report *report, const char *node) {
    json_t *runs = json_array();
    for (size_t i = 0; i < report->n_runs; i++) {
        const qgc_pass_run *run = &report->runs[i];
        json_array_append_new(runs, json_pack("{s:s, s:i, s:i, s:i, s:I, s:s?, s:o}", "pass", run->name,
                                              "fired", run->n_fired, "nodes", run->n_nodes, "kernels",
                                              run->n_kernels, "us", (json_int_t)run->us, "note", run->note,
                                              "events", events_json(run, node)));
    }
    return runs;
}

/* Where a node ended up: events tell of the root of a match only. */
static void print_place(const qgc_graph *g, const char *name, qgc_arena *a) {
    const qgc_node *n = g->first;
    while (n && strcmp(n->out[0]->name, name) != 0 && strcmp(qgc_value_label(n->out[0], a), name) != 0)
        n = n->next;
    if (!n)
        return;
    printf("%s: %s ", qgc_value_label(n->out[0], a), qgc_ops[n->op].name);
    if (n->group < 0) {
        puts("in a kernel of its own");
        return;
    }
    printf("in group \"%s\" of", g->groups[n->group].name);
    for (const qgc_node *other = g->first; other; other = other->next)
        if (other->group == n->group)
            printf(" %s", other->out[0]->name);
    putchar('\n');
}

static bool has_node(const qgc_graph *g, const char *name, qgc_arena *a) {
    for (const qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; i < n->n_out; i++)
            if (strcmp(n->out[i]->name, name) == 0 || strcmp(qgc_value_label(n->out[i], a), name) == 0)
                return true;
    return false;
}

static void print_text(const qgc_pass_report *report, const char *node, qgc_arena *a) {
    qgc_str text = qgc_str_new(a);
    cli_explain(report, node, &text);
    fputs(text.text, stdout);
}

qgc_status cmd_explain(cli_context *c, int argc, char **argv) {
    cli_pipeline pipeline = {0};
    const char *node = NULL, *weights = NULL, *json = NULL;
    const cli_option options[] = {
        {"weights", 0, OPTION_TEXT, &weights, "PATH", "from which the graph of a family takes its sizes", 0,
         0},
        CLI_CHOICE_OPTIONS(pipeline),
        {"node", 0, OPTION_TEXT, &node, "NAME", "what concerns this node: 'down', or 'down[3]'", 0, 0},
        CLI_JSON_OPTION(json),
        CLI_COMMON_OPTIONS(c),
        {0},
    };
    const cli_command command = {
        .name = "explain",
        .arguments = "GRAPH.yaml",
        .summary = "Says which rules fired where, and which nearly did and what stopped them.",
        .options = options,
    };
    const char *path;
    QGC_TRY(cli_parse_one(command, argc, argv, &path, c->diag));
    if (!path)
        return QGC_OK;
    qgc_graph *g;
    qgc_pass_report report;
    QGC_TRY(cli_load_stated(&g, path, weights, c));
    bool known = !node || has_node(g, node, c->arena);
    QGC_TRY(cli_run_passes(g, &pipeline, &report, c->diag));
    if (!known && !has_node(g, node, c->arena)) /* passes make nodes, and remove some */
        return qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC, "the graph has no node \"%s\"", node);
    if (json)
        QGC_TRY(cli_write_json(json, report_json(&report, node), c->diag));
    if (!cli_wants_text(json))
        return QGC_OK;
    print_text(&report, node, c->arena);
    if (node)
        print_place(g, node, c->arena);
    return QGC_OK;
}
