/* Blocks that leave what they have in global memory for the last of them to put together. Which one that is changes from
 * run to run, the order in which it adds does not. */
#pragma once
#include "common.cuh"

/* True in the last of `blocks` blocks that come here, which then sees what all of them wrote. `count` is 0 before and
 * after. For all threads of a block. */
__device__ __forceinline__ bool last_to_come(u32 *count, u32 blocks) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(count, 1u) == blocks - 1;
        if (last)
            *count = 0;
    }
    __syncthreads();
    __threadfence();
    return last;
}
