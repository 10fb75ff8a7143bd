/* Products of small matrices on the tensor cores (PTX ISA, mma.sync m16n8k16), and float32 operands in two parts: x is
 * high + low, each in the narrow type, which keeps 16 bits of it (bf16) or 22 (f16). */
#pragma once
#include "common.cuh"

/* Do tensor cores multiply bf16, and is there an instruction that rounds to it? */
#if __CUDA_ARCH__ >= 800
#define HAS_BF16 1
#else
#define HAS_BF16 0
#endif

/* Two floats in the type's narrow form; the first in the low half. */
template <int TYPE> __device__ __forceinline__ u32 narrow_two(float a, float b) {
    if constexpr (TYPE == BF16 && HAS_BF16 == 0)
        return f32_bf16(a) | (u32)f32_bf16(b) << 16;
    return TYPE == BF16 ? two_bf16(a, b) : two_f16(a, b);
}

template <int TYPE> __device__ __forceinline__ float low_half(u32 two) {
    return TYPE == BF16 ? bf16_low(two) : f16_low(two);
}
template <int TYPE> __device__ __forceinline__ float high_half(u32 two) {
    return TYPE == BF16 ? bf16_high(two) : f16_high(two);
}

/* What narrow_two(a, b) leaves out, narrow. */
template <int TYPE> __device__ __forceinline__ u32 narrow_rest(float a, float b, u32 two) {
    return narrow_two<TYPE>(a - low_half<TYPE>(two), b - high_half<TYPE>(two));
}

/* d += a * b of bf16 without tensor cores, by the lanes: each computes its four numbers of d. Some 170 instructions: for attention, whose
 * products are few. */
__device__ __forceinline__ void mma_bf16_by_lanes(float *d, const u32 (&a)[4], u32 b0, u32 b1) {
    const int lane = (int)(threadIdx.x % 32);
#pragma unroll
    for (int k = 0; k < 4; k++) { /* elements 2k, 2k + 1, 2k + 8 and 2k + 9 of K */
        u32 row[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            row[i] = __shfl_sync(0xFFFFFFFFu, a[i], lane / 4 * 4 + k);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int from = (lane % 4 * 2 + j) * 4 + k;
            const u32 first = __shfl_sync(0xFFFFFFFFu, b0, from), second = __shfl_sync(0xFFFFFFFFu, b1, from);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float sum = d[2 * i + j];
                sum = fmaf(bf16_low(row[i]), bf16_low(first), sum);
                sum = fmaf(bf16_high(row[i]), bf16_high(first), sum);
                sum = fmaf(bf16_low(row[2 + i]), bf16_low(second), sum);
                d[2 * i + j] = fmaf(bf16_high(row[2 + i]), bf16_high(second), sum);
            }
        }
    }
}

/* d += a * b */
template <int TYPE>
__device__ __forceinline__ void mma(float *d, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    if constexpr (TYPE == BF16 && HAS_BF16 == 0)
        mma_bf16_by_lanes(d, {a0, a1, a2, a3}, b0, b1);
    else if (TYPE == BF16)
        mma_bf16(d, a0, a1, a2, a3, b0, b1);
    else
        mma_f16(d, a0, a1, a2, a3, b0, b1);
}
