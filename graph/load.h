#ifndef QGC_GRAPH_LOAD_H
#define QGC_GRAPH_LOAD_H

#include "graph/base/stated.h"
#include "graph/graph.h"

/* Model files (docs/format.md) into graphs. What a file describes is checked as a whole: names, arity,
 * attributes and shapes; a graph that was loaded has been through qgc_infer and qgc_verify. */
enum {
    QGC_LOAD_MAX_NODES = 100000,    /* nodes once repeats are unrolled */
    QGC_LOAD_MAX_TENSORS = 100000,  /* weights and states, counted layer by layer */
    QGC_LOAD_MAX_REPEATS = 64,      /* different indices */
    QGC_LOAD_MAX_EXTENDS = 16,      /* files that extend one another */
    QGC_LOAD_MAX_PARTS = 32,        /* parts in one another */
    QGC_LOAD_MAX_ENTRIES = 1000000, /* of lists of ops, looked at iteration by iteration */
};

/* What weights state, for parameters that are read from them. */
typedef struct {
    const char *path; /* of the weights, for errors */
    bool is_gguf;
    const char *arch; /* as the weights call it, NULL if they do not say */
    void *context;
    /* The number under `key`, a key of parameter `p`, in iteration `turn` (-1: for all). QGC_MISSTATED where there is something
     * that is neither a number nor one of the parameter's words; then `shown` tells it. */
    qgc_stated (*number)(void *context, const qgc_param *p, const char *key, int turn, double *out);
    const char *(*shown)(void *context, const char *key, qgc_arena *a);
    /* How many values there are under it: those of a list, 1, or 0. */
    size_t (*count)(void *context, const char *key);
} qgc_load_facts;

/* The graph of a file, and of the files that it extends. It lives in `a`, and so do the texts of the files
 * that its places point into. NULL on failure. */
QGC_MUST_USE qgc_status qgc_graph_load(qgc_graph **out, const char *path, qgc_arena *a, qgc_diag *d);

/* The same where parameters may be read from weights. `facts` may be NULL: there are none. */
QGC_MUST_USE qgc_status qgc_graph_load_stated(qgc_graph **out, const char *path, const qgc_load_facts *facts,
                                              qgc_arena *a, qgc_diag *d);

/* The same from text in memory, which cannot extend a file. `name` stands for the file in errors; both are
 * copied. */
QGC_MUST_USE qgc_status qgc_graph_load_text(qgc_graph **out, const char *name, const char *text, size_t bytes,
                                            qgc_arena *a, qgc_diag *d);

#endif
