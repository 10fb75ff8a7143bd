#include "codegen/tuning.h"

#include <stdlib.h>
#include <string.h>

#include "codegen/cache.h"
#include "graph/base/file.h"
#include "graph/base/str.h"
#include "graph/yaml.h"

enum { VERSION = 1 };

qgc_tuning qgc_tuning_new(const char *arch, qgc_arena *a) {
    return (qgc_tuning){.arch = qgc_arena_strdup(a, arch), .arena = a};
}

static qgc_tuned *find(const qgc_tuned_list *list, const char *of, const char *name) {
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->rows[i].of, of) == 0 && strcmp(list->rows[i].name, name) == 0)
            return &list->rows[i];
    return NULL;
}

static void set(qgc_tuned_list *list, const qgc_tuned *row, qgc_arena *a) {
    qgc_tuned *there = find(list, row->of, row->name);
    if (!there) {
        list->rows = qgc_arena_grow(a, list->rows, list->n, sizeof *list->rows);
        there = &list->rows[list->n++];
        *there = (qgc_tuned){.of = qgc_arena_strdup(a, row->of), .name = qgc_arena_strdup(a, row->name)};
    }
    there->value = row->value;
}

int64_t qgc_tuning_get(const qgc_tuning *t, const char *kernel, const char *name, int64_t otherwise) {
    const qgc_tuned *row = t ? find(&t->settings, kernel, name) : NULL;
    return row ? row->value : otherwise;
}

void qgc_tuning_set(qgc_tuning *t, const char *kernel, const char *name, int64_t value) {
    set(&t->settings, &(qgc_tuned){kernel, name, value}, t->arena);
}

int64_t qgc_tuning_time(const qgc_tuning *t, const char *program, const char *mode) {
    const qgc_tuned *row = t ? find(&t->times, program, mode) : NULL;
    return row ? row->value : 0;
}

void qgc_tuning_set_time(qgc_tuning *t, const char *program, const char *mode, int64_t ns) {
    set(&t->times, &(qgc_tuned){program, mode, ns}, t->arena);
}

static void add(qgc_tuned_list *to, const qgc_tuned_list *from, qgc_arena *a) {
    for (size_t i = 0; i < from->n; i++)
        set(to, &from->rows[i], a);
}

void qgc_tuning_add(qgc_tuning *t, const qgc_tuning *from) {
    add(&t->settings, &from->settings, t->arena);
    add(&t->times, &from->times, t->arena);
}

const char *qgc_tuning_path(const char *cache_folder, const char *arch, const char *card, qgc_arena *a) {
    const qgc_cache cache = qgc_cache_open(cache_folder, a);
    return cache.folder ? qgc_arena_printf(a, "%s/tuning-%s%s%s.yaml", cache.folder, arch, card ? "-" : "",
                                           card ? card : "")
                        : NULL;
}

/* --- the file -------------------------------------------------------------------------------------------- */

static qgc_status text_of(const qgc_yaml *map, const char *key, const char **out, qgc_diag *d) {
    *out = "";
    const qgc_yaml *node = map->kind == QGC_YAML_MAP ? qgc_yaml_get(map, key) : NULL;
    if (!node || node->kind != QGC_YAML_SCALAR) {
        qgc_status s = qgc_fail(d, QGC_ERR_INPUT, map->at, "a tuning has no \"%s\" here", key);
        qgc_hint(d, "qgc tune writes such files; this one may be deleted.");
        return s;
    }
    *out = node->text;
    return QGC_OK;
}

static qgc_status number_of(const qgc_yaml *map, const char *key, int64_t *out, qgc_diag *d) {
    const char *text;
    QGC_TRY(text_of(map, key, &text, d));
    char *end;
    *out = strtoll(text, &end, 10);
    if (*end || end == text || *out < 1 || *out > INT32_MAX)
        return qgc_fail(d, QGC_ERR_INPUT, qgc_yaml_get(map, key)->at,
                        "\"%s\" is \"%s\", expected a number above 0", key, text);
    return QGC_OK;
}

