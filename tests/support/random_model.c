#include "tests/support/random_model.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "tests/support/random.h"

/* What is written while the graph is drawn: a weight is declared where it is used first. */
typedef struct {
    uint64_t *seed;
    qgc_arena *arena;
    qgc_str weights, body;
    const char *results[48]; /* what a layer makes, but for x */
    int n_results;
    int layers, heads, kv_heads, head_dim, width, hidden, vocab;
    bool interleaved;
    const char *turned; /* attributes that say which elements of a head turn */
} writer;

static int below(writer *m, int n) {
    return (int)(test_random(m->seed) % (uint64_t)n);
}

static int from_to(writer *m, int least, int most) {
    return least + below(m, most - least + 1);
}

/* True once in n times. */
static bool once_in(writer *m, int n) {
    return below(m, n) == 0;
}

static const char *text(writer *m, const char *format, ...) __attribute__((format(printf, 2, 3)));

static const char *text(writer *m, const char *format, ...) {
    char line[256];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    return qgc_arena_strdup(m->arena, line);
}

/* --- weights --------------------------------------------------------------------------------------------- */

static const char *dtype(writer *m, int row) {
    static const char *const names[] = {"bf16", "bf16", "bf16", "f16", "f32", "q8_0"};
    const int i = below(m, row % 32 == 0 ? 6 : 5);
    return names[i];
}

/* One for each layer, of one type or of any. */
static const char *layer_dtypes(writer *m, int row) {
    if (!once_in(m, 4))
        return dtype(m, row);
    const char *list = "[";
    for (int l = 0; l < m->layers; l++)
        list = text(m, "%s%s%s", list, l ? ", " : "", dtype(m, row));
    return text(m, "%s]", list);
}

static const char *matrix(writer *m, const char *name, int rows, int row) {
    qgc_str_printf(&m->weights, "  %s: {per: l, shape: [%d, %d], dtype: %s}\n", name, rows, row,
                   layer_dtypes(m, row));
    return name;
}

static const char *vector(writer *m, const char *name, int n) {
    qgc_str_printf(&m->weights, "  %s: {per: l, shape: [%d]}\n", name, n);
    return name;
}

/* --- the body of a layer --------------------------------------------------------------------------------- */

static void node(writer *m, const char *op, const char *in, const char *attributes, const char *out) {
    if (out[0] != 'x' || out[1])
        m->results[m->n_results++] = out;
    qgc_str_printf(&m->body, "      - {op: %s, in: [%s]%s, out: %s}\n", op, in, attributes, out);
}

static const char *norm(writer *m, const char *x, const char *weight, int n, const char *out) {
    node(m, "rms_norm", text(m, "%s, %s", x, vector(m, weight, n)),
         once_in(m, 2) ? ", eps: 1e-6" : ", eps: 1e-5", out);
    return out;
}

static const char *layer_norm(writer *m, const char *x, const char *weight, int n, const char *out) {
    const char *bias = once_in(m, 2) ? text(m, ", %s", vector(m, text(m, "%s_bias", weight), n)) : "";
    node(m, "layer_norm", text(m, "%s, %s%s", x, vector(m, weight, n), bias), ", eps: 1e-3", out);
    return out;
}

static const char *linear(writer *m, const char *x, int in, int out, bool bias, const char *result) {
    const char *weight = matrix(m, text(m, "w_%s", result), out, in);
    const char *more = bias ? text(m, ", %s", vector(m, text(m, "b_%s", result), out)) : "";
    node(m, "linear", text(m, "%s, %s%s", x, weight, more), "", result);
    return result;
}

/* In either order. */
static const char *pair(writer *m, const char *op, const char *a, const char *b, const char *out) {
    node(m, op, once_in(m, 2) ? text(m, "%s, %s", a, b) : text(m, "%s, %s", b, a), "", out);
    return out;
}

