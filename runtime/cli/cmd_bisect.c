/* The command that finds where a graph goes wrong: bisect. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/artifact.h"
#include "graph/base/file.h"
#include "graph/load.h"
#include "runtime/cli/json.h"
#include "runtime/cli/lab.h"
#include "runtime/lab/bisect.h"
#include "runtime/lab/view.h"

typedef struct {
    const char *graph, *against, *json, *output, *phase, *view;
    cli_lab_options lab;
} bisect_options;

typedef struct {
    const char *source; /* the graph of an artifact; NULL */
    qgc_judge_phase phase;
    bool recorded; /* the artifact says where its weights are */
    cli_lab lab;
} bisect_state;

/* An artifact has the graph as it was before any pass, with the passes, and may name its weights. */
static qgc_status open_artifact(bisect_state *s, bisect_options *o, cli_context *c) {
    qgc_file file;
    qgc_plan *plan;
    QGC_TRY(qgc_file_open(&file, o->graph, c->diag));
    qgc_status status =
        qgc_artifact_unpack(&plan, file.data, file.bytes, (qgc_loc){.source = &file.source}, c->diag);
    if (status == QGC_OK) {
        s->source = qgc_arena_strdup(c->arena, plan->source);
        if (!o->lab.weights && plan->weights_path) {
            o->lab.weights = qgc_arena_strdup(c->arena, plan->weights_path);
            s->recorded = true;
        }
    }
    qgc_file_close(&file);
    return status;
}

static qgc_status load_graph(bisect_state *s, const bisect_options *o, qgc_graph **g, cli_context *c) {
    if (s->source)
        return qgc_graph_load_text(g, o->graph, s->source, strlen(s->source), c->arena, c->diag);
    return cli_lab_graph(g, &s->lab.weights, o->graph, o->lab.weights, c);
}

static qgc_status choose_phase(const bisect_options *o, qgc_judge_phase *phase, qgc_diag *d) {
    static const char *const words[] = {
        [QGC_PHASE_BOTH] = "both", [QGC_PHASE_ONLY_PREFILL] = "prefill", [QGC_PHASE_ONLY_DECODE] = "decode"};
    for (int i = 0; i < 3; i++)
        if (strcmp(o->phase, words[i]) == 0) {
            *phase = (qgc_judge_phase)i;
            return QGC_OK;
        }
    return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                    "option --phase is \"%s\", expected prefill, decode or both", o->phase);
}

static qgc_status open_all(bisect_state *s, bisect_options *o, cli_context *c) {
    qgc_graph *g;
    if (qgc_engine_is_artifact(o->graph))
        QGC_TRY(open_artifact(s, o, c));
    QGC_TRY(choose_phase(o, &s->phase, c->diag));
    QGC_TRY(cli_lab_check(&o->lab, c->diag));
    QGC_TRY(cli_load_passes(&o->lab.pipeline, c->diag));
    o->lab.watch = cli_watch(&o->lab.pipeline, false, c->arena); /* bisect verifies each change anyway */
    QGC_TRY(cli_lab_open_device(&s->lab, &o->lab, c->diag));
    QGC_TRY(load_graph(s, o, &g, c));
    QGC_TRY(cli_edit_pipeline(&o->lab.pipeline, g, c->diag));
    cli_note_modes(g, &o->lab.pipeline, c->arena);
    qgc_status status = cli_lab_open_weights(&s->lab, &o->lab, g, c);
    if (!s->lab.weights && s->recorded)
        qgc_engine_note_recorded(o->graph, c->diag);
    return status;
}

/* How to see the same on the small graph. */
static void print_next_command(const qgc_bisection *b, const bisect_state *s, const bisect_options *o) {
    if (b->n_files == 0)
        return;
    FILE *out = cli_report_stream(o->json, o->view);
    fprintf(out, "to see the same: qgc bisect %s/bad.yaml", o->output);
    if (!b->by_kernels)
        fprintf(out, " --against %s/good.yaml", o->output);
    const long long last = (long long)b->steps - 1;
    fprintf(out, " --weights %s/inputs.gguf --ids 0-%lld --steps %lld", o->output, last, last + 1);
    if (s->phase != QGC_PHASE_BOTH)
        fprintf(out, " --phase %s", o->phase);
    if (s->lab.device && b->by_kernels)
        fprintf(out, " --device gpu --mode %s\n", b->mode);
    else
        fputs(" --device cpu\n", out);
}

/* The layer of "ff[3]"; -1: none. */
static int64_t layer_of(const char *name) {
    const char *turn = name ? strchr(name, '[') : NULL;
    return turn ? strtol(turn + 1, NULL, 10) : -1;
}

/* The graph on its way through the passes, where the change and the value are that were found. */
static qgc_status draw(bisect_state *s, const bisect_options *o, const qgc_bisection *b, const char *said,
                       cli_context *c) {
    qgc_graph *g;
    qgc_view *view;
    qgc_pass_report report;
    qgc_diag inner = qgc_diag_new(c->arena);
    const char *node = b->value ? b->value : b->rule_at;
    QGC_TRY(load_graph(s, o, &g, c));
    QGC_TRY(qgc_view_new(&view, g, o->graph, layer_of(node), c->diag));
    const qgc_pass_watch watch = qgc_view_watch(view, o->lab.watch);
    const qgc_pass_options passes = {.passes = o->lab.pipeline.passes,
                                     .skip = o->lab.pipeline.skip,
                                     .watch = &watch,
                                     .after = qgc_view_after,
                                     .context = view};
    if (qgc_passes_run(g, &passes, &report, &inner) != QGC_OK && b->verdict != QGC_BISECT_WRONG)
        return qgc_diag_adopt(c->diag, &inner); /* else it is what was found, and the page ends there */
    qgc_view_say(view, said, b->pass, node);
    qgc_str page = qgc_str_new(c->arena);
    qgc_view_html(view, &page);
    return qgc_file_write(o->view, page.text, page.bytes, c->diag);
}

