/* What becomes of the sums of packed_gemm.cu. */
#pragma once
#include "packed_items.cuh"
#include "ptx.cuh"

/* The place of a lane's rows in the results. */
struct lane_units {
    int first, second; /* units; one and the same where a unit has two rows */
};

/* One result of a lane for each token: of a unit, or of a row as it is where blocks share rows. */
struct column {
    float *out; /* of the first token; NULL: it is not there */
    size_t width;
    float bias[2]; /* of l0 and l1 */
};

__device__ __forceinline__ column column_of(const results &r, int unit, u32 rows) {
    column c = {};
    if (unit >= UNITS)
        return c;
    if (FUSED) {
        c = {r.out[0] + unit, UNITS,
             {BIASES & 1 ? r.bias[0][unit] : 0.0f, BIASES & 2 ? r.bias[1][unit] : 0.0f}};
        return c;
    }
    const matrix_row m = find_row(unit);
    constexpr int outs[4] = {OUT0, OUT1, OUT2, OUT3};
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (outs[i] > 0 && m.which == i)
            c = {r.out[i] + m.number, (size_t)outs[i], {BIASES >> i & 1 ? r.bias[i][m.number] : 0.0f, 0.0f}};
    return c;
}

/* Where blocks share rows: row `row` of this block's part. */
__device__ __forceinline__ column part_of(const results &r, int row, u32 rows, int part) {
    column c = {};
    if (row < ROWS)
        c = {r.out[0] + (size_t)part * rows * ROWS + row, ROWS, {}};
    return c;
}

__device__ __forceinline__ float result_of(const column &c, float l0, float l1, float a0) {
    if (SPLIT > 1)
        return l0;
    l0 += c.bias[0], l1 += c.bias[1];
    return EXPRESSION;
}

/* Results of a unit for two tokens as bf16, in the order of operand.cuh: lanes of units side by side put both of one token. */
__device__ __forceinline__ void put_operand(u8 *to, u32 all, int unit, u32 token, u32 tokens, float first, float second) {
    const bool odd = unit % 2;
    const float theirs = __shfl_xor_sync(0xFFFFFFFFu, odd ? first : second, 4);
    const u32 two = odd ? two_bf16(theirs, second) : two_bf16(first, theirs);
    const u32 at = unit / 2 * 2 % 64, chunk = at / 16 * 2 + at % 4 / 2;
    token += odd;
    if (unit < UNITS && token < tokens)
        *(u32 *)(to + ((size_t)(unit / 64) * all + token) * 128 + (chunk ^ token % 8) * 16 + at % 16 / 4 * 4) = two;
}

/* Values from outside are loaded for some tokens before the results of these are put down. */
template <int Span>
__device__ __forceinline__ void put(const sums<Span> &sum, lane_units u, const results &r, const item &it, u32 tokens) {
    enum { COLUMNS = SPLIT > 1 || IN_UNIT == 1 ? 2 : 1, ROWS_OF_TWO = 2 - TWO, AT_ONCE = 4 };
    const u32 rows = tokens / (1 + TWO);
    const int unit[2] = {u.first, u.second};
    column c[COLUMNS];
#pragma unroll
    for (int i = 0; i < COLUMNS; i++)
        c[i] = SPLIT > 1 ? part_of(r, unit[i] * IN_UNIT + (IN_UNIT == 2 ? i : 0), rows, it.part) : column_of(r, unit[i], rows);
    const u32 first = it.token + threadIdx.x % 4 * 2;
#pragma unroll
    for (int batch = 0; batch < Span / 8; batch += AT_ONCE) {
        float a0[AT_ONCE][ROWS_OF_TWO][COLUMNS] = {};
#pragma unroll
        for (int n = 0; n < AT_ONCE * ROWS_OF_TWO * COLUMNS; n++) {
            const int j = n / COLUMNS / ROWS_OF_TWO, t = n / COLUMNS % ROWS_OF_TWO, i = n % COLUMNS;
            const u32 row = (first + 8 * (batch + j) + t) / (1 + TWO);
            if (SPLIT == 1 && OUTSIDE && unit[i] < UNITS && row < rows)
                a0[j][t][i] = r.outside[(size_t)row * UNITS + unit[i]];
        }
#pragma unroll
        for (int n = 0; n < AT_ONCE * COLUMNS; n++) {
            const int j = n / COLUMNS, i = n % COLUMNS;
            const float *d = sum.d[batch + j];
            const u32 token = first + 8 * (batch + j);
            float y[ROWS_OF_TWO];
#pragma unroll
            for (int t = 0; t < ROWS_OF_TWO; t++) {
                const float one = TWO ? d[0] + d[1] : d[t], other = TWO ? d[2] + d[3] : d[2 + t];
                y[t] = result_of(c[i], i ? other : one, other, a0[j][t][i]);
            }
#if TO_OPERAND
            put_operand((u8 *)r.out[0], (tokens + 7) / 8 * 8, unit[i], token, tokens, y[0], y[ROWS_OF_TWO - 1]);
#else
#pragma unroll
            for (int t = 0; t < ROWS_OF_TWO; t++)
                if (c[i].out && (token + t) / (1 + TWO) < rows)
                    c[i].out[(size_t)((token + t) / (1 + TWO)) * c[i].width] = y[t];
#endif
        }
    }
}

/* The rows of the lane in an item. */
__device__ __forceinline__ lane_units units_of(const item &it) {
    const int lane = threadIdx.x % 32, first = it.first_row / IN_UNIT + (int)threadIdx.x / 32 * (16 / IN_UNIT);
    return {first + lane / 4, IN_UNIT == 2 ? first + lane / 4 : first + 8 + lane / 4};
}
