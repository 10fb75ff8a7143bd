#include <string.h>

#include "runtime/program_impl.h"
#include "tests/support/fixture.h"

/* Which image runs on which card: no device is asked. */

enum { MAX_ARCHS = 6, CUDA_13 = 13000 };

static const char ptx_87[] = "//\n// Compiler\n//\n\n.version 8.7\n.target sm_80\n";

typedef struct {
    qgc_plan plan;
    qgc_plan_image images[MAX_ARCHS];
    qgc_device_info about;
} toy;

/* A plan of one kernel, whose PTX is of version 8.7, and a card. */
static void make(toy *t, const char *const archs[MAX_ARCHS], int gpu, int driver) {
    t->plan = (qgc_plan){.name = "toy", .images = t->images};
    for (int i = 0; i < MAX_ARCHS && archs[i]; i++) {
        const bool ptx = strncmp(archs[i], "compute", 7) == 0;
        t->plan.archs[t->plan.n_archs++] = archs[i];
        t->images[t->plan.n_images++] =
            (qgc_plan_image){.arch = i, .data = ptx ? ptx_87 : "\177ELF", .bytes = ptx ? sizeof ptx_87 : 4};
    }
    t->about =
        (qgc_device_info){.name = "Card", .major = gpu / 10, .minor = gpu % 10, .driver_version = driver};
}

