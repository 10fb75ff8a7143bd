#include "models/stated.h"

#include <string.h>

#include "graph/base/arena.h"

static const char arch_mark[] = "{arch}";

const char *qgc_weights_key(const qgc_weights *w, const char *key, qgc_arena *a) {
    const char *at = strstr(key, arch_mark), *arch = qgc_weights_arch(w);
    if (!at || !arch)
        return key;
    return qgc_arena_printf(a, "%.*s%s%s", (int)(at - key), key, arch, at + strlen(arch_mark));
}

/* NAME of "tensor(NAME)"; NULL if the key is no such question. */
static const char *inside(const char *key, const char *what, qgc_arena *a) {
    const size_t length = strlen(what), bytes = strlen(key);
    const bool asks = strncmp(key, what, length) == 0 && key[length] == '(' && key[bytes - 1] == ')';
    return asks ? qgc_arena_strndup(a, key + length + 1, bytes - length - 2) : NULL;
}

/* The tensor that it asks for; false if it is another question. */
static bool is_about(const qgc_weights *w, const char *key, const char *what, const qgc_tensor **t,
                     qgc_arena *a) {
    const char *name = inside(key, what, a);
    *t = name ? qgc_weights_find(w, name) : NULL;
    return name != NULL;
}

static qgc_stated word(const qgc_question *q, const char *text, size_t bytes, double *out) {
    const int number = qgc_words_find(&q->words, text, bytes);
    *out = number;
    return number < 0 ? QGC_MISSTATED : QGC_STATED;
}

static qgc_stated element(const qgc_weights *w, const qgc_question *q, const char *key, size_t i,
                          double *out) {
    const char *text;
    size_t bytes;
    if (qgc_weights_array_number(w, key, i, out))
        return QGC_STATED;
    return qgc_weights_array_string(w, key, i, &text, &bytes) ? word(q, text, bytes, out) : QGC_MISSTATED;
}

/* One value for all iterations: what a list says that says the same everywhere. */
static qgc_stated all_elements(const qgc_weights *w, const qgc_question *q, const char *key, double *out) {
    qgc_stated first = element(w, q, key, 0, out);
    for (size_t i = 1; i < qgc_weights_array_length(w, key) && first == QGC_STATED; i++) {
        double other;
        if (element(w, q, key, i, &other) != QGC_STATED || other != *out)
            first = QGC_MISSTATED;
    }
    return first;
}

bool qgc_key_asks_format(const char *key) {
    return strcmp(key, "format(gguf)") == 0;
}

static qgc_stated answer_to(const qgc_weights *w, const qgc_question *q, qgc_arena *a, double *out) {
    const qgc_tensor *t;
    if (is_about(w, q->key, "tensor", &t, a)) {
        *out = t != NULL;
        return QGC_STATED;
    }
    if (is_about(w, q->key, "rows", &t, a)) {
        *out = t ? (double)t->shape[0] : 0;
        return t && t->rank > 0 ? QGC_STATED : QGC_NOT_STATED;
    }
    if (qgc_key_asks_format(q->key)) {
        *out = qgc_weights_kind(w) == QGC_WEIGHTS_GGUF;
        return QGC_STATED;
    }
    const char *nothing = inside(q->key, "null", a);
    if (nothing) {
        *out = qgc_weights_is_null(w, nothing);
        return QGC_STATED;
    }
    const char *key = qgc_weights_key(w, q->key, a);
    if (qgc_weights_array_length(w, key) > 0)
        return q->turn < 0 ? all_elements(w, q, key, out) : element(w, q, key, (size_t)q->turn, out);
    if (qgc_weights_number(w, key, out))
        return QGC_STATED;
    const char *text = qgc_weights_string(w, key);
    if (text)
        return word(q, text, strlen(text), out);
    return qgc_weights_shown(w, key, a) ? QGC_MISSTATED : QGC_NOT_STATED;
}

qgc_stated qgc_weights_answer(const qgc_weights *w, const qgc_question *q, double *out) {
    qgc_arena *scratch = qgc_arena_new();
    const qgc_stated s = answer_to(w, q, scratch, out);
    qgc_arena_drop(scratch);
    return s;
}

size_t qgc_weights_values(const qgc_weights *w, const char *key) {
    qgc_arena *scratch = qgc_arena_new();
    const char *full = qgc_weights_key(w, key, scratch);
    const size_t n = qgc_weights_array_length(w, full);
    const size_t stated = n > 0 ? n : qgc_weights_shown(w, full, scratch) != NULL;
    qgc_arena_drop(scratch);
    return stated;
}
