/* out[r, :] = x[rows[r], :]
 *
 * Grid: x = rows wanted; bound by launch. */
#include "common.cuh"

#ifndef D
#define D 896
#endif

extern "C" __global__ void select_rows(const float *x, const i32 *rows, float *out) {
    let_next_start();
    wait_for_previous();
    size_t from = (size_t)rows[blockIdx.x] * D;
    for (int i = threadIdx.x; i < D; i += blockDim.x)
        out[(size_t)blockIdx.x * D + i] = x[from + i];
}
