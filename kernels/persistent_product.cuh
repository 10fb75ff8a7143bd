/* Products of the persistent kernel: a block's rows times a vector that other blocks have made.
 *
 * Warp w multiplies two blocks of 32 elements of each chunk of K for all rows of its block, so it needs only these
 * activations, and polls them straight into registers. Tensor cores do it: a tile of 8 rows is operand A twice over, MMA
 * rows 0 to 7 with the first four of a lane's eight elements, which are of the first half of the block, rows 8 to 15 with the
 * others; the columns of B hold both halves, for two blocks, once in their high and once in their low part. Then the sums of all warps meet in shared
 * memory, and a thread for each row finishes it.
 *
 * A vector comes late and the weights early, so the first of them wait for it in registers. What is left to do when it is
 * there is on the critical path of every token: loads and waits for tiles are kept off it.
 *
 * RMSNorm: x is multiplied with the norm's weight on its way into registers and the product divided by the root of the
 * mean square afterwards. */
#pragma once
#include "persistent_step.cuh"

/* What a lane holds of an operand B for its warp's pairs of blocks: pair i of warp w is number i * WARPS + w.
 *
 * Lane = 4 * column + quarter. A column is the half of a lane's eight elements, the block of the pair, and, from lane 16 on,
 * the low part of what the columns before have in their high part. Where a warp has several pairs the lanes of low parts
 * load other ones, and both hand each other what they lack; else they load the same. */
template <int K> struct elements {
    enum {
        PAIRS = K / PAIR,
        MINE = (PAIRS + WARPS - 1) / WARPS,
        SHARED = MINE > 1,
        LOADS = SHARED ? (MINE + 1) / 2 : 1,
    };
    static_assert(K % PAIR == 0, "shape");

    static __device__ __forceinline__ bool low(const consumer &c) { return c.lane() >= 16; }
    static __device__ __forceinline__ bool here(const consumer &c, int pair) {
        return pair < MINE && (pair < MINE - 1 || PAIRS % WARPS == 0 || pair * WARPS + c.warp() < PAIRS);
    }
    /* The pair of which this lane loads number i, and whether there is one. */
    static __device__ __forceinline__ int pair_of(const consumer &c, int i) { return SHARED ? 2 * i + low(c) : 0; }
    static __device__ __forceinline__ bool loads(const consumer &c, int i) { return here(c, pair_of(c, i)); }

    /* The element of K from which on this lane's load i has four. */
    static __device__ __forceinline__ int first(const consumer &c, int i) {
        return (int)c.places.element + (loads(c, i) ? pair_of(c, i) : 0) * CHUNK;
    }
};

/* What a tile leaves in a lane's registers: products of the even blocks and of the odd ones. */
struct tile_sums {
    float even[4], odd[4];

    /* Row lane / 4, over the block that the lane's columns belong to and both halves: to be added up over four lanes. */
    __device__ __forceinline__ float sum(int lane) const {
        bool second = lane % 2; /* columns 2 and 3, 6 and 7 */
        return second ? odd[0] + odd[3] : even[0] + even[3];
    }
};

/* The same of a tile with many chunks, in turns: an instruction that adds to what the one before it leaves waits for it. */
template <int K> struct chunk_sums {
    enum { TURNS = elements<K>::MINE > 2 ? 2 : 1 };
    tile_sums of[TURNS] = {};

    __device__ __forceinline__ tile_sums &turn(int chunk) { return of[chunk % TURNS]; }
    __device__ __forceinline__ float sum(int lane) const {
        return TURNS > 1 ? of[0].sum(lane) + of[TURNS - 1].sum(lane) : of[0].sum(lane);
    }
};

/* A lane's 16 bytes of both blocks of its warp's pair, in registers. */
struct fragment {
    uint4 even, odd;

    /* A register that is set on some ways only keeps its place on all others, all through the loop. */
    __device__ __forceinline__ void clear() { even = odd = make_uint4(0, 0, 0, 0); }

