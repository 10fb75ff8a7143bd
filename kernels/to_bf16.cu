/* out[i] = bf16(x[i]), to nearest even: activations, or a weight that is not stored as bf16, on their way into
 * a product of matrices.
 *
 * Grid: x covers n / (4 elements, or the PER_LOAD of a block format). */
#include "common.cuh"

#ifndef FROM
#define FROM F32
#endif
#ifndef IN /* elements of a row; of a block format */
#define IN 896
#endif

extern "C" __global__ void to_bf16(const stored<FROM>::elem *x, u16 *out, i32 n) {
    typedef stored<FROM> from;
#if FROM > BF16
    const int PER_ROW = IN / from::PER_LOAD;
    const u32 load = blockIdx.x * blockDim.x + threadIdx.x;
    if (load >= n / from::PER_LOAD)
        return;
    float w[from::PER_LOAD];
    from::widen_load(from::load(from::row(x, load / PER_ROW, IN), load % PER_ROW * from::PER_LOAD, IN), w);
    u32 two[from::PER_LOAD / 2];
#pragma unroll
    for (int i = 0; i < from::PER_LOAD / 2; i++)
        two[i] = f32_bf16(w[2 * i]) | (u32)f32_bf16(w[2 * i + 1]) << 16;
    ((uint4 *)out)[load] = make_uint4(two[0], two[1], two[2], two[3]);
#else
    i32 first = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    for (i32 i = first; i < min(first + 4, n); i++)
        out[i] = f32_bf16(from::widen(x[i]));
#endif
}
