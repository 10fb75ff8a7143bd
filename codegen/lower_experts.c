#include "codegen/lower_impl.h"

/* Experts: a router chooses some for each token; an item is a token and one of its experts. */

qgc_status qgc_low_route_check(qgc_lowering *l, const qgc_node *route) {
    const int64_t experts = qgc_low_width(route->in[0]), used = qgc_low_width(route->out[0]);
    enum { MOST = QGC_LOW_MOST_EXPERTS, MOST_USED = 32 };
    if (experts <= MOST && used <= MOST_USED)
        return QGC_OK;
    return qgc_fail(l->diag, QGC_ERR_INPUT, route->at,
                    "route chooses %lld of %lld experts, and its kernel at most %d of %d", (long long)used,
                    (long long)experts, MOST_USED, MOST);
}

int qgc_low_route_options(qgc_lowering *l, const qgc_node *route, const char **options) {
    options[0] = qgc_low_int(l, "USED", qgc_low_width(route->out[0]));
    options[1] = qgc_low_int(l, "SCORING", route->attr[qgc_attr_index(route->op, "scoring")].choice);
    options[2] = qgc_low_int(l, "NORMALIZE", qgc_low_attr(route, "normalize") != 0);
    options[3] = qgc_low_float(l, "SCALE", qgc_low_attr(route, "scale"));
    return 4;
}

qgc_status lower_route(qgc_lowering *l, const qgc_node *n) {
    QGC_TRY(qgc_low_route_check(l, n));
    const int64_t experts = qgc_low_width(n->in[0]), whole = (experts + 31) / 32 * 32;
    const int threads = (int)(whole < QGC_LOW_THREADS ? whole : QGC_LOW_THREADS);
    const char *options[8];
    int k = qgc_low_route_options(l, n, options);
    options[k++] = qgc_low_int(l, "EXPERTS", experts);
    options[k++] = qgc_low_int(l, "THREADS", threads);
    options[k++] = qgc_low_int(l, "BIAS", n->n_in > 1);
    options[k] = NULL;
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, qgc_low_kernel(l, "route.cu", threads, options));
    qgc_low_grid(launch, 0, qgc_low_dim(n->in[0]->shape.dim[0]), 1);
    qgc_low_operands(l, launch, n);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->out[1]), QGC_WRITES);
    return QGC_OK;
}

/* --- products token by token ------------------------------------------------------------------------------ */

enum { WARPS = QGC_LOW_THREADS / 32, MOST_OPTIONS = 20 };

/* Options of all kernels of products, and of those that may have a bias. */
static int product_options(qgc_lowering *l, const qgc_node *n, const char **options) {
    const qgc_value *w = n->in[1];
    const int64_t in = w->shape.dim[2];
    int k = 0;
    options[k++] = qgc_low_int(l, "IN", in);
    options[k++] = qgc_low_int(l, "OUT", w->shape.dim[1]);
    options[k++] = qgc_low_type(l, "WEIGHT", qgc_weight_storage(w));
    options[k++] = qgc_low_int(l, "USED", qgc_low_width(n->in[2]));
    options[k++] = qgc_low_int(l, "EACH", qgc_low_width(n->in[0]) != in);
    return k;
}

static const char *bias_option(qgc_lowering *l, const qgc_node *n) {
    return n->n_in > 3 ? qgc_low_text(l, "-DBIAS=1+%s", qgc_low_type_name(qgc_weight_storage(n->in[3])))
                       : "-DBIAS=0";
}

static const int64_t loads[] = {1, 2, 4, 8, 12, 16, 24, 32, 0}, warps[] = {1, 2, 4, 8, 0};

static int64_t setting(qgc_lowering *l, const char *file, const qgc_stage *f, const char *name, int64_t usual,
                       const int64_t *candidates) {
    const qgc_value *w = f->rows[0].linear->in[1];
    const char *kernel =
        qgc_low_text(l, "%s %lld to %dx%lld of %lld, %s", file, (long long)w->shape.dim[2], f->n_rows,
                     (long long)w->shape.dim[1], (long long)qgc_low_width(f->rows[0].linear->in[2]),
                     qgc_dtypes[qgc_weight_storage(w)].name);
    return qgc_low_setting(l, kernel, name, usual, candidates);
}

/* What is made of the rows of a stage. */
typedef struct {
    const qgc_value *result, *inputs[QGC_OUTSIDE_OF_PRODUCTS];
    int n_inputs;
} made;

