#include "runtime/lab/chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/lab/xml.h"

/*   title
 *   subtitle                            [series] [series]
 *             |      |      |      |
 *     label   |==========-|-- 12.3
 *             |====-|-- 4.5
 *             0      5      10     15
 *                     axis
 */
enum {
    LEFT = 170,
    PLOT = 460,
    RIGHT = 90, /* room for the number after the longest bar */
    TOP = 74,
    BAR = 11,
    GAP = 9, /* between rows */
    BOTTOM = 48,
    TICKS = 8,
};

/* Colours stand in plain rules, light first: a viewer that knows nothing of dark grounds skips the rest. */
static const char style[] =
    "<style>\n"
    "text { font: 12px system-ui, sans-serif; fill: #1f2328 } .title { font-size: 15px; font-weight: 600 }\n"
    ".end { text-anchor: end } .middle { text-anchor: middle } .faint { fill: #59636e }\n"
    ".ground { fill: #ffffff } .grid { stroke: #d1d9e0 } .zero { stroke: #59636e }\n"
    ".error { stroke: #1f2328; stroke-width: 1.5; fill: none }\n"
    ".s0 { fill: #2563eb } .s1 { fill: #d97706 } .s2 { fill: #059669 } .s3 { fill: #9333ea }\n"
    "@media (prefers-color-scheme: dark) {\n"
    "text { fill: #f0f6fc } .faint { fill: #9198a1 } .ground { fill: #0d1117 }\n"
    ".grid { stroke: #3d444d } .zero { stroke: #9198a1 } .error { stroke: #f0f6fc }\n"
    ".s0 { fill: #60a5fa } .s1 { fill: #fbbf24 } .s2 { fill: #34d399 } .s3 { fill: #c084fc }\n"
    "}\n</style>\n";

static void put_text(qgc_str *out, double x, double y, const char *classes, const char *text) {
    qgc_str_printf(out, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, classes);
    qgc_xml_escape(out, text);
    qgc_str_add(out, "</text>\n");
}

static void put_number(qgc_str *out, double x, double y, const char *classes, double number) {
    char text[32];
    if (isnan(number))
        snprintf(text, sizeof text, "-");
    else
        snprintf(text, sizeof text, "%.4g", number);
    put_text(out, x, y, classes, text);
}

double qgc_chart_step(double span, int most) {
    double power = pow(10, floor(log10(span / most)));
    const double factors[] = {1, 2, 5};
    for (int i = 0; i < 3; i++)
        if (span / (factors[i] * power) <= most * (1 + 1e-9))
            return factors[i] * power;
    return 10 * power;
}

/* The ends of the axis: what the bars and error bars reach, out to a tick, and always 0. */
typedef struct {
    double low, high, step;
} axis;

static void reach(axis *a, double x) {
    if (!isfinite(x))
        return;
    a->low = x < a->low ? x : a->low;
    a->high = x > a->high ? x : a->high;
}

static axis axis_of(const qgc_chart *c) {
    axis a = {0, 0, 1};
    for (size_t i = 0; i < c->n_rows * (size_t)c->n_series; i++) {
        reach(&a, c->bars[i].value);
        reach(&a, c->bars[i].low);
        reach(&a, c->bars[i].high);
    }
    if (!(a.high - a.low > 0))
        a.high = 1;
    a.step = qgc_chart_step(a.high - a.low, TICKS);
    a.low = floor(a.low / a.step + 1e-9) * a.step;
    a.high = ceil(a.high / a.step - 1e-9) * a.step;
    return a;
}

static double place(const axis *a, double x) {
    return LEFT + PLOT * (x - a->low) / (a->high - a->low);
}

static void put_line(qgc_str *out, double x0, double y0, double x1, double y1, const char *class) {
    qgc_str_printf(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n", x0, y0, x1,
                   y1, class);
}

static void put_axis(qgc_str *out, const qgc_chart *c, const axis *a, double bottom) {
    int n = (int)round((a->high - a->low) / a->step);
    for (int i = 0; i <= n; i++) {
        double tick = (round(a->low / a->step) + i) * a->step, x = place(a, tick);
        put_line(out, x, TOP - 4, x, bottom, tick == 0 ? "zero" : "grid");
        put_number(out, x, bottom + 16, "faint middle", tick == 0 ? 0 : tick);
    }
    put_text(out, LEFT + PLOT / 2.0, bottom + 36, "faint middle", c->axis);
}

static void put_bar(qgc_str *out, const axis *a, const qgc_chart_bar *bar, int series, double y) {
    double zero = place(a, 0), end = zero;
    if (isfinite(bar->value)) {
        end = place(a, bar->value);
        qgc_str_printf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" class=\"s%d\"/>\n",
                       end < zero ? end : zero, y, fabs(end - zero), BAR - 1, series);
    }
    double right = end > zero ? end : zero, middle = y + (BAR - 1) / 2.0;
    if (isfinite(bar->value) && isfinite(bar->low) && isfinite(bar->high)) {
        double low = place(a, bar->low), high = place(a, bar->high);
        qgc_str_printf(out, "<path d=\"M%.1f %.1fV%.1fM%.1f %.1fH%.1fM%.1f %.1fV%.1f\" class=\"error\"/>\n",
                       low, middle - 3, middle + 3, low, middle, high, high, middle - 3, middle + 3);
        right = high > right ? high : right;
    }
    put_number(out, right + 5, y + BAR - 1.5, "faint", bar->value);
}

static void put_legend(qgc_str *out, const qgc_chart *c) {
    double x = LEFT;
    for (int s = 0; s < c->n_series; s++) {
        qgc_str_printf(out, "<rect x=\"%.1f\" y=\"49\" width=\"10\" height=\"10\" class=\"s%d\"/>\n", x, s);
        put_text(out, x + 15, 58, "", c->series[s]);
        x += 40 + 7.0 * (double)strlen(c->series[s]);
    }
}

void qgc_chart_svg(const qgc_chart *c, qgc_str *out) {
    const axis a = axis_of(c);
    const int row = c->n_series * BAR + GAP, width = LEFT + PLOT + RIGHT;
    const int bottom = TOP + (int)c->n_rows * row;
    qgc_str_printf(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
        "role=\"img\">\n<title>",
        width, bottom + BOTTOM, width, bottom + BOTTOM);
    qgc_xml_escape(out, c->title);
    qgc_str_printf(out, "</title>\n%s<rect width=\"%d\" height=\"%d\" class=\"ground\"/>\n", style, width,
                   bottom + BOTTOM);
    put_text(out, 16, 24, "title", c->title);
    put_text(out, 16, 42, "faint", c->subtitle);
    put_legend(out, c);
    put_axis(out, c, &a, bottom);
    for (size_t i = 0; i < c->n_rows; i++) {
        double y = TOP + (double)i * row + GAP / 2.0;
        put_text(out, LEFT - 10, y + c->n_series * BAR / 2.0 + 4, "end", c->labels[i]);
        for (int s = 0; s < c->n_series; s++)
            put_bar(out, &a, &c->bars[i * (size_t)c->n_series + (size_t)s], s, y + s * BAR);
    }
    qgc_str_add(out, "</svg>\n");
}
