#ifndef TESTS_SUPPORT_EVAL_DOUBLE_H
#define TESTS_SUPPORT_EVAL_DOUBLE_H

#include "graph/graph.h"
#include "graph/sampling.h"

/* A second evaluator, in double precision: plain loops over the formulas of graph/ops.def, which share no
 * code with the references of graph/ops_*.c. Nothing is rounded but what goes into a cache of f16 or bf16.
 * Slow, for small graphs. */
typedef struct eval_double eval_double;

/* `weights[v->id]` is the tensor of each weight, stored as f32, f16, bf16 or q8_0; graph and tensors
 * outlive the evaluator, which lives in `a`. `ctx` is the number of positions that caches get. States
 * start as zeros. */
eval_double *eval_double_new(const qgc_graph *g, const qgc_tensor *const *weights, int64_t ctx, qgc_arena *a);
void eval_double_drop(eval_double *e);

/* Greedy until set. */
void eval_double_set_sampling(eval_double *e, const qgc_sampling *s);

/* Runs the graph over n tokens at positions first, first + 1, ...; rows are all of them, or the last. A value
 * that the kernel of a group does not leave in memory is NaN for a reader outside of it. Fails the test at an
 * op that it does not know. */
void eval_double_step(eval_double *e, const int32_t *tokens, int64_t n, int64_t first, bool all_rows);

/* Called after each node with the `n` numbers of its result, which it may change for those that read it. */
typedef void eval_double_see(void *context, const qgc_node *node, double *x, int64_t n);
void eval_double_watch(eval_double *e, eval_double_see *see, void *context);

/* Any value as the last step left it, whole numbers too; *n is its size. Results live until the next step. */
const double *eval_double_value(const eval_double *e, const qgc_value *v, int64_t *n);

#endif
