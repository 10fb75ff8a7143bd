/* Products of rows of block formats, on tensor cores that multiply bytes. A quant is the upper bits of a byte, which a mask and at most a
 * shift bring about; quants with a centre are signed, so that nothing is taken off afterwards. x is an integer of 22 bits times a factor of its
 * warp (digits.cuh), in three digits that have a column each: products and sums of a block of 32 are exact. Then a block's sum
 * becomes a float and is multiplied by the block's scale. Minima are multiplied by the sum of the block's part of x, which an MMA
 * with ones gives. Where there are many tiles that sum is made once for all of them; and where a byte is two quants and no more, x gets four
 * digits, so that nothing is shifted. The first tiles are unpacked before x is there: of rows of one chunk whole groups of them, of longer rows
 * the first chunks; all else waits in the ring.
 *
 * An MMA takes a tile of 8 rows, of the even block in its rows 0 to 7, of the odd one in 8 to 15. Four columns, three digits and nothing or
 * four of them, are of each block; half of the result, a block times the other one's x, is of no use, but so a lane's loads are its operand as
 * they are. Where the halves of a block have scales of their own (Q6_K) an MMA takes one block of two tiles, the columns are of its halves,
 * x of the other half is zero, and each block has a sum. */
#pragma once
#include "digits.cuh"
#include "persistent_product.cuh"
#include "stream_blocks.cuh"

/* What is made of x: three digits; besides, what each block adds up to, for minima; or four digits for quants that are not shifted
 * (put_four_digits), and that. The more tiles it is multiplied by the more it pays. */
enum form { IN_THREE, ADDED_UP, IN_FOUR };

