/* What stands in the place of instructions where kernels run on the CPU: conversions against those of graph/base, the product of
 * matrices against a plain one, numbers in digits, and a copy that is not there before somebody waits for it. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/tensor.h"
#include "tests/support/cmocka.h"
#include "tests/support/random.h"

void ptx_multiply(bool bf16, bool by_lanes, const uint16_t *a, const uint16_t *b, float *d);
void ptx_copy(const unsigned char *from, unsigned char *early, unsigned char *late);
float ptx_widen(uint16_t h);
uint16_t ptx_narrow(float f);
unsigned ptx_two(bool bf16, float a, float b);
unsigned ptx_multiply_bytes(bool is_signed, const unsigned *a, const unsigned *b, int *d);
float ptx_digits(const float *from, signed char *to);
void ptx_four_digits(const float *from, signed char *to, int *integers);

static void halves_are_widened_and_narrowed_as_ieee_says(void **state) {
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        const float want = qgc_f16_to_f32((uint16_t)h), got = ptx_widen((uint16_t)h);
        assert_true(isnan(want) ? isnan(got) : want == got && signbit(want) == signbit(got));
        if (!isnan(want))
            assert_int_equal(ptx_narrow(want), h);
    }
    uint64_t seed = 1;
    for (int i = 0; i < 1000000; i++) {
        const uint32_t bits = (uint32_t)test_random(&seed);
        float f;
        memcpy(&f, &bits, sizeof f);
        if (i % 2) /* near what halves can hold */
            f = ldexpf(test_random_float(&seed), (int)(bits % 48) - 28);
        if (isnan(f))
            continue;
        assert_int_equal(ptx_narrow(f), qgc_f32_to_f16(f));
        assert_int_equal(ptx_two(false, f, -f), qgc_f32_to_f16(f) | (unsigned)qgc_f32_to_f16(-f) << 16);
        assert_int_equal(ptx_two(true, f, -f), qgc_f32_to_bf16(f) | (unsigned)qgc_f32_to_bf16(-f) << 16);
    }
    assert_int_equal(ptx_narrow(NAN), 0x7FFF);
}

static void matrices_are_multiplied(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int how = 0; how < 3; how++) {
        const bool bf16 = how > 0, by_lanes = how == 2;
        const qgc_dtype type = bf16 ? QGC_BF16 : QGC_F16;
        float a[16][16], b[16][8], d[16][8];
        uint16_t narrow_a[16 * 16], narrow_b[16 * 8];
        for (int i = 0; i < 256; i++)
            a[i / 16][i % 16] = test_random_float(&seed);
        for (int i = 0; i < 128; i++)
            b[i / 8][i % 8] = test_random_float(&seed);
        qgc_from_f32(type, &a[0][0], narrow_a, 256);
        qgc_from_f32(type, &b[0][0], narrow_b, 128);
        qgc_to_f32(type, narrow_a, &a[0][0], 256);
        qgc_to_f32(type, narrow_b, &b[0][0], 128);
        ptx_multiply(bf16, by_lanes, narrow_a, narrow_b, &d[0][0]);
        for (int i = 0; i < 128; i++) {
            double want = 0;
            for (int k = 0; k < 16; k++)
                want += (double)a[i / 8][k] * b[k][i % 8];
            assert_true(fabs(want - d[i / 8][i % 8]) < 1e-5);
        }
    }
}

/* Byte k of a row of words. */
static int byte_of(const unsigned *words, int k, bool is_signed) {
    const unsigned byte = words[k / 4] >> k % 4 * 8 & 0xFFu;
    return is_signed ? (signed char)byte : (int)byte;
}

static void matrices_of_bytes_are_multiplied(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int is_signed = 0; is_signed < 2; is_signed++) {
        unsigned a[16][8], b[8][8];
        int d[16][8];
        for (int i = 0; i < 128; i++)
            a[i / 8][i % 8] = (unsigned)test_random(&seed);
        for (int i = 0; i < 64; i++)
            b[i / 8][i % 8] = (unsigned)test_random(&seed);
        assert_int_equal(ptx_multiply_bytes(is_signed, a[0], b[0], d[0]), 0x80000000u);
        for (int i = 0; i < 128; i++) {
            int want = 0;
            for (int k = 0; k < 32; k++)
                want += byte_of(a[i / 8], k, is_signed) * byte_of(b[i % 8], k, true);
            assert_int_equal(d[i / 8][i % 8], want);
        }
    }
}

