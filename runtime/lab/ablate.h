#ifndef QGC_LAB_ABLATE_H
#define QGC_LAB_ABLATE_H

#include "graph/base/pool.h"
#include "models/weights.h"
#include "runtime/device.h"
#include "runtime/engine/stats.h"
#include "runtime/lab/pairs.h"
#include "runtime/lab/trial.h"

/* What each pass of a pipeline is good for: the graph is run with the whole pipeline and without each pass
 * (left out), and with no pass and with each pass alone. Compared are the time and the cost of a decode
 * step, and the logits over a text, token by token: on the CPU in double precision. Each graph is judged
 * too. */

typedef struct {
    qgc_experiment run; /* on the CPU evaluator there are no times */
    int64_t ctx;        /* positions of the caches; times are taken at the end of them */
    int pairs;          /* of timings, alternating; 6 or more */
    bool prefill; /* steps are those of a prompt, `ctx` tokens at once where they are timed and counted */
    int subsets;  /* random subsets of the pipeline, in random orders, whose logits are compared too */
} qgc_ablate_options;

/* What one way to run the graph costs. */
typedef struct {
    const char *refused; /* why it cannot run in the mode, and there are no numbers; NULL if it can */
    qgc_trial_cost cost;
    double us; /* median of a decode step; NaN on the CPU */
} qgc_ablate_way;

/* What a pass, or several, change. Positive numbers are savings. */
typedef struct {
    const char
        *refused; /* why one of the two that are compared cannot run in the mode; then there are no numbers */
    qgc_interval us; /* a decode step: median of paired differences, 95% interval; NaN on the CPU */
    int kernels;     /* a step */
    int64_t bytes;   /* of values a step, see qgc_trial_cost */
    qgc_drift drift; /* of the logits */
    bool
        is_wrong; /* the graph without the pass, or with it alone, computes something else than before any: judge.h */
} qgc_ablate_effect;

typedef struct {
    const char *pass; /* with options, as it was asked for */
    int fired, fired_alone;
    qgc_ablate_effect left_out; /* the whole pipeline, against the pipeline without the pass */
    qgc_ablate_effect alone;    /* the pass by itself, against no pass */
} qgc_ablate_row;

typedef struct {
    int64_t positions;
    bool prefill;
    const char *mode; /* of the steps, "graph"; NULL on the CPU */
    bool timed;
    qgc_ablate_way all, none; /* the whole pipeline, and no pass */
    qgc_ablate_effect total;  /* the whole pipeline, against no pass */
    qgc_ablate_row *rows;     /* in the order of the pipeline */
    size_t n_rows;

    int n_subsets, n_refused; /* of which so many cannot run in the mode */
    int n_wrong_subsets;
    qgc_drift subsets;        /* of the others, against no pass */
    const char *worst_subset; /* the one whose logits differ most; NULL without subsets */
} qgc_ablation;

/* The result lives in the arena of `d`. Errors: those of the graph, its passes and its trials; positions or
 * ctx beyond what the model takes; a mode in which the whole pipeline cannot run, while that of a part of
 * it is said in `refused`. */
QGC_MUST_USE qgc_status qgc_ablate(const qgc_ablate_options *o, qgc_ablation *out, qgc_diag *d);

#endif