/* Of the 4 bits of quants in the upper half of a byte and those below them, both halves of a block. */
template <int Type, form Form>
__device__ __forceinline__ void from_nibbles(u32 quants, u32 below_first, u32 below_second, u32 (&to)[2]) {
    if (Form == IN_FOUR) {
        to[0] = quants & 0x0F0F0F0Fu, to[1] = quants;
        return;
    }
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

/* MINIMA: are there any? PAYING: what pays where a block has many tiles. */
template <int Type> struct block_kind {
    enum { MINIMA = Type == Q4_1 || Type == Q5_1 || Type == Q4_K || Type == Q5_K };
    static constexpr form PAYING = Type == Q4_1 || Type == Q4_K ? IN_FOUR : MINIMA ? ADDED_UP : IN_THREE;
};

/* That of a phase. */
template <typename S> __device__ constexpr form form_of() {
    enum { MANY = 8 }; /* tiles */
    return S::TILES < MANY || S::X_IN_LOOP ? IN_THREE : block_kind<S::WEIGHT>::PAYING;
}

/* What a lane has of its warp's x of a chunk: what its column is made of, of its block's halves, or of its half of both blocks; and of the
 * sum of its block's x, times 16, what its columns count. */
struct chunk_of_x {
    uint2 digits;
    float total;
};

/* x for a pair of blocks of a format. */
template <int Type, form Form> struct pair_of_x {
    typedef block_format<Type> f;
    enum { MINIMA = block_kind<Type>::MINIMA, BITS = f::LOW + f::HIGH };
    uint2 even, odd; /* only where halves have scales of their own; else `even` is of both blocks */
    float total;

    __device__ __forceinline__ pair_of_x(const consumer &c, const chunk_of_x &its)
        : total(BITS == 4 ? its.total : its.total * (16.0f / (1 << BITS))) {
        const uint2 x = its.digits;
        const u32 keep = c.lane() < 16 ? 0xFFFFFFFFu : 0u;
        if (Type == Q6_K)
            even = {x.x & keep, x.x & ~keep}, odd = {x.y & keep, x.y & ~keep};
        else
            even = odd = x;
        if (MINIMA && Form == IN_THREE) {
            const u32 one = 0x01010101u << (8 - BITS);
            i32 sum[4] = {};
            mma_u8(sum, one, one, one, one, x.x, x.y);
            total = sum_of(sum[0], sum[1]);
        }
    }
    /* `a`: halves of a block of rows 0 to 7 of the MMA, b: of rows 8 to 15. */
    static __device__ __forceinline__ void multiply(i32 (&sum)[4], const u32 (&a)[2], const u32 (&b)[2], uint2 x) {
        if (MINIMA)
            mma_u8(sum, a[0], b[0], a[1], b[1], x.x, x.y);
        else
            mma_s8(sum, a[0], b[0], a[1], b[1], x.x, x.y);
    }
    /* Of two digits. */
    static __device__ __forceinline__ float sum_of(i32 low, i32 high) { return (float)(low + 256 * high); }

    /* What sums count whose digits count `unit`: quants are the upper bits of a byte, scales of K formats 2^24 times less than they
     * mean. */
    static __device__ __forceinline__ constexpr float whole(float unit) {
        return unit * ((f::WHOLE == 4 ? 0x1p24f : 1.0f) / (float)(1 << (8 - BITS)));
    }
};

template <int Type, int K, int Usual, form Form> struct block_rows : stream_of<Type, K, WARPS, Usual> {
    typedef stream_of<Type, K, WARPS, Usual> s;
    typedef pair_of_x<Type, Form> pair;

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
            whole += s::wholes_at(Last, h) + (s::whole_of(Last ? (int)s::CHUNKS - 1 : chunk, warp) * h + row) * s::f::WHOLE;
        block_part p;
        if constexpr (s::LOW == 8) {
            const uint4 q = *(const uint4 *)quants;
            p.even[0] = q.x, p.odd[0] = q.y, p.even[1] = q.z, p.odd[1] = q.w;
        } else {
            const uint2 q = *(const uint2 *)quants;
            u32 b = 0;
            if constexpr (s::HIGH == 1)
                b = *(const u32 *)(below + lane / 2 * 4) >> lane % 2 * 4;
            else if constexpr (s::HIGH == 2)
                b = *(const u32 *)(below + lane * 4);
            const bool one = s::HIGH == 1;
            from_nibbles<Type, Form>(q.x, one ? b << 3 : b, b << 2, p.even);
            from_nibbles<Type, Form>(q.y, one ? b << 1 : b >> 2, one ? b : b >> 4, p.odd);
        }
        p.by = factors_of<Type>(scales, whole, lane / 2 % 2);
        return p;
    }

    /* Adds what the lane has of a tile's product with its warp's pair of x: MMA rows 0 to 7 are of the even block, 8 to 15 of the odd one, and
     * so are the columns, so that half of the MMA's result is of no use. */
    static __device__ __forceinline__ void add(const consumer &c, float &sum, const block_part &p, const pair &x) {
        const bool second = c.lane() / 2 % 2 != 0;
        i32 both[4] = {};
        pair::multiply(both, p.even, p.odd, x.even);
        sum = fmaf(p.by.first, pair::sum_of(second ? both[2] : both[0], second ? both[3] : both[1]), sum);
        if (pair::MINIMA)
            sum = fmaf(p.by.other, x.total, sum);
    }
    /* The same of two tiles of Q6_K: MMA rows 8 to 15 are of the second tile. */
    static __device__ __forceinline__ void add_two(float &sum, float &next, const block_part &p, const block_part &q, const pair &x) {
        i32 even[4] = {}, odd[4] = {};
        pair::multiply(even, p.even, q.even, x.even);
        pair::multiply(odd, p.odd, q.odd, x.odd);
        sum = fmaf(p.by.other, fmaf(p.by.first, pair::sum_of(even[0], even[1]), p.by.last * pair::sum_of(odd[0], odd[1])), sum);
        next = fmaf(q.by.other, fmaf(q.by.first, pair::sum_of(even[2], even[3]), q.by.last * pair::sum_of(odd[2], odd[3])), next);
    }
    /* Of N tiles. */
    template <int N> static __device__ __forceinline__ void add_all(const consumer &c, float *sum, const pair &x, const block_part *p) {
        if constexpr (Type == Q6_K) {
#pragma unroll
            for (int t = 0; t < N; t += 2) {
                float none = 0.0f;
                if (t + 1 < N)
                    add_two(sum[t], sum[t + 1 < N ? t + 1 : t], p[t], p[t + 1 < N ? t + 1 : t], x);
                else
                    add_two(sum[t], none, p[t], p[t], x);
            }
        } else {
#pragma unroll
            for (int t = 0; t < N; t++)
                add(c, sum[t], p[t], x);
        }
    }
    /* Has the lane's warp a pair of a chunk? */
    template <bool Last> static __device__ __forceinline__ bool here(const consumer &c) {
        return !Last || s::pairs(true) == WARPS || c.warp() < s::pairs(true);
    }
};

