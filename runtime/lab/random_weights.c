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

#include "models/stated.h"
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

/* A tensor of the file: one for each weight, or one of which several are made, or one of several that one is made of. */
typedef struct {
    const qgc_weight_decl *decl;
    const qgc_value *v; /* the first weight that is made of it */
    const char *name;
    int rank;
    int64_t shape[QGC_MAX_RANK];
} source;

typedef struct {
    source *all;
    size_t n;
} sources;

static int64_t elems_of(const source *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->shape[i];
    return n;
}

/* The numbers of a tensor as they are stored, in m->stored: as many elements as are returned, and then the same again. */
static int64_t make_numbers(maker *m, const source *t, qgc_dtype dtype) {
    const int64_t n = elems_of(t), row = t->shape[t->rank - 1];
    const bool norm = strstr(t->v->name, "norm") != NULL;
    const float scale = t->rank < 2 ? 0.1f : sqrtf(3.0f / (float)row);
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

/* --- the tensors of a file ------------------------------------------------------------------------------- */

/* The tensor that a weight is made of: its shape before rows are taken, before it is transposed, one of those stacked. */
static source source_of(const qgc_weight_decl *decl, const qgc_value *v, const qgc_tensor_form *f) {
    const int stacked = f->stacked_index != NULL;
    source t = {.decl = decl, .v = v, .rank = v->shape.rank - stacked};
    memcpy(t.shape, v->shape.dim + stacked, (size_t)t.rank * sizeof *t.shape);
    if (f->last)
        t.shape[0] = f->of ? t.shape[0] / (f->last - f->first) * f->of : f->last;
    if (f->transposed && t.rank == 2) {
        const int64_t rows = t.shape[0];
        t.shape[0] = t.shape[1];
        t.shape[1] = rows;
    }
    return t;
}

/* Of a tensor of which several weights are rows the last of them says how long it is. */
static void add_source(sources *s, qgc_map *by_name, source t, qgc_arena *a) {
    const size_t *old = qgc_map_get(by_name, t.name);
    if (old) {
        for (int i = 0; i < t.rank; i++)
            if (s->all[*old].shape[i] < t.shape[i])
                s->all[*old].shape[i] = t.shape[i];
        return;
    }
    size_t *index = qgc_arena_alloc(a, sizeof *index);
    *index = s->n;
    qgc_map_put(by_name, t.name, index);
    s->all = qgc_arena_grow(a, s->all, s->n, sizeof *s->all);
    s->all[s->n++] = t;
}

/* Has it a tensor of its own in a file? */
static bool is_stored(const qgc_weight_decl *decl) {
    return decl->tied < 0 && !decl->derived.kind;
}

/* In the order of the declarations. A weight without a name has none here, and a tied one has no tensor of its own. */
static sources collect(const qgc_graph *g, bool gguf, qgc_arena *a) {
    sources s = {0};
    qgc_map by_name = qgc_map_new(a);
    for (size_t w = 0; w < g->n_weights; w++) {
        const qgc_weight_decl *decl = &g->weights[w];
        const qgc_tensor_form *f = gguf ? &decl->gguf_form : &decl->hf_form;
        for (int i = 0; is_stored(decl) && i < decl->count; i++)
            for (int64_t e = 0; e < (f->stacked_index ? f->stacked : 1); e++) {
                source t = source_of(decl, decl->values[i], f);
                t.name =
                    qgc_tensor_name(gguf ? decl->gguf : decl->hf, decl->index, decl->values[i]->layer, a);
                if (f->stacked_index)
                    t.name = qgc_tensor_name(t.name, f->stacked_index, (int)e, a);
                if (t.name)
                    add_source(&s, &by_name, t, a);
            }
    }
    return s;
}

/* Two weights are one tensor without being rows of it, or ask for different ones. */
static qgc_status check_sources(const qgc_graph *g, bool gguf, qgc_diag *d) {
    qgc_arena *scratch = qgc_arena_new();
    qgc_map seen = qgc_map_new(scratch);
    qgc_status status = QGC_OK;
    for (size_t w = 0; w < g->n_weights && status == QGC_OK; w++) {
        const qgc_weight_decl *decl = &g->weights[w];
        const char *name = gguf ? decl->gguf : decl->hf;
        const bool part = (gguf ? &decl->gguf_form : &decl->hf_form)->last != 0;
        if (is_stored(decl) && name && !qgc_map_put(&seen, name, part ? (void *)&seen : (void *)scratch) &&
            (!part || qgc_map_get(&seen, name) == (void *)scratch))
            status = qgc_fail(d, QGC_ERR_INPUT, decl->at, "two weights are tensor \"%s\"", name);
    }
    qgc_arena_drop(scratch);
    return status;
}

/* --- in a file ------------------------------------------------------------------------------------------- */

static bool put(FILE *to, const void *data, size_t bytes) {
    return fwrite(data, 1, bytes, to) == bytes;
}

static bool put_tensor(maker *m, const source *t, FILE *to) {
    const qgc_dtype dtype = t->v->dtype;
    const int64_t n = elems_of(t), made = make_numbers(m, t, dtype);
    bool good = true;
    for (int64_t done = 0; done < n && good; done += made)
        good = put(to, m->stored, qgc_dtype_bytes(dtype, n - done < made ? n - done : made));
    const size_t rest = qgc_dtype_bytes(dtype, n) % QGC_GGUF_ALIGN;
    return good && put(to, (const char[QGC_GGUF_ALIGN]){0}, rest ? QGC_GGUF_ALIGN - rest : 0);
}

static const char *with_arch(const char *key, const char *arch, qgc_arena *a) {
    static const char mark[] = "{arch}";
    const char *at = strstr(key, mark);
    return at ? qgc_arena_printf(a, "%.*s%s%s", (int)(at - key), key, arch, at + strlen(mark)) : key;
}

/* The key under which a file would state a parameter; NULL where it states none. */
static const char *key_of(const qgc_param *p, bool gguf, const char *arch, qgc_arena *a) {
    const char *const *keys = gguf ? p->gguf : p->hf;
    const int n = qgc_param_counts(p) ? (gguf ? p->n_gguf : p->n_hf) : 0;
    for (int i = 0; i < n; i++)
        if (!strchr(keys[i], '(')) /* a question about tensors, which are there */
            return with_arch(keys[i], arch, a);
    return NULL;
}

/* "default" of "default|none". */
static const char *word_of(const qgc_param *p, double value, qgc_arena *a) {
    const int i = (int)value;
    return i >= 0 && i < p->n_words && i == value
               ? qgc_arena_strndup(a, p->words[i], strcspn(p->words[i], "|"))
               : NULL;
}

static const char *first_arch(const qgc_graph *g, bool gguf, qgc_arena *a) {
    const char *list = gguf ? g->gguf_arch : g->hf_arch;
    return list ? qgc_arena_strndup(a, list, qgc_list_entry(list)) : g->arch;
}

static qgc_gguf_writer make_keys(const qgc_graph *g, qgc_arena *a) {
    const char *arch = first_arch(g, true, a);
    qgc_gguf_writer file = qgc_gguf_writer_new(arch, a);
    for (size_t i = 0; i < g->n_params; i++) {
        const qgc_param *p = &g->params[i];
        const char *key = key_of(p, true, arch, a), *word = key ? word_of(p, p->value, a) : NULL;
        if (!key)
            continue;
        if (p->index)
            qgc_gguf_writer_numbers(&file, key, p->values, p->count);
        else if (word)
            qgc_gguf_writer_word(&file, key, word);
        else
            qgc_gguf_writer_number(&file, key, p->value);
    }
    return file;
}

static qgc_status make_head(const qgc_graph *g, const sources *s, qgc_arena *a, qgc_str *head, qgc_diag *d) {
    qgc_gguf_writer file = make_keys(g, a);
    for (size_t w = 0; w < g->n_weights; w++) {
        const qgc_weight_decl *decl = &g->weights[w];
        const bool quantised = qgc_dtype_is_quantised(decl->values[0]->dtype);
        if (is_stored(decl) && (!decl->gguf || quantised))
            return qgc_fail(d, QGC_ERR_INPUT, decl->at,
                            "weight \"%s\" %s, and is not written to a GGUF of random weights", decl->name,
                            decl->gguf ? "is quantised" : "has no name for GGUF");
    }
    for (size_t i = 0; i < s->n; i++)
        qgc_gguf_writer_tensor(&file, s->all[i].name, s->all[i].v->dtype, s->all[i].rank, s->all[i].shape);
    *head = qgc_gguf_writer_head(&file);
    return QGC_OK;
}

qgc_status qgc_random_weights_write(const qgc_graph *g, const char *path, uint64_t seed, qgc_diag *d) {
    qgc_arena *a = qgc_arena_new();
    qgc_str head = qgc_str_new(a);
    const sources s = collect(g, true, a);
    qgc_status status = check_sources(g, true, d);
    if (status == QGC_OK)
        status = make_head(g, &s, a, &head, d);
    FILE *to = status == QGC_OK ? fopen(path, "wb") : NULL;
    bool good = to && put(to, head.text, head.bytes);
    maker m = maker_new(seed, a);
    for (size_t i = 0; i < s.n && good; i++)
        good = put_tensor(&m, &s.all[i], to);
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
        if (is_stored(&g->weights[w]) && !(gguf ? g->weights[w].gguf : g->weights[w].hf))
            return &g->weights[w];
    return NULL;
}

/* Are weights of this graph a GGUF? Those of one that was made for a format are of that one; any other's are, if all have names there. */
static bool is_gguf(const qgc_graph *g) {
    for (size_t i = 0; i < g->n_params; i++) {
        const qgc_param *p = &g->params[i];
        if (p->n_gguf > 0 && qgc_key_asks_format(p->gguf[0]) && !nameless(g, p->value != 0))
            return p->value != 0;
    }
    return !nameless(g, true);
}

static json_t *json_of(const qgc_param *p, double value, qgc_arena *a) {
    const char *word = word_of(p, value, a);
    return word ? json_string(word) : json_real(value);
}

static json_t *values_of(const qgc_param *p, qgc_arena *a) {
    if (!p->index)
        return json_of(p, p->value, a);
    json_t *list = json_array();
    for (int i = 0; i < p->count; i++)
        json_array_append_new(list, json_of(p, p->values[i], a));
    return list;
}

static bool has_ties(const qgc_graph *g) {
    for (size_t w = 0; w < g->n_weights; w++)
        if (g->weights[w].tied >= 0)
            return true;
    return false;
}

/* What a config.json would state: keys with dots go into objects. */
static json_t *make_config(const qgc_graph *g, qgc_arena *a) {
    const char *arch = first_arch(g, false, a);
    json_t *config = json_pack("{s:s,s:b}", "model_type", arch, "tie_word_embeddings", has_ties(g));
    for (size_t i = 0; i < g->n_params; i++) {
        const char *key = key_of(&g->params[i], false, arch, a);
        if (!key)
            continue;
        json_t *in = config;
        for (const char *dot; (dot = strchr(key, '.')); key = dot + 1) {
            const char *name = qgc_arena_strndup(a, key, (size_t)(dot - key));
            if (!json_object_get(in, name))
                json_object_set_new(in, name, json_object());
            in = json_object_get(in, name);
        }
        json_object_set_new(in, key, values_of(&g->params[i], a));
    }
    return config;
}

static qgc_status state_config(qgc_weights *w, const qgc_graph *g, qgc_diag *d) {
    json_t *config = make_config(g, w->arena);
    char *text = json_dumps(config, JSON_REAL_PRECISION(17));
    json_decref(config);
    const qgc_source stated = {w->source.name, qgc_arena_strdup(w->arena, text), strlen(text)};
    (free)(text); /* jansson's */
    return qgc_hf_parse_config(w, &stated, d);
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
static qgc_status add_tensor(qgc_weights *w, const wanted *want, const source *from, qgc_diag *d) {
    const qgc_value *logits = qgc_graph_output(want->g, "logits");
    qgc_random_tensor r = {.name = from->name,
                           .dtype = from->v->dtype,
                           .rank = from->rank,
                           .layer = from->v->layer,
                           .n_layers = from->decl->count};
    memcpy(r.shape, from->shape, sizeof r.shape);
    r.is_head = r.rank == 2 && logits && logits->shape.rank == 2 && r.shape[0] == logits->shape.dim[1];
    qgc_tensor *t = qgc_weights_add(w, r.name, strlen(r.name));
    if (!t)
        return qgc_fail(d, QGC_ERR_INPUT, from->decl->at, "two weights are tensor \"%s\"", r.name);
    t->dtype = qgc_random_type(&r, want->types);
    t->rank = r.rank;
    memcpy(t->shape, r.shape, sizeof t->shape);
    const int block = qgc_dtypes[t->dtype].block_elems;
    if (qgc_tensor_row_elems(t) % block)
        return qgc_fail(d, QGC_ERR_INPUT, from->decl->at,
                        "rows of weight \"%s\" have %lld elements, and %s has blocks of %d", from->v->name,
                        (long long)qgc_tensor_row_elems(t), qgc_dtypes[t->dtype].name, block);
    t->bytes = qgc_dtype_bytes(t->dtype, elems_of(from));
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

static void fill(maker *m, const source *from, const qgc_tensor *t, char *to) {
    const int64_t n = elems_of(from), made = make_numbers(m, from, t->dtype);
    for (int64_t done = 0; done < n; done += made) {
        const size_t bytes = qgc_dtype_bytes(t->dtype, n - done < made ? n - done : made);
        memcpy(to, m->stored, bytes);
        to += bytes;
    }
}

/* Tensors in the order of the declarations, as they were added. */
static qgc_status make_all(qgc_weights *w, const sources *s, uint64_t seed, qgc_diag *d) {
    w->files = qgc_arena_alloc(w->arena, sizeof *w->files);
    QGC_TRY(allocate(w, w->files, d));
    w->n_files = 1;
    qgc_arena *scratch = qgc_arena_new();
    maker m = maker_new(seed, scratch);
    char *to = (char *)(uintptr_t)w->files->data;
    for (size_t i = 0; i < s->n; i++) {
        qgc_tensor *t = w->tensors[i];
        fill(&m, &s->all[i], t, to);
        t->data = to;
        to += (t->bytes + 63) & ~(size_t)63;
    }
    qgc_arena_drop(scratch);
    return QGC_OK;
}

static qgc_status open_all(qgc_weights *w, const qgc_graph *g, const char *types, uint64_t seed,
                           qgc_diag *d) {
    const bool gguf = w->format == QGC_WEIGHTS_GGUF;
    const sources s = collect(g, gguf, w->arena);
    QGC_TRY(state_facts(w, g, d));
    QGC_TRY(check_sources(g, gguf, d));
    for (size_t i = 0; i < s.n; i++)
        QGC_TRY(add_tensor(w, &(wanted){g, types}, &s.all[i], d));
    return make_all(w, &s, seed, d);
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
    qgc_weights *w = qgc_weights_new("random weights", is_gguf(g) ? QGC_WEIGHTS_GGUF : QGC_WEIGHTS_HF);
    qgc_status status = open_all(w, g, types, seed, d);
    if (status == QGC_OK)
        *out = w;
    else
        qgc_weights_close(w);
    return status;
}
