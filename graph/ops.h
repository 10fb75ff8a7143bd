#ifndef QGC_GRAPH_OPS_H
#define QGC_GRAPH_OPS_H

#include "graph/eval.h"
#include "graph/graph.h"
#include "graph/real.h"

/* What the files graph/ops_*.c share: the declarations of all rules and references, made from the table,
 * and the checks that most shape rules need. `role` is what the op calls the input: "weight", "positions". */

#define OP(tag, name, min_in, max_in, n_out, signature, attrs, function, traits, summary) \
    qgc_infer_fn infer_##function;                                                        \
    qgc_ref_fn ref_##function, ref_##function##_double;
#include "graph/ops.def"
#undef OP

/* Input i has that dtype, or a dtype that holds real numbers, or one that a cache may have. */
QGC_MUST_USE qgc_status qgc_want_dtype(const qgc_node *n, int i, const char *role, qgc_dtype dtype,
                                       qgc_diag *d);
QGC_MUST_USE qgc_status qgc_want_real(const qgc_node *n, int i, const char *role, qgc_diag *d);
QGC_MUST_USE qgc_status qgc_want_cache(const qgc_node *n, int i, const char *role, qgc_diag *d);

/* Input i has the shape of `form`, such as "[rows, heads*d]": T, R and ctx stand for these symbols, rows for T
 * or R, any other word for a number. */
QGC_MUST_USE qgc_status qgc_want_form(const qgc_node *n, int i, const char *role, const char *form,
                                      qgc_diag *d);

/* Input i holds indices of `form`, and is not an input of the graph that means something else: rows of a cache are not
 * chosen by tokens. */
QGC_MUST_USE qgc_status qgc_want_indices(const qgc_node *n, int i, const char *role, const char *form,
                                         qgc_diag *d);

/* Input 0 is a state, or a version of one that an op changed in place. */
QGC_MUST_USE qgc_status qgc_want_state(const qgc_node *n, const char *role, qgc_diag *d);

/* Attribute `name` is a finite number from `least` on, and a whole one if asked for. */
QGC_MUST_USE qgc_status qgc_want_number(const qgc_node *n, const char *name, double least, bool whole,
                                        qgc_diag *d);

/* The attribute's value: a number, or of a choice the index of the word. */
double qgc_node_number(const qgc_node *n, const char *name);
int qgc_node_choice(const qgc_node *n, const char *name);

/* "q[3]": the label of the first output, by which errors name the node. */
const char *qgc_node_label(const qgc_node *n, qgc_arena *a);

/* "weight", "state", "input" or "value": what to call v in an error. */
const char *qgc_value_word(const qgc_value *v);

/* Adds the note that says where v comes from, unless that is the place of the error itself. */
void qgc_note_origin(const qgc_node *n, const qgc_value *v, qgc_diag *d);

/* Philox4x32-10 (see graph/ops_sample.c): the counter becomes 128 random bits. */
void qgc_philox(const uint32_t key[2], uint32_t counter[4]);

/* The only output gets this shape and dtype. */
void qgc_give(qgc_node *n, const qgc_shape *shape, qgc_dtype dtype);

#endif
