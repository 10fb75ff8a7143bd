/* A whole decode step of a Llama-like model in one kernel, from the token to the logits: one block on each
 * multiprocessor, resident at the same time (cooperative launch). The step is bound by reading the weights, so one warp
 * of each block does nothing but that: it streams the block's rows of all layers, in the order of share.cuh, through
 * shared memory, and never waits for an activation. The other warps compute as the tiles come in. Activations go from
 * block to block through the L2 cache (exchange.cuh).
 *
 * A product: warp w multiplies two blocks of 32 elements of each chunk of K for all rows of its block, so it needs only
 * these activations, and polls them straight into registers. Tensor cores do it: a tile of 8 rows is operand A twice
 * over, MMA rows 0 to 7 with the first four of a lane's eight elements, rows 8 to 15 with the others; the columns of B
 * hold both halves, for two blocks, once in their high and once in their low part. Then the sums of all warps
 * meet in shared memory, and a thread for each row finishes it.
 *
 * RMSNorm: x is multiplied with the norm's weight on its way into registers and the product divided by the root of the
 * mean square afterwards. Attention: a block takes one key-value head and a stretch of positions, with all query heads
 * of it; where there are several stretches, blocks put their parts together, 8 elements of a head each.
 *
 * Grid: x = multiprocessors. Weights and caches are read once; bound by that, and by the chain of 5 exchanges a layer. */
#define APPROXIMATE 1
#include "exchange.cuh"
#include "mma.cuh"
#include "share.cuh"
#include "tiles.cuh"

#ifndef EPS
#define EPS 1e-6f
#endif
#ifndef SCALE
#define SCALE 0.125f
#endif
#ifndef ROPE
#define ROPE 1
#endif
#ifndef CACHE /* type of keys and values */
#define CACHE F16
#endif
#ifndef EXPRESSION /* what becomes of gate l0 and up l1 */
#define EXPRESSION op_mul(op_silu(l0), l1)
#endif
#ifndef SHARED_BYTES /* a block may have */
#define SHARED_BYTES 232448
#endif
#ifndef DEPTH /* bytes in flight in layers, where attention is one stretch */
#define DEPTH 43000
#endif
#ifndef MERGE_DEPTH /* where it is several: each layer has an exchange more, which the stream must not delay */
#define MERGE_DEPTH 36000
#endif
#ifndef HEAD_DEPTH /* in the head, which has none */
#define HEAD_DEPTH 57500
#endif
#ifndef HELD /* the most fragments of weights that a warp holds in registers while it waits for an activation, 8 each */
#define HELD 4
#endif
#ifndef HELD_LONG
#define HELD_LONG 6
#endif
#ifndef PARTS /* that attention is cut into */
#define PARTS 16
#endif
#ifndef TYPICAL_SMS /* multiprocessors for whose shares the registers are laid out; any other number works */
#define TYPICAL_SMS 132
#endif
#ifndef SAMPLE /* 1: the step begins with mark.cu's work and leaves the largest logit of each 32 (sample_part.cu) in `parts` */
#define SAMPLE 0
#endif
#include "pointwise.cuh"
#include "sample.cuh"

enum {
    THREADS = WARPS * 32, /* that compute */
    GROUP = HEADS / KV_HEADS,
    SLOT = TILE * CHUNK * 2,
    GATHERED = 4, /* tiles whose sums are put together at a time */
    BATCH = 96, /* rows whose sums lie in shared memory at a time: whole warps of them */
    STRIDE = (WARPS + 3) / 4 * 4 + 4,
    /* attention */
    SPAN = SLOT / (HEAD_DIM * 2) >= 64 ? 64 : SLOT / (HEAD_DIM * 2) / 16 * 16, /* positions of a tile; of a stretch at least */
    SPAN_WARPS = SPAN / 16,
    LEAST_SPAN = 16, /* what a warp takes at a time */
    PART = HEAD_DIM + 4, /* floats of a part: sums, largest score, total */
    MOST_PARTS = 160,
    HALF = HEAD_DIM / 2,
    QUERY_STRIDE = HEAD_DIM + 8,
    /* exchanged vectors, in floats from the start of a copy */
    X = 0,
    Q = X + D,
    A = Q + QKV,
    MID = A + QUERIES,
    HIDDEN = MID + D,
    COPY = (HIDDEN + FF + 1023) / 1024 * 1024,
    PARTS_AT = COPIES * COPY,
};

enum product { FOR_QKV, FOR_ATTENTION, FOR_MERGE, FOR_OUT, FOR_MLP, FOR_DOWN, FOR_HEAD };

