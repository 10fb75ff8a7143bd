/* What the phases of the persistent kernel (persistent.cu) share: options, what lies in shared memory, where exchanged vectors
 * lie, and the threads that compute. Which phases there are, and every number of them, is in program.cuh. */
#pragma once
#define APPROXIMATE 1
#include "exchange.cuh"
#include "mma.cuh"
#include "pointwise.cuh"
#include "sample.cuh"
#include "tiles.cuh"
#include "turn.cuh"

/* Members of the structures of program.cuh that depend on the iteration. */
#define RULE static __device__ __forceinline__

/* What a phase does. */
enum does { DO_PRODUCTS, DO_ATTENTION, DO_MERGE, DO_EMBEDDING, DO_NORM, DO_HEADS, DO_POINTWISE, DO_CLOSE, DO_OUTSIDE };

/* What is done to a head between the product and its reader: nothing, a norm of the head, or its part of a norm over all of the
 * vector. */
enum head_norm { NO_NORM, HEAD_NORM, WHOLE_NORM };

/* Where a value from outside of a phase comes from: its element, or the only one, of a vector that is exchanged, or what the thread
 * carries. */
enum outside { NOTHING, POLLED, CARRIED, POLLED_ONE };

/* What a structure of program.cuh has unless it says otherwise: `a` is where a vector is read, and which use of it. */
#define NO_VECTOR(a, A)             \
    enum { A##_CLEAR = 0 };         \
    RULE int a##_from(int) {        \
        return 0;                   \
    }                               \
    RULE u32 a##_parity(int, u32) { \
        return 0;                   \
    }
#define NO_OUTSIDE(a, A)  \
    enum { A = NOTHING }; \
    NO_VECTOR(a, A)

struct phase_defaults {
    enum { OUT = -1, LOGITS = 0, SMALL_STEP = 0, KINDS = 1, TILES = 1 };
    RULE int kind(int) { return 0; } /* which of the KINDS of a phase it is in an iteration */
    enum {
        NORM = 0,
        NORM_AT = 0,
        NORM_SLOT = 0,
        NORM_LOADED = 0,
        AHEAD_SLOT = -1,
        AHEAD_AT = 0,
        AHEAD_K = 64
    };
    enum { CENTRED = 0 }; /* a norm: is the mean taken off first? */
    enum { BIAS = 0, BIAS_AT = 0, CARRIES = 0, MATRICES = 1 };
    enum { X_IN_LOOP = 0 };              /* is x taken chunk by chunk as the rows are multiplied? */
    enum { ROPE_FIRST = 0, ROPE_DIM = 0, ROPE_INTERLEAVED = 0 }; /* which elements of a head turn; 0: all */
    enum { Q_NORM = 0, Q_NORM_AT = 0, K_NORM = 0, K_NORM_AT = 0, HEADS_NORM = 0 };
    RULE float eps() { return 0.0f; }
    RULE int window(int) { return 0; } /* of an attention: positions that are seen, 0: all */
    RULE int cut(int) { return 0; }    /* how its positions are divided */
    enum { PREPARES = 0, IS_PREPARED = 0 }; /* does it take tiles of the phase after it, `next`, while it waits for x? Does the one before? */
    RULE u32 parts_parity(int i) { return (i + 1) & 1; } /* of the parts of an attention that is cut */
    RULE int ring(int) { return 0; }   /* the most rows of its caches, which are rings (kept.cuh); 0: all positions stay */
    enum { RINGS = 0, CAPPED = 0 };    /* are they in any iteration? Are scores capped? */
    enum { SINKS = 0, SINKS_AT = 0 }; /* is there one more score of each head? */
    RULE float softcap() { return 0.0f; }
    RULE float q_eps() { return 0.0f; }
    RULE float k_eps() { return 0.0f; }
    RULE int squares(int) { return 0; }
    RULE bool embeds(int) { return false; }
    RULE int rope(int) { return -1; }
    RULE int q_rope(int) { return -1; }
    RULE int k_rope(int) { return -1; }
    NO_VECTOR(x, X)
    NO_OUTSIDE(a0, A0)
    NO_OUTSIDE(a1, A1)
    NO_OUTSIDE(a2, A2)
    NO_OUTSIDE(a3, A3)
    NO_OUTSIDE(a4, A4)
    NO_OUTSIDE(a5, A5)
};

/* Products whose weights have one format in some iterations and another in others: the phase of each kind. */
template <typename S, int Kind> struct kind_of;
template <typename S> struct kind_of<S, 0> { typedef S type; };

/* First row and number of rows of a block. */
struct rows {
    int first, n;
};

