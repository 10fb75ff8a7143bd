#ifndef QGC_RUNTIME_CAPTURE_H
#define QGC_RUNTIME_CAPTURE_H

#include "runtime/device.h"

/* A CUDA Graph: what was launched between begin and end, recorded once, replayed as one launch. Nothing in
 * it is patched: whatever changes from step to step lives in device memory. Capture is thread-local, on the
 * device's own stream; no allocation may happen in between. */
typedef struct qgc_capture qgc_capture;

QGC_MUST_USE qgc_status qgc_capture_begin(qgc_device *dev, qgc_diag *d);
/* Ends what `begin` began, also after a launch in between failed; then, as on any error, `*out` is NULL. */
QGC_MUST_USE qgc_status qgc_capture_end(qgc_device *dev, qgc_capture **out, qgc_diag *d);
QGC_MUST_USE qgc_status qgc_capture_replay(qgc_device *dev, qgc_capture *c, qgc_diag *d);
int qgc_capture_nodes(const qgc_capture *c);
void qgc_capture_drop(qgc_device *dev, qgc_capture *c); /* NULL is allowed */

#endif
