#ifndef TESTS_SUPPORT_FAKE_WEIGHTS_FILE_H
#define TESTS_SUPPORT_FAKE_WEIGHTS_FILE_H

#include "models/weights.h"

/* A weights file that is a list of tensors. fake_weights_file.c has all functions of models/weights.h, so that the
 * readers are not linked in. It states no hyperparameters. */
struct qgc_weights {
    qgc_weights_format format;
    const char *arch;
    const qgc_tensor *tensors;
    size_t n_tensors;
};

#endif
