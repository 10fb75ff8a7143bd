/* x / sqrt(mean(x^2) + EPS) * weight in bf16, as operand B of packed_gemm.cu: rms_norm.cu and to_operand.cu in one.
 *
 * Grid: x = rows. A block reads its row once and writes it once; bound by launch. */
#include "operand.cuh"

#ifndef EPS
#define EPS 1e-6f
#endif
#ifndef THREADS
#define THREADS 64
#endif

extern "C" __global__ void __launch_bounds__(THREADS) norm_operand(const float *x, const float *weight, u8 *out, i32 rows) {
    let_next_start();
    wait_for_previous();
    enum { PARTS = K / 16, MINE = (PARTS + THREADS - 1) / THREADS };
    float v[MINE][16], squares = 0.0f;
    const u32 row = blockIdx.x;
#pragma unroll
    for (int i = 0; i < MINE; i++) {
        const u32 part = i * THREADS + threadIdx.x;
        if (part >= PARTS)
            break;
        load_part(x + (size_t)row * K + part * 16, v[i]);
#pragma unroll
        for (int e = 0; e < 16; e++)
            squares = fmaf(v[i][e], v[i][e], squares);
    }
    const float scale = 1.0f / sqrtf(block_sum<THREADS / 32>(squares) / K + EPS);
#pragma unroll
    for (int i = 0; i < MINE; i++) {
        const u32 part = i * THREADS + threadIdx.x;
        if (part >= PARTS)
            break;
        float w[16];
        load_part(weight + part * 16, w);
#pragma unroll
        for (int e = 0; e < 16; e++)
            v[i][e] *= scale * w[e];
        put_part(v[i], out, row, part, (u32)rows);
    }
}
