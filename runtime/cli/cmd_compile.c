#include <stdio.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "graph/base/times.h"
#include "graph/base/utf8.h"
#include "runtime/cli/json.h"
#include "runtime/cli/pipeline.h"
#include "runtime/engine/build.h"
#include "runtime/engine/plan_report.h"
#include "runtime/mode.h"

typedef struct {
    const char *output, *archs, *card, *weights, *cache, *nvrtc, *json;
    cli_pipeline pipeline;
    bool no_cache, no_tuning, allow_unused;
    int64_t chunk;
} compile_options;

/* "123 of them early, ", if one of the architectures can do that. */
static const char *early_text(const qgc_plan *p, qgc_arena *a) {
    for (int i = 0; i < p->n_archs; i++)
        if (!qgc_mode_refusal_on(p, QGC_MODE_PDL, p->archs[i], a))
            return qgc_arena_printf(a, "%zu of them early, ", qgc_plan_early(p, QGC_PHASE_DECODE));
    return "";
}

static void report(const qgc_built *b, const char *output, double seconds, cli_context *c) {
    const qgc_plan *plan = b->plan;
    cli_note_cache(c, b->cache_fault);
    fprintf(stderr, "%s: %zu launches a decode step, %s%zu a prefill step, %zu kernels for",
            qgc_file_is_stdout(output) ? "standard output" : qgc_printable(c->arena, output),
            plan->phases[QGC_PHASE_DECODE].n_launches, early_text(plan, c->arena),
            plan->phases[QGC_PHASE_PREFILL].n_launches, plan->n_kernels);
    for (int i = 0; i < plan->n_archs; i++)
        fprintf(stderr, "%s %s", i ? "," : "", plan->archs[i]);
    fprintf(stderr, " (%d compiled, %d from the cache), %s, %.2f s\n", b->n_compiled, b->n_cached,
            qgc_str_of_bytes(b->bytes, c->arena), seconds);
}

static json_t *built_json(const qgc_built *b, const char *output) {
    json_t *archs = json_array(), *launches = json_object();
    for (int i = 0; i < b->plan->n_archs; i++)
        json_array_append_new(archs, json_string(b->plan->archs[i]));
    for (int k = 0; k < QGC_N_PHASES; k++)
        json_object_set_new(launches, qgc_phase_name((qgc_phase_kind)k),
                            json_integer((json_int_t)b->plan->phases[k].n_launches));
    return json_pack("{s:s, s:s, s:o, s:o, s:I, s:i, s:i, s:I}", "artifact", output, "compiler",
                     b->plan->compiler, "archs", archs, "launches", launches, "kernels",
                     (json_int_t)b->plan->n_kernels, "compiled", b->n_compiled, "from_cache", b->n_cached,
                     "bytes", (json_int_t)b->bytes);
}

static qgc_status compile_graph(cli_context *c, const char *path, compile_options *o) {
    const double start = qgc_seconds();
    cli_progress progress = {0};
    QGC_TRY(cli_default_output(&o->output, path, "qgc", c->diag));
    QGC_TRY(cli_check_stdout("output", o->output, "json", o->json, c->diag));
    qgc_build_options build = {.graph = path,
                               .output = o->output,
                               .weights = o->weights,
                               .card = o->card,
                               .chunk = o->chunk,
                               .cache_folder = o->cache,
                               .nvrtc_library = o->nvrtc,
                               .no_cache = o->no_cache,
                               .no_tuning = o->no_tuning,
                               .allow_unused = o->allow_unused,
                               .passes = cli_passes(&o->pipeline),
                               .listener = cli_listener(&progress, c->quiet)};
    if (o->archs) {
        build.archs = cli_split(o->archs, &build.n_archs, c->arena);
        if (build.n_archs == 0)
            return qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC, "option --arch names no architecture");
    }
    qgc_built built;
    qgc_status status = qgc_build(&build, &built, c->diag);
    cli_progress_clear(&progress);
    if (status == QGC_OK && o->json)
        status = cli_write_json(o->json, built_json(&built, build.output), c->diag);
    if (status == QGC_OK && cli_wants_text(o->json) && !c->quiet)
        report(&built, build.output, qgc_seconds() - start, c);
    return status;
}

qgc_status cmd_compile(cli_context *c, int argc, char **argv) {
    compile_options o = {0};
    const cli_option options[] = {
        {"output", 'o', OPTION_TEXT, &o.output, "FILE", "the artifact; GRAPH's name with .qgc in this folder",
         0, 0},
        {"arch", 0, OPTION_TEXT, &o.archs, "LIST",
         "sm_90a,sm_80+ptx,compute_75; this machine's GPU, else sm_90a", 0, 0},
        {"card", 0, OPTION_TEXT, &o.card, "CARD",
         "split the work for it: rtx-4090; the architecture too, without --arch", 0, 0},
        {"weights", 0, OPTION_TEXT, &o.weights, "PATH", "check these, keep their types, record the path", 0,
         0},
        CLI_PIPELINE_OPTIONS(o.pipeline),
        {"chunk", 0, OPTION_INT, &o.chunk, "N",
         "largest number of prompt tokens in a step; 0: 512, or the artifact's", 0, 65536},
        CLI_ALLOW_UNUSED_OPTION(o.allow_unused),
        {"cache", 0, OPTION_TEXT, &o.cache, "DIR", "compiled kernels are kept here; ~/.cache/qgc", 0, 0},
        {"no-cache", 0, OPTION_FLAG, &o.no_cache, NULL, "compile every kernel anew", 0, 0},
        {"no-tuning", 0, OPTION_FLAG, &o.no_tuning, NULL, "leave out what qgc tune has found", 0, 0},
        {"nvrtc", 0, OPTION_TEXT, &o.nvrtc, "FILE", "libnvrtc.so to use", 0, 0},
        CLI_JSON_OPTION(o.json),
        CLI_COMMON_OPTIONS(c),
        {0},
    };
    const cli_command command = {
        .name = "compile",
        .arguments = "GRAPH.yaml | ARTIFACT.qgc",
        .summary = "Compiles a graph to an artifact that qgc run takes. Needs NVRTC, no GPU and no driver.",
        .details =
            "An artifact holds its graph and its pipeline and is compiled again from these, for other architectures say.\n"
            "With chunks of 512 tokens or more, persistent mode takes 4 times as many of a longer prompt at a time.",
        .options = options,
    };
    const char *path;
    QGC_TRY(cli_parse_one(command, argc, argv, &path, c->diag));
    return !path ? QGC_OK : compile_graph(c, path, &o);
}
