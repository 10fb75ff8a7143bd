#include "codegen/lower_impl.h"

/* Experts: a router chooses some for each token; an item is a token and one of its experts. */

qgc_status lower_route(qgc_lowering *l, const qgc_node *n) {
    const int64_t experts = qgc_low_width(n->in[0]), used = qgc_low_width(n->out[0]);
    enum { MOST = QGC_LOW_MOST_EXPERTS, MOST_USED = 32 };
    if (experts > MOST || used > MOST_USED)
        return qgc_fail(l->diag, QGC_ERR_INPUT, n->at,
                        "route chooses %lld of %lld experts, and its kernel at most %d of %d",
                        (long long)used, (long long)experts, MOST_USED, MOST);
    const char *options[] = {qgc_low_int(l, "EXPERTS", experts),
                             qgc_low_int(l, "USED", used),
                             qgc_low_int(l, "SCORING", n->attr[qgc_attr_index(n->op, "scoring")].choice),
                             qgc_low_int(l, "NORMALIZE", qgc_low_attr(n, "normalize") != 0),
                             qgc_low_float(l, "SCALE", qgc_low_attr(n, "scale")),
                             qgc_low_int(l, "BIAS", n->n_in > 1),
                             NULL};
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, qgc_low_kernel(l, "route.cu", 32, options));
    qgc_low_grid(launch, 0, qgc_low_dim(n->in[0]->shape.dim[0]), 1);
    qgc_low_operands(l, launch, n);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->out[1]), QGC_WRITES);
    return QGC_OK;
}

/* --- products token by token ------------------------------------------------------------------------------ */

/* Options of both kernels of products. */
static int product_options(qgc_lowering *l, const qgc_node *n, const char **options) {
    const qgc_value *w = n->in[1];
    const int64_t in = w->shape.dim[2];
    int k = 0;
    options[k++] = qgc_low_int(l, "IN", in);
    options[k++] = qgc_low_int(l, "OUT", w->shape.dim[1]);
    options[k++] = qgc_low_type(l, "WEIGHT", qgc_weight_storage(w));
    options[k++] = qgc_low_int(l, "USED", qgc_low_width(n->in[2]));
    options[k++] = qgc_low_int(l, "EACH", qgc_low_width(n->in[0]) != in);
    options[k++] = n->n_in > 3
                       ? qgc_low_text(l, "-DBIAS=1+%s", qgc_low_type_name(qgc_weight_storage(n->in[3])))
                       : "-DBIAS=0";
    return k;
}

/* Each token's experts by themselves: a decode step. */
static void product_by_token(qgc_lowering *l, const qgc_node *n) {
    const qgc_value *w = n->in[1];
    const int64_t out = w->shape.dim[1], used = qgc_low_width(n->in[2]);
    const int64_t split = qgc_low_split(w->shape.dim[2], out * used);
    const char *options[9];
    int k = product_options(l, n, options);
    options[k++] = qgc_low_int(l, "EXPERTS", w->shape.dim[0]);
    options[k++] = qgc_low_int(l, "SPLIT", split);
    options[k] = NULL;
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "expert_linear.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = out}, QGC_LOW_THREADS / 32 / split);
    qgc_low_grid(launch, 1, qgc_low_times(qgc_low_dim(n->in[2]->shape.dim[0]), used), 1);
    launch->weight_bytes = qgc_weight_bytes(w) / w->shape.dim[0] * used;
    qgc_low_operands(l, launch, n);
}

/* --- products expert by expert ---------------------------------------------------------------------------- */

/* How many items of an expert a block multiplies at once: nearly as many as one has on average in a full chunk. */
static int tile_of(const qgc_lowering *l, int64_t used, int64_t experts) {
    const int64_t mean = l->plan->chunk * used / experts;
    return mean >= 64 ? 64 : mean >= 32 ? 32 : 16;
}

