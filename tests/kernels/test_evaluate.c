/* Evaluation on a GPU, whose kernels run on the CPU (fake_nvrtc.c, cpu_kernels.h): prefill in chunks, the decode steps of
 * modes, and scores that stay on the device, against the evaluator. */

#include <math.h>

#include "kernels/cpu/on_cpu_launch.h"
#include "runtime/engine/build.h"
#include "runtime/engine/evaluate.h"
#include "runtime/engine/rows.h"
#include "tests/kernels/cpu_kernels.h"
#include "tests/support/fixture.h"
#include "tests/support/text.h"

static const char words[] =
    "She had been a good deal in love with him, and was sorry for it. He could not forgive her.";
enum { SHORT = 33 }; /* bytes of it, where the kernels are slow here */
#ifndef MODES
#define MODES 4 /* of those below; fewer where a sanitizer makes them slow */
#endif
static const int order = ON_CPU_FORWARDS;

static qgc_device *cpu_device(void) {
    return cpu_device_new(90, 3, &order);
}

/* The user's cache has images of NVRTC, so this one is the fixture's. */
static qgc_engine *open_engine(fixture *f, const char *path, const char *device) {
    const qgc_engine_options o = {.path = path,
                                  .weights = "models/tiny/tiny.gguf",
                                  .device = device,
                                  .cache_folder = fixture_path(f, "cache")};
    qgc_engine *e;
    ok(f, qgc_engine_open(&e, &o, &f->diag));
    return e;
}

static qgc_evaluation evaluate(fixture *f, qgc_engine *e, const qgc_evaluate_options *o) {
    const bool steps = o->prefill && strcmp(o->prefill, "steps") == 0;
    const qgc_evaluate_text text = {"text", words, steps ? SHORT : sizeof words - 1};
    qgc_evaluation x;
    ok(f, qgc_evaluate(e, &text, 1, o, &x, &f->diag));
    return x;
}

/* Scores on the device are those of the host to the last digits. */
static void same(const qgc_evaluation *a, const qgc_evaluation *b) {
    assert_int_equal(a->counted, b->counted);
    assert_true(fabs(a->loss - b->loss) <= 1e-12 * fabs(b->loss));
}

static void near(const qgc_evaluation *x, double kl, double loss) {
    const double apart = fabs(x->loss - x->against_loss);
    if (!(x->drift.kl_max <= kl) || !(apart <= loss) || x->drift.max_drift == 0)
        fail_msg("%s: divergence %g, losses %g apart, drift %g", x->how, x->drift.kl_max, apart,
                 x->drift.max_drift);
}

static void a_prefill_of_all_rows_is_near_the_evaluator(void **state) {
    fixture *f = *state;
    qgc_engine *gpu = open_engine(f, "models/tiny/tiny.yaml", "gpu"),
               *cpu = open_engine(f, "models/tiny/tiny.yaml", "cpu");
    const int64_t strides[] = {0, 7};
    for (int i = 0; i < 2; i++) {
        const qgc_evaluate_options o = {.ctx = 16, .stride = strides[i], .against = cpu};
        const qgc_evaluation x = evaluate(f, gpu, &o), itself = evaluate(f, cpu, &o);
        assert_string_equal(x.how, "prefill in chunks");
        near(&x, 2e-3, 2e-2);
        assert_true(fabs(x.against_loss - itself.loss) <= 1e-12);
        assert_true(itself.drift.max_drift == 0);
        const qgc_evaluation alone =
            evaluate(f, gpu, &(qgc_evaluate_options){.ctx = 16, .stride = strides[i]});
        same(&alone, &x);
    }
    qgc_engine_close(cpu);
    qgc_engine_close(gpu);
}

static void steps_of_each_mode_are_nearer(void **state) {
    fixture *f = *state;
    static const char *const modes[] = {"graph", "stream", "pdl", "persistent"};
    qgc_engine *gpu = open_engine(f, "models/tiny/tiny.yaml", "gpu"),
               *cpu = open_engine(f, "models/tiny/tiny.yaml", "cpu");
    for (int i = 0; i < MODES; i++) {
        const qgc_evaluate_options o = {.ctx = 12, .against = cpu, .mode = modes[i], .prefill = "steps"};
        const qgc_evaluation x = evaluate(f, gpu, &o);
        assert_string_equal(x.how, qgc_arena_printf(f->arena, "steps, mode %s", modes[i]));
        near(&x, 1e-5, 1e-3);
        qgc_evaluate_options alone = o;
        alone.against = NULL;
        const qgc_evaluation y = evaluate(f, gpu, &alone);
        same(&y, &x);
    }
    qgc_engine_close(cpu);
    qgc_engine_close(gpu);
}