    /* Of a tile of `height` rows. */
    __device__ __forceinline__ void load(const consumer &c, const u8 *tile, int height) {
        const u8 *block = tile + c.warp() * 2 * height * 64 + c.lane() * 16;
        even = *(const uint4 *)block, odd = *(const uint4 *)(block + height * 64);
    }
    /* Of a whole one. */
    __device__ __forceinline__ void load(const consumer &c, const u8 *tile) {
        const u8 *block = tile + c.places.fragment;
        even = *(const uint4 *)block, odd = *(const uint4 *)(block + TILE * 64);
    }
};

/* Four elements, in 16 bits and what that leaves. */
template <int TYPE> struct two_parts {
    u32 high[2], rest[2];
    __device__ __forceinline__ two_parts(float4 x) {
        if (TYPE == F16) {
            const float by = shrink<TYPE>();
            x.x *= by, x.y *= by, x.z *= by, x.w *= by;
        }
        high[0] = narrow_two<TYPE>(x.x, x.y), high[1] = narrow_two<TYPE>(x.z, x.w);
        rest[0] = narrow_rest<TYPE>(x.x, x.y, high[0]), rest[1] = narrow_rest<TYPE>(x.z, x.w, high[1]);
    }
};

/* What scales do to sums of block formats. Q6_K: other * (first * (even block) + last * (odd block)); else first * sum + other * (sum of x). */
struct factors {
    float first, last, other;
};

/* Quants of a tile of a block format as a lane multiplies them, elements of the first half of a block and of the second, and factors of what
 * the lane's columns belong to. */
struct block_part {
    u32 even[2], odd[2];
    factors by;
};

/* In registers. AT_ONCE: loads that are under way together. Floats: as floats, below. */
template <int K, int TYPE, bool Floats = TYPE == BF16 && HAS_BF16 == 0> struct operand : elements<K> {
    enum { SHARED = elements<K>::SHARED, LOADS = elements<K>::LOADS, AT_ONCE = 4 };
    u32 first[2 * LOADS] = {}, second[2 * LOADS] = {};

    __device__ __forceinline__ operand(const consumer &) {}

    __device__ __forceinline__ void set(const consumer &c, int i, const float4 &x) {
        const two_parts<TYPE> parts(x);
        const u32(&high)[2] = parts.high, (&rest)[2] = parts.rest;
        bool is_low = elements<K>::low(c);
        if constexpr (SHARED) { /* the columns of a pair's high parts are those of the lanes that load it */
            u32 theirs[2];
#pragma unroll
            for (int k = 0; k < 2; k++)
                theirs[k] = __shfl_xor_sync(0xFFFFFFFFu, rest[k], 16);
            first[2 * i] = is_low ? theirs[0] : high[0], second[2 * i] = is_low ? theirs[1] : high[1];
            first[2 * i + 1] = is_low ? high[0] : theirs[0], second[2 * i + 1] = is_low ? high[1] : theirs[1];
        } else
            first[i] = is_low ? rest[0] : high[0], second[i] = is_low ? rest[1] : high[1];
    }
    /* When all are set. */
    __device__ __forceinline__ void finish(const consumer &) const {}
    /* Adds the products of what a lane has of a tile with pair `i` of its warp. */
    __device__ __forceinline__ void multiply(const consumer &, tile_sums &p, const fragment &f, int i) const {
        mma<TYPE>(p.even, f.even.x, f.even.y, f.even.z, f.even.w, first[i], second[i]);
        mma<TYPE>(p.odd, f.odd.x, f.odd.y, f.odd.z, f.odd.w, first[i], second[i]);
    }
};

/* Where tensor cores do not multiply bf16 (sm_75) the lanes do. Each has the elements of x that it loaded, and gets those that its quarter
 * of a row wants from the lanes of the same quarter: 16 shuffles for 16 products of a lane, which is little beside what the memory of
 * such a card takes for them. x is not rounded. */
