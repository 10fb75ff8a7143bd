/* Plans of small models, replayed launch by launch on the CPU and held against the evaluator: the order of launches, memory
 * that is shared, versions of caches, and prefill, for each architecture whose kernels differ. Then plans with a fault in
 * them, which has to show. */

#include <string.h>

#include "kernels/cpu/on_cpu_launch.h"
#include "runtime/program.h"
#include "runtime/session.h"
#include "tests/kernels/cpu_kernels.h"
#include "tests/kernels/replay.h"
#include "tests/kernels/small_graphs.h"
#include "tests/support/cmocka.h"
#include "tests/support/printed.h"
#include "tests/support/subset.h"

#ifndef SUBSETS /* for each family, */
#define SUBSETS 4
#define PLANTED 1 /* are plans changed, too, to see that it is noticed? */
#define ARCHS 3   /* and of the architectures below; fewer where a sanitizer makes them slow */
#define RINGS 7
#define ORDERS 4
#define OLDEST 2
#endif

static const char *const families[] = {small_qwen2, small_qwen3, small_olmo2};
static const int archs[] = {80, 75, 90};
enum { FAMILIES = 3 };

static void must_agree(replay *r, const replay_run *what) {
    const apart a = replay_compare(r, what);
    if (!replay_agrees(&a))
        fail_msg("%s %s: logits %g and states %g apart, by chunks %g and %g; %d tokens are others",
                 r->graph->name, r->name, a.logits, a.states, a.prefilled_logits, a.prefilled_states,
                 a.tokens);
}

static void compare(const char *yaml, const char *passes, int arch, const replay_run *what) {
    replay r = replay_new(&(replay_of){.yaml = yaml, .passes = passes, .arch = arch});
    must_agree(&r, what);
    replay_drop(&r);
}

static void all_passes_and_none(void **state) {
    (void)state;
    for (int f = 0; f < FAMILIES; f++)
        for (int i = 0; i < ARCHS; i++) {
            const replay_run what = {ON_CPU_FORWARDS, REPLAY_LONG,
                                     archs[i] == 90 ? REPLAY_SHORT : REPLAY_LONG};
            compare(families[f], NULL, archs[i], &what);
            compare(families[f], "", archs[i], &what);
        }
}

/* Where the logits of every token of a chunk are wanted. */
static void all_rows_of_a_prompt(void **state) {
    (void)state;
    static const char *const passes[] = {NULL, "", "fuse-norm-linear,split-sample,fuse-head-sample"};
    for (int f = 0; f < FAMILIES; f++)
        for (int i = 0; i < ARCHS; i++) {
            replay r = replay_new(&(replay_of){
                .yaml = families[f], .passes = passes[(f + i) % 3], .arch = archs[i], .all_rows = true});
            const double most = replay_compare_rows(&r, ON_CPU_RANDOM + i, 0);
            if (!(most <= 2e-2))
                fail_msg("%s %s: rows of logits are %g apart", r.graph->name, r.name, most);
            assert_true(replay_compare_rows(&r, ON_CPU_FORWARDS, 1) > 0.2);
            replay_drop(&r);
        }
}

static void all_rows_of_the_tiny_model(void **state) {
    (void)state;
    replay r = replay_new(&(replay_of){
        .yaml = "models/tiny/tiny.yaml", .weights = "models/tiny/tiny.gguf", .arch = 90, .all_rows = true});
    assert_true(replay_compare_rows(&r, ON_CPU_FROM_THE_MIDDLE, 0) <= 2e-2);
    /* A prefill of all rows has no kernel that chooses, and other plans read no rows. */
    const qgc_phase *prefill = &r.lowered.plan->phases[QGC_PHASE_PREFILL];
    for (size_t i = 0; i < prefill->n_launches; i++) {
        const qgc_plan_launch *l = &prefill->launches[i];
        const char *kernel = l->kernel < 0 ? "" : r.lowered.plan->kernels[l->kernel].entry;
        assert_null(strstr(kernel, "sample"));
        assert_null(strstr(kernel, "advance"));
    }
    assert_string_equal(r.lowered.plan->not_persistent, "it was compiled for the logits of all tokens");
    replay_drop(&r);
}

/* Weights that were trained, and shapes that are not so small. */
static void the_tiny_model(void **state) {
    (void)state;
    replay r = replay_new(
        &(replay_of){.yaml = "models/tiny/tiny.yaml", .weights = "models/tiny/tiny.gguf", .arch = 90});
    must_agree(&r, &(replay_run){ON_CPU_FROM_THE_MIDDLE, REPLAY_LONG, REPLAY_SHORT});
    replay_drop(&r);
}

