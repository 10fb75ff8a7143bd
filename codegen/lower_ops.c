#include <string.h>

#include "codegen/lower_impl.h"
#include "graph/base/str.h"

/* One function for each op: which kernel computes it, and how it is launched. `T` and `R` stay symbols in grids and
 * arguments; everything else is a number that goes into the kernel's options. */

void qgc_low_operands(qgc_lowering *l, qgc_plan_launch *launch, const qgc_node *n) {
    for (int i = 0; i < n->n_in; i++)
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[i]), QGC_READS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->out[0]), QGC_WRITES);
}

qgc_status lower_embedding(qgc_lowering *l, const qgc_node *n) {
    qgc_dtype storage = qgc_weight_storage(n->in[1]);
    const char *options[] = {qgc_low_int(l, "D", qgc_low_width(n->out[0])),
                             qgc_low_type(l, "WEIGHT", storage), NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "embedding.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, qgc_low_dim(n->out[0]->shape.dim[0]), 1);
    qgc_low_operands(l, launch, n);
    return QGC_OK;
}

/* Few threads for a short row, and for one of more than 8,192 elements as many as a block can have: a thread keeps its part of the
 * row in registers, 64 elements at most. */
static int64_t norm_threads(int64_t d) {
    return d < QGC_LOW_THREADS ? (d + 31) / 32 * 32 : d <= 32 * QGC_LOW_THREADS ? QGC_LOW_THREADS : 1024;
}

qgc_status qgc_low_norm(qgc_lowering *l, const qgc_node *n, const qgc_normed *then) {
    const int64_t d = qgc_low_width(n->in[1]), threads = norm_threads(d);
    enum { MOST = 64 * 1024 };
    if (d > MOST)
        return qgc_fail(l->diag, QGC_ERR_INPUT, n->at,
                        "rms_norm over %lld elements, and its kernel does at most %d", (long long)d, MOST);
    const char *options[8] = {qgc_low_int(l, "D", d), qgc_low_float(l, "EPS", qgc_low_attr(n, "eps")),
                              qgc_low_int(l, "THREADS", threads)};
    int n_options = 3;
    if (then) {
        options[n_options++] = qgc_arena_printf(l->arena, "-DEXPRESSION=%s", then->expression);
        options[n_options++] = qgc_low_int(l, "INPUTS", then->n_inputs);
        const int one_a_row = qgc_low_one_a_row(then->inputs, then->n_inputs, then->result);
        if (one_a_row)
            options[n_options++] = qgc_low_int(l, "ONE_A_ROW", one_a_row);
    }
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "rms_norm.cu", (int)threads, options));
    qgc_extent groups = qgc_low_times(qgc_low_dim(n->in[0]->shape.dim[0]), qgc_low_width(n->in[0]) / d);
    qgc_low_grid(launch, 0, groups, 1);
    for (int i = 0; i < n->n_in; i++)
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[i]), QGC_READS);
    for (int i = 0; then && then->n_inputs && i < QGC_NORM_INPUTS;
         i++) /* those that are not there are never looked at */
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, then->inputs[i < then->n_inputs ? i : 0]),
                           i < then->n_inputs ? QGC_READS : 0);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, then ? then->result : n->out[0]), QGC_WRITES);
    return QGC_OK;
}

qgc_status lower_rms_norm(qgc_lowering *l, const qgc_node *n) {
    return qgc_low_norm(l, n, NULL);
}

qgc_status lower_layer_norm(qgc_lowering *l, const qgc_node *n) {
    const int64_t d = qgc_low_width(n->in[0]), threads = norm_threads(d);
    enum { MOST = 64 * 1024 };
    if (d > MOST)
        return qgc_fail(l->diag, QGC_ERR_INPUT, n->at,
                        "layer_norm over %lld elements, and its kernel does at most %d", (long long)d, MOST);
    const char *options[] = {qgc_low_int(l, "D", d), qgc_low_float(l, "EPS", qgc_low_attr(n, "eps")),
                             qgc_low_int(l, "THREADS", threads), qgc_low_int(l, "BIAS", n->n_in > 2), NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "layer_norm.cu", (int)threads, options));
    qgc_low_grid(launch, 0, qgc_low_dim(n->in[0]->shape.dim[0]), 1);
    qgc_low_operands(l, launch, n);
    return QGC_OK;
}

