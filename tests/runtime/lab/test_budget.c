#include <math.h>
#include <string.h>

#include "runtime/lab/budget.h"
#include "tests/support/cmocka.h"
#include "tests/support/folder.h"
#include "tests/support/printed.h"
#include "tests/support/text.h"

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    const char *folder, *path;
    qgc_ablate_row rows[2];
    qgc_ablation ablation;
} fixture;

static int setup(void **state) {
    qgc_arena *arena = qgc_arena_new();
    fixture *f = qgc_arena_alloc(arena, sizeof *f);
    *f = (fixture){.arena = arena, .diag = qgc_diag_new(arena), .folder = qgc_test_folder(arena)};
    const qgc_ablate_effect effect = {
        .us = {2, 1.5, 2.5},
        .kernels = 4,
        .drift = {.positions = 10, .max_drift = 0.01, .kl_sum = 1e-4, .kl_max = 5e-5, .flips = 1}};
    for (int i = 0; i < 2; i++)
        f->rows[i] = (qgc_ablate_row){
            .pass = i ? "fuse-pointwise(max=4)" : "fuse-qkv", .left_out = effect, .alone = effect};
    f->ablation = (qgc_ablation){.positions = 10, .timed = true, .rows = f->rows, .n_rows = 2};
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    qgc_test_folder_drop(f->arena, f->folder);
    qgc_arena_drop(f->arena);
    return 0;
}

static qgc_status read(fixture *f, const char *text, qgc_budget *b) {
    f->diag = qgc_diag_new(f->arena);
    f->path = qgc_test_write(f->arena, f->folder, "budget.yaml", text, strlen(text));
    return qgc_budget_read(b, f->path, &f->diag);
}

static qgc_status check(fixture *f, const char *text, int *unchecked) {
    qgc_budget b;
    if (read(f, text, &b) != QGC_OK)
        fail_msg("%s", qgc_test_printed(f->arena, &f->diag));
    return qgc_budget_check(&b, &f->ablation, unchecked, &f->diag);
}

static void keeps(fixture *f, const char *text) {
    int unchecked;
    if (check(f, text, &unchecked) != QGC_OK)
        fail_msg("%s:\n%s", text, qgc_test_printed(f->arena, &f->diag));
    assert_int_equal(unchecked, 0);
}

static void breaks(fixture *f, const char *text, const char *want) {
    int unchecked;
    assert_int_equal(check(f, text, &unchecked), QGC_ERR_INPUT);
    has(qgc_test_printed(f->arena, &f->diag), want);
}

static void refuses(fixture *f, const char *text, const char *want) {
    qgc_budget b;
    assert_int_equal(read(f, text, &b), QGC_ERR_INPUT);
    assert_string_equal(qgc_test_printed(f->arena, &f->diag),
                        qgc_arena_printf(f->arena, "%s%s", f->path, want));
}

static void a_limit_holds_for_all_passes(void **state) {
    fixture *f = *state;
    keeps(f, "max_kl: 1e-4\nmax_drift: 0.01\nmax_flips: 1\nmin_us: 2\nmin_kernels: 4\n");
    breaks(f, "max_kl: 1e-5\n", "max_kl 1e-05");
    breaks(f, "max_drift: 0.009\n", "changes a logit by 0.01, and its budget is max_drift 0.009");
    breaks(f, "max_flips: 0\n", "changes the most likely token at 1 of 10 positions");
    breaks(f, "min_kernels: 5\n", "saves 4 kernels a token, and its budget is min_kernels 5");
}

static void what_cannot_run_in_the_mode_breaks_what_asks_about_it(void **state) {
    fixture *f = *state;
    f->rows[0].left_out.refused = "two layers differ";
    keeps(f, "passes: {fuse-pointwise: {max_kl: 1e-4}}\n");
    breaks(f, "passes: {fuse-qkv: {min_kernels: 0}}\n",
           "pass \"fuse-qkv\" was not measured (two layers differ), and its budget is");
    breaks(f, "max_flips: 10\n", "pass \"fuse-qkv\" in the pipeline was not measured (two layers differ)");
}

static void a_limit_of_a_pass_stands_in_for_that_of_all(void **state) {
    fixture *f = *state;
    keeps(f, "max_kl: 1e-5\npasses:\n  fuse-qkv: {max_kl: 1e-4}\n  fuse-pointwise: {max_kl: 1}\n");
    breaks(f, "max_kl: 1e-5\npasses:\n  fuse-qkv: {max_kl: 1e-4}\n", "pass \"fuse-pointwise(max=4)\" in the");
    breaks(f, "passes: {fuse-qkv: {max_kl: 1e-6}}\n", "pass \"fuse-qkv\" in the pipeline");
}

