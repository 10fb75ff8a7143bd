/* The rows of one phase of the persistent kernel in stream order (persistent.cu). Runs once for each when a session starts in
 * persistent mode.
 *
 * Grid: one block for each block of persistent.cu. Reads and writes the weights once. */
#include "pack.cuh"

#ifndef K
#define K 896
#endif
#ifndef WEIGHT0 /* the type of each matrix; those of block formats become f16 in the stream */
#define WEIGHT0 BF16
#define WEIGHT1 WEIGHT0
#define WEIGHT2 WEIGHT0
#define WEIGHT3 WEIGHT0
#endif

enum { TILE = 8, CHUNK = 64 * WARPS };

/* Elements 4q .. 4q+3 and 16+4q .. 16+4q+3 of the block of 32 at k, of a row of one of the matrices, in 16 bits each. */
template <int Type> __device__ __forceinline__ uint4 eight_of(const void *matrix, int row, int k, int q) {
    typedef stored<Type> from;
    const typename from::elem *of = from::row((const typename from::elem *)matrix, row, K);
    k += 4 * q;
    if constexpr (Type <= BF16) {
        const uint2 first = *(const uint2 *)(of + k), last = *(const uint2 *)(of + k + 16);
        return make_uint4(first.x, first.y, last.x, last.y);
    } else {
        const float4 first = from::four_elements(of, k, K), last = from::four_elements(of, k + 16, K);
        return make_uint4(two_f16(first.x, first.y), two_f16(first.z, first.w), two_f16(last.x, last.y),
                          two_f16(last.z, last.w));
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    pack(const void *w0, const void *w1, const void *w2, const void *w3, u8 *stream, const i32 *shares) {
    const void *const matrix[4] = {w0, w1, w2, w3};
    const i32 *mine = shares + ((size_t)blockIdx.x * SHARES + SHARE) * 2;
    const int first = mine[0], n = mine[1], LOADS = K / 8;
    u16 *to = (u16 *)(stream + (PLACE));
    for (long long unit = threadIdx.x; unit < (long long)n * LOADS; unit += THREADS) {
        int row = (int)(unit / LOADS), k = (int)(unit % LOADS) * 8;
        int tile = row / TILE, height = min((int)TILE, n - tile * TILE), chunk = k / CHUNK;
        size_t at = (size_t)tile * TILE * K + (size_t)height * chunk * CHUNK +
                    ((size_t)(k % CHUNK / 32) * height + row % TILE) * 32 + k % 32;
        const matrix_row source = find_row(first + row);
        const int from = source.number, which = source.which;
        const uint4 eight = OUT3 && which == 3   ? eight_of<WEIGHT3>(matrix[3], from, k / 32 * 32, k % 32 / 8)
                            : OUT2 && which == 2 ? eight_of<WEIGHT2>(matrix[2], from, k / 32 * 32, k % 32 / 8)
                            : OUT1 && which == 1 ? eight_of<WEIGHT1>(matrix[1], from, k / 32 * 32, k % 32 / 8)
                                                 : eight_of<WEIGHT0>(matrix[0], from, k / 32 * 32, k % 32 / 8);
        *(uint4 *)(to + at) = make_uint4(eight.x, eight.z, eight.y, eight.w);
    }
}
