/* Causal attention of one token over caches of 16 bits, for all query heads of a key-value head at once, so that keys and
 * values are read once; attention.cu says what comes out, also with PARTS > 1. One pass with a running maximum
 * (arxiv.org/abs/1805.02867), on the tensor cores: 8 query heads are the rows of m16n8k16, their queries high and low
 * (mma.cuh) as 16, and so are the weights of the values; scores and sums are float32.
 *
 *   warp     16 positions a turn: lane 4 h + q scores head h, and holds its weights at positions 2 q, 2 q + 1, and 8 on
 *   block    every WARPS-th 16 of a range of positions; what its warps have is put together in shared memory
 *   blocks   up to BLOCKS of them share a part that is longer than ALONE; the last one puts together what they have
 *
 * No key or value goes through shared memory: as a sum does not care for the order of its terms, elements of a row and
 * positions are numbered so that what a lane multiplies lies in 16 bytes that it loads.
 *
 * Grid: x = 8 query heads of each key-value head, y = tokens, z = parts * BLOCKS. Reads keys and values up to the token's
 * position; bound by latency up to some thousand positions, then by memory. HEAD_DIM is 32, 64 or 128. Needs sm_80. */
#include "attention_parts.cuh"
#include "mma.cuh"

#ifndef THREADS
#define THREADS 256
#endif

enum {
    WARPS = THREADS / 32,
    GROUP = HEADS / KV_HEADS,
    ROUNDS = (GROUP + 7) / 8,              /* blocks that take 8 heads each */
    KEY_LOADS = HEAD_DIM / 32,             /* of 16 bytes, by 4 lanes for a row */
    VALUE_LOADS = (HEAD_DIM + 63) / 64,    /* by 8 lanes for a row; of 8 bytes if HEAD_DIM is 32 */
    VALUE_ELEMS = HEAD_DIM < 64 ? 4 : 8,
    EARLY = HEAD_DIM <= 64,                /* the loads of the next turn are under way during this one */
    ROW = HEAD_DIM + 4,                    /* of a share: the sums of a head, its largest score, its total */
    SHARE = 8 * ROW,
};

/* The queries of head lane / 4: elements 32 j + 8 (lane % 4) on, high and low. */
struct queries {
    u32 high[KEY_LOADS][4], low[KEY_LOADS][4];
};

__device__ __forceinline__ void load_queries(queries &to, const float *q, bool there) {
#pragma unroll
    for (int j = 0; j < KEY_LOADS; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float4 x = {};
            if (there)
                x = *(const float4 *)(q + 32 * j + 8 * (threadIdx.x % 4) + 4 * i);
            x.x *= SCALE, x.y *= SCALE, x.z *= SCALE, x.w *= SCALE;
            to.high[j][2 * i] = narrow_two<KEYS>(x.x, x.y);
            to.high[j][2 * i + 1] = narrow_two<KEYS>(x.z, x.w);
            to.low[j][2 * i] = narrow_rest<KEYS>(x.x, x.y, to.high[j][2 * i]);
            to.low[j][2 * i + 1] = narrow_rest<KEYS>(x.z, x.w, to.high[j][2 * i + 1]);
        }
}

/* What a lane multiplies of 16 positions. */
struct rows {
    uint4 key[2][KEY_LOADS];     /* of positions lane / 4 and 8 on */
    uint4 value[4][VALUE_LOADS]; /* of positions 2 (lane % 4), + 1, + 8, + 9 */
};

/* From position `first` on; those from `end` on are read at the last one before, and count nothing. */
__device__ __forceinline__ void load_rows(rows &to, const u16 *keys, const u16 *values, const kept<> &at, int first, int end) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int t = 0; t < 2; t++) {
        const u16 *key = keys + (size_t)at.row(min(first + 8 * t + lane / 4, end - 1)) * HEAD_DIM;
#pragma unroll
        for (int j = 0; j < KEY_LOADS; j++)
            to.key[t][j] = *(const uint4 *)(key + 32 * j + 8 * (lane % 4));
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int position = min(first + i / 2 * 8 + 2 * (lane % 4) + i % 2, end - 1);
        const u16 *value = values + (size_t)at.row(position) * HEAD_DIM;
#pragma unroll
        for (int j = 0; j < VALUE_LOADS; j++)
            if (VALUE_ELEMS == 8)
                to.value[i][j] = *(const uint4 *)(value + 64 * j + 8 * (lane / 4));
            else {
                uint2 half = *(const uint2 *)(value + 4 * (lane / 4));
                to.value[i][j] = {half.x, half.y, 0, 0};
            }
    }
}

/* The running state of a warp. sums[64 j + e] of lane 4 h + q: of head h, high and low, at elements 64 j + 8 n + e for
 * n = 2 q and 2 q + 1 (4 n + e if HEAD_DIM is 32). */
struct running {
    float largest, total, sums[HEAD_DIM / 8][4];
};

