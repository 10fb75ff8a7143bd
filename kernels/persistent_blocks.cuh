/* Products of rows of block formats: quants become f16 without loss (q less its centre), tensor cores multiply them with the high and
 * the low part of x, and each block's sum is multiplied by its scale in float32. A block's minimum is multiplied by the sum of its
 * part of x, which an MMA with ones gives. No weight waits in registers; the slots of the ring hold them. */
#pragma once
#include "persistent_product.cuh"
#include "stream_blocks.cuh"

/* Eight quants of a lane as operand A: its registers are elements 0 and 1, 4 and 5, 2 and 3, 6 and 7. */
struct block_operand {
    u32 a[4];
};

/* Four bits: element 2p in bits 4p .. 4p+3, element 2p+1 16 bits higher. High: bits for the same places, with those above them. */
template <int Type> __device__ __forceinline__ block_operand from_nibbles(u32 quants, u32 high, int block) {
    typedef block_format<Type> f;
    const u32 offset = 0x64006400u + 0x00010001u * f::CENTRE; /* 1024 + the centre */
    block_operand to;
#pragma unroll
    for (int p = 0; p < 4; p++) {
        u32 two = (quants >> 4 * p & 0x000F000Fu) | 0x64006400u;
        const int at = f::HIGH * (4 * block + p);
        if (f::HIGH == 1)
            two |= (high >> at & 0x00010001u) << 4;
        if (f::HIGH == 2)
            two |= (high >> at & 0x00030003u) << 4;
        to.a[p == 1 ? 2 : p == 2 ? 1 : p] = two_f16_less(two, offset);
    }
    return to;
}

template <int Type> __device__ __forceinline__ block_operand from_bytes(uint2 quants) {
    const u32 offset = 0x64006400u + 0x00010001u * block_format<Type>::CENTRE, magic = 0x64646464u;
    return {{two_f16_less(__byte_perm(quants.x, magic, 0x4140), offset),
             two_f16_less(__byte_perm(quants.y, magic, 0x4140), offset),
             two_f16_less(__byte_perm(quants.x, magic, 0x4342), offset),
             two_f16_less(__byte_perm(quants.y, magic, 0x4342), offset)}};
}

/* The scales of the block that a lane's columns belong to: a sum is first * (its first 16 elements) + last * (the others) + minimum *
 * (the sum of x). */
struct block_scale {
    float first, last, minimum;
};

template <int Type> __device__ __forceinline__ block_scale scale_of(const u8 *scales, const u8 *whole, bool odd) {
    if constexpr (Type == Q6_K) {
        const u32 both = ((const u16 *)scales)[odd];
        const float d = f16_f32(*(const u16 *)whole);
        return {d * (float)(signed char)(both & 0xFFu), d * (float)(signed char)(both >> 8), 0.0f};
    } else if constexpr (Type == Q4_K || Type == Q5_K) {
        const u32 packed = ((const u16 *)scales)[odd], d_dmin = *(const u32 *)whole;
        const float scale = f16_f32((u16)(d_dmin & 0xFFFFu)) * (float)(packed & 63u);
        return {scale, scale, -(f16_f32((u16)(d_dmin >> 16)) * (float)(packed >> 6))};
    } else if constexpr (Type == Q4_1 || Type == Q5_1) {
        const u32 d_m = ((const u32 *)scales)[odd];
        const float scale = f16_f32((u16)(d_m & 0xFFFFu));
        return {scale, scale, f16_f32((u16)(d_m >> 16))};
    } else {
        const float scale = f16_f32(((const u16 *)scales)[odd]);
        return {scale, scale, 0.0f};
    }
}

