/* Products of rows of block formats, on tensor cores that multiply bytes. A quant is the upper bits of a byte, which a mask and at most a
 * shift bring about; quants with a centre are signed, so that nothing is taken off afterwards. x is an integer of 22 bits times a factor of its
 * warp (digits.cuh), in three digits that have a column each: products and sums of a block of 32 are exact. Then a block's sum
 * becomes a float and is multiplied by the block's scale. Minima are multiplied by the sum of the block's part of x, which an MMA
 * with ones gives. Where a row is one chunk the first group of tiles is unpacked before x is there; all else waits in the ring.
 *
 * An MMA takes two tiles of 8 rows and one block. Four columns, three digits and nothing, are of each block of a pair; x of the other
 * block is zero, so that both add up in one register. Where the halves of a block have scales of their own (Q6_K) the columns are of
 * the halves instead, and each block has a sum. */
#pragma once
#include "digits.cuh"
#include "persistent_product.cuh"
#include "stream_blocks.cuh"

/* What scales do to sums. Q6_K: other * (first * (even block) + last * (odd block)); else first * sum + other * (sum of x). */
struct factors {
    float first, last, other;
};

/* Quants of a tile as a lane multiplies them, elements of the first half of a block and of the second, and factors of what
 * the lane's columns belong to. */
struct block_part {
    u32 even[2], odd[2];
    factors by;
};

/* Of the 4 bits of quants in the upper half of a byte and those below them, both halves of a block. */
template <int Type>
__device__ __forceinline__ void from_nibbles(u32 quants, u32 below_first, u32 below_second, u32 (&to)[2]) {
    to[0] = quants << 4 & 0xF0F0F0F0u, to[1] = quants & 0xF0F0F0F0u;
    if (block_format<Type>::HIGH != 0) {
        const u32 mask = block_format<Type>::HIGH == 1 ? 0x08080808u : 0x0C0C0C0Cu;
        to[0] = and_or(below_first, mask, to[0]), to[1] = and_or(below_second, mask, to[1]);
    }
}

/* `second`: the odd block, or the second half, is the one of this lane's columns. Scales of Q4_K and Q5_K are 2^-24 of what
 * they are, six bits taken for an f16. */
template <int Type>
__device__ __forceinline__ factors factors_of(const u8 *scales, const u8 *whole, bool second) {
    if constexpr (Type == Q6_K) {
        const u32 four = *(const u32 *)scales;
        return {(float)signed_byte(four, second), (float)signed_byte(four, 2 + second),
                f16_f32(*(const u16 *)whole)};
    } else {
        const block_scale s = stored_scale<Type>(scales, whole, second, [](u32 n) { return f16_f32((u16)n); });
        return {s.first, s.first, s.minimum};
    }
}

