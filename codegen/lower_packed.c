/* Prefill from the stream of the persistent step: products of matrices by kernels/packed_gemm.cu. */

#include <assert.h>
#include <string.h>

#include "codegen/lower_impl.h"

enum { MOST_OPTIONS = 32, STEP = 64, TOKEN_BYTES = 128, TILE = 8, COPYING_THREADS = 128 };

/* Those that say where rows are, with room for others. */
static int place_options(const qgc_streamed *s, const char **options) {
    int n = 0;
    for (; s->place[n]; n++)
        options[n] = s->place[n];
    return n;
}

static void arg_stream(qgc_plan_launch *launch, const qgc_streamed *s, int access) {
    qgc_low_arg_buffer(launch, s->stream, access);
    launch->args[launch->n_args - 1].value.fixed = s->at;
    qgc_low_arg_buffer(launch, s->shares, access);
}

/* How a product is cut: items of `span` tokens and 64 * groups * cluster rows, of each row 1 / split. */
typedef struct {
    int64_t span, stages, split;
    int64_t groups;  /* of four warps */
    int64_t cluster; /* blocks that share the same tokens */
    int64_t at_once; /* blocks of a multiprocessor */
    bool two;        /* rows of activations in two parts: those that sampling sees */
    bool to_operand; /* the result is read by such products only */
    int64_t staged;  /* bytes of a row of a block format in a stage; 0: it has 16 bits */
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

/* Nanoseconds of a step of 64 elements in a block, as measured on an H100: with two groups and 256 tokens the tensor cores are busy, else
 * it is what their operands take. */
static int64_t step_of(int64_t span, int64_t groups) {
    static const int64_t of_one[] = {300, 430, 490}, of_two[] = {420, 470, 720};
    const int i = span <= 64 ? 0 : span <= 128 ? 1 : 2;
    return groups == 1 ? of_one[i] : of_two[i];
}

static int64_t items_of(const cut *c, int64_t tokens) {
    return ceil_of(tokens, c->span) * ceil_of(c->rows, 64 * c->groups * c->cluster) * c->split;
}

static int64_t blocks_of(const qgc_lowering *l, const cut *c, int64_t tokens) {
    const int64_t items = items_of(c, tokens), at_once = l->sms * c->at_once / c->cluster;
    return (items < at_once || at_once == 0 ? items : at_once) * c->cluster;
}

/* Nanoseconds that the card takes, as a model: rounds of items, of which the last ones may be halves (packed_gemm.cu), the start of a
 * block, the end of an item, and what adding up parts takes. */
static int64_t cost_of(const qgc_lowering *l, const cut *c, int64_t tokens, int64_t steps) {
    enum { START = 4500, END = 1500, SUM = 3000, BYTES = 2000 };
    const int64_t items = items_of(c, tokens), blocks = blocks_of(l, c, tokens) / c->cluster;
    const int64_t rest = items % blocks, mine = ceil_of(steps, c->split);
    const int64_t beside =
        c->at_once > 1 && blocks * c->cluster > l->sms ? 8 : 5; /* others on the multiprocessor, in fifths */
    const int64_t end = END * c->span * c->groups / (256 * 2),
                  whole = mine * step_of(c->span, c->groups) * beside / 5 + end,
                  half = mine * step_of(c->span / 2, c->groups) * beside / 5 + end / 2;
    const bool halves = c->span > 64 && items > blocks && 2 * rest <= blocks;
    const int64_t last = rest == 0 ? 0 : halves ? half : whole;
    const int64_t sum = c->split > 1 ? SUM + (c->split + 1) * tokens * c->rows * 4 / BYTES : 0;
    return START + items / blocks * whole + last + sum;
}

/* Bytes of a stage: tokens, and rows, of 16 bits with what the first and the last tile have besides. */
static int64_t stage_bytes_of(const cut *c) {
    const int64_t rows = 64 * c->groups, of_16_bits = (rows + 2 * (TILE - 1)) * TOKEN_BYTES;
    return c->span * TOKEN_BYTES + (c->staged ? rows * c->staged : of_16_bits);
}

/* Of shared memory: stages, and for each two barriers and the places of rows. */
static int64_t shared_bytes_of(const cut *c) {
    return c->stages * (stage_bytes_of(c) + 16 + (c->staged ? 1 : 64 * c->groups) * 4);
}

/* Stages that shared memory has room for. The smallest blocks leave registers to a second one, and half of that. */
static void set_stages(const qgc_lowering *l, cut *c) {
    enum { MANY = 200 << 10, OF_BLOCK = 1024, MOST_STAGES = 8 };
    c->stages = 1;
    c->at_once = c->groups == 1 && c->span == 64 && l->shared_bytes >= MANY ? 2 : 1;
    const int64_t n = (l->shared_bytes - OF_BLOCK) / c->at_once / shared_bytes_of(c);
    c->stages = n > MOST_STAGES ? MOST_STAGES : n;
}

static cut cut_of(const qgc_lowering *l, const qgc_packed *p) {
    static const int64_t spans[] = {256, 128, 64};
    enum { MOST_SPLIT = 12, LEAST_STAGES = 3 };
    const qgc_value *x = p->linear[0]->in[0];
    cut c = {.rows = rows_of(p),
             .in_unit = p->fused && p->n == 2 ? 2 : 1,
             .staged = l->streamed[p->linear[0]->in[1]->id].step_bytes},
        best = {.span = 0};
    c.two = x->shape.dim[0] == QGC_DIM_R;
    const int64_t tokens = c.two ? 2 * l->sizes.rows : l->sizes.tokens, steps = qgc_low_width(x) / STEP;
    int64_t least = 0;
    for (int s = 0; s < 3; s++)
        for (c.groups = 2; c.groups >= 1; c.groups--)
            for (c.split = 1; c.split == 1 || (c.split <= MOST_SPLIT && 2 * c.split <= steps); c.split++) {
                c.span = spans[s];
                c.cluster = c.span == 256 && c.groups == 2 && l->sms > 1 ? 2 : 1;
                set_stages(l, &c);
                const int64_t cost = cost_of(l, &c, tokens, steps);
                const bool fits = c.stages >= LEAST_STAGES && (c.span / 2 < tokens || c.span == 64);
                if (c.span == 64 ? best.span == 0 || (fits && cost < least)
                                 : fits && (best.span == 0 || cost < least))
                    best = c, least = cost;
            }
    return best;
}

/* Is a value read by nothing but products that take it as operand B? */
static bool is_operand_only(const qgc_lowering *l, const qgc_value *v) {
    bool read = false;
    for (const qgc_node *n = l->graph->first; n; n = n->next)
        for (int i = 0; i < n->n_in; i++) {
            if (n->in[i] != v)
                continue;
            if (i > 0 || n->op != QGC_OP_LINEAR || !l->packed_of[n->id])
                return false;
            read = true;
        }
    for (size_t i = 0; i < l->graph->n_outputs; i++)
        read = read && l->graph->outputs[i] != v;
    return read;
}

/* A norm over all of a row that only such products read is computed with its result as operand. */
static bool is_operand_norm(const qgc_lowering *l, const qgc_node *n) {
    return n && n->op == QGC_OP_RMS_NORM && qgc_low_width(n->in[1]) == qgc_low_width(n->in[0]) &&
           qgc_low_width(n->in[0]) % STEP == 0 && is_operand_only(l, n->out[0]);
}

static int operand_buffer(qgc_lowering *l, const qgc_value *x, bool two) {
    const int64_t k = qgc_low_width(x);
    qgc_extent bytes = qgc_low_times(qgc_low_dim(x->shape.dim[0]), 2 * k * (two ? 2 : 1));
    bytes.fixed += 2 * k * 8;
    return l->operand_of[x->id] =
               qgc_low_scratch(l, qgc_low_text(l, "operand of %s", qgc_value_label(x, l->arena)), bytes);
}

int qgc_low_operand_only(qgc_lowering *l, const qgc_value *x) {
    const bool is = qgc_phase_is_packed(l->phase) && x->shape.dim[0] == QGC_DIM_T &&
                    qgc_low_width(x) % STEP == 0 && is_operand_only(l, x);
    return is ? operand_buffer(l, x, false) : -1;
}

static void norm_operand(qgc_lowering *l, const qgc_node *norm, bool two, int buffer) {
    enum { MOST_THREADS = 512 };
    const int64_t k = qgc_low_width(norm->in[0]);
    int64_t threads = ceil_of(k / 16, 32) * 32;
    threads = threads > MOST_THREADS ? MOST_THREADS : threads;
    const char *options[] = {qgc_low_int(l, "K", k), qgc_low_int(l, "THREADS", threads),
                             qgc_low_float(l, "EPS", qgc_low_attr(norm, "eps")), two ? "-DTWO=1" : NULL,
                             NULL};
    const qgc_extent rows = qgc_low_dim(norm->in[0]->shape.dim[0]);
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "norm_operand.cu", (int)threads, options));
    qgc_low_grid(launch, 0, rows, 1);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, norm->in[0]), QGC_READS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, norm->in[1]), QGC_READS);
    qgc_low_arg_buffer(launch, buffer, QGC_WRITES);
    qgc_low_arg_i32(launch, rows);
}

