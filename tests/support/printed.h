#ifndef TESTS_SUPPORT_PRINTED_H
#define TESTS_SUPPORT_PRINTED_H

#include "graph/base/diag.h"

/* The diagnostic as a user sees it, without colours. */
const char *qgc_test_printed(qgc_arena *a, const qgc_diag *d);

#endif