/* Scores at positions 2 (lane % 4), + 1, + 8, + 9, of which `n` of 16 are there; the others are -INF. */
__device__ __forceinline__ void score(const queries &q, const rows &r, int n, float *scores) {
    float sum[2][4] = {};
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
        for (int j = 0; j < KEY_LOADS; j++) {
            const u32 *high = q.high[j], *low = q.low[j];
            mma<KEYS>(sum[t], high[0], low[0], high[1], low[1], r.key[t][j].x, r.key[t][j].y);
            mma<KEYS>(sum[t], high[2], low[2], high[3], low[3], r.key[t][j].z, r.key[t][j].w);
        }
#pragma unroll
    for (int i = 0; i < 4; i++)
        scores[i] = i / 2 * 8 + 2 * (threadIdx.x % 4) + i % 2 < n
                        ? capped(sum[i / 2][i % 2] + sum[i / 2][i % 2 + 2], 1.0f)
                        : -INF;
}

/* Words 2 w and 2 w + 1 of the elements of two positions side by side, as the product wants them. */
__device__ __forceinline__ void pair_up(u32 a, u32 b, u32 *even, u32 *odd) {
    *even = __byte_perm(a, b, 0x5410);
    *odd = __byte_perm(a, b, 0x7632);
}

/* sums += weights (high and low, of positions as in score()) times values */
__device__ __forceinline__ void add_values(float (*sums)[4], const u32 *high, const u32 *low, const rows &r) {
#pragma unroll
    for (int j = 0; j < VALUE_LOADS; j++) {
        const u32 *v[4] = {&r.value[0][j].x, &r.value[1][j].x, &r.value[2][j].x, &r.value[3][j].x};
#pragma unroll
        for (int w = 0; w < VALUE_ELEMS / 2; w++) {
            u32 first[2], second[2];
            pair_up(v[0][w], v[1][w], &first[0], &first[1]);
            pair_up(v[2][w], v[3][w], &second[0], &second[1]);
#pragma unroll
            for (int i = 0; i < 2; i++)
                mma<VALUES>(sums[8 * j + 2 * w + i], high[0], low[0], high[1], low[1], first[i], second[i]);
        }
    }
}

/* 16 positions, of which `n` are there. */
__device__ __forceinline__ void attend(running &s, const queries &q, const rows &r, int n) {
    float p[4];
    score(q, r, n, p);
    float largest = fmaxf(fmaxf(p[0], p[1]), fmaxf(p[2], p[3]));
    largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, 2));
    largest = fmaxf(largest, s.largest);
    float rescale = expf(s.largest - largest); /* 0 at first */
    s.largest = largest;
    s.total *= rescale;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        p[i] = expf(p[i] - largest);
        s.total += p[i]; /* of this lane's positions */
    }
    u32 high[2], low[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        high[i] = narrow_two<VALUES>(p[2 * i], p[2 * i + 1]);
        low[i] = narrow_rest<VALUES>(p[2 * i], p[2 * i + 1], high[i]);
    }
#pragma unroll
    for (int j = 0; j < HEAD_DIM / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            s.sums[j][i] *= rescale;
    add_values(s.sums, high, low, r);
}

/* A warp's every WARPS-th 16 positions from `first` on. */
__device__ __forceinline__ void walk(running &s, const queries &q, const u16 *keys, const u16 *values, const kept<> &at, int first,
                                     int end) {
    rows now, next;
    if (EARLY && first < end)
        load_rows(next, keys, values, at, first, end);
#pragma unroll 1
    for (; first < end; first += 16 * WARPS) {
        if (EARLY)
            now = next;
        else
            load_rows(now, keys, values, at, first, end);
        if (EARLY && first + 16 * WARPS < end)
            load_rows(next, keys, values, at, first + 16 * WARPS, end);
        attend(s, q, now, end - first);
    }
}

/* What a warp has, into its share. */
__device__ __forceinline__ void leave(running &s, float *share) {
    int lane = threadIdx.x % 32;
    s.total += __shfl_xor_sync(0xFFFFFFFFu, s.total, 1);
    s.total += __shfl_xor_sync(0xFFFFFFFFu, s.total, 2);
    share += lane / 4 * ROW;
#pragma unroll
    for (int j = 0; j < HEAD_DIM / 8; j += 4)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float(*from)[4] = &s.sums[j];
            int at = HEAD_DIM < 64 ? 4 * (2 * (lane % 4) + i) : j / 8 * 64 + 8 * (2 * (lane % 4) + i) + j % 8;
            *(float4 *)(share + at) = {from[0][i] + from[0][i + 2], from[1][i] + from[1][i + 2],
                                       from[2][i] + from[2][i + 2], from[3][i] + from[3][i + 2]};
        }
    if (lane % 4 == 0)
        *(float2 *)(share + HEAD_DIM) = {s.largest, s.total};
}

/* Four elements of a head, what they are weighted with, and what those weights are relative to. */
struct merged {
    float4 sum;
    float largest, total;
};

