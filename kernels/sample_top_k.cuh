/* The choice with top-k, by one block. The k-th largest of the chunks' largest is a bound, which k chunks reach; no
 * other chunk can hold one of the k largest logits. Their tokens are listed, and the border among them is found digit by
 * digit (radix selection). A k so large that the tokens do not fit into LIST makes the block go through the whole row
 * instead. */
#pragma once
#include "sample_row.cuh"

enum { LIST = THREADS };

/* What is kept so far: logits not below a border, weights not below another. Of the tokens that lie on a border,
 * those with ids up to `..._id`. */
struct kept {
    u32 logit;
    i32 logit_id;
    u64 weight;
    i32 weight_id;
    u64 floor; /* of min-p */
};

__device__ __forceinline__ bool passes(const kept &k, u32 key, u64 weight, i32 id) {
    return (key > k.logit || (key == k.logit && id <= k.logit_id)) &&
           (weight > k.weight || (weight == k.weight && id <= k.weight_id)) && weight >= k.floor;
}

/* --- tokens under consideration -------------------------------------------------------------------------- */

/* Tokens in the order of their ids: those of the list, or all. */
struct items {
    bool listed;
    i32 n;
};

struct entry {
    u64 weight;
    u32 key;
    i32 id;
};

struct listing {
    entry token[LIST];
    i32 chunk[LIST], count[LIST];
};

__device__ __forceinline__ entry entry_of(const row &r, i32 id) {
    float l = logit_at(r, id);
    return {weight_of(r, l), ordered(l), id};
}

__device__ __forceinline__ entry entry_at(const row &r, const listing &list, const items &it, i32 i) {
    return it.listed ? list.token[i] : entry_of(r, i);
}

/* Lists the tokens with a logit not below the bound, of the chunks that reach it (see bound_of_top_k): *it becomes the
 * list. False, and *it as it was, if they do not fit in. mine[]: the ordered largest of the thread's chunks. */
__device__ bool collect(const row &r, const u32 *mine, u64 bound, listing &list, items *it) {
    const u32 least = (u32)(bound >> 32);
    const i32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 wants[PARTS_EACH], n_wanted = 0;
#pragma unroll
    for (int i = 0; i < PARTS_EACH; i++) {
        i32 part = threadIdx.x * PARTS_EACH + i;
        wants[i] = part < PARTS && mine[i] > 0 && order_of(mine[i], part) >= bound;
        n_wanted += wants[i];
    }
    u64 n;
    u32 at = (u32)scan(n_wanted, &n);
    if (n > LIST)
        return false;
#pragma unroll
    for (int i = 0; i < PARTS_EACH; i++)
        if (wants[i])
            list.chunk[at++] = threadIdx.x * PARTS_EACH + i;
    __syncthreads();

#pragma unroll 1
    for (i32 i = warp; i < (i32)n; i += WARPS) {
        i32 count = 0, begin = list.chunk[i] * CHUNK;
#pragma unroll 1
        for (i32 id = begin + lane; id - lane < min(begin + CHUNK, VOCAB); id += 32) {
            bool here = id < min(begin + CHUNK, VOCAB) && ordered(logit_at(r, id)) >= least;
            count += __popc(__ballot_sync(0xFFFFFFFFu, here));
        }
        if (lane == 0)
            list.count[i] = count;
    }
    __syncthreads();
    u64 total;
    i32 first = (i32)scan(threadIdx.x < n ? list.count[threadIdx.x] : 0, &total);
    if (threadIdx.x < n)
        list.count[threadIdx.x] = first;
    __syncthreads();
    if (total > LIST)
        return false;

#pragma unroll 1
    for (i32 i = warp; i < (i32)n; i += WARPS) {
        i32 to = list.count[i], begin = list.chunk[i] * CHUNK;
#pragma unroll 1
        for (i32 id = begin + lane; id - lane < min(begin + CHUNK, VOCAB); id += 32) {
            entry e = entry_of(r, min(id, VOCAB - 1));
            bool here = id < min(begin + CHUNK, VOCAB) && e.key >= least;
            u32 all = __ballot_sync(0xFFFFFFFFu, here);
            if (here)
                list.token[to + __popc(all & ((1u << lane) - 1))] = e;
            to += __popc(all);
        }
    }
    __syncthreads();
    *it = {true, (i32)total};
    return true;
}

