#ifndef QGC_LAB_FEWER_LAYERS_H
#define QGC_LAB_FEWER_LAYERS_H

#include "graph/graph.h"

/* Leaves the first `n` layers of each repeat of a graph that is bound to `tensors` and that no pass has changed; what
 * read the results of the last layer reads those of layer n - 1. So a large model can be searched on a few of its layers,
 * which have the kernels of all. *left gets the layers of all repeats, *of those that there were.
 * Errors: a layer that goes is of a kind (ops, attributes, types of weights) that none of those which stay is of; something
 * other than the results of a last layer is read. */
QGC_MUST_USE qgc_status qgc_lab_keep_layers(qgc_graph *g, const qgc_tensor *const *tensors, int n, int *left,
                                            int *of, qgc_diag *d);

#endif
