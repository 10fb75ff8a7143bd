#ifndef QGC_CLI_EVAL_REPORT_H
#define QGC_CLI_EVAL_REPORT_H

#include "runtime/cli/json.h"
#include "runtime/engine/evaluate.h"

/* What an evaluation was of, in words. */
typedef struct {
    const char *model, *weights, *device;
    const char *against, *against_weights, *against_device; /* against: NULL if there is no other */
    const qgc_evaluate_text *texts;
    double tokens_per_second; /* NaN: not known */
} eval_heading;

void eval_report_text(const qgc_evaluation *x, const eval_heading *h, qgc_str *out);
json_t *eval_report_json(const qgc_evaluation *x, const eval_heading *h, qgc_arena *a);

#endif
