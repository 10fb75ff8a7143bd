#include "codegen/stage/outside.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/stage/stage.h"
#include "graph/base/str.h"
#include "graph/expr.h"

/* --- reading a row --------------------------------------------------------------------------------------- */

typedef struct {
    const qgc_kernel_row *row;
    qgc_outside_row *out;
    qgc_arena *arena;
    qgc_diag *d;
} reader;

static qgc_status wrong(const reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

static qgc_status wrong(const reader *r, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const char *text = qgc_arena_vprintf(r->arena, format, args);
    va_end(args);
    return qgc_fail(r->d, QGC_ERR_INPUT, r->row->at, "kernel \"%s\": %s", r->row->name, text);
}

/* The next entry of a list, without the blanks around it; NULL at the end. */
static const char *next_entry(const char **list, char between, qgc_arena *a) {
    const char *at = *list ? *list + strspn(*list, " ") : "";
    if (!*at)
        return NULL;
    size_t bytes = between == ',' ? qgc_list_entry(at) : strcspn(at, ";");
    *list = at + bytes + (at[bytes] != 0);
    while (bytes > 0 && at[bytes - 1] == ' ')
        bytes--;
    return qgc_arena_strndup(a, at, bytes);
}

static size_t name_bytes(const char *text) {
    size_t n = 0;
    if (isalpha((unsigned char)text[0]) || text[0] == '_')
        while (isalnum((unsigned char)text[n]) || text[n] == '_')
            n++;
    return n;
}

/* Takes a name off the front; NULL where there is none. */
static const char *take_name(const char **text, qgc_arena *a) {
    const char *at = *text + strspn(*text, " ");
    const size_t n = name_bytes(at);
    *text = at + n;
    *text += strspn(*text, " ");
    return n ? qgc_arena_strndup(a, at, n) : NULL;
}

/* Takes a mark off the front, if it is there. */
static bool take_mark(const char **text, char mark) {
    if (**text != mark)
        return false;
    *text += 1 + strspn(*text + 1, " ");
    return true;
}

static int find_name(const qgc_outside_row *r, const char *name) {
    for (int i = 0; i < r->n_names; i++)
        if (strcmp(r->names[i], name) == 0)
            return i;
    return -1;
}

/* The index of a name; a new one comes from outside until a node makes it. -1: there is no room. */
static int name_index(qgc_outside_row *r, const char *name) {
    const int found = find_name(r, name);
    if (found >= 0 || r->n_names == QGC_OUTSIDE_NAMES)
        return found;
    r->names[r->n_names] = name;
    r->maker[r->n_names] = -1;
    return r->n_names++;
}

/* "kind=tanh", "eps=1e-6": `name` has been taken, and `text` is what comes after the equals sign. */
static qgc_status read_attr(const reader *r, qgc_outside_node *n, const char *name, const char **text) {
    const qgc_attr_spec *attrs = qgc_ops[n->op].attrs;
    const size_t bytes = strcspn(*text, " ,)");
    const char *word = qgc_arena_strndup(r->arena, *text, bytes);
    *text += bytes + strspn(*text + bytes, " ");
    int at = 0;
    while (attrs[at].name && strcmp(attrs[at].name, name) != 0)
        at++;
    if (!attrs[at].name)
        return wrong(r, "%s has no attribute \"%s\"", qgc_ops[n->op].name, name);
    for (int i = 0; i < QGC_MAX_CHOICES && attrs[at].choices[i]; i++)
        if (strcmp(attrs[at].choices[i], word) == 0)
            n->attr[at] = i;
    char *end = NULL;
    if (!attrs[at].choices[0])
        n->attr[at] = strtod(word, &end);
    if (isnan(n->attr[at]) || (end && (*end || end == word)))
        return wrong(r, "attribute \"%s\" of %s cannot be \"%s\"", name, qgc_ops[n->op].name, word);
    return QGC_OK;
}

static qgc_status read_operands(const reader *r, qgc_outside_node *n, const char *text) {
    const qgc_op_info *op = &qgc_ops[n->op];
    while (*text && *text != ')') {
        const char *name = take_name(&text, r->arena);
        if (!name)
            return wrong(r, "\"%s\" is not a name", text);
        if (take_mark(&text, '='))
            QGC_TRY(read_attr(r, n, name, &text));
        else if (n->n_in == op->max_inputs)
            return wrong(r, "%s has at most %d inputs", op->name, op->max_inputs);
        else
            n->in[n->n_in++] = name_index(r->out, name);
        if (!take_mark(&text, ',') && *text != ')')
            return wrong(r, "nodes: \"%s\" is not understood", text);
    }
    if (n->n_in < op->min_inputs || *text != ')' || text[1])
        return wrong(
            r, *text == ')' && text[1] ? "nodes: something comes after \")\"" : "the inputs of %s are %s",
            op->name, op->signature);
    return QGC_OK;
}

static qgc_status read_results(const reader *r, qgc_outside_node *n, const char **text) {
    do {
        const char *name = take_name(text, r->arena);
        if (!name || n->n_out == QGC_MAX_OUTPUTS)
            return wrong(r, "nodes: \"%s\" does not begin with \"result = op(\"", *text);
        const int at = name_index(r->out, name);
        if (at >= 0 && (r->out->maker[at] >= 0 || at < r->out->n_names - 1))
            return wrong(r, "\"%s\" is made twice, or read before it is made", name);
        if (at >= 0)
            r->out->maker[at] = r->out->n_nodes;
        n->out[n->n_out++] = at;
    } while (take_mark(text, ','));
    return QGC_OK;
}

/* Ops that read more than their operands: the settings of sampling, tables, sums over steps. */
static bool reads_more(qgc_op op) {
    return op == QGC_OP_SAMPLE || op == QGC_OP_SAMPLE_PART || op == QGC_OP_SAMPLE_MERGE;
}

static qgc_status read_node(const reader *r, const char *text) {
    qgc_outside_row *out = r->out;
    if (out->n_nodes == QGC_OUTSIDE_NODES)
        return wrong(r, "more than %d nodes", QGC_OUTSIDE_NODES);
    qgc_outside_node *n = &out->nodes[out->n_nodes];
    *n = (qgc_outside_node){.n_in = 0};
    for (int i = 0; i < QGC_MAX_ATTRS; i++)
        n->attr[i] = NAN;
    QGC_TRY(read_results(r, n, &text));
    const char *op = take_mark(&text, '=') ? take_name(&text, r->arena) : NULL;
    if (!op || !take_mark(&text, '('))
        return wrong(r, "nodes: \"%s\" is not \"op(inputs)\"", text);
    n->op = qgc_op_named(op);
    if (n->op == QGC_N_OPS)
        return wrong(r, "unknown op \"%s\"", op);
    if (reads_more(n->op))
        return wrong(r, "op \"%s\" reads settings, which a kernel from outside is not given", op);
    if (n->n_out != qgc_ops[n->op].n_outputs)
        return wrong(r, "%s has %d results", op, qgc_ops[n->op].n_outputs);
    QGC_TRY(read_operands(r, n, text));
    if (out->n_names == QGC_OUTSIDE_NAMES)
        return wrong(r, "%d names or more", QGC_OUTSIDE_NAMES);
    out->n_nodes++;
    return QGC_OK;
}

static qgc_status read_nodes(const reader *r) {
    const char *list = r->row->nodes, *entry;
    while ((entry = next_entry(&list, ';', r->arena)))
        QGC_TRY(read_node(r, entry));
    return r->out->n_nodes ? QGC_OK : wrong(r, "it has no nodes");
}

static qgc_status read_type(const reader *r, qgc_outside_param *p, const char *word) {
    static const qgc_dtype types[] = {QGC_F32, QGC_F16, QGC_BF16, QGC_I32};
    p->any = strcmp(word, "any") == 0;
    for (size_t i = 0; i < sizeof types / sizeof *types && !p->any; i++)
        if (strcmp(word, qgc_dtypes[types[i]].name) == 0) {
            p->type = types[i];
            return QGC_OK;
        }
    return p->any ? QGC_OK
                  : wrong(r, "parameter \"%s\" is of type \"%s\", expected f32, f16, bf16, i32 or any",
                          p->name, word);
}

/* The words after the type of a buffer. */
static qgc_status read_access(const reader *r, qgc_outside_param *p, const char *text) {
    const char *word;
    while (*text && (word = take_name(&text, r->arena))) {
        bool *to = strcmp(word, "reads") == 0    ? &p->reads
                   : strcmp(word, "writes") == 0 ? &p->writes
                   : strcmp(word, "early") == 0  ? &p->early
                                                 : NULL;
        if (!to)
            return wrong(r, "parameter \"%s\": \"%s\" is none of reads, writes and early", p->name, word);
        *to = true;
    }
    const int maker = r->out->maker[p->value];
    if (*text || !(p->reads || p->writes))
        return wrong(r, "parameter \"%s\" neither reads nor writes", p->name);
    if (p->writes && maker < 0)
        return wrong(r, "parameter \"%s\" writes what no node of the row makes", p->name);
    if (!p->writes && maker >= 0)
        return wrong(r, "parameter \"%s\" reads a result of the row, which nothing has made before", p->name);
    return QGC_OK;
}

/* Is the name an old version of a state, which the parameter of the new one is in the same memory? */
static bool is_old_version(const qgc_outside_row *r, int name) {
    for (int i = 0; i < r->n_nodes; i++)
        if ((qgc_ops[r->nodes[i].op].traits & QGC_IN_PLACE) && r->nodes[i].in[0] == name)
            return true;
    return false;
}

static qgc_status read_param(const reader *r, const char *text) {
    qgc_outside_row *out = r->out;
    if (out->n_params == QGC_OUTSIDE_PARAMS)
        return wrong(r, "more than %d parameters", QGC_OUTSIDE_PARAMS);
    qgc_outside_param *p = &out->params[out->n_params++];
    *p = (qgc_outside_param){.name = take_name(&text, r->arena), .value = -1};
    const char *type = p->name && take_mark(&text, ':') ? take_name(&text, r->arena) : NULL;
    if (!type)
        return wrong(r, "params: an entry is not \"name: type\"");
    QGC_TRY(read_type(r, p, type));
    if (take_mark(&text, '=')) {
        p->expression = text;
        return p->type == QGC_I32 && !p->any ? QGC_OK : wrong(r, "number \"%s\" is not of type i32", p->name);
    }
    p->value = find_name(out, p->name);
    if (p->value < 0)
        return wrong(r, "parameter \"%s\" is no name of its nodes", p->name);
    if (is_old_version(out, p->value))
        return wrong(r, "parameter \"%s\" is an old version of a state: the new one is in the same memory",
                     p->name);
    return read_access(r, p, text);
}

static bool is_param(const qgc_outside_row *r, int name) {
    for (int i = 0; i < r->n_params; i++)
        if (r->params[i].value == name)
            return true;
    return false;
}

static bool writes(const qgc_outside_row *r, int name) {
    for (int i = 0; i < r->n_params; i++)
        if (r->params[i].value == name && r->params[i].writes)
            return true;
    return false;
}

static qgc_status read_params(const reader *r) {
    const char *list = r->row->params, *entry;
    bool any = false;
    while ((entry = next_entry(&list, ',', r->arena)))
        QGC_TRY(read_param(r, entry));
    for (int i = 0; i < r->out->n_names; i++) {
        any = any || writes(r->out, i);
        if (r->out->maker[i] < 0 && !is_param(r->out, i) && !is_old_version(r->out, i))
            return wrong(r, "\"%s\" comes from outside and is no parameter", r->out->names[i]);
    }
    return any ? QGC_OK : wrong(r, "it writes nothing");
}

static qgc_status read_options(const reader *r) {
    const char *list = r->row->options, *entry;
    while ((entry = next_entry(&list, ',', r->arena))) {
        if (r->out->n_options == QGC_OUTSIDE_OPTIONS)
            return wrong(r, "more than %d options", QGC_OUTSIDE_OPTIONS);
        qgc_outside_option *o = &r->out->options[r->out->n_options++];
        o->name = take_name(&entry, r->arena);
        if (!o->name || !take_mark(&entry, '='))
            return wrong(r, "options: an entry is not \"NAME = number\"");
        o->expression = entry;
    }
    return QGC_OK;
}

static qgc_status read_starts(const reader *r) {
    const char *list = r->row->starts, *entry;
    while ((entry = next_entry(&list, ',', r->arena)))
        if (strcmp(entry, "waits") == 0)
            r->out->waits = true;
        else if (strcmp(entry, "next before") == 0)
            r->out->next = QGC_OUTSIDE_BEFORE_WAIT;
        else if (strcmp(entry, "next after") == 0)
            r->out->next = QGC_OUTSIDE_AFTER_WAIT;
        else
            return wrong(r, "starts: \"%s\" is none of \"waits\", \"next before\" and \"next after\"", entry);
    if (r->out->next != QGC_OUTSIDE_AT_END && !r->out->waits)
        return wrong(r, "it lets the next launch start early and does not wait itself");
    for (int i = 0; i < r->out->n_params; i++)
        if (r->out->params[i].early && !r->out->waits)
            return wrong(r, "parameter \"%s\" is early, and the kernel does not wait",
                         r->out->params[i].name);
    return QGC_OK;
}

static bool has_word(const char *text, const char *a, const char *b) {
    return strstr(text, a) || strstr(text, b) || strstr(text, "griddepcontrol");
}

/* What the row says of waiting is what early starts are proved from. Whether the text really waits is for the check to see; that
 * it does not do what the row does not say can be seen here. */
static qgc_status check_text(const reader *r) {
    const char *text = r->row->text;
    if (r->out->waits && !has_word(text, "wait_for_previous", "grid_waits"))
        return wrong(r, "its row says that it waits, and its text does not call wait_for_previous");
    if (r->out->next == QGC_OUTSIDE_AT_END &&
        (strstr(text, "let_next_start") || strstr(text, "lets_next_start") ||
         strstr(text, "launch_dependents")))
        return wrong(r, "its text lets the next launch start, and its row does not say so");
    return QGC_OK;
}

static qgc_status read_rest(const reader *r) {
    const qgc_kernel_row *row = r->row;
    const char *steps = row->steps ? row->steps : "decode";
    char *end = NULL;
    r->out->prefill = strcmp(steps, "decode and prefill") == 0;
    if (!r->out->prefill && strcmp(steps, "decode") != 0)
        return wrong(r, "steps are \"%s\", expected \"decode\" or \"decode and prefill\"", steps);
    const long arch = row->arch ? strtol(row->arch, &end, 10) : 0;
    if (row->arch && (*end || arch < 0 || arch > 1000))
        return wrong(r, "arch is \"%s\", expected a number such as 80", row->arch);
    r->out->arch = (int)arch;
    if (!row->text || !strstr(row->text, row->name))
        return wrong(r, "its text has no entry of that name");
    return check_text(r);
}

qgc_status qgc_outside_read(const qgc_kernel_row *row, qgc_outside_row *out, qgc_arena *a, qgc_diag *d) {
    *out = (qgc_outside_row){.row = row};
    const reader r = {row, out, a, d};
    if (!row->name || name_bytes(row->name) != strlen(row->name) || !*row->name)
        return qgc_fail(d, QGC_ERR_INPUT, row->at, "a kernel is named \"%s\", which is no name",
                        row->name ? row->name : "");
    if (!row->nodes || !row->params || !row->grid || !row->threads)
        return wrong(&r, "it lacks nodes, params, grid or threads");
    QGC_TRY(read_nodes(&r));
    QGC_TRY(read_params(&r));
    QGC_TRY(read_options(&r));
    QGC_TRY(read_starts(&r));
    return read_rest(&r);
}

void qgc_outside_axis(const qgc_outside_row *r, int axis, const char **extent, const char **by,
                      qgc_arena *a) {
    const char *list = r->row->grid, *entry = NULL;
    for (int i = 0; i <= axis; i++)
        entry = next_entry(&list, ',', a);
    *extent = entry ? entry : "1";
    *by = "1";
    const char *word = entry ? strstr(entry, " by ") : NULL;
    if (!word)
        return;
    *extent = qgc_arena_strndup(a, entry, (size_t)(word - entry));
    *by = word + 4;
}

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
    const int index = point ? find_name(r, qgc_arena_strndup(d->arena, name, (size_t)(point - name))) : -1;
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
        if (r->maker[i] >= 0 && !writes(r, i) && s->uses[v->id] > reads_inside(s, v))
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
    while ((entry = next_entry(&list, ',', s->arena)))
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
