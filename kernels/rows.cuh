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
#ifndef NORM /* 1: x / sqrt(mean(x^2) + EPS) * norm takes the place of x; 2: x - mean(x) does so first, as in layer_norm.cu */
#define NORM 0
#endif
#ifndef NORM_BIAS /* 1: and norm_bias is added */
#define NORM_BIAS 0
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

/* WEIGHT is the type of all matrices, or WEIGHT0 .. WEIGHT3 of each. */
#ifdef WEIGHT0
#define MIXED 1
#else
#define MIXED 0
#define WEIGHT0 WEIGHT
#define WEIGHT1 WEIGHT
#define WEIGHT2 WEIGHT
#define WEIGHT3 WEIGHT
#endif
typedef stored<WEIGHT0> weights; /* the first one's, and if it is not MIXED that of all */

enum { WARPS = THREADS / 32, GROUPS = WARPS / SPLIT };

struct vector {
    const float *x; /* in global memory, or x * norm in shared memory */
    float scale;    /* by which the dot products have to be multiplied */
};

/* Parameters that not all have, and what load_vector is given of them. */
#if NORM_BIAS
#define NORM_BIAS_PARAMETER , const float *norm_bias
#define NORM_BIAS_ARGUMENT , norm_bias
#else
#define NORM_BIAS_PARAMETER
#define NORM_BIAS_ARGUMENT
#endif
#if EMBED
typedef stored<EMBED - 1> embedded;
#define EMBED_PARAMETERS , const i32 *tokens, const embedded::elem *embeddings NORM_BIAS_PARAMETER
#define EMBED_ARGUMENTS , tokens, embeddings NORM_BIAS_ARGUMENT
#else
#define EMBED_PARAMETERS NORM_BIAS_PARAMETER
#define EMBED_ARGUMENTS NORM_BIAS_ARGUMENT
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
    float squares = 0.0f, sum = 0.0f;
#if EMBED
    const embedded::elem *embedding = embedded::row(embeddings, tokens[token], IN);
#endif
    for (int i = threadIdx.x; i < IN; i += THREADS) {
#if EMBED
        float v = embedded::element(embedding, i, IN);
        if (blockIdx.x == 0)
            x[i] = v;
#else
        float v = x[i];
#endif
        squares = fmaf(v, v, squares);
        sum += v;
        scaled[i] = NORM == 2 ? v : v * norm[i];
    }
#if NORM == 2 /* each thread goes over its own elements, until all have theirs */
    const float centre = block_sum<WARPS>(sum) / IN;
    squares = 0.0f;
    for (int i = threadIdx.x; i < IN; i += THREADS)
        squares = fmaf(scaled[i] - centre, scaled[i] - centre, squares);
    const float by = 1.0f / sqrtf(block_sum<WARPS>(squares) / IN + EPS);
    for (int i = threadIdx.x; i < IN; i += THREADS) {
        float y = (scaled[i] - centre) * by * norm[i];
#if NORM_BIAS
        y += norm_bias[i];
#endif
        scaled[i] = y;
    }
    __syncthreads();
    return {scaled, 1.0f};
#endif
    float mean = block_sum<WARPS>(squares) / IN; /* its barriers publish scaled[] */
    return {scaled, 1.0f / sqrtf(mean + EPS)};
#else
    return {x + token * IN, 1.0f};
#endif
}

/* The first loads of a lane's part of COUNT rows, in registers: on their way while the block still waits for x. */
template <int Count, typename Weights = weights> struct early_rows {
    enum {
        STEP = 32 * SPLIT * Weights::PER_LOAD,
        TURNS = (IN + STEP - 1) / STEP,
        ROOM = HELD / Count > 0 ? HELD / Count : 1,
        HERE = IN % 8 == 0 ? (TURNS < ROOM ? (int)TURNS : (int)ROOM) : 0,
    };
    typename Weights::loaded turn[HERE > 0 ? (int)HERE : 1][Count];

    static __device__ __forceinline__ int first() {
        return (threadIdx.x / 32 % SPLIT * 32 + threadIdx.x % 32) * Weights::PER_LOAD;
    }
    __device__ __forceinline__ void load(const typename Weights::elem *const *row) {
#pragma unroll
        for (int t = 0; t < HERE; t++)
            if ((t + 1) * STEP <= IN || first() + t * STEP < IN)
#pragma unroll
                for (int r = 0; r < Count; r++)
                    turn[t][r] = Weights::load(row[r], first() + t * STEP, IN);
    }
};

