/* Products of many tokens with the rows of a phase of the persistent kernel, from its stream: prefill needs no other copy of the
 * weights. A warp takes 16 rows as operand A, which are in the stream in the order of its registers: a lane loads 16 bytes of two rows.
 * Activations are operand B (to_operand.cu), through shared memory.
 *
 *   rows of the phase          tokens ----->   SPAN for a block
 *     64 for 4 warps    x    K, 64 at a time
 *
 * On sm_90a activations come by bulk copies, STAGES stages ahead, and four warps multiply together (wgmma); elsewhere all warps copy
 * one stage ahead, and each multiplies for itself. Products are of bf16, sums float32.
 *
 * Grid: x covers tokens by SPAN, y the units by those of a block, z = SPLIT. Weights are read once for each SPAN tokens, which run
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

enum {
    BLOCK_UNITS = GROUPS * 64 / IN_UNIT,
    STEP = 64,
    STEPS = K / STEP,
    TOKEN_BYTES = 2 * STEP,
    STAGE_BYTES = SPAN * TOKEN_BYTES,
};
static_assert(K % STEP == 0 && STAGES >= 2, "shape");

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

/* The first thread asks for the activations of step i of this block, and before that waits until all are through with what lies there. */
__device__ __forceinline__ void copy_stage_later(u8 *room, stages &s, const tokens_of &t, range r, int i) {
    const int at = i % STAGES;
    if (threadIdx.x != 0 || r.first + i >= r.last)
        return;
    if (i >= STAGES)
        barrier_wait(&s.empty[at], i / STAGES % 2 ^ 1);
    barrier_expect(&s.full[at], t.n * TOKEN_BYTES);
    bulk_copy(room + at * STAGE_BYTES, t.step(r.first + i), t.n * TOKEN_BYTES, &s.full[at]);
}

/* Two steps of weights are on their way while one is multiplied; their registers are none that it may still be read from. */
template <int Span>
__device__ __forceinline__ void multiply(sums<Span> &sum, const row_place &a, const row_place &b, u8 *room, stages &s,
                                         const tokens_of &t, range r) {
    two_rows w[3];
    w[0].load(a, b, r.first);
    w[1].load(a, b, min(r.first + 1, r.last - 1));
    for (int i = 0; i < STAGES - 1; i++)
        copy_stage_later(room, s, t, r, i);
    const u64 operand = wgmma_operand(room);
    const int steps = r.last - r.first;
#pragma unroll 1
    for (int first = 0; first < steps; first += 3) {
#pragma unroll
        for (int n = 0; n < 3; n++) {
            const int i = first + n, at = i % STAGES;
            if (i >= steps)
                break;
            u32 part[4][4];
#pragma unroll
            for (int q = 0; q < 16; q++)
                part[q / 4][q % 4] = w[n].a(q / 4, q % 4);
            w[(n + 2) % 3].load(a, b, min(r.first + i + 2, r.last - 1));
            __syncwarp();
            barrier_wait(&s.full[at], i / STAGES % 2);
            wgmma_begin();
#pragma unroll
            for (int q = 0; q < 4; q++)
                wgmma_bf16<Span>(&sum.d[0][0], part[q], operand + (u64)(at * (STAGE_BYTES / 16) + 2 * q));
            wgmma_end();
            copy_stage_later(room, s, t, r, i + STAGES - 1);
            wgmma_wait();
            if (threadIdx.x % 32 == 0)
                barrier_arrive(&s.empty[at]);
        }
    }
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

template <int Span>
__device__ __forceinline__ void put(const sums<Span> &sum, lane_units u, const results &r, u32 first, u32 tokens) {
    const int lane = threadIdx.x % 32;
    float *parts = r.out[0] + (size_t)blockIdx.z * (tokens / (1 + TWO)) * ROWS;
#pragma unroll
    for (int j = 0; j < Span / 8; j++)
#pragma unroll
        for (int c = 0; c < 2 - TWO; c++) {
            const u32 token = first + 8 * j + 2 * (lane % 4) + c, row = token / (1 + TWO);
            const float *d = sum.d[j];
            const float one = TWO ? d[0] + d[1] : d[c], other = TWO ? d[2] + d[3] : d[2 + c];
            if (token >= tokens)
                continue;
            if (SPLIT > 1) {
                if (u.first < UNITS)
                    parts[(size_t)row * ROWS + u.first * IN_UNIT] = one;
                if (u.second < UNITS)
                    parts[(size_t)row * ROWS + u.second * IN_UNIT + IN_UNIT - 1] = other;
            } else {
                if (u.first < UNITS)
                    finish(r, u.first, row, one, other);
                if (IN_UNIT == 1 && u.second < UNITS)
                    finish(r, u.second, row, other, 0.0f);
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
    stages &s = *(stages *)(room + STAGES * STAGE_BYTES);
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++)
            barrier_init(&s.full[i], 1), barrier_init(&s.empty[i], THREADS / 32);
        fence_barrier_init();
    }
    __syncthreads();
    multiply(sum, a, b, room, s, t, steps);
#else
    multiply_by_warps(sum, a, b, room, t, steps);
#endif
    put(sum, u, r, t.first, tokens);
}

#endif

extern "C" __global__ void __launch_bounds__(THREADS)
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