/* x for a pair of blocks of a format. */
template <int Type> struct pair_of_x {
    typedef block_format<Type> f;
    enum { MINIMA = Type == Q4_1 || Type == Q5_1 || Type == Q4_K || Type == Q5_K, BITS = f::LOW + f::HIGH };
    uint2 even, odd;
    float total; /* the digits of this lane's columns, added up over the block: for minima */

    /* `x`: what the lane's column is made of, of its block's halves, or of its half of both blocks. */
    __device__ __forceinline__ pair_of_x(const consumer &c, uint2 x) : total(0.0f) {
        const bool upper = c.lane() >= 16, digit = c.lane() / 4 % 4 < 3;
        const u32 keep = digit && !upper ? 0xFFFFFFFFu : 0u, other = digit && upper ? 0xFFFFFFFFu : 0u;
        if (Type == Q6_K)
            even = {x.x & keep, x.x & other}, odd = {x.y & keep, x.y & other};
        else
            even = {x.x & keep, x.y & keep}, odd = {x.x & other, x.y & other};
        if (MINIMA) {
            const u32 one = 0x01010101u << (8 - BITS);
            i32 sum[4] = {};
            mma_u8(sum, one, one, one, one, even.x, even.y);
            mma_u8(sum, one, one, one, one, odd.x, odd.y);
            total = sum_of(sum[0], sum[1]);
        }
    }
    static __device__ __forceinline__ void multiply(i32 (&sum)[4], const u32 (&a)[2], const u32 (&b)[2], uint2 x) {
        if (MINIMA)
            mma_u8(sum, a[0], b[0], a[1], b[1], x.x, x.y);
        else
            mma_s8(sum, a[0], b[0], a[1], b[1], x.x, x.y);
    }
    /* Of two digits. */
    static __device__ __forceinline__ float sum_of(i32 low, i32 high) { return (float)(low + 256 * high); }

    /* By what sums are too large. */
    static __device__ __forceinline__ constexpr float unit() {
        return (float)(1 << (8 - BITS)) * (f::WHOLE == 4 ? 0x1p-24f : 1.0f);
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
        const u8 *quants = tile + warp * h * s::QUANTS + lane * 2 * s::LOW;
        const u8 *below = tile + s::high_at(Last, h) + warp * h * s::HIGHS;
        const u8 *scales = tile + s::scales_at(Last, h) + (warp * h + row) * s::f::SCALES;
        const u8 *whole = tile;
        if constexpr (s::WHOLE != 0)
            whole += s::wholes_at(Last, h) +
                     (((chunk * WARPS + warp) / 4 - s::first_whole(chunk)) * h + row) * s::f::WHOLE;
        block_part p;
        if constexpr (s::LOW == 8) {
            const uint4 q = *(const uint4 *)quants;
            p.even[0] = q.x, p.even[1] = q.y, p.odd[0] = q.z, p.odd[1] = q.w;
        } else {
            const uint2 q = *(const uint2 *)quants;
            u32 b = 0;
            if constexpr (s::HIGH == 1)
                b = *(const u32 *)(below + lane / 2 * 4) >> lane % 2 * 4;
            else if constexpr (s::HIGH == 2)
                b = *(const u32 *)(below + lane * 4);
            const bool one = s::HIGH == 1;
            from_nibbles<Type>(q.x, one ? b << 3 : b, b << 2, p.even);
            from_nibbles<Type>(q.y, one ? b << 1 : b >> 2, one ? b : b >> 4, p.odd);
        }
        p.by = factors_of<Type>(scales, whole, lane / 2 % 2);
        return p;
    }

    static __device__ __forceinline__ void scale(float &sum, const factors &by, float even, float odd, float total) {
        if (Type == Q6_K)
            sum = fmaf(by.other, fmaf(by.first, even, by.last * odd), sum);
        else
            sum = fmaf(by.first, even, sum);
        if (pair::MINIMA)
            sum = fmaf(by.other, total, sum);
    }
    /* Adds what the lane has of two tiles' products with its warp's pair of x. */
    static __device__ __forceinline__ void add(float &sum, float &next, const block_part &p, const block_part &q, const pair &x) {
        i32 even[4] = {}, odd[4] = {};
        pair::multiply(even, p.even, q.even, x.even);
        pair::multiply(Type == Q6_K ? odd : even, p.odd, q.odd, x.odd);
        scale(sum, p.by, pair::sum_of(even[0], even[1]), pair::sum_of(odd[0], odd[1]), x.total);
        scale(next, q.by, pair::sum_of(even[2], even[3]), pair::sum_of(odd[2], odd[3]), x.total);
    }
    /* The same for N tiles, of which part(t) is unpacked when it is needed. */
    template <int N, typename Part> static __device__ __forceinline__ void add_all(float (&sum)[GATHERED], const pair &x, Part part) {
#pragma unroll
        for (int t = 0; t < N; t += 2) {
            float none = 0.0f;
            const block_part p = part(t);
            if (t + 1 < N)
                add(sum[t], sum[t + 1 < N ? t + 1 : t], p, part(t + 1 < N ? t + 1 : t), x);
            else
                add(sum[t], none, p, p, x);
        }
    }
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
    template <typename Operand>
    __device__ __forceinline__ void multiply(const consumer &c, const Operand &x, float (&tile)[GATHERED]) const {
        if (!elements<K>::here(c, 0))
            return;
        const typename rows_of::pair pair(c, x.template of<Type>(c, 0));
        rows_of::template add_all<GROUP>(tile, pair, [&](int t) { return part[HERE ? t : 0]; });
#pragma unroll
        for (int t = 0; t < GROUP; t++)
            tile[t] *= x.unit;
    }
};

/* Digits of a warp's x in shared memory: [chunk][block][digit][quarter][half of the block], with room for a fourth digit. */
template <int K> struct digits : elements<K> {
    u32 *room;
    float unit;

    __device__ __forceinline__ digits(const consumer &c)
        : room((u32 *)(c.s.operand + c.warp() * 32)), unit(0.0f) {}

    __device__ __forceinline__ u32 *chunk(int i) const { return room + i * WARPS * 64; }

    /* Of the largest element of all lanes; what a digit of this lane's columns counts. */
    __device__ __forceinline__ float factor_for(const consumer &c, float largest) {
        const fixed_point numbers(warp_largest(__float_as_uint(largest)));
        unit = c.lane() % 2 ? numbers.unit * 65536.0f : numbers.unit;
        return numbers.factor;
    }
    /* Where a lane's load goes, in its chunk. */
    static __device__ __forceinline__ int place(const consumer &c) {
        const int column = c.lane() / 4 % 4;
        return column / 2 * 32 + c.lane() % 4 * 2 + column % 2;
    }
    /* After __syncwarp. */
    template <int Type> __device__ __forceinline__ uint2 of(const consumer &c, int i) const {
        if (Type == Q6_K) {
            const u32 *from = chunk(i) + c.lane() % 16 * 2 + c.lane() / 16;
            return {from[0], from[32]};
        }
        return *(const uint2 *)(chunk(i) + c.lane() * 2);
    }
};

