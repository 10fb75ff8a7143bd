/* What the parts of a split attention come to: for each head the parts' sums, each weighted by
 * exp(its largest score - the largest of all), over the total of the weights (arxiv.org/abs/2311.01282). */
#pragma once
#include "common.cuh"

/* Template parameters are not in capitals: those are macros of the kernels that include this.
 *
 * share[head * Parts + part]: by what the sums of a part count. For all threads of a block; a barrier has to follow. Every
 * thread looks at its head's parts in shared memory, as each of many small blocks does this and no thread has time to do
 * it for all of a head. */
template <int Heads, int Parts, int HeadDim>
__device__ __forceinline__ void merge_shares(const float *parts, float *share, int threads) {
    __shared__ float2 weights[Heads * Parts]; /* largest score, total of weights */
    for (int i = threadIdx.x; i < Heads * Parts; i += threads)
        weights[i] = *(const float2 *)(parts + ((size_t)(i % Parts) * Heads + i / Parts) * (HeadDim + 2) + HeadDim);
    __syncthreads();
    for (int i = threadIdx.x; i < Heads * Parts; i += threads) {
        const float2 *of = weights + i / Parts * Parts;
        float most = -INF, total = 0.0f;
#pragma unroll
        for (int p = 0; p < Parts; p++)
            most = fmaxf(most, of[p].x);
#pragma unroll
        for (int p = 0; p < Parts; p++)
            total += expf(of[p].x - most) * of[p].y; /* 0 for an empty part */
        share[i] = expf(weights[i].x - most) / total;
    }
}

/* Element `i` of the merged row of all heads. */
template <int Heads, int Parts, int HeadDim>
__device__ __forceinline__ float merged(const float *parts, const float *share, int i) {
    int head = i / HeadDim;
    float sum = 0.0f;
#pragma unroll
    for (int p = 0; p < Parts; p++) {
        float by = share[head * Parts + p];
        if (by != 0.0f)
            sum = fmaf(by, parts[((size_t)p * Heads + head) * (HeadDim + 2) + i % HeadDim], sum);
    }
    return sum;
}
