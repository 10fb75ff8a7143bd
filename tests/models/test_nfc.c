#include <string.h>

#include "models/tokenizer_impl.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"

static char *normalised(qgc_arena *a, const char *text) {
    qgc_nfc nfc = qgc_nfc_new(a);
    qgc_span out = qgc_nfc_apply(&nfc, (qgc_span){text, strlen(text)}, a);
    return qgc_arena_strndup(a, out.text, out.bytes);
}

static void nfc_composes_and_orders(void **state) {
    assert_string_equal(normalised(*state, "cafe\u0301!"), "caf\u00e9!");
    assert_string_equal(normalised(*state, "q\u0307\u0323"), "q\u0323\u0307");
    assert_string_equal(normalised(*state, "\u1112\u1161\u11ab"), "\ud55c");
    assert_string_equal(normalised(*state, "\u212b\u212b"), "\u00c5\u00c5");
    assert_string_equal(normalised(*state, "\u0301a"), "\u0301a");
    assert_string_equal(normalised(*state, "\u00e0\u0323x"), "\u1ea1\u0300x");
}

/* The reference has the tables of Unicode 9: these came later and stay where they are. */
static void nfc_leaves_younger_marks_alone(void **state) {
    assert_string_equal(normalised(*state, "\U00011935\U00011930"), "\U00011935\U00011930");
    assert_string_equal(normalised(*state, "\U000105d2\u0307"), "\U000105d2\u0307");
    assert_string_equal(normalised(*state, "a\u0898\u0323\u0301"), "a\u0898\u0323\u0301");
    assert_string_equal(normalised(*state, "\u0898\u0301\u0323"), "\u0898\u0323\u0301");
}

static void nfc_gives_back_a_text_that_needs_nothing(void **state) {
    const char text[] = "plain \u00e9 \u4e00 \uac00";
    qgc_nfc nfc = qgc_nfc_new(*state);
    assert_ptr_equal(qgc_nfc_apply(&nfc, (qgc_span){text, sizeof text - 1}, *state).text, text);
}

static void nfc_orders_a_long_run_of_marks(void **state) {
    enum { PAIRS = 100000 };
    qgc_str in = qgc_str_new(*state), out = qgc_str_new(*state);
    for (int i = 0; i < PAIRS; i++) {
        qgc_str_add(&in, "\u0302\u0323");
        qgc_str_add(&out, "\u0323");
    }
    for (int i = 0; i < PAIRS; i++)
        qgc_str_add(&out, "\u0302");
    assert_string_equal(normalised(*state, in.text), out.text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(nfc_composes_and_orders),
        ARENA_TEST(nfc_leaves_younger_marks_alone),
        ARENA_TEST(nfc_gives_back_a_text_that_needs_nothing),
        ARENA_TEST(nfc_orders_a_long_run_of_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
