#ifndef QGC_CODEGEN_LAUNCH_H
#define QGC_CODEGEN_LAUNCH_H

#include "codegen/plan.h"
#include "codegen/stage/outside.h"

/* What a kernel from outside is launched with, computed from its row: what lowering puts into the plan, and what the check of the
 * kernel uses (codegen/proof.h). */
typedef struct {
    const char *options[2 * QGC_OUTSIDE_OPTIONS + QGC_OUTSIDE_PARAMS + 1]; /* "-DWIDTH=896", ended by NULL */
    int n_options;
    int threads, shared_bytes;
    qgc_extent grid[3];
    int64_t per_block[3];
    int64_t piece;                          /* of a device function; 0: the row gives none */
    qgc_extent numbers[QGC_OUTSIDE_PARAMS]; /* by parameter, where it is a number */
} qgc_outside_launch;

/* Errors: an option that depends on T, R or ctx; an extent that is not linear in them; numbers that are not whole, or too large. */
QGC_MUST_USE qgc_status qgc_outside_plan(const qgc_outside_stage *o, qgc_outside_launch *out, qgc_arena *a,
                                         qgc_diag *d);

#endif
