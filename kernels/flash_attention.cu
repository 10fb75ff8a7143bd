/* Causal attention of many tokens over caches of 16 bits, on the tensor cores: a block takes a tile of queries, walks over
 * tiles of keys and values, and keeps scores and weights in registers (arxiv.org/abs/2205.14135, arxiv.org/abs/2307.08691).
 * All query heads of a key-value head share what is staged: a row of a tile of queries is a token and a head.
 *
 *   row      token row / GROUP, head row % GROUP; it attends to positions 0 .. positions[token],
 *            or to the last WINDOW of them
 *   warp     ROW_TILES times 16 rows; queries in registers, rounded to the type of the keys, for bf16 in two parts (mma.cuh)
 *   block    WARPS of them; the next KEY_TILE keys and values are copied to shared memory while these are multiplied
 *   blocks   up to PARTS of them share the positions of a tile of rows, at least LEAST_SPAN each; the last one puts together
 *            what they have, part after part
 *
 * Scores and sums are float32, weights are rounded to the type of the values. All exponents are of 2.
 *
 * Grid: x = tiles of rows, y = key-value heads, z = PARTS. Shared memory: two stages of keys and values, rows padded by 16
 * bytes so that ldmatrix finds 8 of them in different banks. 4 * HEADS * HEAD_DIM flops for each pair of token and
 * position; bound by the tensor cores and by exponentials. HEAD_DIM is a multiple of 16. Needs sm_80. */
#include "attention.cuh"
#include "last.cuh"
#include "mma.cuh"
#include "operand.cuh"

#ifndef TO_OPERAND /* 1: the results are activations of a product, in bf16 (operand.cuh) */
#define TO_OPERAND 0
#endif
#ifndef PARTS
#define PARTS 10
#endif
#ifndef LEAST_SPAN
#define LEAST_SPAN 512
#endif
#ifndef WARPS
#define WARPS 4
#endif
#ifndef ROW_TILES
#define ROW_TILES 2
#endif
#ifndef RESIDENT /* blocks that a multiprocessor has room for */
#define RESIDENT 2
#endif
#ifndef SMS /* multiprocessors of the card, nearly */
#define SMS 132
#endif

enum {
    GROUP = HEADS / KV_HEADS,
    THREADS = 32 * WARPS,
    ROWS = 16 * ROW_TILES * WARPS,
    KEY_TILE = 64,
    STRIDE = HEAD_DIM + 8,         /* of a row in shared memory, in elements */
    STAGE = 2 * KEY_TILE * STRIDE, /* keys, then values */
    CHUNKS = HEAD_DIM / 8,         /* copies of 16 bytes for a row */
    SPLIT = KEYS == BF16,          /* of the queries: high and low */
    SHARE_ROW = HEAD_DIM + 4,      /* sums, largest score, total of weights */
};

#if __CUDA_ARCH__ >= 800

/* KEY_TILE rows from position `first` on; after `most` the row of `most` is taken, whose weight there is 0. */
__device__ __forceinline__ void stage_tile(u32 to, const u16 *keys, const u16 *values, const kept<> &cache, int first, int most) {
#pragma unroll
    for (int i = threadIdx.x; i < KEY_TILE * CHUNKS; i += THREADS) {
        int row = i / CHUNKS, chunk = i % CHUNKS;
        size_t from = (size_t)cache.row(min(first + row, most)) * HEAD_DIM + 8 * chunk;
        u32 at = to + 2 * (row * STRIDE + 8 * chunk);
        copy_16(at, keys + from);
        copy_16(at + 2 * KEY_TILE * STRIDE, values + from);
    }
}

/* Fragments of the left operand: rows lane / 4 and 8 on of each tile of 16. */
struct queries {
    u32 high[ROW_TILES][HEAD_DIM / 16][4], low[ROW_TILES][SPLIT ? HEAD_DIM / 16 : 1][4];
};

/* A tile of rows: `n` from row `first` of a key-value head on. */
struct tile {
    int first, n, kv;
    const i32 *positions;
    u32 all; /* tokens, rounded up to 8 */

