#ifndef QGC_RUNTIME_CUBLAS_H
#define QGC_RUNTIME_CUBLAS_H

#include "runtime/device.h"

/* cuBLAS for one device, loaded at the first use. device.c calls these with its context current. */

/* NULL if the library is loaded, else why it cannot be. Tried once. */
const char *qgc_cublas_missing(qgc_device *dev);

/* Handle, stream, workspace. Does nothing the second time. */
QGC_MUST_USE qgc_status qgc_cublas_prepare(qgc_device *dev, qgc_diag *d);

/* After qgc_cublas_prepare. */
QGC_MUST_USE qgc_status qgc_cublas_gemm(qgc_device *dev, const qgc_gemm *g, qgc_diag *d);

void qgc_cublas_close(qgc_device *dev);

#endif
