/* What linear_heads.cu does, with an RMSNorm of each head between product and rope where a matrix asks for it. SLICES
 * blocks share the rows of a head, and a warp takes some pairs of them, such as i and i + HEAD_DIM / 2 (turn.cuh). Their squares meet in the
 * only block, or in the last of several to come, for which the others leave their sums.
 *
 * Grid: x = heads of all matrices * SLICES, y = tokens. Reads all weights once and is bound by that. */
#include "heads.cuh"
#include "last.cuh"

#ifndef SLICES /* of a head; a power of two, of which half a head is a multiple */
#define SLICES 1
#endif

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

#if SLICES > 1
#define SLICES_PARAMETERS , float *sums, u32 *counts
#else
#define SLICES_PARAMETERS
#endif

enum { HALF = HEAD_DIM / 2, OF_BLOCK = HALF / SLICES, PAIRS = (OF_BLOCK + WARPS - 1) / WARPS /* of a warp */ };

/* Pair r of a warp is number warp * PAIRS + r of its block's part of a head; what is past the end repeats the last one, and is dropped. */
__device__ __forceinline__ int place_of(int r) { return (int)threadIdx.x / 32 * PAIRS + r; }
__device__ __forceinline__ int pair_of(int r) { return blockIdx.x % SLICES * OF_BLOCK + min(place_of(r), OF_BLOCK - 1); }
__device__ __forceinline__ int element_of(int r, int which) { return pairs::element(pair_of(r), which); }

template <int Out, int Norm, int Rope, int Cache>
__device__ __forceinline__ void finish_head(const matrix &m, const float *weight, int head, float (&sum)[2 * PAIRS],
                                            size_t token, i32 position, i32 ctx, const float2 *table) {
    const int lane = threadIdx.x % 32, first = head * HEAD_DIM;
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
            if (lane == 0 && place_of(r) < OF_BLOCK)
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
        if (lane == r % 32 && place_of(r) < OF_BLOCK)
            put_pair<Out, Rope, Cache>(m, {first + element_of(r, 0), first + element_of(r, 1), pair_of(r)}, sum[2 * r],
                                       sum[2 * r + 1], token, position, ctx, table);
}

#if SLICES > 1
/* What the blocks of a head have left, by the last of them: a thread has a pair. */
template <int Out, int Rope, int Cache>
__device__ __forceinline__ void finish_sums(const matrix &m, const float *weight, int head, const float *sums, size_t token,
                                            i32 position, i32 ctx, const float2 *table) {
    const int pair = min((int)threadIdx.x, HALF - 1), i = pairs::element(pair, 0), j = pairs::element(pair, 1);
    float a = sums[i], b = sums[j];
    const bool mine = threadIdx.x < HALF;
    const float scale = 1.0f / sqrtf(block_sum<WARPS>(mine ? a * a + b * b : 0.0f) / HEAD_DIM + HEAD_EPS);
    a *= scale * weight[i];
    b *= scale * weight[j];
    if (mine)
        put_pair<Out, Rope, Cache>(m, {head * HEAD_DIM + i, head * HEAD_DIM + j, pair}, a, b, token, position, ctx, table);
}
#endif

/* The rows of a block: finished, or left for the last block of their head. */
template <int Out, int Norm, int Rope, int Cache>
__device__ __forceinline__ void finish(const matrix &m, const float *weight, int head, float (&sum)[2 * PAIRS], size_t token,
                                       i32 position, i32 ctx, const float2 *table SLICES_PARAMETERS) {
#if SLICES > 1
    if constexpr (Norm != 0) {
#pragma unroll
        for (int r = 0; r < 2 * PAIRS; r++) {
            const int i = element_of(r / 2, r % 2);
            if (threadIdx.x % 32 == r % 32 && place_of(r / 2) < OF_BLOCK)
                sums[i] = sum[r] + (BIAS ? m.bias[head * HEAD_DIM + i] : 0.0f);
        }
        if (last_to_come(counts, SLICES))
            finish_sums<Out, Rope, Cache>(m, weight, head, sums, token, position, ctx, table);
        return;
    }
#endif
    finish_head<Out, Norm, Rope, Cache>(m, weight, head, sum, token, position, ctx, table);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_head_norm(float *x, const float *norm, const stored<WEIGHT0>::elem *w0, const stored<WEIGHT1>::elem *w1,
                     const stored<WEIGHT2>::elem *w2, const stored<WEIGHT3>::elem *w3, const float *b0, const float *b1, const float *b2, const float *b3,
                     const float *n0, const float *n1, const float *n2, const float *n3, const i32 *positions,
                     const float2 *table, void *out0, void *out1, void *out2, void *out3, i32 ctx EMBED_PARAMETERS
                     SLICES_PARAMETERS) {
    constexpr int outs[] = {OUT0, OUT1, OUT2, OUT3};
    const matrix matrices[4] = {{w0, b0, out0}, {w1, b1, out1}, {w2, b2, out2}, {w3, b3, out3}};
    int head = blockIdx.x / SLICES, which = 0;
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
#if SLICES > 1
    const size_t of_all = token * (gridDim.x / SLICES) + blockIdx.x / SLICES;
    sums += of_all * HEAD_DIM;
    counts += of_all;
#define SLICES_ARGUMENTS , sums, counts
#else
#define SLICES_ARGUMENTS
#endif
    if (which == 0)
        finish<OUT0, NORM0, ROPE0, CACHE0>(m, n0, head, sum, token, position, ctx, table SLICES_ARGUMENTS);
    else if (which == 1)
        finish<OUT1, NORM1, ROPE1, CACHE1>(m, n1, head, sum, token, position, ctx, table SLICES_ARGUMENTS);
    else if (which == 2)
        finish<OUT2, NORM2, ROPE2, CACHE2>(m, n2, head, sum, token, position, ctx, table SLICES_ARGUMENTS);
    else
        finish<OUT3, NORM3, ROPE3, CACHE3>(m, n3, head, sum, token, position, ctx, table SLICES_ARGUMENTS);
}
