/* Trials on the GPU: what a step leaves of every value, against the CPU evaluator. */

#include <stdio.h>

#include "runtime/lab/trial.h"
#include "tests/support/cmocka.h"
#include "tests/support/golden.h"
#include "tests/support/gpu_model.h"

enum { CTX = 64, STEPS = 8 };

static gpu_model f;

static int open_all(void **state) {
    (void)state;
    gpu_model_begin(&f, "models/tiny/tiny");
    must(&f, qgc_weights_open(&f.weights, "models/tiny/tiny.gguf", &f.diag));
    must(&f, gpu_test_open(&f.device, &f.diag));
    return 0;
}

static int close_all(void **state) {
    (void)state;
    gpu_model_close(&f);
    return 0;
}

static qgc_trial *begin(const char *passes, qgc_device *device, const qgc_trial *share, qgc_graph **g) {
    const qgc_tensor **tensors;
    qgc_pass_report report;
    qgc_trial *t;
    must(&f, qgc_graph_load(g, "models/tiny/tiny.yaml", f.arena, &f.diag));
    must(&f, qgc_graph_bind(*g, f.weights, false, &tensors, &f.diag));
    must(&f, qgc_passes_run(*g, &(qgc_pass_options){.passes = passes}, &report, &f.diag));
    qgc_trial_options o = {.device = device, .ctx = CTX, .keep_values = true, .pool = f.pool, .share = share};
    must(&f, qgc_trial_new(&t, *g, f.weights, tensors, &o, &f.diag));
    return t;
}

/* Largest difference of a value kept by both, relative to its largest number; *kept counts those compared. */
static double compare(qgc_trial *gpu, qgc_trial *cpu, const qgc_graph *g, const qgc_graph *other, int *kept) {
    double worst = 0;
    for (size_t i = 0; i < g->n_values; i++) {
        const float *got, *want;
        int64_t n, n_want;
        bool has_got, has_want;
        must(&f, qgc_trial_value(gpu, g->values[i], &got, &n, &has_got, &f.diag));
        must(&f, qgc_trial_value(cpu, other->values[i], &want, &n_want, &has_want, &f.diag));
        if (!has_got || !has_want)
            continue;
        assert_int_equal(n, n_want);
        double here = golden_difference(got, want, n);
        if (!(here <= 2e-3))
            print_error("\"%s\" differs by %g\n", qgc_value_label(g->values[i], f.arena), here);
        worst = here > worst ? here : worst;
        ++*kept;
    }
    return worst;
}

static void every_kept_value_is_that_of_the_cpu(void **state) {
    (void)state;
    const struct {
        const char *passes;
        int least; /* values that leave their kernels, and states */
    } cases[] = {{"", 70}, {NULL, 30}};
    for (int c = 0; c < 2; c++) {
        qgc_graph *g, *other;
        qgc_trial *gpu = begin(cases[c].passes, f.device, NULL, &g);
        qgc_trial *cpu = begin(cases[c].passes, NULL, NULL, &other);
        double worst = 0;
        int kept = 0;
        for (int32_t i = 0; i < STEPS; i++) {
            must(&f, qgc_trial_step(gpu, 100 * i + 3, NULL, &f.diag));
            must(&f, qgc_trial_step(cpu, 100 * i + 3, NULL, &f.diag));
            double here = compare(gpu, cpu, g, other, &kept);
            worst = here > worst ? here : worst;
        }
        assert_true(worst <= 2e-3);
        assert_true(kept >= STEPS * cases[c].least);
        print_message("%s: %d values in %d steps, largest relative difference %.2e\n",
                      cases[c].passes ? "no passes" : "all passes", kept, STEPS, worst);
        qgc_trial_drop(gpu);
        qgc_trial_drop(cpu);
    }
}

static void trials_share_weights_and_are_timed(void **state) {
    (void)state;
    qgc_graph *g;
    double us[2];
    qgc_trial *all = begin(NULL, f.device, NULL, &g), *none = begin("", f.device, all, &g);
    float *want = qgc_arena_array(f.arena, (size_t)qgc_trial_vocab(all), sizeof *want);
    float *got = qgc_arena_array(f.arena, (size_t)qgc_trial_vocab(all), sizeof *got);
    must(&f, qgc_trial_step(all, 7, want, &f.diag));
    must(&f, qgc_trial_step(none, 7, got, &f.diag));
    assert_true(golden_difference(got, want, qgc_trial_vocab(all)) <= 2e-3);
    must(&f, qgc_trial_time(all, 32, &us[0], &f.diag));
    must(&f, qgc_trial_time(none, 32, &us[1], &f.diag));
    assert_int_equal(qgc_trial_position(none), 33);
    assert_true(us[0] > 32 && us[1] > us[0]); /* 24 kernels a step and 79 */
    print_message("tiny: %.1f us a step with all passes, %.1f with none\n", us[0] / 32, us[1] / 32);
    qgc_trial_drop(none);
    qgc_trial_drop(all);
}

int main(void) {
    gpu_test_begin(NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kept_value_is_that_of_the_cpu),
        cmocka_unit_test(trials_share_weights_and_are_timed),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