    /* Of the tile, for half h of a lane's tile t of 16. */
    __device__ __forceinline__ int row(int t, int h) const {
        return threadIdx.x / 32 * 16 * ROW_TILES + 16 * t + 8 * h + threadIdx.x % 32 / 4;
    }
    /* Rows after the last are computed as that one, and dropped. */
    __device__ __forceinline__ int token(int row) const { return (first + min(row, n - 1)) / GROUP; }
    __device__ __forceinline__ int head(int row) const { return kv * GROUP + (first + min(row, n - 1)) % GROUP; }
    __device__ __forceinline__ size_t at(int row) const {
        return ((size_t)token(row) * HEADS + kv * GROUP + (first + min(row, n - 1)) % GROUP) * HEAD_DIM;
    }
};

struct running {
    float largest[ROW_TILES][2], total[ROW_TILES][2], sums[ROW_TILES][HEAD_DIM / 8][4];
};

__device__ __forceinline__ running nothing() {
    running s = {};
#pragma unroll
    for (int t = 0; t < ROW_TILES; t++)
        s.largest[t][0] = s.largest[t][1] = -INF;
    return s;
}

__device__ __forceinline__ void load_queries(queries &to, const tile &rows, const float *q) {
    const float by = SCALE * 1.44269504f; /* exponents are of 2 */
#pragma unroll
    for (int t = 0; t < ROW_TILES; t++)
#pragma unroll
        for (int k = 0; k < HEAD_DIM / 16; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int element = 16 * k + i / 2 * 8 + 2 * (threadIdx.x % 4);
                float2 x = *(const float2 *)(q + rows.at(rows.row(t, i % 2)) + element);
                x.x *= by, x.y *= by;
                to.high[t][k][i] = narrow_two<KEYS>(x.x, x.y);
                if (SPLIT)
                    to.low[t][k][i] = narrow_rest<KEYS>(x.x, x.y, to.high[t][k][i]);
            }
}

/* scores[t][n]: rows lane / 4 and 8 on, keys 8 n + 2 (lane % 4) and one on. */
__device__ __forceinline__ void score(float (*scores)[KEY_TILE / 8][4], const queries &q, u32 keys) {
    int lane = threadIdx.x % 32;
    keys += 2 * ((lane / 16 * 8 + lane % 8) * STRIDE + lane / 8 % 2 * 8);
#pragma unroll
    for (int k = 0; k < HEAD_DIM / 16; k++)
#pragma unroll
        for (int n = 0; n < KEY_TILE / 8; n += 2) {
            uint4 b = load_matrices(keys + 2 * (8 * n * STRIDE + 16 * k));
#pragma unroll
            for (int t = 0; t < ROW_TILES; t++) {
                const u32 *a = q.high[t][k];
                mma<KEYS>(scores[t][n], a[0], a[1], a[2], a[3], b.x, b.y);
                mma<KEYS>(scores[t][n + 1], a[0], a[1], a[2], a[3], b.z, b.w);
                if (SPLIT) {
                    const u32 *c = q.low[t][k];
                    mma<KEYS>(scores[t][n], c[0], c[1], c[2], c[3], b.x, b.y);
                    mma<KEYS>(scores[t][n + 1], c[0], c[1], c[2], c[3], b.z, b.w);
                }
            }
        }
}

/* Scores of positions that a row does not attend to; the tile of keys begins at `first`. */
__device__ __forceinline__ void mask(float (*scores)[KEY_TILE / 8][4], const tile &rows, int first) {
#pragma unroll
    for (int t = 0; t < ROW_TILES; t++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int limit = rows.positions[rows.token(rows.row(t, h))];
#pragma unroll
            for (int n = 0; n < KEY_TILE / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                {
                    const int position = first + 8 * n + 2 * (int)(threadIdx.x % 4) + i;
                    if (position > limit || (WINDOW && position <= limit - WINDOW))
                        scores[t][n][2 * h + i] = -INF;
                }
        }
}

/* Exponents are of 2. */
__device__ __forceinline__ void cap(float (*scores)[KEY_TILE / 8][4]) {
#pragma unroll
    for (int t = 0; t < ROW_TILES; t++)
#pragma unroll
        for (int n = 0; n < KEY_TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                scores[t][n][i] = capped(scores[t][n][i], 1.44269504f);
}

__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 2));
}

