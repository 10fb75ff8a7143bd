/* Products of rows of block formats: quants become f16 without loss, tensor cores multiply them with the high and the low part of x,
 * and each block's sum is multiplied by its scale in float32. What a format takes off each quant, its centre or the block's minimum,
 * is multiplied by the sum of the block's part of x, which an MMA with ones gives. Where a row is one chunk the first group of tiles
 * is unpacked before x is there; all else waits in the ring.
 *
 * A quant is a subnormal f16 as it lies there, q times 2^-24 in the lowest bits and q times 2^-20 four bits higher, which tensor cores
 * multiply like any number: so a mask is all that it takes to unpack two of them. Where some of a lane's quants lie four bits
 * higher the elements of x for the others are multiplied by 16. All sums are so UNIT times what they stand for. */
#pragma once
#include "persistent_product.cuh"
#include "stream_blocks.cuh"

/* Eight quants of a lane as operand A: its registers are elements 0 and 1, 4 and 5, 2 and 3, 6 and 7. */
struct block_operand {
    u32 a[4];
};

/* Four bits: element 2p in bits 4p .. 4p+3, element 2p+1 16 bits higher. Where p is odd the quant stays four bits higher, which saves a
 * shift. High: bits for the same places, with those above them. */
template <int Type> __device__ __forceinline__ block_operand from_nibbles(u32 quants, u32 high, int block) {
    typedef block_format<Type> f;
    block_operand to;
#pragma unroll
    for (int p = 0; p < 4; p++) {
        const int at = p % 2 * 4;
        u32 two = quants >> p / 2 * 8 & 0x000F000Fu << at;
        const int left = 4 + at - f::HIGH * (4 * block + p);
        if (f::HIGH != 0)
            two = and_or(left > 0 ? high << left : high >> -left,
                         (f::HIGH == 1 ? 0x00100010u : 0x00300030u) << at, two);
        to.a[p == 1 ? 2 : p == 2 ? 1 : p] = two;
    }
    return to;
}

__device__ __forceinline__ block_operand from_bytes(uint2 quants) {
    return {{__byte_perm(quants.x, 0, 0x4140), __byte_perm(quants.y, 0, 0x4140),
             __byte_perm(quants.x, 0, 0x4342), __byte_perm(quants.y, 0, 0x4342)}};
}

/* The scales of the block that a lane's columns belong to: a sum is first * (its first 16 elements) + last * (the others) + minimum *
 * (the sum of x). Scales of Q4_K and Q5_K are 2^-24 of what they are, six bits taken for an f16. */
template <int Type>
__device__ __forceinline__ block_scale scale_of(const u8 *scales, const u8 *whole, bool odd) {
    return stored_scale<Type>(scales, whole, odd, [](u32 n) { return f16_f32((u16)n); });
}

/* Operands of both blocks of a pair, ready, and the scales of the lane's. */
struct block_part {
    block_operand even, odd;
    block_scale scale;
};

/* x for a pair of blocks of a format. */
template <int Type> struct pair_of_x {
    typedef block_format<Type> f;
    enum { NIBBLES = f::LOW == 4, MINIMA = Type == Q4_1 || Type == Q5_1 || Type == Q4_K || Type == Q5_K };
    uint2 even, odd; /* each has zeros in the columns of the other block, so that both products add up in one register */
    float from[4];   /* what a product begins with: less the centre times the sum of x, by halves of the block */
    float total;     /* the sum of x over the block of this lane's columns, for minima */

    __device__ __forceinline__ pair_of_x(const consumer &c, uint2 x) : from{}, total(0.0f) {
        if (NIBBLES)
            x.x = two_f16_fma(x.x, 0x4C004C00u, 0u); /* times 16 */
        const u32 keep = c.lane() / 8 % 2 ? 0u : 0xFFFFFFFFu; /* the even block's */
        even = {x.x & keep, x.y & keep}, odd = {x.x & ~keep, x.y & ~keep};
        const u32 one = 0x00010001u, higher = NIBBLES ? one << 4 : one;
        float sum[4] = {};
        mma<F16>(sum, one, one, higher, higher, x.x, x.y);
        if (f::CENTRE)
            from[0] = -(float)f::CENTRE * sum[0], from[3] = -(float)f::CENTRE * sum[1];
        if (MINIMA)
            total = sum[0] + sum[1];
    }
    /* By what sums are too small. */
    static __device__ __forceinline__ constexpr float unit() {
        return (NIBBLES ? 0x1p-20f : 0x1p-24f) * (f::WHOLE == 4 ? 0x1p-24f : 1.0f);
    }
};

