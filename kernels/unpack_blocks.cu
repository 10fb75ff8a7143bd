/* One matrix of a phase of the persistent kernel out of its stream, as rows of bf16: what pack_blocks.cu does, the other way round, and
 * then to_bf16.cu.
 *
 * Grid: one block for each block of persistent.cu. Reads the matrix once and writes it in bf16. */
#include "pack_matrices.cuh"

#ifndef WHICH /* of the matrices of the phase */
#define WHICH 0
#endif

typedef stream_of<FORMAT, K, WARPS, TILES> from;

/* The upper bits of the eight quants of a quarter of a block, and those below them, of both blocks. */
struct eight_bits {
    uint2 upper;
    u32 below;
};

/* `block`, `odd`: of the pair, and is the quarter? */
__device__ __forceinline__ float element(const eight_bits &e, int block, int odd, int j, const block_scale &s) {
    const int HIGH = from::f::HIGH, byte = j % 4 * 8, last = j / 4;
    u32 q = from::f::LOW == 8 ? (last ? e.upper.y : e.upper.x) >> byte & 0xFFu : e.upper.x >> (byte + 4 * last) & 15u;
    if (HIGH == 1)
        q = q << 1 | (e.below >> (byte + 4 * odd + 2 * block + last) & 1u);
    else if (HIGH == 2)
        q = q << 2 | (e.below >> (byte + (block ? 4 + 2 * last : 2 - 2 * last)) & 3u);
    return (last ? s.last : s.first) * (float)((int)(q ^ from::f::CENTRE) - from::f::CENTRE) + s.minimum;
}

__device__ __forceinline__ void put_eight(const eight_bits &e, int block, int odd, const block_scale &s, u16 *to) {
#pragma unroll
    for (int half = 0; half < 2; half++)
        *(uint2 *)(to + 16 * half) =
            uint2{f32_bf16(element(e, block, odd, 4 * half, s)) |
                           (u32)f32_bf16(element(e, block, odd, 4 * half + 1, s)) << 16,
                       f32_bf16(element(e, block, odd, 4 * half + 2, s)) |
                           (u32)f32_bf16(element(e, block, odd, 4 * half + 3, s)) << 16};
}

/* One quarter of a pair of blocks of a row. */
__device__ __forceinline__ void unpack_quarter(const u8 *stream, int row, int n, int pair, int quarter, u16 *to) {
    const int chunk = pair / WARPS, warp = pair % WARPS, r = row % 8;
    const bool last = chunk == from::CHUNKS - 1;
    const auto tile = from::tile_at(stream, row, chunk, n);
    const int h = tile.h;
    const u8 *scales = tile.at + from::scales_at(last, h) + (warp * h + r) * from::f::SCALES;
    const u8 *whole = tile.at + from::wholes_at(last, h) +
                      (from::whole_of(chunk, warp) * h + r) * from::f::WHOLE;
    const u8 *below = tile.at + from::high_at(last, h) + warp * h * from::HIGHS;
    eight_bits e = {};
    if (from::f::HIGH)
        e.below = *(const u32 *)(below + (r * 4 + quarter) / (3 - from::f::HIGH) * 4);
    for (int block = 0; block < 2; block++) {
        const u32 *at = (const u32 *)(tile.at + warp * h * from::QUANTS + (r * 4 + quarter) * 2 * from::f::LOW) + block;
        e.upper.x = at[0];
        if (from::f::LOW == 8)
            e.upper.y = at[2];
        put_eight(e, block, quarter % 2, stored_scale<FORMAT>(scales, whole, block, [](u32 n) { return (float)n; }),
                  to + pair * 64 + block * 32 + 4 * quarter);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) unpack_blocks(const u8 *stream, const i32 *shares, u16 *out) {
    const i32 *mine = shares + ((size_t)blockIdx.x * SHARES + SHARE) * 2;
    const int first = mine[0], n = mine[1], QUARTERS = 4 * from::PAIRS;
    stream += (PLACE);
    for (long long unit = threadIdx.x; unit < (long long)n * QUARTERS; unit += THREADS) {
        const int row = (int)(unit / QUARTERS), at = (int)(unit % QUARTERS);
        const matrix_row target = find_row(first + row);
        if (target.which == WHICH)
            unpack_quarter(stream, row, n, at / 4, at % 4, out + (size_t)target.number * K);
    }
}
