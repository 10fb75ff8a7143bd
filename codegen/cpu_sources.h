#ifndef QGC_CODEGEN_CPU_SOURCES_H
#define QGC_CODEGEN_CPU_SOURCES_H

#include "codegen/kernel_sources.h"

/* The files of kernels/cpu/, by which a kernel runs on the CPU, as those of kernels/. */
extern const qgc_kernel_source qgc_cpu_sources[];

#endif
