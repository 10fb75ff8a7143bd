#include "tests/support/printed.h"

#include <stdlib.h>

const char *qgc_test_printed(qgc_arena *a, const qgc_diag *d) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    qgc_diag_print(d, f, false);
    fclose(f);
    const char *copy = qgc_arena_strndup(a, text, bytes);
    (free)(text); /* open_memstream's */
    return copy;
}
