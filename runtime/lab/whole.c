#include "runtime/lab/whole.h"

#include <string.h>

#include "graph/load.h"
#include "passes/bind_weights.h"
#include "passes/load.h"
#include "runtime/lab/bisect_impl.h"
#include "runtime/lab/disproof.h"

static const char *objection_to_declared(const qgc_graph *right, const qgc_graph *g,
                                         const qgc_tensor *const **tensors, const qgc_experiment *run,
                                         qgc_arena *a) {
    const bisect_print was = bisect_print_graph(right), now = bisect_print_graph(g);
    bool others = false;
    const char *why = NULL;
    if (now.declared != was.declared)
        why = bisect_rebind(right, g, run->weights, tensors, &others, a);
    if (why || others || (now.declared == was.declared && now.flow == was.flow))
        return why;
    return bisect_declared_objection(right, g, *tensors, a);
}

static const char *in_words(const qgc_judge_finding *found, qgc_arena *a) {
    if (!found->value)
        return found->why ? qgc_arena_strdup(a, found->why) : "it computes something else";
    return found->why
               ? qgc_arena_printf(a, "\"%s\": %s", qgc_value_label(found->value, a), found->why)
               : qgc_arena_printf(a, "\"%s\" is %.3g apart", qgc_value_label(found->value, a), found->apart);
}

const char *qgc_lab_objection(qgc_judge *j, const qgc_graph *g, const qgc_tensor *const *tensors,
                              const qgc_experiment *run, qgc_arena *a) {
    qgc_judge_finding found;
    const qgc_node *at;
    const char *why = objection_to_declared(qgc_judge_right(j), g, &tensors, run, a);
    if (why)
        return why;
    qgc_judge_restart(j);
    qgc_judge_next(j, g, tensors, true, &found);
    if (found.verdict == QGC_JUDGE_WRONG)
        return in_words(&found, a);
    return g->n_kernels ? qgc_lab_disproof(g, run->cache_folder, !run->device, &at, a) : NULL;
}

bool qgc_lab_is_steady(const qgc_experiment *run, const char *passes, const char *skip, const qgc_graph *g) {
    if (qgc_loaded_count() == 0) /* those of qgc keep nothing */
        return true;
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a);
    qgc_graph *again;
    const qgc_tensor **tensors;
    qgc_pass_report report;
    bool steady =
        qgc_graph_load_for(&again, run->graph, run->weights, a, &d) == QGC_OK &&
        qgc_graph_bind(again, run->weights, run->allow_unused, &tensors, &d) == QGC_OK &&
        qgc_passes_run(again, &(qgc_pass_options){.passes = passes, .skip = skip, .watch = run->watch},
                       &report, &d) == QGC_OK;
    if (steady) {
        const bisect_print one = bisect_print_graph(g), other = bisect_print_graph(again);
        steady = memcmp(&one, &other, sizeof one) == 0;
    }
    qgc_arena_drop(a);
    return steady;
}
