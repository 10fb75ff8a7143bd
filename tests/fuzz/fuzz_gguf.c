#include <stddef.h>
#include <stdint.h>

#include "models/weights_impl.h"

/* Any bytes as a GGUF: refused, or everything in it can be asked for. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static volatile uint64_t touched;

static void touch(const void *data, size_t bytes) {
    const uint8_t *p = data;
    if (bytes)
        touched += (uint64_t)p[0] + p[bytes - 1];
}

static void walk_tensor(const qgc_weights *w, const qgc_tensor *t) {
    enum { MAX_ROW = 1024 };
    touch(t->data, t->bytes);
    if (qgc_weights_find(w, t->name) != t)
        __builtin_trap();
    int64_t n = qgc_tensor_row_elems(t);
    if (t->dtype != QGC_I32 && n <= MAX_ROW) {
        float row[MAX_ROW];
        size_t row_bytes = qgc_dtype_bytes(t->dtype, n);
        qgc_to_f32(t->dtype, t->data, row, n);
        qgc_to_f32(t->dtype, (const uint8_t *)t->data + t->bytes - row_bytes, row, n);
    }
}

static void walk_key(const qgc_weights *w, const char *key) {
    double number;
    const char *text = qgc_weights_string(w, key);
    if (text)
        for (const char *p = text; *p; p++)
            touched += (uint64_t)*p;
    touched += qgc_weights_number(w, key, &number);
    size_t n = qgc_weights_array_length(w, key), length;
    for (size_t i = 0; i < n; i++) {
        touched += qgc_weights_array_number(w, key, i, &number);
        if (qgc_weights_array_string(w, key, i, &text, &length))
            touch(text, length);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a);
    qgc_weights *w = qgc_weights_new("fuzz.gguf", QGC_WEIGHTS_GGUF);
    if (qgc_gguf_parse(w, data, bytes, qgc_weights_place(&d, "fuzz.gguf"), &d) == QGC_OK) {
        for (size_t i = 0; i < qgc_weights_count(w); i++)
            walk_tensor(w, qgc_weights_at(w, i));
        for (size_t i = 0; i < w->keys.n; i++)
            walk_key(w, w->keys.entries[i].key);
    } else if (!*qgc_diag_message(&d)) {
        __builtin_trap();
    }
    qgc_weights_close(w);
    qgc_arena_drop(a);
    return 0;
}
