#include <stdio.h>
#include <string.h>

#include "graph/base/file.h"
#include "graph/base/utf8.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "runtime/cli/json.h"
#include "runtime/cli/lab.h"
#include "runtime/device.h"
#include "runtime/lab/tune.h"
#include "runtime/mode.h"

typedef struct {
    const char *weights, *output, *cache;
    qgc_tune_options tune;
    cli_pipeline pipeline;
    int64_t gpu, position;
    bool allow_unused, afresh;
    const char *json;
    const char *kernel; /* of the last line printed */
    FILE *out;          /* of the lines */
    qgc_tune_log log;
} tune_options;

static void report(void *context, const qgc_tune_result *r) {
    tune_options *o = context;
    qgc_tune_log_add(&o->log, r);
    if (!o->kernel || strcmp(o->kernel, r->kernel) != 0)
        fprintf(o->out, "%s\n", r->kernel);
    o->kernel = r->kernel;
    fprintf(o->out, "  %-10s %6lld  ", r->name, (long long)r->value);
    if (r->verdict == QGC_TUNE_WRONG || r->verdict == QGC_TUNE_FAILED)
        fprintf(o->out, "%s: %s\n", r->verdict == QGC_TUNE_WRONG ? "wrong" : "failed", r->why);
    else
        fprintf(o->out, "%9.2f us a step, %+.2f us [%+.2f, %+.2f]%s\n", r->us, r->us - r->base_us, r->low_us,
                r->high_us, r->verdict == QGC_TUNE_FASTER ? "  kept" : "");
    fflush(o->out);
}

/* Where the tuning of this GPU's architecture is; the process that tries is the only one to ask the GPU, so the file of
 * any architecture may be meant until then, and one given by name is read, if it is there. */
static qgc_status begin_with(tune_options *o, qgc_tuning *tuning, qgc_diag *d) {
    *tuning = (qgc_tuning){.arena = d->arena};
    if (o->afresh || !o->output || !qgc_file_exists(o->output))
        return QGC_OK;
    return qgc_tuning_read(tuning, o->output, NULL, d);
}

/* The graph, bound and rewritten, and its weights. */
static qgc_status open_all(cli_context *c, const char *path, tune_options *o, qgc_graph **g,
                           qgc_weights **weights) {
    const qgc_tensor **tensors;
    QGC_TRY(cli_check_stdout("output", o->output, "json", o->json, c->diag));
    QGC_TRY(qgc_file_check_output(o->json, c->diag));
    QGC_TRY(cli_lab_graph(g, weights, path, o->weights, c));
    QGC_TRY(cli_lab_weights(weights, o->weights, *g, c));
    QGC_TRY(qgc_file_check_output(o->output, c->diag));
    QGC_TRY(qgc_graph_bind(*g, *weights, o->allow_unused, &tensors, c->diag));
    return cli_run_passes(*g, &o->pipeline, NULL, c->diag);
}

static qgc_status find_settings(cli_context *c, const char *path, tune_options *o, qgc_tuning *tuning) {
    qgc_graph *g;
    qgc_weights *weights = NULL;
    qgc_status s = open_all(c, path, o, &g, &weights);
    if (s == QGC_OK)
        s = begin_with(o, tuning, c->diag);
    o->tune.graph = g;
    o->tune.weights = weights;
    o->tune.gpu = (int)o->gpu;
    o->tune.position = o->position;
    o->tune.cache_folder = o->cache;
    o->tune.report = report;
    o->tune.context = o;
    o->log.arena = c->arena;
    o->out = cli_report_stream(o->json, o->output);
    if (s == QGC_OK)
        s = qgc_tune(tuning, &o->tune, c->diag);
    if (s == QGC_ERR_DEVICE &&
        !qgc_device_present()) /* asked for now that no process of its own is to come */
        qgc_hint(
            c->diag,
            "Kernels are timed on a GPU: install the NVIDIA driver, or start the container with access to "
            "the GPUs (--gpus all).");
    qgc_weights_close(weights);
    return s;
}

/* Writes the settings into a file; what was found there for other kernels stays, but in one that was given. */
static qgc_status write_into(cli_context *c, const tune_options *o, const qgc_tuning *found, const char *path,
                             qgc_tuning *all) {
    *all = *found;
    if (!o->output && !o->afresh && qgc_file_exists(path)) {
        QGC_TRY(qgc_tuning_read(all, path, found->arch, c->diag));
        all->card = found->card;
        qgc_tuning_add(all, found);
    }
    return qgc_tuning_write(all, path, c->diag);
}

/* Where they are then, NULL if none was kept and no mode timed: in the file given, else in that of the card, and for compiles that name no card in that
 * of the architecture. */
static qgc_status write_settings(cli_context *c, const tune_options *o, qgc_tuning *tuning,
                                 const char **where) {
    const qgc_tuning found = *tuning;
    *where = NULL;
    if (o->log.kept == 0 && found.times.n == 0)
        return QGC_OK;
    const char *path = o->output ? o->output : qgc_tuning_path(o->cache, found.arch, found.card, c->arena);
    if (!path)
        return qgc_fail(c->diag, QGC_ERR_INPUT, QGC_NO_LOC, "no folder to keep the settings in");
    *where = path;
    if (!o->output) {
        qgc_tuning of_arch;
        QGC_TRY(write_into(c, o, &found, qgc_tuning_path(o->cache, found.arch, NULL, c->arena), &of_arch));
    }
    return write_into(c, o, &found, path, tuning);
}

static qgc_status tune_graph(cli_context *c, const char *path, tune_options *o) {
    qgc_tuning tuning;
    const char *where;
    QGC_TRY(find_settings(c, path, o, &tuning));
    QGC_TRY(write_settings(c, o, &tuning, &where));
    for (size_t i = 0; i < tuning.times.n; i++)
        fprintf(o->out, "%s mode: %.2f us a step (%s)\n", tuning.times.rows[i].name,
                1e-3 * (double)tuning.times.rows[i].value, qgc_printable(c->arena, tuning.times.rows[i].of));
    fprintf(o->out, "%zu candidates tried, %d kept%s%s\n", o->log.n, o->log.kept, where ? ": " : "",
            where ? qgc_printable(c->arena, where) : "");
    if (!o->json)
        return QGC_OK;
    qgc_str json = qgc_str_new(c->arena);
    QGC_TRY(qgc_tune_json(&o->log, &tuning, where, &json, c->diag));
    return qgc_file_write(o->json, json.text, json.bytes, c->diag);
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
         "the settings; if not given, in the cache folder, where compile finds them", 0, 0},
        {"afresh", 0, OPTION_FLAG, &o.afresh, NULL, "forget what was found before", 0, 0},
        CLI_JSON_OPTION(o.json),
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
    };
    const char *path;
    QGC_TRY(cli_parse_one(command, argc, argv, &path, c->diag));
    if (!path)
        return QGC_OK;
    QGC_TRY(cli_check_mode(o.tune.mode, c->diag));
    return tune_graph(c, path, &o);
}
