#include <math.h>
#include <string.h>

#include "graph/eval.h"
#include "graph/ops.h"
#include "tests/support/cmocka.h"
#include "tests/support/random.h"

/* Each reference against a plain computation in double, over awkward shapes. */

typedef struct {
    qgc_arena *arena;
    qgc_pool *pool;
    uint64_t seed;
    qgc_node node;
    qgc_call call;
} fixture;

static int setup(void **state) {
    qgc_arena *arena = qgc_arena_new();
    fixture *f = qgc_arena_alloc(arena, sizeof *f);
    f->arena = arena;
    f->pool = qgc_pool_new(3);
    f->seed = 1;
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    qgc_pool_drop(f->pool);
    qgc_arena_drop(f->arena);
    return 0;
}

static void begin(fixture *f, qgc_op op) {
    f->node = (qgc_node){.op = op};
    f->call = (qgc_call){.node = &f->node, .pool = f->pool, .scratch = f->arena};
}

static int64_t elems(const qgc_operand *o) {
    int64_t n = 1;
    for (int i = 0; i < o->rank; i++)
        n *= o->dim[i];
    return n;
}

#define DIMS(...)                                                                  \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]) { \
        __VA_ARGS__                                                                \
    }

static qgc_operand *shaped(qgc_operand *o, qgc_dtype dtype, int rank, const int64_t *dim) {
    *o = (qgc_operand){.dtype = dtype, .rank = rank};
    memcpy(o->dim, dim, (size_t)rank * sizeof *dim);
    return o;
}

/* An input of random numbers, rounded to its dtype; `wide` gets what they are then. */
static const float *random_input(fixture *f, qgc_dtype dtype, int rank, const int64_t *dim) {
    qgc_operand *o = shaped(&f->call.in[f->node.n_in++], dtype, rank, dim);
    int64_t n = elems(o);
    float *exact = qgc_arena_array(f->arena, (size_t)n, sizeof *exact);
    for (int64_t i = 0; i < n; i++)
        exact[i] = test_random_float(&f->seed);
    o->data = qgc_arena_alloc(f->arena, qgc_dtype_bytes(dtype, n));
    qgc_from_f32(dtype, exact, o->data, n);
    qgc_to_f32(dtype, o->data, exact, n);
    return exact;
}

static int32_t *index_input(fixture *f, int64_t n, int64_t first) {
    qgc_operand *o = shaped(&f->call.in[f->node.n_in++], QGC_I32, DIMS(n));
    int32_t *data = o->data = qgc_arena_array(f->arena, (size_t)n, sizeof *data);
    for (int64_t i = 0; i < n; i++)
        data[i] = (int32_t)(first + i);
    return data;
}

static float *run(fixture *f, int rank, const int64_t *dim) {
    qgc_operand *o = shaped(&f->call.out[0], QGC_F32, rank, dim);
    o->data = qgc_arena_array(f->arena, (size_t)elems(o), sizeof(float));
    memset(o->data, 0xFF, (size_t)elems(o) * sizeof(float)); /* NaN, so that nothing is left unwritten */
    qgc_ops[f->node.op].ref(&f->call);
    return o->data;
}

static void near(double got, double want, double tolerance) {
    if (!(fabs(got - want) <= tolerance))
        fail_msg("got %.9g, want %.9g", got, want);
}

static void number(fixture *f, const char *attr, double x) {
    f->node.attr[qgc_attr_index(f->node.op, attr)].number = x;
}

static void choice(fixture *f, const char *attr, int index) {
    f->node.attr[qgc_attr_index(f->node.op, attr)].choice = index;
}

static void check_linear(fixture *f, qgc_dtype dtype, int64_t tokens, int64_t in, int64_t out, bool bias) {
    begin(f, QGC_OP_LINEAR);
    const float *x = random_input(f, QGC_F32, DIMS(tokens, in));
    const float *w = random_input(f, dtype, DIMS(out, in));
    const float *b = bias ? random_input(f, QGC_BF16, DIMS(out)) : NULL;
    const float *y = run(f, DIMS(tokens, out));
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t o = 0; o < out; o++) {
            double sum = b ? b[o] : 0;
            for (int64_t i = 0; i < in; i++)
                sum += (double)x[t * in + i] * w[o * in + i];
            near(y[t * out + o], sum, 1e-6 * (double)in + 1e-6);
        }
}

static void linear(void **state) {
    const int64_t sizes[][3] = {{1, 1, 1},    {1, 7, 13},    {2, 512, 8},  {3, 513, 9},
                                {5, 1031, 7}, {13, 96, 131}, {1, 896, 67}, {4, 600, 3}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int bias = 0; bias < 2; bias++) {
            check_linear(*state, QGC_F32, sizes[i][0], sizes[i][1], sizes[i][2], bias);
            check_linear(*state, QGC_BF16, sizes[i][0], sizes[i][1], sizes[i][2], bias);
        }
}

