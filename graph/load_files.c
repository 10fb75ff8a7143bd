#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "graph/base/file.h"
#include "graph/format.def"
#include "graph/load.h"
#include "graph/load_impl.h"

/* A size file extends its family's file, which may extend another. The documents are merged before anything
 * is made of them, so that the rest of the loader sees one:
 *
 *   params, weights, state, inputs   entry by entry, and each entry key by key; null drops an entry or a key
 *   parts, kernels                   entry by entry
 *   anything else                    what the extending file says stands in the place of what the other said
 */

static const char *const sections[] = {"params", "weights", "state", "inputs", "parts", "kernels"};
static const char *const keys[] = {QGC_KEYS(FILE)};
enum { N_SECTIONS = sizeof sections / sizeof *sections, N_KEYS = sizeof keys / sizeof *keys };

enum { FORMAT = 1, NEWEST_FORMAT = 2 };

/* The files on the way to the one being read. */
typedef struct link {
    const struct link *from;
    struct stat file;
    int depth;
} link;

/* Keys by which files that qgc dump has written asked for modes once. */
static qgc_status check_old_keys(const qgc_loader *ld, const qgc_yaml *doc) {
    static const char *const old[][2] = {{"launches", "pdl"}, {"step", "persistent"}};
    for (size_t i = 0; i < sizeof old / sizeof *old; i++) {
        const qgc_yaml *node = qgc_yaml_get(doc, old[i][0]);
        if (!node)
            continue;
        qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, node->at, "key \"%s\" is no longer one", old[i][0]);
        qgc_hint(ld->d, "Leave it out: --mode %s needs no key in the graph.", old[i][1]);
        return s;
    }
    return QGC_OK;
}

static bool is_section(const char *key) {
    for (int i = 0; i < N_SECTIONS; i++)
        if (strcmp(sections[i], key) == 0)
            return true;
    return false;
}

/* Files of both formats may extend one another: what they make together is of the higher one. */
static qgc_status check_format(qgc_loader *ld, const qgc_yaml *doc, int *format) {
    const qgc_yaml *version = qgc_yaml_get(doc, "qgc");
    if (!version) {
        qgc_status s =
            qgc_fail(ld->d, QGC_ERR_INPUT, doc->at, "model file lacks \"qgc\", the version of its format");
        qgc_hint(ld->d, "A model file starts with \"qgc: %d\".", FORMAT);
        return s;
    }
    QGC_TRY(qgc_load_expect(ld, version, QGC_YAML_SCALAR, "qgc"));
    char *end;
    long number = strtol(version->text, &end, 10);
    if (*end || end == version->text || number < FORMAT || number > NEWEST_FORMAT)
        return qgc_fail(ld->d, QGC_ERR_INPUT, version->at,
                        "model file is of format \"%.20s\", expected %d or %d", version->text, FORMAT,
                        NEWEST_FORMAT);
    *format = (int)number;
    ld->format = *format > ld->format ? *format : ld->format;
    return QGC_OK;
}

/* `layers: 24` is short for `layers: {value: 24}`, in format 2 for `{fixed: 24}`. */
static qgc_yaml *as_value(const qgc_loader *ld, qgc_yaml *number) {
    qgc_arena *a = ld->arena;
    qgc_yaml *key = qgc_arena_alloc(a, sizeof *key);
    *key = (qgc_yaml){.kind = QGC_YAML_SCALAR, .at = number->at, .text = ld->format > 1 ? "fixed" : "value"};
    qgc_yaml *entry = qgc_yaml_new_map(a, number->at);
    qgc_yaml_put(a, entry, key, number);
    return entry;
}

/* Who says what a parameter is if nothing states it takes back that it is fixed. */
static bool takes_back(const qgc_loader *ld, const qgc_yaml *key, const qgc_yaml *over) {
    return ld->format > 1 && strcmp(key->text, "fixed") == 0 && qgc_yaml_get(over, "value");
}

