#ifndef QGC_GRAPH_ROPE_H
#define QGC_GRAPH_ROPE_H

#include "graph/graph.h"

/* What a node of op rope does to each head. Of its head_dim elements, rotary_dim from `first` on turn in pairs: pair i is elements i
 * and i + rotary_dim / 2 of them in style neox, 2 i and 2 i + 1 if interleaved. The others stay. */
typedef struct {
    int64_t head_dim, first, rotary_dim;
    bool interleaved;
    double base;
} qgc_rope;

/* Of a node that qgc_infer has found right. */
qgc_rope qgc_rope_of(const qgc_node *n);

/* Do all elements turn, element i with element i + head_dim / 2? */
bool qgc_rope_is_plain(const qgc_rope *r);

/* Do they turn the same elements together? */
bool qgc_rope_pairs_equal(const qgc_rope *a, const qgc_rope *b);

#endif