/* Digits of a warp's x in shared memory: [chunk][block][digit][quarter][half of the block], four of them or room for a fourth, and after those
 * of a chunk what chunk_of_x::total is of, [block][lower, upper 16 bits]. */
template <int K, form Form> struct digits : elements<K> {
    static constexpr form FORM = Form;
    enum { STEP = WARPS * OPERAND_BYTES };
    u8 *room;
    float unit;

    __device__ __forceinline__ digits(const consumer &c)
        : room((u8 *)c.s.operand + c.warp() * OPERAND_BYTES), unit(0.0f) {}

    /* Of the largest element of all lanes; what a digit of this lane's columns counts. */
    __device__ __forceinline__ float factor_for(const consumer &c, float largest) {
        const fixed_point numbers(warp_largest(__float_as_uint(largest)));
        unit = c.lane() % 2 ? numbers.unit * 65536.0f : numbers.unit;
        return numbers.factor;
    }
    /* A lane's load goes to its place in `chunk`, if it is there. All lanes call it. */
    __device__ __forceinline__ void put(const consumer &c, const float4 &x, float factor, int chunk, bool there) const {
        const int lane = c.lane(), column = lane / 4 % 4, block = column / 2, half = column % 2;
        const fixed_four own(x, factor);
        u32 *to = (u32 *)(room + chunk * STEP);
        i32 sum = own.sum();
        u32 other[4] = {};
        if (Form == IN_FOUR) {
            other[0] = __shfl_xor_sync(0xFFFFFFFFu, own.a, 4), other[1] = __shfl_xor_sync(0xFFFFFFFFu, own.b, 4);
            other[2] = __shfl_xor_sync(0xFFFFFFFFu, own.c, 4), other[3] = __shfl_xor_sync(0xFFFFFFFFu, own.d, 4);
        }
        if (Form != IN_THREE) {
#pragma unroll
            for (int distance = 1; distance < 8; distance *= 2)
                sum += __shfl_xor_sync(0xFFFFFFFFu, sum, distance);
            sum *= 16; /* below 2^31 */
        }
        if (!there)
            return;
        u32 *place = to + block * 32 + lane % 4 * 2 + half;
        if constexpr (Form == IN_FOUR)
            put_four_digits(own, other, half != 0, place);
        else if constexpr (!elements<K>::SHARED) /* the upper lanes have the same x */
            put_two_digits(own, lane >= 16, place + lane / 16 * 16);
        else {
            put_digits(own, place);
            place[24] = 0;
        }
        if (Form != IN_THREE && lane % 8 < 2)
            ((float *)to)[64 + block * 2 + lane % 2] = (float)(lane % 2 ? sum >> 16 : sum & 0xFFFF);
    }
    /* After __syncwarp. */
    template <int Type> __device__ __forceinline__ chunk_of_x of(const consumer &c, int i) const {
        const u8 *from = room + i * STEP;
        const float total =
            block_kind<Type>::MINIMA && Form != IN_THREE ? *(const float *)(from + 256 + c.lane() % 4 * 4) : 0.0f;
        if (Type == Q6_K) {
            const u32 *its = (const u32 *)from + c.lane() % 16 * 2 + c.lane() / 16;
            return {{its[0], its[32]}, total};
        }
        return {*(const uint2 *)(from + c.lane() * 8), total};
    }
};

