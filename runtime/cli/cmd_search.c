/* The command that looks for a faster pipeline: search. */

#include <stdio.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "graph/base/utf8.h"
#include "runtime/cli/json.h"
#include "runtime/cli/lab.h"
#include "runtime/lab/search.h"

typedef struct {
    const char *graph, *json, *output;
    cli_lab_options lab;
    int64_t ctx, pairs, seed, most, layers;
    double seconds;
} search_options;

static qgc_status open_all(cli_lab *lab, search_options *o, cli_context *c) {
    qgc_graph *g; /* before any pass */
    QGC_TRY(cli_load_passes(&o->lab.pipeline, c->diag));
    o->lab.watch = cli_watch(&o->lab.pipeline, true, c->arena);
    QGC_TRY(cli_lab_open_device(lab, &o->lab, c->diag));
    QGC_TRY(cli_lab_graph(&g, &lab->weights, o->graph, o->lab.weights, c));
    o->ctx = cli_lab_ctx(o->ctx, g);
    QGC_TRY(cli_edit_pipeline(&o->lab.pipeline, g, c->diag));
    cli_note_modes(g, &o->lab.pipeline, c->arena);
    QGC_TRY(cli_check_stdout("output", o->output, "json", o->json, c->diag));
    QGC_TRY(qgc_file_check_output(o->json, c->diag));
    QGC_TRY(qgc_file_check_output(o->output, c->diag));
    return cli_lab_open_weights(lab, &o->lab, g, c);
}

static qgc_status run(cli_lab *lab, search_options *o, cli_context *c) {
    cli_progress progress = {.label = "candidates"};
    qgc_search found;
    QGC_TRY(open_all(lab, o, c));
    const qgc_search_options options = {
        .run = cli_lab_experiment(lab, &o->lab, o->graph, c->quiet ? NULL : &progress),
        .ctx = o->ctx,
        .pairs = (int)o->pairs,
        .seed = (uint64_t)o->seed,
        .seconds = o->seconds,
        .most = (int)o->most,
        .layers = (int)o->layers};
    const qgc_status status = qgc_search_run(&options, &found, c->diag);
    cli_progress_clear(&progress);
    QGC_TRY(status);
    qgc_str text = qgc_str_new(c->arena), json = qgc_str_new(c->arena);
    qgc_search_text(&found, &options, &text);
    FILE *out = cli_report_stream(o->json, o->output);
    cli_print_report(&text, out);
    fflush(out);
    if (o->output)
        QGC_TRY(qgc_file_write(o->output, found.yaml, strlen(found.yaml), c->diag));
    if (!o->json)
        return QGC_OK;
    QGC_TRY(qgc_search_json(&found, &options, &json, c->diag));
    return qgc_file_write(o->json, json.text, json.bytes, c->diag);
}

qgc_status cmd_search(cli_context *c, int argc, char **argv) {
    search_options o = {.lab = {.device = "auto", .steps = 16}, .pairs = 30, .seed = 1, .seconds = 60};
    const cli_option options[] = {
        {"weights", 0, OPTION_TEXT, &o.lab.weights, "PATH", CLI_WEIGHTS_HELP, 0, 0},
        {"device", 0, OPTION_TEXT, &o.lab.device, "auto|gpu|gpu:N|cpu",
         "where to run; without a GPU a model stands for the times", 0, 0},
        CLI_LAB_MODE_OPTION(o.lab),
        CLI_LAB_TEXT_OPTIONS(o.lab, 16),
        {"ctx", 0, OPTION_INT, &o.ctx, "N",
         "positions of the caches; times are taken at their end; 0: up to 512", 0, 1 << 24},
        {"pairs", 0, OPTION_INT, &o.pairs, "N", "timings of a candidate, and as many of the best so far", 6,
         100000},
        {"seconds", 0, OPTION_NUMBER, &o.seconds, "S", "no candidate is begun after so many", 0, 1e6},
        {"most", 0, OPTION_INT, &o.most, "N", "nor after so many candidates; 0: no limit", 0, 1000000},
        {"layers", 0, OPTION_INT, &o.layers, "N",
         "candidates have the first N layers; the result is compared with all; 0: all", 0, 100000},
        {"seed", 0, OPTION_INT, &o.seed, "N", "decides in which order changes are tried", 0, 1e15},
        {"output", 'o', OPTION_TEXT, &o.output, "FILE", "a model file that has the best pipeline", 0, 0},
        CLI_JSON_OPTION(o.json),
        CLI_CHOICE_OPTIONS(o.lab.pipeline),
        CLI_LAB_RUN_OPTIONS(o.lab),
        CLI_COMMON_OPTIONS(c),
        {0},
    };
    const cli_command command = {
        .name = "search",
        .arguments = "GRAPH.yaml",
        .summary = "Looks for the fastest pipeline of a graph: subsets, orders, options, groups cut.",
        .details =
            "It starts from the pipeline of the graph, or that of --passes, and changes one thing after another.\n"
            "Each candidate is first shown to compute the same, then timed against the best so far, in pairs.",
        .options = options,
    };
    QGC_TRY(cli_parse_one(command, argc, argv, &o.graph, c->diag));
    if (!o.graph)
        return QGC_OK;
    QGC_TRY(cli_lab_check(&o.lab, c->diag));
    cli_lab lab = {0};
    const qgc_status status = run(&lab, &o, c);
    cli_lab_close(&lab);
    return status;
}
