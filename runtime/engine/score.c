#include "runtime/engine/score.h"

#include <math.h>

#include "codegen/cache.h"
#include "codegen/nvrtc.h"
#include "runtime/engine/stats.h"

enum { THREADS = 512 };

struct qgc_scorer {
    qgc_arena *arena;
    qgc_device *dev;
    qgc_function *function;
    int64_t vocab, most_rows;
    qgc_address targets, scores;
};

/* --- on the host ----------------------------------------------------------------------------------------- */

static const double *widen(const float *from, int64_t n, int32_t *broken, qgc_arena *a) {
    double *to = qgc_arena_array(a, (size_t)n, sizeof *to);
    *broken = 0;
    for (int64_t i = 0; i < n; i++) {
        to[i] = (double)from[i];
        *broken += !isfinite(from[i]);
    }
    return to;
}

static qgc_partition score_side(const double *row, int32_t target, int64_t vocab, int side,
                                qgc_row_score *out) {
    const qgc_partition p = qgc_partition_of(row, vocab);
    out->log_sum[side] = p.log_sum;
    out->largest[side] = (int32_t)p.largest;
    out->top[side] = row[p.largest];
    out->target[side] = row[target];
    return p;
}

void qgc_score_row(const float *logits, const float *other, int32_t target, int64_t vocab, qgc_row_score *out,
                   qgc_arena *a) {
    *out = (qgc_row_score){0};
    const double *mine = widen(logits, vocab, &out->broken[0], a);
    const double *its = other ? widen(other, vocab, &out->broken[1], a) : NULL;
    if (out->broken[0] || out->broken[1])
        return;
    const qgc_partition p = score_side(mine, target, vocab, 0, out);
    if (!its)
        return;
    const qgc_partition q = score_side(its, target, vocab, 1, out);
    const qgc_drift drift = qgc_drift_between(its, &q, mine, &p, vocab);
    out->crossed[0] = mine[q.largest];
    out->crossed[1] = its[p.largest];
    out->max_drift = drift.max_drift;
    out->squares = drift.squares;
    out->kl = drift.kl_sum;
}

/* --- on a GPU -------------------------------------------------------------------------------------------- */

/* Through the cache; in the arena of `d`. */
static qgc_status compile(qgc_nvrtc *nvrtc, const qgc_scorer_options *o, const void **cubin, size_t *bytes,
                          qgc_diag *d) {
    const qgc_nvrtc_job job = {
        .file = "score_rows.cu", .arch = o->arch, .node = "the scores of an evaluation", .at = QGC_NO_LOC};
    const qgc_cache cache = qgc_cache_open(o->cache_folder, d->arena);
    const char *key = qgc_nvrtc_key(nvrtc, &job, d->arena);
    if (qgc_cache_get(&cache, key, d->arena, cubin, bytes))
        return QGC_OK;
    QGC_TRY(qgc_nvrtc_compile(nvrtc, &job, cubin, bytes, d));
    (void)qgc_cache_put(&cache, key, *cubin, *bytes, d->arena); /* it costs time alone if it is not kept */
    return QGC_OK;
}

static qgc_status load(qgc_scorer *s, qgc_nvrtc *nvrtc, const qgc_scorer_options *o, qgc_diag *d) {
    const void *cubin;
    size_t bytes;
    QGC_TRY(compile(nvrtc, o, &cubin, &bytes, d));
    QGC_TRY(qgc_device_load(s->dev, cubin, bytes, "score_rows", 0, &s->function, d));
    QGC_TRY(qgc_device_alloc(s->dev, "scores", (size_t)o->most_rows * sizeof(int32_t), &s->targets, d));
    return qgc_device_alloc(s->dev, "scores", (size_t)o->most_rows * sizeof(qgc_row_score), &s->scores, d);
}

qgc_status qgc_scorer_new(qgc_scorer **out, qgc_device *dev, const qgc_scorer_options *o, qgc_diag *d) {
    qgc_arena *arena = qgc_arena_new();
    qgc_diag ignored = qgc_diag_new(arena);
    qgc_nvrtc *nvrtc;
    *out = NULL;
    if (qgc_nvrtc_open(&nvrtc, o->nvrtc_library, &ignored) != QGC_OK) {
        qgc_arena_drop(arena);
        return QGC_OK;
    }
    qgc_scorer *s = qgc_arena_alloc(arena, sizeof *s);
    *s = (qgc_scorer){.arena = arena, .dev = dev, .vocab = o->vocab, .most_rows = o->most_rows};
    const qgc_status status = load(s, nvrtc, o, d);
    qgc_nvrtc_close(nvrtc);
    if (status == QGC_OK)
        *out = s;
    else
        qgc_scorer_drop(s);
    return status;
}

void qgc_scorer_drop(qgc_scorer *s) {
    if (!s)
        return;
    qgc_device_free(s->dev, s->targets);
    qgc_device_free(s->dev, s->scores);
    qgc_device_unload(s->dev, s->function);
    qgc_arena_drop(s->arena);
}

qgc_status qgc_scorer_score(qgc_scorer *s, qgc_address logits, qgc_address other, const int32_t *targets,
                            int64_t n, qgc_row_score *out, qgc_diag *d) {
    if (n < 1 || n > s->most_rows)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "%lld rows to score, expected 1 to %lld", (long long)n,
                        (long long)s->most_rows);
    int32_t vocab = (int32_t)s->vocab;
    void *args[] = {&logits, &other, &s->targets, &s->scores, &vocab};
    const qgc_launch launch = {.grid = {(unsigned)n, 1, 1}, .threads = THREADS, .args = args};
    QGC_TRY(qgc_device_upload(s->dev, s->targets, targets, (size_t)n * sizeof *targets, d));
    QGC_TRY(qgc_device_launch(s->dev, s->function, &launch, d));
    return qgc_device_download(s->dev, out, s->scores, (size_t)n * sizeof *out, d);
}
