/* Kernels that are composed: pointwise expressions, and products of matrices with one vector a token together with what
 * comes before and after them. A node by itself is a group of one. */

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "codegen/lower_impl.h"
#include "graph/base/str.h"

enum { MAX_INPUTS = 6, WARPS = QGC_LOW_THREADS / 32, HELD = 4 };

/* --- pointwise expressions ------------------------------------------------------------------------------- */

/* What a kernel calls each value: l0 is the first product, a0 the first outside value, a result its expression. */
typedef struct {
    qgc_lowering *l;
    const qgc_stage *f;
    const qgc_value *inputs[MAX_INPUTS];
    int n_inputs;
} expression;

static const qgc_node *pointwise_maker(const qgc_stage *f, const qgc_value *v) {
    for (int i = 0; i < f->n_pointwise; i++)
        if (f->pointwise[i]->out[0] == v)
            return f->pointwise[i];
    return NULL;
}

static int input_index(expression *e, const qgc_value *v) {
    for (int i = 0; i < e->n_inputs; i++)
        if (e->inputs[i] == v)
            return i;
    e->inputs[e->n_inputs] = v;
    return e->n_inputs++;
}

/* Appends the text of a value; its depth is that of the group, at most QGC_MAX_POINTWISE. */
static void write_value(expression *e, const qgc_value *v, qgc_str *text) { // NOLINT(misc-no-recursion)
    for (int i = 0; i < e->f->n_rows; i++)
        if (e->f->rows[i].linear->out[0] == v) {
            qgc_str_printf(text, "l%d", i);
            return;
        }
    const qgc_node *first = e->f->sum ? e->f->sum : e->f->kind == QGC_STAGE_POINTWISE ? e->f->norm : NULL;
    if (first && first->out[0] == v) {
        qgc_str_add(text, "l0");
        return;
    }
    const qgc_node *maker = pointwise_maker(e->f, v);
    if (!maker) {
        qgc_str_printf(text, "a%d", input_index(e, v));
        return;
    }
    const qgc_attr_spec *attrs = qgc_ops[maker->op].attrs;
    qgc_str_printf(text, "op_%s", qgc_ops[maker->op].name);
    for (int i = 0; attrs[i].name; i++)
        if (attrs[i].choices[0])
            qgc_str_printf(text, "_%s", attrs[i].choices[maker->attr[i].choice]);
    for (int i = 0; i < maker->n_in; i++) {
        qgc_str_add(text, i ? "," : "(");
        write_value(e, maker->in[i], text);
    }
    for (int i = 0; attrs[i].name; i++)
        if (!attrs[i].choices[0])
            qgc_str_printf(text, ",%s", qgc_low_float_text(e->l, maker->attr[i].number));
    qgc_str_add(text, ")");
}

const char *qgc_low_expression(qgc_lowering *l, const qgc_stage *f, const qgc_value *result,
                               const qgc_value **inputs, int *n) {
    expression e = {.l = l, .f = f};
    qgc_str text = qgc_str_new(l->arena);
    write_value(&e, result, &text);
    for (int i = 0; i < e.n_inputs; i++)
        inputs[i] = e.inputs[i];
    *n = e.n_inputs;
    return text.text;
}

static const char *expression_option(expression *e, const qgc_value *result) {
    return qgc_arena_printf(e->l->arena, "-DEXPRESSION=%s",
                            qgc_low_expression(e->l, e->f, result, e->inputs, &e->n_inputs));
}

int qgc_low_one_a_row(const qgc_value *const *inputs, int n, const qgc_value *result) {
    int bits = 0;
    for (int i = 0; i < n; i++)
        bits |= qgc_is_one_a_row(&inputs[i]->shape, &result->shape) ? 1 << i : 0;
    return bits;
}

void qgc_low_outside_arguments(qgc_lowering *l, qgc_plan_launch *launch, const qgc_value *const *inputs,
                               int n) {
    for (int i = 0; i < QGC_OUTSIDE_OF_PRODUCTS; i++)
        if (i < n)
            qgc_low_arg_buffer(launch, qgc_low_buffer(l, inputs[i]), QGC_READS);
        else /* never looked at */
            qgc_low_arg_buffer(launch, launch->args[0].buffer, 0);
}

