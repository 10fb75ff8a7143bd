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
#ifndef DEPTH /* bytes in flight, in layers and in the head */
#define DEPTH 29000
#endif
#ifndef HEAD_DEPTH
#define HEAD_DEPTH 43000
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
    BATCH = 96, /* rows whose sums lie in shared memory at a time: whole warps of them */
    STRIDE = (WARPS + 3) / 4 * 4 + 4,
    /* attention */
    SPAN = SLOT / (HEAD_DIM * 2) >= 64 ? 64 : SLOT / (HEAD_DIM * 2) / 16 * 16, /* positions of a tile; of a stretch at least */
    SPAN_WARPS = SPAN / 16,
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

struct workspace {
    alignas(16) float sum[2][BATCH * STRIDE];
    alignas(16) float squares[2][STRIDE];
    union {
        struct {
            u16 query[16 * QUERY_STRIDE]; /* rows 0 to 7: high parts of the heads, 8 to 15: low parts */
            float largest[SPAN_WARPS][8], total[SPAN_WARPS][8];
            float part[SPAN_WARPS][8][HEAD_DIM];
        } attention;
        struct {
            float largest[WARPS];
            float weighted[9][MOST_PARTS];
        } merge;
    };
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
    float penalty;
    i32 token, position, ctx;
    u32 base; /* uses of the exchange before this token */
};

/* How the positions up to this one are divided: `n` stretches of `span` for each key-value head. */
struct stretches {
    int n, span;
};

