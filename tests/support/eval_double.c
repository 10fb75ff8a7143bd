#include "tests/support/eval_double.h"

#include <math.h>
#include <string.h>

#include "tests/support/cmocka.h"

struct eval_double {
    const qgc_graph *g;
    qgc_arena *arena, *step; /* for ever, and until the next step */
    qgc_sampling sampling;
    qgc_sizes sizes;
    double **data; /* by value id */
    eval_double_see *see;
    void *context;
};

/* One node: inputs and output with their sizes in this step. */
typedef struct {
    const eval_double *e;
    const qgc_node *node;
    const double *in[QGC_MAX_INPUTS];
    const qgc_shape *shape[QGC_MAX_INPUTS];
    double *out, *second; /* results; most ops have one */
} call;

static int64_t dim(const call *c, int input, int i) {
    return qgc_dim_size(c->shape[input]->dim[i], &c->e->sizes);
}

static double number(const call *c, const char *name) {
    return c->node->attr[qgc_attr_index(c->node->op, name)].number;
}

static int64_t whole(const call *c, const char *name) {
    return (int64_t)number(c, name);
}

/* --- stored numbers -------------------------------------------------------------------------------------- */

/* A float of `exponent` and `mantissa` bits after its sign. */
static double widen_bits(uint32_t bits, int exponent, int mantissa) {
    const int bias = (1 << (exponent - 1)) - 1;
    const uint32_t fraction = bits & ((1u << mantissa) - 1);
    const int power = (int)(bits >> mantissa & ((1u << exponent) - 1));
    const double sign = bits >> (exponent + mantissa) & 1 ? -1 : 1;
    if (power == (1 << exponent) - 1)
        return fraction ? NAN : sign * INFINITY;
    return power ? sign * ldexp((double)(fraction | 1u << mantissa), power - bias - mantissa)
                 : sign * ldexp((double)fraction, 1 - bias - mantissa);
}

/* The nearest of those floats, the even one of two; what is too large is infinite. */
static double round_bits(double x, int exponent, int mantissa) {
    const int least = 2 - (1 << (exponent - 1)), most = (1 << (exponent - 1)) - 1;
    int power;
    if (x == 0 || !isfinite(x))
        return x;
    frexp(x, &power);
    power = power - 1 < least ? least : power - 1;
    double y = ldexp(rint(ldexp(x, mantissa - power)), power - mantissa);
    return fabs(y) < ldexp(1, most + 1) ? y : copysign(INFINITY, x);
}

static double round_to(qgc_dtype t, double x) {
    return t == QGC_F16 ? round_bits(x, 5, 10) : t == QGC_BF16 ? round_bits(x, 8, 7) : x;
}

static uint32_t bits_at(const unsigned char *p, int bytes) {
    uint32_t bits = 0;
    for (int i = 0; i < bytes; i++) /* little-endian */
        bits |= (uint32_t)p[i] << 8 * i;
    return bits;
}

static double stored(const qgc_tensor *t, int64_t i) {
    const unsigned char *p = t->data;
    if (t->dtype == QGC_F32)
        return widen_bits(bits_at(p + 4 * i, 4), 8, 23);
    if (t->dtype == QGC_F16)
        return widen_bits(bits_at(p + 2 * i, 2), 5, 10);
    if (t->dtype == QGC_BF16)
        return widen_bits(bits_at(p + 2 * i, 2), 8, 7);
    if (t->dtype == QGC_Q8_0) { /* blocks of an f16 scale and 32 signed bytes */
        const unsigned char *block = p + i / 32 * 34;
        return widen_bits(bits_at(block, 2), 5, 10) * (signed char)block[2 + i % 32];
    }
    fail_msg("eval_double reads no weights stored as %s", qgc_dtypes[t->dtype].name);
    return NAN;
}

/* --- ops ------------------------------------------------------------------------------------------------- */

