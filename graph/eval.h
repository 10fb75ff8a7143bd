#ifndef QGC_GRAPH_EVAL_H
#define QGC_GRAPH_EVAL_H

#include "graph/base/pool.h"
#include "graph/graph.h"
#include "graph/sampling.h"

/* Runs a graph on the CPU with the references of the op table: the oracle for every pass and kernel, and
 * the way to run with no GPU. Results are float32, or double; weights are widened row by row as they are stored. */

/* An operand of a reference: where it is and what the symbols of its shape stand for in this step. */
typedef struct {
    qgc_dtype dtype;
    int rank;
    int64_t dim[QGC_MAX_RANK];
    void *data;   /* F32 or I32; a weight or a state may be of any dtype */
    bool is_real; /* F32 that the evaluator made: numbers of its own type, qgc_real in a reference */
} qgc_operand;

/* One node to compute. References read in[] and write out[]; an in-place op finds out[0].data equal to
 * in[0].data. */
typedef struct qgc_call {
    const qgc_node *node;
    qgc_operand in[QGC_MAX_INPUTS];
    qgc_operand out[QGC_MAX_OUTPUTS];
    const qgc_sampling *sampling;
    int64_t ctx; /* positions that caches have room for */
    qgc_pool *pool;
    qgc_arena *scratch; /* dropped after the node */
} qgc_call;

/* Are the indices that the node of a call reads (tokens, rows, positions) of something that is there? References do not look.
 * An error is at the node's place. */
QGC_MUST_USE qgc_status qgc_call_check(const qgc_call *call, const qgc_sizes *sizes, qgc_diag *d);

typedef struct qgc_eval qgc_eval;

/* `weights[v->id]` is the tensor of each weight value of the graph (others are ignored); tensors and graph
 * outlive the evaluator. `ctx` is the number of positions that the caches get, `max_tokens` the largest
 * step. States start as zeros. */
qgc_eval *qgc_eval_new(qgc_graph *g, const qgc_tensor *const *weights, int64_t ctx, int64_t max_tokens,
                       qgc_pool *pool);

/* The same in double precision: results and states of dtype F32 are doubles. What a state of f16 or bf16 holds is rounded to
 * that, once, from the double; nothing else is. Weights are what their format widens to in float32. */
qgc_eval *qgc_eval_new_double(qgc_graph *g, const qgc_tensor *const *weights, int64_t ctx, int64_t max_tokens,
                              qgc_pool *pool);
void qgc_eval_drop(qgc_eval *e);

/* The settings that `sample` reads; greedy until set. */
void qgc_eval_set_sampling(qgc_eval *e, const qgc_sampling *s);

/* From the next step on only the outputs of the graph can be read, and results share memory: a 512-token step of
 * a 0.5B model then takes some 50 MB instead of 1.4 GB. */
void qgc_eval_keep_outputs_only(qgc_eval *e);

/* Runs the graph over n tokens at positions first, first + 1, ...; with all_rows logits are computed for
 * every token, else for the last. Errors: n is not within 1..max_tokens, the positions run past ctx, a node is given
 * an index that is outside of its table or cache (at the node's place), a cache that is a ring does not hold what the step sees: it
 * goes back too far, leaves positions out, or is too long (at the place of the attention). */
QGC_MUST_USE qgc_status qgc_eval_step(qgc_eval *e, const int32_t *tokens, int64_t n, int64_t first,
                                      bool all_rows, qgc_diag *d);

/* Are the logits of the rows of the last step numbers, none of them infinite? */
bool qgc_eval_is_finite(const qgc_eval *e);

/* Runs the last step once more, the same tokens at the same positions, and looks at each value on its way. Always an error,
 * which names the first node that made what is no number, or is infinite, and a weight of it that holds such. */
QGC_MUST_USE qgc_status qgc_eval_find_not_finite(qgc_eval *e, const int32_t *tokens, int64_t n, int64_t first,
                                                 qgc_diag *d);

/* What the last step computed: an output of the graph by its name, or any value (results live in the
 * evaluator until the next step). `*elems` is its size. The caller knows from v->dtype what it points to
 * (F32: doubles, where the evaluator is one in double precision); a
 * weight is as its tensor is stored. NULL before the first step, and where only outputs are kept. */
const void *qgc_eval_value(const qgc_eval *e, const qgc_value *v, int64_t *elems);

#endif