static void linear_over_blocks(void **state) {
    fixture *f = *state;
    enum { IN = 1120, OUT = 11, TOKENS = 3, BLOCKS = IN / 32 };
    begin(f, QGC_OP_LINEAR);
    const float *x = random_input(f, QGC_F32, DIMS(TOKENS, IN));
    qgc_operand *w = shaped(&f->call.in[f->node.n_in++], QGC_Q8_0, DIMS(OUT, IN));
    unsigned char *block = w->data = qgc_arena_alloc(f->arena, OUT * BLOCKS * 34);
    for (int i = 0; i < OUT * BLOCKS; i++, block += 34) {
        block[0] = 0;
        block[1] = (unsigned char)(0x20 + i % 4 * 4); /* binary16: 2^-7, 2^-6, 2^-5, 2^-4 */
        for (int k = 0; k < 32; k++)
            block[2 + k] = (unsigned char)test_random(&f->seed);
    }
    const float *y = run(f, DIMS(TOKENS, OUT));
    for (int64_t t = 0; t < TOKENS; t++)
        for (int64_t o = 0; o < OUT; o++) {
            double sum = 0;
            for (int64_t i = 0; i < IN; i++) {
                const unsigned char *at = (unsigned char *)w->data + (o * BLOCKS + i / 32) * 34;
                sum += (double)x[t * IN + i] * (signed char)at[2 + i % 32] * ldexp(1, (at[1] >> 2) - 15);
            }
            near(y[t * OUT + o], sum, 2e-4);
        }
}

static void linear_takes_weights_from_odd_addresses(void **state) {
    fixture *f = *state;
    begin(f, QGC_OP_LINEAR);
    const float *x = random_input(f, QGC_F32, DIMS(2, 19));
    const float *w = random_input(f, QGC_F32, DIMS(5, 19));
    char *moved = qgc_arena_alloc(f->arena, 5 * 19 * 4 + 1);
    memcpy(moved + 1, w, 5 * 19 * 4);
    f->call.in[1].data = moved + 1;
    const float *y = run(f, DIMS(2, 5));
    for (int i = 0; i < 10; i++) {
        double sum = 0;
        for (int k = 0; k < 19; k++)
            sum += (double)x[i / 5 * 19 + k] * w[i % 5 * 19 + k];
        near(y[i], sum, 1e-5);
    }
}

static void check_norm(fixture *f, int64_t tokens, int64_t n, int64_t d) {
    begin(f, QGC_OP_RMS_NORM);
    const float *x = random_input(f, QGC_F32, DIMS(tokens, n));
    const float *w = random_input(f, QGC_F16, DIMS(d));
    number(f, "eps", 1e-5);
    const float *y = run(f, DIMS(tokens, n));
    for (int64_t group = 0; group < tokens * n / d; group++) {
        double sum = 0;
        for (int64_t i = 0; i < d; i++)
            sum += pow(x[group * d + i], 2);
        for (int64_t i = 0; i < d; i++)
            near(y[group * d + i], x[group * d + i] / sqrt(sum / (double)d + 1e-5) * w[i], 1e-6);
    }
}

static void rms_norm(void **state) {
    check_norm(*state, 1, 1, 1);
    check_norm(*state, 1, 897, 897);
    check_norm(*state, 37, 21, 7);
}

static void rms_norm_of_zeros_is_zero(void **state) {
    fixture *f = *state;
    begin(f, QGC_OP_RMS_NORM);
    random_input(f, QGC_F32, DIMS(1, 5));
    memset(f->call.in[0].data, 0, 5 * sizeof(float));
    random_input(f, QGC_F32, DIMS(5));
    number(f, "eps", 1e-6);
    const float *y = run(f, DIMS(1, 5));
    for (int i = 0; i < 5; i++)
        near(y[i], 0, 0);
}

static void layer_norm(void **state) {
    fixture *f = *state;
    const int64_t sizes[][2] = {{1, 1}, {3, 7}, {2, 1031}, {70, 12}};
    for (int s = 0; s < 4; s++)
        for (int bias = 0; bias < 2; bias++) {
            const int64_t rows = sizes[s][0], d = sizes[s][1];
            begin(f, QGC_OP_LAYER_NORM);
            const float *x = random_input(f, QGC_F32, DIMS(rows, d)), *w = random_input(f, QGC_BF16, DIMS(d));
            const float *b = bias ? random_input(f, QGC_F32, DIMS(d)) : NULL;
            number(f, "eps", 1e-3);
            const float *y = run(f, DIMS(rows, d));
            for (int64_t at = 0; at < rows * d; at++) {
                double mean = 0, square = 0; /* the variance as the mean square less the square of the mean */
                for (int64_t i = at / d * d; i < (at / d + 1) * d; i++)
                    mean += x[i], square += (double)x[i] * x[i];
                mean /= (double)d;
                const double variance = square / (double)d - mean * mean;
                near(y[at], (x[at] - mean) / sqrt(variance + 1e-3) * w[at % d] + (b ? b[at % d] : 0), 2e-6);
            }
        }
}

