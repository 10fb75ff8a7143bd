#ifndef TESTS_SUPPORT_RANDOM_MODEL_H
#define TESTS_SUPPORT_RANDOM_MODEL_H

#include "graph/base/str.h"
#include "graph/graph.h"

/* Small models of random shapes, for tests that run many: attention with grouped heads and all that
 * families do around it (biases, norms of heads, rope or none, parallel or gated MLPs), written as YAML. */

/* The text; the same seed gives the same. */
const char *random_model_yaml(uint64_t *seed, qgc_arena *a);

/* Random weights for a graph, by value id, stored as the graph says: such that activations stay about the
 * same size. */
const qgc_tensor **random_model_weights(const qgc_graph *g, uint64_t *seed, qgc_arena *a);

#endif
