#include <float.h>
#include <tgmath.h>

#include "graph/ops.h"

/* route, expert_linear, expert_sum: a mixture of experts. What the n experts of a token make lies one after the other in a row. */

#ifndef QGC_DOUBLE

static qgc_status want_one(const qgc_node *n, const char *attr, qgc_diag *d) {
    if (qgc_node_number(n, attr) == 1)
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_INPUT, n->at,
                    "\"%s\" of route \"%s\" is %g, and experts in groups are not computed", attr,
                    qgc_node_label(n, d->arena), qgc_node_number(n, attr));
}

static qgc_status check_route(const qgc_node *n, qgc_diag *d) {
    const int64_t all = n->in[0]->shape.dim[1];
    QGC_TRY(qgc_want_number(n, "experts", 1, true, d));
    QGC_TRY(qgc_want_number(n, "normalize", 0, true, d));
    QGC_TRY(qgc_want_number(n, "scale", -FLT_MAX, false, d));
    QGC_TRY(want_one(n, "groups", d));
    QGC_TRY(want_one(n, "groups_used", d));
    if (qgc_node_number(n, "experts") > (double)all)
        return qgc_fail(d, QGC_ERR_INPUT, n->at, "route \"%s\" chooses %g of %lld experts",
                        qgc_node_label(n, d->arena), qgc_node_number(n, "experts"), (long long)all);
    if (n->n_in == 1)
        return QGC_OK;
    QGC_TRY(qgc_want_real(n, 1, "bias", d));
    QGC_TRY(qgc_want_form(n, 1, "bias", "[experts]", d));
    if (n->in[1]->shape.dim[0] == all)
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_INPUT, n->at, "bias of route \"%s\" has %lld elements, expected %lld",
                    qgc_node_label(n, d->arena), (long long)n->in[1]->shape.dim[0], (long long)all);
}

qgc_status infer_route(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "scores", QGC_F32, d));
    QGC_TRY(qgc_want_form(n, 0, "scores", "[rows, experts]", d));
    QGC_TRY(check_route(n, d));
    const qgc_shape chosen = {2, {n->in[0]->shape.dim[0], (int64_t)qgc_node_number(n, "experts")}};
    n->out[0]->shape = n->out[1]->shape = chosen;
    n->out[0]->dtype = QGC_I32;
    n->out[1]->dtype = QGC_F32;
    return QGC_OK;
}

static qgc_status do_not_fit(const qgc_node *n, qgc_diag *d) {
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, n->at, "inputs of %s \"%s\" do not fit together",
                            qgc_ops[n->op].name, qgc_node_label(n, d->arena));
    for (int i = 0; i < n->n_in; i++)
        qgc_note(d, n->in[i]->at, "\"%s\" is %s", qgc_value_label(n->in[i], d->arena),
                 qgc_shape_text(&n->in[i]->shape, d->arena));
    return s;
}

/* Ids that a route made, of as many experts as there are: no other number may go into a weight. */
static qgc_status want_ids(const qgc_node *n, qgc_diag *d) {
    const qgc_value *ids = n->in[2];
    if (ids->maker && ids->maker->op == QGC_OP_ROUTE && ids->out == 0)
        return ids->maker->in[0]->shape.dim[1] == n->in[1]->shape.dim[0] ? QGC_OK : do_not_fit(n, d);
    return qgc_fail(d, QGC_ERR_INPUT, n->at,
                    "ids of expert_linear \"%s\" must be made by a route, and \"%s\" is not",
                    qgc_node_label(n, d->arena), qgc_value_label(ids, d->arena));
}

qgc_status infer_expert_linear(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "x", QGC_F32, d));
    QGC_TRY(qgc_want_form(n, 0, "x", "[rows, in]", d));
    QGC_TRY(qgc_want_real(n, 1, "weight", d));
    QGC_TRY(qgc_want_form(n, 1, "weight", "[experts, out, in]", d));
    QGC_TRY(want_ids(n, d));
    const int64_t *x = n->in[0]->shape.dim, *w = n->in[1]->shape.dim, *ids = n->in[2]->shape.dim;
    if (x[0] != ids[0] || (x[1] != w[2] && x[1] != ids[1] * w[2]))
        return do_not_fit(n, d);
    if (n->n_in > 3) {
        QGC_TRY(qgc_want_real(n, 3, "bias", d));
        QGC_TRY(qgc_want_form(n, 3, "bias", "[experts, out]", d));
        const int64_t *b = n->in[3]->shape.dim;
        if (b[0] != w[0] || b[1] != w[1])
            return do_not_fit(n, d);
    }
    qgc_give(n, &(qgc_shape){2, {x[0], ids[1] * w[1]}}, QGC_F32);
    return QGC_OK;
}

qgc_status infer_expert_sum(qgc_node *n, qgc_diag *d) {
    QGC_TRY(qgc_want_dtype(n, 0, "y", QGC_F32, d));
    QGC_TRY(qgc_want_form(n, 0, "y", "[rows, n*d]", d));
    QGC_TRY(qgc_want_dtype(n, 1, "weights", QGC_F32, d));
    QGC_TRY(qgc_want_form(n, 1, "weights", "[rows, n]", d));
    const int64_t *y = n->in[0]->shape.dim, *weights = n->in[1]->shape.dim;
    if (y[0] != weights[0] || y[1] % weights[1] != 0)
        return do_not_fit(n, d);
    qgc_give(n, &(qgc_shape){2, {y[0], y[1] / weights[1]}}, QGC_F32);
    return QGC_OK;
}

#endif

enum { SOFTMAX, SOFTMAX_OF_CHOSEN, SIGMOID };

