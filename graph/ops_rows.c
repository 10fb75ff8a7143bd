#include "graph/ops.h"

/* Ops that pick rows by an index: embedding, select_rows; and mark, which notes which ids occurred. The
 * evaluator has checked the indices (eval.c). */

#ifndef QGC_DOUBLE

qgc_status infer_embedding(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "tokens", QGC_I32, d));
    QGC_TRY(qgc_want_form(n, 0, "tokens", "[rows]", d));
    QGC_TRY(qgc_want_real(n, 1, "table", d));
    QGC_TRY(qgc_want_form(n, 1, "table", "[vocab, d]", d));
    qgc_give(n, &(qgc_shape){2, {n->in[0]->shape.dim[0], n->in[1]->shape.dim[1]}}, QGC_F32);
    return QGC_OK;
}

qgc_status infer_select_rows(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "x", QGC_F32, d));
    QGC_TRY(qgc_want_form(n, 0, "x", "[T, d]", d));
    QGC_TRY(qgc_want_indices(n, 1, "rows", "[R]", d));
    qgc_give(n, &(qgc_shape){2, {QGC_DIM_R, n->in[0]->shape.dim[1]}}, QGC_F32);
    return QGC_OK;
}

qgc_status infer_mark(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_state(n, "seen", d));
    QGC_TRY(qgc_want_dtype(n, 0, "seen", QGC_I32, d));
    QGC_TRY(qgc_want_form(n, 0, "seen", "[vocab]", d));
    QGC_TRY(qgc_want_indices(n, 1, "tokens", "[rows]", d));
    qgc_give(n, &n->in[0]->shape, QGC_I32);
    return QGC_OK;
}

#endif

void QGC_REF(embedding)(const qgc_call *call) {
    const qgc_operand *tokens = &call->in[0], *table = &call->in[1];
    const int32_t *ids = tokens->data;
    qgc_real *y = call->out[0].data;
    int64_t d = table->dim[1];
    for (int64_t t = 0; t < tokens->dim[0]; t++)
        qgc_read_reals(table, ids[t] * d, y + t * d, d);
}

void QGC_REF(select_rows)(const qgc_call *call) {
    const qgc_operand *x = &call->in[0], *rows = &call->in[1];
    const int32_t *ids = rows->data;
    qgc_real *y = call->out[0].data;
    int64_t d = x->dim[1];
    for (int64_t r = 0; r < rows->dim[0]; r++)
        qgc_read_reals(x, ids[r] * d, y + r * d, d);
}

void QGC_REF(mark)(const qgc_call *call) {
    const int32_t *tokens = call->in[1].data;
    int32_t *seen = call->out[0].data;
    for (int64_t t = 0; t < call->in[1].dim[0]; t++)
        seen[tokens[t]] = 1;
}
