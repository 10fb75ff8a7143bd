/* The kernels of sampling, run on the CPU, against the reference: the same token for hostile logits under all kinds of
 * settings. The reference is compiled into this file, so that both have one expf, which can be made to err by an ulp here
 * and there: nothing may rely on its rising with its argument. */

#include <stdlib.h>
#include <string.h>
#include <tgmath.h>

float on_cpu_expf(float x);
#undef exp
#define exp on_cpu_expf
#include "graph/ops_sample.c"
#undef exp
#include "kernels/cpu/on_cpu_launch.h"
#include "tests/support/cmocka.h"
#include "tests/support/random.h"

typedef int run_fn(const float *logits, const int32_t *rows, int32_t *positions, const int32_t *seen,
                   const void *settings, int32_t *next, int32_t *tokens, int32_t *ring, int order);
#define VARIANT(vocab, threads, chunk) run_fn sample_##vocab##_##threads##_##chunk;
#include "sample_variants.h"
#undef VARIANT

static const struct {
    int vocab, threads, chunk;
    run_fn *run;
} variants[] = {
#define VARIANT(vocab, threads, chunk) {vocab, threads, chunk, sample_##vocab##_##threads##_##chunk},
#include "sample_variants.h"
#undef VARIANT
};
enum { N_VARIANTS = sizeof variants / sizeof *variants, RING = 16 };

void on_cpu_wobble(int on);

#ifndef ROUNDS /* fewer where a sanitizer makes them slow */
#define ROUNDS 560
#endif

typedef struct {
    uint64_t seed;
    float *logits;
    int32_t *seen;
    qgc_sampling s;
    int n;
} trial;

static int below(trial *t, int n) {
    return (int)(test_random(&t->seed) % (uint64_t)n);
}

enum { N_KINDS = 14 };

static void make_logits(trial *t, int kind) {
    for (int i = 0; i < t->n; i++) {
        float u = test_random_float(&t->seed), *l = &t->logits[i];
        switch (kind) {
        case 0: /* like a model's: most far below a few */
            *l = 12 * u - 8 + (below(t, 500) == 0 ? 14 * test_random_float(&t->seed) : 0);
            break;
        case 1: /* many ties */
            *l = roundf(10 * u);
            break;
        case 2:
            *l = -3.25f;
            break;
        case 3: /* one far above the rest */
            *l = u + (i == t->n / 3 ? 1e4f : 0);
            break;
        case 4: /* no two alike, the largest in one chunk */
            *l = 1e-3f * (float)i;
            break;
        case 5:
            *l = -1e-3f * (float)i;
            break;
        case 6: /* flat */
            *l = 1e-3f * u;
            break;
        case 7:
            *l = below(t, 3) ? 5 * u : below(t, 2) ? NAN : -INFINITY;
            break;
        case 8:
            *l = below(t, 4) ? NAN : -INFINITY;
            break;
        case 9:
            *l = NAN;
            break;
        case 10:
            *l = below(t, t->n) == 0 ? INFINITY : u;
            break;
        case 11: /* overflows when subtracted */
            *l = 3.4e38f * u;
            break;
        case 12: /* steps of one ulp, and both zeros */
            *l = below(t, 2) ? 1 + 0x1p-23f * (float)below(t, 9) : below(t, 2) ? 0.0f : -0.0f;
            break;
        default: /* nothing but one */
            *l = i == t->n - 1 ? -7 : below(t, 2) ? NAN : -INFINITY;
        }
    }
}

static float one_of(trial *t, const float *values, int n) {
    return values[below(t, n)];
}

