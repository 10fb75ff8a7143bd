/* The next token of one row of logits. graph/ops_sample.c states the algorithm; for equal logits both choose the
 * same token. Probabilities are whole numbers, w = floor(exp((logit - largest) / temperature) * 2^40), so that sums
 * do not depend on the order in which they are added up.
 *
 * In short: the repetition penalty; greedy at temperature 0; top-k; top-p; min-p; and a draw by 64 bits of
 * Philox4x32-10 under (seed, position).
 *
 * The k-th largest logit and the smallest w of the top-p set are found digit by digit, by histograms (radix
 * selection): where does the count, or the mass, counted from the top reach the goal? Among equals at the border the
 * lowest ids are kept. Before that, one histogram by distance from the largest logit says how far down the tokens
 * that matter can be, and these few are listed; only where they are too many is the whole row gone through each time.
 *
 * Grid: x = rows, one block each. Greedy reads the logits once, other settings three or four times; from L2 that is
 * bound by one SM's rate of instructions. */
#include "common.cuh"

#ifndef VOCAB
#define VOCAB 151936
#endif
#define THREADS 1024
#define WARPS (THREADS / 32)

/* graph/sampling.h */
struct sampling {
    float temperature;
    i32 top_k;
    float top_p, min_p, repeat_penalty;
    u32 reserved;
    u64 seed;
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

/* The tokens under consideration, in the order of their ids: all, or those of a list. */
struct row {
    const float *logits;
    const i32 *seen;
    float penalty, largest, temperature;
    const i32 *ids; /* null: item i is token i */
    i32 n;
};

__device__ __forceinline__ i32 id_at(const row &r, i32 i) { return r.ids ? r.ids[i] : i; }

__device__ __forceinline__ float logit_at(const row &r, i32 id) {
    float l = r.logits[id];
    if (r.penalty != 1.0f && r.seen[id])
        l = l > 0.0f ? l / r.penalty : l * r.penalty;
    return l;
}

/* Floats in the order of unsigned integers. NaN comes first, below -infinity, so it is never among the largest;
 * the two zeros are one. */
__device__ __forceinline__ u32 ordered(float l) {
    if (l != l)
        return 0;
    u32 bits = __float_as_uint(l + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ u64 weight_of(const row &r, float l) {
    if (l != l)
        return 0;
    return (u64)(expf((l - r.largest) / r.temperature) * 1099511627776.0f);
}

__device__ __forceinline__ bool passes(const kept &k, u32 key, u64 weight, i32 id) {
    return (key > k.logit || (key == k.logit && id <= k.logit_id)) &&
           (weight > k.weight || (weight == k.weight && id <= k.weight_id)) && weight >= k.floor;
}

/* Sum of the values of lower threads, and of all. */
__device__ u64 scan(u64 value, u64 *total) {
    __shared__ u64 part[WARPS];
    u64 sum = value;
    for (int distance = 1; distance < 32; distance *= 2) {
        u64 below = __shfl_up_sync(0xFFFFFFFFu, sum, distance);
        if (threadIdx.x % 32 >= distance)
            sum += below;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 31)
        part[threadIdx.x / 32] = sum;
    __syncthreads();
    u64 before = 0, all = 0;
    for (int i = 0; i < WARPS; i++) {
        if (i < threadIdx.x / 32)
            before += part[i];
        all += part[i];
    }
    *total = all;
    return before + sum - value;
}

enum { BY_COUNT, BY_MASS };

/* The tokens that pass `k`, sorted by `BY_COUNT ? logit : weight` from the largest: finds the border value at which
 * the sum of counts (or weights) reaches `goal`, and the last id kept among the tokens that lie on it. */
template <int BY> __device__ void select_top(const row &r, const kept &k, u64 goal, u64 *border, i32 *border_id) {
    const int BITS = 8, BINS = 1 << BITS, START = BY == BY_COUNT ? 24 : 40;
    __shared__ u64 bins[BINS];
    __shared__ u64 found, above;
    u64 prefix = 0, reached = 0; /* digits found so far; sum of all that is larger than them */

    for (int shift = START; shift >= 0; shift -= BITS) {
        for (int i = threadIdx.x; i < BINS; i += THREADS)
            bins[i] = 0;
        __syncthreads();
        for (i32 i = threadIdx.x; i < r.n; i += THREADS) {
            i32 id = id_at(r, i);
            float l = logit_at(r, id);
            u32 key = ordered(l);
            u64 weight = weight_of(r, l), value = BY == BY_COUNT ? key : weight;
            u32 bin = value >> shift & (BINS - 1);
            /* the lowest bin is what remains, nobody asks for its sum; most small weights fall into it */
            if (bin > 0 && passes(k, key, weight, id) && value >> (shift + BITS) == prefix)
                atomicAdd(&bins[bin], BY == BY_COUNT ? 1 : weight);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int bin = BINS - 1;
            u64 sum = reached;
            while (bin > 0 && sum + bins[bin] < goal)
                sum += bins[bin--];
            found = prefix << BITS | bin;
            above = sum;
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
        last = VOCAB - 1;
    for (i32 first = 0; first < r.n; first += THREADS) {
        i32 i = first + threadIdx.x, id = 0;
        bool on_border = false;
        if (i < r.n) {
            id = id_at(r, i);
            float l = logit_at(r, id);
            u32 key = ordered(l);
            u64 weight = weight_of(r, l);
            on_border = passes(k, key, weight, id) && (BY == BY_COUNT ? key : weight) == prefix;
        }
        int here = __syncthreads_count(on_border);
        if (counted + here < wanted) {
            counted += here;
            continue;
        }
        u64 total, rank = counted + scan(on_border, &total);
        if (on_border && rank == wanted - 1)
            last = id;
        break;
    }
    __syncthreads();
    *border_id = last;
}

/* 64 random bits: Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011). */
__device__ u64 philox(u64 seed, u32 position) {
    u32 c[4] = {position, 0, 0, 0}, key[2] = {(u32)seed, (u32)(seed >> 32)};
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

/* This thread's share of the items, [first, last): shares follow one another in the order of the threads. */
__device__ __forceinline__ void share_of(i32 n, i32 *first, i32 *last) {
    i32 share = (n + THREADS - 1) / THREADS;
    *first = min((i32)threadIdx.x * share, n);
    *last = min(*first + share, n);
}

/* Sum of the weights kept of this thread's share. */
__device__ u64 share_mass(const row &r, const kept &k) {
    i32 first, last;
    share_of(r.n, &first, &last);
    u64 mass = 0;
    for (i32 i = first; i < last; i++) {
        i32 id = id_at(r, i);
        float l = logit_at(r, id);
        u64 weight = weight_of(r, l);
        if (passes(k, ordered(l), weight, id))
            mass += weight;
    }
    return mass;
}

/* Distances from the largest logit, in units of the temperature, are sorted into bins of 1 / PER_UNIT. */
enum { BINS_OF_DISTANCE = 1024, PER_UNIT = 16, LIST = 4096 };

__device__ __forceinline__ i32 bin_of(const row &r, float l) {
    float distance = (r.largest - l) / r.temperature * PER_UNIT;
    return distance < BINS_OF_DISTANCE ? (i32)distance : BINS_OF_DISTANCE; /* NaN and infinity: the last, too */
}

/* The lowest bin down to which all tokens are that top-k keeps, or, without top-k, top-p: `goal` is what their
 * weights have to add up to. A bin's weights are not known, but they are at least as large as at its far end. */
__device__ i32 farthest_bin(const u32 *bins, i32 top_k, u64 goal) {
    u64 reached = 0;
    for (int bin = 0; bin < BINS_OF_DISTANCE; bin++) {
        u64 least = (u64)(expf(-(bin + 1.01f) / PER_UNIT) * 1099511000000.0f);
        reached += bins[bin] * (top_k > 0 ? 1 : least);
        if (reached >= (top_k > 0 ? (u64)top_k : goal))
            return bin;
    }
    return BINS_OF_DISTANCE;
}

/* ceil(mass * top_p) in whole numbers, top_p as a multiple of 2^-32; mass < 2^62, so in two halves. At least 1. */
__device__ u64 top_p_goal(u64 mass, float top_p) {
    u64 part = (u64)((double)top_p * 4294967296.0), low = (mass & 0xFFFFFFFFu) * part;
    return max((mass >> 32) * part + (low >> 32) + ((low & 0xFFFFFFFFu) != 0), 1ull);
}

/* Lists the tokens that can be kept by top-k or top-p, if they are at most LIST. *mass: the weights of all. */
__device__ void list_candidates(row *r, const sampling &s, i32 *list, u64 *mass) {
    __shared__ u32 bins[BINS_OF_DISTANCE + 1];
    __shared__ i32 farthest;
    for (int i = threadIdx.x; i <= BINS_OF_DISTANCE; i += THREADS)
        bins[i] = 0;
    __syncthreads();
    u64 sum = 0;
    for (i32 id = threadIdx.x; id < VOCAB; id += THREADS) {
        float l = logit_at(*r, id);
        sum += weight_of(*r, l);
        i32 bin = bin_of(*r, l);
        if (bin < BINS_OF_DISTANCE)
            atomicAdd(&bins[bin], 1u);
    }
    scan(sum, mass); /* its barriers publish the bins */
    if (threadIdx.x == 0)
        farthest = farthest_bin(bins, s.top_k < VOCAB ? s.top_k : 0, top_p_goal(*mass, s.top_p));
    __syncthreads();
    i32 border = farthest;
    if (border == BINS_OF_DISTANCE)
        return;

    i32 first, last, n = 0;
    share_of(VOCAB, &first, &last);
    for (i32 id = first; id < last; id++)
        n += bin_of(*r, logit_at(*r, id)) <= border;
    u64 total;
    i32 at = (i32)scan(n, &total);
    if (total > LIST)
        return;
    for (i32 id = first; id < last; id++)
        if (bin_of(*r, logit_at(*r, id)) <= border)
            list[at++] = id;
    __syncthreads();
    r->ids = list;
    r->n = (i32)total;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    sample(const float *logits, const i32 *rows, const i32 *positions, const i32 *seen, const sampling *settings,
           i32 *next) {
    let_next_start();
    wait_for_previous();
    __shared__ i32 list[LIST];
    const sampling s = *settings;
    row r = {logits + (size_t)blockIdx.x * VOCAB, seen, s.repeat_penalty, 0.0f, s.temperature, nullptr, VOCAB};

    /* The largest logit: key in the high half, lower ids ahead in the low half. */
    u64 best = 0;
    for (i32 id = threadIdx.x; id < VOCAB; id += THREADS) {
        u64 candidate = (u64)ordered(logit_at(r, id)) << 32 | (0xFFFFFFFFu - (u32)id);
        best = max(best, candidate);
    }
    for (int distance = 16; distance > 0; distance /= 2)
        best = max(best, __shfl_xor_sync(0xFFFFFFFFu, best, distance));
    __shared__ u64 best_of[WARPS];
    if (threadIdx.x % 32 == 0)
        best_of[threadIdx.x / 32] = best;
    __syncthreads();
    for (int i = 0; i < WARPS; i++)
        best = max(best, best_of[i]);
    i32 greedy = (i32)(0xFFFFFFFFu - (u32)best);
    bool all_nan = (u32)(best >> 32) == 0;
    r.largest = logit_at(r, greedy);
    if (!(s.temperature > 0.0f) || all_nan || fabsf(r.largest) == INF) {
        if (threadIdx.x == 0)
            next[blockIdx.x] = all_nan ? 0 : greedy;
        return;
    }

    kept k = {0, VOCAB, 0, VOCAB, 0};
    bool by_k = s.top_k > 0 && s.top_k < VOCAB;
    u64 mass, border;
    i32 id;
    if (by_k || s.top_p < 1.0f)
        list_candidates(&r, s, list, &mass);
    if (by_k) {
        select_top<BY_COUNT>(r, k, s.top_k, &border, &id);
        k.logit = (u32)border;
        k.logit_id = id;
        scan(share_mass(r, k), &mass);
    }
    if (s.top_p < 1.0f) {
        select_top<BY_MASS>(r, k, top_p_goal(mass, s.top_p), &border, &id);
        k.weight = border;
        k.weight_id = id;
    }
    k.floor = (u64)ceil(fmin((double)s.min_p, 1.0) * 1099511627776.0);

    u64 before = scan(share_mass(r, k), &mass);
    u64 point = __umul64hi(philox(s.seed, (u32)positions[rows[blockIdx.x]]), mass);
    if (point < before)
        return;
    i32 first, last;
    share_of(r.n, &first, &last);
    for (i32 i = first; i < last; i++) {
        id = id_at(r, i);
        float l = logit_at(r, id);
        u64 weight = weight_of(r, l);
        if (!passes(k, ordered(l), weight, id))
            continue;
        if (point < before + weight) {
            next[blockIdx.x] = id;
            return;
        }
        before += weight;
    }
}
