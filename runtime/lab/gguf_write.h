#ifndef QGC_LAB_GGUF_WRITE_H
#define QGC_LAB_GGUF_WRITE_H

#include "graph/base/str.h"
#include "graph/base/tensor.h"

/* The head of a GGUF (github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3): what is in it and where. After the
 * head come the tensors, in the order in which they were named, each followed by zeros up to a multiple of
 * QGC_GGUF_ALIGN. */

enum { QGC_GGUF_ALIGN = 32 };

typedef struct {
    qgc_str keys, tensors;
    uint64_t n_keys, n_tensors;
    uint64_t data_bytes; /* of the tensors named so far, with the zeros */
} qgc_gguf_writer;

/* For models of architecture `arch`; it lives in `a`. */
qgc_gguf_writer qgc_gguf_writer_new(const char *arch, qgc_arena *a);

void qgc_gguf_writer_number(qgc_gguf_writer *f, const char *key, double value);
void qgc_gguf_writer_numbers(qgc_gguf_writer *f, const char *key, const double *values, int n);
void qgc_gguf_writer_word(qgc_gguf_writer *f, const char *key, const char *word);

/* A tensor of F32, F16 or BF16, shape outermost first. */
void qgc_gguf_writer_tensor(qgc_gguf_writer *f, const char *name, qgc_dtype dtype, int rank,
                            const int64_t *shape);

/* The bytes that the file begins with. */
qgc_str qgc_gguf_writer_head(const qgc_gguf_writer *f);

/* Zeros up to a multiple of QGC_GGUF_ALIGN. */
void qgc_gguf_pad(qgc_str *s);

#endif