static void all_that_broke_is_named_at_its_place(void **state) {
    fixture *f = *state;
    f->rows[1].left_out.drift.flips = 0;
    breaks(f, "max_flips: 0\npasses:\n  fuse-qkv: {min_us: 3}\n", "");
    assert_string_equal(
        qgc_test_printed(f->arena, &f->diag),
        qgc_arena_printf(
            f->arena,
            "%s:1:12: error: pass \"fuse-qkv\" in the pipeline changes the most likely token at 1 of 10 "
            "positions, and its budget is max_flips 0\n"
            "     1 | max_flips: 0\n"
            "       |            ^\n"
            "%s:3:22: note: pass \"fuse-qkv\" saves 2.00 us a token, 2.50 at most, and its budget is "
            "min_us 3\n"
            "     3 |   fuse-qkv: {min_us: 3}\n"
            "       |                      ^\n"
            "%s:1:12: note: pass \"fuse-pointwise(max=4)\" alone changes the most likely token at 1 of 10 "
            "positions, and its budget is max_flips 0\n"
            "     1 | max_flips: 0\n"
            "       |            ^\n",
            f->path, f->path, f->path));
}

static void a_saving_of_time_breaks_it_where_its_whole_interval_lies_below(void **state) {
    fixture *f = *state;
    keeps(f, "min_us: 2.5\n");
    breaks(f, "min_us: 2.51\n", "saves 2.00 us a token, 2.50 at most");
}

static void not_a_number_breaks_any_limit(void **state) {
    fixture *f = *state;
    f->rows[0].alone.drift.kl_max = NAN;
    breaks(f, "max_kl: 1e9\n", "pass \"fuse-qkv\" alone changes the logits by a KL divergence of nan");
    f->rows[0].left_out.drift.max_drift = NAN;
    breaks(f, "max_drift: 1e9\n", "changes a logit by nan");
    f->rows[0].left_out.us.high = NAN;
    breaks(f, "min_us: -1e9\n", "min_us -1e+09");
}

static void times_that_were_not_measured_are_counted(void **state) {
    fixture *f = *state;
    int unchecked;
    f->ablation.timed = false;
    f->rows[0].left_out.us = f->rows[1].left_out.us = (qgc_interval){NAN, NAN, NAN};
    assert_int_equal(check(f, "min_us: 100\nmin_kernels: 1\n", &unchecked), QGC_OK);
    assert_int_equal(unchecked, 2);
}

static void names_a_pass_that_was_not_there(void **state) {
    breaks(*state, "passes: {fuse-qvk: {max_kl: 1}}\n",
           "error: pass \"fuse-qvk\" is not in the pipeline\n"
           "     1 | passes: {fuse-qvk: {max_kl: 1}}\n"
           "       |          ^\n"
           "  hint: Did you mean \"fuse-qkv\"?\n");
}

static void refuses_what_is_no_budget(void **state) {
    refuses(*state, "max_lk: 1\n",
            ":1:1: error: unknown limit \"max_lk\"\n"
            "     1 | max_lk: 1\n"
            "       | ^\n"
            "  hint: Did you mean \"max_kl\"?\n");
    refuses(*state, "passes: {a: {passes: 1}}\n",
            ":1:14: error: unknown limit \"passes\"\n"
            "     1 | passes: {a: {passes: 1}}\n"
            "       |              ^\n"
            "  hint: There are max_kl, max_drift, max_flips, min_us and min_kernels.\n");
    refuses(*state, "min_us: nan\n",
            ":1:9: error: min_us is \"nan\", expected a number\n"
            "     1 | min_us: nan\n"
            "       |         ^\n");
    refuses(*state, "passes: [a]\n",
            ":1:9: error: passes is a list, expected a mapping\n"
            "     1 | passes: [a]\n"
            "       |         ^\n");
    refuses(*state, "passes: {a: 1}\n",
            ":1:13: error: the budget of a pass is a scalar, expected a mapping\n"
            "     1 | passes: {a: 1}\n"
            "       |             ^\n");
}

#define BUDGET_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        BUDGET_TEST(a_limit_holds_for_all_passes),
        BUDGET_TEST(what_cannot_run_in_the_mode_breaks_what_asks_about_it),
        BUDGET_TEST(a_limit_of_a_pass_stands_in_for_that_of_all),
        BUDGET_TEST(all_that_broke_is_named_at_its_place),
        BUDGET_TEST(a_saving_of_time_breaks_it_where_its_whole_interval_lies_below),
        BUDGET_TEST(not_a_number_breaks_any_limit),
        BUDGET_TEST(times_that_were_not_measured_are_counted),
        BUDGET_TEST(names_a_pass_that_was_not_there),
        BUDGET_TEST(refuses_what_is_no_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
