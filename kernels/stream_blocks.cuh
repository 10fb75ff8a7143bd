/* Rows of block formats in the stream of the persistent kernel: where pack_blocks.cu puts them and persistent_blocks.cuh finds them.
 *
 * A warp takes pairs of blocks of 32 elements of a chunk, as of other types. Up to four tiles of 8 rows lie together, for a copy that
 * brings less than some 8 kB takes the copying lane longer than the memory. So: group of tiles, chunk, tile, and in it planes, with h
 * rows of the tile each:
 *
 *   [pair][row][quarter][even, odd block]   LOW bytes: the upper 4 or all 8 bits of eight quants
 *   [pair][row][quarter]                    2 HIGH bytes: the bits below them, of both blocks
 *   [pair][row]                             scales of both blocks
 *   [block of 256][row]                     what scales of K formats are multiplied by
 *
 * The eight elements of a quarter q are 4q .. 4q+3 and 16+4q .. 16+4q+3. Byte j of 4 bits has element j in its lower half and 4 + j in its
 * upper one. Of 8 bits the first four of both blocks lie before the others. Byte j of HIGH has bits of elements j and 4 + j of both
 * blocks: 2 bits at 2 and 0 for the even block, at 4 and 6 for the odd one; single bits at 0 and 1, 2 and 3, and 4 higher in odd
 * quarters, which share 4 bytes with the ones before. Quants with a centre are signed. A row of a chunk takes a multiple of 16 bytes, so
 * that a share of n rows takes n times ROW bytes.
 * codegen/persistent/blocks.c computes the same. */
#pragma once
#include "common.cuh"

#ifndef COPY_BYTES /* that a copy brings at most */
#define COPY_BYTES 17600
#endif

/* What there is of a format. LOW, HIGH: bits of a quant; CENTRE: what stands for 0 in a file; SCALES: bytes for a pair of blocks; WHOLE: bytes for 256 elements. */
template <int Type> struct block_format;
#define BLOCK_FORMAT(TYPE, low, high, centre, scales, whole)                                           \
    template <> struct block_format<TYPE> {                                                            \
        enum { LOW = low, HIGH = high, CENTRE = centre, SCALES = scales, WHOLE = whole };              \
    };
BLOCK_FORMAT(Q8_0, 8, 0, 128, 4, 0)
BLOCK_FORMAT(Q4_0, 4, 0, 8, 4, 0)
BLOCK_FORMAT(Q4_1, 4, 0, 0, 8, 0)
BLOCK_FORMAT(Q5_0, 4, 1, 16, 4, 0)
BLOCK_FORMAT(Q5_1, 4, 1, 0, 8, 0)
BLOCK_FORMAT(Q4_K, 4, 0, 0, 4, 4)
BLOCK_FORMAT(Q5_K, 4, 1, 0, 4, 4)
BLOCK_FORMAT(Q6_K, 4, 2, 32, 4, 2)

/* Where things are, for `Warps` that multiply and rows of Width elements, of which a block usually has so many tiles. All chunks of a row
 * but the last are alike. */
