/* The command that draws: view. */

#include <stdio.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "graph/base/utf8.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "runtime/cli/json.h"
#include "runtime/cli/lab.h"
#include "runtime/cli/pipeline.h"
#include "runtime/lab/view.h"

typedef struct {
    const char *output, *bench, *weights, *card;
    const char *json;
    const char *against; /* another pipeline; NULL: one page */
    cli_pipeline pipeline;
    int64_t layer;
    bool allow_unused;
} view_options;

/* The dtypes of a file are the graph's: which products can share a kernel depends on them. */
static qgc_status load(qgc_graph **g, const char *path, const view_options *o, cli_context *c) {
    qgc_weights *weights = NULL;
    const qgc_tensor **tensors;
    QGC_TRY(cli_lab_graph(g, &weights, path, o->weights, c));
    if (!o->weights)
        return QGC_OK;
    QGC_TRY(cli_lab_weights(&weights, o->weights, *g, c));
    qgc_status status = qgc_graph_bind(*g, weights, o->allow_unused, &tensors, c->diag);
    qgc_weights_close(weights);
    return status;
}

/* The page of one pipeline, which is in `pipeline`. */
static qgc_status draw(cli_context *c, const char *path, const view_options *o, const cli_pipeline *pipeline,
                       qgc_str *page, qgc_pass_report *report) {
    qgc_graph *g;
    qgc_view *view;
    qgc_card card;
    QGC_TRY(qgc_card_read(o->card, &card, c->diag));
    QGC_TRY(load(&g, path, o, c));
    cli_pipeline edited = *pipeline;
    QGC_TRY(cli_edit_pipeline(&edited, g, c->diag));
    cli_note_modes(g, &edited, c->arena);
    QGC_TRY(qgc_view_new(&view, g, path, o->layer, c->diag));
    const qgc_pass_watch watch = qgc_view_watch(view, cli_watch(&edited, true, c->arena));
    const qgc_pass_options passes = {.passes = edited.passes,
                                     .skip = edited.skip,
                                     .watch = &watch,
                                     .after = qgc_view_after,
                                     .context = view};
    QGC_TRY(qgc_passes_run(g, &passes, report, c->diag));
    if (o->bench)
        QGC_TRY(qgc_view_read_times(view, g, o->bench, c->diag));
    qgc_view_count(view, g, &card);
    qgc_view_html(view, page);
    return QGC_OK;
}

/* Beside the page another one, whose pipeline is that of --against. */
static qgc_status draw_against(cli_context *c, const char *path, const view_options *o, qgc_str *page) {
    qgc_str pages[2] = {*page, qgc_str_new(c->arena)};
    const cli_pipeline other = {.passes = o->against};
    const char *const titles[] = {o->pipeline.passes ? o->pipeline.passes : "the pipeline", o->against};
    qgc_pass_report report;
    QGC_TRY(draw(c, path, o, &other, &pages[1], &report));
    *page = qgc_str_new(c->arena);
    qgc_view_pair(pages, titles, page);
    return QGC_OK;
}

/* What was drawn: the page itself is a file. */
static json_t *view_json(const char *path, const char *output, const qgc_str *page,
                         const qgc_pass_report *report) {
    json_t *passes = json_array();
    for (size_t i = 0; i < report->n_runs; i++)
        json_array_append_new(passes, json_pack("{s:s, s:i, s:i, s:i}", "name", report->runs[i].name, "fired",
                                                report->runs[i].n_fired, "nodes", report->runs[i].n_nodes,
                                                "kernels", report->runs[i].n_kernels));
    return json_pack("{s:s, s:s, s:I, s:o}", "graph", path, "page", output, "bytes", (json_int_t)page->bytes,
                     "passes", passes);
}

static qgc_status view_graph(cli_context *c, const char *path, const view_options *o) {
    qgc_str page = qgc_str_new(c->arena);
    qgc_pass_report report;
    const char *output = o->output;
    QGC_TRY(cli_default_output(&output, path, "html", c->diag));
    QGC_TRY(cli_check_stdout("output", output, "json", o->json, c->diag));
    QGC_TRY(qgc_file_check_output(o->json, c->diag));
    QGC_TRY(cli_load_passes(&o->pipeline, c->diag));
    QGC_TRY(draw(c, path, o, &o->pipeline, &page, &report));
    if (o->against)
        QGC_TRY(draw_against(c, path, o, &page));
    QGC_TRY(qgc_file_write(output, page.text, page.bytes, c->diag));
    if (o->json)
        QGC_TRY(cli_write_json(o->json, view_json(path, output, &page, &report), c->diag));
    if (cli_wants_text(o->json) && !c->quiet)
        fprintf(stderr, "%s: %zu passes, %s\n",
                qgc_file_is_stdout(output) ? "standard output" : qgc_printable(c->arena, output),
                report.n_runs, qgc_str_of_bytes(page.bytes, c->arena));
    return QGC_OK;
}

qgc_status cmd_view(cli_context *c, int argc, char **argv) {
    view_options o = {.layer = -1, .card = "h100-sxm"};
    const cli_option options[] = {
        {"output", 'o', OPTION_TEXT, &o.output, "FILE", "the page; GRAPH.html in this folder", 0, 0},
        {"layer", 0, OPTION_INT, &o.layer, "N",
         "the layer to draw; -1: the second of three or more, else the first", -1, 1 << 20},
        {"bench", 0, OPTION_TEXT, &o.bench, "FILE", "times of kernels, from qgc bench --json", 0, 0},
        {"against", 0, OPTION_TEXT, &o.against, "PASSES", "another pipeline, beside that of --passes", 0, 0},
        {"card", 0, OPTION_TEXT, &o.card, "CARD",
         "whose memory sets the floor of kernels; h100-sxm if not given", 0, 0},
        {"weights", 0, OPTION_TEXT, &o.weights, "PATH", "whose dtypes to draw with: as bench takes it", 0, 0},
        CLI_JSON_OPTION(o.json),
        CLI_CHOICE_OPTIONS(o.pipeline),
        CLI_ALLOW_UNUSED_OPTION(o.allow_unused),
        CLI_COMMON_OPTIONS(c),
        {0},
    };
    const cli_command command = {
        .name = "view",
        .arguments = "GRAPH.yaml",
        .summary = "Draws one layer, and what is around the layers, before any pass and after each.",
        .details =
            "The page is one HTML file that needs no other and no network. In it, a click on a node says what the\n"
            "rules did there; #after=fuse-qkv&node=q after its address chooses a pass and a node.",
        .options = options,
    };
    const char *path;
    QGC_TRY(cli_parse_one(command, argc, argv, &path, c->diag));
    return !path ? QGC_OK : view_graph(c, path, &o);
}
