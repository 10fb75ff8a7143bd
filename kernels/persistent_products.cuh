/* A phase of products: it takes its vector, multiplies the block's rows with it (persistent_product.cuh, persistent_blocks.cuh), and
 * finishes each row with what the stage does to it. */
#pragma once
#include "persistent_blocks.cuh"

/* A logit of each lane of a warp, `id` that of this one. The token of the step counts as seen, though another block may not
 * have marked it yet. */
__device__ __forceinline__ void put_logits(const arguments &a, const step &now, i32 id, bool there, float logit) {
    if (there)
        a.logits[id] = logit;
    if (LARGEST) {
        float l = there ? penalised(logit, a.seen, id, now.penalty, MARK ? now.token : -1) : NOT_A_NUMBER;
        l = warp_max(l);
        if (id % 32 == 0)
            a.parts[id / 32] = l;
    }
}

/* A value from outside of the phase for row `index` of the result. */
template <int From, bool Clear>
__device__ __forceinline__ float outside_value(const consumer &c, const arguments &a, const carried &k, int vector, u32 parity,
                                               int index) {
    if constexpr (From == POLLED || From == POLLED_ONE)
        return poll_one<Clear>(polled(a, vector) + (From == POLLED ? index : 0), parity, c.wait);
    return From == CARRIED ? k.value : 0.0f;
}

/* Whole warps call it, with a thread for each row of the block, whose rows are `mine`: the sum of a row, which is normalized here if x is by
 * its `squares`, to what becomes of it. Every token waits for it, so that what it needs is in registers. */
template <typename S>
__device__ __forceinline__ void finish_row(consumer &c, const arguments &a, carried &k, int i, const rows &mine, u32 epoch,
                                           const float *squares, int row, bool there, float sum, float bias) {
    if constexpr (S::NORM)
        sum *= rsqrtf(total_of(squares) * (1.0f / S::K) + S::eps());
    if constexpr (S::BIAS)
        sum += bias;
    const int at = mine.first + min(row, mine.n - 1), index = at / S::MATRICES;
    float l[4] = {sum, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int m = 1; m < S::MATRICES; m++)
        l[m] = __shfl_down_sync(0xFFFFFFFFu, sum, m);
    float y = S::result(
        l[0], l[1], l[2], l[3],
        outside_value<S::A0, S::A0_CLEAR>(c, a, k, S::a0_from(i), S::a0_parity(i, epoch), index),
        outside_value<S::A1, S::A1_CLEAR>(c, a, k, S::a1_from(i), S::a1_parity(i, epoch), index),
        outside_value<S::A2, S::A2_CLEAR>(c, a, k, S::a2_from(i), S::a2_parity(i, epoch), index),
        outside_value<S::A3, S::A3_CLEAR>(c, a, k, S::a3_from(i), S::a3_parity(i, epoch), index));
    if (S::CARRIES)
        k.value = y;
    if (S::OUT >= 0 && there && row % S::MATRICES == 0)
        publish(exchanged(a, S::OUT) + index, COPY, y, S::parity(i, epoch));
    if constexpr (S::LOGITS)
        put_logits(a, c.s.now, mine.first + row, there, y);
}

/* How the rows of a phase are multiplied, by what they are stored as. */
template <typename S, bool Blocks = (S::WEIGHT > BF16)> struct products_of {
    typedef operand<S::K, S::WEIGHT> operand_of;
    /* Where phases are short x may be there when the last tiles that are held have been taken. */
    enum { ASKS_EARLY = PREPARED > 1 && held<S::K, S::ROWS>::IN_TURNS };
    held<S::K, S::ROWS> h;
    template <typename BeforeLast> __device__ __forceinline__ void load(consumer &c, int n, BeforeLast before_last) {
        h.load(c, n, before_last);
    }
    template <typename Meanwhile, typename Finish>
    __device__ __forceinline__ void multiply(consumer &c, const operand_of &x, int n, const carried &k, Meanwhile meanwhile, Finish finish) {
        multiply_tiles<S>(c, h, x, n, k, meanwhile, finish);
    }
};
template <typename S> struct products_of<S, true> {
    static constexpr form FORM = form_of<S>();
    typedef typename choose_phase_operand<S::K, S::X_IN_LOOP != 0, S::X_CLEAR != 0, FORM>::type operand_of;
    enum { ASKS_EARLY = 0 };
    held_blocks<S::WEIGHT, S::K, S::TILES, FORM> h;
    template <typename BeforeLast> __device__ __forceinline__ void load(consumer &c, int n, BeforeLast) { h.load(c, n); }
    template <typename Meanwhile, typename Finish>
    __device__ __forceinline__ void multiply(consumer &c, operand_of &x, int n, const carried &k, Meanwhile meanwhile, Finish finish) {
        multiply_blocks<S>(c, h, x, n, k, meanwhile, finish);
    }
};

