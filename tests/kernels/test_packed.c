/* Prefill in persistent mode: plans of small models whose products of many tokens read the stream of the persistent step, run on the CPU
 * and held against the evaluator. */

#include <string.h>

#include "tests/kernels/on_cpu_launch.h"
#include "tests/kernels/replay.h"
#include "tests/kernels/small_graphs.h"
#include "tests/support/cmocka.h"

static const char *const families[] = {small_qwen2, small_qwen3, small_olmo2};

static int count(const replay *r, const char *kernel) {
    const qgc_phase *phase = &r->lowered.plan->phases[QGC_PHASE_PACKED_PREFILL];
    int n = 0;
    for (size_t i = 0; i < phase->n_launches; i++)
        n += phase->launches[i].kind == QGC_LAUNCH_KERNEL &&
             strcmp(r->lowered.plan->kernels[phase->launches[i].kernel].entry, kernel) == 0;
    return n;
}

static void must_agree(replay *r, const replay_run *what) {
    const apart a = replay_compare(r, what);
    if (!replay_agrees(&a))
        fail_msg("%s %s: logits %g and states %g apart, by chunks %g and %g; %d tokens are others",
                 r->graph->name, r->name, a.logits, a.states, a.prefilled_logits, a.prefilled_states,
                 a.tokens);
}

/* On few and more multiprocessors, so that tiles of rows have all heights. The stream is made from the file where steps are taken, too,
 * else from weights that are on the device. */
static void chunks_of_a_prompt(void **state) {
    (void)state;
    static const int sms[] = {2, 3, 5};
    for (int i = 0; i < 3; i++) {
        replay r = replay_new(&(replay_of){.yaml = families[i], .arch = 90, .sms = sms[i]});
        assert_int_equal(count(&r, "unpack"), 0);
        assert_true(count(&r, "packed_gemm") >= 2 * 4 + 1);
        must_agree(&r, &(replay_run){ON_CPU_RANDOM + i, REPLAY_CHUNK + 5, i == 1 ? REPLAY_SHORT : 0});
        replay_drop(&r);
    }
}

static void without_passes(void **state) {
    (void)state;
    replay r = replay_new(&(replay_of){.yaml = small_qwen3, .passes = "persistent", .arch = 90, .sms = 3});
    must_agree(&r, &(replay_run){ON_CPU_FORWARDS, REPLAY_CHUNK + 5, 0});
    replay_drop(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_of_a_prompt),
        cmocka_unit_test(without_passes),
    };
    return cmocka_run_group_tests_name("kernels/packed", tests, NULL, NULL);
}
