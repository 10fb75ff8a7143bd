/* Phases of the persistent kernel without a matrix: what is left as a stage of its own where a pass has not fused it. Each block
 * takes consecutive elements of the result, or whole heads of it. Bound by the exchange. */
#pragma once
#include "persistent_attention.cuh"

/* The elements of this block. */
template <typename S> __device__ __forceinline__ rows slice_of() {
    int first = (int)((long long)S::N * blockIdx.x / gridDim.x),
        end = (int)((long long)S::N * (blockIdx.x + 1) / gridDim.x);
    return {first, end - first};
}

template <typename S>
__device__ __forceinline__ void put_element(const consumer &c, const arguments &a, int i, int index,
                                            bool there, float y) {
    if (!there)
        return;
    if (S::OUT >= 0)
        publish(exchanged(a, S::OUT) + index, COPY, y, S::parity(i, c.s.now.epoch));
    if (S::LOGITS)
        a.logits[index] = y;
}

template <typename S>
__device__ __forceinline__ void embedding(const consumer &c, const arguments &a, int i) {
    const rows mine = slice_of<S>();
    const embedded::elem *row = embedded::row(a.table, c.s.now.token, S::N);
    for (int e = c.thread; e < mine.n; e += THREADS)
        put_element<S>(c, a, i, mine.first + e, true, embedded::element(row, mine.first + e, S::N));
}

template <typename S>
__device__ __forceinline__ void pointwise(const consumer &c, const arguments &a, int i) {
    const rows mine = slice_of<S>();
    const u32 epoch = c.s.now.epoch;
    const carried none = {};
#pragma unroll 1
    for (int e = c.thread; e - c.lane() < mine.n; e += THREADS) { /* whole warps poll */
        const int index = mine.first + min(e, mine.n - 1);
        float y = S::result(
            outside_value<S::A0, S::A0_CLEAR>(c, a, none, S::a0_from(i), S::a0_parity(i, epoch), index),
            outside_value<S::A1, S::A1_CLEAR>(c, a, none, S::a1_from(i), S::a1_parity(i, epoch), index),
            outside_value<S::A2, S::A2_CLEAR>(c, a, none, S::a2_from(i), S::a2_parity(i, epoch), index),
            outside_value<S::A3, S::A3_CLEAR>(c, a, none, S::a3_from(i), S::a3_parity(i, epoch), index),
            outside_value<S::A4, S::A4_CLEAR>(c, a, none, S::a4_from(i), S::a4_parity(i, epoch), index),
            outside_value<S::A5, S::A5_CLEAR>(c, a, none, S::a5_from(i), S::a5_parity(i, epoch), index));
        put_element<S>(c, a, i, index, e < mine.n, y);
    }
}

/* What becomes of a normed element. */
template <typename S>
__device__ __forceinline__ float normed_element(const consumer &c, const arguments &a, int i, int index,
                                                float x) {
    const u32 epoch = c.s.now.epoch;
    const carried none = {};
    return S::result(
        x, outside_value<S::A0, S::A0_CLEAR>(c, a, none, S::a0_from(i), S::a0_parity(i, epoch), index),
        outside_value<S::A1, S::A1_CLEAR>(c, a, none, S::a1_from(i), S::a1_parity(i, epoch), index),
        outside_value<S::A2, S::A2_CLEAR>(c, a, none, S::a2_from(i), S::a2_parity(i, epoch), index),
        outside_value<S::A3, S::A3_CLEAR>(c, a, none, S::a3_from(i), S::a3_parity(i, epoch), index));
}

/* A norm over all of a vector, which every block has to read, and pointwise ops after it. What can be had before the last of the
 * vector is there is taken before. */
