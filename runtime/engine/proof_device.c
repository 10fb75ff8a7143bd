#include "runtime/engine/proof_device.h"

#include <string.h>
#include <time.h>

#include "codegen/cache.h"
#include "graph/base/hash.h"
#include "graph/base/str.h"
#include "graph/load.h"

/* All buffers of a case lie in one slab, with bytes of ones around each, so that one copy brings them and one look sees what was
 * touched:
 *
 *   | around | x | around | around | w | around | ...
 *
 * `whole` is the slab as it is to be before a launch, `hidden` the same without what launches before have to make. */
enum { AROUND = 4096, MOST_SECONDS = 20 };

typedef struct {
    const qgc_plan *plan;
    qgc_device *dev;
    int arch; /* index in the plan */
    qgc_proof *p;
    const qgc_plan_kernel *kernel;
    qgc_function *function, *late; /* late: bring_late.cu, or NULL where launches do not start early */
    const char *cache_folder;
    bool depends_on_time; /* what is wrong */
    qgc_arena *arena;
    qgc_diag *d;
} work;

typedef struct {
    const qgc_proof_case *c;
    size_t at[QGC_OUTSIDE_PARAMS], bytes;
    char *whole, *hidden;
    qgc_address slab, copy;
} layout;

static size_t rounded(size_t bytes) {
    return (bytes + 255) & ~(size_t)255;
}

static void lay_out(work *w, const qgc_proof_case *c, layout *l) {
    *l = (layout){.c = c};
    for (int i = 0; i < c->n_args; i++) {
        l->at[i] = l->bytes + AROUND;
        if (c->buffers[i].bytes)
            l->bytes = l->at[i] + rounded(c->buffers[i].bytes) + AROUND;
    }
    l->whole = memset(qgc_arena_alloc(w->arena, l->bytes + 1), 0xFF, l->bytes);
    l->hidden = memset(qgc_arena_alloc(w->arena, l->bytes + 1), 0xFF, l->bytes);
    for (int i = 0; i < c->n_args; i++) {
        const qgc_proof_buffer *b = &c->buffers[i];
        if (!b->bytes)
            continue;
        memcpy(l->whole + l->at[i], b->before, b->bytes);
        if (!b->late)
            memcpy(l->hidden + l->at[i], b->before, b->bytes);
    }
}

/* --- launching ------------------------------------------------------------------------------------------- */

static bool is_image(const qgc_plan_image *m, int kernel, int arch) {
    return m->kernel == kernel && m->arch == arch;
}

static qgc_status load(work *w, const qgc_plan_kernel *k, qgc_function **out) {
    const int kernel = (int)(k - w->plan->kernels);
    for (size_t i = 0; i < w->plan->n_images; i++)
        if (is_image(&w->plan->images[i], kernel, w->arch))
            return qgc_device_load(w->dev, w->plan->images[i].data, w->plan->images[i].bytes, k->entry,
                                   k->shared_bytes, out, w->d);
    return qgc_fail(w->d, QGC_ERR_INPUT, QGC_NO_LOC, "kernel \"%s\" has no image for the device", k->name);
}

static qgc_status launch_kernel(work *w, const layout *l, bool early) {
    const qgc_proof_case *c = l->c;
    qgc_address addresses[QGC_OUTSIDE_PARAMS];
    int32_t numbers[QGC_OUTSIDE_PARAMS];
    void *args[QGC_OUTSIDE_PARAMS];
    for (int i = 0; i < c->n_args; i++) {
        addresses[i] = l->slab + l->at[i];
        numbers[i] = c->numbers[i];
        args[i] = c->buffers[i].bytes ? (void *)&addresses[i] : (void *)&numbers[i];
    }
    const qgc_launch launch = {.grid = {c->grid[0], c->grid[1], c->grid[2]},
                               .threads = (unsigned)w->kernel->threads,
                               .shared_bytes = (unsigned)w->kernel->shared_bytes,
                               .early = early,
                               .args = args};
    return qgc_device_launch(w->dev, w->function, &launch, w->d);
}

static qgc_status launch_late(work *w, layout *l) {
    int32_t words = (int32_t)(l->bytes / 4);
    void *args[] = {&l->copy, &l->slab, &words};
    const qgc_launch launch = {.grid = {1, 1, 1}, .threads = 1024, .args = args};
    return qgc_device_launch(w->dev, w->late, &launch, w->d);
}

/* Until the device has done its work, or has had its time. */
static qgc_status finish(work *w, bool *ended) {
    const struct timespec some = {0, 200000};
    bool busy = true;
    for (int i = 0; busy && i < MOST_SECONDS * 5000; i++) {
        QGC_TRY(qgc_device_busy(w->dev, &busy, w->d));
        if (busy)
            nanosleep(&some, NULL);
    }
    *ended = !busy;
    return QGC_OK;
}

