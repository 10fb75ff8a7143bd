#include <stdio.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/utf8.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "runtime/cli/lab.h"
#include "runtime/lab/tune.h"
#include "runtime/mode.h"

typedef struct {
    const char *weights, *output, *cache;
    qgc_tune_options tune;
    cli_pipeline pipeline;
    int64_t gpu, position;
    bool allow_unused, afresh;
    const char *kernel; /* of the last line printed */
    int tried, kept;
} tune_options;

static void report(void *context, const qgc_tune_result *r) {
    tune_options *o = context;
    if (!o->kernel || strcmp(o->kernel, r->kernel) != 0)
        printf("%s\n", r->kernel);
    o->kernel = r->kernel;
    o->tried++;
    printf("  %-10s %6lld  ", r->name, (long long)r->value);
    if (r->verdict == QGC_TUNE_WRONG || r->verdict == QGC_TUNE_FAILED)
        printf("%s: %s\n", r->verdict == QGC_TUNE_WRONG ? "wrong" : "failed", r->why);
    else
        printf("%9.2f us a step, %+.2f us [%+.2f, %+.2f]%s\n", r->us, r->us - r->base_us, r->low_us,
               r->high_us, r->verdict == QGC_TUNE_FASTER ? "  kept" : "");
    o->kept += r->verdict == QGC_TUNE_FASTER;
    fflush(stdout);
}

/* Where the tuning of this GPU's architecture is; the process that tries is the only one to ask the GPU, so the file of
 * any architecture may be meant until then, and one given by name is read, if it is there. */
static qgc_status begin_with(tune_options *o, qgc_tuning *tuning, qgc_diag *d) {
    *tuning = (qgc_tuning){.arena = d->arena};
    if (o->afresh || !o->output || !qgc_file_exists(o->output))
        return QGC_OK;
    return qgc_tuning_read(tuning, o->output, NULL, d);
}

static qgc_status tune_graph(cli_context *c, const char *path, tune_options *o) {
    qgc_graph *g;
    qgc_weights *weights;
    const qgc_tensor **tensors;
    QGC_TRY(cli_lab_graph(&g, &weights, path, o->weights, c));
    QGC_TRY(cli_lab_weights(&weights, o->weights, g, c));
    qgc_tuning tuning;
    qgc_status s = qgc_file_check_output(o->output, c->diag);
    if (s == QGC_OK)
        s = begin_with(o, &tuning, c->diag);
    if (s == QGC_OK)
        s = qgc_graph_bind(g, weights, o->allow_unused, &tensors, c->diag);
    if (s == QGC_OK)
        s = cli_run_passes(g, &o->pipeline, NULL, c->diag);
    o->tune.graph = g;
    o->tune.weights = weights;
    o->tune.gpu = (int)o->gpu;
    o->tune.position = o->position;
    o->tune.cache_folder = o->cache;
    o->tune.report = report;
    o->tune.context = o;
    if (s == QGC_OK)
        s = qgc_tune(&tuning, &o->tune, c->diag);
    qgc_weights_close(weights);
    QGC_TRY(s);
    const char *output = o->output ? o->output : qgc_tuning_path(o->cache, tuning.arch, c->arena);
    printf("%d candidates tried, %d kept", o->tried, o->kept);
    if (o->kept == 0) {
        puts("");
        return QGC_OK;
    }
    if (!output)
        return qgc_fail(c->diag, QGC_ERR_INPUT, QGC_NO_LOC, "no folder to keep the settings in");
    if (!o->output && !o->afresh && qgc_file_exists(output)) { /* what was found for other kernels stays */
        qgc_tuning found = tuning;
        QGC_TRY(qgc_tuning_read(&tuning, output, found.arch, c->diag));
        for (size_t i = 0; i < found.n; i++)
            qgc_tuning_set(&tuning, found.settings[i].kernel, found.settings[i].name,
                           found.settings[i].value);
    }
    QGC_TRY(qgc_tuning_write(&tuning, output, c->diag));
    printf(": %s\n", qgc_printable(c->arena, output));
    return QGC_OK;
}

qgc_status cmd_tune(cli_context *c, int argc, char **argv) {
    tune_options o = {.tune = {.mode = "auto", .seconds = 300, .patience = 120}, .position = 512};
    const cli_option options[] = {
        {"weights", 0, OPTION_TEXT, &o.weights, "PATH", CLI_WEIGHTS_HELP, 0, 0},
        {"mode", 0, OPTION_TEXT, &o.tune.mode, "auto|stream|graph|pdl|persistent", "in which steps are timed",
         0, 0},
        {"position", 0, OPTION_INT, &o.position, "N", "tokens in the caches when steps are timed", 1,
         1 << 20},
        {"only", 0, OPTION_TEXT, &o.tune.only, "TEXT", "kernels whose name contains it", 0, 0},
        {"seconds", 0, OPTION_NUMBER, &o.tune.seconds, "S", "no candidate is begun after so many", 1, 1e6},
        {"output", 'o', OPTION_TEXT, &o.output, "FILE",
         "the settings; beside the cache, where compile finds them", 0, 0},
        {"afresh", 0, OPTION_FLAG, &o.afresh, NULL, "forget what was found before", 0, 0},
        CLI_PIPELINE_OPTIONS(o.pipeline),
        {"gpu", 0, OPTION_INT, &o.gpu, "N", "which GPU", 0, 63},
        {"cache", 0, OPTION_TEXT, &o.cache, "DIR", "of compiled kernels; ~/.cache/qgc", 0, 0},
        CLI_ALLOW_UNUSED_OPTION(o.allow_unused),
        CLI_COMMON_OPTIONS(c),
        {0},
    };
    const cli_command command = {
        .name = "tune",
        .arguments = "GRAPH.yaml",
        .summary = "Finds the fastest settings of a graph's kernels on this GPU; later compiles use them.",
        .details =
            "Each candidate first has to compute what the settings so far compute. Candidates are tried in a\n"
            "process of their own, so that one that crashes or hangs harms nothing.",
        .options = options,
        .min_arguments = 1,
        .max_arguments = 1,
    };
    cli_line line;
    QGC_TRY(cli_parse(&command, argc, argv, &line, c->diag));
    if (line.help)
        return QGC_OK;
    QGC_TRY(cli_check_mode(o.tune.mode, c->diag));
    return tune_graph(c, line.arguments[0], &o);
}
