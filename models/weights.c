#include "models/weights.h"

#include <stdlib.h>
#include <string.h>

#include "models/weights_impl.h"

qgc_weights *qgc_weights_new(const char *path, qgc_weights_format format) {
    qgc_arena *a = qgc_arena_new();
    qgc_weights *w = qgc_arena_alloc(a, sizeof *w);
    *w = (qgc_weights){.arena = a,
                       .format = format,
                       .source.name = qgc_arena_strdup(a, path),
                       .by_name = qgc_map_new(a),
                       .keys = qgc_map_new(a)};
    w->folder = qgc_path_folder(a, w->source.name);
    return w;
}

qgc_loc qgc_weights_place(qgc_diag *d, const char *path) {
    qgc_source *s = qgc_arena_alloc(d->arena, sizeof *s);
    s->name = qgc_arena_strdup(d->arena, path);
    return (qgc_loc){.source = s};
}

qgc_tensor *qgc_weights_add(qgc_weights *w, const char *name, size_t name_bytes) {
    if (qgc_map_get_bytes(&w->by_name, name, name_bytes))
        return NULL;
    qgc_tensor *t = qgc_arena_alloc(w->arena, sizeof *t);
    qgc_map_put_bytes(&w->by_name, name, name_bytes, t);
    t->name = w->by_name.entries[w->by_name.n - 1].key;
    w->tensors = qgc_arena_grow(w->arena, w->tensors, w->n_tensors, sizeof(qgc_tensor *));
    w->tensors[w->n_tensors++] = t;
    return t;
}

enum { MAX_NAME_BYTES = 1024 };

const char *qgc_weights_name_fault(const char *name, size_t bytes) {
    if (bytes == 0)
        return "is empty";
    if (bytes > MAX_NAME_BYTES)
        return "is longer than 1024 bytes";
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)name[i] < 32 || name[i] == 127)
            return "has a control byte in it";
    return NULL;
}

static int compare_places(const void *a, const void *b) {
    uintptr_t x = (uintptr_t)(*(const qgc_tensor *const *)a)->data;
    uintptr_t y = (uintptr_t)(*(const qgc_tensor *const *)b)->data;
    return (x > y) - (x < y);
}

void qgc_weights_sort_by_place(qgc_tensor **tensors, size_t n) {
    if (n)
        qsort(tensors, n, sizeof(qgc_tensor *), compare_places);
}

/* Maps a single file and lets its first bytes say what it is. */
static qgc_status open_file(qgc_weights *w, qgc_diag *d) {
    w->files = qgc_arena_alloc(w->arena, sizeof *w->files);
    QGC_TRY(qgc_file_open(w->files, w->source.name, d));
    w->n_files = 1;
    const qgc_file *f = w->files;
    qgc_loc at = qgc_weights_place(d, w->source.name);
    if (f->bytes >= 4 && memcmp(f->data, "GGUF", 4) == 0) {
        w->format = QGC_WEIGHTS_GGUF;
        return qgc_gguf_parse(w, f->data, f->bytes, at, d);
    }
    /* safetensors: the length of the header in 8 bytes, and its opening brace */
    if (f->bytes > 8 && f->data[8] == '{')
        return qgc_hf_open_file(w, d);
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, at, "is neither a GGUF nor a safetensors file");
    qgc_hint(d,
             "Give a .gguf file, a .safetensors file, or a folder with config.json and safetensors files.");
    return s;
}

qgc_status qgc_weights_open(qgc_weights **out, const char *path, qgc_diag *d) {
    *out = NULL;
    qgc_weights *w = qgc_weights_new(path, QGC_WEIGHTS_HF);
    qgc_status s;
    if (qgc_file_is_folder(path)) {
        w->folder = w->source.name;
        s = qgc_hf_open_folder(w, d);
    } else {
        s = open_file(w, d);
    }
    if (s == QGC_OK)
        *out = w;
    else
        qgc_weights_close(w);
    return s;
}

void qgc_weights_close(qgc_weights *w) {
    if (!w)
        return;
    for (size_t i = 0; i < w->n_files; i++)
        qgc_file_close(&w->files[i]);
    qgc_hf_close(w);
    qgc_arena_drop(w->arena);
}

qgc_weights_format qgc_weights_kind(const qgc_weights *w) {
    return w->format;
}

const char *qgc_weights_path(const qgc_weights *w) {
    return w->source.name;
}

const char *qgc_weights_folder(const qgc_weights *w) {
    return w->folder;
}

qgc_loc qgc_weights_loc(const qgc_weights *w) {
    return (qgc_loc){.source = &w->source};
}

size_t qgc_weights_count(const qgc_weights *w) {
    return w->n_tensors;
}

const qgc_tensor *qgc_weights_at(const qgc_weights *w, size_t i) {
    return w->tensors[i];
}

const qgc_tensor *qgc_weights_find(const qgc_weights *w, const char *name) {
    return qgc_map_get(&w->by_name, name);
}

const char *qgc_weights_arch(const qgc_weights *w) {
    return w->arch;
}

bool qgc_weights_number(const qgc_weights *w, const char *key, double *out) {
    return w->format == QGC_WEIGHTS_GGUF ? qgc_gguf_number(w, key, out) : qgc_hf_number(w, key, out);
}

const char *qgc_weights_string(const qgc_weights *w, const char *key) {
    return w->format == QGC_WEIGHTS_GGUF ? qgc_gguf_string(w, key) : qgc_hf_string(w, key);
}

const char *qgc_weights_shown(const qgc_weights *w, const char *key, qgc_arena *a) {
    return w->format == QGC_WEIGHTS_GGUF ? qgc_gguf_shown(w, key, a) : qgc_hf_shown(w, key, a);
}

bool qgc_weights_is_null(const qgc_weights *w, const char *key) {
    return w->format != QGC_WEIGHTS_GGUF && qgc_hf_is_null(w, key);
}

const char *qgc_weights_member(const qgc_weights *w, const char *object, size_t i) {
    return w->format == QGC_WEIGHTS_GGUF ? NULL : qgc_hf_member(w, object, i);
}

size_t qgc_weights_array_length(const qgc_weights *w, const char *key) {
    return w->format == QGC_WEIGHTS_GGUF ? qgc_gguf_array_length(w, key) : qgc_hf_array_length(w, key);
}

bool qgc_weights_array_string(const qgc_weights *w, const char *key, size_t i, const char **text,
                              size_t *bytes) {
    return w->format == QGC_WEIGHTS_GGUF ? qgc_gguf_array_string(w, key, i, text, bytes)
                                         : qgc_hf_array_string(w, key, i, text, bytes);
}

bool qgc_weights_array_number(const qgc_weights *w, const char *key, size_t i, double *out) {
    return w->format == QGC_WEIGHTS_GGUF ? qgc_gguf_array_number(w, key, i, out)
                                         : qgc_hf_array_number(w, key, i, out);
}