template <typename S> __device__ __forceinline__ void whole_norm(consumer &c, const arguments &a, int i) {
    const rows mine = slice_of<S>();
    if (mine.n == 0)
        return;
    const u32 epoch = c.s.now.epoch, parity = S::x_parity(i, epoch);
    float *squares = c.s.squares[S::squares(i)];
    const float *weights = a.small + (size_t)i * S::SMALL_STEP + S::NORM_AT, *from = polled(a, S::x_from(i));
    const carried none = {};
    const int own = mine.first + min((int)c.thread, mine.n - 1);
    const float *biases = a.small + (size_t)i * S::SMALL_STEP + S::BIAS_AT;
    const float weight = weights[own], bias = S::BIAS ? biases[own] : 0.0f;
    float outside[4] = {}, x = 0.0f;
    if (c.warp() * 32 < mine.n) { /* whole warps poll */
        outside[0] =
            outside_value<S::A0, S::A0_CLEAR>(c, a, none, S::a0_from(i), S::a0_parity(i, epoch), own);
        outside[1] =
            outside_value<S::A1, S::A1_CLEAR>(c, a, none, S::a1_from(i), S::a1_parity(i, epoch), own);
        outside[2] =
            outside_value<S::A2, S::A2_CLEAR>(c, a, none, S::a2_from(i), S::a2_parity(i, epoch), own);
        outside[3] =
            outside_value<S::A3, S::A3_CLEAR>(c, a, none, S::a3_from(i), S::a3_parity(i, epoch), own);
    }
    float mean = 0.0f;
    if constexpr (S::CENTRED != 0) { /* its sums have a place of their own: all have read them when they meet below */
        x = put_whole_sums<S::N, S::X_CLEAR>(c, from, parity, c.s.squares[2], own, [](float x) { return x; });
        consumers_meet();
        mean = total_of(c.s.squares[2]) * (1.0f / S::N);
        put_whole_sums<S::N, S::X_CLEAR>(c, from, parity, squares, 0, [=](float x) { return (x - mean) * (x - mean); });
    } else
        x = put_whole_squares<S::N, S::X_CLEAR>(c, from, parity, squares, own);
    consumers_meet();
    const float scale = rsqrtf(total_of(squares) * (1.0f / S::N) + S::eps());
    put_element<S>(c, a, i, own, (int)c.thread < mine.n,
                   S::result((x - mean) * scale * weight + bias, outside[0], outside[1], outside[2], outside[3]));
#pragma unroll 1
    for (int e = c.thread + THREADS; e - c.lane() < mine.n; e += THREADS) {
        const int index = mine.first + min(e, mine.n - 1);
        x = (poll_one<S::X_CLEAR>(from + index, parity, c.wait) - mean) * scale * weights[index];
        if (S::BIAS)
            x += biases[index];
        put_element<S>(c, a, i, index, e < mine.n, normed_element<S>(c, a, i, index, x));
    }
}

/* Norm and rope of heads, a warp a head. */
template <typename S> __device__ __forceinline__ void heads(const consumer &c, const arguments &a, int i) {
    const u32 epoch = c.s.now.epoch, parity = S::parity(i, epoch);
#pragma unroll 1
    for (int head = blockIdx.x + c.warp() * gridDim.x; head < S::N / S::HEAD_DIM; head += WARPS * gridDim.x) {
        const half_head<pairs_of<S>> h = take_head < S::HEADS_NORM ? HEAD_NORM : NO_NORM, pairs_of<S>,
                                     S::X_CLEAR > (c, polled(a, S::x_from(i)) + head * S::HEAD_DIM,
                                                   S::x_parity(i, epoch),
                                                   a.small + (size_t)i * S::SMALL_STEP + S::NORM_AT, S::eps(),
                                                   nullptr, 0, S::rope(i));
#pragma unroll
        for (int j = 0; j < h.LOADS; j++)
            if (h.counts(c.lane(), j)) {
                float *to = exchanged(a, S::OUT) + head * S::HEAD_DIM;
                publish(to + h.element(c.lane(), j, 0), COPY, h.x[j].x, parity);
                publish(to + h.element(c.lane(), j, 1), COPY, h.x[j].y, parity);
            }
    }
}
