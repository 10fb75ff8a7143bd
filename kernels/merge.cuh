/* What the parts of a split attention come to: for each head the parts' sums, each weighted by
 * exp(its largest score - the largest of all), over the total of the weights (arxiv.org/abs/2311.01282). */
#pragma once
#include "common.cuh"

/* Template parameters are not in capitals: those are macros of the kernels that include this.
 *
 * share[head * Parts + part]: by what the sums of a part count. For all threads of a block; a barrier has to follow. */
template <int Heads, int Parts, int HeadDim>
__device__ __forceinline__ void merge_shares(const float *parts, float *share, int threads) {
    for (int head = threadIdx.x; head < Heads; head += threads) {
        float largest[Parts], total = 0.0f, most = -INF;
#pragma unroll
        for (int p = 0; p < Parts; p++) {
            largest[p] = parts[((size_t)p * Heads + head) * (HeadDim + 2) + HeadDim];
            most = fmaxf(most, largest[p]);
        }
#pragma unroll
        for (int p = 0; p < Parts; p++) {
            largest[p] = expf(largest[p] - most); /* 0 for an empty part */
            total += largest[p] * parts[((size_t)p * Heads + head) * (HeadDim + 2) + HeadDim + 1];
        }
#pragma unroll
        for (int p = 0; p < Parts; p++)
            share[head * Parts + p] = largest[p] / total;
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
