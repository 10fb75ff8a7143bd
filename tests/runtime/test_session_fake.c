#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/program_impl.h"
#include "runtime/session.h"
#include "tests/support/cmocka.h"
#include "tests/support/fake_device.h"
#include "tests/support/fake_weights.h"
#include "tests/support/printed.h"
#include "tests/support/text.h"

/* Programs and sessions on a fake device, with a fake model: the next token depends on all tokens so far,
 * on their positions and on the seed. */

enum { VOCAB = 16, WIDTH = 8, CHUNK = 4, RING = 12, CTX = 64 };
enum {
    X_BYTES = 2 * WIDTH, /* one row of bf16 */
    EMBED_BYTES = VOCAB * X_BYTES,
    NORM_BYTES = 4 * WIDTH,
    LOGITS_BYTES = 4 * VOCAB,
    RING_BYTES = 4 * RING,
};

/* The kernels. */

static void *pointer(void **args, int i) {
    return (void *)(uintptr_t) * (const qgc_address *)args[i]; /* NOLINT(performance-no-int-to-ptr) */
}

static int32_t number(void **args, int i) {
    return *(const int32_t *)args[i];
}

static void run_fill_table(void **args, const unsigned grid[3]) {
    int32_t *table = pointer(args, 0);
    assert_int_equal(grid[0], (number(args, 1) + 31) / 32);
    for (int i = 0; i < number(args, 1); i++)
        table[i] = 3 * i + 1;
}

static void run_remember(void **args, const unsigned grid[3]) {
    const int32_t *tokens = pointer(args, 0), *positions = pointer(args, 1);
    int32_t *history = pointer(args, 2);
    assert_int_equal(grid[0], number(args, 3));
    for (int i = 0; i < number(args, 3); i++)
        history[positions[i]] = tokens[i];
}

static void run_embed(void **args, const unsigned grid[3]) {
    const int32_t *tokens = pointer(args, 0);
    const uint16_t *embed = pointer(args, 1);
    uint16_t *x = pointer(args, 2);
    for (unsigned i = 0; i < grid[0]; i++)
        memcpy(x + (size_t)i * WIDTH, embed + (size_t)tokens[i] * WIDTH, X_BYTES);
}

static void run_linear(void **args, const unsigned grid[3]) {
    const uint16_t *x = pointer(args, 0), *w = pointer(args, 1);
    float *y = pointer(args, 2);
    assert_int_equal(grid[0], 1);
    for (int n = 0; n < VOCAB; n++) {
        y[n] = 0;
        for (int k = 0; k < WIDTH; k++)
            y[n] += qgc_bf16_to_f32(x[k]) * qgc_bf16_to_f32(w[n * WIDTH + k]);
    }
}

/* From this position on sampling sees no number, or one logit is none. */
static int32_t not_finite_from = INT32_MAX, one_not_finite_from = INT32_MAX;

static void run_choose(void **args, const unsigned grid[3]) {
    const int32_t *history = pointer(args, 0), *table = pointer(args, 1), *positions = pointer(args, 2);
    const int32_t row = *(const int32_t *)pointer(args, 3);
    const qgc_sampling *sampling = pointer(args, 4);
    const float *y = pointer(args, 5);
    float *logits = pointer(args, 6);
    int32_t *next = pointer(args, 7);
    (void)grid;
    uint64_t sum = sampling->seed;
    for (int i = 0; i <= positions[row]; i++)
        sum = sum * 5 + (uint64_t)(history[i] * table[i]);
    *next = (int32_t)((sum >> 7) % VOCAB);
    memcpy(logits, y + (size_t)row * VOCAB, LOGITS_BYTES);
    if (positions[row] >= one_not_finite_from)
        logits[VOCAB - 1] = NAN;
}

static void run_advance(void **args, const unsigned grid[3]) {
    const int32_t *next = pointer(args, 0), last = number(args, 4) - 1;
    int32_t *tokens = pointer(args, 1), *positions = pointer(args, 2), *ring = pointer(args, 3);
    (void)grid;
    int32_t position = positions[last];
    ring[position % RING] = *next | (position >= not_finite_from ? 1 << 30 : 0);
    tokens[0] = *next;
    positions[0] = position + 1;
}

static int marked_early; /* launches that were told that they start early */

static void run_mark(void **args, const unsigned grid[3]) {
    const int32_t *tokens = pointer(args, 0);
    int32_t *marks = pointer(args, 1);
    for (unsigned i = 0; i < grid[0]; i++)
        marks[tokens[i]] = 1;
    marked_early += number(args, 2);
}

static void run_never(void **args, const unsigned grid[3]) {
    (void)args, (void)grid;
    fail_msg("a grid of zero blocks was launched");
}

static const fake_kernel kernels[] = {
    {"fill_table", "pi", run_fill_table},
    {"remember", "pppi", run_remember},
    {"embed", "ppp", run_embed},
    {"linear", "ppp", run_linear},
    {"choose", "pppppppp", run_choose},
    {"advance", "ppppi", run_advance},
    {"never", "", run_never},
    {"mark", "ppi", run_mark},
    {0},
};
enum { FILL_TABLE, REMEMBER, EMBED, LINEAR, CHOOSE, ADVANCE, NEVER, MARK, N_KERNELS };

/* The plan. */

enum {
    B_EMBED,
    B_HEAD,
    B_NORM,
    B_HISTORY,
    B_MARKS,
    B_TABLE,
    B_X,
    B_Y,
    B_TOKENS,
    B_POSITIONS,
    B_ROWS,
    B_LOGITS,
    B_NEXT,
    B_SAMPLING,
    B_RING,
    B_FAULT,
    N_BUFFERS
};

static const qgc_plan_buffer plan_buffers[N_BUFFERS] = {
    [B_EMBED] = {"embed", QGC_BUFFER_WEIGHT, {.fixed = EMBED_BYTES}, 0, -1, 0},
    [B_HEAD] = {"head", QGC_BUFFER_WEIGHT, {.fixed = EMBED_BYTES}, 1, -1, 0},
    [B_NORM] = {"norm", QGC_BUFFER_WEIGHT, {.fixed = NORM_BYTES}, 2, -1, 0},
    [B_HISTORY] = {"history", QGC_BUFFER_STATE, {.per_ctx = 4}, -1, -1, 0},
    [B_MARKS] = {"marks", QGC_BUFFER_STATE, {.fixed = VOCAB}, -1, -1, 0},
    [B_TABLE] = {"table", QGC_BUFFER_TABLE, {.per_ctx = 4}, -1, -1, 0},
    [B_X] = {"x", QGC_BUFFER_SCRATCH, {.per_token = X_BYTES}, -1, -1, 0},
    [B_Y] = {"y", QGC_BUFFER_SCRATCH, {.per_token = LOGITS_BYTES}, -1, -1, 256},
    [B_TOKENS] = {"tokens", QGC_BUFFER_IO, {.per_token = 4}, -1, QGC_IO_TOKENS, 0},
    [B_POSITIONS] = {"positions", QGC_BUFFER_IO, {.per_token = 4}, -1, QGC_IO_POSITIONS, 0},
    [B_ROWS] = {"rows", QGC_BUFFER_IO, {.per_row = 4}, -1, QGC_IO_ROWS, 0},
    [B_LOGITS] = {"logits", QGC_BUFFER_IO, {.per_row = LOGITS_BYTES}, -1, QGC_IO_LOGITS, 0},
    [B_NEXT] = {"next", QGC_BUFFER_IO, {.per_row = 4}, -1, QGC_IO_NEXT, 0},
    [B_SAMPLING] = {"sampling", QGC_BUFFER_IO, {.fixed = 32}, -1, QGC_IO_SAMPLING, 0},
    [B_RING] = {"ring", QGC_BUFFER_IO, {.fixed = RING_BYTES}, -1, QGC_IO_RING, 0},
    [B_FAULT] = {"fault", QGC_BUFFER_IO, {.fixed = 4}, -1, QGC_IO_FAULT, 0},
};

static const qgc_plan_weight plan_weights[] = {
    {.label = "embed", .gguf = "e", .tied = -1, .rank = 2, .shape = {VOCAB, WIDTH}, .storage = QGC_BF16},
    {.label = "head", .gguf = "h", .tied = 0, .rank = 2, .shape = {VOCAB, WIDTH}, .storage = QGC_BF16},
    {.label = "norm", .gguf = "n", .tied = -1, .rank = 1, .shape = {WIDTH}, .storage = QGC_F32},
};

#define BUFFER(b) \
    { .kind = QGC_ARG_BUFFER, .buffer = (b) }
#define ONE \
    { .fixed = 1 }

static qgc_plan_launch launches_init[] = {
    {.node = "table",
     .where = "toy.yaml:1:1",
     .kernel = FILL_TABLE,
     .grid = {{.per_ctx = 1}, ONE, ONE},
     .per_block = {32, 1, 1},
     .n_args = 2,
     .args = {BUFFER(B_TABLE), {.kind = QGC_ARG_I32, .buffer = -1, .value = {.per_ctx = 1}}}},
};

#define REMEMBER_AND_EMBED                                                                               \
    {.node = "remember",                                                                                 \
     .where = "toy.yaml:2:3",                                                                            \
     .kernel = REMEMBER,                                                                                 \
     .grid = {{.per_token = 1}, ONE, ONE},                                                               \
     .per_block = {1, 1, 1},                                                                             \
     .n_args = 4,                                                                                        \
     .args = {BUFFER(B_TOKENS),                                                                          \
              BUFFER(B_POSITIONS),                                                                       \
              BUFFER(B_HISTORY),                                                                         \
              {.kind = QGC_ARG_I32, .buffer = -1, .value = {.per_token = 1}}}},                          \
    {                                                                                                    \
        .node = "embed", .where = "toy.yaml:3:3", .kernel = EMBED, .grid = {{.per_token = 1}, ONE, ONE}, \
        .per_block = {1, 1, 1}, .n_args = 3, .args = {                                                   \
            BUFFER(B_TOKENS),                                                                            \
            BUFFER(B_EMBED),                                                                             \
            BUFFER(B_X)                                                                                  \
        }                                                                                                \
    }

