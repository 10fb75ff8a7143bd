/* The choice without top-k, by all blocks, as the weights of all tokens count. Each block works on slices of SLICE tokens.
 * Top-p finds the border weight digit by digit: one phase a digit, in which the blocks add up the weights by that digit.
 * Then each slice is summed up, and the block that leaves last draws: first a slice, then a token of it. What the weights
 * are makes no difference to the time. */
#pragma once
#include "last.cuh"
#include "sample_row.cuh"

enum { DIGITS = 3, BINS = 1024 }; /* of a weight: see digits_to */

/* What the blocks leave for each other; zero at first, and left so but for `mass` and `ties`. */
struct shared_sums {
    u64 bins[DIGITS][BINS]; /* weights by a digit, of those that share the digits before it with the border */
    u64 mass[SLICES];       /* weights above the border */
    u32 ties[SLICES];       /* tokens on the border */
    u32 taken, finished, left;
};

/* Work is handed out in tickets: one for each slice in phase 0, then one for each slice in phase 1, and so on. A phase
 * begins when all tickets of the one before it are done. A block waits only for blocks that hold tickets, so for blocks
 * that run: it does not matter how many of them the card runs at once. */
struct ticket {
    u32 phase;
    i32 slice;
};

__device__ ticket take_ticket(shared_sums *sums) {
    __shared__ u32 taken;
    if (threadIdx.x == 0)
        taken = atomicAdd(&sums->taken, 1u);
    __syncthreads();
    return {taken / SLICES, (i32)(taken % SLICES)};
}

/* Until all tickets of lower phases are done. */
__device__ void wait_for_phase(const shared_sums *sums, u32 phase) {
    while (threadIdx.x == 0 && *(const volatile u32 *)&sums->finished < phase * SLICES)
        __nanosleep(0);
    __syncthreads();
    __threadfence();
}

__device__ void finish_ticket(shared_sums *sums) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0)
        atomicAdd(&sums->finished, 1u);
}

/* Weights of a slice, as floats, which hold them exactly: they are floats multiplied by 2^40 and rounded down. Bits of
 * positive floats rise with them. Those of 1 to 2^40 are 127 << 23 to 167 << 23, and in digits of 10, 10 and 9 bits, from
 * the highest on, less than 641 << 19. */
struct slice_weights {
    float of[SLICE_EACH];
};

__device__ slice_weights load_weights(const row &r, i32 slice) {
    slice_weights w;
#pragma unroll
    for (int i = 0; i < SLICE_EACH; i++) {
        const i32 in_slice = threadIdx.x + i * THREADS, id = slice * SLICE + in_slice;
        w.of[i] = in_slice < SLICE && id < VOCAB ? (float)weight_of(r, logit_at(r, id)) : 0.0f;
    }
    return w;
}

/* The first `digits` digits of a weight above 0. */
__device__ __forceinline__ u32 digits_to(float weight, int digits) {
    const u32 bits = __float_as_uint(weight) - (127u << 23);
    return digits == 0 ? 0 : digits == 1 ? bits >> 19 : digits == 2 ? bits >> 9 : bits;
}

__device__ __forceinline__ int digit_bits(int digit) { return digit == 2 ? 9 : 10; }

/* What is known of the border of top-p: some of its first digits, and the weights above all that begin with them. Weights
 * from the largest on reach the goal on the border. */
struct top_p_search {
    int n;
    u32 digits;
    u64 above, goal;
};

struct slice_bins {
    u32 low[BINS], high[BINS];
};

/* A slice, added to the bins of the next digit. Sums of halves of 20 and 21 bits fit into 32 bits for 4095 tokens, and
 * shared memory adds up 32 bits natively. The bins are clear before and after. */
