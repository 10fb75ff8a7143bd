#include "runtime/engine/find.h"

#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "graph/base/file.h"
#include "graph/base/str.h"

/* --- folders --------------------------------------------------------------------------------------------- */

/* Where the hub's client keeps what it downloads; NULL if that cannot be told. */
static const char *hub(qgc_arena *a) {
    static const struct {
        const char *variable, *rest;
    } places[] = {{"HF_HUB_CACHE", ""},
                  {"HF_HOME", "/hub"},
                  {"XDG_CACHE_HOME", "/huggingface/hub"},
                  {"HOME", "/.cache/huggingface/hub"}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *value = getenv(places[i].variable);
        if (value && *value)
            return qgc_arena_printf(a, "%s%s", value, places[i].rest);
    }
    return NULL;
}

/* The path of `name` or `name`.gguf in a folder, or NULL. */
static const char *in_folder(const char *folder, const char *name, qgc_arena *a) {
    const char *path = qgc_arena_printf(a, "%s/%s", folder, name),
               *gguf = qgc_arena_printf(a, "%s.gguf", path);
    return qgc_file_exists(path) ? path : qgc_file_exists(gguf) ? gguf : NULL;
}

/* The same in the folders of $QGC_MODELS. */
static const char *in_models(const char *name, qgc_arena *a) {
    const char *at = getenv("QGC_MODELS");
    for (size_t length; at && *at; at += length + (at[length] == ':')) {
        length = strcspn(at, ":");
        const char *found = length ? in_folder(qgc_arena_strndup(a, at, length), name, a) : NULL;
        if (found)
            return found;
    }
    return NULL;
}

/* --- the hub's cache ------------------------------------------------------------------------------------- */

/* The letters that names of owners, repositories and files have; `slashes` are counted. */
static bool is_repository(const char *name, int *slashes) {
    *slashes = 0;
    if (*name == '/' || *name == '.' || *name == '~')
        return false;
    for (const char *p = name; *p; p++) {
        if (*p == '/' && (p[1] == '/' || !p[1]))
            return false;
        *slashes += *p == '/';
    }
    return *slashes >= 1 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/") == strlen(name);
}

/* What `refs/main` of a repository's folder names, else the only snapshot; NULL where there is none. */
static const char *snapshot_of(const char *folder, qgc_arena *a) {
    qgc_diag ignored = qgc_diag_new(a);
    qgc_source commit;
    const char *ref = qgc_arena_printf(a, "%s/refs/main", folder), *path = NULL;
    if (qgc_file_exists(ref) && qgc_file_read(&commit, ref, 256, "the reference", &ignored) == QGC_OK)
        path =
            qgc_arena_printf(a, "%s/snapshots/%.*s", folder, (int)strcspn(commit.text, "\r\n/"), commit.text);
    if (path && qgc_file_is_folder(path))
        return path;
    glob_t found;
    const char *only = NULL;
    if (glob(qgc_arena_printf(a, "%s/snapshots/*", folder), 0, NULL, &found) != 0)
        return NULL;
    if (found.gl_pathc == 1)
        only = qgc_arena_strdup(a, found.gl_pathv[0]);
    globfree(&found);
    return only;
}

/* The GGUF files of a folder; their names, with ", " between them. */
static size_t count_gguf(const char *folder, const char **first, qgc_str *names, qgc_arena *a) {
    glob_t found;
    size_t n = 0;
    *first = NULL;
    if (glob(qgc_arena_printf(a, "%s/*.gguf", folder), 0, NULL, &found) != 0)
        return 0;
    for (; n < found.gl_pathc; n++) {
        if (n == 0)
            *first = qgc_arena_strdup(a, found.gl_pathv[0]);
        qgc_str_printf(names, "%s%s", n ? ", " : "", qgc_path_base(found.gl_pathv[n]));
    }
    globfree(&found);
    return n;
}

/* The file or folder of weights that a snapshot has; NULL with several files, which `names` lists, or with
 * none. */
static const char *weights_in(const char *snapshot, qgc_str *names, qgc_arena *a) {
    const char *first;
    if (qgc_file_exists(qgc_arena_printf(a, "%s/config.json", snapshot)) &&
        (qgc_file_exists(qgc_arena_printf(a, "%s/model.safetensors", snapshot)) ||
         qgc_file_exists(qgc_arena_printf(a, "%s/model.safetensors.index.json", snapshot))))
        return snapshot;
    return count_gguf(snapshot, &first, names, a) == 1 ? first : NULL;
}

/* "owner/name" or "owner/name/file": the folder of the repository in the cache, and the file's name, or
 * NULL. */
static const char *repository_folder(const char *name, const char **file, qgc_arena *a) {
    const size_t owner = strcspn(name, "/"), length = strcspn(name + owner + 1, "/");
    const char *rest = name + owner + 1 + length;
    *file = *rest ? rest + 1 : NULL;
    return qgc_arena_printf(a, "%s/models--%.*s--%.*s", hub(a) ? hub(a) : "", (int)owner, name, (int)length,
                            name + owner + 1);
}

static void hint_download(const char *name, const char *file, qgc_diag *d) {
    const char *slash = file ? file - 1 : name + strlen(name);
    qgc_hint(d, "This downloads it: hf download %.*s%s%s (pip install huggingface_hub brings hf).",
             (int)(slash - name), name, file ? " " : "", file ? file : "");
}