static qgc_status lower_normed_pointwise(qgc_lowering *l, const qgc_stage *f) {
    const qgc_value *inputs[MAX_INPUTS];
    qgc_normed then = {.inputs = inputs, .result = f->pointwise[f->n_pointwise - 1]->out[0]};
    then.expression = qgc_low_expression(l, f, then.result, inputs, &then.n_inputs);
    return qgc_low_norm(l, f->norm, &then);
}

static qgc_status lower_pointwise(qgc_lowering *l, const qgc_stage *f) {
    const qgc_value *out = f->pointwise[f->n_pointwise - 1]->out[0];
    if (f->norm)
        return lower_normed_pointwise(l, f);
    expression e = {.l = l, .f = f};
    const char *text = expression_option(&e, out);
    const char *options[5] = {text, qgc_low_int(l, "INPUTS", e.n_inputs)};
    const int one_a_row = qgc_low_one_a_row(e.inputs, e.n_inputs, out);
    if (one_a_row) {
        options[2] = qgc_low_int(l, "ONE_A_ROW", one_a_row);
        options[3] = qgc_low_int(l, "WIDTH", qgc_low_width(out));
    }
    qgc_extent elems = qgc_low_elems(&out->shape);
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "pointwise.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, elems, QGC_LOW_THREADS);
    for (int i = 0; i < MAX_INPUTS; i++) /* those that are not there are never looked at */
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, e.inputs[i < e.n_inputs ? i : 0]),
                           i < e.n_inputs ? QGC_READS : 0);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, out), QGC_WRITES);
    qgc_low_arg_i32(launch, elems);
    return QGC_OK;
}

/* --- products -------------------------------------------------------------------------------------------- */

/* How many warps share a row, so that the loads in flight fill the card (about 16 warps on each of some 130
 * multiprocessors), as long as each of their lanes has something to load. */
int64_t qgc_low_split(int64_t in, int64_t warps) {
    int64_t split = 1;
    while (split < WARPS && warps * split < 2112 && in >= 768 * split)
        split *= 2;
    return split;
}

/* Are the matrices of more than one type? */
static bool is_mixed(const qgc_stage *f) {
    for (int i = 1; i < f->n_rows; i++)
        if (qgc_weight_storage(f->rows[i].linear->in[1]) != qgc_weight_storage(f->rows[0].linear->in[1]))
            return true;
    return false;
}

/* Is the norm before the products a layer_norm? */
static bool is_centred(const qgc_stage *f) {
    return f->norm->op == QGC_OP_LAYER_NORM;
}

/* The name under which a kernel of products is tuned. */
static const char *name_of(qgc_lowering *l, const char *file, const qgc_stage *f) {
    const qgc_node *linear = f->rows[0].linear;
    qgc_str text = qgc_str_new(l->arena);
    qgc_str_printf(&text, "%s %lld to", file, (long long)qgc_low_width(linear->in[0]));
    for (int i = 0; i < f->n_rows; i++)
        qgc_str_printf(&text, "%s%lld", i ? "+" : " ", (long long)qgc_low_width(f->rows[i].linear->out[0]));
    for (int i = 0; i < (is_mixed(f) ? f->n_rows : 1); i++)
        qgc_str_printf(&text, "%s%s", i ? "+" : ", ",
                       qgc_dtypes[qgc_weight_storage(f->rows[i].linear->in[1])].name);
    qgc_str_printf(&text, "%s%s",
                   f->norm    ? (is_centred(f) ? ", layer_norm" : ", norm")
                   : f->merge ? ", merge"
                              : "",
                   f->part ? ", part" : "");
    return text.text;
}

static int64_t setting(qgc_lowering *l, const char *file, const qgc_stage *f, const char *name,
                       int64_t usual) {
    static const int64_t few[] = {1, 2, 4, 8, 0};
    return qgc_low_setting(l, name_of(l, file, f), name, usual, few);
}