/* Blocks at once, in an order that is drawn; and once at so many positions that attention is cut. With bulk copies and with those of 16
 * bytes, a large ring and the smallest. */
static void in_persistent_mode(void **state) {
    (void)state;
    static const struct {
        int arch, sms, shared_bytes;
    } on[] = {{90, 2, 0}, {80, 3, 65536}, {90, 5, 0}, {90, 3, 0}, {86, 2, 0}, {80, 5, 1}, {90, 3, 1}};
    for (int i = 0; i < RINGS; i++) {
        replay r = replay_new(&(replay_of){.yaml = families[i % 3],
                                           .arch = on[i].arch,
                                           .sms = on[i].sms,
                                           .shared_bytes = on[i].shared_bytes});
        must_agree(&r, &(replay_run){ON_CPU_RANDOM + i, 0, i == 2 ? REPLAY_LONG : REPLAY_SHORT});
        replay_drop(&r);
    }
}

/* What the L2 cache is asked for while the smallest ring is full is what copies then take, byte for byte. */
static void weights_are_brought_ahead(void **state) {
    (void)state;
    static const char *const distances[] = {"-DINTO_L2=4096", "-DINTO_L2=172032"};
    for (int i = 0; i < 2; i++) {
        replay r = replay_new(&(replay_of){
            .yaml = families[i], .arch = 90, .sms = 2, .shared_bytes = 1, .options = {distances[i]}});
        const on_cpu_ahead before = on_cpu_brought_ahead;
        must_agree(&r, &(replay_run){ON_CPU_RANDOM + i, 0, REPLAY_SHORT});
        const size_t asked = on_cpu_brought_ahead.asked - before.asked;
        assert_true(asked > 0);
        assert_int_equal(on_cpu_brought_ahead.taken - before.taken, asked);
        replay_drop(&r);
    }
}

/* sm_75 has 64 KB, loads and stores in place of copies, and no bf16 on tensor cores: of the matrices here in the first family, and in the
 * caches, too, in the second. */
static void in_persistent_mode_on_the_oldest_cards(void **state) {
    (void)state;
    for (int f = 0; f < OLDEST; f++) {
        replay r = replay_new(&(replay_of){.yaml = families[f], .arch = 75, .sms = 3 + f});
        const qgc_plan *p = r.lowered.plan;
        const qgc_plan_kernel *k = &p->kernels[p->phases[QGC_PHASE_PERSISTENT].launches[0].kernel];
        assert_int_equal(qgc_kernel_shared_bytes(k, "sm_75"), 65536);
        assert_non_null(strstr(k->program, "WEIGHT = BF16"));
        assert_true(f != 1 || strstr(k->program, "CACHE = BF16"));
        must_agree(&r, &(replay_run){ON_CPU_RANDOM + f, 0, REPLAY_SHORT});
        replay_drop(&r);
    }
}

/* A prompt multiplied from the stream wants bf16 on tensor cores. */
static void prompts_from_the_stream_are_refused_on_the_oldest_cards(void **state) {
    (void)state;
    replay r = replay_new(&(replay_of){.yaml = small_qwen2, .arch = 75, .sms = 3});
    const int order = ON_CPU_FORWARDS;
    qgc_device *device = cpu_device_new(75, 3, &order);
    qgc_program *program;
    qgc_session *session;
    assert_int_equal(qgc_program_load(&program, r.lowered.plan, device, r.weights, r.pool,
                                      &(qgc_program_options){.later = true}, &r.diag),
                     QGC_OK);
    const qgc_session_options o = {.ctx = 16,
                                   .mode = QGC_MODE_PERSISTENT,
                                   .prefill = QGC_PREFILL_PACKED,
                                   .sampling = {.top_p = 1, .repeat_penalty = 1}};
    assert_int_equal(qgc_session_new(&session, program, &o, &r.diag), QGC_ERR_USAGE);
    const char *text = qgc_test_printed(r.arena, &r.diag);
    assert_non_null(strstr(text, "image sm_75 multiplies no bf16 on tensor cores, which sm_80 does"));
    assert_non_null(strstr(text, "hint: Use --prefill steps."));
    qgc_program_drop(program);
    qgc_device_close(device);
    replay_drop(&r);
}

