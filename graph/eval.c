#include "graph/eval.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "graph/ops.h"

/* Weights are read where they are; inputs and states live as long as the evaluator; results live in one slab,
 * laid out anew when the number of tokens changes and replaced by a larger one when it no longer fits:
 *
 *   keeping all results        | r0 | r1 | r2 | r3 | ...      any value can be read after the step
 *   keeping the outputs only   | r0, r3 | r1 | r2, r4 |       a result's place is taken over after its last reader
 *
 * So no step asks for memory of its own but the scratch of a reference, which goes when the node is done. */
struct qgc_eval {
    qgc_arena *arena;
    qgc_graph *g;
    qgc_pool *pool;
    qgc_sampling sampling;
    int64_t max_tokens;
    qgc_sizes sizes; /* of the last step; no tokens before the first */
    bool outputs_only;
    bool is_double;
    bool looks;      /* at each value, whether it is a number */
    int64_t written; /* positions in the caches, from 0 on, also those after a step that went back */

    void **data;        /* [n_values] where each value is; NULL where its place was given away */
    qgc_dtype *dtype;   /* [n_values] as stored: for weights that of the tensor */
    int *last_read;     /* [n_values] index of the last node that reads a result; INT32_MAX for outputs */
    size_t *place;      /* [n_values] offset of a result in the slab */
    bool *kept;         /* [n_values] of a result: nothing overwrites it before the step ends */
    qgc_value **living; /* [n_values] room for the planner: results that have a place, by rising place */

    qgc_arena *slab_arena;
    char *slab;
    size_t slab_bytes;
};

static size_t bytes_of(const qgc_eval *e, const qgc_value *v) {
    const size_t elems = (size_t)qgc_shape_elems(&v->shape, &e->sizes);
    const bool doubles = e->is_double && v->dtype == QGC_F32;
    const size_t bytes = doubles ? elems * sizeof(double) : qgc_dtype_bytes(v->dtype, (int64_t)elems);
    return (bytes + 63) & ~(size_t)63;
}

static void find_last_reads(qgc_eval *e) {
    int at = 0;
    for (const qgc_node *n = e->g->first; n; n = n->next, at++) {
        for (int i = 0; i < n->n_out; i++)
            e->last_read[n->out[i]->id] = at;
        for (int i = 0; i < n->n_in; i++)
            e->last_read[n->in[i]->id] = at;
    }
    for (size_t i = 0; i < e->g->n_outputs; i++)
        e->last_read[e->g->outputs[i]->id] = INT32_MAX;
}

/* As it is stored, or in double precision. */
static void place_derived(qgc_eval *e, const qgc_value *v, const qgc_tensor *const *weights) {
    const qgc_tensor *t = NULL;
    if (e->is_double) {
        e->data[v->id] = (void *)(uintptr_t)qgc_weight_reals(e->g, v, weights, e->pool, e->arena);
        e->dtype[v->id] = QGC_F32;
    } else if ((t = qgc_weight_tensor(e->g, v, weights, e->pool, e->arena))) {
        e->data[v->id] = (void *)(uintptr_t)t->data;
        e->dtype[v->id] = t->dtype;
    }
}

/* Weights are read where they are; inputs and states get their memory. */
static void place_leaves(qgc_eval *e, const qgc_tensor *const *weights) {
    for (size_t i = 0; i < e->g->n_values; i++) {
        const qgc_value *v = e->g->values[i];
        e->dtype[i] = v->dtype;
        if (qgc_weight_is_derived(e->g, v)) {
            place_derived(e, v, weights);
        } else if (v->kind == QGC_WEIGHT && weights[i]) {
            e->data[i] = (void *)(uintptr_t)weights[i]->data; /* references only read it */
            e->dtype[i] = weights[i]->dtype;
        } else if (v->kind == QGC_INPUT || v->kind == QGC_STATE) {
            e->data[i] = qgc_arena_alloc(e->arena, bytes_of(e, v));
        }
    }
}