/* One run; what it leaves of the slab goes to `after`. */
static qgc_status run(work *w, layout *l, bool late, char *after, bool *ended) {
    QGC_TRY(qgc_device_upload(w->dev, l->slab, late ? l->hidden : l->whole, l->bytes, w->d));
    if (late) {
        QGC_TRY(qgc_device_upload(w->dev, l->copy, l->whole, l->bytes, w->d));
        QGC_TRY(qgc_device_sync(w->dev, w->d));
        QGC_TRY(launch_late(w, l));
    }
    QGC_TRY(launch_kernel(w, l, late));
    QGC_TRY(finish(w, ended));
    return *ended ? qgc_device_download(w->dev, after, l->slab, l->bytes, w->d) : QGC_OK;
}

/* --- judging --------------------------------------------------------------------------------------------- */

/* All that is no written buffer is as it was. */
static const char *touched(work *w, const layout *l, const char *after) {
    size_t at = 0;
    for (int i = 0; i <= l->c->n_args; i++) {
        const qgc_proof_buffer *b = i < l->c->n_args ? &l->c->buffers[i] : NULL;
        if (b && (!b->bytes || !b->writes))
            continue;
        const size_t end = b ? l->at[i] : l->bytes;
        if (memcmp(l->whole + at, after + at, end - at) != 0)
            return qgc_arena_printf(w->arena, "it writes where it must not: outside of what it is to write");
        at = b ? end + b->bytes : end;
    }
    return NULL;
}

static const char *judge(work *w, const layout *l, const char *after) {
    const char *why = touched(w, l, after);
    for (int i = 0; i < l->c->n_args && !why; i++)
        if (l->c->buffers[i].bytes)
            why = qgc_proof_judge(l->c, i, after + l->at[i], w->arena);
    return why;
}

/* Three runs: what is wrong with the first, and whether the others leave the same bits. */
static qgc_status run_three(work *w, layout *l, const char **why) {
    char *first = qgc_arena_alloc(w->arena, l->bytes + 1), *again = qgc_arena_alloc(w->arena, l->bytes + 1);
    for (int i = 0; i < (w->late ? 3 : 2) && !*why; i++) {
        bool ended;
        QGC_TRY(run(w, l, i == 2, i ? again : first, &ended));
        w->depends_on_time = w->depends_on_time || !ended;
        if (!ended)
            *why = qgc_arena_printf(w->arena, "it does not end in %d seconds", MOST_SECONDS);
        else if (i == 0)
            *why = judge(w, l, first);
        else if (memcmp(first, again, l->bytes) != 0)
            *why =
                i == 1
                    ? "two runs leave different bits"
                    : "it does not wait for the launch before it: after one that is late it leaves something else";
    }
    return QGC_OK;
}

static qgc_status run_case(work *w, const qgc_proof_case *c, const char **why) {
    layout l;
    lay_out(w, c, &l);
    QGC_TRY(qgc_device_alloc(w->dev, "scratch", l.bytes, &l.slab, w->d));
    qgc_status status = qgc_device_alloc(w->dev, "scratch", l.bytes, &l.copy, w->d);
    if (status == QGC_OK) {
        status = run_three(w, &l, why);
        qgc_device_free(w->dev, l.copy);
    }
    qgc_device_free(w->dev, l.slab);
    return status;
}

static qgc_status run_cases(work *w, const char **why) {
    const int n = qgc_proof_cases(w->p->of);
    for (int i = 0; i < n && !*why; i++) {
        qgc_proof_case c;
        const char *unprovable;
        QGC_TRY(qgc_proof_case_new(w->p->of, &w->p->with, i, &c, &unprovable, w->arena, w->d));
        if (unprovable)
            return QGC_OK;
        QGC_TRY(run_case(w, &c, why));
    }
    return QGC_OK;
}

/* --- a plan ---------------------------------------------------------------------------------------------- */

static const char *options_of(const qgc_outside_launch *with, qgc_arena *a) {
    qgc_str s = qgc_str_new(a);
    for (int i = 0; i < with->n_options; i++)
        qgc_str_printf(&s, "%s%s", i ? " " : "", with->options[i]);
    return s.text;
}

/* `text`: of one from outside; NULL for one of qgc. */
static const qgc_plan_kernel *kernel_of(const qgc_plan *plan, const char *name, const char *options,
                                        const char *text) {
    for (size_t i = 0; i < plan->n_kernels; i++) {
        const qgc_plan_kernel *k = &plan->kernels[i];
        if (strcmp(k->name, name) == 0 && strcmp(k->options, options) == 0 &&
            (!text || (k->program && strcmp(k->program, text) == 0)))
            return k;
    }
    return NULL;
}

