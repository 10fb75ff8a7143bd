/* A phase of the persistent kernel for a kernel from outside that gives a device function (codegen/outside_phase.h): a block takes all
 * of each vector into shared memory, and its warps call the function for a piece of the result each. Blocks without a piece read
 * nothing. */
#pragma once
#include "persistent_vector.cuh"

#ifdef OUTSIDE_ROOM
/* One vector of n elements, by all threads that compute. */
struct gatherer {
    const consumer &c;
    const arguments &a;
    template <bool Clear> __device__ __forceinline__ void vector(int at, int n, int from, u32 parity) const {
        const float *source = polled(a, from);
#pragma unroll 1
        for (int e = c.thread; e - c.lane() < n / 4; e += THREADS) { /* whole warps poll */
            const int four = min(e, n / 4 - 1);
            const float *const p[] = {source + 4 * four};
            float4 v[1];
            poll4<Clear>(p, v, parity, c.wait);
            if (e < n / 4)
                *(float4 *)(c.s.outside + at + 4 * four) = v[0];
        }
    }
};

template <typename S> __device__ __forceinline__ void from_outside(const consumer &c, const arguments &a, int i) {
    const int PIECES = S::N / S::PIECE;
    if ((int)blockIdx.x >= PIECES)
        return;
    consumers_meet(); /* warps may still read what the phase before has left there */
    S::gather(i, c.s.now.epoch, gatherer{c, a});
    consumers_meet();
    float *out = c.s.outside + S::PIECES_AT + c.warp() * S::PIECE_ROOM;
#pragma unroll 1
    for (int piece = blockIdx.x + c.warp() * gridDim.x; piece < PIECES; piece += WARPS * gridDim.x) {
        S::compute(piece, c.lane(), c.s.outside, a.small + (size_t)i * S::SMALL_STEP, out, &c.s.now.token,
                   &c.s.now.position, a.ctx);
        __syncwarp();
        for (int e = c.lane(); e < S::PIECE; e += 32)
            put_element<S>(c, a, i, piece * S::PIECE + e, true, out[e]);
        __syncwarp();
    }
}
#endif
