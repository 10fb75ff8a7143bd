#ifndef QGC_LAB_DISPROOF_H
#define QGC_LAB_DISPROOF_H

#include "graph/graph.h"

/* What is wrong with the first kernel from outside of a graph that does not compute what its row says, by the check on the CPU
 * (codegen/proof.h) or, with asks_devices, by one that a device has made and that is kept in the cache folder, in arena `a`; NULL: there
 * is none, or it cannot be told here. *at is the first node of its stage. */
const char *qgc_lab_disproof(const qgc_graph *g, const char *cache_folder, bool asks_devices,
                             const qgc_node **at, qgc_arena *a);

#endif