template <int K> struct operand<K, BF16, true> : elements<K> {
    enum { SHARED = elements<K>::SHARED, LOADS = elements<K>::LOADS, AT_ONCE = 4 };
    float4 x[LOADS] = {};

    __device__ __forceinline__ operand(const consumer &) {}
    __device__ __forceinline__ void set(const consumer &, int i, const float4 &v) { x[i] = v; }
    __device__ __forceinline__ void finish(const consumer &) const {}

    static __device__ __forceinline__ float dot(u32 first, u32 second, const float4 &x, float sum) {
        sum = fmaf(bf16_low(first), x.x, sum);
        sum = fmaf(bf16_high(first), x.y, sum);
        sum = fmaf(bf16_low(second), x.z, sum);
        return fmaf(bf16_high(second), x.w, sum);
    }
    static __device__ __forceinline__ float4 of_lane(const float4 &x, int lane) {
        return make_float4(__shfl_sync(0xFFFFFFFFu, x.x, lane), __shfl_sync(0xFFFFFFFFu, x.y, lane),
                           __shfl_sync(0xFFFFFFFFu, x.z, lane), __shfl_sync(0xFFFFFFFFu, x.w, lane));
    }
    __device__ __forceinline__ void multiply(const consumer &c, tile_sums &p, const fragment &f, int i) const {
        const float4 &mine = x[SHARED ? i / 2 : 0];
        const int from = c.lane() % 4 + (SHARED ? i % 2 * 16 : 0); /* then 4 lanes for each half of a block */
        float sum = p.even[0];
        sum = dot(f.even.x, f.even.z, of_lane(mine, from), sum);
        sum = dot(f.even.y, f.even.w, of_lane(mine, from + 4), sum);
        sum = dot(f.odd.x, f.odd.z, of_lane(mine, from + 8), sum);
        sum = dot(f.odd.y, f.odd.w, of_lane(mine, from + 12), sum);
        p.even[0] = p.odd[0] = sum; /* tile_sums::sum takes one or the other */
    }
};

/* A norm's weights for the elements that a lane takes of x. Loaded a phase ahead, as the memory is busy; which of them a
 * phase has ready is in program.cuh. */
struct norm_weights {
    float4 w[NORM_LOADS];
    template <int K> __device__ __forceinline__ void load(const consumer &c, const float *norm) {
#pragma unroll
        for (int i = 0; i < elements<K>::LOADS; i++)
            if (elements<K>::here(c, 0))
                w[i] = *(const float4 *)(norm + elements<K>::first(c, i));
    }
};

/* What goes from phase to phase in registers. */
struct carried {
    norm_weights norm[NORM_SLOTS];
    float value; /* of a row of share CARRIED_SHARE, with the thread that finishes the row: the residual */
    bool is_ahead; /* have the first tiles of the next phase been taken? Those are */
    fragment ahead[PREPARED];
    block_part blocks[PREPARED_PARTS]; /* of a block format */
};

/* The sum of squares of this warp's part of x to squares[warp]. */
template <int K> __device__ __forceinline__ void put_squares(const consumer &c, float *squares, float sum) {
#pragma unroll
    for (int distance = 1; distance < (elements<K>::SHARED ? 32 : 16); distance *= 2) /* else lanes hold the same twice */
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, distance);
    if (c.lane() == 0)
        squares[c.warp()] = sum;
}

/* The first loads of an exchanged vector, `Most` at a time. Where there is nothing left to load for a lane it takes its warp's pair 0 again,
 * which nobody uses. */
template <int K, int Most> struct first_loads {
    enum { LOADS = elements<K>::LOADS, POLLED = LOADS < Most ? (int)LOADS : Most };
    const float *p[POLLED];
    uint4 v[POLLED];

    __device__ __forceinline__ void place(const consumer &c, const float *from, int first) {
#pragma unroll
        for (int i = 0; i < POLLED; i++)
            p[i] = from + elements<K>::first(c, min(first + i, LOADS - 1));
    }
    /* Before they are waited for: by what comes in between they may be there. */
    __device__ __forceinline__ void ask_early(const consumer &c, const float *from) {
        place(c, from, 0);
        if (elements<K>::here(c, 0))
            ask(p, v);
    }
    /* After that, for the whole warp; if not, they are asked for again. */
    __device__ __forceinline__ bool are_there(const consumer &c, u32 parity) {
        u32 missing = 0;
        if (elements<K>::here(c, 0))
#pragma unroll
            for (int i = 0; i < POLLED; i++)
                check(missing, v[i], parity);
        const bool there = all_lanes(!WAITS || !(missing & 1));
        if (!there)
            ask(p, v);
        return there;
    }
};

