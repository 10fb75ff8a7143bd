/* What linear_heads.cu does, with an RMSNorm of each head between product and rope where a matrix asks for it. A block has all
 * rows of a head, so that their squares meet in it: a warp takes some pairs of rows, such as i and i + HEAD_DIM / 2 (turn.cuh).
 *
 * Grid: x = heads of all matrices, y = tokens. Reads all weights once and is bound by that. */
#include "heads.cuh"

#ifndef HEAD_EPS
#define HEAD_EPS 1e-6f
#endif
#ifndef NORM0 /* 1: the heads of the matrix are normed */
#define NORM0 0
#endif
#ifndef NORM1
#define NORM1 0
#endif
#ifndef NORM2
#define NORM2 0
#endif
#ifndef NORM3
#define NORM3 0
#endif

enum { HALF = HEAD_DIM / 2, PAIRS = (HALF + WARPS - 1) / WARPS /* of a warp */ };

/* Pair r of a warp is number warp * PAIRS + r of its head; what is past the end repeats the last one, and is dropped. */
__device__ __forceinline__ int pair_of(int r) { return min((int)threadIdx.x / 32 * PAIRS + r, HALF - 1); }
__device__ __forceinline__ int element_of(int r, int which) { return pairs::element(pair_of(r), which); }

template <int Out, int Norm, int Rope, int Cache>
__device__ __forceinline__ void finish_head(const matrix &m, const float *weight, int head, float (&sum)[2 * PAIRS],
                                            size_t token, i32 position, i32 ctx, const float2 *table) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = head * HEAD_DIM;
    if (BIAS)
#pragma unroll
        for (int r = 0; r < PAIRS; r++) {
            sum[2 * r] += m.bias[first + element_of(r, 0)];
            sum[2 * r + 1] += m.bias[first + element_of(r, 1)];
        }
    if constexpr (Norm != 0) {
        float squares = 0.0f;
#pragma unroll
        for (int r = 0; r < PAIRS; r++)
            if (lane == 0 && warp * PAIRS + r < HALF)
                squares += sum[2 * r] * sum[2 * r] + sum[2 * r + 1] * sum[2 * r + 1];
        const float scale = 1.0f / sqrtf(block_sum<WARPS>(squares) / HEAD_DIM + HEAD_EPS);
#pragma unroll
        for (int r = 0; r < PAIRS; r++) {
            sum[2 * r] *= scale * weight[element_of(r, 0)];
            sum[2 * r + 1] *= scale * weight[element_of(r, 1)];
        }
    }
#pragma unroll
    for (int r = 0; r < PAIRS; r++)
        if (lane == r % 32 && warp * PAIRS + r < HALF)
            put_pair<Out, Rope, Cache>(m, {first + element_of(r, 0), first + element_of(r, 1), pair_of(r)}, sum[2 * r],
                                       sum[2 * r + 1], token, position, ctx, table);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_head_norm(float *x, const float *norm, const stored<WEIGHT0>::elem *w0, const stored<WEIGHT1>::elem *w1,
                     const stored<WEIGHT2>::elem *w2, const stored<WEIGHT3>::elem *w3, const float *b0, const float *b1, const float *b2, const float *b3,
                     const float *n0, const float *n1, const float *n2, const float *n3, const i32 *positions,
                     const float2 *table, void *out0, void *out1, void *out2, void *out3, i32 ctx EMBED_PARAMETERS) {
    constexpr int outs[] = {OUT0, OUT1, OUT2, OUT3};
    const matrix matrices[4] = {{w0, b0, out0}, {w1, b1, out1}, {w2, b2, out2}, {w3, b3, out3}};
    int head = blockIdx.x, which = 0;
    matrix m = matrices[0];
    size_t token = blockIdx.y;
#pragma unroll
    for (int i = 1; i < MATRICES; i++)
        if (which == i - 1 && head >= outs[i - 1] / HEAD_DIM) {
            head -= outs[i - 1] / HEAD_DIM;
            which = i;
            m = matrices[i];
        }
    float sum[2 * PAIRS];
    int number[2 * PAIRS];
#pragma unroll
    for (int r = 0; r < PAIRS; r++) {
        number[2 * r] = head * HEAD_DIM + element_of(r, 0);
        number[2 * r + 1] = head * HEAD_DIM + element_of(r, 1);
    }
#if !MIXED
    const weights::elem *rows[2 * PAIRS];
#pragma unroll
    for (int r = 0; r < 2 * PAIRS; r++)
        rows[r] = weights::row((const weights::elem *)m.weight, number[r], IN);
    early_rows<2 * PAIRS> early;
    early.load(rows);
#endif
    wait_for_previous();
    let_next_start();
    const vector v = load_vector(x, token, norm EMBED_ARGUMENTS);
#if MIXED
    mixed_dots<2 * PAIRS>(v, which, m.weight, number, sum);
    meet_dots<2 * PAIRS>(v, sum);
#else
    dot_rows<2 * PAIRS>(v, early, rows, sum);
#endif
    i32 position = positions[token];
    if (which == 0)
        finish_head<OUT0, NORM0, ROPE0, CACHE0>(m, n0, head, sum, token, position, ctx, table);
    else if (which == 1)
        finish_head<OUT1, NORM1, ROPE1, CACHE1>(m, n1, head, sum, token, position, ctx, table);
    else if (which == 2)
        finish_head<OUT2, NORM2, ROPE2, CACHE2>(m, n2, head, sum, token, position, ctx, table);
    else
        finish_head<OUT3, NORM3, ROPE3, CACHE3>(m, n3, head, sum, token, position, ctx, table);
}