/* Items in the order of their experts, and their tiles: buffers that all products of the same choice read. */
static qgc_item_order order_of(qgc_lowering *l, const qgc_value *ids, int64_t experts) {
    qgc_item_order *o = &l->order_of[ids->id];
    if (o->made)
        return *o;
    const char *label = qgc_value_label(ids, l->arena);
    const int64_t used = qgc_low_width(ids), threads = (experts + 31) / 32 * 32;
    const qgc_extent items = qgc_low_times(qgc_low_dim(ids->shape.dim[0]), used);
    /* no tile is empty, and all of an expert's are full but the last one */
    qgc_extent words = qgc_low_times(items, 3);
    words.fixed = 1;
    *o = (qgc_item_order){
        .made = true,
        .order = qgc_low_scratch(l, qgc_low_text(l, "order of %s", label), qgc_low_times(items, 4)),
        .tiles = qgc_low_scratch(l, qgc_low_text(l, "tiles of %s", label), qgc_low_times(words, 4))};
    const char *options[] = {qgc_low_int(l, "EXPERTS", experts),
                             qgc_low_int(l, "TILE", tile_of(l, used, experts)),
                             qgc_low_int(l, "THREADS", threads), NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "expert_order.cu", (int)threads, options));
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, ids), QGC_READS);
    qgc_low_arg_buffer(launch, o->order, QGC_WRITES);
    qgc_low_arg_buffer(launch, o->tiles, QGC_WRITES);
    qgc_low_arg_i32(launch, items);
    return *o;
}

/* All tokens of an expert at once: a prefill step. */
static void product_by_expert(qgc_lowering *l, const qgc_node *n) {
    enum { ROWS = 64 };
    const qgc_value *w = n->in[1];
    const int64_t experts = w->shape.dim[0], used = qgc_low_width(n->in[2]);
    const int tile = tile_of(l, used, experts);
    const qgc_item_order o = order_of(l, n->in[2], experts);
    const char *options[8];
    int k = product_options(l, n, options);
    options[k++] = qgc_low_int(l, "TILE", tile);
    options[k] = NULL;
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "expert_tiles.cu", 2 * tile, options));
    qgc_extent tiles = qgc_low_times(qgc_low_dim(n->in[2]->shape.dim[0]), used);
    tiles.fixed = tile * experts; /* the last tile of each expert may be nearly empty */
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = w->shape.dim[1]}, ROWS);
    qgc_low_grid(launch, 1, tiles, tile);
    launch->weight_bytes = qgc_weight_bytes(w);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[0]), QGC_READS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, w), QGC_READS);
    qgc_low_arg_buffer(launch, o.order, QGC_READS);
    qgc_low_arg_buffer(launch, o.tiles, QGC_READS);
    if (n->n_in > 3)
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[3]), QGC_READS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->out[0]), QGC_WRITES);
}

qgc_status lower_expert_linear(qgc_lowering *l, const qgc_node *n) {
    const int64_t experts = n->in[1]->shape.dim[0];
    if (n->n_in > 3 && qgc_dtype_is_quantised(n->in[3]->dtype))
        return qgc_fail(l->diag, QGC_ERR_INPUT, n->at, "bias \"%s\" of expert_linear is stored in blocks",
                        qgc_value_label(n->in[3], l->arena));
    const bool has_tensor_cores = l->least_arch == 0 || l->least_arch >= 80;
    if (qgc_phase_is_prefill(l->phase) && has_tensor_cores && experts <= QGC_LOW_MOST_EXPERTS)
        product_by_expert(l, n);
    else
        product_by_token(l, n);
    return QGC_OK;
}

qgc_status lower_expert_sum(qgc_lowering *l, const qgc_node *n) {
    const int64_t d = qgc_low_width(n->out[0]);
    const char *options[] = {qgc_low_int(l, "D", d), qgc_low_int(l, "USED", qgc_low_width(n->in[1])), NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "expert_sum.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = d}, QGC_LOW_THREADS);
    qgc_low_grid(launch, 1, qgc_low_dim(n->out[0]->shape.dim[0]), 1);
    qgc_low_operands(l, launch, n);
    return QGC_OK;
}
