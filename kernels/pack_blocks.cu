/* The rows of one phase of the persistent kernel in stream order (stream_blocks.cuh): as pack.cu, for matrices of one block format.
 *
 * Grid: one block for each block of persistent.cu. Reads and writes the weights once. */
#ifndef K
#define K 1024
#endif
#ifndef FORMAT
#define FORMAT Q4_0
#endif
#ifndef TILES /* that a block usually has */
#define TILES 4
#endif
#ifndef OUT0
#define OUT0 1024
#define OUT1 0
#define OUT2 0
#define OUT3 0
#endif
#ifndef PLACE
#define PLACE FIRST(0) * 576ull
#endif
#include "pack.cuh"
#include "stream_blocks.cuh"

typedef stored<FORMAT> from;
typedef stream_of<FORMAT, K, WARPS, TILES> to;

enum { TILE = 8 };

/* Quants 4q .. 4q+3 of a block, and 16 after them, a byte each. */
struct eight_quants {
    u32 first, last;
};
__device__ __forceinline__ eight_quants quants_of(const u8 *row, int element, int quarter) {
    const from::loaded a = from::load(row, element + quarter / 2 * 8, K), b = from::load(row, element + 16 + quarter / 2 * 8, K);
    return quarter % 2 ? eight_quants{from::four<1>(a), from::four<1>(b)} : eight_quants{from::four<0>(a), from::four<0>(b)};
}

/* Two's complement of what they are above the centre. */
__device__ __forceinline__ eight_quants centred(const eight_quants &e) {
    const u32 flip = 0x01010101u * to::f::CENTRE;
    return {e.first ^ flip, e.last ^ flip};
}

/* The upper four bits: of the first half in the lower half of a byte. */
__device__ __forceinline__ u32 nibbles(const eight_quants &e) {
    return (e.first >> to::f::HIGH & 0x0F0F0F0Fu) | (e.last >> to::f::HIGH & 0x0F0F0F0Fu) << 4;
}

/* The bits below them, of block 0 or 1 of the pair. */
__device__ __forceinline__ u32 low_bits(const eight_quants &e, int block, int quarter) {
    if (to::f::HIGH == 1)
        return ((e.first & 0x01010101u) | (e.last & 0x01010101u) << 1) << (2 * block + quarter % 2 * 4);
    const u32 first = e.first & 0x03030303u, last = e.last & 0x03030303u;
    return block ? first << 4 | last << 6 : first << 2 | last;
}

/* The scale of a block, as the stream has it; `next`: that of its second half, of Q6_K. */
__device__ __forceinline__ void put_scale(const scales_d::raw &r, const scales_d::raw &, int block, u8 *scales) {
    ((u16 *)scales)[block] = r.d;
}
__device__ __forceinline__ void put_scale(const scales_d_m::raw &r, const scales_d_m::raw &, int block, u8 *scales) {
    ((u32 *)scales)[block] = r.d_m;
}
__device__ __forceinline__ void put_scale(const scales_k::raw &r, const scales_k::raw &, int block, u8 *scales) {
    ((u16 *)scales)[block] = (u16)((r.low & 63u) | (r.low >> 6 | r.high << 2) << 8);
}
__device__ __forceinline__ void put_scale(const scales_k6::raw &r, const scales_k6::raw &next, int block, u8 *scales) {
    scales[2 * block] = (u8)r.scale;
    scales[2 * block + 1] = (u8)next.scale;
}

/* What the scales of 256 elements are multiplied by. */
__device__ __forceinline__ void put_whole(const scales_k::raw &r, u8 *whole) { *(u32 *)whole = r.d_dmin; }
__device__ __forceinline__ void put_whole(const scales_k6::raw &r, u8 *whole) { *(u16 *)whole = r.d; }
template <typename Raw> __device__ __forceinline__ void put_whole(const Raw &, u8 *) {}

/* One pair of blocks of one row. */
__device__ __forceinline__ void put_pair(const u8 *from_row, int pair, u8 *stream, int row, int n) {
    const int chunk = pair / WARPS, warp = pair % WARPS, r = row % TILE;
    const bool last = chunk == to::CHUNKS - 1;
    const auto tile = to::tile_at(stream, row, chunk, n);
    const int h = tile.h;
    u32 below = 0;
    for (int quarter = 0; quarter < 4; quarter++) {
        for (int block = 0; block < 2; block++) {
            const eight_quants e = centred(quants_of(from_row, pair * 64 + block * 32, quarter));
            u32 *at = (u32 *)(tile.at + warp * h * to::QUANTS + (r * 4 + quarter) * 2 * to::f::LOW) + block;
            if (to::f::LOW == 8)
                at[0] = e.first, at[2] = e.last;
            else
                at[0] = nibbles(e);
            below |= to::f::HIGH ? low_bits(e, block, quarter) : 0;
        }
        if (to::f::HIGH == 2 || (to::f::HIGH == 1 && quarter % 2)) {
            const int word = r * 4 + quarter;
            *(u32 *)(tile.at + to::high_at(last, h) + warp * h * to::HIGHS + word / (3 - to::f::HIGH) * 4) = below;
            below = 0;
        }
    }
    for (int block = 0; block < 2; block++) {
        const int element = pair * 64 + block * 32;
        put_scale(from::load(from_row, element, K).scales, from::load(from_row, element + 16, K).scales, block,
                  tile.at + to::scales_at(last, h) + (warp * h + r) * to::f::SCALES);
    }
    if (to::f::WHOLE && (pair % 4 == 0 || warp == 0))
        put_whole(from::load(from_row, pair * 64, K).scales,
                  tile.at + to::wholes_at(last, h) + (to::whole_of(chunk, warp) * h + r) * to::f::WHOLE);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    pack_blocks(const u8 *w0, const u8 *w1, const u8 *w2, const u8 *w3, u8 *stream, const i32 *shares) {
    const u8 *const matrix[4] = {w0, w1, w2, w3};
    const i32 *mine = shares + ((size_t)blockIdx.x * SHARES + SHARE) * 2;
    const int first = mine[0], n = mine[1];
    stream += (PLACE);
    for (long long unit = threadIdx.x; unit < (long long)n * to::PAIRS; unit += THREADS) {
        const int row = (int)(unit / to::PAIRS), pair = (int)(unit % to::PAIRS);
        const matrix_row source = find_row(first + row);
        const int which = source.which;
        const u8 *of = OUT3 && which == 3   ? matrix[3]
                       : OUT2 && which == 2 ? matrix[2]
                       : OUT1 && which == 1 ? matrix[1]
                                            : matrix[0];
        put_pair(from::row(of, source.number, K), pair, stream, row, n);
    }
}