typedef stored<WEIGHT> weights;
typedef stored<CACHE> cached;

/* f16 has no room for large activations: they are made smaller on the way in and the products larger. */
#define SHRINK (WEIGHT == F16 ? 0.015625f : 1.0f)

static_assert(D % PAIR == 0 && QUERIES % PAIR == 0 && FF % PAIR == 0 && (HEAD_DIM == 32 || HEAD_DIM == 64 || HEAD_DIM == 128) && GROUP <= 8 &&
                  SPAN >= 16 && BATCH <= THREADS,
              "shape");

/* How the positions up to this one are divided: `n` stretches of `span` for each key-value head. One where that is a tile;
 * else there are parts to merge anyway, and the more multiprocessors take some the less do they fall behind in streaming: as
 * many as a warp has lanes to merge them, and more only where they would be longer than a tile. */
struct stretches {
    int n, span;
};

__device__ __forceinline__ stretches divide(int positions, int blocks) {
    if (positions <= SPAN)
        return {1, positions};
    int most = min(blocks / KV_HEADS, (int)MOST_PARTS), n = min(most, max(PARTS, (positions + SPAN - 1) / SPAN));
    int span = max((positions + n - 1) / n, (int)LEAST_SPAN);
    return {(positions + span - 1) / span, span};
}

/* What is the same all along a step. In shared memory, as registers hold weights. */
struct step {
    share mine;
    rows head;
    stretches cut;
    i32 token, position;
    u32 base; /* uses of the exchange before this token */
    float penalty;
};

struct workspace {
    step now;
    alignas(16) float sum[2][BATCH * STRIDE];
    alignas(16) float squares[2][STRIDE];
    struct {
        alignas(16) u16 query[16 * QUERY_STRIDE]; /* rows 0 to 7: high parts of the heads, 8 to 15: low parts */
        float largest[SPAN_WARPS][8], total[SPAN_WARPS][8];
        float part[SPAN_WARPS][8][HEAD_DIM];
    } attention;
    float2 turn[HALF];
};

enum { SLOTS = (SHARED_BYTES - sizeof(workspace) - 128) / (SLOT + 20) };

struct shared : workspace {
    ring<SLOTS, SLOT> tiles;
};

static_assert(SLOTS >= 4 && sizeof(shared) <= SHARED_BYTES, "no room for the ring");

struct arguments {
    const u8 *stream;
    const float *small;
    const u64 *caches;
    const weights::elem *table;
    const float2 *rope;
    float *exchange;
    float *logits, *parts;
    const i32 *seen;
    volatile i32 *fault;
    i32 ctx;
};

/* Where a vector is written, in the first of its copies, and where this block reads it. */
__device__ __forceinline__ float *exchanged(const arguments &a, int vector) { return a.exchange + vector; }
__device__ __forceinline__ const float *polled(const arguments &a, int vector) {
    return a.exchange + blockIdx.x % COPIES * COPY + vector;
}

/* What a stretch of positions leaves for a query head: sums, largest score, total. */
__device__ __forceinline__ float *part_of(const arguments &a, int query_head, int stretch) {
    return a.exchange + PARTS_AT + ((size_t)query_head * MOST_PARTS + stretch) * PART;
}

/* --- producer -------------------------------------------------------------------------------------------- */

/* All tiles of `n` rows of K elements. */
template <int K, typename Producer> __device__ __forceinline__ const u8 *put_rows(Producer &p, const u8 *from, int n) {
#pragma unroll 1
    for (; n > 0; n -= TILE)
#pragma unroll 1
        for (int k = 0; k < K; k += CHUNK) {
            u32 bytes = min(n, (int)TILE) * min((int)CHUNK, K - k) * 2;
            p.put(from, bytes);
            from += bytes;
        }
    return from;
}

__device__ __forceinline__ void produce(shared &s, const arguments &a) {
    producer<SLOTS, SLOT> p = {s.tiles, s.now.cut.n > 1 ? MERGE_DEPTH + 0u : DEPTH + 0u};
    const share mine = s.now.mine;
    const rows head = s.now.head;
    const stretches cut = s.now.cut;
    const int position = s.now.position;
    int kv = blockIdx.x / cut.n, begin = blockIdx.x % cut.n * cut.span;
    int end = min(position, begin + cut.span); /* of what is in the cache */
    bool attends = kv < KV_HEADS, last = begin + cut.span > position;
#pragma unroll 1
    for (int layer = 0; layer < LAYERS; layer++) {
        const u8 *from = a.stream + share_at(mine, layer);
        from = put_rows<D>(p, from, mine.qkv.n);
        if (attends)
#pragma unroll 1
            for (int at = begin, room = SPAN - last; at < end || (last && at == begin); at += room, room = SPAN) {
                /* the first tile keeps a row for the token itself, which its block puts there */
                u32 bytes = min(room, end - at) * HEAD_DIM * 2;
                size_t offset = ((size_t)kv * a.ctx + at) * HEAD_DIM * 2;
                p.put((const u8 *)a.caches[2 * layer] + offset, bytes);
                p.put((const u8 *)a.caches[2 * layer + 1] + offset, bytes);
            }
        from = put_rows<QUERIES>(p, from, mine.out.n);
        from = put_rows<D>(p, from, mine.mlp.n);
        put_rows<FF>(p, from, mine.out.n);
    }
    p.depth = HEAD_DEPTH;
    put_rows<D>(p, a.stream + head_at(head), head.n);
}

