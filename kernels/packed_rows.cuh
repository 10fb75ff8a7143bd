/* Rows of a phase of the persistent kernel as a product of matrices has them: where a row lies in the stream, and what becomes of its
 * results. Rows are counted as the phase counts them (pack.cuh); where rows of two matrices are interleaved and meet in an EXPRESSION,
 * a unit is one row of each, else a unit is one row. */
#pragma once
#define OWNER owner
#include "pack.cuh"
#include "pointwise.cuh"

#ifndef K
#define K 896
#endif
#ifndef FUSED /* 1: a unit's result is EXPRESSION of its products l0 (and l1) and of a0, a value from outside */
#define FUSED 0
#define EXPRESSION l0
#endif
#ifndef OUTSIDE /* 1: there is a0 */
#define OUTSIDE 0
#endif
#ifndef BIASES /* bit i: matrix i has one */
#define BIASES 0
#endif
#ifndef SPLIT /* blocks that share the elements of a row; more than one leave parts for packed_sum.cu */
#define SPLIT 1
#endif
#ifndef TWO /* 1: tokens come in pairs, whose results are added up (operand.cuh) */
#define TWO 0
#endif

enum {
    ROWS = OUT0 + OUT1 + OUT2 + OUT3,
    IN_UNIT = FUSED && INTERLEAVED == 2 ? 2 : 1, /* rows */
    UNITS = ROWS / IN_UNIT,
    MOST_OWNERS = 1024, /* QGC_MOST_BLOCKS; those that are not there begin after the last row */
    TILE = 8,
};

struct results {
    const float *bias[4], *outside;
    float *out[4];
};

/* The results of one unit for a row of activations: its products. */
__device__ __forceinline__ void finish(const results &r, int unit, size_t token, float l0, float l1) {
#if FUSED
    if (BIASES & 1)
        l0 += r.bias[0][unit];
    if (BIASES & 2)
        l1 += r.bias[1][unit];
    const float a0 = OUTSIDE ? r.outside[token * UNITS + unit] : 0.0f;
    r.out[0][token * UNITS + unit] = EXPRESSION;
#else
    const matrix_row m = find_row(unit);
    constexpr int outs[4] = {OUT0, OUT1, OUT2, OUT3};
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (outs[i] > 0 && m.which == i)
            r.out[i][token * outs[i] + m.number] = l0 + (BIASES >> i & 1 ? r.bias[i][m.number] : 0.0f);
#endif
}

/* Whose row `row` is, the same for all lanes: by 32 owners at a time. */
__device__ __forceinline__ int owner_of(const i32 *shares, int row) {
    const int lane = threadIdx.x % 32;
    const int group = __popc(__ballot_sync(0xFFFFFFFFu, shares[((size_t)lane * 32 * SHARES + SHARE) * 2] <= row)) - 1;
    return group * 32 +
           __popc(__ballot_sync(0xFFFFFFFFu, shares[((size_t)(group * 32 + lane) * SHARES + SHARE) * 2] <= row)) - 1;
}

/* The same from `owner` on, whose row is not many owners before. */
__device__ __forceinline__ int owner_from(const i32 *shares, int owner, int row) {
    while (owner + 1 < MOST_OWNERS && shares[((size_t)(owner + 1) * SHARES + SHARE) * 2] <= row)
        owner++;
    return owner;
}
