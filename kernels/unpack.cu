/* One matrix of a phase of the persistent kernel out of its stream, as rows of bf16: what pack.cu does, the other way round.
 *
 * Grid: one block for each block of persistent.cu. Reads and writes the matrix once. */
#include "pack.cuh"

#ifndef K
#define K 896
#endif
#ifndef FORMAT /* of the stream: F16 or BF16 */
#define FORMAT BF16
#endif
#ifndef WHICH /* of the matrices of the phase */
#define WHICH 0
#endif

enum { TILE = 8, LOADS = K / 8 };

__device__ __forceinline__ u32 as_bf16(u32 two) {
    return FORMAT == BF16 ? two : f32_bf16(f16_low(two)) | (u32)f32_bf16(f16_high(two)) << 16;
}

extern "C" __global__ void __launch_bounds__(THREADS) unpack(const u8 *stream, const i32 *shares, u16 *out) {
    const i32 *mine = shares + ((size_t)blockIdx.x * SHARES + SHARE) * 2;
    const int first = mine[0], n = mine[1];
    const u16 *from = (const u16 *)(stream + (PLACE));
    for (long long unit = threadIdx.x; unit < (long long)n * LOADS; unit += THREADS) {
        const int row = (int)(unit / LOADS), load = (int)(unit % LOADS);
        const matrix_row target = find_row(first + row);
        if (target.which != WHICH)
            continue;
        const int tile = row / TILE * TILE, height = min((int)TILE, n - tile);
        const uint4 eight = *(const uint4 *)(from + (size_t)tile * K +
                                             ((size_t)(load / 4) * height + row % TILE) * 32 + load % 4 * 8);
        u16 *to = out + (size_t)target.number * K + load / 4 * 32 + load % 4 * 4;
        *(uint2 *)to = uint2{as_bf16(eight.x), as_bf16(eight.z)};
        *(uint2 *)(to + 16) = uint2{as_bf16(eight.y), as_bf16(eight.w)};
    }
}