static void embedding(const call *c) {
    const int64_t d = dim(c, 1, 1);
    for (int64_t t = 0; t < dim(c, 0, 0); t++)
        for (int64_t i = 0; i < d; i++)
            c->out[t * d + i] = c->in[1][(int64_t)c->in[0][t] * d + i];
}

static void rms_norm(const call *c) {
    const int64_t d = dim(c, 1, 0), groups = dim(c, 0, 0) * dim(c, 0, 1) / d;
    for (int64_t g = 0; g < groups; g++) {
        double squares = 0;
        for (int64_t i = 0; i < d; i++)
            squares += c->in[0][g * d + i] * c->in[0][g * d + i];
        for (int64_t i = 0; i < d; i++)
            c->out[g * d + i] =
                c->in[0][g * d + i] / sqrt(squares / (double)d + number(c, "eps")) * c->in[1][i];
    }
}

static void layer_norm(const call *c) {
    const int64_t d = dim(c, 0, 1);
    for (int64_t r = 0; r < dim(c, 0, 0); r++) {
        const double *x = c->in[0] + r * d;
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < d; i++)
            sum += x[i];
        for (int64_t i = 0; i < d; i++)
            squares += pow(x[i] - sum / (double)d, 2);
        for (int64_t i = 0; i < d; i++)
            c->out[r * d + i] =
                (x[i] - sum / (double)d) / sqrt(squares / (double)d + number(c, "eps")) * c->in[1][i] +
                (c->node->n_in > 2 ? c->in[2][i] : 0);
    }
}

static void linear(const call *c) {
    const int64_t rows = dim(c, 0, 0), in = dim(c, 0, 1), out = dim(c, 1, 0);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t o = 0; o < out; o++) {
            double sum = c->node->n_in == 3 ? c->in[2][o] : 0;
            for (int64_t i = 0; i < in; i++)
                sum += c->in[0][r * in + i] * c->in[1][o * in + i];
            c->out[r * out + o] = sum;
        }
}

static int word(const call *c, const char *name) {
    return c->node->attr[qgc_attr_index(c->node->op, name)].choice;
}

/* Frequencies are [2, pairs], and their sum counts. */
static double frequency(const call *c, int input, int64_t i) {
    return c->in[input][i] + c->in[input][dim(c, input, 1) + i];
}

static void rope_freqs(const call *c) {
    const double d = number(c, "rotary_dim");
    for (int64_t i = 0; i < (int64_t)d / 2; i++)
        c->out[i] = exp(-2 * (double)i / d * log(number(c, "base")));
}

static void rope_linear(const call *c) {
    for (int64_t i = 0; i < dim(c, 0, 1); i++)
        c->out[i] = frequency(c, 0, i) / number(c, "factor");
}

/* By wave lengths, as transformers has it. */
static void rope_llama3(const call *c) {
    const double original = number(c, "original"), low = number(c, "low"), high = number(c, "high");
    for (int64_t i = 0; i < dim(c, 0, 1); i++) {
        const double f = frequency(c, 0, i), wave = 2 * acos(-1) / f;
        const double smooth = (original / wave - low) / (high - low);
        c->out[i] = wave < original / high             ? f
                    : low > 0 && wave > original / low ? f / number(c, "factor")
                                                       : (1 - smooth) * f / number(c, "factor") + smooth * f;
    }
}

static double yarn_at(const call *c, const char *beta) {
    const double d = 2 * (double)dim(c, 0, 1);
    return d * log(number(c, "original") / (number(c, beta) * 2 * acos(-1))) / (2 * log(number(c, "base")));
}

static void rope_yarn(const call *c) {
    double low = yarn_at(c, "beta_fast"), high = yarn_at(c, "beta_slow");
    low = number(c, "truncate") != 0 ? floor(low) : low;
    high = number(c, "truncate") != 0 ? ceil(high) : high;
    low = low < 0 ? 0 : low;
    high = high > 2 * (double)dim(c, 0, 1) - 1 ? 2 * (double)dim(c, 0, 1) - 1 : high;
    high += low == high ? 0.001 : 0;
    for (int64_t i = 0; i < dim(c, 0, 1); i++) {
        const double f = frequency(c, 0, i), ramp = ((double)i - low) / (high - low);
        const double kept = 1 - (ramp < 0 ? 0 : ramp > 1 ? 1 : ramp);
        c->out[i] = f / number(c, "factor") * (1 - kept) + f * kept;
    }
}