/* The type of all matrices, or of each. */
static int weight_options(qgc_lowering *l, const qgc_stage *f, const char **options) {
    if (!is_mixed(f)) {
        options[0] = qgc_low_type(l, "WEIGHT", qgc_weight_storage(f->rows[0].linear->in[1]));
        return 1;
    }
    for (int i = 0; i < QGC_MAX_LINEARS; i++)
        options[i] =
            qgc_low_text(l, "-DWEIGHT%d=%s", i,
                         qgc_low_type_name(qgc_weight_storage(f->rows[i < f->n_rows ? i : 0].linear->in[1])));
    return QGC_MAX_LINEARS;
}

/* The options of kernels/rows.cuh. */
static int core_options(qgc_lowering *l, const qgc_stage *f, int64_t split, const char **options) {
    const qgc_node *linear = f->rows[0].linear;
    int n = 0;
    options[n++] = qgc_low_int(l, "IN", qgc_low_width(linear->in[0]));
    n += weight_options(l, f, options + n);
    options[n++] = qgc_low_int(l, "BIAS", linear->n_in > 2);
    options[n++] = qgc_low_int(l, "MATRICES", f->n_rows);
    options[n++] = qgc_low_int(l, "SPLIT", split);
    if (f->merge) {
        int64_t head_dim = qgc_low_attr_int(f->merge, "head_dim");
        options[n++] = qgc_low_int(l, "MERGE", qgc_low_attr_int(f->merge, "parts"));
        options[n++] = qgc_low_int(l, "MERGE_HEADS", qgc_low_width(f->merge->out[0]) / head_dim);
    }
    if (f->embedding)
        options[n++] = qgc_low_text(
            l, "-DEMBED=1+%s", strchr(qgc_low_type(l, "", qgc_weight_storage(f->embedding->in[1])), '=') + 1);
    if (f->norm) {
        options[n++] = qgc_low_int(l, "NORM", is_centred(f) ? 2 : 1);
        options[n++] = qgc_low_float(l, "EPS", qgc_low_attr(f->norm, "eps"));
        if (f->norm->n_in > 2)
            options[n++] = qgc_low_int(l, "NORM_BIAS", 1);
    }
    return n;
}

/* What a kernel does with its matrices: it loads the beginnings of rows early, where they start at multiples of 16
 * bytes and all have one type (early_rows of kernels/rows.cuh). */
static int matrix_access(const qgc_stage *f) {
    return qgc_low_width(f->rows[0].linear->in[1]) % 8 == 0 && !is_mixed(f) ? QGC_READS | QGC_EARLY
                                                                            : QGC_READS;
}

/* The arguments that both kernels of products begin with: x, norm, four weights, four biases. What is not there is
 * never looked at, and x takes its place. Of an embedding x is made here, and not read. */
static void core_arguments(qgc_lowering *l, const qgc_stage *f, qgc_plan_launch *launch) {
    const qgc_value *x = f->norm ? f->norm->in[0] : f->merge ? f->merge->in[0] : f->rows[0].linear->in[0];
    int nothing = qgc_low_buffer(l, x);
    qgc_low_arg_buffer(launch, nothing, f->embedding ? QGC_WRITES : QGC_READS);
    if (f->norm)
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, f->norm->in[1]), QGC_READS);
    else
        qgc_low_arg_buffer(launch, nothing, 0);
    for (int k = 1; k <= 2; k++)
        for (int i = 0; i < QGC_MAX_LINEARS; i++) {
            const qgc_value *w =
                i < f->n_rows && k < f->rows[i].linear->n_in ? f->rows[i].linear->in[k] : NULL;
            const int access = !w ? 0 : k == 1 ? matrix_access(f) : QGC_READS;
            qgc_low_arg_buffer(launch, w ? qgc_low_buffer(l, w) : nothing, access);
        }
    for (int i = 0; i < f->n_rows; i++)
        launch->weight_bytes += qgc_weight_bytes(f->rows[i].linear->in[1]);
}

/* Counts of blocks, zero at first as their kernels leave them (kernels/last.cuh): one for each token of a step. */
static int counts_of_steps(qgc_lowering *l, const char *name, int64_t each) {
    bool made;
    const int64_t n = each * (l->sizes.tokens > l->sizes.rows ? l->sizes.tokens : l->sizes.rows);
    return qgc_low_table(l, qgc_low_text(l, "counts of %s %lld", name, (long long)n),
                         (qgc_extent){.fixed = 4 * n}, &made);
}

