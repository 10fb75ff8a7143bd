/* Block formats in the stream: whether there are any, and bytes of rows, as kernels/stream_blocks.cuh lays them out. */

#include <assert.h>

#include "codegen/persistent/persistent.h"

enum { PAIR = 64, WHOLE = 256 }; /* elements that a warp takes of a chunk; of a block of the K formats */

/* Bytes for a pair of a row, and for a block of 256. */
typedef struct {
    int pair, whole;
} bytes;

static const bytes formats[QGC_N_DTYPES] = {
    [QGC_Q8_0] = {64 + 4, 0}, [QGC_Q4_0] = {32 + 4, 0}, [QGC_Q4_1] = {32 + 8, 0}, [QGC_Q5_0] = {40 + 4, 0},
    [QGC_Q5_1] = {40 + 8, 0}, [QGC_Q4_K] = {32 + 4, 4}, [QGC_Q5_K] = {40 + 4, 4}, [QGC_Q6_K] = {48 + 4, 2},
};

/* Bytes of a row of a chunk of n pairs. Chunks begin at multiples of `warps` pairs. */
static int64_t chunk_bytes(qgc_dtype t, int64_t n, int64_t warps) {
    const bytes *f = &formats[t];
    assert(f->pair);
    const int64_t step = warps % 4 == 0 ? 4 : warps % 2 == 0 ? 2 : 1;
    const int64_t wholes = f->whole ? (n + 3 - step) / (WHOLE / PAIR) + 1 : 0;
    return (n * f->pair + wholes * f->whole + 15) / 16 * 16;
}

int64_t qgc_stream_step_bytes(qgc_dtype t) {
    const bytes *f = &formats[t];
    return f->pair + (f->whole ? 4 : 0);
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

int64_t qgc_stream_row_bytes(qgc_dtype t, int64_t k, int64_t warps) {
    if (!qgc_dtype_is_quantised(t))
        return 2 * k;
    int64_t sum = 0;
    for (int64_t first = 0; first < k / PAIR; first += warps)
        sum += chunk_bytes(t, smaller(warps, k / PAIR - first), warps);
    return sum;
}

int64_t qgc_stream_copy_bytes(int shared_bytes) {
    enum { SMALL = 72 << 10 };
    return shared_bytes < SMALL ? QGC_COPY_BYTES / 2 : QGC_COPY_BYTES;
}

enum { TILE = QGC_SHARE_TILE, GROUP = 4 };

static int64_t tile_bytes(qgc_dtype t, int64_t k, int64_t warps) {
    return TILE * chunk_bytes(t, smaller(warps, k / PAIR), warps);
}

int64_t qgc_stream_group(qgc_dtype t, int64_t k, int64_t warps, int64_t copy_bytes, int64_t tiles) {
    const int64_t most = smaller(copy_bytes / tile_bytes(t, k, warps), GROUP),
                  copies = (tiles + most - 1) / most;
    return (tiles + copies - 1) / copies;
}

int64_t qgc_stream_slot_bytes(qgc_dtype t, int64_t k, int64_t warps, int64_t copy_bytes) {
    if (!qgc_dtype_is_quantised(t))
        return TILE * 2 * PAIR * warps;
    const int64_t tile = tile_bytes(t, k, warps);
    return smaller(copy_bytes / tile, GROUP) * tile;
}

int64_t qgc_stream_operands(qgc_dtype t, int64_t k, int64_t warps) {
    const int64_t chunks = (k / PAIR + warps - 1) / warps;
    return qgc_dtype_is_quantised(t) ? chunks : 0;
}

bool qgc_persistent_has_blocks(const qgc_persistent *p) {
    for (int i = 0; i < p->n_instances; i++)
        if (p->instances[i].does == QGC_DO_PRODUCTS && qgc_dtype_is_quantised(p->instances[i].weight))
            return true;
    return false;
}

bool qgc_persistent_has_k_formats(const qgc_persistent *p) {
    for (int i = 0; i < p->n_instances; i++)
        if (p->instances[i].does == QGC_DO_PRODUCTS &&
            (p->instances[i].weight == QGC_Q4_K || p->instances[i].weight == QGC_Q5_K ||
             p->instances[i].weight == QGC_Q6_K))
            return true;
    return false;
}