/* --- experts --- */

/* Weights of n experts of `all` for a token; a call has one output more than most. */
static const float *run_route(fixture *f, int64_t rows, int64_t n, const int32_t **ids) {
    qgc_operand *o = shaped(&f->call.out[1], QGC_F32, DIMS(rows, n));
    float *weights = o->data = qgc_arena_array(f->arena, (size_t)(rows * n), sizeof(float));
    const void *chosen = run(f, DIMS(rows, n));
    *ids = chosen;
    return weights;
}

/* In plain words: those are chosen than which fewer than n are better. */
static void check_route(fixture *f, int64_t rows, int64_t all, int64_t n, int scoring, int normalize,
                        bool biased) {
    begin(f, QGC_OP_ROUTE);
    const float *s = random_input(f, QGC_F32, DIMS(rows, all));
    const float *bias = biased ? random_input(f, QGC_F32, DIMS(all)) : NULL;
    number(f, "experts", (double)n), number(f, "normalize", normalize), number(f, "scale", 2.5);
    choice(f, "scoring", scoring);
    const int32_t *ids;
    const float *weights = run_route(f, rows, n, &ids);
    for (int64_t r = 0; r < rows; r++) {
        double total = 0, chosen = 0;
        for (int64_t i = 0; i < all; i++)
            total += exp(s[r * all + i]);
        for (int pass = 0; pass < 2; pass++)
            for (int64_t k = 0; k < n; k++) {
                const int32_t id = ids[r * n + k];
                const double x = s[r * all + id];
                const double p = scoring == 0 ? exp(x) / total : scoring == 1 ? exp(x) : 1 / (1 + exp(-x));
                chosen += pass ? 0 : p;
                if (pass)
                    near(weights[r * n + k], 2.5 * p / (normalize || scoring == 1 ? chosen : 1), 1e-6);
                int64_t better = 0;
                for (int64_t i = 0; i < all; i++) {
                    const double q = s[r * all + i];
                    const double by = scoring == 2   ? 1 / (1 + exp(-q)) - 1 / (1 + exp(-x))
                                      : scoring == 0 ? (exp(q) - exp(x)) / total
                                                     : q - x;
                    better += i != id && by + (bias ? (double)bias[i] - bias[id] : 0) > 0;
                }
                assert_int_equal(better, k);
            }
    }
}

static void route(void **state) {
    for (int scoring = 0; scoring < 3; scoring++)
        for (int normalize = 0; normalize < 2; normalize++)
            for (int bias = 0; bias < 2; bias++) {
                check_route(*state, 1, 1, 1, scoring, normalize, bias);
                check_route(*state, 5, 8, 2, scoring, normalize, bias);
                check_route(*state, 3, 130, 9, scoring, normalize, bias);
                check_route(*state, 2, 7, 7, scoring, normalize, bias);
            }
}

static void experts_compute_what_their_matrices_say(void **state) {
    fixture *f = *state;
    enum { ROWS = 5, N = 3, ALL = 6, IN = 37, OUT = 11 };
    for (int each = 0; each < 2; each++)
        for (int bias = 0; bias < 2; bias++) {
            begin(f, QGC_OP_EXPERT_LINEAR);
            const float *x = random_input(f, QGC_F32, DIMS(ROWS, each ? N * IN : IN));
            const float *w = random_input(f, QGC_BF16, DIMS(ALL, OUT, IN));
            int32_t *ids = index_input(f, ROWS * N, 0);
            f->call.in[2].rank = 2, f->call.in[2].dim[0] = ROWS, f->call.in[2].dim[1] = N;
            for (int i = 0; i < ROWS * N; i++)
                ids[i] = (int32_t)(test_random(&f->seed) % ALL);
            const float *b = bias ? random_input(f, QGC_F16, DIMS(ALL, OUT)) : NULL;
            const float *y = run(f, DIMS(ROWS, N * OUT));
            for (int i = 0; i < ROWS * N * OUT; i++) {
                const int item = i / OUT, row = ids[item] * OUT + i % OUT;
                double sum = b ? b[row] : 0;
                for (int k = 0; k < IN; k++)
                    sum += (double)x[(each ? item : item / N) * IN + k] * w[row * IN + k];
                near(y[i], sum, 1e-5);
            }
        }
}