#define CHOOSE_AND_ADVANCE                                                                                 \
    {.node = "choose",                                                                                     \
     .where = "toy.yaml:5:3",                                                                              \
     .kernel = CHOOSE,                                                                                     \
     .grid = {ONE, ONE, ONE},                                                                              \
     .per_block = {1, 1, 1},                                                                               \
     .n_args = 8,                                                                                          \
     .args = {BUFFER(B_HISTORY), BUFFER(B_TABLE), BUFFER(B_POSITIONS), BUFFER(B_ROWS), BUFFER(B_SAMPLING), \
              BUFFER(B_Y), BUFFER(B_LOGITS), BUFFER(B_NEXT)}},                                             \
    {                                                                                                      \
        .node = "the end of the step", .where = "", .kernel = ADVANCE, .grid = {ONE, ONE, ONE},            \
        .per_block = {1, 1, 1}, .n_args = 5, .args = {                                                     \
            BUFFER(B_NEXT),                                                                                \
            BUFFER(B_TOKENS),                                                                              \
            BUFFER(B_POSITIONS),                                                                           \
            BUFFER(B_RING),                                                                                \
            {.kind = QGC_ARG_I32, .buffer = -1, .value = {.per_token = 1}}                                 \
        }                                                                                                  \
    }

static qgc_plan_launch launches_prefill[] = {
    REMEMBER_AND_EMBED,
    {.kind = QGC_LAUNCH_GEMM,
     .node = "linear",
     .where = "toy.yaml:4:3",
     .kernel = -1,
     .a = B_X,
     .b = B_HEAD,
     .c = B_Y,
     .rows = {.per_token = 1},
     .n = VOCAB,
     .k = WIDTH},
    CHOOSE_AND_ADVANCE,
};

static qgc_plan_launch launches_decode[] = {
    REMEMBER_AND_EMBED,
    {.node = "linear",
     .where = "toy.yaml:4:3",
     .kernel = LINEAR,
     .grid = {ONE, ONE, ONE},
     .per_block = {1, 1, 1},
     .n_args = 3,
     .args = {BUFFER(B_X), BUFFER(B_HEAD), BUFFER(B_Y)}},
    {.node = "never",
     .where = "",
     .kernel = NEVER,
     .grid = {{.fixed = -1, .per_token = 1}, ONE, ONE},
     .per_block = {1, 1, 1}},
    CHOOSE_AND_ADVANCE,
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* A plan of its own for each test, to be changed at will. */
static qgc_plan *toy_plan(qgc_arena *a) {
    qgc_plan *p = qgc_arena_alloc(a, sizeof *p);
    *p = (qgc_plan){
        .name = "toy", .arch = "toy", .vocab = VOCAB, .max_positions = 1000, .chunk = CHUNK, .seen = -1};
    p->archs[0] = "sm_80";
    p->archs[1] = "sm_90";
    p->n_archs = 2;
    p->scratch_bytes = 512;
    p->n_weights = COUNT(plan_weights);
    p->weights = qgc_arena_array(a, p->n_weights, sizeof *p->weights);
    memcpy(p->weights, plan_weights, sizeof plan_weights);
    p->n_buffers = N_BUFFERS;
    p->buffers = qgc_arena_array(a, p->n_buffers, sizeof *p->buffers);
    memcpy(p->buffers, plan_buffers, sizeof plan_buffers);
    p->n_kernels = N_KERNELS;
    p->kernels = qgc_arena_array(a, p->n_kernels, sizeof *p->kernels);
    p->images = qgc_arena_array(a, 2 * COUNT(kernels), sizeof *p->images);
    for (int i = 0; i < N_KERNELS; i++) {
        p->kernels[i] = (qgc_plan_kernel){.name = "toy.cu",
                                          .entry = kernels[i].entry,
                                          .options = "-DTOY",
                                          .threads = 32,
                                          .shared_bytes = i};
        for (int arch = 0; arch < 2; arch++)
            p->images[p->n_images++] =
                (qgc_plan_image){.kernel = i, .arch = arch, .data = p->archs[arch], .bytes = 5};
    }
    p->phases[QGC_PHASE_INIT] = (qgc_phase){launches_init, COUNT(launches_init)};
    p->phases[QGC_PHASE_PREFILL] = (qgc_phase){launches_prefill, COUNT(launches_prefill)};
    p->phases[QGC_PHASE_DECODE] = (qgc_phase){launches_decode, COUNT(launches_decode)};
    for (int i = 0; i < N_BUFFERS; i++)
        if (p->buffers[i].kind == QGC_BUFFER_IO)
            p->io[p->buffers[i].io] = i;
    return p;
}

/* Everything that a test needs, in one arena. */
typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_device *dev;
    qgc_pool *pool;
    qgc_plan *plan;
    qgc_program *program;
    qgc_session_options options;
} fixture;

/* Deterministic, small, exact in bf16. */
static float value_at(size_t i) {
    return (float)((int)(i * 7 % 31) - 15) / 4;
}

static qgc_tensor tensor_of(qgc_arena *a, const char *name, qgc_dtype dtype, int64_t rows, int64_t cols) {
    const size_t n = (size_t)(rows ? rows * cols : cols);
    float *values = qgc_arena_array(a, n, sizeof *values);
    for (size_t i = 0; i < n; i++)
        values[i] = value_at(i);
    void *data = qgc_arena_alloc(a, qgc_dtype_bytes(dtype, (int64_t)n));
    qgc_from_f32(dtype, values, data, (int64_t)n);
    qgc_tensor t = {.name = name, .dtype = dtype, .data = data, .bytes = qgc_dtype_bytes(dtype, (int64_t)n)};
    t.rank = rows ? 2 : 1;
    t.shape[0] = rows ? rows : cols;
    t.shape[1] = rows ? cols : 0;
    return t;
}

static int setup(void **state) {
    qgc_arena *a = qgc_arena_new();
    fixture *f = qgc_arena_alloc(a, sizeof *f);
    *f = (fixture){.arena = a, .diag = qgc_diag_new(a), .pool = qgc_pool_new(2)};
    f->dev = fake_device_new(kernels);
    f->plan = toy_plan(a);
    f->options = (qgc_session_options){
        .ctx = CTX,
        .mode = QGC_MODE_GRAPH,
        .prefill = QGC_PREFILL_CHUNKS,
        .sampling = {.top_p = 1, .repeat_penalty = 1, .seed = 42},
    };
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    qgc_program_drop(f->program);
    int held = fake_device_held(f->dev);
    qgc_device_close(f->dev);
    qgc_pool_drop(f->pool);
    qgc_arena_drop(f->arena);
    return held; /* everything must have been given back */
}

static void must(const fixture *f, qgc_status s, const char *call) {
    if (s == QGC_OK)
        return;
    qgc_diag_print(&f->diag, stderr, false);
    fail_msg("%s failed", call);
}

#define MUST(f, call) must((f), (call), #call)

static qgc_status load(fixture *f, const qgc_tensor *tensors, size_t n) {
    qgc_weights *w = qgc_arena_alloc(f->arena, sizeof *w);
    *w = (qgc_weights){.kind = QGC_WEIGHTS_GGUF, .arch = "toy", .tensors = tensors, .n_tensors = n};
    const qgc_program_options none = {0};
    return qgc_program_load(&f->program, f->plan, f->dev, w, f->pool, &none, &f->diag);
}

static void load_toy(fixture *f) {
    qgc_tensor *tensors = qgc_arena_array(f->arena, 2, sizeof *tensors);
    tensors[0] = tensor_of(f->arena, "e", QGC_BF16, VOCAB, WIDTH);
    tensors[1] = tensor_of(f->arena, "n", QGC_F32, 0, WIDTH);
    MUST(f, load(f, tensors, 2));
}

static qgc_session *start(fixture *f) {
    if (!f->program)
        load_toy(f);
    qgc_session *s = NULL;
    MUST(f, qgc_session_new(&s, f->program, &f->options, &f->diag));
    return s;
}

static const char *notes_of(fixture *f) {
    const char *const *lines;
    size_t n = qgc_program_notes(f->program, &lines);
    qgc_str s = qgc_str_new(f->arena);
    for (size_t i = 0; i < n; i++)
        qgc_str_printf(&s, "%s\n", lines[i]);
    return s.text;
}

static const int32_t prompt[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 15, 0, 7, 9};

/* Programs. */

static void what_is_compiled_for_one_device_may_use_all_it_has(void **state) {
    fixture *f = *state;
    assert_string_equal(qgc_program_arch_for(f->dev, f->arena), "sm_90a");
    f->dev->info.major = 8;
    f->dev->info.minor = 9;
    assert_string_equal(qgc_program_arch_for(f->dev, f->arena), "sm_89");
}

/* A plan of weights alone. */
static void plan_weights_only(fixture *f, const qgc_plan_weight *weights, size_t n) {
    f->plan->weights = qgc_arena_array(f->arena, n, sizeof *weights);
    memcpy(f->plan->weights, weights, n * sizeof *weights);
    f->plan->n_weights = n;
    f->plan->buffers = qgc_arena_array(f->arena, n, sizeof *f->plan->buffers);
    f->plan->n_buffers = n;
    for (size_t i = 0; i < n; i++)
        f->plan->buffers[i] = (qgc_plan_buffer){
            .name = weights[i].label, .kind = QGC_BUFFER_WEIGHT, .weight = (int)i, .io = -1};
}

static const void *on_device(const fixture *f, size_t buffer) {
    const qgc_address p = qgc_program_addresses(f->program, false)[buffer];
    return (const void *)(uintptr_t)p; /* NOLINT(performance-no-int-to-ptr) */
}

static void assert_converted(const fixture *f, size_t buffer, const qgc_tensor *from) {
    const qgc_plan_weight *w = &f->plan->weights[buffer];
    const int64_t n = w->rank == 2 ? w->shape[0] * w->shape[1] : w->shape[0];
    float *values = qgc_arena_array(f->arena, (size_t)n, sizeof *values);
    void *expected = qgc_arena_alloc(f->arena, qgc_dtype_bytes(w->storage, n));
    qgc_to_f32(from->dtype, from->data, values, n);
    qgc_from_f32(w->storage, values, expected, n);
    assert_int_equal(qgc_program_addresses(f->program, false)[buffer] % 256, 0);
    assert_memory_equal(on_device(f, buffer), expected, qgc_dtype_bytes(w->storage, n));
}

/* What tensor_of made, to be changed. */
static unsigned char *bytes_of(const qgc_tensor *t) {
    void *data;
    memcpy(&data, &t->data, sizeof data);
    return data;
}