/* --- consumers ------------------------------------------------------------------------------------------- */

__device__ __forceinline__ void consumers_meet() { asm volatile("bar.sync 1, %0;" ::"n"(WARPS * 32) : "memory"); }

struct consumer {
    shared &s;
    place<SLOTS> at;
    int batch; /* which of the two buffers of sums is next */
    waiting wait;
    u32 thread;

    /* Registers hold weights, so what can be had again is not to be kept in them: what a phase makes of the thread's
     * number is its own. */
    __device__ __forceinline__ void begin(int what) {
        wait.what = what;
        asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    }
    __device__ __forceinline__ int lane() const { return (int)(thread % 32); }
    __device__ __forceinline__ int warp() const { return (int)(thread / 32); }

    __device__ __forceinline__ const u8 *tile() {
        barrier_wait(&s.tiles.full[at.slot], at.parity);
        return s.tiles.slot[at.slot];
    }
    __device__ __forceinline__ void release() {
        __syncwarp();
        if (lane() == 0)
            barrier_arrive(&s.tiles.empty[at.slot]);
        at.next();
    }
};

/* What a lane holds of an operand B for its warp's pairs of blocks: pair i of warp w is number i * WARPS + w.
 *
 * Lane = 4 * column + quarter. A column is the half of a lane's eight elements, the block of the pair, and, from lane 16 on,
 * the low part of what the columns before have in their high part. Where a warp has several pairs the lanes of low parts
 * load other ones, and both hand each other what they lack; else they load the same. */
template <int K> struct operand {
    enum {
        PAIRS = K / PAIR,
        MINE = (PAIRS + WARPS - 1) / WARPS,
        SHARED = MINE > 1,
        LOADS = SHARED ? (MINE + 1) / 2 : 1,
    };
    u32 first[2 * LOADS] = {}, second[2 * LOADS] = {};

    static __device__ __forceinline__ bool low(const consumer &c) { return c.lane() >= 16; }
    static __device__ __forceinline__ bool here(const consumer &c, int pair) {
        return pair < MINE && (PAIRS % WARPS == 0 || pair * WARPS + c.warp() < PAIRS);
    }
    /* The pair of which this lane loads number i, and whether there is one. */
    static __device__ __forceinline__ int pair_of(const consumer &c, int i) { return SHARED ? 2 * i + low(c) : 0; }
    static __device__ __forceinline__ bool loads(const consumer &c, int i) { return here(c, pair_of(c, i)); }

    /* The element of K from which on this lane's load i has four. */
    static __device__ __forceinline__ int element(const consumer &c, int i) {
        int column = c.lane() / 4 % 4, quarter = c.lane() % 4;
        int pair = loads(c, i) ? pair_of(c, i) : 0;
        return (pair * WARPS + c.warp()) * PAIR + column / 2 * 32 + 8 * quarter + 4 * (column % 2);
    }

    __device__ __forceinline__ void set(const consumer &c, int i, float4 x) {
        if (WEIGHT == F16)
            x.x *= SHRINK, x.y *= SHRINK, x.z *= SHRINK, x.w *= SHRINK;
        u32 high[2] = {narrow_two<WEIGHT>(x.x, x.y), narrow_two<WEIGHT>(x.z, x.w)};
        u32 rest[2] = {narrow_rest<WEIGHT>(x.x, x.y, high[0]), narrow_rest<WEIGHT>(x.z, x.w, high[1])};
        bool is_low = low(c);
        u32 mine[2] = {is_low ? rest[0] : high[0], is_low ? rest[1] : high[1]};
        if constexpr (SHARED) {
            u32 theirs[2];
#pragma unroll
            for (int k = 0; k < 2; k++)
                theirs[k] = __shfl_xor_sync(0xFFFFFFFFu, is_low ? high[k] : rest[k], 16);
            first[2 * i] = is_low ? theirs[0] : mine[0], second[2 * i] = is_low ? theirs[1] : mine[1];
            first[2 * i + 1] = is_low ? mine[0] : theirs[0], second[2 * i + 1] = is_low ? mine[1] : theirs[1];
        } else
            first[i] = mine[0], second[i] = mine[1];
    }
};

