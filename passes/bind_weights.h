#ifndef QGC_PASSES_BIND_WEIGHTS_H
#define QGC_PASSES_BIND_WEIGHTS_H

#include "graph/graph.h"
#include "models/weights.h"

/* Finds the tensor of each weight of the graph in a weights file and checks that graph and file speak of the
 * same model (models/bind.h lists the errors). On success `*tensors` is a table in the graph's arena, indexed by
 * value id, as qgc_eval_new takes it: NULL for values that are no weights; and each
 * weight of the graph has the dtype of its tensor. */
QGC_MUST_USE qgc_status qgc_graph_bind(qgc_graph *g, const qgc_weights *w, bool allow_unused,
                                       const qgc_tensor ***tensors, qgc_diag *d);

/* Loads the graph of a file (graph/load.h) whose parameters may be read from weights. `w` may be NULL: there are none, and
 * each parameter that is needed has to have a value. */
QGC_MUST_USE qgc_status qgc_graph_load_for(qgc_graph **out, const char *path, const qgc_weights *w,
                                           qgc_arena *a, qgc_diag *d);

#endif