__device__ void add_digit(const slice_weights &w, const top_p_search &s, slice_bins &bins, shared_sums *sums) {
    const u32 mask = (1u << digit_bits(s.n)) - 1;
#pragma unroll
    for (int i = 0; i < SLICE_EACH; i++) {
        if (!(w.of[i] > 0.0f) || digits_to(w.of[i], s.n) != s.digits)
            continue;
        const u64 weight = (u64)w.of[i];
        const u32 bin = digits_to(w.of[i], s.n + 1) & mask;
        atomicAdd(&bins.low[bin], (u32)weight & 0xFFFFFu);
        atomicAdd(&bins.high[bin], (u32)(weight >> 20));
    }
    __syncthreads();
    for (int i = threadIdx.x; i < BINS; i += THREADS) {
        if ((bins.low[i] | bins.high[i]) == 0)
            continue;
        atomicAdd(&sums->bins[s.n][i], ((u64)bins.high[i] << 20) + bins.low[i]);
        bins.low[i] = bins.high[i] = 0;
    }
}

/* The next digit of the border, from the sums of all slices. */
__device__ void find_next_digit(const shared_sums *sums, float top_p, top_p_search *s) {
    const int EACH = (BINS + THREADS - 1) / THREADS;
    __shared__ u32 found;
    __shared__ u64 above;
    u64 bins[EACH], own = 0, mass;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int bin = BINS - 1 - (threadIdx.x * EACH + i);
        bins[i] = bin >= 0 ? *(const volatile u64 *)&sums->bins[s->n][bin] : 0;
        own += bins[i];
    }
    u64 before = s->above + scan(own, &mass);
    if (s->n == 0)
        s->goal = top_p_goal(mass, top_p);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        if (before < s->goal && before + bins[i] >= s->goal) {
            found = BINS - 1 - (threadIdx.x * EACH + i);
            above = before;
        }
        before += bins[i];
    }
    __syncthreads();
    s->digits = s->digits << digit_bits(s->n) | found;
    s->above = above;
    s->n++;
}

/* What stays: weights above the border, and of the tokens on it the first `ties`; of both what is not below the floor of
 * min-p. */
struct border {
    u64 weight, ties, floor;
};

__device__ border border_of(const top_p_search &s, u64 floor) {
    const u64 weight = (u64)__uint_as_float(s.digits + (127u << 23));
    return {weight, (s.goal - s.above + weight - 1) / weight, floor};
}

/* What a token weighs in the draw. *ties: how many of those on the border may still stay. */
__device__ __forceinline__ u64 kept_weight(const border &b, u64 weight, u64 *ties) {
    if (weight < b.weight || weight < b.floor)
        return 0;
    if (weight > b.weight)
        return weight;
    if (*ties == 0)
        return 0;
    --*ties;
    return weight;
}

/* A slice, as two numbers. */
__device__ void sum_slice(const slice_weights &w, const border &b, i32 slice, shared_sums *sums) {
    u64 mass = 0, n = 0, all, ties;
#pragma unroll
    for (int i = 0; i < SLICE_EACH; i++) {
        const u64 weight = (u64)w.of[i];
        mass += weight > b.weight && weight >= b.floor ? weight : 0;
        n += weight == b.weight;
    }
    scan(mass, &all);
    if (b.ties > 0)
        scan(n, &ties);
    if (threadIdx.x == 0) {
        sums->mass[slice] = all;
        sums->ties[slice] = b.ties > 0 ? (u32)ties : 0;
    }
}

/* What slice i weighs in the draw. *ties as above. */
__device__ __forceinline__ u64 kept_of_slice(const border &b, const shared_sums *sums, i32 i, u64 *ties) {
    const u64 here = min((u64) * (const volatile u32 *)&sums->ties[i], *ties);
    *ties -= here;
    return *(const volatile u64 *)&sums->mass[i] + (b.weight >= b.floor ? here * b.weight : 0);
}

/* Where a point lies: in which of n things, the sum of those before it, and how many ties those after it may still take. */
struct place {
    i32 at;
    u64 before, ties;
};

/* Of `ties` that may stay, how many are left where the lower threads have those they see, of which this one sees `own`. */
__device__ u64 ties_left(const border &b, u64 ties, u64 own) {
    u64 all;
    if (b.ties == 0)
        return 0;
    const u64 before = scan(own, &all);
    return ties - min(ties, before);
}