__device__ __forceinline__ stretches divide(int positions, int blocks) {
    int most = min(blocks / KV_HEADS, (int)MOST_PARTS), n = min((positions + SPAN - 1) / SPAN, most);
    int span = (positions + n - 1) / n;
    return {(positions + span - 1) / span, span};
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

__device__ __forceinline__ void produce(shared &s, const arguments &a, const share &mine, const rows &head) {
    producer<SLOTS, SLOT> p = {s.tiles, {0, 0}, {0, 0}, 0, DEPTH, 0, true};
    stretches cut = divide(a.position + 1, gridDim.x);
    int kv = blockIdx.x / cut.n, begin = blockIdx.x % cut.n * cut.span;
    int end = min(a.position, begin + cut.span); /* of what is in the cache */
    bool attends = kv < KV_HEADS, last = begin + cut.span > a.position;
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

    __device__ __forceinline__ const u8 *tile() {
        barrier_wait(&s.tiles.full[at.slot], at.parity);
        return s.tiles.slot[at.slot];
    }
    __device__ __forceinline__ void release() {
        __syncwarp();
        if (threadIdx.x % 32 == 0)
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
    u32 first[2 * LOADS], second[2 * LOADS];

    static __device__ __forceinline__ bool low() { return threadIdx.x % 32 >= 16; }
    static __device__ __forceinline__ bool here(int pair) {
        return pair < MINE && (PAIRS % WARPS == 0 || pair * WARPS + threadIdx.x / 32 < PAIRS);
    }
    /* The pair of which this lane loads number i, and whether there is one. */
    static __device__ __forceinline__ int pair_of(int i) { return SHARED ? 2 * i + low() : 0; }
    static __device__ __forceinline__ bool loads(int i) { return here(pair_of(i)); }

    /* The element of K from which on this lane's load i has four. */
    static __device__ __forceinline__ int element(int i) {
        int lane = threadIdx.x % 32, column = lane / 4 % 4, quarter = lane % 4;
        int pair = loads(i) ? pair_of(i) : 0;
        return (pair * WARPS + threadIdx.x / 32) * PAIR + column / 2 * 32 + 8 * quarter + 4 * (column % 2);
    }

    __device__ __forceinline__ void set(int i, float4 x) {
        if (WEIGHT == F16)
            x.x *= SHRINK, x.y *= SHRINK, x.z *= SHRINK, x.w *= SHRINK;
        u32 high[2] = {narrow_two<WEIGHT>(x.x, x.y), narrow_two<WEIGHT>(x.z, x.w)};
        u32 rest[2] = {narrow_rest<WEIGHT>(x.x, x.y, high[0]), narrow_rest<WEIGHT>(x.z, x.w, high[1])};
        bool is_low = low();
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
    __device__ __forceinline__ void load(const float *norm) {
#pragma unroll
        for (int i = 0; i < operand<D>::LOADS; i++)
            if (operand<D>::here(0))
                w[i] = *(const float4 *)(norm + operand<D>::element(i));
    }
};

/* The sum of squares of this warp's part of x to squares[warp]. */
__device__ __forceinline__ void put_squares(float *squares, float sum) {
#pragma unroll
    for (int distance = 1; distance < (operand<D>::SHARED ? 32 : 16); distance *= 2) /* else lanes hold the same twice */
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, distance);
    if (threadIdx.x % 32 == 0)
        squares[threadIdx.x / 32] = sum;
}

/* The elements that a lane takes of an exchanged vector, a few loads at a time; use(i, four of them). Where there is nothing
 * left to load for a lane it takes its warp's pair 0 again, which nobody uses. */
template <int K, typename Use>
__device__ __forceinline__ void take(const float *from, u32 parity, const waiting &wait, Use use) {
    enum { LOADS = operand<K>::LOADS, POLLED = LOADS < 4 ? (int)LOADS : 4 };
    if (!operand<K>::here(0))
        return;
#pragma unroll
    for (int first = 0; first < LOADS; first += POLLED) {
        const float *p[POLLED];
        float4 v[POLLED];
#pragma unroll
        for (int i = 0; i < POLLED; i++)
            p[i] = from + operand<K>::element(min(first + i, LOADS - 1));
        poll4(p, v, parity, wait);
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

    __device__ __forceinline__ void add(int i, const float4 &v, const norm_weights &norm) {
        if (operand<D>::loads(i))
            squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        float4 w = norm.w[i];
        x.set(i, make_float4(v.x * w.x, v.y * w.y, v.z * w.z, v.w * w.w));
    }
};

__device__ __forceinline__ normed take_normed(const float *from, u32 parity, const waiting &wait,
                                              const norm_weights &norm) {
    normed n;
    n.squares = 0.0f;
    take<D>(from, parity, wait, [&](int i, const float4 &v) { n.add(i, v, norm); });
    return n;
}

/* What a tile leaves in a lane's registers: products of the even blocks and of the odd ones. */
struct products {
    float even[4], odd[4];

    /* Row lane / 4, over the block that the lane's columns belong to and both halves: to be added up over four lanes. */
    __device__ __forceinline__ float sum() const {
        bool second = threadIdx.x % 2; /* columns 2 and 3, 6 and 7 */
        return second ? odd[0] + odd[3] : even[0] + even[3];
    }
};

/* A lane's 16 bytes of both blocks of its warp's pair, in registers. */
struct fragment {
    uint4 even, odd;

    /* The next chunk of a tile of `height` rows; `here`: this warp has a pair in it. */
    __device__ __forceinline__ void load(consumer &c, int height, bool here) {
        const u8 *tile = c.tile();
        if (here) {
            const u8 *block = tile + threadIdx.x / 32 * 2 * height * 64 + threadIdx.x % 32 * 16;
            even = *(const uint4 *)block, odd = *(const uint4 *)(block + height * 64);
        }
        c.release();
    }
};

/* The first chunk of a product's rows, taken before x is there. */
template <int K> __device__ __forceinline__ fragment first_fragment(consumer &c, int n) {
    fragment f;
    f.load(c, min(n, (int)TILE), operand<K>::here(0));
    return f;
}

/* A tile of `height` rows times this warp's part of x; the first chunk is in `f` if `loaded`. */
template <int K>
__device__ __forceinline__ products tile_products(consumer &c, const operand<K> &x, int height, fragment f = {},
                                                  bool loaded = false) {
    products p = {};
#pragma unroll
    for (int i = 0; i < operand<K>::MINE; i++) {
        if (i > 0 || !loaded)
            f.load(c, height, operand<K>::here(i));
        if (operand<K>::here(i)) {
            mma<WEIGHT>(p.even, f.even.x, f.even.z, f.even.y, f.even.w, x.first[i], x.second[i]);
            mma<WEIGHT>(p.odd, f.odd.x, f.odd.z, f.odd.y, f.odd.w, x.first[i], x.second[i]);
        }
    }
    return p;
}

/* Sums of two tiles over four lanes, which share the shuffles; each goes to its row of sum[][]. */
__device__ __forceinline__ void put_sums(const products &p, const products &q, float *to) {
    float a = p.sum(), b = q.sum();
    int quarter = threadIdx.x % 4;
    float mine = quarter % 2 ? b : a, other = quarter % 2 ? a : b;
    mine += __shfl_xor_sync(0xFFFFFFFFu, other, 1);
    mine += __shfl_xor_sync(0xFFFFFFFFu, mine, 2);
    if (quarter < 2)
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
template <int K, typename Meanwhile, typename Finish>
__device__ __forceinline__ void multiply(consumer &c, const fragment &f, const operand<K> &x, int n, Meanwhile meanwhile,
                                         Finish finish) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, quarter = lane % 4;
    bool loaded = true;
#pragma unroll 1
    for (int first = 0; first < n; first += BATCH) {
        int here = min((int)BATCH, n - first);
        float *sum = c.s.sum[c.batch];
        float *to = sum + (lane / 4 + TILE * (quarter % 2)) * STRIDE + warp;
        products p = tile_products(c, x, min(here, (int)TILE), f, loaded), q = {};
        loaded = false;
        if (here > TILE)
            q = tile_products(c, x, min(here - (int)TILE, (int)TILE));
#pragma unroll 1
        for (int left = here - 2 * TILE; left > 0; left -= 2 * TILE) { /* the last two are added up meanwhile */
            products p_next = tile_products(c, x, min(left, (int)TILE)), q_next = {};
            if (left > TILE)
                q_next = tile_products(c, x, min(left - (int)TILE, (int)TILE));
            put_sums(p, q, to);
            to += 2 * TILE * STRIDE;
            p = p_next, q = q_next;
        }
        if (first == 0)
            meanwhile();
        put_sums(p, q, to);
        consumers_meet();
        if (warp * 32 < here) {
            int i = threadIdx.x;
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
    int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int head = threadIdx.x / 32; head < GROUP + 2 * last; head += WARPS) {
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
                u16 *to = (head == GROUP ? k_cache : v_cache) + ((size_t)kv * a.ctx + a.position) * HEAD_DIM + i;
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
__device__ __forceinline__ void attend(running &r, const u16 *query, const u16 *keys, const u16 *values, int n) {
    int lane = threadIdx.x % 32, quarter = lane % 4;
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
__device__ __forceinline__ void attention(consumer &c, const arguments &a, const stretches &cut, int layer, u32 parity) {
    auto &at = c.s.attention;
    int kv = blockIdx.x / cut.n, stretch = blockIdx.x % cut.n, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int begin = stretch * cut.span, end = min(a.position + 1, begin + cut.span);
    bool last = end == a.position + 1;
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
            take_queries(c, a, kv, last, a.exchange + Q + blockIdx.x % COPIES * COPY, parity, k_cache, v_cache, keys,
                         values, n - 1);
            consumers_meet();
        }
        if (warp < SPAN_WARPS && warp * 16 < n)
            attend(r, at.query, keys + warp * 16 * HEAD_DIM, values + warp * 16 * HEAD_DIM, n - warp * 16);
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
    for (int i = threadIdx.x; i < GROUP * HALF; i += THREADS) {
        int head = i / HALF, element = i % HALF * 2;
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
        int query_head = kv * GROUP + head;
        if (cut.n == 1)
            publish_two(a.exchange + A + query_head * HEAD_DIM + element, COPY, __fdividef(x, total),
                        __fdividef(y, total), parity);
        else {
            float *to = a.exchange + PARTS_AT + ((size_t)query_head * MOST_PARTS + stretch) * PART;
            asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1,%2};" ::"l"(to + element), "r"(marked(x, parity)),
                         "r"(marked(y, parity))
                         : "memory");
            if (element == 0)
                asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1,%2,%2,%2};" ::"l"(to + HEAD_DIM),
                             "r"(marked(largest, parity)), "r"(marked(total, parity))
                             : "memory");
        }
    }
}

/* 8 elements of a head from all stretches. */
__device__ __forceinline__ void merge(consumer &c, const arguments &a, const stretches &cut, int unit, u32 parity) {
    auto &m = c.s.merge;
    int head = unit / (HEAD_DIM / 8), first = unit % (HEAD_DIM / 8) * 8, thread = threadIdx.x;
    int warp = thread / 32, lane = thread % 32;
    float4 x = {}, y = {};
    float largest = -INF, total = 0.0f;
    consumers_meet(); /* the shared memory is in use */
    if (warp * 32 < cut.n) {
        int stretch = min(thread, cut.n - 1);
        const float *from = a.exchange + PARTS_AT + ((size_t)head * MOST_PARTS + stretch) * PART;
        const float *const p[3] = {from + first, from + first + 4, from + HEAD_DIM};
        float4 v[3];
        poll4(p, v, parity, c.wait);
        x = v[0], y = v[1], largest = v[2].x, total = v[2].y;
        float most = warp_max(largest);
        if (lane == 0)
            m.largest[warp] = most;
    }
    consumers_meet();
    if (thread < cut.n) {
        float most = m.largest[0];
        for (int w = 1; w * 32 < cut.n; w++)
            most = fmaxf(most, m.largest[w]);
        float by = __expf(largest - most);
        const float element[8] = {x.x, x.y, x.z, x.w, y.x, y.y, y.z, y.w};
#pragma unroll
        for (int i = 0; i < 8; i++)
            m.weighted[i][thread] = by * element[i];
        m.weighted[8][thread] = by * total;
    }
    consumers_meet();
#pragma unroll 1
    for (int i = warp; i < 8; i += WARPS) {
        float sum = 0.0f, weight = 0.0f;
#pragma unroll 1
        for (int p = lane; p < cut.n; p += 32) {
            sum += m.weighted[i][p];
            weight += m.weighted[8][p];
        }
        sum = warp_sum(sum), weight = warp_sum(weight);
        if (lane == 0)
            publish(a.exchange + A + head * HEAD_DIM + first + i, COPY, sum / weight, parity);
    }
}

/* --- the head -------------------------------------------------------------------------------------------- */

/* A logit of each lane of a warp, `id` that of this one. The token of the step counts as seen, though another block may not
 * have marked it yet. */
__device__ __forceinline__ void put_logits(const arguments &a, i32 id, bool there, float logit) {
    if (there)
        a.logits[id] = logit;
    if (SAMPLE) {
        float l = there ? penalised(logit, a.seen, id, a.penalty, a.token) : NOT_A_NUMBER;
        l = warp_max(l);
        if (id % 32 == 0)
            a.parts[id / 32] = l;
    }
}

/* --- the step -------------------------------------------------------------------------------------------- */

__device__ __forceinline__ float norm_scale(const float *squares) { return rsqrtf(total_of(squares) / D + EPS); }

__device__ __forceinline__ float4 table_row(const weights::elem *row, int element) {
    uint2 v = *(const uint2 *)(row + element);
    return make_float4(low_half<WEIGHT>(v.x), high_half<WEIGHT>(v.x), low_half<WEIGHT>(v.y), high_half<WEIGHT>(v.y));
}

__device__ __forceinline__ normed take_embedding(const weights::elem *row, const norm_weights &norm) {
    normed n;
    n.squares = 0.0f;
#pragma unroll
    for (int i = 0; i < operand<D>::LOADS; i++)
        if (operand<D>::here(0))
            n.add(i, table_row(row, operand<D>::element(i)), norm);
    return n;
}

__device__ __forceinline__ void consume(shared &s, const arguments &a, const share &mine, const rows &head) {
    consumer c = {s, {0, 0}, 0, {a.fault, 0}};
    const stretches cut = divide(a.position + 1, gridDim.x);
    const bool attends = blockIdx.x < KV_HEADS * cut.n;
    const float *from = a.exchange + blockIdx.x % COPIES * COPY;
    const int thread = threadIdx.x;
    const weights::elem *token = a.table + (size_t)a.token * D;

    norm_weights attn_norm, mlp_norm;
    attn_norm.load(a.small + ATTN_NORM);
    /* The residual of a row of OUT and DOWN stays with the thread that finishes the row. */
    float residual = thread < mine.out.n ? weights::widen(token[mine.out.first + thread]) : 0.0f;
    u32 parity = 0;
    auto nothing = [] {};

#pragma unroll 1
    for (int layer = 0; layer < LAYERS; layer++) {
        const float *small = a.small + (size_t)layer * SMALL;
        const u32 before = parity;
        parity = (a.base + layer + 1) & 1;
        auto waits_for = [&](int product) { c.wait.what = 1 + layer * 8 + product; };

        if (mine.qkv.n) {
            float bias = BIAS && thread < mine.qkv.n ? small[QKV_BIAS + mine.qkv.first + thread] : 0.0f;
            mlp_norm.load(small + MLP_NORM);
            waits_for(FOR_QKV);
            fragment f = first_fragment<D>(c, mine.qkv.n);
            normed n;
            if (layer == 0)
                n = take_embedding(token, attn_norm);
            else
                n = take_normed(from + X, before, c.wait, attn_norm);
            auto squares = [&] { put_squares(s.squares[0], n.squares); };
            multiply(c, f, n.x, mine.qkv.n, squares, [&](int row, bool there, float product) {
                float y = product * norm_scale(s.squares[0]);
                if (row >= THREADS || mine.qkv.n > BATCH) /* more rows than the threads that have a bias */
                    bias = BIAS && there ? small[QKV_BIAS + mine.qkv.first + row] : 0.0f;
                if (there)
                    publish(a.exchange + Q + mine.qkv.first + row, COPY, y + bias, parity);
            });
        } else
            mlp_norm.load(small + MLP_NORM);

        if (attends) {
            waits_for(FOR_ATTENTION);
            attention(c, a, cut, layer, parity);
        }
        if (cut.n > 1) {
            waits_for(FOR_MERGE);
#pragma unroll 1
            for (int unit = gridDim.x - 1 - blockIdx.x; unit < QUERIES / 8; unit += gridDim.x)
                merge(c, a, cut, unit, parity);
        }

        if (mine.out.n) {
            waits_for(FOR_OUT);
            fragment f = first_fragment<QUERIES>(c, mine.out.n);
            operand<QUERIES> x;
            take<QUERIES>(from + A, parity, c.wait, [&](int i, const float4 &v) { x.set(i, v); });
            multiply(c, f, x, mine.out.n, nothing, [&](int row, bool there, float product) {
                residual += product;
                if (there)
                    publish(a.exchange + MID + mine.out.first + row, COPY, residual, parity);
            });
        }

        attn_norm.load(small + SMALL + ATTN_NORM); /* of the next layer, or the head's */
        if (mine.mlp.n) {
            waits_for(FOR_MLP);
            fragment f = first_fragment<D>(c, mine.mlp.n);
            normed n = take_normed(from + MID, parity, c.wait, mlp_norm);
            auto squares = [&] { put_squares(s.squares[1], n.squares); };
            multiply(c, f, n.x, mine.mlp.n, squares, [&](int row, bool there, float product) {
                float l0 = product * norm_scale(s.squares[1]);
                float l1 = __shfl_down_sync(0xFFFFFFFFu, l0, 1);
                if (there && row % 2 == 0)
                    publish(a.exchange + HIDDEN + (mine.mlp.first + row) / 2, COPY, EXPRESSION, parity);
            });
        }

        if (mine.out.n) {
            waits_for(FOR_DOWN);
            fragment f = first_fragment<FF>(c, mine.out.n);
            operand<FF> x;
            take<FF>(from + HIDDEN, parity, c.wait, [&](int i, const float4 &v) { x.set(i, v); });
            multiply(c, f, x, mine.out.n, nothing, [&](int row, bool there, float product) {
                residual += product;
                if (there)
                    publish(a.exchange + X + mine.out.first + row, COPY, residual, parity);
            });
        }
    }

    if (head.n) {
        c.wait.what = 1 + LAYERS * 8 + FOR_HEAD;
        fragment f = first_fragment<D>(c, head.n);
        normed n = take_normed(from + X, parity, c.wait, attn_norm);
        auto squares = [&] { put_squares(s.squares[0], n.squares); };
        multiply(c, f, n.x, head.n, squares, [&](int row, bool there, float product) {
            put_logits(a, head.first + row, there, product * norm_scale(s.squares[0]));
        });
    }
}

/* epoch[0] counts the tokens, epoch[1] the blocks that are through with this one. */
extern "C" __global__ void __launch_bounds__(THREADS + 32, 1)
    persistent(const u8 *stream, const float *small, const u64 *caches, const weights::elem *table, const float2 *rope,
               const i32 *tokens, const i32 *positions, float *exchange, u32 *epoch, float *logits, i32 *fault,
               i32 *seen, const sampling *settings, float *parts, i32 ctx) {
#if __CUDA_ARCH__ >= 900
    extern __shared__ __align__(128) u8 memory[];
    shared &s = *(shared *)memory;
    arguments a = {stream, small, caches,    table,        rope, exchange,         logits, parts, seen,
                   fault,  1.0f,  tokens[0], positions[0], ctx,  epoch[0] * LAYERS};
    if (SAMPLE) {
        a.penalty = settings->repeat_penalty;
        if (blockIdx.x == 0 && threadIdx.x == 0)
            seen[a.token] = 1;
    }
    const share mine = share_of(blockIdx.x, gridDim.x);
    const rows head = head_share(blockIdx.x, gridDim.x);
    if (threadIdx.x == 0)
        s.tiles.init(WARPS);
    if (ROPE)
        for (int i = threadIdx.x; i < HALF; i += THREADS + 32)
            s.turn[i] = rope[(size_t)a.position * HALF + i];
    for (int i = threadIdx.x; i < 2 * STRIDE; i += THREADS + 32)
        s.squares[0][i] = 0.0f;
    __syncthreads();
    if (threadIdx.x >= THREADS) {
        if (threadIdx.x == THREADS)
            produce(s, a, mine, head);
    } else
        consume(s, a, mine, head);
    __syncthreads();
    if (threadIdx.x == 0 && atomicAdd(&epoch[1], 1) == gridDim.x - 1) {
        epoch[1] = 0;
        epoch[0]++;
    }
#endif
}
