/* Rotary position embedding: pairs of elements of a head are turned by the angle of the token's position (turn.cuh).
 *
 * Grid: x covers the pairs of all heads of a token, y = tokens; bound by launch. */
#include "common.cuh"
#include "turn.cuh"

#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef HEADS
#define HEADS 14
#endif
#ifndef ROPE_FIRST
#define ROPE_FIRST 0
#define ROPE_DIM HEAD_DIM
#define ROPE_INTERLEAVED 0
#endif

typedef pairing<HEAD_DIM, ROPE_FIRST, ROPE_DIM, ROPE_INTERLEAVED> pairs;

extern "C" __global__ void rope(const float *x, const i32 *positions, const float2 *table, float *out) {
    let_next_start();
    wait_for_previous();
    const int HALF = HEAD_DIM / 2;
    int number = blockIdx.x * blockDim.x + threadIdx.x;
    if (number >= HEADS * HALF)
        return;
    const int head = number / HALF, pair = number % HALF;
    const size_t row = ((size_t)blockIdx.y * HEADS + head) * HEAD_DIM;
    const size_t first = row + pairs::element(pair, 0), second = row + pairs::element(pair, 1);
    float2 v = make_float2(x[first], x[second]);
    if (pairs::turns(pair))
        v = turned(v.x, v.y, table[(size_t)positions[blockIdx.y] * pairs::TURNED + pair]);
    out[first] = v.x;
    out[second] = v.y;
}
