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
#ifndef THREADS
#define THREADS 512
#endif

enum { TILE = 8, CHUNK = 64 * WARPS };

extern "C" __global__ void __launch_bounds__(THREADS)
    pack(const u16 *w0, const u16 *w1, const u16 *w2, const u16 *w3, u16 *stream, const i32 *shares) {
    const u16 *const matrix[4] = {w0, w1, w2, w3};
    constexpr int outs[4] = {OUT0, OUT1, OUT2, OUT3};
    const i32 *mine = shares + ((size_t)blockIdx.x * SHARES + SHARE) * 2;
    const int first = mine[0], n = mine[1], LOADS = K / 8;
    u16 *to = stream + (size_t)first * K;
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
        uint4 eight = *(const uint4 *)(matrix[which] + (size_t)from * K + k);
        *(uint4 *)(to + at) = make_uint4(eight.x, eight.z, eight.y, eight.w);
    }
}
