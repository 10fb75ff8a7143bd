#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/tensor.h"
#include "tests/support/cmocka.h"

static void dtypes_are_found_by_name(void **state) {
    (void)state;
    assert_int_equal(qgc_dtype_named("bf16"), QGC_BF16);
    assert_int_equal(qgc_dtype_named("q6_k"), QGC_Q6_K);
    assert_int_equal(qgc_dtype_named("Q6_K"), QGC_N_DTYPES);
    assert_int_equal(qgc_dtype_named(""), QGC_N_DTYPES);
    for (int t = 0; t < QGC_N_DTYPES; t++)
        assert_int_equal(qgc_dtype_named(qgc_dtypes[t].name), t);
}

static void only_block_formats_are_quantised(void **state) {
    (void)state;
    for (int t = 0; t < QGC_N_DTYPES; t++)
        assert_int_equal(qgc_dtype_is_quantised((qgc_dtype)t), qgc_dtypes[t].name[0] == 'q');
}

static void bytes_and_rows_follow_the_shape(void **state) {
    (void)state;
    assert_int_equal(qgc_dtype_bytes(QGC_F32, 7), 28);
    assert_int_equal(qgc_dtype_bytes(QGC_Q5_0, 896), 28 * 22);
    assert_int_equal(qgc_dtype_bytes(QGC_Q6_K, 512), 420);
    assert_int_equal(qgc_dtype_bytes(QGC_Q6_K, 0), 0);
    qgc_tensor t = {.rank = 3, .shape = {2, 3, 5}};
    assert_int_equal(qgc_tensor_rows(&t), 6);
    assert_int_equal(qgc_tensor_row_elems(&t), 5);
    t = (qgc_tensor){.rank = 1, .shape = {5}};
    assert_int_equal(qgc_tensor_rows(&t), 1);
    assert_int_equal(qgc_tensor_row_elems(&t), 5);
    t = (qgc_tensor){.rank = 0};
    assert_int_equal(qgc_tensor_rows(&t), 1);
    assert_int_equal(qgc_tensor_row_elems(&t), 1);
}

static uint32_t bits_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The value of a half as the standard defines it. */
static float half_by_definition(uint16_t h) {
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    double v;
    if (exponent == 31)
        v = mantissa ? NAN : INFINITY;
    else if (exponent == 0)
        v = ldexp(mantissa, -24);
    else
        v = ldexp(1024 + mantissa, exponent - 25);
    return (float)(h & 0x8000 ? -v : v);
}

static void every_half_widens_by_definition_and_comes_back(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t h = (uint16_t)i;
        float want = half_by_definition(h), got = qgc_f16_to_f32(h), row;
        qgc_to_f32(QGC_F16, &h, &row, 1);
        if (isnan(want)) {
            assert_true(isnan(got) && isnan(row));
            assert_true((qgc_f32_to_f16(got) & 0x7FFFu) > 0x7C00u);
        } else {
            assert_int_equal(bits_of(got), bits_of(want));
            assert_int_equal(bits_of(row), bits_of(want));
            assert_int_equal(qgc_f32_to_f16(got), h);
        }
    }
}

/* Between each two neighbours the middle goes to the even one, and what is beside the middle to the nearer. */
static void halves_round_to_nearest_and_ties_to_even(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 0x7C00u; i++) {
        double low = half_by_definition((uint16_t)i);
        double high = i == 0x7BFFu ? 65536.0 : half_by_definition((uint16_t)(i + 1));
        float middle = (float)((low + high) / 2);
        assert_true((double)middle == (low + high) / 2);
        uint16_t even = (uint16_t)(i & 1 ? i + 1 : i);
        for (uint32_t sign = 0; sign <= 0x8000u; sign += 0x8000u) {
            float s = sign ? -1.0f : 1.0f;
            assert_int_equal(qgc_f32_to_f16(s * middle), sign | even);
            assert_int_equal(qgc_f32_to_f16(s * nextafterf(middle, 0)), sign | i);
            assert_int_equal(qgc_f32_to_f16(s * nextafterf(middle, INFINITY)), sign | (i + 1));
        }
    }
    assert_int_equal(qgc_f32_to_f16(65519.996f), 0x7BFF);
    assert_int_equal(qgc_f32_to_f16(65520.0f), 0x7C00);
    assert_int_equal(qgc_f32_to_f16(1e30f), 0x7C00);
    assert_int_equal(qgc_f32_to_f16(-INFINITY), 0xFC00);
    assert_int_equal(qgc_f32_to_f16(1e-30f), 0);
    assert_int_equal(qgc_f32_to_f16(-1e-40f), 0x8000);
    /* a NaN whose payload is only in bits that a half lacks must not become infinity */
    assert_true((qgc_f32_to_f16(float_of(0x7F800001u)) & 0x7FFFu) > 0x7C00u);
}

