#ifndef QGC_LAB_ABLATE_REPORT_H
#define QGC_LAB_ABLATE_REPORT_H

#include "graph/base/str.h"
#include "runtime/lab/ablate.h"

/* What qgc_ablate has measured, for people and for programs. */

/* What stands above the numbers. */
typedef struct {
    const char *graph, *weights, *device,
        *text; /* "models/tiny/tiny.yaml", "random", "cpu, 2 threads", ... */
    int64_t ctx;
    int pairs;
} qgc_ablate_heading;

/* Two tables: left out, alone. Times only where there are any. */
void qgc_ablate_table(const qgc_ablation *x, const qgc_ablate_heading *h, qgc_str *out);

/* One JSON object; numbers that are not finite are null. Errors: a text of the heading is not UTF-8. */
QGC_MUST_USE qgc_status qgc_ablate_json(const qgc_ablation *x, const qgc_ablate_heading *h, qgc_str *out,
                                        qgc_diag *d);

/* A bar chart (runtime/lab/chart.h) of the microseconds that each pass saves, with their intervals; without times, of
 * the kernels. Of one ablation in the pipeline and alone; of several (at most QGC_CHART_MAX_SERIES), of the same passes in other modes,
 * in the pipeline, mode beside mode. */
void qgc_ablate_svg(const qgc_ablation *x, int n, const qgc_ablate_heading *h, qgc_str *out);

#endif
