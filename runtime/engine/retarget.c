#include "runtime/engine/retarget.h"

#include <string.h>

#include "graph/load.h"
#include "passes/edit.h"
#include "passes/passes.h"

/* Are all passes of the pipeline there? Those of a plug-in may not be. */
static bool has_passes(const qgc_graph *g, qgc_arena *a) {
    const char *rest = g->passes ? g->passes : "", *name;
    while ((name = qgc_pipeline_next(&rest, a))) {
        bool found = false;
        const size_t bytes = strcspn(name, "(?");
        for (size_t i = 0; i < qgc_pass_count() && !found; i++)
            found = strlen(qgc_pass_at(i)->name) == bytes && memcmp(qgc_pass_at(i)->name, name, bytes) == 0;
        if (!found && !qgc_passes_modes(name, a))
            return false;
    }
    return true;
}

qgc_status qgc_retarget_graph(qgc_graph **g, const qgc_plan *plan, const char *path, qgc_arena *a,
                              qgc_diag *d) {
    QGC_TRY(qgc_graph_load_text(g, path, plan->source, strlen(plan->source), a, d));
    if (has_passes(*g, a))
        return QGC_OK;
    return qgc_graph_load_text(g, path, plan->graph, strlen(plan->graph), a, d);
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
