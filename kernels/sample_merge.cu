/* The next token of a row of logits, from the logits and the largest of each chunk of them (sample_part.cu). In short:
 * greedy at temperature 0; top-k; top-p; min-p; and a draw by 64 bits of Philox4x32-10 under (seed, position).
 *
 * Greedy and top-k are done by one block, which looks at few of the logits: greedy at the one chunk that holds the
 * largest, top-k at those that can hold one of the k largest (sample_top_k.cuh). Without top-k all blocks take part
 * (sample_slices.cuh).
 *
 * Grid: x = slices, of one row. All of it is bound by latency: of barriers, of loads from L2, of atomics. */
#include "sample_slices.cuh"
#include "sample_top_k.cuh"

#ifndef RING /* places of the ring; the step ends here, and what advance.cu does is done too. 0: it does not */
#define RING 0
#endif

#define NOT_NUMBERS (1 << 30) /* beside the token for the host: what was chosen from are no numbers, or infinite */

extern "C" __global__ void __launch_bounds__(THREADS)
    sample_merge(const float *logits, const float *parts, const i32 *rows, i32 *positions, const i32 *seen,
                 const sampling *settings, shared_sums *sums, i32 *next, i32 *tokens, i32 *ring) {
    wait_for_previous();
    let_next_start();
    const sampling s = *settings;
    const i32 position = positions[rows[0]];
    row r = {logits, seen, s.repeat_penalty, 0.0f, s.temperature};

    /* The largest of all: key in the high half, lower chunks ahead in the low half. */
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
        const i32 begin = (i32)(0xFFFFFFFFu - (u32)best) * CHUNK, end = min(begin + CHUNK, VOCAB);
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
        const u64 random = philox(s.seed, (u32)position);
        choice = by_k ? choose_of_top_k(r, mine, s, floor, random) : choose_of_all(r, s.top_p, floor, sums, random);
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