/* Weights of a row's scores relative to the largest so far, two to a word; the sums become relative to it too. */
__device__ __forceinline__ void weigh(running &s, const float (*scores)[KEY_TILE / 8][4], u32 (*weights)[KEY_TILE / 8][2]) {
#pragma unroll
    for (int t = 0; t < ROW_TILES; t++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float largest = -INF;
#pragma unroll
            for (int n = 0; n < KEY_TILE / 8; n++)
                largest = fmaxf(largest, fmaxf(scores[t][n][2 * h], scores[t][n][2 * h + 1]));
            largest = fmaxf(quad_max(largest), s.largest[t][h]);
            float base = largest == -INF ? 0.0f : largest; /* a row may attend to nothing here */
            float rescale = exp2_near(s.largest[t][h] - base);
            s.largest[t][h] = largest;
            float total = 0.0f;
#pragma unroll
            for (int n = 0; n < KEY_TILE / 8; n++) {
                float x = exp2_near(scores[t][n][2 * h] - base), y = exp2_near(scores[t][n][2 * h + 1] - base);
                total += x;
                total += y;
                weights[t][n][h] = narrow_two<VALUES>(x, y);
            }
            s.total[t][h] = s.total[t][h] * rescale + total; /* of this lane's keys */
#pragma unroll
            for (int n = 0; n < HEAD_DIM / 8; n++)
#pragma unroll
                for (int i = 2 * h; i < 2 * h + 2; i++)
                    s.sums[t][n][i] *= rescale;
        }
}

__device__ __forceinline__ void add_values(running &s, const u32 (*weights)[KEY_TILE / 8][2], u32 values) {
    int lane = threadIdx.x % 32;
    values += 2 * (lane % 16 * STRIDE + lane / 16 * 8);
#pragma unroll
    for (int k = 0; k < KEY_TILE / 16; k++) {
#pragma unroll
        for (int n = 0; n < HEAD_DIM / 8; n += 2) {
            uint4 b = load_transposed(values + 2 * (16 * k * STRIDE + 8 * n));
#pragma unroll
            for (int t = 0; t < ROW_TILES; t++) {
                const u32 (*a)[2] = &weights[t][2 * k];
                mma<VALUES>(s.sums[t][n], a[0][0], a[0][1], a[1][0], a[1][1], b.x, b.y);
                mma<VALUES>(s.sums[t][n + 1], a[0][0], a[0][1], a[1][0], a[1][1], b.z, b.w);
            }
        }
    }
}

/* Positions begin .. end - 1. From `least` on, and before `late`, there are some that not all rows attend to. */
__device__ __forceinline__ void walk(running &s, const queries &q, const tile &rows, const u16 *keys,
                                     const u16 *values, const kept<> &cache, u32 staged, int begin, int end, int least,
                                     int late) {
    stage_tile(staged, keys, values, cache, begin, end - 1);
#pragma unroll 1
    for (int first = begin, turn = 0; first < end; first += KEY_TILE, turn ^= 1) {
        u32 here = staged + turn * 2 * STAGE;
        copies_done();
        __syncthreads(); /* all have their copies, and are through with the tile before */
        if (first + KEY_TILE < end)
            stage_tile(staged + (turn ^ 1) * 2 * STAGE, keys, values, cache, first + KEY_TILE, end - 1);
        float scores[ROW_TILES][KEY_TILE / 8][4] = {};
        score(scores, q, here);
        if (SOFTCAP > 0.0f)
            cap(scores);
        if (first + KEY_TILE > least || (WINDOW && first < late))
            mask(scores, rows, first);
        u32 weights[ROW_TILES][KEY_TILE / 8][2];
        weigh(s, scores, weights);
        add_values(s, weights, here + 2 * KEY_TILE * STRIDE);
    }
#pragma unroll
    for (int t = 0; t < ROW_TILES; t++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            s.total[t][h] += __shfl_xor_sync(0xFFFFFFFFu, s.total[t][h], 1);
            s.total[t][h] += __shfl_xor_sync(0xFFFFFFFFu, s.total[t][h], 2);
        }
}

