#ifndef QGC_PASSES_LOAD_IMPL_H
#define QGC_PASSES_LOAD_IMPL_H

#include "passes/load.h"

/* The kernels of a plug-in whose path that is: all of them, or none and an error. */
QGC_MUST_USE qgc_status qgc_load_plugin_kernels(const char *plugin, const qgc_kernel_row *rows, qgc_diag *d);

#endif
