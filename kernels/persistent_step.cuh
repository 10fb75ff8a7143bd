/* What the parts of the persistent kernel (persistent.cu) share: options, what lies in shared memory, where exchanged vectors
 * lie, and the threads that compute. */
#pragma once
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
#ifndef HELD_LONG /* the same where a warp has several chunks of a row */
#define HELD_LONG 6
#endif
#ifndef PARTS /* that attention is cut into, where it is: more only where they would be longer than a tile */
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
    SPAN = SLOT / (HEAD_DIM * 2) >= 64 ? 64 : SLOT / (HEAD_DIM * 2) / 16 * 16, /* positions of a tile */
    SPAN_WARPS = SPAN / 16,
    LEAST_SPAN = 16, /* positions of a stretch at least: what a warp takes at a time */
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

/* What a block does, in order, with room for one more; a wait in vain and a trace count so (codegen/plan.h). */
enum product { FOR_QKV, FOR_ATTENTION, FOR_MERGE, FOR_OUT, FOR_MLP, FOR_DOWN, FOR_HEAD, PRODUCTS = 8 };

/* What a block's first thread counts of each, if the kernel traces: cycles, and those spent waiting for activations and for
 * weights. */
enum word { IN_ALL, FOR_ACTIVATIONS, FOR_WEIGHTS, WORDS, TRACED_BLOCKS = 1024 };

typedef stored<WEIGHT> weights;
typedef stored<CACHE> cached;

/* f16 has no room for large activations: they are made smaller on the way in and the products larger. */
#define SHRINK (WEIGHT == F16 ? 0.015625f : 1.0f)

static_assert(D % PAIR == 0 && QUERIES % PAIR == 0 && FF % PAIR == 0 && (HEAD_DIM == 32 || HEAD_DIM == 64 || HEAD_DIM == 128) && GROUP <= 8 &&
                  SPAN >= 16 && BATCH <= THREADS,
              "shape");

/* How the positions up to this one are divided: `n` stretches of `span` for each key-value head. One where that is a tile;
 * else there are parts to merge anyway, and the more multiprocessors take some the less do they fall behind in streaming, but
 * the more there is to merge. */
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
    u32 trace[TRACE ? PRODUCTS : 1][WORDS];
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
    u32 *trace;
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

__device__ __forceinline__ void consumers_meet() { some_meet<1, WARPS * 32>(); }

struct consumer {
    shared &s;
    place<SLOTS> at;
    int batch; /* which of the two buffers of sums is next */
    waiting wait;
    u32 thread;
    u32 *counts, began; /* of the product, if the kernel traces */

    /* Registers hold weights, so what can be had again is not to be kept in them: what a phase makes of the thread's
     * number is its own. */
    __device__ __forceinline__ void begin(int what) {
        wait.what = what;
        if (TRACE) {
            end();
            counts = s.trace[(what - 1) % PRODUCTS];
            wait.waited = counts + FOR_ACTIVATIONS;
            began = cycles();
        }
        thread = thread_number();
    }
    __device__ __forceinline__ void end() {
        if (TRACE && counts && thread == 0)
            counts[IN_ALL] += cycles() - began;
    }
    __device__ __forceinline__ int lane() const { return (int)(thread % 32); }
    __device__ __forceinline__ int warp() const { return (int)(thread / 32); }

    __device__ __forceinline__ const u8 *tile() {
        stopwatch watch(counts + FOR_WEIGHTS);
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
