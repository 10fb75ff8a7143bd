#ifndef QGC_LAB_PAIRS_H
#define QGC_LAB_PAIRS_H

#include "runtime/lab/trial.h"

/* Two trials timed by turns at the same positions, so that what changes slowly (the clock of the device, say) takes
 * part in both and leaves the difference. */

enum { QGC_PAIR_STEPS = 16 }; /* decode steps of a timing */

typedef struct {
    int64_t ctx;   /* positions of the caches; the last of them are timed */
    int n;         /* timings of each */
    int32_t token; /* the first */
} qgc_pairs;

/* The same of prefill steps: all `ctx` of `tokens` from position 0 on. */
QGC_MUST_USE qgc_status qgc_pairs_time_prefill(const qgc_pairs *p, const int32_t *tokens,
                                               qgc_trial *const two[2], double *us_a, double *us_b,
                                               qgc_diag *d);

/* Microseconds a step: us_a[0 .. n) and us_b[0 .. n). Errors: those of qgc_trial_time. */
QGC_MUST_USE qgc_status qgc_pairs_time(const qgc_pairs *p, qgc_trial *a, qgc_trial *b, double *us_a,
                                       double *us_b, qgc_diag *d);

#endif
