#ifndef QGC_LAB_ABLATE_H
#define QGC_LAB_ABLATE_H

#include "graph/base/pool.h"
#include "models/weights.h"
#include "runtime/device.h"
#include "runtime/lab/stats.h"
#include "runtime/lab/trial.h"

/* What each pass of a pipeline is good for: the graph is run with the whole pipeline and without each pass (left out), and
 * with no pass and with each pass alone. Compared are the time and the cost of a decode step, and the logits over a
 * text, token by token. */

typedef struct {
    const char *graph; /* path of the YAML */
    const qgc_weights *weights;
    bool allow_unused;
    const char *passes, *skip; /* the pipeline, see qgc_pass_options */
    qgc_device *device;        /* NULL: the CPU evaluator, and no times */
    const char *cache_folder;  /* of compiled kernels, NULL: the user's */
    qgc_pool *pool;
    const int32_t *tokens; /* of a text, at least one */
    size_t n_tokens;
    int64_t positions; /* that are compared; behind the text goes on what the whole pipeline chooses */
    int64_t ctx;       /* positions of the caches; times are taken at the end of them */
    int pairs;         /* of timings, alternating; 6 or more */
    int subsets;       /* random subsets of the pipeline, in random orders, whose logits are compared too */
    /* Called after each of `total` parts of the work; may be NULL. */
    void (*progress)(void *context, size_t done, size_t total);
    void *context;
} qgc_ablate_options;

enum { QGC_ABLATE_STEPS = 16 }; /* decode steps in one timing */

/* What one way to run the graph costs. */
typedef struct {
    qgc_trial_cost cost;
    double us; /* median of a decode step; NaN on the CPU */
} qgc_ablate_way;

/* What a pass, or several, change. Positive numbers are savings. */
typedef struct {
    qgc_interval us; /* a decode step: median of paired differences, 95% interval; NaN on the CPU */
    int kernels;     /* a step */
    int64_t bytes;   /* of values a step, see qgc_trial_cost */
    qgc_drift drift; /* of the logits */
} qgc_ablate_effect;

typedef struct {
    const char *pass; /* with options, as it was asked for */
    int fired, fired_alone;
    qgc_ablate_effect left_out; /* the whole pipeline, against the pipeline without the pass */
    qgc_ablate_effect alone;    /* the pass by itself, against no pass */
} qgc_ablate_row;

typedef struct {
    int64_t positions;
    bool timed;
    qgc_ablate_way all, none; /* the whole pipeline, and no pass */
    qgc_ablate_effect total;  /* the whole pipeline, against no pass */
    qgc_ablate_row *rows;     /* in the order of the pipeline */
    size_t n_rows;

    int n_subsets;
    qgc_drift subsets;        /* of all of them, against no pass */
    const char *worst_subset; /* the one whose logits differ most; NULL without subsets */
} qgc_ablation;

/* The result lives in the arena of `d`. Errors: those of the graph, its passes and its trials; positions or ctx beyond what
 * the model takes. */
QGC_MUST_USE qgc_status qgc_ablate(const qgc_ablate_options *o, qgc_ablation *out, qgc_diag *d);

#endif