/* f(the phase that S is in iteration i). */
template <typename S, int Kind = 0, typename F> __device__ __forceinline__ void with_kind(int i, F f) {
    if constexpr (Kind + 1 < S::KINDS)
        if (S::kind(i) > Kind) {
            with_kind<S, Kind + 1>(i, f);
            return;
        }
    f(typename kind_of<S, Kind>::type());
}

/* As program.cuh has them. */
#define FIRST(share) (u64) mine[share].first
#define COUNT(share) (u64) mine[share].n

#include "program.cuh"

#ifndef SHARED_BYTES /* a block may have */
#define SHARED_BYTES 232448
#endif
#ifndef DEPTH /* bytes in flight in loops, where attention is one split */
#define DEPTH 43000
#endif
#ifndef MERGE_DEPTH /* where it is several: each layer has an exchange more, which the stream must not delay */
#define MERGE_DEPTH 36000
#endif
#ifndef HEAD_DEPTH /* in the phase of the logits, after which nothing is exchanged */
#define HEAD_DEPTH 57500
#endif
#ifndef HELD /* the most fragments of weights that a warp holds in registers while it waits for an activation, 8 each */
#define HELD 4
#endif
#ifndef HELD_LONG /* the same where a warp has several chunks of a row */
#define HELD_LONG 6
#endif
#ifndef HELD_BLOCKS /* registers in which it holds unpacked tiles of block formats; fewer than a tile takes: no more code than needed */
#define HELD_BLOCKS 24
#endif
#ifndef HELD_LONG_BLOCKS /* the same where a row is several chunks */
#define HELD_LONG_BLOCKS HELD_BLOCKS
#endif
#ifndef TILES_AT_ONCE /* the most tiles of two chunks or groups in a block format that a warp takes from the ring at once */
#define TILES_AT_ONCE 4
#endif
#ifndef PREPARED /* fragments of the phase after the next one that a warp takes while it waits for an attention; 1, or fewer than a tile has: none */
#define PREPARED 4
#endif
#ifndef PREPARED_BLOCKS /* registers for unpacked tiles of block formats for that */
#define PREPARED_BLOCKS 40
#endif
#ifndef TOGETHER /* tiles that a warp waits for at once, at most; fewer where the ring is small */
#define TOGETHER 1
#endif
#ifndef PARTS /* splits of an attention, where it is split: more only where they would be longer than a tile */
#define PARTS 16
#endif
#ifndef ALONE /* positions up to which an attention is not split, though they may be more than a tile */
#define ALONE 64
#endif
#ifndef TYPICAL_SMS /* multiprocessors for whose shares the registers are laid out; any other number works */
#define TYPICAL_SMS 132
#endif

/* Lanes that fill the ring (tiles.cuh). Two warps copy faster than one, but not where the second takes registers from all: a quarter
 * of the warps share those of a scheduler. codegen/persistent/emit.c knows. */
#if __CUDA_ARCH__ >= 900
enum { COPYING = IN_BULK };
#else
enum { COPYING = WARPS % 4 == 3 ? 32 : 64 };
#endif
enum { BY_LOADS = __CUDA_ARCH__ < 800 };

enum { HOLDS = HELD_BLOCKS > 1, PREPARED_PARTS = (PREPARED_BLOCKS + 4) / 5 };

enum {
    TILE = 8,             /* rows */
    PAIR = 64,            /* elements of K that a warp takes of a chunk */
    CHUNK = WARPS * PAIR, /* elements of K */
    THREADS = WARPS * 32, /* that compute */
    PRODUCING = (COPYING + 31) / 32 * 32, /* threads of the warps that fill the ring */
    TILE_BYTES = TILE * CHUNK * 2, /* of a tile of 16-bit numbers */
    SLOT = SLOT_BYTES,
    GATHERED = 4, /* tiles whose sums are put together at a time */
    BATCH = 96,   /* rows whose sums lie in shared memory at a time: whole warps of them */
    STRIDE = (WARPS + 3) / 4 * 4 + 4,
    LEAST_SPAN = 16, /* positions of a split at least: what a warp takes at a time */
    MOST_PARTS = 160,
    OPERAND_BYTES = 272, /* of a warp's x of a chunk in block formats; codegen/persistent/persistent.h knows */
};

/* What a block's first thread counts of each phase, if the kernel traces: cycles, and those spent waiting for activations and for
 * weights. */
enum word { IN_ALL, FOR_ACTIVATIONS, FOR_WEIGHTS, WORDS, TRACED_BLOCKS = 1024 };

typedef stored<TABLE> embedded;

/* Tensor cores' f16 has no room for large activations: they are made smaller on the way in and the products larger. */
template <int TYPE> __device__ __forceinline__ float shrink() {
    return TYPE == F16 ? 0.015625f : 1.0f;
}

static_assert(BATCH <= THREADS && SLOT >= TILE_BYTES, "shape");

