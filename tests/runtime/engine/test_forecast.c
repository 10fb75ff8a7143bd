#include <string.h>

#include "runtime/engine/forecast.h"
#include "tests/support/cmocka.h"
#include "tests/support/printed.h"
#include "tests/support/small_plan.h"
#include "tests/support/text.h"

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_plan *plan;
} fixture;

/* A plan with a persistent step that is one kernel of 100,000 bytes of shared memory for 30 multiprocessors. */
static int setup(void **state) {
    qgc_arena *a = qgc_arena_new();
    fixture *f = qgc_arena_alloc(a, sizeof *f);
    *f = (fixture){a, qgc_diag_new(a), small_plan(a)};
    qgc_phase *decode = &f->plan->phases[QGC_PHASE_DECODE], *step = &f->plan->phases[QGC_PHASE_PERSISTENT];
    step->launches = qgc_arena_array(a, 1, sizeof *step->launches);
    step->n_launches = 1;
    step->launches[0] = decode->launches[0];
    step->launches[0].on_all = true;
    step->launches[0].weight_bytes = 3000;
    decode->launches[1].early = true;
    decode->launches[0].weight_bytes = 1000;
    decode->launches[1].weight_bytes = 1000000000;
    decode->launches[1].position_bytes = 1000;
    f->plan->kernels[step->launches[0].kernel].shared_bytes = 100000;
    f->plan->not_persistent = NULL;
    f->plan->least_sms = 30;
    f->plan->max_positions = 100;
    *state = f;
    return 0;
}

static int teardown(void **state) {
    qgc_arena_drop(((fixture *)*state)->arena);
    return 0;
}

static qgc_forecast on(fixture *f, const char *card) {
    qgc_forecast forecast;
    assert_int_equal(qgc_forecast_on(f->plan, card, &forecast, &f->diag), QGC_OK);
    return forecast;
}

static void knows_image_and_modes(void **state) {
    fixture *f = *state;
    qgc_forecast a = on(f, "h100-sxm"); /* sm_90a and sm_80 are there */
    assert_string_equal(a.arch, "sm_90a");
    assert_int_equal(a.image.fit, QGC_FIT_EXACT);
    for (int m = 0; m < QGC_N_MODES; m++)
        assert_null(a.refusal[m]);
    a = on(f, "rtx-3090");
    assert_string_equal(a.arch, "sm_80");
    assert_int_equal(a.image.fit, QGC_FIT_MINOR);
    assert_null(a.refusal[QGC_MODE_GRAPH]);
    assert_non_null(strstr(a.refusal[QGC_MODE_PDL], "programmatic dependent launch"));
    a = on(f, "t4");
    assert_int_equal(a.image.arch, -1);
    assert_string_equal(a.arch, "sm_75");
    a = on(f, "arch=90,sms=29");
    assert_string_equal(a.refusal[QGC_MODE_PERSISTENT], "it needs 30 multiprocessors, arch=90,sms=29 has 29");
    assert_null(on(f, "arch=90,sms=30").refusal[QGC_MODE_PERSISTENT]);
    a = on(f, "arch=90,sms=30,smem=99999");
    assert_string_equal(a.refusal[QGC_MODE_PERSISTENT],
                        "it needs 100000 bytes of shared memory a block, arch=90,sms=30,smem=99999 has 99999 "
                        "(compiled for it alone it may need less)");
}

static void a_floor_is_bytes_over_bandwidth(void **state) {
    fixture *f = *state;
    const qgc_forecast a = on(f, "arch=90,sms=64,bandwidth=1000");
    assert_int_equal(a.position, 100);
    assert_int_equal(a.step_bytes[QGC_MODE_GRAPH], 1000101000);
    assert_float_equal(a.floor_us[QGC_MODE_GRAPH], 1000.101, 1e-9);
    assert_int_equal(a.step_bytes[QGC_MODE_PERSISTENT], 3000);
    assert_float_equal(on(f, "arch=90,sms=64").floor_us[QGC_MODE_GRAPH], 0, 0);
}