int qgc_low_rope_options(qgc_lowering *l, const qgc_node *rope, const char **options) {
    const qgc_rope r = qgc_rope_of(rope);
    if (qgc_rope_is_plain(&r))
        return 0;
    options[0] = qgc_low_int(l, "ROPE_FIRST", r.first);
    options[1] = qgc_low_int(l, "ROPE_DIM", r.rotary_dim);
    options[2] = qgc_low_int(l, "ROPE_INTERLEAVED", r.interleaved);
    return 3;
}

static bool same_divisors(const qgc_node *a, const qgc_node *b) {
    return a->op == b->op && a->in[1] == b->in[1] &&
           (a->op == QGC_OP_ROPE_DIVIDE ||
            (a->in[2] == b->in[2] && qgc_low_attr(a, "original") == qgc_low_attr(b, "original")));
}

static bool has_divisors(const qgc_node *n) {
    for (int i = 1; i < n->n_in; i++)
        if (n->in[i]->kind != QGC_WEIGHT)
            return false;
    return true;
}

/* Appends what kernels/rope_table.cu calls frequency `pair`; *divides is the node that divides them by weights, if any does. False if
 * there is a second one, by others. */
static bool write_frequency(qgc_lowering *l, const qgc_value *v,
                            const qgc_node **divides, // NOLINT(misc-no-recursion)
                            qgc_str *t) {
    const qgc_node *n = v->maker;
    qgc_str_printf(t, "%s(", qgc_ops[n->op].name);
    if (n->op == QGC_OP_ROPE_FREQS) {
        qgc_str_printf(t, "pair,%s)", qgc_low_double_text(l, qgc_low_attr(n, "base")));
        return true;
    }
    if (!write_frequency(l, n->in[0], divides, t))
        return false;
    if (n->op == QGC_OP_ROPE_DIVIDE || n->op == QGC_OP_ROPE_LONGROPE) {
        qgc_str_add(t, ",by)");
        const bool second = *divides && !same_divisors(*divides, n);
        *divides = n;
        return !second && has_divisors(n);
    }
    if (n->op == QGC_OP_ROPE_YARN) {
        double low, high;
        qgc_rope_yarn_range(n, &low, &high);
        qgc_str_printf(t, ",pair,%s,%s,%s)", qgc_low_double_text(l, qgc_low_attr(n, "factor")),
                       qgc_low_double_text(l, low), qgc_low_double_text(l, high));
        return true;
    }
    for (int i = 0; qgc_ops[n->op].attrs[i].name; i++)
        qgc_str_printf(t, ",%s", qgc_low_double_text(l, n->attr[i].number));
    qgc_str_add(t, ")");
    return true;
}

/* What the table of a rope is made of. */
typedef struct {
    const char *options[5];
    int n;
    const qgc_node *divides; /* by weights; or NULL */
    bool fits;
} rope_table;

static rope_table table_of(qgc_lowering *l, const qgc_node *rope) {
    const qgc_rope r = qgc_rope_of(rope);
    rope_table t = {.fits = true};
    t.options[t.n++] = qgc_low_int(l, "HEAD_DIM", r.rotary_dim);
    if (!r.freqs) {
        t.options[t.n++] = qgc_low_double(l, "BASE", r.base);
    } else if (r.freqs->maker->op == QGC_OP_ROPE_FREQS) {
        t.options[t.n++] = qgc_low_double(l, "BASE", qgc_low_attr(r.freqs->maker, "base"));
    } else {
        qgc_str text = qgc_str_new(l->arena);
        qgc_str_add(&text, "-DFREQUENCY=");
        t.fits = write_frequency(l, r.freqs, &t.divides, &text);
        t.options[t.n++] = text.text;
    }
    if (t.divides)
        t.options[t.n++] = qgc_low_int(l, "DIVIDES", 1);
    if (t.divides && t.divides->op == QGC_OP_ROPE_LONGROPE)
        t.options[t.n++] = qgc_low_int(l, "ORIGINAL", qgc_low_attr_int(t.divides, "original"));
    if (r.scale != 1)
        t.options[t.n++] = qgc_low_double(l, "SCALE", r.scale);
    return t;
}

