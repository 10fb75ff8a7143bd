/* Causal attention of one query head of one token over its cache, in one pass with a running maximum
 * (arxiv.org/abs/1805.02867). HEADS / KV_HEADS query heads share a key-value head.
 *
 * Grid: x = query heads, y = tokens. The block walks the positions in tiles of THREADS: first each thread
 * scores one position, then groups of HEAD_DIM threads add up the values, each group every GROUPS-th position
 * of the tile. Scores are float32: Qwen2's key bias is large. Reads the head's keys and values up to the
 * token's position; bound by their latency at short context. */
#include "common.cuh"

#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef HEADS
#define HEADS 14
#endif
#ifndef KV_HEADS
#define KV_HEADS 2
#endif
#ifndef KEYS
#define KEYS F16
#endif
#ifndef VALUES
#define VALUES F16
#endif
#ifndef SCALE
#define SCALE 0.125f
#endif
#ifndef THREADS
#define THREADS 256 /* a multiple of HEAD_DIM rounded up to 32, see codegen/lower_ops.c */
#endif

typedef stored<KEYS> keys_of;
typedef stored<VALUES> values_of;

/* The dot product of the query with one cached key. */
__device__ __forceinline__ float score(const float *query, const keys_of::elem *key) {
    float sum = 0.0f;
#if HEAD_DIM % 8 == 0
#pragma unroll
    for (int i = 0; i < HEAD_DIM; i += keys_of::PER_LOAD) {
        float k[keys_of::PER_LOAD];
        keys_of::widen_load(*(const uint4 *)(key + i), k);
#pragma unroll
        for (int j = 0; j < keys_of::PER_LOAD; j++)
            sum = fmaf(query[i + j], k[j], sum);
    }
#else
    for (int i = 0; i < HEAD_DIM; i++)
        sum = fmaf(query[i], keys_of::widen(key[i]), sum);
#endif
    return sum * SCALE;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention(const float *q, const keys_of::elem *keys, const values_of::elem *values, const i32 *positions,
              float *out, i32 ctx) {
    const int GROUPS = THREADS / HEAD_DIM;
    __shared__ float query[HEAD_DIM], weight[THREADS], partial[GROUPS][HEAD_DIM];
    int head = blockIdx.x, thread = threadIdx.x;
    int group = thread / HEAD_DIM, dim = thread % HEAD_DIM;
    size_t kv = (size_t)(head / (HEADS / KV_HEADS)) * ctx * HEAD_DIM;
    size_t at = ((size_t)blockIdx.y * HEADS + head) * HEAD_DIM;
    int n = positions[blockIdx.y] + 1;

    for (int i = thread; i < HEAD_DIM; i += THREADS)
        query[i] = q[at + i];
    __syncthreads();

    float largest = -INF, total = 0.0f, sum = 0.0f;
    for (int first = 0; first < n; first += THREADS) {
        int in_tile = min(THREADS, n - first);
        float s = thread < in_tile ? score(query, keys + kv + (size_t)(first + thread) * HEAD_DIM) : -INF;
        float now = fmaxf(largest, block_max<THREADS / 32>(s));
        float rescale = expf(largest - now); /* 0 in the first tile */
        float w = thread < in_tile ? expf(s - now) : 0.0f;
        weight[thread] = w;
        total = total * rescale + block_sum<THREADS / 32>(w); /* its barriers publish weight[] */
        sum *= rescale;
        if (group < GROUPS)
            for (int p = group; p < in_tile; p += GROUPS)
                sum = fmaf(weight[p], values_of::widen(values[kv + (size_t)(first + p) * HEAD_DIM + dim]), sum);
        largest = now;
        __syncthreads(); /* weight[] is written again */
    }

    if (group < GROUPS)
        partial[group][dim] = sum;
    __syncthreads();
    if (group == 0) {
        for (int g = 1; g < GROUPS; g++)
            sum += partial[g][dim];
        out[at + dim] = sum / total;
    }
}