/* x taken before its rows are multiplied: digits of all chunks. */
template <int K> struct taken_operand : digits<K> {
    enum { AT_ONCE = 6, LOADS = elements<K>::LOADS };
    float4 taken[LOADS];

    __device__ __forceinline__ taken_operand(const consumer &c) : digits<K>(c), taken{} {}

    __device__ __forceinline__ void set(const consumer &c, int i, const float4 &x) {
        if (elements<K>::loads(c, i))
            taken[i] = x;
    }
    /* When all are set. */
    __device__ __forceinline__ void finish(const consumer &c) {
        float largest = 0.0f;
#pragma unroll
        for (int i = 0; i < LOADS; i++)
            largest = larger_or_nan(largest, largest_of(taken[i]));
        const float factor = this->factor_for(c, largest);
        const int at = this->place(c);
#pragma unroll
        for (int i = 0; i < LOADS; i++)
            if (elements<K>::SHARED ? elements<K>::loads(c, i) : c.lane() < 16)
                put_digits(taken[i], factor, this->chunk(elements<K>::pair_of(c, i)) + at);
        __syncwarp();
    }
    /* They stay there. */
    __device__ __forceinline__ uint2 kept() const { return {__float_as_uint(this->unit), 0}; }
    __device__ __forceinline__ void take_again(uint2 x) { this->unit = bits_f32(x.x); }
};

/* Where a row is many chunks and a block has few rows: x is read from the L2 cache in the loop over the chunks, so that it
 * takes little room from the ring. A load is of two chunks, one for the lower lanes and one for the upper ones. */
template <int K, bool Clear> struct passing_operand : digits<K> {
    enum { LOADS = elements<K>::LOADS, AHEAD = 2 };
    const float *from;
    u32 parity;
    uint4 coming[AHEAD];

    __device__ __forceinline__ passing_operand(const consumer &c) : digits<K>(c) {}

    __device__ __forceinline__ void take_from(const float *vector, u32 use) { from = vector, parity = use; }

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
    /* Chunks 2i and 2i + 1, to places 0 and 1. All lanes have read what was there. */
    __device__ __forceinline__ void next(const consumer &c, int i) {
        wait(c, i);
        const float4 x = make_float4(unmarked<Clear>(coming[0].x), unmarked<Clear>(coming[0].y),
                                     unmarked<Clear>(coming[0].z), unmarked<Clear>(coming[0].w));
#pragma unroll
        for (int k = 0; k + 1 < AHEAD; k++)
            coming[k] = coming[k + 1];
        coming[AHEAD - 1] = load(c, i + AHEAD);
        const float factor = this->factor_for(c, largest_of(x));
        put_digits(x, factor, this->chunk(elements<K>::low(c)) + this->place(c));
        __syncwarp();
    }
};

template <int K, bool InLoop, bool Clear> struct choose_phase_operand { typedef taken_operand<K> type; };
template <int K, bool Clear> struct choose_phase_operand<K, true, Clear> { typedef passing_operand<K, Clear> type; };

/* A group of tiles, as it comes through the ring: `Tiles` whole ones, and where a group has more, one of `rest` rows. No branches
 * lie between tiles: where one is not there something is multiplied that nobody looks at. */
