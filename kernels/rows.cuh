/* The prologue and the core of every kernel that multiplies matrices by one vector a token: the vector, as it is,
 * normalized, or merged from the parts of an attention, and dot products of rows with it. A warp takes COUNT rows at once, so that COUNT loads are in flight at
 * each turn; SPLIT warps share rows, and each takes every SPLIT-th load of 16 bytes. */
#pragma once
#include "merge.cuh"

#ifndef IN
#define IN 896
#endif
#ifndef WEIGHT
#define WEIGHT BF16
#endif
#ifndef NORM /* 1: x / sqrt(mean(x^2) + EPS) * norm takes the place of x */
#define NORM 0
#endif
#ifndef EPS
#define EPS 1e-6f
#endif
#ifndef MERGE /* the parts of a split attention (merge.cuh) that x is put together of; 0: x is there */
#define MERGE 0
#define MERGE_HEADS 1
#endif
#ifndef SPLIT
#define SPLIT 1
#endif
#ifndef THREADS
#define THREADS 256
#endif

typedef stored<WEIGHT> weights;

enum { WARPS = THREADS / 32, GROUPS = WARPS / SPLIT };

struct vector {
    const float *x; /* in global memory, or x * norm in shared memory */
    float scale;    /* by which the dot products have to be multiplied */
};

/* The vector of a token. Each block normalizes or merges for itself: that costs less than a kernel before this one. */
__device__ __forceinline__ vector load_vector(const float *x, size_t token, const float *norm) {
#if MERGE
    __shared__ __align__(16) float whole[IN];
    __shared__ float share[MERGE_HEADS * MERGE];
    const int DIM = IN / MERGE_HEADS;
    x += token * MERGE * MERGE_HEADS * (DIM + 2);
    merge_shares<MERGE_HEADS, MERGE, DIM>(x, share, THREADS);
    __syncthreads();
    for (int i = threadIdx.x; i < IN; i += THREADS)
        whole[i] = merged<MERGE_HEADS, MERGE, DIM>(x, share, i);
    __syncthreads();
    return {whole, 1.0f};
#elif NORM
    x += token * IN;
    __shared__ __align__(16) float scaled[IN];
    float squares = 0.0f;
    for (int i = threadIdx.x; i < IN; i += THREADS) {
        float v = x[i];
        squares = fmaf(v, v, squares);
        scaled[i] = v * norm[i];
    }
    float mean = block_sum<WARPS>(squares) / IN; /* its barriers publish scaled[] */
    return {scaled, 1.0f / sqrtf(mean + EPS)};
#else
    return {x + token * IN, 1.0f};
#endif
}

/* sum[i] = the dot product of row[i] and the vector, in every lane of the warps with part = 0. All threads of the block
 * have to call this. */
template <int COUNT>
__device__ __forceinline__ void dot_rows(const vector &v, const weights::elem *const *row, float *sum) {
    const int PER_LOAD = weights::PER_LOAD;
    int lane = threadIdx.x % 32, group = threadIdx.x / 32 / SPLIT, part = threadIdx.x / 32 % SPLIT;
#pragma unroll
    for (int r = 0; r < COUNT; r++)
        sum[r] = 0.0f;

#if IN % 8 == 0
#pragma unroll 4
    for (int at = (part * 32 + lane) * PER_LOAD; at < IN; at += 32 * SPLIT * PER_LOAD) {
        float x[PER_LOAD];
        uint4 loaded[COUNT];
#pragma unroll
        for (int r = 0; r < COUNT; r++)
            loaded[r] = *(const uint4 *)(row[r] + at);
#pragma unroll
        for (int i = 0; i < PER_LOAD; i += 4)
            *(float4 *)(x + i) = *(const float4 *)(v.x + at + i);
#pragma unroll
        for (int r = 0; r < COUNT; r++) {
            float w[PER_LOAD];
            weights::widen_load(loaded[r], w);
#pragma unroll
            for (int i = 0; i < PER_LOAD; i++)
                sum[r] = fmaf(w[i], x[i], sum[r]);
        }
    }
#else /* rows do not start at multiples of 16 bytes */
    for (int at = part * 32 + lane; at < IN; at += 32 * SPLIT)
#pragma unroll
        for (int r = 0; r < COUNT; r++)
            sum[r] = fmaf(weights::widen(row[r][at]), v.x[at], sum[r]);
#endif

#pragma unroll
    for (int r = 0; r < COUNT; r++)
        sum[r] = warp_sum(sum[r]);

#if SPLIT > 1 /* added in the order of the warps */
    __shared__ float partial[GROUPS][SPLIT][COUNT];
    if (lane == 0)
#pragma unroll
        for (int r = 0; r < COUNT; r++)
            partial[group][part][r] = sum[r];
    __syncthreads();
#pragma unroll
    for (int r = 0; r < COUNT; r++) {
        sum[r] = 0.0f;
#pragma unroll
        for (int p = 0; p < SPLIT; p++)
            sum[r] += partial[group][p][r];
    }
#endif
#pragma unroll
    for (int r = 0; r < COUNT; r++)
        sum[r] *= v.scale;
}
