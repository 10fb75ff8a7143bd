#include <math.h>
#include <string.h>

#include "codegen/lower_impl.h"
#include "codegen/proof.h"
#include "graph/base/tensor.h"
#include "graph/eval.h"

/* --- sizes ----------------------------------------------------------------------------------------------- */

/* Numbers of different sizes: small ones show an epsilon, large ones what grows too fast, zeros what divides by them. Of positions
 * and tokens few and many, the many in fewer orders, as they take long. */
typedef struct {
    qgc_sizes sizes;
    int64_t first; /* position */
    double scale;  /* of what comes from other launches */
    bool is_long;
} setting;

static const setting settings[] = {
    {{1, 1, 64}, 0, 1, false},     {{1, 1, 33}, 32, 0.01, false}, {{1, 1, 300}, 150, 4, false},
    {{1, 1, 300}, 299, 1, false},  {{1, 1, 40}, 7, 100, false},   {{1, 1, 20}, 3, 0, false},
    {{1, 1, 5000}, 4999, 1, true}, {{5, 1, 64}, 3, 1, false},     {{33, 1, 80}, 0, 0.01, false},
    {{4, 4, 16}, 2, 4, false},     {{2, 1, 2}, 0, 1, false},      {{130, 1, 200}, 60, 1, true},
};
enum { N_SETTINGS = sizeof settings / sizeof *settings, N_DECODE = 7, ORDERS = 4, ORDERS_OF_LONG = 2 };

/* The last position of a long case is one at which the longest window no longer shows the first. */
static setting setting_of(const qgc_outside_stage *o, int i) {
    setting s = settings[i];
    for (int k = 0; s.is_long && k < o->row.n_nodes; k++) {
        const qgc_node *n = o->node[k];
        if (n->op != QGC_OP_ATTENTION && n->op != QGC_OP_ATTENTION_PART)
            continue;
        const int64_t window = (int64_t)n->attr[qgc_attr_index(n->op, "window")].number;
        if (s.sizes.tokens == 1 && window + 8 > s.sizes.ctx) {
            s.sizes.ctx = window + 8;
            s.first = s.sizes.ctx - 1;
        }
    }
    return s;
}

int qgc_proof_cases(const qgc_outside_stage *o) {
    return o->row.prefill ? N_SETTINGS : N_DECODE;
}

/* --- operands -------------------------------------------------------------------------------------------- */

typedef struct {
    const qgc_outside_stage *o;
    const setting *at;
    qgc_proof_case *out;
    qgc_arena *arena;
    uint64_t random;
    void *doubles[QGC_OUTSIDE_NAMES]; /* of each name, as an evaluator in double precision has it */
    void *floats[QGC_OUTSIDE_NAMES];  /* and one in float32 */
    const char *why;
} making;

