#ifndef QGC_LAB_BISECT_SLICE_H
#define QGC_LAB_BISECT_SLICE_H

#include "graph/base/map.h"
#include "runtime/lab/bisect_impl.h"
#include "runtime/lab/gguf_write.h"

/* The reproduction is a model of its own. What goes into the nodes around the value that parts was the same on both sides; it
 * becomes tables, a row for each position, and the token of a step is the number of its row:
 *
 *   tokens 0, 1, 2, ... --embedding--> gate_7 --+
 *   tokens 0, 1, 2, ... --embedding--> up_7 ----+--> the nodes --> logits
 *
 * States come about by themselves, as the nodes that change them are among those nodes. */

/* A value that both sides agree on, and that nodes of the slice read. */
typedef struct {
    const qgc_value *value; /* of the bad side */
    const qgc_value *twin;  /* of the good one */
    const char *name;
    qgc_str rows; /* floats, [steps, width] */
} bisect_table;

typedef struct {
    const bisect_side *good, *bad;
    const bisect_comparison *c;
    const qgc_value *output; /* of the bad side: what the slice is for */
    bool by_kernels;
    int64_t steps;
    bisect_table *tables;
    size_t n_tables;
    qgc_map weights; /* names of those in the file */
    qgc_gguf_writer file;
    qgc_str data; /* of its tensors */
    qgc_arena *arena;
    qgc_diag *d;
} bisect_slices;

/* One side's nodes. */
typedef struct {
    bisect_slices *s;
    const bisect_side *side;
    const qgc_value **in_bad; /* by id: the value of the bad side that a value stands for, or NULL */
    const qgc_value *output;
    bool *in_slice;     /* by node id */
    const char **names; /* by value id */
    qgc_map taken;      /* names */
} bisect_slice;

/* The group of the kernel that is at fault. */
#define BISECT_GROUP "kernel"

/* The value of the bad side that the slices end in: the one that parts, or of those computed from it the first that differs
 * and is rows of floats; NULL if there is none. */
const qgc_value *bisect_slice_output(const bisect_slices *s);

/* The nodes of one side between what both agree on and s->output; the tables that they read join s->tables. */
bisect_slice bisect_slice_new(bisect_slices *s, const bisect_side *side);

/* The name of a value in the slice's model file. */
const char *bisect_slice_name(bisect_slice *x, const qgc_value *v);

/* The model file of a slice. The weights of its nodes go into s->file and s->data. */
const char *bisect_slice_text(bisect_slice *x, const int32_t *tokens);

#endif
