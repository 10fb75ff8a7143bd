#include <float.h>
#include <tgmath.h>

#include "graph/ops.h"

/* Ops that look at one element of each input at a time. The shapes are equal, but for a `mul` with one number a row. */

#ifndef QGC_DOUBLE

static qgc_status shapes_differ(const qgc_node *n, qgc_diag *d) {
    const qgc_value *a = n->in[0], *b = n->in[1];
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, n->at, "shapes of %s \"%s\" differ: %s against %s",
                            qgc_ops[n->op].name, qgc_node_label(n, d->arena),
                            qgc_shape_text(&a->shape, d->arena), qgc_shape_text(&b->shape, d->arena));
    qgc_note_origin(n, a, d);
    qgc_note_origin(n, b, d);
    return s;
}

static qgc_status want_pair(const qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "a", QGC_F32, d));
    return qgc_want_dtype(n, 1, "b", QGC_F32, d);
}

qgc_status infer_add(qgc_node *n, qgc_diag *d) {
    QGC_TRY(want_pair(n, d));
    if (!qgc_shape_equal(&n->in[0]->shape, &n->in[1]->shape))
        return shapes_differ(n, d);
    qgc_give(n, &n->in[0]->shape, QGC_F32);
    return QGC_OK;
}

/* One number for each row, as of a gate: [T, 1] with [T, d]. */
qgc_status infer_mul(qgc_node *n, qgc_diag *d) {
    QGC_TRY(want_pair(n, d));
    const qgc_shape *a = &n->in[0]->shape, *b = &n->in[1]->shape;
    if (!qgc_shape_equal(a, b) && !qgc_is_one_a_row(a, b) && !qgc_is_one_a_row(b, a))
        return shapes_differ(n, d);
    qgc_give(n, qgc_is_one_a_row(a, b) ? b : a, QGC_F32);
    return QGC_OK;
}

static qgc_status infer_single(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "x", QGC_F32, d));
    qgc_give(n, &n->in[0]->shape, QGC_F32);
    return QGC_OK;
}

qgc_status infer_silu(qgc_node *n, qgc_diag *d) {
    return infer_single(n, d);
}

qgc_status infer_gelu(qgc_node *n, qgc_diag *d) {
    return infer_single(n, d);
}

qgc_status infer_sigmoid(qgc_node *n, qgc_diag *d) {
    return infer_single(n, d);
}

qgc_status infer_scale(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_number(n, "factor", -FLT_MAX, false, d));
    return infer_single(n, d);
}

qgc_status infer_softcap(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_number(n, "cap", FLT_MIN, false, d));
    return infer_single(n, d);
}

#endif

typedef struct {
    const qgc_real *a, *b;
    qgc_real *y;
    size_t width;    /* elements of a for one of b */
    qgc_real number; /* the attribute that is one */
} pointwise;

static void add_range(void *context, size_t first, size_t last) {
    const pointwise *p = context;
    for (size_t i = first; i < last; i++)
        p->y[i] = p->a[i] + p->b[i];
}

static void mul_range(void *context, size_t first, size_t last) {
    const pointwise *p = context;
    for (size_t i = first; i < last; i++)
        p->y[i] = p->a[i] * p->b[i];
}

/* b has one element for each `width` of a. */
static void mul_rows_range(void *context, size_t first, size_t last) {
    const pointwise *p = context;
    for (size_t i = first; i < last; i++)
        p->y[i] = p->a[i] * p->b[i / p->width];
}

static void silu_range(void *context, size_t first, size_t last) {
    const pointwise *p = context;
    for (size_t i = first; i < last; i++)
        p->y[i] = p->a[i] / (1 + exp(-p->a[i]));
}

static void gelu_tanh_range(void *context, size_t first, size_t last) {
    const pointwise *p = context;
    const qgc_real root = (qgc_real)0.797884560802865356, cubic = (qgc_real)0.044715; /* root of 2 / pi */
    for (size_t i = first; i < last; i++) {
        const qgc_real x = p->a[i];
        p->y[i] = x / 2 * (1 + tanh(root * (x + cubic * x * x * x)));
    }
}

static void gelu_range(void *context, size_t first, size_t last) {
    const pointwise *p = context;
    const qgc_real root = (qgc_real)0.707106781186547524; /* of 1 / 2 */
    for (size_t i = first; i < last; i++)
        p->y[i] = p->a[i] / 2 * (1 + erf(root * p->a[i]));
}

static void sigmoid_range(void *context, size_t first, size_t last) {
    const pointwise *p = context;
    for (size_t i = first; i < last; i++)
        p->y[i] = 1 / (1 + exp(-p->a[i]));
}

static void scale_range(void *context, size_t first, size_t last) {
    const pointwise *p = context;
    for (size_t i = first; i < last; i++)
        p->y[i] = p->a[i] * p->number;
}

static void softcap_range(void *context, size_t first, size_t last) {
    const pointwise *p = context;
    for (size_t i = first; i < last; i++)
        p->y[i] = p->number * tanh(p->a[i] / p->number);
}

static size_t elems_of(const qgc_operand *o) {
    size_t elems = 1;
    for (int i = 0; i < o->rank; i++)
        elems *= (size_t)o->dim[i];
    return elems;
}

static pointwise operands(const qgc_call *call) {
    return (pointwise){.a = qgc_reals(call, 0),
                       .b = call->node->n_in > 1 ? qgc_reals(call, 1) : NULL,
                       .y = call->out[0].data,
                       .width = 1};
}

static void each_element(const qgc_call *call, void (*fn)(void *, size_t, size_t)) {
    pointwise p = operands(call);
    qgc_pool_for(call->pool, elems_of(&call->out[0]), 4096, fn, &p);
}

static void each_element_with(const qgc_call *call, const char *attr, void (*fn)(void *, size_t, size_t)) {
    pointwise p = operands(call);
    p.number = (qgc_real)qgc_node_number(call->node, attr);
    qgc_pool_for(call->pool, elems_of(&call->out[0]), 4096, fn, &p);
}

void QGC_REF(add)(const qgc_call *call) {
    each_element(call, add_range);
}

void QGC_REF(mul)(const qgc_call *call) {
    pointwise p = operands(call);
    const size_t a = elems_of(&call->in[0]), b = elems_of(&call->in[1]), n = a > b ? a : b;
    if (a < b) {
        p.a = qgc_reals(call, 1);
        p.b = qgc_reals(call, 0);
    }
    p.width = n / (a < b ? a : b);
    qgc_pool_for(call->pool, n, 4096, a == b ? mul_range : mul_rows_range, &p);
}

void QGC_REF(silu)(const qgc_call *call) {
    each_element(call, silu_range);
}

void QGC_REF(gelu)(const qgc_call *call) {
    each_element(call, qgc_node_choice(call->node, "approximate") == 0 ? gelu_tanh_range : gelu_range);
}

void QGC_REF(sigmoid)(const qgc_call *call) {
    each_element(call, sigmoid_range);
}

void QGC_REF(scale)(const qgc_call *call) {
    each_element_with(call, "factor", scale_range);
}

void QGC_REF(softcap)(const qgc_call *call) {
    each_element_with(call, "cap", softcap_range);
}