static int expression_options(qgc_lowering *l, const qgc_stage *f, made *m, const char **options) {
    const qgc_node *last = f->n_pointwise ? f->pointwise[f->n_pointwise - 1]
                           : f->sum       ? f->sum
                                          : f->rows[0].linear;
    m->result = last->out[0];
    options[0] =
        qgc_low_text(l, "-DEXPRESSION=%s", qgc_low_expression(l, f, m->result, m->inputs, &m->n_inputs));
    options[1] = qgc_low_int(l, "INPUTS", m->n_inputs);
    options[2] = qgc_low_int(l, "ONE_A_ROW", qgc_low_one_a_row(m->inputs, m->n_inputs, m->result));
    return 3;
}

static void made_arguments(qgc_lowering *l, const made *m, qgc_plan_launch *launch) {
    qgc_low_outside_arguments(l, launch, m->inputs, m->n_inputs);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, m->result), QGC_WRITES);
}

static int64_t bytes_of_chosen(const qgc_node *n) {
    const qgc_value *w = n->in[1];
    return qgc_weight_bytes(w) / w->shape.dim[0] * qgc_low_width(n->in[2]);
}

/* Each token's experts by themselves: a decode step. */
static void product_by_token(qgc_lowering *l, const qgc_stage *f) {
    const qgc_node *n = f->rows[0].linear;
    const qgc_value *w = n->in[1];
    const int64_t out = w->shape.dim[1], used = qgc_low_width(n->in[2]);
    const int64_t split = setting(l, "expert_linear.cu", f, "SPLIT",
                                  qgc_low_split(w->shape.dim[2], out * used * f->n_rows), warps);
    const char *options[MOST_OPTIONS];
    made m = {0};
    int k = product_options(l, n, options);
    options[k++] = bias_option(l, n);
    k += expression_options(l, f, &m, options + k);
    options[k++] = qgc_low_int(l, "EXPERTS", w->shape.dim[0]);
    options[k++] = qgc_low_int(l, "SPLIT", split);
    options[k++] = qgc_low_int(l, "MATRICES", f->n_rows);
    options[k++] = qgc_low_int(l, "HELD", setting(l, "expert_linear.cu", f, "HELD", 8, loads));
    options[k] = NULL;
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "expert_linear.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = out}, WARPS / split);
    qgc_low_grid(launch, 1, qgc_low_times(qgc_low_dim(n->in[2]->shape.dim[0]), used), 1);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[0]), QGC_READS);
    for (int i = 0; i < 2; i++) {
        const qgc_node *of = f->rows[i < f->n_rows ? i : 0].linear;
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, of->in[1]), i < f->n_rows ? QGC_READS : 0);
        launch->weight_bytes += i < f->n_rows ? bytes_of_chosen(of) : 0;
    }
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[2]), QGC_READS);
    if (n->n_in > 3)
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[3]), QGC_READS);
    made_arguments(l, &m, launch);
}

/* How many warps share the experts of a row, so that loads in flight fill the card: each takes as many of them. */
static int64_t ways_of(int64_t used, int64_t rows) {
    int64_t ways = 1;
    while (2 * ways <= WARPS && used % (2 * ways) == 0 && ways * rows < 2112)
        ways *= 2;
    return ways;
}

/* A token's experts together, and the sum of what they make. */
static void sum_by_token(qgc_lowering *l, const qgc_stage *f) {
    const qgc_node *n = f->rows[0].linear;
    const qgc_value *w = n->in[1];
    const int64_t out = w->shape.dim[1], used = qgc_low_width(n->in[2]);
    int64_t ways = setting(l, "expert_mix.cu", f, "WAYS", ways_of(used, out), warps);
    while (used % ways != 0) /* one that was set for another model */
        ways /= 2;
    const char *options[MOST_OPTIONS];
    made m = {0};
    int k = product_options(l, n, options);
    k += expression_options(l, f, &m, options + k);
    options[k++] = qgc_low_int(l, "EXPERTS", w->shape.dim[0]);
    options[k++] = qgc_low_int(l, "WAYS", ways);
    options[k++] = qgc_low_int(l, "HELD", setting(l, "expert_mix.cu", f, "HELD", 8, loads));
    options[k] = NULL;
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "expert_mix.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = out}, WARPS / ways);
    qgc_low_grid(launch, 1, qgc_low_dim(n->in[2]->shape.dim[0]), 1);
    launch->weight_bytes = bytes_of_chosen(n);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[0]), QGC_READS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, w), QGC_READS | QGC_EARLY);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, n->in[2]), QGC_READS | QGC_EARLY);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, f->sum->in[1]), QGC_READS);
    made_arguments(l, &m, launch);
}

qgc_status qgc_lower_experts(qgc_lowering *l, const qgc_stage *f) {
    if (f->sum)
        sum_by_token(l, f);
    else
        product_by_token(l, f);
    return QGC_OK;
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
    options[k++] = bias_option(l, n);
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
        product_by_token(l, &(qgc_stage){.kind = QGC_STAGE_EXPERTS, .rows = {{.linear = n}}, .n_rows = 1});
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
