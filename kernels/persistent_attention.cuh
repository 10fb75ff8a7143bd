/* Attention of the persistent kernel: a block takes one key-value head and a split of the positions, with up to 8 of its query
 * heads. What belongs to a head (norm, rope, the write to the cache) is done here as it is gathered, for the rows of a head lie
 * on several blocks where they are multiplied. Where there are several splits warps merge them, 8 elements of a head each. */
#pragma once
#include "kept.cuh"
#include "persistent_products.cuh"

/* Two elements of a head for each lane, a warp's 32 lanes at a time: pairs as `Pairs` has them (turn.cuh). Lanes without a pair repeat
 * the last one. */
template <typename S> struct pairs_of : pairing<S::HEAD_DIM, S::ROPE_FIRST, S::ROPE_DIM ? (int)S::ROPE_DIM : (int)S::HEAD_DIM, S::ROPE_INTERLEAVED> {
    enum { HALF = S::HEAD_DIM / 2 };
};

template <typename Pairs> struct half_head {
    enum { HALF = Pairs::HALF, LOADS = (HALF + 31) / 32 };
    float2 x[LOADS];

    static __device__ __forceinline__ int pair(int lane, int load) {
        return HALF < 32 ? lane % HALF : min(load * 32 + lane, HALF - 1);
    }
    static __device__ __forceinline__ int element(int lane, int load, int which) {
        return Pairs::element(pair(lane, load), which);
    }
    static __device__ __forceinline__ bool counts(int lane, int load) {
        return HALF < 32 ? lane < HALF : load * 32 + lane < HALF;
    }

    template <bool Clear>
    __device__ __forceinline__ void take(const consumer &c, const float *from, u32 parity) {
        const float *p[2 * LOADS];
        float word[2 * LOADS];
#pragma unroll
        for (int j = 0; j < 2 * LOADS; j++)
            p[j] = from + element(c.lane(), j / 2, j % 2);
        poll_words<Clear>(p, word, parity, c.wait);
#pragma unroll
        for (int j = 0; j < LOADS; j++)
            x[j] = make_float2(word[2 * j], word[2 * j + 1]);
    }
    /* The two weights of each of this lane's elements. */
    __device__ __forceinline__ void load(const consumer &c, const float *from) {
#pragma unroll
        for (int j = 0; j < LOADS; j++)
            x[j] = make_float2(from[element(c.lane(), j, 0)], from[element(c.lane(), j, 1)]);
    }
    __device__ __forceinline__ float squares(const consumer &c) const {
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < LOADS; j++)
            sum += counts(c.lane(), j) ? x[j].x * x[j].x + x[j].y * x[j].y : 0.0f;
        return warp_sum(sum);
    }
    __device__ __forceinline__ void scale(float by, const half_head &weights) {
#pragma unroll
        for (int j = 0; j < LOADS; j++)
            x[j] = make_float2(x[j].x * by * weights.x[j].x, x[j].y * by * weights.x[j].y);
    }
    __device__ __forceinline__ void turn(const consumer &c, const float2 *table) {
#pragma unroll
        for (int j = 0; j < LOADS; j++)
            if (Pairs::turns(pair(c.lane(), j)))
                x[j] = turned(x[j].x, x[j].y, table[pair(c.lane(), j)]);
    }
};

/* A head as its reader wants it. `squares` are those of all the vector, for a WHOLE_NORM over `width` elements. */
template <int NORM, typename Pairs, bool Clear>
__device__ __forceinline__ half_head<Pairs> take_head(const consumer &c, const float *from, u32 parity,
                                                     const float *weights, float eps, const float *squares,
                                                     int width, int rope) {
    half_head<Pairs> w, h;
    if constexpr (NORM != NO_NORM)
        w.load(c, weights);
    h.template take<Clear>(c, from, parity);
    if constexpr (NORM == HEAD_NORM)
        h.scale(rsqrtf(h.squares(c) * (0.5f / Pairs::HALF) + eps), w);
    if constexpr (NORM == WHOLE_NORM)
        h.scale(rsqrtf(total_of(squares) * (1.0f / (float)width) + eps), w);
    if (rope >= 0)
        h.turn(c, c.s.turn[rope]);
    return h;
}

