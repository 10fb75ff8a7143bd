/* The command that measures passes: ablate. */

#include <stdio.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "graph/base/utf8.h"
#include "graph/load.h"
#include "runtime/cli/json.h"
#include "runtime/cli/lab.h"
#include "runtime/lab/ablate.h"
#include "runtime/lab/ablate_report.h"
#include "runtime/lab/budget.h"
#include "runtime/lab/chart.h"

typedef struct {
    const char *graph, *json, *svg, *budget;
    const char *phase; /* "decode" or "prefill" */
    cli_lab_options lab;
    int64_t ctx, pairs, subsets;
    const char *modes[QGC_CHART_MAX_SERIES]; /* of --mode; one that is NULL where it is not given */
    int n_modes;
} ablate_options;

typedef struct {
    cli_lab lab;
    qgc_ablate_heading heading;
} ablate_state;

static qgc_status open_all(ablate_state *s, ablate_options *o, cli_context *c) {
    qgc_graph *g; /* before any pass */
    cli_lab *lab = &s->lab;
    QGC_TRY(cli_load_passes(&o->lab.pipeline, c->diag));
    o->lab.watch = cli_watch(&o->lab.pipeline, true, c->arena);
    QGC_TRY(cli_lab_open_device(lab, &o->lab, c->diag));
    QGC_TRY(cli_lab_graph(&g, &lab->weights, o->graph, o->lab.weights, c));
    s->heading.ctx = o->ctx = cli_lab_ctx(o->ctx, g);
    QGC_TRY(cli_edit_pipeline(&o->lab.pipeline, g, c->diag));
    cli_note_modes(g, &o->lab.pipeline, c->arena);
    QGC_TRY(cli_lab_open_weights(lab, &o->lab, g, c));
    s->heading.device = lab->device ? qgc_arena_strdup(c->arena, qgc_device_about(lab->device)->name) : "cpu";
    s->heading.weights = cli_weights_are_random(o->lab.weights) ? "random" : o->lab.weights;
    s->heading.text = lab->text;
    if ((int64_t)lab->tokens.n < o->lab.steps)
        s->heading.text = qgc_arena_printf(
            c->arena, "%zu tokens of %s, then %s", lab->tokens.n, lab->text,
            strcmp(o->phase, "prefill") == 0 ? "the same again" : "what the pipeline makes of them");
    return QGC_OK;
}

static qgc_status measure(ablate_state *s, const ablate_options *o, cli_context *c, qgc_ablation *out) {
    cli_progress progress = {.label = "passes"};
    const qgc_ablate_options options = {
        .run = cli_lab_experiment(&s->lab, &o->lab, o->graph, c->quiet ? NULL : &progress),
        .ctx = o->ctx,
        .prefill = strcmp(o->phase, "prefill") == 0,
        .pairs = (int)o->pairs,
        .subsets = (int)o->subsets};
    qgc_status status = qgc_ablate(&options, out, c->diag);
    cli_progress_clear(&progress);
    return status;
}

/* One object, or a list of one for each mode. */
static qgc_status json_of(const qgc_ablation *x, const ablate_state *s, const ablate_options *o, qgc_str *out,
                          qgc_diag *d) {
    if (o->n_modes == 1)
        return qgc_ablate_json(x, &s->heading, out, d);
    for (int i = 0; i < o->n_modes; i++) {
        qgc_str_add(out, i ? "," : "[");
        QGC_TRY(qgc_ablate_json(&x[i], &s->heading, out, d));
    }
    qgc_str_add(out, "]\n");
    return QGC_OK;
}

/* The files that were asked for. */
static qgc_status write_files(const qgc_ablation *x, const ablate_state *s, const ablate_options *o,
                              cli_context *c) {
    if (o->json) {
        qgc_str text = qgc_str_new(c->arena);
        QGC_TRY(json_of(x, s, o, &text, c->diag));
        QGC_TRY(qgc_file_write(o->json, text.text, text.bytes, c->diag));
    }
    if (o->svg) {
        qgc_str text = qgc_str_new(c->arena);
        qgc_ablate_svg(x, o->n_modes, &s->heading, &text);
        QGC_TRY(qgc_file_write(o->svg, text.text, text.bytes, c->diag));
    }
    return QGC_OK;
}

static qgc_status hold_against(const qgc_budget *budget, const ablate_options *o, const qgc_ablation *x,
                               cli_context *c) {
    if (!o->budget)
        return QGC_OK;
    int unchecked;
    QGC_TRY(qgc_budget_check(budget, x, &unchecked, c->diag));
    FILE *out = cli_report_stream(o->json, o->svg);
    fprintf(out, "\n%s is kept\n", qgc_printable(c->arena, o->budget));
    if (unchecked)
        fprintf(out, "not checked without a GPU: min_us of %d passes\n", unchecked);
    return QGC_OK;
}

/* A pass that makes a wrong graph is not harmless, however small its drift. */
static qgc_status want_right(const qgc_ablation *x, const ablate_options *o, cli_context *c) {
    for (size_t i = 0; i < x->n_rows; i++)
        if (!x->rows[i].alone.refused && x->rows[i].alone.is_wrong)
            return qgc_fail(c->diag, QGC_ERR_INPUT, QGC_NO_LOC,
                            "pass \"%s\" makes a graph that computes something else: qgc bisect says where",
                            x->rows[i].pass);
    if (x->total.is_wrong || x->n_wrong_subsets > 0)
        return qgc_fail(
            c->diag, QGC_ERR_INPUT, QGC_NO_LOC,
            "passes of \"%s\" together make a graph that computes something else: qgc bisect says where",
            o->graph);
    return QGC_OK;
}

