/* Products of rows of block formats: quants become f16 without loss (q less its centre), tensor cores multiply them with the high and
 * the low part of x, and each block's sum is multiplied by its scale in float32. A block's minimum is multiplied by the sum of its
 * part of x, which an MMA with ones gives. Where a row is one chunk the first group of tiles is unpacked before x is there; all else
 * waits in the ring. */
#pragma once
#include "persistent_product.cuh"
#include "stream_blocks.cuh"

/* Eight quants of a lane as operand A: its registers are elements 0 and 1, 4 and 5, 2 and 3, 6 and 7. */
struct block_operand {
    u32 a[4];
};

/* Four bits: element 2p in bits 4p .. 4p+3, element 2p+1 16 bits higher. High: bits for the same places, with those above them. */
template <int Type> __device__ __forceinline__ block_operand from_nibbles(u32 quants, u32 high, int block) {
    typedef block_format<Type> f;
    const u32 offset = 0x64006400u + 0x00010001u * f::CENTRE; /* 1024 + the centre */
    block_operand to;
#pragma unroll
    for (int p = 0; p < 4; p++) {
        u32 two = and_or(quants >> 4 * p, 0x000F000Fu, 0x64006400u);
        const int left = 4 - f::HIGH * (4 * block + p); /* to bits 4 and 20 */
        if (f::HIGH != 0)
            two = and_or(left > 0 ? high << left : high >> -left, f::HIGH == 1 ? 0x00100010u : 0x00300030u, two);
        to.a[p == 1 ? 2 : p == 2 ? 1 : p] = two_f16_less(two, offset);
    }
    return to;
}

template <int Type> __device__ __forceinline__ block_operand from_bytes(uint2 quants) {
    const u32 offset = 0x64006400u + 0x00010001u * block_format<Type>::CENTRE, magic = 0x64646464u;
    return {{two_f16_less(__byte_perm(quants.x, magic, 0x4140), offset),
             two_f16_less(__byte_perm(quants.y, magic, 0x4140), offset),
             two_f16_less(__byte_perm(quants.x, magic, 0x4342), offset),
             two_f16_less(__byte_perm(quants.y, magic, 0x4342), offset)}};
}

/* The scales of the block that a lane's columns belong to: a sum is first * (its first 16 elements) + last * (the others) + minimum *
 * (the sum of x). */
struct block_scale {
    float first, last, minimum;
};

template <int Type> __device__ __forceinline__ block_scale scale_of(const u8 *scales, const u8 *whole, bool odd) {
    if constexpr (Type == Q6_K) {
        const u32 both = ((const u16 *)scales)[odd];
        const float d = f16_f32(*(const u16 *)whole);
        return {d * (float)(signed char)(both & 0xFFu), d * (float)(signed char)(both >> 8), 0.0f};
    } else if constexpr (Type == Q4_K || Type == Q5_K) {
        const u32 packed = ((const u16 *)scales)[odd], d_dmin = *(const u32 *)whole;
        const float scale = f16_f32((u16)(d_dmin & 0xFFFFu)) * (float)(packed & 63u);
        return {scale, scale, -(f16_f32((u16)(d_dmin >> 16)) * (float)(packed >> 6))};
    } else if constexpr (Type == Q4_1 || Type == Q5_1) {
        const u32 d_m = ((const u32 *)scales)[odd];
        const float scale = f16_f32((u16)(d_m & 0xFFFFu));
        return {scale, scale, f16_f32((u16)(d_m >> 16))};
    } else {
        const float scale = f16_f32(((const u16 *)scales)[odd]);
        return {scale, scale, 0.0f};
    }
}

/* Operands of both blocks of a pair, ready, and the scales of the lane's. */
struct block_part {
    block_operand even, odd;
    block_scale scale;
};

