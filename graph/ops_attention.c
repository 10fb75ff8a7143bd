#include <string.h>
#include <tgmath.h>

#include "graph/base/simd.h"
#include "graph/ops.h"

/* append and attention: the two ends of the KV cache. A cache is [kv_heads, ctx, d]: the positions of one head
 * are adjacent. One that is a ring has fewer: position p is in row p % rows, and overwrites the one that was there. */

#ifndef QGC_DOUBLE

qgc_status infer_append(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_state(n, "cache", d));
    QGC_TRY(qgc_want_cache(n, 0, "cache", d));
    QGC_TRY(qgc_want_form(n, 0, "cache", "[kv_heads, ctx, d]", d));
    QGC_TRY(qgc_want_dtype(n, 1, "x", QGC_F32, d));
    QGC_TRY(qgc_want_form(n, 1, "x", "[T, kv_heads*d]", d));
    QGC_TRY(qgc_want_indices(n, 2, "positions", "[T]", d));
    const qgc_value *cache = n->in[0], *x = n->in[1];
    int64_t wanted = cache->shape.dim[0] * cache->shape.dim[2];
    if (x->shape.dim[1] != wanted) {
        qgc_status s = qgc_fail(d, QGC_ERR_INPUT, n->at,
                                "rows of append \"%s\" have %lld elements, but its cache %s takes %lld",
                                qgc_node_label(n, d->arena), (long long)x->shape.dim[1],
                                qgc_shape_text(&cache->shape, d->arena), (long long)wanted);
        qgc_note_origin(n, x, d);
        qgc_note_origin(n, cache, d);
        return s;
    }
    qgc_give(n, &cache->shape, cache->dtype);
    return QGC_OK;
}

/* Has the step put its own keys, or values, into the cache that attention reads? */
static bool is_appended(const qgc_node *n, int input) {
    const qgc_node *maker = n->in[input]->maker;
    return maker && maker->op == QGC_OP_APPEND && maker->in[2] == n->in[3];
}

/* A ring has all that a token sees. */
static qgc_status check_ring(const qgc_node *n, qgc_diag *d) {
    const qgc_value *keys = n->in[1];
    const int64_t rows = qgc_dim_ring(keys->shape.dim[1]);
    const double window = qgc_node_number(n, "window");
    if (rows == 0 || (window > 0 && window <= (double)rows && is_appended(n, 1) && is_appended(n, 2)))
        return QGC_OK;
    const char *sees =
        window > 0 ? qgc_arena_printf(d->arena, "the last %g positions", window) : "all positions";
    const bool small = window == 0 || window > (double)rows;
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, n->at, "%s \"%s\" %s%s, but its caches keep %lld: %s",
                            qgc_ops[n->op].name, qgc_node_label(n, d->arena),
                            small ? "sees " : "reads caches before the step puts its own positions there",
                            small ? sees : "", (long long)rows, qgc_shape_text(&keys->shape, d->arena));
    qgc_note_origin(n, keys, d);
    return s;
}

/* One for each query head. */
static qgc_status check_sinks(const qgc_node *n, qgc_diag *d) {
    if (n->n_in < 5)
        return QGC_OK;
    QGC_TRY(qgc_want_real(n, 4, "sinks", d));
    QGC_TRY(qgc_want_form(n, 4, "sinks", "[heads]", d));
    const qgc_value *q = n->in[0], *keys = n->in[1], *sinks = n->in[4];
    if (sinks->shape.dim[0] * keys->shape.dim[2] == q->shape.dim[1])
        return QGC_OK;
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, n->at, "%s \"%s\" has %lld sinks and %lld heads",
                            qgc_ops[n->op].name, qgc_node_label(n, d->arena), (long long)sinks->shape.dim[0],
                            (long long)(q->shape.dim[1] / keys->shape.dim[2]));
    qgc_note_origin(n, sinks, d);
    return s;
}

