/* A file of the cache, little endian:
 *
 *   magic "QGCK"  u32 version  u64 bytes of the content  u64 XXH3-64 of the key  u64 XXH3-64 of the content
 *   content
 *
 * Whatever is wrong with a file, it counts as missing and is written anew. */

#include "codegen/cache.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "graph/base/file.h"
#include "graph/base/hash.h"
#include "graph/base/str.h"

typedef struct {
    char magic[4];
    uint32_t version;
    uint64_t bytes, key_hash, content_hash;
} head;

_Static_assert(sizeof(head) == 32, "the head of a cache file has no holes");

enum { VERSION = 1 };

static head head_of(const char *key, const void *data, size_t bytes) {
    return (head){
        {'Q', 'G', 'C', 'K'}, VERSION, bytes, qgc_hash64(key, strlen(key)), qgc_hash64(data, bytes)};
}

/* Makes a folder and those above it, for the user alone. */
static bool make_folder(qgc_arena *a, const char *path) {
    char *part = qgc_arena_strdup(a, path);
    for (char *p = part + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = 0;
        if (mkdir(part, 0700) != 0 && errno != EEXIST && !qgc_file_is_folder(part))
            return false;
        *p = '/';
    }
    return mkdir(part, 0700) == 0 || qgc_file_is_folder(part);
}

/* A variable that holds an absolute path, or NULL; the XDG rules ignore relative ones
 * (specifications.freedesktop.org/basedir-spec). */
static const char *absolute_path(const char *variable) {
    const char *path = getenv(variable);
    return path && path[0] == '/' ? path : NULL;
}

qgc_cache qgc_cache_open(const char *folder, qgc_arena *a) {
    const char *xdg = absolute_path("XDG_CACHE_HOME"), *home = absolute_path("HOME");
    qgc_cache c = {.arena = a};
    if (folder)
        c.folder = qgc_arena_strdup(a, folder);
    else if (xdg)
        c.folder = qgc_arena_printf(a, "%s/qgc", xdg);
    else if (home)
        c.folder = qgc_arena_printf(a, "%s/.cache/qgc", home);
    if (c.folder && (!*c.folder || !make_folder(a, c.folder))) {
        c.fault = qgc_arena_printf(a, "%s: %s", c.folder, strerror(*c.folder ? errno : ENOENT));
        c.folder = NULL;
    }
    return c;
}

static const char *path_of(const qgc_cache *c, const char *key, qgc_arena *a) {
    assert(*key && !strchr(key, '/'));
    return qgc_arena_printf(a, "%s/%s", c->folder, key);
}

bool qgc_cache_get(const qgc_cache *c, const char *key, qgc_arena *a, const void **data, size_t *bytes) {
    if (!c->folder)
        return false;
    qgc_diag quiet = qgc_diag_new(a);
    qgc_file f;
    if (qgc_file_open(&f, path_of(c, key, a), &quiet) != QGC_OK)
        return false;
    bool found = false;
    if (f.bytes >= sizeof(head)) {
        head want = head_of(key, f.data + sizeof(head), f.bytes - sizeof(head));
        found = memcmp(&want, f.data, sizeof want) == 0;
    }
    if (found) {
        *bytes = f.bytes - sizeof(head);
        void *copy = qgc_arena_alloc(a, *bytes);
        memcpy(copy, f.data + sizeof(head), *bytes);
        *data = copy;
    }
    qgc_file_close(&f);
    return found;
}

bool qgc_cache_put(const qgc_cache *c, const char *key, const void *data, size_t bytes, qgc_arena *a) {
    /* Two threads may put one key at once; each writes a file of its own, and the last rename wins. */
    static atomic_uint n_put;
    if (!c->folder)
        return false;
    const char *path = path_of(c, key, a);
    const char *fresh = qgc_arena_printf(a, "%s.%ld.%u", path, (long)getpid(), atomic_fetch_add(&n_put, 1));
    head h = head_of(key, data, bytes);
    qgc_str content = qgc_str_new(a);
    qgc_str_add_bytes(&content, &h, sizeof h);
    qgc_str_add_bytes(&content, data, bytes);
    qgc_diag quiet = qgc_diag_new(a);
    if (qgc_file_write(fresh, content.text, content.bytes, &quiet) != QGC_OK)
        return false;
    if (rename(fresh, path) == 0)
        return true;
    unlink(fresh);
    return false;
}
