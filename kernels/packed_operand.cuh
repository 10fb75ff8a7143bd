/* Operand A of packed_gemm.cu: of a step of 64 elements of its two rows, a lane has those that registers of the instruction hold. Two
 * sorts of rows in the stream: of 16 bits, and of block formats (packed_blocks.cuh). */
#pragma once
#include "packed_items.cuh"
#include "ptx.cuh"

/* Register i for elements 16 k .. 16 k + 15. */
struct operand_a {
    u32 part[4][4];
};

#if FORMAT > BF16
#include "packed_blocks.cuh"
#else

/* The first 16 bytes of a lane, and the distance to the next ones. */
struct row_place {
    const u8 *at;
    u32 stride;
};

/* Of a row from the first one of `owner` on, not many owners after it. */
__device__ __forceinline__ row_place place_of(const u8 *stream, const i32 *shares, int owner, int row) {
    row = min(row, ROWS - 1);
    owner = owner_from(shares, owner, row);
    const int r = row - (int)FIRST(SHARE), n = (int)COUNT(SHARE), tile = r / TILE * TILE;
    return {stream + (PLACE) + (size_t)tile * K * 2 + r % TILE * 64 + threadIdx.x % 4 * 16, (u32)min((int)TILE, n - tile) * 64u};
}

/* 16 bytes of each block of 32 of both rows, as loaded. */
struct two_rows {
    uint4 v[2][2]; /* [block][row] */

    static __device__ __forceinline__ u32 narrow(u32 two) { return FORMAT == BF16 ? two : two_bf16(f16_low(two), f16_high(two)); }
    __device__ __forceinline__ u32 a(int k, int i) const {
        const uint4 &row = v[k / 2][i % 2];
        return narrow(k % 2 ? (i / 2 ? row.w : row.y) : (i / 2 ? row.z : row.x));
    }
    __device__ __forceinline__ void widen(operand_a &to, u32) const {
#pragma unroll
        for (int q = 0; q < 16; q++)
            to.part[q / 4][q % 4] = a(q / 4, q % 4);
    }
};

__device__ __forceinline__ u32 in_register(u32 constant, int) { return constant; }

/* Where they are read next. */
struct lane_rows {
    row_place row[2];

    __device__ __forceinline__ void begin(const u8 *stream, const i32 *shares, int owner, int first, int second, int step) {
        row[0] = place_of(stream, shares, owner, first), row[1] = place_of(stream, shares, owner, second);
        row[0].at += (size_t)(2 * step) * row[0].stride, row[1].at += (size_t)(2 * step) * row[1].stride;
    }
    /* A step, and go on to the next one. */
    __device__ __forceinline__ void load(two_rows &to) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            to.v[i / 2][i % 2] = *(const uint4 *)row[i % 2].at;
            row[i % 2].at += row[i % 2].stride;
        }
    }
};

#endif
