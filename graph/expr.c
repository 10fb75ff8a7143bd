#include "graph/expr.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Recursive descent. Each level of parentheses or ^ costs one of MAX_DEPTH. */
enum { MAX_DEPTH = 32 };

typedef struct {
    const char *text, *p;
    qgc_loc at; /* of text */
    const qgc_expr_names *names;
    qgc_diag *d;
    int depth;
} parser;

static qgc_loc loc_of(const parser *e, const char *p) {
    qgc_loc at = e->at;
    if (at.line)
        at.col += (int)(p - e->text);
    return at;
}

static char peek(parser *e) {
    while (*e->p == ' ')
        e->p++;
    return *e->p;
}

static qgc_status parse_sum(parser *e, double *out);
static qgc_status parse_signed(parser *e, double *out);

static qgc_status check_finite(const parser *e, double x, const char *p) {
    if (!isfinite(x))
        return qgc_fail(e->d, QGC_ERR_INPUT, loc_of(e, p), "result of \"%c\" is not a finite number", *p);
    return QGC_OK;
}

/* Digits, with a point, with an exponent: not all that strtod would take (0x10, inf, nan). */
static qgc_status parse_number(parser *e, double *out) {
    const char *p = e->p, *start = p;
    while (isdigit((unsigned char)*p))
        p++;
    if (*p == '.')
        p++;
    while (isdigit((unsigned char)*p))
        p++;
    if (*p == 'e' || *p == 'E') {
        const char *digits = p + 1 + (p[1] == '+' || p[1] == '-');
        if (isdigit((unsigned char)*digits))
            for (p = digits; isdigit((unsigned char)*p);)
                p++;
    }
    char *end;
    *out = strtod(start, &end);
    if (end != p || isalpha((unsigned char)*p) || *p == '_' || *p == '.')
        return qgc_fail(e->d, QGC_ERR_INPUT, loc_of(e, start), "not a number: \"%s\"", start);
    if (!isfinite(*out))
        return qgc_fail(e->d, QGC_ERR_INPUT, loc_of(e, start), "number is too large");
    e->p = p;
    return QGC_OK;
}

static qgc_status parse_name(parser *e, double *out) {
    const char *start = e->p;
    while (isalnum((unsigned char)*e->p) || *e->p == '_')
        e->p++;
    const char *name = qgc_arena_strndup(e->d->arena, start, (size_t)(e->p - start));
    return e->names->number(e->names->context, name, loc_of(e, start), out, e->d);
}

static qgc_status parse_atom(parser *e, double *out) {
    char c = peek(e);
    if (c == '(') {
        const char *open = e->p++;
        QGC_TRY(parse_sum(e, out));
        if (peek(e) != ')')
            return qgc_fail(e->d, QGC_ERR_INPUT, loc_of(e, open), "parenthesis is not closed");
        e->p++;
        return QGC_OK;
    }
    if (isdigit((unsigned char)c) || (c == '.' && isdigit((unsigned char)e->p[1])))
        return parse_number(e, out);
    if (isalpha((unsigned char)c) || c == '_')
        return parse_name(e, out);
    if (c == 0)
        return qgc_fail(e->d, QGC_ERR_INPUT, loc_of(e, e->p),
                        "expression ends where a number or a name is expected");
    return qgc_fail(e->d, QGC_ERR_INPUT, loc_of(e, e->p), "expression \"%s\" has no number or name at \"%s\"",
                    e->text, e->p);
}

static qgc_status parse_power(parser *e, double *out) {
    if (++e->depth > MAX_DEPTH)
        return qgc_fail(e->d, QGC_ERR_INPUT, loc_of(e, e->p), "expression is nested more than %d deep",
                        MAX_DEPTH);
    QGC_TRY(parse_atom(e, out));
    if (peek(e) == '^') {
        const char *caret = e->p++;
        double exponent;
        QGC_TRY(parse_signed(e, &exponent));
        *out = pow(*out, exponent);
        QGC_TRY(check_finite(e, *out, caret));
    }
    e->depth--;
    return QGC_OK;
}

static qgc_status parse_signed(parser *e, double *out) {
    bool minus = false;
    for (; peek(e) == '-'; e->p++)
        minus = !minus;
    QGC_TRY(parse_power(e, out));
    if (minus)
        *out = -*out;
    return QGC_OK;
}

static qgc_status parse_product(parser *e, double *out) {
    QGC_TRY(parse_signed(e, out));
    for (char c = peek(e); c == '*' || c == '/'; c = peek(e)) {
        const char *sign = e->p++;
        double right;
        QGC_TRY(parse_signed(e, &right));
        if (c == '/' && right == 0)
            return qgc_fail(e->d, QGC_ERR_INPUT, loc_of(e, sign), "division by zero");
        *out = c == '*' ? *out * right : *out / right;
        QGC_TRY(check_finite(e, *out, sign));
    }
    return QGC_OK;
}

static qgc_status parse_sum(parser *e, double *out) {
    QGC_TRY(parse_product(e, out));
    for (char c = peek(e); c == '+' || c == '-'; c = peek(e)) {
        const char *sign = e->p++;
        double right;
        QGC_TRY(parse_product(e, &right));
        *out = c == '+' ? *out + right : *out - right;
        QGC_TRY(check_finite(e, *out, sign));
    }
    return QGC_OK;
}

qgc_status qgc_expr_eval(double *out, const char *text, qgc_loc at, const qgc_expr_names *names,
                         qgc_diag *d) {
    parser e = {.text = text, .p = text, .at = at, .names = names, .d = d};
    *out = 0;
    QGC_TRY(parse_sum(&e, out));
    if (peek(&e))
        return qgc_fail(d, QGC_ERR_INPUT, loc_of(&e, e.p), "expression \"%s\" ends before \"%s\"", text, e.p);
    return QGC_OK;
}

qgc_status qgc_expr_whole(int64_t *out, const char *text, qgc_loc at, const qgc_expr_names *names,
                          qgc_expr_range range, qgc_diag *d) {
    double x;
    QGC_TRY(qgc_expr_eval(&x, text, at, names, d));
    if (x != floor(x))
        return qgc_fail(d, QGC_ERR_INPUT, at, "%s \"%s\" is %.10g, expected a whole number", range.what, text,
                        x);
    if (!(x >= (double)range.min && x <= (double)range.max))
        return qgc_fail(d, QGC_ERR_INPUT, at, "%s \"%s\" is %.15g, expected %lld to %lld", range.what, text,
                        x, (long long)range.min, (long long)range.max);
    *out = (int64_t)x;
    return QGC_OK;
}