template <int Type, int Width, int Warps, int Usual> struct stream_of : block_format<Type> {
    typedef block_format<Type> f;
    enum {
        PAIRS = Width / 64,
        CHUNKS = (PAIRS + Warps - 1) / Warps,
        QUANTS = 8 * f::LOW, /* bytes of a pair of a row */
        HIGHS = 8 * f::HIGH,
        PER_PAIR = QUANTS + HIGHS + f::SCALES,
        STEP = Warps % 4 == 0 ? 4 : Warps % 2 == 0 ? 2 : 1, /* the first pair of a chunk is a multiple of it */
    };
    static_assert(Width % (f::WHOLE ? 256 : 64) == 0, "rows of whole blocks");

    static __device__ __forceinline__ constexpr int pairs(bool last) { return last ? PAIRS - (CHUNKS - 1) * Warps : Warps; }
    /* The block of 256 that a warp's pair is of, from the first one of which a chunk has a part, and for how many of them there is room. */
    static __device__ __forceinline__ constexpr int whole_of(int chunk, int warp) {
        return (int)((u32)(warp + (u32)chunk * (Warps % 4) % 4) / 4);
    }
    static __device__ __forceinline__ constexpr int wholes(bool last) { return f::WHOLE ? (pairs(last) + 3 - STEP) / 4 + 1 : 0; }
    /* Bytes of a row of a chunk, and of a row of all chunks. */
    static __device__ __forceinline__ constexpr int row_bytes(bool last) {
        return (pairs(last) * PER_PAIR + wholes(last) * f::WHOLE + 15) / 16 * 16;
    }
    static __device__ __forceinline__ constexpr int whole_row_bytes() {
        return (CHUNKS - 1) * row_bytes(false) + row_bytes(true);
    }
    /* Tiles of a copy; 1 to 4, which divide a batch of rows. No more than as many copies as the usual tiles need anyway have to bring,
     * for all tiles of a copy are multiplied, whether there are rows or not. */
    static __device__ __forceinline__ constexpr int group() {
        const int room = COPY_BYTES / (8 * row_bytes(CHUNKS == 1)), most = room > 4 ? 4 : room,
                  copies = (Usual + most - 1) / most;
        return (Usual + copies - 1) / copies;
    }
    /* From the start of a tile of h rows. */
    static __device__ __forceinline__ constexpr int high_at(bool last, int h) { return pairs(last) * QUANTS * h; }
    static __device__ __forceinline__ constexpr int scales_at(bool last, int h) {
        return pairs(last) * (QUANTS + HIGHS) * h;
    }
    static __device__ __forceinline__ constexpr int wholes_at(bool last, int h) { return pairs(last) * PER_PAIR * h; }

    /* The chunk of the tile of row `row` of a share of n rows that begins at `share`, and how many rows the tile has. */
    template <typename Byte> struct tile_place {
        Byte *at;
        int h;
    };
    template <typename Byte>
    static __device__ __forceinline__ tile_place<Byte> tile_at(Byte *share, int row, int chunk, int n) {
        const int ROWS = group() * 8, first = row / ROWS * ROWS, rows = min(ROWS, n - first),
                  tile = row % ROWS / 8 * 8;
        return {share + (size_t)first * whole_row_bytes() + (size_t)rows * chunk * row_bytes(false) +
                    tile * row_bytes(chunk == CHUNKS - 1),
                min(8, rows - tile)};
    }
};

/* The scales of one of the two blocks of a pair: an element is (first, or last for the second half of the block) * q + minimum. */
struct block_scale {
    float first, last, minimum;
};

/* `six`: what a number of six bits is as a float, of those that scales and minima of Q4_K and Q5_K are. */
template <int Type, typename Six>
__device__ __forceinline__ block_scale stored_scale(const u8 *scales, const u8 *whole, bool odd, Six six) {
    if constexpr (Type == Q6_K) {
        const u32 both = ((const u16 *)scales)[odd];
        const float d = f16_f32(*(const u16 *)whole);
        return {d * (float)(signed char)(both & 0xFFu), d * (float)(signed char)(both >> 8), 0.0f};
    } else if constexpr (Type == Q4_K || Type == Q5_K) {
        const u32 two = __byte_perm(((const u16 *)scales)[odd], 0, 0x4140), d_dmin = *(const u32 *)whole;
        const float scale = f16_f32((u16)(d_dmin & 0xFFFFu)) * six(two & 0xFFFFu);
        return {scale, scale, -(f16_f32((u16)(d_dmin >> 16)) * six(two >> 16))};
    } else if constexpr (Type == Q4_1 || Type == Q5_1) {
        const u32 d_m = ((const u32 *)scales)[odd];
        const float scale = f16_f32((u16)(d_m & 0xFFFFu));
        return {scale, scale, f16_f32((u16)(d_m >> 16))};
    } else {
        const float scale = f16_f32(((const u16 *)scales)[odd]);
        return {scale, scale, 0.0f};
    }
}
