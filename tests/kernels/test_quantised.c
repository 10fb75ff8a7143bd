/* Weights of block formats: what kernels read of a row, against what the format says; and plans of small models with all
 * formats, run on the CPU, against the evaluator. */

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "graph/base/planes.h"
#include "graph/base/str.h"
#include "kernels/cpu/on_cpu_launch.h"
#include "tests/kernels/replay.h"
#include "tests/kernels/small_graphs.h"
#include "tests/support/cmocka.h"
#include "tests/support/random.h"

int quantised_row(const char *type, const unsigned char *matrix, int row, int n, const float *x, float *loads,
                  float *elements, float *fours, float *product);

enum { ROWS = 3, MOST = 1024 };

#ifndef MIXES /* of the types below */
#define MIXES 3
#define PERSISTENT_MIXES 6
#define OLDEST_MIXES 2
#endif

/* Random blocks, with scales that are neither infinite nor NaN: of a half the exponent's top bit is off. */
static void random_row(qgc_dtype t, uint8_t *row, int n, uint64_t *seed) {
    const int bytes = qgc_dtypes[t].block_bytes, blocks = n / qgc_dtypes[t].block_elems;
    for (int i = 0; i < blocks * bytes; i++)
        row[i] = (uint8_t)test_random(seed);
    for (int b = 0; b < blocks; b++)
        for (int i = 0; i < 2; i++) /* d, and m or dmin, or bits of quants, which may be any */
            row[b * bytes + (t == QGC_Q6_K ? 208 : 2 * i) + 1] &= 0xBF;
}

static void must_be_near(const char *type, const char *what, const float *got, const float *want, int n) {
    float largest = 0;
    for (int i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(want[i]));
    for (int i = 0; i < n; i++)
        if (!(fabsf(got[i] - want[i]) <= 2e-7f * largest))
            fail_msg("%s: element %d of %s is %.9g, expected %.9g", type, i, what, (double)got[i],
                     (double)want[i]);
}

static void check_rows(qgc_dtype t, int n, uint64_t *seed) {
    static uint8_t file[MOST * 4 + 1], matrix[ROWS * (MOST * 4 + 16)];
    static float want[ROWS][MOST], x[MOST], loads[MOST], elements[MOST], fours[MOST];
    const char *type = qgc_dtypes[t].name;
    const size_t bytes = qgc_planes_bytes(t, n);
    for (int i = 0; i < n; i++)
        x[i] = test_random_float(seed) - 0.5f;
    for (int r = 0; r < ROWS; r++) {
        random_row(t, file + 1, n, seed); /* at an odd address, as in a file */
        qgc_to_f32(t, file + 1, want[r], n);
        qgc_to_planes(t, file + 1, matrix + (size_t)r * bytes, n);
    }
    for (int r = 0; r < ROWS; r++) {
        float product;
        double sum = 0, size = 0, largest = 0;
        assert_int_equal(quantised_row(type, matrix, r, n, x, loads, elements, fours, &product), bytes);
        must_be_near(type, "loads", loads, want[r], n);
        must_be_near(type, "elements", elements, want[r], n);
        must_be_near(type, "fours", fours, want[r], n);
        for (int i = 0; i < n; i++) {
            sum += (double)want[r][i] * x[i];
            largest = fmax(largest, fabs((double)want[r][i]));
            size += fabs((double)x[i]);
        }
        if (!(fabs(product - sum) <=
              3e-7 * size * largest)) /* a value may be a small difference of two large ones */
            fail_msg("%s: a product of %d elements is %.9g, expected %.9g", type, n, (double)product, sum);
    }
}

static void kernels_read_what_the_formats_say(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int t = 0; t < QGC_N_DTYPES; t++) {
        if (!qgc_dtype_is_quantised((qgc_dtype)t))
            continue;
        const int block = qgc_dtypes[t].block_elems;
        static const int blocks[] = {1, 2, 3, 4};
        for (int i = 0; i < 4; i++)
            for (int round = 0; round < 50; round++)
                check_rows((qgc_dtype)t, block * blocks[i], &seed);
    }
}

