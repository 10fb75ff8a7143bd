#include <stdbool.h>
#include <string.h>

#include "graph/base/utf8.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"

static bool is_scalar(uint32_t c) {
    return c < 0xD800 || (c >= 0xE000 && c <= 0x10FFFF);
}

static void every_code_point_survives_encoding_and_decoding(void **state) {
    (void)state;
    for (uint32_t c = 0; c <= 0x110000; c++) {
        char bytes[4];
        uint32_t back = 0;
        int n = qgc_utf8_encode(c & 0x1FFFFF, bytes);
        int read = qgc_utf8_decode(bytes, (size_t)n, &back);
        assert_int_equal(read, is_scalar(c) ? n : 0);
        assert_int_equal(back, is_scalar(c) ? c : 0);
        assert_int_equal(qgc_utf8_check(bytes, (size_t)n), is_scalar(c) ? n : 0);
        for (int cut = 0; cut < n; cut++)
            assert_int_equal(qgc_utf8_decode(bytes, (size_t)cut, &back), 0);
    }
}

static void stream_gives_a_character_out_with_its_last_byte(void **state) {
    qgc_str out = qgc_str_new(*state);
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        if (!is_scalar(c))
            continue;
        char bytes[4];
        int n = qgc_utf8_encode(c, bytes);
        qgc_utf8_stream s = {0};
        qgc_str_clear(&out);
        for (int i = 0; i < n; i++) {
            assert_int_equal(out.bytes, 0);
            qgc_utf8_push(&s, bytes + i, 1, &out);
        }
        assert_int_equal(out.bytes, n);
        assert_memory_equal(out.text, bytes, (size_t)n);
        qgc_utf8_finish(&s, &out);
        assert_int_equal(out.bytes, n);
    }
}

/* Unicode 15, section 3.9, tables 3-8 to 3-11, and unfinished ends. R is the replacement character. */
#define R "\xEF\xBF\xBD"
static const struct {
    const char *in, *out;
} broken[] = {
    {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", R R R R R R R R "A"},
    {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", R R R R R R R R "A"},
    {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", R R R R R "A" R R "B"},
    {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", R R R R "A"},
    {"\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64", "a" R R R "b" R "c" R R "d"},
    {"x\xF0\x9F\x98", "x" R},
    {"\xE2\x82", R},
    {"\xC3", R},
    {"\xF0\x9F\xF0\x9F\x98\x80", R "\xF0\x9F\x98\x80"},
};

static void stream_replaces_what_is_broken_however_it_is_cut(void **state) {
    qgc_str out = qgc_str_new(*state);
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        size_t n = strlen(broken[i].in);
        for (size_t cut = 0; cut <= n; cut++) {
            qgc_utf8_stream s = {0};
            qgc_str_clear(&out);
            qgc_utf8_push(&s, broken[i].in, cut, &out);
            qgc_utf8_push(&s, broken[i].in + cut, n - cut, &out);
            qgc_utf8_finish(&s, &out);
            assert_string_equal(out.text, broken[i].out);
        }
    }
}

/* Whatever comes in, what goes out is UTF-8, and what was UTF-8 goes out unchanged. */
static void stream_of_any_three_bytes_gives_utf8(void **state) {
    qgc_str out = qgc_str_new(*state);
    for (uint32_t v = 0; v < 0x1000000;
         v += v % 0x100 == 0xC0 ? 0x3F : 1) { /* the last byte matters up to 0xC0 */
        const char in[] = {(char)(v >> 16), (char)(v >> 8), (char)v};
        qgc_utf8_stream s = {0};
        qgc_str_clear(&out);
        qgc_utf8_push(&s, in, sizeof in, &out);
        qgc_utf8_finish(&s, &out);
        if (qgc_utf8_check(out.text, out.bytes) != out.bytes)
            fail_msg("%06x does not come out as UTF-8", (unsigned)v);
        bool valid = qgc_utf8_check(in, sizeof in) == sizeof in;
        if (valid != (out.bytes == sizeof in && memcmp(out.text, in, sizeof in) == 0) &&
            memcmp(in, R, sizeof in) != 0)
            fail_msg("%06x is valid: %d", (unsigned)v, valid);
    }
}

static void check_names_the_first_bad_byte(void **state) {
    (void)state;
    char text[64];
    for (size_t bad = 0; bad < sizeof text; bad++) {
        memset(text, 'a', sizeof text);
        text[bad] = (char)0xFF;
        assert_int_equal(qgc_utf8_check(text, sizeof text), bad);
        text[bad] = (char)0xC3; /* wants one byte more, and gets an 'a' or nothing */
        assert_int_equal(qgc_utf8_check(text, sizeof text), bad);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_survives_encoding_and_decoding),
        ARENA_TEST(stream_gives_a_character_out_with_its_last_byte),
        ARENA_TEST(stream_replaces_what_is_broken_however_it_is_cut),
        ARENA_TEST(stream_of_any_three_bytes_gives_utf8),
        cmocka_unit_test(check_names_the_first_bad_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