/* x taken before its rows are multiplied: digits of all chunks. */
template <int K, form Form> struct taken_operand : digits<K, Form> {
    enum { AT_ONCE = 6, LOADS = elements<K>::LOADS };
    float4 taken[LOADS];

    __device__ __forceinline__ taken_operand(const consumer &c) : digits<K, Form>(c), taken{} {}

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
#pragma unroll
        for (int i = 0; i < LOADS; i++)
            this->put(c, taken[i], factor, elements<K>::pair_of(c, i),
                      elements<K>::SHARED ? elements<K>::loads(c, i) : Form != IN_FOUR || c.lane() < 16);
        __syncwarp();
    }
};

/* Where a row is many chunks and a block has few rows: x is read from the L2 cache in the loop over the chunks, so that it
 * takes little room from the ring. A load is of two chunks, one for the lower lanes and one for the upper ones. */
template <int K, bool Clear> struct passing_operand : digits<K, IN_THREE> {
    enum { LOADS = elements<K>::LOADS, AHEAD = 2, AT_ONCE = 1 };
    const float *from; /* load 0 of this lane, which is there */
    int last;          /* elements to the last one that is there */
    u32 parity;
    uint4 coming[AHEAD];

    __device__ __forceinline__ passing_operand(const consumer &c) : digits<K, IN_THREE>(c) {}

    __device__ __forceinline__ void take_from(const consumer &c, const float *vector, u32 use) {
        from = vector + elements<K>::first(c, 0);
        last = (elements<K>::loads(c, LOADS - 1) ? LOADS - 1 : LOADS - 2) * 2 * CHUNK;
        parity = use;
    }
    __device__ __forceinline__ uint4 load(const consumer &c, int i) const {
        return load_relaxed(from + min(i * 2 * CHUNK, last));
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
        this->put(c, x, factor, elements<K>::low(c), true);
        __syncwarp();
    }
};

template <int K, bool InLoop, bool Clear, form Form> struct choose_phase_operand { typedef taken_operand<K, Form> type; };
template <int K, bool Clear, form Form> struct choose_phase_operand<K, true, Clear, Form> {
    typedef passing_operand<K, Clear> type;
};

/* What is unpacked before x is there: of rows of one chunk the first groups of tiles, of longer ones the first chunks of the first group,
 * an even number of them if not all. Its tiles are as many as a block usually has; where there are more, nothing is held.
 * Without HOLDS it is a whole group of rows of one chunk. */
