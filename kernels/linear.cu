/* out[t, :] = weight * x[t, :] + bias, a matrix times a vector for each token; weight is [OUT, IN], row-major.
 *
 * Grid: x = OUT / (rows of a block), y = tokens. SPLIT warps share a row: each sums every SPLIT-th load of
 * 16 bytes, and the sums are added in the order of the warps. A warp works on ROWS rows at once, so that
 * ROWS loads are in flight at each turn. Reads IN * OUT weights a token and is bound by that. */
#include "common.cuh"

#ifndef IN
#define IN 896
#endif
#ifndef OUT
#define OUT 896
#endif
#ifndef WEIGHT
#define WEIGHT BF16
#endif
#ifndef BIAS
#define BIAS 0
#endif
#ifndef ROWS
#define ROWS 1
#endif
#ifndef SPLIT
#define SPLIT 1
#endif
#ifndef THREADS
#define THREADS 256
#endif

typedef stored<WEIGHT> weights;

extern "C" __global__ void __launch_bounds__(THREADS)
    linear(const float *x, const weights::elem *weight, const float *bias, float *out) {
    const int GROUPS = THREADS / 32 / SPLIT; /* of SPLIT warps, each with ROWS rows */
    const int PER_LOAD = weights::PER_LOAD;
    int lane = threadIdx.x % 32, group = threadIdx.x / 32 / SPLIT, part = threadIdx.x / 32 % SPLIT;
    int row = (blockIdx.x * GROUPS + group) * ROWS;
    x += (size_t)blockIdx.y * IN;
    out += (size_t)blockIdx.y * OUT;

    float sum[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        sum[r] = 0.0f;

#if IN % 8 == 0
#pragma unroll 4
    for (int at = (part * 32 + lane) * PER_LOAD; at < IN; at += 32 * SPLIT * PER_LOAD) {
        float v[PER_LOAD];
#pragma unroll
        for (int i = 0; i < PER_LOAD; i += 4)
            *(float4 *)(v + i) = *(const float4 *)(x + at + i);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            /* Rows past the end are read at the last row, and their sums are dropped. */
            size_t from = (size_t)min(row + r, OUT - 1) * IN + at;
            float w[PER_LOAD];
            weights::widen_load(*(const uint4 *)(weight + from), w);
#pragma unroll
            for (int i = 0; i < PER_LOAD; i++)
                sum[r] = fmaf(w[i], v[i], sum[r]);
        }
    }
#else /* rows do not start at multiples of 16 bytes */
    for (int at = part * 32 + lane; at < IN; at += 32 * SPLIT)
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[r] = fmaf(weights::widen(weight[(size_t)min(row + r, OUT - 1) * IN + at]), x[at], sum[r]);
#endif

#pragma unroll
    for (int r = 0; r < ROWS; r++)
        sum[r] = warp_sum(sum[r]);

#if SPLIT > 1
    __shared__ float partial[GROUPS][SPLIT][ROWS];
    if (lane == 0)
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            partial[group][part][r] = sum[r];
    __syncthreads();
    if (part != 0)
        return;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        sum[r] = 0.0f;
#pragma unroll
        for (int p = 0; p < SPLIT; p++)
            sum[r] += partial[group][p][r];
    }
#endif
    if (lane == 0)
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (row + r < OUT)
                out[row + r] = sum[r] + (BIAS ? bias[row + r] : 0.0f);
}
