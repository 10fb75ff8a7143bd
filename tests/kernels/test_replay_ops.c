/* Plans with ops that not all models have, replayed on the CPU as in test_replay.c: by launches and in persistent mode, with all
 * passes, with none, and with some. */

#include <string.h>

#include "tests/kernels/on_cpu_launch.h"
#include "tests/kernels/replay.h"
#include "tests/kernels/small_graphs.h"
#include "tests/support/cmocka.h"
#include "tests/support/subset.h"

#ifndef SUBSETS /* fewer where a sanitizer makes them slow */
#define SUBSETS 4
#endif

static void compare(const replay_of *of, const replay_run *what) {
    replay r = replay_new(of);
    const apart a = replay_compare(&r, what);
    if (of->sms && r.lowered.plan->not_persistent)
        fail_msg("%s %s: %s", r.graph->name, r.name, r.lowered.plan->not_persistent);
    if (!replay_agrees(&a))
        fail_msg(
            "%s %s, %d multiprocessors: logits %g and states %g apart, by chunks %g and %g; %d tokens are others",
            r.graph->name, r.name, of->sms, a.logits, a.states, a.prefilled_logits, a.prefilled_states,
            a.tokens);
    replay_drop(&r);
}

/* All that a graph is held to. */
static void check(const char *yaml) {
    static const int archs[] = {80, 75, 90};
    uint64_t seed = 3;
    qgc_arena *a = qgc_arena_new();
    for (int i = 0; i < 3; i++) {
        const replay_run what = {ON_CPU_RANDOM + i, REPLAY_LONG, archs[i] == 90 ? REPLAY_SHORT : REPLAY_LONG};
        compare(&(replay_of){.yaml = yaml, .arch = archs[i]}, &what);
    }
    compare(&(replay_of){.yaml = yaml, .passes = "", .arch = 80},
            &(replay_run){ON_CPU_BACKWARDS, REPLAY_LONG, REPLAY_LONG});
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(multipliers_and_activations),
        cmocka_unit_test(rotation_of_a_part_of_each_head),
    };
    return cmocka_run_group_tests_name("kernels/replay_ops", tests, NULL, NULL);
}
