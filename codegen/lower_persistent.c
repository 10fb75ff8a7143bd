/* The persistent step: most of a decode step in one kernel (kernels/persistent.cu). It is looked for in the graph's
 * nodes, whatever groups they are in: layers of
 *
 *   x -> rms_norm -> linear q, k, v -> [rope q, k] -> append k, v -> attention -> linear -> + x = mid
 *   mid -> rms_norm -> linear, linear -> pointwise ops -> linear -> + mid = the next x
 *
 * between an embedding and a last norm and linear whose result is the logits; and, if they are there, the mark of the
 * token and the first half of sampling. What comes behind stays in kernels of its own. Where a graph is not like this,
 * the plan says why. */

#include <assert.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "codegen/lower_impl.h"
#include "graph/base/str.h"

enum {
    SHARED_BYTES = 227 << 10, /* a block of sm_90 and sm_100 may have */
    PAIR = 64,                /* of elements that a warp multiplies at a time */
    BATCH = 96,               /* rows of a multiprocessor that a thread's residual can be for */
    LEAST_WARPS = 8,
    MOST_WARPS = 15, /* with the producer's a multiple of 4: more would leave each thread fewer registers */
    PRODUCER_THREADS = 32,
    COPIES = 2, /* of exchanged vectors; these three as in the kernel */
    MOST_PARTS = 160,
    PACK_THREADS = 512,
};

typedef struct {
    const qgc_value *attn_norm, *mlp_norm, *wq, *wk, *wv, *bq, *bk, *bv, *wo, *w0, *w1, *down;
    const qgc_node *k_append, *v_append;
} layer;

typedef struct {
    qgc_lowering *l;
    bool *covered; /* [next_node_id] */
    const char *why;
    const qgc_value *table, *head, *out_norm, *logits;
    const qgc_node *rope;        /* of the first layer, NULL if there is none */
    const qgc_node *mark, *part; /* both or none */
    layer *layers;
    int n_layers;
    int64_t d, ff, heads, kv_heads, head_dim, vocab;
    double eps, scale;
    const char *expression; /* "-DEXPRESSION=..." */
    qgc_dtype weight, cache;
} finder;

static bool no(finder *f, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool no(finder *f, const char *format, ...) {
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    f->why = qgc_arena_strdup(f->l->arena, text);
    return false;
}

static const char *label(const finder *f, const qgc_value *v) {
    return qgc_value_label(v, f->l->arena);
}

static bool reads(const qgc_node *n, const qgc_value *v) {
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] == v)
            return true;
    return false;
}

/* The readers of a value that are not covered yet, at most `room`; a node that reads it twice counts once. */
static int readers(const finder *f, const qgc_value *v, const qgc_node **out, int room) {
    int count = 0;
    for (const qgc_node *n = v->maker ? v->maker->next : f->l->graph->first; n; n = n->next)
        if (!f->covered[n->id] && reads(n, v)) {
            if (count < room)
                out[count] = n;
            count++;
        }
    return count;
}

static const qgc_node *cover(finder *f, const qgc_node *n) {
    f->covered[n->id] = true;
    return n;
}

/* The one reader of a value, which is of this op; NULL with a reason otherwise. */
static const qgc_node *only_reader(finder *f, const qgc_value *v, qgc_op op) {
    const qgc_node *n = NULL;
    int count = readers(f, v, &n, 1);
    if (count != 1 || n->op != op) {
        no(f, "\"%s\" is not read by one %s alone", label(f, v), qgc_ops[op].name);
        return NULL;
    }
    return cover(f, n);
}

static bool same_type(finder *f, const qgc_value *matrix) {
    qgc_dtype t = qgc_weight_storage(matrix);
    if (f->weight == QGC_N_DTYPES && (t == QGC_BF16 || t == QGC_F16))
        f->weight = t;
    return t == f->weight || no(f, "weight \"%s\" is stored as %s, and not all as bf16 or all as f16",
                                label(f, matrix), qgc_dtypes[t].name);
}

static bool same_rope(finder *f, const qgc_node *n) {
    if (!f->rope)
        f->rope = n;
    if (!qgc_attrs_equal(f->rope, n) || f->rope->in[1] != n->in[1])
        return no(f, "\"%s\" is rotated otherwise than \"%s\"", label(f, n->out[0]),
                  label(f, f->rope->out[0]));
    return qgc_low_attr_int(n, "head_dim") == f->head_dim || no(f, "rotation of heads that are no heads");
}

