#include <string.h>

#include "codegen/compile.h"
#include "codegen/lower.h"
#include "codegen/tuning.h"
#include "graph/base/file.h"
#include "graph/load.h"
#include "tests/support/cmocka.h"
#include "tests/support/fixture.h"

static const char *path(const fixture *f) {
    return fixture_path(f, "t.yaml");
}

static void what_is_written_is_read(void **state) {
    fixture *f = *state;
    qgc_tuning t = qgc_tuning_new("sm_90a", f->arena), again;
    qgc_tuning_set(&t, "linear.cu 896 to 4864+4864, bf16, norm", "SPLIT", 4);
    qgc_tuning_set(&t, "linear.cu 896 to 4864+4864, bf16, norm", "ROWS", 2);
    qgc_tuning_set(&t, "linear.cu 896 to 4864+4864, bf16, norm", "SPLIT", 8);
    qgc_tuning_set_time(&t, "tiny, 3 and 4 bytes", "pdl", 611000);
    qgc_tuning_set_time(&t, "tiny, 3 and 4 bytes", "pdl", 612345);
    assert_int_equal(qgc_tuning_write(&t, path(f), &f->diag), QGC_OK);
    assert_int_equal(qgc_tuning_read(&again, path(f), "sm_90a", &f->diag), QGC_OK);
    assert_int_equal(again.times.n, 1);
    assert_int_equal(qgc_tuning_time(&again, "tiny, 3 and 4 bytes", "pdl"), 612345);
    assert_int_equal(qgc_tuning_time(&again, "tiny, 3 and 5 bytes", "pdl"), 0);
    assert_int_equal(again.settings.n, 2);
    assert_int_equal(qgc_tuning_get(&again, "linear.cu 896 to 4864+4864, bf16, norm", "SPLIT", 1), 8);
    assert_int_equal(qgc_tuning_get(&again, "linear.cu 896 to 4864+4864, bf16, norm", "ROWS", 1), 2);
    assert_int_equal(qgc_tuning_get(&again, "linear.cu 896 to 896, bf16", "ROWS", 7), 7);
    assert_int_equal(qgc_tuning_get(NULL, "linear.cu 896 to 896, bf16", "ROWS", 7), 7);
    assert_int_equal(qgc_tuning_write(&(qgc_tuning){.arch = "sm_80"}, path(f), &f->diag), QGC_OK);
    assert_int_equal(qgc_tuning_read(&again, path(f), NULL, &f->diag), QGC_OK);
    assert_int_equal(again.settings.n, 0);
    assert_string_equal(again.arch, "sm_80");
}

/* Settings of the card come before those of its architecture, and those of another card are never taken. */
static void a_card_has_settings_of_its_own(void **state) {
    fixture *f = *state;
    const char *const arch = "sm_90a", *const kernel = "linear.cu 896 to 896, bf16";
    const char *const cards[] = {NULL, "h100-sxm", "gh200"};
    qgc_compile_options o = {.archs = &arch, .n_archs = 1, .cache_folder = f->folder};
    const qgc_tuning *found;
    qgc_card card = {.name = "NVIDIA H100 80GB HBM3"};
    for (int i = 0; i < 3; i++) {
        qgc_tuning t = qgc_tuning_new(arch, f->arena);
        t.card = cards[i];
        qgc_tuning_set(&t, kernel, "ROWS", i + 1);
        ok(f, qgc_tuning_write(&t, qgc_tuning_path(f->folder, arch, cards[i], f->arena), &f->diag));
    }
    const struct {
        const char *name;
        int64_t rows;
    } cases[] = {{"NVIDIA H100 80GB HBM3", 2}, {"h100-sxm", 2}, {"gh200", 3}, {"NVIDIA H200", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        card.name = cases[i].name;
        o.card = &card;
        ok(f, qgc_compile_find_tuning(&o, &found, &f->diag));
        assert_int_equal(qgc_tuning_get(found, kernel, "ROWS", 0), cases[i].rows);
    }
    o.card = NULL;
    ok(f, qgc_compile_find_tuning(&o, &found, &f->diag));
    assert_int_equal(qgc_tuning_get(found, kernel, "ROWS", 0), 1);
    assert_null(found->card);
    card.name = "NVIDIA Quadro-X (2)";
    assert_string_equal(qgc_card_key(&card, f->arena), "nvidia-quadro-x--2-");
}

static void bad_files_are_clear_errors(void **state) {
    fixture *f = *state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"[]\n", "a tuning has no \"tuning\" here"},
        {"tuning: x\n", "\"tuning\" is \"x\", expected a number above 0"},
        {"tuning: 2\n", "a tuning of version 2, this qgc reads 1"},
        {"tuning: 1\n", "a tuning has no \"arch\" here"},
        {"tuning: 1\narch: sm_80\n", "a tuning for sm_80, not for sm_90a"},
        {"tuning: 1\narch: sm_90a\n", "a tuning has a list \"settings\""},
        {"tuning: 1\narch: sm_90a\nsettings: []\ntimes: 3\n", "\"times\" of a tuning is a list"},
        {"tuning: 1\narch: sm_90a\nsettings: []\ntimes: [{program: p, mode: pdl, ns: 0}]\n",
         "\"ns\" is \"0\", expected a number above 0"},
        {"tuning: 1\narch: sm_90a\nsettings: [3]\n", "a tuning has no \"kernel\" here"},
        {"tuning: 1\narch: sm_90a\nsettings: [{kernel: k, name: n, value: -4}]\n",
         "\"value\" is \"-4\", expected a number above 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qgc_diag d = qgc_diag_new(f->arena);
        qgc_tuning t;
        assert_int_equal(qgc_file_write(path(f), cases[i].text, strlen(cases[i].text), &f->diag), QGC_OK);
        assert_int_equal(qgc_tuning_read(&t, path(f), "sm_90a", &d), QGC_ERR_INPUT);
        assert_string_equal(qgc_diag_message(&d), cases[i].message);
    }
}