/* `o` has the pool, the largest step, and the type. */
static qgc_eval *new_eval(qgc_graph *g, const qgc_tensor *const *weights, int64_t ctx, const qgc_eval *o) {
    qgc_arena *arena = qgc_arena_new();
    qgc_eval *e = qgc_arena_alloc(arena, sizeof *e);
    *e = *o;
    e->arena = arena;
    e->g = g;
    e->sampling = (qgc_sampling){.top_p = 1, .repeat_penalty = 1};
    e->data = qgc_arena_array(arena, g->n_values, sizeof *e->data);
    e->dtype = qgc_arena_array(arena, g->n_values, sizeof *e->dtype);
    e->last_read = qgc_arena_array(arena, g->n_values, sizeof *e->last_read);
    e->place = qgc_arena_array(arena, g->n_values, sizeof *e->place);
    e->kept = qgc_arena_array(arena, g->n_values, sizeof *e->kept);
    e->living = qgc_arena_array(arena, g->n_values, sizeof(qgc_value *));

    e->sizes = (qgc_sizes){e->max_tokens, e->max_tokens, ctx};
    place_leaves(e, weights);
    e->sizes = (qgc_sizes){0, 0, ctx};
    find_last_reads(e);
    return e;
}

qgc_eval *qgc_eval_new(qgc_graph *g, const qgc_tensor *const *weights, int64_t ctx, int64_t max_tokens,
                       qgc_pool *pool) {
    return new_eval(g, weights, ctx, &(qgc_eval){.pool = pool, .max_tokens = max_tokens});
}

qgc_eval *qgc_eval_new_double(qgc_graph *g, const qgc_tensor *const *weights, int64_t ctx, int64_t max_tokens,
                              qgc_pool *pool) {
    return new_eval(g, weights, ctx, &(qgc_eval){.pool = pool, .max_tokens = max_tokens, .is_double = true});
}

void qgc_eval_drop(qgc_eval *e) {
    if (!e)
        return;
    qgc_arena_drop(e->slab_arena);
    qgc_arena_drop(e->arena);
}

void qgc_eval_set_sampling(qgc_eval *e, const qgc_sampling *s) {
    e->sampling = *s;
}

void qgc_eval_keep_outputs_only(qgc_eval *e) {
    e->outputs_only = true;
    e->sizes.tokens = 0; /* so that the next step makes a new plan */
}

/* The lowest place between the living results that `bytes` fit into; `*at` is its index among them. */
static size_t find_place(const qgc_eval *e, size_t n_living, size_t bytes, size_t *at) {
    size_t place = 0;
    for (*at = 0; *at < n_living; ++*at) {
        const qgc_value *next = e->living[*at];
        if (e->place[next->id] - place >= bytes)
            break;
        place = e->place[next->id] + bytes_of(e, next);
    }
    return place;
}

/* Gives every result its place for steps of the current sizes; returns the bytes of all. */
static size_t plan_results(qgc_eval *e) {
    size_t bytes = 0, n_living = 0;
    int at = 0;
    for (const qgc_node *n = e->g->first; n; n = n->next, at++) {
        for (int i = 0; i < n->n_out; i++) {
            const qgc_value *v = n->out[i];
            if (qgc_value_is_version(v))
                continue;
            size_t index = n_living;
            e->place[v->id] = e->outputs_only ? find_place(e, n_living, bytes_of(e, v), &index) : bytes;
            e->kept[v->id] = !e->outputs_only || e->last_read[v->id] == INT32_MAX;
            if (e->outputs_only) {
                memmove(e->living + index + 1, e->living + index, (n_living - index) * sizeof(qgc_value *));
                e->living[index] = n->out[i];
                n_living++;
            }
            size_t end = e->place[v->id] + bytes_of(e, v);
            bytes = end > bytes ? end : bytes;
        }
        size_t still = 0;
        for (size_t i = 0; i < n_living; i++)
            if (e->last_read[e->living[i]->id] > at)
                e->living[still++] = e->living[i];
        n_living = still;
    }
    return bytes;
}

static void lay_out_results(qgc_eval *e) {
    size_t bytes = plan_results(e);
    if (bytes > e->slab_bytes) {
        qgc_arena_drop(e->slab_arena);
        e->slab_arena = qgc_arena_new();
        e->slab = qgc_arena_alloc(e->slab_arena, bytes);
        e->slab_bytes = bytes;
    }
    for (const qgc_node *n = e->g->first; n; n = n->next)
        for (int i = 0; i < n->n_out; i++)
            e->data[n->out[i]->id] =
                qgc_value_is_version(n->out[i]) ? e->data[n->in[0]->id] : e->slab + e->place[n->out[i]->id];
}