/* The elements that a lane takes of an exchanged vector; use(i, four of them). `asked`: ask_early() has been called. */
template <int K, bool Clear, int Most = 4, typename Use>
__device__ __forceinline__ void take(const consumer &c, const float *from, u32 parity, Use use, first_loads<K, Most> &x, bool asked) {
    enum { LOADS = elements<K>::LOADS, POLLED = first_loads<K, Most>::POLLED };
    if (!elements<K>::here(c, 0))
        return;
#pragma unroll
    for (int first = 0; first < LOADS; first += POLLED) {
        if (first > 0 || !asked)
            x.place(c, from, first);
        poll(x.p, x.v, parity, c.wait, first == 0 && asked);
#pragma unroll
        for (int i = 0; i < POLLED; i++)
            if (first + i < LOADS)
                use(first + i, unmarked_four<Clear>(x.v[i]));
    }
}
template <int K, bool Clear, int Most = 4, typename Use>
__device__ __forceinline__ void take(const consumer &c, const float *from, u32 parity, Use use) {
    first_loads<K, Most> x;
    take<K, Clear, Most>(c, from, parity, use, x, false);
}

/* Of a vector that is normalized: the operand, and this lane's sum of squares. */
template <int K, typename Operand> struct normed {
    Operand x;
    float squares;

    __device__ __forceinline__ normed(const consumer &c) : x(c), squares(0.0f) {}

    __device__ __forceinline__ void add(const consumer &c, int i, const float4 &v, const norm_weights &norm) {
        if (elements<K>::loads(c, i))
            squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        float4 w = norm.w[i];
        x.set(c, i, make_float4(v.x * w.x, v.y * w.y, v.z * w.z, v.w * w.w));
    }
};

/* Fragments First to First + N of take_fragments, which are all there and lie one after the other in the ring: few instructions. Only the
 * last tile may have fewer rows than TILE. */
template <int K, int First, int N> __device__ __forceinline__ void take_in_line(consumer &c, fragment *f, int rows) {
    enum { MINE = elements<K>::MINE, LAST = (First + N - 1) / MINE };
    const u32 slot = c.wait_for_line<N>();
    const int height = min(rows - LAST * TILE, (int)TILE);
    const u8 *tile = c.tile(0);
#pragma unroll
    for (int i = 0; i < N; i++)
        if ((First + i) / MINE < LAST)
            f[First + i].load(c, tile + i * sizeof c.s.tiles.slot[0]);
        else
            f[First + i].load(c, tile + i * sizeof c.s.tiles.slot[0], height);
    c.release(N, slot);
}

/* Nothing that is to be done before the last tiles are taken. */
struct do_nothing {
    __device__ __forceinline__ void operator()() const {}
};

/* The fragments of the next N chunks in the ring, those of one tile after those of another, of which `n` are there; the rest repeat the
 * last one, or are 0. Chunks that this warp has no pair in are read too: what is there is not multiplied. `rows`: from the first tile
 * on. The warp waits for `Most` of them at a time; before the last ones it calls before_last(). */
template <int K, int N, int Most = AT_ONCE, int First = 0, typename BeforeLast = do_nothing>
__device__ __forceinline__ void take_fragments(consumer &c, fragment *f, int n, int rows, BeforeLast before_last = {}) {
    enum { MINE = elements<K>::MINE, HERE = N - First < Most ? N - First : Most };
    if constexpr (First < N) {
        if (First + HERE == N)
            before_last();
        if (HERE > 1 && n >= First + HERE && c.in_line(HERE))
            take_in_line<K, First, HERE>(c, f, rows);
        else if (First > 0 && n <= First)
#pragma unroll
            for (int i = 0; i < HERE; i++)
                f[First + i].clear();
        else {
            const int now = HERE == 1 ? 1 : min(n - First, (int)HERE);
            const u32 slot = c.wait_for(now);
#pragma unroll
            for (int i = 0; i < HERE; i++) {
                const int at = i > 0 ? min(i, now - 1) : 0;
                f[First + i].load(c, c.tile(at), min(rows - (First + at) / MINE * TILE, (int)TILE));
            }
            c.release(now, slot);
        }
        take_fragments<K, N, Most, First + HERE>(c, f, n, rows, before_last);
    }
}

