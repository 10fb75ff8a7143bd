#ifndef QGC_BASE_HASH_H
#define QGC_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* XXH3 of `bytes` bytes (xxhash.com), the same on every machine. Not for secrets. */
uint64_t qgc_hash64(const void *data, size_t bytes);

/* The 128-bit variant as 32 lower-case hex digits and a zero byte: a name for cached content. */
typedef struct {
    char hex[33];
} qgc_hash_name;
qgc_hash_name qgc_hash128(const void *data, size_t bytes);

#endif