/* On a device a row takes the bytes of the file, and at most 15 for alignment. */
static void planes_take_no_more_than_the_file(void **state) {
    (void)state;
    for (int t = 0; t < QGC_N_DTYPES; t++)
        for (int n = 256; n <= 8192 && t != QGC_I32; n += 256) {
            const size_t file = qgc_dtype_bytes((qgc_dtype)t, n), device = qgc_planes_bytes((qgc_dtype)t, n);
            assert_true(device >= file && device < file + 16);
            assert_true(device % 16 == 0);
        }
}

/* --- whole plans ----------------------------------------------------------------------------------------- */

/* What matrices are stored as; the letters of a layer follow each other. */
typedef struct {
    const char *embed, *wq, *wk, *wv, *wo, *w1, *w2, *w3;
} types;

static const types mixes[] = {
    {"q6_k", "q4_k", "q4_k", "[q6_k, q4_k]", "q4_k", "q4_k", "q4_k", "[q6_k, q4_k]"}, /* Q4_K_M */
    {"q8_0", "q5_0", "q8_0", "q5_1", "q4_1", "q4_0", "q5_0", "q8_0"},
    {"q5_k", "q5_k", "bf16", "f16", "q5_1", "q4_1", "[q4_1, f32]", "q5_k"},
};

/* Caches of f16: a bf16 that is rounded to its neighbour is as large as what a wrong scale would do. */
static const char *with_f16_caches(qgc_arena *a, const char *yaml) {
    for (const char *at; (at = strstr(yaml, "ctx, dh], dtype: bf16")) != NULL;)
        yaml = qgc_arena_printf(a, "%.*sctx, dh], dtype: f16%s", (int)(at - yaml), yaml,
                                at + strlen("ctx, dh], dtype: bf16"));
    return yaml;
}

