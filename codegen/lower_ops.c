#include "codegen/lower_impl.h"

/* One function for each op: which kernel computes it, and how it is launched. `T` and `R` stay symbols in grids and
 * arguments; everything else is a number that goes into the kernel's options. */

enum { THREADS = 256 };

static const char *const type_names[QGC_N_DTYPES] = {
    [QGC_F32] = "F32", [QGC_F16] = "F16", [QGC_BF16] = "BF16"};

static const char *type_option(qgc_lowering *l, const char *name, qgc_dtype t) {
    return qgc_low_text(l, "-D%s=%s", name, type_names[t]);
}

static const char *int_option(qgc_lowering *l, const char *name, int64_t value) {
    return qgc_low_text(l, "-D%s=%lld", name, (long long)value);
}

static int64_t width(const qgc_value *v) {
    return v->shape.dim[v->shape.rank - 1];
}

static int64_t attr_int(const qgc_node *n, const char *name) {
    return (int64_t)n->attr[qgc_attr_index(n->op, name)].number;
}

static double attr(const qgc_node *n, const char *name) {
    return n->attr[qgc_attr_index(n->op, name)].number;
}

/* Buffers of all inputs, then of the output, as arguments. */
static void operands(qgc_lowering *l, qgc_plan_launch *launch, const qgc_node *n) {
    for (int i = 0; i < n->n_in; i++)
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[i]));
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->out[0]));
}

qgc_status lower_embedding(qgc_lowering *l, const qgc_node *n) {
    qgc_dtype storage = qgc_weight_storage(n->in[1]);
    const char *options[] = {int_option(l, "D", width(n->out[0])), type_option(l, "WEIGHT", storage), NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "embedding.cu", THREADS, options));
    qgc_low_grid(launch, 0, qgc_low_dim(n->out[0]->shape.dim[0]), 1);
    operands(l, launch, n);
    return QGC_OK;
}

qgc_status lower_rms_norm(qgc_lowering *l, const qgc_node *n) {
    int64_t d = width(n->in[1]), threads = d >= THREADS ? THREADS : (d + 31) / 32 * 32;
    if (d > 32 * THREADS)
        return qgc_fail(l->diag, QGC_ERR_INPUT, n->at,
                        "rms_norm over %lld elements, and its kernel does at most %d", (long long)d,
                        32 * THREADS);
    const char *options[] = {int_option(l, "D", d), qgc_low_float(l, "EPS", attr(n, "eps")),
                             int_option(l, "THREADS", threads), NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "rms_norm.cu", (int)threads, options));
    qgc_extent groups = qgc_low_times(qgc_low_dim(n->in[0]->shape.dim[0]), width(n->in[0]) / d);
    qgc_low_grid(launch, 0, groups, 1);
    operands(l, launch, n);
    return QGC_OK;
}

/* The product row by row, in float32: a decode step, and the rows wanted in prefill. */
static void lower_linear_rows(qgc_lowering *l, const qgc_node *n) {
    int64_t in = width(n->in[0]), out = width(n->out[0]);
    /* Few long rows: several warps share one. Many rows: a warp takes several. So each SM has enough loads in
     * flight (measured for 896 x 4864, 4864 x 896 and 151936 x 896 on an H100). */
    int64_t split = out < 4096 ? (in >= 4096 ? 4 : in >= 1024 ? 2 : 1) : 1;
    int64_t rows = out >= 65536 ? 4 : out >= 4096 ? 2 : 1;
    const char *options[] = {int_option(l, "IN", in),
                             int_option(l, "OUT", out),
                             type_option(l, "WEIGHT", qgc_weight_storage(n->in[1])),
                             int_option(l, "BIAS", n->n_in > 2),
                             int_option(l, "ROWS", rows),
                             int_option(l, "SPLIT", split),
                             NULL};
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, qgc_low_kernel(l, "linear.cu", THREADS, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = out}, THREADS / 32 / split * rows);
    qgc_low_grid(launch, 1, qgc_low_dim(n->in[0]->shape.dim[0]), 1);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[0]));
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[1]));
    /* Without a bias the kernel never looks at this argument. */
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[n->n_in > 2 ? 2 : 1]));
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->out[0]));
    launch->weight_bytes = in * out * (int64_t)qgc_dtype_bytes(qgc_weight_storage(n->in[1]), 1);
}

