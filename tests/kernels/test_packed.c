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
    assert_int_equal(replay_beside(&r), 3 * 2); /* k and v need not wait for q, up not for gate */
    must_agree(&r, &(replay_run){ON_CPU_FORWARDS, REPLAY_CHUNK + 5, 0});
    replay_drop(&r);
}

/* --- rows of all formats ---------------------------------------------------------------------------------- */

enum { ROWS = 124, OTHER = 24, WIDTH = 512, BLOCKS = 3, WARPS_OF_STEP = 6, PACK_THREADS = 64 };

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

/* Random numbers of a type, as they lie on a device, and their values; of blocks, scales that are finite. */
static uint8_t *matrix_of(qgc_arena *a, qgc_dtype t, int rows, uint64_t *seed, float *values) {
    const bool blocks = qgc_dtype_is_quantised(t);
    const size_t row = blocks ? qgc_planes_bytes(t, WIDTH) : qgc_dtype_bytes(t, WIDTH);
    uint8_t *m = qgc_arena_alloc(a, row * (size_t)rows), file[WIDTH * 4];
    for (int r = 0; r < rows; r++, values += WIDTH) {
        uint8_t *to = m + row * (size_t)r;
        for (int i = 0; i < WIDTH && !blocks; i++)
            values[i] = test_random_float(seed) - 0.5f;
        if (!blocks)
            qgc_from_f32(t, values, to, WIDTH);
        const int bytes = qgc_dtypes[t].block_bytes, n = blocks ? WIDTH / qgc_dtypes[t].block_elems : 0;
        for (int i = 0; i < n * bytes; i++)
            file[i] = (uint8_t)test_random(seed);
        for (int b = 0; b < n; b++)
            for (int i = 0; i < 2; i++)
                file[b * bytes + (t == QGC_Q6_K ? 208 : 2 * i) + 1] &= 0x3F;
        if (blocks)
            qgc_to_planes(t, file, to, WIDTH);
        qgc_to_f32(t, blocks ? file : to, values, WIDTH);
    }
    return m;
}

/* Of a pair of blocks of a row in the stream. */
static const int pair_bytes[QGC_N_DTYPES] = {
    [QGC_Q8_0] = 68, [QGC_Q4_0] = 36, [QGC_Q4_1] = 40, [QGC_Q5_0] = 44,
    [QGC_Q5_1] = 48, [QGC_Q4_K] = 36, [QGC_Q5_K] = 44, [QGC_Q6_K] = 52};

/* And in shared memory, with the scale of K formats; 0 of 16 bits. */
static int step_bytes(qgc_dtype t) {
    return pair_bytes[t] + (t == QGC_Q4_K || t == QGC_Q5_K || t == QGC_Q6_K ? 4 : 0);
}

static size_t stream_row(qgc_dtype t) {
    size_t bytes = 0;
    for (int first = 0; first < WIDTH / 64; first += WARPS_OF_STEP) {
        const int n = WIDTH / 64 - first < WARPS_OF_STEP ? WIDTH / 64 - first : WARPS_OF_STEP;
        const int whole = t == QGC_Q6_K ? 2 : t == QGC_Q4_K || t == QGC_Q5_K ? 4 : 0;
        bytes += ((size_t)(n * pair_bytes[t] + (whole ? ((n + 1) / 4 + 1) * whole : 0)) + 15) / 16 * 16;
    }
    return qgc_dtype_is_quantised(t) ? bytes : 2 * WIDTH;
}

/* How products by themselves are cut in blocks, and on how many these run. */
typedef struct {
    int span, groups, cluster, split, stages, blocks;
} cut;

static void run_product(qgc_arena *a, const char *const *options, const char *arch, const cut *c, void **args,
                        int order, int staged) {
    enum { MOST_BLOCKS = 8, TILE = 8, MOST = 24 };
    const char *all[MOST];
    int n = 0;
    for (; options[n]; n++)
        all[n] = options[n];
    all[n++] = qgc_arena_printf(a, "-DSPAN=%d", c->span);
    all[n++] = qgc_arena_printf(a, "-DGROUPS=%d", c->groups);
    all[n++] = qgc_arena_printf(a, "-DCLUSTER=%d", c->cluster);
    all[n++] = qgc_arena_printf(a, "-DSPLIT=%d", c->split);
    all[n++] = qgc_arena_printf(a, "-DSTAGES=%d", c->stages);
    all[n] = NULL;
    const on_cpu_kernel *k = kernel_for(a, "packed_gemm.cu", all, arch), *kernels[MOST_BLOCKS];
    for (int i = 0; i < MOST_BLOCKS; i++)
        kernels[i] = k;
    const int rows = 64 * c->groups, places = staged ? 1 : rows,
              weights = staged ? rows * staged : (rows + 2 * (TILE - 1)) * 128;
    const char *why = on_cpu_launch_together(
        kernels, &(on_cpu_launch_options){
                     .grid = {(unsigned)c->blocks, 1, 1},
                     .threads = (unsigned)(c->groups * 128 + 128),
                     .shared_bytes = (size_t)(c->stages * (c->span * 128 + weights + 16 + places * 4)),
                     .order = order,
                     .args = args});
    if (why)
        fail_msg("%s", why);
}

