#include "codegen/compile.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "codegen/cache.h"
#include "codegen/lower.h"
#include "codegen/nvrtc.h"
#include "graph/base/file.h"
#include "graph/base/str.h"
#include "graph/base/version.h"
#include "graph/print.h"

/* One image to make. Each has an arena of its own, so that threads do not meet in one; what it holds is copied
 * into the plan's when all are done. */
typedef struct {
    qgc_nvrtc_job job;
    qgc_arena *arena;
    qgc_diag diag;
    const void *data;
    size_t bytes;
    bool cached;
    bool lost; /* the cache did not take it */
} task;

typedef struct {
    qgc_nvrtc *nvrtc;
    const qgc_compile_options *options;
    qgc_cache cache;
    task *tasks;
    size_t n_tasks;
    atomic_size_t n_done;
    pthread_t caller;
} work;

static void make_image(work *w, task *t) {
    const char *key = qgc_nvrtc_key(w->nvrtc, &t->job, t->arena);
    t->cached = !w->options->no_cache && qgc_cache_get(&w->cache, key, t->arena, &t->data, &t->bytes);
    if (t->cached || qgc_nvrtc_compile(w->nvrtc, &t->job, &t->data, &t->bytes, &t->diag) != QGC_OK)
        return;
    if (!w->options->no_cache)
        t->lost = !qgc_cache_put(&w->cache, key, t->data, t->bytes, t->arena);
}

static void make_images(void *context, size_t first, size_t last) {
    work *w = context;
    for (size_t i = first; i < last; i++) {
        make_image(w, &w->tasks[i]);
        const size_t done = atomic_fetch_add(&w->n_done, 1) + 1;
        if (w->options->progress && pthread_equal(pthread_self(), w->caller))
            w->options->progress(w->options->context, done, w->n_tasks);
    }
}

/* The first error of any task becomes the caller's. */
static qgc_status collect(work *w, qgc_plan *p, qgc_compiled *out, qgc_arena *a, qgc_diag *d) {
    p->images = qgc_arena_array(a, p->n_images, sizeof *p->images);
    out->cache_fault = w->options->no_cache ? NULL : w->cache.fault;
    for (size_t i = 0; i < p->n_images; i++) {
        task *t = &w->tasks[i];
        if (t->diag.status != QGC_OK)
            return qgc_diag_adopt(d, &t->diag);
        p->images[i] = (qgc_plan_image){.kernel = (int)(i % p->n_kernels),
                                        .arch = (int)(i / p->n_kernels),
                                        .data = qgc_arena_strndup(a, t->data, t->bytes),
                                        .bytes = t->bytes};
        *(t->cached ? &out->n_cached : &out->n_compiled) += 1;
        if (t->lost && w->cache.folder && !out->cache_fault)
            out->cache_fault = qgc_arena_printf(a, "%s: could not write to it", w->cache.folder);
    }
    return QGC_OK;
}

/* The options of a kernel for an architecture: those of its job, and how much shared memory there is where it asks for that. */
static qgc_nvrtc_job job_for(const qgc_lowered *lowered, size_t kernel, const char *arch, qgc_arena *a) {
    const qgc_kernel_job *job = &lowered->jobs[kernel];
    const qgc_plan_kernel *k = &lowered->plan->kernels[kernel];
    qgc_nvrtc_job out = {.file = k->name,
                         .options = job->options,
                         .n_options = job->n_options,
                         .program = k->program,
                         .arch = arch,
                         .node = job->node,
                         .at = job->at};
    if (k->least_shared_bytes) {
        const char **options = qgc_arena_array(a, (size_t)job->n_options + 1, sizeof *options);
        memcpy(options, job->options, (size_t)job->n_options * sizeof *options);
        options[out.n_options++] = qgc_arena_printf(a, "-DSHARED_BYTES=%d", qgc_kernel_shared_bytes(k, arch));
        out.options = options;
    }
    return out;
}

static qgc_status make_all(qgc_nvrtc *nvrtc, const qgc_lowered *lowered, const qgc_compile_options *o,
                           qgc_compiled *out, qgc_diag *d) {
    qgc_plan *p = lowered->plan;
    for (int i = 0; i < o->n_archs; i++) {
        QGC_TRY(qgc_nvrtc_check_arch(nvrtc, o->archs[i], d));
        p->archs[p->n_archs++] = qgc_arena_strdup(d->arena, o->archs[i]);
    }
    p->n_images = p->n_kernels * (size_t)p->n_archs;
    work w = {.nvrtc = nvrtc,
              .options = o,
              .cache = qgc_cache_open(o->no_cache ? NULL : o->cache_folder, d->arena),
              .tasks = qgc_arena_array(d->arena, p->n_images, sizeof(task)),
              .n_tasks = p->n_images,
              .caller = pthread_self()};
    for (size_t i = 0; i < p->n_images; i++) {
        task *t = &w.tasks[i];
        t->arena = qgc_arena_new();
        t->diag = qgc_diag_new(t->arena);
        t->job = job_for(lowered, i % p->n_kernels, p->archs[i / p->n_kernels], t->arena);
    }
    qgc_pool_for(o->pool, p->n_images, 1, make_images, &w);
    qgc_status status = collect(&w, p, out, d->arena, d);
    for (size_t i = 0; i < p->n_images; i++)
        qgc_arena_drop(w.tasks[i].arena);
    return status;
}

