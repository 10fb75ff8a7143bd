/* The choice of a token's experts: the USED of EXPERTS with the largest scores, and their weights. SCORING 0: softmax over all; 1: softmax
 * over those that are chosen; 2: sigmoid. A bias counts when experts are chosen, and not in their weights. Of equal ones the first is
 * chosen. */
#pragma once
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

/* For all threads of a block. Each counts for its experts how many come before them: that number, if it is below USED, is an expert's
 * place. */
template <int Threads, bool Biased>
__device__ __forceinline__ void route_token(const float *scores, const float *bias, i32 *ids, float *weights) {
    enum { MINE = (EXPERTS + Threads - 1) / Threads, FOURS = (EXPERTS + 3) / 4 };
    __shared__ __align__(16) float by[4 * FOURS];
    __shared__ float of[EXPERTS];
    __shared__ i32 chosen[USED];
    const int thread = threadIdx.x;
    float p[MINE], largest = -INF, total = 0.0f;
#pragma unroll
    for (int i = 0; i < MINE; i++) {
        const int id = i * Threads + thread;
        p[i] = id < EXPERTS ? scores[id] : -INF;
        largest = fmaxf(largest, p[i]);
    }
    if (SCORING == 0)
        largest = block_max<Threads / 32>(largest);
#pragma unroll
    for (int i = 0; i < MINE; i++) {
        if (SCORING == 0)
            p[i] = expf(p[i] - largest); /* 0 where there is no expert */
        if (SCORING == 2)
            p[i] = 1.0f / (1.0f + expf(-p[i]));
        total += p[i];
    }
    if (SCORING == 0)
        total = block_sum<Threads / 32>(total);
#pragma unroll
    for (int i = 0; i < MINE; i++) {
        const int id = i * Threads + thread;
        if (SCORING == 0)
            p[i] /= total;
        if (id < EXPERTS) {
            of[id] = p[i];
            by[id] = Biased ? p[i] + bias[id] : p[i];
        }
    }
    if (thread < 4 * FOURS - EXPERTS)
        by[EXPERTS + thread] = -INF;
    if (thread < USED)
        chosen[thread] = EXPERTS - 1; /* where too few scores are numbers */
    __syncthreads();
#pragma unroll
    for (int i = 0; i < MINE; i++) {
        const int id = i * Threads + thread;
        if (id >= EXPERTS)
            continue;
        const float mine = by[id];
        int place = mine == mine ? 0 : USED;
#pragma unroll 4
        for (int k = 0; k < FOURS; k++) {
            const float4 other = *(const float4 *)(by + 4 * k);
            place += other.x > mine || (other.x == mine && 4 * k < id);
            place += other.y > mine || (other.y == mine && 4 * k + 1 < id);
            place += other.z > mine || (other.z == mine && 4 * k + 2 < id);
            place += other.w > mine || (other.w == mine && 4 * k + 3 < id);
        }
        if (place < USED)
            chosen[place] = id;
    }
    __syncthreads();
    if (thread >= 32) /* a token has 32 experts at most */
        return;
    const bool here = thread < USED;
    const i32 id = chosen[here ? thread : 0];
    float weight = here ? of[id] : SCORING == 1 ? -INF : 0.0f;
    if (SCORING == 1) {
        largest = warp_max(weight);
        weight = here ? expf(weight - largest) : 0.0f;
    }
    const float sum = warp_sum(weight);
    if (here) {
        ids[thread] = id;
        weights[thread] = (NORMALIZE || SCORING == 1 ? weight / sum : weight) * SCALE;
    }
}
