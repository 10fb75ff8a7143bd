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

static qgc_setting *find(const qgc_tuning *t, const char *kernel, const char *name) {
    for (size_t i = 0; t && i < t->n; i++)
        if (strcmp(t->settings[i].kernel, kernel) == 0 && strcmp(t->settings[i].name, name) == 0)
            return &t->settings[i];
    return NULL;
}

int64_t qgc_tuning_get(const qgc_tuning *t, const char *kernel, const char *name, int64_t otherwise) {
    const qgc_setting *s = find(t, kernel, name);
    return s ? s->value : otherwise;
}

void qgc_tuning_set(qgc_tuning *t, const char *kernel, const char *name, int64_t value) {
    qgc_setting *s = find(t, kernel, name);
    if (!s) {
        t->settings = qgc_arena_grow(t->arena, t->settings, t->n, sizeof *t->settings);
        s = &t->settings[t->n++];
        *s = (qgc_setting){.kernel = qgc_arena_strdup(t->arena, kernel),
                           .name = qgc_arena_strdup(t->arena, name)};
    }
    s->value = value;
}

static qgc_tuned_time *find_time(const qgc_tuning *t, const char *program, const char *mode) {
    for (size_t i = 0; t && i < t->n_times; i++)
        if (strcmp(t->times[i].program, program) == 0 && strcmp(t->times[i].mode, mode) == 0)
            return &t->times[i];
    return NULL;
}

int64_t qgc_tuning_time(const qgc_tuning *t, const char *program, const char *mode) {
    const qgc_tuned_time *time = find_time(t, program, mode);
    return time ? time->ns : 0;
}

void qgc_tuning_set_time(qgc_tuning *t, const char *program, const char *mode, int64_t ns) {
    qgc_tuned_time *time = find_time(t, program, mode);
    if (!time) {
        t->times = qgc_arena_grow(t->arena, t->times, t->n_times, sizeof *t->times);
        time = &t->times[t->n_times++];
        *time = (qgc_tuned_time){.program = qgc_arena_strdup(t->arena, program),
                                 .mode = qgc_arena_strdup(t->arena, mode)};
    }
    time->ns = ns;
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

/* The key may be missing: files have it since modes are timed. */
static qgc_status read_times(qgc_tuning *out, const qgc_yaml *root, qgc_diag *d) {
    const qgc_yaml *list = qgc_yaml_get(root, "times");
    if (!list)
        return QGC_OK;
    if (list->kind != QGC_YAML_LIST)
        return qgc_fail(d, QGC_ERR_INPUT, list->at, "\"times\" of a tuning is a list");
    for (size_t i = 0; i < list->n; i++) {
        const char *program, *mode;
        int64_t ns;
        QGC_TRY(text_of(list->items[i], "program", &program, d));
        QGC_TRY(text_of(list->items[i], "mode", &mode, d));
        QGC_TRY(number_of(list->items[i], "ns", &ns, d));
        qgc_tuning_set_time(out, program, mode, ns);
    }
    return QGC_OK;
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
    for (size_t i = 0; i < list->n; i++) {
        const char *kernel, *name;
        int64_t value;
        QGC_TRY(text_of(list->items[i], "kernel", &kernel, d));
        QGC_TRY(text_of(list->items[i], "name", &name, d));
        QGC_TRY(number_of(list->items[i], "value", &value, d));
        qgc_tuning_set(out, kernel, name, value);
    }
    return read_times(out, root, d);
}

qgc_status qgc_tuning_write(const qgc_tuning *t, const char *path, qgc_diag *d) {
    qgc_str text = qgc_str_new(d->arena);
    qgc_str_printf(
        &text,
        "# Settings of kernels, measured by qgc tune. May be deleted.\ntuning: %d\narch: %s\n%s%s%ssettings:%s\n",
        VERSION, t->arch, t->card ? "card: " : "", t->card ? t->card : "", t->card ? "\n" : "",
        t->n ? "" : " []");
    for (size_t i = 0; i < t->n; i++)
        qgc_str_printf(&text, "  - {kernel: \"%s\", name: %s, value: %lld}\n", t->settings[i].kernel,
                       t->settings[i].name, (long long)t->settings[i].value);
    if (t->n_times)
        qgc_str_add(&text, "times:\n");
    for (size_t i = 0; i < t->n_times; i++)
        qgc_str_printf(&text, "  - {program: \"%s\", mode: %s, ns: %lld}\n", t->times[i].program,
                       t->times[i].mode, (long long)t->times[i].ns);
    return qgc_file_replace(path, text.text, text.bytes, d);
}
