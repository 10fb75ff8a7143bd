#ifndef QGC_LAB_TRIAL_H
#define QGC_LAB_TRIAL_H

#include "graph/base/pool.h"
#include "graph/graph.h"
#include "graph/sampling.h"
#include "models/weights.h"
#include "passes/passes.h"
#include "runtime/device.h"

/* What `qgc ablate` and `qgc bisect` have in common: a graph, its passes, and a text that goes through it, step by step. */
typedef struct {
    const char *graph; /* path of the YAML */
    const qgc_weights *weights;
    bool allow_unused;
    const char *passes, *skip; /* the pipeline, see qgc_pass_options */
    qgc_device *device;        /* NULL: the CPU evaluator */
    const char *mode;          /* of steps on the device, see qgc_trial_options */
    const char *cache_folder;  /* of compiled kernels, NULL: the user's */
    qgc_pool *pool;
    const int32_t *tokens; /* of a text, at least one */
    size_t n_tokens;
    int64_t positions;           /* that are compared; after the text goes on what is most likely */
    const qgc_pass_watch *watch; /* looks on while passes run; NULL */
    /* Called after each of `total` parts of the work; may be NULL. */
    void (*progress)(void *context, size_t done, size_t total);
    void *context;
} qgc_experiment;

/* A graph made runnable one way, on the CPU evaluator or on a GPU, so that ways can be compared: what the two are made of.
 * Token by token: every step is a decode step, greedy, so that what is compared are the kernels that passes shape. Or, with
 * `chunk`, several tokens at a time: then every step is one of prefill. */
typedef struct qgc_trial qgc_trial;

typedef struct {
    qgc_device *device;       /* NULL: the CPU evaluator */
    const char *mode;         /* of runtime/mode.h, on a device; "auto": the fastest; NULL: graph */
    int64_t ctx;              /* positions */
    int64_t chunk;            /* 0: decode steps; else the most tokens of a prefill step, 2 or more */
    bool keep_values;         /* every value can be read after a step */
    bool in_double;           /* on the CPU: the evaluator in double precision; only logits are read then */
    const char *cache_folder; /* of compiled kernels, NULL: the user's */
    qgc_pool *pool;
    /* A trial of the same weights on the same device: what it has uploaded serves this one too, and it is dropped after
     * this one. NULL for none. */
    const qgc_trial *share;
} qgc_trial_options;

/* `g` has been bound to `tensors` (passes/bind_weights.h) and its passes have been run; it, the weights, the pool and the
 * device outlive the trial. On a GPU `g` is lowered and compiled for it, through the cache and with what `qgc tune`
 * has found, as `qgc run` does, and the weights go up unless they are shared. Errors: those of lowering, NVRTC, the
 * device, and of weights that do not fit. */
QGC_MUST_USE qgc_status qgc_trial_new(qgc_trial **out, qgc_graph *g, const qgc_weights *weights,
                                      const qgc_tensor *const *tensors, const qgc_trial_options *o,
                                      qgc_diag *d);
/* Compiles the kernels of such a trial, on a device, into the cache, and nothing else. */
QGC_MUST_USE qgc_status qgc_trial_compile(qgc_graph *g, const qgc_trial_options *o, qgc_diag *d);
/* NULL is allowed. */
void qgc_trial_drop(qgc_trial *t);

/* In which mode steps run: "graph"; NULL on the CPU. And why the graph cannot run in it, NULL if it can: that is no error of
 * qgc_trial_new, but of every step. */
const char *qgc_trial_mode(const qgc_trial *t);
const char *qgc_trial_refusal(const qgc_trial *t);

/* The logits of a step. */
int64_t qgc_trial_vocab(const qgc_trial *t);

/* Tokens taken since the start or the last reset. */
int64_t qgc_trial_position(const qgc_trial *t);

/* One step with one token; the position counts up. `logits` gets [vocab] floats, or is NULL, as it has to be in double. Errors: a token that is
 * not in the vocabulary, no position left; those of the device. */
QGC_MUST_USE qgc_status qgc_trial_step(qgc_trial *t, int32_t token, float *logits, qgc_diag *d);

/* The same with n tokens: one step of prefill, 2 to `chunk` of them. The logits are those of the last one. */
QGC_MUST_USE qgc_status qgc_trial_feed(qgc_trial *t, const int32_t *tokens, int64_t n, float *logits,
                                       qgc_diag *d);

/* How a text of n tokens is cut for a trial: into how many steps, and the end of step i (the beginning of the next). */
int64_t qgc_trial_steps(const qgc_trial *t, int64_t n);
int64_t qgc_trial_step_end(const qgc_trial *t, int64_t n, int64_t i);

/* The logits of the last step: all digits that there are. */
QGC_MUST_USE qgc_status qgc_trial_logits(qgc_trial *t, double *logits, qgc_diag *d);

/* Steps on a device choose so from now on. */
QGC_MUST_USE qgc_status qgc_trial_set_sampling(qgc_trial *t, const qgc_sampling *s, qgc_diag *d);

/* What the last step computed for a result of the graph, as floats, with R = 1 and T the tokens of the step; a changed state is all of it. *kept
 * is false, and nothing is read, where the value has no memory of its own (inside a fused or the persistent kernel), where it was not
 * kept (without keep_values there are the outputs and the states only), for what is no result, and before the first
 * step. `*to` lives until the next step or reset. */
QGC_MUST_USE qgc_status qgc_trial_value(qgc_trial *t, const qgc_value *v, const float **to, int64_t *n,
                                        bool *kept, qgc_diag *d);

/* Back to position 0, with states as they were at the start. */
QGC_MUST_USE qgc_status qgc_trial_reset(qgc_trial *t, qgc_diag *d);

/* What a decode step costs by the plan, in the trial's mode, or a prefill step of `chunk` tokens. On the CPU too, where the plan is only made. */
typedef struct {
    int kernels;          /* launched */
    int64_t weight_bytes; /* of matrices that products read */
    /* Of results, inputs and outputs that kernels hand to one another: each launch counts what it names once; caches,
     * tables and settings are not counted. */
    int64_t value_bytes;
    int64_t scratch_bytes; /* memory for results */
} qgc_trial_cost;

QGC_MUST_USE qgc_status qgc_trial_cost_of(const qgc_trial *t, qgc_trial_cost *cost, qgc_diag *d);

/* Microseconds of `steps` decode steps in one go from the current position, on the clock of the GPU. The device feeds itself; the position counts up by `steps`. Errors: on the CPU; before the first step; no
 * positions left; more than 1024 steps. */
QGC_MUST_USE qgc_status qgc_trial_time(qgc_trial *t, int steps, double *us, qgc_diag *d);

/* The same of a prefill step of n tokens from position 0 on. */
QGC_MUST_USE qgc_status qgc_trial_time_feed(qgc_trial *t, const int32_t *tokens, int64_t n, double *us,
                                            qgc_diag *d);

#endif