/* The identity as operand B. */
static uint8_t *identity(qgc_arena *a) {
    const char *const options[] = {qgc_arena_printf(a, "-DK=%d", WIDTH), NULL};
    float *x = qgc_arena_array(a, (size_t)WIDTH * WIDTH, sizeof *x);
    for (int i = 0; i < WIDTH; i++)
        x[i * WIDTH + i] = 1;
    uint8_t *operand = qgc_arena_alloc(a, (size_t)WIDTH * WIDTH * 2);
    int32_t rows = WIDTH;
    run(kernel_of(a, "to_operand.cu", options), WIDTH * WIDTH / 16 / PACK_THREADS,
        (void *[]){&x, &operand, &rows});
    return operand;
}

/* Shares of all rows, one after the other; those that are not there begin after the last row. */
static int32_t *shares_of(qgc_arena *a, int rows, int blocks) {
    enum { MOST_OWNERS = 1024 };
    int32_t *shares = qgc_arena_array(a, (size_t)2 * MOST_OWNERS, sizeof *shares);
    const qgc_share share = {.rows = rows, .unit = 1, .cost = 1};
    qgc_shares_cut(&share, 1, blocks, shares);
    for (int i = blocks; i < MOST_OWNERS; i++)
        shares[2 * i] = rows;
    return shares;
}

typedef struct {
    qgc_dtype type;
    const char *name;
} format;

/* Is a number that rounded to bf16? Of blocks but for what the second half of a scale leaves, and float32, where numbers as large as the
 * largest one are taken off each other. */
static bool is_as_rounded(qgc_dtype t, float got, float exact, float largest) {
    const float most = fabsf(exact) * 0x1p-8F;
    return fabsf(got - exact) <= (qgc_dtype_is_quantised(t) ? most * 1.01f + largest * 0x1p-20F : most);
}

static float largest_of(const float *x, int n) {
    float most = 0;
    for (int i = 0; i < n; i++)
        most = fmaxf(most, fabsf(x[i]));
    return most;
}

/* Two matrices through the stream, times the identity: their values in bf16. */
static void check_format(qgc_arena *a, const format *f, const char *arch, const cut *c, int32_t *shares,
                         uint8_t *x) {
    uint64_t seed = 5;
    const bool blocks = qgc_dtype_is_quantised(f->type);
    const char *const options[] = {qgc_arena_printf(a, "-DK=%d", WIDTH),
                                   qgc_arena_printf(a, "-DWARPS=%d", WARPS_OF_STEP),
                                   qgc_arena_printf(a, "-DOUT0=%d", ROWS),
                                   qgc_arena_printf(a, "-DOUT1=%d", OTHER),
                                   "-DOUT2=0",
                                   "-DOUT3=0",
                                   qgc_arena_printf(a, "-DPLACE=FIRST(0)*%zuull", stream_row(f->type)),
                                   qgc_arena_printf(a, "-DFORMAT=%s", f->name),
                                   NULL};
    const char *packing[sizeof options / sizeof *options + 1];
    memcpy(packing, options, sizeof options);
    packing[sizeof options / sizeof *options - 1] = qgc_arena_printf(a, "-DTHREADS=%d", PACK_THREADS);
    packing[sizeof options / sizeof *options] = NULL;
    float *want[2] = {qgc_arena_array(a, (size_t)ROWS * WIDTH, sizeof(float)),
                      qgc_arena_array(a, (size_t)OTHER * WIDTH, sizeof(float))};
    uint8_t *m[] = {matrix_of(a, f->type, ROWS, &seed, want[0]),
                    matrix_of(a, f->type, OTHER, &seed, want[1])};
    const size_t bytes = stream_row(f->type) * (ROWS + OTHER);
    uint8_t *stream = memset(qgc_arena_alloc(a, bytes), 0xFF, bytes);
    run(kernel_of(a, blocks ? "pack_blocks.cu" : "pack.cu", packing), BLOCKS,
        (void *[]){&m[0], &m[1], &m[0], &m[0], &stream, &shares});
    float *out[2] = {qgc_arena_array(a, (size_t)ROWS * WIDTH, sizeof(float)),
                     qgc_arena_array(a, (size_t)OTHER * WIDTH, sizeof(float))};
    const float *none = NULL;
    int32_t tokens = WIDTH;
    float *parts = qgc_arena_array(a, (size_t)c->split * WIDTH * (ROWS + OTHER), sizeof *parts);
    if (c->split > 1)
        out[0] = parts;
    run_product(a, options, arch, c,
                (void *[]){&x, &stream, &shares, &none, &none, &none, &none, &none, &out[0], &out[1], &out[0],
                           &out[0], &tokens},
                1, step_bytes(f->type));
    for (int k = 0; k < 2; k++) {
        const int rows = k ? OTHER : ROWS;
        const float largest = largest_of(want[k], rows * WIDTH);
        for (int i = 0; i < rows * WIDTH; i++) {
            const int token = i % WIDTH, row = i / WIDTH;
            float got = c->split == 1 ? out[k][token * rows + row] : 0.0f;
            for (int part = 0; part < c->split && c->split > 1; part++) /* of which all but one are 0 */
                got += parts[(part * WIDTH + token) * (ROWS + OTHER) + k * ROWS + row];
            if (!is_as_rounded(f->type, got, want[k][i], largest))
                fail_msg("%s, %s: element %d of matrix %d is %.9g, expected %.9g", f->name, arch, i, k,
                         (double)got, (double)want[k][i]);
        }
    }
}

