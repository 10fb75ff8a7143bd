/* The persistent kernel's view of a model: dimensions, which rows of each matrix a multiprocessor takes, and in which
 * order their bytes lie. pack.cu writes the weights in that order and persistent.cu reads them, so it is said once, here.
 *
 * A layer has four products: QKV (queries, keys, values; rows in this order), OUT (of the attention), MLP (row 2i is the
 * gate's row i, row 2i + 1 the up product's) and DOWN. Each multiprocessor takes consecutive rows of each, OUT and DOWN
 * the same ones; HEAD follows the last layer. Rows lie in tiles of 8, a tile in chunks of CHUNK elements of K, a chunk
 * in blocks of 32 elements: [block][row][32]. So 16 bytes for each lane of a warp are one operand of an MMA
 * instruction, and the 512 bytes of a warp's load are consecutive: no bank conflict. Of each eight elements the third and
 * fourth lie behind the fifth and sixth, for so the operand's registers are those that were loaded, in their order. */
#pragma once
#include "common.cuh"

#ifndef LAYERS
#define LAYERS 24
#endif
#ifndef D
#define D 896
#endif
#ifndef HEADS
#define HEADS 14
#endif
#ifndef KV_HEADS
#define KV_HEADS 2
#endif
#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef FF
#define FF 4864
#endif
#ifndef VOCAB
#define VOCAB 151936
#endif
#ifndef WEIGHT /* of all matrices: BF16 or F16 */
#define WEIGHT BF16
#endif
#ifndef BIAS /* of QKV */
#define BIAS 1
#endif
#ifndef WARPS /* that compute; each takes two blocks of 32 elements of a chunk */
#define WARPS 14
#endif

enum {
    QUERIES = HEADS * HEAD_DIM,
    CACHED = KV_HEADS * HEAD_DIM,
    QKV = QUERIES + 2 * CACHED,
    TILE = 8,             /* rows */
    PAIR = 64,            /* elements of K that a warp takes of a chunk */
    CHUNK = WARPS * PAIR, /* elements of K */
    MLP_UNIT = 4,         /* gates and ups that are never parted: a tile */
    /* the small vectors of a layer, as floats: both norms, bias of QKV */
    ATTN_NORM = 0,
    MLP_NORM = D,
    QKV_BIAS = 2 * D,
    SMALL = 2 * D + QKV,
};

/* First row and number of rows of a multiprocessor. */
struct rows {
    int first, n;
};

struct share {
    rows qkv, out, mlp; /* mlp in rows of the interleaved matrix */
};

/* Where the rows of multiprocessor i begin; i = n is the end. The whole layer is divided by bytes: first the MLP in
 * whole tiles, then OUT and DOWN to make up for what the tiles left uneven, then QKV for the rest of it. */
struct cut {
    int qkv, out, mlp;
};

__device__ __forceinline__ int rounded_share(long long bytes, long long unit, int most) {
    long long n = (bytes + unit / 2) / unit;
    return (int)(n < 0 ? 0 : n > most ? most : n);
}

__device__ inline cut cut_at(int i, int n) {
    const long long tile = 2LL * MLP_UNIT * D, row = QUERIES + FF, all_tiles = FF / MLP_UNIT;
    cut c;
    int tiles = (int)(all_tiles * i / n);
    c.mlp = tiles * 2 * MLP_UNIT;
    if (D < 6 * n) { /* too few rows to balance with */
        c.out = D * i / n;
        c.qkv = QKV * i / n;
        return c;
    }
    long long goal = (all_tiles * tile + D * row) * i / n;
    c.out = i == n ? D : rounded_share(goal - tiles * tile, row, D);
    goal = (all_tiles * tile + D * row + (long long)QKV * D) * i / n;
    c.qkv = i == n ? QKV : rounded_share(goal - tiles * tile - c.out * row, D, QKV);
    return c;
}

__device__ inline share share_of(int i, int n) {
    cut from = cut_at(i, n), to = cut_at(i + 1, n);
    return {{from.qkv, to.qkv - from.qkv}, {from.out, to.out - from.out}, {from.mlp, to.mlp - from.mlp}};
}

/* Whole stretches of sampling, which end where a warp's rows do. */
__device__ inline rows head_share(int i, int n) {
    const int STRETCH = 32;
    const long long stretches = (VOCAB + STRETCH - 1) / STRETCH;
    int first = (int)(stretches * i / n) * STRETCH, end = min((int)(stretches * (i + 1) / n) * STRETCH, VOCAB);
    return {first, end - first};
}

/* Bytes from the start of the stream to the rows of a multiprocessor in a layer, and in the head. */
__device__ inline size_t layer_bytes() {
    return 2 * ((size_t)QKV * D + (size_t)D * QUERIES + 2 * (size_t)FF * D + (size_t)D * FF);
}

__device__ inline size_t share_at(const share &s, int layer) {
    return layer * layer_bytes() +
           2 * ((size_t)s.qkv.first * D + (size_t)s.out.first * (QUERIES + FF) + (size_t)s.mlp.first * D);
}

__device__ inline size_t head_at(const rows &r) { return LAYERS * layer_bytes() + 2 * (size_t)r.first * D; }