static void bf16_rounds_to_nearest_even_and_keeps_nan(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t h = (uint16_t)i;
        float f;
        qgc_to_f32(QGC_BF16, &h, &f, 1);
        assert_int_equal(bits_of(f), i << 16);
        if (!isnan(f))
            assert_int_equal(qgc_f32_to_bf16(f), h);
    }
    assert_int_equal(qgc_f32_to_bf16(float_of(0x3F808000u)), 0x3F80); /* a tie, 3F80 is even */
    assert_int_equal(qgc_f32_to_bf16(float_of(0x3F818000u)), 0x3F82);
    assert_int_equal(qgc_f32_to_bf16(float_of(0x3F808001u)), 0x3F81);
    assert_int_equal(qgc_f32_to_bf16(float_of(0x7F7FFFFFu)), 0x7F80);
    assert_true((qgc_f32_to_bf16(float_of(0x7F800001u)) & 0x7FFFu) > 0x7F80u);
}

/* The rows that are compiled to vector code, against the single conversions, at every short length. */
static void rows_narrow_as_single_numbers_do(void **state) {
    (void)state;
    enum { N = 70 };
    float in[N];
    srand(1);
    for (int n = 0; n <= N; n++) {
        uint16_t half[N + 1], brain[N + 1];
        memset(half, 0xA5, sizeof half);
        memset(brain, 0xA5, sizeof brain);
        for (int i = 0; i < n; i++)
            in[i] = ldexpf((float)rand() / (float)RAND_MAX - 0.5f, rand() % 60 - 35);
        if (n > 2)
            in[1] = NAN, in[2] = -INFINITY;
        qgc_from_f32(QGC_F16, in, half, n);
        qgc_from_f32(QGC_BF16, in, brain, n);
        for (int i = 0; i < n; i++) {
            assert_int_equal(half[i], qgc_f32_to_f16(in[i]));
            assert_int_equal(brain[i], qgc_f32_to_bf16(in[i]));
        }
        assert_int_equal(half[n], 0xA5A5);
        assert_int_equal(brain[n], 0xA5A5);
        float same[N];
        qgc_from_f32(QGC_F32, in, same, n);
        assert_memory_equal(same, in, (size_t)n * sizeof *in);
    }
}

/* The block formats, straight from their definition: element i of a block, one at a time. */

static float half_at(const uint8_t *p) {
    return half_by_definition((uint16_t)(p[0] | p[1] << 8));
}

static int fifth_bit(const uint8_t *bits, int i) {
    return bits[i / 8] >> i % 8 & 1;
}

static int nibble(const uint8_t *q, int i, int run) {
    /* runs of `run` low nibbles, then the high nibbles of the same bytes */
    int byte = i / (2 * run) * run + i % run;
    return i / run % 2 ? q[byte] >> 4 : q[byte] & 15;
}

static void scale_and_minimum(const uint8_t *p, int group, int *scale, int *minimum) {
    if (group < 4) {
        *scale = p[group] & 63;
        *minimum = p[group + 4] & 63;
    } else {
        *scale = (p[group + 4] & 15) | (p[group - 4] >> 6) << 4;
        *minimum = (p[group + 4] >> 4) | (p[group] >> 6) << 4;
    }
}

