/* In which row of a cache a position is. KEPT is 0, or a cache is a ring: of its rows, at most KEPT, position p has row p % rows, and the
 * kernels that are for it read fewer positions at once than there are rows. */
#pragma once
#include "common.cuh"

#ifndef KEPT
#define KEPT 0
#endif

/* Rows of each head, in a session with room for `ctx` positions. */
__device__ __forceinline__ i32 kept_rows(i32 ctx, i32 most = KEPT) { return most ? min(ctx, most) : ctx; }

/* The row of one position. */
__device__ __forceinline__ i32 kept_row(i32 position, i32 ctx, i32 most = KEPT) {
    return most ? position % kept_rows(ctx, most) : position;
}

/* Those from position `begin` on, fewer than a ring has rows: one division for all of them. Rings: is the cache one, or may it be? */
template <bool Rings = KEPT != 0> struct kept {
    i32 rows, lap;

    __device__ __forceinline__ kept(i32 begin, i32 ctx, i32 most = KEPT) : rows(kept_rows(ctx, most)), lap(0) {
        if (Rings)
            lap = begin / rows * rows;
    }
    __device__ __forceinline__ i32 row(i32 position) const {
        if (!Rings)
            return position;
        const i32 at = position - lap;
        return at < rows ? at : at - rows;
    }
    /* How many of `n` positions from there on have rows one after the other. */
    __device__ __forceinline__ i32 together(i32 position, i32 n) const { return Rings ? min(n, rows - row(position)) : n; }
};
