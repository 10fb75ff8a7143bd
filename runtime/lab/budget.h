#ifndef QGC_LAB_BUDGET_H
#define QGC_LAB_BUDGET_H

#include "runtime/lab/ablate.h"

/* What passes may cost, and what they have to bring, from a YAML file:
 *
 *   max_kl: 1e-4            # of each pass, alone and left out: KL divergence at the worst position, nats
 *   max_drift: 0.01         # likewise: largest difference of a logit
 *   max_flips: 0            # likewise: positions where another token is the most likely
 *   passes:
 *     fuse-qkv: {min_us: 5, min_kernels: 48}   # left out: microseconds and kernels a token that it saves
 *
 * A limit of a pass stands in for that of all. */
typedef enum {
    QGC_MAX_KL,
    QGC_MAX_DRIFT,
    QGC_MAX_FLIPS,
    QGC_MIN_US,
    QGC_MIN_KERNELS,
    QGC_N_LIMITS
} qgc_limit_kind;

typedef struct {
    bool there;
    double value;
    qgc_loc at;
} qgc_limit;

typedef struct {
    const char *pass; /* without its options */
    qgc_loc at;
    qgc_limit limits[QGC_N_LIMITS];
} qgc_pass_budget;

typedef struct {
    qgc_limit limits[QGC_N_LIMITS]; /* of all passes */
    qgc_pass_budget *passes;
    size_t n_passes;
} qgc_budget;

/* The file is kept in the arena of `d`, and so is the budget. Errors: what is no budget, with its place. */
QGC_MUST_USE qgc_status qgc_budget_read(qgc_budget *out, const char *path, qgc_diag *d);

/* Holds what was measured against a budget. QGC_ERR_INPUT if a limit is broken: the error is the first one, notes are the
 * others, each at the place of its limit. A saving of time breaks its limit where its whole interval lies below;
 * NaN breaks any. It is an error too if the budget names a pass that was not in the pipeline. *unchecked counts
 * limits of time, where no times were measured. */
QGC_MUST_USE qgc_status qgc_budget_check(const qgc_budget *b, const qgc_ablation *x, int *unchecked,
                                         qgc_diag *d);

/* The same for one model against another (`qgc eval --against`): max_kl, max_drift and max_flips for all passes are its
 * limits. *unchecked counts the others that the file has, which are of passes. */
QGC_MUST_USE qgc_status qgc_budget_check_drift(const qgc_budget *b, const qgc_drift *x, int *unchecked,
                                               qgc_diag *d);

#endif