static void experts_are_weighted(void **state) {
    fixture *f = *state;
    enum { ROWS = 4, N = 3, D = 13 };
    begin(f, QGC_OP_EXPERT_SUM);
    const float *y = random_input(f, QGC_F32, DIMS(ROWS, N * D)),
                *w = random_input(f, QGC_F32, DIMS(ROWS, N));
    const float *sum = run(f, DIMS(ROWS, D));
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < D; i++)
            near(sum[r * D + i],
                 (double)w[r * N] * y[r * N * D + i] + (double)w[r * N + 1] * y[(r * N + 1) * D + i] +
                     (double)w[r * N + 2] * y[(r * N + 2) * D + i],
                 1e-6);
}

/* What turns is `d` elements from element `from` on of each head. */
typedef struct {
    int64_t head_dim, from, d;
    bool interleaved;
} turning;

/* An element, what it turns with, and the angle for position 1; false if it stays. */
static bool turns_with(const turning *w, int64_t element, int64_t *other, double *angle) {
    const int64_t i = element - w->from, half = w->d / 2;
    if (i < 0 || i >= w->d)
        return false;
    *other = w->interleaved ? (i % 2 ? -1 : 1) : i < half ? half : -half;
    *angle = pow(1e6, -2.0 * (double)(w->interleaved ? i / 2 : i % half) / (double)w->d);
    return true;
}

static void check_rope(fixture *f, int64_t tokens, int64_t heads, turning w, int64_t first) {
    begin(f, QGC_OP_ROPE);
    const int64_t row = heads * w.head_dim;
    const float *x = random_input(f, QGC_F32, DIMS(tokens, row));
    index_input(f, tokens, first);
    choice(f, "style", w.interleaved);
    number(f, "base", 1e6);
    number(f, "head_dim", (double)w.head_dim);
    number(f, "first", (double)w.from);
    number(f, "rotary_dim", w.from + w.d == w.head_dim ? 0 : (double)w.d);
    number(f, "scale", 1);
    const float *y = run(f, DIMS(tokens, row));
    for (int64_t at = 0; at < tokens * row; at++) {
        int64_t other = 0;
        double angle = 0;
        if (!turns_with(&w, at % w.head_dim, &other, &angle)) {
            near(y[at], x[at], 0);
            continue;
        }
        angle *= (double)(first + at / row);
        near(y[at], x[at] * cos(angle) - x[at + other] * (other > 0 ? 1 : -1) * sin(angle), 1e-6);
    }
}

static void rope(void **state) {
    check_rope(*state, 1, 1, (turning){2, 0, 2, false}, 0);
    check_rope(*state, 5, 3, (turning){6, 0, 6, false}, 7);
    check_rope(*state, 37, 2, (turning){64, 0, 64, false}, 30000);
    check_rope(*state, 37, 2, (turning){64, 0, 64, true}, 30000);
}

static void rope_of_a_part(void **state) {
    for (int interleaved = 0; interleaved < 2; interleaved++) {
        check_rope(*state, 3, 2, (turning){10, 0, 4, interleaved}, 100);
        check_rope(*state, 3, 2, (turning){10, 6, 4, interleaved}, 100);
        check_rope(*state, 9, 5, (turning){96, 0, 72, interleaved}, 4000);
        check_rope(*state, 4, 3, (turning){14, 5, 6, interleaved}, 1);
    }
}

/* Runs a node that makes `n` frequencies; what it makes becomes the next one's input. */
static const float *make_frequencies(fixture *f, int64_t n) {
    const float *y = run(f, DIMS(2, n));
    for (int64_t i = 0; i < n; i++) /* the second part is what the first has no room for */
        assert_true(fabsf(y[n + i]) <= fabsf(y[i]) * 6e-8f);
    return y;
}

static qgc_value freqs_value;

static void begin_with(fixture *f, qgc_op op, const float *freqs, int64_t n) {
    begin(f, op);
    freqs_value = (qgc_value){.shape = {2, {2, n}}};
    f->node.in[f->node.n_in] = &freqs_value;
    shaped(&f->call.in[f->node.n_in++], QGC_F32, DIMS(2, n))->data = (float *)(uintptr_t)freqs;
    f->call.in[0].is_real = true;
}

static double sum_of(const float *freqs, int64_t n, int64_t i) {
    return (double)freqs[i] + freqs[n + i];
}