static uint64_t next_random(making *m) {
    m->random += 0x9E3779B97F4A7C15u;
    uint64_t z = (m->random ^ m->random >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* Of mean 0 and variance 1, nearly a normal distribution. */
static double normal(making *m) {
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += (double)(next_random(m) >> 11) * 0x1p-53;
    return sum;
}

static int64_t elems_of(const making *m, const qgc_value *v) {
    return qgc_shape_elems(&v->shape, &m->at->sizes);
}

/* How many things an input of indices chooses from: rows of the table that the embedding reads, say. */
static int64_t choices_of(const making *m, int name) {
    const qgc_outside_row *r = &m->o->row;
    for (int i = 0; i < r->n_nodes; i++) {
        const qgc_outside_node *n = &r->nodes[i];
        if (n->op == QGC_OP_EMBEDDING && n->in[0] == name)
            return m->o->value[n->in[1]]->shape.dim[0];
        if (n->op == QGC_OP_MARK && n->in[1] == name)
            return m->o->value[n->in[0]]->shape.dim[0];
    }
    return 64;
}

static bool make_indices(making *m, int name) {
    const qgc_value *v = m->o->value[name];
    const int64_t n = elems_of(m, v), choices = choices_of(m, name);
    int32_t *x = qgc_arena_array(m->arena, (size_t)n + 1, sizeof *x);
    for (int64_t i = 0; i < n; i++)
        if (strcmp(v->name, "positions") == 0)
            x[i] = (int32_t)(m->at->first + i);
        else if (strcmp(v->name, "rows") == 0)
            x[i] = (int32_t)(m->at->sizes.tokens - n + i);
        else
            x[i] = (int32_t)(next_random(m) % (uint64_t)choices);
    m->doubles[name] = m->floats[name] = x;
    if (v->kind == QGC_INPUT)
        return true;
    m->why =
        qgc_arena_printf(m->arena, "\"%s\" holds indices that another node makes", m->o->row.names[name]);
    return false;
}

/* Numbers as they are stored, and the same widened. */
static double magnitude(making *m, const qgc_value *v) {
    const int64_t width = v->shape.rank > 1 ? v->shape.dim[v->shape.rank - 1] : 1;
    if (v->kind == QGC_WEIGHT)
        return v->shape.rank > 1 ? normal(m) / sqrt((double)width) : 1 + 0.3 * normal(m);
    return v->kind == QGC_STATE || qgc_value_is_version(v) ? normal(m) : m->at->scale * normal(m);
}

static void make_numbers(making *m, int name) {
    const qgc_value *v = m->o->value[name];
    const qgc_dtype type = qgc_outside_type(v);
    const int64_t n = elems_of(m, v);
    float *x = qgc_arena_array(m->arena, (size_t)n + 1, sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)magnitude(m, v);
    m->doubles[name] = m->floats[name] = x;
    if (type != QGC_F32) {
        void *stored = qgc_arena_alloc(m->arena, qgc_dtype_bytes(type, n)),
             *again = qgc_arena_alloc(m->arena, qgc_dtype_bytes(type, n));
        qgc_from_f32(type, x, stored, n);
        memcpy(again, stored, qgc_dtype_bytes(type, n));
        m->doubles[name] = stored;
        m->floats[name] = again;
    } else if (v->kind != QGC_WEIGHT) {
        double *wide = qgc_arena_array(m->arena, (size_t)n + 1, sizeof *wide);
        for (int64_t i = 0; i < n; i++)
            wide[i] = (double)x[i];
        m->doubles[name] = wide;
    }
}

/* The same value under two names is the same numbers. */
static int first_name(const making *m, int name) {
    for (int i = 0; i < name; i++)
        if (m->o->value[i] == m->o->value[name])
            return i;
    return name;
}

static bool make_operands(making *m) {
    const qgc_outside_row *r = &m->o->row;
    for (int i = 0; i < r->n_names; i++) {
        const int same = first_name(m, i);
        if (r->maker[i] >= 0)
            continue;
        if (same < i) {
            m->doubles[i] = m->doubles[same];
            m->floats[i] = m->floats[same];
        } else if (m->o->value[i]->dtype != QGC_I32)
            make_numbers(m, i);
        else if (!make_indices(m, i))
            return false;
    }
    return true;
}

/* --- references ------------------------------------------------------------------------------------------ */

static qgc_operand operand(const making *m, int name, bool in_double) {
    const qgc_value *v = m->o->value[name];
    qgc_operand o = {.dtype = qgc_outside_type(v),
                     .rank = v->shape.rank,
                     .data = in_double ? m->doubles[name] : m->floats[name]};
    o.is_real = v->dtype == QGC_F32 && v->kind != QGC_WEIGHT;
    for (int i = 0; i < o.rank; i++)
        o.dim[i] = qgc_dim_size(v->shape.dim[i], &m->at->sizes);
    return o;
}

static void place_results(making *m, const qgc_outside_node *n) {
    const bool in_place = (qgc_ops[n->op].traits & QGC_IN_PLACE) != 0;
    for (int i = 0; i < n->n_out; i++) {
        const qgc_value *v = m->o->value[n->out[i]];
        const size_t elems = (size_t)elems_of(m, v) + 1;
        const bool same = in_place && i == 0;
        m->doubles[n->out[i]] =
            same ? m->doubles[n->in[0]] : qgc_arena_array(m->arena, elems, sizeof(double));
        m->floats[n->out[i]] = same ? m->floats[n->in[0]] : qgc_arena_array(m->arena, elems, sizeof(double));
    }
}

static void run_node(making *m, int i, bool in_double, qgc_pool *pool) {
    const qgc_outside_node *n = &m->o->row.nodes[i];
    const qgc_sampling sampling = {.top_p = 1, .repeat_penalty = 1};
    qgc_call call = {.node = m->o->node[i],
                     .sampling = &sampling,
                     .ctx = m->at->sizes.ctx,
                     .pool = pool,
                     .scratch = qgc_arena_new()};
    for (int k = 0; k < n->n_in; k++)
        call.in[k] = operand(m, n->in[k], in_double);
    for (int k = 0; k < n->n_out; k++)
        call.out[k] = operand(m, n->out[k], in_double);
    (in_double ? qgc_ops[n->op].ref_double : qgc_ops[n->op].ref)(&call);
    qgc_arena_drop(call.scratch);
}

/* Nodes of the row in the order of the graph. */
static void run_references(making *m) {
    const qgc_outside_row *r = &m->o->row;
    bool done[QGC_OUTSIDE_NODES] = {false};
    qgc_pool *pool = qgc_pool_new(1);
    for (int turn = 0; turn < r->n_nodes; turn++) {
        int next = 0;
        while (done[next])
            next++;
        for (int i = next + 1; i < r->n_nodes; i++)
            if (!done[i] && m->o->node[i]->order < m->o->node[next]->order)
                next = i;
        done[next] = true;
        place_results(m, &r->nodes[next]);
        run_node(m, next, true, pool);
        run_node(m, next, false, pool);
    }
    qgc_pool_drop(pool);
}

/* --- buffers --------------------------------------------------------------------------------------------- */

/* Terms of the longest sum of a node. */
static double terms_of(const making *m, int i) {
    const qgc_node *n = m->o->node[i];
    if (n->n_in == 0 || (qgc_ops[n->op].traits & (QGC_POINTWISE | QGC_IN_PLACE)))
        return 0;
    const qgc_shape *in = &n->in[0]->shape;
    return (in->rank ? (double)qgc_dim_size(in->dim[in->rank - 1], &m->at->sizes) : 0) +
           (double)m->at->sizes.ctx;
}

/* What is in a name's memory, as it is stored on a device. */
static void *stored(const making *m, int name, size_t bytes) {
    return memcpy(qgc_arena_alloc(m->arena, bytes + 1), m->floats[name], bytes);
}

static const double *widened(const making *m, qgc_dtype type, const void *from, int64_t n, bool doubles) {
    double *to = qgc_arena_array(m->arena, (size_t)n + 1, sizeof *to);
    if (doubles) {
        memcpy(to, from, (size_t)n * sizeof *to);
        return to;
    }
    float *wide = qgc_arena_array(m->arena, (size_t)n + 1, sizeof *wide);
    if (type == QGC_I32)
        for (int64_t i = 0; i < n; i++)
            wide[i] = (float)((const int32_t *)from)[i];
    else
        qgc_to_f32(type, from, wide, n);
    for (int64_t i = 0; i < n; i++)
        to[i] = (double)wide[i];
    return to;
}

/* Before the references run, which change states. */
static void begin_buffers(making *m) {
    const qgc_outside_row *r = &m->o->row;
    for (int i = 0; i < r->n_params; i++) {
        const qgc_outside_param *p = &r->params[i];
        qgc_proof_buffer *b = &m->out->buffers[i];
        if (p->value < 0)
            continue;
        const qgc_value *v = m->o->value[p->value];
        const int maker = r->maker[p->value];
        const qgc_dtype type = qgc_outside_type(v);
        *b = (qgc_proof_buffer){
            .writes = p->writes,
            .late = v->kind != QGC_WEIGHT && !p->early && r->waits,
            .type = type,
            .elems = elems_of(m, v),
            .row = v->shape.rank ? qgc_dim_size(v->shape.dim[v->shape.rank - 1], &m->at->sizes) : 1};
        b->bytes = qgc_dtype_bytes(type, b->elems);
        if (maker < 0)
            b->before = stored(m, p->value, b->bytes);
        else if (qgc_value_is_version(v))
            b->before = stored(m, r->nodes[maker].in[0], b->bytes);
        else
            b->before = memset(qgc_arena_alloc(m->arena, b->bytes + 1), 0xFF, b->bytes);
    }
}

static void end_buffers(making *m) {
    const qgc_outside_row *r = &m->o->row;
    for (int i = 0; i < r->n_params; i++) {
        const qgc_outside_param *p = &r->params[i];
        qgc_proof_buffer *b = &m->out->buffers[i];
        if (p->value < 0 || !p->writes)
            continue;
        b->want = widened(m, b->type, m->doubles[p->value], b->elems, b->type == QGC_F32);
        b->coarse = widened(m, b->type, m->floats[p->value], b->elems, false);
    }
    for (int i = 0; i < r->n_nodes; i++)
        m->out->terms += terms_of(m, i);
}

static qgc_status measure(making *m, const qgc_outside_launch *with, qgc_diag *d) {
    const qgc_sizes *at = &m->at->sizes;
    for (int i = 0; i < m->o->row.n_params; i++)
        m->out->numbers[i] = (int32_t)qgc_extent_size(&with->numbers[i], at);
    for (int i = 0; i < 3; i++) {
        const int64_t blocks =
            (qgc_extent_size(&with->grid[i], at) + with->per_block[i] - 1) / with->per_block[i];
        if (blocks < 1 || blocks > (i ? 65535 : INT32_MAX))
            return qgc_fail(d, QGC_ERR_INPUT, m->o->row.row->at,
                            "kernel \"%s\": axis %d of its grid has %lld blocks", m->o->row.row->name, i,
                            (long long)blocks);
        m->out->grid[i] = (unsigned)blocks;
    }
    return QGC_OK;
}

qgc_status qgc_proof_case_new(const qgc_outside_stage *o, const qgc_outside_launch *with, int i,
                              qgc_proof_case *out, const char **why, qgc_arena *a, qgc_diag *d) {
    const setting at = setting_of(o, i);
    making m = {.o = o, .at = &at, .out = out, .arena = a, .random = (uint64_t)i * 7919 + 1};
    *out = (qgc_proof_case){.stage = o,
                            .sizes = at.sizes,
                            .orders = at.is_long ? ORDERS_OF_LONG : ORDERS,
                            .n_args = o->row.n_params};
    *why = NULL;
    QGC_TRY(measure(&m, with, d));
    if (!make_operands(&m)) {
        *why = m.why;
        return QGC_OK;
    }
    begin_buffers(&m);
    run_references(&m);
    end_buffers(&m);
    return QGC_OK;
}

/* --- judging --------------------------------------------------------------------------------------------- */

/* What rounding explains of a result: by the number of terms, or by what the references lose in float32. */
static double bound_of(const qgc_proof_case *c, const qgc_proof_buffer *b, int64_t from, int64_t n) {
    enum { SLACK = 16 };
    double largest = 0, lost = 0;
    for (int64_t i = from; i < from + n; i++) {
        largest = fmax(largest, fabs(b->want[i]));
        lost = fmax(lost, fabs(b->want[i] - b->coarse[i]));
    }
    return SLACK * fmax(lost, largest * ldexp(1 + sqrt(c->terms), -24));
}

/* One step of how it is stored. */
static double step_of(qgc_dtype t, double x) {
    return t == QGC_F16 ? fabs(x) * 0x1p-10 + 0x1p-24 : t == QGC_BF16 ? fabs(x) * 0x1p-7 : 0;
}

const char *qgc_proof_judge(const qgc_proof_case *c, int param, const void *after, qgc_arena *a) {
    const qgc_proof_buffer *b = &c->buffers[param];
    const qgc_outside_row *r = &c->stage->row;
    const making m = {.arena = a};
    if (!b->writes)
        return NULL;
    const double *got = widened(&m, b->type, after, b->elems, false);
    for (int64_t from = 0; from < b->elems; from += b->row) {
        const double bound = b->type == QGC_I32 ? 0 : bound_of(c, b, from, b->row);
        for (int64_t i = from; i < from + b->row; i++) {
            const double limit = bound + step_of(b->type, b->want[i]);
            if (fabs(got[i] - b->want[i]) <= limit || got[i] == b->want[i] ||
                (isnan(got[i]) && isnan(b->want[i])))
                continue;
            return qgc_arena_printf(
                a,
                "\"%s\" is %.9g and not %.9g at element %lld of row %lld (T = %lld, ctx = %lld); rounding explains %.2g",
                r->params[param].name, isnan(got[i]) ? (double)NAN : got[i], b->want[i],
                (long long)(i - from), (long long)(from / b->row), (long long)c->sizes.tokens,
                (long long)c->sizes.ctx, limit);
        }
    }
    return NULL;
}