/* --- borders --------------------------------------------------------------------------------------------- */

enum { BY_COUNT, BY_MASS };

/* Of sums by digit, added to `reached` from the largest digit on: the digit with which they reach the goal, to one lane
 * of a warp, with the sum before it; -1 to the others. 0 where the other digits do not reach it. */
template <int DIGITS> __device__ int find_digit(const u64 *sums, u64 reached, u64 goal, u64 *before) {
    const int EACH = DIGITS / 32, lane = threadIdx.x % 32, highest = DIGITS - 1 - lane * EACH;
    u64 own = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++)
        own += highest - i > 0 ? sums[highest - i] : 0;
    *before = reached + sum_up_to(own) - own;
    if (*before >= goal || (*before + own < goal && lane < 31))
        return -1;
    int digit = highest;
    while (digit > 0 && *before + sums[digit] < goal && digit > highest - EACH + 1)
        *before += sums[digit--];
    return digit;
}

/* The items that pass `k`, sorted by `BY_COUNT ? logit : weight` from the largest: finds the border value at which
 * the sum of counts (or weights) reaches `goal`, and the last id kept among the tokens that lie on it. */
template <int BY>
__device__ void select_top(const row &r, const listing &list, const items &it, const kept &k, u64 goal, u64 *border,
                           i32 *border_id) {
    const int BITS = 8, DIGITS = 1 << BITS, START = BY == BY_COUNT ? 24 : 40;
    __shared__ u64 sums[DIGITS];
    __shared__ u64 found, above;
    u64 prefix = 0, reached = 0; /* digits found so far; the sum of all that is larger */

#pragma unroll 1
    for (int shift = START; shift >= 0; shift -= BITS) {
        for (int i = threadIdx.x; i < DIGITS; i += THREADS)
            sums[i] = 0;
        __syncthreads();
#pragma unroll 1
        for (i32 i = threadIdx.x; i < it.n; i += THREADS) {
            entry e = entry_at(r, list, it, i);
            u64 value = BY == BY_COUNT ? e.key : e.weight;
            u32 digit = value >> shift & (DIGITS - 1);
            /* digit 0 is what remains, nobody asks for its sum; most small weights have it */
            if (digit > 0 && value >> (shift + BITS) == prefix && passes(k, e.key, e.weight, e.id))
                atomicAdd(&sums[digit], BY == BY_COUNT ? 1 : e.weight);
        }
        __syncthreads();
        if (threadIdx.x < 32) {
            u64 at;
            int digit = find_digit<DIGITS>(sums, reached, goal, &at);
            if (digit >= 0) {
                found = prefix << BITS | digit;
                above = at;
            }
        }
        __syncthreads();
        prefix = found;
        reached = above;
    }
    *border = prefix;

    /* Of the tokens on the border so many are kept as it takes to reach the goal: at least one. */
    u64 each = BY == BY_COUNT ? 1 : prefix;
    u64 wanted = each == 0 ? 1 : (goal - reached + each - 1) / each, counted = 0;
    __shared__ i32 last;
    if (threadIdx.x == 0)
        last = VOCAB;
#pragma unroll 1
    for (i32 first = 0; first < it.n && counted < wanted; first += THREADS) {
        i32 i = first + threadIdx.x;
        entry e = {0, 0, 0};
        bool on_border = false;
        if (i < it.n) {
            e = entry_at(r, list, it, i);
            on_border = (BY == BY_COUNT ? e.key : e.weight) == prefix && passes(k, e.key, e.weight, e.id);
        }
        u64 here, rank = counted + scan(on_border, &here); /* its barriers publish last = VOCAB */
        if (on_border && rank == wanted - 1)
            last = e.id;
        counted += here;
    }
    __syncthreads();
    *border_id = last;
}

/* --- the draw -------------------------------------------------------------------------------------------- */

