#ifndef QGC_ENGINE_PREPARE_H
#define QGC_ENGINE_PREPARE_H

#include "codegen/compile.h"
#include "runtime/program.h"

/* From a graph to a program on a device: what is the same for all that run a graph on a GPU. */

typedef struct {
    qgc_device *device;
    const qgc_weights *weights;
    qgc_pool *pool;
    const char *arch; /* to compile for and to run; NULL: the device's own */
    const char *cache_folder, *nvrtc_library;
    int64_t chunk;            /* largest prefill step */
    const qgc_tuning *tuning; /* NULL: what `qgc tune` has found for this architecture */
    bool no_tuning;           /* NULL means none then */
    bool keep_values, no_prefill, decode_only, all_rows, no_persistent; /* see codegen/lower.h */
    unsigned probe;                                                     /* likewise */
    bool allow_unused;
    qgc_program *share; /* see qgc_program_options */
    bool later;         /* likewise */
    void (*progress)(void *context, const char *what, size_t done, size_t total); /* may be NULL */
    void *context;
    qgc_times *times; /* may be NULL */
} qgc_prepare_options;

/* `g` is bound to the weights (passes/bind_weights.h) and its passes have been run. It is compiled for the
 * device, through the cache, and its weights go up. The graph, whose arena holds the plan, the device and
 * the pool outlive the program. */
QGC_MUST_USE qgc_status qgc_prepare(qgc_program **out, qgc_compiled *compiled, qgc_graph *g,
                                    const qgc_prepare_options *o, qgc_diag *d);

/* The first half of it. Nothing goes to the device, of which only what it is is asked: several threads may do this at once, each with
 * a graph and a pool of its own. */
QGC_MUST_USE qgc_status qgc_prepare_compiled(qgc_compiled *compiled, qgc_graph *g,
                                             const qgc_prepare_options *o, qgc_diag *d);

/* The second half of it: a plan that is there, of an artifact. Uses device, weights, pool, arch (NULL: the
 * best image), and what follows `allow_unused`. */
QGC_MUST_USE qgc_status qgc_prepare_plan(qgc_program **out, const qgc_plan *plan,
                                         const qgc_prepare_options *o, qgc_diag *d);

#endif
