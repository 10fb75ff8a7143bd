/* Products of small matrices on the tensor cores (PTX ISA, mma.sync m16n8k16), and float32 operands in two parts: x is
 * high + low, each in the narrow type, which keeps 16 bits of it (bf16) or 22 (f16). */
#pragma once
#include "common.cuh"

/* Two floats in the type's narrow form; the first in the low half. */
template <int TYPE> __device__ __forceinline__ u32 narrow_two(float a, float b) {
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

/* d += a * b */
template <int TYPE>
__device__ __forceinline__ void mma(float *d, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    if (TYPE == BF16)
        mma_bf16(d, a0, a1, a2, a3, b0, b1);
    else
        mma_f16(d, a0, a1, a2, a3, b0, b1);
}
