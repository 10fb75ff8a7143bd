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
#ifndef EMBED /* 1 + the type of a table whose row for the token is x, which is then left in x; 0: x is there. With NORM. */
#define EMBED 0
#endif
#ifndef SPLIT
#define SPLIT 1
#endif
#ifndef THREADS
#define THREADS 256
#endif
#ifndef HELD /* loads of 16 bytes that a thread keeps in registers until x is there */
#define HELD 4
#endif

typedef stored<WEIGHT> weights;

enum { WARPS = THREADS / 32, GROUPS = WARPS / SPLIT };

struct vector {
    const float *x; /* in global memory, or x * norm in shared memory */
    float scale;    /* by which the dot products have to be multiplied */
};

#if EMBED
typedef stored<EMBED - 1> embedded;
#define EMBED_PARAMETERS , const i32 *tokens, const embedded::elem *embeddings
#define EMBED_ARGUMENTS , tokens, embeddings
#else
#define EMBED_PARAMETERS
#define EMBED_ARGUMENTS
#endif

/* The vector of a token. Each block normalizes or merges for itself: that costs less than a kernel before this one. Each
 * looks the embedding up for itself too; the first leaves it for later kernels, and no block of this one reads that. */
__device__ __forceinline__ vector load_vector(float *x, size_t token, const float *norm EMBED_PARAMETERS) {
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
#if EMBED
    const embedded::elem *embedding = embeddings + (size_t)tokens[token] * IN;
#endif
    for (int i = threadIdx.x; i < IN; i += THREADS) {
#if EMBED
        float v = embedded::widen(embedding[i]);
        if (blockIdx.x == 0)
            x[i] = v;
#else
        float v = x[i];
#endif
        squares = fmaf(v, v, squares);
        scaled[i] = v * norm[i];
    }
    float mean = block_sum<WARPS>(squares) / IN; /* its barriers publish scaled[] */
    return {scaled, 1.0f / sqrtf(mean + EPS)};
#else
    return {x + token * IN, 1.0f};
#endif
}

/* The first loads of a lane's part of COUNT rows, in registers: on their way while the block still waits for x. */
template <int Count> struct early_rows {
    enum {
        STEP = 32 * SPLIT * weights::PER_LOAD,
        TURNS = (IN + STEP - 1) / STEP,
        ROOM = HELD / Count > 0 ? HELD / Count : 1,
        HERE = IN % 8 == 0 ? (TURNS < ROOM ? (int)TURNS : (int)ROOM) : 0,
    };
    uint4 turn[HERE > 0 ? (int)HERE : 1][Count];

    static __device__ __forceinline__ int first() {
        return (threadIdx.x / 32 % SPLIT * 32 + threadIdx.x % 32) * weights::PER_LOAD;
    }
    __device__ __forceinline__ void load(const weights::elem *const *row) {
#pragma unroll
        for (int t = 0; t < HERE; t++)
            if ((t + 1) * STEP <= IN || first() + t * STEP < IN)
#pragma unroll
                for (int r = 0; r < Count; r++)
                    turn[t][r] = *(const uint4 *)(row[r] + first() + t * STEP);
    }
};

/* sum[r] += a load of row r times the vector from `at` on. */
template <int Count>
__device__ __forceinline__ void add_turn(const vector &v, const uint4 (&loaded)[Count], int at, float *sum) {
    const int PER_LOAD = weights::PER_LOAD;
    float x[PER_LOAD];
#pragma unroll
    for (int i = 0; i < PER_LOAD; i += 4)
        *(float4 *)(x + i) = *(const float4 *)(v.x + at + i);
#pragma unroll
    for (int r = 0; r < Count; r++) {
        float w[PER_LOAD];
        weights::widen_load(loaded[r], w);
#pragma unroll
        for (int i = 0; i < PER_LOAD; i++)
            sum[r] = fmaf(w[i], x[i], sum[r]);
    }
}

/* sum[i] = the dot product of row[i] and the vector, in every lane of the warps with part = 0. All threads of the block
 * have to call this. */
template <int COUNT>
__device__ __forceinline__ void dot_rows(const vector &v, const early_rows<COUNT> &early,
                                         const weights::elem *const *row, float *sum) {
    int lane = threadIdx.x % 32, group = threadIdx.x / 32 / SPLIT, part = threadIdx.x / 32 % SPLIT;
#pragma unroll
    for (int r = 0; r < COUNT; r++)
        sum[r] = 0.0f;

#if IN % 8 == 0
    typedef early_rows<COUNT> early_type;
    const int STEP = early_type::STEP, HERE = early_type::HERE, first = early_type::first();
#pragma unroll
    for (int t = 0; t < HERE; t++)
        if ((t + 1) * STEP <= IN || first + t * STEP < IN)
            add_turn<COUNT>(v, early.turn[t], first + t * STEP, sum);
#pragma unroll 4
    for (int at = first + HERE * STEP; at < IN; at += STEP) {
        uint4 loaded[COUNT];
#pragma unroll
        for (int r = 0; r < COUNT; r++)
            loaded[r] = *(const uint4 *)(row[r] + at);
        add_turn<COUNT>(v, loaded, at, sum);
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