/* Of Llama 3.2 (rope_theta 500000, factor 32) and of Qwen2.5 with YaRN, by the formulas of transformers. */
static void frequencies(void **state) {
    fixture *f = *state;
    enum { N = 32 };
    begin(f, QGC_OP_ROPE_FREQS);
    number(f, "base", 5e5);
    number(f, "rotary_dim", 2 * N);
    const float *plain = make_frequencies(f, N);
    for (int i = 0; i < N; i++)
        near(sum_of(plain, N, i) * pow(5e5, 2.0 * i / (2 * N)), 1, 1e-13);
    begin_with(f, QGC_OP_ROPE_LINEAR, plain, N);
    number(f, "factor", 3);
    const float *y = make_frequencies(f, N);
    for (int i = 0; i < N; i++)
        near(sum_of(y, N, i) * 3 / sum_of(plain, N, i), 1, 1e-13);
    begin_with(f, QGC_OP_ROPE_LLAMA3, plain, N);
    number(f, "factor", 32), number(f, "low", 1), number(f, "high", 4), number(f, "original", 8192);
    y = make_frequencies(f, N);
    for (int i = 0; i < N; i++) {
        const double g = sum_of(plain, N, i), wave = 2 * acos(-1) / g, smooth = (8192 / wave - 1) / 3;
        const double want = wave < 2048 ? g : wave > 8192 ? g / 32 : (1 - smooth) * g / 32 + smooth * g;
        near(sum_of(y, N, i) / want, 1, 1e-13);
    }
    begin_with(f, QGC_OP_ROPE_DIVIDE, plain, N);
    const float *by = random_input(f, QGC_F32, DIMS(N));
    y = make_frequencies(f, N);
    for (int i = 0; i < N; i++)
        near(sum_of(y, N, i) * by[i] / sum_of(plain, N, i), 1, 1e-13);
}

/* One list up to `original` positions, another beyond. */
static void frequencies_by_the_room(void **state) {
    fixture *f = *state;
    enum { N = 16 };
    for (int64_t ctx = 99; ctx <= 101; ctx++) {
        begin(f, QGC_OP_ROPE_FREQS);
        number(f, "base", 1e4);
        number(f, "rotary_dim", 2 * N);
        const float *plain = make_frequencies(f, N);
        begin_with(f, QGC_OP_ROPE_LONGROPE, plain, N);
        number(f, "original", 100);
        const float *is_short = random_input(f, QGC_F32, DIMS(N)),
                    *is_long = random_input(f, QGC_F32, DIMS(N));
        f->call.ctx = ctx;
        const float *y = make_frequencies(f, N);
        for (int i = 0; i < N; i++)
            near(sum_of(y, N, i) * (ctx > 100 ? is_long : is_short)[i] / sum_of(plain, N, i), 1, 1e-13);
    }
}

static void yarn_frequencies(void **state) {
    fixture *f = *state;
    enum { N = 64 };
    for (int truncate = 0; truncate < 2; truncate++) {
        begin(f, QGC_OP_ROPE_FREQS);
        number(f, "base", 1e6);
        number(f, "rotary_dim", 2 * N);
        const float *plain = make_frequencies(f, N);
        begin_with(f, QGC_OP_ROPE_YARN, plain, N);
        number(f, "base", 1e6), number(f, "factor", 4), number(f, "original", 32768);
        number(f, "beta_fast", 32), number(f, "beta_slow", 1), number(f, "truncate", truncate);
        const float *y = make_frequencies(f, N);
        double low = 128 * log(32768 / (32 * 2 * acos(-1))) / (2 * log(1e6));
        double high = 128 * log(32768 / (2 * acos(-1))) / (2 * log(1e6));
        if (truncate)
            low = floor(low), high = ceil(high);
        assert_true(low > 20 && high < 42);
        for (int i = 0; i < N; i++) {
            const double g = sum_of(plain, N, i), r = i < low ? 0 : i > high ? 1 : (i - low) / (high - low);
            near(sum_of(y, N, i) / (g / 4 * r + g * (1 - r)), 1, 1e-13);
        }
    }
}

/* With frequencies that are given, a scale, and at a late position, where float32 frequencies would be 0.005 off. */
static void rope_by_frequencies(void **state) {
    fixture *f = *state;
    enum { N = 3, HEAD = 8, AT = 100003 };
    const double speed[] = {0.83, 0.7, 1.0 / 3};
    float freqs[2 * N];
    for (int i = 0; i < N; i++) {
        freqs[i] = (float)speed[i];
        freqs[N + i] = (float)(speed[i] - (double)freqs[i]);
    }
    begin(f, QGC_OP_ROPE);
    const float *x = random_input(f, QGC_F32, DIMS(1, HEAD));
    index_input(f, 1, AT);
    freqs_value = (qgc_value){.shape = {2, {2, N}}};
    f->node.in[2] = &freqs_value;
    shaped(&f->call.in[f->node.n_in++], QGC_F32, DIMS(2, N))->data = freqs;
    number(f, "head_dim", HEAD), number(f, "first", 1), number(f, "scale", 1.5);
    const float *y = run(f, DIMS(1, HEAD));
    near(y[0], x[0], 0);
    near(y[7], x[7], 0);
    for (int i = 0; i < N; i++) {
        const double c = 1.5 * cos(speed[i] * AT), s = 1.5 * sin(speed[i] * AT);
        near(y[1 + i], x[1 + i] * c - x[4 + i] * s, 1e-6);
        near(y[4 + i], x[4 + i] * c + x[1 + i] * s, 1e-6);
    }
}

