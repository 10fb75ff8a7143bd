/* Blocks that run at once and hand each other vectors (exchange_on_cpu.cc), under many schedules: the chain is right in all of
 * them, and each fault that is planted shows in some. So it is the schedules that are tested here, as much as the kernel. */

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "tests/kernels/exchange_on_cpu.h"
#include "tests/support/arena.h"
#include "tests/support/random.h"

#ifndef SCHEDULES /* fewer where a sanitizer makes them slow */
#define SCHEDULES 80
#endif

enum { N = EXCHANGE_N, LAYERS = 3, LAUNCHES = 3, MOST_BLOCKS = 7 };

typedef struct {
    float *weights, *x, *exchange, *out, *want;
} chain;

static chain chain_new(qgc_arena *a, uint64_t seed) {
    chain c = {qgc_arena_array(a, LAYERS * 2 * N * N, sizeof(float)), qgc_arena_array(a, N, sizeof(float)),
               qgc_arena_array(a, exchange_of_test.exchange_floats, sizeof(float)),
               qgc_arena_array(a, N, sizeof(float)), qgc_arena_array(a, N, sizeof(float))};
    for (int i = 0; i < LAYERS * 2 * N * N; i++)
        c.weights[i] = test_random_float(&seed) * sqrtf(3.0f / N);
    for (int i = 0; i < N; i++)
        c.x[i] = test_random_float(&seed);
    return c;
}

static void reference(const chain *c) {
    float x[N], y[N];
    memcpy(x, c->x, sizeof x);
    for (int product = 0; product < 2 * LAYERS; product++) {
        for (int i = 0; i < N; i++) {
            y[i] = 0;
            for (int k = 0; k < N; k++)
                y[i] += c->weights[(product * N + i) * N + k] * x[k];
        }
        memcpy(x, y, sizeof x);
    }
    memcpy(c->want, x, sizeof x);
}

static bool is_right(const chain *c) {
    for (int i = 0; i < N; i++)
        if (!(fabsf(c->out[i] - c->want[i]) <= 1e-4f))
            return false;
    return true;
}

static const char *const by[EXCHANGE_N_COPIES] = {"", " by lanes", " by loads"};

/* A few launches, each with another x and the exchange as the one before left it; false if one is wrong or given up. */
static bool run(int fault, int copies, int schedule, const char **gave_up) {
    qgc_arena *a = qgc_arena_new();
    chain c = chain_new(a, (uint64_t)schedule);
    const on_cpu_kernel *kernels[MOST_BLOCKS];
    for (int i = 0; i < MOST_BLOCKS; i++)
        kernels[i] = exchange_kernel(fault, copies);
    bool right = true;
    for (int i = 0; i < LAUNCHES && right; i++) {
        int32_t given_up_at = 0, *at = &given_up_at, layers = LAYERS;
        uint32_t used = (uint32_t)(i * LAYERS);
        void *args[] = {&c.weights, &c.x, &c.exchange, &c.out, &at, &layers, &used};
        const on_cpu_launch_options o = {.grid = {2 + (unsigned)schedule % (MOST_BLOCKS - 1), 1, 1},
                                         .threads = exchange_of_test.threads,
                                         .shared_bytes = exchange_of_test.shared_bytes,
                                         .order = schedule * LAUNCHES + i,
                                         .args = args};
        reference(&c);
        *gave_up = on_cpu_launch_together(kernels, &o);
        right = !*gave_up && is_right(&c);
        memcpy(c.x, c.want, N * sizeof *c.x);
    }
    qgc_arena_drop(a);
    return right;
}

static void the_chain_is_right_under_all_schedules(void **state) {
    (void)state;
    for (int schedule = 0; schedule < SCHEDULES; schedule++)
        for (int copies = 0; copies < (schedule % 8 == 0 ? EXCHANGE_N_COPIES : 1); copies++) {
            const char *gave_up = NULL;
            if (!run(FAULT_NONE, copies, schedule, &gave_up))
                fail_msg("schedule %d%s: %s", schedule, by[copies], gave_up ? gave_up : "wrong");
        }
}

static void each_fault_shows(void **state) {
    (void)state;
    static const char *const names[] = {
#define FAULT(name) #name,
        EXCHANGE_FAULTS
#undef FAULT
    };
    for (int copies = 0; copies < EXCHANGE_N_COPIES; copies++)
        for (int fault = FAULT_NONE + 1;
             fault < (copies == EXCHANGE_BY_LANES ? EXCHANGE_N_FAULTS : EXCHANGE_FIRST_OF_LANES); fault++) {
            int schedule = 0;
            const char *gave_up = NULL;
            while (schedule < SCHEDULES && run(fault, copies, schedule, &gave_up))
                schedule++;
            if (schedule == SCHEDULES)
                fail_msg("%s%s does not show in %d schedules", names[fault], by[copies], SCHEDULES);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_chain_is_right_under_all_schedules),
        cmocka_unit_test(each_fault_shows),
    };
    return cmocka_run_group_tests_name("kernels/exchange", tests, NULL, NULL);
}
