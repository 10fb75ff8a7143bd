#ifndef QGC_ENGINE_SCORE_H
#define QGC_ENGINE_SCORE_H

#include "graph/base/arena.h"
#include "runtime/device.h"

/* What a row of logits says of the token that it is to predict, and how far it is from the row of another
 * model, where there is one: [0] is of the row, [1] of the other. kernels/score_rows.cu writes the same
 * bytes. Double precision. */
typedef struct {
    double log_sum[2];         /* logarithm of the sum of the exponentials */
    double target[2];          /* the logit of the token to predict */
    double top[2];             /* the largest logit, */
    double crossed[2];         /* and that of the token that is most likely in the other row */
    double max_drift, squares; /* the largest difference of two logits; the sum of the squared differences */
    double kl;                 /* divergence, of the other against the row: qgc_drift */
    int32_t largest[2];        /* the token of the largest logit, the lowest of equals */
    /* Logits that are not numbers or infinite; where there are any, most of the rest means nothing. */
    int32_t broken[2];
} qgc_row_score;

_Static_assert(sizeof(qgc_row_score) == 104, "the kernel writes this layout");

/* Of one row of `vocab` logits, on the host. `other` may be NULL; scratch in `a`. */
void qgc_score_row(const float *logits, const float *other, int32_t target, int64_t vocab, qgc_row_score *out,
                   qgc_arena *a);

/* The same on a GPU, for rows that are there. */
typedef struct qgc_scorer qgc_scorer;

typedef struct {
    const char *arch; /* of the code, "sm_90a" */
    const char *cache_folder, *nvrtc_library;
    int64_t vocab, most_rows;
} qgc_scorer_options;

/* NULL, and no error, where there is no NVRTC: rows are then to be scored on the host. Errors: those of
 * NVRTC and of the device. */
QGC_MUST_USE qgc_status qgc_scorer_new(qgc_scorer **out, qgc_device *dev, const qgc_scorer_options *o,
                                       qgc_diag *d);
void qgc_scorer_drop(qgc_scorer *s); /* NULL is allowed */

/* Rows [n, vocab] on the device, and the same of another model (0: there is none), whose work has ended. */
QGC_MUST_USE qgc_status qgc_scorer_score(qgc_scorer *s, qgc_address logits, qgc_address other,
                                         const int32_t *targets, int64_t n, qgc_row_score *out, qgc_diag *d);

#endif