static void check_append(fixture *f, qgc_dtype dtype) {
    enum { HEADS = 3, CTX = 11, D = 5, TOKENS = 4, FIRST = 6 };
    begin(f, QGC_OP_APPEND);
    const float *before = random_input(f, dtype, DIMS(HEADS, CTX, D));
    const float *x = random_input(f, QGC_F32, DIMS(TOKENS, HEADS * D));
    index_input(f, TOKENS, FIRST);
    f->call.out[0] = f->call.in[0];
    qgc_ops[QGC_OP_APPEND].ref(&f->call);
    for (int h = 0; h < HEADS; h++)
        for (int p = 0; p < CTX; p++)
            for (int i = 0; i < D; i++) {
                float got, want;
                int at = (h * CTX + p) * D + i;
                qgc_to_f32(dtype, (char *)f->call.out[0].data + qgc_dtype_bytes(dtype, at), &got, 1);
                bool new = p >= FIRST &&p < FIRST + TOKENS;
                char rounded[4];
                qgc_from_f32(dtype, new ? &x[(p - FIRST) * HEADS * D + h * D + i] : &before[at], rounded, 1);
                qgc_to_f32(dtype, rounded, &want, 1);
                near(got, want, 0);
            }
}

static void append_rounds_to_the_cache_and_leaves_the_rest(void **state) {
    check_append(*state, QGC_F32);
    check_append(*state, QGC_F16);
    check_append(*state, QGC_BF16);
}

/* Which positions count, and how large a score may be; 0: all, and any. */
typedef struct {
    int64_t window;
    double cap;
} limits;

/* What attention_merge makes of the parts that the call is about to compute. */
static const float *run_in_parts(fixture *f, int64_t parts, limits l, int64_t tokens, int64_t heads,
                                 int64_t d) {
    f->node.op = QGC_OP_ATTENTION_PART;
    number(f, "parts", (double)parts), number(f, "window", (double)l.window), number(f, "softcap", l.cap);
    const int64_t width = parts * heads * (d + 2);
    float *p = run(f, DIMS(tokens, width));
    begin(f, QGC_OP_ATTENTION_MERGE);
    shaped(&f->call.in[f->node.n_in++], QGC_F32, DIMS(tokens, width))->data = p;
    number(f, "head_dim", (double)d);
    number(f, "parts", (double)parts);
    return run(f, DIMS(tokens, heads * d));
}

/* `parts` 0: whole, else cut into so many and put together again. */
static void check_limited(fixture *f, qgc_dtype dtype, int64_t tokens, int64_t first, int64_t heads,
                          int64_t kv_heads, int64_t d, int64_t parts, limits l) {
    int64_t ctx = first + tokens + 3;
    begin(f, QGC_OP_ATTENTION);
    const float *q = random_input(f, QGC_F32, DIMS(tokens, heads * d));
    const float *k = random_input(f, dtype, DIMS(kv_heads, ctx, d));
    const float *v = random_input(f, dtype, DIMS(kv_heads, ctx, d));
    index_input(f, tokens, first);
    number(f, "scale", 0.7), number(f, "window", (double)l.window), number(f, "softcap", l.cap);
    const float *y = parts ? run_in_parts(f, parts, l, tokens, heads, d) : run(f, DIMS(tokens, heads * d));
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t i = 0; i < d; i++) {
                int64_t head = h / (heads / kv_heads) * ctx;
                double total = 0, sum = 0;
                for (int64_t p = 0; p <= first + t; p++) {
                    double score = 0;
                    if (l.window && first + t - p >= l.window)
                        continue;
                    for (int64_t j = 0; j < d; j++)
                        score += (double)q[(t * heads + h) * d + j] * k[(head + p) * d + j];
                    score *= 0.7;
                    double e = exp(l.cap > 0 ? l.cap * tanh(score / l.cap) : score);
                    total += e;
                    sum += e * v[(head + p) * d + i];
                }
                near(y[(t * heads + h) * d + i], sum / total, 2e-6);
            }
}

static void check_attention(fixture *f, qgc_dtype dtype, int64_t tokens, int64_t first, int64_t heads,
                            int64_t kv_heads, int64_t d, int64_t parts) {
    check_limited(f, dtype, tokens, first, heads, kv_heads, d, parts, (limits){0, 0});
}

static void attention_with_a_window_and_a_cap(void **state) {
    const limits l[] = {{1, 0}, {5, 0}, {64, 0}, {300, 0}, {0, 0.5}, {70, 2}};
    for (int i = 0; i < 6; i++) {
        check_limited(*state, QGC_F32, 3, 0, 2, 1, 4, 0, l[i]);
        check_limited(*state, QGC_F16, 7, 200, 6, 2, 9, 0, l[i]);
        check_limited(*state, QGC_BF16, 2, 311, 4, 4, 64, 3, l[i]);
        check_limited(*state, QGC_F32, 70, 2, 2, 1, 5, 4, l[i]);
    }
}

