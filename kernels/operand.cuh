/* Activations in bf16 as operand B of packed_gemm.cu: for each 64 elements of a row, all tokens one after the other, 128 bytes each.
 *
 *   [K / 64][tokens, a multiple of 8][8 chunks of 16 bytes]
 *
 * In a chunk pair, elements 4t and 4t+1 of 16 come before 4t+2 and 4t+3, for t from 0 to 3: so the registers of operand A are what the
 * stream has. Chunk c of token t lies at c ^ t % 8: so 8 tokens are found in different banks of shared memory, and so
 * wgmma wants them. */
#pragma once
#include "common.cuh"

#ifndef K
#define K 896
#endif
#ifndef TWO /* 1: a row becomes two tokens, what bf16 holds of it and what that leaves out */
#define TWO 0
#endif

__device__ __forceinline__ void load_part(const float *x, float *v) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float4 four = *(const float4 *)(x + 4 * i);
        v[4 * i] = four.x, v[4 * i + 1] = four.y, v[4 * i + 2] = four.z, v[4 * i + 3] = four.w;
    }
}

/* Sixteen elements as two chunks. */
__device__ __forceinline__ void put_chunks(const float *v, u8 *to, int chunk, u32 token) {
    u32 two[8];
#pragma unroll
    for (int i = 0; i < 8; i++)
        two[i] = f32_bf16(v[2 * i]) | (u32)f32_bf16(v[2 * i + 1]) << 16;
    *(uint4 *)(to + (chunk ^ token % 8) * 16) = make_uint4(two[0], two[2], two[4], two[6]);
    *(uint4 *)(to + ((chunk + 1) ^ token % 8) * 16) = make_uint4(two[1], two[3], two[5], two[7]);
}

/* Two elements of a token, the first with an even number. */
__device__ __forceinline__ void put_two(u8 *out, u32 all, u32 token, u32 element, float a, float b) {
    const u32 pair = element % 16 / 2, chunk = element % 64 / 16 * 2 + pair % 2;
    *(u32 *)(out + ((size_t)(element / 64) * all + token) * 128 + (chunk ^ token % 8) * 16 + pair / 2 * 4) = two_bf16(a, b);
}

/* Elements 16 part .. 16 part + 15 of a row; v is changed. */
__device__ __forceinline__ void put_part(float *v, u8 *out, u32 row, u32 part, u32 rows) {
    const u32 all = (rows * (1 + TWO) + 7) / 8 * 8, token = row * (1 + TWO);
    u8 *to = out + ((size_t)(part / 4) * all + token) * 128;
    put_chunks(v, to, part % 4 * 2, token);
    if (!TWO)
        return;
#pragma unroll
    for (int i = 0; i < 16; i++)
        v[i] -= bf16_f32(f32_bf16(v[i]));
    put_chunks(v, to + 128, part % 4 * 2, token + 1);
}
