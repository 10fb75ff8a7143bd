#ifndef QGC_LAB_JUDGE_PARTS_H
#define QGC_LAB_JUDGE_PARTS_H

#include "graph/eval.h"
#include "runtime/lab/judge.h"

/* What the files of the judge share. */

/* A choice is made so many times, each with other settings. */
enum { JUDGE_LANES = 8 };
extern const qgc_sampling judge_sampling[JUDGE_LANES];

typedef struct {
    int64_t first; /* position */
    qgc_sizes sizes;
    bool is_far; /* at a far position, with random states */
} judge_step;

/* The steps of a text of n tokens, in arena `a`. `most` positions fit; 0: there is no limit. */
judge_step *judge_plan_steps(int64_t n, int64_t most, qgc_judge_phase phase, size_t *n_steps, qgc_arena *a);

/* The numbers of a value in one step: doubles, or int32 where the dtype is I32; of a weight, its tensor. */
typedef struct {
    qgc_dtype dtype;
    const qgc_tensor *tensor;
    int lanes; /* 1, or JUDGE_LANES with the results of each set of settings one after the other */
    void *data;
} judge_numbers;

size_t judge_elem_bytes(qgc_dtype t);

/* Does the op read the settings of sampling? */
bool judge_samples(qgc_op op);

/* Computes a node in one step. The outputs have data for `lanes` lanes. Errors: indices outside of what they choose from. */
QGC_MUST_USE qgc_status judge_compute(const qgc_node *n, const judge_step *step,
                                      const judge_numbers *const in[], const judge_numbers *const out[],
                                      qgc_pool *pool, qgc_diag *d);

/* The numbers of an input of the graph, of the text's tokens. */
void judge_fill_input(const char *name, const judge_step *step, const int32_t *tokens, int64_t n_tokens,
                      int32_t *to);

/* Random numbers for a state: of the size of `like`, or marks. */
void judge_fill_state(qgc_dtype t, void *to, int64_t n, double size, uint64_t *seed);

/* What of n doubles does not fit into the type in which they are kept on a device: NULL where all do, or a reason. Float16 has few
 * digits below 2^-14, so rows as small as that do not fit either. */
const char *judge_misfit(qgc_dtype t, const double *x, int64_t n, int64_t row);

/* Where two values differ most. */
typedef struct {
    double apart; /* INFINITY where one is not a number, or an index another */
    size_t step;
    int lane;
    int64_t row;
    bool any;      /* a bit differs */
    double others; /* of I32: the part that differs */
} judge_difference;

/* Adds what a step has to *out: `rows` of `n` elements. */
void judge_compare_rows(const judge_numbers *good, const judge_numbers *bad, int64_t elems, int64_t row,
                        size_t step, judge_difference *out);

#endif
