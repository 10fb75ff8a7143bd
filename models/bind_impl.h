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

/* The tensor that a want is made to be of what the file has under its name, of which `source` is the first; and in
 * rows_of[...] how many rows of a tensor are in use, by its name. */
QGC_MUST_USE qgc_status qgc_form_make(const qgc_binding *b, const qgc_weight_want *want,
                                      const qgc_tensor *source, const qgc_tensor **out);

/* The name under which a file has the want, or the first tensor of it; NULL if the model does not say. */
const char *qgc_form_name(const qgc_binding *b, const qgc_weight_want *want, int64_t which);
const qgc_tensor_form *qgc_form_of(const qgc_binding *b, const qgc_weight_want *want);

/* The tensor of a name, or one that is made of the numbers under a key of a config.json, whose name is list(KEY) or, for the first
 * that there is, list(KEY|KEY). NULL: the file has none. */
const qgc_tensor *qgc_form_source(const qgc_binding *b, const char *name);

/* Is the name a list of which this key is one? */
bool qgc_form_names_key(const char *name, const char *key);

/* Is what the file states about the model computed? (models/facts.def) Tensors have been found. */
QGC_MUST_USE qgc_status qgc_facts_check(const qgc_binding *b);

#endif
