#ifndef TESTS_SUPPORT_ARENA_H
#define TESTS_SUPPORT_ARENA_H

#include "graph/base/arena.h"
#include "tests/support/cmocka.h"

/* Tests whose state is an arena. Those that need more have tests/support/fixture.h. */
static inline int arena_setup(void **state) {
    *state = qgc_arena_new();
    return 0;
}

static inline int arena_teardown(void **state) {
    qgc_arena_drop(*state);
    return 0;
}

#define ARENA_TEST(f) cmocka_unit_test_setup_teardown(f, arena_setup, arena_teardown)

#endif
