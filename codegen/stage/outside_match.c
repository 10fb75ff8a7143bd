#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "codegen/stage/outside_impl.h"
#include "codegen/stage/stage.h"
#include "graph/base/str.h"
#include "graph/expr.h"

/* A row and the nodes of a graph: which they are, and what its expressions are for them. */

/* --- expressions ----------------------------------------------------------------------------------------- */

typedef struct {
    const qgc_outside_stage *of;
    const qgc_sizes *sizes;
} scope;

/* "x.width" for the parser of expressions, whose names have no points: "x__width". */
static const char *without_points(const char *text, qgc_arena *a) {
    qgc_str out = qgc_str_new(a);
    for (const char *c = text; *c; c++)
        if (*c == '.' && c > text && (isalnum((unsigned char)c[-1]) || c[-1] == '_') &&
            isalpha((unsigned char)c[1]))
            qgc_str_add(&out, "__");
        else
            qgc_str_add_bytes(&out, c, 1);
    return out.text;
}

static bool number_of_value(const scope *s, const qgc_value *v, const char *what, double *out) {
    const int rank = v->shape.rank;
    int dim = -1;
    if (strcmp(what, "elems") == 0)
        *out = (double)qgc_shape_elems(&v->shape, s->sizes);
    else if (strcmp(what, "width") == 0)
        dim = rank - 1;
    else if (strncmp(what, "dim", 3) == 0 && isdigit((unsigned char)what[3]) && !what[4])
        dim = what[3] - '0';
    if (dim >= 0 && dim < rank)
        *out = (double)qgc_dim_size(v->shape.dim[dim], s->sizes);
    return strcmp(what, "elems") == 0 || (dim >= 0 && dim < rank);
}

static bool number_of_attr(const qgc_node *n, const char *what, double *out) {
    const qgc_attr_spec *attrs = qgc_ops[n->op].attrs;
    for (int i = 0; attrs[i].name; i++)
        if (strcmp(attrs[i].name, what) == 0) {
            *out = attrs[i].choices[0] ? n->attr[i].choice : n->attr[i].number;
            return true;
        }
    return false;
}

static qgc_status number_named(void *context, const char *name, qgc_loc at, double *out,
                               qgc_diag *d) { // NOLINT(misc-no-recursion)
    const scope *s = context;
    const qgc_outside_row *r = &s->of->row;
    const char *point = NULL;
    for (const char *c = name; (c = strstr(c, "__")); c += 2)
        point = c;
    const struct {
        const char *name;
        int64_t size;
    } sizes[] = {{"T", s->sizes->tokens}, {"R", s->sizes->rows}, {"ctx", s->sizes->ctx}};
    for (int i = 0; i < 3; i++)
        if (strcmp(sizes[i].name, name) == 0) {
            *out = (double)sizes[i].size;
            return QGC_OK;
        }
    for (int i = 0; i < r->n_options; i++)
        if (strcmp(r->options[i].name, name) == 0) {
            /* what comes before it may be named, itself not: so this ends */
            scope before = *s;
            qgc_outside_stage copy = *s->of;
            copy.row.n_options = i;
            before.of = &copy;
            return qgc_expr_eval(out, without_points(r->options[i].expression, d->arena), at,
                                 &(qgc_expr_names){number_named, &before}, d);
        }
    const int index =
        point ? qgc_outside_name(r, qgc_arena_strndup(d->arena, name, (size_t)(point - name))) : -1;
    const qgc_value *v = index >= 0 ? s->of->value[index] : NULL;
    if (v && number_of_value(s, v, point + 2, out))
        return QGC_OK;
    if (v && r->maker[index] >= 0 && number_of_attr(s->of->node[r->maker[index]], point + 2, out))
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_INPUT, at, "kernel \"%s\": \"%s%s%s\" is no number that it can name",
                    r->row->name, point ? r->names[index >= 0 ? index : 0] : name, point ? "." : "",
                    point ? point + 2 : "");
}

qgc_status qgc_outside_number(const qgc_outside_stage *o, const char *expression, const qgc_sizes *sizes,
                              double *out, qgc_diag *d) {
    scope s = {o, sizes};
    return qgc_expr_eval(out, without_points(expression, d->arena), o->row.row->at,
                         &(qgc_expr_names){number_named, &s}, d);
}

/* --- matching -------------------------------------------------------------------------------------------- */

typedef struct {
    const qgc_node *const *nodes;
    int n;
    const int *uses;
    qgc_outside_stage *out;
    const char **why;
    qgc_arena *arena;
} search;