/* The weights twice over the memory of the small plan; cuBLAS and others have half a GiB. */
static void memory_decides_too(void **state) {
    fixture *f = *state;
    f->plan->buffers[SMALL_CACHE].bytes.per_ctx = 40000000;
    const qgc_forecast small = on(f, "arch=90,sms=64,memory=4"), large = on(f, "arch=90,sms=64,memory=5");
    assert_true(small.memory_bytes[QGC_MODE_GRAPH] > 4000000000 + (1 << 29));
    assert_true(small.memory_bytes[QGC_MODE_GRAPH] < 4000000000 + (1 << 29) + 100000);
    assert_non_null(strstr(small.refusal[QGC_MODE_GRAPH], "at 100 positions it needs 4.54 GB, "));
    assert_null(large.refusal[QGC_MODE_GRAPH]);
    f->plan->buffers[SMALL_X_BF16].kind = QGC_BUFFER_PACKED;
    f->plan->buffers[SMALL_X_BF16].bytes = (qgc_extent){.fixed = 2000000000};
    const qgc_forecast twice = on(f, "arch=90,sms=64,memory=5");
    assert_null(twice.refusal[QGC_MODE_GRAPH]);
    assert_non_null(strstr(twice.refusal[QGC_MODE_PERSISTENT], "it needs 6.54 GB"));
}

static void says_it_in_lines(void **state) {
    fixture *f = *state;
    qgc_str text = qgc_str_new(f->arena);
    qgc_forecast a = on(f, "arch=80,sms=64,bandwidth=1000,memory=8");
    qgc_forecast_text(&a, &text);
    assert_string_equal(
        text.text,
        "on         arch=80,sms=64,bandwidth=1000,memory=8: sm_80, 64 multiprocessors, 166912 bytes of shared "
        "memory a block, 1000 GB/s, 8.59 GB\n"
        "image      sm_80: machine code for this GPU\n"
        "modes      stream, graph, persistent\n"
        "             not pdl: image sm_80 has no programmatic dependent launch, which sm_90 has\n"
        "floor      1000.1 us a step, 1.00 GB read at position 100; 536.9 MB of memory at 100 positions (stream)\n"
        "floor      0.0 us a step, 3.0 kB read at position 100; 536.9 MB of memory at 100 positions (persistent)\n"
        "prompt     in chunks\n");
    qgc_str_clear(&text);
    f->plan->phases[QGC_PHASE_DECODE].launches[1].weight_bytes = 1000;
    a = on(f, "t4");
    qgc_forecast_text(&a, &text);
    assert_non_null(
        strstr(text.text, "image      none runs there; compile for sm_75, for which the following is\n"));
    assert_non_null(strstr(text.text, " (less where they stay in L2, which has room for them); "));
    assert_non_null(strstr(text.text, "prompt     in decode steps\n"));
    assert_non_null(strstr(
        text.text,
        "not persistent: it needs 100000 bytes of shared memory a block, sm_75 has 65536 (compiled for it alone it may need less)\n"));
}

static void wants_to_know_the_architecture(void **state) {
    fixture *f = *state;
    qgc_forecast a;
    assert_int_equal(qgc_forecast_on(f->plan, "sms=5", &a, &f->diag), QGC_ERR_USAGE);
    assert_string_equal(qgc_diag_message(&f->diag), "card \"sms=5\" does not say its architecture");
    qgc_diag d = qgc_diag_new(f->arena);
    assert_int_equal(qgc_forecast_on(f->plan, "arch=90", &a, &d), QGC_ERR_USAGE);
    assert_string_equal(qgc_diag_message(&d),
                        "card \"arch=90\" does not say how many multiprocessors it has");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(knows_image_and_modes), TEST(a_floor_is_bytes_over_bandwidth), TEST(memory_decides_too),
        TEST(says_it_in_lines),      TEST(wants_to_know_the_architecture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