/* The normalized vector, which is left for the experts, what a route reads and makes, and the count of blocks that are done. */
static void route_arguments(qgc_lowering *l, const qgc_stage *f, qgc_plan_launch *launch) {
    const qgc_node *r = f->route;
    const int nothing = launch->args[0].buffer;
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, f->norm->out[0]), QGC_WRITES);
    qgc_low_arg_buffer(launch, r->n_in > 1 ? qgc_low_buffer(l, r->in[1]) : nothing,
                       r->n_in > 1 ? QGC_READS : 0);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, r->out[0]), QGC_WRITES);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, r->out[1]), QGC_WRITES);
    qgc_low_arg_buffer(launch, counts_of_steps(l, "routes", 1), QGC_READS | QGC_WRITES);
}

/* The arguments after all others: tokens and table of an embedding; the bias of a layer_norm; what a sample_part or a route reads and
 * makes. */
static void last_arguments(qgc_lowering *l, const qgc_stage *f, qgc_plan_launch *launch) {
    if (f->embedding)
        for (int i = 0; i < 2; i++)
            qgc_low_arg_buffer(launch, qgc_low_buffer(l, f->embedding->in[i]), QGC_READS);
    if (f->norm && f->norm->n_in > 2)
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, f->norm->in[2]), QGC_READS);
    if (f->part) {
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, f->part->in[1]), QGC_READS);
        qgc_low_arg_buffer(launch, l->plan->io[QGC_IO_SAMPLING], QGC_READS);
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, f->part->out[0]), QGC_WRITES);
    }
    if (f->route)
        route_arguments(l, f, launch);
}

/* Loads of a warp that are under way before the vector is there: more where a merge takes long, for which parts of long vectors were
 * measured. */
static int64_t held_of(const qgc_stage *f, int64_t in) {
    enum { LONG = 4096 };
    return f->merge && in >= LONG ? 2 * HELD : HELD;
}

/* kernels/linear.cu: the rows of all matrices meet in one expression. */
static qgc_status lower_rows(qgc_lowering *l, const qgc_stage *f) {
    const qgc_node *linear = f->rows[0].linear;
    const qgc_value *result = f->n_pointwise ? f->pointwise[f->n_pointwise - 1]->out[0] : linear->out[0];
    int64_t in = qgc_low_width(linear->in[0]), out = qgc_low_width(result);
    int64_t rows = out >= 65536 ? 4 : out >= 4096 && f->n_rows == 1 ? 2 : 1;
    int64_t split = 1;
    if (f->part) /* a block has the rows of a chunk */
        rows = QGC_SAMPLE_CHUNK / WARPS;
    else {
        rows = setting(l, "linear.cu", f, "ROWS", rows);
        split = setting(l, "linear.cu", f, "SPLIT", qgc_low_split(in, out * f->n_rows / rows));
    }
    expression e = {.l = l, .f = f};
    const char *options[32];
    int n = core_options(l, f, split, options);
    options[n++] = qgc_low_int(l, "OUT", out);
    options[n++] = qgc_low_int(l, "ROWS", rows);
    options[n++] = qgc_low_int(l, "HELD", setting(l, "linear.cu", f, "HELD", held_of(f, in)));
    options[n++] = expression_option(&e, result);
    options[n++] = qgc_low_int(l, "INPUTS", e.n_inputs);
    const int one_a_row = qgc_low_one_a_row(e.inputs, e.n_inputs, result);
    if (one_a_row)
        options[n++] = qgc_low_int(l, "ONE_A_ROW", one_a_row);
    if (f->part)
        options[n++] = qgc_low_int(l, "LARGEST", 1);
    if (f->route) {
        QGC_TRY(qgc_low_route_check(l, f->route));
        options[n++] = qgc_low_int(l, "ROUTE", f->route->n_in > 1 ? 2 : 1);
        n += qgc_low_route_options(l, f->route, options + n);
    }
    options[n] = NULL;

    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "linear.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = out}, WARPS / split * rows);
    qgc_low_grid(launch, 1, qgc_low_dim(linear->in[0]->shape.dim[0]), 1);
    core_arguments(l, f, launch);
    qgc_low_outside_arguments(l, launch, e.inputs, e.n_inputs);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, result), f->route ? QGC_READS | QGC_WRITES : QGC_WRITES);
    last_arguments(l, f, launch);
    return QGC_OK;
}

