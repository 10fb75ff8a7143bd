/* Prefill in persistent mode: plans of small models whose products of many tokens read the stream of the persistent step, run on the CPU
 * and held against the evaluator. */

#include <dlfcn.h>
#include <math.h>
#include <string.h>

#include "codegen/shares.h"
#include "graph/base/planes.h"
#include "graph/base/str.h"
#include "kernels/cpu/on_cpu_launch.h"
#include "tests/kernels/cpu_kernels.h"
#include "tests/kernels/replay.h"
#include "tests/kernels/small_graphs.h"
#include "tests/support/cmocka.h"
#include "tests/support/random.h"

static const char *const families[] = {small_qwen2, small_qwen3, small_olmo2};

static int count(const replay *r, const char *kernel) {
    const qgc_phase *phase = &r->lowered.plan->phases[QGC_PHASE_PACKED_PREFILL];
    int n = 0;
    for (size_t i = 0; i < phase->n_launches; i++)
        n += phase->launches[i].kind == QGC_LAUNCH_KERNEL &&
             strcmp(r->lowered.plan->kernels[phase->launches[i].kernel].entry, kernel) == 0;
    return n;
}

static void must_agree(replay *r, const replay_run *what) {
    const apart a = replay_compare(r, what);
    if (!replay_agrees(&a))
        fail_msg("%s %s: logits %g and states %g apart, by chunks %g and %g; %d tokens are others",
                 r->graph->name, r->name, a.logits, a.states, a.prefilled_logits, a.prefilled_states,
                 a.tokens);
}

/* On few and more multiprocessors, so that tiles of rows have all heights. The stream is made from the file where steps are taken, too,
 * else from weights that are on the device. */
static void chunks_of_a_prompt(void **state) {
    (void)state;
    static const int sms[] = {2, 3, 5};
    for (int i = 0; i < 3; i++) {
        replay r = replay_new(&(replay_of){.yaml = families[i], .arch = 90, .sms = sms[i]});
        assert_int_equal(count(&r, "unpack"), 0);
        assert_int_equal(count(&r, "to_operand"), i < 2 ? 0 : 4); /* attention writes operands */
        assert_true(count(&r, "packed_gemm") >= 2 * 4 + 1);
        must_agree(&r, &(replay_run){ON_CPU_RANDOM + i, REPLAY_CHUNK + 5, i == 1 ? REPLAY_SHORT : 0});
        replay_drop(&r);
    }
}

/* Chunks of a longer prompt have launches of their own: a whole one, with a shorter one after it, and one that is not whole. */
static void longer_chunks(void **state) {
    (void)state;
    static const int prompts[] = {REPLAY_LONG, REPLAY_CHUNK + 5};
    for (int i = 0; i < 2; i++) {
        replay r = replay_new(
            &(replay_of){.yaml = families[i], .arch = 90, .sms = 3, .long_chunk = 2 * REPLAY_CHUNK});
        assert_int_equal(r.lowered.plan->long_chunk, 2 * REPLAY_CHUNK);
        assert_true(r.lowered.plan->phases[QGC_PHASE_LONG_PREFILL].n_launches > 0);
        must_agree(&r, &(replay_run){ON_CPU_RANDOM, prompts[i], 0});
        replay_drop(&r);
    }
}

/* All of a chunk but the first launch is started while what is before it runs. */
static void launches_start_early(void **state) {
    (void)state;
    replay r = replay_new(&(replay_of){.yaml = small_qwen2, .arch = 90, .sms = 3});
    const qgc_phase *phase = &r.lowered.plan->phases[QGC_PHASE_PACKED_PREFILL];
    for (size_t i = 1; i < phase->n_launches; i++)
        if (!phase->launches[i].early)
            fail_msg("\"%s\" starts late: %s", phase->launches[i].node, phase->launches[i].not_early);
    replay_drop(&r);
}

