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

/* The graph of a side with its weights: of the one that is right, or the one at hand, before any pass. */
QGC_MUST_USE qgc_status bisect_load(const qgc_bisect_options *o, bool is_reference, bisect_side *s,
                                    qgc_diag *d);

/* "models/qwen2.yaml:70:9", or "". */
const char *bisect_place(qgc_loc at, qgc_arena *a);

/* What judging needs and leaves: the graph that is right, the one at hand under all passes, and the judge,
 * which keeps the two graphs around the first fault, or around the first change that is harmless. */
typedef struct {
    bisect_side right, own;
    qgc_judge *judge; /* NULL where judging did not begin */
} bisect_judged;

/* Judges the pipeline change by change, over a text of o->run.positions tokens; fills the faults of *out
 * and its verdict. Whatever comes of it, *judged is dropped by the caller. */
QGC_MUST_USE qgc_status bisect_graphs(const qgc_bisect_options *o, const int32_t *tokens,
                                      bisect_judged *judged, qgc_bisection *out, qgc_diag *d);
void bisect_judged_drop(bisect_judged *judged);

/* Writes the reproduction of what the judge has kept, judges it in its turn, and takes it back where it
 * does not show the same. */
QGC_MUST_USE qgc_status bisect_reproduce(const qgc_bisect_options *o, const bisect_judged *judged,
                                         const int32_t *tokens, qgc_bisection *out, qgc_diag *d);

/* Runs both sides over the text, value by value. The trials keep their values. */
QGC_MUST_USE qgc_status bisect_compare(const bisect_side *good, const bisect_side *bad, const int32_t *tokens,
                                       int64_t positions, bool by_kernels, bisect_comparison *out,
                                       qgc_diag *d);

/* Distance of two tensors, see qgc_bisection. */
double bisect_distance(const float *good, const float *bad, int64_t n);

/* Of a choice: how far its logit is below that of the one wanted, relative to the largest logit. */
double bisect_choice_distance(const float *logits, int64_t vocab, int64_t want, int64_t got);

/* "mul(act[7], up[7])" */
const char *bisect_node_text(const qgc_node *n, qgc_arena *a);

/* Writes the reproduction: the nodes around the value that parts, as bad.yaml and, unless kernels are at
 * fault, good.yaml; inputs.gguf with what goes into them, step by step, and their weights; the source of
 * the kernel. */
QGC_MUST_USE qgc_status bisect_write(const char *folder, const bisect_side *good, const bisect_side *bad,
                                     const bisect_comparison *c, const int32_t *tokens, int64_t positions,
                                     bool by_kernels, qgc_bisection *out, qgc_diag *d);

/* A fingerprint of a graph: is it another one than it was? */
typedef struct {
    uint64_t flow;          /* what is computed from what, but not names inside, nor the order of the list */
    uint64_t groups, order; /* these two */
    uint64_t declared;      /* of which tensors weights are, parameters, and what files it is for */
} bisect_print;

bisect_print bisect_print_graph(const qgc_graph *g);

/* Are the tokens that a device chooses those that the reference chooses from the same logits, under each of the settings that the judge
 * has? The first that is not goes into *out. Where the choice is not made of the output "logits", nothing is looked at. */
QGC_MUST_USE qgc_status bisect_choices(bisect_side *s, const int32_t *tokens, int64_t positions,
                                       qgc_bisection *out, qgc_diag *d);

/* A copy that a pass cannot change what is declared of. */
qgc_graph *bisect_copy_declared(const qgc_graph *g, qgc_arena *a);

/* Finds the tensors of a graph's weights as a program would that is made of it now: *tensors become them, *others where they are not
 * those that were bound, which the judge then takes. Else what is wrong with what it declares, against the graph `was` before any
 * pass. */
const char *bisect_rebind(const qgc_graph *was, const qgc_graph *g, const qgc_weights *weights,
                          const qgc_tensor *const **tensors, bool *others, qgc_arena *a);

/* What is wrong with what it declares although these weights are the same tensors: weights of the other format are others, say, or a
 * derived one is stored with fewer digits than all that it is made of. NULL: nothing. */
const char *bisect_declared_objection(const qgc_graph *was, const qgc_graph *g,
                                      const qgc_tensor *const *tensors, qgc_arena *a);

#endif
