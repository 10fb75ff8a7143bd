/* Products of many tokens with the rows of a phase of the persistent kernel, from its stream: prefill needs no other copy of the
 * weights. A warp takes 16 rows as operand A, which are in the stream in the order of its registers: a lane loads 16 bytes of two rows.
 * Activations are operand B (operand.cuh), through shared memory.
 *
 *   rows of the phase          tokens ----->   SPAN for a block
 *     64 for 4 warps    x    K, 64 at a time
 *
 * On sm_90a activations come by bulk copies, STAGES stages ahead, and four warps multiply together (wgmma); elsewhere all warps copy
 * one stage ahead, and each multiplies for itself. Products are of bf16, sums float32.
 *
 * Grid: x covers tokens by SPAN, y the units by those of a block (a multiple of CLUSTER), z = SPLIT. Weights are read once for each SPAN tokens, which run
 * beside each other. Needs sm_80. */
#ifndef GROUPS /* of four warps */
#define GROUPS 2
#endif
#define THREADS (GROUPS * 128)
#include "packed_rows.cuh"
#include "mma.cuh"

#ifndef FORMAT /* of the stream: BF16, or F16, which is rounded to bf16 */
#define FORMAT BF16
#endif
#ifndef SPAN /* tokens of a block: 64, 128 or 256 */
#define SPAN 256
#endif
#ifndef STAGES
#define STAGES 4
#endif
#ifndef WEIGHT_STAGES /* of weights, on sm_90a */
#define WEIGHT_STAGES 5
#endif
#ifndef CLUSTER /* blocks of different rows that share the same tokens, on sm_90a: 1 or 2 */
#define CLUSTER 1
#endif
#ifndef TO_OPERAND /* 1: the results are activations of another such product, in bf16 (operand.cuh) */
#define TO_OPERAND 0
#endif

enum {
    BLOCK_UNITS = GROUPS * 64 / IN_UNIT,
    STEP = 64,
    STEPS = K / STEP,
    TOKEN_BYTES = 2 * STEP,
    STAGE_BYTES = SPAN * TOKEN_BYTES,
    WARP_BYTES = 16 * TOKEN_BYTES, /* of weights that a warp takes in a step */
    LAG = 2, /* steps after which all are surely through with a stage, so that nobody waits for that */
};
static_assert(K % STEP == 0 && STAGES > LAG, "shape");

#if __CUDA_ARCH__ >= 800

/* What a lane has of its two rows: 16 bytes of each block of 32, both blocks of a step. */
struct two_rows {
    uint4 v[2][2]; /* [block][row] */

    __device__ __forceinline__ void load(const row_place &a, const row_place &b, int step) {
#pragma unroll
        for (int block = 0; block < 2; block++) {
            v[block][0] = *(const uint4 *)(a.at + (size_t)(2 * step + block) * a.stride);
            v[block][1] = *(const uint4 *)(b.at + (size_t)(2 * step + block) * b.stride);
        }
    }
    static __device__ __forceinline__ u32 narrow(u32 two) { return FORMAT == BF16 ? two : two_bf16(f16_low(two), f16_high(two)); }
    /* Register i of operand A for elements 16 k .. 16 k + 15. */
    __device__ __forceinline__ u32 a(int k, int i) const {
        const uint4 &row = v[k / 2][i % 2];
        return narrow(k % 2 ? (i / 2 ? row.w : row.y) : (i / 2 ? row.z : row.x));
    }
};

/* The steps of this block. */
struct range {
    int first, last;
};

struct tokens_of {
    const u8 *x;
    u32 all, first, n; /* tokens there are, rounded up to 8; those of this block */
    __device__ __forceinline__ const u8 *step(int k) const { return x + ((size_t)k * all + first) * TOKEN_BYTES; }
};