static qgc_status search(bisect_state *s, const bisect_options *o, cli_context *c) {
    QGC_TRY(cli_check_stdout("view", o->view, "json", o->json, c->diag));
    QGC_TRY(qgc_file_check_output(o->json, c->diag));
    QGC_TRY(qgc_file_check_output(o->view, c->diag));
    if (o->output && !qgc_file_is_folder(o->output))
        QGC_TRY(qgc_file_check_output(o->output, c->diag)); /* it is made in a folder that is there */
    cli_progress progress = {.label = "bisect"};
    qgc_bisection b;
    const qgc_bisect_options options = {
        .run = cli_lab_experiment(&s->lab, &o->lab, o->graph, c->quiet ? NULL : &progress),
        .text = s->source,
        .against = o->against,
        .reproduction = o->output,
        .phase = s->phase};
    qgc_status status = qgc_bisect(&options, &b, c->diag);
    cli_progress_clear(&progress);
    QGC_TRY(status);
    qgc_str text = qgc_str_new(c->arena);
    qgc_bisect_text(&b, &options, &text);
    cli_print_report(&text, cli_report_stream(o->json, o->view));
    print_next_command(&b, s, o);
    if (o->view)
        QGC_TRY(draw(s, o, &b, text.text, c));
    if (o->json) {
        qgc_str json = qgc_str_new(c->arena);
        QGC_TRY(qgc_bisect_json(&b, &options, &json, c->diag));
        QGC_TRY(qgc_file_write(o->json, json.text, json.bytes, c->diag));
    }
    if (b.by_memory)
        return qgc_fail(c->diag, QGC_ERR_INPUT, QGC_NO_LOC, "\"%s\" is wrong where results share memory",
                        o->graph);
    if (b.verdict == QGC_BISECT_WRONG && !b.value)
        return qgc_fail(c->diag, QGC_ERR_INPUT, QGC_NO_LOC, "\"%s\" is wrong with pass \"%s\": %s", o->graph,
                        b.pass ? b.pass : "", b.why ? b.why : "");
    if (b.verdict == QGC_BISECT_WRONG)
        return qgc_fail(c->diag, QGC_ERR_INPUT, QGC_NO_LOC, "\"%s\" is wrong from \"%s\" on", o->graph,
                        b.value);
    return QGC_OK;
}

qgc_status cmd_bisect(cli_context *c, int argc, char **argv) {
    bisect_options o = {.phase = "both", .lab = {.device = "auto", .steps = 16}};
    const cli_option options[] = {
        {"weights", 0, OPTION_TEXT, &o.lab.weights, "PATH", CLI_WEIGHTS_HELP, 0, 0},
        {"against", 0, OPTION_TEXT, &o.against, "GRAPH.yaml",
         "the graph that is right; else this one before any pass", 0, 0},
        {"device", 0, OPTION_TEXT, &o.lab.device, "auto|gpu|gpu:N|cpu",
         "where to run; kernels are looked at on a GPU only", 0, 0},
        {"output", 'o', OPTION_TEXT, &o.output, "DIR", "write a small graph that shows the same", 0, 0},
        {"view", 0, OPTION_TEXT, &o.view, "FILE", "write a page (qgc view) that shows the change", 0, 0},
        CLI_LAB_MODE_OPTION(o.lab),
        {"phase", 0, OPTION_TEXT, &o.phase, "prefill|decode|both", "the steps by which the graph is judged",
         0, 0},
        CLI_LAB_TEXT_OPTIONS(o.lab, 4096),
        CLI_CHOICE_OPTIONS(o.lab.pipeline),
        CLI_JSON_OPTION(o.json),
        CLI_LAB_RUN_OPTIONS(o.lab),
        CLI_COMMON_OPTIONS(c),
        {0},
    };
    const cli_command command = {
        .name = "bisect",
        .arguments = "GRAPH.yaml|ARTIFACT.qgc",
        .summary =
            "Finds the passes, their changes and the values at which a graph begins to compute something else.",
        .details =
            "Right is the graph before any pass. After each change of a pass the graph is held against the one before\n"
            "the change, in double precision: over a prompt in chunks, decode steps, and several settings of sampling.\n"
            "On a GPU, if the graph is right, its kernels are held against the evaluator. Exit code 1 where more is\n"
            "wrong than rounding explains, and where a pass makes another graph when it runs again.",
        .options = options,
    };
    QGC_TRY(cli_parse_one(command, argc, argv, &o.graph, c->diag));
    if (!o.graph)
        return QGC_OK;
    bisect_state s = {0};
    qgc_status status = open_all(&s, &o, c);
    if (status == QGC_OK)
        status = search(&s, &o, c);
    cli_lab_close(&s.lab);
    return status;
}
