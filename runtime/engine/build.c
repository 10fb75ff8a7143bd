#define _XOPEN_SOURCE 700 /* realpath */
#include "runtime/engine/build.h"

#include <stdlib.h>
#include <string.h>

#include "codegen/artifact.h"
#include "codegen/compile.h"
#include "graph/base/file.h"
#include "graph/base/utf8.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "runtime/engine/find.h"
#include "runtime/engine/retarget.h"

enum { CHUNK = 512 };

/* Chunks of a size that was asked for are that large, or refused; others are cut to what fits. */
static qgc_status check_chunk(const qgc_graph *g, int64_t asked, qgc_diag *d) {
    const int64_t most = qgc_graph_most_tokens(g);
    if (asked <= most)
        return QGC_OK;
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                            "chunks of %lld tokens: caches of \"%s\" are rings, with room for %lld tokens "
                            "beside what one of them sees",
                            (long long)asked, g->name, (long long)most);
    qgc_hint(d, "Take --chunk %lld or less, or give the caches a larger \"ring\".", (long long)most);
    return s;
}

/* `old` is the artifact that is compiled again, or NULL. */
static qgc_status load_for(qgc_graph **g, const qgc_build_options *o, const qgc_plan *old,
                           const qgc_weights *weights, qgc_diag *d) {
    return old ? qgc_retarget_graph(g, old, o->graph, d->arena, d)
               : qgc_graph_load_for(g, o->graph, weights, d->arena, d);
}

/* The graph, for the weights if there are any. It keeps their numbers and dtypes, the artifact no tensors. */
static qgc_status load(qgc_graph **g, const qgc_build_options *o, const qgc_plan *old, qgc_diag *d) {
    if (!o->weights)
        return load_for(g, o, old, NULL, d);
    qgc_weights *weights;
    const qgc_tensor **tensors;
    QGC_TRY(qgc_weights_open(&weights, o->weights, d));
    qgc_status s = load_for(g, o, old, weights, d);
    if (s == QGC_OK)
        s = qgc_graph_bind(*g, weights, o->allow_unused, &tensors, d);
    qgc_weights_close(weights);
    return s;
}

/* The weights' path as it will be found from anywhere; NULL where there are none. */
static qgc_status recorded_path(const char *path, const char **out, qgc_diag *d) {
    *out = NULL;
    if (!path)
        return QGC_OK;
    char *real =
        realpath(qgc_path_folder(d->arena, path), NULL); /* a link keeps its name: it may be all that tells */
    *out = real ? qgc_arena_printf(d->arena, "%s%s%s", real, strcmp(real, "/") == 0 ? "" : "/",
                                   qgc_path_base(path))
                : qgc_arena_strdup(d->arena, path);
    if (real)
        (free)(real); /* libc's own, made by realpath */
    if (strcmp(qgc_printable(d->arena, *out), *out) == 0)
        return QGC_OK;
    return qgc_fail(
        d, QGC_ERR_USAGE, QGC_NO_LOC,
        "the path of the weights, \"%s\", is not text without control characters, as an artifact records it",
        *out);
}

/* "sm_90a+ptx" is sm_90a and compute_90, which newer GPUs run too: what has a letter they would not. */
static void expand_archs(qgc_build_options *o, qgc_arena *a) {
    static const char with_ptx[] = "+ptx";
    const char **archs = qgc_arena_array(a, 2 * (size_t)o->n_archs + 1, sizeof *archs);
    int n = 0;
    for (int i = 0; i < o->n_archs; i++) {
        const char *plus = strchr(o->archs[i], '+');
        qgc_arch arch = {0};
        const char *name =
            plus ? qgc_arena_strndup(a, o->archs[i], (size_t)(plus - o->archs[i])) : o->archs[i];
        const bool both = plus && strcmp(plus, with_ptx) == 0 && qgc_arch_read(name, &arch) && !arch.ptx;
        archs[n++] = both ? name : o->archs[i];
        if (both)
            archs[n++] = qgc_arena_printf(a, "compute_%d", arch.number);
    }
    o->archs = archs;
    o->n_archs = n;
}

static qgc_status check_archs(const qgc_compile_options *o, qgc_diag *d) {
    if (o->n_archs < 1 || o->n_archs > QGC_MAX_ARCHS)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "option --arch names %d architectures, expected 1 to %d", o->n_archs, QGC_MAX_ARCHS);
    for (int i = 1; i < o->n_archs; i++)
        for (int k = 0; k < i; k++)
            if (strcmp(o->archs[i], o->archs[k]) == 0)
                return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "option --arch names %s twice", o->archs[i]);
    return QGC_OK;
}