static void chooses_the_image_that_suits_the_card_best(void **state) {
    fixture *f = *state;
    toy t;
    static const struct {
        const char *archs[MAX_ARCHS];
        int gpu, expected;
        qgc_fit fit;
        const char *wanted;
    } cases[] = {
        {{"sm_80", "sm_90", "sm_90a"}, 90, 2, QGC_FIT_EXACT, NULL},
        {{"sm_90a", "sm_90", "sm_80"}, 90, 0, QGC_FIT_EXACT, NULL},
        {{"sm_80", "sm_90"}, 90, 1, QGC_FIT_EXACT, NULL},
        {{"sm_80", "sm_86"}, 89, 1, QGC_FIT_MINOR, NULL},
        {{"sm_86", "sm_80"}, 89, 0, QGC_FIT_MINOR, NULL},
        {{"sm_80"}, 89, 0, QGC_FIT_MINOR, NULL},
        {{"sm_86", "sm_89"}, 80, -1, QGC_FIT_NONE, NULL},
        {{"sm_90a"}, 100, -1, QGC_FIT_NONE, NULL},
        {{"sm_120a", "sm_120"}, 121, 1, QGC_FIT_MINOR, NULL},
        {{"sm_120a"}, 121, -1, QGC_FIT_NONE, NULL},
        {{"sm_100", "sm_100f"}, 100, 1, QGC_FIT_EXACT, NULL},
        {{"sm_100f", "sm_100"}, 103, 0, QGC_FIT_FAMILY, NULL},
        {{"sm_103f"}, 100, -1, QGC_FIT_NONE, NULL},
        {{"sm_9", "sm_90x", "sm_"}, 90, -1, QGC_FIT_NONE, NULL},
        /* PTX: where no machine code runs, the newest */
        {{"compute_80", "sm_80"}, 80, 1, QGC_FIT_EXACT, NULL},
        {{"compute_89", "sm_80"}, 89, 1, QGC_FIT_MINOR, NULL},
        {{"compute_75", "sm_80", "compute_80"}, 90, 2, QGC_FIT_PTX, NULL},
        {{"compute_90", "compute_75"}, 89, 1, QGC_FIT_PTX, NULL},
        {{"compute_90", "sm_90a"}, 120, 0, QGC_FIT_PTX, NULL},
        {{"compute_90a"}, 120, -1, QGC_FIT_NONE, NULL},
        {{"compute_90a", "compute_90"}, 90, 0, QGC_FIT_PTX, NULL},
        {{"compute_80"}, 75, -1, QGC_FIT_NONE, NULL},
        /* one that is asked for */
        {{"sm_90a", "sm_90"}, 90, 1, QGC_FIT_EXACT, "sm_90"},
        {{"sm_90a", "compute_75"}, 90, 1, QGC_FIT_PTX, "compute_75"},
        {{"sm_80", "sm_90"}, 90, -1, QGC_FIT_NONE, "sm_80"},
        {{"sm_80", "sm_90"}, 90, -1, QGC_FIT_NONE, "sm_90a"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make(&t, cases[i].archs, cases[i].gpu, CUDA_13);
        qgc_diag d = qgc_diag_new(f->arena);
        qgc_image_choice choice;
        qgc_status s = qgc_program_choose_image(&t.plan, &t.about, cases[i].wanted, &choice, &d);
        if (choice.arch != cases[i].expected || choice.fit != cases[i].fit)
            fail_msg("case %zu: image %d, fit %d", i, choice.arch, (int)choice.fit);
        assert_int_equal(s == QGC_OK, choice.arch >= 0);
    }
}

/* PTX of 8.7 wants CUDA 12.8. */
static void passes_over_ptx_that_the_driver_does_not_know(void **state) {
    (void)state;
    toy t;
    const struct { int driver, expected; } cases[] = {{12080, 1}, {13000, 1}, {12070, 0}, {11040, 0}, {0, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make(&t, (const char *const[MAX_ARCHS]){"sm_80", "compute_86"}, 90, cases[i].driver);
        assert_int_equal(qgc_image_best(&t.plan, &t.about).arch, cases[i].expected ? 1 : -1);
        make(&t, (const char *const[MAX_ARCHS]){"sm_86", "compute_89"}, 89, cases[i].driver);
        assert_int_equal(qgc_image_best(&t.plan, &t.about).arch, 0);
    }
}

static void says_what_to_do_about_an_old_driver(void **state) {
    fixture *f = *state;
    toy t;
    make(&t, (const char *const[MAX_ARCHS]){"sm_80", "compute_86"}, 120, 12040);
    qgc_image_choice choice;
    assert_int_equal(qgc_program_choose_image(&t.plan, &t.about, NULL, &choice, &f->diag), QGC_ERR_INPUT);
    assert_string_equal(
        qgc_test_printed(f->arena, &f->diag),
        "qgc: error: no image of \"toy\" runs on Card, which is sm_120; there are sm_80, compute_86\n"
        "qgc: note: compute_86 is PTX 8.7, which a driver of CUDA 12.8 or newer compiles; this one is of CUDA 12.4\n"
        "  hint: Update the driver, or compile again with --arch sm_120, or by an NVRTC of CUDA 12.4 or older (--nvrtc).\n");
    qgc_diag d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_program_choose_image(&t.plan, &t.about, "compute_86", &choice, &d), QGC_ERR_INPUT);
    assert_string_equal(
        qgc_test_printed(f->arena, &d),
        "qgc: error: the image for \"compute_86\" does not run on Card, which is sm_120\n"
        "qgc: note: compute_86 is PTX 8.7, which a driver of CUDA 12.8 or newer compiles; this one is of CUDA 12.4\n"
        "  hint: Update the driver.\n");
}

static void says_which_images_there_are_when_none_fits(void **state) {
    fixture *f = *state;
    toy t;
    make(&t, (const char *const[MAX_ARCHS]){"sm_80", "sm_90"}, 120, CUDA_13);
    qgc_image_choice choice;
    assert_int_equal(qgc_program_choose_image(&t.plan, &t.about, NULL, &choice, &f->diag), QGC_ERR_INPUT);
    assert_string_equal(
        qgc_test_printed(f->arena, &f->diag),
        "qgc: error: no image of \"toy\" runs on Card, which is sm_120; there are sm_80, sm_90\n"
        "  hint: Compile again with --arch sm_120.\n");
    qgc_diag d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_program_choose_image(&t.plan, &t.about, "sm_75", &choice, &d), QGC_ERR_INPUT);
    assert_string_equal(qgc_test_printed(f->arena, &d), "qgc: error: \"toy\" has no image for \"sm_75\"\n"
                                                        "qgc: note: there is one for sm_80\n"
                                                        "qgc: note: there is one for sm_90\n"
                                                        "  hint: Compile again with --arch sm_75.\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(chooses_the_image_that_suits_the_card_best),
        FIXTURE_TEST(passes_over_ptx_that_the_driver_does_not_know),
        FIXTURE_TEST(says_what_to_do_about_an_old_driver),
        FIXTURE_TEST(says_which_images_there_are_when_none_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
