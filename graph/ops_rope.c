#include <float.h>
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
                  .base = qgc_node_number(n, "base"),
                  .scale = qgc_node_number(n, "scale"),
                  .freqs = n->n_in > 2 ? n->in[2] : NULL};
    if (r.freqs)
        r.rotary_dim = 2 * r.freqs->shape.dim[1];
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
    double rotary_dim = n->n_in > 2 ? (double)qgc_rope_of(n).rotary_dim : qgc_node_number(n, "rotary_dim");
    if (first < head_dim && first + rotary_dim <= head_dim && qgc_rope_of(n).rotary_dim % 2 == 0)
        return QGC_OK;
    return qgc_fail(
        d, QGC_ERR_INPUT, n->at,
        "rope \"%s\" turns %g elements from %g on in heads of %g, expected an even number within them",
        qgc_node_label(n, d->arena), rotary_dim == 0 ? head_dim - first : rotary_dim, first, head_dim);
}

static qgc_status want_frequencies(const qgc_node *n, int i, qgc_diag *d) {
    if (qgc_is_frequencies(n->in[i]))
        return QGC_OK;
    qgc_status s =
        qgc_fail(d, QGC_ERR_INPUT, n->at,
                 "freqs of %s \"%s\" must be made by rope_freqs, and %s \"%s\" is not", qgc_ops[n->op].name,
                 qgc_node_label(n, d->arena), qgc_value_word(n->in[i]), qgc_value_label(n->in[i], d->arena));
    qgc_note_origin(n, n->in[i], d);
    return s;
}

/* Either `base` says how fast pairs turn, or frequencies do, and then also how many pairs there are. */
static qgc_status check_base(const qgc_node *n, qgc_diag *d) {
    if (n->n_in == 2)
        return qgc_want_number(n, "base", 1, false, d);
    QGC_TRY(want_frequencies(n, 2, d));
    const double base = qgc_node_number(n, "base"), rotary_dim = qgc_node_number(n, "rotary_dim");
    if (base != 0)
        return qgc_fail(d, QGC_ERR_INPUT, n->at, "rope \"%s\" has frequencies and a base, which is %g",
                        qgc_node_label(n, d->arena), base);
    if (rotary_dim != 0 && rotary_dim != 2 * (double)n->in[2]->shape.dim[1])
        return qgc_fail(d, QGC_ERR_INPUT, n->at,
                        "rope \"%s\" has frequencies for %lld elements of a head, and its rotary_dim is %g",
                        qgc_node_label(n, d->arena), 2 * (long long)n->in[2]->shape.dim[1], rotary_dim);
    return QGC_OK;
}

qgc_status infer_rope(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "x", QGC_F32, d));
    QGC_TRY(qgc_want_form(n, 0, "x", "[T, heads*head_dim]", d));
    QGC_TRY(qgc_want_indices(n, 1, "positions", "[T]", d));
    QGC_TRY(check_base(n, d));
    QGC_TRY(qgc_want_number(n, "scale", FLT_MIN, false, d));
    QGC_TRY(qgc_want_number(n, "head_dim", 2, true, d));
    QGC_TRY(qgc_want_number(n, "first", 0, true, d));
    QGC_TRY(qgc_want_number(n, "rotary_dim", 0, true, d));
    QGC_TRY(check_heads(n, d));
    QGC_TRY(check_part(n, d));
    qgc_give(n, &n->in[0]->shape, QGC_F32);
    return QGC_OK;
}

/* --- frequencies ----------------------------------------------------------------------------------------- */

bool qgc_is_frequencies(const qgc_value *v) {
    return v->maker && v->maker->op >= QGC_OP_ROPE_FREQS && v->maker->op <= QGC_OP_ROPE_LONGROPE;
}

