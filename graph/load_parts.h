#ifndef QGC_GRAPH_LOAD_PARTS_H
#define QGC_GRAPH_LOAD_PARTS_H

#include "graph/base/map.h"
#include "graph/expr.h"
#include "graph/graph.h"
#include "graph/yaml.h"

/* What the files of the loader share; for graph/load*.c only.
 *
 *   load_files.c   files that extend one another -> one document
 *   load_decls.c   its params, weights, state and inputs
 *   load_names.c   names of values, and what they stand for at some point of the graph
 *   load_nodes.c   its graph and outputs
 *   load_groups.c  groups of its nodes */

/* A name of the file and what it stands for. Names made in a repeat have one value for each turn, found
 * under name, repeat and layer in qgc_loader.turns. */
typedef struct {
    const char *name;
    qgc_value_kind kind;
    qgc_loc at;
    int decl;       /* of a weight or a state */
    qgc_value *now; /* what the bare name means outside of the repeat that makes it; NULL if nothing */
    bool used;
} qgc_symbol;

typedef struct {
    qgc_arena *arena;
    qgc_diag *d;
    qgc_graph *g;
    const qgc_yaml *doc; /* merged */

    qgc_loc *extends; /* of each file that extends another: where it says so */
    size_t n_extends;

    qgc_map params;  /* name to index in g->params, plus one */
    qgc_map symbols; /* name to qgc_symbol */
    qgc_map turns;   /* (name, repeat, layer) to qgc_value */
    qgc_map makers;  /* name to the place of the op that makes it, anywhere in the file */
    size_t n_tensors;

    qgc_value **newer; /* by value id: the version of a state that took its place */
    size_t n_newer;
} qgc_loader;

/* Where in the graph a name is read; both -1 outside of repeats. */
typedef struct {
    int repeat, layer;
} qgc_place;

#define QGC_TOP_LEVEL ((qgc_place){-1, -1})

/* load_files.c: the document of a file; of a text, which may not extend anything. */
QGC_MUST_USE qgc_status qgc_load_file_document(qgc_loader *ld, const char *path);
QGC_MUST_USE qgc_status qgc_load_text_document(qgc_loader *ld, const qgc_source *source);

/* load_decls.c: checks of parts of the document ... */
QGC_MUST_USE qgc_status qgc_load_expect(qgc_loader *ld, const qgc_yaml *node, qgc_yaml_kind kind,
                                        const char *what);
QGC_MUST_USE qgc_status qgc_load_check_keys(qgc_loader *ld, const qgc_yaml *map, const char *what,
                                            const char *const *keys, size_t n_keys);
QGC_MUST_USE qgc_status qgc_load_required(qgc_loader *ld, const qgc_yaml *map, const char *what,
                                          const char *key, const qgc_yaml **out);
/* ... a name: letters, digits and _, 63 at most, no digit first ... */
QGC_MUST_USE qgc_status qgc_load_check_name(qgc_loader *ld, const qgc_yaml *node, const char *what);
/* ... numbers ... */
QGC_MUST_USE qgc_status qgc_load_number(qgc_loader *ld, const qgc_yaml *node, const char *what, double *out);
QGC_MUST_USE qgc_status qgc_load_whole(qgc_loader *ld, const qgc_yaml *node, qgc_expr_range range,
                                       int64_t *out);
/* ... and the sections. Repeats have to be known before weights and states. */
QGC_MUST_USE qgc_status qgc_load_params(qgc_loader *ld);
QGC_MUST_USE qgc_status qgc_load_inputs(qgc_loader *ld);
QGC_MUST_USE qgc_status qgc_load_weights(qgc_loader *ld);
QGC_MUST_USE qgc_status qgc_load_states(qgc_loader *ld);

/* load_names.c: a new name of the file; an error if it is taken ... */
QGC_MUST_USE qgc_status qgc_load_declare(qgc_loader *ld, const char *name, qgc_value_kind kind, qgc_loc at,
                                         qgc_symbol **out);
/* ... what a name as written ("x", "wq[3]") stands for at some place ... */
QGC_MUST_USE qgc_status qgc_load_resolve(qgc_loader *ld, const qgc_yaml *node, qgc_place where,
                                         qgc_value **out);
/* ... and the value of a name in one turn of a repeat, NULL if it has none; false if it has one already. */
qgc_value *qgc_load_turn_value(const qgc_loader *ld, const char *name, qgc_place where);
bool qgc_load_put_turn_value(qgc_loader *ld, const char *name, qgc_place where, qgc_value *v);
/* The repeat of that index name, or -1. */
int qgc_load_find_repeat(const qgc_graph *g, const char *index);

/* load_names.c too: the group that a `fuse` key means at some place, made if it is new. */
QGC_MUST_USE qgc_status qgc_load_group(qgc_loader *ld, const qgc_yaml *node, qgc_place where, int *group);

/* load_nodes.c: finds the repeats and the makers of all names; makes the nodes; lists the outputs. */
QGC_MUST_USE qgc_status qgc_load_scan(qgc_loader *ld);
QGC_MUST_USE qgc_status qgc_load_nodes(qgc_loader *ld);
QGC_MUST_USE qgc_status qgc_load_outputs(qgc_loader *ld);

/* load_groups.c: checks, once shapes are known, that a kernel can compute each group, and moves its nodes together. */
QGC_MUST_USE qgc_status qgc_load_groups(qgc_loader *ld);

/* Adds the hint `Did you mean "near"?` to the error just recorded, if some word is near. */
void qgc_load_hint_nearest(qgc_diag *d, const char *word, const char *const *words, size_t n);

#endif
