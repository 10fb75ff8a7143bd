#ifndef QGC_GRAPH_LOAD_H
#define QGC_GRAPH_LOAD_H

#include "graph/graph.h"

/* Model files (docs/format.md) into graphs. What a file describes is checked as a whole: names, arity,
 * attributes and shapes; a graph that was loaded has been through qgc_infer and qgc_verify. */
enum {
    QGC_LOAD_MAX_NODES = 100000,   /* nodes once repeats are unrolled */
    QGC_LOAD_MAX_TENSORS = 100000, /* weights and states, counted layer by layer */
    QGC_LOAD_MAX_REPEATS = 64,     /* different indices */
    QGC_LOAD_MAX_EXTENDS = 4,      /* files that extend one another */
};

/* The graph of a file, and of the files that it extends. It lives in `a`, and so do the texts of the files
 * that its places point into. NULL on failure. */
QGC_MUST_USE qgc_status qgc_graph_load(qgc_graph **out, const char *path, qgc_arena *a, qgc_diag *d);

/* The same from text in memory, which cannot extend a file. `name` stands for the file in errors; both are
 * copied. */
QGC_MUST_USE qgc_status qgc_graph_load_text(qgc_graph **out, const char *name, const char *text, size_t bytes,
                                            qgc_arena *a, qgc_diag *d);

#endif
