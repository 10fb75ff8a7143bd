/* out[t, k, :] = matrix ids[t, k] of EXPERTS times x[t, :] or, where each expert has its own (EACH), times x[t, k, :], plus its bias.
 * Matrices are [OUT, IN], one after the other. Only those that were chosen are read.
 *
 * Grid: x = OUT / (rows of a block), y = tokens * USED. Reads IN * OUT weights for each chosen expert and is bound by that. */
#include "rows.cuh"

#ifndef OUT
#define OUT 896
#endif
#ifndef EXPERTS
#define EXPERTS 64
#endif
#ifndef USED
#define USED 8
#endif
#ifndef EACH
#define EACH 0
#endif
#ifndef BIAS /* 1 + the type that biases are stored in, 0: there are none */
#define BIAS 0
#endif

#if BIAS
#define BIAS_PARAMETER const stored<BIAS - 1>::elem *bias,
#else
#define BIAS_PARAMETER
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
    expert_linear(const float *x, const weights::elem *matrices, const i32 *ids, BIAS_PARAMETER float *out) {
    let_next_start();
    wait_for_previous();
    /* ids are those of a route; but where a kernel is timed by itself, their place holds other numbers */
    const size_t item = blockIdx.y, expert = min((u32)ids[item], EXPERTS - 1u);
    const int row = blockIdx.x * GROUPS + threadIdx.x / 32 / SPLIT;
    const weights::elem *rows[1] = {weights::row(matrices, expert * OUT + min(row, OUT - 1), IN)};
    const vector v = {x + (EACH ? item : item / USED) * IN, 1.0f};
    float sum[1];
    lane_dots<1, weights, 0>(v, nullptr, rows, sum);
    meet_dots<1>(v, sum);
    if (row >= OUT || threadIdx.x % (32 * SPLIT) != 0)
        return;
#if BIAS
    sum[0] += stored<BIAS - 1>::widen(bias[expert * OUT + row]);
#endif
    out[item * OUT + row] = sum[0];
}
