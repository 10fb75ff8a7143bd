#include "runtime/lab/random_weights.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/lab/gguf_write.h"
#include "runtime/lab/random.h"

/* Numbers are drawn once and taken over and over, each tensor going on where the one before ended: so a model of 15 GB takes
 * seconds. That they are a prime number keeps the rows of a matrix from being equal. */
enum { NUMBERS = 1048583 };

/* In [-1, 1). */
static float uniform(uint64_t *state) {
    return (float)((double)(qgc_random(state) >> 11) / 4503599627370496.0 - 1.0);
}

/* A file in the making. */
typedef struct {
    FILE *to;
    float *numbers, *scaled; /* [NUMBERS] */
    char *stored;
    int64_t next; /* of the numbers */
    bool failed;
} maker;

static void put(maker *m, const void *data, size_t bytes) {
    m->failed = m->failed || fwrite(data, 1, bytes, m->to) != bytes;
}

static void put_tensor(maker *m, const qgc_value *v) {
    const int64_t n = qgc_shape_elems_from(&v->shape, 0), row = v->shape.dim[v->shape.rank - 1];
    const bool norm = strstr(v->name, "norm") != NULL;
    const float scale = v->shape.rank < 2 ? 0.1f : sqrtf(3.0f / (float)row);
    const int64_t needed = n < NUMBERS ? n : NUMBERS; /* from the next on, around the end */
    for (int64_t i = 0; i < needed; i++)
        m->scaled[i] = (norm ? 1.0f : 0.0f) + scale * m->numbers[(m->next + i) % NUMBERS];
    qgc_from_f32(v->dtype, m->scaled, m->stored, needed);
    for (int64_t done = 0; done < n; done += needed)
        put(m, m->stored, qgc_dtype_bytes(v->dtype, n - done < needed ? n - done : needed));
    m->next = (m->next + n) % NUMBERS;
    const size_t rest = qgc_dtype_bytes(v->dtype, n) % QGC_GGUF_ALIGN;
    put(m, (const char[QGC_GGUF_ALIGN]){0}, rest ? QGC_GGUF_ALIGN - rest : 0);
}

static qgc_str make_head(const qgc_graph *g, qgc_arena *a) {
    qgc_gguf_writer file = qgc_gguf_writer_new(g->arch, a);
    for (size_t i = 0; i < g->n_params; i++)
        if (g->params[i].n_gguf > 0)
            qgc_gguf_writer_number(&file, g->params[i].gguf[0], g->params[i].value);
    for (size_t w = 0; w < g->n_weights; w++)
        for (int i = 0; g->weights[w].tied < 0 && i < g->weights[w].count; i++) {
            const qgc_value *v = g->weights[w].values[i];
            const char *name = qgc_tensor_name(g->weights[w].gguf, g->weights[w].index, v->layer, a);
            qgc_gguf_writer_tensor(&file, name, v->dtype, v->shape.rank, v->shape.dim);
        }
    return qgc_gguf_writer_head(&file);
}

qgc_status qgc_random_weights_write(const qgc_graph *g, const char *path, uint64_t seed, qgc_diag *d) {
    qgc_arena *a = qgc_arena_new();
    maker m = {.to = fopen(path, "wb"),
               .numbers = qgc_arena_array(a, NUMBERS, sizeof(float)),
               .scaled = qgc_arena_array(a, NUMBERS, sizeof(float)),
               .stored = qgc_arena_array(a, NUMBERS, sizeof(float))};
    m.failed = m.to == NULL;
    for (int64_t i = 0; i < NUMBERS; i++)
        m.numbers[i] = uniform(&seed);
    const qgc_str head = make_head(g, a);
    if (m.to)
        put(&m, head.text, head.bytes);
    for (size_t w = 0; w < g->n_weights && !m.failed; w++)
        for (int i = 0; g->weights[w].tied < 0 && i < g->weights[w].count; i++)
            put_tensor(&m, g->weights[w].values[i]);
    m.failed = (m.to && fclose(m.to) != 0) || m.failed;
    qgc_arena_drop(a);
    if (!m.failed)
        return QGC_OK;
    qgc_status s =
        qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "could not write \"%s\": %s", path, strerror(errno));
    remove(path);
    return s;
}

qgc_status qgc_random_weights_open(qgc_weights **out, const qgc_graph *g, uint64_t seed, qgc_diag *d) {
    *out = NULL;
    char folder[] = "/tmp/qgc-XXXXXX";
    if (!mkdtemp(folder))
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                        "could not make a folder in /tmp for random weights: %s", strerror(errno));
    const char *path = qgc_arena_printf(d->arena, "%s/random.gguf", folder);
    qgc_status status = qgc_random_weights_write(g, path, seed, d);
    if (status == QGC_OK)
        status = qgc_weights_open(out, path, d);
    unlink(path); /* it stays mapped */
    rmdir(folder);
    return status;
}
