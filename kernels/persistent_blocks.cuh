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

/* Four bits: element 2p in bits 4p .. 4p+3, element 2p+1 16 bits higher. High: bits for the same places, with those above them. A quant
 * is put into the mantissa of 1024, where it lies already if p is even; if p is odd, 4 bits higher, which saves a shift. */
template <int Type> __device__ __forceinline__ block_operand from_nibbles(u32 quants, u32 high, int block) {
    typedef block_format<Type> f;
    const u32 sixteenth = 0x2C002C00u, base = 0x64006400u;
    block_operand to;
#pragma unroll
    for (int p = 0; p < 4; p++) {
        const int at = p % 2 * 4; /* of the quant in the mantissa */
        u32 two = and_or(quants >> p / 2 * 8, 0x000F000Fu << at, base);
        const int left = 4 + at - f::HIGH * (4 * block + p);
        if (f::HIGH != 0)
            two = and_or(left > 0 ? high << left : high >> -left,
                         (f::HIGH == 1 ? 0x00100010u : 0x00300030u) << at, two);
        u32 &mine = to.a[p == 1 ? 2 : p == 2 ? 1 : p];
        if (at == 0)
            mine = two_f16_less(two, base + 0x00010001u * f::CENTRE);
        else /* (1024 + 16 q) / 16 - (64 + the centre) */
            mine = two_f16_fma(two, sixteenth, 0xD400D400u + 0x00100010u * f::CENTRE);
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

/* Operands of both blocks of a pair, ready, and the scales of the block that the lane's columns belong to: a sum is first * (its first
 * 16 elements) + last * (the others) + minimum * (the sum of x). */
struct block_part {
    block_operand even, odd;
    block_scale scale;
};

/* Operands of a pair of blocks. Each has zeros in the columns of the other block, so that both products add up in one register. */
struct pair_of_x {
    uint2 even, odd;
    __device__ __forceinline__ pair_of_x(const consumer &c, uint2 x) {
        const u32 keep = c.lane() / 8 % 2 ? 0u : 0xFFFFFFFFu; /* the even block's */
        even = {x.x & keep, x.y & keep}, odd = {x.x & ~keep, x.y & ~keep};
    }
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
            whole += s::wholes_at(Last, h) +
                     (((chunk * WARPS + warp) / 4 - s::first_whole(chunk)) * h + row) * s::f::WHOLE;
        block_part p;
        if constexpr (s::LOW == 8)
            p.even = from_bytes<Type>(*(const uint2 *)quants), p.odd = from_bytes<Type>(*(const uint2 *)next);
        else
            p.even = from_nibbles<Type>(*(const u32 *)quants, high, 0),
            p.odd = from_nibbles<Type>(*(const u32 *)next, high, 1);
        p.scale = scale_of<Type>(scales, whole, lane % 2);
        return p;
    }

    /* Adds what the lane has of the row's product with its warp's pair of x. */
    static __device__ __forceinline__ void add(float &sum, const block_part &p, const pair_of_x &x,
                                               float total) {
        float d[4] = {};
        mma<F16>(d, p.even.a[0], p.even.a[1], p.even.a[2], p.even.a[3], x.even.x, x.even.y);
        mma<F16>(d, p.odd.a[0], p.odd.a[1], p.odd.a[2], p.odd.a[3], x.odd.x, x.odd.y);
        if (Type == Q6_K)
            sum = fmaf(p.scale.first, d[0], fmaf(p.scale.last, d[3], sum));
        else
            sum = fmaf(p.scale.first, d[0] + d[3], sum);
        if (MINIMA)
            sum = fmaf(p.scale.minimum, total, sum);
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
        const pair_of_x pair(c, x);
        const float total = rows_of::MINIMA ? rows_of::total(x.x, x.y) : 0.0f;
#pragma unroll
        for (int t = 0; t < GROUP; t++)
            rows_of::add(tile[t], part[HERE ? t : 0], pair, total);
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
            const pair_of_x pair(c, x);
            const float total = rows_of::MINIMA ? rows_of::total(x.x, x.y) : 0.0f;
#pragma unroll
            for (int t = 0; t < Tiles; t++)
                rows_of::add(tile[t], rows_of::template part<Last>(c, from + t * bytes, chunk, TILE), pair,
                             total);
            if (!WHOLE)
                rows_of::add(part, rows_of::template part<Last>(c, from + whole * bytes, chunk, rest), pair,
                             total);
        }
        c.release();
    }
    __device__ __forceinline__ void add(consumer &c, const block_operand_of<K> &x) {
#pragma unroll 1
        for (int chunk = 0; chunk < rows_of::CHUNKS - 1; chunk++)
            add_chunk<false>(c, chunk, x.of(c, chunk));
        add_chunk<true>(c, rows_of::CHUNKS - 1, x.of(c, rows_of::CHUNKS - 1));
        if (!WHOLE)
#pragma unroll
            for (int t = 0; t < GROUP; t++)
                if (t == whole)
                    tile[t] = part;
    }
};

template <int Type, int K, int Tiles>
__device__ __forceinline__ void put_group(consumer &c, const block_operand_of<K> &x, int rows, float *to) {
    group_products<Type, K, Tiles> p(rows);
    p.add(c, x);
    put_some_sums<block_rows<Type, K>::group()>(p.tile, to, c.lane());
}

/* As multiply_tiles of persistent_product.cuh. */
template <int K, int Type, typename Meanwhile, typename Finish>
__device__ __forceinline__ void multiply_blocks(consumer &c, const held_group<Type, K> &held,
                                                const block_operand_of<K> &x, int n, Meanwhile meanwhile,
                                                Finish finish) {
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
            if (held.HERE) {
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
            finish(first + i, i < here, total_of(sum + min(i, here - 1) * STRIDE) / shrink<F16>());
        }
        c.batch ^= 1;
    }
}
