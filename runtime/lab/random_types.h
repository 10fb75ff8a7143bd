#ifndef QGC_LAB_RANDOM_TYPES_H
#define QGC_LAB_RANDOM_TYPES_H

#include "graph/base/diag.h"
#include "graph/base/tensor.h"

/* How random weights are stored: which type each has, and blocks of such a type. */

typedef struct {
    const char *name; /* in the file */
    qgc_dtype dtype;  /* as the graph says */
    int rank, layer, n_layers;
    bool is_head; /* what makes the logits */
    int64_t shape[QGC_MAX_RANK];
} qgc_random_tensor;

/* Is it a word for types (runtime/lab/random_weights.h)? */
QGC_MUST_USE qgc_status qgc_random_types_check(const char *types, qgc_diag *d);

/* The type of a tensor. */
qgc_dtype qgc_random_type(const qgc_random_tensor *t, const char *types);

/* n random blocks of a quantised type, of about this root of the mean square. */
void qgc_random_blocks(qgc_dtype dtype, float rms, uint64_t *state, char *blocks, int64_t n);

#endif
