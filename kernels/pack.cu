/* The weights of one layer, or of the head, in stream order (share.cuh), and its small vectors and the addresses of its
 * caches beside them. Runs once for each layer when a session starts in persistent mode.
 *
 * Grid: one block for each multiprocessor, as in persistent.cu. Reads and writes the weights once. */
#include "share.cuh"

#ifndef THREADS
#define THREADS 512
#endif

/* Rows of K elements to where they lie in stream order; `source` gives the address of row i. */
template <int K, typename Source>
__device__ __forceinline__ void pack_rows(u16 *to, int n, Source source) {
    const int LOADS = K / 8;
    for (long long unit = threadIdx.x; unit < (long long)n * LOADS; unit += THREADS) {
        int row = (int)(unit / LOADS), k = (int)(unit % LOADS) * 8;
        int tile = row / TILE, height = min((int)TILE, n - tile * TILE), chunk = k / CHUNK;
        size_t at = (size_t)tile * TILE * K + (size_t)height * chunk * CHUNK +
                    ((size_t)(k % CHUNK / 32) * height + row % TILE) * 32 + k % 32;
        uint4 eight = *(const uint4 *)(source(row) + k);
        *(uint4 *)(to + at) = make_uint4(eight.x, eight.z, eight.y, eight.w);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    pack(const u16 *wq, const u16 *wk, const u16 *wv, const u16 *wo, const u16 *gate, const u16 *up, const u16 *down,
         const float *bq, const float *bk, const float *bv, const float *attn_norm, const float *mlp_norm,
         u64 k_cache, u64 v_cache, u8 *stream, float *small, u64 *caches, i32 layer) {
    if (layer == LAYERS) { /* the head is in the place of wq, its norm in that of attn_norm */
        rows mine = head_share(blockIdx.x, gridDim.x);
        pack_rows<D>((u16 *)(stream + head_at(mine)), mine.n,
                     [&](int r) { return wq + (size_t)(mine.first + r) * D; });
        for (int i = blockIdx.x * THREADS + threadIdx.x; i < D; i += gridDim.x * THREADS)
            small[(size_t)LAYERS * SMALL + i] = attn_norm[i];
        return;
    }
    share mine = share_of(blockIdx.x, gridDim.x);
    u16 *to = (u16 *)(stream + share_at(mine, layer));
    pack_rows<D>(to, mine.qkv.n, [&](int r) {
        r += mine.qkv.first;
        return r < QUERIES            ? wq + (size_t)r * D
               : r < QUERIES + CACHED ? wk + (size_t)(r - QUERIES) * D
                                      : wv + (size_t)(r - QUERIES - CACHED) * D;
    });
    to += (size_t)mine.qkv.n * D;
    pack_rows<QUERIES>(to, mine.out.n, [&](int r) { return wo + (size_t)(mine.out.first + r) * QUERIES; });
    to += (size_t)mine.out.n * QUERIES;
    pack_rows<D>(to, mine.mlp.n, [&](int r) {
        r += mine.mlp.first;
        return (r % 2 ? up : gate) + (size_t)(r / 2) * D;
    });
    to += (size_t)mine.mlp.n * D;
    pack_rows<FF>(to, mine.out.n, [&](int r) { return down + (size_t)(mine.out.first + r) * FF; });

    small += (size_t)layer * SMALL;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < SMALL; i += gridDim.x * THREADS)
        small[i] = i < MLP_NORM               ? attn_norm[i]
                   : i < QKV_BIAS             ? mlp_norm[i - MLP_NORM]
                   : !BIAS                    ? 0.0f
                   : i < QKV_BIAS + QUERIES   ? bq[i - QKV_BIAS]
                   : i < QKV_BIAS + QUERIES + CACHED ? bk[i - QKV_BIAS - QUERIES]
                                              : bv[i - QKV_BIAS - QUERIES - CACHED];
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        caches[2 * layer] = k_cache;
        caches[2 * layer + 1] = v_cache;
    }
}
