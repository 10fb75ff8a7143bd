/* Rows of block formats as operand A of packed_gemm.cu: where a lane finds its elements in the stream (stream_blocks.cuh), and how they
 * become bf16. A lane has a quarter of each block of its two rows, which is what the registers of operand A want of it.
 *
 * A quant has at most eight bits, so it is exact in bf16. An element is the sum of the quant's products with the upper and the lower half
 * of its scale, rounded to bf16 once. Formats with a minimum have quants of at most five bits; their elements are computed in float32 and
 * then rounded. */
#pragma once
#include "packed_items.cuh"
#include "stream_blocks.cuh"

#ifndef TILES /* that a block of persistent.cu usually has */
#define TILES 4
#endif

typedef stream_of<FORMAT, K, WARPS, TILES> rows_of_blocks;

/* A row in the stream: its group of tiles, and its place there. */
struct block_place {
    const u8 *group;
    int rows, tile;  /* rows of the group; of them before the row's tile */
    int height, row; /* rows of the tile; the row's number there */
};

/* Of a row from the first one of `owner` on, not many owners after it. */
__device__ __forceinline__ block_place place_of(const u8 *stream, const i32 *shares, int owner, int row) {
    enum { ROWS_OF_GROUP = rows_of_blocks::group() * TILE };
    row = min(row, ROWS - 1);
    owner = owner_from(shares, owner, row);
    const int r = row - (int)FIRST(SHARE), n = (int)COUNT(SHARE), first = r / ROWS_OF_GROUP * ROWS_OF_GROUP,
              rows = min((int)ROWS_OF_GROUP, n - first), tile = r % ROWS_OF_GROUP / TILE * TILE;
    return {stream + (PLACE) + (size_t)first * rows_of_blocks::whole_row_bytes(), rows, tile, min((int)TILE, rows - tile), r % TILE};
}

/* Two sums of bf16. */
__device__ __forceinline__ u32 sum_bf16(u32 a, u32 b) { return fma_bf16(a, 0x3F803F80u, b); }

/* One number as two of bf16, the second one what the first leaves; each twice, for two elements at once. */
struct split_scale {
    u32 upper, lower;
};
__device__ __forceinline__ split_scale split(float x) {
    const u32 upper = two_bf16(x, x);
    const float rest = x - bf16_low(upper);
    return {upper, two_bf16(rest, rest)};
}

/* What a lane loads of a row for a step of 64 elements: its quarter of two blocks. */
struct block_quarter {
    typedef rows_of_blocks from;
    typedef from::f f;
    enum {
        OF_SIX_BITS = FORMAT == Q4_K || FORMAT == Q5_K,
        MINIMUM = OF_SIX_BITS || FORMAT == Q4_1 || FORMAT == Q5_1,
    };
    u32 quants[f::LOW / 2]; /* [first or last four of 8 bits][block] */
    u32 below;
    u32 scales[f::SCALES / 4];
    u32 whole;