/* All but the first of them know their position from the step before. */
static void persistent_steps_launched_together(void **state) {
    (void)state;
    for (int f = 0; f < FAMILIES; f++) {
        replay r = replay_new(&(replay_of){.yaml = families[f], .arch = 90, .sms = 3, .together = true});
        assert_true(r.lowered.plan->phases[QGC_PHASE_PERSISTENT].launches[0].early);
        must_agree(&r, &(replay_run){.order = ON_CPU_RANDOM + f, .steps = 3});
        replay_drop(&r);
    }
}

/* By what has come when, a warp holds a tile, takes it while it waits for an attention or multiplies it as it comes: its sums are the same. */
static void persistent_steps_have_the_same_bits_in_any_order(void **state) {
    (void)state;
    for (int f = 0; f < FAMILIES; f++) {
        replay r = replay_new(&(replay_of){
            .yaml = families[f],
            .arch = 90,
            .sms = 3,
            .shared_bytes = f == 1,
            /* so that rows of attention's product are held; and more tiles than sums have room for */
            .options = {"-DTYPICAL_SMS=3", f == 2 ? "-DHELD=10" : NULL, f == 2 ? "-DPREPARED=10" : NULL}});
        uint64_t bits = 0;
        for (int i = 0; i < ORDERS; i++) {
            const apart a = replay_compare(&r, &(replay_run){ON_CPU_RANDOM + i, 0, REPLAY_SHORT});
            assert_true(replay_agrees(&a));
            assert_true(i == 0 || a.bits == bits);
            bits = a.bits;
        }
        replay_drop(&r);
    }
}

static void a_persistent_step_that_does_not_wait(void **state) {
    (void)state;
    replay r = replay_new(&(replay_of){.yaml = small_qwen2, .arch = 90, .sms = 3, .options = {"-DWAITS=0"}});
    const apart a = replay_compare(&r, &(replay_run){ON_CPU_RANDOM, 0, REPLAY_SHORT});
    assert_false(replay_agrees(&a));
    replay_drop(&r);
}

/* Whatever the order of blocks and warps. */
static void random_subsets(void **state) {
    (void)state;
    uint64_t seed = 1;
    qgc_arena *a = qgc_arena_new();
    for (int i = 0; i < SUBSETS * FAMILIES; i++) {
        const int orders[] = {ON_CPU_BACKWARDS, ON_CPU_FROM_THE_MIDDLE, ON_CPU_RANDOM + i};
        const replay_run what = {orders[i / FAMILIES % 3], REPLAY_LONG, REPLAY_SHORT};
        const char *passes = test_subset(a, (unsigned)test_random(&seed), i % 2 == 0, &seed);
        compare(families[i % FAMILIES], passes, archs[(i / FAMILIES + i) % ARCHS], &what);
    }
    qgc_arena_drop(a);
}

static void attention_reads_the_caches_that_it_names(void **state) {
    (void)state;
    const replay_run what = {ON_CPU_FORWARDS, REPLAY_LONG, REPLAY_SHORT};
    for (int i = 0; i < ARCHS; i++) {
        compare(small_old_cache, "split-attention,fuse-merge-linear", archs[i], &what);
        compare(small_old_cache, "", archs[i], &what);
    }
}

#if PLANTED
/* --- planted faults -------------------------------------------------------------------------------------- */

/* Two chunks, or decode steps. */
static replay_run run_of(qgc_phase_kind phase) {
    return phase == QGC_PHASE_PREFILL ? (replay_run){ON_CPU_FORWARDS, REPLAY_CHUNK + 5, 0}
                                      : (replay_run){ON_CPU_FORWARDS, 0, REPLAY_SHORT};
}

static bool agrees(replay *r, qgc_phase_kind phase) {
    const replay_run what = run_of(phase);
    const apart a = replay_compare(r, &what);
    return replay_agrees(&a);
}

/* What a launch does to a buffer. */
static int access_of(const qgc_plan_launch *l, size_t buffer) {
    qgc_plan_use uses[QGC_MAX_ARGS];
    int access = 0;
    for (int i = 0, n = qgc_plan_uses(l, uses); i < n; i++)
        access |= (size_t)uses[i].buffer == buffer ? uses[i].access : 0;
    return access & (QGC_READS | QGC_WRITES);
}

/* Does the second one read what the first writes? */
static bool feeds(const replay *r, const qgc_plan_launch *first, const qgc_plan_launch *second) {
    for (size_t b = 0; b < r->lowered.plan->n_buffers; b++)
        if ((access_of(first, b) & QGC_WRITES) && (access_of(second, b) & QGC_READS))
            return true;
    return false;
}

static void swap(qgc_plan_launch *a, qgc_plan_launch *b) {
    const qgc_plan_launch held = *a;
    *a = *b;
    *b = held;
}

