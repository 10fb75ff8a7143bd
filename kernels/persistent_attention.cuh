/* Attention of the persistent kernel: a block takes one key-value head and a stretch of positions, with all query heads of it.
 * Where there are several stretches warps put their parts together, 8 elements of a head each. */
#pragma once
#include "persistent_step.cuh"

/* Queries of this key-value head into shared memory, rotated, scaled and in two parts; in the last stretch also the
 * token's key and value, into the cache and into row `row` of the first tile. That is written by threads where a later
 * copy will write, hence the fence. */
__device__ __forceinline__ void take_queries(consumer &c, const arguments &a, int kv, bool last, const float *q, u32 parity,
                                             u16 *k_cache, u16 *v_cache, u16 *keys, u16 *values, int row) {
    auto &at = c.s.attention;
    int lane = c.lane();
#pragma unroll 1
    for (int head = c.warp(); head < GROUP + 2 * last; head += WARPS) {
        const float *from = q + (head < GROUP    ? (kv * GROUP + head) * HEAD_DIM
                                 : head == GROUP ? QUERIES + kv * HEAD_DIM
                                                 : QUERIES + CACHED + kv * HEAD_DIM);
#pragma unroll
        for (int first = 0; first < HALF; first += 32) { /* whole warps poll */
            int i = first + lane % (HALF < 32 ? HALF : 32);
            float2 x = poll_two(from + i, from + i + HALF, parity, c.wait);
            if (ROPE && head <= GROUP) {
                float2 turn = c.s.turn[i];
                x = make_float2(x.x * turn.x - x.y * turn.y, x.y * turn.x + x.x * turn.y);
            }
            if (head < GROUP) {
                u32 high = narrow_two<CACHE>(x.x * SCALE, x.y * SCALE);
                u32 low = narrow_rest<CACHE>(x.x * SCALE, x.y * SCALE, high);
                u16 *to = at.query + head * QUERY_STRIDE + i;
                to[0] = (u16)high, to[HALF] = (u16)(high >> 16);
                to += 8 * QUERY_STRIDE;
                to[0] = (u16)low, to[HALF] = (u16)(low >> 16);
            } else {
                u16 *to = (head == GROUP ? k_cache : v_cache) + ((size_t)kv * a.ctx + c.s.now.position) * HEAD_DIM + i;
                u16 first_half = cached::narrow(x.x), second_half = cached::narrow(x.y);
                to[0] = first_half, to[HALF] = second_half;
                u16 *fresh = (head == GROUP ? keys : values) + row * HEAD_DIM + i;
                fresh[0] = first_half, fresh[HALF] = second_half;
                fence_for_copies();
            }
        }
    }
}

/* The running state of a warp's part of attention: lane / 4 is the head, sums[j][0..1] its elements 8 j + 2 (lane % 4). */
struct running {
    float largest, total, sums[HEAD_DIM / 8][2];
};

