/* Puts the parts of a split attention together, see merge.cuh and attention.cu.
 *
 * Grid: x = tokens; bound by launch. */
#include "merge.cuh"

#ifndef HEADS
#define HEADS 14
#endif
#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef PARTS
#define PARTS 16
#endif

extern "C" __global__ void attention_merge(const float *parts, float *out) {
    let_next_start();
    wait_for_previous();
    __shared__ float share[HEADS * PARTS];
    parts += (size_t)blockIdx.x * PARTS * HEADS * (HEAD_DIM + 2);
    merge_shares<HEADS, PARTS, HEAD_DIM>(parts, share, blockDim.x);
    __syncthreads();
    for (int i = threadIdx.x; i < HEADS * HEAD_DIM; i += blockDim.x)
        out[(size_t)blockIdx.x * HEADS * HEAD_DIM + i] = merged<HEADS, PARTS, HEAD_DIM>(parts, share, i);
}