/* What attention and attention_part ask of their inputs. */
static qgc_status check_attention(const qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "q", QGC_F32, d));
    QGC_TRY(qgc_want_form(n, 0, "q", "[T, heads*d]", d));
    QGC_TRY(qgc_want_cache(n, 1, "keys", d));
    QGC_TRY(qgc_want_form(n, 1, "keys", "[kv_heads, ctx, d]", d));
    QGC_TRY(qgc_want_cache(n, 2, "values", d));
    QGC_TRY(qgc_want_form(n, 2, "values", "[kv_heads, ctx, d]", d));
    QGC_TRY(qgc_want_indices(n, 3, "positions", "[T]", d));
    QGC_TRY(qgc_want_number(n, "scale", 0, false, d));
    QGC_TRY(qgc_want_number(n, "window", 0, true, d));
    QGC_TRY(qgc_want_number(n, "softcap", 0, false, d));
    if (qgc_node_number(n, "window") > INT32_MAX)
        return qgc_fail(d, QGC_ERR_INPUT, n->at,
                        "\"window\" of %s \"%s\" is %g, more than there are positions", qgc_ops[n->op].name,
                        qgc_node_label(n, d->arena), qgc_node_number(n, "window"));
    const char *op = qgc_ops[n->op].name;
    const qgc_value *q = n->in[0], *keys = n->in[1], *values = n->in[2];
    if (!qgc_shape_equal(&keys->shape, &values->shape)) {
        qgc_status s = qgc_fail(d, QGC_ERR_INPUT, n->at, "keys and values of %s \"%s\" differ: %s against %s",
                                op, qgc_node_label(n, d->arena), qgc_shape_text(&keys->shape, d->arena),
                                qgc_shape_text(&values->shape, d->arena));
        qgc_note_origin(n, keys, d);
        qgc_note_origin(n, values, d);
        return s;
    }
    int64_t kv_elems = keys->shape.dim[0] * keys->shape.dim[2];
    if (q->shape.dim[1] % kv_elems != 0) {
        qgc_status s =
            qgc_fail(d, QGC_ERR_INPUT, n->at,
                     "rows of q of %s \"%s\" have %lld elements, not a multiple of the %lld of its keys %s",
                     op, qgc_node_label(n, d->arena), (long long)q->shape.dim[1], (long long)kv_elems,
                     qgc_shape_text(&keys->shape, d->arena));
        qgc_note_origin(n, q, d);
        qgc_note_origin(n, keys, d);
        return s;
    }
    QGC_TRY(check_sinks(n, d));
    return check_ring(n, d);
}

qgc_status infer_attention(qgc_node *n, qgc_diag *d) {
    QGC_TRY(check_attention(n, d));
    qgc_give(n, &n->in[0]->shape, QGC_F32);
    return QGC_OK;
}

enum { MAX_PARTS = 64 };

static qgc_status check_parts(const qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_number(n, "parts", 1, true, d));
    if (qgc_node_number(n, "parts") > MAX_PARTS)
        return qgc_fail(d, QGC_ERR_INPUT, n->at, "parts of %s \"%s\" is %g, expected 1 to %d",
                        qgc_ops[n->op].name, qgc_node_label(n, d->arena), qgc_node_number(n, "parts"),
                        MAX_PARTS);
    return QGC_OK;
}

qgc_status infer_attention_part(qgc_node *n, qgc_diag *d) {
    QGC_TRY(check_attention(n, d));
    QGC_TRY(check_parts(n, d));
    int64_t head_dim = n->in[1]->shape.dim[2], heads = n->in[0]->shape.dim[1] / head_dim;
    int64_t width = (int64_t)qgc_node_number(n, "parts") * heads * (head_dim + 2);
    qgc_give(n, &(qgc_shape){2, {n->in[0]->shape.dim[0], width}}, QGC_F32);
    return QGC_OK;
}

qgc_status infer_attention_merge(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "p", QGC_F32, d));
    QGC_TRY(qgc_want_form(n, 0, "p", "[rows, parts*heads*(head_dim+2)]", d));
    QGC_TRY(qgc_want_number(n, "head_dim", 1, true, d));
    QGC_TRY(check_parts(n, d));
    const qgc_value *p = n->in[0];
    double head_dim = qgc_node_number(n, "head_dim"), each = qgc_node_number(n, "parts") * (head_dim + 2);
    int64_t heads = each <= (double)p->shape.dim[1] ? p->shape.dim[1] / (int64_t)each : 0;
    if ((double)heads * each != (double)p->shape.dim[1] || heads == 0) {
        qgc_status s =
            qgc_fail(d, QGC_ERR_INPUT, n->at,
                     "rows of p of attention_merge \"%s\" have %lld elements, not a multiple of parts * "
                     "(head_dim + 2) = %g",
                     qgc_node_label(n, d->arena), (long long)p->shape.dim[1], each);
        qgc_note_origin(n, p, d);
        return s;
    }
    qgc_give(n, &(qgc_shape){2, {p->shape.dim[0], heads * (int64_t)head_dim}}, QGC_F32);
    return QGC_OK;
}

#endif

/* The one place besides attention where rounding shows: x is rounded to the dtype of the cache. */
void QGC_REF(append)(const qgc_call *call) {
    const qgc_operand *cache = &call->in[0], *x = &call->in[1];
    const qgc_real *from = qgc_reals(call, 1);
    const int32_t *positions = call->in[2].data;
    int64_t heads = cache->dim[0], rows = cache->dim[1], d = cache->dim[2];
    for (int64_t t = 0; t < x->dim[0]; t++)
        for (int64_t h = 0; h < heads; h++)
            qgc_write_reals(&call->out[0], (h * rows + positions[t] % rows) * d, from + (t * heads + h) * d,
                            d);
}