/* What gives each pair its own speed: one of the ways, or two. */
static const char *frequencies(writer *m, int base) {
    const int pairs = from_to(m, 1, m->head_dim / 2);
    const char *f = "freqs";
    m->turned = m->head_dim > 2 * pairs ? text(m, ", first: %d", below(m, m->head_dim - 2 * pairs + 1)) : "";
    node(m, "rope_freqs", "", text(m, ", base: %d, rotary_dim: %d", base, 2 * pairs), f);
    for (int i = from_to(m, 0, 2); i > 0; i--) {
        const char *out = text(m, "freqs_%d", i);
        const int kind = below(m, 5);
        if (kind == 0)
            node(m, "rope_linear", f, ", factor: 3", out);
        else if (kind == 1)
            node(m, "rope_llama3", f, ", factor: 8, low: 1, high: 4, original: 50", out);
        else if (kind == 2)
            node(m, "rope_yarn", f,
                 text(m, ", base: %d, factor: 4, original: 40, beta_fast: 3, beta_slow: 0.5, truncate: %d",
                      base, below(m, 2)),
                 out);
        else if (kind == 3)
            node(m, "rope_longrope",
                 text(m, "%s, %s, %s", f, vector(m, text(m, "short_%d", i), pairs),
                      vector(m, text(m, "long_%d", i), pairs)),
                 text(m, ", original: %d", from_to(m, 1, 60)), out);
        else
            node(m, "rope_divide", text(m, "%s, %s", f, vector(m, text(m, "by_%d", i), pairs)), "", out);
        f = out;
    }
    return f;
}

/* By a base, or (`freqs` is not NULL) by frequencies. */
static const char *rope(writer *m, const char *x, int base, const char *freqs, const char *out) {
    const char *style = m->interleaved ? "interleaved" : "neox";
    if (freqs)
        node(m, "rope", text(m, "%s, positions, %s", x, freqs),
             text(m, ", style: %s, head_dim: %d%s, scale: 1.25", style, m->head_dim, m->turned), out);
    else
        node(m, "rope", text(m, "%s, positions", x),
             text(m, ", style: %s, base: %d, head_dim: %d%s", style, base, m->head_dim, m->turned), out);
    return out;
}

static const char *cached(writer *m, const char *cache, const char *x, const char *out) {
    node(m, "append", text(m, "%s, %s, positions", cache, x), "", out);
    return out;
}

/* Queries, keys and values of h, as attention takes them. */
static void queries_keys_values(writer *m, const char *h, const char *in[3]) {
    const char *const names[] = {"q", "k", "v"};
    const bool biased = once_in(m, 2), odd_one = once_in(m, 5), normed = once_in(m, 3),
               turned = !once_in(m, 6);
    const int base = once_in(m, 2) ? 10000 : 10, other = once_in(m, 5) ? 500 : base;
    const char *freqs = turned && once_in(m, 2) ? frequencies(m, base) : NULL;
    for (int i = 0; i < 3; i++) {
        const int heads = i == 0 ? m->heads : m->kv_heads;
        const bool bias = biased != (odd_one && i == 1);
        in[i] = linear(m, h, m->width, heads * m->head_dim, bias, names[i]);
        if (normed && i < 2)
            in[i] = norm(m, in[i], text(m, "%s_norm", names[i]), m->head_dim, text(m, "%sn", names[i]));
        if ((turned && i < 2) || (i == 2 && once_in(m, 10)))
            in[i] = rope(m, in[i], i == 1 ? other : base, freqs, text(m, "%sr", names[i]));
    }
    in[1] = cached(m, "k_cache", in[1], "k_all");
    in[2] = cached(m, "v_cache", in[2], "v_all");
}

