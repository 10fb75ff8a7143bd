#include "runtime/engine/retarget.h"

#include <string.h>

#include "graph/load.h"

qgc_status qgc_retarget_graph(qgc_graph **g, const qgc_plan *plan, const char *path, qgc_arena *a,
                              qgc_diag *d) {
    return qgc_graph_load_text(g, path, plan->source, strlen(plan->source), a, d);
}

static const char *place_of(const qgc_plan *plan, const char *node) {
    for (int k = 0; k < QGC_N_PHASES; k++)
        for (size_t i = 0; i < plan->phases[k].n_launches; i++)
            if (strcmp(plan->phases[k].launches[i].node, node) == 0 && *plan->phases[k].launches[i].where)
                return plan->phases[k].launches[i].where;
    return NULL;
}

void qgc_retarget_places(qgc_plan *plan, const qgc_plan *old) {
    for (int k = 0; k < QGC_N_PHASES; k++)
        for (size_t i = 0; i < plan->phases[k].n_launches; i++) {
            qgc_plan_launch *l = &plan->phases[k].launches[i];
            const char *where = *l->where ? place_of(old, l->node) : NULL; /* some are of no node */
            l->where = where ? where : l->where;
        }
}