template <int Type, int K, int Usual, form Form> struct held_blocks {
    typedef block_rows<Type, K, Usual, Form> rows_of;
    enum {
        GROUP = rows_of::group(),
        CHUNKS = rows_of::CHUNKS,
        TILES = HOLDS && Usual < GROUP ? (int)Usual : (int)GROUP,
        REGISTERS = 4 + (Type == Q6_K ? 3 : block_kind<Type>::MINIMA ? 2 : 1), /* of a part */
        ROOM = CHUNKS > 1 ? HELD_LONG_BLOCKS : HELD_BLOCKS,
        MOST = HOLDS ? ROOM / (REGISTERS * TILES) : 0, /* slots of the ring */
        GROUPS = MOST * TILES < Usual ? (int)MOST : (Usual + TILES - 1) / TILES,
        N = CHUNKS > 1 ? (MOST < CHUNKS ? MOST / 2 * 2 : (int)CHUNKS) : GROUPS > 1 ? (int)GROUPS : 1,
        PARTLY = N > 0 && CHUNKS > N, /* of a row of several chunks */
        WHOLE = N > 0 && !PARTLY,
        MANY = (int)Usual > (int)GROUP, /* groups of a block, usually */
    };
    block_part part[N > 0 ? N : 1][TILES];

    static __device__ __forceinline__ bool fit(int n) {
        return N > 0 && ((int)TILES == (int)GROUP || n <= TILES * TILE);
    }
    static __device__ __forceinline__ bool are_all(int n) {
        return WHOLE && fit(n) && n <= (CHUNKS > 1 ? 1 : (int)N) * GROUP * TILE;
    }

    /* Sums of the tiles of all groups that are held. Are they several of rows of one chunk? Whole tiles are found by constants then. */
    enum { SUMS = CHUNKS > 1 || N == 0 ? (int)TILES : N * TILES, SEVERAL = CHUNKS == 1 && (int)SUMS > 1 };

    /* Slot i is chunk i or group i. Of rows that are not there something is loaded and multiplied that nobody looks at. */
    template <int I, bool Whole> __device__ __forceinline__ void load_slot(const consumer &c, const u8 *from, int n) {
        constexpr bool LAST = CHUNKS == 1 || I == CHUNKS - 1;
        const int rows = CHUNKS > 1 ? n : n - I * GROUP * TILE;
#pragma unroll
        for (int t = 0; t < TILES; t++)
            part[I][t] = rows_of::template part<LAST>(c, from + t * TILE * rows_of::row_bytes(LAST), CHUNKS > 1 ? I : 0,
                                                      Whole ? (int)TILE : max(min(rows - t * TILE, (int)TILE), 1));
    }
    /* Slots First + I and on of a turn of HERE, of which `there` are there. */
    template <bool Whole, int First, int HERE, int I = 0>
    __device__ __forceinline__ void load_those(const consumer &c, int n, int there) {
        if constexpr (I < HERE) {
            load_slot<First + I, Whole>(c, c.tile(I == 0 ? 0 : Whole ? I : min(I, there - 1)), n);
            load_those<Whole, First, HERE, I + 1>(c, n, there);
        }
    }
    /* Slots First and on, in turns, as a warp waits for all of a turn at once. Whole: all tiles are. */
    template <bool Whole, int First = 0> __device__ __forceinline__ void load_slots(consumer &c, int n) {
        if constexpr (First < N) {
            constexpr int HERE = N - First < BLOCKS_AT_ONCE ? N - First : BLOCKS_AT_ONCE;
            const int groups = (int)((u32)(n + GROUP * TILE - 1) / (GROUP * TILE)),
                      there = CHUNKS > 1 || Whole ? HERE : min(groups - First, HERE);
            const bool some = First == 0 || Whole || there > 0;
            u32 slot = 0;
            if (some)
                slot = c.wait_for(there);
            load_those<Whole, First, HERE>(c, n, there);
            if (some)
                c.release(there, slot);
            load_slots<Whole, First + HERE>(c, n);
        }
    }
    /* As registers that are set on some ways only keep their places on all others. */
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < N; i++)
#pragma unroll
            for (int t = 0; t < TILES; t++)
                part[i][t] = {};
    }
    __device__ __forceinline__ void load(consumer &c, int n) {
        if constexpr (N > 0)
            if (!fit(n))
                clear();
            else if (SEVERAL && n >= SUMS * TILE)
                load_slots<true>(c, n);
            else
                load_slots<false>(c, n);
    }

    /* Slot I times x of its chunk. */
    template <int I> __device__ __forceinline__ void multiply_slot(const consumer &c, const chunk_of_x &x, float *digits) const {
        constexpr bool LAST = CHUNKS == 1 || I == CHUNKS - 1;
        if (rows_of::template here<LAST>(c))
            rows_of::template add_all<TILES>(c, digits, typename rows_of::pair(c, x), part[I]);
    }
    template <int I = 0>
    __device__ __forceinline__ void multiply_slots(const consumer &c, const taken_operand<K, Form> &x, float *digits) const {
        if constexpr (I < N) {
            multiply_slot<I>(c, x.template of<Type>(c, CHUNKS > 1 ? I : 0), digits + (CHUNKS > 1 ? 0 : I * TILES));
            multiply_slots<I + 1>(c, x, digits);
        }
    }
    __device__ __forceinline__ void multiply(const consumer &c, const taken_operand<K, Form> &x, float (&sums)[SUMS]) const {
        multiply_slots(c, x, sums);
#pragma unroll
        for (int t = 0; t < SUMS; t++)
            sums[t] *= pair_of_x<Type, Form>::whole(x.unit);
    }
    template <int I = 0, bool Clear>
    __device__ __forceinline__ void multiply(const consumer &c, passing_operand<K, Clear> &x, float (&sums)[SUMS]) const {
        if constexpr (I == 0)
            x.begin(c);
        if constexpr (I < N) {
            float digits[SUMS] = {};
            x.next(c, I / 2);
            multiply_slot<I>(c, x.template of<Type>(c, 0), digits);
            if constexpr (I + 1 < N)
                multiply_slot<I + 1>(c, x.template of<Type>(c, 1), digits);
#pragma unroll
            for (int t = 0; t < SUMS; t++)
                sums[t] = fmaf(digits[t], pair_of_x<Type, Form>::whole(x.unit), sums[t]);
            multiply<I + 2>(c, x, sums);
        }
    }
};

