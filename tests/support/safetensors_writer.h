#ifndef TESTS_SUPPORT_SAFETENSORS_WRITER_H
#define TESTS_SUPPORT_SAFETENSORS_WRITER_H

#include "graph/base/str.h"

/* A safetensors file of this header, as it is, and `n_data` bytes that count up from 1. */
qgc_str safetensors_file(qgc_arena *a, const char *header, size_t n_data);

/* A header of three tensors, and the bytes of data that it describes. */
extern const char safetensors_sample_header[];
enum { SAFETENSORS_SAMPLE_BYTES = 34 };

#endif
