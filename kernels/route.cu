/* The USED experts of EXPERTS with the largest scores of a token, and their weights (route.cuh).
 *
 * Grid: x = tokens; bound by launch. */
#include "route.cuh"

#ifndef BIAS
#define BIAS 0
#endif
#ifndef THREADS
#define THREADS 128
#endif

#if BIAS
#define BIAS_PARAMETER const float *bias,
#define BIAS_ARGUMENT bias
#else
#define BIAS_PARAMETER
#define BIAS_ARGUMENT nullptr
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
    route(const float *scores, BIAS_PARAMETER i32 *ids, float *weights) {
    let_next_start();
    wait_for_previous();
    const size_t token = blockIdx.x;
    route_token<THREADS, BIAS != 0>(scores + token * EXPERTS, BIAS_ARGUMENT, ids + token * USED, weights + token * USED);
}
