#ifndef QGC_LAB_JUDGE_H
#define QGC_LAB_JUDGE_H

#include "graph/base/pool.h"
#include "graph/graph.h"

/* Does a graph compute what the graph before it computed? In double precision, with caches that are not
 * rounded, so that sums in another order differ by 1e-16 to 1e-13 and what is wrong by more than
 * QGC_JUDGE_BOUND.
 *
 * A value is known by what it is computed from: the op, its attributes, and the values that it reads. Two
 * graphs therefore share most of their values, and only what is new in the second is computed:
 *
 *   before   h -> gate -> act -> ff -> down -> x ... logits      all known
 *   now      h -> gate -> act -> fg -> down                      fg is new: it is computed, over all steps
 *
 * If the numbers of a new value are those of a known one, to the bound, it is that one from there on, under
 * whatever name it stands: differences do not add up, and what reads it is known again. What stays new
 * reaches the logits, the choice or a state.
 *
 * Steps are a prompt in chunks (T > 1, of which all rows are wanted, or the last), decode steps, and both
 * again at a far position where the caches hold random numbers. Each starts from the states that the first
 * graph had there: if outputs and new states are the same functions of inputs and states, step by step, so
 * is all that follows. Where a state is another function, the steps are run in a row, each graph with its
 * own states, and outputs decide. Each choice of a token is made several times, with other settings of
 * sampling. */
typedef struct qgc_judge qgc_judge;

/* 2^-41, of which float32 would make 2^-12: what loses more digits than that is no other order of a sum. An element is held
 * against the largest of its row. */
#define QGC_JUDGE_BOUND 4.547473508864641e-13

typedef enum { QGC_PHASE_BOTH, QGC_PHASE_ONLY_PREFILL, QGC_PHASE_ONLY_DECODE } qgc_judge_phase;

typedef struct {
    const int32_t *tokens; /* a text: at least one, each in the vocabulary */
    int64_t n_tokens;
    qgc_judge_phase phase;
    qgc_pool *pool;
} qgc_judge_options;

typedef enum {
    QGC_JUDGE_SAME,  /* no value is new */
    QGC_JUDGE_EQUAL, /* those that are have the bits of known ones */
    QGC_JUDGE_DRIFT, /* ... or differ by no more than rounding in double precision */
    QGC_JUDGE_WRONG
} qgc_judge_verdict;

/* What is different of a graph. Values are of the graph that was handed in, or of its copy, which lives as
 * long as the judge. */
typedef struct {
    qgc_judge_verdict verdict;
    const qgc_value
        *value; /* the first that differs from what was in its place; NULL where all are the same */
    const qgc_value *other; /* what was in its place */
    double apart;  /* where that is most: the difference, relative to the largest element of the row */
    double inputs; /* of what the value is computed from */
    int64_t position;
    const char *where; /* "in a prefill of 7 tokens", "in a decode step, temperature 0.8" */
    const char *why;   /* what there is beside numbers; NULL */
    double logits;     /* distance of the logits from those of the first graph */
    double choices;    /* part of the choices that differ from the first graph's */
    bool by_states;    /* states are others, and outputs are not */
} qgc_judge_finding;

/* A copy of a graph, and by value id what it has in common with the graph before it: the same value, or
 * what was in its place. */
typedef struct {
    qgc_arena *arena;
    qgc_graph *graph;
    const qgc_value **twin; /* NULL: there is none */
    bool *differs;          /* the numbers are not the twin's */
} qgc_judge_graph;

/* `g` is what is right. It is copied; its weights (`tensors` by value id) and what `o` names outlive the
 * judge. Errors: the text does not fit the graph. */
QGC_MUST_USE qgc_status qgc_judge_new(qgc_judge **out, const qgc_graph *g, const qgc_tensor *const *tensors,
                                      const qgc_judge_options *o, qgc_diag *d);
void qgc_judge_drop(qgc_judge *j);

/* Holds a verified graph against the one before it, of which it is a later state (`is_same`: nodes that
 * both have carry the same id), or another that has the same inputs, outputs and states. It takes that
 * one's place. */
void qgc_judge_next(qgc_judge *j, const qgc_graph *g, const qgc_tensor *const *tensors, bool is_same,
                    qgc_judge_finding *out);

/* A copy of the first graph. */
const qgc_graph *qgc_judge_right(const qgc_judge *j);

/* The next graph is held against the first one. */
void qgc_judge_restart(qgc_judge *j);

/* Keeps the graph that was handed in last, and the one before it, while others follow; the last call
 * counts. */
void qgc_judge_keep(qgc_judge *j);
/* Those two. False: there are none. */
bool qgc_judge_kept(const qgc_judge *j, qgc_judge_graph *before, qgc_judge_graph *now);

/* How many positions steps run at, and in how many steps. */
int64_t qgc_judge_positions(const qgc_judge *j);

#endif