/* Positions widened at a time. */
enum { TILE_POSITIONS = 32 };

typedef struct {
    const qgc_real *q, *sinks; /* NULL: there are none */
    const qgc_operand *keys, *values;
    const int32_t *positions;
    qgc_real *y;
    qgc_real scale, softcap;                     /* softcap 0: none */
    int64_t window;                              /* 0: none */
    int64_t heads, group, rows, d, items, parts; /* parts 0: one, and its result divided by the total */
    size_t n_lanes;
    qgc_real *scores; /* [n_lanes, longest] */
    qgc_real *tiles;  /* [n_lanes, TILE_POSITIONS * d] */
    int64_t longest;
} attention;

QGC_CLONES
static void score_tile(const qgc_real *q, const qgc_real *keys, int64_t n, int64_t d, qgc_real scale,
                       qgc_real *scores) {
    for (int64_t j = 0; j < n; j++) {
        qgc_real s = 0;
#pragma omp simd reduction(+ : s)
        for (int64_t i = 0; i < d; i++)
            s += q[i] * keys[j * d + i];
        scores[j] = s * scale;
    }
}

static void cap_tile(qgc_real cap, int64_t n, qgc_real *scores) {
    for (int64_t j = 0; cap > 0 && j < n; j++)
        scores[j] = cap * tanh(scores[j] / cap);
}

QGC_CLONES
static void add_tile(const qgc_real *weights, const qgc_real *values, int64_t n, int64_t d, qgc_real *y) {
    for (int64_t j = 0; j < n; j++)
#pragma omp simd
        for (int64_t i = 0; i < d; i++)
            y[i] += weights[j] * values[j * d + i];
}

/* scores become exp(score - largest); returns their sum, to which a sink counts as one more score. A NaN goes through to the result. */
static double exponents(qgc_real *scores, int64_t n, const qgc_real *sink, qgc_real *most) {
    qgc_real largest = sink && *sink > scores[0] ? *sink : scores[0];
    for (int64_t j = 1; j < n; j++)
        if (scores[j] > largest)
            largest = scores[j];
    double sum = sink ? exp((double)*sink - (double)largest) : 0;
    for (int64_t j = 0; j < n; j++) {
        scores[j] = exp(scores[j] - largest);
        sum += scores[j];
    }
    *most = largest;
    return sum;
}

/* Positions of a cache that are read together: as many as fit a tile, up to the `n`, and the end of a ring. */
static int64_t piece(const attention *c, int64_t position, int64_t n) {
    const int64_t left = c->rows - position % c->rows, most = left < TILE_POSITIONS ? left : TILE_POSITIONS;
    return n < most ? n : most;
}

/* The first position that a token at position `last` sees. */
static int64_t first_seen(const attention *c, int64_t last) {
    return c->window && last >= c->window ? last + 1 - c->window : 0;
}

/* One head of one token against `n` positions from `first` on: y [d] gets the sum of their values, each weighted by
 * exp(score - *most). Returns the total of the weights, among them that of the sink where the first position seen is. */
static double attend(const attention *c, int64_t item, int64_t first, int64_t n, qgc_real *scores,
                     qgc_real *tile, qgc_real *y, qgc_real *most) {
    int64_t h = item % c->heads, d = c->d, start = h / c->group * c->rows;
    const qgc_real *q = c->q + item * d;
    memset(y, 0, (size_t)d * sizeof *y);
    *most = -INFINITY;
    if (n == 0)
        return 0;
    for (int64_t j = 0, some; j < n; j += some) {
        some = piece(c, first + j, n - j);
        qgc_read_reals(c->keys, (start + (first + j) % c->rows) * d, tile, some * d);
        score_tile(q, tile, some, d, c->scale, scores + j);
        cap_tile(c->softcap, some, scores + j);
    }
    const bool sinks = c->sinks && first == first_seen(c, c->positions[item / c->heads]);
    double sum = exponents(scores, n, sinks ? &c->sinks[h] : NULL, most);
    for (int64_t j = 0, some; j < n; j += some) {
        some = piece(c, first + j, n - j);
        qgc_read_reals(c->values, (start + (first + j) % c->rows) * d, tile, some * d);
        add_tile(scores + j, tile, some, d, y);
    }
    return sum;
}

/* A part has at least so many positions: kernels/attention.cu and attention_heads.cu cut at the same places. */
enum { LEAST_SPAN = 64 };