template <int Type, int K> struct block_rows : stream_of<Type, K, WARPS> {
    typedef stream_of<Type, K, WARPS> s;
    typedef pair_of_x<Type> pair;

    /* A lane's part of row lane / 4 of a tile of `h` rows, of its warp's pair of a chunk. `h` is a constant where it matters: then all
     * places but the lane's are. */
    template <bool Last>
    static __device__ __forceinline__ block_part part(const consumer &c, const u8 *tile, int chunk, int h) {
        const int lane = c.lane(), warp = c.warp(), row = lane / 4;
        const u8 *quants = tile + warp * h * s::QUANTS + lane * s::LOW, *next = quants + h * s::QUANTS / 2;
        u32 high = 0;
        if constexpr (s::HIGH == 1) {
            high = *(const u16 *)(tile + s::high_at(Last, h) + warp * h * s::HIGHS + lane * 2);
            high = (high & 0xFFu) | (high & 0xFF00u) << 8;
        } else if constexpr (s::HIGH == 2)
            high = *(const u32 *)(tile + s::high_at(Last, h) + warp * h * s::HIGHS + lane * 4);
        const u8 *scales = tile + s::scales_at(Last, h) + (warp * h + row) * s::f::SCALES;
        const u8 *whole = tile;
        if constexpr (s::WHOLE != 0)
            whole += s::wholes_at(Last, h) +
                     (((chunk * WARPS + warp) / 4 - s::first_whole(chunk)) * h + row) * s::f::WHOLE;
        block_part p;
        if constexpr (s::LOW == 8)
            p.even = from_bytes(*(const uint2 *)quants), p.odd = from_bytes(*(const uint2 *)next);
        else
            p.even = from_nibbles<Type>(*(const u32 *)quants, high, 0),
            p.odd = from_nibbles<Type>(*(const u32 *)next, high, 1);
        p.scale = scale_of<Type>(scales, whole, lane % 2);
        return p;
    }

    /* Adds what the lane has of the row's product with its warp's pair of x. */
    static __device__ __forceinline__ void add(float &sum, const block_part &p, const pair &x) {
        float d[4] = {x.from[0], x.from[1], x.from[2], x.from[3]};
        mma<F16>(d, p.even.a[0], p.even.a[1], p.even.a[2], p.even.a[3], x.even.x, x.even.y);
        mma<F16>(d, p.odd.a[0], p.odd.a[1], p.odd.a[2], p.odd.a[3], x.odd.x, x.odd.y);
        if (Type == Q6_K)
            sum = fmaf(p.scale.first, d[0], fmaf(p.scale.last, d[3], sum));
        else
            sum = fmaf(p.scale.first, d[0] + d[3], sum);
        if (pair::MINIMA)
            sum = fmaf(p.scale.minimum, x.total, sum);
    }
};

/* What the four lanes of a row have of `Tiles` tiles, added up, to their rows of sum[][]: put_sums for fewer than four. */
template <int Tiles>
__device__ __forceinline__ void put_some_sums(const float (&tile)[GATHERED], float *to, int lane) {
    float mine;
    put_sums(tile, &mine, lane);
    if (lane % 2 * 2 + lane / 2 % 2 < Tiles)
        *to = mine;
}

/* The first group of a phase, unpacked before x is there, where a row is one chunk. */
template <int Type, int K> struct held_group {
    typedef block_rows<Type, K> rows_of;
    enum { GROUP = rows_of::group(), HERE = rows_of::CHUNKS == 1 };
    block_part part[HERE ? (int)GROUP : 1];

    __device__ __forceinline__ void load(consumer &c, int n) {
        if constexpr (HERE != 0) {
            const u8 *from = c.tile();
            if (elements<K>::here(c, 0))
#pragma unroll
                for (int t = 0; t < GROUP; t++)
                    part[t] = rows_of::template part<true>(c, from + t * TILE * rows_of::row_bytes(true), 0,
                                                           max(min(n - t * TILE, (int)TILE), 1));
            c.release();
        }
    }
    /* Of rows that are not there something is added up that nobody looks at. */
    __device__ __forceinline__ void multiply(const consumer &c, uint2 x, float (&tile)[GATHERED]) const {
        if (!elements<K>::here(c, 0))
            return;
        const typename rows_of::pair pair(c, x);
#pragma unroll
        for (int t = 0; t < GROUP; t++)
            rows_of::add(tile[t], part[HERE ? t : 0], pair);
    }
};

/* Operands of x where a row is several chunks: in shared memory, for a loop over them. Each lane writes both parts of what it loads, and
 * reads what its lane multiplies. */
