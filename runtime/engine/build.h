#ifndef QGC_ENGINE_BUILD_H
#define QGC_ENGINE_BUILD_H

#include "runtime/engine/engine.h"

/* From a graph's file, or an artifact's, to an artifact's: what `qgc compile` does. Needs NVRTC, no GPU and no driver. */

typedef struct {
    const char *graph;  /* path of the YAML, or of an artifact, whose graph and pipeline are compiled again */
    const char *output; /* path of the artifact */
    const char *weights; /* to check against, to take the types of and to record; NULL: none */
    const char *const
        *archs; /* "sm_90a", "compute_80", "sm_80+ptx" for both; none (n_archs = 0): this machine's GPU,
                               * else sm_90a */
    int n_archs;
    const char *
        card; /* to split the work for (codegen/card.h), and to compile for where no arch is named; NULL: none */
    int64_t chunk; /* largest prefill step; 0: the artifact's, 512 of a graph */
    const char *cache_folder, *nvrtc_library;
    bool no_cache, no_tuning, allow_unused;
    qgc_engine_passes passes;
    qgc_engine_listener listener;
} qgc_build_options;

typedef struct {
    const qgc_plan *plan; /* in the arena of the diag */
    int n_compiled, n_cached;
    const char *cache_fault; /* see qgc_compiled */
    size_t bytes;            /* of the artifact */
} qgc_built;

QGC_MUST_USE qgc_status qgc_build(const qgc_build_options *o, qgc_built *out, qgc_diag *d);

#endif