static const char *attention(writer *m, const char *h) {
    const char *in[3];
    queries_keys_values(m, h, in);
    const char *inputs = text(m, "%s, %s, %s, positions", in[0], in[1], in[2]);
    const char *scale = text(m, ", scale: %d^-0.5", m->head_dim);
    if (once_in(m, 4))
        scale = text(m, "%s, window: %d", scale, once_in(m, 2) ? from_to(m, 1, 4) : from_to(m, 60, 100));
    if (once_in(m, 5))
        scale = text(m, "%s, softcap: %d/2", scale, from_to(m, 1, 8));
    if (!once_in(m, 5)) {
        node(m, "attention", inputs, scale, "a");
    } else {
        const int parts = from_to(m, 1, 5);
        node(m, "attention_part", inputs, text(m, "%s, parts: %d", scale, parts), "a_split");
        node(m, "attention_merge", "a_split", text(m, ", head_dim: %d, parts: %d", m->head_dim, parts), "a");
    }
    return linear(m, "a", m->heads * m->head_dim, m->width, once_in(m, 4), "o");
}

static const char *activation(writer *m, const char *x, const char *out) {
    const int kind = below(m, 6);
    if (kind == 0)
        node(m, "gelu", x, once_in(m, 2) ? ", approximate: tanh" : ", approximate: none", out);
    else if (kind == 1)
        node(m, "sigmoid", x, "", out);
    else
        node(m, "silu", x, "", out);
    return out;
}

/* What some models do to what a block adds. */
static const char *changed(writer *m, const char *h, const char *x, const char *name) {
    const int kind = below(m, 8);
    const char *out = text(m, "%s_c", name);
    if (kind == 0) {
        node(m, "scale", x, text(m, ", factor: %d/8", from_to(m, -9, 9)), out);
    } else if (kind == 1) {
        node(m, "softcap", x, text(m, ", cap: %d", from_to(m, 1, 5)), out);
    } else if (kind == 2) { /* a number for each token */
        const char *gate = linear(m, h, m->width, 1, false, text(m, "%s_gate", name));
        node(m, "sigmoid", gate, "", text(m, "%s_open", name));
        pair(m, "mul", x, text(m, "%s_open", name), out);
    } else
        return x;
    return out;
}

static const char *mlp(writer *m, const char *h) {
    const int kind = below(m, 6);
    const bool bias = once_in(m, 4);
    const char *up = linear(m, h, m->width, m->hidden, bias, "up"), *ff;
    if (kind == 0) {
        ff = activation(m, up, "ff");
    } else {
        const char *gate = linear(m, h, m->width, m->hidden, bias != once_in(m, 8), "gate");
        const char *act = kind == 1 ? gate : activation(m, gate, "act");
        ff = pair(m, "mul", act, kind == 2 ? activation(m, up, "up_act") : up, "ff");
        if (kind == 3)
            ff = pair(m, "add", ff, pair(m, "mul", "act", "act", "act_2"), "ff_2");
    }
    return linear(m, ff, m->hidden, m->width, bias, "down");
}

static const char *stacked(writer *m, const char *name, int n, int rows, int row) {
    qgc_str_printf(&m->weights, "  %s: {per: l, shape: [%d, %d, %d], dtype: %s}\n", name, n, rows, row,
                   once_in(m, 2) ? "f32" : "bf16");
    return name;
}

/* All experts are chosen: that float32 chooses others than double precision is no fault. */
static const char *experts(writer *m, const char *h) {
    static const char *const scorings[] = {"softmax", "softmax_of_chosen", "sigmoid"};
    const int n = from_to(m, 1, 4);
    const char *scores = linear(m, h, m->width, n, false, "scores");
    if (once_in(m, 3))
        scores = text(m, "%s, %s", scores, vector(m, "route_bias", n));
    const char *routed = text(m, ", experts: %d, scoring: %s, normalize: %d, scale: 1.5", n,
                              scorings[below(m, 3)], below(m, 2));
    m->results[m->n_results++] = "weights";
    qgc_str_printf(&m->body, "      - {op: route, in: [%s]%s, out: [ids, weights]}\n", scores, routed);
    const char *up = text(m, "%s, %s, ids", h, stacked(m, "e_up", n, m->hidden, m->width));
    if (once_in(m, 2))
        up = text(m, "%s, %s", up, matrix(m, "e_bias", n, m->hidden));
    node(m, "expert_linear", up, "", "e_ff");
    activation(m, "e_ff", "e_act");
    node(m, "expert_linear", text(m, "e_act, %s, ids", stacked(m, "e_down", n, m->width, m->hidden)), "",
         "e_each");
    node(m, "expert_sum", "e_each, weights", "", "mixed");
    return "mixed";
}