/* Two elements of a row of the result, the first with an even number. */
__device__ __forceinline__ void put(float *out, const tile &rows, int row, int element, float a, float b) {
    if (TO_OPERAND)
        put_two((u8 *)out, rows.all, rows.token(row), rows.at(row) % (HEADS * HEAD_DIM) + element, a, b);
    else
        *(float2 *)(out + rows.at(row) + element) = {a, b};
}

/* A lane's elements of half h of tile t. */
__device__ __forceinline__ void store_row(float *to, const running &s, int t, int h) {
#pragma unroll
    for (int n = 0; n < HEAD_DIM / 8; n++)
        *(float2 *)(to + 8 * n + 2 * (threadIdx.x % 4)) = {s.sums[t][n][2 * h], s.sums[t][n][2 * h + 1]};
}

/* The rows of a warp into the result, or into a share of it. */
__device__ __forceinline__ void leave(float *shares, float *out, const running &s, const tile &rows) {
#pragma unroll
    for (int t = 0; t < ROW_TILES; t++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int row = rows.row(t, h);
            if (row >= rows.n)
                continue;
            if (!shares) {
                const float by = 1.0f / s.total[t][h];
#pragma unroll
                for (int e = 0; e < HEAD_DIM / 8; e++)
                    put(out, rows, row, 8 * e + 2 * (threadIdx.x % 4), s.sums[t][e][2 * h] * by,
                        s.sums[t][e][2 * h + 1] * by);
                continue;
            }
            store_row(shares + row * SHARE_ROW, s, t, h);
            if (threadIdx.x % 4 == 0)
                *(float2 *)(shares + row * SHARE_ROW + HEAD_DIM) = {s.largest[t][h], s.total[t][h]};
        }
}

/* How the positions of a tile of rows are cut: `n` parts of `span`. */
struct cut {
    int n, span;
};

/* The number of parts for which the card should be through first. Blocks come in waves of as many as are resident; to
 * begin and end one takes about as long as START positions, to merge its share as MERGE (measured on an H100). */
__device__ __forceinline__ cut cut_of(int all) {
    const float START = 400.0f, MERGE = 18.0f;
    int n = threadIdx.x % 32 + 1, wave = SMS * RESIDENT;
    float waves = (gridDim.x * gridDim.y * n + wave - 1) / wave;
    float cost = waves * ((float)all / n + START) + MERGE * n;
    if (n > 1 && (n > PARTS || all < n * LEAST_SPAN))
        cost = INF;
    n = __ffs(__ballot_sync(0xFFFFFFFFu, cost == -warp_max(-cost)));
    int span = ((all + n - 1) / n + KEY_TILE - 1) / KEY_TILE * KEY_TILE;
    return {(all + span - 1) / span, span};
}

/* by[part * ROWS + row]: by what the sums of a part count, for all rows of the tile. `shares` are those of the first. */
__device__ __forceinline__ void weigh_parts(float2 *by, const float *shares, size_t stride, int n, int rows) {
    for (int row = threadIdx.x; row < rows; row += THREADS) {
        float largest = -INF, total = 0.0f;
#pragma unroll 8
        for (int p = 0; p < n; p++)
            by[p * ROWS + row] = *(const float2 *)(shares + p * stride + row * SHARE_ROW + HEAD_DIM);
        for (int p = 0; p < n; p++)
            largest = fmaxf(largest, by[p * ROWS + row].x);
        for (int p = 0; p < n; p++) {
            by[p * ROWS + row].x = exp2_near(by[p * ROWS + row].x - largest);
            total = fmaf(by[p * ROWS + row].x, by[p * ROWS + row].y, total);
        }
        for (int p = 0; p < n; p++)
            by[p * ROWS + row].x /= total;
    }
}

/* The rows of a tile from the shares of its parts. One block does it while most others are through, so it has many loads
 * under way. */