/* The sum of what `of` makes of the elements of a whole vector, all warps of the block together: theirs to sums[warp]. Returns element
 * `own`, which is polled with the others. */
template <int N, bool Clear, typename Of>
__device__ __forceinline__ float put_whole_sums(const consumer &c, const float *from, u32 parity, float *sums, int own, Of of) {
    enum { LOADS = (N + 4 * THREADS - 1) / (4 * THREADS), AT_ONCE = LOADS < 4 ? (int)LOADS : 4 };
    float sum = 0.0f;
    float4 around;
#pragma unroll 1
    for (int first = 0; first < LOADS; first += AT_ONCE) { /* whole warps poll */
        const float *p[AT_ONCE + 1];
        float4 v[AT_ONCE + 1];
        p[AT_ONCE] = from + own / 4 * 4;
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            p[j] = from + min(4 * ((first + j) * THREADS + (int)c.thread), N - 4);
        poll4<Clear>(p, v, parity, c.wait);
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            if (4 * ((first + j) * THREADS + (int)c.thread) < N)
                sum += of(v[j].x) + of(v[j].y) + of(v[j].z) + of(v[j].w);
        around = v[AT_ONCE];
    }
    sum = warp_sum(sum);
    if (c.lane() == 0)
        sums[c.warp()] = sum;
    const float low = own % 2 ? around.y : around.x, high = own % 2 ? around.w : around.z;
    return own / 2 % 2 ? high : low;
}

/* Of its squares. */
template <int N, bool Clear>
__device__ __forceinline__ float put_whole_squares(const consumer &c, const float *from, u32 parity, float *squares, int own = 0) {
    return put_whole_sums<N, Clear>(c, from, parity, squares, own, [](float x) { return x * x; });
}

/* Which heads a block has, and which positions. */
struct place_of_attention {
    int kv, first_head, n_heads, split;
    bool writes; /* the token's key and value to the cache */
};

template <typename S> __device__ __forceinline__ place_of_attention place_in(const splits &cut, bool last) {
    const int kv = cut.unit / tile_of<S>::ROUNDS, round = cut.unit % tile_of<S>::ROUNDS;
    const int GROUP = tile_of<S>::GROUP;
    return {kv, kv * GROUP + round * 8, min(8, GROUP - round * 8), cut.split, last && round == 0};
}

/* A query head into shared memory, scaled and in two parts. */
template <typename S>
__device__ __forceinline__ void put_query(const consumer &c, const half_head<pairs_of<S>> &h, int row) {
    const int STRIDE_OF = tile_of<S>::QUERY_STRIDE;
#pragma unroll
    for (int j = 0; j < h.LOADS; j++) {
        const int first = h.element(c.lane(), j, 0), second = h.element(c.lane(), j, 1);
        const float x = h.x[j].x * S::scale(), y = h.x[j].y * S::scale();
        u32 high = narrow_two<S::CACHE>(x, y);
        u32 low = narrow_rest<S::CACHE>(x, y, high);
        u16 *to = c.s.attention.query + row * STRIDE_OF;
        to[first] = (u16)high, to[second] = (u16)(high >> 16);
        to += 8 * STRIDE_OF;
        to[first] = (u16)low, to[second] = (u16)(low >> 16);
    }
}

/* The token's key or value to its row of a tile, which has come, and, if `cache` is there, to the cache. A tile is written by threads
 * where a later copy will write, hence the fence; all warps wait for it, and so the cache, which nobody waits for, comes after it. */
