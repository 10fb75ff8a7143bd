/* Causal attention of one query head of one token over its cache, in one pass with a running maximum
 * (arxiv.org/abs/1805.02867). HEADS / KV_HEADS query heads share a key-value head. For caches and heads of any kind: most are
 * for attention_heads.cu (one token) and flash_attention.cu (many), which need 16 bits and sm_80.
 *
 * With PARTS > 1 the positions are cut into parts, one block each (arxiv.org/abs/2311.01282), and what a block leaves is
 * for attention_merge to put together: for each part and head the sum of values weighted by exp(score - largest), then
 * the largest score, then the sum of the weights. out is [T, PARTS, HEADS, HEAD_DIM + 2]. A part has at least
 * LEAST_SPAN positions, so at short context the last parts are empty: largest -infinity, the rest 0.
 *
 * Grid: x = query heads, y = tokens, z = parts * BLOCKS. The block walks its positions in tiles: groups of lanes score one
 * position each by loads of 16 bytes, then groups of lanes add up values, each group every GROUPS-th position. Scores are
 * float32: Qwen2's key bias is large. Reads the head's keys and values up to the token's position; bound by latency at
 * short context. */
#include "attention_parts.cuh"

#ifndef THREADS
#define THREADS 256 /* at least HEAD_DIM */
#endif

enum { WARPS = THREADS / 32, TILE = THREADS };

/* How the lanes of a block share rows of one cache: LANES of them take a row, PER_LANE elements each. Rows that are not
 * made of 16-byte loads for a power of two of lanes go element by element, one lane a row for keys. */
template <int TYPE> struct sharing {
    enum {
        LOADS = HEAD_DIM / stored<TYPE>::PER_LOAD,
        BY_LOADS = HEAD_DIM % 8 == 0 && LOADS <= 32 && (LOADS & (LOADS - 1)) == 0,
    };
};

/* Scores of the `n` positions of a tile, from `begin` on, into score[]; returns the largest one that this thread has seen. */
__device__ __forceinline__ float score_tile(const float *query, const stored<KEYS>::elem *keys, const kept<> &at, int begin, int n,
                                            float *score) {
    const int LANES = sharing<KEYS>::BY_LOADS ? sharing<KEYS>::LOADS : 1;
    const int PER_LANE = HEAD_DIM / LANES;
    int lane = threadIdx.x % LANES;
    float largest = -INF;
    /* all lanes of a warp go the same number of turns, for the shuffles */
    for (int first = 0; first < n; first += THREADS / LANES) {
        int p = first + threadIdx.x / LANES;
        const stored<KEYS>::elem *key = keys + (size_t)at.row(begin + min(p, n - 1)) * HEAD_DIM + lane * PER_LANE;
        float sum = 0.0f;
        if (LANES > 1) {
            float k[stored<KEYS>::PER_LOAD];
            stored<KEYS>::widen_load(*(const uint4 *)key, k);
#pragma unroll
            for (int i = 0; i < stored<KEYS>::PER_LOAD; i++)
                sum = fmaf(query[lane * PER_LANE + i], k[i], sum);
#pragma unroll
            for (int distance = LANES / 2; distance > 0; distance /= 2)
                sum += __shfl_xor_sync(0xFFFFFFFFu, sum, distance);
        } else
            for (int i = 0; i < HEAD_DIM; i++)
                sum = fmaf(query[i], stored<KEYS>::widen(key[i]), sum);
        if (p < n) {
            sum = capped(sum * SCALE, 1.0f);
            largest = fmaxf(largest, sum);
            if (lane == 0)
                score[p] = sum;
        }
    }
    return largest;
}

enum {
    VALUE_ELEMS = sharing<VALUES>::BY_LOADS ? (int)stored<VALUES>::PER_LOAD : 1, /* of a row, that a thread adds up */
    VALUE_LANES = HEAD_DIM / VALUE_ELEMS,
    GROUPS = THREADS / VALUE_LANES,
    SHARE = HEAD_DIM + 2, /* of a block: sums of the values, largest score, sum of the weights */
};
static_assert(BLOCKS <= THREADS, "shape");

/* sum[] += the weighted values of a tile, of this thread's elements and every GROUPS-th position. */
__device__ __forceinline__ void add_tile(const float *weight, const stored<VALUES>::elem *values, const kept<> &at, int begin, int n,
                                         float *sum) {
    int group = threadIdx.x / VALUE_LANES, first = threadIdx.x % VALUE_LANES * VALUE_ELEMS;
    if (group >= GROUPS)
        return;
#pragma unroll 4
    for (int p = group; p < n; p += GROUPS) {
        const stored<VALUES>::elem *value = values + (size_t)at.row(begin + p) * HEAD_DIM + first;
        if (VALUE_ELEMS > 1) {
            float v[stored<VALUES>::PER_LOAD];
            stored<VALUES>::widen_load(*(const uint4 *)value, v);
#pragma unroll
            for (int i = 0; i < VALUE_ELEMS; i++)
                sum[i] = fmaf(weight[p], v[i], sum[i]);
        } else
            sum[0] = fmaf(weight[p], stored<VALUES>::widen(*value), sum[0]);
    }
}