static void rope_divide(const call *c) {
    for (int64_t i = 0; i < dim(c, 0, 1); i++)
        c->out[i] = frequency(c, 0, i) / c->in[1][i];
}

static void rope_longrope(const call *c) {
    const double *by = c->in[(double)c->e->sizes.ctx > number(c, "original") ? 2 : 1];
    for (int64_t i = 0; i < dim(c, 0, 1); i++)
        c->out[i] = frequency(c, 0, i) / by[i];
}

/* Element by element: what turns is d elements from `first` on of each head; neox: element i of them turns with i + d / 2, else with its
 * neighbour. */
static void rope(const call *c) {
    const int64_t head = whole(c, "head_dim"), first = whole(c, "first");
    const bool given = c->node->n_in == 3;
    const int64_t d = given                    ? 2 * dim(c, 2, 1)
                      : whole(c, "rotary_dim") ? whole(c, "rotary_dim")
                                               : head - first;
    for (int64_t e = 0; e < dim(c, 0, 0) * dim(c, 0, 1); e++) {
        const int64_t i = e % head - first, t = e / dim(c, 0, 1);
        c->out[e] = c->in[0][e];
        if (i < 0 || i >= d)
            continue;
        const bool neox = word(c, "style") == 0, second = neox ? i >= d / 2 : i % 2 == 1;
        const int64_t pair = neox ? i % (d / 2) : i / 2, other = (neox ? d / 2 : 1) * (second ? -1 : 1);
        const double turn = c->in[1][t] * (given ? frequency(c, 2, pair)
                                                 : pow(number(c, "base"), -(double)(2 * pair) / (double)d));
        c->out[e] = c->in[0][e] * cos(turn) + c->in[0][e + other] * (second ? sin(turn) : -sin(turn));
        c->out[e] *= number(c, "scale");
    }
}

static void append(const call *c) {
    const int64_t heads = dim(c, 0, 0), ctx = dim(c, 0, 1), d = dim(c, 0, 2);
    for (int64_t t = 0; t < dim(c, 1, 0); t++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t i = 0; i < d; i++)
                c->out[(h * ctx + (int64_t)c->in[2][t]) * d + i] =
                    round_to(c->node->in[0]->dtype, c->in[1][(t * heads + h) * d + i]);
}

/* y [d + 2]: the values of `n` positions from `first` on, each weighted by exp(score - largest), then the
 * largest score and the sum of the weights. */
static void attend(const call *c, int64_t t, int64_t h, int64_t first, int64_t n, double *y) {
    const int64_t d = dim(c, 1, 2), ctx = dim(c, 1, 1), heads = dim(c, 0, 1) / d;
    const int64_t start = h / (heads / dim(c, 1, 0)) * ctx + first;
    const double *q = c->in[0] + (t * heads + h) * d;
    double *scores = qgc_arena_array(c->e->step, (size_t)n + 1, sizeof *scores);
    for (int64_t i = 0; i < d + 2; i++)
        y[i] = 0;
    y[d] = -INFINITY;
    for (int64_t j = 0; j < n; j++) {
        for (int64_t i = 0; i < d; i++)
            scores[j] += q[i] * c->in[1][(start + j) * d + i];
        scores[j] *= number(c, "scale");
        if (number(c, "softcap") > 0)
            scores[j] = number(c, "softcap") * tanh(scores[j] / number(c, "softcap"));
        y[d] = fmax(y[d], scores[j]);
    }
    for (int64_t j = 0; j < n; j++) {
        const double weight = exp(scores[j] - y[d]);
        for (int64_t i = 0; i < d; i++)
            y[i] += weight * c->in[2][(start + j) * d + i];
        y[d + 1] += weight;
    }
}

