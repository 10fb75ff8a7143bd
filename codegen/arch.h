#ifndef QGC_CODEGEN_ARCH_H
#define QGC_CODEGEN_ARCH_H

#include <stdbool.h>
#include <stddef.h>

/* What kernels are compiled for, by its name. "sm_90" is machine code, "sm_90a" machine code for that GPU alone, "sm_100f"
 * for its family. "compute_80" is PTX, which the driver compiles for any GPU from sm_80 on, those that are not known yet
 * too; with a letter it is bound as machine code is. */
typedef struct {
    int number;  /* 90 of sm_90a */
    char letter; /* 'a', 'f' or 0 */
    bool ptx;
} qgc_arch;

/* False if a name is written in another way; *out is then {0}. */
bool qgc_arch_read(const char *name, qgc_arch *out);

/* 90 of "sm_90a" and of "compute_90"; 0 of what is no name. */
int qgc_arch_number(const char *name);

/* The first with copies that no lanes are busy with (cp.async.bulk). */
enum { QGC_FIRST_WITH_BULK_COPIES = 90 };

/* Do four warps multiply together in code of this name, as kernels/packed_gemm.cu wants it (wgmma)? */
bool qgc_arch_has_wgmma(const char *name);

/* How code fits a GPU, from not at all to best. docs.nvidia.com/cuda/cuda-compiler-driver-nvcc, "GPU feature list" */
typedef enum {
    QGC_FIT_NONE,
    QGC_FIT_PTX,    /* the driver compiles it */
    QGC_FIT_MINOR,  /* machine code for a lower minor version of the same major one */
    QGC_FIT_FAMILY, /* the same, compiled for the family */
    QGC_FIT_EXACT,
} qgc_fit;

/* `gpu` is 89 for sm_89. */
qgc_fit qgc_arch_fit(qgc_arch code, int gpu);

/* Which of two that fit is the better one: the number is larger. 0: it does not fit. */
int qgc_arch_rank(qgc_arch code, int gpu);

/* "machine code for this GPU": why code of that fit runs. */
const char *qgc_fit_text(qgc_fit fit);

/* 87 of PTX that begins with ".version 8.7" after its comments; 0 where there is none. The text need not end with a zero. */
int qgc_ptx_version(const void *text, size_t bytes);

/* The CUDA version that a driver has to have, as a driver states it, to compile PTX of a version: 12080 for 8.7.
 * docs.nvidia.com/cuda/parallel-thread-execution, "Release Notes" */
int qgc_ptx_driver(int ptx_version);

#endif
