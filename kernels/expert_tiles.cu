/* What expert_linear.cu computes, for many tokens: out[t, k, :] = matrix ids[t, k] of EXPERTS times x[t, :] or, where each expert has
 * its own (EACH), times x[t, k, :], plus its bias. A block multiplies a tile of items of one expert (expert_order.cu) by ROWS rows of
 * its matrix on the tensor cores, so that an expert is read once for all tokens that chose it, or once for each TILE of them.
 * Both factors are rounded to bf16; sums are float32.
 *
 * Grid: x = OUT / ROWS, y = at least as many as there are tiles. Reads the matrices of all experts that were chosen and is bound by
 * that, until each has hundreds of tokens. Needs sm_80. */
#include "mma.cuh"

#ifndef IN
#define IN 896
#endif
#ifndef OUT
#define OUT 896
#endif
#ifndef WEIGHT
#define WEIGHT BF16
#endif
#ifndef USED
#define USED 8
#endif
#ifndef EACH
#define EACH 0
#endif
#ifndef TILE
#define TILE 64
#endif
#ifndef BIAS /* 1 + the type that biases are stored in, 0: there are none */
#define BIAS 0
#endif

typedef stored<WEIGHT> weights;

#if BIAS
#define BIAS_PARAMETER const stored<BIAS - 1>::elem *bias,
#else
#define BIAS_PARAMETER
#endif

enum {
    WARPS = TILE / 16,
    THREADS = 32 * WARPS,
    ROWS = 64,
    STEP = 64,         /* elements of IN that are staged at once */
    STRIDE = STEP + 8, /* of a row in shared memory, so that ldmatrix finds 8 of them in different banks */
};

#if __CUDA_ARCH__ >= 800

/* Elements at .. at + Count - 1 of a row of `in`, in bf16, to shared memory; those after the last are 0. */
template <int Count> __device__ __forceinline__ void stage(u16 *to, const float *values) {
#pragma unroll
    for (int i = 0; i < Count; i += 2)
        *(u32 *)(to + i) = two_bf16(values[i], values[i + 1]);
}

__device__ __forceinline__ void stage_items(u16 *to, const float *x, const i32 *item, int k) {
    for (int i = threadIdx.x; i < TILE * STEP / 4; i += THREADS) {
        const int row = i / (STEP / 4), at = k + i % (STEP / 4) * 4;
        const float *from = x + (size_t)(EACH ? item[row] : item[row] / USED) * IN;
        float v[4] = {};
#if IN % 4 == 0
        if (at < IN)
            *(float4 *)v = *(const float4 *)(from + at);
#else
#pragma unroll
        for (int e = 0; e < 4; e++)
            v[e] = at + e < IN ? from[at + e] : 0.0f;
#endif
        stage<4>(to + row * STRIDE + at - k, v);
    }
}

/* ROWS rows of the matrix of an expert, from row `first` on; rows after the last are read as the last, and dropped. */
__device__ __forceinline__ void stage_rows(u16 *to, const weights::elem *matrices, size_t expert, int first, int k) {
    const int EACH_TIME = weights::PER_LOAD;
    for (int i = threadIdx.x; i < ROWS * STEP / EACH_TIME; i += THREADS) {
        const int row = i / (STEP / EACH_TIME), at = k + i % (STEP / EACH_TIME) * EACH_TIME;
        const weights::elem *from = weights::row(matrices, expert * OUT + min(first + row, OUT - 1), IN);
        float v[EACH_TIME] = {};
#if IN % 8 == 0
        if (at < IN)
            weights::widen_load(weights::load(from, at, IN), v);
#else
#pragma unroll
        for (int e = 0; e < EACH_TIME; e++)
            v[e] = at + e < IN ? weights::element(from, at + e, IN) : 0.0f;
#endif
        stage<EACH_TIME>(to + row * STRIDE + at - k, v);
    }
}

/* sums[n]: items lane / 4 and 8 on of the warp's 16, rows 8 n + 2 (lane % 4) and one on. */
__device__ __forceinline__ void multiply(float (*sums)[4], u32 items, u32 rows) {
    const int lane = threadIdx.x % 32;
    items += 2 * ((threadIdx.x / 32 * 16 + lane % 16) * STRIDE + lane / 16 * 8);
    rows += 2 * ((lane / 16 * 8 + lane % 8) * STRIDE + lane / 8 % 2 * 8);
#pragma unroll
    for (int k = 0; k < STEP / 16; k++) {
        const uint4 a = load_matrices(items + 2 * 16 * k);
#pragma unroll
        for (int n = 0; n < ROWS / 8; n += 2) {
            const uint4 b = load_matrices(rows + 2 * (8 * n * STRIDE + 16 * k));
            mma_bf16(sums[n], a.x, a.y, a.z, a.w, b.x, b.y);
            mma_bf16(sums[n + 1], a.x, a.y, a.z, a.w, b.z, b.w);
        }
    }
}

#endif

extern "C" __global__ void __launch_bounds__(THREADS)
    expert_tiles(const float *x, const weights::elem *matrices, const i32 *order, const i32 *tiles, BIAS_PARAMETER float *out) {
#if __CUDA_ARCH__ >= 800
    if ((i32)blockIdx.y >= tiles[0])
        return;
    __shared__ __align__(16) u16 items[TILE * STRIDE], rows[ROWS * STRIDE];
    __shared__ i32 item[TILE];
    const i32 *tile = tiles + 1 + 3 * blockIdx.y;
    const int expert = tile[0], n = tile[2] - tile[1], first = blockIdx.x * ROWS;
    if (threadIdx.x < TILE) /* items after the last are computed as that one, and dropped */
        item[threadIdx.x] = order[tile[1] + min((int)threadIdx.x, n - 1)];
    float sums[ROWS / 8][4] = {};
#pragma unroll 1
    for (int k = 0; k < IN; k += STEP) {
        __syncthreads(); /* item is there, and all are through with the elements before */
        stage_items(items, x, item, k);
        stage_rows(rows, matrices, expert, first, k);
        __syncthreads();
        multiply(sums, shared_address(items), shared_address(rows));
    }
#pragma unroll
    for (int i = 0; i < 4 * ROWS / 8; i++) {
        const int at = threadIdx.x / 32 * 16 + i / 2 % 2 * 8 + threadIdx.x % 32 / 4;
        const int row = first + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
        if (at >= n || row >= OUT)
            continue;
        float sum = sums[i / 4][i % 4];
#if BIAS
        sum += stored<BIAS - 1>::widen(bias[(size_t)expert * OUT + row]);
#endif
        out[(size_t)item[at] * OUT + row] = sum;
    }
#endif
}
