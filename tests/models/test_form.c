#include <string.h>

#include "models/bind.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/fake_weights.h"
#include "tests/support/printed.h"

/* Weights that are not one tensor of the file as it stands there. The numbers of a tensor count up from 0. */

static float numbers[64];
static uint16_t halves[64]; /* bf16 */

static const qgc_tensor tensors[] = {
    {.name = "matrix", .rank = 2, .shape = {12, 2}, .data = numbers, .bytes = 96},
    {.name = "bias", .rank = 1, .shape = {12}, .data = numbers, .bytes = 48},
    {.name = "e.0.w", .rank = 2, .shape = {2, 3}, .data = numbers, .bytes = 24},
    {.name = "e.1.w", .rank = 2, .shape = {2, 3}, .data = numbers + 6, .bytes = 24},
    {.name = "norm", .rank = 1, .shape = {4}, .dtype = QGC_BF16, .data = halves, .bytes = 8},
    {.name = "x.inv_freq", .rank = 1, .shape = {4}, .data = numbers, .bytes = 16},
};

static const qgc_weights file = {
    .kind = QGC_WEIGHTS_HF, .path = "file", .arch = "none", .tensors = tensors, .n_tensors = 6};

static qgc_status bind(qgc_arena *a, const qgc_weight_want *wants, size_t n, const qgc_tensor **found,
                       qgc_diag *d) {
    static const char *const ignored[] = {"*.inv_freq"};
    const qgc_bind_request r = {.arch = "none",
                                .weights = wants,
                                .n_weights = n,
                                .ignored = ignored,
                                .n_ignored = 1,
                                .allow_unused = true,
                                .arena = a};
    *d = qgc_diag_new(a);
    return qgc_bind(&file, &r, found, d);
}

/* One weight, and other ones that take the rest of its tensor. */
static void check(qgc_arena *a, const qgc_weight_want *wants, size_t n, const float *expected,
                  size_t n_expected) {
    const qgc_tensor *found[4] = {0};
    qgc_diag d;
    if (bind(a, wants, n, found, &d) != QGC_OK)
        fail_msg("%s", qgc_test_printed(a, &d));
    assert_int_equal(found[0]->bytes, n_expected * sizeof(float));
    for (size_t i = 0; i < n_expected; i++)
        assert_true(((const float *)found[0]->data)[i] == expected[i]);
}

#define WANT(tensor, ...) \
    { .label = "w", .hf = tensor, .tied = -1, __VA_ARGS__ }
#define SHAPE2(a, b) .rank = 2, .shape = {a, b}
#define ROWS(a, b, n) .hf_form = {.first = a, .last = b, .of = n}

static void rows_that_lie_together_are_not_copied(void **state) {
    const qgc_weight_want wants[] = {WANT("matrix", SHAPE2(4, 2), ROWS(2, 6, 0)),
                                     WANT("matrix", SHAPE2(2, 2), ROWS(0, 2, 0)),
                                     WANT("matrix", SHAPE2(6, 2), ROWS(6, 12, 0))};
    check(*state, wants, 3, (const float[]){4, 5, 6, 7, 8, 9, 10, 11}, 8);
    const qgc_tensor *found[3];
    qgc_diag d;
    assert_int_equal(bind(*state, wants, 3, found, &d), QGC_OK);
    assert_ptr_equal(found[0]->data, numbers + 4);
}

static void rows_are_taken_by_turns(void **state) {
    const qgc_weight_want wants[] = {WANT("matrix", SHAPE2(4, 2), ROWS(1, 3, 6)),
                                     WANT("matrix", SHAPE2(2, 2), ROWS(0, 1, 6)),
                                     WANT("matrix", SHAPE2(6, 2), ROWS(3, 6, 6))};
    check(*state, wants, 3, (const float[]){2, 3, 4, 5, 14, 15, 16, 17}, 8);
    const qgc_weight_want vectors[] = {WANT("bias", .rank = 1, .shape = {4}, ROWS(1, 2, 3)),
                                       WANT("bias", .rank = 1, .shape = {4}, ROWS(0, 1, 3)),
                                       WANT("bias", .rank = 1, .shape = {4}, ROWS(2, 3, 3))};
    check(*state, vectors, 3, (const float[]){1, 4, 7, 10}, 4);
}

/* Of two heads of six rows: rows 0 2 4 and 1 3 5 of each become its halves. */
static void rows_of_heads_are_put_back(void **state) {
    const qgc_weight_want want = WANT("bias", .rank = 1, .shape = {12}, .hf_form = {.heads = 2});
    check(*state, &want, 1, (const float[]){0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11}, 12);
    const qgc_weight_want matrix = WANT("matrix", SHAPE2(12, 2), .hf_form = {.heads = 3});
    check(*state, &matrix, 1, (const float[]){0,  1,  4,  5,  2,  3,  6,  7,  8,  9,  12, 13,
                                              10, 11, 14, 15, 16, 17, 20, 21, 18, 19, 22, 23},
          24);
}

static void a_matrix_is_transposed_before_rows_are_taken(void **state) {
    const qgc_weight_want wants[] = {
        WANT("matrix", SHAPE2(1, 12), .hf_form = {.transposed = true, .first = 1, .last = 2}),
        WANT("matrix", SHAPE2(1, 12), .hf_form = {.transposed = true, .first = 0, .last = 1})};
    check(*state, wants, 2, (const float[]){1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23}, 12);
}