/* How many positions token t sees. */
static int64_t seen_from(const call *c, int64_t t) {
    const int64_t all = (int64_t)c->in[3][t] + 1, window = whole(c, "window");
    return window && window < all ? window : all;
}

static void attention(const call *c) {
    const int64_t d = dim(c, 1, 2), heads = dim(c, 0, 1) / d;
    double *y = qgc_arena_array(c->e->step, (size_t)d + 2, sizeof *y);
    for (int64_t t = 0; t < dim(c, 0, 0); t++)
        for (int64_t h = 0; h < heads; h++) {
            const int64_t n = seen_from(c, t);
            attend(c, t, h, (int64_t)c->in[3][t] + 1 - n, n, y);
            for (int64_t i = 0; i < d; i++)
                c->out[(t * heads + h) * d + i] = y[i] / y[d + 1];
        }
}

/* A split has 32 positions at least. */
static void attention_part(const call *c) {
    const int64_t d = dim(c, 1, 2), heads = dim(c, 0, 1) / d, parts = whole(c, "parts");
    for (int64_t t = 0; t < dim(c, 0, 0); t++) {
        const int64_t n = seen_from(c, t), skipped = (int64_t)c->in[3][t] + 1 - n;
        const int64_t split = (int64_t)fmax(64, ceil((double)n / (double)parts));
        for (int64_t p = 0; p < parts; p++)
            for (int64_t h = 0; h < heads; h++) {
                const int64_t first = (int64_t)fmin((double)(p * split), (double)n);
                const int64_t some = (int64_t)fmin((double)split, (double)(n - first));
                attend(c, t, h, skipped + first, some, c->out + ((t * parts + p) * heads + h) * (d + 2));
            }
    }
}

static void attention_merge(const call *c) {
    const int64_t d = whole(c, "head_dim"), parts = whole(c, "parts"), width = dim(c, 0, 1);
    const int64_t heads = width / parts / (d + 2);
    for (int64_t t = 0; t < dim(c, 0, 0); t++)
        for (int64_t h = 0; h < heads; h++) {
            double largest = -INFINITY, total = 0;
            for (int64_t p = 0; p < parts; p++)
                largest = fmax(largest, c->in[0][t * width + (p * heads + h) * (d + 2) + d]);
            double *y = c->out + (t * heads + h) * d;
            for (int64_t p = 0; p < parts; p++) {
                const double *part = c->in[0] + t * width + (p * heads + h) * (d + 2);
                const double weight = exp(part[d] - largest);
                total += weight * part[d + 1];
                for (int64_t i = 0; i < d; i++)
                    y[i] += weight * part[i];
            }
            for (int64_t i = 0; i < d; i++)
                y[i] /= total;
        }
}

static int64_t elems(const call *c) {
    return qgc_shape_elems(c->shape[0], &c->e->sizes);
}

static void add(const call *c) {
    for (int64_t i = 0; i < elems(c); i++)
        c->out[i] = c->in[0][i] + c->in[1][i];
}

/* Where one has one number a row, it is that of every element of the row. */
static void mul(const call *c) {
    const int64_t rows = dim(c, 0, 0), a = dim(c, 0, 1), b = dim(c, 1, 1), d = a > b ? a : b;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < d; i++)
            c->out[r * d + i] = c->in[0][r * a + i % a] * c->in[1][r * b + i % b];
}

static void silu(const call *c) {
    for (int64_t i = 0; i < elems(c); i++)
        c->out[i] = c->in[0][i] / (1 + exp(-c->in[0][i]));
}

static void gelu(const call *c) {
    for (int64_t i = 0; i < elems(c); i++) {
        const double x = c->in[0][i], u = sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x);
        c->out[i] = x * (word(c, "approximate") == 0 ? 1 + tanh(u) : erfc(-x / sqrt(2))) / 2;
    }
}

