/* The command that measures passes: ablate. */

#include <stdio.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "graph/load.h"
#include "runtime/cli/pipeline.h"
#include "runtime/cli/text.h"
#include "runtime/cli/weights.h"
#include "runtime/lab/ablate.h"
#include "runtime/lab/ablate_report.h"
#include "runtime/lab/budget.h"

typedef struct {
    const char *graph, *weights, *device, *cache_folder, *json, *svg, *budget;
    cli_text text;
    cli_pipeline pipeline;
    int64_t steps, ctx, pairs, subsets, threads;
    bool allow_unused, quiet;
} ablate_options;

/* What is held while measuring. */
typedef struct {
    qgc_graph *graph; /* before any pass */
    qgc_weights *weights;
    qgc_device *device;
    qgc_pool *pool;
    qgc_tokens tokens;
    qgc_ablate_heading heading;
} ablate_state;

static qgc_status open_weights(ablate_state *s, const ablate_options *o, cli_context *c) {
    QGC_TRY(qgc_graph_load(&s->graph, o->graph, c->arena, c->diag));
    s->heading.weights = cli_weights_are_random(o->weights) ? "made up" : o->weights;
    return cli_lab_weights(&s->weights, o->weights, s->graph, c);
}

static qgc_status read_text(ablate_state *s, const ablate_options *o, cli_context *c) {
    const char *name;
    QGC_TRY(cli_text_read(&o->text, s->weights, s->graph, cli_weights_are_random(o->weights), o->steps,
                          &s->tokens, &name, c));
    s->heading.text = name;
    if ((int64_t)s->tokens.n < o->steps)
        s->heading.text = qgc_arena_printf(c->arena, "%zu tokens of %s, then what the pipeline makes of them",
                                           s->tokens.n, name);
    return QGC_OK;
}

/* --- running --------------------------------------------------------------------------------------------- */

static qgc_status open_device(ablate_state *s, const ablate_options *o, cli_context *c) {
    int index;
    QGC_TRY(cli_choose_device(o->device, &index, c->diag));
    s->pool = qgc_pool_new((int)o->threads);
    if (index < 0) {
        s->heading.device = "cpu";
        return QGC_OK;
    }
    QGC_TRY(qgc_device_open(&s->device, index, c->diag));
    s->heading.device = qgc_arena_strdup(c->arena, qgc_device_about(s->device)->name);
    return QGC_OK;
}

static qgc_status measure(ablate_state *s, const ablate_options *o, cli_context *c, qgc_ablation *out) {
    cli_progress progress = {.label = "passes"};
    const qgc_ablate_options options = {.graph = o->graph,
                                        .weights = s->weights,
                                        .allow_unused = o->allow_unused,
                                        .passes = o->pipeline.passes,
                                        .skip = o->pipeline.skip,
                                        .device = s->device,
                                        .cache_folder = o->cache_folder,
                                        .pool = s->pool,
                                        .tokens = s->tokens.ids,
                                        .n_tokens = s->tokens.n,
                                        .positions = o->steps,
                                        .ctx = o->ctx,
                                        .pairs = (int)o->pairs,
                                        .subsets = (int)o->subsets,
                                        .progress = o->quiet ? NULL : cli_progress_show,
                                        .context = &progress};
    qgc_status status = qgc_ablate(&options, out, c->diag);
    cli_progress_clear(&progress);
    return status;
}

