#include <string.h>

#include "runtime/program_impl.h"
#include "runtime/stand_in.h"
#include "tests/support/cmocka.h"
#include "tests/support/fake_device.h"
#include "tests/support/printed.h"

static const qgc_device_info h100 = {.name = "NVIDIA H100 80GB HBM3",
                                     .major = 9,
                                     .minor = 0,
                                     .sms = 132,
                                     .total_bytes = (size_t)80 << 30,
                                     .l2_bytes = 50 << 20,
                                     .shared_bytes_max = 232448};

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_device *dev;
} fixture;

static int setup(void **state) {
    qgc_arena *a = qgc_arena_new();
    fixture *f = qgc_arena_alloc(a, sizeof *f);
    *f = (fixture){a, qgc_diag_new(a), fake_device_new(NULL)};
    qgc_device_show(f->dev, &h100);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    qgc_device_close(f->dev);
    qgc_arena_drop(f->arena);
    return 0;
}

static void shows_what_the_card_has(void **state) {
    fixture *f = *state;
    assert_int_equal(qgc_stand_in(f->dev, NULL, &f->diag), QGC_OK);
    assert_string_equal(qgc_device_about(f->dev)->name, h100.name);
    assert_string_equal(qgc_program_arch_for(f->dev, f->arena), "sm_90a");
    assert_int_equal(qgc_stand_in(f->dev, "t4", &f->diag), QGC_OK);
    const qgc_device_info *info = qgc_device_about(f->dev);
    assert_string_equal(info->name, "NVIDIA H100 80GB HBM3 as t4");
    assert_int_equal(info->sms, 40);
    assert_int_equal(info->shared_bytes_max, 65536);
    assert_true(info->no_bf16 && info->ptx_only);
    assert_int_equal(info->major, 9);
    const char *why;
    assert_false(qgc_device_has_gemm(f->dev, &why));
    assert_string_equal(qgc_program_arch_for(f->dev, f->arena), "compute_75");
    const qgc_card card = qgc_card_of_device(f->dev, f->arena);
    assert_int_equal(card.arch, 75);
    assert_int_equal(card.sms, 40);
    assert_int_equal(card.shared_bytes, 65536);
    assert_true(card.no_bf16);
}

static void what_a_card_does_not_say_stays(void **state) {
    fixture *f = *state;
    const qgc_card own = qgc_card_of_device(f->dev, f->arena);
    assert_int_equal(own.bandwidth, 3352000000000); /* of the table: the driver's name is known */
    assert_int_equal(own.arch, 90);
    assert_int_equal(qgc_stand_in(f->dev, "sms=100,bf16=no", &f->diag), QGC_OK);
    const qgc_device_info *info = qgc_device_about(f->dev);
    assert_int_equal(info->sms, 100);
    assert_int_equal(info->shared_bytes_max, 232448);
    assert_int_equal(info->newest_code, 0);
    assert_false(info->ptx_only);
    assert_string_equal(qgc_program_arch_for(f->dev, f->arena), "sm_90a");
}

static void a_card_of_the_same_architecture_runs_its_cubins(void **state) {
    fixture *f = *state;
    assert_int_equal(qgc_stand_in(f->dev, "h100-pcie", &f->diag), QGC_OK);
    assert_string_equal(qgc_program_arch_for(f->dev, f->arena), "sm_90a");
    assert_int_equal(qgc_stand_in(f->dev, "arch=90,ptx=yes", &f->diag), QGC_OK);
    assert_string_equal(qgc_program_arch_for(f->dev, f->arena), "compute_90");
}

static void a_device_cannot_stand_in_for_more_than_it_is(void **state) {
    fixture *f = *state;
    const char *const cases[][2] = {
        {"rtx-5090", "compute capability 90, the card 120"},
        {"sms=133", "multiprocessors 132, the card 133"},
        {"smem=232449", "bytes of shared memory a block 232448, the card 232449"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qgc_diag d = qgc_diag_new(f->arena);
        assert_int_equal(qgc_stand_in(f->dev, cases[i][0], &d), QGC_ERR_USAGE);
        assert_non_null(strstr(qgc_diag_message(&d), cases[i][1]));
        assert_string_equal(qgc_device_about(f->dev)->name, h100.name);
    }
    qgc_diag d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_stand_in(f->dev, "t5", &d), QGC_ERR_USAGE);
}

/* Its machine code the device could run, and the card could not; the code for the card the device can run as PTX. */
static void images_are_chosen_for_the_card(void **state) {
    fixture *f = *state;
    static const char ptx[] = ".version 8.0\n";
    qgc_plan_image images[] = {{.arch = 0, .data = "", .bytes = 1},
                               {.arch = 1, .data = "", .bytes = 1},
                               {.arch = 2, .data = ptx, .bytes = sizeof ptx},
                               {.arch = 3, .data = ptx, .bytes = sizeof ptx}};
    const qgc_plan plan = {.name = "toy",
                           .archs = {"sm_90a", "sm_75", "compute_75", "compute_90"},
                           .n_archs = 4,
                           .images = images,
                           .n_images = 4};
    assert_int_equal(qgc_image_best(&plan, &h100).arch, 0);
    const struct {
        const char *card;
        int arch;
    } cases[] = {{"t4", 2}, {"rtx-4090", 2}, {"h100-pcie", 0}, {"arch=90,ptx=yes", 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qgc_device_show(f->dev, &h100);
        assert_int_equal(qgc_stand_in(f->dev, cases[i].card, &f->diag), QGC_OK);
        assert_int_equal(qgc_image_best(&plan, qgc_device_about(f->dev)).arch, cases[i].arch);
    }
    qgc_device_show(f->dev, &h100);
    assert_int_equal(qgc_stand_in(f->dev, "t4", &f->diag), QGC_OK);
    const qgc_plan new_only = {
        .name = "toy", .archs = {"sm_90a"}, .n_archs = 1, .images = images, .n_images = 1};
    qgc_image_choice choice;
    assert_int_equal(qgc_program_choose_image(&new_only, qgc_device_about(f->dev), NULL, &choice, &f->diag),
                     QGC_ERR_INPUT);
    assert_non_null(
        strstr(qgc_test_printed(f->arena, &f->diag), "hint: Compile again with --arch compute_75.\n"));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(shows_what_the_card_has),
        TEST(what_a_card_does_not_say_stays),
        TEST(a_card_of_the_same_architecture_runs_its_cubins),
        TEST(a_device_cannot_stand_in_for_more_than_it_is),
        TEST(images_are_chosen_for_the_card),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
