#ifndef QGC_GRAPH_KERNEL_ROW_H
#define QGC_GRAPH_KERNEL_ROW_H

#include <stdbool.h>

#include "graph/base/diag.h"

/* A kernel from outside of qgc: the text of its .cu and what qgc has to know of it, all of it data. A plug-in brings such rows
 * (passes/load.h), a model file declares them under `kernels`, so a graph whose groups need them is complete by itself.
 * docs/passes.md, "Kernels from outside", explains each field; codegen/stage/outside.h reads them.
 *
 * Lists have commas between their entries, `nodes` semicolons. */
typedef struct {
    const char *name;    /* of the row and of the entry: extern "C" __global__ void NAME(...) */
    const char *file;    /* of a plug-in's row: the .cu, beside the plug-in; NULL where the text is given */
    const char *text;    /* of the .cu */
    const char *nodes;   /* "n = rms_norm(x, w); y = gelu(n, kind=tanh)" */
    const char *params;  /* "x: f32 reads, w: f32 reads early, y: f32 writes, T: i32 = T" */
    const char *options; /* "WIDTH = x.width, EPS = n.eps": -D of the compiler; NULL: none */
    const char *limits;  /* "WIDTH % 4 == 0": what has to hold; NULL: nothing */
    const char *grid;    /* "x.elems by 256, T": blocks along x, y, z */
    const char *threads; /* of a block: "256" */
    const char *shared;  /* bytes of dynamic shared memory of a block; NULL: none */
    const char *starts;  /* "waits, next after": see qgc_outside_row; NULL: it does not wait */
    const char *steps;   /* "decode", "decode and prefill"; NULL: decode */
    const char *arch;    /* the least: "80"; NULL: any */
    const char *
        phase; /* elements of a piece of its result, "HEAD_DIM": it has a device function; NULL: it has none */
    qgc_loc at;
    bool brought; /* by a plug-in of this process: its text may be run on the CPU to check it */
} qgc_kernel_row;

#endif
