#ifndef QGC_LAB_CHART_H
#define QGC_LAB_CHART_H

#include "graph/base/str.h"

/* Bar charts as SVG: one file that needs no other, readable on light and on dark ground. */

enum { QGC_CHART_MAX_SERIES = 4 };

/* NaN: nothing is drawn, and the number reads "-". An error bar goes from low to high, where both are finite. */
typedef struct {
    double value, low, high;
} qgc_chart_bar;

typedef struct {
    const char *title, *subtitle, *axis; /* "us a token saved"; texts of any characters */
    const char *series[QGC_CHART_MAX_SERIES];
    int n_series;
    const char *const *labels; /* [n_rows] */
    const qgc_chart_bar *bars; /* [n_rows * n_series], row by row */
    size_t n_rows;
} qgc_chart;

/* Horizontal bars, the rows from top to bottom, each with a bar of each series. */
void qgc_chart_svg(const qgc_chart *c, qgc_str *out);

/* The distance of ticks, 1, 2 or 5 times a power of ten, for at most `most` steps over a span above 0. */
double qgc_chart_step(double span, int most);

#endif
