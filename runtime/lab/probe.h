#ifndef QGC_LAB_PROBE_H
#define QGC_LAB_PROBE_H

#include "runtime/device.h"

/* How fast a GPU reads its memory, measured with kernels/read.cu over as much memory as is free, up to 2 GB: the best of
 * several passes. `*bytes` is what a pass reads. Errors: NVRTC, the device, and less than 64 MB free. */
QGC_MUST_USE qgc_status qgc_probe_bandwidth(qgc_device *dev, const char *arch, double *bytes_per_second,
                                            int64_t *bytes, qgc_diag *d);

#endif