/* Positions of one tile of keys or values. */
template <typename S> struct tile_of {
    enum {
        SPAN = TILE_BYTES / (S::HEAD_DIM * 2) >= 64 ? 64 : TILE_BYTES / (S::HEAD_DIM * 2) / 16 * 16,
        WARPS_OF = SPAN / 16,
        HALF = S::HEAD_DIM / 2,
        QUERY_STRIDE = S::HEAD_DIM + 8,
        PART = S::HEAD_DIM + 4, /* floats of a split's result: sums, largest score, total */
        QUERIES = S::HEADS * S::HEAD_DIM,
        GROUP = S::HEADS / S::KV_HEADS,
        ROUNDS = (GROUP + 7) / 8,     /* 8 query heads of a group at a time */
        UNITS = S::KV_HEADS * ROUNDS, /* blocks that one split takes */
    };
    static_assert(SPAN >= 16 && S::HEAD_DIM % 32 == 0, "shape");
};

/* How the positions up to this one are divided: `n` splits of `span` for each unit. One where they are few; else there are
 * parts to merge anyway, and the more multiprocessors take some the less do they fall back in streaming, but the more there is
 * to merge. */
struct splits {
    int n, span;
    int unit, split; /* of this block */
};

template <typename S> __device__ __forceinline__ splits divide(int i, int positions, int blocks) {
    const int SPAN = tile_of<S>::SPAN, window = S::window(i);
    if (window)
        positions = min(positions, window);
    if (positions <= max(SPAN, ALONE))
        return {1, positions, (int)blockIdx.x, 0};
    int most = min(blocks / (int)tile_of<S>::UNITS, (int)MOST_PARTS),
        n = min(most, max(PARTS, (positions + SPAN - 1) / SPAN));
    int span = max((positions + n - 1) / n, (int)LEAST_SPAN);
    n = (positions + span - 1) / span;
    return {n, span, (int)blockIdx.x / n, (int)blockIdx.x % n};
}

/* The first position that an attention sees from `position`. */
template <typename S> __device__ __forceinline__ int first_seen(int i, int position) {
    const int window = S::window(i);
    return window ? max(position + 1 - window, 0) : 0;
}

/* What is the same all along a step. In shared memory, as registers hold weights. */
struct step {
    rows mine[SHARES];
    splits cut[ATTENTIONS];
    i32 token, position;
    u32 epoch; /* steps before this one */
    float penalty;
};

struct workspace {
    step now;
    alignas(16) float sum[2][BATCH * STRIDE];
    alignas(16) float squares[3][STRIDE];
    struct {
        alignas(16) u16
            query[16 * (MOST_HEAD_DIM + 8)]; /* rows 0 to 7: high parts of the heads, 8 to 15: low parts */
        float largest[4][8], total[4][8];
        alignas(16) float part[PART_ROOM];
        alignas(16) float whole[2][STRIDE]; /* squares of all queries, and of all keys */
    } attention;
    float2 turn[ROPES][MOST_HEAD_DIM / 2];
    alignas(16) u8 operand[OPERANDS ? OPERANDS * WARPS * OPERAND_BYTES : 8]; /* persistent_blocks.cuh */
#ifdef OUTSIDE_ROOM
    alignas(16) float outside[OUTSIDE_ROOM]; /* persistent_outside.cuh */
#endif
    u32 trace[TRACE ? PHASES : 1][WORDS];
};

enum { LEAST_SLOTS = 4 }; /* keys and values of one tile, and the next */
enum { SLOTS = (SHARED_BYTES - sizeof(workspace) - 128) / (sizeof(slot_of_ring<SLOT, BY_LOADS>) + 4 * (PRODUCING / 32)) };

/* So many tiles a warp takes of the phase after an attention's product before that: the others go on through the ring. */
enum { MOST_PREPARED = SLOTS / 2 };

/* So many tiles a warp waits for at once, at most. */
enum { AT_ONCE = SLOTS >= 3 * TOGETHER ? TOGETHER : 1 };

/* Slots with blocks that a warp waits for at once to hold what is in them, at most. */
enum { BLOCKS_AT_ONCE = SLOTS / 2 < 6 ? SLOTS / 2 : 6 };

/* The emitter says by it how small a ring may be. */
static_assert(TRACE || sizeof(workspace) == WORKSPACE_BYTES, "codegen/persistent/text.c knows another workspace");

struct shared : workspace {
    ring<SLOTS, SLOT, COPYING, BY_LOADS> tiles;
};

static_assert(SLOTS >= LEAST_SLOTS && sizeof(shared) <= SHARED_BYTES, "no room for the ring");

