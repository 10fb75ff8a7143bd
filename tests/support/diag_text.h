#ifndef TESTS_SUPPORT_DIAG_TEXT_H
#define TESTS_SUPPORT_DIAG_TEXT_H

#include <stdio.h>

#include "graph/base/diag.h"

/* A diagnostic as it is printed, in the arena. */
static inline char *diag_text(const qgc_diag *d, qgc_arena *a) {
    FILE *file = tmpfile();
    if (!file)
        return qgc_arena_strdup(a, "(no temporary file)");
    qgc_diag_print(d, file, false);
    long bytes = ftell(file);
    char *text = qgc_arena_alloc(a, (size_t)bytes + 1);
    rewind(file);
    size_t got = fread(text, 1, (size_t)bytes, file);
    text[got] = 0;
    fclose(file);
    return text;
}

#endif