/* The value that the kernel leaves of one of its products. */
static const qgc_value *result_of(const qgc_stage_row *row) {
    const qgc_node *last = row->append ? row->append
                           : row->rope ? row->rope
                           : row->norm ? row->norm
                                       : row->linear;
    return last->out[0];
}

static const qgc_value *positions_of(const qgc_stage *f) {
    for (int i = 0; i < f->n_rows; i++) {
        if (f->rows[i].rope)
            return f->rows[i].rope->in[1];
        if (f->rows[i].append)
            return f->rows[i].append->in[2];
    }
    return NULL;
}

/* Elements of a head: those of its ropes and caches agree. */
static int64_t head_dim_of(const qgc_stage *f) {
    for (int i = 0; i < f->n_rows; i++) {
        if (f->rows[i].rope)
            return qgc_low_attr_int(f->rows[i].rope, "head_dim");
        if (f->rows[i].append)
            return f->rows[i].append->in[0]->shape.dim[2];
        if (f->rows[i].norm)
            return qgc_low_width(f->rows[i].norm->in[1]);
    }
    return 2;
}

/* One of the ropes, which are alike, or NULL. */
static const qgc_node *rope_of(const qgc_stage *f) {
    for (int i = 0; i < f->n_rows; i++)
        if (f->rows[i].rope)
            return f->rows[i].rope;
    return NULL;
}

/* The matrices of kernels/heads.cuh. */
static int heads_options(qgc_lowering *l, const qgc_stage *f, const char **options) {
    const qgc_node *rope = rope_of(f);
    const char *kept = NULL; /* the same for all: stage.c */
    int n = rope ? qgc_low_rope_options(l, rope, options) : 0;
    for (int i = 0; i < f->n_rows; i++) {
        const qgc_stage_row *row = &f->rows[i];
        const char *cache = row->append ? qgc_low_type(l, "", row->append->in[0]->dtype) : NULL;
        options[n++] = qgc_low_text(l, "-DOUT%d=%lld", i, (long long)qgc_low_width(row->linear->out[0]));
        options[n++] = qgc_low_text(l, "-DROPE%d=%d", i, row->rope != NULL);
        options[n++] = cache ? qgc_low_text(l, "-DCACHE%d=1+%s", i, strchr(cache, '=') + 1)
                             : qgc_low_text(l, "-DCACHE%d=0", i);
        kept = kept || !row->append ? kept : qgc_low_kept(l, row->append->in[0]);
    }
    if (kept)
        options[n++] = kept;
    return n;
}

/* The arguments after the core's and, for a norm of heads, its weights. */
static void heads_arguments(qgc_lowering *l, const qgc_stage *f, qgc_plan_launch *launch) {
    const qgc_node *rope = rope_of(f);
    const int table = rope ? qgc_low_rope_table(l, rope) : -1;
    const qgc_value *positions = positions_of(f);
    /* without ropes and caches nobody asks for positions */
    qgc_low_arg_buffer(launch, positions ? qgc_low_buffer(l, positions) : l->plan->io[QGC_IO_POSITIONS],
                       positions ? QGC_READS : 0);
    qgc_low_arg_buffer(launch, table >= 0 ? table : launch->args[0].buffer, table >= 0 ? QGC_READS : 0);
    for (int i = 0; i < QGC_MAX_LINEARS; i++)
        if (i < f->n_rows)
            qgc_low_arg_buffer(launch, qgc_low_buffer(l, result_of(&f->rows[i])), QGC_WRITES);
        else
            qgc_low_arg_buffer(launch, launch->args[0].buffer, 0);
    qgc_low_arg_i32(launch, (qgc_extent){.per_ctx = 1});
    last_arguments(l, f, launch);
}