/* Whole groups of the phase after the one that multiplies an attention, as persistent_product.cuh has them, of rows of one chunk: of more, sums
 * of what is held are added in another order than those of what is not, and a group would be one or the other by what is there when. */
template <typename T> struct prepared<T, true> {
    typedef block_rows<T::WEIGHT, T::K, T::TILES, form_of<T>()> rows_of;
    typedef held_blocks<T::WEIGHT, T::K, T::TILES, form_of<T>()> holds;
    enum {
        GROUP = rows_of::group(),
        FITTING = PREPARED_BLOCKS / (holds::REGISTERS * GROUP),
        MOST = FITTING < MOST_PREPARED ? (int)FITTING : (int)MOST_PREPARED,
        ROOM = (BATCH / TILE - holds::SUMS) / GROUP, /* for sums, beside those of what is held */
        N = !T::IS_PREPARED || rows_of::CHUNKS > 1 ? 0 : MOST < ROOM ? (int)MOST : (int)ROOM, /* groups, and slots of the ring */
        TILES = N * GROUP,
    };
    static_assert((int)TILES <= PREPARED_PARTS, "room");

    static __device__ __forceinline__ void load(consumer &c, carried &k) {
        const u32 slot = c.wait_for(N); /* not for long: they have come */
#pragma unroll
        for (int i = 0; i < N; i++) {
            const u8 *from = c.tile(i);
#pragma unroll
            for (int t = 0; t < GROUP; t++)
                k.blocks[i * GROUP + t] = rows_of::template part<true>(c, from + t * TILE * rows_of::row_bytes(true), 0, TILE);
        }
        c.release(N, slot);
    }
    static __device__ __forceinline__ void clear(carried &k) {
#pragma unroll
        for (int i = 0; i < TILES; i++)
            k.blocks[i] = {};
    }
    /* The sums of all of them to `to`. */
    template <typename Operand> static __device__ __forceinline__ void put(const consumer &c, const carried &k, const Operand &x, float *to) {
        float sums[TILES] = {};
        if (rows_of::template here<true>(c))
            rows_of::template add_all<TILES>(c, sums, typename rows_of::pair(c, x.template of<T::WEIGHT>(c, 0)), k.blocks);
#pragma unroll
        for (int t = 0; t < TILES; t++)
            sums[t] *= rows_of::pair::whole(x.unit);
        put_all_sums<TILES>(sums, to, c.lane());
    }
};

/* A group of tiles, as it comes through the ring: `Tiles` whole ones, and where a group has more, one of `rest` rows, 1 to TILE. No branches
 * lie between tiles: where one is not there something is multiplied that nobody looks at. Where tiles are few, chunks are taken two at
 * a time, so that the one has something to do while the other waits. */