/* Tiles of `rows` rows. */
__device__ __forceinline__ int tiles_in(int rows) { return (int)((u32)(rows + TILE - 1) / TILE); }

/* What a warp takes of a phase's rows before x is there, so that little is left to do when it comes: all tiles of its
 * share of `Rows`, or as many of them as there are registers for; of a tile that is too long for them its first chunks. It makes room
 * in the ring besides. */
template <int K, int Rows> struct held {
    enum {
        MINE = elements<K>::MINE,
        ALL = (Rows + TILE * TYPICAL_SMS - 1) / (TILE * TYPICAL_SMS) * MINE,
        MOST = MINE > 1 ? HELD_LONG : HELD,
        N = ALL <= MOST ? (int)ALL : MOST < MINE ? (int)MOST : MOST / MINE * MINE,
        TILES = (N + MINE - 1) / MINE,
    };
    static constexpr bool IN_TURNS = (int)N > (int)AT_ONCE; /* are they taken in several turns? */
    fragment f[N];

    static __device__ __forceinline__ bool are_all(int rows) { return tiles_in(rows) * MINE <= N; }

    template <typename BeforeLast> __device__ __forceinline__ void load(consumer &c, int rows, BeforeLast before_last) {
        take_fragments<K, N>(c, f, min(tiles_in(rows) * MINE, (int)N), rows, before_last);
    }
};

/* What a warp takes while it waits for an attention, of the phase after the one that multiplies it: its first tiles. */
template <typename T, bool Blocks = (T::WEIGHT > BF16)> struct prepared {
    enum {
        MINE = elements<T::K>::MINE,
        MOST = PREPARED < 2 ? 0 : PREPARED < MOST_PREPARED ? PREPARED : (int)MOST_PREPARED,
        ROOM = BATCH / TILE - held<T::K, T::ROWS>::TILES, /* for sums, beside those of what is held */
        TILES = !T::IS_PREPARED ? 0 : MOST / MINE < ROOM ? MOST / MINE : (int)ROOM,
        N = TILES * MINE, /* slots of the ring */
    };

    static __device__ __forceinline__ void load(consumer &c, carried &k) {
        take_fragments<T::K, N>(c, k.ahead, N, TILES * TILE);
    }
    /* Registers that are set on some ways only keep their places on all others. */
    static __device__ __forceinline__ void clear(carried &k) {
#pragma unroll
        for (int i = 0; i < N; i++)
            k.ahead[i].clear();
    }
};

/* That is done as soon as they have come, if x of the phase is not there before, the block has more of them, and all tiles before them are
 * taken. x_is_there() asks once. */
template <typename T, typename Ask> __device__ __forceinline__ void prepare(consumer &c, carried &k, bool all_before, Ask x_is_there) {
    typedef prepared<T> its;
    if constexpr (its::N > 0) {
        k.is_ahead = false;
        if (all_before && c.s.now.mine[T::SHARE].n > its::TILES * TILE) {
            stopwatch watch(c.wait.waited);
            for (int polls = 0;; polls++) {
                k.is_ahead = c.are_here(its::N);
                if (x_is_there() || k.is_ahead)
                    break;
                if (polls > MOST_POLLS)
                    give_up(c.wait);
            }
        }
        if (k.is_ahead)
            its::load(c, k);
        else
            its::clear(k);
    }
}

/* Rows of a phase that have been taken so. */
template <typename T> __device__ __forceinline__ int rows_ahead(const carried &k) {
    if constexpr (prepared<T>::N > 0)
        return k.is_ahead ? prepared<T>::TILES * TILE : 0;
    return 0;
}

/* Chunks From to From + N of a tile, which are in registers, times this warp's part of x. */
template <int K, int TYPE, int From, int N>
__device__ __forceinline__ void add_products(const consumer &c, chunk_sums<K> &p, const fragment *f, const operand<K, TYPE> &x) {
#pragma unroll
    for (int i = 0; i < N; i++)
        if (elements<K>::here(c, From + i))
            x.multiply(c, p.turn(From + i), f[i], From + i);
}