static void sigmoid(const call *c) {
    for (int64_t i = 0; i < elems(c); i++)
        c->out[i] = 1 / (1 + exp(-c->in[0][i]));
}

static void scale(const call *c) {
    for (int64_t i = 0; i < elems(c); i++)
        c->out[i] = c->in[0][i] * number(c, "factor");
}

static void softcap(const call *c) {
    for (int64_t i = 0; i < elems(c); i++)
        c->out[i] = number(c, "cap") * tanh(c->in[0][i] / number(c, "cap"));
}

static void select_rows(const call *c) {
    const int64_t d = dim(c, 0, 1);
    for (int64_t r = 0; r < dim(c, 1, 0); r++)
        for (int64_t i = 0; i < d; i++)
            c->out[r * d + i] = c->in[0][(int64_t)c->in[1][r] * d + i];
}

static void mark(const call *c) {
    for (int64_t t = 0; t < dim(c, 1, 0); t++)
        c->out[(int64_t)c->in[1][t]] = 1;
}

/* --- experts --------------------------------------------------------------------------------------------- */

/* An expert is chosen if fewer than n are before it. */
static void route(const call *c) {
    const int64_t all = dim(c, 0, 1), n = whole(c, "experts");
    const int scoring = word(c, "scoring");
    for (int64_t r = 0; r < dim(c, 0, 0); r++) {
        const double *s = c->in[0] + r * all;
        double p[64], by[64], total = 0, chosen = 0, of_chosen = 0;
        for (int64_t i = 0; i < all; i++)
            total += exp(s[i]);
        for (int64_t i = 0; i < all; i++) {
            p[i] = scoring == 0 ? exp(s[i]) / total : scoring == 1 ? s[i] : 1 / (1 + exp(-s[i]));
            by[i] = p[i] + (c->node->n_in > 1 ? c->in[1][i] : 0);
        }
        for (int64_t i = 0; i < all; i++) {
            int64_t before = 0;
            for (int64_t k = 0; k < all; k++)
                before += by[k] > by[i] || (k < i && by[k] == by[i]);
            if (before >= n)
                continue;
            c->out[r * n + before] = (double)i;
            c->second[r * n + before] = scoring == 1 ? exp(s[i]) : p[i];
            chosen += p[i], of_chosen += exp(s[i]);
        }
        for (int64_t k = 0; k < n; k++)
            c->second[r * n + k] *= number(c, "scale") / (scoring == 1            ? of_chosen
                                                          : whole(c, "normalize") ? chosen
                                                                                  : 1);
    }
}

static void expert_linear(const call *c) {
    const int64_t n = dim(c, 2, 1), out = dim(c, 1, 1), in = dim(c, 1, 2);
    for (int64_t k = 0; k < dim(c, 2, 0) * n; k++)
        for (int64_t o = 0; o < out; o++) {
            const int64_t row = (int64_t)c->in[2][k] * out + o;
            const double *x = c->in[0] + (dim(c, 0, 1) == in ? k / n : k) * in;
            double sum = c->node->n_in > 3 ? c->in[3][row] : 0;
            for (int64_t i = 0; i < in; i++)
                sum += x[i] * c->in[1][row * in + i];
            c->out[k * out + o] = sum;
        }
}

static void expert_sum(const call *c) {
    const int64_t n = dim(c, 1, 1), d = dim(c, 0, 1) / n;
    for (int64_t i = 0; i < dim(c, 0, 0) * n * d; i++)
        c->out[i / (n * d) * d + i % d] += c->in[1][i / d] * c->in[0][i];
}

/* --- sampling -------------------------------------------------------------------------------------------- */

static double penalised(const call *c, double logit, double seen) {
    const double penalty = (double)c->e->sampling.repeat_penalty;
    return seen == 0 ? logit : logit > 0 ? logit / penalty : logit * penalty;
}