template <int Type, int K, int Usual, int Tiles, form Form> struct group_products {
    typedef block_rows<Type, K, Usual, Form> rows_of;
    enum {
        GROUP = rows_of::group(),
        CHUNKS = rows_of::CHUNKS,
        WHOLE = Tiles == GROUP,
        PARTS_HERE = WHOLE ? Tiles : Tiles + 1,
        TWO = 2 * PARTS_HERE <= TILES_AT_ONCE,
        ALIKE = CHUNKS > 1 && rows_of::PAIRS % WARPS == 0 ? (int)CHUNKS : CHUNKS - 1, /* chunks: a last one with fewer pairs is apart */
        PAIRED = (ALIKE == CHUNKS ? (int)CHUNKS : CHUNKS - 1) / 2 * 2,                /* what is left is one or two */
    };
    int whole, rest;
    float tile[GATHERED];    /* the last one of PARTS_HERE is that of `rest` rows */
    float digits[GATHERED]; /* of the same, since the last fold() */

    __device__ __forceinline__ group_products(int rows)
        : whole((rows - 1) / TILE), rest(rows - whole * TILE), tile{}, digits{} {}

    template <bool Last>
    __device__ __forceinline__ void load(const consumer &c, const u8 *from, int chunk, block_part (&p)[PARTS_HERE]) const {
        const int bytes = TILE * rows_of::row_bytes(Last);
#pragma unroll
        for (int t = 0; t < PARTS_HERE; t++)
            p[t] = t < Tiles ? rows_of::template part<Last>(c, from + t * bytes, chunk, TILE)
                             : rows_of::template part<Last>(c, from + whole * bytes, chunk, rest);
    }
    template <bool Last>
    __device__ __forceinline__ void multiply(const consumer &c, const block_part (&p)[PARTS_HERE], const chunk_of_x &x) {
        if (rows_of::template here<Last>(c))
            rows_of::template add_all<PARTS_HERE>(c, digits, typename rows_of::pair(c, x), p);
    }
    template <bool Last> __device__ __forceinline__ void add_chunk(consumer &c, int chunk, const chunk_of_x &x) {
        block_part p[PARTS_HERE];
        load<Last>(c, c.tile(), chunk, p);
        if (HOLDS)
            c.release();
        multiply<Last>(c, p, x);
        if (!HOLDS)
            c.release();
    }
    /* That chunk and the one after it. */
    template <bool Last> __device__ __forceinline__ void add_two(consumer &c, int chunk, const chunk_of_x &x, const chunk_of_x &next) {
        if constexpr (!TWO) {
            add_chunk<false>(c, chunk, x);
            add_chunk<Last>(c, chunk + 1, next);
            return;
        }
        block_part p[PARTS_HERE], q[PARTS_HERE];
        const u32 slot = c.wait_for(2);
        load<false>(c, c.tile(0), chunk, p);
        load<Last>(c, c.tile(1), chunk + 1, q);
        c.release(2, slot);
        multiply<false>(c, p, x);
        multiply<Last>(c, q, next);
    }
    /* The digits count `unit`. */
    __device__ __forceinline__ void fold(float unit) {
        unit = rows_of::pair::whole(unit);
#pragma unroll
        for (int t = 0; t < PARTS_HERE; t++)
            tile[t] = fmaf(digits[t], unit, tile[t]), digits[t] = 0.0f;
    }
    /* Those after PAIRED, if any. */
    template <typename Operand> __device__ __forceinline__ void add_last(consumer &c, const Operand &x, int at) {
        if constexpr (CHUNKS - PAIRED == 2)
            add_two<true>(c, PAIRED, x.template of<Type>(c, at), x.template of<Type>(c, at + 1));
        else if constexpr (CHUNKS - PAIRED == 1)
            add_chunk<ALIKE != CHUNKS>(c, PAIRED, x.template of<Type>(c, at));
    }
    /* Chunks `first` and on; it is even. */
    __device__ __forceinline__ void add_chunks(consumer &c, const taken_operand<K, Form> &x, int first) {
        if constexpr (TWO) {
#pragma unroll 1
            for (int chunk = first; chunk < PAIRED; chunk += 2)
                add_two<false>(c, chunk, x.template of<Type>(c, chunk), x.template of<Type>(c, chunk + 1));
            add_last(c, x, PAIRED);
        } else {
#pragma unroll 1
            for (int chunk = first; chunk < ALIKE; chunk++)
                add_chunk<false>(c, chunk, x.template of<Type>(c, chunk));
            if constexpr (ALIKE != CHUNKS)
                add_chunk<true>(c, ALIKE, x.template of<Type>(c, ALIKE));
        }
        fold(x.unit);
    }
    template <bool Clear>
    __device__ __forceinline__ void add_chunks(consumer &c, passing_operand<K, Clear> &x, int first) {
        if (first == 0)
            x.begin(c);
#pragma unroll 1
        for (int chunk = first; chunk < PAIRED; chunk += 2) {
            x.next(c, chunk / 2);
            add_two<false>(c, chunk, x.template of<Type>(c, 0), x.template of<Type>(c, 1));
            fold(x.unit);
        }
        if constexpr (PAIRED != CHUNKS) {
            x.next(c, PAIRED / 2);
            add_last(c, x, 0);
            fold(x.unit);
        }
    }
    template <typename Operand> __device__ __forceinline__ void add(consumer &c, Operand &x, int first) {
        add_chunks(c, x, first);
        if (!WHOLE)
#pragma unroll
            for (int t = 0; t < GROUP; t++)
                if (t == whole)
                    tile[t] = tile[PARTS_HERE - 1];
    }
};

