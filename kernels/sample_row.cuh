/* What the two parts of sample_merge.cu share: the row of logits and its weights, sums over a block, random bits. */
#pragma once
#include "sample.cuh"

#ifndef VOCAB
#define VOCAB 151936
#endif
#ifndef CHUNK
#define CHUNK 32
#endif
#ifndef SLICE
#define SLICE 2048 /* at most 4095: see add_digit */
#endif
#ifndef THREADS
#define THREADS 1024
#endif

enum {
    WARPS = THREADS / 32,
    PARTS = (VOCAB + CHUNK - 1) / CHUNK,
    SLICES = (VOCAB + SLICE - 1) / SLICE,
    PARTS_EACH = (PARTS + THREADS - 1) / THREADS, /* of a thread */
    SLICE_EACH = (SLICE + THREADS - 1) / THREADS,
};

struct row {
    const float *logits;
    const i32 *seen;
    float penalty, largest, temperature;
};

/* Floats in the order of unsigned integers. NaN comes first, below -infinity, so it is never among the largest;
 * the two zeros are one. */
__device__ __forceinline__ u32 ordered(float l) {
    if (l != l)
        return 0;
    u32 bits = __float_as_uint(l + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float from_ordered(u32 key) {
    return bits_f32(key & 0x80000000u ? key ^ 0x80000000u : ~key);
}

__device__ __forceinline__ u64 weight_of(const row &r, float l) {
    float e = expf((l - r.largest) / r.temperature);
    if (e > 1.0f) /* as the reference has it */
        e = 1.0f;
    return e > 0.0f ? (u64)(e * 1099511627776.0f) : 0; /* 0 for NaN, too */
}

__device__ __forceinline__ float logit_at(const row &r, i32 id) { return penalised(r.logits[id], r.seen, id, r.penalty); }

/* The sum of the values of lower lanes and of this one. */
__device__ __forceinline__ u64 sum_up_to(u64 value) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        u64 below = __shfl_up_sync(0xFFFFFFFFu, value, distance);
        if (lane >= distance)
            value += below;
    }
    return value;
}

/* Sum of the values of lower threads, and of all. */
__device__ u64 scan(u64 value, u64 *total) {
    __shared__ u64 part[WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u64 sum = sum_up_to(value);
    __syncthreads(); /* an earlier call may still be reading */
    if (lane == 31)
        part[warp] = sum;
    __syncthreads();
    const u64 warps = sum_up_to(lane < WARPS ? part[lane] : 0);
    *total = __shfl_sync(0xFFFFFFFFu, warps, 31);
    u64 before = __shfl_sync(0xFFFFFFFFu, warps, (warp + 31) % 32); /* of the warp before this one */
    return (warp ? before : 0) + sum - value;
}

/* The largest, of all threads. */
__device__ u64 block_largest(u64 value) {
    __shared__ u64 part[WARPS];
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        value = max(value, __shfl_xor_sync(0xFFFFFFFFu, value, distance));
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = value;
    __syncthreads();
    value = threadIdx.x % 32 < WARPS ? part[threadIdx.x % 32] : 0;
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        value = max(value, __shfl_xor_sync(0xFFFFFFFFu, value, distance));
    return value;
}

/* Chunks by falling largest, and of equal ones the lower first: which is never 0 but for NaN. */
__device__ __forceinline__ u64 order_of(u32 key, i32 part) { return (u64)key << 32 | (0xFFFFFFFFu - (u32)part); }

/* 64 random bits: Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011). */
__device__ u64 philox(u64 seed, u32 position) {
    u32 c[4] = {position, 0, 0, 0}, key[2] = {(u32)seed, (u32)(seed >> 32)};
#pragma unroll 1
    for (int round = 0; round < 10; round++) {
        u64 p0 = (u64)0xD2511F53u * c[0], p1 = (u64)0xCD9E8D57u * c[2];
        u32 next[4] = {(u32)(p1 >> 32) ^ c[1] ^ key[0], (u32)p1, (u32)(p0 >> 32) ^ c[3] ^ key[1], (u32)p0};
        for (int i = 0; i < 4; i++)
            c[i] = next[i];
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return (u64)c[1] << 32 | c[0];
}

/* This thread's share of n things, [first, last): shares follow one another in the order of the threads. */
__device__ __forceinline__ void share_of(i32 n, i32 *first, i32 *last) {
    i32 share = (n + THREADS - 1) / THREADS;
    *first = min((i32)threadIdx.x * share, n);
    *last = min(*first + share, n);
}

/* ceil(mass * top_p) in whole numbers, top_p as a multiple of 2^-32; mass < 2^62, so in two halves. At least 1. */
__device__ u64 top_p_goal(u64 mass, float top_p) {
    u64 part = top_p > 0.0f ? (u64)((double)top_p * 4294967296.0) : 0, low = (mass & 0xFFFFFFFFu) * part;
    return max((mass >> 32) * part + (low >> 32) + ((low & 0xFFFFFFFFu) != 0), 1ull);
}