template <int Type, int K> struct block_rows : stream_of<Type, K, WARPS> {
    typedef stream_of<Type, K, WARPS> s;
    enum { MINIMA = Type == Q4_1 || Type == Q5_1 || Type == Q4_K || Type == Q5_K };
    static_assert(s::SLOT_BYTES == SLOT, "shape");

    /* The sum of x over the block of a lane's columns, from its warp's pair. */
    static __device__ __forceinline__ float total(u32 first, u32 second) {
        const u32 ones = 0x3C003C00u;
        float sum[4] = {};
        mma<F16>(sum, ones, ones, ones, ones, first, second);
        return sum[0] + sum[1];
    }

    /* What a lane has of row lane / 4 of a tile of `h` rows, from its warp's pair of a chunk. */
    static __device__ __forceinline__ float tile(const consumer &c, const u8 *tile, int chunk, int h, u32 first, u32 second,
                                                 float total) {
        const int lane = c.lane(), warp = c.warp(), row = lane / 4;
        const bool is_odd = lane % 2;
        const u8 *quants = tile + warp * h * s::QUANTS + lane * s::LOW, *next = quants + h * s::QUANTS / 2;
        u32 high = 0;
        if constexpr (s::HIGH == 1) {
            high = *(const u16 *)(tile + s::high_at(chunk, h) + warp * h * s::HIGHS + lane * 2);
            high = (high & 0xFFu) | (high & 0xFF00u) << 8;
        } else if constexpr (s::HIGH == 2)
            high = *(const u32 *)(tile + s::high_at(chunk, h) + warp * h * s::HIGHS + lane * 4);
        const u8 *scales = tile + s::scales_at(chunk, h) + (warp * h + row) * s::f::SCALES;
        const u8 *whole = tile;
        if constexpr (s::WHOLE != 0)
            whole += s::wholes_at(chunk, h) + (((chunk * WARPS + warp) / 4 - s::first_whole(chunk)) * h + row) * s::f::WHOLE;

        block_operand a, b;
        if constexpr (s::LOW == 8)
            a = from_bytes<Type>(*(const uint2 *)quants), b = from_bytes<Type>(*(const uint2 *)next);
        else
            a = from_nibbles<Type>(*(const u32 *)quants, high, 0), b = from_nibbles<Type>(*(const u32 *)next, high, 1);
        float even[4] = {}, odd[4] = {};
        mma<F16>(even, a.a[0], a.a[1], a.a[2], a.a[3], first, second);
        mma<F16>(odd, b.a[0], b.a[1], b.a[2], b.a[3], first, second);
        const block_scale scale = scale_of<Type>(scales, whole, is_odd);
        float sum = scale.first * (is_odd ? odd[0] : even[0]);
        sum = fmaf(scale.last, is_odd ? odd[3] : even[3], sum);
        return MINIMA ? fmaf(scale.minimum, total, sum) : sum;
    }
};

/* What the four lanes of a row have of `Tiles` tiles, added up, to their rows of sum[][]: put_sums for fewer than four. */
template <int Tiles> __device__ __forceinline__ void put_some_sums(const float (&tile)[GATHERED], float *to, int lane) {
    float mine;
    put_sums(tile, &mine, lane);
    if (lane % 2 * 2 + lane / 2 % 2 < Tiles)
        *to = mine;
}

/* As multiply_tiles of persistent_product.cuh. */
template <int K, int Type, typename Meanwhile, typename Finish>
__device__ __forceinline__ void multiply_blocks(consumer &c, const operand<K, F16> &x, int n, Meanwhile meanwhile,
                                                Finish finish) {
    typedef block_rows<Type, K> rows_of;
    constexpr int GROUP = rows_of::group();
    static_assert(GROUP >= 1 && BATCH % (GROUP * TILE) == 0, "shape");
    const int lane = c.lane(), warp = c.warp();
    const int place = (lane / 4 + TILE * (lane % 2 * 2 + lane / 2 % 2)) * STRIDE + warp;
#pragma unroll 1
    for (int first = 0; first < n; first += BATCH) {
        const int here = min((int)BATCH, n - first);
        float *sum = c.s.sum[c.batch];
#pragma unroll 1
        for (int row = 0; row < here; row += GROUP * TILE) {
            float tile[GATHERED] = {};
#pragma unroll
            for (int i = 0; i < rows_of::CHUNKS; i++) {
                const u8 *from = c.tile();
                if (elements<K>::here(c, i)) {
                    const float total = rows_of::MINIMA ? rows_of::total(x.first[i], x.second[i]) : 0.0f;
#pragma unroll
                    for (int t = 0; t < GROUP; t++)
                        if (row + t * TILE < here)
                            tile[t] += rows_of::tile(c, from + t * TILE * rows_of::row_bytes(i), i,
                                                     min(here - row - t * TILE, (int)TILE), x.first[i], x.second[i], total);
                }
                c.release();
            }
            if (first == 0 && row == 0)
                meanwhile();
            put_some_sums<GROUP>(tile, sum + place + row * STRIDE, lane);
        }
        consumers_meet();
        if (warp * 32 < here) {
            const int i = (int)c.thread;
            finish(first + i, i < here, total_of(sum + min(i, here - 1) * STRIDE) / shrink<F16>());
        }
        c.batch ^= 1;
    }
}
