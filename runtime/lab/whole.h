#ifndef QGC_LAB_WHOLE_H
#define QGC_LAB_WHOLE_H

#include "runtime/lab/judge.h"
#include "runtime/lab/trial.h"

/* Does a graph, as a whole pipeline has made it, compute what the first graph of the judge computes, and does it declare the same
 * (bisect_declared.c)? NULL, or what is wrong with it, in arena `a`. `tensors` are those that weights had before any pass. */
const char *qgc_lab_objection(qgc_judge *j, const qgc_graph *g, const qgc_tensor *const *tensors,
                              const qgc_experiment *run, qgc_arena *a);

/* Does the pipeline that has made `g` of the experiment's graph make the same of it again? One with passes from outside may not. */
bool qgc_lab_is_steady(const qgc_experiment *run, const char *passes, const char *skip, const qgc_graph *g);

#endif
