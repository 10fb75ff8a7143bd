#ifndef QGC_LAB_TUNE_H
#define QGC_LAB_TUNE_H

#include "codegen/tuning.h"
#include "graph/base/str.h"
#include "graph/graph.h"
#include "models/weights.h"

/* Finds fast settings of kernels by trying: knob after knob, each candidate against the best so far, in turns on one GPU.
 * A candidate first has to compute what the best so far computes. All of that happens in a process of its own, which
 * is started anew when a candidate ends it or hangs; this process touches no GPU. */

/* What became of a candidate. */
typedef enum {
    QGC_TUNE_SLOWER, /* or no faster for certain */
    QGC_TUNE_FASTER, /* it is the best so far */
    QGC_TUNE_WRONG,  /* it computes something else */
    QGC_TUNE_FAILED, /* it does not compile, start or end */
} qgc_tune_verdict;

typedef struct {
    const char *kernel, *name;
    int64_t value;
    qgc_tune_verdict verdict;
    double base_us, us;     /* of a step, medians of turns */
    double low_us, high_us; /* 96 % interval of what a step gets longer */
    const char *why;        /* of WRONG and FAILED */
} qgc_tune_result;

typedef struct {
    qgc_graph *graph; /* bound to the weights, its passes have been run */
    const qgc_weights *weights;
    int gpu;
    const char *mode; /* of runtime/mode.h, or "auto" */
    const char *only; /* kernels whose name contains it; NULL: all that the mode runs */
    const char *cache_folder;
    int64_t position; /* tokens in the caches when steps are timed */
    double seconds;   /* no further candidate is begun after so many */
    double patience;  /* seconds for one candidate, which is then given up */
    void (*report)(void *context, const qgc_tune_result *r);
    void *context;
} qgc_tune_options;

/* Extends `tuning` by what was found, on the card that it names then, and by the times of steps in each mode; its arch has to be that of the GPU, or NULL, and is then set. Errors: no GPU, a
 * graph that does not compile with the usual settings. */
QGC_MUST_USE qgc_status qgc_tune(qgc_tuning *tuning, const qgc_tune_options *o, qgc_diag *d);

/* What was tried, in order. */
typedef struct {
    qgc_tune_result *results;
    size_t n;
    int kept;
    qgc_arena *arena; /* lives as long as what the results point to */
} qgc_tune_log;

void qgc_tune_log_add(qgc_tune_log *log, const qgc_tune_result *r);

/* All of it as JSON, with the settings that hold now and the file that they were written to (NULL: none). Errors: those of
 * qgc_report_json. */
QGC_MUST_USE qgc_status qgc_tune_json(const qgc_tune_log *log, const qgc_tuning *t, const char *written,
                                      qgc_str *out, qgc_diag *d);

#endif
