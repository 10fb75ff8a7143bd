/* The commands that look at graphs and ops: dump, ops. */

#include <stdio.h>
#include <string.h>

#include "graph/base/str.h"
#include "graph/load.h"
#include "graph/print.h"
#include "runtime/cli/json.h"
#include "runtime/cli/pipeline.h"

qgc_status cmd_dump(cli_context *c, int argc, char **argv) {
    const char *format = "yaml";
    const char *weights = NULL;
    cli_pipeline pipeline = {0};
    const cli_option options[] = {
        {"weights", 0, OPTION_TEXT, &weights, "PATH", "from which a file without sizes has them", 0, 0},
        CLI_PIPELINE_OPTIONS(pipeline),
        {"format", 0, OPTION_TEXT, &format, "yaml|dot", "the graph format again, or GraphViz", 0, 0},
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
        .min_arguments = 1,
        .max_arguments = 1,
    };
    cli_line line;
    QGC_TRY(cli_parse(&command, argc, argv, &line, c->diag));
    if (line.help)
        return QGC_OK;
    bool dot = strcmp(format, "dot") == 0;
    if (!dot && strcmp(format, "yaml") != 0)
        return qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC, "unknown format \"%s\", expected yaml or dot",
                        format);
    if (pipeline.edits.after && !strchr(pipeline.edits.after, '=')) {
        pipeline.until = pipeline.edits.after;
        pipeline.edits.after = NULL;
    }
    bool run = qgc_pass_edits_any(&pipeline.edits) || pipeline.until || pipeline.skip ||
               pipeline.print_after || pipeline.passes || pipeline.dump_folder;
    qgc_graph *g;
    QGC_TRY(cli_load_stated(&g, line.arguments[0], weights, c));
    if (run)
        QGC_TRY(cli_run_passes(g, &pipeline, NULL, c->diag));
    qgc_str text = qgc_str_new(c->arena);
    if (dot)
        qgc_graph_print_dot(g, &text);
    else
        qgc_graph_print_yaml(g, &text);
    fputs(text.text, stdout);
    return QGC_OK;
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
        return cli_write_json(json, ops_json(), c->diag);
    for (int i = 0; i < QGC_N_OPS; i++) {
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