/* --- a layer --------------------------------------------------------------------------------------------- */

static const qgc_value *bias_of(const qgc_node *linear) {
    return linear->n_in > 2 ? linear->in[2] : NULL;
}

static const qgc_node *plain_linear(finder *f, const qgc_value *x) {
    const qgc_node *n = only_reader(f, x, QGC_OP_LINEAR);
    if (n && n->n_in > 2) {
        no(f, "\"%s\" has a bias", label(f, n->out[0]));
        return NULL;
    }
    return n && same_type(f, n->in[1]) ? n : NULL;
}

static bool norm_of(finder *f, const qgc_node *n) {
    double eps = qgc_low_attr(n, "eps");
    if (f->eps == 0)
        f->eps = eps;
    if (n->in[1]->shape.dim[0] != f->d)
        return no(f, "\"%s\" is normalized in groups", label(f, n->out[0]));
    return eps == f->eps || no(f, "norms with different eps");
}

/* The norm among two readers of the residual x; the other one adds to it later. */
static const qgc_node *norm_reader(finder *f, const qgc_value *x) {
    const qgc_node *r[2];
    if (readers(f, x, r, 2) != 2 || (r[0]->op != QGC_OP_RMS_NORM && r[1]->op != QGC_OP_RMS_NORM)) {
        no(f, "\"%s\" is not read by a norm and an addition", label(f, x));
        return NULL;
    }
    const qgc_node *norm = cover(f, r[0]->op == QGC_OP_RMS_NORM ? r[0] : r[1]);
    return norm_of(f, norm) ? norm : NULL;
}

/* x + v, whose result is the next residual. */
static const qgc_value *add_to(finder *f, const qgc_value *v, const qgc_value *x) {
    const qgc_node *n = only_reader(f, v, QGC_OP_ADD);
    if (n && !reads(n, x)) {
        no(f, "\"%s\" is not added to \"%s\"", label(f, v), label(f, x));
        return NULL;
    }
    return n ? n->out[0] : NULL;
}

/* What a product of the norm goes through before attention. */
typedef struct {
    const qgc_node *linear, *rope, *append;
    const qgc_value *out;
} way;

static bool follow(finder *f, const qgc_node *linear, way *w) {
    *w = (way){.linear = cover(f, linear), .out = linear->out[0]};
    const qgc_node *n = NULL;
    while (readers(f, w->out, &n, 1) == 1 && (n->op == QGC_OP_ROPE || n->op == QGC_OP_APPEND)) {
        if (n->op == QGC_OP_ROPE)
            w->rope = n;
        else
            w->append = n;
        w->out = cover(f, n)->out[0];
    }
    return same_type(f, linear->in[1]);
}

static bool attention_fits(finder *f, const qgc_node *n) {
    const qgc_shape *keys = &n->in[1]->shape;
    int64_t head_dim = keys->dim[2], kv_heads = keys->dim[0], queries = qgc_low_width(n->in[0]);
    double scale = qgc_low_attr(n, "scale");
    if (f->n_layers == 0) {
        f->head_dim = head_dim, f->kv_heads = kv_heads, f->heads = queries / head_dim, f->scale = scale;
        f->cache = n->in[1]->dtype;
    }
    if (head_dim != f->head_dim || kv_heads != f->kv_heads || queries != f->heads * head_dim ||
        scale != f->scale)
        return no(f, "layers with different attention");
    if (n->in[1]->dtype != f->cache || n->in[2]->dtype != f->cache ||
        (f->cache != QGC_F16 && f->cache != QGC_BF16))
        return no(f, "caches are %s and %s, not both f16 or both bf16", qgc_dtypes[n->in[1]->dtype].name,
                  qgc_dtypes[n->in[2]->dtype].name);
    return true;
}

