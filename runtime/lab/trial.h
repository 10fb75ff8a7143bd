#ifndef QGC_LAB_TRIAL_H
#define QGC_LAB_TRIAL_H

#include "graph/base/pool.h"
#include "graph/graph.h"
#include "models/weights.h"
#include "runtime/device.h"

/* A graph made runnable one way, on the CPU evaluator or on a GPU, so that ways can be compared: what `qgc ablate` and
 * `qgc bisect` are made of. Token by token: every step is a decode step, greedy, so that what is compared are the
 * kernels that passes shape. */
typedef struct qgc_trial qgc_trial;

typedef struct {
    qgc_device *device;       /* NULL: the CPU evaluator */
    int64_t ctx;              /* positions */
    bool keep_values;         /* every value can be read after a step */
    const char *cache_folder; /* of compiled kernels, NULL: the user's */
    qgc_pool *pool;
} qgc_trial_options;

/* `g` has been bound to `tensors` (passes/bind_weights.h) and its passes have been run; it, the weights and the pool
 * outlive the trial. Errors: those of lowering, NVRTC, the device, and of weights that do not fit. */
QGC_MUST_USE qgc_status qgc_trial_new(qgc_trial **out, qgc_graph *g, const qgc_weights *weights,
                                      const qgc_tensor *const *tensors, const qgc_trial_options *o,
                                      qgc_diag *d);
void qgc_trial_drop(qgc_trial *t);

/* One step with one token; the position counts up. `logits` gets [vocab] floats, or is NULL. */
QGC_MUST_USE qgc_status qgc_trial_step(qgc_trial *t, int32_t token, float *logits, qgc_diag *d);

/* What the last step computed for a result of the graph, as floats; false where it was not kept, or where it has no
 * memory of its own (a value inside a fused kernel). `*to` lives until the next step. */
QGC_MUST_USE qgc_status qgc_trial_value(qgc_trial *t, const qgc_value *v, const float **to, int64_t *n,
                                        bool *kept, qgc_diag *d);

/* Back to position 0. */
QGC_MUST_USE qgc_status qgc_trial_reset(qgc_trial *t, qgc_diag *d);

/* What a decode step costs by the plan: kernels launched, bytes of weights and of activations moved. On the CPU too,
 * where the plan is only made. */
typedef struct {
    int kernels;
    int64_t weight_bytes, value_bytes;
} qgc_trial_cost;

QGC_MUST_USE qgc_status qgc_trial_cost_of(const qgc_trial *t, qgc_trial_cost *cost, qgc_diag *d);

/* Microseconds of `steps` decode steps in one go from the current position, replayed as a CUDA graph; GPU only. */
QGC_MUST_USE qgc_status qgc_trial_time(qgc_trial *t, int steps, double *us, qgc_diag *d);

#endif