/* Each launch that reads from the one before it, in the place of that one. */
static void swap_each(replay *r, qgc_phase_kind phase, int least) {
    const qgc_phase *p = &r->lowered.plan->phases[phase];
    int n = 0;
    for (size_t i = 0; i + 1 < p->n_launches; i++) {
        qgc_plan_launch *l = &p->launches[i];
        if (!feeds(r, l, l + 1))
            continue;
        swap(l, l + 1);
        if (agrees(r, phase))
            fail_msg("%s, %s phase: nobody notices \"%s\" before \"%s\"", r->name, qgc_phase_name(phase),
                     l[0].node, l[1].node);
        swap(l, l + 1);
        n++;
    }
    assert_true(n >= least);
    assert_true(agrees(r, phase));
}

static void a_launch_before_what_it_reads(void **state) {
    (void)state;
    replay fused = replay_new(&(replay_of){.yaml = small_qwen2, .arch = 80}),
           plain = replay_new(&(replay_of){.yaml = small_qwen3, .passes = "", .arch = 80});
    swap_each(&fused, QGC_PHASE_PREFILL, 30);
    swap_each(&fused, QGC_PHASE_DECODE, 10);
    swap_each(&plain, QGC_PHASE_DECODE, 20);
    replay_drop(&fused);
    replay_drop(&plain);
}

/* After launch `written` scratch `a` has what launch `read` wants, and in between, not at these two, `b` is written. */
static bool would_harm(const qgc_phase *p, size_t a, size_t b) {
    size_t written = p->n_launches, read = 0;
    for (size_t i = 0; i < p->n_launches; i++) {
        const int access = access_of(&p->launches[i], a);
        if (access & QGC_WRITES)
            written = i;
        if (access & QGC_READS)
            read = i;
    }
    for (size_t i = written + 1; i < read; i++)
        if (access_of(&p->launches[i], b) & QGC_WRITES)
            return true;
    return false;
}

/* That of an attention whose blocks share positions is written at more positions than there are here. */
static bool is_used(const qgc_plan_buffer *b) {
    return b->kind == QGC_BUFFER_SCRATCH && strncmp(b->name, "shares of ", 10) != 0;
}

static void scratch_in_the_place_of_other_scratch(void **state) {
    (void)state;
    const qgc_phase_kind phase = QGC_PHASE_DECODE;
    replay r = replay_new(&(replay_of){.yaml = small_qwen2, .passes = "plan-memory", .arch = 80});
    const qgc_plan *p = r.lowered.plan;
    int n = 0;
    for (size_t a = 0; a < p->n_buffers; a++)
        for (size_t b = 0; b < p->n_buffers; b++) {
            if (!is_used(&p->buffers[a]) || !is_used(&p->buffers[b]) || !would_harm(&p->phases[phase], a, b))
                continue;
            const int64_t held = p->buffers[b].offset;
            p->buffers[b].offset = p->buffers[a].offset;
            if (agrees(&r, phase))
                fail_msg("nobody notices \"%s\" in the place of \"%s\"", p->buffers[b].name,
                         p->buffers[a].name);
            p->buffers[b].offset = held;
            n++;
        }
    assert_true(n > 40);
    assert_true(agrees(&r, phase));
    replay_drop(&r);
}
#endif

/* usage: test_kernels_replay [PATTERN of the tests to run] */
int main(int argc, char **argv) {
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_passes_and_none),
        cmocka_unit_test(the_tiny_model),
        cmocka_unit_test(all_rows_of_a_prompt),
        cmocka_unit_test(all_rows_of_the_tiny_model),
        cmocka_unit_test(random_subsets),
        cmocka_unit_test(in_persistent_mode),
        cmocka_unit_test(weights_are_brought_ahead),
        cmocka_unit_test(in_persistent_mode_on_the_oldest_cards),
        cmocka_unit_test(prompts_from_the_stream_are_refused_on_the_oldest_cards),
        cmocka_unit_test(persistent_steps_launched_together),
        cmocka_unit_test(persistent_steps_have_the_same_bits_in_any_order),
        cmocka_unit_test(a_persistent_step_that_does_not_wait),
        cmocka_unit_test(attention_reads_the_caches_that_it_names),
#if PLANTED
        cmocka_unit_test(a_launch_before_what_it_reads),
        cmocka_unit_test(scratch_in_the_place_of_other_scratch),
#endif
    };
    return cmocka_run_group_tests_name("kernels/replay", tests, NULL, NULL);
}