/* Attention of three ways: *out is its result. */
static bool find_attention(finder *f, way *ways, layer *y, const qgc_value **out) {
    const qgc_node *n = NULL;
    if (readers(f, ways[0].out, &n, 1) != 1 || (n->op != QGC_OP_ATTENTION && n->op != QGC_OP_ATTENTION_PART))
        return no(f, "\"%s\" is not read by attention alone", label(f, ways[0].out));
    cover(f, n);
    const way *q = NULL, *k = NULL, *v = NULL;
    for (int i = 0; i < 3; i++) {
        q = ways[i].out == n->in[0] ? &ways[i] : q;
        k = ways[i].out == n->in[1] ? &ways[i] : k;
        v = ways[i].out == n->in[2] ? &ways[i] : v;
    }
    if (!q || !k || !v || q->append || !k->append || !v->append || v->rope || !q->rope != !k->rope)
        return no(f, "attention \"%s\" is not over three products of one vector", label(f, n->out[0]));
    if (!attention_fits(f, n))
        return false;
    if (q->rope && (!same_rope(f, q->rope) || !same_rope(f, k->rope)))
        return false;
    y->wq = q->linear->in[1], y->wk = k->linear->in[1], y->wv = v->linear->in[1];
    y->bq = bias_of(q->linear), y->bk = bias_of(k->linear), y->bv = bias_of(v->linear);
    if (!y->bq != !y->bk || !y->bq != !y->bv)
        return no(f, "only some of queries, keys and values have a bias");
    y->k_append = k->append, y->v_append = v->append;
    *out = n->out[0];
    if (n->op == QGC_OP_ATTENTION_PART) {
        n = only_reader(f, *out, QGC_OP_ATTENTION_MERGE);
        *out = n ? n->out[0] : NULL;
    }
    return *out != NULL;
}

static bool find_mlp(finder *f, const qgc_value *m, layer *y, const qgc_value **out) {
    const qgc_node *r[2];
    if (readers(f, m, r, 2) != 2 || r[0]->op != QGC_OP_LINEAR || r[1]->op != QGC_OP_LINEAR ||
        r[0]->n_in > 2 || r[1]->n_in > 2)
        return no(f, "\"%s\" is not read by two products without bias", label(f, m));
    y->w0 = r[0]->in[1], y->w1 = r[1]->in[1];
    if (!same_type(f, y->w0) || !same_type(f, y->w1))
        return false;
    qgc_stage fusion = {.kind = QGC_STAGE_PRODUCTS,
                        .rows = {{.linear = cover(f, r[0])}, {.linear = cover(f, r[1])}},
                        .n_rows = 2};
    /* pointwise ops of nothing but these two */
    for (const qgc_node *n = r[1]->next; n && fusion.n_pointwise < QGC_MAX_POINTWISE; n = n->next) {
        bool inside = (qgc_ops[n->op].traits & QGC_POINTWISE) != 0;
        for (int i = 0; i < n->n_in && inside; i++)
            inside = n->in[i]->maker && f->covered[n->in[i]->maker->id] && n->in[i]->maker->id >= r[0]->id;
        if (inside)
            fusion.pointwise[fusion.n_pointwise++] = cover(f, n);
        else if (n->op == QGC_OP_LINEAR)
            break;
    }
    if (fusion.n_pointwise == 0)
        return no(f, "\"%s\" and \"%s\" are not put together by pointwise ops", label(f, r[0]->out[0]),
                  label(f, r[1]->out[0]));
    *out = fusion.pointwise[fusion.n_pointwise - 1]->out[0];
    const char *text = qgc_low_expression(f->l, &fusion, *out);
    if (!f->expression)
        f->expression = text;
    return strcmp(text, f->expression) == 0 || no(f, "layers with different activations");
}

/* One layer from the residual x; *next is the one behind it. */
static bool find_layer(finder *f, const qgc_value *x, const qgc_value **next) {
    layer y = {0};
    const qgc_node *norm = norm_reader(f, x), *r[3];
    if (!norm)
        return false;
    y.attn_norm = norm->in[1];
    if (readers(f, norm->out[0], r, 3) != 3 || r[0]->op != QGC_OP_LINEAR || r[1]->op != QGC_OP_LINEAR ||
        r[2]->op != QGC_OP_LINEAR)
        return no(f, "\"%s\" is not read by three products", label(f, norm->out[0]));
    way ways[3];
    const qgc_value *a = NULL;
    for (int i = 0; i < 3; i++)
        if (!follow(f, r[i], &ways[i]))
            return false;
    if (!find_attention(f, ways, &y, &a))
        return false;
    const qgc_node *o = plain_linear(f, a);
    const qgc_value *mid = o ? add_to(f, o->out[0], x) : NULL;
    norm = mid ? norm_reader(f, mid) : NULL;
    if (!norm)
        return false;
    y.wo = o->in[1];
    y.mlp_norm = norm->in[1];
    const qgc_value *hidden = NULL;
    if (!find_mlp(f, norm->out[0], &y, &hidden))
        return false;
    const qgc_node *down = plain_linear(f, hidden);
    *next = down ? add_to(f, down->out[0], mid) : NULL;
    if (!*next)
        return false;
    y.down = down->in[1];
    if (f->ff == 0)
        f->ff = qgc_low_width(hidden);
    if (qgc_low_width(hidden) != f->ff)
        return no(f, "layers of different widths");
    f->layers = qgc_arena_grow(f->l->arena, f->layers, (size_t)f->n_layers, sizeof *f->layers);
    f->layers[f->n_layers++] = y;
    return true;
}

