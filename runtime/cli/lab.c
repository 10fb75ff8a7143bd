#include "runtime/cli/lab.h"

#include <string.h>

#include "passes/bind_weights.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/find.h"
#include "runtime/lab/random_weights.h"
#include "runtime/mode.h"
#include "runtime/stand_in.h"

enum { SEED = 1 };

qgc_status cli_check_mode(const char *mode, qgc_diag *d) {
    qgc_mode known;
    return !mode || strcmp(mode, "auto") == 0 ? QGC_OK : qgc_mode_named(mode, &known, d);
}

qgc_status cli_open_weights(qgc_weights **out, const char *name, qgc_diag *d) {
    const char *path;
    *out = NULL;
    QGC_TRY(qgc_find_weights(name, &path, d));
    return qgc_weights_open(out, path, d);
}

bool cli_weights_are_random(const char *path) {
    return path && (strcmp(path, "random") == 0 || strncmp(path, "random:", 7) == 0);
}

qgc_status cli_lab_graph(qgc_graph **g, qgc_weights **w, const char *graph, const char *weights,
                         cli_context *c) {
    const bool was_open = *w != NULL, from_file = weights && !cli_weights_are_random(weights);
    if (from_file && !was_open)
        QGC_TRY(cli_open_weights(w, weights, c->diag));
    const qgc_status s = qgc_graph_load_for(g, graph, from_file ? *w : NULL, c->arena, c->diag);
    if (s != QGC_OK && !was_open) {
        qgc_weights_close(*w);
        *w = NULL;
    }
    return s;
}

qgc_status cli_lab_weights(qgc_weights **out, const char *path, const qgc_graph *g, cli_context *c) {
    if (*out)
        return QGC_OK;
    if (!path) {
        qgc_status s = qgc_fail(c->diag, QGC_ERR_USAGE, QGC_NO_LOC, "no weights");
        qgc_hint(c->diag, "Give a file or folder with --weights, or --weights random for random ones.");
        return s;
    }
    if (!cli_weights_are_random(path))
        return cli_open_weights(out, path, c->diag);
    return qgc_random_weights_open(out, g, path[6] ? path + 7 : NULL, SEED, c->diag);
}

int64_t cli_lab_ctx(int64_t given, const qgc_graph *g) {
    enum { USUAL = 512 };
    const int64_t most = qgc_graph_max_positions(g);
    return given > 0 ? given : most > 0 && most < USUAL ? most : USUAL;
}

qgc_status cli_lab_check(const cli_lab_options *o, qgc_diag *d) {
    QGC_TRY(cli_check_mode(o->mode, d));
    return cli_text_check(&o->text, cli_weights_are_random(o->weights), d);
}

qgc_status cli_lab_open_device(cli_lab *lab, const cli_lab_options *o, qgc_diag *d) {
    int index;
    QGC_TRY(qgc_engine_choose_device(o->device, &index, d));
    QGC_TRY(qgc_engine_want_no_mode(o->mode, index, d));
    lab->pool = qgc_pool_new((int)o->threads);
    if (index >= 0) {
        QGC_TRY(qgc_device_open(&lab->device, index, d));
        return qgc_stand_in(lab->device, o->card, d);
    }
    return o->card ? qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                              "option --card is for a GPU, and this runs on the CPU")
                   : QGC_OK;
}

qgc_status cli_lab_open_weights(cli_lab *lab, const cli_lab_options *o, const qgc_graph *g, cli_context *c) {
    QGC_TRY(cli_lab_weights(&lab->weights, o->weights, g, c));
    return cli_text_read(&o->text, lab->weights, g, cli_weights_are_random(o->weights), o->steps,
                         &lab->tokens, &lab->text, c);
}

qgc_experiment cli_lab_experiment(const cli_lab *lab, const cli_lab_options *o, const char *graph,
                                  cli_progress *progress) {
    return (qgc_experiment){.graph = graph,
                            .weights = lab->weights,
                            .allow_unused = o->allow_unused,
                            .passes = o->pipeline.passes,
                            .skip = o->pipeline.skip,
                            .watch = o->watch,
                            .device = lab->device,
                            .mode = o->mode,
                            .cache_folder = o->cache_folder,
                            .pool = lab->pool,
                            .tokens = lab->tokens.ids,
                            .n_tokens = lab->tokens.n,
                            .positions = o->steps,
                            .progress = progress ? cli_progress_show : NULL,
                            .context = progress};
}

void cli_lab_close(cli_lab *lab) {
    qgc_device_close(lab->device);
    qgc_weights_close(lab->weights);
    qgc_pool_drop(lab->pool);
}