/* kernels/linear_heads.cu: each matrix's rows go their own way. */
static qgc_status lower_heads(qgc_lowering *l, const qgc_stage *f) {
    const qgc_node *linear = f->rows[0].linear;
    int64_t pairs = 0;
    for (int i = 0; i < f->n_rows; i++)
        pairs += qgc_low_width(f->rows[i].linear->out[0]) / 2;
    int64_t split =
        setting(l, "linear_heads.cu", f, "SPLIT", qgc_low_split(qgc_low_width(linear->in[0]), pairs));
    const char *options[32];
    int n = core_options(l, f, split, options);
    options[n++] = qgc_low_int(l, "HEAD_DIM", head_dim_of(f));
    options[n++] = qgc_low_int(l, "HELD", setting(l, "linear_heads.cu", f, "HELD", HELD));
    options[n + heads_options(l, f, options + n)] = NULL;
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "linear_heads.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = pairs}, WARPS / split);
    qgc_low_grid(launch, 1, qgc_low_dim(linear->in[0]->shape.dim[0]), 1);
    core_arguments(l, f, launch);
    heads_arguments(l, f, launch);
    return QGC_OK;
}

/* The norm of a row of the group, or NULL; is it over all of the product? */
static const qgc_node *row_norm(const qgc_stage *f) {
    for (int i = 0; i < f->n_rows; i++)
        if (f->rows[i].norm)
            return f->rows[i].norm;
    return NULL;
}

static bool has_whole_norm(const qgc_stage *f) {
    for (int i = 0; i < f->n_rows; i++)
        if (f->rows[i].norm && qgc_low_width(f->rows[i].norm->in[1]) == qgc_low_width(f->rows[i].norm->in[0]))
            return true;
    return false;
}

/* How many blocks share a head in a decode step: several where heads are too few for the multiprocessors, as long as each of a block's
 * 8 warps has a pair of rows. */
static int64_t slices_of(qgc_lowering *l, const qgc_stage *f, int64_t heads) {
    const int64_t half = head_dim_of(f) / 2;
    int64_t slices = 1;
    if (l->phase != QGC_PHASE_DECODE || half > QGC_LOW_THREADS)
        return 1;
    while (heads * slices < l->sms && half % (2 * slices * WARPS) == 0)
        slices *= 2;
    slices = setting(l, "linear_head_norm.cu", f, "SLICES", slices);
    while (half % slices != 0)
        slices /= 2;
    return slices;
}

static int64_t heads_of(const qgc_stage *f) {
    int64_t heads = 0;
    for (int i = 0; i < f->n_rows; i++)
        heads += qgc_low_width(f->rows[i].linear->out[0]) / head_dim_of(f);
    return heads;
}

/* kernels/linear_head_norm.cu: a block, or several, has a head and norms it. */
static qgc_status lower_normed_heads(qgc_lowering *l, const qgc_stage *f) {
    const qgc_node *linear = f->rows[0].linear;
    const char *options[48];
    const int64_t heads = heads_of(f), tokens = l->sizes.tokens;
    const int64_t slices = slices_of(l, f, heads);
    const int threads = slices > 1 ? QGC_LOW_THREADS : 2 * QGC_LOW_THREADS;
    int n = core_options(l, f, 1, options);
    options[n++] = qgc_low_int(l, "THREADS", threads);
    options[n++] = qgc_low_int(l, "SLICES", slices);
    options[n++] = qgc_low_int(l, "HEAD_DIM", head_dim_of(f));
    options[n++] = qgc_low_int(l, "HELD", setting(l, "linear_head_norm.cu", f, "HELD", 8));
    options[n++] = qgc_low_float(l, "HEAD_EPS", qgc_low_attr(row_norm(f), "eps"));
    for (int i = 0; i < f->n_rows; i++)
        options[n++] = qgc_low_text(l, "-DNORM%d=%d", i, f->rows[i].norm != NULL);
    options[n + heads_options(l, f, options + n)] = NULL;
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "linear_head_norm.cu", threads, options));
    qgc_low_grid(launch, 0, (qgc_extent){.fixed = heads * slices}, 1);
    qgc_low_grid(launch, 1, qgc_low_dim(linear->in[0]->shape.dim[0]), 1);
    core_arguments(l, f, launch);
    for (int i = 0; i < QGC_MAX_LINEARS; i++) {
        const qgc_node *norm = i < f->n_rows ? f->rows[i].norm : NULL;
        qgc_low_arg_buffer(launch, norm ? qgc_low_buffer(l, norm->in[1]) : launch->args[0].buffer,
                           norm ? QGC_READS : 0);
    }
    heads_arguments(l, f, launch);
    if (slices == 1)
        return QGC_OK;
    const qgc_extent bytes = {.fixed = 4 * tokens * heads * head_dim_of(f)};
    const char *label = qgc_value_label(linear->out[0], l->arena);
    qgc_low_arg_buffer(launch, qgc_low_scratch(l, qgc_low_text(l, "sums of %s", label), bytes),
                       QGC_READS | QGC_WRITES);
    qgc_low_arg_buffer(launch, counts_of_steps(l, "heads", heads), QGC_READS | QGC_WRITES);
    return QGC_OK;
}