/* p[i] = exp(p[i] - the largest) / their sum */
static void softmax(double *p, int64_t n) {
    double largest = p[0], sum = 0;
    for (int64_t i = 1; i < n; i++)
        largest = p[i] > largest ? p[i] : largest;
    for (int64_t i = 0; i < n; i++)
        sum += p[i] = exp(p[i] - largest);
    for (int64_t i = 0; i < n; i++)
        p[i] /= sum;
}

/* What one token is routed by. */
typedef struct {
    const qgc_real *scores, *bias;
    int64_t all, n;
    int scoring;
    bool normalize;
    double scale;
    double *p, *by; /* [all]: what weights are made of, and what is chosen by */
} routing;

/* The first of those with the largest value, which then is none any more. */
static int64_t take_largest(double *by, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (by[i] > by[best])
            best = i;
    by[best] = -INFINITY;
    return best;
}

static void choose(const routing *r, int32_t *ids, double *weights) {
    for (int64_t i = 0; i < r->all; i++)
        r->p[i] = r->scoring == SIGMOID ? 1 / (1 + exp(-(double)r->scores[i])) : (double)r->scores[i];
    if (r->scoring == SOFTMAX)
        softmax(r->p, r->all);
    for (int64_t i = 0; i < r->all; i++)
        r->by[i] = r->p[i] + (r->bias ? (double)r->bias[i] : 0);
    double sum = 0;
    for (int64_t k = 0; k < r->n; k++) {
        ids[k] = (int32_t)take_largest(r->by, r->all);
        sum += weights[k] = r->p[ids[k]];
    }
    if (r->scoring == SOFTMAX_OF_CHOSEN)
        softmax(weights, r->n);
    for (int64_t k = 0; k < r->n; k++)
        weights[k] *= r->scale / (r->normalize && r->scoring != SOFTMAX_OF_CHOSEN ? sum : 1);
}

void QGC_REF(route)(const qgc_call *call) {
    const qgc_real *scores = qgc_reals(call, 0);
    int32_t *ids = call->out[0].data;
    qgc_real *out = call->out[1].data;
    routing r = {.bias = call->node->n_in > 1 ? qgc_reals(call, 1) : NULL,
                 .all = call->in[0].dim[1],
                 .n = call->out[0].dim[1],
                 .scoring = qgc_node_choice(call->node, "scoring"),
                 .normalize = qgc_node_number(call->node, "normalize") != 0,
                 .scale = qgc_node_number(call->node, "scale")};
    r.p = qgc_arena_array(call->scratch, (size_t)r.all, sizeof(double));
    r.by = qgc_arena_array(call->scratch, (size_t)r.all, sizeof(double));
    double *weights = qgc_arena_array(call->scratch, (size_t)r.n, sizeof *weights);
    for (int64_t t = 0; t < call->in[0].dim[0]; t++) {
        r.scores = scores + t * r.all;
        choose(&r, ids + t * r.n, weights);
        for (int64_t k = 0; k < r.n; k++)
            out[t * r.n + k] = (qgc_real)weights[k];
    }
}

typedef struct {
    const qgc_real *x;
    const qgc_operand *weight, *bias; /* bias may be NULL */
    const int32_t *ids;
    qgc_real *y, *rows; /* a row of a weight and a bias for each lane */
    int64_t n, out, in, each, items;
    int64_t lanes;
} experts;

static void expert_rows(const experts *c, int64_t item, qgc_real *row) {
    qgc_real *bias = row + c->in;
    const qgc_real *x = c->x + (c->each ? item : item / c->n) * c->in;
    if (c->bias)
        qgc_read_reals(c->bias, c->ids[item] * c->out, bias, c->out);
    for (int64_t o = 0; o < c->out; o++) {
        double sum = c->bias ? (double)bias[o] : 0;
        qgc_read_reals(c->weight, (c->ids[item] * c->out + o) * c->in, row, c->in);
        for (int64_t i = 0; i < c->in; i++)
            sum += (double)x[i] * row[i];
        c->y[item * c->out + o] = (qgc_real)sum;
    }
}

/* An item is a token and one of its experts. */
static void expert_lanes(void *context, size_t first, size_t last) {
    const experts *c = context;
    for (size_t lane = first; lane < last; lane++)
        for (int64_t item = (int64_t)lane; item < c->items; item += c->lanes)
            expert_rows(c, item, c->rows + (int64_t)lane * (c->in + c->out));
}

void QGC_REF(expert_linear)(const qgc_call *call) {
    const qgc_operand *w = &call->in[1], *ids = &call->in[2];
    experts c = {.x = qgc_reals(call, 0),
                 .weight = w,
                 .bias = call->node->n_in > 3 ? &call->in[3] : NULL,
                 .ids = ids->data,
                 .y = call->out[0].data,
                 .n = ids->dim[1],
                 .out = w->dim[1],
                 .in = w->dim[2],
                 .each = call->in[0].dim[1] != w->dim[2],
                 .items = ids->dim[0] * ids->dim[1],
                 .lanes = 4 * (int64_t)qgc_pool_threads(call->pool)};
    c.rows = qgc_arena_array(call->scratch, (size_t)(c.lanes * (c.in + c.out)), sizeof(qgc_real));
    qgc_pool_for(call->pool, (size_t)c.lanes, 1, expert_lanes, &c);
}

void QGC_REF(expert_sum)(const qgc_call *call) {
    const qgc_real *y = qgc_reals(call, 0), *weights = qgc_reals(call, 1);
    const int64_t rows = call->out[0].dim[0], d = call->out[0].dim[1], n = call->in[1].dim[1];
    qgc_real *out = call->out[0].data;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < d; i++) {
            double sum = 0;
            for (int64_t k = 0; k < n; k++)
                sum += (double)weights[r * n + k] * y[(r * n + k) * d + i];
            out[r * d + i] = (qgc_real)sum;
        }
}
