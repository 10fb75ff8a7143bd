#ifndef QGC_ENGINE_ROWS_H
#define QGC_ENGINE_ROWS_H

#include "runtime/engine/engine.h"

/* The logits of every position of a window of tokens, on an engine. On the CPU that is the evaluator. On a
 * GPU it is a prefill step of which all rows are wanted, compiled for that from the engine's graph the first
 * time (it needs NVRTC), or, with prefill "steps", the decode steps of a mode, token by token, as the engine
 * has them. */
typedef struct qgc_rows qgc_rows;

enum { QGC_ROWS_MOST = 256 }; /* tokens that one call takes, at most */

typedef struct {
    int64_t ctx;         /* tokens of a window, at most */
    const char *mode;    /* of decode steps on a GPU; "auto" or NULL: the fastest that there is */
    const char *prefill; /* "chunks" (or NULL), "steps" */
} qgc_rows_options;

/* Errors: more tokens than the model has positions for; an unknown mode or prefill, or one that cannot be
 * had here; a mode without decode steps; what qgc_prepare says; memory. */
QGC_MUST_USE qgc_status qgc_rows_new(qgc_rows **out, qgc_engine *e, const qgc_rows_options *o, qgc_diag *d);
void qgc_rows_drop(qgc_rows *r); /* NULL is allowed; before the engine is closed */

/* How tokens are taken: "cpu", "prefill in chunks", "steps, mode persistent". */
const char *qgc_rows_how(const qgc_rows *r);

/* Back to the start of a window. */
QGC_MUST_USE qgc_status qgc_rows_reset(qgc_rows *r, qgc_diag *d);

/* How many tokens one call takes: QGC_ROWS_MOST, or fewer where caches are rings that have no room for so many. */
int64_t qgc_rows_most(const qgc_rows *r);

/* The logits of how many tokens can stay on the GPU: 1 with decode steps; 0 on the CPU. */
int64_t qgc_rows_kept(const qgc_rows *r);

/* As qgc_rows_take, but the logits stay on the GPU, at *address, until the next call. n - skip is at most
 * qgc_rows_kept. */
QGC_MUST_USE qgc_status qgc_rows_keep(qgc_rows *r, const int32_t *tokens, int64_t n, int64_t skip,
                                      qgc_address *address, qgc_diag *d);

/* Takes the next 1 to qgc_rows_most tokens of the window. `*logits` are those of all but the first `skip`
 * of them, [n - skip, vocab], until the next call. Errors: no room, a token that is not in the vocabulary;
 * those of the device. */
QGC_MUST_USE qgc_status qgc_rows_take(qgc_rows *r, const int32_t *tokens, int64_t n, int64_t skip,
                                      const float **logits, qgc_diag *d);

#endif
