#include <string.h>

#include "graph/base/simd.h"
#include "graph/ops.h"

/* linear: the op in which nearly all bytes and all time of a model are. */

#ifndef QGC_DOUBLE

qgc_status infer_linear(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "x", QGC_F32, d));
    QGC_TRY(qgc_want_form(n, 0, "x", "[rows, in]", d));
    QGC_TRY(qgc_want_real(n, 1, "weight", d));
    QGC_TRY(qgc_want_form(n, 1, "weight", "[out, in]", d));
    const qgc_value *x = n->in[0], *w = n->in[1];

    /* Weights are stored [out, in] as in safetensors: the inner dimension is the last of both. */
    int64_t out = w->shape.dim[0];
    if (x->shape.dim[1] != w->shape.dim[1]) {
        qgc_status s =
            qgc_fail(d, QGC_ERR_INPUT, n->at, "inner dimensions of linear \"%s\" differ: %s against %s",
                     qgc_node_label(n, d->arena), qgc_shape_text(&x->shape, d->arena),
                     qgc_shape_text(&w->shape, d->arena));
        qgc_note_origin(n, x, d);
        qgc_note_origin(n, w, d);
        if (out == x->shape.dim[1])
            qgc_hint(d, "\"%s\" would fit if it were transposed; weights are [out, in].", w->name);
        return s;
    }
    if (n->n_in == 3) {
        QGC_TRY(qgc_want_real(n, 2, "bias", d));
        QGC_TRY(qgc_want_form(n, 2, "bias", "[out]", d));
        const qgc_value *bias = n->in[2];
        if (bias->shape.dim[0] != out) {
            qgc_status s =
                qgc_fail(d, QGC_ERR_INPUT, n->at,
                         "bias of linear \"%s\" has %lld elements, but its weight has %lld rows",
                         qgc_node_label(n, d->arena), (long long)bias->shape.dim[0], (long long)out);
            qgc_note_origin(n, bias, d);
            qgc_note_origin(n, w, d);
            return s;
        }
    }
    qgc_give(n, &(qgc_shape){2, {x->shape.dim[0], out}}, QGC_F32);
    return QGC_OK;
}

#endif

/* The reference. Work is cut into blocks of TILE_ROWS rows of the weight, which the threads share; of each
 * block TILE_ELEMS columns are widened at a time, small enough to stay in the first-level cache while all
 * tokens of the step pass by:
 *
 *            in                          TILE_ELEMS
 *        +---------+                     +---+
 *   out  | | | | | |  TILE_ROWS   x   T  |   |   added to  y [T, TILE_ROWS]
 *        +---------+                     +---+
 *
 * So a sum runs in pieces of TILE_ELEMS, each in as many lanes as the CPU's vectors have. Which
 * thread does a block changes nothing in it. */
enum { TILE_ROWS = 8, TILE_ELEMS = 512 };

typedef struct {
    const qgc_real *x;    /* [tokens, in] */
    const qgc_operand *w; /* [out, in] as stored */
    const qgc_real *bias; /* [out] or NULL */
    qgc_real *y;          /* [tokens, out] */
    int64_t tokens, in, out;
} linear;

/* y[0..4) += rows of w [4, stride] times x, over n columns. */
QGC_INLINE void dot_1x4(const qgc_real *w, int64_t stride, const qgc_real *x, int64_t n, qgc_real *y) {
    const qgc_real *w0 = w, *w1 = w + stride, *w2 = w + 2 * stride, *w3 = w + 3 * stride;
    qgc_real s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (int64_t i = 0; i < n; i++) {
        s0 += w0[i] * x[i];
        s1 += w1[i] * x[i];
        s2 += w2[i] * x[i];
        s3 += w3[i] * x[i];
    }
    y[0] += s0;
    y[1] += s1;
    y[2] += s2;
    y[3] += s3;
}

/* The same for two tokens, whose results stand y_stride apart: each weight is loaded once for both. */
QGC_INLINE void dot_2x4(const qgc_real *w, int64_t stride, const qgc_real *x, int64_t x_stride, int64_t n,
                        qgc_real *y, int64_t y_stride) {
    const qgc_real *w0 = w, *w1 = w + stride, *w2 = w + 2 * stride, *w3 = w + 3 * stride;
    const qgc_real *xa = x, *xb = x + x_stride;
    qgc_real a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
#pragma omp simd reduction(+ : a0, a1, a2, a3, b0, b1, b2, b3)
    for (int64_t i = 0; i < n; i++) {
        a0 += w0[i] * xa[i];
        a1 += w1[i] * xa[i];
        a2 += w2[i] * xa[i];
        a3 += w3[i] * xa[i];
        b0 += w0[i] * xb[i];
        b1 += w1[i] * xb[i];
        b2 += w2[i] * xb[i];
        b3 += w3[i] * xb[i];
    }
    y[0] += a0;
    y[1] += a1;
    y[2] += a2;
    y[3] += a3;
    y += y_stride;
    y[0] += b0;
    y[1] += b1;
    y[2] += b2;
    y[3] += b3;
}