const char *qgc_low_rope_angles(qgc_lowering *l, const qgc_node *rope) {
    const rope_table t = table_of(l, rope);
    qgc_str text = qgc_str_new(l->arena);
    for (int i = 0; i < t.n; i++)
        qgc_str_printf(&text, "%s%s", i ? " " : "", t.options[i]);
    for (int i = 1; t.divides && i < t.divides->n_in; i++)
        qgc_str_printf(&text, "%s%s", i > 1 ? ", " : " by ", qgc_value_label(t.divides->in[i], l->arena));
    return text.text;
}

qgc_status qgc_low_rope_check(qgc_lowering *l, const qgc_node *rope) {
    const rope_table t = table_of(l, rope);
    if (t.fits)
        return QGC_OK;
    return qgc_fail(
        l->diag, QGC_ERR_INPUT, rope->at,
        "frequencies of rope \"%s\" are divided by \"%s\", and a table is divided by one weight only",
        qgc_value_label(rope->out[0], l->arena), qgc_value_label(t.divides->in[1], l->arena));
}

int qgc_low_rope_table(qgc_lowering *l, const qgc_node *rope) {
    const qgc_rope r = qgc_rope_of(rope);
    const rope_table t = table_of(l, rope);
    bool made;
    int table = qgc_low_table(l, qgc_arena_printf(l->arena, "rope table %s", qgc_low_rope_angles(l, rope)),
                              (qgc_extent){.per_ctx = 4 * r.rotary_dim}, &made);
    if (made) {
        const char *options[6] = {NULL};
        memcpy(options, t.options, (size_t)t.n * sizeof *options);
        int kernel = qgc_low_kernel(l, "rope_table.cu", QGC_LOW_THREADS, options);
        qgc_plan_launch *fill = qgc_low_launch(l, QGC_PHASE_INIT, kernel);
        qgc_low_grid(fill, 0, (qgc_extent){.per_ctx = r.rotary_dim / 2}, QGC_LOW_THREADS);
        qgc_low_arg_buffer(fill, table, QGC_WRITES);
        for (int i = 1; t.divides && i < t.divides->n_in; i++)
            qgc_low_arg_buffer(fill, qgc_low_buffer(l, t.divides->in[i]), QGC_READS);
        qgc_low_arg_i32(fill, (qgc_extent){.per_ctx = 1});
    }
    return table;
}

/* Frequencies are in the tables of the ropes that read them. */
qgc_status lower_rope_freqs(qgc_lowering *l, const qgc_node *n) {
    (void)l, (void)n;
    return QGC_OK;
}
qgc_status lower_rope_linear(qgc_lowering *l, const qgc_node *n) {
    (void)l, (void)n;
    return QGC_OK;
}
qgc_status lower_rope_llama3(qgc_lowering *l, const qgc_node *n) {
    (void)l, (void)n;
    return QGC_OK;
}
qgc_status lower_rope_yarn(qgc_lowering *l, const qgc_node *n) {
    (void)l, (void)n;
    return QGC_OK;
}
qgc_status lower_rope_divide(qgc_lowering *l, const qgc_node *n) {
    (void)l, (void)n;
    return QGC_OK;
}

qgc_status lower_rope_longrope(qgc_lowering *l, const qgc_node *n) {
    (void)l, (void)n;
    return QGC_OK;
}

qgc_status lower_rope(qgc_lowering *l, const qgc_node *n) {
    int64_t head_dim = qgc_low_attr_int(n, "head_dim"), heads = qgc_low_width(n->in[0]) / head_dim;
    QGC_TRY(qgc_low_rope_check(l, n));
    int table = qgc_low_rope_table(l, n);
    const char *options[8] = {qgc_low_int(l, "HEAD_DIM", head_dim), qgc_low_int(l, "HEADS", heads)};
    options[2 + qgc_low_rope_options(l, n, options + 2)] = NULL;
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "rope.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = heads * head_dim / 2}, QGC_LOW_THREADS);
    qgc_low_grid(launch, 1, qgc_low_dim(n->out[0]->shape.dim[0]), 1);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[0]), QGC_READS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[1]), QGC_READS);
    qgc_low_arg_buffer(launch, table, QGC_READS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->out[0]), QGC_WRITES);
    return QGC_OK;
}

