#ifndef TESTS_SUPPORT_FAKE_TOY_H
#define TESTS_SUPPORT_FAKE_TOY_H

#include <math.h>
#include <string.h>

#include "graph/eval.h"
#include "tests/support/cmocka.h"
#include "tests/support/fake_device.h"
#include "tests/support/folder.h"

/* A small model whose kernels are compiled for real and run by C functions in place of them. */

enum { D = 32, VOCAB = 40, CHUNK = 32 };

/* What the kernels below can do together. */
#define FUSED "dead-code,fuse-norm-linear"

static const char toy_model[] = "qgc: 1\n"
                                "name: toy\n"
                                "arch: toy\n"
                                "params: {d: 32, vocab: 40}\n"
                                "weights:\n"
                                "  embed: {shape: [vocab, d], gguf: e}\n"
                                "  norm: {shape: [d], gguf: n}\n"
                                "  head: {shape: [vocab, d], gguf: h}\n"
                                "state:\n"
                                "  seen: {shape: [vocab], dtype: i32}\n"
                                "inputs: {tokens: [T], positions: [T], rows: [R]}\n"
                                "graph:\n"
                                "  - {op: embedding, in: [tokens, embed], out: x}\n"
                                "  - {op: select_rows, in: [x, rows], out: x_rows}\n"
                                "  - {op: rms_norm, in: [x_rows, norm], eps: 1e-6, out: h}\n"
                                "  - {op: linear, in: [h, head], out: logits}\n"
                                "  - {op: mark, in: [seen, tokens], out: seen_now}\n"
                                "  - {op: sample, in: [logits, rows, positions, seen_now], out: next}\n"
                                "outputs: [logits, next]\n";

/* --- the kernels ----------------------------------------------------------------------------------------- */

static void *pointer(void **args, int i) {
    return (void *)(uintptr_t) * (const qgc_address *)args[i]; /* NOLINT(performance-no-int-to-ptr) */
}

static void run_embedding(void **args, const unsigned grid[3]) {
    const int32_t *tokens = pointer(args, 0);
    const uint16_t *table = pointer(args, 1);
    float *out = pointer(args, 2);
    for (unsigned t = 0; t < grid[0]; t++)
        for (int i = 0; i < D; i++)
            out[t * D + (unsigned)i] = qgc_bf16_to_f32(table[tokens[t] * D + i]);
}

static void run_select_rows(void **args, const unsigned grid[3]) {
    const int32_t *rows = pointer(args, 1);
    assert_int_equal(grid[0], 1);
    memcpy(pointer(args, 2), (const float *)pointer(args, 0) + (ptrdiff_t)rows[0] * D, D * sizeof(float));
}

static void norm(const float *x, const float *weight, float *out) {
    float squares = 0;
    for (int i = 0; i < D; i++)
        squares += x[i] * x[i];
    for (int i = 0; i < D; i++)
        out[i] = x[i] / sqrtf(squares / D + 1e-6f) * weight[i];
}

static void run_rms_norm(void **args, const unsigned grid[3]) {
    (void)grid;
    norm(pointer(args, 0), pointer(args, 1), pointer(args, 2));
}

/* What is multiplied: after the norm, in `normed`, where its weights are given. An argument that is not there is x again. */
static const float *vector_of_linear(void **args, float *normed) {
    const float *x = pointer(args, 0), *weight = pointer(args, 1);
    if (weight == x)
        return x;
    norm(x, weight, normed);
    return normed;
}

static void run_linear(void **args, const unsigned grid[3]) {
    float *out = pointer(args, 14), normed[D];
    const float *x = vector_of_linear(args, normed);
    const uint16_t *w = pointer(args, 2);
    (void)grid;
    for (int i = 0; i < VOCAB; i++) {
        out[i] = 0;
        for (int k = 0; k < D; k++)
            out[i] += x[k] * qgc_bf16_to_f32(w[i * D + k]);
    }
}

static void run_mark(void **args, const unsigned grid[3]) {
    (void)grid;
    for (int i = 0; i < *(const int32_t *)args[2]; i++)
        ((int32_t *)pointer(args, 0))[((const int32_t *)pointer(args, 1))[i]] = 1;
}

static void run_sample_part(void **args, const unsigned grid[3]) {
    const float *logits = pointer(args, 0);
    float *parts = pointer(args, 3);
    assert_int_equal(grid[0], 1);
    for (int i = 0; i < VOCAB; i++)
        parts[i / CHUNK] = i % CHUNK ? fmaxf(parts[i / CHUNK], logits[i]) : logits[i];
}

/* What the reference chooses, which needs no parts. It ends the step too. */
static void run_sample_merge(void **args, const unsigned grid[3]) {
    int32_t *positions = pointer(args, 3), *tokens = pointer(args, 8), *ring = pointer(args, 9);
    const int32_t at = positions[*(const int32_t *)pointer(args, 2)];
    const qgc_node node = {.op = QGC_OP_SAMPLE, .n_in = 4, .n_out = 1};
    const qgc_operand one = {.dtype = QGC_I32, .rank = 1, .dim = {1}};
    qgc_call call = {.node = &node, .sampling = pointer(args, 5), .scratch = qgc_arena_new()};
    (void)grid;
    call.in[0] = (qgc_operand){QGC_F32, 2, {1, VOCAB}, pointer(args, 0), true};
    call.in[1] = call.in[2] = call.in[3] = call.out[0] = one;
    call.in[1].data = pointer(args, 2);
    call.in[2].data = positions;
    call.in[3].data = pointer(args, 4);
    call.in[3].dim[0] = VOCAB;
    call.out[0].data = pointer(args, 7);
    qgc_ops[QGC_OP_SAMPLE].ref(&call);
    qgc_arena_drop(call.scratch);
    ring[at % 1024] = tokens[0] = *(int32_t *)pointer(args, 7);
    positions[0] = at + 1;
}

static const fake_kernel toy_kernels[] = {
    {"embedding", "ppp", run_embedding},
    {"select_rows", "ppp", run_select_rows},
    {"rms_norm", "ppp", run_rms_norm},
    {"linear", "ppppppppppppppp", run_linear},
    {"mark", "ppi", run_mark},
    {"sample_part", "pppp", run_sample_part},
    {"sample_merge", "pppppppppp", run_sample_merge},
    {0},
};

/* --- their cache ----------------------------------------------------------------------------------------- */

/* For all tests: NVRTC takes seconds. */
static struct {
    qgc_arena *arena;
    const char *folder;
} toy_cache;

static int make_toy_cache(void **state) {
    (void)state;
    toy_cache.arena = qgc_arena_new();
    toy_cache.folder = qgc_test_folder(toy_cache.arena);
    return 0;
}

static int drop_toy_cache(void **state) {
    (void)state;
    qgc_test_folder_drop(toy_cache.arena, toy_cache.folder);
    qgc_arena_drop(toy_cache.arena);
    return 0;
}

#endif