template <int Span> struct sums {
    float d[Span / 8][4]; /* rows lane / 4 and 8 on, tokens 8 j + 2 (lane % 4) and one on */
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

struct stages {
    u64 full[STAGES], empty[STAGES];
};

/* The first thread asks for the activations of step i, and before that waits until all are through with what lies there. Blocks of a
 * cluster have the same tokens: each brings a part of them to all. */
__device__ __forceinline__ void copy_stage_later(u8 *room, stages &s, const tokens_of &t, range r, int i) {
    const int at = i % STAGES;
    if (threadIdx.x != 0 || r.first + i >= r.last)
        return;
    if (i >= STAGES)
        barrier_wait(&s.empty[at], i / STAGES % 2 ^ 1);
    barrier_expect(&s.full[at], t.n * TOKEN_BYTES);
    u8 *to = room + at * STAGE_BYTES;
    if (CLUSTER == 1)
        bulk_copy(to, t.step(r.first + i), t.n * TOKEN_BYTES, &s.full[at]);
    else {
        const u32 part = (t.n / 8 + CLUSTER - 1) / CLUSTER * 8, begin = min(cluster_rank() * part, t.n),
                  n = min(part, t.n - begin);
        if (n > 0)
            bulk_copy_to_all(to + begin * TOKEN_BYTES, t.step(r.first + i) + begin * TOKEN_BYTES, n * TOKEN_BYTES,
                             &s.full[at], (1 << CLUSTER) - 1);
    }
}

/* This warp is through with a stage, for all blocks that bring it. */
__device__ __forceinline__ void release(u64 *empty) {
    const int lane = threadIdx.x % 32;
    if (CLUSTER == 1 && lane == 0)
        barrier_arrive(empty);
    if (CLUSTER > 1 && lane < CLUSTER)
        barrier_arrive_at(empty, lane);
}

__device__ __forceinline__ void begin_stages(stages &s) {
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++)
            barrier_init(&s.full[i], 1), barrier_init(&s.empty[i], CLUSTER * THREADS / 32);
        fence_barrier_init();
    }
    __syncthreads();
    if (CLUSTER > 1)
        cluster_meets();
}

/* Weights of a warp come into its own part of shared memory, each lane's to where it reads them itself: loads into registers would
 * have to end in the order in which the compiler waits for them. */
struct weight_stages {
    u8 *room;
    const row_place &a, &b;
    range r;

    __device__ __forceinline__ void copy_later(int i) {
        if (r.first + i < r.last) {
            u8 *to = room + i % WEIGHT_STAGES * WARP_BYTES + threadIdx.x % 32 * 16;
            const size_t block = 2 * (size_t)(r.first + i);
#pragma unroll
            for (int n = 0; n < 2; n++) {
                copy_16(shared_address(to + 1024 * n), a.at + (block + n) * a.stride);
                copy_16(shared_address(to + 1024 * n + 512), b.at + (block + n) * b.stride);
            }
        }
        copies_end_group();
    }
    /* After WEIGHT_STAGES - 1 were asked for from step i on. */
    __device__ __forceinline__ void take(int i, two_rows &w) {
        const u8 *from = room + i % WEIGHT_STAGES * WARP_BYTES + threadIdx.x % 32 * 16;
        groups_done<WEIGHT_STAGES - 2>();
#pragma unroll
        for (int n = 0; n < 4; n++)
            w.v[n / 2][n % 2] = *(const uint4 *)(from + 512 * n);
    }
};

template <int Span>
__device__ __forceinline__ void multiply(sums<Span> &sum, const row_place &a, const row_place &b, u8 *room, stages &s,
                                         const tokens_of &t, range r) {
    weight_stages weights = {room + STAGES * STAGE_BYTES + threadIdx.x / 32 * WEIGHT_STAGES * WARP_BYTES, a, b, r};
#pragma unroll 1
    for (int i = 0; i < WEIGHT_STAGES - 1; i++)
        weights.copy_later(i);
    begin_stages(s);
#pragma unroll 1
    for (int i = 0; i < STAGES - LAG; i++)
        copy_stage_later(room, s, t, r, i);
    const u64 operand = wgmma_operand(room);
    const int steps = r.last - r.first;
#pragma unroll 1
    for (int i = 0; i < steps; i++) {
        const int at = i % STAGES;
        two_rows w;
        weights.take(i, w);
        u32 part[4][4];
#pragma unroll
        for (int q = 0; q < 16; q++)
            part[q / 4][q % 4] = w.a(q / 4, q % 4);
        barrier_wait(&s.full[at], i / STAGES % 2);
        __syncwarp();
        wgmma_begin();
#pragma unroll
        for (int q = 0; q < 4; q++)
            wgmma_bf16<Span>(&sum.d[0][0], part[q], operand + (u64)(at * (STAGE_BYTES / 16) + 2 * q));
        wgmma_end();
        weights.copy_later(i + WEIGHT_STAGES - 1);
        copy_stage_later(room, s, t, r, i + STAGES - LAG);
        __syncwarp();
        wgmma_wait();
        release(&s.empty[at]);
    }
    if (CLUSTER > 1) /* others may still arrive at barriers of this block */
        cluster_meets();
}

#endif

/* A stage by all threads. */
__device__ __forceinline__ void copy_stage(u8 *to, const u8 *from, u32 n) {
    for (u32 i = threadIdx.x; i < n * (TOKEN_BYTES / 16); i += THREADS)
        copy_16(shared_address(to + 16 * i), from + 16 * i);
}

