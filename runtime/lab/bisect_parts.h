#ifndef QGC_LAB_BISECT_PARTS_H
#define QGC_LAB_BISECT_PARTS_H

#include "passes/passes.h"
#include "runtime/lab/bisect.h"
#include "runtime/lab/trial.h"

/* What the files of bisect share. */

/* A graph made runnable, and what it made of the text. */
typedef struct {
    qgc_arena *arena;
    qgc_graph *graph;
    const qgc_tensor **tensors;
    qgc_pass_report report;
    qgc_trial *trial;
    float *logits; /* [positions, vocab] */
    int32_t *next; /* [positions]; -1 where the graph has no output of that name */
    int64_t vocab;
} bisect_side;

/* What two sides made of a value of the bad one, at the position where that is hardest to explain. */
typedef struct {
    const qgc_value *other; /* its counterpart on the good side; NULL: there is none, or it cannot be read */
    double apart, inputs, rounding;
    double ratio; /* of `apart` to what `inputs` and `rounding` explain: above 1 it is wrong */
    int64_t position;
    double most; /* distance at any position */
} bisect_value;

typedef struct {
    bisect_value *values;  /* by id of the bad side's values */
    const qgc_value *part; /* the first that parts; NULL if none does */
    int n_compared, n_unread;
} bisect_comparison;

/* Runs both sides over the text, value by value. The trials keep their values. */
QGC_MUST_USE qgc_status bisect_compare(const bisect_side *good, const bisect_side *bad, const int32_t *tokens,
                                       int64_t positions, bool by_kernels, bisect_comparison *out,
                                       qgc_diag *d);

/* Distance of two tensors, see qgc_bisection. */
double bisect_distance(const float *good, const float *bad, int64_t n);

/* Of a choice: what its logit lacks of that of the one wanted, as a part of the largest. */
double bisect_choice_distance(const float *logits, int64_t vocab, int64_t want, int64_t got);

/* "mul(act[7], up[7])" */
const char *bisect_node_text(const qgc_node *n, qgc_arena *a);

/* Writes the reproduction: the nodes around the value that parts, as bad.yaml and, unless kernels are at fault, good.yaml;
 * inputs.gguf with what goes into them, step by step, and their weights; the source of the kernel. */
QGC_MUST_USE qgc_status bisect_write(const char *folder, const bisect_side *good, const bisect_side *bad,
                                     const bisect_comparison *c, const int32_t *tokens, int64_t positions,
                                     bool by_kernels, qgc_bisection *out, qgc_diag *d);

#endif