/* 16 positions, of which `n` are there, from keys and values in shared memory. */
__device__ __forceinline__ void attend(running &r, int lane, const u16 *query, const u16 *keys, const u16 *values, int n) {
    int quarter = lane % 4;
    float score[2][4] = {};
#pragma unroll
    for (int k = 0; k < HEAD_DIM; k += 32) {
        uint4 high = *(const uint4 *)(query + lane / 4 * QUERY_STRIDE + k + 8 * quarter);
        uint4 low = *(const uint4 *)(query + (lane / 4 + 8) * QUERY_STRIDE + k + 8 * quarter);
#pragma unroll
        for (int t = 0; t < 2; t++) {
            uint4 key = *(const uint4 *)(keys + (t * 8 + lane / 4) * HEAD_DIM + k + 8 * quarter);
            mma<CACHE>(score[t], high.x, low.x, high.y, low.y, key.x, key.y);
            mma<CACHE>(score[t], high.z, low.z, high.w, low.w, key.z, key.w);
        }
    }
    float p[4]; /* at positions 2 quarter, + 1, + 8, + 9 */
    float largest = -INF;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        bool there = i / 2 * 8 + 2 * quarter + i % 2 < n;
        p[i] = there ? score[i / 2][i % 2] + score[i / 2][i % 2 + 2] : -INF;
        largest = fmaxf(largest, p[i]);
    }
    largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, 2));
    largest = fmaxf(largest, r.largest);
    float rescale = __expf(r.largest - largest), total = 0.0f;
    r.largest = largest;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        p[i] = __expf(p[i] - largest);
        total += p[i];
    }
    total += __shfl_xor_sync(0xFFFFFFFFu, total, 1);
    total += __shfl_xor_sync(0xFFFFFFFFu, total, 2);
    r.total = r.total * rescale + total;

    u32 high0 = narrow_two<CACHE>(p[0], p[1]), high1 = narrow_two<CACHE>(p[2], p[3]);
    u32 low0 = narrow_rest<CACHE>(p[0], p[1], high0), low1 = narrow_rest<CACHE>(p[2], p[3], high1);
    /* What lies behind the last position may be anything, and 0 times anything may be NaN. */
    u32 keep[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int first = i * 8 + 2 * quarter;
        keep[i] = first + 1 < n ? 0xFFFFFFFFu : first < n ? 0xFFFFu : 0;
    }
    u32 address = shared_address(values) + (lane % 16 * HEAD_DIM + lane / 16 * 8) * 2;
#pragma unroll
    for (int j = 0; j < HEAD_DIM / 8; j += 2) { /* 16 positions x 8 elements, twice */
        uint4 v = load_transposed(address + j * 16);
        float sum[2][4] = {};
        mma<CACHE>(sum[0], high0, low0, high1, low1, v.x & keep[0], v.y & keep[1]);
        mma<CACHE>(sum[1], high0, low0, high1, low1, v.z & keep[0], v.w & keep[1]);
#pragma unroll
        for (int t = 0; t < 2; t++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                r.sums[j + t][i] = r.sums[j + t][i] * rescale + sum[t][i] + sum[t][i + 2];
    }
}

/* Positions of one stretch for the query heads of one key-value head; the result to A, or to the parts. */
__device__ __forceinline__ void attention(consumer &c, const arguments &a, int layer, u32 from_parity, u32 parity) {
    auto &at = c.s.attention;
    const stretches cut = c.s.now.cut;
    int kv = blockIdx.x / cut.n, stretch = blockIdx.x % cut.n, warp = c.warp(), lane = c.lane();
    int begin = stretch * cut.span, end = min(c.s.now.position + 1, begin + cut.span);
    bool last = end == c.s.now.position + 1;
    u16 *k_cache = (u16 *)a.caches[2 * layer], *v_cache = (u16 *)a.caches[2 * layer + 1];
    int left = end - begin; /* the token itself is the last row of the first tile */
    running r = {-INF, 0.0f, {}};
#pragma unroll 1
    for (bool first = true; left > 0; first = false) {
        int n = min((int)SPAN, left);
        left -= n;
        consumer values_at = c;
        values_at.at.next();
        u16 *keys = (u16 *)c.tile(), *values = (u16 *)values_at.tile();
        if (first) {
            take_queries(c, a, kv, last, polled(a, Q), from_parity, k_cache, v_cache, keys,
                         values, n - 1);
            consumers_meet();
        }
        if (warp < SPAN_WARPS && warp * 16 < n)
            attend(r, lane, at.query, keys + warp * 16 * HEAD_DIM, values + warp * 16 * HEAD_DIM, n - warp * 16);
        c.release();
        c.release();
    }

    if (warp < SPAN_WARPS) {
        int head = lane / 4;
        if (lane % 4 == 0) {
            at.largest[warp][head] = r.largest;
            at.total[warp][head] = r.total;
        }
#pragma unroll
        for (int j = 0; j < HEAD_DIM / 8; j++)
            *(float2 *)&at.part[warp][head][8 * j + 2 * (lane % 4)] = make_float2(r.sums[j][0], r.sums[j][1]);
    }
    consumers_meet();
#pragma unroll
    for (int i = c.thread; i < GROUP * HALF; i += THREADS) {
        int head = i / HALF, element = i % HALF * 2, query_head = kv * GROUP + head;
        float largest = -INF, total = 0.0f, x = 0.0f, y = 0.0f;
#pragma unroll
        for (int w = 0; w < SPAN_WARPS; w++)
            largest = fmaxf(largest, at.largest[w][head]);
#pragma unroll
        for (int w = 0; w < SPAN_WARPS; w++) {
            float by = __expf(at.largest[w][head] - largest); /* 0 where a warp had no position */
            float2 part = *(const float2 *)&at.part[w][head][element];
            total += by * at.total[w][head];
            x += by * part.x, y += by * part.y;
        }
        if (cut.n == 1) {
            publish_two(exchanged(a, A) + query_head * HEAD_DIM + element, COPY, __fdividef(x, total),
                        __fdividef(y, total), parity);
            continue;
        }
        float *to = part_of(a, query_head, stretch);
        publish_two(to + element, x, y, parity);
        if (element == 0)
            publish_four(to + HEAD_DIM, largest, total, total, total, parity);
    }
}