/* A small graph with rows of whole blocks of 256; those of the second part of the MLP have `ff` elements. */
static const char *quantised_of(qgc_arena *a, const char *yaml, const types *m, int layers, int d, int ff) {
    const char *params = strstr(yaml, SMALL_PARAMS);
    assert_non_null(params);
    yaml = qgc_arena_printf(
        a, "%.*sparams: {layers: %d, d: %d, ff: %d, heads: %d, kv: 2, dh: 64, vocab: 160, eps: 1e-6}\n%s",
        (int)(params - yaml), yaml, layers, d, ff, d / 64, params + strlen(SMALL_PARAMS));
    const char *const pairs[][2] = {{"embed", m->embed}, {"wq", m->wq}, {"wk", m->wk}, {"wv", m->wv},
                                    {"wo", m->wo},       {"w1", m->w1}, {"w2", m->w2}, {"w3", m->w3}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        yaml = small_with_dtype(a, yaml, pairs[i][0], pairs[i][1]);
    return with_f16_caches(a, yaml);
}

static const char *quantised(qgc_arena *a, const char *yaml, const types *m) {
    return quantised_of(a, yaml, m, 2, 256, 1280);
}

/* The persistent step has activations in two parts of 8 or 11 bits, or in 22 bits, and these rows are longer than those of replay_agrees. */
static bool agree(const apart *a, bool persistent) {
    return persistent ? a->logits <= 1e-3 && a->states <= 4e-3 && a->prefilled_logits <= 3e-2 &&
                            a->prefilled_states <= 3e-2 && a->tokens == 0
                      : replay_agrees(a);
}

static int64_t weights_read(const replay *r, qgc_phase_kind phase) {
    int64_t bytes = 0;
    for (size_t i = 0; i < r->lowered.plan->phases[phase].n_launches; i++)
        bytes += r->lowered.plan->phases[phase].launches[i].weight_bytes;
    return bytes;
}

/* In the stream rows are padded to 16 bytes; in f16 they would take at least twice what most of them take here. */
static bool keeps_blocks(const replay *r) {
    return (double)weights_read(r, QGC_PHASE_PERSISTENT) < 1.3 * (double)weights_read(r, QGC_PHASE_DECODE);
}

/* The kernel of the persistent step. */
static const qgc_plan_kernel *step_of(const replay *r) {
    const qgc_plan *plan = r->lowered.plan;
    return &plan->kernels[plan->phases[QGC_PHASE_PERSISTENT].launches[0].kernel];
}

/* A replay of `of`, which ends with it. */
static void compare_and_drop(replay *r, const replay_of *of, const replay_run *what) {
    assert_true(of->sms == 0 || keeps_blocks(r));
    const apart a = replay_compare(r, what);
    if (!agree(&a, of->sms > 0))
        fail_msg("%s %s: logits %g and states %g apart, by chunks %g and %g; %d tokens are others",
                 r->graph->name, r->name, a.logits, a.states, a.prefilled_logits, a.prefilled_states,
                 a.tokens);
    replay_drop(r);
}

static void compare(const replay_of *of, const replay_run *what) {
    replay r = replay_new(of);
    compare_and_drop(&r, of, what);
}

/* Steps without a prompt, held against limits of their own. `number`: which of a test's cases it is. */
static void compare_steps(replay *r, const replay_run *what, size_t number, double logits, double states) {
    const apart by = replay_compare(r, what);
    if (!(by.logits <= logits && by.states <= states && by.tokens == 0))
        fail_msg("case %zu: logits %g and states %g apart; %d tokens are others", number, by.logits,
                 by.states, by.tokens);
}

static void plans_of_quantised_models(void **state) {
    (void)state;
    static const char *const families[] = {small_qwen2, small_qwen3};
    qgc_arena *a = qgc_arena_new();
    for (int f = 0; f < 2; f++)
        for (int m = 0; m < (f ? 1 : MIXES); m++) {
            const char *yaml = quantised(a, families[f], &mixes[(m + f) % 3]);
            compare(&(replay_of){.yaml = yaml, .arch = m == 1 ? 75 : 90},
                    &(replay_run){ON_CPU_RANDOM + m, m == 0 ? REPLAY_LONG : 0, REPLAY_SHORT});
            if (m == 0)
                compare(&(replay_of){.yaml = yaml, .passes = "", .arch = 90},
                        &(replay_run){ON_CPU_FORWARDS, 0, REPLAY_SHORT});
        }
    qgc_arena_drop(a);
}

/* The head, too, is unpacked to bf16 for a GEMM then. */
static void all_rows_of_a_quantised_model(void **state) {
    (void)state;
    qgc_arena *a = qgc_arena_new();
    for (int m = 0; m < MIXES; m++) {
        const char *yaml = quantised(a, m == 1 ? small_qwen3 : small_qwen2, &mixes[m]);
        replay r = replay_new(&(replay_of){.yaml = yaml, .arch = m == 1 ? 80 : 90, .all_rows = true});
        const double most = replay_compare_rows(&r, ON_CPU_RANDOM + m, 0);
        if (!(most <= 3e-2)) /* the worst of all rows, and the head rounds, too */
            fail_msg("%s: rows of logits are %g apart", mixes[m].embed, most);
        assert_true(replay_compare_rows(&r, ON_CPU_FORWARDS, 1) > 0.2);
        replay_drop(&r);
    }
    qgc_arena_drop(a);
}

/* The persistent step multiplies them as they are, too: a phase for each type where rows do not meet, with code for each format that
 * it has in some layer. Where one layer has all of wk in one format and another has not, it is a phase in both. */
static const types of_phases[] = {
    {"q6_k", "q4_k", "q4_k", "[q6_k, q4_k]", "q4_k", "q4_k", "q4_k", "[q6_k, q4_k]"},
    {"q4_0", "[q8_0, q5_1]", "[q8_0, q4_0]", "[q4_1, q5_1]", "[q4_0, q5_0]", "[q4_k, q5_k]", "[q4_k, q5_k]",
     "[q4_0, q6_k]"},
    {"q6_k", "q4_k", "q4_k", "q6_k", "q4_k", "q4_k", "q4_k", "q6_k"},
    {"q8_0", "q5_0", "q8_0", "q5_1", "q4_1", "q4_0", "q4_0", "q8_0"},
    {"q5_k", "q5_k", "q4_1", "f16", "q5_1", "q5_0", "q5_0", "q5_k"},
    {"q4_0", "q6_k", "bf16", "q4_0", "q6_k", "q5_1", "q5_1", "q4_1"},
};

/* Where v has a format of its own it is a phase after q and k, whose rows other multiprocessors have. */
static bool are_apart(const replay *r) {
    const qgc_plan *plan = r->lowered.plan;
    bool some = false;
    for (size_t i = 0; i < plan->n_shares; i++)
        some |= plan->shares[i].apart != 0;
    return some;
}

/* Prompts on tensor cores, by groups of warps and by each warp for itself. */
static void persistent_steps_of_quantised_models(void **state) {
    (void)state;
    static const char *const families[] = {small_qwen2, small_qwen3};
    static const int sms[] = {3, 4, 8, 3, 4, 5};
    qgc_arena *a = qgc_arena_new();
    for (int m = 0; m < PERSISTENT_MIXES; m++) {
        const replay_of of = {
            .yaml = quantised(a, families[m % 2], &of_phases[m]), .arch = m < 4 ? 90 : 80, .sms = sms[m]};
        replay r = replay_new(&of);
        if (m == 2 || m == 3) {
            assert_true(are_apart(&r));
            assert_int_equal(replay_beside(&r), m == 2 ? 2 : 4); /* in two layers: v, and k and v */
        }
        compare_and_drop(&r, &of,
                         &(replay_run){ON_CPU_RANDOM + m, m ? REPLAY_SHORT : REPLAY_CHUNK + 5, REPLAY_SHORT});
    }
    qgc_arena_drop(a);
}

/* A v of its own format whose rows are as many as those of o and down, which other multiprocessors have: what is carried stays with those. */
static void persistent_steps_with_values_as_wide_as_the_model(void **state) {
    (void)state;
    static const types of_v = {"q8_0", "q5_0", "q5_0", "q8_0", "q5_0", "q4_0", "q4_0", "q8_0"};
    qgc_arena *a = qgc_arena_new();
    const replay_of of = {.yaml = quantised_of(a, small_qwen2, &of_v, 2, 128, 256), .arch = 90, .sms = 4};
    replay r = replay_new(&of);
    int carried = -1;
    assert_int_equal(sscanf(strstr(step_of(&r)->program, "CARRIED_SHARE = "), "CARRIED_SHARE = %d", &carried),
                     1);
    const qgc_share *share = &r.lowered.plan->shares[carried];
    assert_int_equal(share->rows, 128);
    assert_int_equal(share->apart, 0);
    assert_true(are_apart(&r));
    compare_and_drop(&r, &of, &(replay_run){ON_CPU_RANDOM, REPLAY_SHORT, REPLAY_SHORT});
    qgc_arena_drop(a);
}

/* On sm_75 tensor cores multiply bytes, too, and copies are half as large, so that four of them fit into 64 KB. */
static void persistent_steps_of_quantised_models_on_the_oldest_cards(void **state) {
    (void)state;
    qgc_arena *a = qgc_arena_new();
    for (int m = 0; m < OLDEST_MIXES; m++) {
        const replay_of of = {.yaml = quantised(a, small_qwen2, &of_phases[m ? 3 : 0]), .arch = 75, .sms = 4};
        replay r = replay_new(&of);
        assert_non_null(strstr(step_of(&r)->program, "#define COPY_BYTES 8800"));
        compare_and_drop(&r, &of, &(replay_run){ON_CPU_RANDOM + m, 0, REPLAY_SHORT});
    }
    qgc_arena_drop(a);
}

/* Where a row is many chunks its vector is read from the L2 cache as it is multiplied. In one layer no cache rounds what a step
 * computes: products are as exact as those of float32. */
static void persistent_steps_with_long_rows(void **state) {
    (void)state;
    static const types of_rows = {"q4_k", "q4_k", "q4_k", "q4_k", "q4_k", "q4_k", "q4_k", "q6_k"};
    qgc_arena *a = qgc_arena_new();
    const replay_of of = {.yaml = quantised_of(a, small_qwen2, &of_rows, 1, 256, 4608), .arch = 90, .sms = 3};
    replay r = replay_new(&of);
    assert_non_null(strstr(step_of(&r)->program, "X_IN_LOOP = 1"));
    assert_true(keeps_blocks(&r));
    compare_steps(&r, &(replay_run){ON_CPU_RANDOM, 0, 3}, 0, 5e-6, 1e-3);
    replay_drop(&r);
    qgc_arena_drop(a);
}

/* Where rows are whole chunks of 16 warps, and copies bring three tiles of them or more, there are 16. */
static void persistent_steps_of_sixteen_warps(void **state) {
    (void)state;
    static const types few_bits = {"q4_0", "q4_k", "q4_k", "q4_k", "q5_k", "q4_k", "q4_k", "q5_k"};
    qgc_arena *a = qgc_arena_new();
    const replay_of of = {
        .yaml = quantised_of(a, small_qwen2, &few_bits, 1, 1024, 1024), .arch = 90, .sms = 12};
    replay r = replay_new(&of);
    assert_non_null(strstr(step_of(&r)->program, "WARPS = 16,"));
    assert_int_equal(step_of(&r)->threads, 17 * 32);
    assert_true(keeps_blocks(&r));
    compare_steps(&r, &(replay_run){ON_CPU_RANDOM, 0, 1}, 0, 2e-4, 1e-3);
    replay_drop(&r);
    qgc_arena_drop(a);
}

/* What is unpacked before a vector is there: whole groups of short rows, the first chunks of a group, of a vector that is taken as a whole
 * and of one that is taken as it is multiplied; and chunks that are taken two at a time. Shares are as large as the kernel is laid
 * out for, and larger at last. */
static void persistent_steps_that_hold_blocks(void **state) {
    (void)state;
    static const types k = {"q6_k", "q4_k", "q4_k", "q4_k", "q4_k", "q4_k", "q4_k", "q4_k"},
                       five = {"q8_0", "q5_0", "q5_0", "q5_0", "q5_0", "q8_0", "q8_0", "q8_0"},
                       six = {"q4_0", "q4_0", "q4_0", "q4_0", "q4_0", "q5_0", "q5_0", "q6_k"};
    static const struct {
        const types *of;
        int ff, sms;
        const char *options[REPLAY_OPTIONS];
    } cases[] = {
        {&k, 1280, 8, {"-DTYPICAL_SMS=8", "-DHELD_BLOCKS=48"}},
        {&five, 2048, 16, {"-DTYPICAL_SMS=16", "-DHELD_BLOCKS=36", "-DTILES_AT_ONCE=8"}},
        {&six, 4608, 12, {"-DTYPICAL_SMS=20", "-DHELD_BLOCKS=36", "-DTILES_AT_ONCE=8"}},
        {&k, 4608, 16, {"-DTYPICAL_SMS=16", "-DHELD_BLOCKS=48", "-DTILES_AT_ONCE=8"}},
    };
    qgc_arena *a = qgc_arena_new();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const replay_of of = {.yaml = quantised_of(a, small_qwen2, cases[i].of, 1, 256, cases[i].ff),
                              .arch = 90,
                              .sms = cases[i].sms,
                              .shared_bytes = 1,
                              .options = {cases[i].options[0], cases[i].options[1], cases[i].options[2]}};
        replay r = replay_new(&of);
        assert_true(keeps_blocks(&r));
        compare_steps(&r, &(replay_run){ON_CPU_RANDOM + (int)i, 0, 2}, i, 2e-4, 1e-3);
        replay_drop(&r);
    }
    qgc_arena_drop(a);
}

