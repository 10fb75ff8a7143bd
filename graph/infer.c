#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "graph/ops.h"

/* The walk over the graph that gives every result its shape, and the checks that the rules share. Messages
 * name the op by its first output, since that is the name the reader of the YAML knows it by. */

qgc_status qgc_infer(qgc_graph *g, qgc_diag *d) {
    for (qgc_node *n = g->first; n; n = n->next) {
        const qgc_op_info *op = &qgc_ops[n->op];
        assert(n->n_in >= op->min_inputs && n->n_in <= op->max_inputs && n->n_out == op->n_outputs);
        qgc_frame frame = {d->top, "inferring the shape of", n->out[0]->name, n->at};
        d->top = &frame;
        qgc_status s = op->infer(n, d);
        d->top = frame.up;
        QGC_TRY(s);
    }
    return QGC_OK;
}

const char *qgc_node_label(const qgc_node *n, qgc_arena *a) {
    return qgc_value_label(n->out[0], a);
}

const char *qgc_value_word(const qgc_value *v) {
    switch (v->kind) {
    case QGC_INPUT:
        return "input";
    case QGC_WEIGHT:
        return "weight";
    case QGC_STATE:
        return "state";
    case QGC_RESULT:
        break;
    }
    return "value";
}

void qgc_note_origin(const qgc_node *n, const qgc_value *v, qgc_diag *d) {
    if (!v->at.source || (v->at.source == n->at.source && v->at.line == n->at.line && v->at.col == n->at.col))
        return;
    qgc_note(d, v->at, "%s \"%s\" is %s here", qgc_value_word(v), qgc_value_label(v, d->arena),
             v->kind == QGC_RESULT ? "made" : "declared");
}

void qgc_give(qgc_node *n, const qgc_shape *shape, qgc_dtype dtype) {
    n->out[0]->shape = *shape;
    n->out[0]->dtype = dtype;
}

static qgc_status wrong_dtype(const qgc_node *n, int i, const char *role, const char *wanted, qgc_diag *d) {
    const qgc_value *v = n->in[i];
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, n->at, "%s of %s \"%s\" must be %s, but %s \"%s\" is %s", role,
                            qgc_ops[n->op].name, qgc_node_label(n, d->arena), wanted, qgc_value_word(v),
                            qgc_value_label(v, d->arena), qgc_dtypes[v->dtype].name);
    qgc_note_origin(n, v, d);
    return s;
}

qgc_status qgc_want_dtype(const qgc_node *n, int i, const char *role, qgc_dtype dtype, qgc_diag *d) {
    return n->in[i]->dtype == dtype ? QGC_OK : wrong_dtype(n, i, role, qgc_dtypes[dtype].name, d);
}

qgc_status qgc_want_real(const qgc_node *n, int i, const char *role, qgc_diag *d) {
    return n->in[i]->dtype != QGC_I32 ? QGC_OK : wrong_dtype(n, i, role, "of real numbers", d);
}

qgc_status qgc_want_cache(const qgc_node *n, int i, const char *role, qgc_diag *d) {
    qgc_dtype t = n->in[i]->dtype;
    bool fits = t == QGC_F32 || t == QGC_F16 || t == QGC_BF16;
    return fits ? QGC_OK : wrong_dtype(n, i, role, "f32, f16 or bf16", d);
}

/* Does `dim` fit the next word of the form? Moves `*form` after it. */
static bool dim_fits(const char **form, int64_t dim) {
    const char *word = *form + strspn(*form, "[ ,");
    size_t bytes = strcspn(word, ",]");
    *form = word + bytes;
    if (bytes == 1 && *word == 'T')
        return dim == QGC_DIM_T;
    if (bytes == 1 && *word == 'R')
        return dim == QGC_DIM_R;
    if (bytes == 3 && memcmp(word, "ctx", 3) == 0)
        return dim == QGC_DIM_CTX || qgc_dim_ring(dim) > 0;
    if (bytes == 4 && memcmp(word, "rows", 4) == 0)
        return dim == QGC_DIM_T || dim == QGC_DIM_R;
    return dim > 0 && dim <= INT32_MAX; /* so that a product of two is no trouble */
}