    /* From its four planes: of a row, the quarters' quants and the bits below them, and the row's scales. */
    __device__ __forceinline__ void load(const u8 *row_quants, const u8 *row_below, const u8 *row_scales, const u8 *row_whole) {
        const u32 quarter = threadIdx.x % 4;
        if constexpr (f::LOW == 8) {
            const uint4 four = *(const uint4 *)(row_quants + quarter * 16);
            quants[0] = four.x, quants[1] = four.y, quants[2] = four.z, quants[3] = four.w;
        } else {
            const uint2 two = *(const uint2 *)(row_quants + quarter * 8);
            quants[0] = two.x, quants[1] = two.y;
        }
        if constexpr (f::HIGH > 0)
            below = *(const u32 *)(row_below + quarter / (3 - f::HIGH) * 4);
        if constexpr (f::SCALES == 8) {
            const uint2 two = *(const uint2 *)row_scales;
            scales[0] = two.x, scales[1] = two.y;
        } else
            scales[0] = *(const u32 *)row_scales;
        if constexpr (f::WHOLE == 4)
            whole = *(const u32 *)row_whole;
        else if constexpr (f::WHOLE == 2)
            whole = *(const u16 *)row_whole;
    }
    /* The first or the last four quants of a block as in a file, a byte each. */
    __device__ __forceinline__ u32 four(int block, int half) const {
        constexpr u32 centre = 0x01010101u * f::CENTRE;
        if constexpr (f::LOW == 8)
            return quants[2 * half + block] ^ centre;
        const u32 upper = quants[block] >> 4 * half & 0x0F0F0F0Fu;
        if constexpr (f::HIGH == 1)
            return (upper << 1 | (below >> (2 * block + half + threadIdx.x % 2 * 4) & 0x01010101u)) ^ centre;
        if constexpr (f::HIGH == 2)
            return (upper << 2 | (below >> (block ? 4 + 2 * half : 2 - 2 * half) & 0x03030303u)) ^ centre;
        return upper ^ centre;
    }
    /* Two bytes with 0x43 before each: of seven bits, 128 more than it in bf16. */
    static __device__ __forceinline__ u32 above_128(u32 bytes, int pair, u32 of_0x43) {
        return __byte_perm(bytes, of_0x43, pair ? 0x4342u : 0x4140u);
    }
    /* Two quants above their centre, of such; the eighth bit of one stands for 128. */
    static __device__ __forceinline__ u32 above_centre(u32 two) {
        if constexpr (f::LOW == 8)
            return sum_bf16(two & 0xFF7FFF7Fu, (two & 0x00800080u) ^ 0xC380C380u);
        constexpr u32 centre = 0x4300u + f::CENTRE;
        return sum_bf16(two, 0x80008000u | centre << 16 | centre);
    }
    /* Byte i as a float: as the last bits of 2^23, of which it and `centre` are then taken off. */
    static __device__ __forceinline__ float byte_above(u32 bytes, int i, float centre) {
        return bits_f32(__byte_perm(bytes, 0x4B000000u, 0x7440u | (u32)i)) - (8388608.0f + centre);
    }
    /* As stored_scale of stream_blocks.cuh, of what is in registers. */
    __device__ __forceinline__ block_scale scale(int block) const {
        if constexpr (OF_SIX_BITS) {
            const float by = f16_low(whole) * byte_above(scales[0], 2 * block, 0.0f);
            return {by, by, -(f16_high(whole) * byte_above(scales[0], 2 * block + 1, 0.0f))};
        } else if constexpr (FORMAT == Q6_K) {
            const u32 above = scales[0] ^ 0x80808080u;
            return {f16_low(whole) * byte_above(above, 2 * block, 128.0f), f16_low(whole) * byte_above(above, 2 * block + 1, 128.0f), 0.0f};
        } else if constexpr (MINIMUM) {
            const float by = f16_low(scales[block * (f::SCALES / 8)]);
            return {by, by, f16_high(scales[block * (f::SCALES / 8)])};
        } else {
            const float by = block ? f16_high(scales[0]) : f16_low(scales[0]);
            return {by, by, 0.0f};
        }
    }
    /* Both blocks in operand A, of row 0 or 1 of the lane. */
    __device__ __forceinline__ void widen(u32 (&part)[4][4], int row, u32 of_0x43) const {
#pragma unroll
        for (int block = 0; block < 2; block++) {
            const block_scale s = scale(block);
            const float rest = s.minimum - 128.0f * s.first;
            const split_scale first = split(s.first), last = FORMAT == Q6_K ? split(s.last) : first;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int half = i / 2;
                const split_scale &by = half ? last : first;
                const u32 two = above_128(four(block, half), i % 2, of_0x43);
                u32 &to = part[2 * block + half][i % 2 * 2 + row];
                if constexpr (MINIMUM)
                    to = two_bf16(fmaf(bf16_low(two), s.first, rest), fmaf(bf16_high(two), s.first, rest));
                else
                    to = fma_bf16(above_centre(two), by.upper, fma_bf16(above_centre(two), by.lower, 0x80008000u));
            }
        }
    }
};

/* Both rows of a lane, as loaded. */
struct two_rows {
    block_quarter of[2];

    __device__ __forceinline__ void widen(operand_a &to, u32 of_0x43) const {
        of[0].widen(to.part, 0, of_0x43), of[1].widen(to.part, 1, of_0x43);
    }
};

/* A constant that is in a register, as an instruction has room for one besides: `n` is not negative, which the compiler does not know. */
__device__ __forceinline__ u32 in_register(u32 constant, int n) { return constant | (u32)(n >> 31); }

