#ifndef QGC_TESTS_SUPPORT_USUAL_H
#define QGC_TESTS_SUPPORT_USUAL_H

#include "passes/passes.h"

/* How many passes the default pipeline has. */
static inline size_t usual_passes(void) {
    size_t n = 0;
    for (size_t i = 0; i < qgc_pass_count(); i++)
        n += qgc_pass_is_usual(i);
    return n;
}

/* The name of the one that is number i there. */
static inline const char *usual_pass(size_t i) {
    for (size_t k = 0; k < qgc_pass_count(); k++)
        if (qgc_pass_is_usual(k) && i-- == 0)
            return qgc_pass_at(k)->name;
    return "";
}

#endif
