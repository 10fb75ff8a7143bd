#ifndef QGC_LAB_SEARCH_H
#define QGC_LAB_SEARCH_H

#include "graph/base/str.h"
#include "runtime/lab/trial.h"

/* The fastest pipeline of a graph: what `qgc search` does. It climbs: of what is best so far one thing is changed (a
 * pass more or less, in another place, with another option, a kind of group cut), or two passes at once. Changes are tried in batches, each against the best so far; of a batch the change that saves most is
 * taken, then the others that saved something, one on top of the other, as far as they still save. What saved most before is
 * tried first.
 *
 * A candidate first has to compute what the graph computes before any pass, as the judge of bisect
 * has it (runtime/lab/judge.h), and on a device its kernels the same logits; then it is timed against the best so far,
 * in pairs, and is better if the interval of what it saves lies above zero; or, where it takes less memory for results,
 * if the interval reaches zero and lies above minus half a percent of a step. Without a device a model stands for the
 * time: launches and bytes (qgc_mode_cost); of candidates with the same launches and bytes, the one with less memory is
 * better.
 *
 * In the end what may be as fast as the best is timed longer, and the best is timed, as long, against the start and the default
 * pipeline. With `layers` candidates are made of the first layers only, and that end is of the whole model.
 *
 * What is tried, and in which order, depends on the seed and on what was found to be better. */

typedef enum {
    QGC_SEARCH_START,
    QGC_SEARCH_BETTER,
    QGC_SEARCH_NO_BETTER,
    QGC_SEARCH_SAME,   /* it makes the graph of an earlier candidate */
    QGC_SEARCH_WRONG,  /* it computes something else */
    QGC_SEARCH_REFUSED /* it does not compile, or does not run in the mode */
} qgc_search_verdict;

typedef struct {
    int parent; /* the candidate that it is a change of; -1: none */
    const char *
        change; /* "+fuse-qkv", "-dead-code", "fuse-pointwise(max=4)", "fuse-qkv first", "cut mlp: prologue" */
    qgc_search_verdict verdict;
    int same_as;     /* of SAME */
    const char *why; /* of WRONG and REFUSED */
    qgc_trial_cost cost;
    double model;                /* of the cost: qgc_mode_cost */
    double us, saved, low, high; /* a step, and what it saves against the best so far; NaN without a device */
    double seconds;              /* from the start of the search until it was judged and timed */
} qgc_search_try;

/* A pipeline that the best is compared with in the end. */
typedef struct {
    const char *what, *passes; /* "the start", "the default" */
    qgc_search_try of;         /* START, WRONG or REFUSED; its time, and what the best saves against it */
} qgc_search_rival;

enum { QGC_SEARCH_RIVALS = 2 };

typedef struct {
    qgc_experiment run; /* from run.passes and run.skip it starts */
    int64_t ctx;        /* positions of the caches; the last of them are timed */
    int pairs;
    uint64_t seed;
    double seconds; /* no further candidate is begun after so many; the end comes on top */
    int most;       /* nor after so many candidates; 0: there is no limit */
    int layers;     /* of each repeat, that candidates are made of; 0: all */
} qgc_search_options;

typedef struct {
    const char *mode; /* of the steps, "graph"; NULL on the CPU */
    qgc_search_try *tries;
    int n_tries;
    int best;
    bool is_complete;           /* no change of one thing, and none of two passes, is better than the best */
    int layers_left, layers_of; /* those that were searched; 0: all were */
    const char *passes;         /* of the best */
    const char *yaml;      /* a model file that has the best: its passes, and its groups where some are cut */
    qgc_search_try result; /* the best in the whole model; its `us` as timed against the last rival */
    qgc_search_rival rivals[QGC_SEARCH_RIVALS];
    int n_rivals;
    double seconds; /* that all of it took */
} qgc_search;

/* The result lives in the arena of `d`. Errors: those of the graph as it starts; options that make no sense. */
QGC_MUST_USE qgc_status qgc_search_run(const qgc_search_options *o, qgc_search *out, qgc_diag *d);

/* What was tried, as a tree, and for programs. */
void qgc_search_text(const qgc_search *s, const qgc_search_options *o, qgc_str *out);
QGC_MUST_USE qgc_status qgc_search_json(const qgc_search *s, const qgc_search_options *o, qgc_str *out,
                                        qgc_diag *d);

#endif
