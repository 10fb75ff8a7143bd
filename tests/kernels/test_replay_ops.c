/* Plans with ops that not all models have, replayed on the CPU as in test_replay.c: by launches and in persistent mode, with all
 * passes, with none, and with some. */

#include <string.h>

#include "kernels/cpu/on_cpu_launch.h"
#include "tests/kernels/replay.h"
#include "tests/kernels/small_graphs.h"
#include "tests/support/cmocka.h"
#include "tests/support/subset.h"

#ifndef SUBSETS /* fewer where a sanitizer makes them slow */
#define SUBSETS 4
#endif

/* With passes that it chooses itself a graph has to run in persistent mode; where others leave what no phase can do, it may be refused. */
static void compare(const replay_of *of, const replay_run *what) {
    replay r = replay_new(of);
    if (of->sms && !of->passes && r.lowered.plan->not_persistent)
        fail_msg("%s %s: %s", r.graph->name, r.name, r.lowered.plan->not_persistent);
    if (of->sms && r.lowered.plan->not_persistent) {
        print_message("%s %s: %s\n", r.graph->name, r.name, r.lowered.plan->not_persistent);
        replay_drop(&r);
        return;
    }
    const apart a = replay_compare(&r, what);
    if (!replay_agrees(&a))
        fail_msg(
            "%s %s, %d multiprocessors: logits %g and states %g apart, by chunks %g and %g; %d tokens are "
            "others",
            r.graph->name, r.name, of->sms, a.logits, a.states, a.prefilled_logits, a.prefilled_states,
            a.tokens);
    replay_drop(&r);
}

static const int archs[] = {80, 75, 90};

/* In decode steps and in chunks, with all passes and with none. */
static void check_launches(const char *yaml) {
    for (int i = 0; i < 3; i++)
        compare(&(replay_of){.yaml = yaml, .arch = archs[i]},
                &(replay_run){ON_CPU_RANDOM + i, REPLAY_LONG, REPLAY_SHORT});
    compare(&(replay_of){.yaml = yaml, .passes = "", .arch = 80},
            &(replay_run){ON_CPU_BACKWARDS, REPLAY_LONG, REPLAY_LONG});
}

/* All that a graph is held to. It has two layers: more of them are more chances for a cache to be rounded otherwise. */
static void check(const char *yaml) {
    uint64_t seed = 3;
    qgc_arena *a = qgc_arena_new();
    for (int i = 0; i < 3; i++) {
        const replay_run what = {ON_CPU_RANDOM + i, REPLAY_LONG, archs[i] == 80 ? REPLAY_LONG : REPLAY_SHORT};
        compare(&(replay_of){.yaml = yaml, .arch = archs[i]}, &what);
    }
    compare(&(replay_of){.yaml = yaml, .passes = "", .arch = 80},
            &(replay_run){ON_CPU_BACKWARDS, REPLAY_LONG, REPLAY_SHORT});
    compare(&(replay_of){.yaml = yaml, .arch = 90, .sms = 3}, &(replay_run){ON_CPU_RANDOM, 0, REPLAY_LONG});
    compare(&(replay_of){.yaml = yaml, .passes = "", .arch = 90, .sms = 2},
            &(replay_run){ON_CPU_RANDOM + 1, 0, REPLAY_SHORT});
    for (int i = 0; i < SUBSETS; i++) {
        const char *passes = test_subset(a, (unsigned)test_random(&seed), i % 2 == 0, &seed);
        compare(&(replay_of){.yaml = yaml, .passes = passes, .arch = archs[i % 3]},
                &(replay_run){ON_CPU_FROM_THE_MIDDLE, REPLAY_LONG, REPLAY_SHORT});
    }
    qgc_arena_drop(a);
}

static void multipliers_and_activations(void **state) {
    (void)state;
    check(small_granite);
}

static void rotation_of_a_part_of_each_head(void **state) {
    (void)state;
    check(small_partial);
    check(small_interleaved);
    check(small_interleaved_qkv);
}

static void rotation_by_frequencies(void **state) {
    (void)state;
    check(small_frequencies);
}

static void windows_and_capped_scores(void **state) {
    (void)state;
    check(small_windowed);
    check(small_windows);
}