/* A norm's weights for the elements that a lane takes of x. Loaded a phase ahead, as the memory is busy. */
struct norm_weights {
    float4 w[operand<D>::LOADS];
    __device__ __forceinline__ void load(const consumer &c, const float *norm) {
#pragma unroll
        for (int i = 0; i < operand<D>::LOADS; i++)
            if (operand<D>::here(c, 0))
                w[i] = *(const float4 *)(norm + operand<D>::element(c, i));
    }
};

/* The sum of squares of this warp's part of x to squares[warp]. */
__device__ __forceinline__ void put_squares(const consumer &c, float *squares, float sum) {
#pragma unroll
    for (int distance = 1; distance < (operand<D>::SHARED ? 32 : 16); distance *= 2) /* else lanes hold the same twice */
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, distance);
    if (c.lane() == 0)
        squares[c.warp()] = sum;
}

/* The elements that a lane takes of an exchanged vector, a few loads at a time; use(i, four of them). Where there is nothing
 * left to load for a lane it takes its warp's pair 0 again, which nobody uses. */
template <int K, typename Use>
__device__ __forceinline__ void take(const consumer &c, const float *from, u32 parity, Use use) {
    enum { LOADS = operand<K>::LOADS, POLLED = LOADS < 4 ? (int)LOADS : 4 };
    if (!operand<K>::here(c, 0))
        return;
#pragma unroll
    for (int first = 0; first < LOADS; first += POLLED) {
        const float *p[POLLED];
        float4 v[POLLED];
#pragma unroll
        for (int i = 0; i < POLLED; i++)
            p[i] = from + operand<K>::element(c, min(first + i, LOADS - 1));
        poll4(p, v, parity, c.wait);
#pragma unroll
        for (int i = 0; i < POLLED; i++)
            if (first + i < LOADS)
                use(first + i, v[i]);
    }
}

/* Of a vector that is normalized: the operand, and this lane's sum of squares. */
struct normed {
    operand<D> x;
    float squares;

    __device__ __forceinline__ void add(const consumer &c, int i, const float4 &v, const norm_weights &norm) {
        if (operand<D>::loads(c, i))
            squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        float4 w = norm.w[i];
        x.set(c, i, make_float4(v.x * w.x, v.y * w.y, v.z * w.z, v.w * w.w));
    }
};

__device__ __forceinline__ normed take_normed(const consumer &c, const float *from, u32 parity,
                                              const norm_weights &norm) {
    normed n;
    n.squares = 0.0f;
    take<D>(c, from, parity, [&](int i, const float4 &v) { n.add(c, i, v, norm); });
    return n;
}

/* What a tile leaves in a lane's registers: products of the even blocks and of the odd ones. */
struct products {
    float even[4], odd[4];

    /* Row lane / 4, over the block that the lane's columns belong to and both halves: to be added up over four lanes. */
    __device__ __forceinline__ float sum(int lane) const {
        bool second = lane % 2; /* columns 2 and 3, 6 and 7 */
        return second ? odd[0] + odd[3] : even[0] + even[3];
    }
};

/* A lane's 16 bytes of both blocks of its warp's pair, in registers. */
struct fragment {
    uint4 even, odd;

    /* A register that is set on some ways only keeps its place on all others, all through the layers. */
    __device__ __forceinline__ void clear() { even = odd = make_uint4(0, 0, 0, 0); }

    /* The next chunk of a tile of `height` rows; `here`: this warp has a pair in it. */
    __device__ __forceinline__ void load(consumer &c, int height, bool here) {
        const u8 *tile = c.tile();
        clear();
        if (here) {
            const u8 *block = tile + c.warp() * 2 * height * 64 + c.lane() * 16;
            even = *(const uint4 *)block, odd = *(const uint4 *)(block + height * 64);
        }
        c.release();
    }
};

/* What a warp takes of a product's rows before x is there, so that little is left to do when it comes: all tiles of
 * its share of `Rows`, or as much of them as there are registers for. It makes room in the ring besides. */