/* What is unpacked of the phase after an attention's product while the attention is waited for, two groups or one. */
static void persistent_steps_that_prepare_blocks(void **state) {
    (void)state;
    static const types of[] = {{"q6_k", "q4_k", "q4_k", "q4_k", "q4_k", "q4_k", "q4_k", "q4_k"},
                               {"q4_0", "q4_0", "q4_0", "q4_0", "q4_0", "q5_0", "q5_0", "q6_k"}};
    static const char *const options[] = {"-DPREPARED_BLOCKS=48", "-DPREPARED_BLOCKS=20"};
    qgc_arena *a = qgc_arena_new();
    for (int i = 0; i < (PERSISTENT_MIXES > 1 ? 2 : 1); i++) {
        replay r = replay_new(&(replay_of){.yaml = quantised_of(a, small_qwen2, &of[i], 2, 256, 1280),
                                           .arch = 90,
                                           .sms = 32,
                                           .options = {options[i]}});
        assert_non_null(strstr(step_of(&r)->program, "PREPARES = 1"));
        compare_steps(&r, &(replay_run){ON_CPU_RANDOM + i, 0, 1}, (size_t)i, 2e-3, 4e-3);
        replay_drop(&r);
    }
    qgc_arena_drop(a);
}

/* Rounded to f16, by 2^-11 of each weight, are rows of different formats that meet in one phase, and all if a layer has a block format
 * where another one has none, or if such rows meet in one layer and not in another. */
