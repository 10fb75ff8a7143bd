/* out[t, i] = the sum over k of weights[t, k] * y[t, k, i].
 *
 * Grid: x covers D, y = tokens; bound by launch. */
#include "common.cuh"

#ifndef D
#define D 896
#endif
#ifndef USED
#define USED 8
#endif

extern "C" __global__ void expert_sum(const float *y, const float *weights, float *out) {
    let_next_start();
    wait_for_previous();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const size_t token = blockIdx.y;
    if (i >= D)
        return;
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < USED; k++)
        sum = fmaf(weights[token * USED + k], y[(token * USED + k) * D + i], sum);
    out[token * D + i] = sum;
}
