/* What a block of packed_gemm.cu computes at a time: tokens, rows, and a part of each row. Items of the same rows follow each other, so
 * that weights are read once. */
#pragma once
#ifndef GROUPS /* of four warps */
#define GROUPS 2
#endif
#define COPYING 4 /* warps that bring operands on sm_90a: as many as give registers back together */
#define THREADS (GROUPS * 128 + COPYING * 32)
#define APPROXIMATE 1
#include "packed_rows.cuh"

#ifndef FORMAT /* of the stream: BF16, or F16 or a block format, which are rounded to bf16 */
#define FORMAT BF16
#endif
#ifndef SPAN /* tokens of a block: 64, 128 or 256 */
#define SPAN 256
#endif
#ifndef STAGES
#define STAGES 4
#endif
#ifndef CLUSTER /* blocks of different rows that share the same tokens, on sm_90a: 1 or 2 */
#define CLUSTER 1
#endif
#ifndef TO_OPERAND /* 1: the results are activations of another such product, in bf16 (operand.cuh) */
#define TO_OPERAND 0
#endif
#ifndef BESIDE /* 1: it may run beside the launch before it, which has the same tokens */
#define BESIDE 0
#endif

enum {
    MULTIPLYING = GROUPS * 4, /* warps */
    BLOCK_ROWS = GROUPS * 64,
    BLOCK_UNITS = BLOCK_ROWS / IN_UNIT,
    ROW_ITEMS = (UNITS + BLOCK_UNITS * CLUSTER - 1) / (BLOCK_UNITS * CLUSTER),
    STEP = 64,
    STEPS = K / STEP,
    TOKEN_BYTES = 2 * STEP,
    STAGE_BYTES = SPAN * TOKEN_BYTES,
};
static_assert(K % STEP == 0 && STAGES > 1 && (SPLIT == 1 || 2 * SPLIT <= STEPS), "shape");

/* What a block computes at a time. */
struct item {
    int first_row;     /* counted as the phase counts them */
    u32 token, tokens; /* the first, and how many of those there are, rounded up to 8 */
    int part;          /* of each row */
    int step, last;    /* of that part */
};

struct work {
    u32 all, spans, whole, n; /* tokens; their spans; items of SPAN tokens, and with those after them of half as many */
};

/* Where the last round of items would leave half of the blocks idle, these are of half as many tokens. */
__device__ __forceinline__ work work_of(u32 all) {
    work w = {all, (all + SPAN - 1) / SPAN, 0, 0};
    const u32 n = w.spans * ROW_ITEMS * SPLIT, clusters = gridDim.x / CLUSTER, rest = n % clusters;
    const bool halves = SPAN > 64 && n > clusters && 2 * rest <= clusters;
    w.whole = halves ? n - rest : n;
    w.n = halves ? n + rest : n;
    return w;
}

/* Of a part of a row; parts but for the last one have an even number of steps. */
__device__ __forceinline__ int first_step(u32 part) {
    return (int)(part == SPLIT ? STEPS : STEPS / 2 * part / SPLIT * 2);
}

__device__ __forceinline__ item item_of(const work &w, u32 i) {
    const u32 half = i < w.whole ? 0 : (i - w.whole) % 2, most = i < w.whole ? SPAN : SPAN / 2;
    i = i < w.whole ? i : w.whole + (i - w.whole) / 2;
    const u32 span = i % w.spans, row = i / w.spans % ROW_ITEMS, part = i / w.spans / ROW_ITEMS;
    item it = {};
    it.first_row = (int)((row * CLUSTER + blockIdx.x % CLUSTER) * BLOCK_ROWS);
    it.token = min(span * SPAN + half * (SPAN / 2), w.all);
    it.tokens = min(most, w.all - it.token);
    it.part = (int)part;
    it.step = first_step(part), it.last = first_step(part + 1);
    return it;
}

template <int Span> struct sums {
    float d[Span / 8][4]; /* rows lane / 4 and 8 on, tokens 8 j + 2 (lane % 4) and one on */
};