/* Random bytes as Q8_0: any bytes are valid but for the scales, which are made small. */
static qgc_tensor q8_tensor(qgc_arena *a, const char *name, int64_t rows, int64_t cols) {
    const size_t blocks = (size_t)(rows * cols / 32);
    uint8_t *data = qgc_arena_alloc(a, 34 * blocks);
    for (size_t i = 0; i < 34 * blocks; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t b = 0; b < blocks; b++) {
        uint16_t scale = qgc_f32_to_f16(0.001f * (float)(b % 50 + 1));
        memcpy(data + 34 * b, &scale, sizeof scale);
    }
    return (qgc_tensor){.name = name,
                        .dtype = QGC_Q8_0,
                        .rank = 2,
                        .shape = {rows, cols},
                        .data = data,
                        .bytes = 34 * blocks};
}

static void converts_weights_to_the_storage_of_the_plan(void **state) {
    fixture *f = *state;
    /* Rows of 96 x 65: several pieces of the fake's staging, the last one odd. */
    static const qgc_plan_weight weights[] = {
        {"a", "a", NULL, -1, 2, {96, 65}, QGC_BF16, {0}, {0}, {0}},
        {"b", "b", NULL, -1, 2, {96, 64}, QGC_F16, {0}, {0}, {0}},
        {"c", "c", NULL, -1, 1, {7}, QGC_F32, {0}, {0}, {0}},
        {"d", "d", NULL, -1, 2, {96, 65}, QGC_F32, {0}, {0}, {0}},
        {"e", "e", NULL, -1, 2, {3, 5}, QGC_BF16, {0}, {0}, {0}},
        {"f", "f", NULL, -1, 2, {96, 65}, QGC_F16, {0}, {0}, {0}},
        {"g", "g", NULL, -1, 2, {3, 5}, QGC_F16, {0}, {0}, {0}},
    };
    qgc_arena *a = f->arena;
    qgc_tensor tensors[] = {
        tensor_of(a, "a", QGC_F32, 96, 65), q8_tensor(a, "b", 96, 64),
        tensor_of(a, "c", QGC_BF16, 0, 7),  tensor_of(a, "d", QGC_F16, 96, 65),
        tensor_of(a, "e", QGC_F32, 3, 5),   tensor_of(a, "f", QGC_F16, 96, 65),
        tensor_of(a, "g", QGC_BF16, 3, 5),
    };
    float inexact = 1.0f / 3; /* in bf16 */
    memcpy(bytes_of(&tensors[0]) + 6000 * sizeof inexact, &inexact, sizeof inexact);

    plan_weights_only(f, weights, COUNT(weights));
    MUST(f, load(f, tensors, COUNT(tensors)));
    for (size_t i = 0; i < COUNT(weights); i++)
        assert_converted(f, i, &tensors[i]);
    assert_string_equal(notes_of(f), "image sm_90 runs on Fake GPU (sm_90): machine code for this GPU\n"
                                     "1 tensor f32 stored as bf16 without loss\n"
                                     "1 tensor f32 rounded to bf16: compile with --weights to keep it\n"
                                     "1 tensor f16 widened to f32\n"
                                     "1 tensor bf16 widened to f32\n"
                                     "1 tensor bf16 stored as f16 without loss\n"
                                     "1 tensor q8_0 rounded to f16\n");
}

/* c = a * 2 in bf16, d = rows 1 and 2 of a, e = rows 0 of d after rows of d; a itself does not go up. */
static void what_is_derived_goes_up_in_place_of_its_sources(void **state) {
    fixture *f = *state;
    static const qgc_plan_weight weights[] = {
        {.label = "c", .gguf = "c", .tied = -1, .rank = 1, .shape = {5}, .storage = QGC_F32},
        {.label = "a", .gguf = "a", .tied = -1, .rank = 2, .shape = {3, 5}, .storage = QGC_F32},
        {.label = "twice",
         .tied = -1,
         .rank = 2,
         .shape = {3, 5},
         .storage = QGC_BF16,
         .derived = {.kind = QGC_DERIVE_SCALE, .n_from = 1, .from = {1}, .factor = 2}},
        {.label = "some",
         .tied = -1,
         .rank = 2,
         .shape = {2, 5},
         .storage = QGC_F32,
         .derived = {.kind = QGC_DERIVE_ROWS, .n_from = 1, .from = {1}, .first = 1, .last = 3}},
        {.label = "by_c",
         .tied = -1,
         .rank = 2,
         .shape = {2, 5},
         .storage = QGC_F32,
         .derived = {.kind = QGC_DERIVE_SCALE_COLUMNS, .n_from = 2, .from = {3, 0}}},
    };
    const qgc_tensor tensors[] = {tensor_of(f->arena, "a", QGC_F32, 3, 5),
                                  tensor_of(f->arena, "c", QGC_F32, 0, 5)};
    const float *a = tensors[0].data, *c = tensors[1].data;
    plan_weights_only(f, weights, COUNT(weights));
    f->plan->buffers[0] = f->plan->buffers[2]; /* a has no buffer, nor has c */
    f->plan->buffers[1] = f->plan->buffers[3];
    f->plan->buffers[2] = f->plan->buffers[4];
    f->plan->n_buffers = 3;
    MUST(f, load(f, tensors, COUNT(tensors)));
    for (int i = 0; i < 15; i++)
        assert_int_equal(((const uint16_t *)on_device(f, 0))[i], qgc_f32_to_bf16(2 * a[i]));
    assert_memory_equal(on_device(f, 1), a + 5, 10 * sizeof *a);
    for (int i = 0; i < 10; i++)
        assert_true(((const float *)on_device(f, 2))[i] == a[5 + i] * c[i % 5]);
    assert_non_null(strstr(notes_of(f), "3 weights are derived of others\n"));
}

static void refuses_values_that_the_storage_cannot_hold(void **state) {
    fixture *f = *state;
    static const qgc_plan_weight weights[] = {{"w", "w", NULL, -1, 2, {2, 4}, QGC_F16, {0}, {0}, {0}}};
    qgc_tensor tensor = tensor_of(f->arena, "w", QGC_BF16, 2, 4);
    uint16_t large = qgc_f32_to_bf16(1e6f);
    memcpy(bytes_of(&tensor) + 10, &large, sizeof large);
    plan_weights_only(f, weights, 1);
    assert_int_equal(load(f, &tensor, 1), QGC_ERR_INPUT);
    assert_string_equal(
        qgc_test_printed(f->arena, &f->diag),
        "qgc: error: tensor \"w\" (bf16) has values too large for f16\n"
        "  hint: Compile again with --weights and this file, so that the tensor is kept as it is.\n"
        "  while: loading weight w\n");
    assert_null(f->program);
}

/* A row of blocks goes up at once; the fake device has room for 4,096 bytes. */
static void refuses_a_row_of_blocks_that_no_upload_holds(void **state) {
    fixture *f = *state;
    enum { ELEMS = 4096, ROW_BYTES = ELEMS / 32 * 34 };
    static const qgc_plan_weight weights[] = {{"w", "w", NULL, -1, 2, {2, ELEMS}, QGC_Q8_0, {0}, {0}, {0}}};
    const qgc_tensor tensor = {.name = "w",
                               .dtype = QGC_Q8_0,
                               .data = qgc_arena_alloc(f->arena, 2 * ROW_BYTES),
                               .bytes = 2 * ROW_BYTES,
                               .rank = 2,
                               .shape = {2, ELEMS}};
    plan_weights_only(f, weights, 1);
    assert_int_equal(load(f, &tensor, 1), QGC_ERR_DEVICE);
    assert_string_equal(qgc_test_printed(f->arena, &f->diag),
                        "qgc: error: 4352 bytes, a row of it, do not fit the 4096 of an upload\n"
                        "  while: loading weight w\n");
    assert_null(f->program);
}

static void another_program_lends_its_weights_where_the_plans_agree(void **state) {
    fixture *f = *state;
    load_toy(f);
    qgc_program *other = NULL;
    qgc_weights nothing = {.kind = QGC_WEIGHTS_GGUF, .arch = "toy"};
    const qgc_program_options share = {.share = f->program};
    qgc_plan plan = *f->plan;
    MUST(f, qgc_program_load(&other, &plan, f->dev, &nothing, f->pool, &share, &f->diag));
    for (size_t i = 0; i < f->plan->n_buffers; i++)
        assert_int_equal(qgc_program_addresses(other, false)[i], qgc_program_addresses(f->program, false)[i]);
    qgc_program_drop(other);
    assert_int_equal(fake_device_held(f->dev), 1);

    plan.weights = qgc_arena_array(f->arena, plan.n_weights, sizeof *plan.weights);
    memcpy(plan.weights, f->plan->weights, plan.n_weights * sizeof *plan.weights);
    plan.weights[B_NORM].storage = QGC_BF16; /* and so it looks for the tensor, which this file has not */
    assert_int_equal(qgc_program_load(&other, &plan, f->dev, &nothing, f->pool, &share, &f->diag),
                     QGC_ERR_INPUT);
    assert_null(other);
    assert_int_equal(fake_device_held(f->dev), 1);
}

static void a_tied_weight_shares_memory_unless_the_file_has_its_own(void **state) {
    fixture *f = *state;
    qgc_tensor tensors[] = {
        tensor_of(f->arena, "e", QGC_BF16, VOCAB, WIDTH),
        tensor_of(f->arena, "n", QGC_F32, 0, WIDTH),
        tensor_of(f->arena, "h", QGC_BF16, VOCAB, WIDTH),
    };
    MUST(f, load(f, tensors, 2));
    assert_ptr_equal(on_device(f, B_HEAD), on_device(f, B_EMBED));
    assert_string_equal(notes_of(f), "image sm_90 runs on Fake GPU (sm_90): machine code for this GPU\n"
                                     "head is tied to embed and shares its memory\n");
    qgc_program_drop(f->program);
    MUST(f, load(f, tensors, 3));
    assert_ptr_not_equal(on_device(f, B_HEAD), on_device(f, B_EMBED));
    assert_memory_equal(on_device(f, B_HEAD), tensors[2].data, tensors[2].bytes);
}

static void a_tied_weight_stored_in_another_way_has_memory_of_its_own(void **state) {
    fixture *f = *state;
    f->plan->weights[B_HEAD].storage = QGC_F16;
    qgc_tensor tensors[] = {
        tensor_of(f->arena, "e", QGC_BF16, VOCAB, WIDTH),
        tensor_of(f->arena, "n", QGC_F32, 0, WIDTH),
    };
    MUST(f, load(f, tensors, 2));
    assert_ptr_not_equal(on_device(f, B_HEAD), on_device(f, B_EMBED));
    assert_converted(f, B_HEAD, &tensors[0]);
}

