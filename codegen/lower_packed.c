/* Prefill from the stream of the persistent step: products of matrices by kernels/packed_gemm.cu, and matrices that it does not read as
 * they are (block formats) unpacked to bf16. */

#include <assert.h>

#include "codegen/lower_impl.h"

enum { MOST_OPTIONS = 28, STEP = 64, TOKEN_BYTES = 128 };

/* --- unpacked -------------------------------------------------------------------------------------------- */

bool qgc_low_is_streamed(const qgc_lowering *l, const qgc_value *w) {
    return l->phase == QGC_PHASE_PACKED_PREFILL && w->kind == QGC_WEIGHT && l->streamed[w->id].stream >= 0;
}

/* Those that say where rows are, with room for others. */
static int place_options(const qgc_streamed *s, const char **options) {
    int n = 0;
    for (; s->place[n]; n++)
        options[n] = s->place[n];
    return n;
}

static void arg_stream(qgc_plan_launch *launch, const qgc_streamed *s) {
    qgc_low_arg_buffer(launch, s->stream, QGC_READS);
    launch->args[launch->n_args - 1].value.fixed = s->at;
    qgc_low_arg_buffer(launch, s->shares, QGC_READS);
}

int qgc_low_unpacked(qgc_lowering *l, const qgc_value *w) {
    enum { THREADS = 512 };
    const qgc_streamed *s = &l->streamed[w->id];
    const char *options[MOST_OPTIONS] = {NULL};
    if (l->bf16_of[w->id] >= 0)
        return l->bf16_of[w->id];
    int n = place_options(s, options);
    options[n++] = qgc_low_type(l, "FORMAT", s->type);
    options[n++] = qgc_low_int(l, "WHICH", s->which);
    assert(n < MOST_OPTIONS);
    const int buffer = qgc_low_scratch(l, qgc_low_text(l, "bf16 of %.200s", qgc_value_label(w, l->arena)),
                                       qgc_low_times(qgc_low_elems(&w->shape), 2));
    const char *file = qgc_dtype_is_quantised(s->type) ? "unpack_blocks.cu" : "unpack.cu";
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, qgc_low_kernel(l, file, THREADS, options));
    launch->on_all = true;
    arg_stream(launch, s);
    qgc_low_arg_buffer(launch, buffer, QGC_WRITES);
    return l->bf16_of[w->id] = buffer;
}

/* --- products -------------------------------------------------------------------------------------------- */

/* How a product is cut. */
typedef struct {
    int64_t span, stages, split;
    int64_t groups; /* of four warps */
    bool two;       /* rows of activations in two parts: those that sampling sees */
    int64_t rows, in_unit;
} cut;