qgc_status qgc_compile_find_tuning(const qgc_compile_options *o, const qgc_tuning **out, qgc_diag *d) {
    *out = NULL;
    if (o->n_archs != 1)
        return QGC_OK;
    const char *card = o->card ? qgc_card_key(o->card, d->arena) : NULL;
    const char *path = qgc_tuning_path(o->cache_folder, o->archs[0], card, d->arena);
    if (path && card &&
        !qgc_file_exists(path)) /* nobody has tuned on this card: what another one of its architecture has */
        path = qgc_tuning_path(o->cache_folder, o->archs[0], NULL, d->arena);
    if (!path || !qgc_file_exists(path))
        return QGC_OK;
    qgc_tuning *t = qgc_arena_alloc(d->arena, sizeof *t);
    QGC_TRY(qgc_tuning_read(t, path, o->archs[0], d));
    *out = t;
    return QGC_OK;
}

/* Names that are none are refused later. */
static int least_arch(const qgc_compile_options *o) {
    int least = INT_MAX;
    for (int i = 0; i < o->n_archs; i++) {
        const int arch = qgc_arch_number(o->archs[i]);
        least = arch > 0 && arch < least ? arch : least;
    }
    return least;
}

static int most_shared_bytes(const qgc_compile_options *o) {
    int most = 0;
    for (int i = 0; i < o->n_archs; i++) {
        const int has = qgc_arch_number(o->archs[i]) ? qgc_code_shared_bytes(o->archs[i]) : 0;
        most = has > most ? has : most;
    }
    return most;
}

/* Says in the plan which kernels from outside were not checked. */
static void note_unchecked(qgc_plan *p, const qgc_proof *proofs, int n) {
    for (int i = 0; i < n; i++)
        for (size_t k = 0; k < p->n_kernels && proofs[i].result != QGC_PROVED; k++)
            if (p->kernels[k].program && strcmp(p->kernels[k].entry, proofs[i].entry) == 0)
                p->kernels[k].unchecked = proofs[i].why;
}

qgc_status qgc_compile(qgc_graph *g, const qgc_compile_options *o, qgc_compiled *out, qgc_diag *d) {
    *out = (qgc_compiled){0};
    qgc_lowered lowered;
    qgc_lower_options lower = {.chunk = o->chunk,
                               .keep_values = o->keep_values,
                               .least_arch = least_arch(o),
                               .no_prefill = o->no_prefill,
                               .decode_only = o->decode_only,
                               .all_rows = o->all_rows,
                               .no_persistent = o->no_persistent,
                               .probe = o->probe,
                               .tuning = o->tuning,
                               .card = o->card,
                               .card_alone = o->card && o->n_archs == 1,
                               .most_shared_bytes = most_shared_bytes(o)};
    qgc_proof *proofs;
    QGC_TRY(qgc_lower(g, &lower, &lowered, d));
    QGC_TRY(qgc_prove_graph(g, &(qgc_prove_options){.cache_folder = o->cache_folder, .no_cache = o->no_cache},
                            &proofs, &out->n_proofs, g->arena, d));
    out->proofs = proofs;
    note_unchecked(lowered.plan, proofs, out->n_proofs);

    qgc_nvrtc *nvrtc;
    QGC_TRY(qgc_nvrtc_open(&nvrtc, o->nvrtc_library, d));
    qgc_status status = make_all(nvrtc, &lowered, o, out, d);
    qgc_plan *p = lowered.plan;
    int version = qgc_nvrtc_version(nvrtc);
    p->compiler = qgc_arena_printf(g->arena, "qgc %s, NVRTC %d.%d", qgc_version_number, version / 1000,
                                   version % 1000 / 10);
    qgc_nvrtc_close(nvrtc);
    QGC_TRY(status);

    qgc_str text = qgc_str_new(g->arena);
    qgc_graph_print_yaml(g, &text);
    p->graph = text.text;
    p->source = o->source ? o->source : text.text;
    QGC_TRY(qgc_plan_check(p, g->at, d));
    out->plan = p;
    out->buffers = lowered.buffers;
    out->prefill_buffers = lowered.prefill_buffers;
    out->persistent_buffers = lowered.persistent_buffers;
    out->knobs = lowered.knobs;
    out->n_knobs = lowered.n_knobs;
    return QGC_OK;
}