typedef struct {
    size_t calls, last, total;
} seen;

static void see(void *context, const char *what, size_t done, size_t total) {
    seen *s = context;
    assert_string_equal(what, "weights");
    assert_true(done > s->last && done <= total);
    *s = (seen){s->calls + 1, done, total};
}

static void reports_progress_up_to_the_last_byte(void **state) {
    fixture *f = *state;
    static const qgc_plan_weight weights[] = {{"w", "w", NULL, -1, 2, {96, 65}, QGC_F32, {0}, {0}, {0}}};
    qgc_tensor tensor = tensor_of(f->arena, "w", QGC_F32, 96, 65);
    plan_weights_only(f, weights, 1);
    qgc_weights w = {.arch = "toy", .tensors = &tensor, .n_tensors = 1};
    seen s = {0};
    const qgc_program_options options = {.progress = see, .context = &s};
    MUST(f, qgc_program_load(&f->program, f->plan, f->dev, &w, f->pool, &options, &f->diag));
    assert_int_equal(s.last, 96 * 65 * 4);
    assert_int_equal(s.total, s.last);
    assert_true(s.calls > 1);
}

static void a_program_without_memory_for_its_weights_gives_everything_back(void **state) {
    fixture *f = *state;
    qgc_tensor tensors[] = {
        tensor_of(f->arena, "e", QGC_BF16, VOCAB, WIDTH),
        tensor_of(f->arena, "n", QGC_F32, 0, WIDTH),
    };
    f->dev->full_for = "weights";
    assert_int_equal(load(f, tensors, 2), QGC_ERR_DEVICE);
    assert_string_equal(qgc_diag_message(&f->diag), "512 bytes for \"weights\" do not fit");
}

static void loads_each_kernel_from_the_chosen_image(void **state) {
    fixture *f = *state;
    load_toy(f);
    assert_string_equal(qgc_program_arch(f->program), "sm_90");
    assert_string_equal(f->dev->log.text, "load fill_table from sm_90, 0 shared\n"
                                          "load remember from sm_90, 1 shared\n"
                                          "load embed from sm_90, 2 shared\n"
                                          "load linear from sm_90, 3 shared\n"
                                          "load choose from sm_90, 4 shared\n"
                                          "load advance from sm_90, 5 shared\n"
                                          "load never from sm_90, 6 shared\n");
}

/* Sessions. */

#define LOG_REMEMBER_AND_EMBED(n)                                    \
    "remember<" #n "x1x1, 32, 1> io+0, io+256, kv cache+0, " #n "\n" \
    "embed<" #n "x1x1, 32, 2> io+0, weights+0, scratch+0\n"
#define LOG_CHOOSE_AND_ADVANCE(n)                                                                        \
    "choose<1x1x1, 32, 4> kv cache+0, tables+0, io+256, io+512, io+1280, scratch+256, io+768, io+1024\n" \
    "advance<1x1x1, 32, 5> io+1024, io+0, io+256, pinned+0, " #n "\n"
#define LOG_DECODE            \
    LOG_REMEMBER_AND_EMBED(1) \
    "linear<1x1x1, 32, 3> scratch+0, weights+0, scratch+256\n" LOG_CHOOSE_AND_ADVANCE(1)
#define LOG_PREFILL_OF_4 \
    LOG_REMEMBER_AND_EMBED(4) "gemm 4x16x8 scratch+0, weights+0, scratch+256\n" LOG_CHOOSE_AND_ADVANCE(4)
static void starts_with_tables_filled_prefill_warm_and_the_decode_captured(void **state) {
    fixture *f = *state;
    load_toy(f);
    qgc_str_clear(&f->dev->log);
    qgc_session *s = start(f);
    assert_string_equal(f->dev->log.text,
                        "prepare gemm\n"
                        "fill_table<2x1x1, 32, 0> tables+0, 64\n" LOG_PREFILL_OF_4 LOG_PREFILL_OF_4
                        "capture\n" LOG_DECODE "end of capture\n");
    qgc_session_drop(s);
}

static void cuts_a_prompt_into_chunks_and_steps_by_replay_alone(void **state) {
    fixture *f = *state;
    qgc_session *s = start(f);
    f->dev->log_uploads = true;
    qgc_str_clear(&f->dev->log);
    int32_t next;
    MUST(f, qgc_session_feed(s, prompt, 7, &next, &f->diag));
    MUST(f, qgc_session_step(s, &next, &f->diag));
    MUST(f, qgc_session_step(s, &next, &f->diag));
    assert_string_equal(
        f->dev->log.text,
        "upload 16 to io+0\nupload 16 to io+256\nupload 4 to io+512\n" LOG_REMEMBER_AND_EMBED(4) "gemm 4x16x8 scratch+0, weights+0, scratch+256\n" LOG_CHOOSE_AND_ADVANCE(
            4) "upload 4 to io+512\n"
               "upload 12 to io+0\nupload 12 to io+256\nupload 4 to io+512\n" LOG_REMEMBER_AND_EMBED(
                   3) "gemm 3x16x8 scratch+0, weights+0, scratch+256\n" LOG_CHOOSE_AND_ADVANCE(3) "upload 4 to io+512\n"
                                                                                                  "replay\n"
                                                                                                  "replay\n");
    qgc_session_drop(s);
}

static void feeds_a_single_token_through_the_decode_step(void **state) {
    fixture *f = *state;
    qgc_session *s = start(f);
    f->dev->log_uploads = true;
    qgc_str_clear(&f->dev->log);
    int32_t next;
    MUST(f, qgc_session_feed(s, prompt, 1, &next, &f->diag));
    assert_string_equal(f->dev->log.text, "upload 4 to io+0\nupload 4 to io+256\nreplay\n");
    qgc_session_drop(s);
}

enum { STEPS = 3 * RING };

static void generate(fixture *f, qgc_session *s, int32_t *out) {
    MUST(f, qgc_session_feed(s, prompt, (int64_t)COUNT(prompt), &out[0], &f->diag));
    for (int i = 1; i < STEPS; i++)
        MUST(f, qgc_session_step(s, &out[i], &f->diag));
    assert_int_equal(qgc_session_position(s), (int64_t)COUNT(prompt) + STEPS - 1);
    assert_int_equal(qgc_session_room(s), CTX - qgc_session_position(s));
}

/* What the kernels compute, without any device. */
static void expect(int32_t *out, uint64_t seed) {
    int32_t history[CTX];
    int n = (int)COUNT(prompt);
    memcpy(history, prompt, sizeof prompt);
    for (int i = 0; i < STEPS; i++) {
        uint64_t sum = seed;
        for (int k = 0; k < n; k++)
            sum = sum * 5 + (uint64_t)(history[k] * (3 * k + 1));
        out[i] = (int32_t)((sum >> 7) % VOCAB);
        history[n++] = out[i];
    }
}

static void all_modes_give_the_same_tokens_far_beyond_the_ring(void **state) {
    fixture *f = *state;
    int32_t expected[STEPS], got[STEPS];
    expect(expected, 42);
    for (int mode = 0; mode < 2; mode++)
        for (int prefill = 0; prefill < 2; prefill++) {
            f->options.mode = (qgc_mode)mode;
            f->options.prefill = (qgc_prefill)prefill;
            qgc_session *s = start(f);
            generate(f, s, got);
            assert_memory_equal(got, expected, sizeof got);
            qgc_session_drop(s);
        }
}

/* The tokens are what they are, and the first position is told until a reset. */
static void logits_that_are_no_numbers_are_noticed(void **state) {
    fixture *f = *state;
    int32_t expected[STEPS], got[STEPS];
    float logits[VOCAB];
    expect(expected, 42);
    qgc_session *s = start(f);
    not_finite_from = (int32_t)COUNT(prompt) + 5;
    generate(f, s, got);
    assert_memory_equal(got, expected, sizeof got);
    assert_int_equal(qgc_session_not_finite(s), not_finite_from);
    MUST(f, qgc_session_reset(s, &f->diag));
    assert_int_equal(qgc_session_not_finite(s), -1);
    not_finite_from = (int32_t)COUNT(prompt) - 1; /* seen by the prompt */
    MUST(f, qgc_session_feed(s, prompt, (int64_t)COUNT(prompt), got, &f->diag));
    assert_int_equal(got[0], expected[0]);
    assert_int_equal(qgc_session_not_finite(s), not_finite_from);
    not_finite_from = INT32_MAX;

    for (int not_finite = 0; not_finite < 2; not_finite++) {
        one_not_finite_from = not_finite ? 0 : INT32_MAX;
        MUST(f, qgc_session_reset(s, &f->diag));
        MUST(f, qgc_session_feed(s, prompt, (int64_t)COUNT(prompt), got, &f->diag));
        assert_int_equal(qgc_session_not_finite(s), -1); /* sampling sees the largest only */
        MUST(f, qgc_session_look(s, logits, &f->diag));
        assert_int_equal(qgc_session_not_finite(s), not_finite ? (int)COUNT(prompt) - 1 : -1);
    }
    one_not_finite_from = INT32_MAX;
    qgc_session_drop(s);
}

static void sampling_reaches_the_device(void **state) {
    fixture *f = *state;
    int32_t expected[STEPS], got[STEPS];
    expect(expected, 43);
    f->options.sampling.seed = 43;
    qgc_session *s = start(f);
    generate(f, s, got);
    assert_memory_equal(got, expected, sizeof got);
    qgc_session_drop(s);
}

static void a_sampling_can_be_set_between_texts(void **state) {
    fixture *f = *state;
    int32_t before[STEPS], want[STEPS], got[STEPS];
    f->options.sampling.seed = 43;
    qgc_session *s = start(f);
    generate(f, s, want);
    qgc_session_drop(s);
    f->options.sampling.seed = 42;
    s = start(f);
    generate(f, s, before);
    qgc_sampling other = f->options.sampling;
    other.seed = 43;
    MUST(f, qgc_session_set_sampling(s, &other, &f->diag));
    MUST(f, qgc_session_reset(s, &f->diag));
    generate(f, s, got);
    assert_memory_equal(got, want, sizeof got);
    assert_memory_not_equal(got, before, sizeof got);
    qgc_diag d = qgc_diag_new(f->arena);
    other.top_p = 0;
    assert_int_equal(qgc_session_set_sampling(s, &other, &d), QGC_ERR_USAGE);
    qgc_session_drop(s);
}