/* Both on the device, where the scores are made. */
static void two_models_on_a_device_are_compared_there(void **state) {
    fixture *f = *state;
    qgc_engine *gpu = open_engine(f, "models/tiny/tiny.yaml", "gpu"),
               *other = open_engine(f, "tests/golden/tiny/tiny-f32.yaml", "gpu");
    const char *const prefills[] = {"chunks", "steps"};
    for (int i = 0; i < 2; i++) {
        qgc_evaluate_options o = {
            .ctx = 16, .against = gpu, .prefill = prefills[i], .mode = i ? "graph" : NULL};
        const qgc_evaluation itself = evaluate(f, gpu, &o);
        assert_true(itself.drift.max_drift == 0 && itself.drift.kl_max == 0 && itself.drift.flips == 0);
        o.against = other;
        const qgc_evaluation x = evaluate(f, gpu, &o);
        near(&x, 1e-4, 1e-3);
        assert_true(x.worst.at > 0 && x.worst.piece_bytes > 0);
        /* The other one's loss is what it has alone. */
        o.against = NULL;
        const qgc_evaluation alone = evaluate(f, other, &o);
        assert_true(fabs(alone.loss - x.against_loss) <= 1e-12 * alone.loss);
    }
    qgc_engine_close(other);
    qgc_engine_close(gpu);
}

static void a_mode_is_for_steps_and_rows_have_room(void **state) {
    fixture *f = *state;
    qgc_engine *gpu = open_engine(f, "models/tiny/tiny.yaml", "gpu");
    const qgc_evaluate_text text = {"text", words, sizeof words - 1};
    const qgc_evaluate_options o = {.ctx = 16, .mode = "graph"};
    const int32_t tokens[3] = {1, 2, 3};
    qgc_evaluation x;
    assert_int_equal(qgc_evaluate(gpu, &text, 1, &o, &x, &f->diag), QGC_ERR_USAGE);
    has(qgc_test_printed(f->arena, &f->diag),
        "mode graph is for decode steps, and a prefill in chunks has no modes");
    f->diag = qgc_diag_new(f->arena);
    qgc_rows *r;
    qgc_address at;
    const float *logits;
    ok(f,
       qgc_rows_new(&r, gpu, &(qgc_rows_options){.ctx = 4, .prefill = "steps", .mode = "stream"}, &f->diag));
    assert_int_equal(qgc_rows_keep(r, tokens, 3, 1, &at, &f->diag), QGC_ERR_USAGE);
    has(qgc_diag_message(&f->diag), "2 rows are to stay on the GPU, which keeps 1");
    f->diag = qgc_diag_new(f->arena);
    ok(f, qgc_rows_take(r, tokens, 3, 1, &logits, &f->diag));
    assert_int_equal(qgc_rows_take(r, tokens, 2, 0, &logits, &f->diag), QGC_ERR_USAGE);
    has(qgc_diag_message(&f->diag), "2 tokens at position 3 of 4");
    qgc_rows_drop(r);
    qgc_engine_close(gpu);
}

/* Rings with room for fewer tokens than a call would take: they come in pieces, on both, and nothing is refused. */
static void what_rings_have_no_room_for_comes_in_pieces(void **state) {
    fixture *f = *state;
    qgc_engine *whole = open_engine(f, "tests/golden/tiny/tiny-window.yaml", "cpu"),
               *rings = open_engine(f, "tests/golden/tiny/tiny-rings.yaml", "cpu"),
               *gpu = open_engine(f, "tests/golden/tiny/tiny-rings.yaml", "gpu");
    const qgc_evaluate_options o = {.ctx = 16, .against = whole};
    const qgc_evaluation x = evaluate(f, rings, &o), y = evaluate(f, gpu, &o);
    assert_true(x.drift.max_drift <= 1e-5);
    near(&y, 2e-3, 2e-2);
    const qgc_rows_options ctx = {.ctx = 16};
    qgc_rows *r;
    ok(f, qgc_rows_new(&r, gpu, &ctx, &f->diag));
    assert_int_equal(qgc_rows_most(r), 4);
    assert_int_equal(qgc_rows_kept(r), 4);
    qgc_rows_drop(r);
    ok(f, qgc_rows_new(&r, whole, &ctx, &f->diag));
    assert_int_equal(qgc_rows_most(r), QGC_ROWS_MOST);
    qgc_rows_drop(r);
    qgc_engine_close(gpu);
    qgc_engine_close(rings);
    qgc_engine_close(whole);
}

static void a_chunk_that_was_asked_for_is_not_cut(void **state) {
    fixture *f = *state;
    qgc_build_options o = {.graph = "tests/golden/tiny/tiny-rings.yaml",
                           .output = fixture_path(f, "rings.qgc"),
                           .chunk = 5,
                           .cache_folder = fixture_path(f, "cache")};
    qgc_built built;
    assert_int_equal(qgc_build(&o, &built, &f->diag), QGC_ERR_INPUT);
    has(qgc_diag_message(&f->diag), "caches of \"tiny-rings\" are rings, with room for 4 tokens");
    f->diag = qgc_diag_new(f->arena);
    o.chunk = 0;
    ok(f, qgc_build(&o, &built, &f->diag));
    assert_int_equal(built.plan->chunk, 4);
}

/* One may be named: "a_chunk*". */
int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_prefill_of_all_rows_is_near_the_evaluator),
        FIXTURE_TEST(steps_of_each_mode_are_nearer),
        FIXTURE_TEST(two_models_on_a_device_are_compared_there),
        FIXTURE_TEST(a_mode_is_for_steps_and_rows_have_room),
        FIXTURE_TEST(what_rings_have_no_room_for_comes_in_pieces),
        FIXTURE_TEST(a_chunk_that_was_asked_for_is_not_cut),
    };
    fake_device_opened = cpu_device;
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("kernels/evaluate", tests, NULL, NULL);
}
