#ifndef QGC_CODEGEN_COMPILE_H
#define QGC_CODEGEN_COMPILE_H

#include "codegen/card.h"
#include "codegen/plan.h"
#include "codegen/proof.h"
#include "codegen/tuning.h"
#include "graph/base/pool.h"
#include "graph/graph.h"

/* From a graph to a complete plan: lowering, then NVRTC or the cache for each kernel and architecture. */

typedef struct {
    const char *const *archs; /* "sm_90a", "compute_80"; at least one */
    int n_archs;
    int64_t chunk;            /* largest prefill step */
    bool keep_values;         /* see codegen/lower.h */
    bool no_prefill;          /* likewise */
    bool decode_only;         /* likewise */
    bool all_rows;            /* likewise */
    bool no_persistent;       /* likewise */
    unsigned probe;           /* likewise */
    const char *cache_folder; /* NULL: the user's */
    bool no_cache;
    const char *nvrtc_library; /* NULL: search */
    const qgc_tuning *tuning;  /* of the only arch; NULL: none */
    const qgc_card *card;      /* see codegen/lower.h */
    const char *source;        /* YAML of the graph before any pass, kept in the plan */
    qgc_pool *pool;            /* kernels are compiled on it */
    /* Called on the caller's thread now and then, with images made and in all; may be NULL. */
    void (*progress)(void *context, size_t done, size_t total);
    void *context;
} qgc_compile_options;

typedef struct {
    qgc_plan *plan;
    int n_compiled, n_cached; /* images made, images found */
    /* why kernels could not be kept for the next time; NULL if they could, or none was wanted */
    const char *cache_fault;
    const int *buffers, *prefill_buffers, *persistent_buffers; /* by value id, see codegen/lower.h */
    const qgc_proof *proofs; /* of kernels from outside, on the CPU: none is disproved */
    int n_proofs;
    const qgc_knob *knobs; /* what can be set, see codegen/tuning.h */
    size_t n_knobs;
} qgc_compiled;

/* The tuning of the cache folder for the only arch of `o` and its card, else for that arch, in *out, or NULL: several archs share their kernels' settings
 * and so go without, and so does one that nobody has tuned for. Errors: a file that is no tuning. */
QGC_MUST_USE qgc_status qgc_compile_find_tuning(const qgc_compile_options *o, const qgc_tuning **out,
                                                qgc_diag *d);

/* The plan lives in the graph's arena. Errors: no NVRTC; an arch that it does not know; a kernel that does not
 * compile (with NVRTC's log and the node that wants it); a kernel from outside that does not compute what its row says. */
QGC_MUST_USE qgc_status qgc_compile(qgc_graph *g, const qgc_compile_options *o, qgc_compiled *out,
                                    qgc_diag *d);

#endif
