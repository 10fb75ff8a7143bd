#include "graph/base/tensor.h"

#include <assert.h>

/* Every loop below is plain C over bytes that the compiler turns into vector code. The formats are those of
 * ggml-quants.c; the arithmetic is in the same order, so the results are the same bits. For that no multiply
 * and add may be fused: gcc does not in ISO C mode, clang has to be told. */
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "stored numbers are little-endian and are used in place"
#endif

/* Compiled twice, for AVX2 and for any x86-64; the loader picks. clang 14 has no such attribute for C, and it
 * needs the indirect functions of glibc. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__)
#define CLONES __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

const qgc_dtype_info qgc_dtypes[QGC_N_DTYPES] = {
#define DTYPE(tag, name, elems, bytes) [QGC_##tag] = {name, elems, bytes},
#include "graph/base/dtypes.def"
#undef DTYPE
};

qgc_dtype qgc_dtype_named(const char *name) {
    for (int t = 0; t < QGC_N_DTYPES; t++)
        if (strcmp(qgc_dtypes[t].name, name) == 0)
            return (qgc_dtype)t;
    return QGC_N_DTYPES;
}

bool qgc_dtype_is_quantised(qgc_dtype t) {
    return qgc_dtypes[t].block_elems > 1;
}

bool qgc_form_is_plain(const qgc_tensor_form *f) {
    return !f->stacked_index && !f->transposed && f->last == 0 && f->heads == 0 && f->plus == 0;
}

int64_t qgc_tensor_row_elems(const qgc_tensor *t) {
    return t->rank ? t->shape[t->rank - 1] : 1;
}

int64_t qgc_tensor_rows(const qgc_tensor *t) {
    int64_t rows = 1;
    for (int i = 0; i < t->rank - 1; i++)
        rows *= t->shape[i];
    return rows;
}

size_t qgc_dtype_bytes(qgc_dtype t, int64_t n) {
    assert(n >= 0 && n % qgc_dtypes[t].block_elems == 0);
    return (size_t)(n / qgc_dtypes[t].block_elems) * (size_t)qgc_dtypes[t].block_bytes;
}

static inline uint32_t bits_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint16_t load_u16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t load_u32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* `yes` where `mask` is all ones, `no` where it is zero. A ?: here would be made a branch again, which keeps
 * loops from becoming vectors. */
static inline uint32_t pick(uint32_t mask, uint32_t yes, uint32_t no) {
    return (yes & mask) | (no & ~mask);
}

static inline uint32_t mask_if(bool condition) {
    return 0u - (uint32_t)condition;
}

/* Normal: the exponent is moved up by 224, which makes infinity and NaN of theirs, and a multiply by 2^-112
 * takes back what was too much (15 becomes 127). Subnormal: the mantissa is put after 0.5, where the last
 * bit weighs 2^-24 as that of a subnormal half does, and 0.5 is taken away. */
static inline float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7FFFu;
    uint32_t normal = bits_of(float_of((rest << 13) + (224u << 23)) * 0x1p-112f);
    uint32_t subnormal = bits_of(float_of(rest | 126u << 23) - 0.5f);
    return float_of(sign | pick(mask_if(rest < 0x0400u), subnormal, normal));
}

/* The inverse. Adding half of the last place, or a bit less where that place is even, rounds and carries into
 * the exponent; a subnormal half is rounded by adding 0.5, beside which a float keeps multiples of 2^-24. */
static inline uint16_t float_to_half(float f) {
    uint32_t bits = bits_of(f), sign = bits >> 16 & 0x8000u, rest = bits & 0x7FFFFFFFu;
    uint32_t normal = (rest - (112u << 23) + 0xFFFu + (rest >> 13 & 1u)) >> 13;
    uint32_t subnormal = bits_of(float_of(rest) + 0.5f) - (126u << 23);
    uint32_t half = pick(mask_if(rest < 113u << 23), subnormal, normal);
    half = pick(mask_if(rest >= 143u << 23), 0x7C00u, half); /* 2^16 and above; 65520 came here by itself */
    half = pick(mask_if(rest > 0x7F800000u), 0x7E00u | (rest >> 13 & 0x1FFu), half);
    return (uint16_t)(sign | half);
}

float qgc_f16_to_f32(uint16_t h) {
    return half_to_float(h);
}
uint16_t qgc_f32_to_f16(float f) {
    return float_to_half(f);
}

CLONES static void f16_row(const uint8_t *restrict src, float *restrict dst, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        dst[i] = half_to_float(load_u16(src + 2 * i));
}

CLONES static void bf16_row(const uint8_t *restrict src, float *restrict dst, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        dst[i] = qgc_bf16_to_f32(load_u16(src + 2 * i));
}

