/* seen[tokens[t]] = 1, for the repetition penalty.
 *
 * Grid: x covers the n tokens; bound by launch. */
#include "common.cuh"

extern "C" __global__ void mark(i32 *seen, const i32 *tokens, i32 n) {
    let_next_start();
    wait_for_previous();
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t < n)
        seen[tokens[t]] = 1;
}
