/* Reads any bytes as a .qgc file. Checksums would stop a fuzzer at the door, so they are made right first.
 * A file that is accepted must be what its plan packs to. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/artifact.h"
#include "graph/base/hash.h"
#include "tests/support/guarded.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum {
    AT_BYTES = 8,
    AT_TABLE_HASH = 24,
    AT_TABLE = 32,
    SECTION_BYTES = 32,
    N_SECTIONS = 2,
    TABLE_BYTES = N_SECTIONS * SECTION_BYTES
};

static uint64_t get(const uint8_t *from) {
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v |= (uint64_t)from[i] << (8 * i);
    return v;
}

static void put(uint8_t *to, uint64_t v) {
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(v >> (8 * i));
}

static void make_checksums_right(uint8_t *file, size_t bytes) {
    if (bytes < AT_TABLE + TABLE_BYTES)
        return;
    put(file + AT_BYTES, bytes);
    uint8_t *const table = file + AT_TABLE;
    for (uint8_t *row = table; row < table + TABLE_BYTES; row += SECTION_BYTES) {
        uint64_t offset = get(row + 8), size = get(row + 16);
        if (offset <= bytes && size <= bytes - offset)
            put(row + 24, qgc_hash64(file + offset, size));
    }
    put(file + AT_TABLE_HASH, qgc_hash64(table, TABLE_BYTES));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    uint8_t *file = bytes <= GUARDED_MAX ? guarded_copy(data, bytes) : NULL;
    if (!file)
        return 0;
    make_checksums_right(file, bytes);
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a);

    qgc_plan *p;
    if (qgc_artifact_unpack(&p, file, bytes, QGC_NO_LOC, &d) == QGC_OK) {
        const void *again;
        size_t again_bytes;
        qgc_artifact_pack(p, a, &again, &again_bytes);
        if (again_bytes != bytes || memcmp(again, file, bytes) != 0)
            abort();
    }
    qgc_arena_drop(a);
    return 0;
}