template <int Type, int K> struct block_rows : stream_of<Type, K, WARPS> {
    typedef stream_of<Type, K, WARPS> s;
    enum { MINIMA = Type == Q4_1 || Type == Q5_1 || Type == Q4_K || Type == Q5_K };

    /* The sum of x over the block of a lane's columns, from its warp's pair. */
    static __device__ __forceinline__ float total(u32 first, u32 second) {
        const u32 ones = 0x3C003C00u;
        float sum[4] = {};
        mma<F16>(sum, ones, ones, ones, ones, first, second);
        return sum[0] + sum[1];
    }

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
            whole += s::wholes_at(Last, h) + (((chunk * WARPS + warp) / 4 - s::first_whole(chunk)) * h + row) * s::f::WHOLE;
        block_part p;
        if constexpr (s::LOW == 8)
            p.even = from_bytes<Type>(*(const uint2 *)quants), p.odd = from_bytes<Type>(*(const uint2 *)next);
        else
            p.even = from_nibbles<Type>(*(const u32 *)quants, high, 0), p.odd = from_nibbles<Type>(*(const u32 *)next, high, 1);
        p.scale = scale_of<Type>(scales, whole, lane % 2);
        return p;
    }

    /* What the lane has of the row's product with its warp's pair of x. */
    static __device__ __forceinline__ float product(const consumer &c, const block_part &p, u32 first, u32 second, float total) {
        const bool is_odd = c.lane() % 2;
        float even[4] = {}, odd[4] = {};
        mma<F16>(even, p.even.a[0], p.even.a[1], p.even.a[2], p.even.a[3], first, second);
        mma<F16>(odd, p.odd.a[0], p.odd.a[1], p.odd.a[2], p.odd.a[3], first, second);
        float sum = p.scale.first * (is_odd ? odd[0] : even[0]);
        sum = fmaf(p.scale.last, is_odd ? odd[3] : even[3], sum);
        return MINIMA ? fmaf(p.scale.minimum, total, sum) : sum;
    }

    template <bool Last>
    static __device__ __forceinline__ float tile(const consumer &c, const u8 *tile, int chunk, int h, uint2 x, float total) {
        return product(c, part<Last>(c, tile, chunk, h), x.x, x.y, total);
    }
};

/* What the four lanes of a row have of `Tiles` tiles, added up, to their rows of sum[][]: put_sums for fewer than four. */
template <int Tiles> __device__ __forceinline__ void put_some_sums(const float (&tile)[GATHERED], float *to, int lane) {
    float mine;
    put_sums(tile, &mine, lane);
    if (lane % 2 * 2 + lane / 2 % 2 < Tiles)
        *to = mine;
}

/* How many tiles of a group of `rows` are whole, and the rows of the last one that is not. */
template <int Group> struct group_of {
    int whole, rest;
    __device__ __forceinline__ group_of(int rows)
        : whole(min(rows / TILE, Group)), rest(rows >= Group * TILE ? 0 : rows % TILE) {}
};

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
    __device__ __forceinline__ void multiply(const consumer &c, const operand<K, F16> &x, float (&tile)[GATHERED]) const {
        if (!elements<K>::here(c, 0))
            return;
        const float total = rows_of::MINIMA ? rows_of::total(x.first[0], x.second[0]) : 0.0f;
#pragma unroll
        for (int t = 0; t < GROUP; t++)
            tile[t] = rows_of::product(c, part[HERE ? t : 0], x.first[0], x.second[0], total);
    }
};

/* A lane's operands of x, by chunk: in registers if there is one chunk, else in shared memory, for a loop over them. */
template <int K> struct operands {
    const operand<K, F16> &x;
    uint2 *room; /* [chunk][warp][lane] */

    __device__ __forceinline__ operands(const consumer &c, const operand<K, F16> &x)
        : x(x), room(c.s.operand + c.warp() * 32 + c.lane()) {
        if constexpr (elements<K>::MINE > 1)
#pragma unroll
            for (int i = 0; i < elements<K>::MINE; i++)
                room[i * WARPS * 32] = {x.first[i], x.second[i]};
    }
    __device__ __forceinline__ uint2 of(int chunk) const {
        if constexpr (elements<K>::MINE > 1)
            return room[chunk * WARPS * 32];
        return {x.first[0], x.second[0]};
    }
};

