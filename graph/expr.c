#include "graph/expr.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
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
    bool skips; /* reads on without a value: a branch that is not taken */
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

static qgc_status parse_choice(parser *e, double *out);
static qgc_status parse_signed(parser *e, double *out);

static qgc_status check_finite(const parser *e, double x, const char *p) {
    if (!isfinite(x) && !e->skips)
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

static double natural_log(double x, double y) {
    (void)y;
    return log(x);
}

static double square_root(double x, double y) {
    (void)y;
    return sqrt(x);
}

static const struct {
    const char *name;
    int n_arguments;
    double (*of)(double, double);
} functions[] = {{"ln", 1, natural_log}, {"sqrt", 1, square_root}, {"min", 2, fmin}, {"max", 2, fmax}};
enum { N_FUNCTIONS = sizeof functions / sizeof *functions };

static int function_named(const char *name, size_t length) {
    for (int i = 0; i < N_FUNCTIONS; i++)
        if (strlen(functions[i].name) == length && memcmp(functions[i].name, name, length) == 0)
            return i;
    return -1;
}

/* The arguments of a function, from its parenthesis on. */
static qgc_status parse_call(parser *e, const char *name, int which, double *out) {
    const char *open = e->p;
    double argument[2] = {0};
    for (int i = 0; i < functions[which].n_arguments; i++) {
        if (i > 0 && peek(e) != ',')
            return qgc_fail(e->d, QGC_ERR_INPUT, loc_of(e, name),
                            "\"%s\" takes %d numbers, with a comma between", functions[which].name,
                            functions[which].n_arguments);
        e->p++; /* the parenthesis, the comma */
        QGC_TRY(parse_choice(e, &argument[i]));
    }
    if (peek(e) != ')')
        return qgc_fail(e->d, QGC_ERR_INPUT, loc_of(e, open), "parenthesis is not closed");
    e->p++;
    *out = functions[which].of(argument[0], argument[1]);
    if (!isfinite(*out) && !e->skips)
        return qgc_fail(e->d, QGC_ERR_INPUT, loc_of(e, name), "result of \"%s\" is not a finite number",
                        functions[which].name);
    return QGC_OK;
}

static qgc_status parse_name(parser *e, double *out) {
    const char *start = e->p;
    while (isalnum((unsigned char)*e->p) || *e->p == '_')
        e->p++;
    const size_t length = (size_t)(e->p - start);
    const int function = peek(e) == '(' ? function_named(start, length) : -1;
    if (function >= 0)
        return parse_call(e, start, function, out);
    *out = 0;
    if (e->skips)
        return QGC_OK;
    const char *name = qgc_arena_strndup(e->d->arena, start, length);
    return e->names->number(e->names->context, name, loc_of(e, start), out, e->d);
}

static qgc_status parse_atom(parser *e, double *out) {
    char c = peek(e);
    if (c == '(') {
        const char *open = e->p++;
        QGC_TRY(parse_choice(e, out));
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

/* -x, and !x: 1 where x is 0, else 0. */
static qgc_status parse_signed(parser *e, double *out) {
    char c = peek(e);
    if (c != '-' && !(c == '!' && e->p[1] != '='))
        return parse_power(e, out);
    e->p++;
    if (++e->depth > MAX_DEPTH)
        return qgc_fail(e->d, QGC_ERR_INPUT, loc_of(e, e->p), "expression is nested more than %d deep",
                        MAX_DEPTH);
    QGC_TRY(parse_signed(e, out));
    e->depth--;
    *out = c == '-' ? -*out : *out == 0;
    return QGC_OK;
}

/* x % y is what is left of x: 0 <= x % y < y. */
static double apply(char c, double left, double right) {
    return c == '*' ? left * right : c == '/' ? left / right : left - right * floor(left / right);
}

static qgc_status parse_product(parser *e, double *out) {
    QGC_TRY(parse_signed(e, out));
    for (char c = peek(e); c == '*' || c == '/' || c == '%'; c = peek(e)) {
        const char *sign = e->p++;
        double right;
        QGC_TRY(parse_signed(e, &right));
        if (e->skips)
            continue;
        if (c != '*' && right == 0)
            return qgc_fail(e->d, QGC_ERR_INPUT, loc_of(e, sign), "division by zero");
        *out = apply(c, *out, right);
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

/* The comparison that stands at e->p, which moves after it. */
typedef enum { NO_COMPARISON, IS_EQUAL, IS_OTHER, IS_LESS, IS_MORE, IS_AT_MOST, IS_AT_LEAST } comparison;

static comparison take_comparison(parser *e) {
    static const struct {
        const char *sign;
        comparison is;
    } signs[] = {{"==", IS_EQUAL},    {"!=", IS_OTHER}, {"<=", IS_AT_MOST},
                 {">=", IS_AT_LEAST}, {"<", IS_LESS},   {">", IS_MORE}};
    peek(e);
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (strncmp(e->p, signs[i].sign, strlen(signs[i].sign)) == 0) {
            e->p += strlen(signs[i].sign);
            return signs[i].is;
        }
    return NO_COMPARISON;
}

static bool holds(comparison is, double left, double right) {
    switch (is) {
    case IS_EQUAL:
        return left == right;
    case IS_OTHER:
        return left != right;
    case IS_LESS:
        return left < right;
    case IS_MORE:
        return left > right;
    case IS_AT_MOST:
        return left <= right;
    case IS_AT_LEAST:
        return left >= right;
    case NO_COMPARISON:
        break;
    }
    return false;
}

static qgc_status parse_comparison(parser *e, double *out) {
    QGC_TRY(parse_sum(e, out));
    const comparison is = take_comparison(e);
    if (is == NO_COMPARISON)
        return QGC_OK;
    double right = 0;
    QGC_TRY(parse_sum(e, &right));
    *out = holds(is, *out, right);
    return QGC_OK;
}

/* && and ||: the right side is not looked at where the left one decides. */
static qgc_status parse_both(parser *e, double *out) {
    QGC_TRY(parse_comparison(e, out));
    while (peek(e) == '&' && e->p[1] == '&') {
        const bool skips = e->skips;
        double right = 0;
        e->p += 2;
        e->skips = skips || *out == 0;
        QGC_TRY(parse_comparison(e, &right));
        *out = *out != 0 && right != 0;
        e->skips = skips;
    }
    return QGC_OK;
}

static qgc_status parse_either(parser *e, double *out) {
    QGC_TRY(parse_both(e, out));
    while (peek(e) == '|' && e->p[1] == '|') {
        const bool skips = e->skips;
        double right = 0;
        e->p += 2;
        e->skips = skips || *out != 0;
        QGC_TRY(parse_both(e, &right));
        *out = *out != 0 || right != 0;
        e->skips = skips;
    }
    return QGC_OK;
}

/* condition ? a : b */
static qgc_status parse_choice(parser *e, double *out) {
    double condition = 0, yes = 0, no = 0;
    QGC_TRY(parse_either(e, &condition));
    *out = condition;
    if (peek(e) != '?')
        return QGC_OK;
    const char *mark = e->p++;
    const bool skips = e->skips;
    if (++e->depth > MAX_DEPTH)
        return qgc_fail(e->d, QGC_ERR_INPUT, loc_of(e, e->p), "expression is nested more than %d deep",
                        MAX_DEPTH);
    e->skips = skips || condition == 0;
    QGC_TRY(parse_choice(e, &yes));
    if (peek(e) != ':')
        return qgc_fail(e->d, QGC_ERR_INPUT, loc_of(e, mark), "\"?\" has no \":\" with what it is otherwise");
    e->p++;
    e->skips = skips || condition != 0;
    QGC_TRY(parse_choice(e, &no));
    e->skips = skips;
    e->depth--;
    *out = condition != 0 ? yes : no;
    return QGC_OK;
}

qgc_status qgc_expr_eval(double *out, const char *text, qgc_loc at, const qgc_expr_names *names,
                         qgc_diag *d) {
    parser e = {.text = text, .p = text, .at = at, .names = names, .d = d};
    *out = 0;
    QGC_TRY(parse_choice(&e, out));
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