/* The tokens, positions and rows of a step. */
static qgc_status fill_input(qgc_eval *e, const qgc_value *v, const int32_t *tokens, int64_t first,
                             qgc_diag *d) {
    int32_t *data = e->data[v->id];
    int64_t n = e->sizes.tokens, rows = e->sizes.rows;
    if (strcmp(v->name, "tokens") == 0) {
        memcpy(data, tokens, (size_t)n * sizeof *data);
    } else if (strcmp(v->name, "positions") == 0) {
        for (int64_t i = 0; i < n; i++)
            data[i] = (int32_t)(first + i);
    } else if (strcmp(v->name, "rows") == 0) {
        for (int64_t i = 0; i < rows; i++)
            data[i] = (int32_t)(n - rows + i);
    } else {
        return qgc_fail(d, QGC_ERR_INPUT, v->at,
                        "input \"%s\" is unknown, expected tokens, positions or rows", v->name);
    }
    return QGC_OK;
}

static qgc_operand operand(const qgc_eval *e, const qgc_value *v) {
    qgc_operand o = {.dtype = e->dtype[v->id], .rank = v->shape.rank, .data = e->data[v->id]};
    o.is_real = v->dtype == QGC_F32 && v->kind != QGC_WEIGHT;
    o.is_real = o.is_real || (e->is_double && qgc_weight_is_derived(e->g, v));
    for (int i = 0; i < o.rank; i++)
        o.dim[i] = qgc_dim_size(v->shape.dim[i], &e->sizes);
    return o;
}

/* An input that holds indices, what they choose, and from how many. */
typedef struct {
    int input; /* -1: there is none */
    const char *what;
    int64_t count;
} indices;

static indices indices_of(const qgc_node *n, const qgc_sizes *sizes) {
    switch ((int)n->op) {
    case QGC_OP_EMBEDDING:
        return (indices){0, strcmp(n->in[0]->name, "positions") == 0 ? "position" : "token",
                         n->in[1]->shape.dim[0]};
    case QGC_OP_MARK:
        return (indices){1, "token", n->in[0]->shape.dim[0]};
    case QGC_OP_SELECT_ROWS:
    case QGC_OP_SAMPLE:
        return (indices){1, "row", sizes->tokens};
    case QGC_OP_SAMPLE_MERGE:
        return (indices){2, "row", sizes->tokens};
    case QGC_OP_APPEND:
        return (indices){2, "position", sizes->ctx};
    case QGC_OP_ATTENTION:
    case QGC_OP_ATTENTION_PART:
        return (indices){3, "position", sizes->ctx};
    default:
        return (indices){.input = -1};
    }
}

static qgc_status check_indices(const qgc_node *n, const indices *use, const int32_t *ids, int64_t n_ids,
                                qgc_diag *d) {
    for (int64_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || ids[i] >= use->count)
            return qgc_fail(d, QGC_ERR_INPUT, n->at, "%s %d is outside of the %lld of %s \"%s\"", use->what,
                            ids[i], (long long)use->count, qgc_ops[n->op].name, qgc_node_label(n, d->arena));
    return QGC_OK;
}

/* Indices that come from the caller are checked before anything changes; those that a node makes, where
 * they are read. */
static qgc_status check_inputs(const qgc_eval *e, qgc_diag *d) {
    for (const qgc_node *n = e->g->first; n; n = n->next) {
        const indices use = indices_of(n, &e->sizes);
        const qgc_value *v = use.input >= 0 ? n->in[use.input] : NULL;
        if (v && v->kind == QGC_INPUT)
            QGC_TRY(check_indices(n, &use, e->data[v->id], qgc_shape_elems(&v->shape, &e->sizes), d));
    }
    return QGC_OK;
}

qgc_status qgc_call_check(const qgc_call *call, const qgc_sizes *sizes, qgc_diag *d) {
    const indices use = indices_of(call->node, sizes);
    if (use.input < 0)
        return QGC_OK;
    const int64_t n = qgc_shape_elems(&call->node->in[use.input]->shape, sizes);
    return check_indices(call->node, &use, call->in[use.input].data, n, d);
}