/* A group of tiles, as it comes through the ring: all whole, or the last of a share. */
template <int Type, int K, bool Whole> struct group_products {
    typedef block_rows<Type, K> rows_of;
    enum { GROUP = rows_of::group() };
    group_of<GROUP> group;
    float tile[GATHERED], rest;

    __device__ __forceinline__ group_products(int rows) : group(rows), tile{}, rest(0.0f) {}

    template <bool Last> __device__ __forceinline__ void add_chunk(consumer &c, int chunk, uint2 x) {
        const u8 *from = c.tile();
        const int bytes = TILE * rows_of::row_bytes(Last);
        if (!Last || c.warp() < rows_of::pairs(true)) {
            const float total = rows_of::MINIMA ? rows_of::total(x.x, x.y) : 0.0f;
            /* in the last group whole tiles are multiplied whether they are there or not, without branches between them */
            if (Whole || group.whole > 0)
#pragma unroll
                for (int t = 0; t < GROUP - !Whole; t++) {
                    const float sum = rows_of::template tile<Last>(c, from + t * bytes, chunk, TILE, x, total);
                    tile[t] += Whole || t < group.whole ? sum : 0.0f;
                }
            if (!Whole && group.rest > 0)
                rest += rows_of::template tile<Last>(c, from + group.whole * bytes, chunk, group.rest, x, total);
        }
        c.release();
    }
    __device__ __forceinline__ void add(consumer &c, const operands<K> &x) {
#pragma unroll 1
        for (int chunk = 0; chunk < rows_of::CHUNKS - 1; chunk++)
            add_chunk<false>(c, chunk, x.of(chunk));
        add_chunk<true>(c, rows_of::CHUNKS - 1, x.of(rows_of::CHUNKS - 1));
        if (!Whole)
#pragma unroll
            for (int t = 0; t < GROUP; t++)
                if (t == group.whole)
                    tile[t] = rest;
    }
};

template <int Type, int K, bool Whole>
__device__ __forceinline__ void put_group(consumer &c, const operands<K> &x, int rows, float *to) {
    group_products<Type, K, Whole> p(rows);
    p.add(c, x);
    put_some_sums<block_rows<Type, K>::group()>(p.tile, to, c.lane());
}

/* As multiply_tiles of persistent_product.cuh. */
template <int K, int Type, typename Meanwhile, typename Finish>
__device__ __forceinline__ void multiply_blocks(consumer &c, const held_group<Type, K> &held, const operand<K, F16> &x, int n,
                                                Meanwhile meanwhile, Finish finish) {
    constexpr int GROUP = block_rows<Type, K>::group(), ROWS = GROUP * TILE;
    static_assert(GROUP >= 1 && BATCH % ROWS == 0, "shape");
    const int lane = c.lane(), warp = c.warp();
    const int place = (lane / 4 + TILE * (lane % 2 * 2 + lane / 2 % 2)) * STRIDE + warp;
    const operands<K> all(c, x);
#pragma unroll 1
    for (int first = 0; first < n; first += BATCH) {
        const int here = min((int)BATCH, n - first);
        float *sum = c.s.sum[c.batch];
        int row = 0;
        if (first == 0) {
            if (held.HERE) {
                float tile[GATHERED] = {};
                held.multiply(c, x, tile);
                meanwhile();
                put_some_sums<GROUP>(tile, sum + place, lane);
                row = ROWS;
            } else
                meanwhile();
        }
#pragma unroll 1
        for (; row < here; row += ROWS)
            if (here - row >= ROWS)
                put_group<Type, K, true>(c, all, ROWS, sum + place + row * STRIDE);
            else
                put_group<Type, K, false>(c, all, here - row, sum + place + row * STRIDE);
        consumers_meet();
        if (warp * 32 < here) {
            const int i = (int)c.thread;
            finish(first + i, i < here, total_of(sum + min(i, here - 1) * STRIDE) / shrink<F16>());
        }
        c.batch ^= 1;
    }
}
