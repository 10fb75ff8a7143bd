/* out[t, :] = table[tokens[t], :]
 *
 * Grid: x = tokens. Reads one row of the table a token, writes D floats; bound by launch. */
#include "common.cuh"

#ifndef D
#define D 896
#endif
#ifndef WEIGHT
#define WEIGHT BF16
#endif

extern "C" __global__ void embedding(const i32 *tokens, const stored<WEIGHT>::elem *table, float *out) {
    let_next_start();
    wait_for_previous();
    const stored<WEIGHT>::elem *row = stored<WEIGHT>::row(table, tokens[blockIdx.x], D);
    for (int i = threadIdx.x; i < D; i += blockDim.x)
        out[(size_t)blockIdx.x * D + i] = stored<WEIGHT>::element(row, i, D);
}
