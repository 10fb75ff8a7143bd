
#include <tgmath.h>

#include "graph/ops.h"

/* rope: rotary position embedding (Su et al., arxiv.org/abs/2104.09864). */

#ifndef QGC_DOUBLE

qgc_status infer_rope(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "x", QGC_F32, d));
    QGC_TRY(qgc_want_form(n, 0, "x", "[T, heads*head_dim]", d));
    QGC_TRY(qgc_want_indices(n, 1, "positions", "[T]", d));
    QGC_TRY(qgc_want_number(n, "base", 1, false, d));
    QGC_TRY(qgc_want_number(n, "head_dim", 2, true, d));
    const qgc_value *x = n->in[0];
    double head_dim = qgc_node_number(n, "head_dim");
    if (head_dim > (double)x->shape.dim[1] || (int64_t)head_dim % 2 != 0 ||
        x->shape.dim[1] % (int64_t)head_dim != 0) {
        qgc_status s = qgc_fail(
            d, QGC_ERR_INPUT, n->at,
            "rows of rope \"%s\" have %lld elements, not a multiple of an even head_dim, which is %g",
            qgc_node_label(n, d->arena), (long long)x->shape.dim[1], head_dim);
        qgc_note_origin(n, x, d);
        return s;
    }
    qgc_give(n, &x->shape, QGC_F32);
    return QGC_OK;
}

#endif

typedef struct {
    const qgc_real *x;
    const int32_t *positions;
    const double *turns; /* [head_dim/2] radians a position */
    qgc_real *y;
    int64_t heads, half;
} rope;

/* neox: element i of a head is paired with element i + half. The angle is a double; cos and sin are rounded
 * to the type of the evaluator: float32 as in the tables that the compiler makes for the GPU. */
static void rope_tokens(void *context, size_t first, size_t last) {
    const rope *c = context;
    int64_t row = c->heads * 2 * c->half;
    for (size_t t = first; t < last; t++)
        for (int64_t i = 0; i < c->half; i++) {
            double angle = (double)c->positions[t] * c->turns[i];
            qgc_real cosine = (qgc_real)cos(angle), sine = (qgc_real)sin(angle);
            for (int64_t h = 0; h < c->heads; h++) {
                int64_t at = (int64_t)t * row + h * 2 * c->half + i;
                qgc_real a = c->x[at], b = c->x[at + c->half];
                c->y[at] = a * cosine - b * sine;
                c->y[at + c->half] = b * cosine + a * sine;
            }
        }
}

void QGC_REF(rope)(const qgc_call *call) {
    const qgc_operand *x = &call->in[0];
    double base = qgc_node_number(call->node, "base"), head_dim = qgc_node_number(call->node, "head_dim");
    rope c = {.x = qgc_reals(call, 0), .positions = call->in[1].data, .y = call->out[0].data};
    c.half = (int64_t)head_dim / 2;
    c.heads = x->dim[1] / (2 * c.half);
    double *turns = qgc_arena_array(call->scratch, (size_t)c.half, sizeof *turns);
    for (int64_t i = 0; i < c.half; i++)
        turns[i] = pow(base, -2.0 * (double)i / head_dim);
    c.turns = turns;
    qgc_pool_for(call->pool, (size_t)x->dim[0], 16, rope_tokens, &c);
}
