#ifndef TESTS_SUPPORT_SMALL_PLAN_H
#define TESTS_SUPPORT_SMALL_PLAN_H

#include <string.h>

#include "codegen/plan.h"
#include "graph/sampling.h"

/* A plan that is valid and has one of everything: each kind of buffer, argument and launch, each phase, a tied
 * weight, two architectures. All of it is in the arena, so a test may change any field. */

static const int64_t SMALL_VOCAB = 8, SMALL_D = 4, SMALL_CHUNK = 16;

enum {
    SMALL_HEAD, /* buffers */
    SMALL_EMBED,
    SMALL_CACHE,
    SMALL_TABLE,
    SMALL_X,
    SMALL_X_BF16,
    SMALL_IO, /* the first of QGC_N_IO */
    SMALL_N_BUFFERS = SMALL_IO + QGC_N_IO
};

static inline void *small_copy(qgc_arena *a, const void *rows, size_t bytes) {
    void *copy = qgc_arena_alloc(a, bytes);
    memcpy(copy, rows, bytes);
    return copy;
}

#define SMALL_TABLE_OF(a, field, n_field, ...)                  \
    do {                                                        \
        __typeof__(*(field)) small_rows[] = __VA_ARGS__;        \
        (field) = small_copy(a, small_rows, sizeof small_rows); \
        (n_field) = sizeof small_rows / sizeof *small_rows;     \
    } while (0)

