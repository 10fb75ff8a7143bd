/* out[t, r] = EXPRESSION of l0, l1, ... and a0, a1, ...: l is row r of each matrix times x[t, :] (normalized if NORM),
 * plus its bias; a is element r of outside values, or their only one (ONE_A_ROW). Plain: l0. With a residual: op_add(a0, l0). A gated MLP's first half:
 * op_mul(op_silu(l0), l1). Matrices are [OUT, IN], row-major.
 *
 * With ROUTE the rows are the scores of experts: the last block of a token to come chooses some (route.cuh), and the normalized vector is
 * left as well, for the experts.
 *
 * Grid: x = OUT / (rows of a block), y = tokens. Reads MATRICES * IN * OUT weights a token and is bound by that. */
#include "pointwise.cuh"
#include "rows.cuh"
#include "sample.cuh"

#ifndef OUT
#define OUT 896
#endif
#ifndef MATRICES
#define MATRICES 1
#endif
#ifndef BIAS
#define BIAS 0
#endif
#ifndef INPUTS /* outside values */
#define INPUTS 0
#endif
#ifndef EXPRESSION
#define EXPRESSION l0
#endif
#ifndef ROWS /* a warp takes at once, of each matrix */
#define ROWS 1
#endif
#ifndef LARGEST /* 1: the largest result of each block, after the repetition penalty, goes to parts (sample_part.cu) */
#define LARGEST 0
#endif

#ifndef ROUTE /* 1: experts are chosen, of which OUT are there; 2: by scores to which a bias is added */
#define ROUTE 0
#endif

#if ROUTE
#define EXPERTS OUT
#include "last.cuh"
#include "route.cuh"
#define ROUTE_PARAMETERS , float *normed, const float *choice_bias, i32 *ids, float *shares, u32 *counts
#else
#define ROUTE_PARAMETERS
#endif
#if LARGEST
#define LARGEST_PARAMETERS , const i32 *seen, const sampling *settings, float *parts
#else
#define LARGEST_PARAMETERS
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
    linear(float *x, const float *norm, const stored<WEIGHT0>::elem *w0, const stored<WEIGHT1>::elem *w1,
           const stored<WEIGHT2>::elem *w2, const stored<WEIGHT3>::elem *w3, const float *b0, const float *b1, const float *b2, const float *b3,
           const float *in0, const float *in1, const float *in2, const float *in3, float *out EMBED_PARAMETERS LARGEST_PARAMETERS
               ROUTE_PARAMETERS) {
    const float *const bias[4] = {b0, b1, b2, b3};
    const float *const in[4] = {in0, in1, in2, in3};
    int first = (blockIdx.x * GROUPS + threadIdx.x / 32 / SPLIT) * ROWS;
    size_t token = blockIdx.y;

    float sum[MATRICES * ROWS];
#if MIXED
    const void *const matrix[4] = {w0, w1, w2, w3};
#else
    const weights::elem *const matrix[4] = {w0, w1, w2, w3};
    const weights::elem *row[MATRICES * ROWS];
#pragma unroll
    for (int m = 0; m < MATRICES; m++)
#pragma unroll
        for (int r = 0; r < ROWS; r++) /* rows after the last are read as the last, and their sums are dropped */
            row[m * ROWS + r] = weights::row(matrix[m], min(first + r, OUT - 1), IN);
    early_rows<MATRICES * ROWS> early;
    early.load(row);
#endif
    wait_for_previous();
    let_next_start();
    const vector v = load_vector(x, token, norm EMBED_ARGUMENTS);
#if MIXED
    int number[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) /* as above */
        number[r] = min(first + r, OUT - 1);
#pragma unroll
    for (int m = 0; m < MATRICES; m++)
        mixed_dots<ROWS>(v, m, matrix[m], number, sum + m * ROWS);
    meet_dots<MATRICES * ROWS>(v, sum);
#else
    dot_rows<MATRICES * ROWS>(v, early, row, sum);
#endif

#if LARGEST
    float largest = NOT_A_NUMBER; /* fmaxf skips it */
    const float penalty = settings->repeat_penalty;
#endif
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (threadIdx.x % (32 * SPLIT) != 0 || first + r >= OUT)
            break;
        float l[4], a[4];
#pragma unroll
        for (int m = 0; m < 4; m++)
            l[m] = m < MATRICES ? sum[min(m, MATRICES - 1) * ROWS + r] + (BIAS ? bias[m][first + r] : 0.0f) : 0.0f;
        take_outside<INPUTS>(in, token, token * OUT + first + r, a);
        float l0 = l[0], l1 = l[1], l2 = l[2], l3 = l[3], a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3];
        float result = EXPRESSION;
        out[token * OUT + first + r] = result;
#if LARGEST
        largest = fmaxf(largest, penalised(result, seen, first + r, penalty));
#endif
    }
#if LARGEST
    largest = block_max<WARPS>(largest);
    if (threadIdx.x == 0)
        parts[token * gridDim.x + blockIdx.x] = largest;
#endif
#if ROUTE
    for (int i = threadIdx.x; blockIdx.x == 0 && i < IN; i += THREADS)
        normed[token * IN + i] = v.x[i] * v.scale;
    if (last_to_come(&counts[token], gridDim.x))
        route_token<THREADS, ROUTE == 2>(out + token * OUT, choice_bias, ids + token * USED, shares + token * USED);
#endif
}
