/* How fast ref_linear is: all linear ops of Qwen2.5-0.5B once, with weights of each dtype. Not a test: run it by
 * hand, with a list of dtypes and a number of tokens if not all of them are wanted.
 *
 *   bench_graph_eval [tokens [dtype ...]]
 *
 * The CPU time, that of all threads together, tells more than the clock where others use the machine too.
 * Rows of 896 are no multiple of a block of 256, so the K formats are mixed as in real files. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "graph/eval.h"
#include "graph/ops.h"

enum { LAYERS = 24, VOCAB = 151936, D = 896, KV = 128, FF = 4864 };

static const int64_t layer_shapes[][2] = {{D, D}, {KV, D}, {KV, D}, {D, D}, {FF, D}, {FF, D}, {D, FF}};

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What a file has where rows do not fit the format: as llama.cpp's quantiser chooses. */
static qgc_dtype fallback(qgc_dtype t, int64_t in) {
    if (in % qgc_dtypes[t].block_elems == 0)
        return t;
    return t == QGC_Q4_K ? QGC_Q5_0 : t == QGC_Q5_K ? QGC_Q5_1 : QGC_Q8_0;
}

typedef struct {
    qgc_pool *pool;
    char *weights;
    size_t at; /* bytes of `weights` used so far */
    float *x, *y;
    int64_t tokens;
} bench;

static void linear(bench *b, qgc_dtype dtype, int64_t out, int64_t in, int64_t tokens) {
    dtype = fallback(dtype, in);
    qgc_node node = {.op = QGC_OP_LINEAR, .n_in = 2};
    qgc_call call = {
        .node = &node,
        .in = {{QGC_F32, 2, {tokens, in}, b->x, true}, {dtype, 2, {out, in}, b->weights + b->at, false}},
        .out = {{QGC_F32, 2, {tokens, out}, b->y, true}},
        .pool = b->pool};
    if (b->weights)
        ref_linear(&call);
    b->at += qgc_dtype_bytes(dtype, out * in);
}

static void model(bench *b, qgc_dtype dtype) {
    b->at = 0;
    for (int l = 0; l < LAYERS; l++)
        for (size_t i = 0; i < sizeof layer_shapes / sizeof *layer_shapes; i++)
            linear(b, dtype, layer_shapes[i][0], layer_shapes[i][1], b->tokens);
    linear(b, dtype == QGC_F32 || dtype == QGC_F16 || dtype == QGC_BF16 ? dtype : QGC_Q8_0, VOCAB, D, 1);
}

static void measure(bench *b, qgc_dtype dtype) {
    qgc_arena *arena = qgc_arena_new();
    b->weights = NULL;
    model(b, dtype);
    size_t bytes = b->at;
    b->weights = qgc_arena_alloc(arena, bytes);
    for (size_t i = 0; i < bytes; i++) /* as a half or a bf16 of middle size, whichever way it is read */
        b->weights[i] = (char)(0x38 + i * 7 % 5);
    double best = 1e9, cpu = 1e9;
    for (int i = 0; i < 5; i++) {
        double start = seconds(CLOCK_MONOTONIC), cpu_start = seconds(CLOCK_PROCESS_CPUTIME_ID);
        model(b, dtype);
        best = fmin(best, seconds(CLOCK_MONOTONIC) - start);
        cpu = fmin(cpu, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_start);
    }
    printf("%-5s %6.0f MB  %4lld tokens  %7.1f ms  %6.2f GB/s  %7.2f tokens/s  CPU %7.1f ms\n",
           qgc_dtypes[dtype].name, (double)bytes / 1e6, (long long)b->tokens, best * 1e3,
           (double)bytes / best / 1e9, (double)b->tokens / best, cpu * 1e3);
    qgc_arena_drop(arena);
}

int main(int argc, char **argv) {
    qgc_arena *arena = qgc_arena_new();
    bench b = {.pool = qgc_pool_new(0), .tokens = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 1};
    b.x = qgc_arena_array(arena, (size_t)b.tokens * FF, sizeof *b.x);
    b.y = qgc_arena_array(arena, (size_t)b.tokens * FF + VOCAB, sizeof *b.y);
    for (int64_t i = 0; i < b.tokens * FF; i++)
        b.x[i] = 1.0f / (float)(1 + i % 17);
    for (int t = 0; t < QGC_N_DTYPES; t++) {
        bool wanted = argc <= 2 && t != QGC_I32;
        for (int i = 2; i < argc; i++)
            wanted = wanted || strcmp(argv[i], qgc_dtypes[t].name) == 0;
        if (wanted)
            measure(&b, (qgc_dtype)t);
    }
    qgc_pool_drop(b.pool);
    qgc_arena_drop(arena);
}