static qgc_status run(ablate_state *s, ablate_options *o, cli_context *c) {
    qgc_budget budget = {0};
    qgc_ablation x[QGC_CHART_MAX_SERIES];
    if (o->budget)
        QGC_TRY(qgc_budget_read(&budget, o->budget, c->diag));
    QGC_TRY(cli_check_stdout("svg", o->svg, "json", o->json, c->diag));
    QGC_TRY(open_all(s, o, c));
    QGC_TRY(qgc_file_check_output(o->json, c->diag));
    QGC_TRY(qgc_file_check_output(o->svg, c->diag));
    for (int i = 0; i < o->n_modes; i++) {
        o->lab.mode = o->modes[i];
        QGC_TRY(measure(s, o, c, &x[i]));
        qgc_str table = qgc_str_new(c->arena);
        qgc_ablate_table(&x[i], &s->heading, &table);
        FILE *out = cli_report_stream(o->json, o->svg);
        fputs(i ? "\n" : "", out);
        cli_print_report(&table, out);
        fflush(out);
    }
    QGC_TRY(write_files(x, s, o, c));
    for (int i = 0; i < o->n_modes; i++) {
        QGC_TRY(hold_against(&budget, o, &x[i], c));
        QGC_TRY(want_right(&x[i], o, c));
    }
    return QGC_OK;
}

/* "graph,persistent" */
static qgc_status read_modes(ablate_options *o, cli_context *c) {
    const char *at = o->lab.mode;
    for (bool more = true; more; o->n_modes++) {
        const size_t bytes = at ? strcspn(at, ",") : 0;
        if (o->n_modes == QGC_CHART_MAX_SERIES)
            return qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC, "option --mode names more than %d modes",
                            QGC_CHART_MAX_SERIES);
        o->lab.mode = o->modes[o->n_modes] = at ? qgc_arena_strndup(c->arena, at, bytes) : NULL;
        QGC_TRY(cli_lab_check(&o->lab, c->diag));
        more = at && at[bytes];
        at = more ? at + bytes + 1 : NULL;
    }
    return QGC_OK;
}

qgc_status cmd_ablate(cli_context *c, int argc, char **argv) {
    ablate_options o = {.phase = "decode", .lab = {.device = "auto", .steps = 64}, .pairs = 30};
    const cli_option options[] = {
        {"weights", 0, OPTION_TEXT, &o.lab.weights, "PATH", CLI_WEIGHTS_HELP, 0, 0},
        {"device", 0, OPTION_TEXT, &o.lab.device, "auto|gpu|gpu:N|cpu",
         "where to run; times are taken on a GPU only", 0, 0},
        {"mode", 0, OPTION_TEXT, &o.lab.mode, "MODE,...",
         "how steps run on a GPU: graph if not given; 'graph,persistent'", 0, 0},
        {"phase", 0, OPTION_TEXT, &o.phase, "decode|prefill",
         "steps of one token, or of the --ctx tokens of a prompt", 0, 0},
        CLI_LAB_TEXT_OPTIONS(o.lab, 1 << 20),
        {"ctx", 0, OPTION_INT, &o.ctx, "N",
         "positions of the caches; times are taken at their end; 0: up to 512", 0, 1 << 24},
        {"pairs", 0, OPTION_INT, &o.pairs, "N", "timings of a pass, with and without it by turns", 6, 100000},
        {"subsets", 0, OPTION_INT, &o.subsets, "N", "compare logits under random subsets of the passes, too",
         0, 100000},
        CLI_JSON_OPTION(o.json),
        {"svg", 0, OPTION_TEXT, &o.svg, "FILE", "write a bar chart", 0, 0},
        {"budget", 0, OPTION_TEXT, &o.budget, "FILE", "limits (YAML); exit code 1 where one is broken", 0, 0},
        CLI_CHOICE_OPTIONS(o.lab.pipeline),
        CLI_LAB_RUN_OPTIONS(o.lab),
        CLI_COMMON_OPTIONS(c),
        {0},
    };
    const cli_command command = {
        .name = "ablate",
        .arguments = "GRAPH.yaml",
        .summary = "Measures what each pass saves, and what it does to the logits.",
        .details =
            "Each pass is left out of the pipeline, and run alone. Compared are the time of a decode step, its\n"
            "kernels, the bytes that they hand on, and the logits, token by token. Each graph is judged, too: a\n"
            "pass by which it computes something else is an error. With --phase prefill it is steps of a prompt\n"
            "that are compared, timed and judged; they are the same launches in every mode. Of several modes each has\n"
            "its tables, and the chart has them side by side.",
        .options = options,
    };
    QGC_TRY(cli_parse_one(command, argc, argv, &o.graph, c->diag));
    if (!o.graph)
        return QGC_OK;
    QGC_TRY(read_modes(&o, c));
    if (strcmp(o.phase, "decode") != 0 && strcmp(o.phase, "prefill") != 0)
        return qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC,
                        "option --phase is \"%s\", expected decode or prefill", o.phase);
    ablate_state s = {.heading = {.graph = o.graph, .pairs = (int)o.pairs}};
    qgc_status status = run(&s, &o, c);
    cli_lab_close(&s.lab);
    return status;
}
