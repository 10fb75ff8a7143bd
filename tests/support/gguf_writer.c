#include "tests/support/gguf_writer.h"

#include <string.h>

void gguf_put(qgc_str *s, uint64_t number, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) {
        unsigned char byte = i < 8 ? (unsigned char)(number >> (8 * i)) : 0;
        qgc_str_add_bytes(s, &byte, 1);
    }
}

void gguf_put_string(qgc_str *s, const char *text) {
    gguf_put(s, strlen(text), 8);
    qgc_str_add(s, text);
}

void gguf_put_header(qgc_str *s, uint32_t version, uint64_t n_tensors, uint64_t n_keys) {
    qgc_str_add(s, "GGUF");
    gguf_put(s, version, 4);
    gguf_put(s, n_tensors, 8);
    gguf_put(s, n_keys, 8);
}

void gguf_put_key(qgc_str *s, const char *key, uint32_t type) {
    gguf_put_string(s, key);
    gguf_put(s, type, 4);
}

void gguf_put_key_u32(qgc_str *s, const char *key, uint32_t value) {
    gguf_put_key(s, key, GGUF_U32);
    gguf_put(s, value, 4);
}

void gguf_put_key_string(qgc_str *s, const char *key, const char *value) {
    gguf_put_key(s, key, GGUF_STRING);
    gguf_put_string(s, value);
}

void gguf_put_key_array(qgc_str *s, const char *key, uint32_t elem_type, uint64_t n) {
    gguf_put_key(s, key, GGUF_ARRAY);
    gguf_put(s, elem_type, 4);
    gguf_put(s, n, 8);
}

void gguf_put_tensor(qgc_str *s, const char *name, const uint64_t dims[2], uint32_t type, uint64_t offset) {
    gguf_put_string(s, name);
    gguf_put(s, 2, 4);
    gguf_put(s, dims[0], 8);
    gguf_put(s, dims[1], 8);
    gguf_put(s, type, 4);
    gguf_put(s, offset, 8);
}

void gguf_put_padding(qgc_str *s, size_t multiple) {
    while (s->bytes % multiple)
        gguf_put(s, 0, 1);
}

void gguf_put_data(qgc_str *s, size_t n) {
    for (size_t i = 1; i <= n; i++)
        gguf_put(s, i, 1);
}

static uint64_t bits_of_f32(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static uint64_t bits_of_f64(double f) {
    uint64_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

qgc_str gguf_sample(qgc_arena *a) {
    static const struct {
        const char *key;
        uint32_t type;
        size_t bytes;
        uint64_t value;
    } numbers[] = {
        {"n.u8", GGUF_U8, 1, 200},
        {"n.i8", GGUF_I8, 1, 0xFE},
        {"n.u16", GGUF_U16, 2, 60000},
        {"n.i16", GGUF_I16, 2, 0xFFFD},
        {"n.u32", GGUF_U32, 4, 4000000000},
        {"n.i32", GGUF_I32, 4, 0xFFFFFFFC},
        {"n.bool", GGUF_BOOL, 1, 1},
        {"n.u64", GGUF_U64, 8, 1ull << 52},
        {"n.i64", GGUF_I64, 8, 0xFFFFFFFFFFFFFFFBull},
    };
    enum { N_NUMBERS = sizeof numbers / sizeof *numbers };
    qgc_str s = qgc_str_new(a);
    gguf_put_header(&s, 3, 3, N_NUMBERS + 8);
    gguf_put_key_string(&s, "general.architecture", "qwen2");
    gguf_put_key_u32(&s, "general.alignment", 64);
    for (size_t i = 0; i < N_NUMBERS; i++) {
        gguf_put_key(&s, numbers[i].key, numbers[i].type);
        gguf_put(&s, numbers[i].value, numbers[i].bytes);
    }
    gguf_put_key(&s, "n.f32", GGUF_F32);
    gguf_put(&s, bits_of_f32(0.25f), 4);
    gguf_put_key(&s, "n.f64", GGUF_F64);
    gguf_put(&s, bits_of_f64(1e-300), 8);
    gguf_put_key_array(&s, "a.tokens", GGUF_STRING, 4);
    gguf_put_string(&s, "one");
    gguf_put_string(&s, "");
    gguf_put(&s, 3, 8);
    qgc_str_add_bytes(&s, "a\0b", 3);
    gguf_put_string(&s, "four");
    gguf_put_key_array(&s, "a.i32", GGUF_I32, 3);
    gguf_put(&s, 7, 4);
    gguf_put(&s, 0xFFFFFFFF, 4);
    gguf_put(&s, 9, 4);
    gguf_put_key_array(&s, "a.bool", GGUF_BOOL, 2);
    gguf_put(&s, 0, 1);
    gguf_put(&s, 1, 1);
    gguf_put_key_array(&s, "a.empty", GGUF_STRING, 0);
    gguf_put_tensor(&s, "matrix", (uint64_t[]){32, 2}, GGML_Q8_0, 64);
    gguf_put_tensor(&s, "first", (uint64_t[]){3, 4}, GGML_F32, 0);
    gguf_put_string(&s, "norm");
    gguf_put(&s, 1, 4);
    gguf_put(&s, 5, 8);
    gguf_put(&s, GGML_BF16, 4);
    gguf_put(&s, 192, 8);
    gguf_put_padding(&s, 64);
    gguf_put_data(&s, 192 + 10);
    return s;
}