/* The slice in which the point at `random` of all that weighs in the draw lies, and the point. */
__device__ place find_slice(const border &b, const shared_sums *sums, u64 random, u64 *point) {
    __shared__ place found;
    i32 first, last;
    share_of(SLICES, &first, &last);
    u64 n = 0, own = 0, mass;
    for (i32 i = first; i < last && b.ties > 0; i++)
        n += *(const volatile u32 *)&sums->ties[i];
    const u64 left = ties_left(b, b.ties, n);
    u64 ties = left;
    for (i32 i = first; i < last; i++)
        own += kept_of_slice(b, sums, i, &ties);
    u64 before = scan(own, &mass);
    *point = __umul64hi(random, mass);
    ties = left;
    for (i32 i = first; i < last; i++) {
        const u64 ties_here = ties, here = kept_of_slice(b, sums, i, &ties);
        if (*point >= before && *point - before < here)
            found = {i, before, ties_here};
        before += here;
    }
    __syncthreads();
    return found;
}

/* The token of the slice, to one thread; -1 to the others. */
__device__ i32 draw_in_slice(const row &r, const border &b, const place &slice, u64 point) {
    const i32 begin = slice.at * SLICE + threadIdx.x * SLICE_EACH, in_slice = SLICE - threadIdx.x * SLICE_EACH;
    u64 weights[SLICE_EACH], n = 0, own = 0, all;
#pragma unroll
    for (int i = 0; i < SLICE_EACH; i++) {
        weights[i] = i < in_slice && begin + i < VOCAB ? weight_of(r, logit_at(r, begin + i)) : 0;
        n += weights[i] == b.weight;
    }
    u64 ties = ties_left(b, slice.ties, n);
#pragma unroll
    for (int i = 0; i < SLICE_EACH; i++)
        own += weights[i] = kept_weight(b, weights[i], &ties);
    u64 before = slice.before + scan(own, &all);
    i32 found = -1;
#pragma unroll
    for (int i = 0; i < SLICE_EACH; i++) {
        if (point >= before && point - before < weights[i])
            found = begin + i;
        before += weights[i];
    }
    return found;
}

/* This block's tickets. */
__device__ void work_for_top_p(const row &r, float top_p, u64 floor, shared_sums *sums, top_p_search *s) {
    __shared__ slice_bins bins;
    for (int i = threadIdx.x; i < BINS; i += THREADS)
        bins.low[i] = bins.high[i] = 0;
#pragma unroll 1
    for (;;) {
        const ticket t = take_ticket(sums);
        if (t.phase > DIGITS)
            return;
        const slice_weights w = load_weights(r, t.slice);
        wait_for_phase(sums, t.phase);
        while (s->n < t.phase)
            find_next_digit(sums, top_p, s);
        if (t.phase < DIGITS)
            add_digit(w, *s, bins, sums);
        else
            sum_slice(w, border_of(*s, floor), t.slice, sums);
        finish_ticket(sums);
    }
}

/* For the next step. */
__device__ void clear_sums(shared_sums *sums) {
    for (int i = threadIdx.x; i < DIGITS * BINS; i += THREADS)
        sums->bins[i / BINS][i % BINS] = 0;
    if (threadIdx.x == 0)
        sums->taken = sums->finished = 0;
}

/* The token, to one thread of one block; -1 to the others. */
__device__ i32 choose_of_all(const row &r, float top_p, u64 floor, shared_sums *sums, u64 random) {
    border b = {0, 0, floor};
    top_p_search search = {};
    const bool by_p = top_p < 1.0f;
    if (by_p)
        work_for_top_p(r, top_p, floor, sums, &search);
    else
        for (i32 slice = blockIdx.x; slice < SLICES; slice += gridDim.x)
            sum_slice(load_weights(r, slice), b, slice, sums);
    if (!last_to_come(&sums->left, gridDim.x))
        return -1;
    if (by_p) {
        while (search.n < DIGITS)
            find_next_digit(sums, top_p, &search);
        b = border_of(search, floor);
    }
    u64 point;
    const place slice = find_slice(b, sums, random, &point);
    if (by_p)
        clear_sums(sums);
    return draw_in_slice(r, b, slice, point);
}