static const char *key_of(const work *w) {
    const qgc_device_info *about = qgc_device_about(w->dev);
    qgc_str s = qgc_str_new(w->arena);
    qgc_str_printf(&s, "%s %s %d %d.%d %s\n", w->p->key, about->name, about->driver_version, about->major,
                   about->minor, w->plan->archs[w->arch]);
    for (size_t i = 0; i < w->plan->n_images; i++)
        if (is_image(&w->plan->images[i], (int)(w->kernel - w->plan->kernels), w->arch))
            qgc_str_add_bytes(&s, w->plan->images[i].data, w->plan->images[i].bytes);
    return qgc_arena_printf(w->arena, "proof-%s", qgc_hash128(s.text, s.bytes).hex);
}

/* What a device says of a kernel that it cannot run is the kernel's fault. */
static qgc_status prove_one(work *w, const char **why) {
    const qgc_plan_kernel *late = kernel_of(w->plan, "bring_late.cu", "", NULL);
    const qgc_device_info *about = qgc_device_about(w->dev);
    qgc_diag own = qgc_diag_new(w->arena), *outer = w->d;
    w->d = &own;
    qgc_status status = load(w, w->kernel, &w->function);
    if (status == QGC_OK && w->kernel->waits && late && about->major >= 9 &&
        qgc_arch_number(w->plan->archs[w->arch]) >= 90)
        status = load(w, late, &w->late);
    if (status == QGC_OK)
        status = run_cases(w, why);
    if (status != QGC_OK)
        *why = qgc_arena_printf(w->arena, "it fails: %s", qgc_diag_message(&own));
    qgc_device_unload(w->dev, w->function);
    qgc_device_unload(w->dev, w->late);
    w->d = outer;
    return QGC_OK;
}

static qgc_status prove_all(const work *base, const qgc_graph *g, const qgc_cache *cache) {
    qgc_proof *proofs;
    int n;
    QGC_TRY(qgc_proofs_list(g, &proofs, &n, base->arena, base->d));
    for (int i = 0; i < n; i++) {
        work w = *base;
        const char *why = NULL, *key;
        const void *data;
        size_t bytes;
        w.p = &proofs[i];
        w.kernel = kernel_of(w.plan, w.p->file, options_of(&w.p->with, w.arena), w.p->text);
        /* A card with less shared memory cannot run that phase either. */
        if (w.kernel && w.p->is_phase && w.kernel->shared_bytes > qgc_device_about(w.dev)->shared_bytes_max)
            continue;
        if (!w.kernel || qgc_cache_get(cache, key = key_of(&w), w.arena, &data, &bytes))
            continue;
        QGC_TRY(prove_one(&w, &why));
        w.p->why = why;
        if (why && !w.depends_on_time)
            qgc_proof_put_fault(w.p, w.cache_folder, qgc_device_about(w.dev)->name, why, w.arena);
        else if (!why && qgc_proof_get_fault(w.p, w.cache_folder, w.arena))
            qgc_proof_put_fault(w.p, w.cache_folder, NULL, NULL, w.arena);
        if (why)
            return qgc_proof_fail(g, w.p, "on the device", w.d);
        qgc_cache_put(cache, key, "proved", 6, w.arena);
    }
    return QGC_OK;
}

static bool has_outside(const qgc_plan *plan) {
    for (size_t i = 0; i < plan->n_kernels; i++)
        if (strncmp(plan->kernels[i].name, "outside/", 8) == 0)
            return true;
    return false;
}

qgc_status qgc_prove_on_device(const qgc_plan *plan, qgc_device *dev, const char *arch,
                               const qgc_prove_options *o, qgc_diag *d) {
    if (!has_outside(plan))
        return QGC_OK;
    qgc_arena *arena = qgc_arena_new();
    qgc_diag own = qgc_diag_new(arena);
    work w = {.plan = plan, .dev = dev, .cache_folder = o->cache_folder, .arena = arena, .d = &own};
    const qgc_cache cache = qgc_cache_open(o->cache_folder, arena);
    qgc_graph *g;
    while (w.arch < plan->n_archs - 1 && strcmp(plan->archs[w.arch], arch) != 0)
        w.arch++;
    qgc_status status =
        qgc_graph_load_text(&g, "graph of the artifact", plan->graph, strlen(plan->graph), arena, &own);
    if (status == QGC_OK)
        status = prove_all(&w, g, &cache);
    if (status != QGC_OK)
        qgc_diag_adopt(d, &own);
    qgc_arena_drop(arena);
    return status;
}