qgc_status lower_append(qgc_lowering *l, const qgc_node *n) {
    const qgc_shape *cache = &n->in[0]->shape;
    const char *options[] = {qgc_low_int(l, "HEAD_DIM", cache->dim[2]),
                             qgc_low_int(l, "KV_HEADS", cache->dim[0]),
                             qgc_low_type(l, "STATE", n->in[0]->dtype), qgc_low_kept(l, n->in[0]), NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "append.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = cache->dim[0] * cache->dim[2]}, QGC_LOW_THREADS);
    qgc_low_grid(launch, 1, qgc_low_dim(n->in[1]->shape.dim[0]), 1);
    for (int i = 0; i < n->n_in; i++)
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[i]), i == 0 ? QGC_WRITES : QGC_READS);
    qgc_low_arg_i32(launch, (qgc_extent){.per_ctx = 1});
    return QGC_OK;
}

/* Of a cache [kv_heads, ctx, head_dim], for one position. */
static int64_t position_bytes(const qgc_value *cache) {
    return cache->shape.dim[0] * (int64_t)qgc_dtype_bytes(cache->dtype, cache->shape.dim[2]);
}

/* An attention to be lowered; `parts` is 1 for a whole one. What it makes goes into `out`. */
typedef struct {
    const qgc_node *node;
    const qgc_value *out;
    int64_t parts, head_dim, heads, kv_heads, group;
    qgc_dtype keys, values;
} attention;

static attention attention_of(const qgc_node *n, int64_t parts, const qgc_value *out) {
    const qgc_shape *cache = &n->in[1]->shape;
    int64_t head_dim = cache->dim[2], heads = qgc_low_width(n->in[0]) / head_dim;
    return (attention){n,
                       out,
                       parts,
                       head_dim,
                       heads,
                       cache->dim[0],
                       heads / cache->dim[0],
                       n->in[1]->dtype,
                       n->in[2]->dtype};
}

/* What the kernels of attention have in common; returns how many options. */
static int attention_options(qgc_lowering *l, const attention *a, int64_t parts, const char **options) {
    int n = 0;
    options[n++] = qgc_low_int(l, "HEAD_DIM", a->head_dim);
    options[n++] = qgc_low_int(l, "HEADS", a->heads);
    options[n++] = qgc_low_int(l, "KV_HEADS", a->kv_heads);
    options[n++] = qgc_low_type(l, "KEYS", a->keys);
    options[n++] = qgc_low_type(l, "VALUES", a->values);
    options[n++] = qgc_low_float(l, "SCALE", qgc_low_attr(a->node, "scale"));
    options[n++] = qgc_low_int(l, "PARTS", parts);
    if (qgc_low_attr(a->node, "window") != 0)
        options[n++] = qgc_low_int(l, "WINDOW", qgc_low_attr_int(a->node, "window"));
    if (a->node->n_in > 4)
        options[n++] = "-DSINKS=1";
    if (qgc_low_kept(l, a->node->in[1]))
        options[n++] = qgc_low_kept(l, a->node->in[1]);
    if (qgc_low_attr(a->node, "softcap") != 0)
        options[n++] = qgc_low_float(l, "SOFTCAP", qgc_low_attr(a->node, "softcap"));
    return n;
}

/* A launch with the inputs and the buffer of the result as arguments; the grid is left to the caller. */
static qgc_plan_launch *attention_launch(qgc_lowering *l, const attention *a, int kernel, int out) {
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, kernel);
    if (qgc_low_attr(a->node, "window") == 0) /* else a position more is one less at the other end */
        launch->position_bytes = position_bytes(a->node->in[1]) + position_bytes(a->node->in[2]);
    for (int i = 0; i < a->node->n_in; i++)
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, a->node->in[i]), QGC_READS);
    qgc_low_arg_buffer(launch, out, QGC_WRITES);
    return launch;
}

/* Those kernels take rows by 16 bytes and multiply them by instructions of sm_80. */
static bool suits_tensor_cores(const qgc_lowering *l, const attention *a) {
    bool old = l->least_arch != 0 && l->least_arch < 80;
    return !old && a->keys != QGC_F32 && a->values != QGC_F32 &&
           (a->head_dim == 32 || a->head_dim == 64 || a->head_dim == 128);
}

