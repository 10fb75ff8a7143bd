#include "runtime/lab/random_weights.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "graph/base/file.h"
#include "graph/base/str.h"
#include "runtime/lab/gguf_write.h"

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
    qgc_gguf_writer file = qgc_gguf_writer_new(g->arch, d->arena);
    for (size_t i = 0; i < g->n_params; i++)
        if (g->params[i].n_gguf > 0)
            qgc_gguf_writer_number(&file, g->params[i].gguf[0], g->params[i].value);
    for (size_t w = 0; w < g->n_weights; w++)
        for (int i = 0; g->weights[w].tied < 0 && i < g->weights[w].count; i++) {
            const qgc_value *v = g->weights[w].values[i];
            const char *name = qgc_tensor_name(g->weights[w].gguf, g->weights[w].index, v->layer, d->arena);
            qgc_gguf_writer_tensor(&file, name, v->dtype, v->shape.rank, v->shape.dim);
            put_numbers(&file.data, v, &seed);
        }
    return qgc_gguf_writer_end(&file, path, d);
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