template <int Span> __device__ __forceinline__ void multiply_step(sums<Span> &sum, const two_rows &w, u32 stage) {
    const int lane = threadIdx.x % 32, token = lane / 16 * 8 + lane % 8;
#pragma unroll
    for (int q = 0; q < 4; q++) {
        const u32 chunk = 2 * q + lane / 8 % 2, at = stage + token * TOKEN_BYTES + (chunk ^ token % 8) * 16;
#pragma unroll
        for (int j = 0; j < Span / 8; j += 2) {
            const uint4 x = load_matrices(at + j * 8 * TOKEN_BYTES);
            mma_bf16(sum.d[j], w.a(q, 0), w.a(q, 1), w.a(q, 2), w.a(q, 3), x.x, x.y);
            mma_bf16(sum.d[j + 1], w.a(q, 0), w.a(q, 1), w.a(q, 2), w.a(q, 3), x.z, x.w);
        }
    }
}

template <int Span>
__device__ __forceinline__ void multiply_by_warps(sums<Span> &sum, const row_place &a, const row_place &b, u8 *room,
                                                  const tokens_of &t, range r) {
    two_rows w, next;
    copy_stage(room, t.step(r.first), t.n);
    next.load(a, b, r.first);
#pragma unroll 1
    for (int k = r.first, i = 0; k < r.last; k++, i++) {
        copies_done();
        __syncthreads();
        if (k + 1 < r.last)
            copy_stage(room + (i + 1) % 2 * STAGE_BYTES, t.step(k + 1), t.n);
        w = next;
        next.load(a, b, min(k + 1, r.last - 1));
        multiply_step(sum, w, shared_address(room + i % 2 * STAGE_BYTES));
    }
}

/* The place of a lane's rows in the results. */
struct lane_units {
    int first, second; /* units; one and the same where a unit has two rows */
};

/* One result of a lane for each token: of a unit, or of a row as it is where blocks share rows. */
struct column {
    float *out; /* of the first token; NULL: it is not there */
    size_t width;
    float bias[2]; /* of l0 and l1 */
};

__device__ __forceinline__ column column_of(const results &r, int unit, u32 rows) {
    column c = {};
    if (unit >= UNITS)
        return c;
    if (FUSED) {
        c = {r.out[0] + unit, UNITS,
             {BIASES & 1 ? r.bias[0][unit] : 0.0f, BIASES & 2 ? r.bias[1][unit] : 0.0f}};
        return c;
    }
    const matrix_row m = find_row(unit);
    constexpr int outs[4] = {OUT0, OUT1, OUT2, OUT3};
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (outs[i] > 0 && m.which == i)
            c = {r.out[i] + m.number, (size_t)outs[i], {BIASES >> i & 1 ? r.bias[i][m.number] : 0.0f, 0.0f}};
    return c;
}

/* Where blocks share rows: row `row` of this block's part. */
__device__ __forceinline__ column part_of(const results &r, int row, u32 rows) {
    column c = {};
    if (row < ROWS)
        c = {r.out[0] + (size_t)blockIdx.z * rows * ROWS + row, ROWS, {}};
    return c;
}

__device__ __forceinline__ float result_of(const column &c, float l0, float l1, float a0) {
    if (SPLIT > 1)
        return l0;
    l0 += c.bias[0], l1 += c.bias[1];
    return EXPRESSION;
}

/* Results of a unit for two tokens as bf16, in the order of operand.cuh: lanes of units side by side put both of one token. */
__device__ __forceinline__ void put_operand(u8 *to, u32 all, int unit, u32 token, u32 tokens, float first, float second) {
    const bool odd = unit % 2;
    const float theirs = __shfl_xor_sync(0xFFFFFFFFu, odd ? first : second, 4);
    const u32 two = odd ? two_bf16(theirs, second) : two_bf16(first, theirs);
    const u32 at = unit / 2 * 2 % 64, chunk = at / 16 * 2 + at % 4 / 2;
    token += odd;
    if (unit < UNITS && token < tokens)
        *(u32 *)(to + ((size_t)(unit / 64) * all + token) * 128 + (chunk ^ token % 8) * 16 + at % 16 / 4 * 4) = two;
}