/* --- the whole step -------------------------------------------------------------------------------------- */

static bool find_head(finder *f, const qgc_value *x) {
    const qgc_node *select = only_reader(f, x, QGC_OP_SELECT_ROWS);
    const qgc_node *norm = select ? only_reader(f, select->out[0], QGC_OP_RMS_NORM) : NULL;
    if (!norm || !norm_of(f, norm))
        return false;
    const qgc_node *head = plain_linear(f, norm->out[0]);
    if (!head)
        return false;
    f->out_norm = norm->in[1], f->head = head->in[1], f->logits = head->out[0];
    f->vocab = qgc_low_width(f->logits);
    return f->logits == qgc_graph_output(f->l->graph, "logits") ||
           no(f, "the last product is not the logits");
}

/* The mark of the step's token, and sample_part of the logits behind it. */
static void find_sampling(finder *f) {
    const qgc_node *mark = NULL, *part = NULL;
    for (const qgc_node *n = f->l->graph->first; n; n = n->next) {
        if (n->op == QGC_OP_MARK && n->in[1] == qgc_graph_input(f->l->graph, "tokens"))
            mark = n;
        if (n->op == QGC_OP_SAMPLE_PART && mark && n->in[0] == f->logits && n->in[1] == mark->out[0] &&
            qgc_low_attr_int(n, "stretch") == QGC_STRETCH)
            part = n;
    }
    if (part) {
        f->mark = cover(f, mark);
        f->part = cover(f, part);
    }
}

static bool leaves(const finder *f, const qgc_value *v) {
    return v == f->logits || (f->part && (v == f->part->out[0] || v == f->mark->out[0]));
}

/* Nothing else may read what lives inside of the kernel only. */
static bool nobody_else_reads(finder *f) {
    const qgc_graph *g = f->l->graph;
    for (const qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; !f->covered[n->id] && i < n->n_in; i++) {
            const qgc_value *v = n->in[i];
            if (v->maker && f->covered[v->maker->id] && !leaves(f, v))
                return no(f, "\"%s\" is read by \"%s\" too", label(f, v), label(f, n->out[0]));
        }
    for (size_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i]->maker && f->covered[g->outputs[i]->maker->id] && !leaves(f, g->outputs[i]))
            return no(f, "\"%s\" is an output", label(f, g->outputs[i]));
    return true;
}

static bool dimensions_fit(finder *f) {
    const struct {
        const char *name;
        int64_t value;
    } widths[] = {{"width", f->d}, {"queries", f->heads * f->head_dim}, {"hidden width", f->ff}};
    for (int i = 0; i < 3; i++)
        if (widths[i].value % PAIR != 0)
            return no(f, "%s %lld is no multiple of %d", widths[i].name, (long long)widths[i].value, PAIR);
    if (f->head_dim != 32 && f->head_dim != 64 && f->head_dim != 128)
        return no(f, "heads of %lld elements, not 32, 64 or 128", (long long)f->head_dim);
    if (f->heads % f->kv_heads != 0 || f->heads / f->kv_heads > 8)
        return no(f, "%lld query heads to %lld key-value heads, more than 8 to one", (long long)f->heads,
                  (long long)f->kv_heads);
    return true;
}

static bool find(finder *f) {
    const qgc_node *embedding = f->l->graph->first;
    while (embedding && embedding->op != QGC_OP_EMBEDDING)
        embedding = embedding->next;
    if (!embedding)
        return no(f, "there is no embedding");
    if (embedding->in[0] != qgc_graph_input(f->l->graph, "tokens"))
        return no(f, "\"%s\" is not of the tokens", label(f, embedding->out[0]));
    const qgc_value *x = cover(f, embedding)->out[0];
    f->table = embedding->in[1];
    f->d = qgc_low_width(x);
    if (!same_type(f, f->table))
        return false;
    const qgc_node *r[2];
    while (readers(f, x, r, 2) == 2)
        if (!find_layer(f, x, &x))
            return false;
    if (f->n_layers == 0)
        return no(f, "\"%s\" is not read by a norm and an addition", label(f, x));
    if (!find_head(f, x))
        return false;
    find_sampling(f);
    return nobody_else_reads(f) && dimensions_fit(f);
}

