/* Numbers of 22 bits as three digits to the base 256, which are signed bytes, for tensor cores that multiply bytes: products and sums of
 * integers are exact. */
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

/* The digits of four numbers: the lowest ones to to[0], the next to to[8], the upper ones to to[16]. */
__device__ __forceinline__ void put_digits(const float4 &x, float factor, u32 *to) {
    /* The bits of a sum are the integer and 0x408080, and above them the exponent: so each byte is a digit and 0x80, or 0x40. */
    const float magic = 12582912.0f + 32896.0f;
    const u32 a = __float_as_uint(fmaf(x.x, factor, magic)), b = __float_as_uint(fmaf(x.y, factor, magic)),
              c = __float_as_uint(fmaf(x.z, factor, magic)), d = __float_as_uint(fmaf(x.w, factor, magic));
    const u32 low = __byte_perm(a, b, 0x5140), next = __byte_perm(c, d, 0x5140);
    const u32 upper = __byte_perm(__byte_perm(a, b, 0x0062), __byte_perm(c, d, 0x0062), 0x5410);
    to[0] = __byte_perm(low, next, 0x5410) ^ 0x80808080u;
    to[8] = __byte_perm(low, next, 0x7632) ^ 0x80808080u;
    to[16] = (upper + 0x40404040u) ^ 0x80808080u;
}
