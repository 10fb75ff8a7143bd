/* The command that finds where a graph goes wrong: bisect. */

#include <stdio.h>
#include <string.h>

#include "codegen/artifact.h"
#include "graph/base/file.h"
#include "graph/load.h"
#include "runtime/cli/pipeline.h"
#include "runtime/cli/text.h"
#include "runtime/cli/weights.h"
#include "runtime/lab/bisect.h"

typedef struct {
    const char *graph, *weights, *against, *device, *cache_folder, *json, *output;
    cli_text text;
    cli_pipeline pipeline;
    int64_t steps, threads;
    bool allow_unused, quiet;
} bisect_options;

/* What is held while searching. */
typedef struct {
    const char *source; /* the graph of an artifact; NULL */
    qgc_weights *weights;
    qgc_device *device;
    qgc_pool *pool;
    qgc_tokens tokens;
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
        if (!o->weights && plan->weights_path)
            o->weights = qgc_arena_strdup(c->arena, plan->weights_path);
    }
    qgc_file_close(&file);
    return status;
}

static qgc_status load_graph(const bisect_state *s, const bisect_options *o, qgc_graph **g, cli_context *c) {
    if (s->source)
        return qgc_graph_load_text(g, o->graph, s->source, strlen(s->source), c->arena, c->diag);
    return qgc_graph_load(g, o->graph, c->arena, c->diag);
}

static qgc_status open_device(bisect_state *s, const bisect_options *o, cli_context *c) {
    int index;
    QGC_TRY(cli_choose_device(o->device, &index, c->diag));
    s->pool = qgc_pool_new((int)o->threads);
    return index < 0 ? QGC_OK : qgc_device_open(&s->device, index, c->diag);
}

static qgc_status open_all(bisect_state *s, bisect_options *o, cli_context *c) {
    qgc_graph *g;
    const char *name;
    if (cli_is_artifact(o->graph))
        QGC_TRY(open_artifact(s, o, c));
    QGC_TRY(cli_text_check(&o->text, cli_weights_are_random(o->weights), c->diag));
    QGC_TRY(cli_load_passes(&o->pipeline, c->diag));
    QGC_TRY(open_device(s, o, c));
    QGC_TRY(load_graph(s, o, &g, c));
    QGC_TRY(cli_lab_weights(&s->weights, o->weights, g, c));
    return cli_text_read(&o->text, s->weights, g, cli_weights_are_random(o->weights), o->steps, &s->tokens,
                         &name, c);
}

/* How to see the same on the small graph. */
static void print_next_command(const qgc_bisection *b, const bisect_state *s, const bisect_options *o) {
    if (b->n_files == 0)
        return;
    printf("to see the same: qgc bisect %s/bad.yaml", o->output);
    if (!b->by_kernels)
        printf(" --against %s/good.yaml", o->output);
    const long long last = (long long)b->steps - 1;
    printf(" --weights %s/inputs.gguf --ids 0-%lld --steps %lld --device %s\n", o->output, last, last + 1,
           s->device && b->by_kernels ? "gpu" : "cpu");
}

static qgc_status search(bisect_state *s, const bisect_options *o, cli_context *c) {
    cli_progress progress = {.label = "bisect"};
    qgc_bisection b;
    const qgc_bisect_options options = {.graph = o->graph,
                                        .text = s->source,
                                        .against = o->against,
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
                                        .reproduction = o->output,
                                        .progress = o->quiet ? NULL : cli_progress_show,
                                        .context = &progress};
    qgc_status status = qgc_bisect(&options, &b, c->diag);
    cli_progress_clear(&progress);
    QGC_TRY(status);
    qgc_str text = qgc_str_new(c->arena);
    qgc_bisect_text(&b, &options, &text);
    fputs(text.text, stdout);
    print_next_command(&b, s, o);
    if (o->json) {
        qgc_str json = qgc_str_new(c->arena);
        QGC_TRY(qgc_bisect_json(&b, &options, &json, c->diag));
        QGC_TRY(qgc_file_write(o->json, json.text, json.bytes, c->diag));
    }
    if (b.by_memory)
        return qgc_fail(c->diag, QGC_ERR_INPUT, QGC_NO_LOC, "\"%s\" is wrong where results share memory",
                        o->graph);
    if (b.verdict == QGC_BISECT_WRONG)
        return qgc_fail(c->diag, QGC_ERR_INPUT, QGC_NO_LOC, "\"%s\" is wrong from \"%s\" on", o->graph,
                        b.value);
    return QGC_OK;
}

qgc_status cmd_bisect(cli_context *c, int argc, char **argv) {
    bisect_options o = {.device = "auto", .steps = 16};
    const cli_option options[] = {
        {"weights", 0, OPTION_TEXT, &o.weights, "PATH", CLI_WEIGHTS_HELP, 0, 0},
        {"against", 0, OPTION_TEXT, &o.against, "GRAPH.yaml",
         "the graph that is right; else this one before any pass", 0, 0},
        {"device", 0, OPTION_TEXT, &o.device, "auto|gpu|gpu:N|cpu",
         "where to run; kernels are looked at on a GPU only", 0, 0},
        {"output", 'o', OPTION_TEXT, &o.output, "DIR", "write a small graph that shows the same", 0, 0},
        CLI_TEXT_OPTIONS(o.text),
        {"steps", 0, OPTION_INT, &o.steps, "N", "tokens of it; where it is shorter, the model goes on", 1,
         4096},
        CLI_CHOICE_OPTIONS(o.pipeline),
        {"json", 0, OPTION_TEXT, &o.json, "FILE", "write what was found as JSON", 0, 0},
        {"threads", 0, OPTION_INT, &o.threads, "N", "of the CPU; 0: all", 0, 1024},
        {"cache", 0, OPTION_TEXT, &o.cache_folder, "DIR", "of compiled kernels", 0, 0},
        {"allow-unused", 0, OPTION_FLAG, &o.allow_unused, NULL,
         "let weights pass that the graph does not use", 0, 0},
        {"quiet", 'q', OPTION_FLAG, &o.quiet, NULL, "no progress", 0, 0},
        {0},
    };
    const cli_command command = {
        .name = "bisect",
        .arguments = "GRAPH.yaml|ARTIFACT.qgc",
        .summary =
            "Finds the pass, its change and the value at which a graph begins to compute something else.",
        .details =
            "Right is what the CPU evaluator makes of the graph before any pass. Beginnings of the pipeline are held\n"
            "against it, then two graphs that differ by one change are compared value by value. Exit code 1 where more\n"
            "is wrong than rounding explains.",
        .options = options,
        .min_arguments = 1,
        .max_arguments = 1,
    };
    cli_line line;
    QGC_TRY(cli_parse(&command, argc, argv, &line, c->diag));
    if (line.help)
        return QGC_OK;
    o.graph = line.arguments[0];
    bisect_state s = {0};
    qgc_status status = open_all(&s, &o, c);
    if (status == QGC_OK)
        status = search(&s, &o, c);
    qgc_device_close(s.device);
    if (s.weights)
        qgc_weights_close(s.weights);
    qgc_pool_drop(s.pool);
    return status;
}