/* Chunks of a tile that are taken out of the ring and multiplied before more are: with more of them a warp would wait longer for the
 * last one where weights come late. */
enum { FEW = AT_ONCE < 2 ? (int)AT_ONCE : 2 };

/* Chunks From and on of one tile of `height` rows, out of the ring. */
template <int K, int TYPE, int From>
__device__ __forceinline__ void add_rest(consumer &c, chunk_sums<K> &p, const operand<K, TYPE> &x, int height) {
    if constexpr (From < elements<K>::MINE) {
        enum { MINE = elements<K>::MINE, N = MINE - From < FEW ? MINE - From : (int)FEW };
        fragment f[N];
        take_fragments<K, N, FEW>(c, f, N, height);
        add_products<K, TYPE, From, N>(c, p, f, x);
        add_rest<K, TYPE, From + N>(c, p, x, height);
    }
}

/* The sum of a tile of `rows` rows or more, whose first `Here` chunks are in registers. */
template <int K, int TYPE, int Here>
__device__ __forceinline__ float tile_sum(consumer &c, const fragment *f, const operand<K, TYPE> &x, int rows) {
    chunk_sums<K> p;
    add_products<K, TYPE, 0, Here>(c, p, f, x);
    if (Here < elements<K>::MINE)
        add_rest<K, TYPE, Here>(c, p, x, min(rows, (int)TILE));
    return p.sum(c.lane());
}

/* Sums of the next tiles out of the ring, up to GATHERED; of those that are not there anything. `rows`: from the first of them on. */
template <int K, int TYPE>
__device__ __forceinline__ void tile_products(consumer &c, const operand<K, TYPE> &x, int rows, float (&sums)[GATHERED]) {
    const int lane = c.lane();
    if constexpr (elements<K>::MINE == 1) {
        fragment f[GATHERED];
        take_fragments<K, GATHERED>(c, f, min(tiles_in(rows), (int)GATHERED), rows);
#pragma unroll
        for (int t = 0; t < GATHERED; t++)
            sums[t] = tile_sum<K, TYPE, 1>(c, &f[t], x, TILE);
    } else
#pragma unroll 1
        for (int t = 0; t < GATHERED; t++) { /* they move up, as a number that is not a constant would cost memory */
            chunk_sums<K> p;
            if (t * TILE < rows)
                add_rest<K, TYPE, 0>(c, p, x, min(rows - t * TILE, (int)TILE));
#pragma unroll
            for (int k = 0; k + 1 < GATHERED; k++)
                sums[k] = sums[k + 1];
            sums[GATHERED - 1] = p.sum(lane);
        }
}

/* What the four lanes of a row have of four tiles, added up, in one order of however many tiles: a tile may be one of several numbers of them,
 * by what was there when. Each lane takes one tile's sum to its place in sum[][], `to` being that for the first of them. */
__device__ __forceinline__ void put_sums(const float (&tile)[GATHERED], float *to, int lane) {
    bool odd = lane % 2, high = lane / 2 % 2;
    float a = odd ? tile[2] : tile[0], b = odd ? tile[3] : tile[1];
    float theirs = odd ? tile[0] : tile[2], others = odd ? tile[1] : tile[3];
    a += __shfl_xor_sync(0xFFFFFFFFu, theirs, 1);
    b += __shfl_xor_sync(0xFFFFFFFFu, others, 1);
    float mine = high ? b : a;
    mine += __shfl_xor_sync(0xFFFFFFFFu, high ? a : b, 2);
    *to = mine;
}

/* The first row of the tile whose sum a lane takes. */
__device__ __forceinline__ int row_of_tile(int lane) { return TILE * (lane % 2 * 2 + lane / 2 % 2); }

/* The same of as many of the four as `rows` rows have. */
__device__ __forceinline__ void put_tiles(const float (&tile)[GATHERED], float *to, int lane, int rows) {
    float mine;
    put_sums(tile, &mine, lane);
    if (row_of_tile(lane) < rows)
        *to = mine;
}

