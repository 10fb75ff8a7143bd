#include <string.h>
#include <tgmath.h>

#include "graph/ops.h"
#include "graph/rope.h"

/* rope: rotary position embedding (Su et al., arxiv.org/abs/2104.09864). */

#ifndef QGC_DOUBLE

qgc_rope qgc_rope_of(const qgc_node *n) {
    qgc_rope r = {.head_dim = (int64_t)qgc_node_number(n, "head_dim"),
                  .first = (int64_t)qgc_node_number(n, "first"),
                  .rotary_dim = (int64_t)qgc_node_number(n, "rotary_dim"),
                  .interleaved = qgc_node_choice(n, "style") == 1,
                  .base = qgc_node_number(n, "base")};
    if (r.rotary_dim == 0)
        r.rotary_dim = r.head_dim - r.first;
    return r;
}

bool qgc_rope_is_plain(const qgc_rope *r) {
    return r->rotary_dim == r->head_dim && !r->interleaved;
}

bool qgc_rope_pairs_equal(const qgc_rope *a, const qgc_rope *b) {
    return a->head_dim == b->head_dim && a->first == b->first && a->rotary_dim == b->rotary_dim &&
           a->interleaved == b->interleaved;
}

/* Rows are heads of an even number of elements. */
static qgc_status check_heads(const qgc_node *n, qgc_diag *d) {
    const qgc_value *x = n->in[0];
    double head_dim = qgc_node_number(n, "head_dim");
    if (head_dim <= (double)x->shape.dim[1] && (int64_t)head_dim % 2 == 0 &&
        x->shape.dim[1] % (int64_t)head_dim == 0)
        return QGC_OK;
    qgc_status s =
        qgc_fail(d, QGC_ERR_INPUT, n->at,
                 "rows of rope \"%s\" have %lld elements, not a multiple of an even head_dim, which is %g",
                 qgc_node_label(n, d->arena), (long long)x->shape.dim[1], head_dim);
    qgc_note_origin(n, x, d);
    return s;
}

/* What turns is an even number of elements within the head. */
static qgc_status check_part(const qgc_node *n, qgc_diag *d) {
    double head_dim = qgc_node_number(n, "head_dim"), first = qgc_node_number(n, "first");
    double rotary_dim = qgc_node_number(n, "rotary_dim");
    if (first < head_dim && first + rotary_dim <= head_dim && qgc_rope_of(n).rotary_dim % 2 == 0)
        return QGC_OK;
    return qgc_fail(
        d, QGC_ERR_INPUT, n->at,
        "rope \"%s\" turns %g elements from %g on in heads of %g, expected an even number within them",
        qgc_node_label(n, d->arena), rotary_dim == 0 ? head_dim - first : rotary_dim, first, head_dim);
}

qgc_status infer_rope(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "x", QGC_F32, d));
    QGC_TRY(qgc_want_form(n, 0, "x", "[T, heads*head_dim]", d));
    QGC_TRY(qgc_want_indices(n, 1, "positions", "[T]", d));
    QGC_TRY(qgc_want_number(n, "base", 1, false, d));
    QGC_TRY(qgc_want_number(n, "head_dim", 2, true, d));
    QGC_TRY(qgc_want_number(n, "first", 0, true, d));
    QGC_TRY(qgc_want_number(n, "rotary_dim", 0, true, d));
    QGC_TRY(check_heads(n, d));
    QGC_TRY(check_part(n, d));
    qgc_give(n, &n->in[0]->shape, QGC_F32);
    return QGC_OK;
}

#endif

typedef struct {
    qgc_rope r;
    const qgc_real *x;
    const int32_t *positions;
    const double *turns; /* [rotary_dim/2] radians a position */
    qgc_real *y;
    int64_t heads;
} rope;

/* The angle is a double; cos and sin are rounded to the type of the evaluator: float32 as in the tables that the compiler makes for the
 * GPU. */
static void turn_heads(const rope *c, size_t t, int64_t pair) {
    const qgc_rope *r = &c->r;
    const double angle = (double)c->positions[t] * c->turns[pair];
    const qgc_real cosine = (qgc_real)cos(angle), sine = (qgc_real)sin(angle);
    const int64_t to_other = r->interleaved ? 1 : r->rotary_dim / 2;
    int64_t at = (int64_t)t * c->heads * r->head_dim + r->first + (r->interleaved ? 2 * pair : pair);
    for (int64_t h = 0; h < c->heads; h++, at += r->head_dim) {
        const qgc_real a = c->x[at], b = c->x[at + to_other];
        c->y[at] = a * cosine - b * sine;
        c->y[at + to_other] = b * cosine + a * sine;
    }
}

static void rope_tokens(void *context, size_t first, size_t last) {
    const rope *c = context;
    const size_t row = (size_t)(c->heads * c->r.head_dim);
    for (size_t t = first; t < last; t++) {
        if (c->r.rotary_dim != c->r.head_dim)
            memcpy(c->y + t * row, c->x + t * row, row * sizeof *c->y);
        for (int64_t pair = 0; pair < c->r.rotary_dim / 2; pair++)
            turn_heads(c, t, pair);
    }
}

void QGC_REF(rope)(const qgc_call *call) {
    const qgc_operand *x = &call->in[0];
    rope c = {.r = qgc_rope_of(call->node),
              .x = qgc_reals(call, 0),
              .positions = call->in[1].data,
              .y = call->out[0].data};
    c.heads = x->dim[1] / c.r.head_dim;
    double *turns = qgc_arena_array(call->scratch, (size_t)c.r.rotary_dim / 2, sizeof *turns);
    for (int64_t i = 0; i < c.r.rotary_dim / 2; i++)
        turns[i] = pow(c.r.base, -2.0 * (double)i / (double)c.r.rotary_dim);
    c.turns = turns;
    qgc_pool_for(call->pool, (size_t)x->dim[0], 16, rope_tokens, &c);
}
