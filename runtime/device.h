#ifndef QGC_RUNTIME_DEVICE_H
#define QGC_RUNTIME_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "graph/base/diag.h"

/* One GPU through the CUDA driver API, which is loaded when it is first needed: the program starts where
 * there is no driver. No CUDA type shows here; addresses on the device are numbers. All work goes to one
 * stream of the device. One thread at a time uses a device. Every error has status QGC_ERR_DEVICE and names
 * the call and CUDA's own words. */
typedef struct qgc_device qgc_device;
typedef uint64_t qgc_address;

/* GPUs that the driver shows; 0 too where none can be loaded. */
int qgc_device_count(void);
/* Is there one? */
bool qgc_device_present(void);

/* GPU number `index`. Errors: no driver (with what to do), no such GPU (with the list). */
QGC_MUST_USE qgc_status qgc_device_open(qgc_device **out, int index, qgc_diag *d);
/* Frees all that was made on the device. Programs and sessions on it are dropped before. NULL is allowed. */
void qgc_device_close(qgc_device *dev);

typedef struct {
    char name[128];
    int major, minor; /* compute capability */
    int sms;
    size_t total_bytes, free_bytes, l2_bytes;
    int shared_bytes_max; /* a block may ask for */
    int driver_version;   /* 13000 for 13.0 */
    bool no_bf16;         /* cuBLAS multiplies no bf16 matrices there */
    /* Code for a newer architecture than this is not run (89: for sm_89), and where it is not the device's own, PTX alone. 0:
     * what the device can run is run. */
    int newest_code;
    bool ptx_only;
} qgc_device_info;
const qgc_device_info *qgc_device_about(qgc_device *dev); /* free_bytes is read anew */

/* From now on qgc_device_about shows this, and the device does no more than it says (runtime/stand_in.h). */
void qgc_device_show(qgc_device *dev, const qgc_device_info *info);

/* Memory. `owner`, a text that outlives the device, names the row of the memory table that the bytes count
 * under: "weights", "kv cache", "scratch", "tables", "io", "cublas". Addresses are multiples of 256. An
 * allocation that does not fit fails with that table, the free bytes and a hint. */
QGC_MUST_USE qgc_status qgc_device_alloc(qgc_device *dev, const char *owner, size_t bytes, qgc_address *out,
                                         qgc_diag *d);
/* Also for pinned memory. 0 is allowed. */
void qgc_device_free(qgc_device *dev, qgc_address p);
typedef struct {
    const char *owner;
    size_t bytes;
} qgc_memory_row;
int qgc_device_memory(const qgc_device *dev, const qgc_memory_row **rows);
/* Number of allocations made so far (device and pinned host), for the test that a step makes none. */
long qgc_device_n_allocations(const qgc_device *dev);

/* Zeroed host memory that the device writes into: `*host` and `*address` are the two names of the same bytes. */
QGC_MUST_USE qgc_status qgc_device_alloc_pinned(qgc_device *dev, size_t bytes, void **host,
                                                qgc_address *address, qgc_diag *d);

/* Copies in stream order; upload returns when `from` may be reused, download when `to` is filled. */
QGC_MUST_USE qgc_status qgc_device_upload(qgc_device *dev, qgc_address to, const void *from, size_t bytes,
                                          qgc_diag *d);
QGC_MUST_USE qgc_status qgc_device_download(qgc_device *dev, void *to, qgc_address from, size_t bytes,
                                            qgc_diag *d);
QGC_MUST_USE qgc_status qgc_device_fill(qgc_device *dev, qgc_address p, unsigned char byte, size_t bytes,
                                        qgc_diag *d);
QGC_MUST_USE qgc_status qgc_device_sync(qgc_device *dev, qgc_diag *d);
/* Is there work that has not ended? Errors: work that failed. */
QGC_MUST_USE qgc_status qgc_device_busy(qgc_device *dev, bool *busy, qgc_diag *d);

/* Upload without a copy in between: `stage` gives pinned room for min(want, 32 MiB) bytes, which the host fills
 * and `send` uploads. Each send belongs to the stage just before it. Two such rooms alternate, so that filling
 * one overlaps with the transfer of the other. */
QGC_MUST_USE qgc_status qgc_device_stage(qgc_device *dev, size_t want, void **room, size_t *bytes,
                                         qgc_diag *d);
QGC_MUST_USE qgc_status qgc_device_send(qgc_device *dev, qgc_address to, size_t bytes, qgc_diag *d);

/* Code. */
typedef struct qgc_function qgc_function;
/* Loads a cubin, or PTX that ends with a zero, and finds an entry; `shared_bytes` of dynamic shared memory are allowed for it. */
QGC_MUST_USE qgc_status qgc_device_load(qgc_device *dev, const void *code, size_t bytes, const char *entry,
                                        int shared_bytes, qgc_function **out, qgc_diag *d);
void qgc_device_unload(qgc_device *dev, qgc_function *f); /* NULL is allowed */

/* How many blocks of a function run on a multiprocessor at once, and the registers of a thread. */
typedef struct {
    int blocks, registers;
} qgc_residence;
QGC_MUST_USE qgc_status qgc_device_residence(qgc_device *dev, qgc_function *f, int threads, int shared_bytes,
                                             qgc_residence *out, qgc_diag *d);

typedef struct {
    unsigned grid[3];
    unsigned threads;
    unsigned shared_bytes;
    bool early;    /* may start while what was launched before it runs: the kernel itself waits (sm_90) */
    bool together; /* a cooperative launch: all blocks run at the same time, or it fails */
    /* The memory of a multiprocessor is divided for it as for a block with the most shared memory: what is next to such a block on the
     * stream then starts without a change of that division, before which a multiprocessor has to be idle. */
    bool most_shared;
    void **args; /* pointers to the values, as cuLaunchKernel takes them */
} qgc_launch;
QGC_MUST_USE qgc_status qgc_device_launch(qgc_device *dev, qgc_function *f, const qgc_launch *l, qgc_diag *d);

/* c[m, n] f32 = a[m, k] bf16 * b[n, k]^T bf16 (+ c), row-major, by cuBLAS, which is loaded at the first use.
 * qgc_device_has_gemm says whether it can be (and why not, in *why). */
bool qgc_device_has_gemm(qgc_device *dev, const char **why);
/* Makes the handle and the workspace of cuBLAS, so that products allocate nothing and can be captured. */
QGC_MUST_USE qgc_status qgc_device_prepare_gemm(qgc_device *dev, qgc_diag *d);
typedef struct {
    qgc_address a, b, c;
    int64_t m, n, k;
    bool accumulate;
} qgc_gemm;
QGC_MUST_USE qgc_status qgc_device_gemm(qgc_device *dev, const qgc_gemm *g, qgc_diag *d);

/* Marks in the stream, and the time between two of them in microseconds. */
typedef struct qgc_event qgc_event;
QGC_MUST_USE qgc_status qgc_event_new(qgc_device *dev, qgc_event **out, qgc_diag *d);
void qgc_event_drop(qgc_device *dev, qgc_event *e); /* NULL is allowed */
QGC_MUST_USE qgc_status qgc_event_record(qgc_device *dev, qgc_event *e, qgc_diag *d);
QGC_MUST_USE qgc_status qgc_event_wait(qgc_device *dev, qgc_event *e, qgc_diag *d); /* host waits */
QGC_MUST_USE qgc_status qgc_event_elapsed(qgc_device *dev, qgc_event *from, qgc_event *to, double *us,
                                          qgc_diag *d);

#endif
