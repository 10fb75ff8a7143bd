#ifndef QGC_LAB_GGUF_WRITE_H
#define QGC_LAB_GGUF_WRITE_H

#include "graph/base/diag.h"
#include "graph/base/str.h"
#include "graph/base/tensor.h"

/* A GGUF in the making (github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3), in memory until it is written. */
typedef struct {
    qgc_str keys, tensors, data;
    uint64_t n_keys, n_tensors;
} qgc_gguf_writer;

/* A file for models of architecture `arch`; it lives in `a`. */
qgc_gguf_writer qgc_gguf_writer_new(const char *arch, qgc_arena *a);

void qgc_gguf_writer_number(qgc_gguf_writer *f, const char *key, double value);

/* A tensor of F32, F16 or BF16, shape outermost first. Its data, as many bytes as that asks for, go to f->data before the
 * next tensor is begun. */
void qgc_gguf_writer_tensor(qgc_gguf_writer *f, const char *name, qgc_dtype dtype, int rank,
                            const int64_t *shape);

/* Writes the file as a whole or not at all. */
QGC_MUST_USE qgc_status qgc_gguf_writer_end(qgc_gguf_writer *f, const char *path, qgc_diag *d);

#endif