/*   d  |  q0 .. q31 */
CLONES static void q8_0_row(const uint8_t *restrict src, float *restrict dst, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++, src += 34, dst += 32) {
        float d = half_to_float(load_u16(src));
        for (int i = 0; i < 32; i++)
            dst[i] = (float)(int8_t)src[2 + i] * d;
    }
}

/*   d  |  q0 + 16 q16, .., q15 + 16 q31        values are q - 8 */
CLONES static void q4_0_row(const uint8_t *restrict src, float *restrict dst, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++, src += 18, dst += 32) {
        float d = half_to_float(load_u16(src));
        for (int i = 0; i < 16; i++) {
            dst[i] = (float)((src[2 + i] & 15) - 8) * d;
            dst[i + 16] = (float)((src[2 + i] >> 4) - 8) * d;
        }
    }
}

/*   d  m  |  as q4_0        values are q d + m */
CLONES static void q4_1_row(const uint8_t *restrict src, float *restrict dst, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++, src += 20, dst += 32) {
        float d = half_to_float(load_u16(src)), m = half_to_float(load_u16(src + 2));
        for (int i = 0; i < 16; i++) {
            dst[i] = (float)(src[4 + i] & 15) * d + m;
            dst[i + 16] = (float)(src[4 + i] >> 4) * d + m;
        }
    }
}

/* A shift by the loop's index keeps gcc from making vectors, a table of bits doesn't. */
static const uint32_t bit[16] = {1u << 0,  1u << 1,  1u << 2,  1u << 3, 1u << 4,  1u << 5,
                                 1u << 6,  1u << 7,  1u << 8,  1u << 9, 1u << 10, 1u << 11,
                                 1u << 12, 1u << 13, 1u << 14, 1u << 15};

/*   d  |  32 fifth bits  |  as q4_0        values are q - 16 */
CLONES static void q5_0_row(const uint8_t *restrict src, float *restrict dst, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++, src += 22, dst += 32) {
        float d = half_to_float(load_u16(src));
        uint32_t fifths = load_u32(src + 2);
        for (int i = 0; i < 16; i++)
            dst[i] = (float)((src[6 + i] & 15) - (fifths & bit[i] ? 0 : 16)) * d;
        fifths >>= 16;
        for (int i = 0; i < 16; i++)
            dst[i + 16] = (float)((src[6 + i] >> 4) - (fifths & bit[i] ? 0 : 16)) * d;
    }
}

/*   d  m  |  32 fifth bits  |  as q4_0        values are q d + m */
CLONES static void q5_1_row(const uint8_t *restrict src, float *restrict dst, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++, src += 24, dst += 32) {
        float d = half_to_float(load_u16(src)), m = half_to_float(load_u16(src + 2));
        uint32_t fifths = load_u32(src + 4);
        for (int i = 0; i < 16; i++)
            dst[i] = (float)((src[8 + i] & 15) + (fifths & bit[i] ? 16 : 0)) * d + m;
        fifths >>= 16;
        for (int i = 0; i < 16; i++)
            dst[i + 16] = (float)((src[8 + i] >> 4) + (fifths & bit[i] ? 16 : 0)) * d + m;
    }
}

/* The eight scales and eight minima of a block of 256, six bits each in 12 bytes:
 *
 *   byte 0..3    scale 0..3, and above it the upper two bits of scale 4..7
 *   byte 4..7    minimum 0..3, and above it the upper two bits of minimum 4..7
 *   byte 8..11   the lower four bits of scale 4..7, and of minimum 4..7 */
static inline void k_scales(const uint8_t *restrict p, float d, float dmin, float scale[8],
                            float minimum[8]) {
    for (int i = 0; i < 4; i++) {
        scale[i] = d * (float)(p[i] & 63);
        minimum[i] = dmin * (float)(p[i + 4] & 63);
        scale[i + 4] = d * (float)((p[i + 8] & 15) | p[i] >> 6 << 4);
        minimum[i + 4] = dmin * (float)(p[i + 8] >> 4 | p[i + 4] >> 6 << 4);
    }
}

/*   d  dmin  |  scales  |  4 times 32 bytes, each 32 low quants of one group and 32 high of the next */
CLONES static void q4_k_row(const uint8_t *restrict src, float *restrict dst, int64_t n) {
    for (int64_t b = 0; b < n / 256; b++, src += 144) {
        float scale[8], minimum[8];
        k_scales(src + 4, half_to_float(load_u16(src)), half_to_float(load_u16(src + 2)), scale, minimum);
        const uint8_t *q = src + 16;
        for (int group = 0; group < 8; group += 2, q += 32, dst += 64) {
            float d0 = scale[group], m0 = minimum[group], d1 = scale[group + 1], m1 = minimum[group + 1];
            for (int i = 0; i < 32; i++)
                dst[i] = d0 * (float)(q[i] & 15) - m0;
            for (int i = 0; i < 32; i++)
                dst[i + 32] = d1 * (float)(q[i] >> 4) - m1;
        }
    }
}