template <typename S>
__device__ __forceinline__ void put_fresh(const consumer &c, const half_head<pairs_of<S>> &h, u16 *cache, u16 *tile_row) {
    enum { LOADS = half_head<pairs_of<S>>::LOADS };
    u16 x[LOADS], y[LOADS];
#pragma unroll
    for (int j = 0; j < LOADS; j++) {
        x[j] = stored<S::CACHE>::narrow(h.x[j].x), y[j] = stored<S::CACHE>::narrow(h.x[j].y);
        tile_row[h.element(c.lane(), j, 0)] = x[j], tile_row[h.element(c.lane(), j, 1)] = y[j];
    }
    fence_for_copies();
#pragma unroll
    for (int j = 0; j < LOADS; j++)
        if (cache)
            cache[h.element(c.lane(), j, 0)] = x[j], cache[h.element(c.lane(), j, 1)] = y[j];
}

/* Queries of this block into shared memory; in the last split also the token's key and value, into the cache and into row `row`
 * of the next two tiles in the ring. What comes from memory is on its way before the warp waits for a head. */
template <typename S>
__device__ __forceinline__ void take_heads(consumer &c, const arguments &a, const place_of_attention &at, bool last, int i, int row) {
    const int HEAD_DIM = S::HEAD_DIM;
    const float *small = a.small + (size_t)i * S::SMALL_STEP;
    const u32 epoch = c.s.now.epoch;
    const float *q = polled(a, S::q_from(i)), *k = polled(a, S::k_from(i)), *v = polled(a, S::v_from(i));
    const float *q_squares = c.s.attention.whole[0], *k_squares = c.s.attention.whole[1];
    const size_t cached = ((size_t)at.kv * kept_rows(a.ctx, S::ring(i)) + kept_row(c.s.now.position, a.ctx, S::ring(i))) * HEAD_DIM;
    if constexpr (S::Q_NORM == WHOLE_NORM)
        put_whole_squares<S::HEADS * HEAD_DIM, S::Q_CLEAR>(c, q, S::q_parity(i, epoch),
                                                           c.s.attention.whole[0]);
    if constexpr (S::K_NORM == WHOLE_NORM)
        if (last)
            put_whole_squares<S::KV_HEADS * HEAD_DIM, S::K_CLEAR>(c, k, S::k_parity(i, epoch),
                                                                  c.s.attention.whole[1]);
    if constexpr (S::Q_NORM == WHOLE_NORM || S::K_NORM == WHOLE_NORM)
        consumers_meet();
#pragma unroll 1
    for (int head = c.warp(); head < at.n_heads + 2 * last; head += WARPS) {
        if (head < at.n_heads) {
            const int first = (at.first_head + head) * HEAD_DIM;
            put_query<S>(c,
                         take_head<S::Q_NORM, pairs_of<S>, S::Q_CLEAR>(
                             c, q + first, S::q_parity(i, epoch),
                             small + S::Q_NORM_AT + (S::Q_NORM == WHOLE_NORM ? first : 0), S::q_eps(),
                             q_squares, S::HEADS * HEAD_DIM, S::q_rope(i)),
                         head);
        } else if (head == at.n_heads) {
            const int first = at.kv * HEAD_DIM;
            u16 *cache = at.writes ? (u16 *)a.caches[S::CACHES_AT + S::CACHES_STEP * i] + cached : nullptr;
            const half_head<pairs_of<S>> h = take_head<S::K_NORM, pairs_of<S>, S::K_CLEAR>(
                c, k + first, S::k_parity(i, epoch), small + S::K_NORM_AT + (S::K_NORM == WHOLE_NORM ? first : 0), S::k_eps(),
                k_squares, S::KV_HEADS * HEAD_DIM, S::k_rope(i));
            c.wait_for_tile();
            put_fresh<S>(c, h, cache, (u16 *)c.tile(0) + row * HEAD_DIM);
        } else {
            u16 *cache = at.writes ? (u16 *)a.caches[S::CACHES_AT + S::CACHES_STEP * i + 1] + cached : nullptr;
            const half_head<pairs_of<S>> h = take_head<NO_NORM, pairs_of<S>, S::V_CLEAR>(
                c, v + at.kv * HEAD_DIM, S::v_parity(i, epoch), nullptr, 0.0f, nullptr, 0, -1);
            consumer values_at = c;
            values_at.at.next();
            values_at.wait_for_tile();
            put_fresh<S>(c, h, cache, (u16 *)values_at.tile(0) + row * HEAD_DIM);
        }
    }
}