/* The buffer of a value rounded to bf16; made once for all products that read it. */
static int as_bf16(qgc_lowering *l, const qgc_value *v) {
    qgc_dtype from = v->kind == QGC_WEIGHT ? qgc_weight_storage(v) : v->dtype;
    if (from == QGC_BF16)
        return qgc_low_buffer(l, v);
    if (l->bf16_of[v->id] >= 0)
        return l->bf16_of[v->id];
    qgc_extent elems = qgc_low_elems(&v->shape);
    int buffer = qgc_low_scratch(l, qgc_low_text(l, "bf16 of %.200s", qgc_value_label(v, l->arena)),
                                 qgc_low_times(elems, 2));
    const char *options[] = {type_option(l, "FROM", from), NULL};
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, qgc_low_kernel(l, "to_bf16.cu", THREADS, options));
    qgc_low_grid(launch, 0, elems, 4 * THREADS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, v));
    qgc_low_arg_buffer(launch, buffer);
    qgc_low_arg_i32(launch, elems);
    return l->bf16_of[v->id] = buffer;
}

/* The product of matrices, bf16 with float32 sums: all tokens of a prefill step. */
static void lower_linear_gemm(qgc_lowering *l, const qgc_node *n) {
    int x = as_bf16(l, n->in[0]), w = as_bf16(l, n->in[1]), out = qgc_low_buffer(l, n->out[0]);
    qgc_extent rows = qgc_low_dim(n->in[0]->shape.dim[0]);
    if (n->n_in > 2) {
        const char *options[] = {int_option(l, "D", width(n->out[0])), NULL};
        qgc_plan_launch *bias =
            qgc_low_launch(l, l->phase, qgc_low_kernel(l, "bias_rows.cu", THREADS, options));
        qgc_low_grid(bias, 0, (qgc_extent){.fixed = width(n->out[0])}, THREADS);
        qgc_low_grid(bias, 1, rows, 1);
        qgc_low_arg_buffer(bias, qgc_low_buffer(l, n->in[2]));
        qgc_low_arg_buffer(bias, out);
    }
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, -1);
    launch->a = x;
    launch->b = w;
    launch->c = out;
    launch->rows = rows;
    launch->n = width(n->out[0]);
    launch->k = width(n->in[0]);
    launch->accumulate = n->n_in > 2;
    launch->weight_bytes = 2 * launch->n * launch->k;
}

qgc_status lower_linear(qgc_lowering *l, const qgc_node *n) {
    if (l->phase == QGC_PHASE_PREFILL && n->in[0]->shape.dim[0] == QGC_DIM_T)
        lower_linear_gemm(l, n);
    else
        lower_linear_rows(l, n);
    return QGC_OK;
}

qgc_status lower_rope(qgc_lowering *l, const qgc_node *n) {
    int64_t head_dim = attr_int(n, "head_dim"), heads = width(n->in[0]) / head_dim;
    const char *dim_option = int_option(l, "HEAD_DIM", head_dim);
    const char *base_option = qgc_low_double(l, "BASE", attr(n, "base"));
    bool made;
    int table = qgc_low_table(l, qgc_low_text(l, "rope table %s %s", dim_option, base_option),
                              (qgc_extent){.per_ctx = 4 * head_dim}, &made);
    if (made) {
        const char *options[] = {dim_option, base_option, NULL};
        qgc_plan_launch *fill =
            qgc_low_launch(l, QGC_PHASE_INIT, qgc_low_kernel(l, "rope_table.cu", THREADS, options));
        qgc_low_grid(fill, 0, (qgc_extent){.per_ctx = head_dim / 2}, THREADS);
        qgc_low_arg_buffer(fill, table);
        qgc_low_arg_i32(fill, (qgc_extent){.per_ctx = 1});
    }
    const char *options[] = {dim_option, int_option(l, "HEADS", heads), NULL};
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, qgc_low_kernel(l, "rope.cu", THREADS, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = heads * head_dim / 2}, THREADS);
    qgc_low_grid(launch, 1, qgc_low_dim(n->out[0]->shape.dim[0]), 1);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[0]));
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[1]));
    qgc_low_arg_buffer(launch, table);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->out[0]));
    return QGC_OK;
}

