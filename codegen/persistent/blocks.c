/* Bytes of rows in the stream, as kernels/stream_blocks.cuh lays them out. */

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

int64_t qgc_stream_row_bytes(qgc_dtype t, int64_t k, int64_t warps) {
    if (!qgc_dtype_is_quantised(t))
        return 2 * k;
    const bytes *f = &formats[t];
    assert(f->pair);
    const int64_t pairs = k / PAIR;
    int64_t sum = 0;
    for (int64_t first = 0; first < pairs; first += warps) {
        const int64_t n = pairs - first < warps ? pairs - first : warps;
        const int64_t wholes = f->whole ? (first + n - 1) / (WHOLE / PAIR) - first / (WHOLE / PAIR) + 1 : 0;
        sum += (n * f->pair + wholes * f->whole + 15) / 16 * 16;
    }
    return sum;
}