qgc_status infer_rope_freqs(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_number(n, "base", 1, false, d));
    QGC_TRY(qgc_want_number(n, "rotary_dim", 2, true, d));
    const double dim = qgc_node_number(n, "rotary_dim");
    if (fmod(dim, 2) != 0 || dim > 1 << 20)
        return qgc_fail(d, QGC_ERR_INPUT, n->at,
                        "\"rotary_dim\" of rope_freqs \"%s\" is %g, expected an even number",
                        qgc_node_label(n, d->arena), dim);
    qgc_give(n, &(qgc_shape){2, {2, (int64_t)dim / 2}}, QGC_F32);
    return QGC_OK;
}

/* What makes frequencies of others. */
static qgc_status infer_changed(qgc_node *n, qgc_diag *d) {
    QGC_TRY(want_frequencies(n, 0, d));
    qgc_give(n, &n->in[0]->shape, QGC_F32);
    return QGC_OK;
}

qgc_status infer_rope_linear(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_number(n, "factor", FLT_MIN, false, d));
    return infer_changed(n, d);
}

static qgc_status want_more(const qgc_node *n, const char *more, const char *less, qgc_diag *d) {
    const double a = qgc_node_number(n, more), b = qgc_node_number(n, less);
    if (a > b)
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_INPUT, n->at,
                    "\"%s\" of %s \"%s\" is %g, expected more than \"%s\", which is %g", more,
                    qgc_ops[n->op].name, qgc_node_label(n, d->arena), a, less, b);
}

qgc_status infer_rope_llama3(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_number(n, "factor", FLT_MIN, false, d));
    QGC_TRY(qgc_want_number(n, "low", 0, false, d));
    QGC_TRY(qgc_want_number(n, "original", 1, false, d));
    QGC_TRY(want_more(n, "high", "low", d));
    return infer_changed(n, d);
}

qgc_status infer_rope_yarn(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_number(n, "base", 1, false, d));
    if (qgc_node_number(n, "base") == 1) /* its logarithm divides */
        return qgc_fail(d, QGC_ERR_INPUT, n->at, "\"base\" of rope_yarn \"%s\" is 1, expected more",
                        qgc_node_label(n, d->arena));
    QGC_TRY(qgc_want_number(n, "factor", FLT_MIN, false, d));
    QGC_TRY(qgc_want_number(n, "original", 1, false, d));
    QGC_TRY(qgc_want_number(n, "beta_slow", FLT_MIN, false, d));
    QGC_TRY(want_more(n, "beta_fast", "beta_slow", d));
    return infer_changed(n, d);
}

/* Input i: as many as there are frequencies. */
static qgc_status want_divisors(const qgc_node *n, int i, const char *name, qgc_diag *d) {
    QGC_TRY(qgc_want_real(n, i, name, d));
    QGC_TRY(qgc_want_form(n, i, name, "[pairs]", d));
    const qgc_value *freqs = n->in[0], *divisors = n->in[i];
    if (freqs->shape.dim[1] == divisors->shape.dim[0])
        return QGC_OK;
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, n->at, "%s \"%s\" has %lld frequencies and %lld divisors",
                            qgc_ops[n->op].name, qgc_node_label(n, d->arena), (long long)freqs->shape.dim[1],
                            (long long)divisors->shape.dim[0]);
    qgc_note_origin(n, freqs, d);
    qgc_note_origin(n, divisors, d);
    return s;
}

qgc_status infer_rope_divide(qgc_node *n, qgc_diag *d) {
    QGC_TRY(infer_changed(n, d));
    return want_divisors(n, 1, "divisors", d);
}

qgc_status infer_rope_longrope(qgc_node *n, qgc_diag *d) {
    QGC_TRY(infer_changed(n, d));
    QGC_TRY(qgc_want_number(n, "original", 1, true, d));
    QGC_TRY(want_divisors(n, 1, "short", d));
    return want_divisors(n, 2, "long", d);
}

/* The pair that turns `beta` times in the original number of positions. */
static double yarn_pair(const qgc_node *n, double pairs, const char *beta) {
    const double turns = 2 * acos(-1.0) * qgc_node_number(n, beta);
    return pairs * log(qgc_node_number(n, "original") / turns) / log(qgc_node_number(n, "base"));
}