static void layer(writer *m) {
    const bool parallel = once_in(m, 5);
    const char *h = once_in(m, 8)   ? "x"
                    : once_in(m, 6) ? layer_norm(m, "x", "attn_norm", m->width, "h")
                                    : norm(m, "x", "attn_norm", m->width, "h");
    const char *o = attention(m, h);
    if (once_in(m, 6))
        o = norm(m, o, "post_norm", m->width, "o_n");
    o = changed(m, h, o, "o");
    if (once_in(m, 4))
        activation(m, h, "unread");
    const char *mid = parallel ? "x" : pair(m, "add", "x", o, "x_mid");
    const char *in = parallel && once_in(m, 2) ? h : norm(m, mid, "mlp_norm", m->width, "m");
    const char *down = changed(m, in, once_in(m, 6) ? experts(m, in) : mlp(m, in), "down");
    if (parallel)
        down = pair(m, "add", o, down, "both");
    pair(m, "add", mid, down, "x");
}

/* --- the file -------------------------------------------------------------------------------------------- */

static const char *cache_dtype(writer *m) {
    return once_in(m, 2) ? "f32" : once_in(m, 2) ? "f16" : "bf16";
}

static void head(writer *m, qgc_str *out) {
    qgc_str_printf(out, "  - {op: select_rows, in: [x, rows], out: x_rows}\n"
                        "  - {op: rms_norm, in: [x_rows, out_norm], eps: 1e-6, out: x_out}\n"
                        "  - {op: linear, in: [x_out, head], out: logits}\n"
                        "  - {op: mark, in: [seen, tokens], out: seen_now}\n");
    if (!once_in(m, 4)) {
        qgc_str_printf(out, "  - {op: sample, in: [logits, rows, positions, seen_now], out: next}\n");
    } else {
        const int chunk = once_in(m, 2) ? 32 : from_to(m, 1, 40);
        qgc_str_printf(out,
                       "  - {op: sample_part, in: [logits, seen_now], chunk: %d, out: parts}\n"
                       "  - {op: sample_merge, in: [logits, parts, rows, positions, seen_now], chunk: %d, "
                       "out: next}\n",
                       chunk, chunk);
    }
    qgc_str_printf(out, "outputs: [logits, next");
    if (once_in(m, 2)) /* read by nobody else, or by somebody else too */
        qgc_str_printf(out, ", \"%s[%d]\"", m->results[below(m, m->n_results)], below(m, m->layers));
    qgc_str_printf(out, "]\n");
}

static void choose_sizes(writer *m) {
    m->layers = from_to(m, 1, 3);
    m->kv_heads = from_to(m, 1, 3);
    m->heads = m->kv_heads * from_to(m, 1, 3);
    m->head_dim = 2 * from_to(m, 1, 6);
    m->interleaved = once_in(m, 3);
    m->turned = "";
    if (once_in(m, 4)) {
        const int first = below(m, m->head_dim - 1), most = (m->head_dim - first) / 2;
        m->turned = text(m, ", first: %d, rotary_dim: %d", first, 2 * from_to(m, 1, most));
    }
    m->width = once_in(m, 4) ? 32 : from_to(m, 3, 24);
    m->hidden = once_in(m, 4) ? 32 : from_to(m, 1, 24);
    m->vocab = from_to(m, 2, 80);
}