/* Sum of the weights kept of this thread's share. */
__device__ u64 share_mass(const row &r, const listing &list, const items &it, const kept &k) {
    i32 first, last;
    share_of(it.n, &first, &last);
    u64 mass = 0;
#pragma unroll 1
    for (i32 i = first; i < last; i++) {
        entry e = entry_at(r, list, it, i);
        if (passes(k, e.key, e.weight, e.id))
            mass += e.weight;
    }
    return mass;
}

/* The token at which the weights kept, `before` and those of the thread's share, reach beyond `point`; -1 if that is in
 * another thread's share, whose weights add up to `own`. */
__device__ i32 token_at(const row &r, const listing &list, const items &it, const kept &k, u64 before, u64 own,
                        u64 point) {
    if (point < before || point - before >= own)
        return -1;
    i32 first, last;
    share_of(it.n, &first, &last);
#pragma unroll 1
    for (i32 i = first; i < last; i++) {
        entry e = entry_at(r, list, it, i);
        if (!passes(k, e.key, e.weight, e.id))
            continue;
        if (point - before < e.weight)
            return e.id;
        before += e.weight;
    }
    return -1;
}

/* Of the items that pass `k`, to one thread; -1 to the others. */
__device__ i32 draw(const row &r, const listing &list, const items &it, const kept &k, u64 random) {
    u64 own = share_mass(r, list, it, k), mass, before = scan(own, &mass);
    return token_at(r, list, it, k, before, own, __umul64hi(random, mass));
}

/* --- top-k ----------------------------------------------------------------------------------------------- */

/* How many chunks of the block are not below (key, part): of equal keys the lower parts come first. */
__device__ u32 count_chunks(const u32 *mine, u64 bound, u32 turn) {
    __shared__ u32 count[3];
    u32 n = 0;
#pragma unroll
    for (int i = 0; i < PARTS_EACH; i++) {
        i32 part = threadIdx.x * PARTS_EACH + i;
        n += part < PARTS && order_of(mine[i], part) >= bound;
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        n += __shfl_xor_sync(0xFFFFFFFFu, n, distance);
    if (turn == 0) { /* later turns find theirs clear: each clears that of the next */
        if (threadIdx.x == 0)
            count[0] = 0;
        __syncthreads();
    }
    if (threadIdx.x == 0)
        count[(turn + 1) % 3] = 0;
    if (threadIdx.x % 32 == 0)
        atomicAdd(&count[turn % 3], n);
    __syncthreads();
    return count[turn % 3];
}

/* A bound that at least k chunks reach, k <= PARTS, and not many more: bit by bit the largest one, until it is near
 * enough. */
__device__ u64 bound_of_top_k(const u32 *mine, u32 k) {
    const u32 enough = k + k / 4 + 16;
    u64 bound = 0;
    u32 turn = 0;
#pragma unroll 1
    for (int bit = 63; bit >= 0; bit--) {
        u64 trial = bound | 1ull << bit;
        u32 n = count_chunks(mine, trial, turn++);
        if (n < k)
            continue;
        bound = trial;
        if (n <= enough)
            break;
    }
    return bound;
}

/* --- the choice ------------------------------------------------------------------------------------------ */

/* To one thread; -1 to the others. */
__device__ i32 choose_of_top_k(const row &r, const u32 *mine, const sampling &s, u64 floor, u64 random) {
    __shared__ listing list;
    kept k = {0, VOCAB, 0, VOCAB, 0};
    items it = {false, VOCAB};
    u64 border, mass;
    i32 id;
    if (s.top_k <= PARTS)
        collect(r, mine, bound_of_top_k(mine, s.top_k), list, &it);
    select_top<BY_COUNT>(r, list, it, k, s.top_k, &border, &id);
    k.logit = (u32)border;
    k.logit_id = id;
    if (s.top_p < 1.0f) {
        scan(share_mass(r, list, it, k), &mass);
        select_top<BY_MASS>(r, list, it, k, top_p_goal(mass, s.top_p), &border, &id);
        k.weight = border;
        k.weight_id = id;
    }
    k.floor = floor;
    return draw(r, list, it, k, random);
}
