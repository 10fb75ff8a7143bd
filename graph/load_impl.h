#ifndef QGC_GRAPH_LOAD_IMPL_H
#define QGC_GRAPH_LOAD_IMPL_H

#include "graph/base/map.h"
#include "graph/expr.h"
#include "graph/graph.h"
#include "graph/load.h"
#include "graph/yaml.h"

/* What the files of the loader share; for graph/load*.c only.
 *
 *   load_files.c   files that extend one another -> one document
 *   load_params.c  its params, and what expressions make of them
 *   load_decls.c   its weights, state and inputs
 *   load_expand.c  lists of ops with parts put in their places and conditions decided
 *   load_names.c   names of values, and what they stand for at some point of the graph
 *   load_nodes.c   its graph and outputs
 *   load_groups.c  groups of its nodes */

/* A name of the file and what it stands for. Names made in a repeat have one value for each iteration. */
typedef struct {
    const char *name;
    qgc_value_kind kind;
    qgc_loc at;
    qgc_map turns;        /* qgc_place to what was made there last, of a name that is made in a repeat */
    int decl;             /* of a weight or a state; -1 if no iteration has one */
    const qgc_yaml *when; /* of a weight or a state that some iterations do not have; NULL if all have it */
    qgc_value *now;       /* what the bare name means outside of the repeat that makes it; NULL if nothing */
    int made;             /* times that it was made outside of repeats */
    bool used;
} qgc_symbol;

/* A parameter as written, and what has been computed of it. */
typedef struct {
    const qgc_yaml *value, *fixed; /* NULL where it does not say so */
    const qgc_yaml *per;
    bool finished; /* all its values are known */
    bool busy;     /* being computed: who needs it now goes in a circle */
    int n_turns;   /* of the repeat; 1 where it is for all iterations */
    bool *known;   /* [n_turns] */
} qgc_param_text;

/* Where in the graph a name is read; both -1 outside of repeats. */
typedef struct {
    int repeat, layer;
} qgc_place;

#define QGC_TOP_LEVEL ((qgc_place){-1, -1})

/* Why something stands in the graph: what it is a part of, and the conditions that chose it, innermost first. */
typedef struct qgc_reason {
    const struct qgc_reason *up;
    const char *part; /* put here at `at`; NULL: a condition */
    const qgc_yaml *when;
    bool otherwise; /* the condition is 0, and this is its `else` */
    qgc_loc at;
} qgc_reason;

/* What names of a part stand for, by its `with`: a mapping from names of the part to names around it. */
typedef struct qgc_scope {
    const struct qgc_scope *up;
    const qgc_yaml *with;
} qgc_scope;

/* An entry of a list of ops that is there: an op or a repeat. */
typedef struct {
    const qgc_yaml *yaml;
    const qgc_reason *reason;
    const qgc_scope *scope;
} qgc_item;

typedef struct {
    qgc_item *items;
    size_t n;
} qgc_items;

typedef struct {
    qgc_arena *arena;
    qgc_diag *d;
    qgc_graph *g;
    const qgc_yaml *doc;         /* merged */
    int format;                  /* of the file, or of one that it extends, whichever is highest */
    const qgc_load_facts *facts; /* NULL: no weights are at hand */
    qgc_place place;             /* for expressions: whose iteration it is */

    qgc_loc *extends; /* of each file that extends another: where it says so */
    size_t n_extends;

    qgc_map params;              /* name to index in g->params */
    qgc_param_text *param_texts; /* by that index */
    qgc_map symbols;             /* name to qgc_symbol */
    qgc_map makers;              /* name to the place of the op that makes it, anywhere in the file */
    qgc_map again; /* "q_2" to "q" where that is made again, and names of "with" to themselves */
    size_t n_tensors;
    const qgc_reason **reasons; /* by node id */
    bool *read;                 /* by value id, as far as it goes */
    size_t n_reasons, n_read;
    size_t n_expanded; /* entries of lists that were looked at */
    bool told;         /* the error has its reasons */

    qgc_value **newer; /* by value id: the version of a state that took its place */
    size_t n_newer;
} qgc_loader;

/* load_files.c: the document of a file; of a text, which may not extend anything. */
QGC_MUST_USE qgc_status qgc_load_file_document(qgc_loader *ld, const char *path);
QGC_MUST_USE qgc_status qgc_load_text_document(qgc_loader *ld, const qgc_source *source);

/* load_decls.c: checks of pieces of the document ... */
QGC_MUST_USE qgc_status qgc_load_expect(qgc_loader *ld, const qgc_yaml *node, qgc_yaml_kind kind,
                                        const char *what);
QGC_MUST_USE qgc_status qgc_load_check_keys(qgc_loader *ld, const qgc_yaml *map, const char *what,
                                            const char *const *keys, size_t n_keys);