/* The buffer of a value as operand B; made once for all products that read it. */
static int operand(qgc_lowering *l, const qgc_value *x, bool two) {
    if (l->operand_of[x->id] >= 0)
        return l->operand_of[x->id];
    const int64_t k = qgc_low_width(x);
    const qgc_extent rows = qgc_low_dim(x->shape.dim[0]);
    const int buffer = operand_buffer(l, x, two);
    if (is_operand_norm(l, x->maker)) {
        norm_operand(l, x->maker, two, buffer);
        return buffer;
    }
    const char *options[] = {qgc_low_int(l, "K", k), two ? "-DTWO=1" : NULL, NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "to_operand.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, qgc_low_times(rows, k / 16), QGC_LOW_THREADS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, x), QGC_READS);
    qgc_low_arg_buffer(launch, buffer, QGC_WRITES);
    qgc_low_arg_i32(launch, rows);
    return buffer;
}

static bool writes(const qgc_plan_launch *launch, int buffer) {
    for (int i = 0; i < launch->n_args; i++)
        if ((launch->args[i].access & QGC_WRITES) && launch->args[i].buffer == buffer)
            return true;
    return false;
}

/* Does the launch before take the same tokens, and make nothing that this one reads? Then it need not be waited for. */
static bool is_beside(qgc_lowering *l, const qgc_packed *p, int operand) {
    const qgc_phase *phase = &l->plan->phases[l->phase];
    const qgc_plan_launch *before = phase->n_launches ? &phase->launches[phase->n_launches - 1] : NULL;
    return before && before->kind == QGC_LAUNCH_KERNEL && before->args[0].buffer == operand &&
           strcmp(l->plan->kernels[before->kernel].name, "packed_gemm.cu") == 0 &&
           !(p->outside && writes(before, qgc_low_buffer(l, p->outside)));
}

/* A launch beside the one before it makes all its accesses before it waits. */
static void arg_all_early(qgc_plan_launch *launch) {
    for (int i = 0; i < launch->n_args; i++)
        if (launch->args[i].access)
            launch->args[i].access |= QGC_EARLY;
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

static void arg_outs(qgc_lowering *l, qgc_plan_launch *launch, const qgc_packed *p, const cut *c) {
    const int none = launch->args[0].buffer;
    if (c->to_operand) {
        qgc_low_arg_buffer(launch, operand_buffer(l, p->result, false), QGC_WRITES);
        for (int i = 1; i < QGC_MAX_LINEARS; i++)
            qgc_low_arg_buffer(launch, none, 0);
        return;
    }
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
    arg_outs(l, launch, p, c);
    qgc_low_arg_i32(launch, rows);
}

static void multiply(qgc_lowering *l, const qgc_packed *p) {
    cut c = cut_of(l, p);
    const qgc_value *x = p->linear[0]->in[0];
    const qgc_streamed *s = &l->streamed[p->linear[0]->in[1]->id];
    const qgc_extent rows = qgc_low_dim(x->shape.dim[0]);
    const char *options[MOST_OPTIONS] = {NULL};
    int n = options_of(l, p, &c, options);
    options[n++] = qgc_low_type(l, "FORMAT", s->type);
    options[n++] = qgc_low_int(l, "GROUPS", c.groups);
    options[n++] = qgc_low_int(l, "SPAN", c.span);
    options[n++] = qgc_low_int(l, "STAGES", c.stages);
    options[n++] = qgc_low_int(l, "CLUSTER", c.cluster);
    c.to_operand = p->fused && c.split == 1 && !c.two && is_operand_only(l, p->result);
    if (c.to_operand)
        options[n++] = "-DTO_OPERAND=1";
    const int from = operand(l, x, c.two);
    const bool beside = is_beside(l, p, from);
    if (beside)
        options[n++] = "-DBESIDE=1";
    assert(n < MOST_OPTIONS);
    const int kernel = qgc_low_kernel(l, "packed_gemm.cu", (int)c.groups * 128 + COPYING_THREADS, options);
    l->plan->kernels[kernel].shared_bytes = (int)shared_bytes_of(&c);
    const int parts = c.split > 1 ? qgc_low_scratch(l, qgc_low_text(l, "parts of %s", p->name),
                                                    qgc_low_times(rows, 4 * c.split * c.rows))
                                  : -1;
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, kernel);
    qgc_low_grid(launch, 0,
                 (qgc_extent){.fixed = blocks_of(l, &c, c.two ? 2 * l->sizes.rows : l->sizes.tokens)}, 1);
    launch->weight_bytes = s->row_bytes * c.rows;
    qgc_low_arg_buffer(launch, from, QGC_READS);
    arg_stream(launch, s, QGC_READS | QGC_EARLY);
    arg_results(l, launch, p, c.split == 1);
    if (parts >= 0) {
        qgc_low_arg_buffer(launch, parts, QGC_WRITES);
        for (int i = 1; i < QGC_MAX_LINEARS; i++)
            qgc_low_arg_buffer(launch, parts, 0);
    } else
        arg_outs(l, launch, p, &c);
    qgc_low_arg_i32(launch, rows);
    if (beside)
        arg_all_early(launch);
    if (parts >= 0)
        add_up(l, p, &c, parts);
}

bool qgc_low_packed(qgc_lowering *l, const qgc_node *n) {
    const qgc_packed *p = qgc_phase_is_packed(l->phase) ? l->packed_of[n->id] : NULL;
    if (p && n == p->at)
        multiply(l, p);
    return p != NULL || (qgc_phase_is_packed(l->phase) && is_operand_norm(l, n));
}
