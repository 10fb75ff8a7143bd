#ifndef QGC_LAB_RANDOM_WEIGHTS_H
#define QGC_LAB_RANDOM_WEIGHTS_H

#include "graph/graph.h"
#include "models/weights.h"

/* Writes a GGUF with random weights of the right shapes for a graph, stored as the graph says (F32, F16 or
 * BF16): matrices such that the size of activations stays about the same, norms near 1, biases near 0. The same
 * seed gives the same file. */
QGC_MUST_USE qgc_status qgc_random_weights_write(const qgc_graph *g, const char *path, uint64_t seed,
                                                 qgc_diag *d);

/* The same, opened and without a name: the file, in /tmp, is gone when the weights are closed. */
QGC_MUST_USE qgc_status qgc_random_weights_open(qgc_weights **out, const qgc_graph *g, uint64_t seed,
                                                qgc_diag *d);

#endif
