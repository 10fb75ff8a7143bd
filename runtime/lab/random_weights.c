#include "runtime/lab/random_weights.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "graph/base/file.h"
#include "graph/base/str.h"

/* The GGUF words used here (github.com/ggml-org/ggml/blob/master/docs/gguf.md). */
enum { KV_STRING = 8, KV_FLOAT64 = 12, GGML_F32 = 0, GGML_F16 = 1, GGML_BF16 = 30, ALIGN = 32 };

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

/* splitmix64 (prng.di.unimi.it/splitmix64.c), to a number in [-1, 1). */
static float uniform(uint64_t *state) {
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (float)((double)((z ^ (z >> 31)) >> 11) / 4503599627370496.0 - 1.0);
}

static void put_numbers(qgc_str *s, const qgc_value *v, uint64_t *state) {
    int64_t n = qgc_shape_elems_from(&v->shape, 0), row = v->shape.dim[v->shape.rank - 1];
    bool norm = strstr(v->name, "norm") != NULL;
    float scale = v->shape.rank < 2 ? 0.1f : sqrtf(3.0f / (float)row);
    float piece[256];
    char stored[sizeof piece];
    for (int64_t done = 0; done < n;) {
        int64_t now = n - done < 256 ? n - done : 256;
        for (int64_t i = 0; i < now; i++)
            piece[i] = (norm ? 1.0f : 0.0f) + scale * uniform(state);
        qgc_from_f32(v->dtype, piece, stored, now);
        qgc_str_add_bytes(s, stored, qgc_dtype_bytes(v->dtype, now));
        done += now;
    }
}

qgc_status qgc_random_weights_write(const qgc_graph *g, const char *path, uint64_t seed, qgc_diag *d) {
    qgc_str head = qgc_str_new(d->arena), data = qgc_str_new(d->arena);
    uint64_t n_tensors = 0, n_keys = 1;
    for (size_t w = 0; w < g->n_weights; w++)
        if (g->weights[w].tied < 0)
            n_tensors += (uint64_t)g->weights[w].count;
    for (size_t i = 0; i < g->n_params; i++)
        n_keys += g->params[i].n_gguf > 0;

    qgc_str_add_bytes(&head, "GGUF", 4);
    put_u32(&head, 3);
    put_u64(&head, n_tensors);
    put_u64(&head, n_keys);
    put_text(&head, "general.architecture");
    put_u32(&head, KV_STRING);
    put_text(&head, g->arch);
    for (size_t i = 0; i < g->n_params; i++)
        if (g->params[i].n_gguf > 0) {
            put_text(&head, g->params[i].gguf[0]);
            put_u32(&head, KV_FLOAT64);
            qgc_str_add_bytes(&head, &g->params[i].value, sizeof(double));
        }
    for (size_t w = 0; w < g->n_weights; w++)
        for (int i = 0; g->weights[w].tied < 0 && i < g->weights[w].count; i++) {
            const qgc_value *v = g->weights[w].values[i];
            put_text(&head, qgc_tensor_name(g->weights[w].gguf, g->weights[w].index, v->layer, d->arena));
            put_u32(&head, (uint32_t)v->shape.rank);
            for (int r = v->shape.rank - 1; r >= 0; r--) /* innermost first */
                put_u64(&head, (uint64_t)v->shape.dim[r]);
            put_u32(&head, v->dtype == QGC_F32 ? GGML_F32 : v->dtype == QGC_F16 ? GGML_F16 : GGML_BF16);
            put_u64(&head, data.bytes);
            put_numbers(&data, v, &seed);
            while (data.bytes % ALIGN)
                qgc_str_add_bytes(&data, "", 1);
        }
    while (head.bytes % ALIGN)
        qgc_str_add_bytes(&head, "", 1);
    qgc_str_add_bytes(&head, data.text, data.bytes);
    return qgc_file_write(path, head.text, head.bytes, d);
}

qgc_status qgc_random_weights_open(qgc_weights **out, const qgc_graph *g, uint64_t seed, qgc_diag *d) {
    *out = NULL;
    char folder[] = "/tmp/qgc-XXXXXX";
    if (!mkdtemp(folder))
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                        "could not make a folder in /tmp for random weights: %s", strerror(errno));
    qgc_arena *text = qgc_arena_new(); /* of the file, which is as large as the weights */
    qgc_diag inner = qgc_diag_new(text);
    const char *path = qgc_arena_printf(d->arena, "%s/random.gguf", folder);
    qgc_status status = qgc_random_weights_write(g, path, seed, &inner);
    if (status != QGC_OK)
        status = qgc_diag_adopt(d, &inner);
    qgc_arena_drop(text);
    if (status == QGC_OK)
        status = qgc_weights_open(out, path, d);
    unlink(path); /* it stays mapped */
    rmdir(folder);
    return status;
}