/* Of `n` shares; `from` is those of the first one's head. Every share has a position, so none of them is -INF. 8 are under
 * way at once: those of other blocks take the latency of the L2 cache. */
__device__ __forceinline__ merged merge(const float *from, int element, int n) {
    const int AT_ONCE = 8;
    merged m = {{}, -INF, 0.0f};
#pragma unroll 1
    for (int first = 0; first < n; first += AT_ONCE) {
        float4 sum[AT_ONCE];
        float2 weights[AT_ONCE]; /* largest score, total */
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const float *share = from + (size_t)min(first + i, n - 1) * SHARE;
            sum[i] = *(const float4 *)(share + element);
            weights[i] = *(const float2 *)(share + HEAD_DIM);
        }
        float largest = m.largest;
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            largest = fmaxf(largest, weights[i].x);
        float rescale = expf(m.largest - largest); /* 0 at first */
        m.largest = largest;
        m.total *= rescale;
        m.sum.x *= rescale, m.sum.y *= rescale, m.sum.z *= rescale, m.sum.w *= rescale;
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            float by = first + i < n ? expf(weights[i].x - largest) : 0.0f;
            m.total = fmaf(by, weights[i].y, m.total);
            m.sum.x = fmaf(by, sum[i].x, m.sum.x), m.sum.y = fmaf(by, sum[i].y, m.sum.y);
            m.sum.z = fmaf(by, sum[i].z, m.sum.z), m.sum.w = fmaf(by, sum[i].w, m.sum.w);
        }
    }
    return m;
}

/* Into the result, or into the shares of a part's blocks. */
__device__ __forceinline__ void store(float *to, int element, const merged &m, bool whole) {
    float by = whole ? 1.0f / m.total : 1.0f;
    *(float2 *)(to + element) = {m.sum.x * by, m.sum.y * by};
    *(float2 *)(to + element + 2) = {m.sum.z * by, m.sum.w * by};
    if (!whole && element == 0)
        *(float2 *)(to + HEAD_DIM) = {m.largest, m.total};
}

/* `shares` and `counts` are looked at where BLOCKS > 1: a share for each block; 0 for each part. */
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_heads(const float *q, const u16 *keys, const u16 *values, const i32 *positions, SINKS_PARAMETER float *out,
                    float *shares, u32 *counts, i32 ctx) {
    let_next_start();
    wait_for_previous();
#if __CUDA_ARCH__ >= 800
    __shared__ __align__(16) float own[WARPS][SHARE];
    int part = blockIdx.z / BLOCKS, block = blockIdx.z % BLOCKS, kv = blockIdx.x / ROUNDS, thread = threadIdx.x;
    int in_group = blockIdx.x % ROUNDS * 8, n_heads = min(8, GROUP - in_group);
    size_t token = blockIdx.y, head = kv * GROUP + in_group;
    const range here = range_of(part, block, positions[token] + 1);
    if (block >= here.n)
        return;

    queries query;
    load_queries(query, q + (token * HEADS + head + thread % 32 / 4) * HEAD_DIM, thread % 32 / 4 < n_heads);
    running s = {-INF, 0.0f, {}};
    if (SINKS && part == 0 && block == 0 && thread < 32 && thread / 4 < n_heads) { /* as if its first warp had seen it */
        s.largest = SINK_OF(head + thread / 4);
        s.total = thread % 4 == 0 ? 1.0f : 0.0f;
    }
    size_t cache = (size_t)kv * kept_rows(ctx) * HEAD_DIM;
    const kept<> at(here.begin, ctx);
    walk(s, query, keys + cache, values + cache, at, here.begin + thread / 32 * 16, here.end);
    leave(s, own[thread / 32]);
    __syncthreads();

    const int ROW_OUT = HEAD_DIM + (PARTS > 1 ? 2 : 0), QUARTERS = HEAD_DIM / 4;
    size_t unit = (token * gridDim.x + blockIdx.x) * PARTS + part;
    bool alone = BLOCKS == 1 || here.n == 1;
    int n_own = min((here.end - here.begin + 15) / 16, (int)WARPS); /* warps that had a position */
    out += ((token * PARTS + part) * HEADS + head) * ROW_OUT;
    shares += unit * BLOCKS * SHARE;
    for (int i = thread; i < n_heads * QUARTERS; i += THREADS) {
        int h = i / QUARTERS, element = i % QUARTERS * 4;
        merged m = merge(&own[0][h * ROW], element, n_own);
        if (alone)
            store(out + h * ROW_OUT, element, m, PARTS == 1);
        else
            store(shares + block * SHARE + h * ROW, element, m, false);
    }
    if (alone || !last_to_come(&counts[unit], here.n))
        return;
    for (int i = thread; i < n_heads * QUARTERS; i += THREADS) {
        int h = i / QUARTERS, element = i % QUARTERS * 4;
        store(out + h * ROW_OUT, element, merge(shares + h * ROW, element, here.n), PARTS == 1);
    }
#endif
}
