#include "tests/support/fake_weights.h"

#include <string.h>

static const qgc_source source = {.name = "fake.gguf"};

qgc_status qgc_weights_open(qgc_weights **out, const char *path, qgc_diag *d) {
    *out = NULL;
    return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "\"%s\" is not opened by a fake", path);
}

void qgc_weights_close(qgc_weights *w) {
    (void)w;
}

qgc_weights_format qgc_weights_kind(const qgc_weights *w) {
    return w->kind;
}

const char *qgc_weights_path(const qgc_weights *w) {
    return w->path ? w->path : source.name;
}

const char *qgc_weights_folder(const qgc_weights *w) {
    (void)w;
    return ".";
}

qgc_loc qgc_weights_loc(const qgc_weights *w) {
    (void)w;
    return (qgc_loc){.source = &source};
}

size_t qgc_weights_count(const qgc_weights *w) {
    return w->n_tensors;
}

const qgc_tensor *qgc_weights_at(const qgc_weights *w, size_t i) {
    return &w->tensors[i];
}

const qgc_tensor *qgc_weights_find(const qgc_weights *w, const char *name) {
    for (size_t i = 0; i < w->n_tensors; i++)
        if (strcmp(w->tensors[i].name, name) == 0)
            return &w->tensors[i];
    return NULL;
}

const char *qgc_weights_arch(const qgc_weights *w) {
    return w->arch;
}

bool qgc_weights_number(const qgc_weights *w, const char *key, double *out) {
    for (int i = 0; i < 4 && w->keys[i]; i++)
        if (strcmp(w->keys[i], key) == 0) {
            *out = w->numbers[i];
            return true;
        }
    return false;
}

bool qgc_weights_is_null(const qgc_weights *w, const char *key) {
    (void)w;
    (void)key;
    return false;
}

const char *qgc_weights_shown(const qgc_weights *w, const char *key, qgc_arena *a) {
    double number;
    return qgc_weights_number(w, key, &number) ? qgc_arena_printf(a, "%.10g", number) : NULL;
}

/* NOLINTBEGIN(readability-non-const-parameter): the header says which */
const char *qgc_weights_string(const qgc_weights *w, const char *key) {
    (void)w, (void)key;
    return NULL;
}

const char *qgc_weights_member(const qgc_weights *w, const char *object, size_t i) {
    (void)w, (void)object, (void)i;
    return NULL;
}

size_t qgc_weights_array_length(const qgc_weights *w, const char *key) {
    (void)w, (void)key;
    return 0;
}

bool qgc_weights_array_string(const qgc_weights *w, const char *key, size_t i, const char **text,
                              size_t *bytes) {
    (void)w, (void)key, (void)i, (void)text, (void)bytes;
    return false;
}

bool qgc_weights_array_number(const qgc_weights *w, const char *key, size_t i, double *out) {
    (void)w, (void)key, (void)i, (void)out;
    return false;
}
/* NOLINTEND(readability-non-const-parameter) */