QGC_INLINE float bf16_at(const char *row, int64_t i) {
    uint16_t h;
    memcpy(&h, row + 2 * i, sizeof h);
    return qgc_bf16_to_f32(h);
}

/* dot_1x4 with rows of bf16 as they are stored: for a single token, widening them to memory first would take
 * longer than the sums. */
QGC_CLONES
static void dot_1x4_bf16(const char *w, int64_t row_bytes, const qgc_real *x, int64_t n, qgc_real *y) {
    const char *w0 = w, *w1 = w + row_bytes, *w2 = w + 2 * row_bytes, *w3 = w + 3 * row_bytes;
    qgc_real s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (int64_t i = 0; i < n; i++) {
        s0 += bf16_at(w0, i) * x[i];
        s1 += bf16_at(w1, i) * x[i];
        s2 += bf16_at(w2, i) * x[i];
        s3 += bf16_at(w3, i) * x[i];
    }
    y[0] += s0;
    y[1] += s1;
    y[2] += s2;
    y[3] += s3;
}

QGC_INLINE qgc_real dot_1x1(const qgc_real *w, const qgc_real *x, int64_t n) {
    qgc_real s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++)
        s += w[i] * x[i];
    return s;
}

/* y[t, r] += sum over n columns of w[r, .] x[t, .] for `rows` rows and all tokens. */
QGC_CLONES
static void multiply(const linear *l, const qgc_real *w, int64_t stride, int64_t rows, const qgc_real *x,
                     int64_t n, qgc_real *y) {
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        int64_t t = 0;
        for (; t + 2 <= l->tokens; t += 2)
            dot_2x4(w + r * stride, stride, x + t * l->in, l->in, n, y + t * l->out + r, l->out);
        if (t < l->tokens)
            dot_1x4(w + r * stride, stride, x + t * l->in, n, y + t * l->out + r);
    }
    for (; r < rows; r++)
        for (int64_t t = 0; t < l->tokens; t++)
            y[t * l->out + r] += dot_1x1(w + r * stride, x + t * l->in, n);
}

static void start_with_bias(const linear *l, int64_t row, int64_t rows) {
    for (int64_t t = 0; t < l->tokens; t++)
        for (int64_t r = row; r < row + rows; r++)
            l->y[t * l->out + r] = l->bias ? l->bias[r] : 0;
}

static void linear_blocks(void *context, size_t first, size_t last) {
    const linear *l = context;
    _Alignas(64) qgc_real tile[TILE_ROWS * TILE_ELEMS];
    for (int64_t row = (int64_t)first * TILE_ROWS; row < (int64_t)last * TILE_ROWS && row < l->out;
         row += TILE_ROWS) {
        int64_t rows = l->out - row < TILE_ROWS ? l->out - row : TILE_ROWS;
        start_with_bias(l, row, rows);
        for (int64_t column = 0; column < l->in; column += TILE_ELEMS) {
            int64_t n = l->in - column < TILE_ELEMS ? l->in - column : TILE_ELEMS;
            if (l->w->dtype == QGC_BF16 && l->tokens == 1 && rows == TILE_ROWS) {
                for (int64_t r = 0; r < rows; r += 4)
                    dot_1x4_bf16((const char *)l->w->data + 2 * ((row + r) * l->in + column), 2 * l->in,
                                 l->x + column, n, l->y + row + r);
                continue;
            }
            for (int64_t r = 0; r < rows; r++)
                qgc_read_reals(l->w, (row + r) * l->in + column, tile + r * TILE_ELEMS, n);
            multiply(l, tile, TILE_ELEMS, rows, l->x + column, n, l->y + row);
        }
    }
}

void QGC_REF(linear)(const qgc_call *call) {
    const qgc_operand *x = &call->in[0], *w = &call->in[1];
    linear l = {.x = qgc_reals(call, 0),
                .w = w,
                .y = call->out[0].data,
                .tokens = x->dim[0],
                .in = w->dim[1],
                .out = w->dim[0]};
    if (call->node->n_in == 3)
        l.bias = qgc_reals(call, 2);
    qgc_pool_for(call->pool, (size_t)((l.out + TILE_ROWS - 1) / TILE_ROWS), 4, linear_blocks, &l);
}
