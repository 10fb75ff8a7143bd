#include "graph/base/hash.h"

#include <stdio.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t qgc_hash64(const void *data, size_t bytes) {
    return XXH3_64bits(data, bytes);
}

qgc_hash_name qgc_hash128(const void *data, size_t bytes) {
    XXH128_hash_t h = XXH3_128bits(data, bytes);
    qgc_hash_name name;
    snprintf(name.hex, sizeof name.hex, "%016llx%016llx", (unsigned long long)h.high64,
             (unsigned long long)h.low64);
    return name;
}
