/* What kernels of products do with the rows of heads: rotary position embedding (NEOX style, see rope.cu), and the result stored, or
 * put into a cache at the token's position (see append.cu). */
#pragma once
#include "rows.cuh"

#ifndef MATRICES
#define MATRICES 1
#endif
#ifndef BIAS
#define BIAS 0
#endif
#ifndef HEAD_DIM
#define HEAD_DIM 64
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
        size_t at = ((size_t)(row / HEAD_DIM) * ctx + position) * HEAD_DIM + row % HEAD_DIM;
        ((typename cached::elem *)out)[at] = cached::narrow(value);
    }
}

/* Two rows that are rotated together, or neighbours: rope, and where they go. */
template <int Out, int Rope, int Cache>
__device__ __forceinline__ void put_pair(const matrix &m, int row, int other, float a, float b, size_t token,
                                         i32 position, i32 ctx, const float2 *table) {
    if (Rope) {
        float2 turn = table[(size_t)position * (HEAD_DIM / 2) + row % HEAD_DIM];
        float rotated = a * turn.x - b * turn.y;
        b = b * turn.x + a * turn.y;
        a = rotated;
    }
    store<Out, Cache>(m.out, row, a, token, position, ctx);
    store<Out, Cache>(m.out, other, b, token, position, ctx);
}