template <int K, int Rows> struct held {
    enum {
        MINE = operand<K>::MINE,
        ALL = (Rows / TYPICAL_SMS + TILE) / TILE * MINE,
        MOST = MINE > 1 ? HELD_LONG : HELD,
        N = ALL <= MOST ? (int)ALL : MOST < MINE ? (int)MOST : MOST / MINE * MINE,
        TILES = (N + MINE - 1) / MINE,
        GROUPS = (TILES + GATHERED - 1) / GATHERED,
        ROWS = GROUPS * GATHERED * TILE,
    };
    fragment f[N];

    __device__ __forceinline__ void load(consumer &c, int rows) {
#pragma unroll
        for (int i = 0; i < N; i++)
            if (i / MINE * TILE < rows)
                f[i].load(c, min(rows - i / MINE * TILE, (int)TILE), operand<K>::here(c, i % MINE));
            else
                f[i].clear();
    }
};

__device__ __forceinline__ void add_product(products &p, const fragment &f, u32 first, u32 second) {
    mma<WEIGHT>(p.even, f.even.x, f.even.y, f.even.z, f.even.w, first, second);
    mma<WEIGHT>(p.odd, f.odd.x, f.odd.y, f.odd.z, f.odd.w, first, second);
}

/* A tile of `height` rows times this warp's part of x. */
template <int K> __device__ __forceinline__ products tile_products(consumer &c, const operand<K> &x, int height) {
    products p = {};
    fragment f;
#pragma unroll
    for (int i = 0; i < operand<K>::MINE; i++) {
        f.load(c, height, operand<K>::here(c, i));
        if (operand<K>::here(c, i))
            add_product(p, f, x.first[i], x.second[i]);
    }
    return p;
}

/* The same for tile `t` of those that are held, the first `Held` chunks of it in registers. */
template <int K, int Rows>
__device__ __forceinline__ products held_products(consumer &c, const held<K, Rows> &h, const operand<K> &x, int t, int height) {
    products p = {};
    fragment f;
#pragma unroll
    for (int i = 0; i < operand<K>::MINE; i++) {
        int at = t * operand<K>::MINE + i;
        if (at >= h.N)
            f.load(c, height, operand<K>::here(c, i));
        if (operand<K>::here(c, i))
            add_product(p, at < h.N ? h.f[at < h.N ? at : 0] : f, x.first[i], x.second[i]);
    }
    return p;
}

/* What the four lanes of a row have of four tiles, added up; each lane takes one tile's sum to its row of sum[][], `to` being
 * the lane's place for the first of them. */
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

/* Sums over a row of sum[][], which all warps have left there. */
__device__ __forceinline__ float total_of(const float *row) {
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i + 4 <= WARPS; i += 4) {
        float4 v = *(const float4 *)(row + i);
        total += (v.x + v.y) + (v.z + v.w);
    }
#pragma unroll
    for (int i = WARPS / 4 * 4; i < WARPS; i++)
        total += row[i];
    return total;
}

/* All `n` rows of this block times x. meanwhile() is called once, when the first tiles have been multiplied and before the
 * warps meet; finish(row, there, product) by whole warps with a thread for each row. */
template <int K, int Rows, typename Meanwhile, typename Finish>
__device__ __forceinline__ void multiply(consumer &c, const held<K, Rows> &h, const operand<K> &x, int n,
                                         Meanwhile meanwhile, Finish finish) {
    int lane = c.lane(), warp = c.warp();
    int place = (lane / 4 + TILE * (lane % 2 * 2 + lane / 2 % 2)) * STRIDE + warp;
#pragma unroll 1
    for (int first = 0; first < n; first += BATCH) {
        int here = min((int)BATCH, n - first), row = 0;
        float *sum = c.s.sum[c.batch], *to = sum + place;
        if (first == 0) {
            row = h.ROWS;
            float tile[held<K, Rows>::GROUPS][GATHERED] = {};
#pragma unroll
            for (int t = 0; t < h.TILES; t++)
                tile[t / GATHERED][t % GATHERED] = held_products(c, h, x, t, min(here - t * TILE, (int)TILE)).sum(lane);
#pragma unroll
            for (int g = 0; g < h.GROUPS; g++)
#pragma unroll
                for (int t = 0; t < GATHERED; t++)
                    if (g * GATHERED + t >= h.TILES && (g * GATHERED + t) * TILE < here)
                        tile[g][t] = tile_products(c, x, min(here - (g * GATHERED + t) * TILE, (int)TILE)).sum(lane);
            meanwhile();
#pragma unroll
            for (int g = 0; g < h.GROUPS; g++, to += GATHERED * TILE * STRIDE)
                put_sums(tile[g], to, lane);
        }
#pragma unroll 1
        for (; row < here; row += GATHERED * TILE, to += GATHERED * TILE * STRIDE) {
            float tile[GATHERED] = {};
#pragma unroll
            for (int t = 0; t < GATHERED; t++)
                if (row + t * TILE < here)
                    tile[t] = tile_products(c, x, min(here - row - t * TILE, (int)TILE)).sum(lane);
            put_sums(tile, to, lane);
        }
        consumers_meet();
        if (warp * 32 < here) {
            int i = (int)c.thread;
            finish(first + i, i < here, total_of(sum + min(i, here - 1) * STRIDE) / SHRINK);
        }
        c.batch ^= 1;
    }
}

