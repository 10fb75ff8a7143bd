/* What the kernels share that put the rows of one phase of the persistent kernel in stream order: those of one matrix, of several
 * one after the other, or of several interleaved (row i of each, then row i + 1 of each). */
#pragma once
#include "common.cuh"

#ifndef WARPS /* of persistent.cu that compute */
#define WARPS 14
#endif
#ifndef INTERLEAVED /* matrices whose rows take turns; 1: they follow each other */
#define INTERLEAVED 1
#endif
#ifndef OUT0 /* rows of each matrix, 0: there is none */
#define OUT0 896
#define OUT1 0
#define OUT2 0
#define OUT3 0
#endif
#ifndef SHARE /* which of SHARES shares of a block */
#define SHARE 0
#define SHARES 1
#endif
#ifndef PLACE /* bytes from the start of an iteration to the block's rows, of FIRST(share) and COUNT(share) */
#define PLACE FIRST(0) * 1792ull
#endif
#ifndef THREADS
#define THREADS 512
#endif

#ifndef OWNER /* the block of persistent.cu whose rows PLACE is about */
#define OWNER blockIdx.x
#endif
#define FIRST(share) (u64) shares[((size_t)(OWNER) * SHARES + (share)) * 2]
#define COUNT(share) (u64) shares[((size_t)(OWNER) * SHARES + (share)) * 2 + 1]

/* Which matrix has a row of the phase, and the row's number in it. */
struct matrix_row {
    int which, number;
};
__device__ __forceinline__ matrix_row find_row(int row) {
    constexpr int outs[4] = {OUT0, OUT1, OUT2, OUT3};
    if (INTERLEAVED > 1)
        return {row % INTERLEAVED, row / INTERLEAVED};
    int which = 0;
#pragma unroll
    for (int i = 0; i < 3; i++)
        if (which == i && row >= outs[i]) {
            row -= outs[i];
            which++;
        }
    return {which, row};
}