/*   d  dmin  |  scales  |  32 bytes: bit g of byte i is the fifth bit of quant i of group g  |  as q4_k */
CLONES static void q5_k_row(const uint8_t *restrict src, float *restrict dst, int64_t n) {
    for (int64_t b = 0; b < n / 256; b++, src += 176) {
        float scale[8], minimum[8];
        k_scales(src + 4, half_to_float(load_u16(src)), half_to_float(load_u16(src + 2)), scale, minimum);
        const uint8_t *fifth = src + 16, *q = src + 48;
        for (int group = 0; group < 8; group += 2, q += 32, dst += 64) {
            float d0 = scale[group], m0 = minimum[group], d1 = scale[group + 1], m1 = minimum[group + 1];
            for (int i = 0; i < 32; i++)
                dst[i] = d0 * (float)((q[i] & 15) | (fifth[i] >> group & 1) << 4) - m0;
            for (int i = 0; i < 32; i++)
                dst[i + 32] = d1 * (float)(q[i] >> 4 | (fifth[i] >> (group + 1) & 1) << 4) - m1;
        }
    }
}

/* A run of 32 quants of q6_k: four bits of each byte of `low`, two of each of `high`. */
static inline void q6_k_run(const uint8_t *restrict low, int low_shift, const uint8_t *restrict high,
                            int high_shift, const float scale[2], float *restrict dst) {
    for (int i = 0; i < 16; i++)
        dst[i] = scale[0] * (float)(((low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4) - 32);
    for (int i = 16; i < 32; i++)
        dst[i] = scale[1] * (float)(((low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4) - 32);
}

/*   128 bytes of low four bits  |  64 bytes of high two bits  |  16 scales (int8)  |  d
 *
 * A block is two halves, each of four runs that share 64 bytes of low and 32 bytes of high bits. Each 16
 * quants have a scale. Values are q - 32. */
CLONES static void q6_k_row(const uint8_t *restrict src, float *restrict dst, int64_t n) {
    for (int64_t b = 0; b < n / 256; b++, src += 210) {
        float d = half_to_float(load_u16(src + 208)), scale[16];
        for (int i = 0; i < 16; i++)
            scale[i] = d * (float)(int8_t)src[192 + i];
        const uint8_t *low = src, *high = src + 128;
        const float *s = scale;
        for (int half = 0; half < 2; half++, low += 64, high += 32, s += 8, dst += 128) {
            q6_k_run(low, 0, high, 0, s, dst);
            q6_k_run(low + 32, 0, high, 2, s + 2, dst + 32);
            q6_k_run(low, 4, high, 4, s + 4, dst + 64);
            q6_k_run(low + 32, 4, high, 6, s + 6, dst + 96);
        }
    }
}

void qgc_to_f32(qgc_dtype t, const void *src, float *dst, int64_t n) {
    assert(n >= 0 && n % qgc_dtypes[t].block_elems == 0);
    switch (t) {
    case QGC_F32:
        if (n)
            memcpy(dst, src, (size_t)n * sizeof *dst);
        return;
    case QGC_F16:
        f16_row(src, dst, n);
        return;
    case QGC_BF16:
        bf16_row(src, dst, n);
        return;
    case QGC_Q8_0:
        q8_0_row(src, dst, n);
        return;
    case QGC_Q4_0:
        q4_0_row(src, dst, n);
        return;
    case QGC_Q4_1:
        q4_1_row(src, dst, n);
        return;
    case QGC_Q5_0:
        q5_0_row(src, dst, n);
        return;
    case QGC_Q5_1:
        q5_1_row(src, dst, n);
        return;
    case QGC_Q4_K:
        q4_k_row(src, dst, n);
        return;
    case QGC_Q5_K:
        q5_k_row(src, dst, n);
        return;
    case QGC_Q6_K:
        q6_k_row(src, dst, n);
        return;
    case QGC_I32:
    case QGC_N_DTYPES:
        break;
    }
    assert(false && "a dtype that widens to float32");
}

CLONES static void to_f16_row(const float *restrict src, uint8_t *restrict dst, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = float_to_half(src[i]);
        memcpy(dst + 2 * i, &h, sizeof h);
    }
}

CLONES static void to_bf16_row(const float *restrict src, uint8_t *restrict dst, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = qgc_f32_to_bf16(src[i]);
        memcpy(dst + 2 * i, &h, sizeof h);
    }
}

void qgc_from_f32(qgc_dtype t, const float *src, void *dst, int64_t n) {
    assert(t == QGC_F32 || t == QGC_F16 || t == QGC_BF16);
    if (t == QGC_F16)
        to_f16_row(src, dst, n);
    else if (t == QGC_BF16)
        to_bf16_row(src, dst, n);
    else if (n)
        memcpy(dst, src, (size_t)n * sizeof *src);
}
