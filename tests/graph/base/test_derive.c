#include <math.h>
#include <string.h>

#include "graph/base/derive.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"

static const float matrix[] = {1, 2, 3, 4, 5, 6}, other[] = {7, 8, 9, 10, 11, 12}, vector[] = {2, -1, 0.5f},
                   short_vector[] = {3}, bias[] = {100, 200};

static const qgc_tensor a = {.dtype = QGC_F32, .rank = 2, .shape = {2, 3}, .data = matrix, .bytes = 24},
                        b = {.dtype = QGC_F32, .rank = 2, .shape = {2, 3}, .data = other, .bytes = 24},
                        v = {.dtype = QGC_F32, .rank = 1, .shape = {3}, .data = vector, .bytes = 12},
                        one = {.dtype = QGC_F32, .rank = 1, .shape = {1}, .data = short_vector, .bytes = 4},
                        two = {.dtype = QGC_F32, .rank = 1, .shape = {2}, .data = bias, .bytes = 8};

typedef struct {
    qgc_derivation how;
    const qgc_tensor *from[QGC_MAX_SOURCES];
    int rank;
    int64_t shape[2];
    double want[12];
} derive_case;

static const derive_case cases[] = {
    {{.kind = QGC_DERIVE_CONCAT_ROWS, .n_from = 2},
     {&a, &b},
     2,
     {4, 3},
     {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
    {{.kind = QGC_DERIVE_CONCAT_COLUMNS, .n_from = 2},
     {&a, &b},
     2,
     {2, 6},
     {1, 2, 3, 7, 8, 9, 4, 5, 6, 10, 11, 12}},
    {{.kind = QGC_DERIVE_CONCAT_ROWS, .n_from = 3}, {&v, &one, &two}, 1, {6}, {2, -1, 0.5, 3, 100, 200}},
    {{.kind = QGC_DERIVE_ROWS, .n_from = 1, .first = 1, .last = 2}, {&a}, 2, {1, 3}, {4, 5, 6}},
    {{.kind = QGC_DERIVE_ROWS, .n_from = 1, .first = 1, .last = 3}, {&v}, 1, {2}, {-1, 0.5}},
    {{.kind = QGC_DERIVE_COLUMNS, .n_from = 1, .first = 1, .last = 3}, {&b}, 2, {2, 2}, {8, 9, 11, 12}},
    {{.kind = QGC_DERIVE_SCALE, .n_from = 1, .factor = -2}, {&a}, 2, {2, 3}, {-2, -4, -6, -8, -10, -12}},
    {{.kind = QGC_DERIVE_SCALE_COLUMNS, .n_from = 2}, {&a, &v}, 2, {2, 3}, {2, -2, 1.5, 8, -5, 3}},
    {{.kind = QGC_DERIVE_SCALE_COLUMNS, .n_from = 2}, {&a, &one}, 2, {2, 3}, {3, 6, 9, 12, 15, 18}},
    {{.kind = QGC_DERIVE_THROUGH, .n_from = 2}, {&a, &v}, 1, {2}, {1.5, 6}},
    {{.kind = QGC_DERIVE_THROUGH, .n_from = 3}, {&a, &v, &two}, 1, {2}, {101.5, 206}},
    {{.kind = QGC_DERIVE_THROUGH, .n_from = 2, .head_dim = 1},
     {&a, &one},
     1,
     {2},
     {18, 45}}, /* 3 heads share 1 */
    {{.kind = QGC_DERIVE_FILL, .n_from = 1, .factor = 1}, {&v}, 1, {3}, {1, 1, 1}},
};

static void each_kind_makes_its_numbers(void **state) {
    fixture *f = *state;
    qgc_pool *pool = qgc_pool_new(2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const derive_case *c = &cases[i];
        qgc_derive_source sources[QGC_MAX_SOURCES] = {{0}};
        qgc_tensor t = {.name = "t"};
        double reals[12];
        float stored[12];
        const char *why = qgc_derive_shape(&c->how, c->from, &t, f->arena);
        if (why)
            fail_msg("case %zu: %s", i, why);
        assert_int_equal(t.rank, c->rank);
        assert_memory_equal(t.shape, c->shape, (size_t)t.rank * sizeof *t.shape);
        for (int k = 0; k < c->how.n_from; k++)
            sources[k].tensor = c->from[k];
        qgc_derive_double(&c->how, sources, &t, reals, pool);
        t.data = stored;
        assert_true(qgc_derive_stored(&c->how, c->from, &t, NULL));
        for (size_t k = 0; k < t.bytes / sizeof *stored; k++)
            if (reals[k] != c->want[k] || (double)stored[k] != c->want[k])
                fail_msg("case %zu, element %zu is %g and %g, not %g", i, k, reals[k], (double)stored[k],
                         c->want[k]);
    }
    qgc_pool_drop(pool);
}

/* Heads of 2 elements, of which three of the matrix share one of the vector. */
static void a_vector_goes_through_heads_that_share_it(void **state) {
    fixture *f = *state;
    float w[12], x[4] = {1, 10, 100, 1000}, got;
    for (int i = 0; i < 12; i++)
        w[i] = (float)(1 << i);
    const qgc_tensor m = {.dtype = QGC_F32, .rank = 2, .shape = {1, 12}, .data = w, .bytes = sizeof w},
                     vec = {.dtype = QGC_F32, .rank = 1, .shape = {4}, .data = x, .bytes = sizeof x};
    const qgc_tensor *from[] = {&m, &vec};
    const qgc_derivation how = {.kind = QGC_DERIVE_THROUGH, .n_from = 2, .head_dim = 2};
    qgc_tensor t = {.name = "t"};
    assert_null(qgc_derive_shape(&how, from, &t, f->arena));
    t.data = &got;
    assert_true(qgc_derive_stored(&how, from, &t, NULL));
    const double want =
        (1 + 4 + 16) + 10.0 * (2 + 8 + 32) + 100.0 * (64 + 256 + 1024) + 1000.0 * (128 + 512 + 2048);
    assert_true((double)got == want);
}

/* Q8_0 has blocks of 32 elements in 34 bytes. */
static void blocks_are_copied_as_they_are(void **state) {
    fixture *f = *state;
    unsigned char data[4 * 2 * 34], got[4 * 34];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 7);
    const qgc_tensor q = {.dtype = QGC_Q8_0, .rank = 2, .shape = {4, 64}, .data = data, .bytes = sizeof data};
    const qgc_tensor *from[] = {&q, &q};
    qgc_tensor t = {.data = got};
    const qgc_derivation rows = {.kind = QGC_DERIVE_ROWS, .n_from = 1, .first = 1, .last = 3},
                         columns = {.kind = QGC_DERIVE_COLUMNS, .n_from = 1, .first = 32, .last = 64},
                         cut = {.kind = QGC_DERIVE_COLUMNS, .n_from = 1, .first = 16, .last = 48};
    assert_null(qgc_derive_shape(&rows, from, &t, f->arena));
    assert_int_equal(t.dtype, QGC_Q8_0);
    assert_true(qgc_derive_stored(&rows, from, &t, NULL));
    assert_memory_equal(got, data + 2 * 34, sizeof got);
    assert_null(qgc_derive_shape(&columns, from, &t, f->arena));
    assert_int_equal(t.dtype, QGC_Q8_0);
    assert_true(qgc_derive_stored(&columns, from, &t, NULL));
    for (size_t r = 0; r < 4; r++)
        assert_memory_equal(got + r * 34, data + (2 * r + 1) * 34, 34);
    assert_null(qgc_derive_shape(&cut, from, &t, f->arena));
    assert_int_equal(t.dtype, QGC_F32); /* blocks cannot be cut */
}

static void numbers_are_rounded_to_what_is_asked_for(void **state) {
    fixture *f = *state;
    const float large[] = {60000, 1}, third[] = {1.0f / 3};
    uint16_t got[2];
    const qgc_tensor x = {.dtype = QGC_F32, .rank = 1, .shape = {2}, .data = large, .bytes = 8},
                     y = {.dtype = QGC_F32, .rank = 1, .shape = {1}, .data = third, .bytes = 4};
    const qgc_tensor *from[] = {&x}, *small[] = {&y};
    const qgc_derivation twice = {.kind = QGC_DERIVE_SCALE, .n_from = 1, .factor = 2};
    qgc_tensor t = {.data = got};
    assert_null(qgc_derive_shape(&twice, from, &t, f->arena));
    t.dtype = QGC_F16;
    assert_false(qgc_derive_stored(&twice, from, &t, NULL)); /* 120000 is too large */
    t.dtype = QGC_BF16;
    assert_true(qgc_derive_stored(&twice, from, &t, NULL));
    assert_null(qgc_derive_shape(&twice, small, &t, f->arena));
    t.dtype = QGC_BF16;
    assert_true(qgc_derive_stored(&twice, small, &t, NULL));
    assert_int_equal(got[0], qgc_f32_to_bf16(2.0f / 3));
}

static void says_why_sources_do_not_fit(void **state) {
    fixture *f = *state;
    static const struct {
        qgc_derivation how;
        const qgc_tensor *from[QGC_MAX_SOURCES];
        const char *why;
    } bad[] = {
        {{.kind = QGC_DERIVE_CONCAT_ROWS, .n_from = 1}, {&a}, "concat_rows is made of 2 weights, not 1"},
        {{.kind = QGC_DERIVE_SCALE, .n_from = 2}, {&a, &b}, "scale is made of 1 weights, not 2"},
        {{.kind = QGC_DERIVE_CONCAT_ROWS, .n_from = 2},
         {&a, &v},
         "a vector and a matrix cannot be put together"},
        {{.kind = QGC_DERIVE_COLUMNS, .n_from = 1, .first = 0, .last = 1}, {&v}, "it is made of a matrix"},
        {{.kind = QGC_DERIVE_ROWS, .n_from = 1, .first = 1, .last = 3}, {&a}, "1 to 2 is not within 2"},
        {{.kind = QGC_DERIVE_SCALE_COLUMNS, .n_from = 2},
         {&a, &two},
         "rows of 3 columns are no multiple of 2 numbers"},
        {{.kind = QGC_DERIVE_THROUGH, .n_from = 2},
         {&a, &two},
         "2 numbers do not go through a matrix of 3 columns"},
        {{.kind = QGC_DERIVE_THROUGH, .n_from = 3},
         {&a, &v, &v},
         "the bias has another number of rows than the matrix"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        qgc_tensor t = {.name = "t"};
        const char *why = qgc_derive_shape(&bad[i].how, bad[i].from, &t, f->arena);
        assert_non_null(why);
        assert_string_equal(why, bad[i].why);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(each_kind_makes_its_numbers),   FIXTURE_TEST(a_vector_goes_through_heads_that_share_it),
        FIXTURE_TEST(blocks_are_copied_as_they_are), FIXTURE_TEST(numbers_are_rounded_to_what_is_asked_for),
        FIXTURE_TEST(says_why_sources_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