/* The same of N tiles, with fewer shuffles where they are one or two. */
template <int N> __device__ __forceinline__ void put_few_tiles(const float *tile, float *to, int lane) {
    const bool odd = lane % 2, high = lane / 2 % 2;
    if constexpr (N == 1) {
        float mine = tile[0];
        mine += __shfl_xor_sync(0xFFFFFFFFu, mine, 1);
        mine += __shfl_xor_sync(0xFFFFFFFFu, mine, 2);
        if (lane % 4 == 0)
            *to = mine;
    } else if constexpr (N == 2) {
        float a = tile[0], b = tile[1];
        a += __shfl_xor_sync(0xFFFFFFFFu, a, 1);
        b += __shfl_xor_sync(0xFFFFFFFFu, b, 1);
        float mine = high ? b : a;
        mine += __shfl_xor_sync(0xFFFFFFFFu, high ? a : b, 2);
        if (!odd)
            *to = mine;
    } else {
        float four[GATHERED] = {};
#pragma unroll
        for (int t = 0; t < N; t++)
            four[t] = tile[t];
        if constexpr (N == GATHERED)
            put_sums(four, to, lane);
        else
            put_tiles(four, to, lane, N * TILE);
    }
}

/* Those of N tiles, GATHERED at a time. */
template <int N> __device__ __forceinline__ void put_all_sums(const float *tile, float *to, int lane) {
    put_few_tiles<(N < GATHERED ? N : (int)GATHERED)>(tile, to, lane);
    if constexpr (N > GATHERED)
        put_all_sums<N - GATHERED>(tile + GATHERED, to + GATHERED * TILE * STRIDE, lane);
}

/* All `n` rows of this block in phase S, which are some, times x. meanwhile() is called once, when the first tiles have been multiplied and
 * before the warps meet; finish(row, there, product) by whole warps with a thread for each row. */
template <typename S, typename Meanwhile, typename Finish>
__device__ __forceinline__ void multiply_tiles(consumer &c, const held<S::K, S::ROWS> &h, const operand<S::K, S::WEIGHT> &x, int n,
                                               const carried &k, Meanwhile meanwhile, Finish finish) {
    constexpr int K = S::K, TYPE = S::WEIGHT;
    typedef prepared<S> before;
    enum { MINE = elements<K>::MINE, N = held<K, S::ROWS>::N, TILES = held<K, S::ROWS>::TILES };
    static_assert(((int)TILES + (int)before::TILES) * TILE <= BATCH, "sums of all that is held are put");
    const int lane = c.lane(), warp = c.warp();
    int first = 0, here = min((int)BATCH, n), row = rows_ahead<S>(k);
    float *to = c.s.sum[c.batch] + c.places.sum, tile[TILES];
    if constexpr (before::N > 0)
        if (row > 0) {
            float sums[before::TILES];
#pragma unroll
            for (int t = 0; t < before::TILES; t++)
                sums[t] = tile_sum<K, TYPE, MINE>(c, k.ahead + t * MINE, x, TILE);
            put_all_sums<before::TILES>(sums, to, lane);
            to += before::TILES * TILE * STRIDE;
        }
#pragma unroll
    for (int t = 0; t < TILES; t++)
        tile[t] = tile_sum<K, TYPE, (N < MINE ? (int)N : (int)MINE)>(c, h.f + t * MINE, x, here - row - t * TILE);
    meanwhile();
    put_all_sums<TILES>(tile, to, lane);
    row += TILES * TILE, to += TILES * TILE * STRIDE;
#pragma unroll 1
    while (true) {
#pragma unroll 1
        for (; row < here; row += GATHERED * TILE, to += GATHERED * TILE * STRIDE) {
            float four[GATHERED];
            tile_products(c, x, here - row, four);
            put_tiles(four, to, lane, here - row);
        }
        consumers_meet();
        if (warp * 32 < here) {
            int i = (int)c.thread;
            finish(first + i, i < here, total_of(c.s.sum[c.batch] + min(i, here - 1) * STRIDE) / shrink<TYPE>());
        }
        c.batch ^= 1;
        first += BATCH;
        if (first >= n)
            break;
        here = min((int)BATCH, n - first), row = 0;
        to = c.s.sum[c.batch] + c.places.sum;
    }
}