/* Does S take tiles of the next phase while it waits for x? */
template <typename S> __device__ constexpr bool prepares() {
    if constexpr (S::PREPARES != 0)
        return prepared<typename S::next>::N > 0;
    return false;
}

/* The phase. `i`: the iteration. */
template <typename S>
__device__ __forceinline__ void products(consumer &c, const arguments &a, carried &k, int i) {
    typedef typename products_of<S>::operand_of operand_of;
    const rows mine = c.s.now.mine[S::SHARE];
    const u32 epoch = c.s.now.epoch;
    const float *small = a.small + (size_t)i * S::SMALL_STEP;
    if constexpr (S::NORM_LOADED) /* nobody has loaded them ahead */
        k.norm[S::NORM_SLOT].template load<S::K>(c, small + S::NORM_AT);
    if constexpr (S::AHEAD_SLOT >= 0)
        k.norm[S::AHEAD_SLOT].template load<S::AHEAD_K>(c, a.small + S::AHEAD_AT + (size_t)i * S::SMALL_STEP);
    if (mine.n == 0) {
        if constexpr (prepares<S>())
            prepare<typename S::next>(c, k, false, [] { return true; });
        return;
    }
    auto bias_of = [&](int row) { /* those of each matrix lie together */
        const int at = mine.first + row;
        return small[S::BIAS_AT + (S::MATRICES == 1 ? at : at % S::MATRICES * (S::ROWS / S::MATRICES) + at / S::MATRICES)];
    };
    float bias = S::BIAS && c.thread < (u32)mine.n ? bias_of((int)c.thread) : 0.0f;
    const float *from = polled(a, S::x_from(i));
    const u32 parity = S::x_parity(i, epoch);
    products_of<S> product;
    first_loads<S::K, operand_of::AT_ONCE> early;
    constexpr bool PREPARES = prepares<S>(), BEFORE_LAST = !PREPARES && product.ASKS_EARLY,
                   EARLY = PREPARES || BEFORE_LAST;
    product.load(c, mine.n - rows_ahead<S>(k), [&] {
        if constexpr (BEFORE_LAST)
            early.ask_early(c, from);
    });
    if constexpr (PREPARES) {
        early.ask_early(c, from);
        prepare<typename S::next>(c, k, product.h.are_all(mine.n), [&] { return early.are_there(c, parity); });
    }
    float *squares = c.s.squares[S::NORM ? S::squares(i) : 0];
    auto finish = [&](int row, bool there, float sum) {
        if (S::BIAS && (row >= THREADS || mine.n > BATCH)) /* more rows than the threads that have a bias */
            bias = there ? bias_of(row) : 0.0f;
        finish_row<S>(c, a, k, i, mine, epoch, squares, row, there, sum, bias);
    };
    if constexpr (S::NORM) {
        const norm_weights &norm = k.norm[S::NORM_SLOT];
        normed<S::K, operand_of> n(c);
        if (S::embeds(i)) {
            const embedded::elem *row = embedded::row(a.table, c.s.now.token, S::K);
#pragma unroll
            for (int j = 0; j < elements<S::K>::LOADS; j++)
                if (elements<S::K>::here(c, 0))
                    n.add(c, j, embedded::four_elements(row, elements<S::K>::first(c, j), S::K), norm);
        } else
            take<S::K, S::X_CLEAR, operand_of::AT_ONCE>(
                c, from, parity, [&](int j, const float4 &v) { n.add(c, j, v, norm); }, early, EARLY);
        n.x.finish(c);
        product.multiply(c, n.x, mine.n, k, [&] { put_squares<S::K>(c, squares, n.squares); }, finish);
    } else {
        operand_of x(c);
        if constexpr (S::X_IN_LOOP != 0)
            x.take_from(c, from, parity);
        else {
            take<S::K, S::X_CLEAR, operand_of::AT_ONCE>(
                c, from, parity, [&](int j, const float4 &v) { x.set(c, j, v); }, early, EARLY);
            x.finish(c);
        }
        product.multiply(c, x, mine.n, k, [] {}, finish);
    }
}
