/* The next token of a row of logits, from the logits and the largest of each stretch of them (sample_part.cu). In short:
 * greedy at temperature 0; top-k; top-p; min-p; and a draw by 64 bits of Philox4x32-10 under (seed, position).
 *
 * One block chooses, and it looks at few of the logits. Greedy: at the one stretch that holds the largest. Top-k: the
 * k-th largest of the stretches' largest is a bound, which k stretches reach and no other stretch has to do with.
 * Without top-k the weights of all tokens count: each block of the grid adds up those of SLICE tokens, into
 * a histogram for top-p, into one number else, and the block that is done last chooses. The histogram says where the
 * border of top-p is but for 1/32 of a weight; without top-p the draw is among the sums, then within one slice.
 *
 * The tokens that are left are listed, and the border among them is found digit by digit (radix selection). Where they
 * are more than LIST, which takes flat logits or a large k, the whole row is gone through instead.
 *
 * Grid: x = slices, of one row. Greedy and top-k are bound by latency, the rest by a pass over the logits in L2. */
#include "last.cuh"
#include "sample.cuh"

#ifndef VOCAB
#define VOCAB 151936
#endif
#ifndef STRETCH
#define STRETCH 32
#endif
#ifndef SLICE
#define SLICE 2048 /* at most 4095: see slice_histogram */
#endif
#ifndef RING /* places of the ring; the step ends here, and what advance.cu does is done too. 0: it does not */
#define RING 0
#endif
#ifndef THREADS
#define THREADS 1024
#endif

enum {
    WARPS = THREADS / 32,
    PARTS = (VOCAB + STRETCH - 1) / STRETCH,
    SLICES = (VOCAB + SLICE - 1) / SLICE,
    PARTS_EACH = (PARTS + THREADS - 1) / THREADS, /* of a thread */
    LIST = THREADS,
    BINS = 1153, /* of bin_of */
};

#define NOT_NUMBERS (1 << 30) /* beside the token for the host: what was chosen from are no numbers, or infinite */
#define ONE (1ull << 40) /* the largest weight */

/* What the blocks leave for the one that is done last; zero at first, and left so but for `mass`. */
struct shared_sums {
    u64 bins[BINS];
    u64 mass[SLICES];
    u32 done;
};

/* What is kept so far: logits not below a border, weights not below another. Of the tokens that lie on a border,
 * those with ids up to `..._id`. */
