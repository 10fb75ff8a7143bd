#ifndef QGC_LAB_CUT_H
#define QGC_LAB_CUT_H

#include "graph/graph.h"

/* Groups cut where one part of a kernel ends and the next begins (codegen/stage/stage.h): what a search tries after
 * the passes have made them. */

typedef enum {
    QGC_CUT_PROLOGUE, /* the norm or the merge before the products, and the embedding before that, are by themselves */
    QGC_CUT_EPILOGUE, /* what is done with the rows is a group of its own; rope and append are by themselves */
    QGC_CUT_ROWS,     /* each product, with what is done with its rows, and what comes before all of them */
    QGC_CUT_PART,     /* the largest logits of the head's rows are found by themselves */
    QGC_N_CUTS
} qgc_cut;

const char *qgc_cut_name(qgc_cut cut);

/* Cuts the groups of a name, one in each layer that has it. False, with the graph as it was, if there is nothing there
 * to cut in any of them, or no kernel computes what is left. Scratch in `a`. */
bool qgc_cut_groups(qgc_graph *g, const char *group, qgc_cut cut, qgc_arena *a);

#endif