/* Where a row is read next. */
struct block_row {
    typedef rows_of_blocks from;
    typedef from::f f;
    const u8 *at;     /* the row's tile in the chunk */
    u32 height, row;  /* rows of the tile; the row's number there */
    u32 unit;         /* pairs of blocks before it in the tile */
    u32 tile, stride; /* rows before the tile in its group; bytes to the next chunk */
    int chunk, warp;  /* of the step */

    __device__ __forceinline__ void begin(const block_place &p, int step) {
        height = p.height, row = p.row, tile = p.tile;
        chunk = step / WARPS, warp = step % WARPS;
        unit = warp * height + row;
        stride = p.rows * from::row_bytes(false);
        at = p.group + (size_t)chunk * stride + tile * from::row_bytes(is_last());
    }
    __device__ __forceinline__ void go_on() {
        warp++, unit += height;
        if (from::CHUNKS > 1 && warp == WARPS) {
            chunk++, warp = 0, unit = row;
            at += stride;
            if (is_last())
                at -= tile * (u32)(from::row_bytes(false) - from::row_bytes(true));
        }
    }
    __device__ __forceinline__ bool is_last() const { return from::CHUNKS == 1 || chunk == from::CHUNKS - 1; }
    __device__ __forceinline__ const u8 *quants() const { return at + unit * from::QUANTS; }
    __device__ __forceinline__ const u8 *below() const { return at + (height * from::high_at(is_last(), 1) + unit * from::HIGHS); }
    __device__ __forceinline__ const u8 *scales() const { return at + (height * from::scales_at(is_last(), 1) + unit * f::SCALES); }
    __device__ __forceinline__ const u8 *whole() const {
        return at + (height * from::wholes_at(is_last(), 1) + (from::whole_of(chunk, warp) * height + row) * f::WHOLE);
    }
};

/* Both rows of a lane, one step after the other. */
struct lane_rows {
    block_row of[2];

    __device__ __forceinline__ void begin(const u8 *stream, const i32 *shares, int owner, int first, int second, int step) {
        of[0].begin(place_of(stream, shares, owner, first), step), of[1].begin(place_of(stream, shares, owner, second), step);
    }
    /* A step, and go on to the next one. */
    __device__ __forceinline__ void load(two_rows &to) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            to.of[i].load(of[i].quants(), of[i].below(), of[i].scales(), of[i].whole());
            of[i].go_on();
        }
    }
};

/* A stage of shared memory: four planes, of all rows of the block. */
struct block_stage {
    typedef rows_of_blocks from;
    typedef from::f f;
    enum {
        BELOW_AT = BLOCK_ROWS * from::QUANTS,
        SCALES_AT = BELOW_AT + BLOCK_ROWS * from::HIGHS,
        WHOLE_AT = SCALES_AT + BLOCK_ROWS * f::SCALES,
        BYTES = WHOLE_AT + (f::WHOLE ? BLOCK_ROWS * 4 : 0),
    };
    template <int Bytes> static __device__ __forceinline__ void copy(u8 *to, const u8 *piece) {
        copy_async<Bytes>(shared_address(to), piece);
    }
    /* One row, by one thread. */
    static __device__ __forceinline__ void copy_row(u8 *stage, int row, const block_row &r) {
#pragma unroll
        for (int i = 0; i < from::QUANTS; i += 16)
            copy<16>(stage + row * from::QUANTS + i, r.quants() + i);
        if constexpr (f::HIGH > 0)
            copy<from::HIGHS>(stage + BELOW_AT + row * from::HIGHS, r.below());
        copy<f::SCALES>(stage + SCALES_AT + row * f::SCALES, r.scales());
        if constexpr (f::WHOLE == 4)
            copy<4>(stage + WHOLE_AT + row * 4, r.whole());
        else if constexpr (f::WHOLE == 2) /* less than what can be copied so */
            *(u32 *)(stage + WHOLE_AT + row * 4) = *(const u16 *)r.whole();
    }
    static __device__ __forceinline__ void load(block_quarter &to, const u8 *stage, int row) {
        to.load(stage + row * from::QUANTS, stage + BELOW_AT + row * from::HIGHS, stage + SCALES_AT + row * f::SCALES, stage + WHOLE_AT + row * 4);
    }
};