static void without_passes(void **state) {
    (void)state;
    replay r = replay_new(&(replay_of){.yaml = small_qwen3, .passes = "persistent", .arch = 90, .sms = 3});
    must_agree(&r, &(replay_run){ON_CPU_FORWARDS, REPLAY_CHUNK + 5, 0});
    replay_drop(&r);
}

/* --- packing, and its inverse ----------------------------------------------------------------------------- */

enum { ROWS = 43, OTHER = 24, WIDTH = 768, BLOCKS = 3, WARPS_OF_STEP = 8, PACK_THREADS = 64 };

static const on_cpu_kernel *kernel_for(qgc_arena *a, const char *file, const char *const *options,
                                       const char *arch) {
    qgc_str all = qgc_str_new(a);
    int n = 0;
    const char *copy[24];
    for (; options[n]; n++) {
        qgc_str_printf(&all, " %s", options[n]);
        copy[n] = options[n];
    }
    const qgc_plan_kernel k = {.name = file,
                               .entry = qgc_arena_strndup(a, file, strlen(file) - 3),
                               .options = all.text,
                               .threads = PACK_THREADS};
    const qgc_kernel_job job = {.options = copy, .n_options = n};
    const char *path = cpu_kernels_compile(&k, &job, arch, a);
    void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    assert_non_null(library);
    return dlsym(library, "on_cpu_loaded");
}

static const on_cpu_kernel *kernel_of(qgc_arena *a, const char *file, const char *const *options) {
    return kernel_for(a, file, options, "sm_90");
}

static void run(const on_cpu_kernel *k, unsigned grid, void **args) {
    on_cpu_launch(k, &(on_cpu_launch_options){.grid = {grid, 1, 1}, .threads = PACK_THREADS, .args = args});
}

/* Random numbers of a type, as they lie on a device; of blocks, scales that are finite. */
static uint8_t *matrix_of(qgc_arena *a, qgc_dtype t, int rows, uint64_t *seed) {
    const size_t row = qgc_dtype_is_quantised(t) ? qgc_planes_bytes(t, WIDTH) : qgc_dtype_bytes(t, WIDTH);
    uint8_t *m = qgc_arena_alloc(a, row * (size_t)rows), file[WIDTH * 4];
    float x[WIDTH];
    for (int r = 0; r < rows; r++) {
        for (int i = 0; i < WIDTH; i++)
            x[i] = test_random_float(seed) - 0.5f;
        if (!qgc_dtype_is_quantised(t)) {
            qgc_from_f32(t, x, m + row * (size_t)r, WIDTH);
            continue;
        }
        const int bytes = qgc_dtypes[t].block_bytes, blocks = WIDTH / qgc_dtypes[t].block_elems;
        for (int i = 0; i < blocks * bytes; i++)
            file[i] = (uint8_t)test_random(seed);
        for (int b = 0; b < blocks; b++)
            for (int i = 0; i < 2; i++)
                file[b * bytes + (t == QGC_Q6_K ? 208 : 2 * i) + 1] &= 0x3F;
        qgc_to_planes(t, file, m + row * (size_t)r, WIDTH);
    }
    return m;
}

static size_t stream_row(qgc_dtype t) {
    static const int of[QGC_N_DTYPES] = {[QGC_Q8_0] = 68, [QGC_Q4_0] = 36, [QGC_Q4_1] = 40, [QGC_Q5_0] = 44,
                                         [QGC_Q5_1] = 48, [QGC_Q4_K] = 36, [QGC_Q5_K] = 44, [QGC_Q6_K] = 52};
    size_t bytes = 0;
    for (int first = 0; first < WIDTH / 64; first += WARPS_OF_STEP) {
        const int n = WIDTH / 64 - first < WARPS_OF_STEP ? WIDTH / 64 - first : WARPS_OF_STEP;
        const int whole = t == QGC_Q6_K ? 2 : t == QGC_Q4_K || t == QGC_Q5_K ? 4 : 0;
        bytes += ((size_t)(n * of[t] + (whole ? ((n + 2) / 4 + 1) * whole : 0)) + 15) / 16 * 16;
    }
    return qgc_dtype_is_quantised(t) ? bytes : 2 * WIDTH;
}

