#define _XOPEN_SOURCE 700 /* realpath */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/artifact.h"
#include "codegen/compile.h"
#include "graph/base/str.h"
#include "graph/base/utf8.h"
#include "graph/load.h"
#include "graph/print.h"
#include "passes/bind_weights.h"
#include "runtime/cli/pipeline.h"
#include "runtime/lab/plan_report.h"
#include "runtime/mode.h"

/* The weights' path as it will be found from anywhere. */
static const char *absolute(const char *path, qgc_arena *a) {
    char *real = realpath(path, NULL);
    const char *copy = qgc_arena_strdup(a, real ? real : path);
    if (real)
        (free)(real); /* libc's own, made by realpath */
    return copy;
}

typedef struct {
    const char *output, *archs, *weights, *cache, *nvrtc;
    cli_pipeline pipeline;
    bool no_cache, no_tuning, allow_unused, quiet;
    int64_t chunk;
} compile_options;

/* "123 of them early, ", if one of the architectures can do that. */
static const char *early_text(const qgc_plan *p, qgc_arena *a) {
    for (int i = 0; i < p->n_archs; i++)
        if (!qgc_mode_refusal_on(p, QGC_MODE_PDL, p->archs[i], a))
            return qgc_arena_printf(a, "%zu of them early, ", qgc_plan_early(p, QGC_PHASE_DECODE));
    return "";
}

static qgc_status compile_graph(cli_context *c, const char *path, const compile_options *o) {
    double start = cli_seconds();
    qgc_graph *g;
    QGC_TRY(qgc_graph_load(&g, path, c->arena, c->diag));
    qgc_weights *weights = NULL;
    if (o->weights) {
        const qgc_tensor **tensors;
        QGC_TRY(qgc_weights_open(&weights, o->weights, c->diag));
        qgc_status bound = qgc_graph_bind(g, weights, o->allow_unused, &tensors, c->diag);
        qgc_weights_close(weights); /* the graph keeps dtypes, the artifact no tensors */
        QGC_TRY(bound);
    }
    const char *recorded = o->weights ? absolute(o->weights, c->arena) : NULL;
    if (recorded && strcmp(qgc_printable(c->arena, recorded), recorded) != 0)
        return qgc_fail(
            c->diag, QGC_ERR_USAGE, QGC_NO_LOC,
            "the path of the weights, \"%s\", is not text without control characters, as an artifact records it",
            recorded);
    qgc_str source = qgc_str_new(c->arena);
    cli_pipeline pipeline = o->pipeline;
    pipeline.source = &source;
    QGC_TRY(cli_run_passes(g, &pipeline, NULL, c->diag));

    qgc_compile_options options = {.chunk = o->chunk,
                                   .cache_folder = o->cache,
                                   .no_cache = o->no_cache,
                                   .nvrtc_library = o->nvrtc,
                                   .source = source.text};
    options.archs = cli_split(o->archs ? o->archs : cli_default_arch(c->arena), &options.n_archs, c->arena);
    if (options.n_archs == 0 || options.n_archs > QGC_MAX_ARCHS)
        return qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC,
                        "option --arch names %d architectures, expected 1 to %d", options.n_archs,
                        QGC_MAX_ARCHS);
    for (int i = 1; i < options.n_archs; i++)
        for (int k = 0; k < i; k++)
            if (strcmp(options.archs[i], options.archs[k]) == 0)
                return qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC, "option --arch names %s twice",
                                options.archs[i]);
    if (!o->no_tuning)
        QGC_TRY(qgc_compile_find_tuning(&options, &options.tuning, c->diag));
    const char *output = o->output ? o->output : cli_default_output(path, "qgc", c->arena);
    QGC_TRY(qgc_file_check_output(output, c->diag));
    options.pool = qgc_pool_new(0);
    qgc_compiled compiled;
    qgc_status status = qgc_compile(g, &options, &compiled, c->diag);
    qgc_pool_drop(options.pool);
    QGC_TRY(status);
    qgc_plan *plan = compiled.plan;
    plan->weights_path = recorded;

    const void *data;
    size_t bytes;
    qgc_artifact_pack(plan, c->arena, &data, &bytes);
    QGC_TRY(qgc_file_write(output, data, bytes, c->diag));
    if (!o->quiet) {
        cli_note_cache(compiled.cache_fault, c->arena);
        fprintf(stderr, "%s: %zu launches a decode step, %s%zu a prefill step, %zu kernels for",
                qgc_printable(c->arena, output), plan->phases[QGC_PHASE_DECODE].n_launches,
                early_text(plan, c->arena), plan->phases[QGC_PHASE_PREFILL].n_launches, plan->n_kernels);
        for (int i = 0; i < plan->n_archs; i++)
            fprintf(stderr, "%s %s", i ? "," : "", plan->archs[i]);
        fprintf(stderr, " (%d compiled, %d from the cache), %s, %.2f s\n", compiled.n_compiled,
                compiled.n_cached, cli_bytes(bytes, c->arena), cli_seconds() - start);
    }
    return QGC_OK;
}

qgc_status cmd_compile(cli_context *c, int argc, char **argv) {
    compile_options o = {.chunk = 512};
    const cli_option options[] = {
        {"output", 'o', OPTION_TEXT, &o.output, "FILE", "the artifact; GRAPH's name with .qgc in this folder",
         0, 0},
        {"arch", 0, OPTION_TEXT, &o.archs, "LIST", "sm_90a,sm_80; this machine's GPU, else sm_90a", 0, 0},
        {"weights", 0, OPTION_TEXT, &o.weights, "PATH", "check these, keep their types, record the path", 0,
         0},
        CLI_PIPELINE_OPTIONS(o.pipeline),
        {"chunk", 0, OPTION_INT, &o.chunk, "N", "largest number of prompt tokens in a step", 1, 65536},
        CLI_ALLOW_UNUSED_OPTION(o.allow_unused),
        {"cache", 0, OPTION_TEXT, &o.cache, "DIR", "compiled kernels are kept here; ~/.cache/qgc", 0, 0},
        {"no-cache", 0, OPTION_FLAG, &o.no_cache, NULL, "compile every kernel anew", 0, 0},
        {"no-tuning", 0, OPTION_FLAG, &o.no_tuning, NULL, "leave out what qgc tune has found", 0, 0},
        {"nvrtc", 0, OPTION_TEXT, &o.nvrtc, "FILE", "libnvrtc.so to use", 0, 0},
        {"quiet", 'q', OPTION_FLAG, &o.quiet, NULL, "print nothing but errors", 0, 0},
        {0},
    };
    const cli_command command = {
        .name = "compile",
        .arguments = "GRAPH.yaml",
        .summary = "Compiles a graph to an artifact that qgc run takes. Needs NVRTC, no GPU and no driver.",
        .options = options,
        .min_arguments = 1,
        .max_arguments = 1,
    };
    cli_line line;
    QGC_TRY(cli_parse(&command, argc, argv, &line, c->diag));
    return line.help ? QGC_OK : compile_graph(c, line.arguments[0], &o);
}
