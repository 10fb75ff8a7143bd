/* Activations as operand B of packed_gemm.cu (operand.cuh).
 *
 * Grid: x covers rows * K / 16. */
#include "operand.cuh"

extern "C" __global__ void to_operand(const float *x, u8 *out, i32 rows) {
    let_next_start();
    wait_for_previous();
    const u32 unit = blockIdx.x * blockDim.x + threadIdx.x, row = unit / (K / 16), part = unit % (K / 16);
    float v[16];
    if (row >= (u32)rows)
        return;
    load_part(x + (size_t)row * K + part * 16, v);
    put_part(v, out, row, part, (u32)rows);
}
