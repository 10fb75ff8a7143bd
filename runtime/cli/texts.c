#include "runtime/cli/texts.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "graph/base/file.h"

enum { MOST_BYTES = 1 << 30 };

typedef struct {
    cli_context *c;
    qgc_evaluate_text *texts;
    size_t n;
} reading;

static qgc_status read_file(reading *r, const char *path) {
    qgc_source text;
    QGC_TRY(qgc_file_read(&text, path, MOST_BYTES, "the text", r->c->diag));
    r->texts = qgc_arena_grow(r->c->arena, r->texts, r->n, sizeof *r->texts);
    r->texts[r->n++] = (qgc_evaluate_text){text.name, text.text, text.bytes};
    return QGC_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The paths of the regular files of a folder, sorted. */
static qgc_status list(const char *folder, const char ***out, size_t *n, cli_context *c) {
    DIR *d = opendir(folder);
    const char **paths = NULL;
    *n = 0;
    if (!d)
        return qgc_fail(c->diag, QGC_ERR_INPUT, QGC_NO_LOC, "could not read the folder \"%s\": %s", folder,
                        strerror(errno));
    for (const struct dirent *entry; (entry = readdir(d)) != NULL;) {
        const char *path = qgc_arena_printf(c->arena, "%s/%s", folder, entry->d_name);
        if (!qgc_file_is_regular(path))
            continue;
        paths = qgc_arena_grow(c->arena, paths, *n, sizeof *paths);
        paths[(*n)++] = path;
    }
    closedir(d);
    if (*n == 0)
        return qgc_fail(c->diag, QGC_ERR_INPUT, QGC_NO_LOC, "the folder \"%s\" has no regular files", folder);
    qsort(paths, *n, sizeof *paths, by_name);
    *out = paths;
    return QGC_OK;
}

static qgc_status read_folder(reading *r, const char *folder) {
    const char **paths;
    size_t n;
    QGC_TRY(list(folder, &paths, &n, r->c));
    for (size_t i = 0; i < n; i++)
        QGC_TRY(read_file(r, paths[i]));
    return QGC_OK;
}

qgc_status cli_texts_read(const char *const *paths, int n, qgc_evaluate_text **texts, size_t *n_texts,
                          cli_context *c) {
    reading r = {.c = c};
    for (int i = 0; i < n; i++)
        QGC_TRY(qgc_file_is_folder(paths[i]) ? read_folder(&r, paths[i]) : read_file(&r, paths[i]));
    *texts = r.texts;
    *n_texts = r.n;
    return QGC_OK;
}
