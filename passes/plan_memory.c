#include "passes/passes.h"

/* Lets kernels put results where others lay that nobody reads any more. Which kernels there are, and so when that is, is known
 * after lowering: codegen/memory.c finds the places. Without this pass every result keeps a place of its own, so a fault in
 * the plan of the memory goes with the pass. */

qgc_status qgc_pass_plan_memory(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    c->run->note = "qgc inspect says how much scratch memory that takes";
    if (c->graph->shares_memory || c->run->n_fired == c->most)
        return QGC_OK;
    c->graph->shares_memory = true;
    c->run->n_fired++;
    return QGC_OK;
}
