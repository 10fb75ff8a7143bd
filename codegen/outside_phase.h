#ifndef QGC_CODEGEN_OUTSIDE_PHASE_H
#define QGC_CODEGEN_OUTSIDE_PHASE_H

#include "codegen/launch.h"

/* The device function of a kernel from outside, by which the persistent kernel computes its stage (docs/passes.md, "Kernels from
 * outside"): a function that a warp calls for a piece of the result, with all of each vector that it reads in shared memory.
 *
 *   __device__ void NAME_phase(int piece, int lane, <the parameters of the row>)
 *
 * A parameter that is written is where the elements of the piece go, also in shared memory; the phase publishes them. */

typedef enum {
    QGC_PHASE_VECTOR, /* f32, one number for each element: gathered */
    QGC_PHASE_WEIGHT, /* a vector of weights, in global memory */
    QGC_PHASE_TOKEN,
    QGC_PHASE_POSITION,
    QGC_PHASE_NUMBER,
    QGC_PHASE_RESULT,
} qgc_phase_param;

typedef struct {
    qgc_phase_param params[QGC_OUTSIDE_PARAMS];
    int64_t widths[QGC_OUTSIDE_PARAMS]; /* elements of VECTORs, WEIGHTs and of the RESULT */
    int64_t at[QGC_OUTSIDE_PARAMS];     /* floats from the start of a block's room: of VECTORs */
    int result;                         /* the parameter */
    int64_t piece, pieces;
    int64_t out_at; /* floats: where the pieces of the warps lie */
} qgc_outside_phase;

/* What the phase of a stage is, `gap` floats being left free after each vector. False, with *why in arena `a`, if it can have none:
 * its row gives no device function, or it reads or writes what a phase does not hand to one. */
bool qgc_outside_phase_of(const qgc_outside_stage *o, const qgc_outside_launch *with, int64_t gap,
                          qgc_outside_phase *out, const char **why, qgc_arena *a);

/* The headers that the text includes, and the function declared in namespace `space`. */
const char *qgc_outside_phase_declaration(const qgc_outside_stage *o, const qgc_outside_phase *p,
                                          const char *space, qgc_arena *a);

/* "namespace SPACE { ... }", for the end of a file: the text of the row with its options, AS_PHASE being defined. Without what belongs
 * to a block: a use of it does not compile. Macros of that name are none after it. */
const char *qgc_outside_phase_space(const qgc_outside_stage *o, const qgc_outside_launch *with,
                                    const char *space, qgc_arena *a);

/* Its check: a kernel that calls the function for each piece. It takes the parameters of the row, and may be proved in its place with
 * what `out` and `launch` become. False: there is no device function for the stage. */
typedef struct {
    const char *file, *entry, *text; /* "outside/NAME_as_phase.cu" */
} qgc_phase_kernel;

bool qgc_outside_phase_kernel(qgc_outside_stage *o, qgc_outside_launch *launch, qgc_phase_kernel *out,
                              qgc_arena *a);

#endif