static int64_t ceil_of(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t rows_of(const qgc_packed *p) {
    int64_t rows = 0;
    for (int i = 0; i < p->n; i++)
        rows += qgc_low_width(p->linear[i]->out[0]);
    return rows;
}

/* Steps of 64 elements that the card takes, one wave of blocks after the other, and what the start of a block and parts cost, in such
 * steps. */
static int64_t cost_of(const qgc_lowering *l, int64_t blocks, int64_t steps, int64_t split) {
    enum { START = 6, PARTS = 6 };
    return ceil_of(blocks * split, l->sms) * (ceil_of(steps, split) + START) +
           (split > 1 ? PARTS + split : 0);
}

static cut cut_of(const qgc_lowering *l, const qgc_packed *p) {
    enum { MOST_SPLIT = 12, MOST_STAGES = 4, BARRIERS = 256 };
    const qgc_value *x = p->linear[0]->in[0];
    cut c = {.groups = 2, .split = 1, .rows = rows_of(p), .in_unit = p->fused && p->n == 2 ? 2 : 1};
    c.two = x->shape.dim[0] == QGC_DIM_R;
    const int64_t tokens = c.two ? 2 * l->sizes.rows : l->sizes.tokens, steps = qgc_low_width(x) / STEP;
    c.span = tokens > 128 ? 256 : tokens > 64 ? 128 : 64;
    while (c.span > 64 && 2 * c.span * TOKEN_BYTES + BARRIERS > l->shared_bytes)
        c.span /= 2;
    c.stages = (l->shared_bytes - BARRIERS) / (c.span * TOKEN_BYTES);
    c.stages = c.stages > MOST_STAGES ? MOST_STAGES : c.stages < 2 ? 2 : c.stages;
    const int64_t blocks = ceil_of(tokens, c.span) * ceil_of(c.rows, 64 * c.groups);
    for (int64_t split = 2; split <= MOST_SPLIT && 2 * split <= steps; split++)
        if (cost_of(l, blocks, steps, split) < cost_of(l, blocks, steps, c.split))
            c.split = split;
    return c;
}

/* The buffer of a value as operand B; made once for all products that read it. */
static int operand(qgc_lowering *l, const qgc_value *x, const cut *c) {
    if (l->operand_of[x->id] >= 0)
        return l->operand_of[x->id];
    const int64_t k = qgc_low_width(x), tokens = c->two ? 2 : 1;
    const qgc_extent rows = qgc_low_dim(x->shape.dim[0]);
    qgc_extent bytes = qgc_low_times(rows, 2 * k * tokens);
    bytes.fixed += 2 * k * 8;
    const int buffer =
        qgc_low_scratch(l, qgc_low_text(l, "operand of %.200s", qgc_value_label(x, l->arena)), bytes);
    const char *options[] = {qgc_low_int(l, "K", k), c->two ? "-DTWO=1" : NULL, NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "to_operand.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, qgc_low_times(rows, k / 16), QGC_LOW_THREADS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, x), QGC_READS);
    qgc_low_arg_buffer(launch, buffer, QGC_WRITES);
    qgc_low_arg_i32(launch, rows);
    return l->operand_of[x->id] = buffer;
}

static int options_of(qgc_lowering *l, const qgc_packed *p, const cut *c, const char **options) {
    int n = place_options(&l->streamed[p->linear[0]->in[1]->id], options), biases = 0;
    for (int i = 0; i < p->n; i++)
        biases |= p->linear[i]->n_in > 2 ? 1 << i : 0;
    if (biases)
        options[n++] = qgc_low_int(l, "BIASES", biases);
    if (p->fused) {
        options[n++] = "-DFUSED=1";
        options[n++] = qgc_low_int(l, "OUTSIDE", p->outside != NULL);
        options[n++] = qgc_arena_printf(l->arena, "-DEXPRESSION=%s", p->expression);
    }
    if (c->two)
        options[n++] = "-DTWO=1";
    options[n++] = qgc_low_int(l, "SPLIT", c->split);
    return n;
}

/* What is done with each result: biases, a value from outside, where they go. What is not there is never looked at. */
static void arg_results(qgc_lowering *l, qgc_plan_launch *launch, const qgc_packed *p, bool reads) {
    const int none = launch->args[0].buffer;
    for (int i = 0; i < QGC_MAX_LINEARS; i++) {
        const bool there = reads && i < p->n && p->linear[i]->n_in > 2;
        qgc_low_arg_buffer(launch, there ? qgc_low_buffer(l, p->linear[i]->in[2]) : none,
                           there ? QGC_READS : 0);
    }
    qgc_low_arg_buffer(launch, reads && p->outside ? qgc_low_buffer(l, p->outside) : none,
                       reads && p->outside ? QGC_READS : 0);
}

static void arg_outs(qgc_lowering *l, qgc_plan_launch *launch, const qgc_packed *p) {
    const int none = launch->args[0].buffer;
    for (int i = 0; i < QGC_MAX_LINEARS; i++) {
        const bool there = p->fused ? i == 0 : i < p->n;
        const qgc_value *out = p->fused ? p->result : p->linear[i < p->n ? i : 0]->out[0];
        qgc_low_arg_buffer(launch, there ? qgc_low_buffer(l, out) : none, there ? QGC_WRITES : 0);
    }
}

static void add_up(qgc_lowering *l, const qgc_packed *p, const cut *c, int parts) {
    const char *options[MOST_OPTIONS] = {NULL};
    options_of(l, p, c, options);
    const qgc_extent rows = qgc_low_dim(p->linear[0]->in[0]->shape.dim[0]);
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "packed_sum.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = c->rows / c->in_unit}, QGC_LOW_THREADS);
    qgc_low_grid(launch, 1, rows, 1);
    qgc_low_arg_buffer(launch, parts, QGC_READS);
    arg_results(l, launch, p, true);
    arg_outs(l, launch, p);
    qgc_low_arg_i32(launch, rows);
}

static void multiply(qgc_lowering *l, const qgc_packed *p) {
    const cut c = cut_of(l, p);
    const qgc_value *x = p->linear[0]->in[0];
    const qgc_streamed *s = &l->streamed[p->linear[0]->in[1]->id];
    const qgc_extent rows = qgc_low_dim(x->shape.dim[0]);
    const char *options[MOST_OPTIONS] = {NULL};
    int n = options_of(l, p, &c, options);
    options[n++] = qgc_low_type(l, "FORMAT", s->type);
    options[n++] = qgc_low_int(l, "GROUPS", c.groups);
    options[n++] = qgc_low_int(l, "SPAN", c.span);
    options[n++] = qgc_low_int(l, "STAGES", c.stages);
    assert(n < MOST_OPTIONS);
    const int from = operand(l, x, &c);
    const int kernel = qgc_low_kernel(l, "packed_gemm.cu", (int)c.groups * 128, options);
    l->plan->kernels[kernel].shared_bytes = (int)(c.stages * c.span * TOKEN_BYTES) + 128;
    const int parts = c.split > 1 ? qgc_low_scratch(l, qgc_low_text(l, "parts of %.200s", p->name),
                                                    qgc_low_times(rows, 4 * c.split * c.rows))
                                  : -1;
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, kernel);
    qgc_low_grid(launch, 0, qgc_low_times(rows, c.two ? 2 : 1), c.span);
    qgc_low_grid(launch, 1, (qgc_extent){.fixed = c.rows}, 64 * c.groups);
    qgc_low_grid(launch, 2, (qgc_extent){.fixed = c.split}, 1);
    launch->weight_bytes = s->row_bytes * c.rows;
    qgc_low_arg_buffer(launch, from, QGC_READS);
    arg_stream(launch, s);
    arg_results(l, launch, p, c.split == 1);
    if (parts >= 0) {
        qgc_low_arg_buffer(launch, parts, QGC_WRITES);
        for (int i = 1; i < QGC_MAX_LINEARS; i++)
            qgc_low_arg_buffer(launch, parts, 0);
    } else
        arg_outs(l, launch, p);
    qgc_low_arg_i32(launch, rows);
    if (parts >= 0)
        add_up(l, p, &c, parts);
}

bool qgc_low_packed(qgc_lowering *l, const qgc_node *n) {
    const qgc_packed *p = l->phase == QGC_PHASE_PACKED_PREFILL ? l->packed_of[n->id] : NULL;
    if (p && n == p->at)
        multiply(l, p);
    return p != NULL;
}