/* The files that were asked for. */
static qgc_status write_files(const qgc_ablation *x, const ablate_state *s, const ablate_options *o,
                              cli_context *c) {
    if (o->json) {
        qgc_str text = qgc_str_new(c->arena);
        QGC_TRY(qgc_ablate_json(x, &s->heading, &text, c->diag));
        QGC_TRY(qgc_file_write(o->json, text.text, text.bytes, c->diag));
    }
    if (o->svg) {
        qgc_str text = qgc_str_new(c->arena);
        qgc_ablate_svg(x, &s->heading, &text);
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
    printf("\n%s is kept\n", o->budget);
    if (unchecked)
        printf("not checked without a GPU: min_us of %d passes\n", unchecked);
    return QGC_OK;
}

static qgc_status run(ablate_state *s, const ablate_options *o, cli_context *c) {
    qgc_budget budget = {0};
    qgc_ablation x;
    if (o->budget)
        QGC_TRY(qgc_budget_read(&budget, o->budget, c->diag));
    QGC_TRY(cli_load_passes(&o->pipeline, c->diag));
    QGC_TRY(open_device(s, o, c));
    QGC_TRY(open_weights(s, o, c));
    QGC_TRY(read_text(s, o, c));
    QGC_TRY(measure(s, o, c, &x));
    qgc_str table = qgc_str_new(c->arena);
    qgc_ablate_table(&x, &s->heading, &table);
    fputs(table.text, stdout);
    fflush(stdout);
    QGC_TRY(write_files(&x, s, o, c));
    return hold_against(&budget, o, &x, c);
}

qgc_status cmd_ablate(cli_context *c, int argc, char **argv) {
    ablate_options o = {.device = "auto", .steps = 64, .ctx = 512, .pairs = 30};
    const cli_option options[] = {
        {"weights", 0, OPTION_TEXT, &o.weights, "PATH", CLI_WEIGHTS_HELP, 0, 0},
        {"device", 0, OPTION_TEXT, &o.device, "auto|gpu|gpu:N|cpu",
         "where to run; times are taken on a GPU only", 0, 0},
        CLI_TEXT_OPTIONS(o.text),
        {"steps", 0, OPTION_INT, &o.steps, "N", "tokens of it; where it is shorter, the model goes on", 1,
         1 << 20},
        {"ctx", 0, OPTION_INT, &o.ctx, "N", "positions of the caches; times are taken at their end", 1,
         1 << 24},
        {"pairs", 0, OPTION_INT, &o.pairs, "N", "timings of a pass, with and without it by turns", 6, 100000},
        {"subsets", 0, OPTION_INT, &o.subsets, "N", "compare logits under random subsets of the passes, too",
         0, 100000},
        {"json", 0, OPTION_TEXT, &o.json, "FILE", "write the numbers as JSON", 0, 0},
        {"svg", 0, OPTION_TEXT, &o.svg, "FILE", "write a bar chart", 0, 0},
        {"budget", 0, OPTION_TEXT, &o.budget, "FILE", "limits (YAML); exit code 1 where one is broken", 0, 0},
        CLI_CHOICE_OPTIONS(o.pipeline),
        {"threads", 0, OPTION_INT, &o.threads, "N", "of the CPU; 0: all", 0, 1024},
        {"cache", 0, OPTION_TEXT, &o.cache_folder, "DIR", "of compiled kernels", 0, 0},
        {"allow-unused", 0, OPTION_FLAG, &o.allow_unused, NULL,
         "let weights pass that the graph does not use", 0, 0},
        {"quiet", 'q', OPTION_FLAG, &o.quiet, NULL, "no progress", 0, 0},
        {0},
    };
    const cli_command command = {
        .name = "ablate",
        .arguments = "GRAPH.yaml",
        .summary = "Measures what each pass saves, and what it does to the logits.",
        .details =
            "Each pass is left out of the pipeline, and run alone. Compared are the time of a decode step, its\n"
            "kernels, the bytes that they hand on, and the logits, token by token.",
        .options = options,
        .min_arguments = 1,
        .max_arguments = 1,
    };
    cli_line line;
    QGC_TRY(cli_parse(&command, argc, argv, &line, c->diag));
    if (line.help)
        return QGC_OK;
    o.graph = line.arguments[0];
    QGC_TRY(cli_text_check(&o.text, cli_weights_are_random(o.weights), c->diag));
    ablate_state s = {.heading = {.graph = o.graph, .ctx = o.ctx, .pairs = (int)o.pairs}};
    qgc_status status = run(&s, &o, c);
    qgc_device_close(s.device);
    if (s.weights)
        qgc_weights_close(s.weights);
    qgc_pool_drop(s.pool);
    return status;
}