static const types rounded[] = {
    {"q8_0", "q5_0", "q8_0", "q5_1", "q4_1", "q4_0", "q5_0", "q8_0"},
    {"q8_0", "q5_1", "q5_1", "[q6_k, f16]", "q5_0", "q4_1", "q4_1", "q6_k"},
    {"q6_k", "q4_k", "q4_k", "q4_k", "q4_k", "[q4_k, q5_k]", "q5_k", "q6_k"},
};

static void block_formats_that_differ_are_f16_in_the_stream(void **state) {
    (void)state;
    qgc_arena *a = qgc_arena_new();
    for (size_t m = 0; m < sizeof rounded / sizeof *rounded; m++) {
        replay r =
            replay_new(&(replay_of){.yaml = quantised(a, small_qwen2, &rounded[m]), .arch = 90, .sms = 3});
        assert_true(m == 0 || !keeps_blocks(&r)); /* of the first only two matrices are rounded */
        compare_steps(&r, &(replay_run){ON_CPU_RANDOM, 0, REPLAY_SHORT}, m, 2e-3, 4e-3);
        replay_drop(&r);
    }
    qgc_arena_drop(a);
}

/* usage: test_kernels_quantised [PATTERN of the tests to run] */
int main(int argc, char **argv) {
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_read_what_the_formats_say),
        cmocka_unit_test(planes_take_no_more_than_the_file),
        cmocka_unit_test(plans_of_quantised_models),
        cmocka_unit_test(all_rows_of_a_quantised_model),
        cmocka_unit_test(persistent_steps_of_quantised_models),
        cmocka_unit_test(persistent_steps_with_values_as_wide_as_the_model),
        cmocka_unit_test(persistent_steps_of_quantised_models_on_the_oldest_cards),
        cmocka_unit_test(persistent_steps_with_long_rows),
        cmocka_unit_test(persistent_steps_of_sixteen_warps),
        cmocka_unit_test(persistent_steps_that_hold_blocks),
        cmocka_unit_test(persistent_steps_that_prepare_blocks),
        cmocka_unit_test(block_formats_that_differ_are_f16_in_the_stream),
    };
    return cmocka_run_group_tests_name("kernels/quantised", tests, NULL, NULL);
}
