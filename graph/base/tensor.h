#ifndef QGC_BASE_TENSOR_H
#define QGC_BASE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* How numbers are stored, and a stored tensor. */

typedef enum {
#define DTYPE(tag, ...) QGC_##tag,
#include "graph/base/dtypes.def"
#undef DTYPE
    QGC_N_DTYPES
} qgc_dtype;

typedef struct {
    const char *name;
    int block_elems; /* elements come in blocks of so many */
    int block_bytes;
} qgc_dtype_info;

extern const qgc_dtype_info qgc_dtypes[QGC_N_DTYPES];

/* The dtype of that name in lower case, or QGC_N_DTYPES. */
qgc_dtype qgc_dtype_named(const char *name);

/* True for the block formats, whose values are not numbers of their own. */
bool qgc_dtype_is_quantised(qgc_dtype t);

enum { QGC_MAX_RANK = 4 };

/* A tensor as it stands in a file or in memory. `shape` is outermost first; the elements of the last
 * dimension, a row, are adjacent. `data` belongs to the code that made the tensor. */
typedef struct {
    const char *name;
    qgc_dtype dtype;
    int rank;
    int64_t shape[QGC_MAX_RANK];
    const void *data;
    size_t bytes;
} qgc_tensor;

/* How a weight is made of what a file has. All zero: it is a tensor of the file as it stands there. The steps are taken in
 * this order. */
typedef struct {
    const char *
        stacked_index; /* "e": "{e}" of the name is 0, 1, ..., and the tensors lie one after the other; NULL: one */
    int64_t stacked; /* so many */
    bool transposed; /* [in, out] in the file */
    int64_t first, last,
        of; /* rows first to last - 1 of each `of` rows, or of all rows if `of` is 0; last is 0: all */
    int64_t
        heads; /* rows of so many heads lie as pairs of neighbours, and get to lie as halves; 0: they do already */
    double plus; /* is added to each element */
} qgc_tensor_form;

bool qgc_form_is_plain(const qgc_tensor_form *f);

/* What the symbols of shapes stand for in a run: tokens of the step (T), rows wanted (R), positions that the caches
 * have room for (ctx). */
typedef struct {
    int64_t tokens, rows, ctx;
} qgc_sizes;

/* Elements of one row and number of rows. A tensor of rank 0 or 1 is one row. */
int64_t qgc_tensor_row_elems(const qgc_tensor *t);
int64_t qgc_tensor_rows(const qgc_tensor *t);

/* Bytes of `n` elements; n is a multiple of the block. */
size_t qgc_dtype_bytes(qgc_dtype t, int64_t n);

/* Widens `n` stored elements (n a multiple of the block; not I32) to float32, exactly as the format
 * defines them. `src` needs no alignment. */
void qgc_to_f32(qgc_dtype t, const void *src, float *dst, int64_t n);

/* Rounds `n` floats to F32, F16 or BF16, to nearest even. */
void qgc_from_f32(qgc_dtype t, const float *src, void *dst, int64_t n);

static inline float qgc_bf16_to_f32(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* To nearest even; NaN stays NaN. */
static inline uint16_t qgc_f32_to_bf16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

/* IEEE 754 binary16, subnormals, infinities and NaN included. */
float qgc_f16_to_f32(uint16_t h);
uint16_t qgc_f32_to_f16(float f);

#endif