/* The ids by falling x, equal ones in their order. */
static int64_t *sorted(const call *c, const double *x, int64_t n) {
    int64_t *ids = qgc_arena_array(c->e->step, (size_t)n, sizeof *ids);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = i;
        for (; at > 0 && x[ids[at - 1]] < x[i]; at--)
            ids[at] = ids[at - 1];
        ids[at] = i;
    }
    return ids;
}

/* A number in [0, 1) from Philox4x32-10 with counter (position, 0, 0, 0). */
static double drawn(uint64_t seed, uint32_t position) {
    uint32_t x[4] = {position, 0, 0, 0}, key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int round = 0; round < 10; round++) {
        const uint64_t first = (uint64_t)x[0] * 0xD2511F53u, second = (uint64_t)x[2] * 0xCD9E8D57u;
        const uint32_t y[4] = {(uint32_t)(second >> 32) ^ x[1] ^ key[0], (uint32_t)second,
                               (uint32_t)(first >> 32) ^ x[3] ^ key[1], (uint32_t)first};
        memcpy(x, y, sizeof x);
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return ldexp((double)x[1], -32) + ldexp((double)x[0], -64);
}

/* Of the logits l, after the penalty, -infinity where they cannot be chosen; `most` is the id of the
 * largest. */
static int64_t choose(const call *c, const double *l, int64_t n, int64_t most, uint32_t position) {
    const qgc_sampling *s = &c->e->sampling;
    if (!(s->temperature > 0))
        return most;
    const int64_t *ids = sorted(c, l, n);
    double *w = qgc_arena_array(c->e->step, (size_t)n, sizeof *w), mass = 0, sum = 0;
    const int64_t top = s->top_k > 0 && s->top_k < n ? s->top_k : n;
    for (int64_t i = 0; i < top; i++)
        mass += w[ids[i]] = exp((l[ids[i]] - l[most]) / (double)s->temperature);
    const double need = s->top_p < 1 ? mass * (double)s->top_p : INFINITY;
    mass = 0;
    for (int64_t i = 0; i < top; i++) {
        if (mass >= need || w[ids[i]] < (double)s->min_p)
            w[ids[i]] = 0;
        mass += w[ids[i]];
    }
    const double target = drawn(s->seed, position) * mass;
    for (int64_t i = 0; i < n; i++)
        if ((sum += w[i]) > target)
            return i;
    return n - 1;
}

static double *penalised_row(const call *c, int64_t r, int64_t n, const double *seen) {
    double *l = qgc_arena_array(c->e->step, (size_t)n, sizeof *l);
    for (int64_t i = 0; i < n; i++)
        l[i] = penalised(c, c->in[0][r * n + i], seen[i]);
    return l;
}

static void sample(const call *c) {
    const int64_t n = dim(c, 0, 1);
    for (int64_t r = 0; r < dim(c, 0, 0); r++) {
        const double *l = penalised_row(c, r, n, c->in[3]);
        const double position = c->in[2][(int64_t)c->in[1][r]];
        c->out[r] = (double)choose(c, l, n, sorted(c, l, n)[0], (uint32_t)position);
    }
}

static void sample_part(const call *c) {
    const int64_t n = dim(c, 0, 1), chunk = whole(c, "chunk"), parts = (n + chunk - 1) / chunk;
    for (int64_t r = 0; r < dim(c, 0, 0); r++) {
        const double *l = penalised_row(c, r, n, c->in[1]);
        for (int64_t p = 0; p < parts; p++)
            c->out[r * parts + p] = -INFINITY;
        for (int64_t i = 0; i < n; i++)
            c->out[r * parts + i / chunk] = fmax(c->out[r * parts + i / chunk], l[i]);
    }
}

/* Goes by the parts wherever they can tell: the largest logit is in the first chunk of those with the
 * largest part, the top_k largest in the top_k chunks with the largest. */
