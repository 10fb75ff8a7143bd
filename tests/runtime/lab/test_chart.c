#include <math.h>
#include <string.h>

#include "runtime/lab/chart.h"
#include "tests/support/arena.h"
#include "tests/support/cmocka.h"
#include "tests/support/text.h"

static const char *draw(qgc_arena *a, const char *label, qgc_chart_bar bar) {
    qgc_str out = qgc_str_new(a);
    const qgc_chart c = {.title = "a < b & c > d",
                         .subtitle = "",
                         .axis = "us",
                         .series = {"one"},
                         .n_series = 1,
                         .labels = &label,
                         .bars = &bar,
                         .n_rows = 1};
    qgc_chart_svg(&c, &out);
    return out.text;
}

static void ticks_are_1_2_or_5_times_a_power_of_ten(void **state) {
    (void)state;
    static const struct {
        double span, step;
    } cases[] = {{8, 1},   {8.1, 2},   {16, 2},      {17, 5},      {40, 5},
                 {41, 10}, {0.7, 0.1}, {1e-5, 2e-6}, {12345, 2000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double step = qgc_chart_step(cases[i].span, 8);
        if (!(fabs(step / cases[i].step - 1) <= 1e-9))
            fail_msg("a step of %g for a span of %g, not %g", step, cases[i].span, cases[i].step);
    }
}

/* The plot is 460 wide and begins at 170. */
static void a_bar_is_as_long_as_its_number(void **state) {
    const char *svg = draw(*state, "x", (qgc_chart_bar){4, 3, 8});
    assert_non_null(strstr(svg, "<rect x=\"170.0\" y=\"78.5\" width=\"230.0\" height=\"10\" class=\"s0\"/>"));
    assert_non_null(
        strstr(svg, "<path d=\"M342.5 80.5V86.5M342.5 83.5H630.0M630.0 80.5V86.5\" class=\"error\"/>"));
    assert_non_null(strstr(svg, ">4</text>"));
}

static void a_bar_below_0_goes_to_the_left(void **state) {
    const char *svg = draw(*state, "x", (qgc_chart_bar){-4, -4, 4});
    assert_non_null(strstr(svg, "<rect x=\"170.0\" y=\"78.5\" width=\"230.0\" height=\"10\" class=\"s0\"/>"));
    assert_non_null(strstr(svg, "<line x1=\"400.0\" y1=\"70.0\" x2=\"400.0\" y2=\"94.0\" class=\"zero\"/>"));
    assert_int_equal(count(svg, "class=\"zero\""), 1);
}

static void nothing_is_drawn_for_what_is_no_number(void **state) {
    const char *svg = draw(*state, "x", (qgc_chart_bar){NAN, NAN, NAN});
    assert_int_equal(count(svg, "<rect"), 2); /* the ground, and the legend */
    assert_int_equal(count(svg, "<path"), 0);
    assert_non_null(strstr(svg, ">-</text>"));
    svg = draw(*state, "x", (qgc_chart_bar){2, -INFINITY, INFINITY});
    assert_int_equal(count(svg, "<rect"), 3);
    assert_int_equal(count(svg, "<path"), 0);
    assert_null(strstr(svg, "nan"));
    assert_null(strstr(svg, "inf"));
}

static void texts_cannot_break_the_file(void **state) {
    const char *svg = draw(*state, "</svg>&\x01\xFF\"", (qgc_chart_bar){1, 1, 1});
    assert_non_null(strstr(svg, "<title>a &lt; b &amp; c &gt; d</title>"));
    assert_non_null(strstr(svg, ">&lt;/svg&gt;&amp;\xEF\xBF\xBD&quot;</text>"));
    assert_int_equal(count(svg, "</svg>"), 1);
    assert_string_equal(svg + strlen(svg) - strlen("</svg>\n"), "</svg>\n");
}

static void colours_follow_the_ground(void **state) {
    const char *svg = draw(*state, "x", (qgc_chart_bar){1, 1, 1});
    const char *light = strstr(svg, ".ground { fill: #ffffff }"),
               *dark = strstr(svg, "prefers-color-scheme: dark");
    assert_non_null(light);
    assert_non_null(dark);
    assert_non_null(strstr(dark, ".ground { fill: #0d1117 }"));
    assert_null(strstr(svg, "url(")); /* it needs no other file */
    assert_null(strstr(svg, "href"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ARENA_TEST(ticks_are_1_2_or_5_times_a_power_of_ten),
        ARENA_TEST(a_bar_is_as_long_as_its_number),
        ARENA_TEST(a_bar_below_0_goes_to_the_left),
        ARENA_TEST(nothing_is_drawn_for_what_is_no_number),
        ARENA_TEST(texts_cannot_break_the_file),
        ARENA_TEST(colours_follow_the_ground),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
