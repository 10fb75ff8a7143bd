#ifndef QGC_LIB_ERROR_H
#define QGC_LIB_ERROR_H

#include "graph/base/diag.h"
#include "include/qgc.h"

/* Calls fn(arguments, d) for a function of the library: what it fails with becomes an error of the
 * caller's, and so does host memory that runs out, for which `on_memory` (may be NULL) is called with the
 * arguments too. NULL where fn gave QGC_OK. */
qgc_error *qgc_lib_call(qgc_status (*fn)(void *arguments, qgc_diag *d), void (*on_memory)(void *arguments),
                        void *arguments);

#endif
