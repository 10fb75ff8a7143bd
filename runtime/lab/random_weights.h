#ifndef QGC_LAB_RANDOM_WEIGHTS_H
#define QGC_LAB_RANDOM_WEIGHTS_H

#include "graph/graph.h"
#include "models/weights.h"

/* Writes a GGUF with random weights of the right shapes for a graph, stored as the graph says (F32, F16 or
 * BF16): matrices such that the size of activations stays about the same, norms near 1, biases near 0. The same
 * seed gives the same file. */
QGC_MUST_USE qgc_status qgc_random_weights_write(const qgc_graph *g, const char *path, uint64_t seed,
                                                 qgc_diag *d);

/* The same numbers as weights in memory: no file is made. They are those of a GGUF, or of a folder of safetensors where the
 * graph names its tensors for that only. `types` says how matrices are stored: NULL as the graph says, quantised blocks
 * too; a dtype ("q8_0"), or "q4_k_m" or "q5_k_m", gives each tensor the type that llama.cpp's quantiser gives it, which is
 * another one for a few. Errors: a weight without a name, types that are not known, too little memory. */
QGC_MUST_USE qgc_status qgc_random_weights_open(qgc_weights **out, const qgc_graph *g, const char *types,
                                                uint64_t seed, qgc_diag *d);

#endif