/* A norm over all of a product needs every row of it, and so a launch of its own: the products, then each row's nodes one by one. */
static qgc_status lower_apart(qgc_lowering *l, const qgc_stage *f) {
    const qgc_node *before = l->node;
    qgc_stage products = *f;
    for (int i = 0; i < f->n_rows; i++)
        products.rows[i] = (qgc_stage_row){.linear = f->rows[i].linear};
    QGC_TRY(f->n_rows > 1 ? lower_heads(l, &products) : lower_rows(l, &products));
    for (int i = 0; i < f->n_rows; i++) {
        const qgc_node *const nodes[] = {f->rows[i].norm, f->rows[i].rope, f->rows[i].append};
        qgc_lower_fn *const fns[] = {lower_rms_norm, lower_rope, lower_append};
        for (int k = 0; k < 3; k++)
            if (nodes[k]) {
                l->node = nodes[k];
                QGC_TRY(fns[k](l, nodes[k]));
            }
    }
    l->node = before;
    return QGC_OK;
}

static bool rows_go_their_own_way(const qgc_stage *f) {
    for (int i = 0; i < f->n_rows; i++)
        if (f->rows[i].norm || f->rows[i].rope || f->rows[i].append)
            return true;
    return f->n_rows > 1 && f->n_pointwise == 0;
}

qgc_status qgc_lower_stage(qgc_lowering *l, const qgc_stage *f, const char *name) {
    size_t before = l->plan->phases[l->phase].n_launches;
    if (rope_of(f))
        QGC_TRY(qgc_low_rope_check(l, rope_of(f)));
    if (f->kind == QGC_STAGE_OUTSIDE)
        QGC_TRY(qgc_lower_outside(l, f->outside));
    else if (f->kind == QGC_STAGE_POINTWISE)
        QGC_TRY(lower_pointwise(l, f));
    else if (f->kind == QGC_STAGE_EXPERTS)
        QGC_TRY(qgc_lower_experts(l, f));
    else if (has_whole_norm(f))
        QGC_TRY(lower_apart(l, f));
    else if (row_norm(f))
        QGC_TRY(lower_normed_heads(l, f));
    else if (rows_go_their_own_way(f))
        QGC_TRY(lower_heads(l, f));
    else
        QGC_TRY(lower_rows(l, f));
    if (name) /* the launch of the kernel is the last one added: a table's is in the init phase */
        l->plan->phases[l->phase].launches[before].node = name;
    return QGC_OK;
}

/* --- nodes by themselves --------------------------------------------------------------------------------- */

static qgc_status lower_one(qgc_lowering *l, const qgc_node *n) {
    return qgc_lower_stage(l, &(qgc_stage){.kind = QGC_STAGE_POINTWISE, .pointwise = {n}, .n_pointwise = 1},
                           NULL);
}