/* Counts of blocks, zero at first as their kernels leave them (kernels/last.cuh). No two of these kernels run at once, so
 * all of one shape have the same. */
static int counts(qgc_lowering *l, int64_t n) {
    bool made;
    return qgc_low_table(l, qgc_low_text(l, "counts of attention %lld", (long long)n),
                         (qgc_extent){.fixed = 4 * n}, &made);
}

/* Scratch for what blocks leave for the last of them. */
static int shares(qgc_lowering *l, const attention *a, qgc_extent floats) {
    return qgc_low_scratch(l, qgc_low_text(l, "shares of %s", qgc_value_label(a->out, l->arena)),
                           qgc_low_times(floats, 4));
}

static int64_t within(int64_t x, int64_t least, int64_t most) {
    return x < least ? least : x > most ? most : x;
}

/* A launch of a kernel whose blocks may share the positions of a part (kernels/attention_parts.cuh): in decode, where a long one would
 * keep few multiprocessors busy, as many as fill the card. For `units` of heads, that leave so many floats each; `n` options are there. */
static void attention_in_blocks(qgc_lowering *l, const attention *a, const char *file, int threads,
                                const char **options, int n, int64_t units, int64_t floats) {
    const int64_t n_parts = units * a->parts,
                  blocks = qgc_phase_is_prefill(l->phase) ? 1 : within(l->sms / n_parts, 1, 64);
    options[n++] = qgc_low_int(l, "BLOCKS", blocks);
    options[n] = NULL;
    qgc_plan_launch *launch =
        attention_launch(l, a, qgc_low_kernel(l, file, threads, options), qgc_low_buffer(l, a->out));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = units}, 1);
    qgc_low_grid(launch, 1, qgc_low_dim(a->node->in[0]->shape.dim[0]), 1);
    qgc_low_grid(launch, 2, (qgc_extent){.fixed = a->parts * blocks}, 1);
    const int out = launch->args[launch->n_args - 1].buffer; /* takes the place of what is not looked at */
    const int access = blocks > 1 ? QGC_READS | QGC_WRITES : 0;
    const qgc_extent room = {.fixed = n_parts * blocks * floats};
    qgc_low_arg_buffer(launch, blocks > 1 ? shares(l, a, room) : out, access);
    qgc_low_arg_buffer(launch, blocks > 1 ? counts(l, n_parts) : out, access);
    qgc_low_arg_i32(launch, (qgc_extent){.per_ctx = 1});
}

/* kernels/attention.cu: any type and size of head, each head by itself. */
static void attention_by_head(qgc_lowering *l, const attention *a) {
    const int threads = a->head_dim <= QGC_LOW_THREADS ? QGC_LOW_THREADS : 512;
    const char *options[16];
    int n = attention_options(l, a, a->parts, options);
    options[n++] = qgc_low_int(l, "THREADS", threads);
    attention_in_blocks(l, a, "attention.cu", threads, options, n, a->heads, a->head_dim + 2);
}

/* kernels/attention_heads.cu: 8 heads of a group a block. */
static void attention_by_group(qgc_lowering *l, const attention *a) {
    enum { THREADS = 256, HEADS_AT_ONCE = 8 };
    const char *options[16];
    const int n = attention_options(l, a, a->parts, options);
    attention_in_blocks(l, a, "attention_heads.cu", THREADS, options, n,
                        a->kv_heads * ((a->group + HEADS_AT_ONCE - 1) / HEADS_AT_ONCE),
                        HEADS_AT_ONCE * (a->head_dim + 4));
}

enum { FLASH_WARPS = 4 };

/* Keys and values of two stages in shared memory, in kernels/flash_attention.cu. */
static int64_t tile_bytes(const attention *a) {
    enum { KEY_TILE = 64, STAGES = 2, ROWS = STAGES * 2 * KEY_TILE };
    return (a->head_dim + 8) * ROWS * 2;
}

static int64_t tiles_of(const qgc_lowering *l, const attention *a, int64_t rows) {
    return (l->sizes.tokens * a->group + rows - 1) / rows * a->kv_heads;
}