/* Shares of `n` blocks: by one block. `by` has room for THREADS numbers. */
__device__ __forceinline__ void put_together(const float *shares, int n, float *by, float *out) {
    const int thread = threadIdx.x;
    const float *mine = shares + min(thread, n - 1) * SHARE;
    const float largest = block_max<WARPS>(mine[HEAD_DIM]), weight = expf(mine[HEAD_DIM] - largest);
    by[thread] = weight;
    const float total = block_sum<WARPS>(thread < n ? weight * mine[HEAD_DIM + 1] : 0.0f); /* its barriers publish the weights */
    for (int i = thread; i < HEAD_DIM; i += THREADS) {
        float y = 0.0f;
#pragma unroll 4
        for (int b = 0; b < n; b++)
            y = fmaf(by[b], shares[b * SHARE + i], y);
        out[i] = PARTS > 1 ? y : y / total;
    }
    if (PARTS > 1 && thread == 0) {
        out[HEAD_DIM] = largest;
        out[HEAD_DIM + 1] = total;
    }
}

/* `shares` and `counts` are looked at where BLOCKS > 1: a share for each block; 0 for each part. */
extern "C" __global__ void __launch_bounds__(THREADS)
    attention(const float *q, const stored<KEYS>::elem *keys, const stored<VALUES>::elem *values, const i32 *positions,
              SINKS_PARAMETER float *out, float *shares, u32 *counts, i32 ctx) {
    let_next_start();
    wait_for_previous();
    __shared__ float query[HEAD_DIM], weight[TILE], partial[GROUPS][HEAD_DIM];
    int head = blockIdx.x, thread = threadIdx.x;
    size_t token = blockIdx.y, kv = (size_t)(head / (HEADS / KV_HEADS)) * kept_rows(ctx) * HEAD_DIM;
    const int part = blockIdx.z / BLOCKS, block = blockIdx.z % BLOCKS;
    const range here = range_of(part, block, positions[token] + 1);
    if (block >= here.n)
        return;

    for (int i = thread; i < HEAD_DIM; i += THREADS)
        query[i] = q[(token * HEADS + head) * HEAD_DIM + i];
    __syncthreads();

    const kept<> at(here.begin, ctx);
    const bool sinks_here = SINKS && blockIdx.z == 0;
    float largest = sinks_here ? SINK_OF(head) : -INF, total = sinks_here ? 1.0f : 0.0f, sum[VALUE_ELEMS];
#pragma unroll
    for (int i = 0; i < VALUE_ELEMS; i++)
        sum[i] = 0.0f;
    for (int first = here.begin; first < here.end; first += TILE) {
        int n = min((int)TILE, here.end - first);
        float mine = score_tile(query, keys + kv, at, first, n, weight);
        float now = fmaxf(largest, block_max<WARPS>(mine)); /* its barriers publish the scores */
        float rescale = expf(largest - now);                /* 0 in the first tile */
        float w = thread < n ? expf(weight[thread] - now) : 0.0f;
        if (thread < n)
            weight[thread] = w;
        total = total * rescale + block_sum<WARPS>(w); /* and these the weights */
#pragma unroll
        for (int i = 0; i < VALUE_ELEMS; i++)
            sum[i] *= rescale;
        add_tile(weight, values + kv, at, first, n, sum);
        largest = now;
        __syncthreads(); /* weight[] is written again */
    }

    if (thread / VALUE_LANES < GROUPS)
#pragma unroll
        for (int i = 0; i < VALUE_ELEMS; i++)
            partial[thread / VALUE_LANES][thread % VALUE_LANES * VALUE_ELEMS + i] = sum[i];
    __syncthreads();
    const size_t unit = (token * HEADS + head) * PARTS + part;
    const bool alone = BLOCKS == 1 || here.n == 1;
    out += ((token * PARTS + part) * HEADS + head) * (HEAD_DIM + (PARTS > 1 ? 2 : 0));
    shares += unit * BLOCKS * SHARE;
    float *to = alone ? out : shares + block * SHARE;
    for (int i = thread; i < HEAD_DIM; i += THREADS) {
        float y = partial[0][i];
        for (int g = 1; g < GROUPS; g++)
            y += partial[g][i];
        to[i] = PARTS > 1 || !alone ? y : y / total;
    }
    if ((PARTS > 1 || !alone) && thread == 0) {
        to[HEAD_DIM] = largest;
        to[HEAD_DIM + 1] = total;
    }
    if (BLOCKS > 1 && !alone && last_to_come(&counts[unit], here.n))
        put_together(shares, here.n, weight, out);
}