static void make_settings(trial *t, int chunk) {
    static const float temperatures[] = {0, -1, NAN, 1e-45f, 1e-30f, 0.1f,  0.7f,
                                         1, 1,  1,   1.7f,   30,     1e30f, INFINITY};
    static const float top_ps[] = {1, 1, 1, 0.9f, 0.95f, 0.5f, 0.999999f, 0, -1, 1e-9f, NAN, 2};
    static const float min_ps[] = {0, 0, 0, 0, 0.05f, 0.5f, 1, 2, -1, NAN, 1e-12f};
    static const float penalties[] = {1, 1, 1.1f, 2, 0.5f, 0};
    const int parts = (t->n + chunk - 1) / chunk;
    const int top_ks[] = {0,         0,        0,    1,        2,  40,     100,      parts - 1,         parts,
                          parts + 1, t->n - 1, t->n, t->n + 1, -1, 999999, t->n / 2, 1 + below(t, t->n)};
    t->s = (qgc_sampling){
        .temperature = one_of(t, temperatures, (int)(sizeof temperatures / sizeof *temperatures)),
        .top_k = top_ks[below(t, (int)(sizeof top_ks / sizeof *top_ks))],
        .top_p = one_of(t, top_ps, (int)(sizeof top_ps / sizeof *top_ps)),
        .min_p = one_of(t, min_ps, (int)(sizeof min_ps / sizeof *min_ps)),
        .repeat_penalty = one_of(t, penalties, (int)(sizeof penalties / sizeof *penalties)),
        .seed = test_random(&t->seed),
    };
    if (below(t, 3) == 0)
        t->s.top_p = fabsf(test_random_float(&t->seed));
    int every = 1 + below(t, 20);
    for (int i = 0; i < t->n; i++)
        t->seen[i] = below(t, every) == 0;
}

static int32_t reference(const trial *t, int32_t position, qgc_arena *scratch) {
    int32_t rows[] = {1}, positions[] = {-1, position}, next[] = {-1};
    qgc_node node = {.op = QGC_OP_SAMPLE, .n_in = 4};
    qgc_call call = {.node = &node,
                     .in = {{QGC_F32, 2, {1, t->n}, t->logits, true},
                            {QGC_I32, 1, {1}, rows, false},
                            {QGC_I32, 1, {2}, positions, false},
                            {QGC_I32, 1, {t->n}, t->seen, false}},
                     .out = {{QGC_I32, 1, {1}, next, false}},
                     .sampling = &t->s,
                     .scratch = scratch};
    ref_sample(&call);
    return next[0];
}

/* Is the largest logit, after the penalty, finite? The token for the host says so. */
static bool is_finite(const trial *t) {
    const float p = t->s.repeat_penalty;
    float largest = NAN;
    for (int i = 0; i < t->n; i++) {
        const float l = t->logits[i];
        largest = fmaxf(largest, p == 1 || !t->seen[i] ? l : l > 0 ? l / p : l * p);
    }
    return isfinite(largest);
}

static void compare(trial *t, int variant, int kind, int round) {
    qgc_arena *scratch = qgc_arena_new();
    int32_t position = below(t, 40000), want = reference(t, position, scratch);
    int32_t rows[] = {1}, positions[] = {-1, position}, next[] = {-1, -1}, tokens[] = {-1, -1}, ring[RING];
    memset(ring, 0xFF, sizeof ring);
    int clean =
        variants[variant].run(t->logits, rows, positions, t->seen, &t->s, next, tokens, ring, round % 3);
    if (next[0] != want || !clean)
        fail_msg("vocabulary %d, %d threads, logits of kind %d, round %d: chose %d, the reference %d%s\n"
                 "temperature %g, top-k %d, top-p %g, min-p %g, penalty %g",
                 t->n, variants[variant].threads, kind, round, next[0], want,
                 clean ? "" : "; sums are not cleared", (double)t->s.temperature, t->s.top_k,
                 (double)t->s.top_p, (double)t->s.min_p, (double)t->s.repeat_penalty);
    assert_int_equal(next[1], -1);
    assert_int_equal(tokens[0], want); /* the step has ended */
    assert_int_equal(tokens[1], -1);
    assert_int_equal(positions[0], position + 1);
    for (int i = 0; i < RING; i++)
        assert_int_equal(ring[i], i == position % RING ? want | (is_finite(t) ? 0 : 1 << 30) : -1);
    qgc_arena_drop(scratch);
}

