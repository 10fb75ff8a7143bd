#include "graph/base/map.h"

#include <stdint.h>
#include <string.h>

#include "graph/base/hash.h"

qgc_map qgc_map_new(qgc_arena *arena) {
    return (qgc_map){.arena = arena};
}

/* The slot that holds `key`, or the empty one where it would go. */
static size_t find_slot(const qgc_map *m, const char *key, size_t bytes) {
    size_t mask = m->n_slots - 1;
    size_t i = (size_t)qgc_hash64(key, bytes) & mask;
    while (m->slots[i]) {
        const qgc_map_entry *e = &m->entries[m->slots[i] - 1];
        if (e->key_bytes == bytes && memcmp(e->key, key, bytes) == 0)
            break;
        i = (i + 1) & mask;
    }
    return i;
}

void *qgc_map_get_bytes(const qgc_map *m, const char *key, size_t bytes) {
    if (m->n == 0)
        return NULL;
    unsigned at = m->slots[find_slot(m, key, bytes)];
    return at ? m->entries[at - 1].value : NULL;
}

void *qgc_map_get(const qgc_map *m, const char *key) {
    return qgc_map_get_bytes(m, key, strlen(key));
}

static void rehash(qgc_map *m) {
    m->n_slots = m->n_slots ? 2 * m->n_slots : 16;
    m->slots = qgc_arena_array(m->arena, m->n_slots, sizeof *m->slots);
    for (size_t i = 0; i < m->n; i++)
        m->slots[find_slot(m, m->entries[i].key, m->entries[i].key_bytes)] = (unsigned)(i + 1);
}

bool qgc_map_put_bytes(qgc_map *m, const char *key, size_t bytes, void *value) {
    if (2 * (m->n + 1) > m->n_slots)
        rehash(m);
    size_t slot = find_slot(m, key, bytes);
    if (m->slots[slot])
        return false;
    m->entries = qgc_arena_grow(m->arena, m->entries, m->n, sizeof *m->entries);
    m->entries[m->n] = (qgc_map_entry){qgc_arena_strndup(m->arena, key, bytes), bytes, value};
    m->slots[slot] = (unsigned)++m->n;
    return true;
}

bool qgc_map_put(qgc_map *m, const char *key, void *value) {
    return qgc_map_put_bytes(m, key, strlen(key), value);
}
