/* Products of many tokens with the rows of a phase of the persistent kernel, from its stream: prefill needs no other copy of the
 * weights. A warp takes 16 rows as operand A, which are in the stream in the order of its registers: a lane loads 16 bytes of two rows.
 * Activations are operand B (operand.cuh), through shared memory.
 *
 *   rows of the phase          tokens ----->   SPAN for a block
 *     64 for 4 warps    x    K, 64 at a time
 *
 * On sm_90a four warps bring both by bulk copies, up to STAGES steps ahead, tiles of weights whole, and the others multiply, four warps
 * together (wgmma): while the products of a step run, operand A of the next one is loaded. Elsewhere all warps copy one stage ahead, and
 * each multiplies for itself. Rows of block formats come in pieces, and become bf16 where they are multiplied (packed_blocks.cuh). Products
 * are of bf16, sums float32.
 *
 * Grid: any number of blocks (a multiple of CLUSTER), which take items: SPAN tokens of the rows of CLUSTER blocks, and of each row 1 /
 * SPLIT. Items of the same rows follow each other, so that weights are read once. Needs sm_80. */
#include "packed_items.cuh"
#include "mma.cuh"
#include "packed_operand.cuh"
#include "packed_results.cuh"

#if __CUDA_ARCH__ >= 800

/* A launch beside the one before it, which has the same tokens, waits for it at the end only. All launches before the two have ended by
 * then: the one before lets this one start after its own wait. The launch after this one starts no earlier than its end. */
__device__ __forceinline__ void begin_after_previous() {
    if (!BESIDE) {
        wait_for_previous();
        let_next_start();
    }
}

