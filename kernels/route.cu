/* The USED experts of EXPERTS with the largest scores of a token, and their weights. SCORING 0: softmax over all; 1: softmax over those
 * that are chosen; 2: sigmoid. A bias counts when experts are chosen, and not in their weights. Of equal ones the first is chosen.
 *
 * Grid: x = tokens, a warp each; bound by launch. */
#include "common.cuh"

#ifndef EXPERTS
#define EXPERTS 64
#endif
#ifndef USED
#define USED 8
#endif
#ifndef SCORING
#define SCORING 0
#endif
#ifndef NORMALIZE
#define NORMALIZE 1
#endif
#ifndef SCALE
#define SCALE 1.0f
#endif
#ifndef BIAS
#define BIAS 0
#endif

#if BIAS
#define BIAS_PARAMETER const float *bias,
#else
#define BIAS_PARAMETER
#endif

enum { MINE = (EXPERTS + 31) / 32 };

/* The larger of two, and of equal ones the first. */
struct candidate {
    float value;
    int id;
    __device__ __forceinline__ void meet(float other, int its_id) {
        if (other > value || (other == value && its_id < id))
            value = other, id = its_id;
    }
};

extern "C" __global__ void __launch_bounds__(32)
    route(const float *scores, BIAS_PARAMETER i32 *ids, float *weights) {
    let_next_start();
    wait_for_previous();
    const int lane = threadIdx.x;
    scores += (size_t)blockIdx.x * EXPERTS;
    float p[MINE], by[MINE], largest = -INF, total = 0.0f;
#pragma unroll
    for (int i = 0; i < MINE; i++) {
        const int id = 32 * i + lane;
        p[i] = id < EXPERTS ? scores[id] : -INF;
        largest = fmaxf(largest, p[i]);
    }
    largest = warp_max(largest);
#pragma unroll
    for (int i = 0; i < MINE; i++) {
        if (SCORING == 0)
            p[i] = expf(p[i] - largest); /* 0 where there is no expert */
        if (SCORING == 2)
            p[i] = 1.0f / (1.0f + expf(-p[i]));
        total += p[i];
    }
    if (SCORING == 0)
        total = warp_sum(total);
#pragma unroll
    for (int i = 0; i < MINE; i++) {
        const int id = 32 * i + lane;
        if (SCORING == 0)
            p[i] /= total;
        by[i] = id < EXPERTS ? p[i] : -INF;
#if BIAS
        if (id < EXPERTS)
            by[i] += bias[id];
#endif
    }

    float weight[USED], sum = 0.0f;
    i32 chosen[USED];
#pragma unroll
    for (int k = 0; k < USED; k++) {
        candidate best = {-INF, EXPERTS - 1};
#pragma unroll
        for (int i = 0; i < MINE; i++)
            best.meet(by[i], min(32 * i + lane, EXPERTS - 1));
        for (int distance = 16; distance > 0; distance /= 2) {
            const float value = __shfl_xor_sync(0xFFFFFFFFu, best.value, distance);
            best.meet(value, __shfl_xor_sync(0xFFFFFFFFu, best.id, distance));
        }
        float mine = -INF;
#pragma unroll
        for (int i = 0; i < MINE; i++)
            if (32 * i + lane == best.id) {
                mine = p[i];
                by[i] = -INF;
            }
        weight[k] = warp_max(mine);
        chosen[k] = best.id;
        sum += weight[k];
    }
    if (SCORING == 1) {
        largest = -INF, sum = 0.0f;
#pragma unroll
        for (int k = 0; k < USED; k++)
            largest = fmaxf(largest, weight[k]);
#pragma unroll
        for (int k = 0; k < USED; k++)
            sum += weight[k] = expf(weight[k] - largest);
    }
    if (lane == 0)
#pragma unroll
        for (int k = 0; k < USED; k++) {
            ids[(size_t)blockIdx.x * USED + k] = chosen[k];
            weights[(size_t)blockIdx.x * USED + k] = (NORMALIZE || SCORING == 1 ? weight[k] / sum : weight[k]) * SCALE;
        }
}
