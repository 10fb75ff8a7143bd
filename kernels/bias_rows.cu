/* out[t, :] = bias: what a product of matrices is then added to.
 *
 * Grid: x covers D, y = tokens. */
#include "common.cuh"

#ifndef D
#define D 896
#endif

extern "C" __global__ void bias_rows(const float *bias, float *out) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < D)
        out[(size_t)blockIdx.y * D + i] = bias[i];
}