/* How many warps waste least: each takes PAIR elements of a chunk, and a row's last chunk may not be full. A chunk costs
 * something for itself, as much as 4 warps' part of it (measured: 14 warps are best for a width of 896). */
static int64_t choose_warps(const finder *f) {
    const struct {
        int64_t k, rows;
    } products[] = {{f->d, (f->heads + 2 * f->kv_heads) * f->head_dim + 2 * f->ff},
                    {f->heads * f->head_dim, f->d},
                    {f->ff, f->d}};
    int64_t best = LEAST_WARPS, least = 0;
    for (int64_t warps = LEAST_WARPS; warps <= MOST_WARPS; warps++) {
        int64_t cost = 0;
        for (int i = 0; i < 3; i++)
            cost += (products[i].k / PAIR + warps - 1) / warps * products[i].rows * (warps + 4);
        if (least == 0 || cost < least) {
            least = cost;
            best = warps;
        }
    }
    return best;
}

static int packed(finder *f, const char *name, int64_t bytes) {
    return qgc_low_buffer_of_kind(f->l, name, QGC_BUFFER_PACKED, (qgc_extent){.fixed = bytes});
}

typedef struct {
    int stream, small, caches, exchange, epoch;
} buffers;

static int64_t layer_elems(const finder *f) {
    int64_t queries = f->heads * f->head_dim, cached = f->kv_heads * f->head_dim;
    return (queries + 2 * cached) * f->d + f->d * queries + 3 * f->ff * f->d;
}

static buffers make_buffers(finder *f) {
    int64_t queries = f->heads * f->head_dim, cached = f->kv_heads * f->head_dim;
    int64_t small = 2 * f->d + queries + 2 * cached;
    int64_t copy = 2 * f->d + queries + 2 * cached + queries + f->ff;
    copy = (copy + 1023) / 1024 * 1024;
    return (buffers){
        .stream = packed(f, "stream", 2 * (f->n_layers * layer_elems(f) + f->vocab * f->d)),
        .small = packed(f, "small vectors", (int64_t)4 * (f->n_layers + 1) * small),
        .caches = packed(f, "addresses of caches", 16 * (int64_t)f->n_layers),
        .exchange = packed(f, "exchange", 4 * (COPIES * copy + f->heads * MOST_PARTS * (f->head_dim + 4))),
        .epoch = packed(f, "epoch", 8),
    };
}

static int shape_options(finder *f, int64_t warps, const char **options) {
    qgc_lowering *l = f->l;
    int n = 0;
    options[n++] = qgc_low_int(l, "LAYERS", f->n_layers);
    options[n++] = qgc_low_int(l, "D", f->d);
    options[n++] = qgc_low_int(l, "HEADS", f->heads);
    options[n++] = qgc_low_int(l, "KV_HEADS", f->kv_heads);
    options[n++] = qgc_low_int(l, "HEAD_DIM", f->head_dim);
    options[n++] = qgc_low_int(l, "FF", f->ff);
    options[n++] = qgc_low_int(l, "VOCAB", f->vocab);
    options[n++] = qgc_low_type(l, "WEIGHT", f->weight);
    options[n++] = qgc_low_int(l, "BIAS", f->layers[0].bq != NULL);
    options[n++] = qgc_low_int(l, "WARPS", warps);
    return n;
}

enum { N_PACKED = 14 };

/* One launch: a layer's weights and caches in the order of the kernel's arguments, or those of the head. */
static void pack_some(finder *f, int kernel, const buffers *b, const qgc_value *const weights[N_PACKED],
                      int i) {
    qgc_lowering *l = f->l;
    qgc_plan_launch *launch = qgc_low_launch(l, QGC_PHASE_PACK, kernel);
    launch->on_all = true;
    launch->node = i < f->n_layers ? qgc_low_text(l, "layer %d", i) : "head";
    /* what is not there is never looked at, and of caches only where they are */
    for (int k = 0; k < N_PACKED; k++)
        qgc_low_arg_buffer(launch, qgc_low_buffer(l, weights[k] ? weights[k] : weights[0]),
                           weights[k] && weights[k]->kind == QGC_WEIGHT ? QGC_READS : 0);
    qgc_low_arg_buffer(launch, b->stream, QGC_WRITES);
    qgc_low_arg_buffer(launch, b->small, QGC_WRITES);
    qgc_low_arg_buffer(launch, b->caches, QGC_WRITES);
    qgc_low_arg_i32(launch, (qgc_extent){.fixed = i});
}

