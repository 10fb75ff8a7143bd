#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/stage/outside_impl.h"
#include "graph/base/str.h"
#include "graph/expr.h"

/* Reading a row: text to a qgc_outside_row, before any graph is looked at. */

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

const char *qgc_outside_entry(const char **list, char between, qgc_arena *a) {
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

int qgc_outside_name(const qgc_outside_row *r, const char *name) {
    for (int i = 0; i < r->n_names; i++)
        if (strcmp(r->names[i], name) == 0)
            return i;
    return -1;
}

/* The index of a name; a new one comes from outside until a node makes it. -1: there is no room. */
static int name_index(qgc_outside_row *r, const char *name) {
    const int found = qgc_outside_name(r, name);
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
    while ((entry = qgc_outside_entry(&list, ';', r->arena)))
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
    p->value = qgc_outside_name(out, p->name);
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

bool qgc_outside_writes(const qgc_outside_row *r, int name) {
    for (int i = 0; i < r->n_params; i++)
        if (r->params[i].value == name && r->params[i].writes)
            return true;
    return false;
}

static qgc_status read_params(const reader *r) {
    const char *list = r->row->params, *entry;
    bool any = false;
    while ((entry = qgc_outside_entry(&list, ',', r->arena)))
        QGC_TRY(read_param(r, entry));
    for (int i = 0; i < r->out->n_names; i++) {
        any = any || qgc_outside_writes(r->out, i);
        if (r->out->maker[i] < 0 && !is_param(r->out, i) && !is_old_version(r->out, i))
            return wrong(r, "\"%s\" comes from outside and is no parameter", r->out->names[i]);
    }
    return any ? QGC_OK : wrong(r, "it writes nothing");
}

static qgc_status read_options(const reader *r) {
    const char *list = r->row->options, *entry;
    while ((entry = qgc_outside_entry(&list, ',', r->arena))) {
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
    while ((entry = qgc_outside_entry(&list, ',', r->arena)))
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
    const char *function = qgc_arena_printf(r->arena, "%s_phase", r->row->name);
    if (r->row->phase && !(strstr(text, function) && strstr(text, "AS_PHASE")))
        return wrong(r, "its row has a phase, and its text no \"%s\" with AS_PHASE around its entry",
                     function);
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
        entry = qgc_outside_entry(&list, ',', a);
    *extent = entry ? entry : "1";
    *by = "1";
    const char *word = entry ? strstr(entry, " by ") : NULL;
    if (!word)
        return;
    *extent = qgc_arena_strndup(a, entry, (size_t)(word - entry));
    *by = word + 4;
}
