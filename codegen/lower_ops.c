#include "codegen/lower_impl.h"

/* One function for each op: which kernel computes it, and how it is launched. `T` and `R` stay symbols in grids and
 * arguments; everything else is a number that goes into the kernel's options. */

/* Buffers of all inputs, then of the output, as arguments. */
static void operands(qgc_lowering *l, qgc_plan_launch *launch, const qgc_node *n) {
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
    operands(l, launch, n);
    return QGC_OK;
}

qgc_status lower_rms_norm(qgc_lowering *l, const qgc_node *n) {
    int64_t d = qgc_low_width(n->in[1]),
            threads = d >= QGC_LOW_THREADS ? QGC_LOW_THREADS : (d + 31) / 32 * 32;
    const int64_t most = (int64_t)32 * QGC_LOW_THREADS;
    if (d > most)
        return qgc_fail(l->diag, QGC_ERR_INPUT, n->at,
                        "rms_norm over %lld elements, and its kernel does at most %lld", (long long)d,
                        (long long)most);
    const char *options[] = {qgc_low_int(l, "D", d), qgc_low_float(l, "EPS", qgc_low_attr(n, "eps")),
                             qgc_low_int(l, "THREADS", threads), NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "rms_norm.cu", (int)threads, options));
    qgc_extent groups = qgc_low_times(qgc_low_dim(n->in[0]->shape.dim[0]), qgc_low_width(n->in[0]) / d);
    qgc_low_grid(launch, 0, groups, 1);
    operands(l, launch, n);
    return QGC_OK;
}

int qgc_low_rope_table(qgc_lowering *l, const qgc_node *rope) {
    int64_t head_dim = qgc_low_attr_int(rope, "head_dim");
    const char *dim_option = qgc_low_int(l, "HEAD_DIM", head_dim);
    const char *base_option = qgc_low_double(l, "BASE", qgc_low_attr(rope, "base"));
    bool made;
    int table = qgc_low_table(l, qgc_low_text(l, "rope table %s %s", dim_option, base_option),
                              (qgc_extent){.per_ctx = 4 * head_dim}, &made);
    if (made) {
        const char *options[] = {dim_option, base_option, NULL};
        int kernel = qgc_low_kernel(l, "rope_table.cu", QGC_LOW_THREADS, options);
        qgc_plan_launch *fill = qgc_low_launch(l, QGC_PHASE_INIT, kernel);
        qgc_low_grid(fill, 0, (qgc_extent){.per_ctx = head_dim / 2}, QGC_LOW_THREADS);
        qgc_low_arg_buffer(fill, table, QGC_WRITES);
        qgc_low_arg_i32(fill, (qgc_extent){.per_ctx = 1});
    }
    return table;
}

qgc_status lower_rope(qgc_lowering *l, const qgc_node *n) {
    int64_t head_dim = qgc_low_attr_int(n, "head_dim"), heads = qgc_low_width(n->in[0]) / head_dim;
    int table = qgc_low_rope_table(l, n);
    const char *options[] = {qgc_low_int(l, "HEAD_DIM", head_dim), qgc_low_int(l, "HEADS", heads), NULL};
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
                             qgc_low_type(l, "STATE", n->in[0]->dtype), NULL};
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