static float element(qgc_dtype t, const uint8_t *b, int i) {
    float d = half_at(b), product;
    int scale, minimum, q;
    switch ((int)t) {
    case QGC_Q8_0:
        return (float)(int8_t)b[2 + i] * d;
    case QGC_Q4_0:
        return (float)(nibble(b + 2, i, 16) - 8) * d;
    case QGC_Q4_1:
        product = (float)nibble(b + 4, i, 16) * d;
        return product + half_at(b + 2);
    case QGC_Q5_0:
        return (float)(nibble(b + 6, i, 16) + 16 * fifth_bit(b + 2, i) - 16) * d;
    case QGC_Q5_1:
        product = (float)(nibble(b + 8, i, 16) + 16 * fifth_bit(b + 4, i)) * d;
        return product + half_at(b + 2);
    case QGC_Q4_K:
    case QGC_Q5_K:
        scale_and_minimum(b + 4, i / 32, &scale, &minimum);
        if (t == QGC_Q4_K)
            q = nibble(b + 16, i, 32);
        else
            q = nibble(b + 48, i, 32) + 16 * (b[16 + i % 32] >> i / 32 & 1);
        product = d * (float)scale * (float)q;
        return product - half_at(b + 2) * (float)minimum;
    default: /* Q6_K */
        q = nibble(b, i, 64) | (b[128 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) << 4;
        return half_at(b + 208) * (float)(int8_t)b[192 + i / 16] * (float)(q - 32);
    }
}

static void random_half(uint8_t *p) {
    p[0] = (uint8_t)rand();
    do
        p[1] = (uint8_t)rand();
    while ((p[1] & 0x7C) == 0x7C); /* neither infinity nor NaN */
}

static void blocks_widen_bit_by_bit_as_defined(void **state) {
    (void)state;
    enum { BLOCKS = 5, ROUNDS = 400 };
    static const qgc_dtype types[] = {QGC_Q8_0, QGC_Q4_0, QGC_Q4_1, QGC_Q5_0,
                                      QGC_Q5_1, QGC_Q4_K, QGC_Q5_K, QGC_Q6_K};
    srand(2);
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        qgc_dtype t = types[k];
        ptrdiff_t elems = qgc_dtypes[t].block_elems, bytes = qgc_dtypes[t].block_bytes;
        for (int round = 0; round < ROUNDS; round++) {
            /* one byte off, so that a load that wants alignment is found by the sanitizer */
            uint8_t room[1 + BLOCKS * 256], *src = room + 1;
            float dst[BLOCKS * 256 + 1];
            for (int i = 0; i < BLOCKS * bytes; i++)
                src[i] = (uint8_t)rand();
            for (int b = 0; b < BLOCKS; b++) {
                random_half(src + b * bytes + (t == QGC_Q6_K ? 208 : 0));
                if (t == QGC_Q4_1 || t == QGC_Q5_1 || t == QGC_Q4_K || t == QGC_Q5_K)
                    random_half(src + b * bytes + 2);
            }
            ptrdiff_t n_blocks = round % (BLOCKS + 1);
            for (size_t i = 0; i < sizeof dst / sizeof *dst; i++)
                dst[i] = 12345.0f;
            qgc_to_f32(t, src, dst, n_blocks * elems);
            for (ptrdiff_t i = 0; i < n_blocks * elems; i++)
                assert_int_equal(bits_of(dst[i]),
                                 bits_of(element(t, src + i / elems * bytes, (int)(i % elems))));
            assert_true(dst[n_blocks * elems] == 12345.0f);
        }
    }
}

static void a_scale_that_is_nan_makes_the_block_nan(void **state) {
    (void)state;
    uint8_t block[34] = {0x00, 0x7E, 1, 2, 3};
    float out[32];
    qgc_to_f32(QGC_Q8_0, block, out, 32);
    for (int i = 0; i < 32; i++)
        assert_true(isnan(out[i]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dtypes_are_found_by_name),
        cmocka_unit_test(only_block_formats_are_quantised),
        cmocka_unit_test(bytes_and_rows_follow_the_shape),
        cmocka_unit_test(every_half_widens_by_definition_and_comes_back),
        cmocka_unit_test(halves_round_to_nearest_and_ties_to_even),
        cmocka_unit_test(bf16_rounds_to_nearest_even_and_keeps_nan),
        cmocka_unit_test(rows_narrow_as_single_numbers_do),
        cmocka_unit_test(blocks_widen_bit_by_bit_as_defined),
        cmocka_unit_test(a_scale_that_is_nan_makes_the_block_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
