#ifndef QGC_GRAPH_ROPE_H
#define QGC_GRAPH_ROPE_H

#include "graph/graph.h"

/* What a node of op rope does to each head. Of its head_dim elements, rotary_dim from `first` on turn in pairs: pair i is elements i
 * and i + rotary_dim / 2 of them in style neox, 2 i and 2 i + 1 if interleaved. The others stay. */
typedef struct {
    int64_t head_dim, first, rotary_dim;
    bool interleaved;
    double base;            /* 0: freqs says how fast each pair turns */
    double scale;           /* of cosines and sines */
    const qgc_value *freqs; /* or NULL */
} qgc_rope;

/* Of a node that qgc_infer has found right. */
qgc_rope qgc_rope_of(const qgc_node *n);

/* Do all elements turn, element i with element i + head_dim / 2? */
bool qgc_rope_is_plain(const qgc_rope *r);

/* Do they turn the same elements together? */
bool qgc_rope_pairs_equal(const qgc_rope *a, const qgc_rope *b);

/* Frequencies are what ops rope_freqs, rope_linear, ... make: of each pair the radians a position, [2, rotary_dim/2], as float32 and
 * what is left of it, so that 48 bits of them go from op to op. They depend on attributes and weights alone: codegen makes tables of them
 * once. */
bool qgc_is_frequencies(const qgc_value *v);

/* Of a rope_yarn: the pairs from which on frequencies are divided, and at which they are divided by all of the factor. */
void qgc_rope_yarn_range(const qgc_node *n, double *low, double *high);

#endif