/* sum[r] += a load of row r times the vector from `at` on. */
template <int Count, typename Weights>
__device__ __forceinline__ void add_turn(const vector &v, const typename Weights::loaded (&loaded)[Count], int at,
                                         float *sum) {
    const int PER_LOAD = Weights::PER_LOAD;
    float x[PER_LOAD], total = 0.0f;
#pragma unroll
    for (int i = 0; i < PER_LOAD; i += 4)
        *(float4 *)(x + i) = *(const float4 *)(v.x + at + i);
#pragma unroll
    for (int i = 0; i < PER_LOAD; i++)
        total += x[i];
#pragma unroll
    for (int r = 0; r < Count; r++)
        sum[r] = Weights::add_dot(loaded[r], x, total, sum[r]);
}

/* sum[i] = what a lane has of the dot product of row[i] and the vector, before v.scale. Here: loads that are in registers. */
template <int Count, typename Weights, int Here>
__device__ __forceinline__ void lane_dots(const vector &v, const typename Weights::loaded (*early)[Count],
                                          const typename Weights::elem *const *row, float *sum) {
#pragma unroll
    for (int r = 0; r < Count; r++)
        sum[r] = 0.0f;
#if IN % 8 == 0
    typedef early_rows<Count, Weights> early_type;
    const int STEP = early_type::STEP, first = early_type::first();
#pragma unroll
    for (int t = 0; t < Here; t++)
        if ((t + 1) * STEP <= IN || first + t * STEP < IN)
            add_turn<Count, Weights>(v, early[t], first + t * STEP, sum);
#pragma unroll 4
    for (int at = first + Here * STEP; at < IN; at += STEP) {
        typename Weights::loaded loaded[Count];
#pragma unroll
        for (int r = 0; r < Count; r++)
            loaded[r] = Weights::load(row[r], at, IN);
        add_turn<Count, Weights>(v, loaded, at, sum);
    }
#else /* rows do not start at multiples of 16 bytes */
    int lane = threadIdx.x % 32, part = threadIdx.x / 32 % SPLIT;
    for (int at = part * 32 + lane; at < IN; at += 32 * SPLIT)
#pragma unroll
        for (int r = 0; r < Count; r++)
            sum[r] = fmaf(Weights::element(row[r], at, IN), v.x[at], sum[r]);
#endif
}

/* From what lanes have to the whole sums, in every lane of the warps with part = 0. All threads of the block have to call this. */
template <int Count> __device__ __forceinline__ void meet_dots(const vector &v, float *sum) {
#pragma unroll
    for (int r = 0; r < Count; r++)
        sum[r] = warp_sum(sum[r]);

#if SPLIT > 1 /* added in the order of the warps */
    int lane = threadIdx.x % 32, group = threadIdx.x / 32 / SPLIT, part = threadIdx.x / 32 % SPLIT;
    __shared__ float partial[GROUPS][SPLIT][Count];
    if (lane == 0)
#pragma unroll
        for (int r = 0; r < Count; r++)
            partial[group][part][r] = sum[r];
    __syncthreads();
#pragma unroll
    for (int r = 0; r < Count; r++) {
        sum[r] = 0.0f;
#pragma unroll
        for (int p = 0; p < SPLIT; p++)
            sum[r] += partial[group][p][r];
    }
#endif
#pragma unroll
    for (int r = 0; r < Count; r++)
        sum[r] *= v.scale;
}

/* sum[i] = the dot product of row[i] and the vector, in every lane of the warps with part = 0. All threads of the block
 * have to call this. */
template <int Count>
__device__ __forceinline__ void dot_rows(const vector &v, const early_rows<Count> &early,
                                         const weights::elem *const *row, float *sum) {
    lane_dots<Count, weights, early_rows<Count>::HERE>(v, early.turn, row, sum);
    meet_dots<Count>(v, sum);
}

/* What a lane has of the dot products of rows of one matrix among several of different types. */
template <int Count, typename Weights>
__device__ __forceinline__ void lane_dots_of(const vector &v, const void *matrix, const int *number, float *sum) {
    const typename Weights::elem *row[Count];
#pragma unroll
    for (int r = 0; r < Count; r++)
        row[r] = Weights::row((const typename Weights::elem *)matrix, number[r], IN);
    lane_dots<Count, Weights, 0>(v, nullptr, row, sum);
}

/* The same, of matrix `which`. */
template <int Count>
__device__ __forceinline__ void mixed_dots(const vector &v, int which, const void *matrix, const int *number, float *sum) {
    if (which == 0)
        lane_dots_of<Count, stored<WEIGHT0>>(v, matrix, number, sum);
    else if (which == 1)
        lane_dots_of<Count, stored<WEIGHT1>>(v, matrix, number, sum);
    else if (which == 2)
        lane_dots_of<Count, stored<WEIGHT2>>(v, matrix, number, sum);
    else
        lane_dots_of<Count, stored<WEIGHT3>>(v, matrix, number, sum);
}