/* `rounds` of each variant that is quick. */
static void compare_all(int rounds) {
    for (int v = 0; v < N_VARIANTS; v++) {
        const int n = variants[v].vocab;
        qgc_arena *a = qgc_arena_new();
        trial t = {.seed = (uint64_t)v + 1, .n = n};
        t.logits = qgc_arena_array(a, (size_t)n, sizeof *t.logits);
        t.seen = qgc_arena_array(a, (size_t)n, sizeof *t.seen);
        int few = n > 10000 ? rounds / 28 : variants[v].threads > 64 ? rounds / 4 : rounds;
        for (int round = 0; round < few; round++) {
            int kind = n > 10000 ? round % 2 ? below(&t, N_KINDS) : 0 : round % N_KINDS;
            make_logits(&t, kind);
            make_settings(&t, variants[v].chunk);
            compare(&t, v, kind, round);
        }
        qgc_arena_drop(a);
    }
}

/* The kernel for three blocks that run at once, fewer than there are slices (tests.cmake). */
extern const on_cpu_kernel sample_block_0, sample_block_1, sample_block_2;
enum { TOGETHER_VOCAB = 2003, TOGETHER_WORDS = 3 * 1024 + 7 + 5 };

static int32_t choose_together(trial *t, int32_t position, int order, uint64_t *sums) {
    const on_cpu_kernel *const blocks[] = {&sample_block_0, &sample_block_1, &sample_block_2};
    float parts[(TOGETHER_VOCAB + 31) / 32];
    for (int p = 0; p < (t->n + 31) / 32; p++) {
        parts[p] = NAN;
        for (int i = 32 * p; i < t->n && i < 32 * p + 32; i++)
            parts[p] = fmaxf(parts[p], penalised(t->logits[i], t->seen[i], &t->s));
    }
    int32_t row = 1, positions[] = {-1, position}, next = -1, token = -1, ring[RING] = {0};
    const void *at[] = {t->logits, parts, &row, positions, t->seen, &t->s, sums, &next, &token, ring};
    void *args[10];
    for (int i = 0; i < 10; i++)
        args[i] = &at[i];
    const char *why = on_cpu_launch_together(
        blocks, &(on_cpu_launch_options){.grid = {3, 1, 1}, .threads = 64, .order = order, .args = args});
    if (why)
        fail_msg("%s", why);
    return next;
}

/* Blocks that wait for each other's sums, in whatever order they go on; and no phase is over before all of it is done. */
static void blocks_that_run_at_once_choose_the_same(void **state) {
    (void)state;
    qgc_arena *a = qgc_arena_new();
    uint64_t sums[TOGETHER_WORDS] = {0};
    trial t = {.seed = 5, .n = TOGETHER_VOCAB};
    t.logits = qgc_arena_array(a, TOGETHER_VOCAB, sizeof *t.logits);
    t.seen = qgc_arena_array(a, TOGETHER_VOCAB, sizeof *t.seen);
    for (int round = 0; round < ROUNDS / 8; round++) {
        make_logits(&t, round % N_KINDS);
        make_settings(&t, 32);
        t.s.top_k = 0;
        int32_t position = below(&t, 40000), want = reference(&t, position, a);
        int32_t chosen = choose_together(&t, position, 1 + round, sums);
        if (chosen != want)
            fail_msg("round %d: chose %d, the reference %d; temperature %g, top-p %g", round, chosen, want,
                     (double)t.s.temperature, (double)t.s.top_p);
    }
    qgc_arena_drop(a);
}

static void chooses_what_the_reference_chooses(void **state) {
    (void)state;
    on_cpu_wobble(0);
    compare_all(ROUNDS);
}

static void does_not_rely_on_expf_to_rise(void **state) {
    (void)state;
    on_cpu_wobble(1);
    compare_all(ROUNDS / 4);
    on_cpu_wobble(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chooses_what_the_reference_chooses),
        cmocka_unit_test(does_not_rely_on_expf_to_rise),
        cmocka_unit_test(blocks_that_run_at_once_choose_the_same),
    };
    return cmocka_run_group_tests_name("kernels/sample", tests, NULL, NULL);
}
