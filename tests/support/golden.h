#ifndef TESTS_SUPPORT_GOLDEN_H
#define TESTS_SUPPORT_GOLDEN_H

#include <stdbool.h>
#include <stdint.h>

#include "graph/base/diag.h"

/* A golden.bin: what transformers computes for a model (tests/golden/tiny/README.md). */

typedef struct {
    const char *text; /* the prompt, and what follows it greedily; "" where the model has no tokenizer */
    const char *new_text;
    int32_t n_ids, n_new;
    const int32_t *ids;     /* [n_ids] */
    const float *logits;    /* [n_ids, vocab] */
    const int32_t *new_ids; /* [n_new] */
    const float *margins;   /* [n_new]: best logit minus second best */
} golden_case;

typedef struct {
    int32_t vocab, n_cases;
    golden_case *cases;
} golden;

/* Reads the file of a folder, "tests/golden/tiny"; everything lives in `a`. Fails the test if it cannot. */
golden golden_read(qgc_arena *a, const char *folder);

/* May logits that are off by `tolerance`, relative to the largest logit of the prompt, choose another token than
 * new_ids[k]? */
bool golden_near_tie(const golden *g, const golden_case *c, int32_t k, double tolerance);

/* Largest difference of n numbers, relative to the largest of `want`; not a number counts as infinite. */
double golden_difference(const float *got, const float *want, int64_t n);

#endif