void qgc_rope_yarn_range(const qgc_node *n, double *low, double *high) {
    const double pairs = (double)n->in[0]->shape.dim[1], last = 2 * pairs - 1;
    *low = yarn_pair(n, pairs, "beta_fast");
    *high = yarn_pair(n, pairs, "beta_slow");
    if (qgc_node_number(n, "truncate") != 0) {
        *low = floor(*low);
        *high = ceil(*high);
    }
    *low = fmax(*low, 0);
    *high = fmin(*high, last);
    if (*low == *high)
        *high += 0.001; /* as transformers has it */
}

#endif

/* Frequency i of input k: of both of its parts. */
static double frequency(const qgc_call *call, int k, int64_t i) {
    const qgc_operand *o = &call->in[k];
    const qgc_real *x = o->data;
    return (double)x[i] + (double)x[o->dim[1] + i];
}

static void put_frequency(const qgc_call *call, int64_t i, double f) {
    const qgc_operand *o = &call->out[0];
    qgc_real *y = o->data;
    y[i] = (qgc_real)f;
    y[o->dim[1] + i] = (qgc_real)(f - (double)y[i]);
}

void QGC_REF(rope_freqs)(const qgc_call *call) {
    const int64_t n = call->out[0].dim[1];
    for (int64_t i = 0; i < n; i++)
        put_frequency(call, i, pow(qgc_node_number(call->node, "base"), -(double)i / (double)n));
}

void QGC_REF(rope_linear)(const qgc_call *call) {
    for (int64_t i = 0; i < call->out[0].dim[1]; i++)
        put_frequency(call, i, frequency(call, 0, i) / qgc_node_number(call->node, "factor"));
}

void QGC_REF(rope_llama3)(const qgc_call *call) {
    const double factor = qgc_node_number(call->node, "factor"), low = qgc_node_number(call->node, "low");
    const double high = qgc_node_number(call->node, "high"),
                 original = qgc_node_number(call->node, "original");
    for (int64_t i = 0; i < call->out[0].dim[1]; i++) {
        const double f = frequency(call, 0, i), turns = original * f / (2 * acos(-1.0));
        const double s = fmin(fmax((turns - low) / (high - low), 0), 1);
        put_frequency(call, i, f * ((1 - s) / factor + s));
    }
}

void QGC_REF(rope_yarn)(const qgc_call *call) {
    const double factor = qgc_node_number(call->node, "factor");
    double low, high;
    qgc_rope_yarn_range(call->node, &low, &high);
    for (int64_t i = 0; i < call->out[0].dim[1]; i++) {
        const double f = frequency(call, 0, i), r = fmin(fmax(((double)i - low) / (high - low), 0), 1);
        put_frequency(call, i, f * (1 - r) + f / factor * r);
    }
}

void QGC_REF(rope_divide)(const qgc_call *call) {
    const qgc_real *divisors = qgc_reals(call, 1);
    for (int64_t i = 0; i < call->out[0].dim[1]; i++)
        put_frequency(call, i, frequency(call, 0, i) / (double)divisors[i]);
}

/* Positions have one table each: so one list for all of them, by how many there may be. */
void QGC_REF(rope_longrope)(const qgc_call *call) {
    const bool is_long = (double)call->ctx > qgc_node_number(call->node, "original");
    const qgc_real *divisors = qgc_reals(call, is_long ? 2 : 1);
    for (int64_t i = 0; i < call->out[0].dim[1]; i++)
        put_frequency(call, i, frequency(call, 0, i) / (double)divisors[i]);
}

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
    const qgc_real cosine = (qgc_real)(cos(angle) * r->scale), sine = (qgc_real)(sin(angle) * r->scale);
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
        turns[i] =
            c.r.freqs ? frequency(call, 2, i) : pow(c.r.base, -2.0 * (double)i / (double)c.r.rotary_dim);
    c.turns = turns;
    qgc_pool_for(call->pool, (size_t)x->dim[0], 16, rope_tokens, &c);
}
