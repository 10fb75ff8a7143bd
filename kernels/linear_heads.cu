/* Several products of one vector (normalized if NORM), and for each, as its matrix asks: rotary position embedding of
 * its rows (turn.cuh), and the result stored, or put into a cache at the token's position (see
 * append.cu). Queries, keys and values of attention in one kernel.
 *
 * A warp takes a pair of rows: two that are rotated together, such as i and i + HEAD_DIM / 2 of a head, else neighbours.
 *
 * Grid: x = pairs of all matrices / (pairs of a block), y = tokens. Reads all weights once and is bound by that. */
#include "heads.cuh"

template <int Out, int Rope, int Cache>
__device__ __forceinline__ void finish(const matrix &m, const two_rows &at, float a, float b, size_t token,
                                       i32 position, i32 ctx, const float2 *table) {
    if (BIAS) {
        a += m.bias[at.first];
        b += m.bias[at.second];
    }
    put_pair<Out, Rope, Cache>(m, at, a, b, token, position, ctx, table);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_heads(float *x, const float *norm, const stored<WEIGHT0>::elem *w0, const stored<WEIGHT1>::elem *w1,
                 const stored<WEIGHT2>::elem *w2, const stored<WEIGHT3>::elem *w3, const float *b0, const float *b1, const float *b2,
                 const float *b3, const i32 *positions, const float2 *table, void *out0, void *out1, void *out2,
                 void *out3, i32 ctx EMBED_PARAMETERS) {
    constexpr int outs[] = {OUT0, OUT1, OUT2, OUT3}, ropes[] = {ROPE0, ROPE1, ROPE2, ROPE3};
    const matrix matrices[4] = {{w0, b0, out0}, {w1, b1, out1}, {w2, b2, out2}, {w3, b3, out3}};
    int pair = blockIdx.x * GROUPS + threadIdx.x / 32 / SPLIT;
    size_t token = blockIdx.y;

    int which = 0;
    matrix m = matrices[0];
    int rope = ropes[0], out = outs[0];
#pragma unroll
    for (int i = 1; i < MATRICES; i++)
        if (which == i - 1 && pair >= outs[i - 1] / 2) {
            pair -= outs[i - 1] / 2;
            which = i;
            m = matrices[i];
            rope = ropes[i];
            out = outs[i];
        }
    bool here = pair < out / 2; /* the last block may have pairs past the end; their sums are dropped */
    pair = min(pair, out / 2 - 1);
    two_rows at = {2 * pair, 2 * pair + 1, 0};
    if (rope) {
        const int head = pair / (HEAD_DIM / 2) * HEAD_DIM, in_head = pair % (HEAD_DIM / 2);
        at = {head + pairs::element(in_head, 0), head + pairs::element(in_head, 1), in_head};
    }

    float sum[2];
#if !MIXED
    const weights::elem *const matrix_rows = (const weights::elem *)m.weight;
    const weights::elem *rows[2] = {weights::row(matrix_rows, at.first, IN), weights::row(matrix_rows, at.second, IN)};
    early_rows<2> early;
    early.load(rows);
#endif
    wait_for_previous();
    let_next_start();
    const vector v = load_vector(x, token, norm EMBED_ARGUMENTS);
#if MIXED
    const int number[2] = {at.first, at.second};
    mixed_dots<2>(v, which, m.weight, number, sum);
    meet_dots<2>(v, sum);
#else
    dot_rows<2>(v, early, rows, sum);
#endif
    if (!here || threadIdx.x % (32 * SPLIT) != 0)
        return;

    i32 position = positions[token];
    if (which == 0)
        finish<OUT0, ROPE0, CACHE0>(m, at, sum[0], sum[1], token, position, ctx, table);
    else if (which == 1)
        finish<OUT1, ROPE1, CACHE1>(m, at, sum[0], sum[1], token, position, ctx, table);
    else if (which == 2)
        finish<OUT2, ROPE2, CACHE2>(m, at, sum[0], sum[1], token, position, ctx, table);
    else
        finish<OUT3, ROPE3, CACHE3>(m, at, sum[0], sum[1], token, position, ctx, table);
}
