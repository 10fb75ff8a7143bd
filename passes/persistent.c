#include "passes/passes.h"

/* Wants most of a decode step in one kernel, beside the kernels of the other modes. Whether the nodes are such that the kernel can
 * compute them, codegen/lower_persistent.c finds out; where it cannot the plan says why. */

qgc_status qgc_pass_persistent(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    qgc_pass_wish(c, &c->graph->persistent, "qgc inspect says whether the graph fits, and if not, why");
    return QGC_OK;
}
