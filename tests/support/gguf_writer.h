#ifndef TESTS_SUPPORT_GGUF_WRITER_H
#define TESTS_SUPPORT_GGUF_WRITER_H

#include <stdint.h>

#include "graph/base/str.h"
#include "models/gguf.h"

/* Writes a GGUF piece by piece. Nothing is checked or counted, so that a test can lie. */

/* Numbers of tensor types, as in the file. */
enum { GGML_F32 = 0, GGML_F16 = 1, GGML_Q8_0 = 8, GGML_Q6_K = 14, GGML_IQ4_XS = 23, GGML_BF16 = 30 };

void gguf_put(qgc_str *s, uint64_t number, size_t bytes); /* little-endian */
void gguf_put_string(qgc_str *s, const char *text);
void gguf_put_header(qgc_str *s, uint32_t version, uint64_t n_tensors, uint64_t n_keys);

/* The name and type of a key; its value is to follow. */
void gguf_put_key(qgc_str *s, const char *key, uint32_t type);
void gguf_put_key_u32(qgc_str *s, const char *key, uint32_t value);
void gguf_put_key_string(qgc_str *s, const char *key, const char *value);
/* The head of an array, its elements are to follow. */
void gguf_put_key_array(qgc_str *s, const char *key, uint32_t elem_type, uint64_t n);

/* A tensor of two dimensions, innermost first. */
void gguf_put_tensor(qgc_str *s, const char *name, const uint64_t dims[2], uint32_t type, uint64_t offset);

/* Zeros up to the next multiple, then `n` bytes that count up from 1. */
void gguf_put_padding(qgc_str *s, size_t multiple);
void gguf_put_data(qgc_str *s, size_t n);

/* A whole small file with a key of each type, arrays, and three tensors. */
qgc_str gguf_sample(qgc_arena *a);

#endif
