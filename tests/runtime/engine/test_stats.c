#include <math.h>

#include "runtime/engine/stats.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"

static void assert_near(double got, double want, double tolerance) {
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%.17g is not %.17g", got, want);
}

static void percentiles_lie_between_neighbours(void **state) {
    const double x[] = {9, 1, 4, 2, 7}; /* 1 2 4 7 9 */
    assert_near(qgc_median(x, 5, *state), 4, 0);
    assert_near(qgc_median(x, 4, *state), 3, 0); /* 1 2 4 9 */
    assert_near(qgc_percentile(x, 5, 0, *state), 1, 0);
    assert_near(qgc_percentile(x, 5, 100, *state), 9, 0);
    assert_near(qgc_percentile(x, 5, 25, *state), 2, 0);
    assert_near(qgc_percentile(x, 5, 90, *state), 8.2, 1e-12);
    assert_near(qgc_median(x, 1, *state), 9, 0);
    assert_true(x[0] == 9); /* what was given stays as it is */
}

static void not_a_number_is_not_left_out_of_a_percentile(void **state) {
    for (int at = 0; at < 5; at++) {
        double x[] = {1, 2, 3, 4, 5};
        x[at] = NAN;
        assert_true(isnan(qgc_median(x, 5, *state)));
        assert_true(isnan(qgc_percentile(x, 5, 0, *state)));
        qgc_interval i = qgc_median_interval(x, 5, *state);
        assert_true(isnan(i.median) && isnan(i.low) && isnan(i.high));
    }
    assert_true(isnan(qgc_median(NULL, 0, *state)));
    assert_true(isnan(qgc_median_interval(NULL, 0, *state).low));
}