const char *random_model_yaml(uint64_t *seed, qgc_arena *a) {
    writer m = {.arena = a, .weights = qgc_str_new(a), .body = qgc_str_new(a)};
    m.seed = seed;
    choose_sizes(&m);
    const char *table = dtype(&m, m.width), *tied = once_in(&m, 3) ? ", tied: embed" : "";
    layer(&m);
    const char *k_dtype = cache_dtype(&m), *v_dtype = once_in(&m, 3) ? cache_dtype(&m) : k_dtype;

    qgc_str out = qgc_str_new(a);
    qgc_str_printf(&out,
                   "qgc: 1\nname: random\narch: random\nweights:\n"
                   "  embed: {shape: [%d, %d], dtype: %s}\n  head: {shape: [%d, %d], dtype: %s%s}\n"
                   "  out_norm: {shape: [%d]}\n%s",
                   m.vocab, m.width, table, m.vocab, m.width, table, tied, m.width, m.weights.text);
    qgc_str_printf(
        &out,
        "state:\n  k_cache: {per: l, shape: [%d, ctx, %d], dtype: %s}\n"
        "  v_cache: {per: l, shape: [%d, ctx, %d], dtype: %s}\n  seen: {shape: [%d], dtype: i32}\n",
        m.kv_heads, m.head_dim, k_dtype, m.kv_heads, m.head_dim, v_dtype, m.vocab);
    qgc_str_printf(&out,
                   "inputs: {tokens: [T], positions: [T], rows: [R]}\ngraph:\n"
                   "  - {op: embedding, in: [tokens, embed], out: x}\n"
                   "  - repeat: {index: l, count: %d, carry: x}\n    body:\n%s",
                   m.layers, m.body.text);
    head(&m, &out);
    return out.text;
}

/* --- numbers --------------------------------------------------------------------------------------------- */

/* Blocks of an f16 scale and 32 signed bytes. */
static void fill_q8_0(unsigned char *to, int64_t n, float scale, uint64_t *seed) {
    for (int64_t block = 0; block < n / 32; block++, to += 34) {
        const uint16_t bits =
            qgc_f32_to_f16(scale / 127 * (1.5f + test_random_float(seed)) / 2); /* little-endian */
        to[0] = (unsigned char)bits;
        to[1] = (unsigned char)(bits >> 8);
        for (int i = 0; i < 32; i++)
            to[2 + i] = (unsigned char)test_random(seed);
    }
}

static const qgc_tensor *fill(const qgc_value *v, uint64_t *seed, qgc_arena *a) {
    const int64_t n = qgc_shape_elems_from(&v->shape, 0), row = v->shape.dim[v->shape.rank - 1];
    qgc_tensor *t = qgc_arena_alloc(a, sizeof *t);
    void *data = qgc_arena_alloc(a, qgc_dtype_bytes(v->dtype, n));
    *t = (qgc_tensor){.name = v->name, .dtype = v->dtype, .rank = v->shape.rank, .data = data};
    for (int i = 0; i < t->rank; i++)
        t->shape[i] = v->shape.dim[i];
    t->bytes = qgc_dtype_bytes(v->dtype, n);
    const float scale = t->rank > 1 ? sqrtf(3.0f / (float)row) : 0.3f;
    if (v->dtype == QGC_Q8_0) {
        fill_q8_0(data, n, scale, seed);
        return t;
    }
    float *x = qgc_arena_array(a, (size_t)n, sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (t->rank > 1 ? 0.0f : 1.0f) + scale * test_random_float(seed);
    qgc_from_f32(v->dtype, x, data, n);
    return t;
}

const qgc_tensor **random_model_weights(const qgc_graph *g, uint64_t *seed, qgc_arena *a) {
    const qgc_tensor **tensors = qgc_arena_array(a, g->n_values, sizeof(qgc_tensor *));
    for (size_t i = 0; i < g->n_values; i++)
        if (g->values[i]->kind == QGC_WEIGHT)
            tensors[i] = fill(g->values[i], seed, a);
    return tensors;
}