static void a_reset_session_starts_over(void **state) {
    fixture *f = *state;
    int32_t first[STEPS], second[STEPS];
    qgc_session *s = start(f);
    generate(f, s, first);
    MUST(f, qgc_session_reset(s, &f->diag));
    assert_int_equal(qgc_session_position(s), 0);
    qgc_diag d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_session_step(s, second, &d), QGC_ERR_USAGE);
    generate(f, s, second);
    assert_memory_equal(first, second, sizeof first);
    qgc_session_drop(s);
}

static void a_step_allocates_nothing(void **state) {
    fixture *f = *state;
    qgc_session *s = start(f);
    int32_t next;
    const long made = qgc_device_n_allocations(f->dev);
    const size_t bytes = qgc_arena_bytes(f->diag.arena);
    MUST(f, qgc_session_feed(s, prompt, (int64_t)COUNT(prompt), &next, &f->diag));
    for (int i = 0; i < STEPS; i++)
        MUST(f, qgc_session_step(s, &next, &f->diag));
    assert_int_equal(qgc_device_n_allocations(f->dev), made);
    assert_int_equal(qgc_arena_bytes(f->diag.arena), bytes);
    qgc_session_drop(s);
}

static void a_streamed_decode_differs_in_nothing_from_step_to_step(void **state) {
    fixture *f = *state;
    f->options.mode = QGC_MODE_STREAM;
    qgc_session *s = start(f);
    int32_t next;
    MUST(f, qgc_session_feed(s, prompt, 5, &next, &f->diag));
    for (int i = 0; i < 3; i++) {
        qgc_str_clear(&f->dev->log);
        MUST(f, qgc_session_step(s, &next, &f->diag));
        assert_string_equal(f->dev->log.text, LOG_DECODE);
    }
    qgc_session_drop(s);
}

static void gives_the_logits_of_the_last_token(void **state) {
    fixture *f = *state;
    qgc_session *s = start(f);
    int32_t next;
    float logits[VOCAB];
    qgc_diag d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_session_logits(s, logits, &d), QGC_ERR_USAGE);
    MUST(f, qgc_session_feed(s, prompt, 6, &next, &f->diag));
    MUST(f, qgc_session_logits(s, logits, &f->diag));
    for (int v = 0; v < VOCAB; v++) {
        float sum = 0;
        for (int k = 0; k < WIDTH; k++)
            sum += value_at((size_t)prompt[5] * WIDTH + (size_t)k) * value_at((size_t)v * WIDTH + (size_t)k);
        assert_true(sum == logits[v]);
    }
    qgc_session_drop(s);
}

static void refuses_what_has_no_room_and_stays_as_it_was(void **state) {
    fixture *f = *state;
    f->options.ctx = 8;
    qgc_session *s = start(f);
    int32_t next;
    qgc_diag d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_session_feed(s, prompt, 9, &next, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_test_printed(f->arena, &d),
                        "qgc: error: no room for 9 tokens: 0 of 8 positions are taken\n"
                        "  hint: Use a larger context (--ctx) or a shorter text.\n");
    MUST(f, qgc_session_feed(s, prompt, 7, &next, &f->diag));
    MUST(f, qgc_session_step(s, &next, &f->diag));
    assert_int_equal(qgc_session_room(s), 0);
    d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_session_step(s, &next, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&d), "no room for 1 token: 8 of 8 positions are taken");
    assert_int_equal(qgc_session_position(s), 8);
    qgc_session_drop(s);
}

static void refuses_rows_of_a_plan_for_the_last_row(void **state) {
    fixture *f = *state;
    qgc_session *s = start(f);
    float logits[VOCAB];
    qgc_diag d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_session_feed_rows(s, prompt, 3, &d), QGC_ERR_USAGE);
    assert_string_equal(qgc_diag_message(&d),
                        "all rows of 3 tokens are wanted, of a plan for the last row of 4");
    d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_session_read_rows(s, 0, 1, logits, &d), QGC_ERR_USAGE);
    assert_string_equal(qgc_diag_message(&d), "rows 0 to 0 of the logits of 0 tokens");
    assert_int_equal(qgc_session_position(s), 0);
    qgc_session_drop(s);
}

static void refuses_tokens_outside_the_vocabulary(void **state) {
    fixture *f = *state;
    qgc_session *s = start(f);
    const int32_t above[] = {1, 2, VOCAB}, below[] = {-1};
    int32_t next;
    qgc_diag d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_session_feed(s, above, 3, &next, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&d), "token 2 of the text is 16, outside the vocabulary of 16");
    d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_session_feed(s, below, 1, &next, &d), QGC_ERR_INPUT);
    d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_session_feed(s, above, 0, &next, &d), QGC_ERR_USAGE);
    assert_int_equal(qgc_session_position(s), 0);
    qgc_session_drop(s);
}

static const char *refused(fixture *f) {
    if (!f->program)
        load_toy(f);
    qgc_diag d = qgc_diag_new(f->arena);
    qgc_session *s;
    assert_int_not_equal(qgc_session_new(&s, f->program, &f->options, &d), QGC_OK);
    assert_null(s);
    return qgc_test_printed(f->arena, &d);
}

static void refuses_a_context_that_the_model_cannot_have(void **state) {
    fixture *f = *state;
    f->options.ctx = 1001;
    assert_string_equal(refused(f), "qgc: error: a context of 1001 positions, \"toy\" can have at most 1000\n"
                                    "  hint: Use --ctx 1000 or less.\n"
                                    "  while: starting a session\n");
    f->options.ctx = 0;
    assert_string_equal(refused(f), "qgc: error: a context of 0 positions, expected 1 or more\n"
                                    "  while: starting a session\n");
    f->plan->max_positions = 0;
    f->options.ctx = (1 << 24) + 1;
    assert_non_null(strstr(refused(f), "can have at most 16777216"));
}

static void refuses_modes_that_the_plan_cannot_run_in(void **state) {
    fixture *f = *state;
    f->options.mode = QGC_MODE_PERSISTENT;
    f->plan->not_persistent = "there is no embedding";
    assert_string_equal(refused(f),
                        "qgc: error: \"toy\" cannot run in persistent mode: there is no embedding\n"
                        "  hint: Use --mode graph.\n"
                        "  while: starting a session\n");
    f->options.mode = QGC_MODE_PDL;
    assert_non_null(
        strstr(refused(f), "cannot run in pdl mode: no launch of a decode step may start early\n"));
    qgc_mode mode;
    qgc_diag d = qgc_diag_new(f->arena);
    for (int i = 0; i < QGC_N_MODES; i++) {
        assert_int_equal(qgc_mode_named(qgc_mode_name((qgc_mode)i), &mode, &d), QGC_OK);
        assert_int_equal(mode, i);
    }
    assert_int_equal(qgc_mode_named("fast", &mode, &d), QGC_ERR_USAGE);
}

/* The toy with the embedding and the product of its step started early; the plan's launches are its own. */
static void let_two_start_early(fixture *f) {
    qgc_phase *decode = &f->plan->phases[QGC_PHASE_DECODE];
    qgc_plan_launch *own = qgc_arena_array(f->arena, decode->n_launches, sizeof *own);
    memcpy(own, decode->launches, decode->n_launches * sizeof *own);
    own[1].early = own[2].early = true;
    decode->launches = own;
}

static void what_the_plan_lets_start_early_does_in_pdl_mode_only(void **state) {
    fixture *f = *state;
    let_two_start_early(f);
    load_toy(f);
    for (int pdl = 0; pdl < 2; pdl++) {
        f->options.mode = pdl ? QGC_MODE_PDL : QGC_MODE_GRAPH;
        qgc_str_clear(&f->dev->log);
        qgc_session *s = start(f);
        assert_int_equal(count(f->dev->log.text, ", early\n"), pdl ? 2 : 0);
        assert_int_equal(count(f->dev->log.text, "fill_table<"), 1);
        qgc_session_drop(s);
    }
    f->dev->info.free_bytes = 1000; /* no room for a session */
    qgc_mode_choice choice = qgc_mode_fastest(f->program, CTX, f->arena);
    assert_int_equal(choice.mode, QGC_MODE_PDL);
    assert_string_equal(choice.why, "not persistent: it needs 0.54 GB, and 0.00 GB are free");
}

static void an_image_that_cannot_wait_starts_nothing_early(void **state) {
    fixture *f = *state;
    let_two_start_early(f);
    f->dev->info.major = 8; /* so that the image for sm_80 is taken */
    f->options.mode = QGC_MODE_PDL;
    assert_non_null(strstr(refused(f), "cannot run in pdl mode: image sm_80 has no programmatic dependent "
                                       "launch, which sm_90 has\n"));
    assert_false(qgc_program_overlaps(f->program, QGC_PHASE_DECODE));
}

static void steps_in_a_queue_choose_as_steps_one_by_one(void **state) {
    fixture *f = *state;
    qgc_session *s = start(f);
    int32_t text[] = {1, 2, 3}, next, one[8], many[8];
    MUST(f, qgc_session_feed(s, text, 3, &next, &f->diag));
    for (int i = 0; i < 8; i++)
        MUST(f, qgc_session_step(s, &one[i], &f->diag));
    MUST(f, qgc_session_reset(s, &f->diag));
    MUST(f, qgc_session_feed(s, text, 3, &next, &f->diag));
    MUST(f, qgc_session_steps(s, 5, many, &f->diag));
    MUST(f, qgc_session_steps(s, 3, many + 5, &f->diag));
    assert_memory_equal(one, many, sizeof one);
    assert_int_equal(qgc_session_position(s), 11);
    qgc_session_drop(s);
    f->plan->spare = 3; /* fewer than are asked for can be queued */
    s = start(f);
    assert_int_equal(qgc_session_most_steps(s), 3);
    MUST(f, qgc_session_feed(s, text, 3, &next, &f->diag));
    memset(many, 0, sizeof many);
    MUST(f, qgc_session_steps(s, 8, many, &f->diag));
    assert_memory_equal(one, many, sizeof one);
    qgc_session_drop(s);
}

