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

/* The same for images of an architecture ("sm_75"), on whatever device of it: what depends on the size of one is not asked. */
const char *qgc_mode_refusal_on(const qgc_plan *plan, qgc_mode mode, const char *arch, qgc_arena *a);

/* Shared memory that a block of the persistent step has in images of an architecture; 0 where there is no such step. */
int qgc_mode_shared_bytes(const qgc_plan *plan, const char *arch);

/* The same for images of an architecture on a GPU of which no more than this is known. */
const char *qgc_mode_refusal_with(const qgc_plan *plan, qgc_mode mode, const char *arch,
                                  const qgc_device_info *about, qgc_arena *a);

/* The same as an error, of status QGC_ERR_USAGE. */
QGC_MUST_USE qgc_status qgc_mode_check(const qgc_program *p, qgc_mode mode, qgc_diag *d);

/* A mode, and what auto says of it: what speaks against the faster ones, or that nothing does; NULL where it was named. */
typedef struct {
    qgc_mode mode;
    const char *why;
} qgc_mode_choice;

/* The fastest of the modes in which the program can run: persistent, which needs room for its stream of weights and a
 * session of `ctx` positions, or else pdl, or else graph (measured: docs/benchmarks.md). Texts are made in arena `a`. */
qgc_mode_choice qgc_mode_fastest(const qgc_program *p, int64_t ctx, qgc_arena *a);

/* What measured times of a program's steps are kept under: its name, and the bytes of weights that a step reads with launches and in
 * persistent mode. */
const char *qgc_mode_key(const qgc_plan *plan, qgc_arena *a);

/* The same by measured times, microseconds of a step by mode, 0 where it was not measured: of the modes in which the program can run,
 * and has room, the one that took least. Where the mode of qgc_mode_fastest was not measured, that one. */
qgc_mode_choice qgc_mode_measured(const qgc_program *p, int64_t ctx, const double us[QGC_N_MODES],
                                  qgc_arena *a);

/* The mode that a command asks for by its name, or by "auto" for the fastest. */
QGC_MUST_USE qgc_status qgc_mode_choose(const qgc_program *p, const char *name, int64_t ctx,
                                        qgc_mode_choice *out, qgc_diag *d);

/* Why persistent mode has no room for a copy of the weights as they are stored, beside its own and a session of `ctx` positions; NULL if
 * it has, or if that copy is there already. */
const char *qgc_mode_no_second_copy(const qgc_program *p, int64_t ctx, qgc_arena *a);

/* What launches of a decode step cost that read so many bytes, as a model without a GPU has it: in the bytes that a
 * persistent step reads meanwhile, as measured on an H100 (docs/performance.md). */
double qgc_mode_cost(int64_t launches, int64_t bytes);

#endif
