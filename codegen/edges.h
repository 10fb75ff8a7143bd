#ifndef QGC_CODEGEN_EDGES_H
#define QGC_CODEGEN_EDGES_H

#include "codegen/plan.h"

/* Which launches may be started while those before them still run (docs/design.md, "Early starts"). */

/* Why launch `i` of a phase may not be, made in arena `a`; NULL if it may. Of the first launch of a persistent step: why it may not where
 * another such step is right before it. What is known of the launches before it, their `early` included, has to be right. */
const char *qgc_edge_refusal(const qgc_plan *p, qgc_phase_kind phase, size_t i, qgc_arena *a);

/* May launches of the phase start early at all? Those of decode steps, of persistent steps, and of prompts from weights in the order
 * of these. */
bool qgc_phase_may_overlap(qgc_phase_kind phase);

/* Decides for every launch of such a phase whether it starts early: `early` or `not_early` is set. Scratch has its places by then. */
void qgc_place_edges(qgc_plan *p, qgc_arena *a);

#endif