static void what_is_queued_and_not_taken_is_forgotten(void **state) {
    fixture *f = *state;
    qgc_session *s = start(f);
    int32_t text[] = {1, 2, 3}, more[] = {9, 7}, next, expected[4], got[4];
    qgc_diag d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_session_queue(s, &d), QGC_ERR_USAGE);
    assert_string_equal(qgc_diag_message(&d), "the session was fed no token yet");
    MUST(f, qgc_session_feed(s, text, 3, &next, &f->diag));
    MUST(f, qgc_session_step(s, &next, &f->diag));
    MUST(f, qgc_session_feed(s, more, 2, &expected[0], &f->diag));
    MUST(f, qgc_session_steps(s, 3, expected + 1, &f->diag));

    MUST(f, qgc_session_reset(s, &f->diag));
    MUST(f, qgc_session_feed(s, text, 3, &next, &f->diag));
    for (int i = 0; i < 4; i++)
        MUST(f, qgc_session_queue(s, &f->diag));
    MUST(f, qgc_session_take(s, &next, &f->diag));
    assert_int_equal(qgc_session_position(s), 4);
    assert_int_equal(qgc_session_queued(s), 3);
    MUST(f, qgc_session_feed(s, more, 2, &got[0], &f->diag));
    assert_int_equal(qgc_session_queued(s), 0);
    MUST(f, qgc_session_steps(s, 3, got + 1, &f->diag));
    assert_memory_equal(got, expected, sizeof got);

    MUST(f, qgc_session_queue(s, &f->diag));
    MUST(f, qgc_session_reset(s, &f->diag));
    d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_session_take(s, &next, &d), QGC_ERR_USAGE);
    assert_string_equal(qgc_diag_message(&d), "no step is queued");
    qgc_session_drop(s);
}

/* The step as it is, in the phase of the persistent mode: the embedding has parts, and the product starts early. */
static void make_persistent(fixture *f) {
    static qgc_plan_part parts[] = {{"qkv", 64, 0}, {"mlp", 128, 0}, {"head", 0, 4}};
    qgc_phase *decode = &f->plan->phases[QGC_PHASE_DECODE], *step = &f->plan->phases[QGC_PHASE_PERSISTENT];
    *step = (qgc_phase){qgc_arena_array(f->arena, decode->n_launches, sizeof *step->launches),
                        decode->n_launches};
    memcpy(step->launches, decode->launches, decode->n_launches * sizeof *step->launches);
    step->launches[1].n_parts = 3;
    step->launches[1].parts = parts;
    step->launches[1].n_layers = 5;
    step->launches[2].early = true;
    f->plan->phases[QGC_PHASE_PACKED_PREFILL] = f->plan->phases[QGC_PHASE_PREFILL];
    f->options.mode = QGC_MODE_PERSISTENT;
}

static const qgc_plan_launch mark_tokens = {
    .node = "mark",
    .where = "toy.yaml:1:3",
    .kernel = MARK,
    .grid = {{.per_token = 1}, ONE, ONE},
    .per_block = {1, 1, 1},
    .n_args = 3,
    .args = {BUFFER(B_TOKENS), BUFFER(B_MARKS), {.kind = QGC_ARG_EARLY, .buffer = -1}}};

static void put_mark_first(fixture *f, qgc_phase_kind kind) {
    qgc_phase *p = &f->plan->phases[kind];
    qgc_plan_launch *own = qgc_arena_array(f->arena, p->n_launches + 1, sizeof *own);
    own[0] = mark_tokens;
    memcpy(own + 1, p->launches, p->n_launches * sizeof *own);
    *p = (qgc_phase){own, p->n_launches + 1};
}

/* A step in persistent mode that may start while the end of the step before it runs, and marks what it is fed. */
static void make_steps_overlap(fixture *f) {
    put_mark_first(f, QGC_PHASE_PREFILL);
    put_mark_first(f, QGC_PHASE_DECODE);
    make_persistent(f);
    f->plan->phases[QGC_PHASE_PERSISTENT].launches[0].early = true;
    f->plan->buffers[B_MARKS].bytes.fixed = 4 * VOCAB;
    f->plan->seen = B_MARKS;
}

static void steps_that_are_launched_together_choose_as_one_by_one(void **state) {
    fixture *f = *state;
    int32_t text[] = {1, 2, 3}, next, want[20], got[20];
    make_steps_overlap(f);
    qgc_session *s = start(f);
    MUST(f, qgc_session_feed(s, text, 3, &next, &f->diag));
    for (int i = 0; i < 20; i++)
        MUST(f, qgc_session_step(s, &want[i], &f->diag));
    MUST(f, qgc_session_reset(s, &f->diag));
    MUST(f, qgc_session_feed(s, text, 3, &next, &f->diag));
    marked_early = 0;
    for (int i = 0; i < 20; i++) {
        MUST(f, qgc_session_queue_ahead(s, 20 - i, &f->diag));
        assert_true(qgc_session_queued(s) >= (i < 19 ? 2 : 1));
        MUST(f, qgc_session_take(s, &got[i], &f->diag));
    }
    assert_memory_equal(got, want, sizeof got);
    assert_int_equal(marked_early, 14); /* 7 of each 8 that are launched together, and of the last 4 none */
    assert_int_equal(qgc_session_queued(s), 0);
    MUST(f, qgc_session_reset(s, &f->diag));
    MUST(f, qgc_session_feed(s, text, 3, &next, &f->diag));
    marked_early = 0;
    MUST(f, qgc_session_steps(s, 12, got, &f->diag));
    assert_memory_equal(got, want, 12 * sizeof *got);
    assert_int_equal(marked_early, 7);
    qgc_session_drop(s);
}

/* The marks that a session has, of the tokens that it was fed and those it took. */
static void assert_marked(fixture *f, qgc_session *s, const int32_t *fed, int n) {
    int32_t marks[VOCAB], want[VOCAB] = {0};
    for (int i = 0; i < n; i++)
        want[fed[i]] = 1;
    MUST(f, qgc_session_read(s, B_MARKS, marks, sizeof marks, &f->diag));
    assert_memory_equal(marks, want, sizeof marks);
}

static void steps_that_nobody_takes_leave_no_marks(void **state) {
    fixture *f = *state;
    int32_t fed[8] = {1, 2, 3}, next;
    make_steps_overlap(f);
    qgc_session *s = start(f);
    MUST(f, qgc_session_feed(s, fed, 3, &fed[3], &f->diag));
    assert_marked(f, s, fed, 3);
    MUST(f, qgc_session_queue_ahead(s, 20, &f->diag));
    assert_int_equal(qgc_session_queued(s), 8);
    MUST(f, qgc_session_take(s, &fed[4], &f->diag));
    MUST(f, qgc_session_take(s, &next, &f->diag)); /* chosen, and never fed */
    int32_t marks[VOCAB], n = 0;
    MUST(f, qgc_session_read(s, B_MARKS, marks, sizeof marks, &f->diag));
    for (int i = 0; i < VOCAB; i++)
        n += marks[i];
    assert_true(n > 5); /* the six steps that nobody took have marked theirs */
    fed[5] = 1;
    MUST(f, qgc_session_feed(s, fed + 5, 1, &fed[6], &f->diag));
    assert_marked(f, s, fed, 6);
    assert_int_equal(qgc_session_position(s), 6);
    MUST(f, qgc_session_queue_ahead(s, 20, &f->diag));
    MUST(f, qgc_session_reset(s, &f->diag));
    assert_marked(f, s, fed, 0);
    qgc_session_drop(s);
}

static void queues_no_more_than_the_ring_and_the_context_hold(void **state) {
    fixture *f = *state;
    qgc_session *s = start(f);
    int32_t text[] = {1, 2, 3}, next;
    MUST(f, qgc_session_feed(s, text, 3, &next, &f->diag));
    for (int i = 0; i < RING; i++)
        MUST(f, qgc_session_queue(s, &f->diag));
    qgc_diag d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_session_queue(s, &d), QGC_ERR_USAGE);
    assert_string_equal(qgc_diag_message(&d), "12 steps are queued, which is the most");
    qgc_session_drop(s);

    /* Nor than can be undone, where caches are rings. */
    f->plan->spare = 5;
    s = start(f);
    MUST(f, qgc_session_feed(s, text, 3, &next, &f->diag));
    assert_int_equal(qgc_session_most_steps(s), 5);
    MUST(f, qgc_session_queue_ahead(s, 100, &f->diag));
    while (qgc_session_queued(s) < 5)
        MUST(f, qgc_session_queue(s, &f->diag));
    d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_session_queue(s, &d), QGC_ERR_USAGE);
    assert_string_equal(qgc_diag_message(&d), "5 steps are queued, which is the most");
    qgc_session_drop(s);
    f->plan->spare = 0;

    f->options.ctx = 4;
    s = start(f);
    MUST(f, qgc_session_feed(s, text, 3, &next, &f->diag));
    MUST(f, qgc_session_queue(s, &f->diag));
    d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_session_queue(s, &d), QGC_ERR_INPUT);
    MUST(f, qgc_session_take(s, &next, &f->diag));
    qgc_session_drop(s);
}

static void a_step_that_leaves_no_choice_is_an_error(void **state) {
    fixture *f = *state;
    f->options.mode = QGC_MODE_STREAM;
    qgc_session *s = start(f);
    int32_t text[] = {1, 2, 3}, next;
    MUST(f, qgc_session_feed(s, text, 3, &next, &f->diag));
    f->plan->phases[QGC_PHASE_DECODE].n_launches--; /* the one that ends the step */
    qgc_diag d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_session_step(s, &next, &d), QGC_ERR_DEVICE);
    assert_string_equal(qgc_diag_message(&d), "the device ended a step without a choice");
    qgc_session_drop(s);
}

static void load_toy_later(fixture *f) {
    qgc_tensor *tensors = qgc_arena_array(f->arena, 2, sizeof *tensors);
    tensors[0] = tensor_of(f->arena, "e", QGC_BF16, VOCAB, WIDTH);
    tensors[1] = tensor_of(f->arena, "n", QGC_F32, 0, WIDTH);
    qgc_weights *w = qgc_arena_alloc(f->arena, sizeof *w);
    *w = (qgc_weights){.kind = QGC_WEIGHTS_GGUF, .arch = "toy", .tensors = tensors, .n_tensors = 2};
    MUST(f, qgc_program_load(&f->program, f->plan, f->dev, w, f->pool, &(qgc_program_options){.later = true},
                             &f->diag));
}

