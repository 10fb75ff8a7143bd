#ifndef QGC_RUNTIME_MODE_H
#define QGC_RUNTIME_MODE_H

#include "runtime/program.h"

/* The ways to run a decode step (docs/design.md). */
typedef enum {
    QGC_MODE_STREAM,     /* every kernel launched by itself */
    QGC_MODE_GRAPH,      /* the decode step captured once and replayed */
    QGC_MODE_PDL,        /* as graph, each kernel started while the one before it still runs */
    QGC_MODE_PERSISTENT, /* most of the step in one kernel, captured and replayed too */
    QGC_N_MODES
} qgc_mode;

/* "graph"; and the mode of a name, with an error that lists them. */
const char *qgc_mode_name(qgc_mode mode);
QGC_MUST_USE qgc_status qgc_mode_named(const char *name, qgc_mode *mode, qgc_diag *d);

/* Why the program cannot run in a mode on its device, made in arena `a`; NULL if it can. */
const char *qgc_mode_refusal(const qgc_program *p, qgc_mode mode, qgc_arena *a);

/* The fastest of the modes in which the program can run: persistent, which needs room for a second copy of the weights
 * beside a session of `ctx` positions, or else pdl, or else graph (measured: docs/benchmarks.md). */
qgc_mode qgc_mode_fastest(const qgc_program *p, int64_t ctx, qgc_arena *a);

#endif