static void rows_of_all_formats_are_multiplied_as_bf16(void **state) {
    (void)state;
    static const format formats[] = {
        {QGC_BF16, "BF16"}, {QGC_F16, "F16"},   {QGC_Q8_0, "Q8_0"}, {QGC_Q4_0, "Q4_0"}, {QGC_Q4_1, "Q4_1"},
        {QGC_Q5_0, "Q5_0"}, {QGC_Q5_1, "Q5_1"}, {QGC_Q4_K, "Q4_K"}, {QGC_Q5_K, "Q5_K"}, {QGC_Q6_K, "Q6_K"}};
    static const cut cuts[] = {
        {.span = 256, .groups = 2, .cluster = 2, .split = 1, .stages = 3, .blocks = 2},
        {.span = 128, .groups = 1, .cluster = 1, .split = 2, .stages = 4, .blocks = 3},
    };
    qgc_arena *a = qgc_arena_new();
    int32_t *shares = shares_of(a, ROWS + OTHER, BLOCKS);
    uint8_t *x = identity(a);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        check_format(a, &formats[i], "sm_90a", &cuts[i % 2], shares, x);
        check_format(a, &formats[i], "sm_80", &cuts[(i + 1) % 2], shares, x);
    }
    qgc_arena_drop(a);
}

/* --- products by themselves ------------------------------------------------------------------------------- */

/* Rows of two matrices, as other shapes of blocks take them than those that small graphs get. */
typedef struct {
    int k, rows, tokens;
    cut cut;
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

enum { PLACES = 6, OWNERS = 5 };

static float rounded(float x) {
    uint16_t bits;
    qgc_from_f32(QGC_BF16, &x, &bits, 1);
    qgc_to_f32(QGC_BF16, &bits, &x, 1);
    return x;
}

static void make_operands(product *p, uint64_t *seed) {
    const shape *s = p->of;
    const int all = (s->tokens + 7) / 8 * 8, first = s->rows / 2 + 12;
    p->shares = shares_of(p->arena, s->rows, OWNERS);
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
    const char *options[PLACES + 1] = {NULL};
    place_options(p, options);
    const float *none = NULL;
    int32_t rows = p->of->tokens;
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
    run_product(p->arena, options, arch, &p->of->cut, args, order, 0);
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
    const int first = s->rows / 2 + 12, n = s->tokens * s->rows * s->cut.split;
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
            for (int part = 0; part < s->cut.split && s->cut.split > 1; part++)
                got += (double)out[0][(part * s->tokens + token) * s->rows + row];
            if (s->cut.split == 1)
                got = (double)(row < first ? out[0][token * first + row]
                                           : out[1][token * (s->rows - first) + row - first]);
            const double want = expected(&p, row, token);
            if (!(fabs(got - want) <= 1e-4))
                fail_msg("%s, span %d, split %d: row %d of token %d is %g, expected %g", arch, s->cut.span,
                         s->cut.split, row, token, got, want);
        }
    qgc_arena_drop(p.arena);
}

/* In clusters, in rounds with halves, with parts of an odd number of steps, with rows of few and of many owners. */
static void blocks_of_all_shapes_multiply(void **state) {
    (void)state;
    static const shape shapes[] = {
        {192, 300, 270, {.span = 256, .groups = 2, .cluster = 2, .split = 1, .stages = 3, .blocks = 2}},
        {320, 61, 197, {.span = 128, .groups = 2, .cluster = 1, .split = 2, .stages = 2, .blocks = 3}},
        {64, 300, 133, {.span = 128, .groups = 1, .cluster = 2, .split = 1, .stages = 4, .blocks = 4}},
        {256, 99, 3, {.span = 64, .groups = 1, .cluster = 1, .split = 2, .stages = 6, .blocks = 5}},
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
        cmocka_unit_test(rows_of_all_formats_are_multiplied_as_bf16),
    };
    return cmocka_run_group_tests_name("kernels/packed", tests, NULL, NULL);
}
