#ifndef TESTS_SUPPORT_TOUCHED_H
#define TESTS_SUPPORT_TOUCHED_H

#include "models/weights.h"

/* Reads the first and the last byte of every tensor, so that one beyond the file crashes. */
static inline void touch_tensors(const qgc_weights *w) {
    volatile unsigned char touched = 0;
    for (size_t i = 0; i < qgc_weights_count(w); i++) {
        const qgc_tensor *t = qgc_weights_at(w, i);
        const unsigned char *p = t->data;
        touched = (unsigned char)(touched + p[0] + p[t->bytes - 1]);
    }
}

#endif