static void attention(void **state) {
    check_attention(*state, QGC_F32, 1, 0, 1, 1, 1, 0);
    check_attention(*state, QGC_F32, 1, 100, 6, 2, 7, 0);
    check_attention(*state, QGC_BF16, 7, 30, 14, 2, 64, 0);
    check_attention(*state, QGC_F16, 33, 0, 3, 3, 5, 0);
}

/* With more parts than positions, with some of them empty, and with all of them used. */
static void attention_in_parts(void **state) {
    check_attention(*state, QGC_F32, 1, 0, 1, 1, 1, 2);
    check_attention(*state, QGC_F16, 33, 0, 3, 3, 5, 1);
    check_attention(*state, QGC_F32, 1, 100, 6, 2, 7, 16);
    check_attention(*state, QGC_BF16, 7, 300, 14, 2, 64, 4);
}

static void attention_stands_large_scores(void **state) {
    fixture *f = *state;
    begin(f, QGC_OP_ATTENTION);
    random_input(f, QGC_F32, DIMS(1, 1));
    random_input(f, QGC_F32, DIMS(1, 2, 1));
    const float *v = random_input(f, QGC_F32, DIMS(1, 2, 1));
    index_input(f, 1, 1);
    number(f, "scale", 1);
    *(float *)f->call.in[0].data = 1e4f;
    memcpy(f->call.in[1].data, (float[]){10, -10}, 2 * sizeof(float));
    near(run(f, DIMS(1, 1))[0], v[0], 0);
}

static void pointwise(void **state) {
    fixture *f = *state;
    const int64_t sizes[] = {1, 7, 4097, 10007};
    for (int s = 0; s < 4; s++) {
        begin(f, QGC_OP_ADD);
        const float *a = random_input(f, QGC_F32, DIMS(1, sizes[s]));
        const float *b = random_input(f, QGC_F32, DIMS(1, sizes[s]));
        float *y = run(f, DIMS(1, sizes[s]));
        for (int64_t i = 0; i < sizes[s]; i++)
            near(y[i], (double)a[i] + b[i], 1e-7);
        f->node.op = QGC_OP_MUL;
        y = run(f, DIMS(1, sizes[s]));
        for (int64_t i = 0; i < sizes[s]; i++)
            near(y[i], (double)a[i] * b[i], 1e-7);
        f->node.op = QGC_OP_SILU;
        f->node.n_in = 1;
        y = run(f, DIMS(1, sizes[s]));
        for (int64_t i = 0; i < sizes[s]; i++)
            near(y[i], a[i] / (1 + exp(-(double)a[i])), 1e-7);
    }
}

static void silu_of_large_numbers(void **state) {
    fixture *f = *state;
    begin(f, QGC_OP_SILU);
    random_input(f, QGC_F32, DIMS(1, 2));
    memcpy(f->call.in[0].data, (float[]){-200, 200}, 2 * sizeof(float));
    const float *y = run(f, DIMS(1, 2));
    near(y[0], 0, 1e-30);
    near(y[1], 200, 0);
}

/* In other forms than the references have: x / (1 + exp(-2u)) is the tanh form, P(X <= x) the other one. */
static void gelu(void **state) {
    fixture *f = *state;
    const int64_t sizes[] = {1, 7, 4097};
    for (int s = 0; s < 3; s++) {
        begin(f, QGC_OP_GELU);
        const float *x = random_input(f, QGC_F32, DIMS(1, sizes[s]));
        float *wide = f->call.in[0].data;
        for (int64_t i = 0; i < sizes[s]; i++)
            wide[i] = x[i] * 8;
        choice(f, "approximate", 0);
        const float *y = run(f, DIMS(1, sizes[s]));
        for (int64_t i = 0; i < sizes[s]; i++) {
            const double v = wide[i], u = sqrt(2 / acos(-1)) * (v + 0.044715 * pow(v, 3));
            near(y[i], v / (1 + exp(-2 * u)), 1e-6);
        }
        choice(f, "approximate", 1);
        y = run(f, DIMS(1, sizes[s]));
        for (int64_t i = 0; i < sizes[s]; i++)
            near(y[i], (double)wide[i] * erfc(-(double)wide[i] / sqrt(2)) / 2, 1e-6);
    }
}

