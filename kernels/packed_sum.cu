/* The parts that several blocks of packed_gemm.cu have of each product, added up in their order, and what becomes of the sums.
 *
 * Grid: x covers the units of the phase, y = rows of activations. */
#ifndef SPLIT
#define SPLIT 2
#endif
#define APPROXIMATE 1
#include "packed_rows.cuh"

extern "C" __global__ void packed_sum(const float *parts, const float *b0, const float *b1, const float *b2, const float *b3,
                                      const float *a0, float *o0, float *o1, float *o2, float *o3, i32 tokens) {
    let_next_start();
    wait_for_previous();
    const int unit = blockIdx.x * blockDim.x + threadIdx.x;
    const size_t token = blockIdx.y, step = (size_t)tokens * ROWS;
    if (unit >= UNITS)
        return;
    float l[2] = {};
    const float *from = parts + token * ROWS + (size_t)unit * IN_UNIT;
    for (int s = 0; s < SPLIT; s++)
        for (int i = 0; i < IN_UNIT; i++)
            l[i] += from[s * step + i];
    finish({{b0, b1, b2, b3}, a0, {o0, o1, o2, o3}}, unit, token, l[0], l[1]);
}
