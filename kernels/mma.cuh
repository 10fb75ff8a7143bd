/* Products of small matrices on the tensor cores (PTX ISA, mma.sync m16n8k16), and float32 operands in two parts: x is
 * high + low, each in the narrow type, which keeps 16 bits of it (bf16) or 22 (f16). */
#pragma once
#include "shared.cuh"

/* Two floats in the type's narrow form; the first in the low half. */
template <int TYPE> __device__ __forceinline__ u32 narrow_two(float a, float b) {
    u32 two;
    if (TYPE == BF16)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(two) : "f"(b), "f"(a));
    else
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(two) : "f"(b), "f"(a));
    return two;
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
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                     "{%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                     "{%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* Four 8 x 8 matrices of 16-bit elements, transposed; lane i gives the address of row i % 8 of matrix i / 8. */
__device__ __forceinline__ uint4 load_transposed(u32 address) {
    uint4 v;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(address)
                 : "memory");
    return v;
}

/* The same, as they lie there. */
__device__ __forceinline__ uint4 load_matrices(u32 address) {
    uint4 v;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(address)
                 : "memory");
    return v;
}
