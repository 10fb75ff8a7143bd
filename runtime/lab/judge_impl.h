#ifndef QGC_LAB_JUDGE_PARTS_H
#define QGC_LAB_JUDGE_PARTS_H

#include "graph/base/map.h"
#include "graph/base/str.h"
#include "graph/eval.h"
#include "runtime/lab/judge.h"

/* What the files of the judge share. */

/* A choice is made so many times, each with other settings. */
enum { JUDGE_LANES = 8 };
extern const qgc_sampling judge_sampling[JUDGE_LANES];

/* ", temperature 1, top-k 8" */
void judge_settings_text(const qgc_sampling *s, qgc_str *out);

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

/* Computes a node in one step. The outputs have data for `lanes` lanes. Errors: indices outside of what
 * they choose from. */
QGC_MUST_USE qgc_status judge_compute(const qgc_node *n, const judge_step *step,
                                      const judge_numbers *const in[], const judge_numbers *const out[],
                                      qgc_pool *pool, qgc_diag *d);

/* The numbers of an input of the graph, of the text's tokens. */
void judge_fill_input(const char *name, const judge_step *step, const int32_t *tokens, int64_t n_tokens,
                      int32_t *to);

/* Random numbers for a state: of the size of `like`, or marks. */
void judge_fill_state(qgc_dtype t, void *to, int64_t n, double size, uint64_t *seed);

/* Of rows of numbers: the largest of all, and the largest of the row in which that is smallest, but for rows of zeros. */
typedef struct {
    double most, least;
} judge_extent;

/* Adds n doubles. */
void judge_measure(const double *x, int64_t n, int64_t row, judge_extent *out);

/* Why such numbers do not fit into the type in which they are kept on a device: NULL where they do. Float16 has few digits below
 * 2^-14, so rows as small as that do not fit either. */
const char *judge_misfit(qgc_dtype t, const judge_extent *x);

/* The same of their squares in rows that a norm divides by their root, to whose mean `eps` is added. */
const char *judge_misfit_of_squares(const double *x, int64_t n, int64_t row, double eps);

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

/* All values that are computed from the same by the same op, and those with the same numbers. */
typedef struct {
    qgc_shape shape;
    judge_numbers *at;   /* [steps] */
    judge_extent extent; /* of a derived weight */
} judge_class;

/* A graph that was handed in: a copy, and what is known of its values. */
typedef struct {
    qgc_judge_graph shown;
    const qgc_value **place; /* by value id: what was in its place in the graph before, NULL if nothing was */
    int *class_of;           /* by value id; -1: it has no numbers */
    bool *is_new;            /* by value id: its class is in no graph before this one */
    qgc_node **nodes;        /* by id; NULL for one that is gone */
    qgc_value **newest;      /* by value id of a state: its last version */
    bool is_kept;
} judge_known;

struct qgc_judge {
    qgc_arena *arena;
    qgc_judge_options o;
    judge_step *steps;
    size_t n_steps;
    judge_class *classes;
    size_t n_classes;
    qgc_map by_key; /* an int: index into classes */
    uint64_t seed;
    judge_known *first, *before, *now;
    judge_known *kept[2];
    bool
        own_states; /* states are other functions than in the first graph: only steps in a row compare with it */
    double row_logits; /* then: how far the logits of the last graph that was right are from its */
    bool is_dead;      /* a graph could not be computed: there is nothing to hold the next one against */
};

/* What a result of a node is computed from: classes, and attributes. */
typedef struct {
    int64_t op, out, n_in, in[QGC_MAX_INPUTS], choice[QGC_MAX_ATTRS]; /* no bytes between them */
    double number[QGC_MAX_ATTRS];
} judge_key;

/* A graph while it is held against the one before it. */
typedef struct {
    qgc_judge *j;
    judge_known *now, *before;
    qgc_judge_finding *out;
    bool computed, drifts;
    const qgc_value *misfit; /* the first whose numbers do not fit into their type */
    const qgc_value *choice; /* one that comes to the same and is made of something else, and of what */
    const char *choice_why;
    const qgc_value *route; /* experts that come to the same and are chosen by other scores */
    const char *route_why;
    const bool *is_live; /* by value id: outputs or states depend on it */
    bool is_same;
} judge_work;

