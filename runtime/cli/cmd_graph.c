/* The commands that look at graphs and ops: dump, ops. */

#include <stdio.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "graph/load.h"
#include "graph/print.h"
#include "runtime/cli/json.h"
#include "runtime/cli/pipeline.h"
#include "runtime/engine/report.h"

static json_t *node_json(const qgc_graph *g, const qgc_node *n, qgc_arena *a) {
    json_t *in = json_array(), *out = json_array(), *attributes = json_object();
    for (int i = 0; i < n->n_in; i++)
        json_array_append_new(in, n->in[i] ? json_string(qgc_value_label(n->in[i], a)) : json_null());
    for (int i = 0; i < n->n_out; i++)
        json_array_append_new(out, json_pack("{s:s, s:s, s:s}", "name", qgc_value_label(n->out[i], a),
                                             "dtype", qgc_dtypes[n->out[i]->dtype].name, "shape",
                                             qgc_shape_text(&n->out[i]->shape, a)));
    const qgc_attr_spec *specs = qgc_ops[n->op].attrs;
    for (int i = 0; specs[i].name; i++)
        json_object_set_new(attributes, specs[i].name,
                            specs[i].choices[0] ? json_string(specs[i].choices[n->attr[i].choice])
                                                : qgc_report_number(n->attr[i].number));
    return json_pack("{s:s, s:o, s:o, s:o, s:s?, s:i}", "op", qgc_ops[n->op].name, "in", in, "out", out,
                     "attributes", attributes, "group", n->group < 0 ? NULL : g->groups[n->group].name,
                     "layer", n->layer);
}

/* The nodes for programs that do not read the text, which is the graph whole. */
static json_t *graph_json(const qgc_graph *g, const char *format, const char *text, qgc_arena *a) {
    json_t *nodes = json_array();
    for (const qgc_node *n = g->first; n; n = n->next)
        json_array_append_new(nodes, node_json(g, n, a));
    return json_pack("{s:s, s:s, s:s?, s:o, s:s}", "name", g->name, "arch", g->arch, "passes", g->passes,
                     "nodes", nodes, format, text);
}

/* As text on standard output, unless --json has taken that. */
static qgc_status print_graph(const qgc_graph *g, const char *format, const char *json, cli_context *c) {
    qgc_str text = qgc_str_new(c->arena);
    if (strcmp(format, "dot") == 0)
        qgc_graph_print_dot(g, &text);
    else
        qgc_graph_print_yaml(g, &text);
    if (json) {
        qgc_str all = qgc_str_new(c->arena);
        QGC_TRY(qgc_report_json_exactly(graph_json(g, format, text.text, c->arena), &all, c->diag));
        QGC_TRY(qgc_file_write(json, all.text, all.bytes, c->diag));
    }
    if (cli_wants_text(json))
        fputs(text.text, stdout);
    return QGC_OK;
}

qgc_status cmd_dump(cli_context *c, int argc, char **argv) {
    const char *format = "yaml";
    const char *weights = NULL, *json = NULL;
    cli_pipeline pipeline = {0};
    const cli_option options[] = {
        {"weights", 0, OPTION_TEXT, &weights, "PATH", "from which the graph of a family takes its sizes", 0,
         0},
        CLI_PIPELINE_OPTIONS(pipeline),
        {"format", 0, OPTION_TEXT, &format, "yaml|dot", "the graph format again, or GraphViz", 0, 0},
        CLI_JSON_OPTION(json),
        CLI_COMMON_OPTIONS(c),
        {0},
    };
    const cli_command command = {
        .name = "dump",
        .arguments = "GRAPH.yaml",
        .summary =
            "Prints the graph as it was understood: numbers put in, shapes checked. The YAML is valid input.",
        .details =
            "Passes are run where an option chooses them, or --print-after or --dump-passes asks for them; --after PASS\n"
            "runs them up to that one. What is printed carries the passes that are still to be run.",
        .options = options,
    };
    const char *path;
    QGC_TRY(cli_parse_one(command, argc, argv, &path, c->diag));
    if (!path)
        return QGC_OK;
    if (strcmp(format, "dot") != 0 && strcmp(format, "yaml") != 0)
        return qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC, "unknown format \"%s\", expected yaml or dot",
                        format);
    if (pipeline.edits.after && !strchr(pipeline.edits.after, '=')) {
        pipeline.until = pipeline.edits.after;
        pipeline.edits.after = NULL;
    }
    bool run = qgc_pass_edits_any(&pipeline.edits) || pipeline.until || pipeline.skip ||
               pipeline.print_after || pipeline.passes || pipeline.dump_folder;
    qgc_graph *g;
    QGC_TRY(cli_load_stated(&g, path, weights, c));
    if (run)
        QGC_TRY(cli_run_passes(g, &pipeline, NULL, c->diag));
    return print_graph(g, format, json, c);
}

static json_t *ops_json(void) {
    json_t *ops = json_array();
    for (int i = 0; i < QGC_N_OPS; i++) {
        json_t *attributes = json_object();
        for (const qgc_attr_spec *attr = qgc_ops[i].attrs; attr->name; attr++) {
            json_t *choices = attr->choices[0] ? json_array() : json_string("number");
            for (int k = 0; k < QGC_MAX_CHOICES && attr->choices[k]; k++)
                json_array_append_new(choices, json_string(attr->choices[k]));
            json_object_set_new(attributes, attr->name, choices);
        }
        json_array_append_new(ops, json_pack("{s:s, s:s, s:o, s:s}", "name", qgc_ops[i].name, "in",
                                             qgc_ops[i].signature, "attributes", attributes, "summary",
                                             qgc_ops[i].summary));
    }
    return ops;
}

qgc_status cmd_ops(cli_context *c, int argc, char **argv) {
    const char *json = NULL;
    const cli_option options[] = {CLI_JSON_OPTION(json), CLI_COMMON_OPTIONS(c), {0}};
    const cli_command command = {
        .name = "ops",
        .arguments = "",
        .summary = "Lists the ops: inputs, attributes, what they compute.",
        .options = options,
    };
    cli_line line;
    QGC_TRY(cli_parse(&command, argc, argv, &line, c->diag));
    if (line.help)
        return QGC_OK;
    if (json)
        QGC_TRY(cli_write_json(json, ops_json(), c->diag));
    for (int i = 0; i < QGC_N_OPS && cli_wants_text(json); i++) {
        const qgc_op_info *op = &qgc_ops[i];
        printf("%-12s in: [%s]", op->name, op->signature);
        for (const qgc_attr_spec *attr = op->attrs; attr->name; attr++) {
            printf(", %s:", attr->name);
            if (!attr->choices[0])
                fputs(" number", stdout);
            if (attr->optional)
                printf(" (%g)", attr->usual);
            for (int k = 0; k < QGC_MAX_CHOICES && attr->choices[k]; k++)
                printf("%s%s", k ? "|" : " ", attr->choices[k]);
        }
        printf("\n             %s\n", op->summary);
    }
    return QGC_OK;
}