static void sample_merge(const call *c) {
    const int64_t n = dim(c, 0, 1), n_parts = dim(c, 1, 1), chunk = whole(c, "chunk");
    for (int64_t r = 0; r < dim(c, 0, 0); r++) {
        double *l = penalised_row(c, r, n, c->in[4]);
        const int64_t *parts = sorted(c, c->in[1] + r * n_parts, n_parts);
        int64_t most = parts[0] * chunk;
        for (int64_t i = most; i < n && i < (parts[0] + 1) * chunk; i++)
            most = l[i] > l[most] ? i : most;
        for (int64_t k = c->e->sampling.top_k; k > 0 && k < n_parts; k++)
            for (int64_t i = parts[k] * chunk; i < n && i < (parts[k] + 1) * chunk; i++)
                l[i] = -INFINITY;
        const double position = c->in[3][(int64_t)c->in[2][r]];
        c->out[r] = (double)choose(c, l, n, most, (uint32_t)position);
    }
}

typedef void op_fn(const call *c);

static op_fn *const ops[QGC_N_OPS] = {
    [QGC_OP_EMBEDDING] = embedding,
    [QGC_OP_RMS_NORM] = rms_norm,
    [QGC_OP_LINEAR] = linear,
    [QGC_OP_LAYER_NORM] = layer_norm,
    [QGC_OP_ROUTE] = route,
    [QGC_OP_EXPERT_LINEAR] = expert_linear,
    [QGC_OP_EXPERT_SUM] = expert_sum,
    [QGC_OP_ROPE] = rope,
    [QGC_OP_ROPE_FREQS] = rope_freqs,
    [QGC_OP_ROPE_LINEAR] = rope_linear,
    [QGC_OP_ROPE_LLAMA3] = rope_llama3,
    [QGC_OP_ROPE_YARN] = rope_yarn,
    [QGC_OP_ROPE_DIVIDE] = rope_divide,
    [QGC_OP_ROPE_LONGROPE] = rope_longrope,
    [QGC_OP_APPEND] = append,
    [QGC_OP_ATTENTION] = attention,
    [QGC_OP_ATTENTION_PART] = attention_part,
    [QGC_OP_ATTENTION_MERGE] = attention_merge,
    [QGC_OP_ADD] = add,
    [QGC_OP_MUL] = mul,
    [QGC_OP_SILU] = silu,
    [QGC_OP_GELU] = gelu,
    [QGC_OP_SIGMOID] = sigmoid,
    [QGC_OP_SCALE] = scale,
    [QGC_OP_SOFTCAP] = softcap,
    [QGC_OP_SELECT_ROWS] = select_rows,
    [QGC_OP_MARK] = mark,
    [QGC_OP_SAMPLE] = sample,
    [QGC_OP_SAMPLE_PART] = sample_part,
    [QGC_OP_SAMPLE_MERGE] = sample_merge,
};

/* --- the evaluator --------------------------------------------------------------------------------------- */

static double *room_for(const eval_double *e, const qgc_value *v, qgc_arena *a) {
    return qgc_arena_array(a, (size_t)qgc_shape_elems(&v->shape, &e->sizes), sizeof(double));
}

eval_double *eval_double_new(const qgc_graph *g, const qgc_tensor *const *weights, int64_t ctx,
                             qgc_arena *a) {
    eval_double *e = qgc_arena_alloc(a, sizeof *e);
    *e = (eval_double){.g = g, .arena = a, .step = qgc_arena_new(), .sizes = {.ctx = ctx}};
    e->sampling = (qgc_sampling){.top_p = 1, .repeat_penalty = 1};
    e->data = qgc_arena_array(a, g->n_values, sizeof *e->data);
    for (size_t i = 0; i < g->n_values; i++) {
        const qgc_value *v = g->values[i];
        if (v->kind != QGC_STATE && v->kind != QGC_WEIGHT)
            continue;
        e->data[i] = room_for(e, v, a);
        for (int64_t k = 0; v->kind == QGC_WEIGHT && k < qgc_shape_elems_from(&v->shape, 0); k++)
            e->data[i][k] = stored(weights[i], k);
    }
    return e;
}