static inline qgc_plan *small_plan(qgc_arena *a) {
    qgc_plan *p = qgc_arena_alloc(a, sizeof *p);
    *p = (qgc_plan){.name = "small",
                    .arch = "small",
                    .graph = "qgc: 1\n",
                    .source = "qgc: 1\nname: small\n",
                    .compiler = "qgc 0.1.0, NVRTC 13.0",
                    .weights_path = "w.gguf",
                    .hf_arch = "small,other",
                    .vocab = SMALL_VOCAB,
                    .max_positions = 64,
                    .chunk = SMALL_CHUNK,
                    .scratch_bytes = 512 + 2 * SMALL_D * SMALL_CHUNK,
                    .archs = {"sm_90a", "sm_80"},
                    .n_archs = 2};
    const char **gguf = small_copy(a, (const char *[]){"small.size"}, sizeof(char *));
    const char **hf = small_copy(a, (const char *[]){"size", "hidden_size"}, 2 * sizeof(char *));
    SMALL_TABLE_OF(a, p->params, p->n_params,
                   {{.name = "d", .value = SMALL_D, .n_gguf = 1, .n_hf = 2, .gguf = gguf, .hf = hf},
                    {.name = "eps", .value = 1e-6},
                    {.name = "windowed",
                     .n_hf = 1,
                     .hf = small_copy(a, (const char *[]){"layer_types"}, sizeof(char *)),
                     .words = small_copy(a, (const char *[]){"full", "sliding"}, 2 * sizeof(char *)),
                     .n_words = 2,
                     .turns = 2,
                     .values = small_copy(a, (double[]){0, 1}, 2 * sizeof(double)),
                     .n_otherwise = 2,
                     .otherwise = small_copy(a, (double[]){1, 1}, 2 * sizeof(double))}});
    SMALL_TABLE_OF(
        a, p->weights, p->n_weights,
        {{"head", "output.weight", "lm_head.weight", 1, 2, {SMALL_VOCAB, SMALL_D}, QGC_BF16, {0}, {0}, {0}},
         {"embed",
          "token_embd.weight",
          NULL,
          -1,
          2,
          {SMALL_VOCAB, SMALL_D},
          QGC_BF16,
          {.first = 1, .last = 3, .of = 4, .heads = 2},
          {.stacked_index = "e", .stacked = 2, .transposed = true, .plus = 1},
          {0}}});

    const qgc_extent matrix = {.fixed = 2 * SMALL_VOCAB * SMALL_D};
    SMALL_TABLE_OF(a, p->buffers, p->n_buffers,
                   {[SMALL_HEAD] = {"head", QGC_BUFFER_WEIGHT, matrix, 0, -1, 0},
                    [SMALL_EMBED] = {"embed", QGC_BUFFER_WEIGHT, matrix, 1, -1, 0},
                    [SMALL_CACHE] = {"cache", QGC_BUFFER_STATE, {.per_ctx = 4 * SMALL_D}, -1, -1, 0},
                    [SMALL_TABLE] = {"table", QGC_BUFFER_TABLE, {.per_ctx = 4}, -1, -1, 0},
                    [SMALL_X] = {"x", QGC_BUFFER_SCRATCH, {.per_token = 4 * SMALL_D}, -1, -1, 256},
                    [SMALL_X_BF16] = {"x bf16", QGC_BUFFER_SCRATCH, {.per_token = 2 * SMALL_D}, -1, -1, 512},
                    [SMALL_IO] = {"tokens", QGC_BUFFER_IO, {.per_token = 4}, -1, QGC_IO_TOKENS, 0},
                    {"positions", QGC_BUFFER_IO, {.per_token = 4}, -1, QGC_IO_POSITIONS, 0},
                    {"rows", QGC_BUFFER_IO, {.per_row = 4}, -1, QGC_IO_ROWS, 0},
                    {"logits", QGC_BUFFER_IO, {.per_row = 4 * SMALL_VOCAB}, -1, QGC_IO_LOGITS, 0},
                    {"next", QGC_BUFFER_IO, {.per_row = 4}, -1, QGC_IO_NEXT, 0},
                    {"sampling", QGC_BUFFER_IO, {.fixed = sizeof(qgc_sampling)}, -1, QGC_IO_SAMPLING, 0},
                    {"ring", QGC_BUFFER_IO, {.fixed = 256}, -1, QGC_IO_RING, 0},
                    {"fault", QGC_BUFFER_IO, {.fixed = 4}, -1, QGC_IO_FAULT, 0}});
    p->not_persistent = "too small";
    p->trace = -1;
    p->seen = -1;
    p->shares_buffer = -1;
    for (int i = 0; i < QGC_N_IO; i++)
        p->io[i] = SMALL_IO + i;

    SMALL_TABLE_OF(a, p->kernels, p->n_kernels,
                   {{"fill.cu", "fill", "", NULL, NULL, 64, 0, 0, 0, false, QGC_NEXT_AT_END},
                    {"embed.cu", "embed", "-DD=4", "/* none */", "not at hand", 128, 0, 1024, 0, true,
                     QGC_NEXT_BEHIND_WAIT}});
    SMALL_TABLE_OF(
        a, p->images, p->n_images,
        {{0, 0, "first image", 11}, {1, 0, "second", 6}, {0, 1, "third", 5}, {1, 1, "fourth image", 12}});

    const qgc_plan_launch fill = {
        .kind = QGC_LAUNCH_KERNEL,
        .node = "fill table",
        .where = "",
        .kernel = 0,
        .grid = {{.per_ctx = 1}, {.fixed = 1}, {.fixed = 1}},
        .per_block = {64, 1, 1},
        .n_args = 2,
        .args = {{QGC_ARG_BUFFER, SMALL_TABLE, {0}, QGC_WRITES}, {QGC_ARG_I32, -1, {.per_ctx = 1}, 0}},
        .a = -1,
        .b = -1,
        .c = -1,
        .n_parts = 2,
        .parts =
            small_copy(a, (qgc_plan_part[]){{"rows", 64, 0}, {"positions", 0, 8}}, 2 * sizeof(qgc_plan_part)),
        .n_layers = 3};
    const qgc_plan_launch embed = {
        .kind = QGC_LAUNCH_KERNEL,
        .node = "embedding x",
        .where = "small.yaml:7:5",
        .not_early = "it is the first launch of its phase",
        .kernel = 1,
        .grid = {{.fixed = 1}, {.per_token = 1}, {.fixed = 1}},
        .per_block = {1, 1, 1},
        .n_args = 4,
        .args = {{QGC_ARG_BUFFER, SMALL_EMBED, {0}, QGC_READS | QGC_EARLY},
                 {QGC_ARG_BUFFER, SMALL_IO + QGC_IO_TOKENS, {0}, QGC_READS},
                 {QGC_ARG_BUFFER, SMALL_X, {.fixed = -4 * SMALL_D, .per_token = 4 * SMALL_D}, QGC_WRITES},
                 {QGC_ARG_I32, -1, {.fixed = -1, .per_token = SMALL_D}, 0}},
        .a = -1,
        .b = -1,
        .c = -1,
        .weight_bytes = 2 * SMALL_D};
    const qgc_plan_launch product = {.kind = QGC_LAUNCH_GEMM,
                                     .node = "linear logits",
                                     .where = "small.yaml:8:5",
                                     .kernel = -1,
                                     .a = SMALL_X_BF16,
                                     .b = SMALL_HEAD,
                                     .c = SMALL_IO + QGC_IO_LOGITS,
                                     .rows = {.per_row = 1},
                                     .n = SMALL_VOCAB,
                                     .k = SMALL_D,
                                     .accumulate = true,
                                     .weight_bytes = 2 * SMALL_VOCAB * SMALL_D};
    qgc_phase *phases = p->phases;
    SMALL_TABLE_OF(a, phases[QGC_PHASE_INIT].launches, phases[QGC_PHASE_INIT].n_launches, {fill});
    SMALL_TABLE_OF(a, phases[QGC_PHASE_PREFILL].launches, phases[QGC_PHASE_PREFILL].n_launches,
                   {embed, product});
    SMALL_TABLE_OF(a, phases[QGC_PHASE_DECODE].launches, phases[QGC_PHASE_DECODE].n_launches,
                   {embed, product});
    return p;
}

#endif