/* How many times 16 rows a warp has: two, where registers hold their sums and there are enough such tiles for the card. */
static int row_tiles_of(const qgc_lowering *l, const attention *a) {
    return a->head_dim > 64 || tiles_of(l, a, FLASH_WARPS * 32) < l->sms ? 1 : 2;
}

/* kernels/flash_attention.cu: many tokens. Where a full chunk gives few tiles, several blocks share the positions of one: so
 * many that they come in up to 6 waves on the card, with two blocks on each multiprocessor. */
static void attention_by_tiles(qgc_lowering *l, const attention *a) {
    enum { WAVES = 6, RESIDENT = 2, MOST_PARTS = 10 };
    const int row_tiles = row_tiles_of(l, a);
    const int64_t rows = (int64_t)FLASH_WARPS * 16 * row_tiles, tiles = tiles_of(l, a, rows);
    const int operand = qgc_low_operand_only(l, a->out);
    int64_t parts = within(WAVES * RESIDENT * l->sms / tiles, 1, MOST_PARTS);
    const char *options[16];
    int n = attention_options(l, a, parts, options);
    options[n++] = qgc_low_int(l, "ROW_TILES", row_tiles);
    if (operand >= 0)
        options[n++] = "-DTO_OPERAND=1";
    if (l->sms != QGC_TYPICAL_SMS)
        options[n++] = qgc_low_int(l, "SMS", l->sms);
    options[n] = NULL;
    int kernel = qgc_low_kernel(l, "flash_attention.cu", 32 * FLASH_WARPS, options);
    l->plan->kernels[kernel].shared_bytes = (int)tile_bytes(a);
    qgc_plan_launch *launch =
        attention_launch(l, a, kernel, operand >= 0 ? operand : qgc_low_buffer(l, a->out));
    qgc_extent tokens = qgc_low_dim(a->node->in[0]->shape.dim[0]);
    qgc_low_grid(launch, 0, qgc_low_times(tokens, a->group), rows);
    qgc_low_grid(launch, 1, (qgc_extent){.fixed = a->kv_heads}, 1);
    qgc_low_grid(launch, 2, (qgc_extent){.fixed = parts}, 1);
    qgc_low_arg_buffer(launch, shares(l, a, qgc_low_times(tokens, parts * a->heads * (a->head_dim + 4))),
                       QGC_READS | QGC_WRITES);
    qgc_low_arg_buffer(launch, counts(l, tiles), QGC_READS | QGC_WRITES);
    qgc_low_arg_i32(launch, (qgc_extent){.per_ctx = 1});
    qgc_low_arg_i32(launch, tokens);
}

static qgc_status attention_kernel(qgc_lowering *l, const qgc_node *n, int64_t parts, const qgc_value *out) {
    const attention a = attention_of(n, parts, out);
    if (a.head_dim > 512)
        return qgc_fail(l->diag, QGC_ERR_INPUT, n->at,
                        "attention with heads of %lld elements, and its kernel does at most 512",
                        (long long)a.head_dim);
    if (!suits_tensor_cores(l, &a))
        attention_by_head(l, &a);
    else if (qgc_phase_is_prefill(l->phase) && parts == 1 && tile_bytes(&a) <= l->shared_bytes)
        attention_by_tiles(l, &a);
    else
        attention_by_group(l, &a);
    return QGC_OK;
}

qgc_status lower_attention(qgc_lowering *l, const qgc_node *n) {
    return attention_kernel(l, n, 1, n->out[0]);
}

/* Many tokens fill the card without parts: in prefill an attention_part that goes into an attention_merge and nowhere
 * else is computed whole, in its own place: by the time of the merge the caches may have been appended to. Returns the
 * merge, whose result it then makes, or NULL. */
static const qgc_node *whole_of(const qgc_lowering *l, const qgc_node *part) {
    if (!qgc_phase_is_prefill(l->phase) || part->op != QGC_OP_ATTENTION_PART ||
        l->uses[part->out[0]->id] != 1)
        return NULL;
    for (const qgc_node *n = part->next; n; n = n->next)
        if (n->op == QGC_OP_ATTENTION_MERGE && n->in[0] == part->out[0])
            return n;
    return NULL;
}