static qgc_status check_document(qgc_loader *ld, qgc_yaml *doc) {
    QGC_TRY(qgc_load_expect(ld, doc, QGC_YAML_MAP, "model file"));
    int format;
    QGC_TRY(check_format(ld, doc, &format));
    QGC_TRY(check_old_keys(ld, doc));
    QGC_TRY(qgc_load_check_keys(ld, doc, "model file", keys, format > 1 ? N_KEYS : QGC_OLD_KEYS(FILE)));
    for (size_t i = 0; i < doc->n; i++)
        if (is_section(doc->keys[i]->text))
            QGC_TRY(qgc_load_expect(ld, doc->items[i], QGC_YAML_MAP, doc->keys[i]->text));
    return QGC_OK;
}

static qgc_status nothing_to_drop(qgc_loader *ld, const qgc_yaml *base, const qgc_yaml *key,
                                  const char *what) {
    qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, key->at, "%s \"%s\" is dropped, but there is none to drop",
                            what, key->text);
    const char **words = qgc_arena_array(ld->arena, base ? base->n : 0, sizeof *words);
    for (size_t i = 0; base && i < base->n; i++)
        words[i] = base->keys[i]->text;
    qgc_load_hint_nearest(ld->d, key->text, words, base ? base->n : 0);
    return s;
}

/* Key by key, null dropping one. */
static qgc_status merge_entry(qgc_loader *ld, const qgc_yaml *base, const qgc_yaml *over, qgc_yaml **out) {
    qgc_yaml *merged = qgc_yaml_new_map(ld->arena, base->at);
    for (size_t i = 0; i < base->n; i++) {
        qgc_yaml *item = qgc_yaml_get(over, base->keys[i]->text);
        if (!item && takes_back(ld, base->keys[i], over))
            continue;
        if (!item)
            item = base->items[i];
        if (!qgc_yaml_is_null(item))
            qgc_yaml_put(ld->arena, merged, base->keys[i], item);
    }
    for (size_t i = 0; i < over->n; i++) {
        if (qgc_yaml_get(base, over->keys[i]->text))
            continue;
        if (qgc_yaml_is_null(over->items[i]))
            return nothing_to_drop(ld, base, over->keys[i], "key");
        qgc_yaml_put(ld->arena, merged, over->keys[i], over->items[i]);
    }
    *out = merged;
    return QGC_OK;
}

static qgc_status new_entry(qgc_loader *ld, const qgc_yaml *base, const char *section, const qgc_yaml *key,
                            qgc_yaml **item) {
    if (qgc_yaml_is_null(*item))
        return nothing_to_drop(ld, base, key, "entry");
    if ((*item)->kind != QGC_YAML_SCALAR || strcmp(section, "params") != 0)
        return QGC_OK;
    if (base) {
        qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, key->at, "unknown parameter \"%s\"", key->text);
        const char **words = qgc_arena_array(ld->arena, base->n, sizeof *words);
        for (size_t i = 0; i < base->n; i++)
            words[i] = base->keys[i]->text;
        qgc_load_hint_nearest(ld->d, key->text, words, base->n);
        qgc_hint(ld->d, "A parameter that the extended file has not is written \"%s: {value: %s}\".",
                 key->text, (*item)->text);
        return s;
    }
    *item = as_value(ld, *item);
    return QGC_OK;
}

