#ifndef TESTS_SUPPORT_FAMILIES_H
#define TESTS_SUPPORT_FAMILIES_H

#include <stddef.h>
#include <stdint.h>

#include "graph/base/arena.h"

/* The small models of tests/golden/families, and what transformers computes for them. */

#define FAMILIES_FOLDER "tests/golden/families/"

typedef struct {
    const char *family, *model; /* models/FAMILY.yaml, the folder or the GGUF below FAMILIES_FOLDER */
} family_sample;

/* All of them but for olmo3, which models/README.md adds. */
extern const family_sample family_samples[];
extern const size_t n_family_samples;

typedef struct {
    int n, vocab;
    const int32_t *ids;  /* [n] */
    const float *logits; /* [n, vocab] */
    double
        rounded; /* how far transformers is from that in bf16, relative to the largest logit of a position */
    int n_text;
    const int32_t *text;  /* [n_text]: what transformers writes after the first token, always the best one */
    const float *margins; /* [n_text]: how far the second best is, relative to the largest logit */
} family_golden;

/* The golden.bin of a model, in `a`. A room for just its tokens is what transformers chooses the frequencies of longrope by. Fails the test if it cannot be read. */
family_golden family_golden_read(qgc_arena *a, const char *model);

#endif
