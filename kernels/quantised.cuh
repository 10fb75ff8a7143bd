/* Rows of block formats as they lie on a device (graph/base/planes.h): a lane takes eight elements at once, which are one word of
 * four-bit quants or two of eight, some bits above them, and the scale of their block. */
#pragma once
#include "ptx.cuh"

#define Q8_0 3
#define Q4_0 4
#define Q4_1 5
#define Q5_0 6
#define Q5_1 7
#define Q4_K 8
#define Q5_K 9
#define Q6_K 10

/* The scales of a row of `in` elements. `raw` are those of eight elements, as loaded; a value is scale * q + minimum. */

struct scales_d { /* f16 d for each 32 */
    enum { MINIMUM = 0 };
    struct raw {
        u16 d;
    };
    static __device__ constexpr int bytes(int in) { return in / 32 * 2; }
    static __device__ __forceinline__ raw load(const u8 *scales, int at, int in) {
        return {((const u16 *)scales)[at / 32]};
    }
    static __device__ __forceinline__ float scale(const raw &r) { return f16_f32(r.d); }
    static __device__ __forceinline__ float minimum(const raw &r) { return 0.0f; }
};

struct scales_d_m { /* f16 d, f16 m for each 32 */
    enum { MINIMUM = 1 };
    struct raw {
        u32 d_m;
    };
    static __device__ constexpr int bytes(int in) { return in / 32 * 4; }
    static __device__ __forceinline__ raw load(const u8 *scales, int at, int in) {
        return {((const u32 *)scales)[at / 32]};
    }
    static __device__ __forceinline__ float scale(const raw &r) { return f16_f32((u16)(r.d_m & 0xFFFFu)); }
    static __device__ __forceinline__ float minimum(const raw &r) { return f16_f32((u16)(r.d_m >> 16)); }
};

struct scales_k { /* f16 d, f16 dmin for each 256; for each 32 a scale and a minimum of six bits, in 12 bits */
    enum { MINIMUM = 1 };
    struct raw {
        u32 d_dmin;
        u8 low, high;
    };
    static __device__ constexpr int bytes(int in) { return in / 256 * 16; }
    static __device__ __forceinline__ raw load(const u8 *scales, int at, int in) {
        const int blocks = in / 256;
        return {((const u32 *)scales)[at / 256], scales[4 * blocks + at / 32],
                (u8)(scales[12 * blocks + at / 64] >> at % 64 / 32 * 4 & 15)};
    }
    static __device__ __forceinline__ float scale(const raw &r) {
        return f16_f32((u16)(r.d_dmin & 0xFFFFu)) * (float)(r.low & 63u);
    }
    static __device__ __forceinline__ float minimum(const raw &r) {
        return -(f16_f32((u16)(r.d_dmin >> 16)) * (float)(r.low >> 6 | r.high << 2));
    }
};

struct scales_k6 { /* f16 d for each 256, and eight bits for each 16 */
    enum { MINIMUM = 0 };
    struct raw {
        u16 d;
        signed char scale;
    };
    static __device__ constexpr int bytes(int in) { return in / 256 * 18; }
    static __device__ __forceinline__ raw load(const u8 *scales, int at, int in) {
        return {((const u16 *)scales)[at / 256], ((const signed char *)scales)[in / 256 * 2 + at / 16]};
    }
    static __device__ __forceinline__ float scale(const raw &r) { return f16_f32(r.d) * (float)r.scale; }
    static __device__ __forceinline__ float minimum(const raw &r) { return 0.0f; }
};

/* What `stored` of common.cuh is for other types. Low: bits of a quant in the first plane, High: in the second; Centre: what is taken
 * off a quant. */
