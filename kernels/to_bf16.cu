/* out[i] = bf16(x[i]), to nearest even: activations, or a weight that is not stored as bf16, on their way into
 * a product of matrices.
 *
 * Grid: x covers n / 4. */
#include "common.cuh"

#ifndef FROM
#define FROM F32
#endif

extern "C" __global__ void to_bf16(const stored<FROM>::elem *x, u16 *out, i32 n) {
    i32 first = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    for (i32 i = first; i < min(first + 4, n); i++)
        out[i] = f32_bf16(stored<FROM>::widen(x[i]));
}
