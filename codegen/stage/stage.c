#include "codegen/stage/stage.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "graph/base/planes.h"

/* The nodes of a group, sorted by what they are to a kernel. */
typedef struct {
    const qgc_node *const *nodes;
    int n_nodes;
    const int *uses;
    qgc_stage *f;
    const char **why;
    qgc_arena *arena;
} search;

enum { MAX_OUTSIDE_POINTWISE = 6, MAX_OUTSIDE_LINEAR = 4 };

qgc_dtype qgc_weight_storage(const qgc_value *weight) {
    return weight->shape.rank < 2 ? QGC_F32 : weight->dtype;
}

int64_t qgc_weight_bytes(const qgc_value *weight) {
    const int64_t row = weight->shape.rank ? weight->shape.dim[weight->shape.rank - 1] : 1;
    return qgc_shape_elems_from(&weight->shape, 0) / row *
           (int64_t)qgc_planes_bytes(qgc_weight_storage(weight), row);
}

static bool no(search *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool no(search *s, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const char *text = qgc_arena_vprintf(s->arena, format, args);
    va_end(args);
    *s->why = text;
    return false;
}

static const char *label(const search *s, const qgc_value *v) {
    return qgc_value_label(v, s->arena);
}

/* Somebody outside of the group reads v, or it is an output of the graph. */
static bool read_outside(const search *s, const qgc_value *v) {
    int inside = 0;
    for (int i = 0; i < s->n_nodes; i++)
        for (int k = 0; k < s->nodes[i]->n_in; k++)
            inside += s->nodes[i]->in[k] == v;
    return s->uses[v->id] > inside;
}

static bool inside(const search *s, const qgc_value *v) {
    return v->maker && v->maker->group == s->nodes[0]->group;
}

static bool is_pointwise(const qgc_node *n) {
    return (qgc_ops[n->op].traits & QGC_POINTWISE) != 0;
}

/* --- sorting --------------------------------------------------------------------------------------------- */

static qgc_stage_row *row_of(search *s, const qgc_value *v) {
    for (int i = 0; i < s->f->n_rows; i++) {
        qgc_stage_row *r = &s->f->rows[i];
        if (r->linear->out[0] == v || (r->norm && r->norm->out[0] == v) || (r->rope && r->rope->out[0] == v))
            return r;
    }
    return NULL;
}

static bool take_prologue(search *s, const qgc_node **slot, const qgc_node *n) {
    if (s->f->norm || s->f->merge)
        return no(s, "\"%s\" is a second %s of the group", label(s, n->out[0]), qgc_ops[n->op].name);
    *slot = n;
    return true;
}

static bool take_only(search *s, const qgc_node **slot, const qgc_node *n) {
    if (*slot)
        return no(s, "\"%s\" is a second %s of the group", label(s, n->out[0]), qgc_ops[n->op].name);
    *slot = n;
    return true;
}

static bool take_linear(search *s, const qgc_node *n) {
    if (s->f->n_rows == QGC_MAX_LINEARS)
        return no(s, "more than %d products", QGC_MAX_LINEARS);
    s->f->rows[s->f->n_rows++] = (qgc_stage_row){.linear = n};
    return true;
}

static bool take_behind(search *s, const qgc_node *n, const qgc_value *x) {
    qgc_stage_row *row = row_of(s, x);
    if (!row)
        return no(s, "%s \"%s\" does not follow a product of the group", qgc_ops[n->op].name,
                  label(s, n->out[0]));
    const qgc_node **slot = n->op == QGC_OP_ROPE ? &row->rope : &row->append;
    if (*slot || (n->op == QGC_OP_ROPE && row->append))
        return no(s, "two nodes go on from \"%s\"", label(s, x));
    *slot = n;
    return true;
}

/* A norm of what a product of the group makes is one of its heads, or of all of it; any other comes before the products. */
static bool take_norm(search *s, const qgc_node *n) {
    qgc_stage_row *row = row_of(s, n->in[0]);
    if (!row)
        return take_prologue(s, &s->f->norm, n);
    if (row->norm || row->rope || row->append)
        return no(s, "two nodes go on from \"%s\"", label(s, n->in[0]));
    row->norm = n;
    return true;
}

static bool take_pointwise(search *s, const qgc_node *n) {
    if (s->f->n_pointwise == QGC_MAX_POINTWISE)
        return no(s, "more than %d pointwise ops", QGC_MAX_POINTWISE);
    s->f->pointwise[s->f->n_pointwise++] = n;
    return true;
}

static bool take(search *s, const qgc_node *n) {
    if (is_pointwise(n))
        return take_pointwise(s, n);
    if (n->op == QGC_OP_LINEAR || n->op == QGC_OP_EXPERT_LINEAR)
        return take_linear(s, n);
    if (n->op == QGC_OP_EXPERT_SUM)
        return take_only(s, &s->f->sum, n);
    if (n->op == QGC_OP_ROUTE)
        return take_only(s, &s->f->route, n);
    if (n->op == QGC_OP_RMS_NORM)
        return take_norm(s, n);
    if (n->op == QGC_OP_LAYER_NORM)
        return row_of(s, n->in[0])
                   ? no(s, "layer_norm \"%s\" follows a product of the group", label(s, n->out[0]))
                   : take_prologue(s, &s->f->norm, n);
    if (n->op == QGC_OP_ATTENTION_MERGE)
        return take_prologue(s, &s->f->merge, n);
    if (n->op == QGC_OP_EMBEDDING)
        return take_only(s, &s->f->embedding, n);
    if (n->op == QGC_OP_SAMPLE_PART)
        return take_only(s, &s->f->part, n);
    if (n->op == QGC_OP_ROPE)
        return take_behind(s, n, n->in[0]);
    if (n->op == QGC_OP_APPEND)
        return take_behind(s, n, n->in[1]);
    return no(s, "%s \"%s\" has a kernel of its own only", qgc_ops[n->op].name, label(s, n->out[0]));
}

/* --- conditions ------------------------------------------------------------------------------------------ */

/* The value of a node stays in the kernel. */
static bool only_inside(search *s, const qgc_node *n) {
    return !read_outside(s, n->out[0]) || no(s, "\"%s\" is read outside of the group", label(s, n->out[0]));
}

/* Does a pointwise node from number `first` on read v? */
static bool read_behind(const qgc_stage *f, int first, const qgc_value *v) {
    for (int i = first; i < f->n_pointwise; i++)
        for (int k = 0; k < f->pointwise[i]->n_in; k++)
            if (f->pointwise[i]->in[k] == v)
                return true;
    return false;
}

/* The pointwise piece: one result, the last; equal shapes; not too many values from outside. */
static bool check_pointwise(search *s, int most_outside) {
    const qgc_stage *f = s->f;
    assert(s->n_nodes > 0);
    const qgc_node *last = f->pointwise[f->n_pointwise - 1];
    const qgc_value *outside[QGC_MAX_POINTWISE * 2];
    int n_outside = 0;
    for (int i = 0; i < f->n_pointwise; i++) {
        const qgc_node *n = f->pointwise[i];
        if (n != last && !only_inside(s, n))
            return false;
        for (int k = 0; k < n->n_in; k++) {
            const bool one_a_row =
                !inside(s, n->in[k]) && qgc_is_one_a_row(&n->in[k]->shape, &last->out[0]->shape);
            if (!one_a_row && !qgc_shape_equal(&n->in[k]->shape, &last->out[0]->shape))
                return no(s, "\"%s\" and \"%s\" differ in shape", label(s, n->in[k]), label(s, last->out[0]));
            bool known = inside(s, n->in[k]);
            for (int j = 0; j < n_outside; j++)
                known = known || outside[j] == n->in[k];
            if (!known)
                outside[n_outside++] = n->in[k];
        }
    }
    if (n_outside > most_outside)
        return no(s, "%d values come from outside, and the kernel takes %d", n_outside, most_outside);
    for (int i = 0; i < f->n_pointwise - 1; i++) /* a piece in one: each but the last is read by another */
        if (!read_behind(f, i + 1, f->pointwise[i]->out[0]))
            return no(s, "nothing in the group reads \"%s\"", label(s, f->pointwise[i]->out[0]));
    return true;
}

static bool check_prologue(search *s, const qgc_node *prologue) {
    const qgc_value *x = prologue->out[0];
    if (!s->f->route && !only_inside(s, prologue))
        return false;
    for (int i = 0; i < s->f->n_rows; i++)
        if (s->f->rows[i].linear->in[0] != x)
            return no(s, "product \"%s\" does not read \"%s\"", label(s, s->f->rows[i].linear->out[0]),
                      label(s, x));
    if (prologue->op == QGC_OP_RMS_NORM && prologue->in[1]->shape.dim[0] != x->shape.dim[1])
        return no(s, "rms_norm \"%s\" is over parts of a row", label(s, x));
    if (x->shape.dim[1] > 8192)
        return no(s, "\"%s\" has %lld elements, and a kernel has room for 8192", label(s, x),
                  (long long)x->shape.dim[1]);
    return true;
}

static bool check_embedding(search *s) {
    const qgc_value *x = s->f->embedding->out[0];
    if (!s->f->norm || s->f->norm->in[0] != x)
        return no(s, "embedding \"%s\" is not what a norm of the group reads", label(s, x));
    for (int i = 0; i < s->n_nodes; i++) { /* its rows are there when the kernel is done */
        const qgc_node *n = s->nodes[i];
        for (int k = 0; n != s->f->norm && k < n->n_in; k++)
            if (n->in[k] == x)
                return no(s, "\"%s\" of the group reads \"%s\" too", label(s, n->out[0]), label(s, x));
    }
    return true;
}

static bool check_part(search *s) {
    const qgc_stage *f = s->f;
    const qgc_node *last = f->n_pointwise ? f->pointwise[f->n_pointwise - 1] : f->rows[0].linear;
    if (f->n_rows != 1 || f->rows[0].rope || f->rows[0].append || f->part->in[0] != last->out[0])
        return no(s, "sample_part \"%s\" does not follow the only product of the group",
                  label(s, f->part->out[0]));
    double chunk = f->part->attr[qgc_attr_index(QGC_OP_SAMPLE_PART, "chunk")].number;
    if (chunk != QGC_SAMPLE_CHUNK)
        return no(s, "sample_part \"%s\" has chunks of %g, and a kernel of products finds the largest of %d",
                  label(s, f->part->out[0]), chunk, QGC_SAMPLE_CHUNK);
    return true;
}

/* The kernel of a route's scores has a norm, which it leaves for the experts. */
static bool check_route(search *s) {
    const qgc_stage *f = s->f;
    const qgc_stage_row *r = &f->rows[0];
    if (f->n_rows != 1 || f->n_pointwise || f->part || r->norm || r->rope || r->append ||
        f->route->in[0] != r->linear->out[0])
        return no(s, "route \"%s\" does not follow the only product of the group",
                  label(s, f->route->out[0]));
    return f->norm || no(s, "no norm comes before route \"%s\"", label(s, f->route->out[0]));
}

static bool check_products(search *s) {
    const qgc_node *first = s->f->rows[0].linear;
    for (int i = 1; i < s->f->n_rows; i++) {
        const qgc_node *n = s->f->rows[i].linear;
        if (n->in[0] != first->in[0])
            return no(s, "products \"%s\" and \"%s\" read different values", label(s, first->out[0]),
                      label(s, n->out[0]));
        if (n->n_in != first->n_in)
            return no(s, "one of products \"%s\" and \"%s\" has a bias", label(s, first->out[0]),
                      label(s, n->out[0]));
    }
    return true;
}

/* All rows meet in one pointwise piece. */
static bool check_meeting(search *s) {
    for (int i = 0; i < s->f->n_rows; i++) {
        const qgc_stage_row *r = &s->f->rows[i];
        if (r->norm || r->rope || r->append)
            return no(s, "%s beside pointwise ops", r->norm ? "a norm of heads" : "rope or append");
        if (!only_inside(s, r->linear))
            return false;
        if (!read_behind(s->f, 0, r->linear->out[0]))
            return no(s, "the pointwise ops do not read \"%s\"", label(s, r->linear->out[0]));
    }
    return check_pointwise(s, MAX_OUTSIDE_LINEAR);
}

/* What is in a group of experts that their kernels do not compute. */
static const qgc_node *not_for_experts(const qgc_stage *f) {
    for (int i = 0; i < f->n_rows; i++) {
        const qgc_stage_row *r = &f->rows[i];
        if (r->linear->op != QGC_OP_EXPERT_LINEAR)
            return r->linear;
        if (r->norm || r->rope || r->append)
            return r->norm ? r->norm : r->rope ? r->rope : r->append;
    }
    return f->norm        ? f->norm
           : f->merge     ? f->merge
           : f->embedding ? f->embedding
           : f->part      ? f->part
                          : f->route;
}

/* Products that one kernel computes: of one x by the same experts, with matrices alike. */
static bool check_expert_products(search *s) {
    enum { MOST = 2 };
    const qgc_node *first = s->f->rows[0].linear;
    if (s->f->n_rows > (s->f->sum ? 1 : MOST))
        return no(s, "more than %d products of experts", s->f->sum ? 1 : MOST);
    for (int i = 0; i < s->f->n_rows; i++) {
        const qgc_node *n = s->f->rows[i].linear;
        if (n->n_in > 3)
            return no(s, "product \"%s\" of experts has a bias", label(s, n->out[0]));
        if (n->in[0] != first->in[0] || n->in[2] != first->in[2])
            return no(s, "products \"%s\" and \"%s\" are of different values or experts",
                      label(s, first->out[0]), label(s, n->out[0]));
        if (!qgc_shape_equal(&n->in[1]->shape, &first->in[1]->shape) ||
            qgc_weight_storage(n->in[1]) != qgc_weight_storage(first->in[1]))
            return no(s, "matrices \"%s\" and \"%s\" differ in shape or type", label(s, first->in[1]),
                      label(s, n->in[1]));
    }
    return true;
}

/* The sum of what the experts of a token make, and perhaps a pointwise piece over it. */
static bool check_expert_sum(search *s) {
    const qgc_stage *f = s->f;
    const qgc_node *product = f->rows[0].linear;
    if (f->sum->in[0] != product->out[0] || qgc_shape_equal(&product->out[0]->shape, &f->sum->out[0]->shape))
        return no(s, "expert_sum \"%s\" is not of what the experts of \"%s\" make", label(s, f->sum->out[0]),
                  label(s, product->out[0]));
    if (!only_inside(s, product))
        return false;
    if (f->n_pointwise == 0)
        return true;
    if (!only_inside(s, f->sum))
        return false;
    if (!read_behind(f, 0, f->sum->out[0]))
        return no(s, "the pointwise ops do not read \"%s\"", label(s, f->sum->out[0]));
    return check_pointwise(s, MAX_OUTSIDE_LINEAR);
}

static bool check_experts(search *s) {
    const qgc_node *other = not_for_experts(s->f);
    if (other)
        return no(s, "%s \"%s\" beside products of experts", qgc_ops[other->op].name,
                  label(s, other->out[0]));
    if (!check_expert_products(s))
        return false;
    if (s->f->sum)
        return check_expert_sum(s);
    return s->f->n_pointwise ? check_meeting(s) : no(s, "expert_linear by itself needs no group");
}

static bool has_experts(const qgc_stage *f) {
    for (int i = 0; i < f->n_rows; i++)
        if (f->rows[i].linear->op == QGC_OP_EXPERT_LINEAR)
            return true;
    return false;
}

/* Number and text that the rows of linear_heads.cu share. */
typedef struct {
    const qgc_node *rope, *norm, *append;
    int64_t head_dim;
    const qgc_value *positions;
} heads;

static bool same_heads(search *s, heads *h, int64_t head_dim, const qgc_value *positions, const qgc_node *n) {
    if ((h->head_dim && h->head_dim != head_dim) || (h->positions && h->positions != positions))
        return no(s, "\"%s\" has other heads or positions than the rest", label(s, n->out[0]));
    h->head_dim = head_dim;
    h->positions = positions;
    return true;
}

/* The norm of a row's heads, or of all of it. */
static bool check_row_norm(search *s, const qgc_stage_row *r, heads *h) {
    const int64_t width = r->linear->out[0]->shape.dim[1], d = r->norm->in[1]->shape.dim[0];
    if (!only_inside(s, r->linear))
        return false;
    if (h->norm && !qgc_attrs_equal(h->norm, r->norm))
        return no(s, "norms \"%s\" and \"%s\" differ", label(s, h->norm->out[0]), label(s, r->norm->out[0]));
    h->norm = r->norm;
    if (d != width && h->head_dim && h->head_dim != d)
        return no(s, "\"%s\" norms other heads than the rest has", label(s, r->norm->out[0]));
    if (d != width)
        h->head_dim = d;
    return d % 2 == 0 ||
           no(s, "\"%s\" has heads of %lld elements, an odd number", label(s, r->norm->out[0]), (long long)d);
}

static bool same_rope(const qgc_node *a, const qgc_node *b) {
    return qgc_attrs_equal(a, b) && a->n_in == b->n_in && (a->n_in < 3 || a->in[2] == b->in[2]);
}

static bool check_row(search *s, const qgc_stage_row *r, heads *h) {
    const qgc_node *n = r->linear;
    if (r->norm) {
        if (!check_row_norm(s, r, h))
            return false;
        n = r->norm;
    }
    if (r->rope) {
        int64_t head_dim = (int64_t)r->rope->attr[qgc_attr_index(QGC_OP_ROPE, "head_dim")].number;
        if (!only_inside(s, n) || !same_heads(s, h, head_dim, r->rope->in[1], r->rope))
            return false;
        if (h->rope && !same_rope(h->rope, r->rope))
            return no(s, "ropes \"%s\" and \"%s\" differ", label(s, h->rope->out[0]),
                      label(s, r->rope->out[0]));
        h->rope = r->rope;
        n = r->rope;
    }
    if (r->append && (!only_inside(s, n) ||
                      !same_heads(s, h, r->append->in[0]->shape.dim[2], r->append->in[2], r->append)))
        return false;
    if (h->append && r->append && h->append->in[0]->shape.dim[1] != r->append->in[0]->shape.dim[1])
        return no(s, "caches \"%s\" and \"%s\" keep different positions", label(s, h->append->out[0]),
                  label(s, r->append->out[0]));
    h->append = r->append ? r->append : h->append;
    bool pairs = s->f->n_rows > 1 || r->norm || r->rope || r->append; /* of rows, in linear_heads.cu */
    if (pairs && r->linear->out[0]->shape.dim[1] % 2 != 0)
        return no(s, "product \"%s\" has an odd number of rows", label(s, r->linear->out[0]));
    return true;
}

/* Each row goes its own way. A product that both a rope and another node of the group read was refused before. */
static bool check_ways(search *s) {
    heads h = {0};
    for (int i = 0; i < s->f->n_rows; i++)
        if (!check_row(s, &s->f->rows[i], &h))
            return false;
    return true;
}

/* The node of the group that makes v, or NULL. */
static const qgc_node *maker_inside(const search *s, const qgc_value *v) {
    for (int i = 0; i < s->n_nodes; i++)
        if (s->nodes[i] == v->maker)
            return v->maker;
    return NULL;
}

/* Has the kernel what `n` reads of another node of the group, where it computes n? Rows were sorted by what they follow. */
static bool is_at_hand(const search *s, const qgc_node *n, const qgc_node *from, int input) {
    const qgc_stage *f = s->f;
    if (n->op == QGC_OP_LINEAR || n->op == QGC_OP_EXPERT_LINEAR)
        return from == f->norm || from == f->merge;
    if (n == f->sum)
        return from->op == QGC_OP_EXPERT_LINEAR && input == 0;
    if (is_pointwise(n))
        return from->op == QGC_OP_LINEAR || (from->op == QGC_OP_EXPERT_LINEAR && !f->sum) || from == f->sum ||
               is_pointwise(from) || (f->n_rows == 0 && from == f->norm);
    if (n == f->norm)
        return from == f->embedding && input == 0;
    if (n->op == QGC_OP_APPEND)
        return input == 1;
    return input == 0 && n != f->merge && n != f->embedding;
}

static bool check_order(search *s) {
    for (int i = 0; i < s->n_nodes; i++)
        for (int k = 0; k < s->nodes[i]->n_in; k++) {
            const qgc_value *v = s->nodes[i]->in[k];
            const qgc_node *from = maker_inside(s, v);
            if (from && !is_at_hand(s, s->nodes[i], from, k))
                return no(s, "the kernel does not have \"%s\" where it computes \"%s\"", label(s, v),
                          label(s, s->nodes[i]->out[0]));
        }
    return true;
}

/* Of those that need a product. */
static const qgc_node *first_of(const search *s) {
    const qgc_stage *f = s->f;
    return f->embedding ? f->embedding
           : f->norm    ? f->norm
           : f->merge   ? f->merge
           : f->part    ? f->part
           : f->route   ? f->route
                        : f->sum;
}

/* A norm over all of a vector, whose result the pointwise ops read. */
static bool check_normed_pointwise(search *s) {
    const qgc_node *norm = s->f->norm;
    if (norm->op == QGC_OP_LAYER_NORM)
        return no(s, "layer_norm \"%s\" without a product", label(s, norm->out[0]));
    if (norm->in[1]->shape.dim[0] != norm->out[0]->shape.dim[1])
        return no(s, "rms_norm \"%s\" is over parts of a row", label(s, norm->out[0]));
    if (!only_inside(s, norm))
        return false;
    if (!read_behind(s->f, 0, norm->out[0]))
        return no(s, "the pointwise ops do not read \"%s\"", label(s, norm->out[0]));
    return check_pointwise(s, MAX_OUTSIDE_LINEAR);
}

static bool recognise(search *s) {
    qgc_stage *out = s->f;
    for (int i = 0; i < s->n_nodes; i++)
        if (!take(s, s->nodes[i]))
            return false;
    if (out->n_rows == 0) {
        out->kind = QGC_STAGE_POINTWISE;
        if (out->norm && out->n_pointwise && !out->merge && !out->embedding && !out->part && !out->route &&
            !out->sum)
            return check_normed_pointwise(s);
        if (s->n_nodes == 1 && !out->n_pointwise)
            return no(s, "%s by itself needs no group", qgc_ops[first_of(s)->op].name);
        if (first_of(s))
            return no(s, "%s \"%s\" without a product", qgc_ops[first_of(s)->op].name,
                      label(s, first_of(s)->out[0]));
        if (out->n_pointwise == 0)
            return no(s, "the group is empty");
        return check_pointwise(s, MAX_OUTSIDE_POINTWISE);
    }
    if (has_experts(out)) {
        out->kind = QGC_STAGE_EXPERTS;
        return check_experts(s);
    }
    out->kind = QGC_STAGE_PRODUCTS;
    if (out->sum)
        return no(s, "expert_sum \"%s\" without a product of experts", label(s, out->sum->out[0]));
    const qgc_node *prologue = out->norm ? out->norm : out->merge;
    if ((prologue && !check_prologue(s, prologue)) || !check_products(s))
        return false;
    if ((out->embedding && !check_embedding(s)) || (out->part && !check_part(s)) ||
        (out->route && !check_route(s)))
        return false;
    return out->n_pointwise ? check_meeting(s) : check_ways(s);
}

bool qgc_stage_of(const qgc_node *const *nodes, int n, const int *uses, qgc_stage *out, const char **why,
                  qgc_arena *a) {
    search s = {.nodes = nodes, .n_nodes = n, .uses = uses, .f = out, .why = why, .arena = a};
    *out = (qgc_stage){0};
    return recognise(&s) && check_order(&s);
}

bool qgc_stage_by(const qgc_kernel_row *kernel, const qgc_node *const *nodes, int n, const int *uses,
                  qgc_stage *out, const char **why, qgc_arena *a) {
    if (!kernel)
        return qgc_stage_of(nodes, n, uses, out, why, a);
    qgc_outside_stage *outside = qgc_arena_alloc(a, sizeof *outside);
    *out = (qgc_stage){.kind = QGC_STAGE_OUTSIDE, .outside = outside};
    return qgc_outside_match(kernel, nodes, n, uses, outside, why, a);
}

bool qgc_stage_at(const qgc_graph *g, const qgc_node *first, const int *uses, qgc_stage *out,
                  const char **why, qgc_arena *a) {
    const qgc_node *nodes[QGC_MAX_GROUP + 1];
    int n = 0;
    for (const qgc_node *node = first; node && node->group == first->group && n <= QGC_MAX_GROUP;
         node = node->next)
        nodes[n++] = node;
    return qgc_stage_by(qgc_node_kernel(g, first), nodes, n, uses, out, why,
                        a); /* one too many has no place */
}

/* Group `first` is the first node of. */
static qgc_status check_group(const qgc_graph *g, const qgc_node *first, const int *uses, qgc_diag *d) {
    const qgc_group *group = &g->groups[first->group];
    qgc_stage stage;
    const char *why;
    if (qgc_stage_at(g, first, uses, &stage, &why, d->arena))
        return QGC_OK;
    const char *name =
        group->layer < 0 ? group->name : qgc_arena_printf(d->arena, "%s[%d]", group->name, group->layer);
    return qgc_fail(d, QGC_ERR_INPUT, group->at, "no kernel computes group \"%s\": %s", name, why);
}

qgc_status qgc_stages_check(const qgc_graph *g, qgc_diag *d) {
    qgc_arena *scratch = qgc_arena_new();
    const int *uses = qgc_graph_uses(g, scratch);
    qgc_status s = QGC_OK;
    for (const qgc_node *n = g->first; n && s == QGC_OK; n = n->next)
        if (n->group >= 0 && (!n->prev || n->prev->group != n->group))
            s = check_group(g, n, uses, d);
    qgc_arena_drop(scratch);
    return s;
}