static qgc_lowered lower(fixture *f, const qgc_tuning *t) {
    qgc_graph *g;
    qgc_lowered out = {0};
    if (qgc_graph_load(&g, "models/qwen2.5-0.5b.yaml", f->arena, &f->diag) != QGC_OK)
        fail_msg("%s", qgc_test_printed(f->arena, &f->diag));
    if (qgc_lower(g, &(qgc_lower_options){.chunk = 8, .tuning = t}, &out, &f->diag) != QGC_OK)
        fail_msg("%s", qgc_test_printed(f->arena, &f->diag));
    return out;
}

static const qgc_knob *knob(const qgc_lowered *l, const char *kernel, const char *name) {
    for (size_t i = 0; i < l->n_knobs; i++)
        if (strcmp(l->knobs[i].kernel, kernel) == 0 && strcmp(l->knobs[i].name, name) == 0)
            return &l->knobs[i];
    fail_msg("there is no %s of \"%s\"", name, kernel);
    return NULL;
}

/* How many kernels are compiled with an option. */
static int with_option(const qgc_lowered *l, const char *option) {
    int n = 0;
    for (size_t i = 0; i < l->plan->n_kernels; i++)
        for (int k = 0; k < l->jobs[i].n_options; k++)
            n += strcmp(l->jobs[i].options[k], option) == 0;
    return n;
}

/* The name of the persistent kernel, which says which products it has. */
static const char *persistent_name(const qgc_lowered *l) {
    for (size_t i = 0; i < l->n_knobs; i++)
        if (strncmp(l->knobs[i].kernel, "persistent.cu", strlen("persistent.cu")) == 0)
            return l->knobs[i].kernel;
    fail_msg("nothing of the persistent kernel can be set");
    return NULL;
}

/* The persistent kernel. */
static const qgc_plan_kernel *step(const qgc_lowered *l) {
    const qgc_plan *p = l->plan;
    return &p->kernels[p->phases[QGC_PHASE_PERSISTENT].launches[0].kernel];
}

static void lowering_takes_settings_that_the_kernel_takes(void **state) {
    fixture *f = *state;
    static const char mlp[] = "linear.cu 896 to 4864, bf16";
    qgc_lowered usual = lower(f, NULL);
    const char *one = persistent_name(&usual);
    assert_int_equal(knob(&usual, one, "WARPS")->value, 14);
    const int64_t rows = knob(&usual, mlp, "ROWS")->value;
    assert_int_equal(rows, 2);

    qgc_tuning t = qgc_tuning_new("sm_90a", f->arena);
    qgc_tuning_set(&t, mlp, "ROWS", 8);
    qgc_tuning_set(&t, mlp, "HELD", 3); /* no candidate */
    qgc_tuning_set(&t, one, "WARPS", 11);
    qgc_tuning_set(&t, "linear.cu 1 to 2, bf16", "ROWS", 8);
    qgc_lowered tuned = lower(f, &t);
    assert_int_equal(knob(&tuned, mlp, "ROWS")->value, 8);
    assert_int_equal(knob(&tuned, mlp, "HELD")->value, 4);
    assert_int_equal(knob(&tuned, one, "WARPS")->value, 11);
    assert_int_equal(with_option(&tuned, "-DROWS=8"), with_option(&usual, "-DROWS=8") + 1);
    assert_int_equal(with_option(&usual, "-DWARPS=11"), 0);
    assert_int_equal(with_option(&tuned, "-DWARPS=11"),
                     with_option(&usual, "-DWARPS=14")); /* what packs for it */
    assert_int_equal(step(&tuned)->threads, 12 * 32);
    assert_non_null(strstr(step(&tuned)->program, "WARPS = 11,"));
    assert_int_equal(tuned.n_knobs, usual.n_knobs);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(what_is_written_is_read),
        FIXTURE_TEST(a_card_has_settings_of_its_own),
        FIXTURE_TEST(bad_files_are_clear_errors),
        FIXTURE_TEST(lowering_takes_settings_that_the_kernel_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