/* Two matrices into the stream and out of it again: the second one is, bit for bit, what to_bf16.cu makes of it. */
static void unpacking_is_the_inverse_of_packing(void **state) {
    (void)state;
    static const qgc_dtype types[] = {QGC_BF16, QGC_F16,  QGC_Q8_0, QGC_Q4_0, QGC_Q4_1,
                                      QGC_Q5_0, QGC_Q5_1, QGC_Q4_K, QGC_Q5_K, QGC_Q6_K};
    static const char *const names[] = {"BF16", "F16",  "Q8_0", "Q4_0", "Q4_1",
                                        "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"};
    qgc_arena *a = qgc_arena_new();
    uint64_t seed = 5;
    int32_t shares[2 * BLOCKS];
    const qgc_share share = {.rows = ROWS + OTHER, .unit = 1, .cost = 1};
    qgc_shares_cut(&share, 1, BLOCKS, shares);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const qgc_dtype t = types[i];
        const bool blocks = qgc_dtype_is_quantised(t);
        const char *format = qgc_arena_printf(a, "-DFORMAT=%s", names[i]),
                   *place = qgc_arena_printf(a, "-DPLACE=FIRST(0)*%zuull", stream_row(t)),
                   *from = qgc_arena_printf(a, "-DFROM=%s", names[i]);
        const char *const options[] = {"-DK=768",  "-DWARPS=8", "-DTHREADS=64", "-DOUT0=43", "-DOUT1=24",
                                       "-DOUT2=0", "-DOUT3=0",  place,          format,      NULL,
                                       NULL};
        const char *const back[] = {"-DK=768",  "-DWARPS=8", "-DTHREADS=64", "-DOUT0=43", "-DOUT1=24",
                                    "-DOUT2=0", "-DOUT3=0",  place,          format,      "-DWHICH=1",
                                    NULL};
        const char *const plain[] = {from, "-DIN=768", NULL};
        const size_t stream_bytes = stream_row(t) * (ROWS + OTHER), elems = (size_t)OTHER * WIDTH;
        uint8_t *first = matrix_of(a, t, ROWS, &seed), *second = matrix_of(a, t, OTHER, &seed),
                *stream = qgc_arena_alloc(a, stream_bytes);
        uint16_t *got = qgc_arena_alloc(a, 2 * elems), *want = qgc_arena_alloc(a, 2 * elems);
        const int32_t *table = shares;
        int32_t n = (int32_t)elems;
        memset(stream, 0xFF, stream_bytes);
        run(kernel_of(a, blocks ? "pack_blocks.cu" : "pack.cu", options), BLOCKS,
            (void *[]){&first, &second, &first, &first, &stream, &table});
        run(kernel_of(a, blocks ? "unpack_blocks.cu" : "unpack.cu", back), BLOCKS,
            (void *[]){&stream, &table, &got});
        if (t == QGC_BF16)
            memcpy(want, second, 2 * elems);
        else
            run(kernel_of(a, "to_bf16.cu", plain), (unsigned)(elems / (blocks ? 8 : 4) / PACK_THREADS),
                (void *[]){&second, &want, &n});
        for (size_t k = 0; k < elems; k++)
            if (got[k] != want[k])
                fail_msg("%s: element %zu is %04x, expected %04x", names[i], k, got[k], want[k]);
    }
    qgc_arena_drop(a);
}

/* --- products by themselves ------------------------------------------------------------------------------- */

/* Rows of two matrices, as other shapes of blocks take them than those that small graphs get. */
typedef struct {
    int k, rows, tokens;
    int span, groups, cluster, split, stages, blocks;
} shape;

typedef struct {
    qgc_arena *arena;
    const shape *of;
    int32_t *shares;
    float *x;
    uint16_t *weights;
    uint8_t *stream, *operand;
} product;

static const char *option(const product *p, const char *name, int value) {
    return qgc_arena_printf(p->arena, "-D%s=%d", name, value);
}