/* The work is split for the card, so one of the architectures has to run there. What is no name is NVRTC's to refuse. */
static qgc_status check_card(const qgc_compile_options *o, const char *name, qgc_diag *d) {
    if (!o->card || !o->card->arch)
        return QGC_OK;
    for (int i = 0; i < o->n_archs; i++) {
        qgc_arch arch;
        if (!qgc_arch_read(o->archs[i], &arch) || qgc_arch_fit(arch, o->card->arch) != QGC_FIT_NONE)
            return QGC_OK;
    }
    qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                            "no architecture of --arch runs on card \"%s\", an sm_%d", name, o->card->arch);
    qgc_hint(d, "Leave --arch out, or name sm_%d, too.", o->card->arch);
    return s;
}

static void show_kernels(void *context, size_t done, size_t total) {
    const qgc_build_options *o = context;
    o->listener.progress(o->listener.context, "kernels", done, total);
}

static qgc_status compile(qgc_graph *g, const qgc_build_options *o, const char *source,
                          qgc_compiled *compiled, qgc_diag *d) {
    qgc_card card;
    if (o->card)
        QGC_TRY(qgc_card_read(o->card, &card, d));
    qgc_build_options copy = *o;
    qgc_compile_options options = {.archs = o->archs,
                                   .n_archs = o->n_archs,
                                   .card = o->card ? &card : NULL,
                                   .chunk = o->chunk,
                                   .cache_folder = o->cache_folder,
                                   .no_cache = o->no_cache,
                                   .nvrtc_library = o->nvrtc_library,
                                   .source = source,
                                   .progress = o->listener.progress ? show_kernels : NULL,
                                   .context = &copy};
    QGC_TRY(check_archs(&options, d));
    QGC_TRY(check_card(&options, o->card, d));
    if (!o->no_tuning)
        QGC_TRY(qgc_compile_find_tuning(&options, &options.tuning, d));
    QGC_TRY(qgc_file_check_output(o->output, d));
    options.pool = qgc_pool_new(0);
    qgc_status status = qgc_compile(g, &options, compiled, d);
    qgc_pool_drop(options.pool);
    return status;
}

/* `old` is the artifact that is compiled again, or NULL. */
static qgc_status build(qgc_build_options *o, const qgc_plan *old, qgc_built *out, qgc_diag *d) {
    qgc_graph *g;
    const char *recorded;
    if (o->weights)
        QGC_TRY(qgc_find_weights(o->weights, &o->weights, d));
    QGC_TRY(load(&g, o, old, d));
    QGC_TRY(check_chunk(g, o->chunk, d));
    if (o->chunk == 0)
        o->chunk = old ? old->chunk : CHUNK;
    QGC_TRY(recorded_path(o->weights, &recorded, d));
    if (old && !o->weights)
        recorded = old->weights_path;
    qgc_str source = qgc_str_new(d->arena);
    QGC_TRY(qgc_engine_run_passes(&o->passes, g, &source, d));
    qgc_compiled compiled;
    QGC_TRY(compile(g, o, source.text, &compiled, d));
    compiled.plan->weights_path = recorded;
    if (old)
        qgc_retarget_places(compiled.plan, old);
    const void *data;
    *out = (qgc_built){.plan = compiled.plan,
                       .n_compiled = compiled.n_compiled,
                       .n_cached = compiled.n_cached,
                       .cache_fault = compiled.cache_fault};
    qgc_artifact_pack(compiled.plan, d->arena, &data, &out->bytes);
    return qgc_file_write(o->output, data, out->bytes, d);
}

/* Texts of a plan lie in the arena, its images in the file, which may be the one that is written. */
static qgc_status build_from(qgc_build_options *o, qgc_built *out, qgc_diag *d) {
    qgc_plan *old = NULL;
    qgc_file file = {0};
    qgc_status s = QGC_OK;
    if (qgc_engine_is_artifact(o->graph)) {
        QGC_TRY(qgc_file_open(&file, o->graph, d));
        s = qgc_artifact_unpack(&old, file.data, file.bytes, (qgc_loc){.source = &file.source}, d);
        qgc_file_close(&file);
    }
    return s == QGC_OK ? build(o, old, out, d) : s;
}

/* What to compile for where no architecture is named. */
static qgc_status default_arch(const qgc_build_options *o, const char **arch, qgc_diag *d) {
    qgc_card card = {0};
    if (o->card)
        QGC_TRY(qgc_card_read(o->card, &card, d));
    *arch = card.arch ? qgc_card_code(&card, d->arena) : qgc_engine_default_arch(d->arena);
    return QGC_OK;
}

qgc_status qgc_build(const qgc_build_options *o, qgc_built *out, qgc_diag *d) {
    qgc_build_options copy = *o;
    const char *arch;
    if (o->n_archs == 0 && !o->archs) {
        QGC_TRY(default_arch(o, &arch, d));
        copy.archs = &arch;
        copy.n_archs = 1;
    }
    expand_archs(&copy, d->arena);
    return build_from(&copy, out, d);
}