qgc_status lower_add(qgc_lowering *l, const qgc_node *n) {
    return lower_one(l, n);
}
qgc_status lower_mul(qgc_lowering *l, const qgc_node *n) {
    return lower_one(l, n);
}
qgc_status lower_silu(qgc_lowering *l, const qgc_node *n) {
    return lower_one(l, n);
}
qgc_status lower_gelu(qgc_lowering *l, const qgc_node *n) {
    return lower_one(l, n);
}
qgc_status lower_sigmoid(qgc_lowering *l, const qgc_node *n) {
    return lower_one(l, n);
}
qgc_status lower_scale(qgc_lowering *l, const qgc_node *n) {
    return lower_one(l, n);
}
qgc_status lower_softcap(qgc_lowering *l, const qgc_node *n) {
    return lower_one(l, n);
}

/* The buffer of a value rounded to bf16; made once for all products that read it. */
static int as_bf16(qgc_lowering *l, const qgc_value *v) {
    qgc_dtype from = v->kind == QGC_WEIGHT ? qgc_weight_storage(v) : v->dtype;
    if (from == QGC_BF16)
        return qgc_low_buffer(l, v);
    if (l->bf16_of[v->id] >= 0)
        return l->bf16_of[v->id];
    qgc_extent elems = qgc_low_elems(&v->shape);
    int buffer = qgc_low_scratch(l, qgc_low_text(l, "bf16 of %s", qgc_value_label(v, l->arena)),
                                 qgc_low_times(elems, 2));
    const bool blocks = qgc_dtype_is_quantised(from);
    const char *options[] = {qgc_low_type(l, "FROM", from),
                             blocks ? qgc_low_int(l, "IN", qgc_low_width(v)) : NULL, NULL};
    qgc_plan_launch *launch =
        qgc_low_launch(l, l->phase, qgc_low_kernel(l, "to_bf16.cu", QGC_LOW_THREADS, options));
    qgc_low_grid(launch, 0, elems, (int64_t)(blocks ? 8 : 4) * QGC_LOW_THREADS);
    qgc_low_arg_buffer(launch, qgc_low_buffer(l, v), QGC_READS);
    qgc_low_arg_buffer(launch, buffer, QGC_WRITES);
    qgc_low_arg_i32(launch, elems);
    return l->bf16_of[v->id] = buffer;
}

/* The product of matrices, bf16 with float32 sums: all tokens of a prefill step. */
static void lower_linear_gemm(qgc_lowering *l, const qgc_node *n) {
    int x = as_bf16(l, n->in[0]), w = as_bf16(l, n->in[1]), out = qgc_low_buffer(l, n->out[0]);
    qgc_extent rows = qgc_low_dim(n->in[0]->shape.dim[0]);
    if (n->n_in > 2) {
        const char *options[] = {qgc_low_int(l, "D", qgc_low_width(n->out[0])), NULL};
        qgc_plan_launch *bias =
            qgc_low_launch(l, l->phase, qgc_low_kernel(l, "bias_rows.cu", QGC_LOW_THREADS, options));
        qgc_low_grid(bias, 0, (qgc_extent){.fixed = qgc_low_width(n->out[0])}, QGC_LOW_THREADS);
        qgc_low_grid(bias, 1, rows, 1);
        qgc_low_arg_buffer(bias, qgc_low_buffer(l, n->in[2]), QGC_READS);
        qgc_low_arg_buffer(bias, out, QGC_WRITES);
    }
    qgc_plan_launch *launch = qgc_low_launch(l, l->phase, -1);
    launch->a = x;
    launch->b = w;
    launch->c = out;
    launch->rows = rows;
    launch->n = qgc_low_width(n->out[0]);
    launch->k = qgc_low_width(n->in[0]);
    launch->accumulate = n->n_in > 2;
    launch->weight_bytes = 2 * launch->n * launch->k;
}

/* A decode step, and the row wanted in prefill, go row by row in float32. */
qgc_status lower_linear(qgc_lowering *l, const qgc_node *n) {
    if (qgc_phase_is_prefill(l->phase) && (l->plan->all_rows || n->in[0]->shape.dim[0] == QGC_DIM_T)) {
        lower_linear_gemm(l, n);
        return QGC_OK;
    }
    return qgc_lower_stage(l, &(qgc_stage){.kind = QGC_STAGE_PRODUCTS, .rows = {{.linear = n}}, .n_rows = 1},
                           NULL);
}
