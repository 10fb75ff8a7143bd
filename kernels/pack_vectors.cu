/* Norms and biases of one phase of the persistent kernel, one after the other; one that is not there is zeros.
 *
 * Grid: one block. Bound by launch. */
#include "common.cuh"

#ifndef N0 /* elements of each, 0: it ends there */
#define N0 896
#define N1 0
#define N2 0
#define N3 0
#define N4 0
#endif
#ifndef THERE /* bit i: vector i is there */
#define THERE 1
#endif

extern "C" __global__ void pack_vectors(const float *v0, const float *v1, const float *v2, const float *v3, const float *v4,
                                        float *to) {
    const float *const vectors[5] = {v0, v1, v2, v3, v4};
    constexpr int counts[5] = {N0, N1, N2, N3, N4};
#pragma unroll
    for (int v = 0; v < 5; v++) {
        for (int i = threadIdx.x; i < counts[v]; i += blockDim.x)
            to[i] = THERE >> v & 1 ? vectors[v][i] : 0.0f;
        to += counts[v];
    }
}