__device__ __forceinline__ void end_beside_previous() {
    if (BESIDE) {
        wait_for_previous();
        let_next_start();
    }
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#include "packed_stages.cuh"

/* Operand A of one step after the other, from stages. */
struct staged_rows {
    u32 a, b; /* Of blocks: the lane's rows. Of 16 bits: where they lie in a stage, and in the upper byte the height of their tile. */
    u32 of_0x43;

    __device__ __forceinline__ void begin(stages &s, const turn &now, int all) {
        const int lane = threadIdx.x % 32, row = (int)threadIdx.x / 32 * 16 + (IN_UNIT == 2 ? lane / 4 * 2 : lane / 4);
        a = row, b = row + (IN_UNIT == 2 ? 1 : 8);
#if FORMAT <= BF16
        barrier_wait(&s.full[now.at], now.parity);
        a = s.places[now.at][a] + threadIdx.x % 4 * 16, b = s.places[now.at][b] + threadIdx.x % 4 * 16;
#endif
        of_0x43 = in_register(0x43434343u, all);
    }
    __device__ __forceinline__ void take(operand_a &to, const u8 *weights) const {
        two_rows w;
#if FORMAT > BF16
        block_stage::load(w.of[0], weights, a), block_stage::load(w.of[1], weights, b);
#else
#pragma unroll
        for (int n = 0; n < 2; n++) {
            w.v[n][0] = *(const uint4 *)(weights + (a & 0xFFFFFFu) + n * (a >> 24) * 64);
            w.v[n][1] = *(const uint4 *)(weights + (b & 0xFFFFFFu) + n * (b >> 24) * 64);
        }
#endif
        w.widen(to, of_0x43);
    }
};

template <int Span> struct consumer {
    sums<Span> &sum;
    u8 *room;
    stages &s;
    turn &now;
    staged_rows rows;

    __device__ __forceinline__ void load(operand_a &next) {
        barrier_wait(&s.full[now.at], now.parity);
        rows.take(next, room + STAGES * STAGE_BYTES + now.at * WEIGHT_BYTES);
    }
    /* Products of the stage `now`, whose operand A is here; then operand A of the next one. */
    __device__ __forceinline__ void step(operand_a &mine, operand_a &next, bool is_first, bool is_last) {
        const u64 operand = wgmma_operand(room) + (u64)(now.at * (STAGE_BYTES / 16));
        const u32 before = now.at == 0 ? STAGES - 1 : now.at - 1;
        __syncwarp();
        wgmma_begin();
#pragma unroll
        for (int q = 0; q < 4; q++)
            wgmma_bf16<Span>(&sum.d[0][0], mine.part[q], operand + (u64)(2 * q));
        wgmma_end();
        wgmma_wait<1>();
        if (!is_first)
            release(&s.empty[before]);
        now.go_on();
        if (!is_last)
            load(next);
    }
};

template <int Span>
__device__ __forceinline__ void multiply(sums<Span> &sum, u8 *room, stages &s, turn &now, const item &it) {
    consumer<Span> c = {sum, room, s, now, {}};
    operand_a one, other;
    c.rows.begin(s, now, it.last);
    c.load(one);
    const int n = (it.last - it.step) / 2;
    const bool odd = STEPS % 2 == 1 && it.last == STEPS; /* one more step after `n` twice */
#pragma unroll 1
    for (int i = 0; i < n; i++) {
        c.step(one, other, i == 0, false);
        c.step(other, one, false, i + 1 == n && !odd);
    }
    if (odd)
        c.step(one, other, n == 0, true);
    wgmma_wait<0>();
    release(&s.empty[now.at == 0 ? STAGES - 1 : now.at - 1]);
}

#endif

/* A stage by all threads. */
__device__ __forceinline__ void copy_stage(u8 *to, const u8 *from, u32 n) {
    for (u32 i = threadIdx.x; i < n * (TOKEN_BYTES / 16); i += THREADS)
        copy_16(shared_address(to + 16 * i), from + 16 * i);
}

template <int Span> __device__ __forceinline__ void multiply_step(sums<Span> &sum, const operand_a &w, u32 stage) {
    const int lane = threadIdx.x % 32, token = lane / 16 * 8 + lane % 8;
#pragma unroll
    for (int q = 0; q < 4; q++) {
        const u32 chunk = 2 * q + lane / 8 % 2, at = stage + token * TOKEN_BYTES + (chunk ^ token % 8) * 16;
#pragma unroll
        for (int j = 0; j < Span / 8; j += 2) {
            const uint4 x = load_matrices(at + j * 8 * TOKEN_BYTES);
            mma_bf16(sum.d[j], w.part[q][0], w.part[q][1], w.part[q][2], w.part[q][3], x.x, x.y);
            mma_bf16(sum.d[j + 1], w.part[q][0], w.part[q][1], w.part[q][2], w.part[q][3], x.z, x.w);
        }
    }
}

template <int Span>
__device__ __forceinline__ void multiply_by_warps(sums<Span> &sum, lane_rows &rows, u8 *room, const u8 *x, u32 all, const item &it) {
    const bool multiplies = threadIdx.x / 32 < MULTIPLYING;
    operand_a w;
    two_rows next;
    __syncthreads();
    copy_stage(room, x + ((size_t)it.step * all + it.token) * TOKEN_BYTES, it.tokens);
    rows.load(next);
#pragma unroll 1
    for (int k = it.step, i = 0; k < it.last; k++, i++) {
        copies_done();
        __syncthreads();
        if (k + 1 < it.last)
            copy_stage(room + (i + 1) % 2 * STAGE_BYTES, x + ((size_t)(k + 1) * all + it.token) * TOKEN_BYTES, it.tokens);
        next.widen(w, in_register(0x43434343u, it.last));
        if (k + 1 < it.last)
            rows.load(next);
        if (multiplies)
            multiply_step(sum, w, shared_address(room + i % 2 * STAGE_BYTES));
    }
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <int Span>
__device__ __forceinline__ void compute(u8 *room, stages &s, turn &now, const item &it, const results &r, u32 tokens) {
    sums<Span> sum = {};
    multiply(sum, room, s, now, it);
    put(sum, units_of(it), r, it, tokens);
}

__device__ __forceinline__ void take_items(const u8 *x, const u8 *stream, const i32 *shares, const results &r, const work &w,
                                           u32 tokens) {
    DYNAMIC_SHARED(1024, u8, room);
    stages &s = *(stages *)(room + STAGES * (STAGE_BYTES + WEIGHT_BYTES));
    begin_stages(s);
    if (threadIdx.x / 32 >= MULTIPLYING) {
        if (GROUPS == 2)
            registers_less<40>();
        bring(x, stream, shares, w, room, s);
    } else {
        if (GROUPS == 2)
            registers_more<232>();
        begin_after_previous(); /* results meet values of launches before, and go where those may still read */
        turn now = {0, 0};
#pragma unroll 1
        for (u32 i = blockIdx.x / CLUSTER; i < w.n; i += gridDim.x / CLUSTER) {
            const item it = item_of(w, i);
            if (SPAN > 64 && it.tokens <= 64)
                compute<64>(room, s, now, it, r, tokens);
            else if (SPAN > 128 && it.tokens <= 128)
                compute<(SPAN > 128 ? 128 : SPAN)>(room, s, now, it, r, tokens);
            else
                compute<SPAN>(room, s, now, it, r, tokens);
        }
    }
    __syncwarp();
    if (CLUSTER > 1) /* others may still arrive at barriers of this block */
        cluster_meets<CLUSTER>();
}

#else

template <int Span>
__device__ __forceinline__ void compute(const u8 *x, const u8 *stream, const i32 *shares, u32 all, const item &it, const results &r,
                                        u32 tokens) {
    DYNAMIC_SHARED(1024, u8, room);
    const lane_units u = units_of(it);
    lane_rows rows;
    rows.begin(stream, shares, owner_of(shares, min(it.first_row + (int)threadIdx.x / 32 * 16, ROWS - 1)), u.first * IN_UNIT,
               u.second * IN_UNIT + IN_UNIT - 1, it.step);
    sums<Span> sum = {};
    multiply_by_warps(sum, rows, room, x, all, it);
    if (threadIdx.x / 32 < MULTIPLYING)
        put(sum, u, r, it, tokens);
}

__device__ __forceinline__ void take_items(const u8 *x, const u8 *stream, const i32 *shares, const results &r, const work &w,
                                           u32 tokens) {
    enum { AT_ONCE = SPAN > 128 ? 128 : SPAN }; /* tokens; sums of more have no room in the registers of these warps */
    begin_after_previous();
#pragma unroll 1
    for (u32 i = blockIdx.x / CLUSTER; i < w.n; i += gridDim.x / CLUSTER) {
        const item all = item_of(w, i);
#pragma unroll 1
        for (u32 done = 0; done < all.tokens; done += AT_ONCE) {
            item it = all;
            it.token += done, it.tokens = min((u32)AT_ONCE, all.tokens - done);
            if (SPAN > 64 && it.tokens <= 64)
                compute<64>(x, stream, shares, w.all, it, r, tokens);
            else
                compute<AT_ONCE>(x, stream, shares, w.all, it, r, tokens);
        }
    }
}

#endif

#endif

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define IN_CLUSTERS __cluster_dims__(CLUSTER, 1, 1)
#else
#define IN_CLUSTERS
#endif

extern "C" __global__ void IN_CLUSTERS __launch_bounds__(THREADS, GROUPS == 1 && SPAN == 64 ? 2 : 1)
    packed_gemm(const u8 *x, const u8 *stream, const i32 *shares, const float *b0, const float *b1, const float *b2,
                const float *b3, const float *a0, float *o0, float *o1, float *o2, float *o3, i32 rows) {
#if __CUDA_ARCH__ >= 800
    const u32 tokens = (u32)rows * (1 + TWO);
    const results r = {{b0, b1, b2, b3}, a0, {o0, o1, o2, o3}};
    take_items(x, stream, shares, r, work_of((tokens + 7) / 8 * 8), tokens);
    end_beside_previous();
#endif
}
