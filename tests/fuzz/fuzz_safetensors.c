#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "models/weights_impl.h"

/* Any bytes as a safetensors file; those that start like JSON also as a config.json. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static volatile uint64_t touched;

static void walk(const qgc_weights *w) {
    for (size_t i = 0; i < qgc_weights_count(w); i++) {
        const qgc_tensor *t = qgc_weights_at(w, i);
        const uint8_t *p = t->data;
        touched += (uint64_t)p[0] + p[t->bytes - 1];
        if (qgc_weights_find(w, t->name) != t)
            __builtin_trap();
    }
}

static void ask(const qgc_weights *w) {
    static const char *const keys[] = {
        "model_type", "hidden_size", "rope_scaling.factor", "a", "a.a", "a.a.a", ".", ""};
    double number;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *text = qgc_weights_string(w, keys[i]);
        touched += text ? strlen(text) : 0;
        touched += qgc_weights_number(w, keys[i], &number);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a);
    qgc_weights *w = qgc_weights_new("fuzz.safetensors", QGC_WEIGHTS_HF);
    if (qgc_safetensors_parse(w, data, bytes, qgc_weights_place(&d, "fuzz.safetensors"), &d) == QGC_OK)
        walk(w);
    else if (!*qgc_diag_message(&d))
        __builtin_trap();
    qgc_weights_close(w);

    if (bytes && data[0] == '{') {
        d = qgc_diag_new(a);
        w = qgc_weights_new("config.json", QGC_WEIGHTS_HF);
        qgc_source text = {
            .name = "config.json", .text = qgc_arena_strndup(a, (const char *)data, bytes), .bytes = bytes};
        if (qgc_hf_parse_config(w, &text, &d) == QGC_OK)
            ask(w);
        else if (!*qgc_diag_message(&d))
            __builtin_trap();
        qgc_weights_close(w);
    }
    qgc_arena_drop(a);
    return 0;
}