/* --- attention ------------------------------------------------------------------------------------------- */

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
                asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
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

    auto put = [&](int head, int element, float x, float y, float largest, float total) {
        int query_head = kv * GROUP + head;
        if (cut.n == 1) {
            publish_two(exchanged(a, A) + query_head * HEAD_DIM + element, COPY, __fdividef(x, total),
                        __fdividef(y, total), parity);
            return;
        }
        float *to = part_of(a, query_head, stretch);
        publish_two(to + element, x, y, parity);
        if (element == 0)
            publish_four(to + HEAD_DIM, largest, total, total, total, parity);
    };
    int head = lane / 4;
    if (end - begin <= 16) { /* one warp has it all */
        if (warp == 0 && head < GROUP)
#pragma unroll
            for (int j = 0; j < HEAD_DIM / 8; j++)
                put(head, 8 * j + 2 * (lane % 4), r.sums[j][0], r.sums[j][1], r.largest, r.total);
        return;
    }
    if (warp < SPAN_WARPS) {
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
        int of = i / HALF, element = i % HALF * 2;
        float largest = -INF, total = 0.0f, x = 0.0f, y = 0.0f;
#pragma unroll
        for (int w = 0; w < SPAN_WARPS; w++)
            largest = fmaxf(largest, at.largest[w][of]);
#pragma unroll
        for (int w = 0; w < SPAN_WARPS; w++) {
            float by = __expf(at.largest[w][of] - largest); /* 0 where a warp had no position */
            float2 part = *(const float2 *)&at.part[w][of][element];
            total += by * at.total[w][of];
            x += by * part.x, y += by * part.y;
        }
        put(of, element, x, y, largest, total);
    }
}