qgc_status qgc_want_form(const qgc_node *n, int i, const char *role, const char *form, qgc_diag *d) {
    const qgc_value *v = n->in[i];
    int rank = 1;
    for (const char *p = form; *p; p++)
        rank += *p == ',';
    bool fits = v->shape.rank == rank;
    const char *rest = form;
    for (int k = 0; fits && k < rank; k++)
        fits = dim_fits(&rest, v->shape.dim[k]);
    if (fits)
        return QGC_OK;
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, n->at, "%s of %s \"%s\" must be %s, but %s \"%s\" is %s", role,
                            qgc_ops[n->op].name, qgc_node_label(n, d->arena), form, qgc_value_word(v),
                            qgc_value_label(v, d->arena), qgc_shape_text(&v->shape, d->arena));
    qgc_note_origin(n, v, d);
    return s;
}

qgc_status qgc_want_indices(const qgc_node *n, int i, const char *role, const char *form, qgc_diag *d) {
    static const char *const roles[] = {"tokens", "positions", "rows"};
    const qgc_value *v = n->in[i];
    QGC_TRY(qgc_want_dtype(n, i, role, QGC_I32, d));
    QGC_TRY(qgc_want_form(n, i, role, form, d));
    for (size_t k = 0; k < sizeof roles / sizeof *roles && v->kind == QGC_INPUT; k++)
        if (strcmp(v->name, roles[k]) == 0 && strcmp(v->name, role) != 0)
            return qgc_fail(d, QGC_ERR_INPUT, n->at, "%s of %s \"%s\" must not be the input \"%s\"", role,
                            qgc_ops[n->op].name, qgc_node_label(n, d->arena), v->name);
    return QGC_OK;
}

qgc_status qgc_want_state(const qgc_node *n, const char *role, qgc_diag *d) {
    const qgc_value *v = n->in[0];
    /* One step back is enough: the node that made a version was checked before this one. */
    if (v->kind == QGC_STATE || qgc_value_is_version(v))
        return QGC_OK;
    qgc_status s =
        qgc_fail(d, QGC_ERR_INPUT, n->at, "%s of %s \"%s\" must be a state, but \"%s\" is %s %s", role,
                 qgc_ops[n->op].name, qgc_node_label(n, d->arena), qgc_value_label(v, d->arena),
                 v->kind == QGC_INPUT ? "an" : "a", qgc_value_word(v));
    qgc_note_origin(n, v, d);
    return s;
}

double qgc_node_number(const qgc_node *n, const char *name) {
    return n->attr[qgc_attr_index(n->op, name)].number;
}

int qgc_node_choice(const qgc_node *n, const char *name) {
    return n->attr[qgc_attr_index(n->op, name)].choice;
}

qgc_status qgc_want_number(const qgc_node *n, const char *name, double least, bool whole, qgc_diag *d) {
    double x = qgc_node_number(n, name);
    if (x > FLT_MAX) /* kernels compute in float32 */
        return qgc_fail(d, QGC_ERR_INPUT, n->at, "\"%s\" of %s \"%s\" is %g, more than float32 can hold",
                        name, qgc_ops[n->op].name, qgc_node_label(n, d->arena), x);
    if (x != 0 && fabs(x) < FLT_MIN)
        return qgc_fail(d, QGC_ERR_INPUT, n->at,
                        "\"%s\" of %s \"%s\" is %g, nearer to 0 than float32 can hold", name,
                        qgc_ops[n->op].name, qgc_node_label(n, d->arena), x);
    if (x >= least && (!whole || x == floor(x)))
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_INPUT, n->at, "\"%s\" of %s \"%s\" is %g, expected a %s from %g on", name,
                    qgc_ops[n->op].name, qgc_node_label(n, d->arena), x, whole ? "whole number" : "number",
                    least);
}
