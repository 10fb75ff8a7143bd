/* The rows of one phase of the persistent kernel in stream order (persistent.cu): those of one matrix, of several one after the
 * other, or of several interleaved (row i of each, then row i + 1 of each). Runs once for each when a session starts in
 * persistent mode.
 *
 * Grid: one block for each block of persistent.cu. Reads and writes the weights once. */
#include "common.cuh"

#ifndef K
#define K 896
#endif
#ifndef WARPS /* of persistent.cu that compute */
#define WARPS 14
#endif
#ifndef INTERLEAVED /* matrices whose rows take turns; 1: they follow each other */
#define INTERLEAVED 1
#endif
#ifndef WEIGHT0 /* the type of each matrix; those of block formats become f16 in the stream */
#define WEIGHT0 BF16
#define WEIGHT1 WEIGHT0
#define WEIGHT2 WEIGHT0
#define WEIGHT3 WEIGHT0
#endif
#ifndef OUT0 /* rows of each matrix, 0: there is none */
#define OUT0 896
#define OUT1 0
#define OUT2 0
#define OUT3 0
#endif
#ifndef SHARE /* which of SHARES shares of a block */
#define SHARE 0
#define SHARES 1
#endif
#ifndef PLACE /* bytes from the start of an iteration to the block's rows, of FIRST(share) and COUNT(share) */
#define PLACE FIRST(0) * 1792ull
#endif
#ifndef THREADS
#define THREADS 512
#endif

#define FIRST(share) (u64) shares[((size_t)blockIdx.x * SHARES + (share)) * 2]
#define COUNT(share) (u64) shares[((size_t)blockIdx.x * SHARES + (share)) * 2 + 1]

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
    constexpr int outs[4] = {OUT0, OUT1, OUT2, OUT3};
    const i32 *mine = shares + ((size_t)blockIdx.x * SHARES + SHARE) * 2;
    const int first = mine[0], n = mine[1], LOADS = K / 8;
    u16 *to = (u16 *)(stream + (PLACE));
    for (long long unit = threadIdx.x; unit < (long long)n * LOADS; unit += THREADS) {
        int row = (int)(unit / LOADS), k = (int)(unit % LOADS) * 8;
        int tile = row / TILE, height = min((int)TILE, n - tile * TILE), chunk = k / CHUNK;
        size_t at = (size_t)tile * TILE * K + (size_t)height * chunk * CHUNK +
                    ((size_t)(k % CHUNK / 32) * height + row % TILE) * 32 + k % 32;
        int from = first + row, which = 0;
        if (INTERLEAVED > 1) {
            which = from % INTERLEAVED;
            from /= INTERLEAVED;
        } else
#pragma unroll
            for (int i = 0; i < 3; i++)
                if (which == i && from >= outs[i]) {
                    from -= outs[i];
                    which++;
                }
        const uint4 eight = OUT3 && which == 3   ? eight_of<WEIGHT3>(matrix[3], from, k / 32 * 32, k % 32 / 8)
                            : OUT2 && which == 2 ? eight_of<WEIGHT2>(matrix[2], from, k / 32 * 32, k % 32 / 8)
                            : OUT1 && which == 1 ? eight_of<WEIGHT1>(matrix[1], from, k / 32 * 32, k % 32 / 8)
                                                 : eight_of<WEIGHT0>(matrix[0], from, k / 32 * 32, k % 32 / 8);
        *(uint4 *)(to + at) = make_uint4(eight.x, eight.z, eight.y, eight.w);
    }
}
