/* Vectors that multiprocessors hand each other while a kernel runs. There is no barrier, flag or fence: the lowest bit of every
 * float is the parity of the use of its memory that it belongs to, so each word says for itself whether it is there.
 *
 * Why relaxed accesses are enough:
 *
 * - Each word is written by one strong relaxed store and read by strong relaxed loads at gpu scope, so there is no data race.
 *   PTX takes a vector access for scalar ones in no fixed order: hence a mark in every word, and none for 16 bytes.
 * - No order between words is needed: a word of the right parity is the value.
 * - A stale word of the same parity cannot be seen. The uses of a word alternate in parity, and the reader of a use has read the
 *   same word in the use before, which coherence of one location lets no later read of it undo; what an earlier launch wrote
 *   last is what a launch finds first.
 * - A word is not written again before all of its readers have read it. Who writes it has a value that was computed from something
 *   that every reader published after it had read: a chain of values through all readers, which codegen/persistent/reuse.c
 *   shows for each vector, or the graph is refused. Relaxed accesses give no happens-before between blocks; what excludes
 *   reading too new a word is that the bad outcome would be a cycle of dependencies and reads. So a block that reads a
 *   vector publishes something afterwards, and a block with no rows of a phase does not read what it reads.
 *
 * What the bit costs is at most one unit in the last place. Where the uses of a vector in a step are odd in number, its parity
 * depends on the step, and readers clear the bit, so that the same input gives the same bits in every step. An infinity
 * marked with parity 1 is a NaN to readers that do not clear it: logits say so either way.
 *
 * Every vector lies there in COPIES, each for some of the readers, so that polls spread over the slices of the L2 cache. */
#pragma once
#include "common.cuh"

#ifndef COPIES
#define COPIES 2
#endif
#ifndef WAITS /* 0: takes whatever is there, to time the stream and the arithmetic alone */
#define WAITS 1
#endif
#ifndef MOST_POLLS /* before a wait is given up: some seconds */
#define MOST_POLLS (1 << 23)
#endif

#ifndef TRACE /* 1: count the cycles that are spent waiting */
#define TRACE 0
#endif

/* Adds the cycles of its life to *sum, for one thread of a block of a kernel that traces. */
struct stopwatch {
    u32 *sum, from;
    __device__ __forceinline__ stopwatch(u32 *sum) : sum(sum), from(TRACE ? cycles() : 0) {}
    __device__ __forceinline__ ~stopwatch() {
        if (TRACE && threadIdx.x == 0)
            *sum += cycles() - from;
    }
};

/* Who waits, for the message when it waits in vain. */
struct waiting {
    volatile i32 *fault; /* host memory */
    i32 what;            /* 1 + iteration * phases + phase */
    u32 *waited;         /* cycles, where they are counted */
};

__device__ __forceinline__ void give_up(const waiting &w) {
    *w.fault = w.what;
    fence_for_host();
    fail();
}

__device__ __forceinline__ void check(u32 &missing, u32 word, u32 parity) { missing = or_xor(missing, word, parity); }

__device__ __forceinline__ void check(u32 &missing, const uint4 &v, u32 parity) {
    check(missing, v.x, parity), check(missing, v.y, parity), check(missing, v.z, parity), check(missing, v.w, parity);
}

/* The value of a word: with its bit, or without. */
template <bool Clear> __device__ __forceinline__ float unmarked(u32 word) { return bits_f32(Clear ? word & ~1u : word); }

/* Is something missing for a lane of the warp? One answer for all of them: lanes that left the loop one by one would take the slow
 * path of diverged lanes wherever they meet next. */
__device__ __forceinline__ bool still_missing(u32 missing) { return WAITS && any_lane(missing & 1); }

__device__ __forceinline__ void load_word(uint4 &v, const float *p) { v = load_relaxed(p); }
__device__ __forceinline__ void load_word(u32 &v, const float *p) { v = load_relaxed_one(p); }

/* N words, or fours of them. All loads are under way together, as each takes the latency of the L2 cache. */
template <typename Word, int N> __device__ __forceinline__ void ask(const float *const (&p)[N], Word (&v)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++)
        load_word(v[i], p[i]);
}

/* By a whole warp: v[i] from p[i], where p[i] is there. `asked`: they have been asked for before. */
template <typename Word, int N>
__device__ __forceinline__ void poll(const float *const (&p)[N], Word (&v)[N], u32 parity, const waiting &w, bool asked = false) {
    stopwatch watch(w.waited);
    for (int polls = 0;; polls++) {
        u32 missing = 0;
        if (polls > 0 || !asked)
            ask(p, v);
#pragma unroll
        for (int i = 0; i < N; i++)
            check(missing, v[i], parity);
        if (!still_missing(missing))
            return;
        if (polls > MOST_POLLS)
            give_up(w);
    }
}

template <bool Clear> __device__ __forceinline__ float4 unmarked_four(const uint4 &v) {
    return make_float4(unmarked<Clear>(v.x), unmarked<Clear>(v.y), unmarked<Clear>(v.z), unmarked<Clear>(v.w));
}

/* The values of N vectors of four. */
template <bool Clear, int N>
__device__ __forceinline__ void poll4(const float *const (&p)[N], float4 (&out)[N], u32 parity, const waiting &w) {
    uint4 v[N];
    poll(p, v, parity, w);
#pragma unroll
    for (int i = 0; i < N; i++)
        out[i] = unmarked_four<Clear>(v[i]);
}

/* Those of N words, and of one. */
template <bool Clear, int N>
__device__ __forceinline__ void poll_words(const float *const (&p)[N], float (&out)[N], u32 parity, const waiting &w) {
    u32 v[N];
    poll(p, v, parity, w);
#pragma unroll
    for (int i = 0; i < N; i++)
        out[i] = unmarked<Clear>(v[i]);
}

template <bool Clear> __device__ __forceinline__ float poll_one(const float *p, u32 parity, const waiting &w) {
    const float *const from[1] = {p};
    float word[1];
    poll_words<Clear>(from, word, parity, w);
    return word[0];
}

__device__ __forceinline__ u32 marked(float x, u32 parity) { return (__float_as_uint(x) & ~1u) | parity; }

/* `stride` floats lie between the copies. */
__device__ __forceinline__ void publish(float *p, size_t stride, float x, u32 parity) {
#pragma unroll
    for (int c = 0; c < COPIES; c++)
        store_relaxed(p + c * stride, marked(x, parity));
}

__device__ __forceinline__ void publish_two(float *p, float x, float y, u32 parity) {
    store_relaxed(p, marked(x, parity), marked(y, parity));
}

__device__ __forceinline__ void publish_two(float *p, size_t stride, float x, float y, u32 parity) {
#pragma unroll
    for (int c = 0; c < COPIES; c++)
        publish_two(p + c * stride, x, y, parity);
}

/* Of what is read by few and lies there once. */
__device__ __forceinline__ void publish_four(float *p, float x, float y, float z, float w, u32 parity) {
    store_relaxed(p, marked(x, parity), marked(y, parity), marked(z, parity), marked(w, parity));
}
