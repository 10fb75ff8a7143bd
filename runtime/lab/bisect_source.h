#ifndef QGC_LAB_BISECT_SOURCE_H
#define QGC_LAB_BISECT_SOURCE_H

#include "codegen/lower.h"

/* The source of the kernel of a launch as one file, in arena `a`: its options as macros, what it includes put in its place,
 * so that it compiles by itself, and at the top how it is compiled and launched. */
const char *bisect_kernel_source(const qgc_plan *p, const qgc_plan_launch *l, const qgc_kernel_job *job,
                                 qgc_arena *a);

#endif