/* The largest k with 2 P(B < k) <= 0.05, from whole numbers: 2 * (1 + 8 + ...) <= 0.05 * 2^n. */
static void the_ranks_of_an_interval_are_those_of_the_sign_test(void **state) {
    (void)state;
    static const struct {
        size_t n, rank;
    } cases[] = {{0, 0},  {1, 0},  {5, 0},  {6, 1},   {8, 1},   {9, 2},   {10, 2},   {12, 3},     {15, 4},
                 {17, 5}, {20, 6}, {25, 8}, {30, 10}, {40, 14}, {50, 18}, {100, 40}, {4000, 1938}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (qgc_interval_rank(cases[i].n) != cases[i].rank)
            fail_msg("rank %zu for n = %zu, not %zu", qgc_interval_rank(cases[i].n), cases[i].n,
                     cases[i].rank);
}

static void an_interval_is_of_ranks(void **state) {
    const double x[] = {10, 3, 7, 1, 9, 2, 8, 4, 6, 5};
    qgc_interval i = qgc_median_interval(x, 10, *state);
    assert_near(i.median, 5.5, 0);
    assert_near(i.low, 2, 0);
    assert_near(i.high, 9, 0);
    i = qgc_median_interval(x, 5, *state);
    assert_near(i.median, 7, 0);
    assert_true(i.low == -INFINITY && i.high == INFINITY);
}

/* Of a skewed distribution, whose median is log 2. */
static void intervals_hold_the_median_as_often_as_they_say(void **state) {
    enum { TRIALS = 2000, N = 21 };
    uint64_t seed = 7;
    int held = 0;
    for (int t = 0; t < TRIALS; t++) {
        double x[N];
        for (int i = 0; i < N; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            x[i] = -log(((double)(seed >> 11) + 0.5) / 9007199254740992.0);
        }
        qgc_interval i = qgc_median_interval(x, N, *state);
        held += i.low <= log(2) && log(2) <= i.high;
    }
    assert_true(held >= 1900 && held <= 1960); /* 97.3% is expected of n = 21 */
}

static void equal_logits_have_no_drift(void **state) {
    (void)state;
    const double x[] = {1, -2, 3.5f, -INFINITY, 0};
    qgc_drift d = qgc_drift_of(x, x, 5);
    assert_true(d.max_drift == 0 && d.squares == 0 && d.kl_sum == 0 && d.kl_max == 0);
    assert_int_equal(d.flips, 0);
    assert_int_equal(d.positions, 1);
}

static void divergence_is_that_of_known_distributions(void **state) {
    (void)state;
    /* p = 1/2 1/4 1/4, q = 1/3 1/3 1/3: KL = log 3 - 3/2 log 2; a shift of all logits changes no probability */
    const double p[] = {log(2), 0, 0}, q[] = {5, 5, 5};
    qgc_drift d = qgc_drift_of(p, q, 3);
    assert_near(d.kl_max, log(3) - 1.5 * log(2), 1e-7);
    assert_near(d.max_drift, 5, 1e-7);
    assert_near(qgc_drift_rms(&d), sqrt((pow(5 - log(2), 2) + 50) / 3), 1e-6);
    assert_int_equal(d.flips, 0); /* the lowest of equals */
    d = qgc_drift_of(q, p, 3);
    assert_near(d.kl_max, (log(2.0 / 3) + 2 * log(4.0 / 3)) / 3, 1e-7);
}

static void divergence_of_large_logits_does_not_overflow(void **state) {
    (void)state;
    const double p[] = {1e4f, 0}, q[] = {1e4f, -5e3f};
    qgc_drift d = qgc_drift_of(p, q, 2);
    assert_near(d.kl_max, 0, 0);
    const double r[] = {0, 1e4f};
    assert_near(qgc_drift_of(p, r, 2).kl_max, 2e4 - 1e4, 1e-9);
    assert_int_equal(qgc_drift_of(p, r, 2).flips, 1);
}

/* What the reference thinks possible and the other one does not. */
static void divergence_is_infinite_where_the_other_excludes_a_token(void **state) {
    (void)state;
    const double p[] = {0, 0}, q[] = {0, -INFINITY};
    assert_true(qgc_drift_of(p, q, 2).kl_max == INFINITY);
    assert_true(qgc_drift_of(p, q, 2).max_drift == INFINITY);
}

static void not_a_number_in_logits_is_drift(void **state) {
    (void)state;
    const double good[] = {1, 2, 3};
    for (int at = 0; at < 3; at++)
        for (int side = 0; side < 2; side++) {
            double bad[] = {1, 2, 3};
            bad[at] = NAN;
            qgc_drift d = side ? qgc_drift_of(good, bad, 3) : qgc_drift_of(bad, good, 3);
            assert_true(isnan(d.max_drift) && isnan(d.kl_max) && isnan(qgc_drift_rms(&d)));
            assert_int_equal(d.flips, 1);
        }
    const double bad[] = {NAN};
    assert_true(isnan(qgc_drift_of(bad, bad, 1).max_drift));
    assert_int_equal(qgc_drift_of(bad, bad, 1).flips, 1);
}

static void positions_add_up(void **state) {
    (void)state;
    const double a[] = {0, 1}, b[] = {0, 4}, c[] = {2, 1};
    qgc_drift sum = {0}, x = qgc_drift_of(a, b, 2), y = qgc_drift_of(a, c, 2);
    assert_true(isnan(qgc_drift_kl(&sum)) && isnan(qgc_drift_rms(&sum)));
    qgc_drift_add(&sum, &x);
    qgc_drift_add(&sum, &y);
    assert_int_equal(sum.positions, 2);
    assert_int_equal(sum.flips, 1);
    assert_near(sum.max_drift, 3, 0);
    assert_near(qgc_drift_rms(&sum), sqrt((9.0 + 4.0) / 4), 1e-12);
    assert_near(qgc_drift_kl(&sum), (x.kl_max + y.kl_max) / 2, 1e-12);
    assert_near(sum.kl_max, x.kl_max > y.kl_max ? x.kl_max : y.kl_max, 0);
}

static void not_a_number_stays_when_positions_add_up(void **state) {
    (void)state;
    const double good[] = {0, 1}, bad[] = {0, NAN};
    qgc_drift sum = {0}, x = qgc_drift_of(good, bad, 2), y = qgc_drift_of(good, good, 2);
    qgc_drift_add(&sum, &y);
    qgc_drift_add(&sum, &x);
    qgc_drift_add(&sum, &y);
    assert_true(isnan(sum.max_drift) && isnan(sum.kl_max) && isnan(qgc_drift_kl(&sum)));
    assert_int_equal(sum.flips, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(percentiles_lie_between_neighbours),
        ARENA_TEST(not_a_number_is_not_left_out_of_a_percentile),
        ARENA_TEST(the_ranks_of_an_interval_are_those_of_the_sign_test),
        ARENA_TEST(an_interval_is_of_ranks),
        ARENA_TEST(intervals_hold_the_median_as_often_as_they_say),
        ARENA_TEST(equal_logits_have_no_drift),
        ARENA_TEST(divergence_is_that_of_known_distributions),
        ARENA_TEST(divergence_of_large_logits_does_not_overflow),
        ARENA_TEST(divergence_is_infinite_where_the_other_excludes_a_token),
        ARENA_TEST(not_a_number_in_logits_is_drift),
        ARENA_TEST(positions_add_up),
        ARENA_TEST(not_a_number_stays_when_positions_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