/* The second matrix has 24 rows less than the first. */
static void place_options(const product *p, const char **options) {
    const int first = p->of->rows / 2 + 12;
    options[0] = option(p, "K", p->of->k);
    options[1] = option(p, "OUT0", first);
    options[2] = option(p, "OUT1", p->of->rows - first);
    options[3] = "-DOUT2=0";
    options[4] = "-DOUT3=0";
    options[5] = qgc_arena_printf(p->arena, "-DPLACE=FIRST(0)*%dull", 2 * p->of->k);
}

enum { PLACES = 6, OWNERS = 5, MOST_OWNERS = 1024 };

static float rounded(float x) {
    uint16_t bits;
    qgc_from_f32(QGC_BF16, &x, &bits, 1);
    qgc_to_f32(QGC_BF16, &bits, &x, 1);
    return x;
}

static void make_operands(product *p, uint64_t *seed) {
    const shape *s = p->of;
    const int all = (s->tokens + 7) / 8 * 8, first = s->rows / 2 + 12;
    p->shares = qgc_arena_array(p->arena, (size_t)2 * MOST_OWNERS, sizeof *p->shares);
    const qgc_share share = {.rows = s->rows, .unit = 1, .cost = 1};
    qgc_shares_cut(&share, 1, OWNERS, p->shares);
    for (int i = OWNERS; i < MOST_OWNERS; i++)
        p->shares[2 * i] = s->rows;
    p->x = qgc_arena_array(p->arena, (size_t)(s->tokens * s->k), sizeof *p->x);
    for (int i = 0; i < s->tokens * s->k; i++)
        p->x[i] = rounded(test_random_float(seed) - 0.5f);
    p->weights = qgc_arena_array(p->arena, (size_t)(s->rows * s->k), sizeof *p->weights);
    for (int i = 0; i < s->rows * s->k; i++) {
        const float w = test_random_float(seed) - 0.5f;
        qgc_from_f32(QGC_BF16, &w, &p->weights[i], 1);
    }
    p->stream = qgc_arena_alloc(p->arena, (size_t)(s->rows * s->k) * 2);
    p->operand = qgc_arena_alloc(p->arena, (size_t)(all * s->k) * 2);
    const char *options[PLACES + 3] = {NULL}, *plain[] = {option(p, "K", s->k), NULL};
    place_options(p, options);
    options[PLACES] = "-DTHREADS=64";
    options[PLACES + 1] = "-DWARPS=8";
    const uint16_t *second = p->weights + (size_t)(first * s->k);
    run(kernel_of(p->arena, "pack.cu", options), OWNERS,
        (void *[]){&p->weights, &second, &second, &second, &p->stream, &p->shares});
    int32_t rows = s->tokens;
    run(kernel_of(p->arena, "to_operand.cu", plain), (unsigned)(s->tokens * s->k / 16 + 63) / PACK_THREADS,
        (void *[]){&p->x, &p->operand, &rows});
}

/* What blocks that share rows have is in out[0], part after part. */
static void multiply(product *p, const char *arch, float *out[2], int order) {
    enum { MOST_BLOCKS = 8, TILE = 8 };
    const shape *s = p->of;
    const char *options[PLACES + 7] = {NULL};
    place_options(p, options);
    options[PLACES] = option(p, "SPAN", s->span);
    options[PLACES + 1] = option(p, "GROUPS", s->groups);
    options[PLACES + 2] = option(p, "CLUSTER", s->cluster);
    options[PLACES + 3] = option(p, "SPLIT", s->split);
    options[PLACES + 4] = option(p, "STAGES", s->stages);
    const on_cpu_kernel *k = kernel_for(p->arena, "packed_gemm.cu", options, arch), *all[MOST_BLOCKS];
    for (int i = 0; i < MOST_BLOCKS; i++)
        all[i] = k;
    const float *none = NULL;
    int32_t rows = s->tokens;
    void *args[] = {(void *)&p->operand,
                    (void *)&p->stream,
                    (void *)&p->shares,
                    &none,
                    &none,
                    &none,
                    &none,
                    &none,
                    &out[0],
                    &out[1],
                    &out[0],
                    &out[0],
                    &rows};
    const int bytes = (s->span + 64 * s->groups + 2 * (TILE - 1)) * 128 + 16 + 64 * s->groups * 4;
    const char *why =
        on_cpu_launch_together(all, &(on_cpu_launch_options){.grid = {(unsigned)s->blocks, 1, 1},
                                                             .threads = (unsigned)(s->groups * 128 + 128),
                                                             .shared_bytes = (size_t)(s->stages * bytes),
                                                             .order = order,
                                                             .args = args});
    if (why)
        fail_msg("%s", why);
}

