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

/* One thing that is changed. Changes of one recipe can be made to another, so those that help can be put together. */
typedef enum {
    SEARCH_ADD,    /* the pass, after the last one that comes before it in the table of passes */
    SEARCH_DROP,   /* the pass goes */
    SEARCH_OPTION, /* `other` in its place: the same pass with an option */
    SEARCH_CUT,
    SEARCH_JOIN, /* a cut is taken back */
    SEARCH_FIRST,
    SEARCH_LAST,
    SEARCH_BEFORE /* it comes right before `other`, the pass that it came after */
} search_edit_kind;

typedef struct {
    search_edit_kind kind;
    const char *pass, *other;
    search_cut cut;
} search_edit;

enum { SEARCH_EDITS = 2 };

typedef struct {
    search_edit edits[SEARCH_EDITS];
    int n;
    const char *change; /* "+fuse-qkv", "-dead-code", "cut mlp: prologue"; of two: "+a -b" */
} search_move;

typedef struct {
    search_move *all;
    size_t n;
} search_moves;

/* The passes as one text. */
const char *search_passes_text(const search_recipe *r, qgc_arena *a);

/* A recipe of a pipeline's text. */
search_recipe search_recipe_of(const char *passes, qgc_arena *a);

/* A copy of the recipe with the change made. False: it cannot be, the pass is not there, say. */
bool search_apply(const search_recipe *r, const search_move *m, search_recipe *out, qgc_arena *a);

/* Changes of one thing; two passes more; one more in the place of one. `cuts` are those that are possible in what the recipe
 * makes. */
search_moves search_moves_of(const search_recipe *r, const search_cut *cuts, size_t n_cuts, qgc_arena *a);

/* One pass more or less comes first, then two more, options and cuts, places, and one in the place of another; among
 * these by what gain(context, edit) says, summed over a move, the largest first; and then in an order that the seed decides. */
void search_order(search_moves *m, uint64_t *seed, double (*gain)(const void *context, const search_edit *e),
                  const void *context);

/* The text of a change of one thing, "+fuse-qkv". */
const char *search_edit_text(const search_edit *e, qgc_arena *a);

#endif