static void fails(qgc_arena *a, const qgc_weight_want *wants, size_t n, const char *message) {
    const qgc_tensor *found[4] = {0};
    qgc_diag d;
    assert_int_equal(bind(a, wants, n, found, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_diag_message(&d), message);
}

static void a_vector_may_be_a_matrix_of_one_row(void **state) {
    const qgc_weight_want row = WANT("bias", SHAPE2(1, 12)), column = WANT("bias", SHAPE2(12, 1));
    check(*state, &row, 1, (const float[]){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 12);
    fails(*state, &column, 1, "weight \"w\" is [12, 1], but tensor \"bias\" of \"file\" is [12]");
}

static void tensors_are_stacked(void **state) {
    const qgc_weight_want want =
        WANT("e.{e}.w", .rank = 3, .shape = {2, 2, 3}, .hf_form = {.stacked_index = "e", .stacked = 2});
    check(*state, &want, 1, (const float[]){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 12);
}

static void the_first_name_that_is_there_counts(void **state) {
    const qgc_weight_want second = WANT("bias.x|bias", .rank = 1, .shape = {12});
    const qgc_weight_want first = WANT("e.{e}.w|f.{e}.w", .rank = 3, .shape = {2, 2, 3},
                                       .hf_form = {.stacked_index = "e", .stacked = 2});
    const qgc_weight_want none = WANT("bias.x|bias.y", .rank = 1, .shape = {12});
    check(*state, &second, 1, (const float[]){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 12);
    check(*state, &first, 1, (const float[]){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 12);
    fails(*state, &none, 1, "weight \"w\" is missing: \"file\" has no tensor \"bias.x\"");
}

static void a_number_is_added_in_f32(void **state) {
    const qgc_weight_want want = WANT("norm", .rank = 1, .shape = {4}, .hf_form = {.plus = 1});
    check(*state, &want, 1, (const float[]){1.0078125f, 1.5f, 1.0f, 1.0009765625f}, 4);
}

static void what_does_not_fit_is_refused(void **state) {
    const qgc_weight_want far = WANT("matrix", SHAPE2(4, 2), ROWS(10, 14, 0));
    fails(
        *state, &far, 1,
        "weight \"w\" cannot be made of tensor \"matrix\" of \"file\": it has 12 rows, and rows 10 to 13 of each 12 are wanted");
    const qgc_weight_want odd = WANT("matrix", SHAPE2(4, 2), ROWS(0, 5, 5));
    fails(
        *state, &odd, 1,
        "weight \"w\" cannot be made of tensor \"matrix\" of \"file\": it has 12 rows, and rows 0 to 4 of each 5 are wanted");
    const qgc_weight_want heads = WANT("matrix", SHAPE2(12, 2), .hf_form = {.heads = 4});
    fails(*state, &heads, 1,
          "weight \"w\" cannot be made of tensor \"matrix\" of \"file\": it has no pairs of rows in 4 heads");
    const qgc_weight_want more =
        WANT("e.{e}.w", .rank = 3, .shape = {3, 2, 3}, .hf_form = {.stacked_index = "e", .stacked = 3});
    fails(*state, &more, 1, "weight \"w\" is missing: \"file\" has no tensor \"e.2.w\"");
}

static void rows_left_over_are_refused(void **state) {
    const qgc_weight_want part[] = {WANT("matrix", SHAPE2(4, 2), ROWS(0, 4, 0)),
                                    WANT("matrix", SHAPE2(4, 2), ROWS(4, 8, 0))};
    fails(*state, part, 2, "weights are made of 8 rows of tensor \"matrix\" of \"file\", which has 12");
}

static void tensors_of_no_use_are_told_by_pattern(void **state) {
    const qgc_weight_want all[] = {
        WANT("matrix", SHAPE2(12, 2), .at = {0}), WANT("bias", .rank = 1, .shape = {12}),
        WANT("e.{e}.w", .rank = 3, .shape = {2, 2, 3}, .hf_form = {.stacked_index = "e", .stacked = 2}),
        WANT("norm", .rank = 1, .shape = {4})};
    static const char *const patterns[][1] = {{"*.inv_freq"}, {"x.*"},      {"*inv*"}, {"x.inv_freq"},
                                              {"*.inv"},      {"inv_freq"}, {"x.*q*z"}};
    for (size_t i = 0; i < 7; i++) {
        const qgc_bind_request r = {.arch = "none",
                                    .weights = all,
                                    .n_weights = 4,
                                    .ignored = patterns[i],
                                    .n_ignored = 1,
                                    .arena = *state};
        const qgc_tensor *found[4];
        qgc_diag d = qgc_diag_new(*state);
        assert_int_equal(qgc_bind(&file, &r, found, &d), i < 4 ? QGC_OK : QGC_ERR_INPUT);
    }
}

int main(void) {
    for (int i = 0; i < 64; i++)
        numbers[i] = (float)i;
    halves[0] = qgc_f32_to_bf16(0.0078125f);
    halves[1] = qgc_f32_to_bf16(0.5f);
    halves[3] = qgc_f32_to_bf16(0.0009765625f);
    const struct CMUnitTest tests[] = {
        ARENA_TEST(rows_that_lie_together_are_not_copied),
        ARENA_TEST(rows_are_taken_by_turns),
        ARENA_TEST(rows_of_heads_are_put_back),
        ARENA_TEST(a_matrix_is_transposed_before_rows_are_taken),
        ARENA_TEST(a_vector_may_be_a_matrix_of_one_row),
        ARENA_TEST(tensors_are_stacked),
        ARENA_TEST(the_first_name_that_is_there_counts),
        ARENA_TEST(a_number_is_added_in_f32),
        ARENA_TEST(what_does_not_fit_is_refused),
        ARENA_TEST(rows_left_over_are_refused),
        ARENA_TEST(tensors_of_no_use_are_told_by_pattern),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