template <int K> struct shared_operand : elements<K> {
    enum { AT_ONCE = 6 };
    uint2 *room; /* [chunk][lane], of this warp */

    __device__ __forceinline__ shared_operand(const consumer &c) : room(c.s.operand + c.warp() * 32) {}

    __device__ __forceinline__ void set(const consumer &c, int i, const float4 &x) {
        const two_parts<F16> parts(x);
        if (!elements<K>::loads(c, i))
            return;
        uint2 *to = room + elements<K>::pair_of(c, i) * WARPS * 32 + c.lane() % 16;
        to[0] = {parts.high[0], parts.high[1]};
        to[16] = {parts.rest[0], parts.rest[1]};
    }
    /* They stay there. */
    __device__ __forceinline__ uint2 kept() const { return {0, 0}; }
    __device__ __forceinline__ void take_again(uint2) {}
    /* Before of(). */
    static __device__ __forceinline__ void complete() { __syncwarp(); }
    __device__ __forceinline__ uint2 of(const consumer &c, int chunk) const {
        return room[chunk * WARPS * 32 + c.lane()];
    }
};

/* Operands of x where a row is many chunks and a block has few rows: read from the L2 cache in the loop over the chunks, so that they
 * take no room from the ring. A load is of two chunks, one for the lower lanes and one for the upper ones. */
template <int K, bool Clear> struct passing_operand : elements<K> {
    enum { LOADS = elements<K>::LOADS, AHEAD = 2 };
    const float *from;
    u32 parity;
    uint4 coming[AHEAD];

    __device__ __forceinline__ passing_operand(const consumer &) {}

    __device__ __forceinline__ void take_from(const float *vector, u32 use) { from = vector, parity = use; }
    static __device__ __forceinline__ void complete() {}

    __device__ __forceinline__ uint4 load(const consumer &c, int i) const {
        return load_relaxed(from + elements<K>::first(c, min(i, LOADS - 1)));
    }
    __device__ __forceinline__ void begin(const consumer &c) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            coming[i] = load(c, i);
    }
    /* Waits for load i, and with those after it asks again. */
    __device__ __forceinline__ void wait(const consumer &c, int i) {
        stopwatch watch(c.wait.waited);
        for (int polls = 0;; polls++) {
            u32 missing = 0;
            check(missing, coming[0], parity);
            if (!still_missing(missing))
                return;
            if (polls > MOST_POLLS)
                give_up(c.wait);
#pragma unroll
            for (int k = 0; k < AHEAD; k++)
                coming[k] = load(c, i + k);
        }
    }
    /* Chunks 2i and 2i + 1. */
    __device__ __forceinline__ void next(const consumer &c, int i, uint2 (&x)[2]) {
        wait(c, i);
        const two_parts<F16> parts(make_float4(unmarked<Clear>(coming[0].x), unmarked<Clear>(coming[0].y),
                                               unmarked<Clear>(coming[0].z), unmarked<Clear>(coming[0].w)));
#pragma unroll
        for (int k = 0; k + 1 < AHEAD; k++)
            coming[k] = coming[k + 1];
        coming[AHEAD - 1] = load(c, i + AHEAD);
        const bool low = elements<K>::low(c);
        u32 mine[2], theirs[2];
#pragma unroll
        for (int k = 0; k < 2; k++) {
            mine[k] = low ? parts.rest[k] : parts.high[k];
            theirs[k] = __shfl_xor_sync(0xFFFFFFFFu, low ? parts.high[k] : parts.rest[k], 16);
        }
        x[0] = {low ? theirs[0] : mine[0], low ? theirs[1] : mine[1]};
        x[1] = {low ? mine[0] : theirs[0], low ? mine[1] : theirs[1]};
    }
};

/* Where it is one: in registers. */
template <int K> struct only_operand : operand<K, F16> {
    __device__ __forceinline__ only_operand(const consumer &c) : operand<K, F16>(c) {}
    __device__ __forceinline__ uint2 kept() const { return {this->first[0], this->second[0]}; }
    __device__ __forceinline__ void take_again(uint2 x) { this->first[0] = x.x, this->second[0] = x.y; }
    static __device__ __forceinline__ void complete() {}
    __device__ __forceinline__ uint2 of(const consumer &, int) const {
        return {this->first[0], this->second[0]};
    }
};

template <int K, bool Several = (elements<K>::MINE > 1)> struct choose_operand {
    typedef shared_operand<K> type;
};
template <int K> struct choose_operand<K, false> { typedef only_operand<K> type; };
template <int K> using block_operand_of = typename choose_operand<K>::type;
template <int K, bool InLoop, bool Clear> struct choose_phase_operand { typedef block_operand_of<K> type; };
template <int K, bool Clear> struct choose_phase_operand<K, true, Clear> { typedef passing_operand<K, Clear> type; };

/* A group of tiles, as it comes through the ring: `Tiles` whole ones, and where a group has more, one of `rest` rows. No branches
 * lie between tiles: where one is not there something is multiplied that nobody looks at. */
