#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */ /* NOLINT(bugprone-reserved-identifier): libc asks for this name */
#include "runtime/lab/random_weights.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "models/weights_impl.h"
#include "runtime/lab/gguf_write.h"
#include "runtime/lab/random.h"
#include "runtime/lab/random_types.h"

/* Numbers are drawn once and taken over and over, each tensor going on where the one before ended: so a model of 15 GB takes
 * seconds. That they are a prime number keeps the rows of a matrix from being equal. */
enum { NUMBERS = 1048583 };

/* In [-1, 1). */
static float uniform(uint64_t *state) {
    return (float)((double)(qgc_random(state) >> 11) / 4503599627370496.0 - 1.0);
}

/* Of quantised blocks a prime number as well. */
enum { BLOCKS = 4093 };

typedef struct {
    float *numbers, *scaled; /* [NUMBERS] */
    char *stored;
    int64_t next; /* of the numbers */
    uint64_t seed;
} maker;

static maker maker_new(uint64_t seed, qgc_arena *a) {
    maker m = {.numbers = qgc_arena_array(a, NUMBERS, sizeof(float)),
               .scaled = qgc_arena_array(a, NUMBERS, sizeof(float)),
               .stored = qgc_arena_array(a, NUMBERS, sizeof(float))};
    for (int64_t i = 0; i < NUMBERS; i++)
        m.numbers[i] = uniform(&seed);
    m.seed = seed;
    return m;
}

/* The numbers of a tensor as they are stored, in m->stored: as many elements as are returned, and then the same again. */
static int64_t make_numbers(maker *m, const qgc_value *v, qgc_dtype dtype) {
    const int64_t n = qgc_shape_elems_from(&v->shape, 0), row = v->shape.dim[v->shape.rank - 1];
    const bool norm = strstr(v->name, "norm") != NULL;
    const float scale = v->shape.rank < 2 ? 0.1f : sqrtf(3.0f / (float)row);
    const int64_t elems = qgc_dtypes[dtype].block_elems;
    if (qgc_dtype_is_quantised(dtype)) {
        const int64_t blocks = n / elems < BLOCKS ? n / elems : BLOCKS;
        qgc_random_blocks(dtype, scale / sqrtf(3), &m->seed, m->stored, blocks);
        return blocks * elems;
    }
    const int64_t needed = n < NUMBERS ? n : NUMBERS; /* from the next on, around the end */
    for (int64_t i = 0; i < needed; i++)
        m->scaled[i] = (norm ? 1.0f : 0.0f) + scale * m->numbers[(m->next + i) % NUMBERS];
    qgc_from_f32(dtype, m->scaled, m->stored, needed);
    m->next = (m->next + n) % NUMBERS;
    return needed;
}

/* --- in a file ------------------------------------------------------------------------------------------- */

static bool put(FILE *to, const void *data, size_t bytes) {
    return fwrite(data, 1, bytes, to) == bytes;
}

static bool put_tensor(maker *m, const qgc_value *v, FILE *to) {
    const int64_t n = qgc_shape_elems_from(&v->shape, 0), made = make_numbers(m, v, v->dtype);
    bool good = true;
    for (int64_t done = 0; done < n && good; done += made)
        good = put(to, m->stored, qgc_dtype_bytes(v->dtype, n - done < made ? n - done : made));
    const size_t rest = qgc_dtype_bytes(v->dtype, n) % QGC_GGUF_ALIGN;
    return good && put(to, (const char[QGC_GGUF_ALIGN]){0}, rest ? QGC_GGUF_ALIGN - rest : 0);
}

static qgc_gguf_writer make_keys(const qgc_graph *g, qgc_arena *a) {
    qgc_gguf_writer file = qgc_gguf_writer_new(g->arch, a);
    for (size_t i = 0; i < g->n_params; i++)
        if (g->params[i].n_gguf > 0)
            qgc_gguf_writer_number(&file, g->params[i].gguf[0], g->params[i].value);
    return file;
}

static qgc_status make_head(const qgc_graph *g, qgc_arena *a, qgc_str *head, qgc_diag *d) {
    qgc_gguf_writer file = make_keys(g, a);
    for (size_t w = 0; w < g->n_weights; w++)
        for (int i = 0; g->weights[w].tied < 0 && i < g->weights[w].count; i++) {
            const qgc_value *v = g->weights[w].values[i];
            const char *name = qgc_tensor_name(g->weights[w].gguf, g->weights[w].index, v->layer, a);
            if (!name || qgc_dtype_is_quantised(v->dtype))
                return qgc_fail(d, QGC_ERR_INPUT, g->weights[w].at,
                                "weight \"%s\" %s, and is not written to a GGUF of random weights", v->name,
                                name ? "is quantised" : "has no name for GGUF");
            qgc_gguf_writer_tensor(&file, name, v->dtype, v->shape.rank, v->shape.dim);
        }
    *head = qgc_gguf_writer_head(&file);
    return QGC_OK;
}

