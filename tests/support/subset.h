#ifndef TESTS_SUPPORT_SUBSET_H
#define TESTS_SUPPORT_SUBSET_H

#include <assert.h>

#include "graph/base/str.h"
#include "passes/passes.h"
#include "tests/support/random.h"

/* Pipelines for tests that run many, as qgc_pass_options.passes takes them. */

/* The passes whose bits are set, in the order of the pipeline, or with `shuffled` in a random one. */
static inline const char *test_subset(qgc_arena *a, unsigned bits, bool shuffled, uint64_t *seed) {
    size_t n = qgc_pass_count(), *order = qgc_arena_array(a, n, sizeof *order);
    for (size_t k = 0; k < n; k++)
        order[k] = k;
    for (size_t k = n; shuffled && k > 1; k--) {
        size_t j = (unsigned)test_random(seed) % k, held = order[k - 1];
        order[k - 1] = order[j];
        order[j] = held;
    }
    qgc_str text = qgc_str_new(a);
    for (size_t k = 0; k < n; k++)
        if (bits >> order[k] & 1)
            qgc_str_printf(&text, "%s%s", text.bytes ? "," : "", qgc_pass_at(order[k])->name);
    return text.text;
}

/* How many pipelines are the same in every test: each pass by itself, each left out, none, all. */
static inline unsigned test_chosen_pipelines(void) {
    return 2 * (unsigned)qgc_pass_count() + 2;
}

/* Pipeline i: the chosen ones, then random subsets, those from `shuffled` on in random orders. */
static inline const char *test_pipeline(qgc_arena *a, unsigned i, unsigned shuffled, uint64_t *seed) {
    const unsigned n = (unsigned)qgc_pass_count();
    assert(n < 32);
    const unsigned whole = (1u << n) - 1;
    unsigned bits = i < n                         ? 1u << i
                    : i < 2 * n                   ? whole & ~(1u << (i - n))
                    : i == 2 * n                  ? 0
                    : i < test_chosen_pipelines() ? whole
                                                  : (unsigned)test_random(seed) & whole;
    return test_subset(a, bits, i >= shuffled, seed);
}

#endif