template <int Type, int K, int Tiles> struct group_products {
    typedef block_rows<Type, K> rows_of;
    enum { GROUP = rows_of::group(), WHOLE = Tiles == GROUP, PARTS_HERE = WHOLE ? Tiles : Tiles + 1 };
    int whole, rest;
    float tile[GATHERED];    /* the last one of PARTS_HERE is that of `rest` rows */
    float digits[GATHERED]; /* of the same, since the last fold() */

    __device__ __forceinline__ group_products(int rows)
        : whole(rows / TILE), rest(max(rows % TILE, 1)), tile{}, digits{} {}

    template <bool Last> __device__ __forceinline__ void add_chunk(consumer &c, int chunk, uint2 x) {
        const u8 *from = c.tile();
        const int bytes = TILE * rows_of::row_bytes(Last);
        if (!Last || c.warp() < rows_of::pairs(true)) {
            const typename rows_of::pair pair(c, x);
            rows_of::template add_all<PARTS_HERE>(digits, pair, [&](int t) {
                return t < Tiles ? rows_of::template part<Last>(c, from + t * bytes, chunk, TILE)
                                 : rows_of::template part<Last>(c, from + whole * bytes, chunk, rest);
            });
        }
        c.release();
    }
    /* The digits count `unit`. */
    __device__ __forceinline__ void fold(float unit) {
#pragma unroll
        for (int t = 0; t < PARTS_HERE; t++)
            tile[t] = fmaf(digits[t], unit, tile[t]), digits[t] = 0.0f;
    }
    __device__ __forceinline__ void add_chunks(consumer &c, const taken_operand<K> &x) {
#pragma unroll 1
        for (int chunk = 0; chunk < rows_of::CHUNKS - 1; chunk++)
            add_chunk<false>(c, chunk, x.template of<Type>(c, chunk));
        add_chunk<true>(c, rows_of::CHUNKS - 1, x.template of<Type>(c, rows_of::CHUNKS - 1));
        fold(x.unit);
    }
    template <bool Clear> __device__ __forceinline__ void add_chunks(consumer &c, passing_operand<K, Clear> &x) {
        enum { CHUNKS = rows_of::CHUNKS, LOADS = elements<K>::LOADS };
        x.begin(c);
#pragma unroll 1
        for (int i = 0; i < LOADS - 1; i++) {
            x.next(c, i);
            add_chunk<false>(c, 2 * i, x.template of<Type>(c, 0));
            add_chunk<false>(c, 2 * i + 1, x.template of<Type>(c, 1));
            fold(x.unit);
        }
        x.next(c, LOADS - 1);
        if (CHUNKS % 2 == 0)
            add_chunk<false>(c, CHUNKS - 2, x.template of<Type>(c, 0));
        add_chunk<true>(c, CHUNKS - 1, x.template of<Type>(c, (CHUNKS - 1) % 2));
        fold(x.unit);
    }
    template <typename Operand> __device__ __forceinline__ void add(consumer &c, Operand &x) {
        add_chunks(c, x);
        if (!WHOLE)
#pragma unroll
            for (int t = 0; t < GROUP; t++)
                if (t == whole)
                    tile[t] = tile[PARTS_HERE - 1];
    }
};

template <int Type, int K, int Tiles, typename Operand>
__device__ __forceinline__ void put_group(consumer &c, Operand &x, int rows, float *to) {
    group_products<Type, K, Tiles> p(rows);
    p.add(c, x);
    put_tiles(p.tile, to, c.lane(), block_rows<Type, K>::group() * TILE);
}

/* As multiply_tiles of persistent_product.cuh. */
template <int K, int Type, typename Operand, typename Meanwhile, typename Finish>
__device__ __forceinline__ void multiply_blocks(consumer &c, const held_group<Type, K> &held, Operand &x, int n,
                                                Meanwhile meanwhile, Finish finish) {
    constexpr int GROUP = block_rows<Type, K>::group(), ROWS = GROUP * TILE;
    static_assert(GROUP >= 1 && BATCH % ROWS == 0, "shape");
    const int lane = c.lane(), warp = c.warp();
#pragma unroll 1
    for (int first = 0; first < n; first += BATCH) {
        const int here = min((int)BATCH, n - first);
        float *sum = c.s.sum[c.batch], *own = sum + c.places.sum; /* of all warps; of this lane */
        int row = 0;
        if (first == 0) {
            if constexpr (held_group<Type, K>::HERE != 0) {
                float tile[GATHERED] = {};
                held.multiply(c, x, tile);
                meanwhile();
                put_tiles(tile, own, lane, ROWS);
                row = ROWS;
            } else
                meanwhile();
        }
#pragma unroll 1
        for (; row < here; row += ROWS)
            if (here - row >= ROWS)
                put_group<Type, K, GROUP>(c, x, ROWS, own + row * STRIDE);
            else if (GROUP == 1 || here - row < TILE)
                put_group<Type, K, 0>(c, x, here - row, own + row * STRIDE);
            else
                put_group<Type, K, GROUP - 1>(c, x, here - row, own + row * STRIDE);
        consumers_meet();
        if (warp * 32 < here) {
            const int i = (int)c.thread;
            finish(first + i, i < here,
                   total_of(sum + min(i, here - 1) * STRIDE) * (1.0f / pair_of_x<Type>::unit()));
        }
        c.batch ^= 1;
    }
}
