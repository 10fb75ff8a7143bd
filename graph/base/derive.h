#ifndef QGC_BASE_DERIVE_H
#define QGC_BASE_DERIVE_H

#include "graph/base/arena.h"
#include "graph/base/pool.h"
#include "graph/base/tensor.h"

/* Weights that are computed from others, once, when those are loaded: what a pass needs to fold a norm into a
 * product. One row each, with the word that YAML and `qgc inspect` have for it:
 *
 *   concat_rows     a, b, ...       one after the other: rows of matrices, elements of vectors
 *   concat_columns  a, b, ...       row by row
 *   rows            a               rows first .. last - 1; of a vector elements
 *   columns         a               the same of each row of a matrix
 *   scale           a               a * factor
 *   scale_columns   a, v            each row of a, element by element, times v over and over
 *   through         a, v, bias?     a * v + bias: what a product makes of a constant vector. With head_dim,
 *                                   v has heads that several heads of a's columns share, as in attention
 *   fill            a               the number `factor` in the shape of a
 *
 * The first four copy: the result is stored as what it is made of is, blocks too, if all of that has one type
 * and no block is cut. Anything else is computed in double precision and rounded to float32, and from there to
 * the type in which it is stored. */
typedef enum {
    QGC_DERIVE_NONE, /* it is a tensor of its own */
    QGC_DERIVE_CONCAT_ROWS,
    QGC_DERIVE_CONCAT_COLUMNS,
    QGC_DERIVE_ROWS,
    QGC_DERIVE_COLUMNS,
    QGC_DERIVE_SCALE,
    QGC_DERIVE_SCALE_COLUMNS,
    QGC_DERIVE_THROUGH,
    QGC_DERIVE_FILL,
    QGC_N_DERIVE
} qgc_derive_kind;

enum { QGC_MAX_SOURCES = 4 };

typedef struct {
    qgc_derive_kind kind;
    int n_from;
    int from
        [QGC_MAX_SOURCES]; /* of a graph: declarations; of a plan: weights. All of them come before this one */
    int64_t first, last;   /* of rows and columns */
    double factor;         /* of scale and fill */
    int64_t head_dim;      /* of through; 0: v is as long as a row of a */
} qgc_derivation;

/* What a weight is derived from: a stored tensor, or (if `reals` is not NULL) doubles in its shape. */
typedef struct {
    const qgc_tensor *tensor;
    const double *reals;
} qgc_derive_source;

/* "scale_columns"; and the kind of that name, or QGC_DERIVE_NONE. */
const char *qgc_derive_name(qgc_derive_kind kind);
qgc_derive_kind qgc_derive_named(const char *name);

/* Does it copy numbers as they are? And which does it have beside its sources? */
bool qgc_derive_copies(qgc_derive_kind kind);
bool qgc_derive_has_range(qgc_derive_kind kind);
bool qgc_derive_has_factor(qgc_derive_kind kind);

bool qgc_derivation_equal(const qgc_derivation *a, const qgc_derivation *b);

/* Gives *out the rank, shape, type and bytes of what is derived of tensors whose numbers nobody looks at. The
 * type is that of the sources where they are copied, else float32. NULL, or why they do not fit, in arena `a`. */
const char *qgc_derive_shape(const qgc_derivation *how, const qgc_tensor *const *from, qgc_tensor *out,
                             qgc_arena *a);

/* Computes it, after qgc_derive_shape: in double precision, all elements of it ... */
void qgc_derive_double(const qgc_derivation *how, const qgc_derive_source *from, const qgc_tensor *shape,
                       double *out, qgc_pool *pool);

/* ... or as it is stored, into out->data, in out->dtype, which may be changed to another that is no block format.
 * False if an element became infinite by rounding. */
bool qgc_derive_stored(const qgc_derivation *how, const qgc_tensor *const *from, qgc_tensor *out,
                       qgc_pool *pool);

#endif
