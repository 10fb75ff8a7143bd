/* out[t, k, r] = EXPRESSION of l0, l1 and a0, a1, ...: l is row r of matrix ids[t, k] of EXPERTS times x[t, :] or, where each expert has its
 * own (EACH), times x[t, k, :], plus its bias; l1 of a second such array of matrices, if MATRICES is 2. a is an element of an outside
 * value, or its only one of the token (ONE_A_ROW). Matrices are [OUT, IN], one after the other. Only those that were chosen are read.
 *
 * Grid: x = OUT / (rows of a block), y = tokens * USED. Reads MATRICES * IN * OUT weights for each chosen expert and is bound by that. */
#include "pointwise.cuh"
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
#ifndef MATRICES
#define MATRICES 1
#endif
#ifndef INPUTS /* outside values */
#define INPUTS 0
#endif
#ifndef EXPRESSION
#define EXPRESSION l0
#endif
#ifndef BIAS /* 1 + the type that biases are stored in, 0: there are none; with one matrix */
#define BIAS 0
#endif

#if BIAS
#define BIAS_PARAMETER const stored<BIAS - 1>::elem *bias,
#else
#define BIAS_PARAMETER
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
    expert_linear(const float *x, const weights::elem *m0, const weights::elem *m1, const i32 *ids, BIAS_PARAMETER const float *in0,
                  const float *in1, const float *in2, const float *in3, float *out) {
    wait_for_previous(); /* what starts after this may read ids at once: what made them has ended */
    let_next_start();
    /* ids are those of a route; but where a kernel is timed by itself, their place holds other numbers */
    const size_t item = blockIdx.y, expert = min((u32)ids[item], EXPERTS - 1u);
    const int row = blockIdx.x * GROUPS + threadIdx.x / 32 / SPLIT;
    const weights::elem *const matrix[2] = {m0, m1};
    const weights::elem *rows[MATRICES];
#pragma unroll
    for (int m = 0; m < MATRICES; m++)
        rows[m] = weights::row(matrix[m], expert * OUT + min(row, OUT - 1), IN);
    early_rows<MATRICES> early;
    early.load(rows);
    const vector v = {x + (EACH ? item : item / USED) * IN, 1.0f};
    float sum[MATRICES];
    dot_rows<MATRICES>(v, early, rows, sum);
    if (row >= OUT || threadIdx.x % (32 * SPLIT) != 0)
        return;
#if BIAS
    sum[0] += stored<BIAS - 1>::widen(bias[expert * OUT + row]);
#endif
    const float *const in[4] = {in0, in1, in2, in3};
    const size_t at = item * OUT + row;
    float a[4];
    take_outside<INPUTS>(in, item / USED, at, a);
    const float l0 = sum[0], l1 = sum[MATRICES - 1], a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3];
    out[at] = EXPRESSION;
}
