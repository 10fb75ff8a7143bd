#ifndef QGC_GRAPH_PRINT_IMPL_H
#define QGC_GRAPH_PRINT_IMPL_H

#include "graph/base/map.h"
#include "graph/base/str.h"
#include "graph/graph.h"

/* What the files of the YAML printer share; for graph/print*.c only.
 *
 *   print_roll.c    nodes -> sections of one layer -> runs of equal sections
 *   print_names.c   names that the loader will understand
 *   print_fuse.c    names of groups, likewise
 *   print.c         the text
 *
 * A section is a part of the list whose nodes stand in one layer of one repeat (or in none). A run is one
 * or more sections, one after the other, that differ only in the layer: it becomes one `repeat`. */

typedef struct {
    const qgc_node **nodes;
    int n_nodes, repeat, layer;
} print_section;

/* Where an input of a node comes from, seen from its section. */
typedef enum {
    FROM_TURN,     /* a weight or state of this iteration */
    FROM_SECTION,  /* made by node `node` of this section */
    FROM_PREVIOUS, /* made by node `node` of the section before, which is the iteration before */
    FROM_OUTSIDE,  /* the same value in every iteration */
} print_origin_kind;

typedef struct {
    print_origin_kind kind;
    int node, out;
    const qgc_value *value; /* FROM_OUTSIDE */
    int decl;               /* FROM_TURN */
} print_origin;

/* A value that each iteration hands to the next, and what stands in for it in the first iteration. */
typedef struct {
    int node, out;
    const qgc_value *start;
} print_carry;

typedef struct {
    int first, n_sections;
    print_carry *carries;
    int n_carries;
} print_run;

/* The results of one name in all iterations of a repeat: they are one name of the file. */
typedef struct {
    const char *base; /* as the values are called */
    const char *name; /* as the file calls them */
    int repeat;       /* -1: a single value */
} print_class;

/* A group as the file calls it: the name, and the iteration of a repeat that it is of. */
typedef struct {
    const char *name; /* NULL: it has no nodes */
    int repeat, layer;
} print_fused;

typedef struct {
    const qgc_graph *g;
    qgc_arena *scratch;
    qgc_str *out;

    print_section *sections;
    int n_sections;
    print_run *runs;
    int n_runs;
    int *section_of, *index_of; /* by node id: its section, and where it stands in it */

    int *turns; /* by repeat: as many as are printed */
    int format; /* of the text */

    print_class *classes;
    int n_classes;
    int *class_of; /* by value id, -1 for values that no node makes */
    bool *used;    /* by value id: read by a node */
    bool *weight_printed, *state_printed;

    print_fused *fused; /* by group */

    const char **weight_names, **state_names;
    qgc_map taken; /* names of inputs, weights, states, and single results */
    qgc_map now; /* name to const qgc_value **: what it means outside of repeats, at this point of the text */
    qgc_map made; /* (name, repeat, layer) to value, up to this point */
} printer;

/* print_roll.c. Names have to be classed before runs are made. */
void qgc_print_sections(printer *p);
void qgc_print_runs(printer *p);
print_origin qgc_print_origin(const printer *p, int section, const qgc_value *v);

/* print_names.c: classes, then their names; the name of a value as it has to be written for a reader who
 * has read up to here. `run` is NULL outside of repeats. */
void qgc_print_classes(printer *p);
void qgc_print_names(printer *p);
const char *qgc_print_name(const printer *p, const qgc_value *v);
const char *qgc_print_reference(printer *p, const qgc_value *v, const print_run *run);
/* As much of a name as the loader takes, made legal. */
const char *qgc_print_legal(qgc_arena *a, const char *name);
/* Tells the names that the text has made this value of a repeat. */
void qgc_print_made(printer *p, const qgc_value *v);
/* What a name means outside of repeats, at this point of the text; NULL if nothing. */
const qgc_value *qgc_print_now(const printer *p, const char *name);
void qgc_print_set_now(printer *p, const char *name, const qgc_value *v);

/* print.c: a text, in double quotes where it has to be. */
void qgc_print_text(qgc_str *out, const char *text);

/* print_kernels.c: kernels from outside that groups name. */
bool qgc_print_has_kernels(const printer *p);
void qgc_print_kernels(printer *p);

/* print_fuse.c: names of groups; what the `fuse` key of a node says, NULL for one in no group. Groups have to be named
 * before runs are made. */
void qgc_print_groups(printer *p);
const char *qgc_print_fuse(const printer *p, const qgc_node *n);

#endif
