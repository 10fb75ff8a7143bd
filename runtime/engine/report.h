#ifndef QGC_ENGINE_REPORT_H
#define QGC_ENGINE_REPORT_H

#include <jansson.h>

#include "graph/base/diag.h"
#include "graph/base/str.h"

/* What the reports of the laboratory share. */

/* A small number in few letters: "0", "1.2e-07", "0.35". */
const char *qgc_report_small(double x, qgc_arena *a);

/* A number, or null where it is not finite. */
json_t *qgc_report_number(double x);

/* Writes `all` and a new line, and gives it back to jansson. NULL, which json_pack makes of a text that is
 * not UTF-8, is an error. */
QGC_MUST_USE qgc_status qgc_report_json(json_t *all, qgc_str *out, qgc_diag *d);

/* The same with numbers to the last bit, where qgc_report_json rounds to nine digits. */
QGC_MUST_USE qgc_status qgc_report_json_exactly(json_t *all, qgc_str *out, qgc_diag *d);

#endif
