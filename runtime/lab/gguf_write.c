#include "runtime/lab/gguf_write.h"

#include <string.h>

enum { KV_STRING = 8, KV_ARRAY = 9, KV_FLOAT64 = 12, GGML_F32 = 0, GGML_F16 = 1, GGML_BF16 = 30 };

static void put_u32(qgc_str *s, uint32_t x) {
    qgc_str_add_bytes(s, &x, sizeof x);
}

static void put_u64(qgc_str *s, uint64_t x) {
    qgc_str_add_bytes(s, &x, sizeof x);
}

static void put_text(qgc_str *s, const char *text) {
    put_u64(s, strlen(text));
    qgc_str_add(s, text);
}

void qgc_gguf_pad(qgc_str *s) {
    while (s->bytes % QGC_GGUF_ALIGN)
        qgc_str_add_bytes(s, "", 1);
}

qgc_gguf_writer qgc_gguf_writer_new(const char *arch, qgc_arena *a) {
    qgc_gguf_writer f = {qgc_str_new(a), qgc_str_new(a), 1, 0, 0};
    put_text(&f.keys, "general.architecture");
    put_u32(&f.keys, KV_STRING);
    put_text(&f.keys, arch);
    /* models/facts.c: whatever the architecture, rows lie as the graph reads them */
    qgc_gguf_writer_number(&f, "qgc.rows_in_order", 1);
    return f;
}

void qgc_gguf_writer_number(qgc_gguf_writer *f, const char *key, double value) {
    put_text(&f->keys, key);
    put_u32(&f->keys, KV_FLOAT64);
    qgc_str_add_bytes(&f->keys, &value, sizeof value);
    f->n_keys++;
}

void qgc_gguf_writer_numbers(qgc_gguf_writer *f, const char *key, const double *values, int n) {
    put_text(&f->keys, key);
    put_u32(&f->keys, KV_ARRAY);
    put_u32(&f->keys, KV_FLOAT64);
    put_u64(&f->keys, (uint64_t)n);
    qgc_str_add_bytes(&f->keys, values, (size_t)n * sizeof *values);
    f->n_keys++;
}

void qgc_gguf_writer_word(qgc_gguf_writer *f, const char *key, const char *word) {
    put_text(&f->keys, key);
    put_u32(&f->keys, KV_STRING);
    put_text(&f->keys, word);
    f->n_keys++;
}

void qgc_gguf_writer_tensor(qgc_gguf_writer *f, const char *name, qgc_dtype dtype, int rank,
                            const int64_t *shape) {
    int64_t n = 1;
    put_text(&f->tensors, name);
    put_u32(&f->tensors, (uint32_t)rank);
    for (int r = rank - 1; r >= 0; r--) { /* innermost first */
        put_u64(&f->tensors, (uint64_t)shape[r]);
        n *= shape[r];
    }
    put_u32(&f->tensors, dtype == QGC_F32 ? GGML_F32 : dtype == QGC_F16 ? GGML_F16 : GGML_BF16);
    put_u64(&f->tensors, f->data_bytes);
    const uint64_t most = QGC_GGUF_ALIGN - 1;
    f->data_bytes += (qgc_dtype_bytes(dtype, n) + most) & ~most;
    f->n_tensors++;
}

qgc_str qgc_gguf_writer_head(const qgc_gguf_writer *f) {
    qgc_str head = qgc_str_new(f->keys.arena);
    qgc_str_add_bytes(&head, "GGUF", 4);
    put_u32(&head, 3);
    put_u64(&head, f->n_tensors);
    put_u64(&head, f->n_keys);
    qgc_str_add_bytes(&head, f->keys.text, f->keys.bytes);
    qgc_str_add_bytes(&head, f->tensors.text, f->tensors.bytes);
    qgc_gguf_pad(&head);
    return head;
}