/* What positions have come to: sums of their values, and of their weights, as if `largest` were the largest score. */
template <int N> struct partial {
    float sum[N], largest, total;

    __device__ __forceinline__ partial() : largest(-INF), total(0.0f) {
#pragma unroll
        for (int i = 0; i < N; i++)
            sum[i] = 0.0f;
    }
    /* As if another score were the largest, which is one. */
    __device__ __forceinline__ void rescale(float most) {
        float by = __expf(largest - most); /* 0 where there is nothing */
        largest = most;
        total *= by;
#pragma unroll
        for (int i = 0; i < N; i++)
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
    partial<8> r;
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

/* --- the head -------------------------------------------------------------------------------------------- */

/* A logit of each lane of a warp, `id` that of this one. The token of the step counts as seen, though another block may not
 * have marked it yet. */
__device__ __forceinline__ void put_logits(const arguments &a, const step &now, i32 id, bool there, float logit) {
    if (there)
        a.logits[id] = logit;
    if (SAMPLE) {
        float l = there ? penalised(logit, a.seen, id, now.penalty, now.token) : NOT_A_NUMBER;
        l = warp_max(l);
        if (id % 32 == 0)
            a.parts[id / 32] = l;
    }
}

/* --- the step -------------------------------------------------------------------------------------------- */

__device__ __forceinline__ float norm_scale(const float *squares) { return rsqrtf(total_of(squares) * (1.0f / D) + EPS); }

__device__ __forceinline__ float4 table_row(const weights::elem *row, int element) {
    uint2 v = *(const uint2 *)(row + element);
    return make_float4(low_half<WEIGHT>(v.x), high_half<WEIGHT>(v.x), low_half<WEIGHT>(v.y), high_half<WEIGHT>(v.y));
}

__device__ __forceinline__ normed take_embedding(const consumer &c, const weights::elem *row, const norm_weights &norm) {
    normed n;
    n.squares = 0.0f;
#pragma unroll
    for (int i = 0; i < operand<D>::LOADS; i++)
        if (operand<D>::here(c, 0))
            n.add(c, i, table_row(row, operand<D>::element(c, i)), norm);
    return n;
}

/* What goes from phase to phase in registers. */
struct carried {
    norm_weights attn_norm, mlp_norm; /* loaded a phase ahead */
    float residual; /* of a row of OUT and DOWN, which stays with the thread that finishes the row */
    u32 parity, attention_parity; /* of the exchange in this layer, and of what attention leaves in it */
};

__device__ __forceinline__ void qkv(consumer &c, const arguments &a, carried &k, int layer) {
    const rows mine = c.s.now.mine.qkv;
    const float *small = a.small + (size_t)layer * SMALL, *biases = small + QKV_BIAS + mine.first;
    float bias = BIAS && c.thread < mine.n ? biases[c.thread] : 0.0f;
    held<D, QKV> h;
    h.load(c, mine.n);
    normed n;
    if (layer == 0)
        n = take_embedding(c, a.table + (size_t)c.s.now.token * D, k.attn_norm);
    else
        n = take_normed(c, polled(a, X), k.parity ^ 1, k.attn_norm);
    auto squares = [&] { put_squares(c, c.s.squares[0], n.squares); };
    multiply(c, h, n.x, mine.n, squares, [&](int row, bool there, float product) {
        float y = product * norm_scale(c.s.squares[0]);
        if (row >= THREADS || mine.n > BATCH) /* more rows than the threads that have a bias */
            bias = BIAS && there ? biases[row] : 0.0f;
        if (there)
            publish(exchanged(a, Q) + mine.first + row, COPY, y + bias, k.parity);
    });
}

/* OUT and DOWN: the product is added to the residual. */
template <int K>
__device__ __forceinline__ void add_to_residual(consumer &c, const arguments &a, carried &k, const held<K, D> &h,
                                                const operand<K> &x, const rows &mine, int to) {
    multiply(c, h, x, mine.n, [] {}, [&](int row, bool there, float product) {
        k.residual += product;
        if (there)
            publish(exchanged(a, to) + mine.first + row, COPY, k.residual, k.parity);
    });
}

__device__ __forceinline__ void out(consumer &c, const arguments &a, carried &k) {
    const rows mine = c.s.now.mine.out;
    held<QUERIES, D> h;
    h.load(c, mine.n);
    operand<QUERIES> x;
    take<QUERIES>(c, polled(a, A), k.attention_parity, [&](int i, const float4 &v) { x.set(c, i, v); });
    add_to_residual(c, a, k, h, x, mine, MID);
}

__device__ __forceinline__ void down(consumer &c, const arguments &a, carried &k) {
    const rows mine = c.s.now.mine.out;
    held<FF, D> h;
    h.load(c, mine.n);
    operand<FF> x;
    take<FF>(c, polled(a, HIDDEN), k.parity, [&](int i, const float4 &v) { x.set(c, i, v); });
    add_to_residual(c, a, k, h, x, mine, X);
}

__device__ __forceinline__ void mlp(consumer &c, const arguments &a, carried &k) {
    const rows mine = c.s.now.mine.mlp;
    held<D, 2 * FF> h;
    h.load(c, mine.n);
    normed n = take_normed(c, polled(a, MID), k.parity, k.mlp_norm);
    auto squares = [&] { put_squares(c, c.s.squares[1], n.squares); };
    multiply(c, h, n.x, mine.n, squares, [&](int row, bool there, float product) {
        float l0 = product * norm_scale(c.s.squares[1]);
        float l1 = __shfl_down_sync(0xFFFFFFFFu, l0, 1);
        if (there && row % 2 == 0)
            publish(exchanged(a, HIDDEN) + (mine.first + row) / 2, COPY, EXPRESSION, k.parity);
    });
}

__device__ __forceinline__ void head(consumer &c, const arguments &a, carried &k) {
    const rows mine = c.s.now.head;
    held<D, VOCAB> h;
    h.load(c, mine.n);
    normed n = take_normed(c, polled(a, X), k.parity, k.attn_norm);
    auto squares = [&] { put_squares(c, c.s.squares[0], n.squares); };
    multiply(c, h, n.x, mine.n, squares, [&](int row, bool there, float product) {
        put_logits(a, c.s.now, mine.first + row, there, product * norm_scale(c.s.squares[0]));
    });
}

/* The vectors of attention are not written in every step, so their parities begin anew in each, and an odd number of uses
 * must not end with the parity of the next step's first. All of X says that nobody reads them any more. */
__device__ __forceinline__ void close_attention(consumer &c, const arguments &a, const carried &k) {
    const stretches cut = c.s.now.cut;
    take<D>(c, polled(a, X), k.parity, [](int, const float4 &) {});
    consumers_meet();
    auto unused = [&](float *p, int n, size_t stride) {
        for (int i = c.thread; i < n; i += THREADS)
            publish(p + i, stride, 0.0f, 0);
    };
    if (blockIdx.x < KV_HEADS * cut.n)
        for (int i = 0; i < GROUP; i++) {
            int head = blockIdx.x / cut.n * GROUP + i;
            if (cut.n == 1)
                unused(exchanged(a, A) + head * HEAD_DIM, HEAD_DIM, COPY);
            else
                unused(part_of(a, head, blockIdx.x % cut.n), PART, 0);
        }
    if (cut.n > 1)
        for (int unit = gridDim.x - 1 - blockIdx.x; unit < QUERIES / 8; unit += gridDim.x)
            unused(exchanged(a, A) + unit * 8, 8, COPY);
}

__device__ __forceinline__ void consume(shared &s, const arguments &a) {
    consumer c = {s, {0, 0}, 0, {a.fault, 0}, threadIdx.x};
    carried k;
    k.attn_norm.load(c, a.small + ATTN_NORM);
    {
        const rows mine = s.now.mine.out;
        const weights::elem *token = a.table + (size_t)s.now.token * D;
        k.residual = c.thread < mine.n ? weights::widen(token[mine.first + c.thread]) : 0.0f;
    }
#pragma unroll 1
    for (int layer = 0; layer < LAYERS; layer++) {
        k.parity = (s.now.base + layer + 1) & 1;
        k.attention_parity = (layer + 1) & 1;
        const int here = 1 + layer * 8;
        c.begin(here + FOR_QKV);
        if (s.now.mine.qkv.n)
            qkv(c, a, k, layer);
        if (blockIdx.x < KV_HEADS * s.now.cut.n) {
            c.begin(here + FOR_ATTENTION);
            attention(c, a, layer, k.parity, k.attention_parity);
        }
        if (s.now.cut.n > 1) {
            c.begin(here + FOR_MERGE);
#pragma unroll 1
            for (int unit = gridDim.x - 1 - blockIdx.x + c.warp() * gridDim.x; unit < QUERIES / 8;
                 unit += WARPS * gridDim.x)
                merge(c, a, unit, k.attention_parity);
        }
        c.begin(here + FOR_OUT);
        k.mlp_norm.load(c, a.small + (size_t)layer * SMALL + MLP_NORM);
        if (s.now.mine.out.n)
            out(c, a, k);
        c.begin(here + FOR_MLP);
        if (s.now.mine.mlp.n)
            mlp(c, a, k);
        c.begin(here + FOR_DOWN);
        k.attn_norm.load(c, a.small + (size_t)(layer + 1) * SMALL + ATTN_NORM); /* of the next layer, or the head's */
        if (s.now.mine.out.n)
            down(c, a, k);
    }
    c.begin(1 + LAYERS * 8 + FOR_HEAD);
    if (s.now.head.n)
        head(c, a, k);
    if (LAYERS % 2)
        close_attention(c, a, k);
}

/* epoch[0] counts the tokens, epoch[1] the blocks that are through with this one. */
extern "C" __global__ void __launch_bounds__(THREADS + 32, 1)
    persistent(const u8 *stream, const float *small, const u64 *caches, const weights::elem *table, const float2 *rope,
               const i32 *tokens, const i32 *positions, float *exchange, u32 *epoch, float *logits, i32 *fault,
               i32 *seen, const sampling *settings, float *parts, i32 ctx) {
#if __CUDA_ARCH__ >= 900
    extern __shared__ __align__(128) u8 memory[];
    shared &s = *(shared *)memory;
    const arguments a = {stream, small, caches, table, rope, exchange, logits, parts, seen, fault, ctx};
    if (threadIdx.x == 0) {
        const int position = positions[0];
        s.now = {share_of(blockIdx.x, gridDim.x), head_share(blockIdx.x, gridDim.x), divide(position + 1, gridDim.x),
                 tokens[0], position, epoch[0] * LAYERS, SAMPLE ? settings->repeat_penalty : 1.0f};
        s.tiles.init(WARPS);
        if (SAMPLE && blockIdx.x == 0)
            seen[tokens[0]] = 1;
    }
    if (ROPE)
        for (int i = threadIdx.x; i < HALF; i += THREADS + 32)
            s.turn[i] = rope[(size_t)positions[0] * HALF + i];
    for (int i = threadIdx.x; i < 2 * STRIDE; i += THREADS + 32)
        s.squares[0][i] = 0.0f;
    __syncthreads();
    if (threadIdx.x >= THREADS) {
        if (threadIdx.x == THREADS)
            produce(s, a);
    } else
        consume(s, a);
    __syncthreads();
    if (threadIdx.x == 0 && atomicAdd(&epoch[1], 1) == gridDim.x - 1) {
        epoch[1] = 0;
        epoch[0]++;
    }
#endif
}