qgc_status qgc_random_weights_write(const qgc_graph *g, const char *path, uint64_t seed, qgc_diag *d) {
    qgc_arena *a = qgc_arena_new();
    qgc_str head = qgc_str_new(a);
    qgc_status status = make_head(g, a, &head, d);
    FILE *to = status == QGC_OK ? fopen(path, "wb") : NULL;
    bool good = to && put(to, head.text, head.bytes);
    maker m = maker_new(seed, a);
    for (size_t w = 0; w < g->n_weights && good; w++)
        for (int i = 0; g->weights[w].tied < 0 && i < g->weights[w].count && good; i++)
            good = put_tensor(&m, g->weights[w].values[i], to);
    good = to && fclose(to) == 0 && good;
    qgc_arena_drop(a);
    if (status != QGC_OK || good)
        return status;
    status = qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "could not write \"%s\": %s", path, strerror(errno));
    remove(path);
    return status;
}

/* --- in memory ------------------------------------------------------------------------------------------- */

/* Has each weight of its own a name in this format? */
static const qgc_weight_decl *nameless(const qgc_graph *g, bool gguf) {
    for (size_t w = 0; w < g->n_weights; w++)
        if (g->weights[w].tied < 0 && !(gguf ? g->weights[w].gguf : g->weights[w].hf))
            return &g->weights[w];
    return NULL;
}

/* What a config.json would state: keys with dots go into objects. */
static json_t *make_config(const qgc_graph *g) {
    json_t *config = json_pack("{s:s}", "model_type", g->arch);
    for (size_t i = 0; i < g->n_params; i++) {
        if (g->params[i].n_hf == 0)
            continue;
        const char *key = g->params[i].hf[0];
        json_t *in = config;
        for (const char *dot; (dot = strchr(key, '.')); key = dot + 1) {
            char name[256];
            snprintf(name, sizeof name, "%.*s", (int)(dot - key), key);
            if (!json_object_get(in, name))
                json_object_set_new(in, name, json_object());
            in = json_object_get(in, name);
        }
        json_object_set_new(in, key, json_real(g->params[i].value));
    }
    return config;
}

static qgc_status state_config(qgc_weights *w, const qgc_graph *g, qgc_diag *d) {
    json_t *config = make_config(g);
    char *text = json_dumps(config, JSON_REAL_PRECISION(17));
    json_decref(config);
    const qgc_source source = {w->source.name, qgc_arena_strdup(w->arena, text), strlen(text)};
    (free)(text); /* jansson's */
    return qgc_hf_parse_config(w, &source, d);
}

static qgc_status state_facts(qgc_weights *w, const qgc_graph *g, qgc_diag *d) {
    if (w->format == QGC_WEIGHTS_HF)
        return state_config(w, g, d);
    const qgc_gguf_writer keys = make_keys(g, w->arena);
    const qgc_str head = qgc_gguf_writer_head(&keys);
    return qgc_gguf_parse(w, head.text, head.bytes, qgc_weights_loc(w), d);
}

typedef struct {
    const qgc_graph *g;
    const char *types; /* or NULL */
} wanted;

/* A tensor more, without its bytes. */
static qgc_status add_tensor(qgc_weights *w, const wanted *want, const qgc_weight_decl *decl,
                             const qgc_value *v, qgc_diag *d) {
    const qgc_value *logits = qgc_graph_output(want->g, "logits");
    const char *pattern = w->format == QGC_WEIGHTS_GGUF ? decl->gguf : decl->hf;
    qgc_random_tensor r = {.name = qgc_tensor_name(pattern, decl->index, v->layer, w->arena),
                           .dtype = v->dtype,
                           .rank = v->shape.rank,
                           .layer = v->layer,
                           .n_layers = decl->count};
    memcpy(r.shape, v->shape.dim, sizeof r.shape);
    r.is_head = r.rank == 2 && logits && logits->shape.rank == 2 && r.shape[0] == logits->shape.dim[1];
    qgc_tensor *t = qgc_weights_add(w, r.name, strlen(r.name));
    if (!t)
        return qgc_fail(d, QGC_ERR_INPUT, decl->at, "two weights are tensor \"%s\"", r.name);
    t->dtype = qgc_random_type(&r, want->types);
    t->rank = r.rank;
    memcpy(t->shape, r.shape, sizeof t->shape);
    const int block = qgc_dtypes[t->dtype].block_elems;
    if (qgc_tensor_row_elems(t) % block)
        return qgc_fail(d, QGC_ERR_INPUT, decl->at,
                        "rows of weight \"%s\" have %lld elements, and %s has blocks of %d", v->name,
                        (long long)qgc_tensor_row_elems(t), qgc_dtypes[t->dtype].name, block);
    t->bytes = qgc_dtype_bytes(t->dtype, qgc_shape_elems_from(&v->shape, 0));
    return QGC_OK;
}

