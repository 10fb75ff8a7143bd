#include "passes/passes.h"

/* Lets kernels start while those before them still run, by programmatic dependent launch. Which may, follows from what kernels read
 * and write before they wait, and from where values lie; both are known behind lowering: codegen/edges.c proves it launch by
 * launch, or names the hazard. Without this pass every launch starts when the one before it has ended. */

qgc_status qgc_pass_pdl_edges(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    qgc_pass_wish(c, &c->graph->starts_early,
                  "qgc inspect --launches says which launches start early, and what keeps the others");
    return QGC_OK;
}