static double expected(const product *p, int row, int token) {
    double sum = 0;
    for (int i = 0; i < p->of->k; i++) {
        float w;
        qgc_to_f32(QGC_BF16, &p->weights[row * p->of->k + i], &w, 1);
        sum += (double)w * (double)p->x[token * p->of->k + i];
    }
    return sum;
}

static void check_product(const shape *s, const char *arch, int order) {
    product p = {.arena = qgc_arena_new(), .of = s};
    uint64_t seed = (uint64_t)order;
    const int first = s->rows / 2 + 12, n = s->tokens * s->rows * s->split;
    make_operands(&p, &seed);
    float *out[2];
    for (int i = 0; i < 2; i++) {
        out[i] = qgc_arena_array(p.arena, (size_t)n, sizeof(float));
        memset(out[i], 0xFF, (size_t)n * sizeof(float));
    }
    multiply(&p, arch, out, order);
    for (int token = 0; token < s->tokens; token++)
        for (int row = 0; row < s->rows; row++) {
            double got = 0;
            for (int part = 0; part < s->split && s->split > 1; part++)
                got += (double)out[0][(part * s->tokens + token) * s->rows + row];
            if (s->split == 1)
                got = (double)(row < first ? out[0][token * first + row]
                                           : out[1][token * (s->rows - first) + row - first]);
            const double want = expected(&p, row, token);
            if (!(fabs(got - want) <= 1e-4))
                fail_msg("%s, span %d, split %d: row %d of token %d is %g, expected %g", arch, s->span,
                         s->split, row, token, got, want);
        }
    qgc_arena_drop(p.arena);
}

/* In clusters, in rounds with halves, with parts of an odd number of steps, with rows of few and of many owners. */
static void blocks_of_all_shapes_multiply(void **state) {
    (void)state;
    static const shape shapes[] = {
        {.k = 192,
         .rows = 300,
         .tokens = 270,
         .span = 256,
         .groups = 2,
         .cluster = 2,
         .split = 1,
         .stages = 3,
         .blocks = 2},
        {.k = 320,
         .rows = 61,
         .tokens = 197,
         .span = 128,
         .groups = 2,
         .cluster = 1,
         .split = 2,
         .stages = 2,
         .blocks = 3},
        {.k = 64,
         .rows = 300,
         .tokens = 133,
         .span = 128,
         .groups = 1,
         .cluster = 2,
         .split = 1,
         .stages = 4,
         .blocks = 4},
        {.k = 256,
         .rows = 99,
         .tokens = 3,
         .span = 64,
         .groups = 1,
         .cluster = 1,
         .split = 2,
         .stages = 6,
         .blocks = 5},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_product(&shapes[i], "sm_90a", (int)i + 1);
        check_product(&shapes[i], "sm_80", (int)i + 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_of_a_prompt),
        cmocka_unit_test(longer_chunks),
        cmocka_unit_test(launches_start_early),
        cmocka_unit_test(without_passes),
        cmocka_unit_test(blocks_of_all_shapes_multiply),
        cmocka_unit_test(unpacking_is_the_inverse_of_packing),
    };
    return cmocka_run_group_tests_name("kernels/packed", tests, NULL, NULL);
}