/* Of numbers up to the largest float, and of those around a power of two, where integers are largest. */
static void digits_keep_22_bits_of_the_largest(void **state) {
    (void)state;
    uint64_t seed = 4;
    for (int i = 0; i < 1000000; i++) {
        float x[4], largest = 0;
        signed char digit[3][4];
        for (int k = 0; k < 4; k++) {
            x[k] = ldexpf(test_random_float(&seed) - 0.5f, i % 170 - 50);
            if (i % 3 == k)
                x[k] = copysignf(nextafterf(ldexpf(1, i % 170 - 50), i % 2 ? 0 : INFINITY), x[k]);
            largest = fmaxf(largest, fabsf(x[k]));
        }
        const float unit = ptx_digits(x, digit[0]);
        for (int k = 0; k < 4; k++) {
            const int n = digit[0][k] + 256 * digit[1][k] + 65536 * digit[2][k];
            assert_true(fabs((double)unit * n - (double)x[k]) <= 0x1p-21 * (double)largest);
        }
    }
}

/* What a lane of an MMA gets of two digits of a block of four such bytes, eight times over. */
static int64_t of_two_digits(const signed char (*digit)[4][4], const int *low, const int *high, int first) {
    int64_t sum = 0;
    for (int k = 0; k < 4; k++)
        for (int d = first; d < first + 2; d++)
            sum += (int64_t)(d > first ? 256 : 1) *
                   (low[k] * digit[0][d][k] + (low[k] + 16 * high[k]) * digit[1][d][k]);
    return 4 * sum;
}

/* Quants that are not shifted: products are exact, and the sums of two digits of a block fit into an integer. Numbers of any size and
 * sign, among them the largest ones for their factor; quants of all kinds, among them the smallest and the largest ones. */
static void products_of_bytes_of_two_quants_are_exact(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (int i = 0; i < 300000; i++) {
        float x[8];
        for (int k = 0; k < 8; k++) {
            const uint64_t bits = test_random(&seed);
            x[k] = ldexpf(test_random_float(&seed) - 0.5f, (int)(bits % 3 ? 0 : bits / 3 % 24) - 20);
            if (bits / 72 % 4 == 0)
                x[k] = copysignf(nextafterf(2.0f, 0), x[k]);
            if (i % 7 == 0)
                x[k] = k / 4 == i / 7 % 2 ? nextafterf(2.0f, 0) : -nextafterf(2.0f, 0);
        }
        int integers[2][4], low[4], high[4];
        signed char digit[2][4][4];
        ptx_four_digits(x, digit[0][0], integers[0]);
        for (int k = 0; k < 4; k++) {
            const uint64_t bits = test_random(&seed);
            low[k] = i % 5 == 0 ? 15 : i % 5 == 1 ? 0 : (int)(bits % 16);
            high[k] = i % 10 == 0 || i % 10 == 1   ? 15
                      : i % 10 == 5 || i % 10 == 6 ? 0
                                                   : (int)(bits / 16 % 16);
        }
        int64_t want = 0;
        for (int k = 0; k < 4; k++)
            want += 4 * 16 * ((int64_t)low[k] * integers[0][k] + (int64_t)high[k] * integers[1][k]);
        const int64_t lower = of_two_digits((const signed char(*)[4][4])digit, low, high, 0),
                      upper = of_two_digits((const signed char(*)[4][4])digit, low, high, 2);
        assert_true(llabs(lower) <= INT32_MAX && llabs(upper) < 1 << 24);
        assert_true(lower + 65536 * upper == want);
        for (int k = 0; k < 8; k++)
            assert_true(llabs((int64_t)integers[k / 4][k % 4]) * 32 * 16 <=
                        INT32_MAX); /* times 16, added up over a block */
    }
}

static void digits_of_what_is_no_number_stand_for_none(void **state) {
    (void)state;
    static const float none[] = {NAN, INFINITY, -INFINITY, -NAN};
    signed char digit[12];
    for (int i = 0; i < 16; i++) {
        float x[4] = {1, -2, 3, 4};
        x[i % 4] = none[i / 4];
        assert_true(isnan(ptx_digits(x, digit)));
    }
    assert_true(isfinite(ptx_digits((const float[4]){0, 0, 0, 0}, digit)));
    for (int i = 0; i < 12; i++)
        assert_int_equal(digit[i], 0);
}

static void a_copy_is_there_when_it_was_waited_for(void **state) {
    (void)state;
    unsigned char from[16], early[16], late[16];
    memset(from, 7, sizeof from);
    ptx_copy(from, early, late);
    assert_memory_not_equal(early, from, sizeof from);
    assert_memory_equal(late, from, sizeof from);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_are_widened_and_narrowed_as_ieee_says),
        cmocka_unit_test(matrices_are_multiplied),
        cmocka_unit_test(matrices_of_bytes_are_multiplied),
        cmocka_unit_test(digits_keep_22_bits_of_the_largest),
        cmocka_unit_test(products_of_bytes_of_two_quants_are_exact),
        cmocka_unit_test(digits_of_what_is_no_number_stand_for_none),
        cmocka_unit_test(a_copy_is_there_when_it_was_waited_for),
    };
    return cmocka_run_group_tests_name("kernels/ptx", tests, NULL, NULL);
}
