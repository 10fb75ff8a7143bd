#ifndef QGC_LAB_SEARCH_MOVES_H
#define QGC_LAB_SEARCH_MOVES_H

#include "graph/base/arena.h"
#include "passes/passes.h"
#include "runtime/lab/cut.h"

/* What a search changes: a pipeline, and cuts of the groups that it makes. */

typedef struct {
    const char *group;
    qgc_cut cut;
} search_cut;

typedef struct {
    const char **passes; /* with options: "fuse-pointwise(max=4)" */
    size_t n_passes;
    search_cut *cuts;
    size_t n_cuts;
} search_recipe;

typedef struct {
    const char *change;
    search_recipe recipe;
} search_move;

typedef struct {
    search_move *all;
    size_t n;
} search_moves;

/* The passes as one text. */
const char *search_passes_text(const search_recipe *r, qgc_arena *a);

/* A recipe of a pipeline's text. */
search_recipe search_recipe_of(const char *passes, qgc_arena *a);

/* Changes of one thing; `cuts` are those that are possible in what the recipe makes. */
search_moves search_single_moves(const search_recipe *r, const search_cut *cuts, size_t n_cuts, qgc_arena *a);

/* Two passes more, or one more in the place of one. */
search_moves search_double_moves(const search_recipe *r, qgc_arena *a);

/* In an order that the seed decides. */
void search_shuffle(search_moves *m, uint64_t *seed);

#endif
