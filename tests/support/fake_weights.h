#ifndef TESTS_SUPPORT_FAKE_WEIGHTS_H
#define TESTS_SUPPORT_FAKE_WEIGHTS_H

#include <string.h>

#include "models/weights.h"

/* A weights file that is only a table. A test that includes this defines the accessors of models/weights.h that
 * binding calls, so the linker does not take the readers. */
struct qgc_weights {
    qgc_weights_format kind;
    const char *arch;
    const qgc_tensor *tensors;
    size_t n_tensors;
    const char *keys[4];
    double numbers[4];
};

qgc_weights_format qgc_weights_kind(const qgc_weights *w) {
    return w->kind;
}

const char *qgc_weights_path(const qgc_weights *w) {
    (void)w;
    return "file";
}

const char *qgc_weights_arch(const qgc_weights *w) {
    return w->arch;
}

size_t qgc_weights_count(const qgc_weights *w) {
    return w->n_tensors;
}

const qgc_tensor *qgc_weights_at(const qgc_weights *w, size_t i) {
    return &w->tensors[i];
}

const qgc_tensor *qgc_weights_find(const qgc_weights *w, const char *name) {
    for (size_t i = 0; i < w->n_tensors; i++)
        if (strcmp(w->tensors[i].name, name) == 0)
            return &w->tensors[i];
    return NULL;
}

bool qgc_weights_number(const qgc_weights *w, const char *key, double *out) {
    for (int i = 0; i < 4 && w->keys[i]; i++)
        if (strcmp(w->keys[i], key) == 0) {
            *out = w->numbers[i];
            return true;
        }
    return false;
}

#endif
