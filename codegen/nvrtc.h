#ifndef QGC_CODEGEN_NVRTC_H
#define QGC_CODEGEN_NVRTC_H

#include "codegen/kernel_sources.h"
#include "graph/base/diag.h"

/* NVIDIA's run-time compiler (docs.nvidia.com/cuda/nvrtc), loaded when it is first needed, so that the
 * program starts without it. Needs neither GPU nor driver. */
typedef struct qgc_nvrtc qgc_nvrtc;

/* Loads libnvrtc (12.4 or newer). `library` is a path, or NULL to look for it (graph/base/cuda_places.h). Errors
 * (QGC_ERR_DEVICE) name what was tried, and the command that brings it. */
QGC_MUST_USE qgc_status qgc_nvrtc_open(qgc_nvrtc **out, const char *library, qgc_diag *d);
void qgc_nvrtc_close(qgc_nvrtc *n);

/* 13000 for 13.0, and the path of the library as it was loaded. */
int qgc_nvrtc_version(const qgc_nvrtc *n);
const char *qgc_nvrtc_library(const qgc_nvrtc *n);

/* The architectures it compiles for, ascending: 75, 80, ..., 121. */
int qgc_nvrtc_archs(const qgc_nvrtc *n, const int **archs);

/* Is "sm_90", "sm_90a", "sm_100f" or "compute_90" (codegen/arch.h) one that this NVRTC compiles for? The error
 * (QGC_ERR_USAGE) lists the architectures that are. Letters are tried, and the error has NVRTC's log; it is QGC_ERR_DEVICE
 * where an empty kernel does not compile without the letter either. */
QGC_MUST_USE qgc_status qgc_nvrtc_check_arch(const qgc_nvrtc *n, const char *arch, qgc_diag *d);

typedef struct {
    const qgc_kernel_source *sources; /* NULL: qgc_kernel_sources, the kernels of this executable */
    /* "linear.cu", one of the sources, or of a kernel from outside "outside/mine.cu"; the program is named
     * /kernels/linear.cu. */
    const char *file;
    const char *const *options; /* "-DIN=896", ... */
    int n_options;
    const char *
        program; /* takes the place of the header program.cuh; of a file that is no source, its text; or NULL */
    const char *arch; /* "sm_90a", or "compute_90" */
    const char *node; /* for errors: which node of the graph wants it */
    qgc_loc at;       /* and where in the YAML that node is */
} qgc_nvrtc_job;

/* Compiles a kernel in the arena of `d`: to a cubin, or to PTX, whose bytes end with a zero. An error carries NVRTC's log (lines of kernels/x.cu),
 * the options and the node. The same job gives the same bytes in whatever folder the process runs. May be
 * called from several threads at once with diags of their own. */
QGC_MUST_USE qgc_status qgc_nvrtc_compile(qgc_nvrtc *n, const qgc_nvrtc_job *job, const void **code,
                                          size_t *bytes, qgc_diag *d);

/* The name under which the result of a job is cached: a hash of the source, the headers it can include,
 * options, arch, NVRTC version and the cache's own version. In the arena. */
const char *qgc_nvrtc_key(const qgc_nvrtc *n, const qgc_nvrtc_job *job, qgc_arena *a);

#endif
