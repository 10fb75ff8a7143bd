/* What kernels of products do with the rows of heads: rotary position embedding (turn.cuh), and the result stored, or
 * put into a cache at the token's position (see append.cu). */
#pragma once
#include "kept.cuh"
#include "rows.cuh"
#include "turn.cuh"

#ifndef MATRICES
#define MATRICES 1
#endif
#ifndef BIAS
#define BIAS 0
#endif
#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef ROPE_FIRST /* which elements of a head turn */
#define ROPE_FIRST 0
#define ROPE_DIM HEAD_DIM
#define ROPE_INTERLEAVED 0
#endif
/* For each matrix: its rows (0: there is none); 1 if they are rotated; 1 + the type of the cache that they go into, or 0
 * if they are stored as they are. */
#ifndef OUT0
#define OUT0 896
#define ROPE0 0
#define CACHE0 0
#endif
#ifndef OUT1
#define OUT1 0
#define ROPE1 0
#define CACHE1 0
#endif
#ifndef OUT2
#define OUT2 0
#define ROPE2 0
#define CACHE2 0
#endif
#ifndef OUT3
#define OUT3 0
#define ROPE3 0
#define CACHE3 0
#endif

typedef pairing<HEAD_DIM, ROPE_FIRST, ROPE_DIM, ROPE_INTERLEAVED> pairs;

struct matrix {
    const void *weight;
    const float *bias;
    void *out;
};

/* Element `row` of what a matrix makes for a token. */
template <int Out, int Cache>
__device__ __forceinline__ void store(void *out, int row, float value, size_t token, i32 position, i32 ctx) {
    if constexpr (Cache == 0) {
        ((float *)out)[token * Out + row] = value;
    } else {
        typedef stored<Cache - 1> cached;
        size_t at = ((size_t)(row / HEAD_DIM) * kept_rows(ctx) + kept_row(position, ctx)) * HEAD_DIM + row % HEAD_DIM;
        ((typename cached::elem *)out)[at] = cached::narrow(value);
    }
}

/* Two rows of a matrix. */
struct two_rows {
    int first, second, pair; /* of a matrix that is rotated, which pair of its head they are */
};

/* Rope, and where they go. */
template <int Out, int Rope, int Cache>
__device__ __forceinline__ void put_pair(const matrix &m, const two_rows &at, float a, float b, size_t token, i32 position,
                                         i32 ctx, const float2 *table) {
    float2 v = make_float2(a, b);
    if (Rope && pairs::turns(at.pair))
        v = turned(a, b, table[(size_t)position * pairs::TURNED + at.pair]);
    store<Out, Cache>(m.out, at.first, v.x, token, position, ctx);
    store<Out, Cache>(m.out, at.second, v.y, token, position, ctx);
}