/* `base` is NULL in a file that extends none, or that adds a section. */
static qgc_status merge_section(qgc_loader *ld, const char *section, const qgc_yaml *base,
                                const qgc_yaml *over, qgc_yaml **out) {
    qgc_yaml *merged = qgc_yaml_new_map(ld->arena, base ? base->at : over->at);
    for (size_t i = 0; base && i < base->n; i++) {
        const qgc_yaml *old = base->items[i];
        qgc_yaml *item = qgc_yaml_get(over, base->keys[i]->text);
        if (!item) {
            qgc_yaml_put(ld->arena, merged, base->keys[i], base->items[i]);
            continue;
        }
        if (qgc_yaml_is_null(item))
            continue;
        if (item->kind == QGC_YAML_SCALAR && strcmp(section, "params") == 0)
            item = as_value(ld, item);
        if (old->kind == QGC_YAML_MAP && item->kind == QGC_YAML_MAP)
            QGC_TRY(merge_entry(ld, old, item, &item));
        qgc_yaml_put(ld->arena, merged, base->keys[i], item);
    }
    for (size_t i = 0; i < over->n; i++) {
        qgc_yaml *item = over->items[i];
        if (base && qgc_yaml_get(base, over->keys[i]->text))
            continue;
        QGC_TRY(new_entry(ld, base, section, over->keys[i], &item));
        qgc_yaml_put(ld->arena, merged, over->keys[i], item);
    }
    *out = merged;
    return QGC_OK;
}

/* `base` may be NULL. */
static qgc_status merge_documents(qgc_loader *ld, const qgc_yaml *base, const qgc_yaml *over,
                                  qgc_yaml **out) {
    qgc_yaml *merged = qgc_yaml_new_map(ld->arena, over->at);
    for (size_t i = 0; i < over->n; i++) {
        const char *key = over->keys[i]->text;
        qgc_yaml *item = over->items[i];
        if (is_section(key))
            QGC_TRY(merge_section(ld, key, base ? qgc_yaml_get(base, key) : NULL, item, &item));
        qgc_yaml_put(ld->arena, merged, over->keys[i], item);
    }
    for (size_t i = 0; base && i < base->n; i++)
        qgc_yaml_put(ld->arena, merged, base->keys[i], base->items[i]); /* not if it is there */
    *out = merged;
    return QGC_OK;
}

static qgc_status check_path(qgc_loader *ld, const qgc_yaml *node) {
    QGC_TRY(qgc_load_expect(ld, node, QGC_YAML_SCALAR, "extends"));
    const char *path = node->text;
    if (!path[0] || path[0] == '/' || path[0] == '~' || strchr(path, '\\'))
        return qgc_fail(ld->d, QGC_ERR_INPUT, node->at,
                        "extended file \"%s\" is not a path relative to this file", path);
    return QGC_OK;
}

static qgc_status read_document(qgc_loader *ld, const char *path, qgc_loc said_at, const link *from,
                                qgc_yaml **out);

static qgc_status extend(qgc_loader *ld, const char *path, const qgc_yaml *extends, const link *from,
                         qgc_yaml **base) {
    QGC_TRY(check_path(ld, extends));
    ld->extends = qgc_arena_grow(ld->arena, ld->extends, ld->n_extends, sizeof(qgc_loc));
    ld->extends[ld->n_extends++] = extends->at;

    const char *base_path = extends->text;
    if (strchr(path, '/'))
        base_path = qgc_arena_printf(ld->arena, "%s/%s", qgc_path_folder(ld->arena, path), extends->text);
    qgc_frame frame = {ld->d->top, "reading the extended file", extends->text, extends->at};
    ld->d->top = &frame;
    qgc_status s = read_document(ld, base_path, extends->at, from, base);
    ld->d->top = frame.up;
    return s;
}