static qgc_status check_made(const qgc_eval *e, const qgc_node *n, qgc_diag *d);

static qgc_status run_node(qgc_eval *e, const qgc_node *n, qgc_diag *d) {
    qgc_call call = {.node = n,
                     .sampling = &e->sampling,
                     .ctx = e->sizes.ctx,
                     .pool = e->pool,
                     .scratch = qgc_arena_new()};
    for (int i = 0; i < n->n_in; i++) {
        call.in[i] = operand(e, n->in[i]);
        assert(call.in[i].data);
    }
    for (int i = 0; i < n->n_out; i++)
        call.out[i] = operand(e, n->out[i]);
    const qgc_status status = qgc_call_check(&call, &e->sizes, d);
    if (status != QGC_OK) {
        qgc_arena_drop(call.scratch);
        return status;
    }
    (e->is_double ? qgc_ops[n->op].ref_double : qgc_ops[n->op].ref)(&call);
    qgc_arena_drop(call.scratch);
    return e->looks ? check_made(e, n, d) : QGC_OK;
}

static qgc_status run(qgc_eval *e, const int32_t *tokens, int64_t first, qgc_diag *d) {
    for (size_t i = 0; i < e->g->n_inputs; i++)
        QGC_TRY(fill_input(e, e->g->inputs[i], tokens, first, d));
    QGC_TRY(check_inputs(e, d));
    for (const qgc_node *n = e->g->first; n; n = n->next)
        QGC_TRY(run_node(e, n, d));
    return QGC_OK;
}

/* What a step needs of a ring has to be there: the positions before it that its first token sees, those in between that no step has
 * written, and room for its own beside them. */
static qgc_status check_ring(const qgc_eval *e, const qgc_node *a, int64_t n, int64_t first, qgc_diag *d) {
    const int64_t rows = qgc_dim_size(a->in[1]->shape.dim[1], &e->sizes);
    const int64_t window = (int64_t)qgc_node_number(a, "window");
    const int64_t seen = first + 1 > window ? first + 1 - window : 0;
    const int64_t end = first == 0 || first + n > e->written ? first + n : e->written;
    if (rows == e->sizes.ctx || (seen + rows >= end && first <= e->written))
        return QGC_OK;
    return qgc_fail(
        d, QGC_ERR_INPUT, a->at,
        "a step of %lld tokens at position %lld, after %lld positions: the caches of %s \"%s\" keep %lld, "
        "and a token sees %lld",
        (long long)n, (long long)first, (long long)e->written, qgc_ops[a->op].name,
        qgc_node_label(a, d->arena), (long long)rows, (long long)window);
}

static qgc_status check_rings(const qgc_eval *e, int64_t n, int64_t first, qgc_diag *d) {
    for (const qgc_node *a = e->g->first; a; a = a->next)
        if (qgc_node_ring(a))
            QGC_TRY(check_ring(e, a, n, first, d));
    return QGC_OK;
}

qgc_status qgc_eval_step(qgc_eval *e, const int32_t *tokens, int64_t n, int64_t first, bool all_rows,
                         qgc_diag *d) {
    if (n < 1 || n > e->max_tokens)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "a step of %lld tokens is not within 1 to %lld",
                        (long long)n, (long long)e->max_tokens);
    if (first < 0)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "position %lld is below 0", (long long)first);
    if (first > e->sizes.ctx - n)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                        "a step of %lld tokens at position %lld runs past the context of %lld", (long long)n,
                        (long long)first, (long long)e->sizes.ctx);
    QGC_TRY(check_rings(e, n, first, d));
    if (first == 0 || first + n > e->written)
        e->written = first + n;
    qgc_sizes sizes = {n, all_rows ? n : 1, e->sizes.ctx};
    bool same = sizes.tokens == e->sizes.tokens && sizes.rows == e->sizes.rows;
    e->sizes = sizes;
    if (!same)
        lay_out_results(e);
    qgc_status s = run(e, tokens, first, d);
    if (s != QGC_OK)
        e->sizes.tokens = 0; /* there is nothing to read */
    return s;
}

