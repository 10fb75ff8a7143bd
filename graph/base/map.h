#ifndef QGC_BASE_MAP_H
#define QGC_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>

#include "graph/base/arena.h"

/* A hash map from byte strings to pointers, in an arena. Keys are copied. Iteration is in order of
 * insertion, so that whatever is printed from a map is stable. */
typedef struct {
    const char *key; /* ended by a zero byte, but may hold others */
    size_t key_bytes;
    void *value;
} qgc_map_entry;

typedef struct {
    qgc_arena *arena;
    qgc_map_entry *entries;
    size_t n;
    unsigned *slots; /* index + 1 into entries, 0 for empty */
    size_t n_slots;
} qgc_map;

/* An empty map. */
qgc_map qgc_map_new(qgc_arena *arena);

/* The value under `key`, or NULL. */
void *qgc_map_get(const qgc_map *m, const char *key);
void *qgc_map_get_bytes(const qgc_map *m, const char *key, size_t key_bytes);

/* Puts a value that is not NULL under `key`. Returns false, and changes nothing, if the key is there. */
bool qgc_map_put(qgc_map *m, const char *key, void *value);
bool qgc_map_put_bytes(qgc_map *m, const char *key, size_t key_bytes, void *value);

#endif