static qgc_status find_repository(const char *name, const char **path, qgc_diag *d) {
    const char *file, *folder = repository_folder(name, &file, d->arena),
                      *snapshot = snapshot_of(folder, d->arena);
    qgc_str names = qgc_str_new(d->arena);
    if (snapshot && file) {
        *path = qgc_arena_printf(d->arena, "%s/%s", snapshot, file);
        if (qgc_file_exists(*path))
            return QGC_OK;
    } else if (snapshot && (*path = weights_in(snapshot, &names, d->arena)))
        return QGC_OK;
    if (names.bytes) {
        qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "repository \"%s\" has several weights: %s",
                                name, names.text);
        qgc_hint(d, "Name one: %s/FILE.", name);
        return s;
    }
    qgc_status s = qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                            "no weights \"%s\": it is no path, and was not downloaded", name);
    qgc_note(d, QGC_NO_LOC, "looked in \"%s\"%s", snapshot ? snapshot : folder,
             getenv("QGC_MODELS") ? ", and in the folders of QGC_MODELS" : "");
    hint_download(name, file, d);
    return s;
}

/* "models/none.gguf" is a path to a file that is not there, rather than a repository. */
static bool has_extension(const char *name) {
    static const char *const extensions[] = {".gguf", ".safetensors", ".json", ".yaml", ".qgc"};
    const size_t length = strlen(name);
    for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++) {
        const size_t n = strlen(extensions[i]);
        if (length > n && strcmp(name + length - n, extensions[i]) == 0)
            return true;
    }
    return false;
}

/* A word of the laboratory, which asks for it before it looks for a file. */
static qgc_status no_random(const char *name, qgc_diag *d) {
    qgc_status s =
        qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                 "no weights \"%s\": random ones are for ablate, bench, bisect, search, tune and view", name);
    qgc_hint(d, "Give a file, a folder or the name of a repository.");
    return s;
}

qgc_status qgc_find_weights(const char *name, const char **path, qgc_diag *d) {
    *path = name;
    if (!qgc_file_exists(name) && (strcmp(name, "random") == 0 || strncmp(name, "random:", 7) == 0))
        return no_random(name, d);
    if (qgc_file_exists(name) || strcmp(name, "-") == 0 || *name == '/')
        return QGC_OK;
    const char *found = in_models(name, d->arena);
    if (found) {
        *path = found;
        return QGC_OK;
    }
    int slashes;
    if (!is_repository(name, &slashes) || slashes > 2 || !hub(d->arena))
        return QGC_OK;
    const char *file, *folder = repository_folder(name, &file, d->arena);
    const bool looks_like_file = slashes == 1 && has_extension(name);
    if (!qgc_file_exists(folder) && (looks_like_file || qgc_file_exists(qgc_path_folder(d->arena, name))))
        return QGC_OK;
    return find_repository(name, path, d);
}

/* --- what goes with a model ------------------------------------------------------------------------------ */

const char *qgc_find_moved(const char *recorded, const char *beside, qgc_arena *a) {
    const char *base = qgc_path_base(recorded);
    const char *path = qgc_arena_printf(a, "%s/%s", qgc_path_folder(a, beside), base);
    return qgc_file_exists(path) ? path : in_models(base, a);
}

/* "qwen2.5-0.5b" of "models/qwen2.5-0.5b.qgc". */
static const char *stem(const char *path, qgc_arena *a) {
    const char *base = qgc_path_base(path), *dot = strrchr(base, '.');
    return qgc_arena_strndup(a, base, dot && dot != base ? (size_t)(dot - base) : strlen(base));
}

/* How well a repository's name goes with a model's: 0 not at all. */
static int fitness(const char *repository, const char *model) {
    static const char *const endings[] = {"",      "-GGUF", "-Chat-GGUF", "-it-GGUF", "-Instruct-GGUF",
                                          "-Chat", "-it",   "-Instruct"};
    const size_t length = strlen(model);
    if (strncasecmp(repository, model, length) != 0)
        return 0;
    for (int i = 0; i < (int)(sizeof endings / sizeof *endings); i++)
        if (strcasecmp(repository + length, endings[i]) == 0)
            return i + 1;
    return 0;
}

static const char *in_hub(const char *model, qgc_arena *a) {
    glob_t found;
    const char *best = NULL;
    int most = 0;
    if (!hub(a) || glob(qgc_arena_printf(a, "%s/models--*--*", hub(a)), 0, NULL, &found) != 0)
        return NULL;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        const char *name = strstr(qgc_path_base(found.gl_pathv[i]) + strlen("models--"), "--");
        const int fits = name ? fitness(name + 2, model) : 0;
        qgc_str names = qgc_str_new(a);
        const char *snapshot = fits > most ? snapshot_of(found.gl_pathv[i], a) : NULL;
        const char *weights = snapshot ? weights_in(snapshot, &names, a) : NULL;
        if (weights) {
            best = weights;
            most = fits;
        }
    }
    globfree(&found);
    return best;
}

const char *qgc_find_weights_of(const char *model, const char *beside, qgc_arena *a) {
    const char *const names[] = {stem(beside, a), model};
    const char *folder = qgc_path_folder(a, beside), *found = NULL;
    for (int i = 0; i < 2 && !found; i++) {
        const char *path = qgc_arena_printf(a, "%s/%s", folder, names[i]);
        const char *gguf = qgc_arena_printf(a, "%s.gguf", path);
        found = qgc_file_exists(gguf) ? gguf : qgc_file_is_folder(path) ? path : NULL;
    }
    for (int i = 0; i < 2 && !found; i++)
        found = in_models(names[i], a);
    return found ? found : in_hub(model, a);
}