static bool no(const search *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool no(const search *s, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const char *text = qgc_arena_vprintf(s->arena, format, args);
    va_end(args);
    *s->why = qgc_arena_printf(s->arena, "kernel \"%s\": %s", s->out->row.row->name, text);
    return false;
}

static bool attrs_hold(const qgc_outside_node *want, const qgc_node *n) {
    const qgc_attr_spec *attrs = qgc_ops[n->op].attrs;
    for (int i = 0; attrs[i].name; i++)
        if (!isnan(want->attr[i]) &&
            want->attr[i] != (attrs[i].choices[0] ? (double)n->attr[i].choice : n->attr[i].number))
            return false;
    return true;
}

/* The name is this value, unless it is another already. */
static bool bind(const search *s, int name, const qgc_value *v) {
    if (!s->out->value[name])
        s->out->value[name] = v;
    return s->out->value[name] == v;
}

/* Node `want` of the row is this one; with its two inputs in the other order if `swapped`. */
static bool bind_node(const search *s, const qgc_outside_node *want, const qgc_node *n, bool swapped) {
    if (want->op != n->op || want->n_in != n->n_in || !attrs_hold(want, n))
        return false;
    for (int i = 0; i < n->n_in; i++)
        if (!bind(s, want->in[i], n->in[swapped ? 1 - i : i]))
            return false;
    for (int i = 0; i < n->n_out; i++)
        if (!bind(s, want->out[i], n->out[i]))
            return false;
    return true;
}

static bool is_taken(const search *s, int n_bound, const qgc_node *n) {
    for (int i = 0; i < n_bound; i++)
        if (s->out->node[i] == n)
            return true;
    return false;
}

/* Nodes of the row from `at` on, each of the group's in turn. */
static bool bind_from(const search *s, int at) { // NOLINT(misc-no-recursion)
    const qgc_outside_row *r = &s->out->row;
    const qgc_value *before[QGC_OUTSIDE_NAMES];
    if (at == r->n_nodes)
        return true;
    memcpy(before, s->out->value, sizeof before);
    const int ways = qgc_ops[r->nodes[at].op].traits & QGC_COMMUTES ? 2 : 1;
    for (int i = 0; i < s->n; i++)
        for (int swapped = 0; swapped < ways; swapped++) {
            if (is_taken(s, at, s->nodes[i]))
                continue;
            s->out->node[at] = s->nodes[i];
            if (bind_node(s, &r->nodes[at], s->nodes[i], swapped) && bind_from(s, at + 1))
                return true;
            memcpy(s->out->value, before, sizeof before);
        }
    return false;
}

static int reads_inside(const search *s, const qgc_value *v) {
    int n = 0;
    for (int i = 0; i < s->n; i++)
        for (int k = 0; k < s->nodes[i]->n_in; k++)
            n += s->nodes[i]->in[k] == v;
    return n;
}

/* What comes from outside does so, and what is read there is written. */
static bool check_names(const search *s) {
    const qgc_outside_row *r = &s->out->row;
    for (int i = 0; i < r->n_names; i++) {
        const qgc_value *v = s->out->value[i];
        const char *label = qgc_value_label(v, s->arena);
        for (int k = 0; k < v->shape.rank; k++)
            if (qgc_dim_ring(v->shape.dim[k]))
                return no(s, "cache \"%s\" is a ring of %lld positions, of which it does not know", label,
                          (long long)qgc_dim_ring(v->shape.dim[k]));
        if (r->maker[i] >= 0 && !qgc_outside_writes(r, i) && s->uses[v->id] > reads_inside(s, v))
            return no(s, "\"%s\" is read outside of the group, and it does not write \"%s\"", label,
                      r->names[i]);
        for (int k = 0; r->maker[i] < 0 && k < s->n; k++)
            if (v->maker == s->nodes[k])
                return no(s, "\"%s\" is made in the group, and \"%s\" comes from outside", label,
                          r->names[i]);
    }
    return true;
}

qgc_dtype qgc_outside_type(const qgc_value *v) {
    return v->kind == QGC_WEIGHT ? qgc_weight_storage(v) : v->dtype;
}

static bool check_types(const search *s) {
    const qgc_outside_row *r = &s->out->row;
    for (int i = 0; i < r->n_params; i++) {
        const qgc_outside_param *p = &r->params[i];
        if (p->value < 0)
            continue;
        const qgc_dtype type = qgc_outside_type(s->out->value[p->value]);
        const bool fits = p->any ? type == QGC_F32 || type == QGC_F16 || type == QGC_BF16 : type == p->type;
        if (!fits)
            return no(s, "\"%s\" is %s, and parameter \"%s\" %s",
                      qgc_value_label(s->out->value[p->value], s->arena), qgc_dtypes[type].name, p->name,
                      p->any ? "f32, f16 or bf16" : qgc_dtypes[p->type].name);
    }
    return true;
}

/* At the sizes of a decode step, and of one of several tokens. */
static bool check_limits(const search *s) {
    static const qgc_sizes sizes[] = {{1, 1, 64}, {7, 3, 100}};
    const char *list = s->out->row.row->limits, *entry;
    while ((entry = qgc_outside_entry(&list, ',', s->arena)))
        for (int i = 0; i < 2; i++) {
            qgc_diag d = qgc_diag_new(s->arena);
            double holds = 0;
            if (qgc_outside_number(s->out, entry, &sizes[i], &holds, &d) != QGC_OK)
                return no(s, "limit \"%s\" cannot be computed: %s", entry, qgc_diag_message(&d));
            if (holds == 0)
                return no(s, "limit \"%s\" does not hold", entry);
        }
    return true;
}

bool qgc_outside_match(const qgc_kernel_row *row, const qgc_node *const *nodes, int n, const int *uses,
                       qgc_outside_stage *out, const char **why, qgc_arena *a) {
    qgc_diag d = qgc_diag_new(a);
    *out = (qgc_outside_stage){.node = {NULL}};
    const search s = {nodes, n, uses, out, why, a};
    if (qgc_outside_read(row, &out->row, a, &d) != QGC_OK) {
        *why = qgc_diag_message(&d);
        return false;
    }
    if (n != out->row.n_nodes || !bind_from(&s, 0))
        return no(&s, "the nodes are not \"%s\"", row->nodes);
    return check_names(&s) && check_types(&s) && check_limits(&s);
}