__device__ __forceinline__ void merge(float *out, const float2 *by, const float *shares, size_t stride, int n,
                                      const tile &rows) {
    const int LANES = HEAD_DIM / 4, AT_ONCE = THREADS / LANES, TURN = 8;
    int element = threadIdx.x % LANES * 4;
#pragma unroll 1
    for (int first = threadIdx.x / LANES; first < rows.n; first += TURN * AT_ONCE) {
        float4 sum[TURN] = {};
#pragma unroll 4
        for (int p = 0; p < n; p++)
#pragma unroll
            for (int i = 0; i < TURN; i++) {
                int row = min(first + i * AT_ONCE, rows.n - 1);
                float4 x = *(const float4 *)(shares + p * stride + row * SHARE_ROW + element);
                float w = by[p * ROWS + row].x;
                sum[i].x = fmaf(w, x.x, sum[i].x), sum[i].y = fmaf(w, x.y, sum[i].y);
                sum[i].z = fmaf(w, x.z, sum[i].z), sum[i].w = fmaf(w, x.w, sum[i].w);
            }
#pragma unroll
        for (int i = 0; i < TURN; i++)
            if (first + i * AT_ONCE < rows.n) {
                put(out, rows, first + i * AT_ONCE, element, sum[i].x, sum[i].y);
                put(out, rows, first + i * AT_ONCE, element + 2, sum[i].z, sum[i].w);
            }
    }
}

#endif

/* `out` is float, or bf16 as TO_OPERAND says. `shares`: [PARTS, KV_HEADS, tokens * GROUP, SHARE_ROW]. `counts`: 0 for each tile of rows of each key-value head. */
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    flash_attention(const float *q, const u16 *keys, const u16 *values, const i32 *positions, SINKS_PARAMETER float *out,
                    float *shares, u32 *counts, i32 ctx, i32 tokens) {
    let_next_start();
    wait_for_previous();
#if __CUDA_ARCH__ >= 800
    DYNAMIC_SHARED(16, u16, staged);
    /* the last tokens see the most positions: they come first */
    int kv = blockIdx.y, part = blockIdx.z, n_rows = tokens * GROUP, first_row = (int)(gridDim.x - 1 - blockIdx.x) * ROWS;
    const tile rows = {first_row, min((int)ROWS, n_rows - first_row), kv, positions, (u32)(tokens + 7) / 8 * 8};
    /* each thread looks at one of the tile's tokens, of which there are no more than threads */
    float position = positions[min(first_row / GROUP + (int)threadIdx.x, rows.token(ROWS))];
    int most = block_max<WARPS>(position), least = -block_max<WARPS>(-position);
    const int seen = first_seen(least + 1); /* by the first of the tokens, and no position before it by any */
    const cut parts = cut_of(most + 1 - seen);
    if (part >= parts.n)
        return;

    queries query;
    load_queries(query, rows, q);
    running s = nothing();
    if (SINKS && part == 0)
#pragma unroll
        for (int t = 0; t < ROW_TILES; t++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                s.largest[t][h] = SINK_OF(rows.head(rows.row(t, h))) * 1.44269504f;
                s.total[t][h] = threadIdx.x % 4 == 0 ? 1.0f : 0.0f; /* of the lanes of a row, one has it */
            }
    size_t head = (size_t)kv * kept_rows(ctx) * HEAD_DIM;
    int begin = seen + part * parts.span, end = min(begin + parts.span, most + 1);
    walk(s, query, rows, keys + head, values + head, kept<>(begin, ctx), shared_address(staged), begin, end, least + 1,
         first_seen(most + 1));

    size_t stride = (size_t)KV_HEADS * n_rows * SHARE_ROW;
    shares += ((size_t)kv * n_rows + first_row) * SHARE_ROW;
    leave(parts.n == 1 ? (float *)0 : shares + part * stride, out, s, rows);
    if (parts.n == 1 || !last_to_come(&counts[kv * gridDim.x + blockIdx.x], parts.n))
        return;
    float2 *by = (float2 *)staged; /* after the barriers of last_to_come nobody needs what was staged */
    weigh_parts(by, shares, stride, parts.n, rows.n);
    __syncthreads();
    merge(out, by, shares, stride, parts.n, rows);
#endif
}