/* PARTS 1 would be a whole attention to the kernel, which has another result. */
qgc_status lower_attention_part(qgc_lowering *l, const qgc_node *n) {
    int64_t parts = qgc_low_attr_int(n, "parts");
    const qgc_node *merge = whole_of(l, n);
    if (merge)
        return attention_kernel(l, n, 1, merge->out[0]);
    if (parts < 2)
        return qgc_fail(l->diag, QGC_ERR_INPUT, n->at,
                        "attention_part with %lld parts, and its kernel takes 2 or more", (long long)parts);
    return attention_kernel(l, n, parts, n->out[0]);
}

qgc_status lower_attention_merge(qgc_lowering *l, const qgc_node *n) {
    if (n->in[0]->maker && whole_of(l, n->in[0]->maker))
        return QGC_OK;
    int64_t head_dim = qgc_low_attr_int(n, "head_dim"), parts = qgc_low_attr_int(n, "parts");
    const char *options[] = {qgc_low_int(l, "HEADS", qgc_low_width(n->out[0]) / head_dim),
                             qgc_low_int(l, "HEAD_DIM", head_dim), qgc_low_int(l, "PARTS", parts), NULL};
    int kernel = qgc_low_kernel(l, "attention_merge.cu", QGC_LOW_THREADS, options);
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, kernel);
    qgc_low_grid(launch, 0, qgc_low_dim(n->out[0]->shape.dim[0]), 1);
    qgc_low_operands(l, launch, n);
    return QGC_OK;
}

qgc_status lower_select_rows(qgc_lowering *l, const qgc_node *n) {
    const char *options[] = {qgc_low_int(l, "D", qgc_low_width(n->in[0])), NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "select_rows.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, qgc_low_dim(n->out[0]->shape.dim[0]), 1);
    qgc_low_operands(l, launch, n);
    return QGC_OK;
}

qgc_status lower_mark(qgc_lowering *l, const qgc_node *n) {
    const char *options[] = {NULL};
    qgc_extent tokens = qgc_low_dim(n->in[1]->shape.dim[0]);
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "mark.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, tokens, QGC_LOW_THREADS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[0]), QGC_WRITES);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[1]), QGC_READS);
    qgc_low_arg_i32(launch, tokens);
    return QGC_OK;
}

/* --- sampling -------------------------------------------------------------------------------------------- */

/* kernels/sample_merge.cu keeps the largest of the chunks in registers, 16 a thread; tokens of a slice as there. */
enum { MERGE_THREADS = 1024, MOST_CHUNKS = 16 * MERGE_THREADS, SLICE = 2048, MERGE_BINS = 3 * 1024 };

static int64_t divided(int64_t n, int64_t by) {
    return (n + by - 1) / by;
}

static void sample_part_kernel(qgc_lowering *l, const qgc_value *logits, int seen, int64_t chunk, int parts) {
    int64_t vocab = qgc_low_width(logits);
    const char *options[] = {qgc_low_int(l, "VOCAB", vocab), qgc_low_int(l, "CHUNK", chunk), NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "sample_part.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = divided(vocab, chunk)}, QGC_LOW_THREADS / 32);
    qgc_low_grid(launch, 1, qgc_low_dim(logits->shape.dim[0]), 1);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, logits), QGC_READS);
    qgc_low_arg_buffer(launch, seen, QGC_READS);
    qgc_low_arg_buffer(launch, l->plan->io[QGC_IO_SAMPLING], QGC_READS);
    qgc_low_arg_buffer(launch, parts, QGC_WRITES);
}

/* Where nothing comes after the choice, its kernel ends the step. */
static bool ends_step(const qgc_lowering *l, const qgc_node *n) {
    return !n->next && n->out[0] == qgc_graph_output(l->graph, "next");
}