static void sigmoid_scale_and_softcap(void **state) {
    fixture *f = *state;
    enum { N = 4099 };
    begin(f, QGC_OP_SIGMOID);
    random_input(f, QGC_F32, DIMS(3, N));
    float *x = f->call.in[0].data;
    for (int i = 0; i < 3 * N; i++)
        x[i] *= 100;
    const float *y = run(f, DIMS(3, N));
    for (int i = 0; i < 3 * N; i++)
        near(y[i], (1 + tanh((double)x[i] / 2)) / 2, 1e-6);
    f->node.op = QGC_OP_SCALE;
    number(f, "factor", -0.3);
    y = run(f, DIMS(3, N));
    for (int i = 0; i < 3 * N; i++)
        near(y[i], x[i] * -0.3, 1e-5);
    f->node.op = QGC_OP_SOFTCAP;
    number(f, "cap", 30);
    y = run(f, DIMS(3, N));
    for (int i = 0; i < 3 * N; i++)
        near(y[i], 30 - 60 / (exp((double)x[i] / 15) + 1), 1e-5);
}

/* One number for each row, on either side. */
static void mul_by_rows(void **state) {
    fixture *f = *state;
    const int64_t rows[] = {1, 3, 70}, widths[] = {1, 5, 301};
    for (int r = 0; r < 3; r++)
        for (int w = 0; w < 3; w++)
            for (int first = 0; first < 2; first++) {
                begin(f, QGC_OP_MUL);
                const float *a = random_input(f, QGC_F32, DIMS(rows[r], first ? 1 : widths[w]));
                const float *b = random_input(f, QGC_F32, DIMS(rows[r], first ? widths[w] : 1));
                const float *y = run(f, DIMS(rows[r], widths[w]));
                for (int64_t i = 0; i < rows[r] * widths[w]; i++)
                    near(y[i], (double)a[first ? i / widths[w] : i] * b[first ? i : i / widths[w]], 1e-7);
            }
}

static void embedding(void **state) {
    fixture *f = *state;
    begin(f, QGC_OP_EMBEDDING);
    int32_t *tokens = index_input(f, 3, 0);
    memcpy(tokens, (int32_t[]){12, 0, 12}, 3 * sizeof *tokens);
    const float *table = random_input(f, QGC_BF16, DIMS(13, 7));
    const float *y = run(f, DIMS(3, 7));
    for (int i = 0; i < 21; i++)
        near(y[i], table[tokens[i / 7] * 7 + i % 7], 0);
}

static void select_rows(void **state) {
    fixture *f = *state;
    begin(f, QGC_OP_SELECT_ROWS);
    const float *x = random_input(f, QGC_F32, DIMS(5, 7));
    int32_t *rows = index_input(f, 2, 0);
    memcpy(rows, (int32_t[]){4, 1}, 2 * sizeof *rows);
    const float *y = run(f, DIMS(2, 7));
    for (int i = 0; i < 14; i++)
        near(y[i], x[rows[i / 7] * 7 + i % 7], 0);
}

static void mark(void **state) {
    fixture *f = *state;
    begin(f, QGC_OP_MARK);
    int32_t *seen = index_input(f, 5, 0);
    memcpy(seen, (int32_t[]){0, 0, 1, 0, 0}, 5 * sizeof *seen);
    memcpy(index_input(f, 3, 0), (int32_t[]){4, 0, 4}, 3 * sizeof *seen);
    f->call.out[0] = f->call.in[0];
    qgc_ops[QGC_OP_MARK].ref(&f->call);
    assert_memory_equal(seen, ((int32_t[]){1, 0, 1, 0, 1}), 5 * sizeof *seen);
}

#define OP_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        OP_TEST(linear),
        OP_TEST(linear_over_blocks),
        OP_TEST(linear_takes_weights_from_odd_addresses),
        OP_TEST(rms_norm),
        OP_TEST(rms_norm_of_zeros_is_zero),
        OP_TEST(layer_norm),
        OP_TEST(route),
        OP_TEST(experts_compute_what_their_matrices_say),
        OP_TEST(experts_are_weighted),
        OP_TEST(rope),
        OP_TEST(rope_of_a_part),
        OP_TEST(frequencies),
        OP_TEST(yarn_frequencies),
        OP_TEST(frequencies_by_the_room),
        OP_TEST(rope_by_frequencies),
        OP_TEST(append_rounds_to_the_cache_and_leaves_the_rest),
        OP_TEST(attention),
        OP_TEST(attention_in_parts),
        OP_TEST(attention_with_a_window_and_a_cap),
        OP_TEST(attention_stands_large_scores),
        OP_TEST(pointwise),
        OP_TEST(silu_of_large_numbers),
        OP_TEST(gelu),
        OP_TEST(sigmoid_scale_and_softcap),
        OP_TEST(mul_by_rows),
        OP_TEST(embedding),
        OP_TEST(select_rows),
        OP_TEST(mark),
    };
    return cmocka_run_group_tests_name("graph/ops", tests, NULL, NULL);
}
