/* Numbers of 22 bits as three digits to the base 256, or two of them as four digits each. Digits are signed bytes, for tensor cores that
 * multiply bytes: products and sums of integers are exact. */
#pragma once
#include "common.cuh"

/* The largest magnitude of four; NaN if one is. */
__device__ __forceinline__ float largest_of(const float4 &x) {
    return larger_or_nan(larger_or_nan(fabsf(x.x), fabsf(x.y)), larger_or_nan(fabsf(x.z), fabsf(x.w)));
}

/* x times `factor`, rounded, is the integer; 1 in it stands for `unit`. */
struct fixed_point {
    float factor, unit;

    /* `largest`: the bits of the largest magnitude. Where that is no finite number, `unit` is none: so all sums are NaN. 63/64 leaves
     * room for what put_digits() adds. Magnitudes below 2^-63 lose bits. */
    __device__ __forceinline__ explicit fixed_point(u32 largest) {
        const u32 power = max(largest, 0x20000000u) & 0x7F800000u, one = 127u << 23;
        factor = bits_f32(__float_as_uint(0.984375f * 0x1p21f) + one - power);
        unit = bits_f32(largest < 0x7F800000u ? __float_as_uint(0x1p-21f / 0.984375f) - one + power : 0x7FFFFFFFu);
    }
};

/* Four integers, each the lower bits of a float that is `MORE` larger as an integer: its exponent, and what makes each byte a digit and 0x80,
 * or 0x40 the upper one. */
struct fixed_four {
    enum : u32 { MORE = 0x4B408080u };
    u32 a, b, c, d;

    __device__ __forceinline__ fixed_four(const float4 &x, float factor) {
        const float magic = 12582912.0f + 32896.0f;
        a = __float_as_uint(fmaf(x.x, factor, magic)), b = __float_as_uint(fmaf(x.y, factor, magic));
        c = __float_as_uint(fmaf(x.z, factor, magic)), d = __float_as_uint(fmaf(x.w, factor, magic));
    }
    __device__ __forceinline__ i32 sum() const { return (i32)(a + b + c + d - 4u * MORE); }
};

/* Their digits: the lowest ones to to[0], the next to to[8], the upper ones to to[16]. */
__device__ __forceinline__ void put_digits(const fixed_four &x, u32 *to) {
    const u32 low = __byte_perm(x.a, x.b, 0x5140), next = __byte_perm(x.c, x.d, 0x5140);
    const u32 upper = __byte_perm(__byte_perm(x.a, x.b, 0x0062), __byte_perm(x.c, x.d, 0x0062), 0x5410);
    to[0] = __byte_perm(low, next, 0x5410) ^ 0x80808080u;
    to[8] = __byte_perm(low, next, 0x7632) ^ 0x80808080u;
    to[16] = (upper + 0x40404040u) ^ 0x80808080u;
}

/* The lowest two of them, to to[0] and to[8], or of `upper` lanes the upper ones and zeros. */
__device__ __forceinline__ void put_two_digits(const fixed_four &x, bool upper, u32 *to) {
    const u32 which = upper ? 0x7362u : 0x5140u, more = upper ? 0x40404040u : 0u, keep = upper ? 0u : 0xFFFFFFFFu;
    const u32 first = __byte_perm(x.a, x.b, which), last = __byte_perm(x.c, x.d, which);
    to[0] = (__byte_perm(first, last, 0x5410) + more) ^ 0x80808080u;
    to[8] = (__byte_perm(first, last, 0x7632) ^ 0x80808080u) & keep;
}

/* For a byte of two quants, `low` + 16 * `high`, of which one is multiplied by a number of `x` and the other by one of `other`:
 * 16 * (low * a + high * b) = byte * b + low * (16 * a - b), so that no quant is shifted. The four digits, to to[0], [8], [16] and [24], are
 * those of b (`second`: x is b), or of 16 * a - b (x is a). A number is below 0.985 * 2^22, 16 * a - b below 2^26.1. */
__device__ __forceinline__ void put_four_digits(const fixed_four &x, const u32 (&other)[4], bool second, u32 *to) {
    const u32 by = second ? 1u : 16u, less = second ? 0u : 0xFFFFFFFFu,
              more = 0x808080u - (second ? 1u : 15u) * (u32)fixed_four::MORE;
    const u32 a = x.a * by + (other[0] * less + more), b = x.b * by + (other[1] * less + more),
              c = x.c * by + (other[2] * less + more), d = x.d * by + (other[3] * less + more);
    const u32 low = __byte_perm(a, b, 0x5140), next = __byte_perm(c, d, 0x5140);
    const u32 high = __byte_perm(a, b, 0x7362), last = __byte_perm(c, d, 0x7362);
    to[0] = __byte_perm(low, next, 0x5410) ^ 0x80808080u;
    to[8] = __byte_perm(low, next, 0x7632) ^ 0x80808080u;
    to[16] = __byte_perm(high, last, 0x5410) ^ 0x80808080u;
    to[24] = __byte_perm(high, last, 0x7632);
}