static void attend_in_parts(const attention *c, int64_t item, qgc_real *scores, qgc_real *tile) {
    int64_t t = item / c->heads, h = item % c->heads, d = c->d, seen = first_seen(c, c->positions[t]);
    int64_t all = c->positions[t] + 1 - seen;
    int64_t span = (all + c->parts - 1) / c->parts;
    span = span > LEAST_SPAN ? span : LEAST_SPAN;
    for (int64_t part = 0; part < c->parts; part++) {
        qgc_real *y = c->y + ((t * c->parts + part) * c->heads + h) * (d + 2);
        int64_t first = part * span < all ? part * span : all, n = all - first < span ? all - first : span;
        y[d + 1] = (qgc_real)attend(c, item, seen + first, n, scores, tile, y, &y[d]);
    }
}

static void attend_whole(const attention *c, int64_t item, qgc_real *scores, qgc_real *tile) {
    const int64_t last = c->positions[item / c->heads], seen = first_seen(c, last);
    qgc_real *y = c->y + item * c->d, most;
    double sum = attend(c, item, seen, last + 1 - seen, scores, tile, y, &most);
    for (int64_t i = 0; i < c->d; i++)
        y[i] = (qgc_real)(y[i] / sum);
}

/* A lane takes every n_lanes-th item, so that each has its own scratch whichever thread runs it, and late
 * tokens, which have more positions after them, are spread evenly. */
static void attention_lanes(void *context, size_t first, size_t last) {
    const attention *c = context;
    for (size_t lane = first; lane < last; lane++)
        for (int64_t item = (int64_t)lane; item < c->items; item += (int64_t)c->n_lanes)
            (c->parts ? attend_in_parts : attend_whole)(c, item, c->scores + (int64_t)lane * c->longest,
                                                        c->tiles + (int64_t)lane * TILE_POSITIONS * c->d);
}

static void run_attention(const qgc_call *call, int64_t parts) {
    const qgc_operand *q = &call->in[0], *keys = &call->in[1];
    attention c = {.q = qgc_reals(call, 0),
                   .sinks = call->node->n_in > 4 ? qgc_reals(call, 4) : NULL,
                   .keys = keys,
                   .values = &call->in[2],
                   .positions = call->in[3].data,
                   .y = call->out[0].data,
                   .scale = (qgc_real)qgc_node_number(call->node, "scale"),
                   .softcap = (qgc_real)qgc_node_number(call->node, "softcap"),
                   .window = (int64_t)qgc_node_number(call->node, "window"),
                   .rows = keys->dim[1],
                   .d = keys->dim[2],
                   .parts = parts};
    c.heads = q->dim[1] / c.d;
    c.group = c.heads / keys->dim[0];
    c.items = q->dim[0] * c.heads;
    for (int64_t t = 0; t < q->dim[0]; t++)
        if (c.positions[t] >= c.longest)
            c.longest = c.positions[t] + 1;
    c.n_lanes = 4 * (size_t)qgc_pool_threads(call->pool);
    c.scores = qgc_arena_array(call->scratch, c.n_lanes * (size_t)c.longest, sizeof(qgc_real));
    c.tiles = qgc_arena_array(call->scratch, c.n_lanes * TILE_POSITIONS * (size_t)c.d, sizeof(qgc_real));
    qgc_pool_for(call->pool, c.n_lanes, 1, attention_lanes, &c);
}

void QGC_REF(attention)(const qgc_call *call) {
    run_attention(call, 0);
}

void QGC_REF(attention_part)(const qgc_call *call) {
    run_attention(call, (int64_t)qgc_node_number(call->node, "parts"));
}

/* y [d] of one head; part p of it stands at parts + p * stride. */
static void merge_head(const qgc_real *parts, int64_t n_parts, int64_t stride, int64_t d, qgc_real *y) {
    qgc_real most = -INFINITY;
    double total = 0;
    for (int64_t p = 0; p < n_parts; p++)
        most = fmax(most, parts[p * stride + d]);
    for (int64_t p = 0; p < n_parts; p++)
        total += exp((double)parts[p * stride + d] - most) * parts[p * stride + d + 1];
    for (int64_t i = 0; i < d; i++) {
        double sum = 0;
        for (int64_t p = 0; p < n_parts; p++)
            sum += exp((double)parts[p * stride + d] - most) * parts[p * stride + i];
        y[i] = (qgc_real)(sum / total);
    }
}

void QGC_REF(attention_merge)(const qgc_call *call) {
    int64_t d = (int64_t)qgc_node_number(call->node, "head_dim");
    int64_t n_parts = (int64_t)qgc_node_number(call->node, "parts");
    int64_t rows = call->out[0].dim[0], heads = call->out[0].dim[1] / d;
    const qgc_real *parts = qgc_reals(call, 0);
    qgc_real *y = call->out[0].data;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t h = 0; h < heads; h++)
            merge_head(parts + (r * n_parts * heads + h) * (d + 2), n_parts, heads * (d + 2), d,
                       y + (r * heads + h) * d);
}