struct kept {
    u32 logit;
    i32 logit_id;
    u64 weight;
    i32 weight_id;
    u64 floor; /* of min-p */
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

__device__ __forceinline__ bool passes(const kept &k, u32 key, u64 weight, i32 id) {
    return (key > k.logit || (key == k.logit && id <= k.logit_id)) &&
           (weight > k.weight || (weight == k.weight && id <= k.weight_id)) && weight >= k.floor;
}

/* Sum of the values of lower threads, and of all. */
__device__ u64 scan(u64 value, u64 *total) {
    __shared__ u64 part[WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u64 sum = value;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        u64 below = __shfl_up_sync(0xFFFFFFFFu, sum, distance);
        if (lane >= distance)
            sum += below;
    }
    __syncthreads(); /* an earlier call may still be reading */
    if (lane == 31)
        part[warp] = sum;
    __syncthreads();
    u64 warps = lane < WARPS ? part[lane] : 0;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        u64 below = __shfl_up_sync(0xFFFFFFFFu, warps, distance);
        if (lane >= distance)
            warps += below;
    }
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

/* Weights in bins that are 1/32 wide, or 1 where that is less. */
__device__ __forceinline__ u32 bin_of(u64 weight) {
    if (weight < 32)
        return (u32)weight;
    int top = 63 - __clzll(weight);
    return (u32)(top - 4) << 5 | (u32)(weight >> (top - 5) & 31);
}

/* The smallest weight of a bin. */
__device__ __forceinline__ u64 bin_start(u32 bin) {
    return bin < 32 ? bin : (u64)(32 | (bin & 31)) << ((bin >> 5) - 1);
}

/* Stretches by falling largest, and of equal ones the lower first: which is never 0 but for NaN. */
__device__ __forceinline__ u64 order_of(u32 key, i32 part) { return (u64)key << 32 | (0xFFFFFFFFu - (u32)part); }

/* --- tokens under consideration -------------------------------------------------------------------------- */

/* Tokens in the order of their ids: those of the list, or all from `first` on. */
struct items {
    bool listed;
    i32 first, n;
};

struct entry {
    u64 weight;
    u32 key;
    i32 id;
};

struct listing {
    entry token[LIST];
    i32 stretch[LIST], count[LIST];
};

__device__ __forceinline__ entry entry_of(const row &r, i32 id) {
    float l = logit_at(r, id);
    return {weight_of(r, l), ordered(l), id};
}

__device__ __forceinline__ entry entry_at(const row &r, const listing &list, const items &it, i32 i) {
    return it.listed ? list.token[i] : entry_of(r, it.first + i);
}

/* Which tokens are wanted: of the stretches that reach `bound` (see bound_of_top_k) those with a logit not below it, and
 * with a weight in one of the bins (see bin_of). */
struct wanted {
    u64 bound;
    u32 lowest_bin, highest_bin;
};

__device__ __forceinline__ bool wants_stretch(const row &r, const wanted &w, u32 key, i32 part) {
    if (key == 0 || order_of(key, part) < w.bound)
        return false;
    /* expf does not quite rise with its argument: the larger of two may have an exponential that is some ulp smaller */
    u64 weight = weight_of(r, from_ordered(key));
    return weight + (weight >> 20) + 2 >= bin_start(w.lowest_bin);
}

__device__ __forceinline__ bool wants_token(const wanted &w, const entry &e) {
    u32 bin = bin_of(e.weight);
    return e.key >= (u32)(w.bound >> 32) && bin >= w.lowest_bin && bin <= w.highest_bin;
}

/* Lists them: *it becomes the list. False, and *it as it was, if they do not fit in. mine[]: the ordered largest of the
 * thread's stretches. */
__device__ bool collect(const row &r, const u32 *mine, const wanted &w, listing &list, items *it) {
    const i32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 wants[PARTS_EACH], n_wanted = 0;
#pragma unroll
    for (int i = 0; i < PARTS_EACH; i++) {
        i32 part = threadIdx.x * PARTS_EACH + i;
        wants[i] = part < PARTS && wants_stretch(r, w, mine[i], part);
        n_wanted += wants[i];
    }
    u64 n;
    u32 at = (u32)scan(n_wanted, &n);
    if (n > LIST)
        return false;
#pragma unroll
    for (int i = 0; i < PARTS_EACH; i++)
        if (wants[i])
            list.stretch[at++] = threadIdx.x * PARTS_EACH + i;
    __syncthreads();

#pragma unroll 1
    for (i32 i = warp; i < (i32)n; i += WARPS) {
        i32 count = 0, begin = list.stretch[i] * STRETCH;
#pragma unroll 1
        for (i32 id = begin + lane; id - lane < min(begin + STRETCH, VOCAB); id += 32) {
            bool here = id < min(begin + STRETCH, VOCAB) && wants_token(w, entry_of(r, id));
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
        i32 to = list.count[i], begin = list.stretch[i] * STRETCH;
#pragma unroll 1
        for (i32 id = begin + lane; id - lane < min(begin + STRETCH, VOCAB); id += 32) {
            entry e = entry_of(r, min(id, VOCAB - 1));
            bool here = id < min(begin + STRETCH, VOCAB) && wants_token(w, e);
            u32 all = __ballot_sync(0xFFFFFFFFu, here);
            if (here)
                list.token[to + __popc(all & ((1u << lane) - 1))] = e;
            to += __popc(all);
        }
    }
    __syncthreads();
    *it = {true, 0, (i32)total};
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
    u64 sum = own;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        u64 below = __shfl_up_sync(0xFFFFFFFFu, sum, distance);
        if (lane >= distance)
            sum += below;
    }
    *before = reached + sum - own;
    if (*before >= goal || (*before + own < goal && lane < 31))
        return -1;
    int digit = highest;
    while (digit > 0 && *before + sums[digit] < goal && digit > highest - EACH + 1)
        *before += sums[digit--];
    return digit;
}

/* The items that pass `k`, sorted by `BY_COUNT ? logit : weight` from the largest: finds the border value at which
 * the sum of counts (or weights) reaches `goal`, and the last id kept among the tokens that lie on it. `reached` is the
 * sum of what lies above all items, less than the goal. */
template <int BY>
__device__ void select_top(const row &r, const listing &list, const items &it, const kept &k, u64 reached, u64 goal,
                           u64 *border, i32 *border_id) {
    const int BITS = 8, DIGITS = 1 << BITS, START = BY == BY_COUNT ? 24 : 40;
    __shared__ u64 sums[DIGITS];
    __shared__ u64 found, above;
    u64 prefix = 0; /* digits found so far; `reached` is the sum of all that is larger */

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

/* Among all tokens, by the sums of the slices. */
__device__ i32 draw_by_slices(const row &r, const listing &list, const shared_sums *sums, const kept &k, u64 random) {
    __shared__ i32 slice;
    __shared__ u64 up_to;
    i32 first, last;
    share_of(SLICES, &first, &last);
    u64 own = 0, mass;
    for (i32 i = first; i < last; i++)
        own += *(const volatile u64 *)&sums->mass[i];
    u64 before = scan(own, &mass), point = __umul64hi(random, mass);
    for (i32 i = first; i < last; i++) {
        u64 here = *(const volatile u64 *)&sums->mass[i];
        if (point >= before && point - before < here) {
            slice = i;
            up_to = before;
        }
        before += here;
    }
    __syncthreads();
    items it = {false, slice * SLICE, min((i32)SLICE, VOCAB - slice * SLICE)};
    own = share_mass(r, list, it, k);
    before = up_to + scan(own, &mass);
    return token_at(r, list, it, k, before, own, point);
}

/* --- top-k ----------------------------------------------------------------------------------------------- */

/* How many stretches of the block are not below (key, part): of equal keys the lower parts come first. */
__device__ u32 count_stretches(const u32 *mine, u64 bound, u32 turn) {
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

/* A bound that at least k stretches reach, k <= PARTS, and not many more: bit by bit the largest one, until it is near
 * enough. */
__device__ u64 bound_of_top_k(const u32 *mine, u32 k) {
    const u32 enough = k + k / 4 + 16;
    u64 bound = 0;
    u32 turn = 0;
#pragma unroll 1
    for (int bit = 63; bit >= 0; bit--) {
        u64 trial = bound | 1ull << bit;
        u32 n = count_stretches(mine, trial, turn++);
        if (n < k)
            continue;
        bound = trial;
        if (n <= enough)
            break;
    }
    return bound;
}

/* --- top-p ----------------------------------------------------------------------------------------------- */

/* ceil(mass * top_p) in whole numbers, top_p as a multiple of 2^-32; mass < 2^62, so in two halves. At least 1. */
__device__ u64 top_p_goal(u64 mass, float top_p) {
    u64 part = top_p > 0.0f ? (u64)((double)top_p * 4294967296.0) : 0, low = (mass & 0xFFFFFFFFu) * part;
    return max((mass >> 32) * part + (low >> 32) + ((low & 0xFFFFFFFFu) != 0), 1ull);
}

/* This block's slice, added to the bins. Sums of halves of 20 and 21 bits fit into 32 bits for 4095 tokens,
 * and shared memory adds up 32 bits natively. */
__device__ void slice_histogram(const row &r, shared_sums *sums) {
    __shared__ u32 low[BINS], high[BINS];
    for (int i = threadIdx.x; i < BINS; i += THREADS)
        low[i] = high[i] = 0;
    __syncthreads();
    const i32 begin = blockIdx.x * SLICE, end = min(begin + SLICE, VOCAB);
    for (i32 id = begin + threadIdx.x; id < end; id += THREADS) {
        u64 weight = weight_of(r, logit_at(r, id));
        if (weight == 0)
            continue;
        u32 bin = bin_of(weight);
        atomicAdd(&low[bin], (u32)weight & 0xFFFFFu);
        atomicAdd(&high[bin], (u32)(weight >> 20));
    }
    __syncthreads();
    for (int i = threadIdx.x; i < BINS; i += THREADS)
        if (low[i] | high[i])
            atomicAdd(&sums->bins[i], ((u64)high[i] << 20) + low[i]);
}

/* This block's slice, as one number. */
__device__ void slice_mass(const row &r, u64 floor, shared_sums *sums) {
    const i32 begin = blockIdx.x * SLICE, end = min(begin + SLICE, VOCAB);
    u64 mass = 0, all;
    for (i32 id = begin + threadIdx.x; id < end; id += THREADS) {
        u64 weight = weight_of(r, logit_at(r, id));
        mass += weight >= floor ? weight : 0;
    }
    scan(mass, &all);
    if (threadIdx.x == 0)
        sums->mass[blockIdx.x] = all;
}

/* The bin in which the weights, from the largest on, reach the goal, with the goal and what lies above the bin. The bins
 * are cleared for the next step. */
__device__ u32 border_bin(shared_sums *sums, float top_p, u64 *goal, u64 *above) {
    const int EACH = (BINS + THREADS - 1) / THREADS;
    __shared__ u32 found;
    __shared__ u64 above_found;
    u64 bins[EACH], own = 0, mass;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int bin = BINS - 1 - (threadIdx.x * EACH + i);
        bins[i] = bin >= 0 ? *(volatile u64 *)&sums->bins[bin] : 0;
        own += bins[i];
        if (bin >= 0)
            sums->bins[bin] = 0;
    }
    u64 before = scan(own, &mass);
    *goal = top_p_goal(mass, top_p);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        if (before < *goal && before + bins[i] >= *goal) {
            found = BINS - 1 - (threadIdx.x * EACH + i);
            above_found = before;
        }
        before += bins[i];
    }
    __syncthreads();
    *above = above_found;
    return found;
}

/* --- the choice ------------------------------------------------------------------------------------------ */

/* To one thread; -1 to the others. */
__device__ i32 choose(const row &r, const u32 *mine, const sampling &s, shared_sums *sums, u64 floor, u64 random) {
    __shared__ listing list;
    const items all = {false, 0, VOCAB};
    const bool by_k = s.top_k > 0 && s.top_k < VOCAB, by_p = s.top_p < 1.0f;
    kept k = {0, VOCAB, 0, VOCAB, 0};
    if (!by_k && !by_p) {
        k.floor = floor;
        return draw_by_slices(r, list, sums, k, random);
    }

    items it = all;
    u64 goal = 0, above = 0, border, mass;
    wanted w = {1ull << 32, 0, BINS};
    if (by_k && s.top_k <= PARTS)
        w.bound = bound_of_top_k(mine, s.top_k);
    else if (!by_k)
        w.lowest_bin = border_bin(sums, s.top_p, &goal, &above);
    bool listed = (!by_k || s.top_k <= PARTS) && collect(r, mine, w, list, &it), all_above = false;
    if (!by_k && !listed) { /* those above the bin stay; they are too many to be listed, but not those in it */
        w.highest_bin = w.lowest_bin;
        all_above = collect(r, mine, w, list, &it);
    }
    if (by_k) {
        i32 id;
        select_top<BY_COUNT>(r, list, it, k, 0, s.top_k, &border, &id);
        k.logit = (u32)border;
        k.logit_id = id;
        scan(share_mass(r, list, it, k), &mass);
        goal = top_p_goal(mass, s.top_p);
    }
    if (by_p) {
        i32 id;
        select_top<BY_MASS>(r, list, it, k, all_above ? above : 0, goal, &border, &id);
        k.weight = border;
        k.weight_id = id;
    }
    if (all_above)
        it = all;
    k.floor = floor;
    return draw(r, list, it, k, random);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    sample_merge(const float *logits, const float *parts, const i32 *rows, i32 *positions, const i32 *seen,
                 const sampling *settings, shared_sums *sums, i32 *next, i32 *tokens, i32 *ring) {
    wait_for_previous();
    let_next_start();
    const sampling s = *settings;
    const i32 position = positions[rows[0]];
    row r = {logits, seen, s.repeat_penalty, 0.0f, s.temperature};

    /* The largest of all: key in the high half, lower stretches ahead in the low half. */
    u32 mine[PARTS_EACH];
    u64 best = 0;
#pragma unroll
    for (int i = 0; i < PARTS_EACH; i++) {
        i32 part = threadIdx.x * PARTS_EACH + i;
        mine[i] = part < PARTS ? ordered(parts[part]) : 0;
        best = max(best, order_of(mine[i], part));
    }
    best = block_largest(best);
    const bool all_nan = best >> 32 == 0;
    r.largest = from_ordered((u32)(best >> 32));

    i32 choice = -1;
    if (!(s.temperature > 0.0f) || all_nan || fabsf(r.largest) == INF) {
        if (blockIdx.x > 0 || threadIdx.x >= 32)
            return;
        const i32 begin = (i32)(0xFFFFFFFFu - (u32)best) * STRETCH, end = min(begin + STRETCH, VOCAB);
        u32 lowest = VOCAB;
        for (i32 id = begin + threadIdx.x; id < end; id += 32)
            if (ordered(logit_at(r, id)) == (u32)(best >> 32))
                lowest = min(lowest, (u32)id);
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2)
            lowest = min(lowest, __shfl_xor_sync(0xFFFFFFFFu, lowest, distance));
        if (threadIdx.x == 0)
            choice = all_nan ? 0 : (i32)lowest;
    } else {
        const bool by_k = s.top_k > 0 && s.top_k < VOCAB;
        const u64 floor = s.min_p > 0.0f ? (u64)ceil(fmin((double)s.min_p, 1.0) * 1099511627776.0) : 0;
        if (by_k && blockIdx.x > 0)
            return;
        if (!by_k) {
            if (s.top_p < 1.0f)
                slice_histogram(r, sums);
            else
                slice_mass(r, floor, sums);
            if (!last_to_come(&sums->done, gridDim.x))
                return;
        }
        choice = choose(r, mine, s, sums, floor, philox(s.seed, (u32)position));
    }
    if (choice < 0)
        return;
    next[0] = choice;
#if RING
    ring[position % RING] = choice | (all_nan || fabsf(r.largest) == INF ? NOT_NUMBERS : 0);
    tokens[0] = choice;
    positions[0] = position + 1;
#endif
}