/* --- judge_graph.c: graphs, and classes of their values --- */

judge_known *judge_copy_graph(const qgc_graph *g);
void judge_drop_graph(judge_known *k); /* NULL is allowed */

/* The class under a key, or -1; and puts one there and returns it. */
int judge_find_class(const qgc_judge *j, const void *key, size_t bytes);
int judge_put_class(qgc_judge *j, const void *key, size_t bytes, int class);

/* Classes of inputs, weights and states, made if there are none; -1 stays that of a weight that is not bound, and of a derived one that
 * nothing reads. */
void judge_add_leaves(qgc_judge *j, judge_known *k, const qgc_tensor *const *tensors);
judge_key judge_key_of(const judge_known *k, const qgc_node *n, int out);

/* New classes for the results of a node, with no numbers yet; and the numbers, in one step. Errors: those of judge_compute. */
void judge_add_results(qgc_judge *j, judge_known *k, const qgc_node *n);
QGC_MUST_USE qgc_status judge_compute_step(qgc_judge *j, const judge_known *k, const qgc_node *n, size_t step,
                                           qgc_diag *d);

/* Have all operands of a node a class? */
bool judge_is_placed(const judge_known *k, const qgc_node *n);

/* Are two classes of one shape and type, and computed? Then how far their numbers are apart: no more is looked at after a step in
 * which more than `enough` was found. Steps of the text come first, and what they show is told before what the others do. */
bool judge_may_be_equal(const qgc_judge *j, int good, int bad);
judge_difference judge_apart(const qgc_judge *j, int good, int bad, double enough);

/* --- judge_pairs.c: which value of a graph is in the place of which of the graph before it --- */

/* Outputs by name, and states. Then, of two states of one graph: a node that both have makes what it made, and where it reads
 * something else now, that is in the place of what it read. Of two graphs: from pairs towards their inputs, as long as the ops are
 * the same. */
void judge_pair_ends(judge_known *now, const judge_known *before);
void judge_pair_by_ids(judge_known *now, const judge_known *before);
void judge_pair_backwards(judge_known *now);

/* Values that are known get a twin of their class, where what stands in their place is of another. */
void judge_match_known(judge_known *now, const judge_known *before, size_t n_classes);

/* --- judge_choice.c: why `v`, chosen as `u` of the graph before was, is another choice nevertheless; NULL: it is not --- */

/* The same tokens of other logits, rows, positions or marks; and the same experts by other scores. */
const char *judge_objection_to_choice(const judge_work *w, const qgc_value *v, const qgc_value *u);
const char *judge_objection_to_route(const judge_work *w, const qgc_value *v, const qgc_value *u);

/* --- judge_fits.c: numbers that do not fit; the first value that has such, if outputs or states depend on it, is the misfit --- */

/* The squares that a norm sums up; the numbers of a result; derived weights, which are stored as they say, vectors as float32. */
void judge_check_squares(judge_work *w, const qgc_node *n);
void judge_check_range(judge_work *w, const qgc_value *v);
void judge_check_derived(judge_work *w);

/* --- judge_range.c: windows and tables that no step of the text reaches --- */

/* Why `v`, whose numbers are those of `u` of the graph before in every step, is another value nevertheless; NULL: it is not. The
 * text lives as long as the judge. */
const char *judge_objection_in_range(judge_work *w, const qgc_value *v, const qgc_value *u);

/* --- judge_row.c: steps one after the other, each graph with its own states --- */

/* Are logits and choices of a graph those of the new one? How far they are apart, and the part of the choices that differs. */
bool judge_agree_in_a_row(judge_work *w, const judge_known *right, judge_difference *logits, double *choices);

/* --- judge_verdict.c --- */

/* Writes into the finding where a value differs. */
void judge_tell(judge_work *w, const qgc_value *v, const judge_difference *d);

/* The verdict, when all values of the graph are settled. */
void judge_decide(judge_work *w);

#endif
