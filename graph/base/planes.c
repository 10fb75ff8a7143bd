#include "graph/base/planes.h"

#include <assert.h>

/* What the fields of a format are, and where they stand in a block of a file (ggml-common.h). */

typedef enum { D, D_M, K_SCALES, K6_SCALES } scales_kind;

typedef struct {
    int low_bits, high_bits; /* of an element */
    int low_at, high_at;     /* bytes from the start of a block */
    scales_kind scales;
} fields;

static const fields all[QGC_N_DTYPES] = {
    [QGC_Q8_0] = {8, 0, 2, 0, D},          [QGC_Q4_0] = {4, 0, 2, 0, D},
    [QGC_Q4_1] = {4, 0, 4, 0, D_M},        [QGC_Q5_0] = {4, 1, 6, 2, D},
    [QGC_Q5_1] = {4, 1, 8, 4, D_M},        [QGC_Q4_K] = {4, 0, 16, 0, K_SCALES},
    [QGC_Q5_K] = {4, 1, 48, 16, K_SCALES}, [QGC_Q6_K] = {4, 2, 0, 128, K6_SCALES},
};

enum { ALIGN = 16 };

/* Bytes of the scales of n elements. */
static int64_t scales_bytes(scales_kind kind, int64_t n) {
    switch (kind) {
    case D:
        return n / 32 * 2;
    case D_M:
        return n / 32 * 4;
    case K_SCALES:
        return n / 256 * 16;
    case K6_SCALES:
        break;
    }
    return n / 256 * 18;
}

size_t qgc_planes_bytes(qgc_dtype t, int64_t n) {
    if (!qgc_dtype_is_quantised(t))
        return qgc_dtype_bytes(t, n);
    assert(n >= 0 && n % qgc_dtypes[t].block_elems == 0);
    const fields *f = &all[t];
    const int64_t bytes = n / 8 * (f->low_bits + f->high_bits) + scales_bytes(f->scales, n);
    return (size_t)((bytes + ALIGN - 1) / ALIGN * ALIGN);
}

static uint32_t load_u32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Elements e .. e+7 of a block. In a file blocks of 32 have element e beside e + 16 in a byte, those of 256 e beside e + 32 of each 64;
 * Q6_K has e beside e + 64 of each 128. */
static void put_low(qgc_dtype t, const uint8_t *block, int e, uint8_t *to) {
    const uint8_t *low = block + all[t].low_at;
    if (all[t].low_bits == 8) {
        memcpy(to, low + e, 8);
        return;
    }
    const int half = qgc_dtypes[t].block_elems == 32 ? 16 : t == QGC_Q6_K ? 64 : 32;
    const int shift = e / half % 2 * 4;
    low += e / (2 * half) * half + e % half;
    const uint32_t first = load_u32(low) >> shift & 0x0F0F0F0Fu,
                   last = load_u32(low + 4) >> shift & 0x0F0F0F0Fu;
    const uint32_t word = first | last << 4;
    memcpy(to, &word, sizeof word);
}

/* Four fields of two bits, one a byte, to one every four bits. */
static uint32_t gathered(uint32_t x) {
    x = (x | x >> 4) & 0x00FF00FFu;
    return (x | x >> 8) & 0xFFFFu;
}

/* The bits above the low ones. */
static void put_high(qgc_dtype t, const uint8_t *block, int e, uint8_t *to) {
    const uint8_t *high = block + all[t].high_at;
    if (t == QGC_Q6_K) {
        high += e / 128 * 32 + e % 32;
        const int shift = e % 128 / 32 * 2;
        const uint32_t word = gathered(load_u32(high) >> shift & 0x03030303u) |
                              gathered(load_u32(high + 4) >> shift & 0x03030303u) << 2;
        memcpy(to, &word, 2);
        return;
    }
    *to = high[e / 8];
    if (t ==
        QGC_Q5_K) { /* byte i of 32 has a bit of element i of each run of 32: bit j of the result from byte j */
        uint64_t eight;
        memcpy(&eight, high + e % 32, sizeof eight);
        *to = (uint8_t)((eight >> e / 32 & 0x0101010101010101u) * 0x0102040810204080u >> 56);
    }
}

/* The scales of block b of a row of `blocks`. `packed` are the twelve bytes of k_scales in tensor.c. */
static void put_k_scales(const uint8_t *block, int64_t b, int64_t blocks, uint8_t *to) {
    const uint8_t *packed = block + 4;
    uint8_t *scales = to + 4 * blocks + 8 * b, *minima = to + 12 * blocks + 4 * b;
    memcpy(to + 4 * b, block, 4);
    memset(minima, 0, 4);
    for (int i = 0; i < 8; i++) {
        const unsigned scale =
            i < 4 ? packed[i] & 63u : (packed[i + 4] & 15u) | (unsigned)packed[i - 4] >> 6 << 4;
        const unsigned minimum =
            i < 4 ? packed[i + 4] & 63u : (unsigned)packed[i + 4] >> 4 | (unsigned)packed[i] >> 6 << 4;
        scales[i] = (uint8_t)(scale | minimum << 6);
        minima[i / 2] |= (uint8_t)(minimum >> 2 << (i % 2 * 4));
    }
}

static void put_scales(qgc_dtype t, const uint8_t *block, int64_t b, int64_t blocks, uint8_t *to) {
    switch (all[t].scales) {
    case D:
        memcpy(to + 2 * b, block, 2);
        return;
    case D_M:
        memcpy(to + 4 * b, block, 4);
        return;
    case K_SCALES:
        put_k_scales(block, b, blocks, to);
        return;
    case K6_SCALES:
        break;
    }
    memcpy(to + 2 * b, block + 208, 2);
    memcpy(to + 2 * blocks + 16 * b, block + 192, 16);
}

void qgc_to_planes(qgc_dtype t, const void *src, void *dst, int64_t n) {
    const size_t bytes = qgc_planes_bytes(t, n);
    if (!qgc_dtype_is_quantised(t)) {
        memcpy(dst, src, bytes);
        return;
    }
    const fields *f = &all[t];
    const int64_t size = qgc_dtypes[t].block_elems, blocks = n / size;
    uint8_t *low = dst, *high = low + n / 8 * f->low_bits, *scales = high + n / 8 * f->high_bits;
    memset(scales, 0, bytes - (size_t)(scales - low));
    for (int64_t b = 0; b < blocks; b++) {
        const uint8_t *block = (const uint8_t *)src + b * qgc_dtypes[t].block_bytes;
        for (int e = 0; e < size; e += 8) {
            const int64_t eight = (b * size + e) / 8;
            put_low(t, block, e, low + eight * f->low_bits);
            if (f->high_bits)
                put_high(t, block, e, high + eight * f->high_bits);
        }
        put_scales(t, block, b, blocks, scales);
    }
}