/* Chunks `first` and on of a group, and what `before` says of those before them. */
template <int Type, int K, int Usual, int Tiles, int Before, typename Operand>
__device__ __forceinline__ void put_group(consumer &c, Operand &x, int rows, float *to, int first, const float *before) {
    group_products<Type, K, Usual, Tiles, Operand::FORM> p(rows);
    p.add(c, x, first);
#pragma unroll
    for (int t = 0; t < Before; t++)
        p.tile[t] += before[t];
    put_few_tiles<block_rows<Type, K, Usual, Operand::FORM>::group()>(p.tile, to, c.lane());
}

/* As multiply_tiles of persistent_product.cuh. */
template <typename S, typename Operand, typename Meanwhile, typename Finish>
__device__ __forceinline__ void multiply_blocks(consumer &c, const held_blocks<S::WEIGHT, S::K, S::TILES, Operand::FORM> &held, Operand &x,
                                                int n, const carried &k, Meanwhile meanwhile, Finish finish) {
    constexpr int K = S::K, Type = S::WEIGHT, Usual = S::TILES;
    typedef held_blocks<Type, K, Usual, Operand::FORM> holds;
    constexpr int GROUP = holds::GROUP, ROWS = GROUP * TILE, BEFORE = holds::PARTLY ? holds::SUMS : 0;
    static_assert(GROUP >= 1 && BATCH % ROWS == 0, "shape");
    static_assert(((int)holds::SUMS + (int)prepared<S>::TILES) * TILE <= BATCH, "sums of all that is held are put");
    const int lane = c.lane(), warp = c.warp();
#pragma unroll 1
    for (int first = 0; first < n; first += BATCH) {
        const int here = min((int)BATCH, n - first);
        float *sum = c.s.sum[c.batch], *own = sum + c.places.sum; /* of all warps; of this lane */
        float before[holds::SUMS] = {};
        int row = 0, chunk = 0;
        if (first == 0) {
            row = rows_ahead<S>(k);
            if constexpr (prepared<S>::N > 0)
                if (row > 0)
                    prepared<S>::put(c, k, x, own);
            const bool some = held.fit(n - row);
            if (some)
                held.multiply(c, x, before);
            meanwhile();
            if (some && holds::WHOLE) {
                put_all_sums<holds::SUMS>(before, own + row * STRIDE, lane);
                row += holds::CHUNKS > 1 ? ROWS : (int)holds::N * ROWS;
            }
            if (some && holds::PARTLY)
                chunk = holds::N;
        }
#pragma unroll 1
        for (; row < here; row += ROWS) {
            float *to = own + row * STRIDE;
            if (holds::MANY && here - row >= ROWS)
                put_group<Type, K, Usual, GROUP, BEFORE>(c, x, ROWS, to, chunk, before);
            else
                put_group<Type, K, Usual, GROUP - 1, BEFORE>(c, x, min(here - row, ROWS), to, chunk, before);
            if constexpr (holds::PARTLY) {
                chunk = 0;
#pragma unroll
                for (int t = 0; t < BEFORE; t++)
                    before[t] = 0.0f;
            }
        }
        consumers_meet();
        const int i = (int)c.thread;
        if (warp * 32 < here)
            finish(first + i, i < here, total_of(sum + min(i, here - 1) * STRIDE));
        c.batch ^= 1;
    }
}