/* The merged document of a file; `said_at` is where a file says that it extends this one. */
static qgc_status read_document(qgc_loader *ld, const char *path, qgc_loc said_at, const link *from,
                                qgc_yaml **out) {
    link here = {.from = from, .depth = from ? from->depth + 1 : 0};
    if (stat(path, &here.file) == 0)
        for (const link *l = from; l; l = l->from)
            if (l->file.st_dev == here.file.st_dev && l->file.st_ino == here.file.st_ino)
                return qgc_fail(ld->d, QGC_ERR_INPUT, said_at, "file \"%s\" extends itself", path);
    if (here.depth > QGC_LOAD_MAX_EXTENDS)
        return qgc_fail(ld->d, QGC_ERR_INPUT, said_at, "more than %d files extend one another",
                        QGC_LOAD_MAX_EXTENDS);
    qgc_yaml *doc = NULL, *base = NULL;
    if (from) { /* which names any file: only that of a model is quoted */
        qgc_yaml_hidden hidden;
        QGC_TRY(qgc_yaml_read_hidden(&doc, path, &hidden, ld->arena, ld->d));
        QGC_TRY(qgc_load_expect(ld, doc, QGC_YAML_MAP, "model file"));
        int format;
        QGC_TRY(check_format(ld, doc, &format));
        hidden.source->text = hidden.text;
    } else
        QGC_TRY(qgc_yaml_read(&doc, path, ld->arena, ld->d));
    QGC_TRY(check_document(ld, doc));
    const qgc_yaml *extends = qgc_yaml_get(doc, "extends");
    if (extends)
        QGC_TRY(extend(ld, path, extends, &here, &base));
    return merge_documents(ld, base, doc, out);
}

/* Do these four bytes begin the file? */
static bool begins_with(const char *path, const char *magic, qgc_arena *a) {
    qgc_file f = {0};
    qgc_diag ignored = qgc_diag_new(a);
    const bool yes = qgc_file_is_regular(path) && qgc_file_open(&f, path, &ignored) == QGC_OK &&
                     f.bytes >= 4 && memcmp(f.data, magic, 4) == 0;
    qgc_file_close(&f);
    return yes;
}

/* A GGUF file by its first bytes, the others by their names. */
static bool holds_weights(const char *path, qgc_arena *a) {
    static const char suffix[] = ".safetensors";
    struct stat s;
    if (stat(path, &s) != 0)
        return false;
    if (S_ISDIR(s.st_mode))
        return qgc_file_exists(qgc_arena_printf(a, "%s/config.json", path));
    const size_t n = strlen(path);
    if (n > sizeof suffix && strcmp(path + n - (sizeof suffix - 1), suffix) == 0)
        return true;
    return begins_with(path, "GGUF", a);
}

/* Weights and artifacts are told from a graph before its YAML is read: else an error would say what YAML they are not. */
static qgc_status want_a_graph(const qgc_loader *ld, const char *path) {
    const bool weights = holds_weights(path, ld->arena);
    if (!weights && !begins_with(path, "QGC\x1a", ld->arena))
        return QGC_OK;
    qgc_source *source = qgc_arena_alloc(ld->d->arena, sizeof *source);
    source->name = qgc_arena_strdup(ld->d->arena, path);
    qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, (qgc_loc){.source = source},
                            "this %s, and here goes the graph of the model (YAML)",
                            weights ? "holds weights" : "is an artifact");
    if (weights)
        qgc_hint(ld->d, "Name a graph, models/qwen2.5-0.5b.yaml say, and this with --weights.");
    else
        qgc_hint(ld->d, "qgc inspect --graph prints the graph that an artifact was compiled from.");
    return s;
}

qgc_status qgc_load_file_document(qgc_loader *ld, const char *path) {
    qgc_yaml *doc = NULL;
    QGC_TRY(want_a_graph(ld, path));
    QGC_TRY(read_document(ld, path, QGC_NO_LOC, NULL, &doc));
    ld->doc = doc;
    return QGC_OK;
}

qgc_status qgc_load_text_document(qgc_loader *ld, const qgc_source *source) {
    qgc_yaml *doc = NULL;
    QGC_TRY(qgc_yaml_parse(&doc, source, ld->arena, ld->d));
    QGC_TRY(check_document(ld, doc));
    const qgc_yaml *extends = qgc_yaml_get(doc, "extends");
    if (extends)
        return qgc_fail(ld->d, QGC_ERR_INPUT, extends->at, "text that is no file cannot extend one");
    QGC_TRY(merge_documents(ld, NULL, doc, &doc));
    ld->doc = doc;
    return QGC_OK;
}
