
#include <tgmath.h>

#include "graph/ops.h"

/* Ops that look at one element of each input at a time. Nothing is broadcast: the shapes are equal. */

#ifndef QGC_DOUBLE

static qgc_status infer_pair(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "a", QGC_F32, d));
    QGC_TRY(qgc_want_dtype(n, 1, "b", QGC_F32, d));
    const qgc_value *a = n->in[0], *b = n->in[1];
    if (!qgc_shape_equal(&a->shape, &b->shape)) {
        qgc_status s = qgc_fail(d, QGC_ERR_INPUT, n->at, "shapes of %s \"%s\" differ: %s against %s",
                                qgc_ops[n->op].name, qgc_node_label(n, d->arena),
                                qgc_shape_text(&a->shape, d->arena), qgc_shape_text(&b->shape, d->arena));
        qgc_note_origin(n, a, d);
        qgc_note_origin(n, b, d);
        return s;
    }
    qgc_give(n, &a->shape, QGC_F32);
    return QGC_OK;
}

qgc_status infer_add(qgc_node *n, qgc_diag *d) {
    return infer_pair(n, d);
}

qgc_status infer_mul(qgc_node *n, qgc_diag *d) {
    return infer_pair(n, d);
}

qgc_status infer_silu(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "x", QGC_F32, d));
    qgc_give(n, &n->in[0]->shape, QGC_F32);
    return QGC_OK;
}

#endif

typedef struct {
    const qgc_real *a, *b;
    qgc_real *y;
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

static void silu_range(void *context, size_t first, size_t last) {
    const pointwise *p = context;
    for (size_t i = first; i < last; i++)
        p->y[i] = p->a[i] / (1 + exp(-p->a[i]));
}

static void each_element(const qgc_call *call, void (*fn)(void *, size_t, size_t)) {
    const qgc_operand *a = &call->in[0];
    pointwise p = {qgc_reals(call, 0), call->node->n_in > 1 ? qgc_reals(call, 1) : NULL, call->out[0].data};
    size_t elems = 1;
    for (int i = 0; i < a->rank; i++)
        elems *= (size_t)a->dim[i];
    qgc_pool_for(call->pool, elems, 4096, fn, &p);
}

void QGC_REF(add)(const qgc_call *call) {
    each_element(call, add_range);
}

void QGC_REF(mul)(const qgc_call *call) {
    each_element(call, mul_range);
}

void QGC_REF(silu)(const qgc_call *call) {
    each_element(call, silu_range);
}
