#ifndef QGC_ENGINE_PLAN_REPORT_H
#define QGC_ENGINE_PLAN_REPORT_H

#include "codegen/plan.h"
#include "graph/base/str.h"
#include "runtime/engine/forecast.h"

/* A plan for programs: which modes each architecture can have and why not the others, and the phases with
 * every launch, what each does with its buffers, and whether it starts early. */

/* Appends JSON, with what a card would do where `on` is not NULL. Error: a name that is not UTF-8. */
QGC_MUST_USE qgc_status qgc_plan_json(const qgc_plan *p, const qgc_forecast *on, qgc_str *out, qgc_diag *d);

/* The launches of a phase that start early. */
size_t qgc_plan_early(const qgc_plan *p, qgc_phase_kind phase);

#endif
