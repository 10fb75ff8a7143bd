#ifndef QGC_CODEGEN_CACHE_H
#define QGC_CODEGEN_CACHE_H

#include <stdbool.h>
#include <stddef.h>

#include "graph/base/arena.h"

/* Compiled kernels on disk, one file for each key, with a checksum: a damaged file counts as missing.
 * Nothing here can fail: a cache that cannot be read or written only costs time. Safe for several
 * processes at once (files are renamed into place). Nothing is ever removed, and the user may delete the
 * folder or files in it at any time. */
typedef struct {
    const char *folder; /* NULL: no cache */
    const char *fault;  /* why the folder that was meant cannot be used: "a/b: Permission denied"; NULL */
    qgc_arena *arena;
} qgc_cache;

/* `folder` as given, or NULL for the user's: $XDG_CACHE_HOME/qgc, else ~/.cache/qgc. These two variables are
 * the only ones that qgc reads. Makes the folder, for the user alone: what is in it is run. No cache where
 * that is not possible, and `fault` says why. */
qgc_cache qgc_cache_open(const char *folder, qgc_arena *a);

/* The bytes under `key`, in arena `a`; false if there are none. */
bool qgc_cache_get(const qgc_cache *c, const char *key, qgc_arena *a, const void **data, size_t *bytes);
/* False if it could not be kept. */
bool qgc_cache_put(const qgc_cache *c, const char *key, const void *data, size_t bytes, qgc_arena *a);

#endif