/* What threads carry from attention's product to that of the MLP shows that no vector is written too early. */
static void attention_and_mlp_side_by_side(void **state) {
    (void)state;
    const replay_of whole = {.yaml = small_parallel, .arch = 90, .sms = 3};
    const replay_of none = {.yaml = small_parallel, .passes = "", .arch = 80};
    compare(&whole, &(replay_run){ON_CPU_RANDOM, 0, REPLAY_LONG});
    compare(&none, &(replay_run){ON_CPU_BACKWARDS, REPLAY_LONG, REPLAY_SHORT});
}

/* Of models of tests/golden/families that make little of rounding. */
static void heads_of_96_and_256(void **state) {
    (void)state;
    static const char *const models[][2] = {{"models/qwen3.yaml", "tests/golden/families/qwen3-96-wide"},
                                            {"models/gemma.yaml", "tests/golden/families/gemma-256-wide"}};
    for (int i = 0; i < 2; i++) {
        const replay_of launches = {.yaml = models[i][0], .weights = models[i][1], .arch = 90};
        replay_of persistent = launches;
        persistent.sms = 3;
        compare(&launches, &(replay_run){ON_CPU_RANDOM, REPLAY_LONG, REPLAY_SHORT});
        compare(&persistent, &(replay_run){ON_CPU_RANDOM, 0, REPLAY_LONG});
    }
}

static void is_not_persistent(const char *yaml, const char *why) {
    replay r = replay_new(&(replay_of){.yaml = yaml, .arch = 90, .sms = 2});
    assert_non_null(r.lowered.plan->not_persistent);
    assert_string_equal(r.lowered.plan->not_persistent, why);
    replay_drop(&r);
}

static void experts_and_layer_norm(void **state) {
    (void)state;
    check_launches(small_experts);
    check_launches(small_mixture);
    check(small_stablelm);
    is_not_persistent(small_experts, "route \"ids[0]\" has no phase in the kernel");
}

/* One more score of each head; the parts of a split attention have it once. */
static void attention_with_sinks(void **state) {
    (void)state;
    check(small_sinks);
}

/* Positions before a window, beyond it, and around the ring; a chunk ends where a lap does, and elsewhere. */
static void caches_that_are_rings(void **state) {
    (void)state;
    static const char *const graphs[] = {small_ring_and_none, small_two_rings};
    static const char *const passes[] = {NULL, "", "split-attention"};
    const replay_run what = {ON_CPU_RANDOM, REPLAY_LONG, REPLAY_LONG};
    for (int i = 0; i < 3; i++)
        for (int g = 0; g < 2; g++)
            compare(&(replay_of){.yaml = graphs[g], .passes = passes[(i + g) % 3], .arch = archs[i]}, &what);
    for (int g = 0; g < 2; g++)
        compare(&(replay_of){.yaml = graphs[g], .arch = g ? 80 : 90, .sms = 3}, &what);
}

/* Layers of one phase, whose attentions are cut in other ways, or not at all, in one step. */
static void layers_that_are_cut_in_other_ways(void **state) {
    (void)state;
    static const char *const graphs[] = {small_none_and_ring, small_windows_of_layers};
    for (int g = 0; g < 2; g++)
        compare(&(replay_of){.yaml = graphs[g], .arch = 90, .sms = 7},
                &(replay_run){ON_CPU_RANDOM + g, 0, REPLAY_LONG});
}

/* One may be named: "rotation*". */
int main(int argc, char **argv) {
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(multipliers_and_activations), cmocka_unit_test(rotation_of_a_part_of_each_head),
        cmocka_unit_test(rotation_by_frequencies),     cmocka_unit_test(windows_and_capped_scores),
        cmocka_unit_test(experts_and_layer_norm),      cmocka_unit_test(attention_and_mlp_side_by_side),
        cmocka_unit_test(heads_of_96_and_256),         cmocka_unit_test(attention_with_sinks),
        cmocka_unit_test(caches_that_are_rings),       cmocka_unit_test(layers_that_are_cut_in_other_ways),
    };
    return cmocka_run_group_tests_name("kernels/replay_ops", tests, NULL, NULL);
}