/* Chunks of a prompt read the weights as they are stored, beside the copy of the persistent step, if there is room for both. */
static void a_prompt_has_a_copy_of_the_weights_where_there_is_room(void **state) {
    fixture *f = *state;
    make_persistent(f);
    for (int room = 0; room < 2; room++) {
        f->dev->info.free_bytes = room ? (size_t)1 << 40 : 1000;
        load_toy_later(f);
        qgc_session *s = start(f);
        assert_int_equal(qgc_program_has_weights(f->program), room);
        assert_int_equal(qgc_session_prefill_phase(s, 2),
                         room ? QGC_PHASE_PREFILL : QGC_PHASE_PACKED_PREFILL);
        assert_string_equal(qgc_prefill_name(qgc_session_prefill(s)), room ? "chunks" : "packed");
        assert_int_equal(strstr(notes_of(f),
                                "the prompt is multiplied from the packed weights: for a copy of them "
                                "as they are stored it needs 0.54 GB, and 0.00 GB are free") != NULL,
                         !room);
        qgc_session_drop(s);
        qgc_program_drop(f->program);
        f->program = NULL;
    }
    f->options.prefill = QGC_PREFILL_PACKED;
    load_toy_later(f);
    qgc_session *s = start(f);
    assert_false(qgc_program_has_weights(f->program));
    qgc_session_drop(s);
    f->options.mode = QGC_MODE_GRAPH;
    assert_non_null(
        strstr(refused(f), "a prompt from packed weights is for persistent mode, and this is graph mode"));
}

/* Code with wgmma multiplies from the order of the persistent step as fast as cuBLAS from a plain copy, unless some product is one of cuBLAS. */
static void a_prompt_needs_no_copy_of_the_weights_where_products_read_the_stream(void **state) {
    fixture *f = *state;
    make_persistent(f);
    f->plan->archs[1] = "sm_90a";
    qgc_phase *packed = &f->plan->phases[QGC_PHASE_PACKED_PREFILL];
    const qgc_phase with_gemm = *packed;
    qgc_plan_launch *rest = qgc_arena_array(f->arena, packed->n_launches, sizeof *rest);
    size_t n = 0;
    for (size_t i = 0; i < packed->n_launches; i++)
        if (packed->launches[i].kind != QGC_LAUNCH_GEMM)
            rest[n++] = packed->launches[i];
    assert_true(n < with_gemm.n_launches);
    rest[1].args[1].access = QGC_READS; /* the table, which stays as it is stored */
    f->dev->info.free_bytes = (size_t)1 << 40;
    for (int gemm = 0; gemm < 2; gemm++) {
        *packed = gemm ? with_gemm : (qgc_phase){rest, n};
        load_toy_later(f);
        qgc_session *s = start(f);
        assert_int_equal(qgc_program_has_weights(f->program), gemm);
        assert_int_equal(qgc_session_prefill_phase(s, 2),
                         gemm ? QGC_PHASE_PREFILL : QGC_PHASE_PACKED_PREFILL);
        assert_null(strstr(notes_of(f), "packed weights"));
        qgc_session_drop(s);
        qgc_program_drop(f->program);
        f->program = NULL;
    }
    *packed = (qgc_phase){rest, n};
    load_toy(f); /* with its weights */
    qgc_session *s = start(f);
    assert_int_equal(qgc_session_prefill_phase(s, 2), QGC_PHASE_PREFILL);
    qgc_session_drop(s);
}

/* What no step of this device can run need not fit on it. */
static void kernels_of_a_mode_that_cannot_run_are_not_loaded(void **state) {
    fixture *f = *state;
    qgc_phase *decode = &f->plan->phases[QGC_PHASE_DECODE], *step = &f->plan->phases[QGC_PHASE_PERSISTENT];
    make_persistent(f);
    step->launches[3].on_all = true;
    f->plan->kernels[NEVER].shared_bytes = 70000;
    qgc_plan_launch *rest = qgc_arena_array(f->arena, decode->n_launches, sizeof *rest);
    size_t n = 0;
    for (size_t i = 0; i < decode->n_launches; i++)
        if (decode->launches[i].kernel != NEVER)
            rest[n++] = decode->launches[i];
    *decode = (qgc_phase){rest, n};
    for (int bytes = 70000; bytes >= 69999; bytes--) {
        f->dev->info.shared_bytes_max = bytes;
        qgc_str_clear(&f->dev->log);
        load_toy(f);
        assert_int_equal(strstr(f->dev->log.text, "load never from") != NULL, bytes == 70000);
        assert_non_null(strstr(f->dev->log.text, "load embed from"));
        assert_int_equal(qgc_mode_refusal(f->program, QGC_MODE_PERSISTENT, f->arena) == NULL, bytes == 70000);
        qgc_program_drop(f->program);
        f->program = NULL;
    }
    f->options.mode = QGC_MODE_GRAPH;
    qgc_session *s = start(f);
    int32_t next;
    MUST(f, qgc_session_feed(s, prompt, 3, &next, &f->diag));
    qgc_session_drop(s);
}

/* Its blocks have to run all at once. */
static void a_kernel_that_is_too_large_for_a_multiprocessor_is_refused(void **state) {
    fixture *f = *state;
    make_persistent(f);
    f->plan->phases[QGC_PHASE_PERSISTENT].launches[1].on_all = true;
    f->dev->info.shared_bytes_max = 70000;
    load_toy(f);
    assert_null(qgc_mode_refusal(f->program, QGC_MODE_PERSISTENT, f->arena));
    qgc_program_drop(f->program);
    f->program = NULL;
    f->dev->no_room = true;
    assert_string_equal(
        refused(f), "qgc: error: \"toy\" cannot run in persistent mode: a multiprocessor of Fake GPU has no "
                    "room for a block of 32 threads of 128 registers and 2 bytes of shared memory\n"
                    "  hint: Use --mode graph.\n"
                    "  while: starting a session\n");
    f->dev->info.free_bytes = (size_t)1 << 40;
    const qgc_mode_choice choice = qgc_mode_fastest(f->program, CTX, f->arena);
    assert_int_equal(choice.mode, QGC_MODE_GRAPH);
    assert_non_null(strstr(choice.why, "not persistent: a multiprocessor of Fake GPU has no room"));
}

static int32_t *fault_word(const fixture *f) {
    for (int i = 0; i < f->dev->n_allocations; i++) {
        const fake_allocation *a = &f->dev->allocations[i];
        if (a->owner && strcmp(a->owner, "pinned") == 0 && a->bytes == 4)
            return (int32_t *)(void *)a->start;
    }
    fail_msg("there is no word for faults");
    return NULL;
}

/* So the bench times what a step does. */
static void launches_are_timed_as_a_step_launches_them(void **state) {
    fixture *f = *state;
    const bool prefix[8] = {true, true, true};
    int32_t text[] = {1, 2, 3}, next;
    double us;
    let_two_start_early(f);
    make_persistent(f);
    for (int m = 0; m < QGC_N_MODES; m++) {
        const int early = m == QGC_MODE_PDL || m == QGC_MODE_PERSISTENT ? 2 : 0;
        f->options.mode = (qgc_mode)m;
        qgc_session *s = start(f);
        assert_int_equal(qgc_session_overlaps(s), early > 0);
        MUST(f, qgc_session_feed(s, text, 3, &next, &f->diag));
        qgc_str_clear(&f->dev->log);
        MUST(f, qgc_session_time(s, prefix, 2, &us, &f->diag));
        assert_int_equal(count(f->dev->log.text, ", early\n"), early);
        assert_int_equal(count(f->dev->log.text, "replay\n"), 3); /* one to warm up */
        qgc_session_drop(s);
    }
}

/* The word comes from the device, so it may be any. */
static void a_wait_given_up_names_part_and_layer(void **state) {
    fixture *f = *state;
    make_persistent(f);
    qgc_session *s = start(f);
    int32_t text[] = {1, 2, 3}, next;
    const char *node = f->plan->phases[QGC_PHASE_PERSISTENT].launches[1].node;
    const struct {
        int32_t word;
        const char *note;
    } cases[] = {
        {1, "waited in vain for what \"qkv\" of layer 0 reads"},
        {1 + 3 * 2 + 1, "waited in vain for what \"mlp\" of layer 2 reads"},
        {3 * 5, "waited in vain for what \"head\" of layer 4 reads"},
        {3 * 5 + 1, "the word for a wait given up is damaged: it is 16"},
        {-1, "the word for a wait given up is damaged: it is -1"},
        {INT32_MIN, "the word for a wait given up is damaged: it is -2147483648"},
        {INT32_MAX, "the word for a wait given up is damaged: it is 2147483647"},
        {0, NULL},
    };
    MUST(f, qgc_session_feed(s, text, 3, &next, &f->diag));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        *fault_word(f) = cases[i].word;
        f->dev->deaf = true;
        qgc_diag d = qgc_diag_new(f->arena);
        assert_int_equal(qgc_session_step(s, &next, &d), QGC_ERR_DEVICE);
        const char *printed = qgc_test_printed(f->arena, &d);
        if (cases[i].note && !strstr(printed, cases[i].note))
            fail_msg("%s", printed);
        assert_int_equal(strstr(printed, "in vain") != NULL, i < 3);
        assert_int_equal(strstr(printed, "damaged") != NULL, i >= 3 && cases[i].word);
        assert_int_equal(i < 3,
                         strstr(printed, qgc_arena_printf(f->arena, "note: \"%s\" waited", node)) != NULL);
        f->dev->deaf = false;
        MUST(f, qgc_session_reset(s, &f->diag));
        MUST(f, qgc_session_feed(s, text, 3, &next, &f->diag));
    }
    qgc_session_drop(s);
}

static void sizes_that_no_memory_holds_are_refused(void **state) {
    fixture *f = *state;
    f->plan->buffers[B_HISTORY].bytes.per_ctx = (int64_t)1 << 57;
    assert_non_null(strstr(refused(f), "kv cache of more than 2^62 bytes in all\n"));
    f->plan->buffers[B_HISTORY].bytes.per_ctx = INT64_MAX;
    assert_non_null(strstr(refused(f), "kv cache of more than 2^62 bytes in all\n"));
    make_persistent(f);
    f->dev->info.free_bytes = (size_t)1 << 40;
    assert_int_equal(qgc_mode_fastest(f->program, CTX, f->arena).mode, QGC_MODE_GRAPH);
}