/* `parts` is 1 for a whole attention. What it makes goes into `out`. */
static qgc_status attention_kernel(qgc_lowering *l, const qgc_node *n, int64_t parts, const qgc_value *out) {
    const qgc_shape *cache = &n->in[1]->shape;
    int64_t head_dim = cache->dim[2], heads = qgc_low_width(n->in[0]) / head_dim;
    if (head_dim > 512)
        return qgc_fail(l->diag, QGC_ERR_INPUT, n->at,
                        "attention with heads of %lld elements, and its kernel does at most 512",
                        (long long)head_dim);
    int threads = head_dim <= QGC_LOW_THREADS ? QGC_LOW_THREADS : 512;
    const char *options[] = {qgc_low_int(l, "HEAD_DIM", head_dim),
                             qgc_low_int(l, "HEADS", heads),
                             qgc_low_int(l, "KV_HEADS", cache->dim[0]),
                             qgc_low_type(l, "KEYS", n->in[1]->dtype),
                             qgc_low_type(l, "VALUES", n->in[2]->dtype),
                             qgc_low_float(l, "SCALE", qgc_low_attr(n, "scale")),
                             qgc_low_int(l, "THREADS", threads),
                             qgc_low_int(l, "PARTS", parts),
                             NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "attention.cu", threads, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = heads}, 1);
    qgc_low_grid(launch, 1, qgc_low_dim(n->in[0]->shape.dim[0]), 1);
    qgc_low_grid(launch, 2, (qgc_extent){.fixed = parts}, 1);
    launch->position_bytes = position_bytes(n->in[1]) + position_bytes(n->in[2]);
    for (int i = 0; i < n->n_in; i++)
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[i]), QGC_READS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, out), QGC_WRITES);
    qgc_low_arg_i32(launch, (qgc_extent){.per_ctx = 1});
    return QGC_OK;
}

qgc_status lower_attention(qgc_lowering *l, const qgc_node *n) {
    return attention_kernel(l, n, 1, n->out[0]);
}

/* Many tokens fill the card without parts: in prefill an attention_part that goes into an attention_merge and nowhere
 * else is computed whole, by the kernel of the merge. */
static bool is_whole(const qgc_lowering *l, const qgc_node *part) {
    if (l->phase != QGC_PHASE_PREFILL || part->op != QGC_OP_ATTENTION_PART || l->uses[part->out[0]->id] != 1)
        return false;
    for (const qgc_node *n = part->next; n; n = n->next)
        if (n->op == QGC_OP_ATTENTION_MERGE && n->in[0] == part->out[0])
            return true;
    return false;
}

/* PARTS 1 would be a whole attention to the kernel, which has another result. */
qgc_status lower_attention_part(qgc_lowering *l, const qgc_node *n) {
    int64_t parts = qgc_low_attr_int(n, "parts");
    if (is_whole(l, n))
        return QGC_OK;
    if (parts < 2)
        return qgc_fail(l->diag, QGC_ERR_INPUT, n->at,
                        "attention_part with %lld parts, and its kernel takes 2 or more", (long long)parts);
    return attention_kernel(l, n, parts, n->out[0]);
}

qgc_status lower_attention_merge(qgc_lowering *l, const qgc_node *n) {
    if (n->in[0]->maker && is_whole(l, n->in[0]->maker))
        return attention_kernel(l, n->in[0]->maker, 1, n->out[0]);
    int64_t head_dim = qgc_low_attr_int(n, "head_dim"), parts = qgc_low_attr_int(n, "parts");
    const char *options[] = {qgc_low_int(l, "HEADS", qgc_low_width(n->out[0]) / head_dim),
                             qgc_low_int(l, "HEAD_DIM", head_dim), qgc_low_int(l, "PARTS", parts), NULL};
    int kernel = qgc_low_kernel(l, "attention_merge.cu", QGC_LOW_THREADS, options);
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, kernel);
    qgc_low_grid(launch, 0, qgc_low_dim(n->out[0]->shape.dim[0]), 1);
    operands(l, launch, n);
    return QGC_OK;
}