/* `rows` is input `rows_at` of the node, positions the one after it, and seen the one after that. */
static void sample_merge_kernel(qgc_lowering *l, const qgc_node *n, int rows_at, int64_t chunk, int parts) {
    int64_t vocab = qgc_low_width(n->in[0]);
    bool made;
    /* bins, a mass and a number of ties of each slice, three counters */
    int64_t words = MERGE_BINS + divided(vocab, SLICE) + (divided(vocab, SLICE) + 4) / 2;
    int sums = qgc_low_table(l, qgc_low_text(l, "sums of sampling %lld", (long long)vocab),
                             (qgc_extent){.fixed = 8 * words}, &made);
    l->ended = ends_step(l, n);
    const char *options[] = {qgc_low_int(l, "VOCAB", vocab), qgc_low_int(l, "CHUNK", chunk),
                             qgc_low_int(l, "SLICE", SLICE),
                             qgc_low_int(l, "RING", l->ended ? QGC_LOW_RING : 0), NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "sample_merge.cu", MERGE_THREADS, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = vocab}, SLICE);
    const int at_end = l->ended ? QGC_WRITES : 0; /* what is written where the kernel ends the step */
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[0]), QGC_READS);
    qgc_low_arg_buffer(launch, parts, QGC_READS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[rows_at]), QGC_READS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[rows_at + 1]), QGC_READS | at_end);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[rows_at + 2]), QGC_READS);
    qgc_low_arg_buffer(launch, l->plan->io[QGC_IO_SAMPLING], QGC_READS);
    qgc_low_arg_buffer(launch, sums, QGC_READS | QGC_WRITES);
    int next = qgc_low_buffer(l, n->out[0]);
    qgc_low_arg_buffer(launch, next, QGC_WRITES);
    qgc_low_arg_buffer(launch, l->ended ? l->plan->io[QGC_IO_TOKENS] : next, at_end);
    qgc_low_arg_buffer(launch, l->ended ? l->plan->io[QGC_IO_RING] : next, at_end);
}

static qgc_status check_chunks(const qgc_lowering *l, const qgc_node *n, int64_t chunk) {
    int64_t vocab = qgc_low_width(n->in[0]);
    if (vocab > 1 << 24)
        return qgc_fail(l->diag, QGC_ERR_INPUT, n->at, "%s over %lld tokens, and its kernels do at most %d",
                        qgc_ops[n->op].name, (long long)vocab, 1 << 24);
    if (divided(vocab, chunk) > MOST_CHUNKS)
        return qgc_fail(
            l->diag, QGC_ERR_INPUT, n->at,
            "%s over %lld chunks, and its kernels do at most %d: a chunk has to be longer than %lld",
            qgc_ops[n->op].name, (long long)divided(vocab, chunk), MOST_CHUNKS, (long long)chunk);
    return QGC_OK;
}

/* Both halves at once. */
qgc_status lower_sample(qgc_lowering *l, const qgc_node *n) {
    const qgc_value *logits = n->in[0];
    int64_t vocab = qgc_low_width(logits), chunk = QGC_SAMPLE_CHUNK;
    while (divided(vocab, chunk) > MOST_CHUNKS)
        chunk *= 2;
    QGC_TRY(check_chunks(l, n, chunk));
    qgc_extent bytes = qgc_low_times(qgc_low_dim(logits->shape.dim[0]), 4 * divided(vocab, chunk));
    int parts =
        qgc_low_scratch(l, qgc_low_text(l, "largest of %s", qgc_value_label(logits, l->arena)), bytes);
    sample_part_kernel(l, logits, qgc_low_buffer(l, n->in[3]), chunk, parts);
    sample_merge_kernel(l, n, 1, chunk, parts);
    return QGC_OK;
}

/* A chunk may be longer than all. */
static int64_t chunk_of(const qgc_node *n) {
    int64_t chunk = qgc_low_attr_int(n, "chunk"), vocab = qgc_low_width(n->in[0]);
    return chunk < vocab ? chunk : vocab;
}

qgc_status lower_sample_part(qgc_lowering *l, const qgc_node *n) {
    QGC_TRY(check_chunks(l, n, chunk_of(n)));
    sample_part_kernel(l, n->in[0], qgc_low_buffer(l, n->in[1]), chunk_of(n), qgc_low_buffer(l, n->out[0]));
    return QGC_OK;
}

qgc_status lower_sample_merge(qgc_lowering *l, const qgc_node *n) {
    QGC_TRY(check_chunks(l, n, chunk_of(n)));
    sample_merge_kernel(l, n, 2, chunk_of(n), qgc_low_buffer(l, n->in[1]));
    return QGC_OK;
}