/* The toy has neither: what is left is graph mode. */
static void auto_takes_a_mode_that_runs(void **state) {
    fixture *f = *state;
    load_toy(f);
    f->plan->not_persistent = "there is no embedding";
    qgc_mode_choice choice = qgc_mode_fastest(f->program, CTX, f->arena);
    assert_int_equal(choice.mode, QGC_MODE_GRAPH);
    assert_string_equal(
        choice.why,
        "not persistent: there is no embedding; not pdl: no launch of a decode step may start early");
    f->plan->not_persistent = NULL;
    const bool new_enough = strtol(qgc_program_arch(f->program) + 3, NULL, 10) >= 90;
    f->dev->info.free_bytes = (size_t)1 << 40;
    choice = qgc_mode_fastest(f->program, CTX, f->arena);
    assert_int_equal(choice.mode, new_enough ? QGC_MODE_PERSISTENT : QGC_MODE_GRAPH);
    if (new_enough)
        assert_string_equal(choice.why, "the graph and the GPU allow it");
    f->dev->info.free_bytes = 1000; /* no room for a session */
    choice = qgc_mode_fastest(f->program, CTX, f->arena);
    assert_int_equal(choice.mode, QGC_MODE_GRAPH);
}

/* Persistent mode runs on sm_75, and is taken where it was timed. */
static void auto_takes_what_nobody_timed_only_by_name(void **state) {
    fixture *f = *state;
    f->plan->archs[0] = "sm_75";
    f->dev->info.major = 7, f->dev->info.minor = 5;
    make_persistent(f);
    f->dev->info.free_bytes = (size_t)1 << 40;
    load_toy(f);
    assert_null(qgc_mode_refusal(f->program, QGC_MODE_PERSISTENT, f->arena));
    const double us[QGC_N_MODES] = {[QGC_MODE_GRAPH] = 20, [QGC_MODE_PERSISTENT] = 10};
    const qgc_mode_choice choice = qgc_mode_fastest(f->program, CTX, f->arena);
    assert_int_equal(choice.mode, QGC_MODE_GRAPH);
    assert_non_null(strstr(
        choice.why, "not persistent: its code for sm_75 was never timed; qgc tune does that; not pdl: "));
    assert_int_equal(qgc_mode_measured(f->program, CTX, us, f->arena).mode, QGC_MODE_PERSISTENT);
}

/* Where modes were timed, the least of those that run; else the model. */
static void auto_goes_by_measured_times(void **state) {
    fixture *f = *state;
    let_two_start_early(f);
    make_persistent(f);
    f->dev->info.free_bytes = (size_t)1 << 40;
    load_toy(f);
    double us[QGC_N_MODES] = {[QGC_MODE_GRAPH] = 20, [QGC_MODE_PDL] = 9.5, [QGC_MODE_PERSISTENT] = 10};
    qgc_mode_choice choice = qgc_mode_measured(f->program, CTX, us, f->arena);
    assert_int_equal(choice.mode, QGC_MODE_PDL);
    assert_string_equal(choice.why, "measured by qgc tune, us a step: graph 20.0, pdl 9.5, persistent 10.0");
    us[QGC_MODE_PERSISTENT] = 9;
    assert_int_equal(qgc_mode_measured(f->program, CTX, us, f->arena).mode, QGC_MODE_PERSISTENT);
    us[QGC_MODE_PERSISTENT] = 0; /* what the model takes was not measured */
    choice = qgc_mode_measured(f->program, CTX, us, f->arena);
    assert_int_equal(choice.mode, QGC_MODE_PERSISTENT);
    assert_string_equal(choice.why, "the graph and the GPU allow it");
    us[QGC_MODE_PERSISTENT] = 1;
    f->dev->info.free_bytes = 1000; /* the fastest has no room */
    choice = qgc_mode_measured(f->program, CTX, us, f->arena);
    assert_int_equal(choice.mode, QGC_MODE_PDL);
    assert_string_equal(choice.why, "measured by qgc tune, us a step: graph 20.0, pdl 9.5");
}

static void refuses_chunks_where_cublas_is_missing(void **state) {
    fixture *f = *state;
    f->dev->no_cublas = true;
    unsetenv("XDG_DATA_HOME"); /* it is part of the command */
    assert_string_equal(
        refused(f),
        "qgc: error: prefill in chunks needs cuBLAS: libcublas.so.13: cannot open shared object file\n"
        "  hint: Take the prompt in decode steps (QGC_PREFILL_STEPS, --prefill steps), which need no "
        "cuBLAS; or fetch it: python3 -m pip install --target ~/.local/share/qgc/cuda nvidia-cublas\n"
        "  while: starting a session\n");
    f->options.prefill = QGC_PREFILL_STEPS;
    qgc_session_drop(start(f));
}

static void a_session_without_memory_gives_everything_back(void **state) {
    fixture *f = *state;
    static const char *const owners[] = {"kv cache", "tables", "io", "scratch"};
    load_toy(f);
    for (size_t i = 0; i < COUNT(owners); i++) {
        f->dev->full_for = owners[i];
        assert_non_null(strstr(refused(f), "do not fit"));
        assert_int_equal(fake_device_held(f->dev), 1); /* the weights */
    }
}

static void a_launch_that_fails_names_its_node_and_ends_the_capture(void **state) {
    fixture *f = *state;
    f->dev->broken_kernel = "linear";
    assert_string_equal(refused(f), "qgc: error: cuLaunchKernel failed\n"
                                    "qgc: note: \"linear\" stands at toy.yaml:4:3\n"
                                    "  while: launching linear\n"
                                    "  while: starting a session\n");
    assert_null(f->dev->recording);
}

static void refuses_samplings_that_make_no_sense(void **state) {
    fixture *f = *state;
    const qgc_sampling good = {.temperature = 0.7f, .top_k = 40, .top_p = 0.9f, .repeat_penalty = 1.1f};
    static const struct {
        size_t field;
        float value;
        const char *message;
    } cases[] = {
        {offsetof(qgc_sampling, temperature), -1, "sampling wants a temperature of 0 or more, got -1"},
        {offsetof(qgc_sampling, temperature), NAN, "sampling wants a temperature of 0 or more, got nan"},
        {offsetof(qgc_sampling, temperature), INFINITY, "sampling wants a temperature of 0 or more, got inf"},
        {offsetof(qgc_sampling, top_p), 0, "sampling wants a top_p above 0 and at most 1, got 0"},
        {offsetof(qgc_sampling, top_p), 1.5f, "sampling wants a top_p above 0 and at most 1, got 1.5"},
        {offsetof(qgc_sampling, min_p), 2, "sampling wants a min_p from 0 to 1, got 2"},
        {offsetof(qgc_sampling, min_p), NAN, "sampling wants a min_p from 0 to 1, got nan"},
        {offsetof(qgc_sampling, repeat_penalty), 0, "sampling wants a repeat_penalty above 0, got 0"},
    };
    assert_int_equal(qgc_sampling_check(&good, &f->diag), QGC_OK);
    for (size_t i = 0; i < COUNT(cases); i++) {
        qgc_sampling s = good;
        memcpy((char *)&s + cases[i].field, &cases[i].value, sizeof(float));
        qgc_diag d = qgc_diag_new(f->arena);
        assert_int_equal(qgc_sampling_check(&s, &d), QGC_ERR_USAGE);
        assert_string_equal(qgc_diag_message(&d), cases[i].message);
    }
    qgc_sampling s = good;
    s.top_k = -1;
    qgc_diag d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_sampling_check(&s, &d), QGC_ERR_USAGE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(what_is_compiled_for_one_device_may_use_all_it_has),
        TEST(converts_weights_to_the_storage_of_the_plan),
        TEST(what_is_derived_goes_up_in_place_of_its_sources),
        TEST(refuses_values_that_the_storage_cannot_hold),
        TEST(refuses_a_row_of_blocks_that_no_upload_holds),
        TEST(another_program_lends_its_weights_where_the_plans_agree),
        TEST(a_tied_weight_shares_memory_unless_the_file_has_its_own),
        TEST(a_tied_weight_stored_in_another_way_has_memory_of_its_own),
        TEST(reports_progress_up_to_the_last_byte),
        TEST(a_program_without_memory_for_its_weights_gives_everything_back),
        TEST(loads_each_kernel_from_the_chosen_image),
        TEST(starts_with_tables_filled_prefill_warm_and_the_decode_captured),
        TEST(cuts_a_prompt_into_chunks_and_steps_by_replay_alone),
        TEST(feeds_a_single_token_through_the_decode_step),
        TEST(all_modes_give_the_same_tokens_far_beyond_the_ring),
        TEST(logits_that_are_no_numbers_are_noticed),
        TEST(sampling_reaches_the_device),
        TEST(a_sampling_can_be_set_between_texts),
        TEST(a_reset_session_starts_over),
        TEST(a_step_allocates_nothing),
        TEST(a_streamed_decode_differs_in_nothing_from_step_to_step),
        TEST(gives_the_logits_of_the_last_token),
        TEST(refuses_what_has_no_room_and_stays_as_it_was),
        TEST(refuses_rows_of_a_plan_for_the_last_row),
        TEST(refuses_tokens_outside_the_vocabulary),
        TEST(refuses_a_context_that_the_model_cannot_have),
        TEST(refuses_modes_that_the_plan_cannot_run_in),
        TEST(what_the_plan_lets_start_early_does_in_pdl_mode_only),
        TEST(kernels_of_a_mode_that_cannot_run_are_not_loaded),
        TEST(a_kernel_that_is_too_large_for_a_multiprocessor_is_refused),
        TEST(launches_are_timed_as_a_step_launches_them),
        TEST(a_wait_given_up_names_part_and_layer),
        TEST(sizes_that_no_memory_holds_are_refused),
        TEST(an_image_that_cannot_wait_starts_nothing_early),
        TEST(steps_in_a_queue_choose_as_steps_one_by_one),
        TEST(what_is_queued_and_not_taken_is_forgotten),
        TEST(steps_that_are_launched_together_choose_as_one_by_one),
        TEST(steps_that_nobody_takes_leave_no_marks),
        TEST(queues_no_more_than_the_ring_and_the_context_hold),
        TEST(a_step_that_leaves_no_choice_is_an_error),
        TEST(a_prompt_has_a_copy_of_the_weights_where_there_is_room),
        TEST(a_prompt_needs_no_copy_of_the_weights_where_products_read_the_stream),
        TEST(auto_takes_a_mode_that_runs),
        TEST(auto_takes_what_nobody_timed_only_by_name),
        TEST(auto_goes_by_measured_times),
        TEST(refuses_chunks_where_cublas_is_missing),
        TEST(a_session_without_memory_gives_everything_back),
        TEST(a_launch_that_fails_names_its_node_and_ends_the_capture),
        TEST(refuses_samplings_that_make_no_sense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
