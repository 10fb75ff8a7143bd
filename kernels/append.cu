/* cache[h, positions[t], :] = x[t, h, :], rounded to the cache's type.
 *
 * Grid: x covers KV_HEADS * HEAD_DIM, y = tokens; bound by launch. */
#include "kept.cuh"

#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef KV_HEADS
#define KV_HEADS 2
#endif
#ifndef STATE
#define STATE F16
#endif

extern "C" __global__ void append(stored<STATE>::elem *cache, const float *x, const i32 *positions, i32 ctx) {
    let_next_start();
    wait_for_previous();
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= KV_HEADS * HEAD_DIM)
        return;
    int head = at / HEAD_DIM, i = at % HEAD_DIM;
    size_t row = (size_t)head * kept_rows(ctx) + kept_row(positions[blockIdx.y], ctx);
    cache[row * HEAD_DIM + i] = stored<STATE>::narrow(x[(size_t)blockIdx.y * KV_HEADS * HEAD_DIM + at]);
}
