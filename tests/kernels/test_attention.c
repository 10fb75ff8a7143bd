/* Attention of a head a block and the merge of its parts, run on the CPU, against a sum in double precision. The kernels
 * for the tensor cores are tested in plans (test_replay.c), and on a GPU: tests/gpu/test_kernels.c. */

#include <math.h>

#include "graph/base/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/random.h"

typedef void run_fn(const float *q, const float *keys, const float *values, const int32_t *positions,
                    unsigned tokens, int32_t ctx, float *parts, float *out, float *shares, uint32_t *counts,
                    int order);
#define VARIANT(d, heads, kv_heads, parts, blocks, window, cap) \
    run_fn attention_##d##_##heads##_##kv_heads##_##parts##_##blocks##_##window##_##cap;
#include "attention_variants.h"
#undef VARIANT

static const struct {
    int d, heads, kv_heads, parts, blocks, window, cap;
    run_fn *run;
} variants[] = {
#define VARIANT(d, heads, kv_heads, parts, blocks, window, cap) \
    {                                                           \
        d,        heads,                                        \
        kv_heads, parts,                                        \
        blocks,   window,                                       \
        cap,      attention_##d##_##heads##_##kv_heads##_##parts##_##blocks##_##window##_##cap},
#include "attention_variants.h"
#undef VARIANT
};
enum { N_VARIANTS = sizeof variants / sizeof *variants };

static float *made_up(qgc_arena *a, size_t n, uint64_t *seed) {
    float *x = qgc_arena_array(a, n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = test_random_float(seed);
    return x;
}

/* y [d] of a query against n rows of keys and values. */
static void attend(const float *q, const float *keys, const float *values, int n, int d, int cap, double *y) {
    double total = 0;
    for (int i = 0; i < d; i++)
        y[i] = 0;
    for (int p = 0; p < n; p++) {
        double score = 0;
        for (int i = 0; i < d; i++)
            score += (double)q[i] * keys[p * d + i];
        score *= 0.7;
        if (cap)
            score = cap - 2 * cap / (exp(2 * score / cap) + 1); /* cap * tanh(score / cap) */
        const double weight = exp(score);
        total += weight;
        for (int i = 0; i < d; i++)
            y[i] += weight * values[p * d + i];
    }
    for (int i = 0; i < d; i++)
        y[i] /= total;
}

static void check(int variant, int first, int tokens, int order) {
    const size_t d = (size_t)variants[variant].d, heads = (size_t)variants[variant].heads,
                 kv_heads = (size_t)variants[variant].kv_heads, parts = (size_t)variants[variant].parts,
                 blocks = (size_t)variants[variant].blocks, units = (size_t)tokens * heads * parts;
    const int ctx = first + tokens + 2;
    qgc_arena *a = qgc_arena_new();
    uint64_t seed = (uint64_t)first * 1000 + (uint64_t)variant;
    const size_t row = heads * d, cache = kv_heads * (size_t)ctx * d;
    float *q = made_up(a, (size_t)tokens * row, &seed), *keys = made_up(a, cache, &seed),
          *values = made_up(a, cache, &seed);
    float *of_parts = made_up(a, (size_t)tokens * parts * heads * (d + 2), &seed),
          *out = made_up(a, (size_t)tokens * row, &seed),
          *shares = made_up(a, units * blocks * (d + 2), &seed);
    uint32_t *counts = qgc_arena_array(a, units, sizeof *counts); /* zeros, and again when all is done */
    int32_t positions[8];
    for (int t = 0; t < tokens; t++)
        positions[t] = first + t;
    variants[variant].run(q, keys, values, positions, (unsigned)tokens, ctx, of_parts, out, shares, counts,
                          order);
    for (size_t i = 0; i < units; i++)
        assert_int_equal(counts[i], 0);
    double want[512];
    for (int t = 0; t < tokens; t++)
        for (size_t h = 0; h < heads; h++) {
            const size_t at = (size_t)t * row + h * d, of = h / (heads / kv_heads) * (size_t)ctx * d;
            const int all = first + t + 1, window = variants[variant].window;
            const int n = window && window < all ? window : all;
            const size_t from = of + (size_t)(all - n) * d;
            attend(q + at, keys + from, values + from, n, (int)d, variants[variant].cap, want);
            for (size_t i = 0; i < d; i++)
                if (!(fabs(out[at + i] - want[i]) <= 1e-5)) {
                    print_error("variant %d, position %d, head %zu, element %zu: %g, expected %g\n", variant,
                                first + t, h, i, out[at + i], want[i]);
                    fail();
                }
        }
    qgc_arena_drop(a);
}

/* With empty parts, with one position, and with several tiles of positions. */
static void the_kernels_are_the_sum(void **state) {
    (void)state;
    static const int firsts[] = {0, 30, 63, 64, 300, 510, 1030, 5000};
    for (int v = 0; v < N_VARIANTS; v++)
        for (size_t i = 0; i < sizeof firsts / sizeof *firsts; i++)
            check(v, firsts[i], 1 + (int)i % 3, (int)i % 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_kernels_are_the_sum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
