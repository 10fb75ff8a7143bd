#ifndef QGC_LAB_SEARCH_MODEL_H
#define QGC_LAB_SEARCH_MODEL_H

#include "runtime/lab/judge.h"
#include "runtime/lab/search.h"
#include "runtime/lab/search_moves.h"

/* The model that a search makes candidates of: all of its layers, or the first ones. It is what candidates are judged by, and its first
 * candidate holds the weights on the device. */

typedef struct {
    qgc_arena *arena; /* of the graph */
    qgc_graph *graph;
    qgc_trial *trial;
    search_recipe recipe;
    int number;
} search_candidate;

typedef struct {
    const qgc_search_options *o;
    int layers; /* of each repeat; 0: all */
    qgc_arena *arena;
    qgc_arena *texts; /* of results: those of why a candidate is wrong */
    qgc_judge *judge;
    int layers_left, layers_of; /* of all repeats */
    qgc_map seen;               /* the text of a graph, to the number of the candidate that made it */
    search_candidate start;
    const char *mode; /* of the steps; NULL without a device */
    double *logits;   /* on a device: what the start makes of the text, [tokens, vocab] */
    int64_t vocab;
} search_model;

/* Takes `start` as the first candidate; `t` gets what is known of it: refused, wrong, or the start. */
QGC_MUST_USE qgc_status search_model_open(search_model *m, const qgc_search_options *o, int layers,
                                          const search_recipe *start, qgc_search_try *t, qgc_diag *d);
void search_model_close(search_model *m);

/* Makes a candidate runnable. If t->verdict is no longer QGC_SEARCH_NO_BETTER, it is the same as an earlier one (with `once`), wrong or
 * refused. */
QGC_MUST_USE qgc_status search_candidate_make(search_model *m, search_candidate *c, bool once,
                                              qgc_search_try *t, qgc_diag *d);
void search_candidate_drop(search_candidate *c);

/* Times a candidate against another: t->us of the candidate, t->saved, low and high. *us_best (may be NULL) gets that of the other. */
QGC_MUST_USE qgc_status search_candidate_time(const search_model *m, const search_candidate *best,
                                              const search_candidate *c, int pairs, qgc_search_try *t,
                                              double *us_best, qgc_diag *d);

/* Compiles the kernels of candidates that no earlier one has made into the cache, one candidate on each thread: a candidate has few kernels
 * that are not there, in persistent mode one, which a single thread compiles for seconds. What is in the way of one is told
 * when it is tried. */
void search_compile_ahead(search_model *m, const search_recipe *recipes, size_t n);

#endif
