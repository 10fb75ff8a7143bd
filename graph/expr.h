#ifndef QGC_GRAPH_EXPR_H
#define QGC_GRAPH_EXPR_H

#include <stdint.h>

#include "graph/base/diag.h"

/* Number expressions of model files: numbers, names of parameters, + - * / % ^ and parentheses, ln, sqrt, min, max, and
 * conditions, which are 1 or 0.
 *
 *   heads*d_head      d_head^-0.5      l % 4 != 3      scaling == 3 ? 0.1*ln(factor) + 1 : 1
 *
 * ^ binds tightest and from the right, then - and ! in front, then * / %, then + and -, then one of == != < <= > >=, then
 * &&, then ||, then ?:. What is not taken, of ?: && ||, is not computed: names there need no number. Numbers are doubles. */

/* Gives names their numbers. `at` is the place of the name, for errors. */
typedef struct {
    qgc_status (*number)(void *context, const char *name, qgc_loc at, double *out, qgc_diag *d);
    void *context;
} qgc_expr_names;

/* The value of an expression, always finite. `at` is the place of its first character. */
QGC_MUST_USE qgc_status qgc_expr_eval(double *out, const char *text, qgc_loc at, const qgc_expr_names *names,
                                      qgc_diag *d);

/* The same where a whole number from `min` to `max` is wanted; `what` is its kind in errors ("dimension"). */
typedef struct {
    const char *what;
    int64_t min, max;
} qgc_expr_range;
QGC_MUST_USE qgc_status qgc_expr_whole(int64_t *out, const char *text, qgc_loc at,
                                       const qgc_expr_names *names, qgc_expr_range range, qgc_diag *d);

#endif
