#ifndef QGC_ENGINE_RETARGET_H
#define QGC_ENGINE_RETARGET_H

#include "codegen/plan.h"
#include "graph/graph.h"

/* An artifact holds the graph that it was compiled from and the pipeline, so it can be compiled again for another
 * architecture: what comes out is what compiling the YAML would give. */

/* That graph, before its passes, as it was bound to the weights then; its `passes` are the artifact's. `path` is that of the
 * artifact, for errors. */
QGC_MUST_USE qgc_status qgc_retarget_graph(qgc_graph **g, const qgc_plan *plan, const char *path,
                                           qgc_arena *a, qgc_diag *d);

/* Launches of the plan made of it get the places in the YAML that those of the same nodes have in `old`, which knows the
 * file. */
void qgc_retarget_places(qgc_plan *plan, const qgc_plan *old);

#endif