/* The running state of a warp's part of attention: lane / 4 is the head, sums[j][0..1] its elements 8 j + 2 (lane % 4). */
template <int HEAD_DIM> struct running { float largest, total, sums[HEAD_DIM / 8][2]; };

/* 16 positions, of which `n` are there, from keys and values in shared memory. */
template <typename S>
__device__ __forceinline__ void attend(running<S::HEAD_DIM> &r, int lane, const u16 *query, const u16 *keys,
                                       const u16 *values, int n) {
    constexpr int CACHE = S::CACHE, HEAD_DIM = S::HEAD_DIM, QUERY_STRIDE = HEAD_DIM + 8;
    int quarter = lane % 4;
    enum { TURNS = HEAD_DIM <= 128 ? 2 : 1 }; /* sums, as each MMA waits for the one before it; of longer heads there is no room for two */
    float score[TURNS][2][4] = {};
#pragma unroll
    for (int k = 0; k < HEAD_DIM; k += 32) {
        uint4 high = *(const uint4 *)(query + lane / 4 * QUERY_STRIDE + k + 8 * quarter);
        uint4 low = *(const uint4 *)(query + (lane / 4 + 8) * QUERY_STRIDE + k + 8 * quarter);
#pragma unroll
        for (int t = 0; t < 2; t++) {
            uint4 key = *(const uint4 *)(keys + (t * 8 + lane / 4) * HEAD_DIM + k + 8 * quarter);
            mma<CACHE>(score[0][t], high.x, low.x, high.y, low.y, key.x, key.y);
            mma<CACHE>(score[TURNS - 1][t], high.z, low.z, high.w, low.w, key.z, key.w);
        }
    }
    float p[4]; /* at positions 2 quarter, + 1, + 8, + 9 */
    float largest = -INF;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        bool there = i / 2 * 8 + 2 * quarter + i % 2 < n;
        float x = score[0][i / 2][i % 2] + score[0][i / 2][i % 2 + 2];
        if (TURNS > 1)
            x += score[TURNS - 1][i / 2][i % 2] + score[TURNS - 1][i / 2][i % 2 + 2];
        if constexpr (S::CAPPED != 0)
            x = op_softcap(x, S::softcap());
        p[i] = there ? x : -INF;
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
    /* What lies after the last position may be anything, and 0 times anything may be NaN. */
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

/* What the warps of a block have come to, put together: into the result, or into the split's part. */
template <typename S>
__device__ __forceinline__ void leave(consumer &c, const arguments &a, const place_of_attention &where, bool whole, int i) {
    auto &at = c.s.attention;
    const int HEAD_DIM = S::HEAD_DIM, HALF = HEAD_DIM / 2, WARPS_OF = tile_of<S>::WARPS_OF;
    const u32 parity = whole ? S::parity(i, c.s.now.epoch) : S::parts_parity(i);
#pragma unroll
    for (int j = c.thread; j < tile_of<S>::GROUP * HALF && j < 8 * HALF; j += THREADS) {
        int head = j / HALF, element = j % HALF * 2, query_head = where.first_head + head;
        if (tile_of<S>::ROUNDS > 1 && head >= where.n_heads)
            break;
        float largest = -INF, total = 0.0f, x = 0.0f, y = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS_OF; w++)
            largest = fmaxf(largest, at.largest[w][head]);
#pragma unroll
        for (int w = 0; w < WARPS_OF; w++) {
            float by = __expf(at.largest[w][head] - largest); /* 0 where a warp had no position */
            float2 part = *(const float2 *)&at.part[(w * 8 + head) * HEAD_DIM + element];
            total += by * at.total[w][head];
            x += by * part.x, y += by * part.y;
        }
        if (whole) {
            publish_two(exchanged(a, S::OUT) + query_head * HEAD_DIM + element, COPY, __fdividef(x, total),
                        __fdividef(y, total), parity);
            continue;
        }
        float *to = part_of<S>(a, i, query_head, where.split);
        publish_two(to + element, x, y, parity);
        if (element == 0)
            publish_four(to + HEAD_DIM, largest, total, total, total, parity);
    }
}