/* What positions have come to: sums of their values, and of their weights, as if `largest` were the largest score. */
struct partial {
    float sum[8] = {}, largest = -INF, total = 0.0f;

    /* As if another score were the largest, which is one. */
    __device__ __forceinline__ void rescale(float most) {
        float by = __expf(largest - most); /* 0 where there is nothing */
        largest = most;
        total *= by;
#pragma unroll
        for (int i = 0; i < 8; i++)
            sum[i] *= by;
    }
    /* Another one's sums for four of the elements, from `at` on. */
    __device__ __forceinline__ void add(int at, const float4 &v, float by) {
        sum[at] += by * v.x, sum[at + 1] += by * v.y, sum[at + 2] += by * v.z, sum[at + 3] += by * v.w;
    }
};

/* 8 elements of a head from all stretches, by one warp: a lane takes every 32nd stretch. */
__device__ __forceinline__ void merge(const consumer &c, const arguments &a, int unit, u32 parity) {
    const int n = c.s.now.cut.n, lane = c.lane();
    const int head = unit / (HEAD_DIM / 8), first = unit % (HEAD_DIM / 8) * 8;
    partial r;
#pragma unroll 1
    for (int stretch = lane; stretch - lane < n; stretch += 32) { /* whole warps poll */
        const float *from = part_of(a, head, min(stretch, n - 1));
        const float *const p[3] = {from + first, from + first + 4, from + HEAD_DIM};
        float4 v[3];
        poll4(p, v, parity, c.wait);
        if (stretch < n) {
            r.rescale(fmaxf(r.largest, v[2].x));
            float by = __expf(v[2].x - r.largest);
            r.add(0, v[0], by), r.add(4, v[1], by);
            r.total += by * v[2].y;
        }
        __syncwarp();
    }
    r.rescale(warp_max(r.largest));
    float total = warp_sum(r.total);
    /* Each lane keeps half of the sums, gives the other half away, and so on. */
#pragma unroll
    for (int kept = 4; kept > 0; kept /= 2) {
        bool upper = lane & (4 * kept);
#pragma unroll
        for (int i = 0; i < kept; i++) {
            float given = upper ? r.sum[i] : r.sum[i + kept];
            r.sum[i] = (upper ? r.sum[i + kept] : r.sum[i]) + __shfl_xor_sync(0xFFFFFFFFu, given, 4 * kept);
        }
    }
    float sum = r.sum[0];
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
    if (lane % 4 == 0)
        publish(exchanged(a, A) + head * HEAD_DIM + first + lane / 4, COPY, __fdividef(sum, total), parity);
}
