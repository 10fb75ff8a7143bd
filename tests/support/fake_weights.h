#ifndef TESTS_SUPPORT_FAKE_WEIGHTS_H
#define TESTS_SUPPORT_FAKE_WEIGHTS_H

#include "models/weights.h"

/* A weights file that is only a table. fake_weights.c has all functions of models/weights.h, so that the readers are not
 * linked in. */
struct qgc_weights {
    qgc_weights_format kind;
    const char *path; /* NULL: "fake.gguf" */
    const char *arch;
    const qgc_tensor *tensors;
    size_t n_tensors;
    const char *keys[4]; /* hyperparameters */
    double numbers[4];
};

#endif