template <int Type, int K, int Tiles> struct group_products {
    typedef block_rows<Type, K> rows_of;
    enum { GROUP = rows_of::group(), WHOLE = Tiles == GROUP };
    int whole, rest;
    float tile[GATHERED], part;

    __device__ __forceinline__ group_products(int rows)
        : whole(rows / TILE), rest(max(rows % TILE, 1)), tile{}, part(0.0f) {}

    template <bool Last> __device__ __forceinline__ void add_chunk(consumer &c, int chunk, uint2 x) {
        const u8 *from = c.tile();
        const int bytes = TILE * rows_of::row_bytes(Last);
        if (!Last || c.warp() < rows_of::pairs(true)) {
            const typename rows_of::pair pair(c, x);
#pragma unroll
            for (int t = 0; t < Tiles; t++)
                rows_of::add(tile[t], rows_of::template part<Last>(c, from + t * bytes, chunk, TILE), pair);
            if (!WHOLE)
                rows_of::add(part, rows_of::template part<Last>(c, from + whole * bytes, chunk, rest), pair);
        }
        c.release();
    }
    __device__ __forceinline__ void add_chunks(consumer &c, const block_operand_of<K> &x) {
#pragma unroll 1
        for (int chunk = 0; chunk < rows_of::CHUNKS - 1; chunk++)
            add_chunk<false>(c, chunk, x.of(c, chunk));
        add_chunk<true>(c, rows_of::CHUNKS - 1, x.of(c, rows_of::CHUNKS - 1));
    }
    template <bool Clear> __device__ __forceinline__ void add_chunks(consumer &c, passing_operand<K, Clear> &x) {
        enum { CHUNKS = rows_of::CHUNKS, LOADS = elements<K>::LOADS };
        uint2 two[2];
        x.begin(c);
#pragma unroll 1
        for (int i = 0; i < LOADS - 1; i++) {
            x.next(c, i, two);
            add_chunk<false>(c, 2 * i, two[0]);
            add_chunk<false>(c, 2 * i + 1, two[1]);
        }
        x.next(c, LOADS - 1, two);
        if (CHUNKS % 2 == 0)
            add_chunk<false>(c, CHUNKS - 2, two[0]);
        add_chunk<true>(c, CHUNKS - 1, two[(CHUNKS - 1) % 2]);
    }
    template <typename Operand> __device__ __forceinline__ void add(consumer &c, Operand &x) {
        add_chunks(c, x);
        if (!WHOLE)
#pragma unroll
            for (int t = 0; t < GROUP; t++)
                if (t == whole)
                    tile[t] = part;
    }
};

template <int Type, int K, int Tiles, typename Operand>
__device__ __forceinline__ void put_group(consumer &c, Operand &x, int rows, float *to) {
    group_products<Type, K, Tiles> p(rows);
    p.add(c, x);
    put_some_sums<block_rows<Type, K>::group()>(p.tile, to, c.lane());
}

/* As multiply_tiles of persistent_product.cuh. */
template <int K, int Type, typename Operand, typename Meanwhile, typename Finish>
__device__ __forceinline__ void multiply_blocks(consumer &c, const held_group<Type, K> &held, Operand &x, int n,
                                                Meanwhile meanwhile, Finish finish) {
    constexpr int GROUP = block_rows<Type, K>::group(), ROWS = GROUP * TILE;
    static_assert(GROUP >= 1 && BATCH % ROWS == 0, "shape");
    const int lane = c.lane(), warp = c.warp();
    const int place = (lane / 4 + TILE * (lane % 2 * 2 + lane / 2 % 2)) * STRIDE + warp;
    x.complete();
#pragma unroll 1
    for (int first = 0; first < n; first += BATCH) {
        const int here = min((int)BATCH, n - first);
        float *sum = c.s.sum[c.batch];
        int row = 0;
        if (first == 0) {
            if constexpr (held_group<Type, K>::HERE != 0) {
                float tile[GATHERED] = {};
                held.multiply(c, x.of(c, 0), tile);
                meanwhile();
                put_some_sums<GROUP>(tile, sum + place, lane);
                row = ROWS;
            } else
                meanwhile();
        }
#pragma unroll 1
        for (; row < here; row += ROWS)
            if (here - row >= ROWS)
                put_group<Type, K, GROUP>(c, x, ROWS, sum + place + row * STRIDE);
            else if (GROUP == 1 || here - row < TILE)
                put_group<Type, K, 0>(c, x, here - row, sum + place + row * STRIDE);
            else
                put_group<Type, K, GROUP - 1>(c, x, here - row, sum + place + row * STRIDE);
        consumers_meet();
        if (warp * 32 < here) {
            const int i = (int)c.thread;
            finish(first + i, i < here,
                   total_of(sum + min(i, here - 1) * STRIDE) * (1.0f / (shrink<F16>() * pair_of_x<Type>::unit())));
        }
        c.batch ^= 1;
    }
}