/* Positions of one split for the query heads of one unit. */
template <typename S> __device__ __forceinline__ void attention(consumer &c, const arguments &a, int i) {
    auto &at = c.s.attention;
    const int HEAD_DIM = S::HEAD_DIM, SPAN = tile_of<S>::SPAN, WARPS_OF = tile_of<S>::WARPS_OF;
    const splits cut = c.s.now.cut[S::cut(i)];
    if (cut.unit >= tile_of<S>::UNITS)
        return;
    int warp = c.warp(), lane = c.lane();
    int begin = first_seen<S>(i, c.s.now.position) + cut.split * cut.span, end = min(c.s.now.position + 1, begin + cut.span);
    bool last = end == c.s.now.position + 1;
    int left = end - begin; /* at least 1; the token itself is the last row of the first tile */
    const kept<S::RINGS> cache(begin, a.ctx, S::ring(i));
    const auto next_rows = [&](bool first) {
        const int n = min(SPAN, left);
        if constexpr (S::RINGS != 0) { /* tiles as put_cache has them: `end` - `left` is the position after those before */
            const bool own = first && last;
            const int at = end - left - (last && !first), cached = n - own;
            return cached > 0 ? cache.together(at, cached) + own : n;
        }
        return n;
    };
    float largest = -INF, total = 0.0f;
    if constexpr (S::SINKS != 0) { /* as if the first warp had seen it */
        const place_of_attention where = place_in<S>(cut, last);
        if (cut.split == 0 && warp == 0 && lane / 4 < where.n_heads) {
            largest = a.small[(size_t)i * S::SMALL_STEP + S::SINKS_AT + where.first_head + lane / 4];
            total = 1.0f;
        }
    }
    take_heads<S>(c, a, place_in<S>(cut, last), last, i, next_rows(true) - 1);
    running<S::HEAD_DIM> r = {largest, total, {}}; /* only now, for its many registers */
#pragma unroll 1
    for (bool first = true; left > 0; first = false) {
        const int n = next_rows(first);
        left -= n;
        consumer values_at = c;
        values_at.at.next();
        u16 *keys = (u16 *)c.tile(), *values = (u16 *)values_at.tile();
        if (first)
            consumers_meet();
        if (warp < WARPS_OF && warp * 16 < n)
            attend<S>(r, lane, at.query, keys + warp * 16 * HEAD_DIM, values + warp * 16 * HEAD_DIM,
                             n - warp * 16);
        c.release();
        c.release();
    }

    if (warp < WARPS_OF) {
        int head = lane / 4;
        if (lane % 4 == 0) {
            at.largest[warp][head] = r.largest;
            at.total[warp][head] = r.total;
        }
#pragma unroll
        for (int j = 0; j < HEAD_DIM / 8; j++)
            *(float2 *)&at.part[(warp * 8 + head) * HEAD_DIM + 8 * j + 2 * (lane % 4)] =
                make_float2(r.sums[j][0], r.sums[j][1]);
    }
    const splits again = c.s.now.cut[S::cut(i)]; /* which no register holds all along, and which is here when the warps have met */
    consumers_meet();
    leave<S>(c, a, place_in<S>(again, false), again.n == 1, i);
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

/* 8 elements of a head, from `first` on, of all splits: a lane takes every 32nd of them, `Rounds` of those at a time, as each poll takes
 * the latency of the L2 cache. */
template <typename S, int Rounds>
__device__ __forceinline__ void take_splits(partial &r, const consumer &c, const arguments &a, int i, int head, int first, int n) {
    const u32 parity = S::parts_parity(i);
#pragma unroll 1
    for (int split = c.lane(); split - c.lane() < n; split += 32 * Rounds) { /* whole warps poll */
        const float *p[3 * Rounds];
        float4 v[3 * Rounds];
#pragma unroll
        for (int k = 0; k < Rounds; k++) {
            const float *from = part_of<S>(a, i, head, min(split + 32 * k, n - 1));
            p[3 * k] = from + first, p[3 * k + 1] = from + first + 4, p[3 * k + 2] = from + S::HEAD_DIM;
        }
        poll4<false>(p, v, parity, c.wait);
#pragma unroll
        for (int k = 0; k < Rounds; k++)
            if (split + 32 * k < n) {
                r.rescale(fmaxf(r.largest, v[3 * k + 2].x));
                float by = __expf(v[3 * k + 2].x - r.largest);
                r.add(0, v[3 * k], by), r.add(4, v[3 * k + 1], by);
                r.total += by * v[3 * k + 2].y;
            }
        __syncwarp();
    }
}

/* 8 elements of a head from all splits, by one warp. */
template <typename S>
__device__ __forceinline__ void merge_unit(const consumer &c, const arguments &a, int unit, int i) {
    const int n = c.s.now.cut[S::cut(i)].n, lane = c.lane(), HEAD_DIM = S::HEAD_DIM;
    const int head = unit / (HEAD_DIM / 8), first = unit % (HEAD_DIM / 8) * 8;
    partial r;
    if (n <= 32)
        take_splits<S, 1>(r, c, a, i, head, first, n);
    else
        take_splits<S, 3>(r, c, a, i, head, first, n);
    r.rescale(warp_max(r.largest));
    float total = warp_sum(r.total);
    /* Each lane keeps half of the sums, gives the other half away, and so on. */
#pragma unroll
    for (int kept = 4; kept > 0; kept /= 2) {
        bool upper = lane & (4 * kept);
#pragma unroll
        for (int j = 0; j < kept; j++) {
            float given = upper ? r.sum[j] : r.sum[j + kept];
            r.sum[j] = (upper ? r.sum[j + kept] : r.sum[j]) + __shfl_xor_sync(0xFFFFFFFFu, given, 4 * kept);
        }
    }
    float sum = r.sum[0];
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
    if (lane % 4 == 0)
        publish(exchanged(a, S::OUT) + head * HEAD_DIM + first + lane / 4, COPY, __fdividef(sum, total),
                S::parity(i, c.s.now.epoch));
}

/* The blocks that do not attend at short contexts come first. */
template <typename S> __device__ __forceinline__ void merge(const consumer &c, const arguments &a, int i) {
#pragma unroll 1
    for (int unit = gridDim.x - 1 - blockIdx.x + c.warp() * gridDim.x; unit < tile_of<S>::QUERIES / 8;
         unit += WARPS * gridDim.x)
        merge_unit<S>(c, a, unit, i);
}

/* Parts of splits are not written in every step, so their parities begin anew in each, and an odd number of uses must not end
 * with the parity of the next step's first. All of a vector that depends on every merge (reuse.c) says that nobody reads them
 * any more. S: this phase, whose S::of is the attention. */
template <typename S> __device__ __forceinline__ void close_parts(const consumer &c, const arguments &a) {
    typedef typename S::of of;
    const auto left = [&](int k) {
        const splits &cut = c.s.now.cut[of::cut(S::last(k))];
        return cut.n > 1 && cut.unit < tile_of<of>::UNITS;
    };
    bool some = false;
    for (int k = 0; k < S::LASTS; k++)
        some = some || left(k);
    if (!some)
        return;
    take<S::K, false>(c, polled(a, S::x_from(0)), S::x_parity(0, c.s.now.epoch), [](int, const float4 &) {});
    consumers_meet();
#pragma unroll 1
    for (int k = 0; k < S::LASTS; k++) {
        if (!left(k))
            continue;
        const place_of_attention where = place_in<of>(c.s.now.cut[of::cut(S::last(k))], false);
        for (int head = 0; head < where.n_heads; head++)
            for (int j = c.thread; j < tile_of<of>::PART; j += THREADS)
                publish(part_of<of>(a, S::last(k), where.first_head + head, where.split) + j, 0, 0.0f, 0);
    }
}
