#ifndef QGC_LAB_BISECT_H
#define QGC_LAB_BISECT_H

#include "graph/base/pool.h"
#include "graph/base/str.h"
#include "models/weights.h"
#include "runtime/device.h"
#include "runtime/lab/judge.h"
#include "runtime/lab/trial.h"

/* Where a graph begins to compute something else than it should: what `qgc bisect` does. Right is the graph
 * before any pass. The pipeline is run once, and after each of its changes the graph is held against the
 * one before it, in double precision (runtime/lab/judge.h); so all faults are found, in their order,
 * however large the others are. A pass that makes another graph when it is run again is at fault too.
 *
 * On a device, if the graph is right, its kernels are looked at in float32: prefixes of the pipeline are
 * held against the evaluator, first by passes, then by changes of the pass that was found, so that two
 * graphs are left that differ by one change; and these value by value. */

typedef struct {
    /* On the evaluator passes are looked at, kernels are not. `allow_unused` is of `graph`: `against` may
     * leave out what it likes. */
    qgc_experiment run;
    const char
        *text; /* the graph itself, as an artifact holds it, which run.graph then only names; or NULL */
    const char *against;      /* model file of the graph that is right; NULL: run.graph before any pass */
    const char *reproduction; /* folder for a small graph that shows the same; NULL: none is written */
    /* Which steps the graph is judged by. Kernels are looked at in decode steps, or, if it is prefill alone, in steps of 8
     * tokens and more. */
    qgc_judge_phase phase;
    bool
        asks_devices; /* set by bisect itself: kernels from outside that a device has shown to be wrong count as wrong */
} qgc_bisect_options;

typedef enum {
    QGC_BISECT_EQUAL,    /* bit for bit */
    QGC_BISECT_HARMLESS, /* no value is further off than rounding explains */
    QGC_BISECT_WRONG
} qgc_bisect_verdict;

enum { QGC_BISECT_FILES = 8, QGC_BISECT_FAULTS = 16 };

/* A change of a pass after which the graph computes something else. */
typedef struct {
    const char *pass;                        /* NULL: the graph differs from --against before any pass */
    int change, n_changes;                   /* from 1, of so many; 0: no rule tells of it */
    const char *rule, *rule_at, *rule_place; /* NULL where no rule tells of it */
    double before_pass, with_pass, before_change,
        with_change;                  /* logits, from those of the graph that is right */
    const char *value, *node, *place; /* see qgc_bisection; NULL: there is only a reason */
    int64_t position;
    double apart, inputs;
    const char *where; /* "in a prefill of 7 tokens" */
    const char *why;   /* beside numbers: "the rule changed the graph and says that it did not"; NULL */
} qgc_bisect_fault;

/* Distances of tensors are the largest difference of two elements, relative to the largest element; of
 * logits, the largest of all positions. Infinite where one is not a number. Texts live in the arena of the
 * diag. */
typedef struct {
    qgc_bisect_verdict verdict;
    const char *mode; /* of the steps on the device, "graph"; NULL without one */
    int n_passes;
    double all, none; /* of the logits under the whole pipeline, and under no pass */
    double evaluated; /* on a device: of the whole pipeline's on the evaluator; else `all` */
    bool by_kernels;  /* the evaluator finds nothing wrong with the graph: its kernels are at fault */
    bool by_memory; /* nor are they where every result keeps a place of its own: the plan of the memory is */

    const char *pass; /* the first with which they differ; NULL where they differ without any */
    double before_pass, with_pass;

    int change,
        n_changes; /* the first of its changes that does, from 1, of so many; 0: it does not count them */
    double before_change, with_change;
    const char *rule, *rule_at, *rule_place, *rule_text; /* NULL where the pass logs nothing */

    const char *value; /* the first that parts, "ff[7]"; NULL: none that can be read does */
    const char *node;  /* "mul(act_2[7], gate[7])" */
    const char *place; /* "models/qwen2.yaml:70:9" or "" */
    int64_t position;  /* where it is worst */
    double apart;      /* of the value */
    double inputs;     /* of the furthest of what it was computed from */
    double rounding;   /* what rounding explains, given the inputs */
    int n_compared,
        n_unread; /* values: compared, and those that only one side has or that stay inside a kernel */

    const char *where; /* the step in which that is so; NULL: a decode step on the device */
    const char *why;   /* what else there is to say, see qgc_bisect_fault */
    double choices;    /* part of the tokens chosen that are others */

    /* Of the graph, all of them, the first of which is told above. More than there is room for are not
     * looked for. */
    qgc_bisect_fault faults[QGC_BISECT_FAULTS];
    int n_faults;

    const char *files[QGC_BISECT_FILES]; /* written */
    int n_files;
    int64_t steps;           /* of the reproduction: its text is the ids 0 to steps - 1 */
    const char *not_written; /* why there is no reproduction; NULL */
} qgc_bisection;

/* Errors: those of graphs, passes, weights, the device; texts that do not fit; files that cannot be
 * written. A difference is no error. */
QGC_MUST_USE qgc_status qgc_bisect(const qgc_bisect_options *o, qgc_bisection *out, qgc_diag *d);

/* What was found, for people and for programs. */
void qgc_bisect_text(const qgc_bisection *b, const qgc_bisect_options *o, qgc_str *out);
QGC_MUST_USE qgc_status qgc_bisect_json(const qgc_bisection *b, const qgc_bisect_options *o, qgc_str *out,
                                        qgc_diag *d);

#endif