struct arguments {
    const u8 *stream;
    const float *small;
    const u64 *caches;
    const embedded::elem *table;
    float *exchange;
    float *logits, *parts;
    i32 *seen;
    volatile i32 *fault;
    i32 ctx;
    u32 *trace;
};

/* Where a vector is written, in the first of its copies, and where this block reads it. */
__device__ __forceinline__ float *exchanged(const arguments &a, int vector) {
    return a.exchange + vector;
}
__device__ __forceinline__ const float *polled(const arguments &a, int vector) {
    return a.exchange + blockIdx.x % COPIES * COPY + vector;
}

/* What a split of the positions leaves for a query head in iteration i: sums, largest score, total. */
template <typename S>
__device__ __forceinline__ float *part_of(const arguments &a, int i, int query_head, int split) {
    return a.exchange + S::parts_at(i) + ((size_t)query_head * MOST_PARTS + split) * tile_of<S>::PART;
}

__device__ __forceinline__ void consumers_meet() {
    some_meet<1, WARPS * 32>();
}

/* What depends on a thread's number alone and every phase needs before anything else can be done: in registers, as it would take some
 * twenty instructions to make it anew. */
struct lane_places {
    u32 fragment; /* bytes from the beginning of a whole tile to what the lane takes of its warp's even block */
    u32 element;  /* the element of K that elements::first counts from */
    u32 sum;      /* floats from the beginning of sum[][] to where the lane's tile of four has its first row */

    __device__ __forceinline__ lane_places(u32 thread) {
        const u32 lane = thread % 32, warp = thread / 32, column = lane / 4 % 4, quarter = lane % 4;
        fragment = warp * 2 * TILE * 64 + lane * 16;
        element = warp * PAIR + column / 2 * 32 + 16 * (column % 2) + 4 * quarter;
        sum = (lane / 4 + TILE * (quarter % 2 * 2 + quarter / 2)) * STRIDE + warp;
        stay(fragment), stay(element), stay(sum);
    }
};

struct consumer {
    shared &s;
    place<SLOTS> at;
    int batch; /* which of the two buffers of sums is next */
    waiting wait;
    u32 thread;
    u32 *counts, began; /* of the phase, if the kernel traces */
    lane_places places;

    /* Registers hold weights, so what can be had again is not to be kept in them: what a phase makes of the thread's
     * number is its own. */
    __device__ __forceinline__ void begin(int phase, int iteration) {
        wait.what = 1 + iteration * PHASES + phase; /* codegen/plan.h */
        if (TRACE) {
            end();
            counts = s.trace[phase];
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

    __device__ __forceinline__ void wait_for_tile() {
        stopwatch watch(counts + FOR_WEIGHTS);
        s.tiles.wait(at.slot, at.parity);
    }
    __device__ __forceinline__ const u8 *tile() {
        wait_for_tile();
        return s.tiles.slot[at.slot].data;
    }
    __device__ __forceinline__ void release() {
        __syncwarp();
        if (lane() == 0)
            s.tiles.release(at.slot);
        at.next();
    }

    /* The same for the next `n` slots, at most half of the ring: each lane waits for one of them, lane i for tile i, and says later that the warp has
     * read it. The slot of that tile is the result of the wait. */
    __device__ __forceinline__ u32 wait_for(int n) {
        stopwatch watch(counts + FOR_WEIGHTS);
        place<SLOTS> mine = at;
        if (n > 1)
            mine.skip(min(lane(), n - 1));
        s.tiles.wait(mine.slot, mine.parity);
        __syncwarp();
        return mine.slot;
    }
    /* Do the next `n` tiles lie one after the other? Then they are waited for in fewer instructions. */
    __device__ __forceinline__ bool in_line(int n) const { return at.slot <= (u32)(SLOTS - n); }
    template <int N> __device__ __forceinline__ u32 wait_for_line() {
        stopwatch watch(counts + FOR_WEIGHTS);
        const u32 mine = at.slot + min(lane(), N - 1);
        s.tiles.wait(mine, at.parity);
        __syncwarp();
        return mine;
    }
    /* Have the next `n` tiles come, up to 32? */
    __device__ __forceinline__ bool are_here(int n) const {
        place<SLOTS> mine = at;
        if (n > 1)
            mine.skip(min(lane(), n - 1));
        return all_lanes(s.tiles.is_full(mine.slot, mine.parity));
    }
    __device__ __forceinline__ const u8 *tile(int i) const {
        place<SLOTS> its = at;
        if (i > 0)
            its.skip(i);
        return s.tiles.slot[its.slot].data;
    }
    __device__ __forceinline__ void release(int n, u32 slot) {
        __syncwarp();
        if (lane() < n)
            s.tiles.release(slot);
        at.skip(n);
    }
};

/* The sum over rows of a value that all warps have left, [warp]. */
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