qgc_status lower_append(qgc_lowering *l, const qgc_node *n) {
    const qgc_shape *cache = &n->in[0]->shape;
    const char *options[] = {int_option(l, "HEAD_DIM", cache->dim[2]),
                             int_option(l, "KV_HEADS", cache->dim[0]),
                             type_option(l, "STATE", n->in[0]->dtype), NULL};
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, qgc_low_kernel(l, "append.cu", THREADS, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = cache->dim[0] * cache->dim[2]}, THREADS);
    qgc_low_grid(launch, 1, qgc_low_dim(n->in[1]->shape.dim[0]), 1);
    for (int i = 0; i < n->n_in; i++)
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[i]));
    qgc_low_arg_i32(launch, (qgc_extent){.per_ctx = 1});
    return QGC_OK;
}

qgc_status lower_attention(qgc_lowering *l, const qgc_node *n) {
    const qgc_shape *cache = &n->in[1]->shape;
    int64_t head_dim = cache->dim[2], heads = width(n->in[0]) / head_dim;
    if (head_dim > 512)
        return qgc_fail(l->diag, QGC_ERR_INPUT, n->at,
                        "attention with heads of %lld elements, and its kernel does at most 512",
                        (long long)head_dim);
    int threads = head_dim <= THREADS ? THREADS : 512;
    const char *options[] = {
        int_option(l, "HEAD_DIM", head_dim),       int_option(l, "HEADS", heads),
        int_option(l, "KV_HEADS", cache->dim[0]),  type_option(l, "KEYS", n->in[1]->dtype),
        type_option(l, "VALUES", n->in[2]->dtype), qgc_low_float(l, "SCALE", attr(n, "scale")),
        int_option(l, "THREADS", threads),         NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "attention.cu", threads, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = heads}, 1);
    qgc_low_grid(launch, 1, qgc_low_dim(n->in[0]->shape.dim[0]), 1);
    operands(l, launch, n);
    qgc_low_arg_i32(launch, (qgc_extent){.per_ctx = 1});
    return QGC_OK;
}

static qgc_status lower_pointwise(qgc_lowering *l, const qgc_node *n, const char *function) {
    const char *options[] = {function, NULL};
    qgc_extent elems = qgc_low_elems(&n->out[0]->shape);
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "pointwise.cu", THREADS, options));
    qgc_low_grid(launch, 0, elems, THREADS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[0]));
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[n->n_in - 1])); /* of one input, the same again */
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->out[0]));
    qgc_low_arg_i32(launch, elems);
    return QGC_OK;
}

qgc_status lower_add(qgc_lowering *l, const qgc_node *n) {
    return lower_pointwise(l, n, "-DADD");
}
qgc_status lower_mul(qgc_lowering *l, const qgc_node *n) {
    return lower_pointwise(l, n, "-DMUL");
}
qgc_status lower_silu(qgc_lowering *l, const qgc_node *n) {
    return lower_pointwise(l, n, "-DSILU");
}

qgc_status lower_select_rows(qgc_lowering *l, const qgc_node *n) {
    const char *options[] = {int_option(l, "D", width(n->in[0])), NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "select_rows.cu", THREADS, options));
    qgc_low_grid(launch, 0, qgc_low_dim(n->out[0]->shape.dim[0]), 1);
    operands(l, launch, n);
    return QGC_OK;
}

qgc_status lower_mark(qgc_lowering *l, const qgc_node *n) {
    const char *options[] = {NULL};
    qgc_extent tokens = qgc_low_dim(n->in[1]->shape.dim[0]);
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, qgc_low_kernel(l, "mark.cu", THREADS, options));
    qgc_low_grid(launch, 0, tokens, THREADS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[0]));
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[1]));
    qgc_low_arg_i32(launch, tokens);
    return QGC_OK;
}

qgc_status lower_sample(qgc_lowering *l, const qgc_node *n) {
    const char *options[] = {int_option(l, "VOCAB", width(n->in[0])), NULL};
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, qgc_low_kernel(l, "sample.cu", 1024, options));
    qgc_low_grid(launch, 0, qgc_low_dim(n->in[0]->shape.dim[0]), 1);
    for (int i = 0; i < n->n_in; i++)
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[i]));
    qgc_low_arg_buffer(launch, l->plan->io[QGC_IO_SAMPLING]);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->out[0]));
    return QGC_OK;
}
