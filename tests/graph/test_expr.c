#include <math.h>
#include <string.h>

#include "graph/base/str.h"
#include "graph/expr.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/printed.h"

static qgc_status number(void *context, const char *name, qgc_loc at, double *out, qgc_diag *d) {
    (void)context;
    if (strcmp(name, "heads") == 0)
        *out = 14;
    else if (strcmp(name, "d_head") == 0)
        *out = 64;
    else
        return qgc_fail(d, QGC_ERR_INPUT, at, "unknown parameter \"%s\"", name);
    return QGC_OK;
}

static const qgc_expr_names names = {number, NULL};

static double value_of(qgc_arena *a, const char *text) {
    qgc_diag d = qgc_diag_new(a);
    double x = NAN;
    if (qgc_expr_eval(&x, text, QGC_NO_LOC, &names, &d) != QGC_OK)
        fail_msg("%s: %s", text, qgc_diag_message(&d));
    return x;
}

static void check_bad(qgc_arena *a, const char *text, const char *expected) {
    qgc_source source = {"test.yaml", text, strlen(text)};
    qgc_diag d = qgc_diag_new(a);
    double x;
    assert_int_equal(qgc_expr_eval(&x, text, (qgc_loc){&source, 1, 1}, &names, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_test_printed(a, &d), expected);
}

static void computes_as_on_paper(void **state) {
    static const struct {
        const char *text;
        double value;
    } cases[] = {
        {"24", 24},
        {"1e6", 1e6},
        {"1e-6", 1e-6},
        {".5", 0.5},
        {"2.", 2},
        {"heads*d_head", 896},
        {"d_head^-0.5", 0.125},
        {"1 + 2*3", 7},
        {"(1 + 2)*3", 9},
        {"10 - 4 - 3", 3},
        {"64/4/2", 8},
        {"2^3^2", 512},
        {"-2^2", -4},
        {"--2", 2},
        {"2*-3", -6},
        {" ( heads ) ", 14},
        {"7 % 4", 3},
        {"-1 % 4", 3},
        {"5.5%2", 1.5},
        {"6*7 % 4", 2},
        {"3 == 3", 1},
        {"3 != 3", 0},
        {"1 + 1 < 2", 0},
        {"1 + 1 <= 2", 1},
        {"heads > d_head", 0},
        {"heads >= 14", 1},
        {"!heads", 0},
        {"!0 + 1", 2},
        {"!!3", 1},
        {"-!0", -1},
        {"0 && nobody", 0},
        {"2 && 3", 1},
        {"1 || nobody", 1},
        {"0 || 0 || 7", 1},
        {"1 || 0 && 0", 1},
        {"0 ? nobody/0 : 5", 5},
        {"1 ? 5 : ln(0 - nobody)", 5},
        {"0 ? 1 : 0 ? 2 : 3", 3},
        {"1 ? 0 ? 1 : 2 : 3", 2},
        {"heads % 4 == 2 ? 10 : 20", 10},
        {"(1 ? 2 : 3)^2", 4},
        {"ln(1)", 0},
        {"sqrt(heads + 2)", 4},
        {"max(min(7, 3), 2)", 3},
        {"0 ? max(nobody, 1) : 4", 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_true(value_of(*state, cases[i].text) == cases[i].value);
}

static void places_errors(void **state) {
    check_bad(*state, "heads*d_heat",
              "test.yaml:1:7: error: unknown parameter \"d_heat\"\n"
              "     1 | heads*d_heat\n"
              "       |       ^\n");
    check_bad(*state, "heads/(2 - 2)",
              "test.yaml:1:6: error: division by zero\n"
              "     1 | heads/(2 - 2)\n"
              "       |      ^\n");
    check_bad(*state, "10^400",
              "test.yaml:1:3: error: result of \"^\" is not a finite number\n"
              "     1 | 10^400\n"
              "       |   ^\n");
    check_bad(*state, "2 * (3 + 4",
              "test.yaml:1:5: error: parenthesis is not closed\n"
              "     1 | 2 * (3 + 4\n"
              "       |     ^\n");
    check_bad(*state, "2 *",
              "test.yaml:1:4: error: expression ends where a number or a name is expected\n"
              "     1 | 2 *\n"
              "       |    ^\n");
    check_bad(*state, "2 3",
              "test.yaml:1:3: error: expression \"2 3\" ends before \"3\"\n"
              "     1 | 2 3\n"
              "       |   ^\n");
    check_bad(*state, "1 < 2 < 3",
              "test.yaml:1:7: error: expression \"1 < 2 < 3\" ends before \"< 3\"\n"
              "     1 | 1 < 2 < 3\n"
              "       |       ^\n");
    check_bad(*state, "heads ? 1",
              "test.yaml:1:7: error: \"?\" has no \":\" with what it is otherwise\n"
              "     1 | heads ? 1\n"
              "       |       ^\n");
    check_bad(*state, "7 % (heads - 14)",
              "test.yaml:1:3: error: division by zero\n"
              "     1 | 7 % (heads - 14)\n"
              "       |   ^\n");
    check_bad(*state, "ln(heads - 14)",
              "test.yaml:1:1: error: result of \"ln\" is not a finite number\n"
              "     1 | ln(heads - 14)\n"
              "       | ^\n");
    check_bad(*state, "min(2)",
              "test.yaml:1:1: error: \"min\" takes 2 numbers, with a comma between\n"
              "     1 | min(2)\n"
              "       | ^\n");
    check_bad(*state, "2 * %",
              "test.yaml:1:5: error: expression \"2 * %\" has no number or name at \"%\"\n"
              "     1 | 2 * %\n"
              "       |     ^\n");
}

static void takes_no_number_that_only_c_knows(void **state) {
    static const char *const bad[] = {"0x10", "1e", "1.2.3", "inf", "nan", "1e999", "12ab", ".", "1_000", ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        qgc_diag d = qgc_diag_new(*state);
        double x;
        assert_int_equal(qgc_expr_eval(&x, bad[i], QGC_NO_LOC, &names, &d), QGC_ERR_INPUT);
    }
}

static void limits_depth(void **state) {
    static const char *const pieces[] = {"(", "2^", "-(", "2*(", "!", "1?", "0?2:", "max(1,"};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        qgc_str text = qgc_str_new(*state);
        for (int k = 0; k < 1000; k++)
            qgc_str_add(&text, pieces[i]);
        qgc_diag d = qgc_diag_new(*state);
        double x;
        assert_int_equal(qgc_expr_eval(&x, text.text, QGC_NO_LOC, &names, &d), QGC_ERR_INPUT);
        assert_string_equal(qgc_diag_message(&d), "expression is nested more than 32 deep");
    }
}

static qgc_status whole(qgc_arena *a, const char *text, int64_t *out, const char **message) {
    qgc_diag d = qgc_diag_new(a);
    qgc_expr_range range = {"dimension", 1, (int64_t)1 << 31};
    qgc_status s = qgc_expr_whole(out, text, QGC_NO_LOC, &names, range, &d);
    *message = qgc_diag_message(&d);
    return s;
}

static void wants_whole_numbers_in_range(void **state) {
    int64_t n = 0;
    const char *message;
    assert_int_equal(whole(*state, "heads*d_head", &n, &message), QGC_OK);
    assert_int_equal(n, 896);
    assert_int_equal(whole(*state, "2^31", &n, &message), QGC_OK);
    assert_int_equal(n, (int64_t)1 << 31);

    assert_int_equal(whole(*state, "heads/4", &n, &message), QGC_ERR_INPUT);
    assert_string_equal(message, "dimension \"heads/4\" is 3.5, expected a whole number");
    assert_int_equal(whole(*state, "0", &n, &message), QGC_ERR_INPUT);
    assert_string_equal(message, "dimension \"0\" is 0, expected 1 to 2147483648");
    assert_int_equal(whole(*state, "2^31 + 1", &n, &message), QGC_ERR_INPUT);
    assert_string_equal(message, "dimension \"2^31 + 1\" is 2147483649, expected 1 to 2147483648");
    assert_int_equal(whole(*state, "-3", &n, &message), QGC_ERR_INPUT);
    assert_int_equal(whole(*state, "1e300", &n, &message), QGC_ERR_INPUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(computes_as_on_paper),
        ARENA_TEST(places_errors),
        ARENA_TEST(takes_no_number_that_only_c_knows),
        ARENA_TEST(limits_depth),
        ARENA_TEST(wants_whole_numbers_in_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