static void lower_pack(finder *f, int kernel, const buffers *b) {
    for (int i = 0; i < f->n_layers; i++) {
        const layer *y = &f->layers[i];
        const qgc_value *const weights[N_PACKED] = {y->wq,
                                                    y->wk,
                                                    y->wv,
                                                    y->wo,
                                                    y->w0,
                                                    y->w1,
                                                    y->down,
                                                    y->bq,
                                                    y->bk,
                                                    y->bv,
                                                    y->attn_norm,
                                                    y->mlp_norm,
                                                    y->k_append->in[0],
                                                    y->v_append->in[0]};
        pack_some(f, kernel, b, weights, i);
    }
    const qgc_value *const head[N_PACKED] = {[0] = f->head, [10] = f->out_norm};
    pack_some(f, kernel, b, head, f->n_layers);
}

enum { N_PARTS = 7 };

/* In the order of `enum product` in the kernel. */
static void name_parts(const finder *f, qgc_plan_launch *launch) {
    int64_t queries = f->heads * f->head_dim, cached = f->kv_heads * f->head_dim,
            layers = (int64_t)2 * f->n_layers;
    const qgc_plan_part parts[] = {{"qkv", layers * (queries + 2 * cached) * f->d, 0},
                                   {"attention", 0, launch->position_bytes},
                                   {"merge", 0, 0},
                                   {"out", layers * f->d * queries, 0},
                                   {"mlp", layers * 2 * f->ff * f->d, 0},
                                   {"down", layers * f->d * f->ff, 0},
                                   {"head", 2 * f->vocab * f->d, 0}};
    _Static_assert(sizeof parts / sizeof *parts == N_PARTS, "each has a row above");
    launch->n_parts = N_PARTS;
    launch->n_layers = f->n_layers + 1; /* the head counts as one */
    launch->parts = qgc_arena_array(f->l->arena, N_PARTS, sizeof *launch->parts);
    memcpy(launch->parts, parts, sizeof parts);
}

static void lower_step(finder *f, int kernel, int rope, const buffers *b) {
    qgc_lowering *l = f->l;
    qgc_plan_launch *launch = qgc_low_launch(l, QGC_PHASE_PERSISTENT, kernel);
    launch->on_all = true;
    launch->node = "persistent";
    launch->weight_bytes = 2 * (f->n_layers * layer_elems(f) + f->vocab * f->d);
    launch->position_bytes = (int64_t)2 * 2 * f->n_layers * f->kv_heads * f->head_dim;
    name_parts(f, launch);
    const struct {
        int buffer, access;
    } args[] = {
        {b->stream, QGC_READS},
        {b->small, QGC_READS},
        {b->caches, QGC_READS | QGC_FOLLOWS},
        {qgc_low_buffer(l, f->table), QGC_READS},
        {rope >= 0 ? rope : b->small, rope >= 0 ? QGC_READS : 0},
        {l->plan->io[QGC_IO_TOKENS], QGC_READS},
        {l->plan->io[QGC_IO_POSITIONS], QGC_READS},
        {b->exchange, QGC_READS | QGC_WRITES},
        {b->epoch, QGC_READS | QGC_WRITES},
        {l->plan->io[QGC_IO_LOGITS], QGC_WRITES},
        {l->plan->io[QGC_IO_FAULT], QGC_READS | QGC_WRITES},
        {f->part ? qgc_low_buffer(l, f->mark->out[0]) : b->small, f->part ? QGC_READS | QGC_WRITES : 0},
        {l->plan->io[QGC_IO_SAMPLING], f->part ? QGC_READS : 0},
        {f->part ? qgc_low_buffer(l, f->part->out[0]) : b->small, f->part ? QGC_WRITES : 0},
        {l->plan->trace >= 0 ? l->plan->trace : b->small, l->plan->trace >= 0 ? QGC_WRITES : 0}};
    for (size_t i = 0; i < sizeof args / sizeof *args; i++)
        qgc_low_arg_buffer(launch, args[i].buffer, args[i].access);
    qgc_low_arg_i32(launch, (qgc_extent){.per_ctx = 1});
}

