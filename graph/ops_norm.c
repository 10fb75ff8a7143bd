
#include <tgmath.h>

#include "graph/ops.h"

/* layer_norm: over whole rows. rms_norm: over whole rows (the norm in front of a block) or over groups of a row as long as the weight (the
 * norm of each head's query and key in Qwen3). */

#ifndef QGC_DOUBLE

qgc_status infer_rms_norm(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "x", QGC_F32, d));
    QGC_TRY(qgc_want_form(n, 0, "x", "[rows, n*d]", d));
    QGC_TRY(qgc_want_real(n, 1, "weight", d));
    QGC_TRY(qgc_want_form(n, 1, "weight", "[d]", d));
    QGC_TRY(qgc_want_number(n, "eps", 0, false, d));
    const qgc_value *x = n->in[0], *w = n->in[1];
    if (x->shape.dim[1] % w->shape.dim[0] != 0) {
        qgc_status s =
            qgc_fail(d, QGC_ERR_INPUT, n->at,
                     "rows of rms_norm \"%s\" have %lld elements, not a multiple of the weight's %lld",
                     qgc_node_label(n, d->arena), (long long)x->shape.dim[1], (long long)w->shape.dim[0]);
        qgc_note_origin(n, x, d);
        qgc_note_origin(n, w, d);
        return s;
    }
    qgc_give(n, &x->shape, QGC_F32);
    return QGC_OK;
}

qgc_status infer_layer_norm(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "x", QGC_F32, d));
    QGC_TRY(qgc_want_form(n, 0, "x", "[rows, d]", d));
    QGC_TRY(qgc_want_number(n, "eps", 0, false, d));
    for (int i = 1; i < n->n_in; i++) {
        const char *role = i == 1 ? "weight" : "bias";
        const qgc_value *x = n->in[0], *v = n->in[i];
        QGC_TRY(qgc_want_real(n, i, role, d));
        QGC_TRY(qgc_want_form(n, i, role, "[d]", d));
        if (x->shape.dim[1] == v->shape.dim[0])
            continue;
        qgc_status s = qgc_fail(
            d, QGC_ERR_INPUT, n->at, "rows of layer_norm \"%s\" have %lld elements, and its %s %lld",
            qgc_node_label(n, d->arena), (long long)x->shape.dim[1], role, (long long)v->shape.dim[0]);
        qgc_note_origin(n, x, d);
        qgc_note_origin(n, v, d);
        return s;
    }
    qgc_give(n, &n->in[0]->shape, QGC_F32);
    return QGC_OK;
}

#endif

typedef struct {
    const qgc_real *x, *weight;
    qgc_real *y;
    int64_t d;
    double eps;
} norm;

/* The sum of squares is a double: cheap here, and no order of summation matters any more. */
static void norm_groups(void *context, size_t first, size_t last) {
    const norm *c = context;
    for (size_t group = first; group < last; group++) {
        const qgc_real *x = c->x + (int64_t)group * c->d;
        qgc_real *y = c->y + (int64_t)group * c->d;
        double sum = 0;
        for (int64_t i = 0; i < c->d; i++)
            sum += (double)x[i] * x[i];
        qgc_real scale = (qgc_real)(1.0 / sqrt(sum / (double)c->d + c->eps));
        for (int64_t i = 0; i < c->d; i++)
            y[i] = x[i] * scale * c->weight[i];
    }
}

void QGC_REF(rms_norm)(const qgc_call *call) {
    const qgc_operand *x = &call->in[0];
    norm c = {qgc_reals(call, 0), qgc_reals(call, 1), call->out[0].data, call->in[1].dim[0],
              qgc_node_number(call->node, "eps")};
    qgc_pool_for(call->pool, (size_t)(x->dim[0] * x->dim[1] / c.d), 16, norm_groups, &c);
}

typedef struct {
    const qgc_real *x, *weight, *bias;
    qgc_real *y;
    int64_t d;
    double eps;
} centred;

/* Mean and variance are doubles, as the sum of rms_norm is. */
static void centre_rows(void *context, size_t first, size_t last) {
    const centred *c = context;
    for (size_t row = first; row < last; row++) {
        const qgc_real *x = c->x + (int64_t)row * c->d;
        qgc_real *y = c->y + (int64_t)row * c->d;
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < c->d; i++)
            mean += (double)x[i];
        mean /= (double)c->d;
        for (int64_t i = 0; i < c->d; i++)
            variance += ((double)x[i] - mean) * ((double)x[i] - mean);
        const double scale = 1.0 / sqrt(variance / (double)c->d + c->eps);
        for (int64_t i = 0; i < c->d; i++)
            y[i] = (qgc_real)(((double)x[i] - mean) * scale) * c->weight[i] + (c->bias ? c->bias[i] : 0);
    }
}

void QGC_REF(layer_norm)(const qgc_call *call) {
    const qgc_operand *x = &call->in[0];
    centred c = {.x = qgc_reals(call, 0),
                 .weight = qgc_reals(call, 1),
                 .bias = call->node->n_in > 2 ? qgc_reals(call, 2) : NULL,
                 .y = call->out[0].data,
                 .d = x->dim[1],
                 .eps = qgc_node_number(call->node, "eps")};
    qgc_pool_for(call->pool, (size_t)x->dim[0], 16, centre_rows, &c);
}
