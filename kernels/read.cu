/* How fast the card reads: goes over `n` loads of 16 bytes once. For qgc bench.
 *
 * Grid: as many blocks as run at once. The sum is left where nobody looks, so that the loads are not left out. */
#include "common.cuh"

#ifndef THREADS
#define THREADS 512
#endif

extern "C" __global__ void __launch_bounds__(THREADS) read(const uint4 *data, u64 n, u32 *sum) {
    const u64 stride = (u64)gridDim.x * THREADS;
    u32 all = 0;
#pragma unroll 8
    for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < n; i += stride) {
        uint4 v = data[i];
        all += (v.x ^ v.y) + (v.z ^ v.w);
    }
    if (all == 0x9E3779B9u)
        *sum = all;
}