QGC_MUST_USE qgc_status qgc_load_required(qgc_loader *ld, const qgc_yaml *map, const char *what,
                                          const char *key, const qgc_yaml **out);
/* ... a name: letters, digits and _, 63 at most, no digit first ... */
QGC_MUST_USE qgc_status qgc_load_check_name(qgc_loader *ld, const qgc_yaml *node, const char *what);
/* ... and the sections. Repeats have to be known before weights and states. */
QGC_MUST_USE qgc_status qgc_load_inputs(qgc_loader *ld);
QGC_MUST_USE qgc_status qgc_load_weights(qgc_loader *ld);
QGC_MUST_USE qgc_status qgc_load_states(qgc_loader *ld);

bool qgc_load_is_symbol(const char *text, int64_t *dim); /* "T", "R", "ctx" */

/* load_params.c: the parameters; what the value of an expression is at ld->place; and, once the graph is there, the values
 * of all parameters that it used. */
QGC_MUST_USE qgc_status qgc_load_params(qgc_loader *ld);
QGC_MUST_USE qgc_status qgc_load_number(qgc_loader *ld, const qgc_yaml *node, const char *what, double *out);
QGC_MUST_USE qgc_status qgc_load_whole(qgc_loader *ld, const qgc_yaml *node, qgc_expr_range range,
                                       int64_t *out);
QGC_MUST_USE qgc_status qgc_load_params_finish(qgc_loader *ld);
/* Adds to the error just recorded a note with the names in an expression and their values at `place`. */
void qgc_load_note_values(qgc_loader *ld, const qgc_yaml *expression, qgc_place place);

/* load_expand.c: what a list of ops is at ld->place, which for a repeat is one of its iterations. */
QGC_MUST_USE qgc_status qgc_load_expand(qgc_loader *ld, const qgc_yaml *list, qgc_items *out);
/* Calls `visit` with each op and each repeat that may be there, whatever the conditions. */
void qgc_load_visit(qgc_loader *ld, const qgc_yaml *list, void (*visit)(qgc_loader *, const qgc_yaml *));
/* A name of an op as it is called outside of the part that the op is of. */
const qgc_yaml *qgc_load_renamed(qgc_loader *ld, const qgc_scope *scope, const qgc_yaml *name);
/* Parts that are put nowhere are a mistake. */
QGC_MUST_USE qgc_status qgc_load_check_parts(qgc_loader *ld);
/* Adds to the error just recorded why something stands in the graph, once. */
void qgc_load_note_reason(qgc_loader *ld, const qgc_reason *reason, qgc_place place);

enum { QGC_LOAD_MAX_NAME = 63 }; /* letters */

/* load_names.c: a new name of the file; an error if it is taken ... */
QGC_MUST_USE qgc_status qgc_load_declare(qgc_loader *ld, const char *name, qgc_value_kind kind, qgc_loc at,
                                         qgc_symbol **out);
/* ... what a name as written ("x", "wq[3]") stands for at some place; NULL, and no error, for a weight or a state that is
 * not there in that iteration ... */
QGC_MUST_USE qgc_status qgc_load_resolve(qgc_loader *ld, const qgc_yaml *node, qgc_place where,
                                         qgc_value **out);
/* ... the value of a name in one iteration of a repeat, NULL if it has none; puts one, in the place of an older one; and how
 * often it was put. */
qgc_value *qgc_load_turn_value(const qgc_loader *ld, const char *name, qgc_place where);
void qgc_load_put_turn_value(qgc_loader *ld, qgc_symbol *symbol, qgc_place where, qgc_value *v);
int qgc_load_turn_made(const qgc_loader *ld, const char *name, qgc_place where);
/* The repeat of that index name, or -1. */
int qgc_load_find_repeat(const qgc_graph *g, const char *index);

/* load_names.c too: the group that a `fuse` key means at some place, made if it is new. */
QGC_MUST_USE qgc_status qgc_load_group(qgc_loader *ld, const qgc_yaml *node, qgc_place where, int *group);

/* load_nodes.c: finds the repeats and the makers of all names; makes the nodes; lists the outputs. */
QGC_MUST_USE qgc_status qgc_load_scan(qgc_loader *ld);
QGC_MUST_USE qgc_status qgc_load_nodes(qgc_loader *ld);
QGC_MUST_USE qgc_status qgc_load_outputs(qgc_loader *ld);

/* load_kernels.c: the kernels from outside. */
QGC_MUST_USE qgc_status qgc_load_kernels(qgc_loader *ld);

/* load_groups.c: checks, once shapes are known, that a kernel can compute each group, and moves its nodes together. */
QGC_MUST_USE qgc_status qgc_load_groups(qgc_loader *ld);

/* Adds the hint `Did you mean "near"?` to the error just recorded, if some word is near. */
void qgc_load_hint_nearest(qgc_diag *d, const char *word, const char *const *words, size_t n);

#endif