/* --- what is no number ----------------------------------------------------------------------------------- */

/* Of n numbers that the evaluator made, the first from `from` on that is none, or infinite; n if there is none. */
static int64_t find_not_finite(const qgc_eval *e, const void *x, int64_t from, int64_t n) {
    return from + (e->is_double ? qgc_find_not_finite_double((const double *)x + from, n - from)
                                : qgc_find_not_finite((const float *)x + from, n - from));
}

static double number_at(const qgc_eval *e, const void *x, int64_t i) {
    return e->is_double ? ((const double *)x)[i] : (double)((const float *)x)[i];
}

bool qgc_eval_is_finite(const qgc_eval *e) {
    int64_t n;
    const qgc_value *v = qgc_graph_output(e->g, "logits");
    const void *logits = v ? qgc_eval_value(e, v, &n) : NULL;
    return !logits || find_not_finite(e, logits, 0, n) == n;
}

/* A weight of the node that is at fault itself. */
static void note_weight_not_finite(const qgc_eval *e, const qgc_node *n, qgc_diag *d) {
    for (int i = 0; i < n->n_in; i++) {
        const qgc_value *v = n->in[i];
        const int64_t row = v->shape.dim[v->shape.rank > 0 ? v->shape.rank - 1 : 0];
        if (v->kind != QGC_WEIGHT || v->shape.rank == 0 || (e->is_double && qgc_weight_is_derived(e->g, v)))
            continue;
        float *wide = qgc_arena_array(d->arena, (size_t)row, sizeof *wide);
        const int64_t rows = qgc_shape_elems(&v->shape, &e->sizes) / row;
        for (int64_t r = 0; r < rows; r++) {
            qgc_to_f32(e->dtype[v->id],
                       (const char *)e->data[v->id] + qgc_dtype_bytes(e->dtype[v->id], r * row), wide, row);
            const int64_t at = qgc_find_not_finite(wide, row);
            if (at == row)
                continue;
            qgc_note(d, v->at, "weight \"%s\" holds %g in row %lld", qgc_value_label(v, d->arena),
                     (double)wide[at], (long long)r);
            return;
        }
    }
}

/* The smallest scores that attention_part leaves for no positions are -infinity, and meant so. */
static qgc_status check_made(const qgc_eval *e, const qgc_node *n, qgc_diag *d) {
    for (int i = 0; i < n->n_out; i++) {
        const qgc_value *v = n->out[i];
        if (v->dtype != QGC_F32 || qgc_value_is_version(v))
            continue;
        const int64_t elems = qgc_shape_elems(&v->shape, &e->sizes);
        const void *x = e->data[v->id];
        int64_t at = find_not_finite(e, x, 0, elems);
        while (at < elems && n->op == QGC_OP_ATTENTION_PART && number_at(e, x, at) == -INFINITY)
            at = find_not_finite(e, x, at + 1, elems);
        if (at == elems)
            continue;
        qgc_status s = qgc_fail(d, QGC_ERR_INPUT, n->at,
                                "the logits are not numbers: the first value that holds %g is \"%s\", of %s",
                                number_at(e, x, at), qgc_node_label(n, d->arena), qgc_ops[n->op].name);
        note_weight_not_finite(e, n, d);
        qgc_hint(d, "A weight is broken, or a number became too large for a type of the model.");
        return s;
    }
    return QGC_OK;
}

qgc_status qgc_eval_find_not_finite(qgc_eval *e, const int32_t *tokens, int64_t n, int64_t first,
                                    qgc_diag *d) {
    e->looks = true;
    qgc_status s = qgc_eval_step(e, tokens, n, first, false, d);
    e->looks = false;
    return s != QGC_OK ? s
                       : qgc_fail(d, QGC_ERR_INPUT, e->g->at,
                                  "the logits are not numbers, though each value before them is one");
}

const void *qgc_eval_value(const qgc_eval *e, const qgc_value *v, int64_t *elems) {
    bool gone =
        e->sizes.tokens == 0 || (v->kind == QGC_RESULT && !qgc_value_is_version(v) && !e->kept[v->id]);
    *elems = gone ? 0 : qgc_shape_elems(&v->shape, &e->sizes);
    return gone ? NULL : e->data[v->id];
}