/* Bytes that can be had without another program's going; SIZE_MAX where that is not known. */
static size_t memory_available(void) {
    FILE *f = fopen("/proc/meminfo", "r");
    unsigned long long kilobytes = 0;
    bool found = false;
    char line[256];
    while (f && !found && fgets(line, sizeof line, f))
        if (strncmp(line, "MemAvailable:", 13) == 0) {
            kilobytes = strtoull(line + 13, NULL, 10);
            found = true;
        }
    if (f)
        fclose(f);
    return found ? (size_t)kilobytes * 1024 : SIZE_MAX;
}

static qgc_status allocate(qgc_weights *w, qgc_file *memory, qgc_diag *d) {
    size_t total = 0;
    for (size_t i = 0; i < w->n_tensors; i++)
        total += (w->tensors[i]->bytes + 63) & ~(size_t)63;
    const size_t available = memory_available();
    void *p = MAP_FAILED;
    if (total <= available)
        p = mmap(NULL, total ? total : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC,
                        "random weights of %.2f GB take more memory than there is: %.2f GB are available",
                        (double)total * 1e-9, (double)(available == SIZE_MAX ? 0 : available) * 1e-9);
    *memory = (qgc_file){.data = p, .bytes = total ? total : 1, .mapped = true};
    return QGC_OK;
}

static void fill(maker *m, const qgc_value *v, const qgc_tensor *t, char *to) {
    const int64_t n = qgc_shape_elems_from(&v->shape, 0), made = make_numbers(m, v, t->dtype);
    for (int64_t done = 0; done < n; done += made) {
        const size_t bytes = qgc_dtype_bytes(t->dtype, n - done < made ? n - done : made);
        memcpy(to, m->stored, bytes);
        to += bytes;
    }
}

/* Tensors in the order of the declarations, as they were added. */
static qgc_status make_all(qgc_weights *w, const qgc_graph *g, uint64_t seed, qgc_diag *d) {
    w->files = qgc_arena_alloc(w->arena, sizeof *w->files);
    QGC_TRY(allocate(w, w->files, d));
    w->n_files = 1;
    qgc_arena *scratch = qgc_arena_new();
    maker m = maker_new(seed, scratch);
    char *to = (char *)(uintptr_t)w->files->data;
    size_t at = 0;
    for (size_t k = 0; k < g->n_weights; k++)
        for (int i = 0; g->weights[k].tied < 0 && i < g->weights[k].count; i++) {
            qgc_tensor *t = w->tensors[at++];
            fill(&m, g->weights[k].values[i], t, to);
            t->data = to;
            to += (t->bytes + 63) & ~(size_t)63;
        }
    qgc_arena_drop(scratch);
    return QGC_OK;
}

static qgc_status open_all(qgc_weights *w, const qgc_graph *g, const char *types, uint64_t seed,
                           qgc_diag *d) {
    QGC_TRY(state_facts(w, g, d));
    for (size_t k = 0; k < g->n_weights; k++)
        for (int i = 0; g->weights[k].tied < 0 && i < g->weights[k].count; i++)
            QGC_TRY(add_tensor(w, &(wanted){g, types}, &g->weights[k], g->weights[k].values[i], d));
    return make_all(w, g, seed, d);
}

qgc_status qgc_random_weights_open(qgc_weights **out, const qgc_graph *g, const char *types, uint64_t seed,
                                   qgc_diag *d) {
    *out = NULL;
    QGC_TRY(qgc_random_types_check(types, d));
    const qgc_weight_decl *no_gguf = nameless(g, true), *no_hf = nameless(g, false);
    if (no_gguf && no_hf)
        return qgc_fail(
            d, QGC_ERR_INPUT, no_gguf->at,
            "weights have no name for GGUF (\"%s\") and none for safetensors (\"%s\"), so no file can hold all",
            no_gguf->name, no_hf->name);
    qgc_weights *w = qgc_weights_new("random weights", no_gguf ? QGC_WEIGHTS_HF : QGC_WEIGHTS_GGUF);
    qgc_status status = open_all(w, g, types, seed, d);
    if (status == QGC_OK)
        *out = w;
    else
        qgc_weights_close(w);
    return status;
}
