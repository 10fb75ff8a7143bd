#ifndef QGC_RUNTIME_DEVICE_IMPL_H
#define QGC_RUNTIME_DEVICE_IMPL_H

#include "runtime/cuda_driver.h"
#include "runtime/device.h"

/* What device.c, capture.c and cublas.c share. Nobody else includes it. */

typedef struct {
    qgc_address address; /* 0: a free slot */
    size_t bytes;
    int row;    /* of the memory table, -1 for host memory */
    void *host; /* of pinned memory */
} qgc_allocation;

/* Two pinned rooms. Small uploads are cut from the current one; when it is full, the other one is taken as
 * soon as the transfers out of it are done. */
enum { QGC_STAGE_BYTES = 32 * 1024 * 1024 };
typedef struct {
    unsigned char *host[2];
    CUevent sent[2]; /* recorded on leaving a room */
    bool waits[2];   /* transfers out of it may be under way */
    int at;
    size_t used;
} qgc_staging;

struct qgc_function {
    qgc_function *next;
    CUmodule module; /* NULL: unloaded */
    CUfunction function;
    const char *entry;
};

struct qgc_event {
    qgc_event *next;
    CUevent event; /* NULL: dropped */
};

struct qgc_device {
    qgc_arena *arena;
    qgc_cuda_driver cu;
    CUdevice number;
    CUcontext context; /* the primary one, shared with other libraries of the process */
    CUstream stream;
    bool capturing;
    qgc_device_info info;

    qgc_allocation *allocations;
    size_t n_allocations;
    qgc_memory_row *rows;
    int n_rows;
    long n_made; /* allocations, counted */

    qgc_staging staging;
    qgc_function *functions; /* all ever loaded, for the close */
    qgc_event *events;
    struct qgc_cublas *cublas; /* NULL until asked for */
};

/* Makes the context of the device that of this thread. */
QGC_MUST_USE qgc_status qgc_device_enter(qgc_device *dev, qgc_diag *d);

#endif
