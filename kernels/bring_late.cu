/* to = from, late, for the check of kernels from outside (runtime/engine/proof_device.c): the next launch may start at once, and what
 * it has to wait for is not there for some hundred microseconds.
 *
 * Grid: one block; bound by sleeping. */
#include "common.cuh"

#ifndef THREADS
#define THREADS 1024
#endif

extern "C" __global__ void __launch_bounds__(THREADS) bring_late(const u32 *from, u32 *to, i32 words) {
    let_next_start();
    for (int i = 0; i < 300; i++)
        __nanosleep(1000);
    for (int i = threadIdx.x; i < words; i += THREADS)
        to[i] = from[i];
}
