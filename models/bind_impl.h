#ifndef QGC_MODELS_BIND_IMPL_H
#define QGC_MODELS_BIND_IMPL_H

#include "models/bind.h"

/* What bind.c and facts.c share. */

typedef struct {
    const qgc_weights *w;
    const qgc_bind_request *request;
    const qgc_tensor **found;
    qgc_diag *d;
    bool is_gguf;
    const char *path, *format; /* "model.gguf", "GGUF" */
} qgc_binding;

/* Is what the file states about the model computed? (models/facts.def) Tensors have been found. */
QGC_MUST_USE qgc_status qgc_facts_check(const qgc_binding *b);

#endif
