/* Rotary position embedding in the NEOX style: elements i and i + HEAD_DIM / 2 of a head form a pair, which is
 * turned by the angle of the token's position.
 *
 * Grid: x covers the pairs of all heads of a token, y = tokens; bound by launch. */
#include "common.cuh"

#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef HEADS
#define HEADS 14
#endif

extern "C" __global__ void rope(const float *x, const i32 *positions, const float2 *table, float *out) {
    let_next_start();
    wait_for_previous();
    const int HALF = HEAD_DIM / 2;
    int pair = blockIdx.x * blockDim.x + threadIdx.x;
    if (pair >= HEADS * HALF)
        return;
    int head = pair / HALF, i = pair % HALF;
    float2 turn = table[(size_t)positions[blockIdx.y] * HALF + i];
    size_t at = ((size_t)blockIdx.y * HEADS + head) * HEAD_DIM + i;
    float a = x[at], b = x[at + HALF];
    out[at] = a * turn.x - b * turn.y;
    out[at + HALF] = b * turn.x + a * turn.y;
}