qgc_status lower_select_rows(qgc_lowering *l, const qgc_node *n) {
    const char *options[] = {qgc_low_int(l, "D", qgc_low_width(n->in[0])), NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "select_rows.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, qgc_low_dim(n->out[0]->shape.dim[0]), 1);
    operands(l, launch, n);
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

/* kernels/sample_merge.cu keeps the largest of the stretches in registers, 16 a thread; tokens of a slice as there. */
enum { MERGE_THREADS = 1024, MOST_STRETCHES = 16 * MERGE_THREADS, SLICE = 2048, MERGE_BINS = 1153 };

static int64_t divided(int64_t n, int64_t by) {
    return (n + by - 1) / by;
}

static void sample_part_kernel(qgc_lowering *l, const qgc_value *logits, int seen, int64_t stretch,
                               int parts) {
    int64_t vocab = qgc_low_width(logits);
    const char *options[] = {qgc_low_int(l, "VOCAB", vocab), qgc_low_int(l, "STRETCH", stretch), NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "sample_part.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = divided(vocab, stretch)}, QGC_LOW_THREADS / 32);
    qgc_low_grid(launch, 1, qgc_low_dim(logits->shape.dim[0]), 1);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, logits), QGC_READS);
    qgc_low_arg_buffer(launch, seen, QGC_READS);
    qgc_low_arg_buffer(launch, l->plan->io[QGC_IO_SAMPLING], QGC_READS);
    qgc_low_arg_buffer(launch, parts, QGC_WRITES);
}

/* Where nothing comes behind the choice, its kernel ends the step. */
static bool ends_step(const qgc_lowering *l, const qgc_node *n) {
    return !n->next && n->out[0] == qgc_graph_output(l->graph, "next");
}

/* `rows` is input `rows_at` of the node, positions the one behind it, and seen the one behind that. */
static void sample_merge_kernel(qgc_lowering *l, const qgc_node *n, int rows_at, int64_t stretch, int parts) {
    int64_t vocab = qgc_low_width(n->in[0]);
    bool made;
    int64_t words = MERGE_BINS + divided(vocab, SLICE) + 1; /* bins, sums of slices, count of blocks */
    int sums = qgc_low_table(l, qgc_low_text(l, "sums of sampling %lld", (long long)vocab),
                             (qgc_extent){.fixed = 8 * words}, &made);
    l->ended = ends_step(l, n);
    const char *options[] = {qgc_low_int(l, "VOCAB", vocab), qgc_low_int(l, "STRETCH", stretch),
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

static qgc_status check_stretches(const qgc_lowering *l, const qgc_node *n, int64_t stretch) {
    int64_t vocab = qgc_low_width(n->in[0]);
    if (vocab > 1 << 24)
        return qgc_fail(l->diag, QGC_ERR_INPUT, n->at, "%s over %lld tokens, and its kernels do at most %d",
                        qgc_ops[n->op].name, (long long)vocab, 1 << 24);
    if (divided(vocab, stretch) > MOST_STRETCHES)
        return qgc_fail(
            l->diag, QGC_ERR_INPUT, n->at,
            "%s over %lld stretches, and its kernels do at most %d: a stretch has to be longer than %lld",
            qgc_ops[n->op].name, (long long)divided(vocab, stretch), MOST_STRETCHES, (long long)stretch);
    return QGC_OK;
}

/* Both halves at once. */
qgc_status lower_sample(qgc_lowering *l, const qgc_node *n) {
    const qgc_value *logits = n->in[0];
    int64_t vocab = qgc_low_width(logits), stretch = QGC_STRETCH;
    while (divided(vocab, stretch) > MOST_STRETCHES)
        stretch *= 2;
    QGC_TRY(check_stretches(l, n, stretch));
    qgc_extent bytes = qgc_low_times(qgc_low_dim(logits->shape.dim[0]), 4 * divided(vocab, stretch));
    int parts =
        qgc_low_scratch(l, qgc_low_text(l, "largest of %.200s", qgc_value_label(logits, l->arena)), bytes);
    sample_part_kernel(l, logits, qgc_low_buffer(l, n->in[3]), stretch, parts);
    sample_merge_kernel(l, n, 1, stretch, parts);
    return QGC_OK;
}

/* A stretch may be longer than all. */
static int64_t stretch_of(const qgc_node *n) {
    int64_t stretch = qgc_low_attr_int(n, "stretch"), vocab = qgc_low_width(n->in[0]);
    return stretch < vocab ? stretch : vocab;
}

qgc_status lower_sample_part(qgc_lowering *l, const qgc_node *n) {
    QGC_TRY(check_stretches(l, n, stretch_of(n)));
    sample_part_kernel(l, n->in[0], qgc_low_buffer(l, n->in[1]), stretch_of(n), qgc_low_buffer(l, n->out[0]));
    return QGC_OK;
}

qgc_status lower_sample_merge(qgc_lowering *l, const qgc_node *n) {
    QGC_TRY(check_stretches(l, n, stretch_of(n)));
    sample_merge_kernel(l, n, 2, stretch_of(n), qgc_low_buffer(l, n->in[1]));
    return QGC_OK;
}
