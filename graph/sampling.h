#ifndef QGC_GRAPH_SAMPLING_H
#define QGC_GRAPH_SAMPLING_H

#include <stdint.h>

/* How the next token is chosen. The same 32 bytes are read by the CPU reference (graph/ops_sample.c), which states the
 * algorithm, and by the kernels (kernels/sample.cuh); the two agree on every choice for equal logits. */
typedef struct {
    float temperature;    /* 0: greedy, the largest logit, the lowest id among equals */
    int32_t top_k;        /* 0: all */
    float top_p;          /* 1: all */
    float min_p;          /* 0: all; relative to the most likely token */
    float repeat_penalty; /* of all tokens so far (arxiv.org/abs/1909.05858); 1: none */
    uint32_t reserved;
    uint64_t seed;
} qgc_sampling;

_Static_assert(sizeof(qgc_sampling) == 32, "the kernel reads this layout");

#endif