/* Values from outside are loaded for some tokens before the results of these are put down. */
template <int Span>
__device__ __forceinline__ void put(const sums<Span> &sum, lane_units u, const results &r, u32 first, u32 tokens) {
    enum { COLUMNS = SPLIT > 1 || IN_UNIT == 1 ? 2 : 1, ROWS_OF_TWO = 2 - TWO, AT_ONCE = 4 };
    const u32 rows = tokens / (1 + TWO), all = (tokens + 7) / 8 * 8;
    const int unit[2] = {u.first, u.second};
    column c[COLUMNS];
#pragma unroll
    for (int i = 0; i < COLUMNS; i++)
        c[i] = SPLIT > 1 ? part_of(r, unit[i] * IN_UNIT + (IN_UNIT == 2 ? i : 0), rows) : column_of(r, unit[i], rows);
    first += threadIdx.x % 4 * 2;
#pragma unroll
    for (int batch = 0; batch < Span / 8; batch += AT_ONCE) {
        float a0[AT_ONCE][ROWS_OF_TWO][COLUMNS] = {};
#pragma unroll
        for (int n = 0; n < AT_ONCE * ROWS_OF_TWO * COLUMNS; n++) {
            const int j = n / COLUMNS / ROWS_OF_TWO, t = n / COLUMNS % ROWS_OF_TWO, i = n % COLUMNS;
            const u32 row = (first + 8 * (batch + j) + t) / (1 + TWO);
            if (SPLIT == 1 && OUTSIDE && unit[i] < UNITS && row < rows)
                a0[j][t][i] = r.outside[(size_t)row * UNITS + unit[i]];
        }
#pragma unroll
        for (int n = 0; n < AT_ONCE * COLUMNS; n++) {
            const int j = n / COLUMNS, i = n % COLUMNS;
            const float *d = sum.d[batch + j];
            const u32 token = first + 8 * (batch + j);
            float y[ROWS_OF_TWO];
#pragma unroll
            for (int t = 0; t < ROWS_OF_TWO; t++) {
                const float one = TWO ? d[0] + d[1] : d[t], other = TWO ? d[2] + d[3] : d[2 + t];
                y[t] = result_of(c[i], i ? other : one, other, a0[j][t][i]);
            }
#if TO_OPERAND
            put_operand((u8 *)r.out[0], all, unit[i], token, tokens, y[0], y[ROWS_OF_TWO - 1]);
#else
#pragma unroll
            for (int t = 0; t < ROWS_OF_TWO; t++)
                if (c[i].out && (token + t) / (1 + TWO) < rows)
                    c[i].out[(size_t)((token + t) / (1 + TWO)) * c[i].width] = y[t];
#endif
        }
    }
}

template <int Span>
__device__ __forceinline__ void compute(const u8 *stream, const i32 *shares, const tokens_of &t, const results &r, u32 tokens) {
    DYNAMIC_SHARED(1024, u8, room);
    const range steps = {(int)(STEPS * blockIdx.z / SPLIT), (int)(STEPS * (blockIdx.z + 1) / SPLIT)};
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int first = blockIdx.y * BLOCK_UNITS + warp * (16 / IN_UNIT);
    const lane_units u = {first + lane / 4, IN_UNIT == 2 ? first + lane / 4 : first + 8 + lane / 4};
    const int owner = owner_of(shares, min(first * IN_UNIT, ROWS - 1));
    row_place a = place_of(stream, shares, owner, u.first * IN_UNIT),
              b = place_of(stream, shares, owner, u.second * IN_UNIT + IN_UNIT - 1);
    a.at += lane % 4 * 16, b.at += lane % 4 * 16;
    sums<Span> sum = {};
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    stages &s = *(stages *)(room + STAGES * STAGE_BYTES + THREADS / 32 * WEIGHT_STAGES * WARP_BYTES);
    multiply(sum, a, b, room, s, t, steps);
#else
    multiply_by_warps(sum, a, b, room, t, steps);
#endif
    put(sum, u, r, t.first, tokens);
}

#endif

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define IN_CLUSTERS __cluster_dims__(1, CLUSTER, 1)
#else
#define IN_CLUSTERS
#endif

extern "C" __global__ void IN_CLUSTERS __launch_bounds__(THREADS)
    packed_gemm(const u8 *x, const u8 *stream, const i32 *shares, const float *b0, const float *b1, const float *b2,
                const float *b3, const float *a0, float *o0, float *o1, float *o2, float *o3, i32 rows) {
#if __CUDA_ARCH__ >= 800
    const u32 tokens = (u32)rows * (1 + TWO), all = (tokens + 7) / 8 * 8, first = blockIdx.x * SPAN;
    if (first >= all)
        return;
    const tokens_of t = {x, all, first, min((u32)SPAN, all - first)};
    const results r = {{b0, b1, b2, b3}, a0, {o0, o1, o2, o3}};
    if (SPAN > 64 && t.n <= 64)
        compute<64>(stream, shares, t, r, tokens);
    else if (SPAN > 128 && t.n <= 128)
        compute<(SPAN > 128 ? 128 : SPAN)>(stream, shares, t, r, tokens);
    else
        compute<SPAN>(stream, shares, t, r, tokens);
#endif
}