/* The keys of a row in the file: what it is of, its name, its value. */
static const char *const setting_keys[] = {"kernel", "name", "value"}, *const time_keys[] = {"program",
                                                                                             "mode", "ns"};

static qgc_status read_rows(qgc_tuned_list *out, const qgc_yaml *list, const char *const keys[3],
                            qgc_arena *a, qgc_diag *d) {
    for (size_t i = 0; i < list->n; i++) {
        qgc_tuned row;
        QGC_TRY(text_of(list->items[i], keys[0], &row.of, d));
        QGC_TRY(text_of(list->items[i], keys[1], &row.name, d));
        QGC_TRY(number_of(list->items[i], keys[2], &row.value, d));
        set(out, &row, a);
    }
    return QGC_OK;
}

/* The key may be missing: files have it since modes are timed. */
static qgc_status read_times(qgc_tuning *out, const qgc_yaml *root, qgc_diag *d) {
    const qgc_yaml *list = qgc_yaml_get(root, "times");
    if (!list)
        return QGC_OK;
    if (list->kind != QGC_YAML_LIST)
        return qgc_fail(d, QGC_ERR_INPUT, list->at, "\"times\" of a tuning is a list");
    return read_rows(&out->times, list, time_keys, out->arena, d);
}

qgc_status qgc_tuning_read(qgc_tuning *out, const char *path, const char *arch, qgc_diag *d) {
    qgc_yaml *root;
    QGC_TRY(qgc_yaml_read(&root, path, d->arena, d));
    int64_t version;
    const char *made_for;
    QGC_TRY(number_of(root, "tuning", &version, d));
    if (version != VERSION)
        return qgc_fail(d, QGC_ERR_INPUT, root->at, "a tuning of version %lld, this qgc reads %d",
                        (long long)version, VERSION);
    QGC_TRY(text_of(root, "arch", &made_for, d));
    *out = qgc_tuning_new(made_for, d->arena);
    if (arch && strcmp(made_for, arch) != 0)
        return qgc_fail(d, QGC_ERR_INPUT, qgc_yaml_get(root, "arch")->at, "a tuning for %s, not for %s",
                        made_for, arch);
    const qgc_yaml *card = qgc_yaml_get(root, "card");
    if (card && card->kind == QGC_YAML_SCALAR)
        out->card = qgc_arena_strdup(d->arena, card->text);
    const qgc_yaml *list = qgc_yaml_get(root, "settings");
    if (!list || list->kind != QGC_YAML_LIST)
        return qgc_fail(d, QGC_ERR_INPUT, root->at, "a tuning has a list \"settings\"");
    QGC_TRY(read_rows(&out->settings, list, setting_keys, out->arena, d));
    return read_times(out, root, d);
}

static void write_rows(const qgc_tuned_list *list, const char *const keys[3], qgc_str *text) {
    for (size_t i = 0; i < list->n; i++)
        qgc_str_printf(text, "  - {%s: \"%s\", %s: %s, %s: %lld}\n", keys[0], list->rows[i].of, keys[1],
                       list->rows[i].name, keys[2], (long long)list->rows[i].value);
}

qgc_status qgc_tuning_write(const qgc_tuning *t, const char *path, qgc_diag *d) {
    qgc_str text = qgc_str_new(d->arena);
    qgc_str_printf(
        &text,
        "# Settings of kernels, measured by qgc tune. May be deleted.\ntuning: %d\narch: %s\n%s%s%ssettings:%s\n",
        VERSION, t->arch, t->card ? "card: " : "", t->card ? t->card : "", t->card ? "\n" : "",
        t->settings.n ? "" : " []");
    write_rows(&t->settings, setting_keys, &text);
    if (t->times.n)
        qgc_str_add(&text, "times:\n");
    write_rows(&t->times, time_keys, &text);
    return qgc_file_replace(path, text.text, text.bytes, d);
}