template <int Low, int High, int Centre, typename Scales> struct planes {
    typedef u8 elem;
    enum { PER_LOAD = 8 };
    struct loaded {
        u32 low[Low / 4];
        u32 high;
        typename Scales::raw scales;
    };

    static __device__ constexpr int row_bytes(int in) {
        return (in / 8 * (Low + High) + Scales::bytes(in) + 15) / 16 * 16;
    }
    static __device__ __forceinline__ const elem *row(const elem *matrix, size_t row, int in) {
        return matrix + row * row_bytes(in);
    }

    /* Elements at .. at+7 of a row of `in`; `at` is a multiple of 8. */
    static __device__ __forceinline__ loaded load(const elem *row, int at, int in) {
        loaded l;
        if constexpr (Low == 8) {
            const uint2 two = ((const uint2 *)row)[at / 8];
            l.low[0] = two.x, l.low[Low / 4 - 1] = two.y;
        } else
            l.low[0] = ((const u32 *)row)[at / 8];
        row += in / 8 * Low;
        l.high = 0;
        if constexpr (High == 1)
            l.high = row[at / 8];
        else if constexpr (High == 2)
            l.high = ((const u16 *)row)[at / 8];
        l.scales = Scales::load(row + in / 8 * High, at, in);
        return l;
    }

    /* Quants 4i .. 4i+3, a byte each. */
    template <int I> static __device__ __forceinline__ u32 four(const loaded &l) {
        if constexpr (Low == 8)
            return l.low[Low / 4 - 2 + I] ^ 0x80808080u; /* signed: 128 more */
        u32 quants = l.low[0] >> 4 * I & 0x0F0F0F0Fu;
        if constexpr (High == 1)
            quants |= ((l.high >> 4 * I & 15u) * 0x00204081u & 0x01010101u) << 4;
        if constexpr (High == 2) { /* a field every four bits becomes one every eight */
            u32 bits = l.high >> 2 * I & 0x3333u;
            bits = (bits | bits << 8) & 0x00330033u;
            quants |= ((bits | bits << 4) & 0x03030303u) << 4;
        }
        return quants;
    }
    /* Byte j as a float: as the last bits of 2^23, of which it and the centre are then taken off exactly. */
    static __device__ __forceinline__ float centred(u32 quants, int j) {
        return bits_of_float(__byte_perm(quants, 0x4B000000u, 0x7440u | j)) - (8388608.0f + Centre);
    }

    static __device__ __forceinline__ void quants(const loaded &l, float *q) {
        const u32 first = four<0>(l), last = four<1>(l);
#pragma unroll
        for (int j = 0; j < 4; j++)
            q[j] = centred(first, j), q[j + 4] = centred(last, j);
    }
    static __device__ __forceinline__ void widen_load(const loaded &l, float *out) {
        const float scale = Scales::scale(l.scales), minimum = Scales::minimum(l.scales);
        quants(l, out);
#pragma unroll
        for (int i = 0; i < PER_LOAD; i++)
            out[i] = scale * out[i] + minimum;
    }
    /* sum + their products with x, whose sum is `total`. */
    static __device__ __forceinline__ float add_dot(const loaded &l, const float *x, float total, float sum) {
        float q[PER_LOAD], dot = 0.0f;
        quants(l, q);
#pragma unroll
        for (int i = 0; i < PER_LOAD; i++)
            dot = fmaf(q[i], x[i], dot);
        sum = fmaf(Scales::scale(l.scales), dot, sum);
        return Scales::MINIMUM ? fmaf(Scales::minimum(l.scales), total, sum) : sum;
    }
    static __device__ __forceinline__ float element(const elem *row, int i, int in) {
        const loaded l = load(row, i & ~7, in);
        const u32 quants = i & 4 ? four<1>(l) : four<0>(l);
        return Scales::scale(l.scales) * centred(quants, i & 3) + Scales::minimum(l.scales);
    }

    /* Elements i .. i+3; i is a multiple of 4. */
    static __device__ __forceinline__ float4 four_elements(const elem *row, int i, int in) {
        const loaded l = load(row, i & ~7, in);
        const u32 quants = i & 4 ? four<1>(l) : four<0>(l);
        const float scale = Scales::scale(l.scales), minimum = Scales::minimum(l.scales);
        return make_float4(scale * centred(quants, 0) + minimum, scale * centred(quants, 1) + minimum,
                           scale * centred(quants, 2) + minimum, scale * centred(quants, 3) + minimum);
    }

    static __device__ __forceinline__ float bits_of_float(u32 bits) { return __uint_as_float(bits); }
};

template <> struct stored<Q8_0> : planes<8, 0, 128, scales_d> {};
template <> struct stored<Q4_0> : planes<4, 0, 8, scales_d> {};
template <> struct stored<Q4_1> : planes<4, 0, 0, scales_d_m> {};
template <> struct stored<Q5_0> : planes<4, 1, 16, scales_d> {};
template <> struct stored<Q5_1> : planes<4, 1, 0, scales_d_m> {};
template <> struct stored<Q4_K> : planes<4, 0, 0, scales_k> {};
template <> struct stored<Q5_K> : planes<4, 1, 0, scales_k> {};
template <> struct stored<Q6_K> : planes<4, 2, 32, scales_k6> {};