void eval_double_drop(eval_double *e) {
    qgc_arena_drop(e->step);
}

void eval_double_set_sampling(eval_double *e, const qgc_sampling *s) {
    e->sampling = *s;
}

static void fill_input(eval_double *e, const qgc_value *v, const int32_t *tokens, int64_t first) {
    double *x = e->data[v->id] = room_for(e, v, e->step);
    const int64_t n = e->sizes.tokens, rows = e->sizes.rows;
    if (strcmp(v->name, "rows") == 0)
        for (int64_t i = 0; i < rows; i++)
            x[i] = (double)(n - rows + i);
    else
        for (int64_t i = 0; i < n; i++)
            x[i] = strcmp(v->name, "tokens") == 0 ? tokens[i] : (double)(first + i);
}

static void run_node(eval_double *e, const qgc_node *n) {
    call c = {.e = e, .node = n};
    for (int i = 0; i < n->n_in; i++) {
        c.in[i] = e->data[n->in[i]->id];
        c.shape[i] = &n->in[i]->shape;
    }
    c.out = qgc_ops[n->op].traits & QGC_IN_PLACE ? e->data[n->in[0]->id] : room_for(e, n->out[0], e->step);
    if (n->n_out > 1)
        c.second = e->data[n->out[1]->id] = room_for(e, n->out[1], e->step);
    if (!ops[n->op] || n->n_out > 2)
        fail_msg("op \"%s\" has no formula in tests/support/eval_double.c", qgc_ops[n->op].name);
    else
        ops[n->op](&c);
    e->data[n->out[0]->id] = c.out;
    if (e->see)
        e->see(e->context, n, c.out, qgc_shape_elems(&n->out[0]->shape, &e->sizes));
}

void eval_double_watch(eval_double *e, eval_double_see *see, void *context) {
    e->see = see;
    e->context = context;
}

/* Does the kernel of a group leave the result of one of its nodes in memory? What another of its nodes reads stays
 * inside, but for the rows of an embedding, the logits of which it finds the largest, and what a router reads. */
static bool is_left(const qgc_node *n) {
    const qgc_node *first = n;
    while (first->prev && first->prev->group == n->group)
        first = first->prev;
    bool left = true, routes = false;
    for (const qgc_node *m = first; m && m->group == n->group; m = m->next)
        routes = routes || m->op == QGC_OP_ROUTE;
    for (const qgc_node *reader = first; reader && reader->group == n->group; reader = reader->next)
        for (int i = 0; i < reader->n_in; i++)
            left = left && (reader->in[i] != n->out[0] || reader->op == QGC_OP_SAMPLE_PART);
    return left || routes || n->op == QGC_OP_EMBEDDING;
}

/* After the last node of a group nothing can read what its kernel does not leave. */
static void forget_inside(const eval_double *e, const qgc_node *last) {
    for (const qgc_node *n = last; n && n->group == last->group; n = n->prev)
        for (int64_t i = 0; !is_left(n) && i < qgc_shape_elems(&n->out[0]->shape, &e->sizes); i++)
            e->data[n->out[0]->id][i] = NAN;
}

void eval_double_step(eval_double *e, const int32_t *tokens, int64_t n, int64_t first, bool all_rows) {
    qgc_arena_drop(e->step);
    e->step = qgc_arena_new();
    e->sizes.tokens = n;
    e->sizes.rows = all_rows ? n : 1;
    for (size_t i = 0; i < e->g->n_inputs; i++)
        fill_input(e, e->g->inputs[i], tokens, first);
    for (const qgc_node *node = e->g->first; node; node = node->next) {
        run_node(e, node);
        if (node->group >= 0 && (!node->next || node->next->group != node->group))
            forget_inside(e, node);
    }
}

const double *eval_double_value(const eval_double *e, const qgc_value *v, int64_t *n) {
    *n = qgc_shape_elems(&v->shape, &e->sizes);
    return e->data[v->id];
}
