/* table[p, i] = (cos, sin) of p * BASE^(-2i / HEAD_DIM), computed in double and rounded once
 * (arxiv.org/abs/2104.09864); HEAD_DIM elements of a head turn. Runs once when a session starts.
 *
 * Grid: x covers ctx * HEAD_DIM / 2. */
#include "common.cuh"

#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef BASE
#define BASE 1000000.0
#endif

extern "C" __global__ void rope_table(float2 *table, i32 ctx) {
    const int HALF = HEAD_DIM / 2;
    i32 at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= ctx * HALF)
        return;
    double angle = (at / HALF) * pow(BASE, -2.0 * (at % HALF) / HEAD_DIM);
    table[at] = make_float2((float)cos(angle), (float)sin(angle));
}
