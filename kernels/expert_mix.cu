/* out[t, r] = EXPRESSION of l0 and a0, a1, ...: l0 is the sum over the USED experts k of token t of shares[t, k] times row r of matrix
 * ids[t, k] of EXPERTS times x[t, k, :], or x[t, :] where all have the same (not EACH); a is an element of an outside value, or its only
 * one of the token (ONE_A_ROW). Matrices are [OUT, IN], one after the other. WAYS warps share a row: each has USED / WAYS of its experts.
 *
 * Grid: x = OUT / (rows of a block), y = tokens. Reads USED * IN * OUT weights a token and is bound by that. The beginnings of rows are on
 * their way before x is there, so ids have to be there when the kernel starts. */
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
#define EACH 1
#endif
#ifndef WAYS
#define WAYS 1
#endif
#ifndef INPUTS /* outside values */
#define INPUTS 0
#endif
#ifndef EXPRESSION
#define EXPRESSION l0
#endif

enum { MINE = USED / WAYS, ROWS_OF_BLOCK = WARPS / WAYS };
static_assert(WARPS % WAYS == 0 && USED % WAYS == 0, "shape");

/* What a lane has of the dot product of one of the rows whose beginnings were loaded. */
__device__ __forceinline__ float dot_of(const vector &v, const early_rows<MINE> &early, int which, const weights::elem *row) {
    enum { HERE = early_rows<MINE>::HERE };
    weights::loaded loaded[HERE > 0 ? (int)HERE : 1][1];
#pragma unroll
    for (int t = 0; t < HERE; t++)
        loaded[t][0] = early.turn[t][which];
    float sum[1];
    lane_dots<1, weights, HERE>(v, loaded, &row, sum);
    return sum[0];
}

extern "C" __global__ void __launch_bounds__(THREADS)
    expert_mix(const float *x, const weights::elem *matrices, const i32 *ids, const float *shares, const float *in0, const float *in1,
               const float *in2, const float *in3, float *out) {
    const int way = threadIdx.x / 32 % WAYS, row = blockIdx.x * ROWS_OF_BLOCK + threadIdx.x / 32 / WAYS;
    const size_t token = blockIdx.y, first = token * USED + way * MINE;
    const weights::elem *rows[MINE];
#pragma unroll
    for (int m = 0; m < MINE; m++) /* as in expert_linear.cu */
        rows[m] = weights::row(matrices, (size_t)min((u32)ids[first + m], EXPERTS - 1u) * OUT + min(row, OUT - 1), IN);
    early_rows<MINE> early;
    early.load(rows);
    wait_for_previous();
    let_next_start();

    float sum[1] = {0.0f};
#pragma unroll
    for (int m = 0; m < MINE; m++)
        sum[0] = fmaf(shares[first + m], dot_of({x + (EACH ? first + m : token) * IN, 1.0f}, early, m, rows[m]), sum[0]);
    sum[0] = warp_sum(sum[0]);
#if WAYS > 1 /* added in the order of the warps */
    __shared__ float partial[ROWS_OF_BLOCK][WAYS];
    if (threadIdx.x % 32 == 0)
        partial[threadIdx.x / 32 / WAYS][way] = sum[0];
    __syncthreads();
    sum[0] = 0.0f;
#pragma unroll
    for (int w = 0; w < WAYS; w++)
        sum[0] += partial[threadIdx.x / 32 / WAYS][w];
#endif
    if (row >= OUT || threadIdx.x % (32 * WAYS) != 0)
        return;
    const float *const in[4] = {in0, in1, in2, in3};
    float a[4];
    take_outside<INPUTS>(in, token, token * OUT + row, a);
    const float l0 = sum[0], a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3];
    out[token * OUT + row] = EXPRESSION;
}
