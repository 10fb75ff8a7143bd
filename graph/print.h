#ifndef QGC_GRAPH_PRINT_H
#define QGC_GRAPH_PRINT_H

#include "graph/base/str.h"
#include "graph/graph.h"

/* The graph as a model file (docs/format.md): stable, complete, and valid input that gives the same graph
 * again. Numbers are resolved, weights carry their dtypes, and equal layers are rolled up into repeats.
 * Weights and states that nothing reads any more are left out. Values whose names clash, as passes may make
 * them, get a number after their names. */
void qgc_graph_print_yaml(const qgc_graph *g, qgc_str *out);

/* The graph for GraphViz (graphviz.org/doc/info/lang.html): a box for each node, a cluster for each layer,
 * an edge for each value, labelled with its name and shape. */
void qgc_graph_print_dot(const qgc_graph *g, qgc_str *out);

#endif