/* The name under which the kernel is tuned. */
static const char *name_of(finder *f) {
    return qgc_low_text(f->l, "persistent.cu %dx%lld, heads %lld/%lldx%lld, ff %lld, vocab %lld, %s",
                        f->n_layers, (long long)f->d, (long long)f->heads, (long long)f->kv_heads,
                        (long long)f->head_dim, (long long)f->ff, (long long)f->vocab,
                        qgc_dtypes[f->weight].name);
}

/* Options that change the speed of the kernel only; the usual values were measured (docs/performance.md). A warp's part of
 * long rows takes registers that then cannot hold weights. */
static int speed_options(finder *f, const char *name, int64_t warps, const char **options) {
    static const int64_t depths[] = {22000, 29000, 36000, 43000, 50000, 57500, 72000, 0};
    static const int64_t held[] = {1, 2, 4, 5, 6, 7, 8, 0};
    static const int64_t parts[] = {4, 8, 16, 32, 64, 0};
    const struct {
        const char *name;
        int64_t usual;
        const int64_t *candidates;
    } knobs[] = {{"DEPTH", 43000, depths},
                 {"MERGE_DEPTH", 36000, depths},
                 {"HEAD_DEPTH", 57500, depths},
                 {"HELD", 4, held},
                 {"HELD_LONG", f->ff / PAIR / warps > 8 ? 2 : 6, held},
                 {"PARTS", 16, parts}};
    int n = 0;
    for (; n < (int)(sizeof knobs / sizeof *knobs); n++)
        options[n] =
            qgc_low_int(f->l, knobs[n].name,
                        qgc_low_setting(f->l, name, knobs[n].name, knobs[n].usual, knobs[n].candidates));
    return n;
}

/* Shares are of equal bytes, and rows so only nearly of equal number; each key-value head has a block of its own. */
static int64_t least_sms(const finder *f) {
    int64_t for_rows = f->d / (BATCH - 8) + 1;
    return for_rows > f->kv_heads ? for_rows : f->kv_heads;
}

bool qgc_lower_persistent(qgc_lowering *l, bool traced, bool **covered) {
    finder f = {.l = l,
                .covered = qgc_arena_array(l->arena, (size_t)l->graph->next_node_id + 1, sizeof(bool)),
                .weight = QGC_N_DTYPES};
    *covered = f.covered;
    if (!find(&f)) {
        l->plan->not_persistent = f.why;
        return false;
    }
    const char *options[32];
    static const int64_t warp_counts[] = {8, 9, 10, 11, 12, 13, 14, 15, 0};
    const char *name = name_of(&f);
    int64_t warps = qgc_low_setting(l, name, "WARPS", choose_warps(&f), warp_counts);
    int n = shape_options(&f, warps, options);
    options[n] = NULL;
    int pack = qgc_low_kernel(l, "pack.cu", PACK_THREADS, options);
    options[n++] = qgc_low_float(l, "EPS", f.eps);
    options[n++] = qgc_low_float(l, "SCALE", f.scale);
    options[n++] = qgc_low_int(l, "ROPE", f.rope != NULL);
    options[n++] = qgc_low_type(l, "CACHE", f.cache);
    options[n++] = f.expression;
    options[n++] = qgc_low_int(l, "SAMPLE", f.part != NULL);
    options[n++] = qgc_low_int(l, "SHARED_BYTES", SHARED_BYTES);
    options[n++] = qgc_low_int(l, "TRACE", traced);
    n += speed_options(&f, name, warps, options + n);
    options[n] = NULL;
    int step = qgc_low_kernel(l, "persistent.cu", (int)warps * 32 + PRODUCER_THREADS, options);
    l->plan->kernels[step].shared_bytes = SHARED_BYTES;
    l->plan->least_sms = least_sms(&f);
    const buffers b = make_buffers(&f);
    if (traced)
        l->plan->trace = packed(&f, "trace", qgc_trace_bytes(N_PARTS));
    int rope = f.rope ? qgc_low_rope_table(l, f.rope) : -1;
    lower_pack(&f, pack, &b);
    lower_step(&f, step, rope, &b);
    return true;
}
