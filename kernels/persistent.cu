/* Most of a decode step in one kernel, from the token to the logits: one block on each multiprocessor, resident at the same time
 * (cooperative launch). The step is bound by reading the weights, so one warp of each block does nothing but that: it streams
 * the block's rows of all phases, in their order, through shared memory, and never waits for an activation. The other warps
 * compute as the tiles come in. Activations go from block to block through the L2 cache (exchange.cuh).
 *
 * Which phases there are, in which loops, with which numbers, is in program.cuh: codegen/persistent/ writes it from the stages of
 * a graph. The one beside this file is that of Qwen2.5-0.5B. Products are in persistent_product.cuh, attention in
 * persistent_attention.cuh, what has no matrix in persistent_vector.cuh, and what they share in persistent_step.cuh.
 *
 * Rows lie in the stream in tiles of 8 (the last of a share may have fewer), a tile in chunks of CHUNK elements of K, a chunk in
 * blocks of 32 elements: [block][row][32]. So 16 bytes for each lane of a warp are one operand of an MMA instruction, and the 512
 * bytes of a warp's load are consecutive: no bank conflict. The eight elements of lane q of the four that have a row are 4q .. 4q+3 and
 * 16+4q .. 16+4q+3 of the block, in the order in which registers of an operand take them: two of the former, two of the latter, and
 * again. pack.cu writes that. Block formats: stream_blocks.cuh.
 *
 * Grid: x = multiprocessors. Weights and caches are read once; bound by that, and by the chain of exchanges. */
#include "persistent_outside.cuh"

/* --- producer -------------------------------------------------------------------------------------------- */

/* All tiles of `n` rows of K elements. */
template <int K, typename Producer>
__device__ __forceinline__ void put_rows(Producer &p, const u8 *from, int n) {
#pragma unroll 1
    for (; n > 0; n -= TILE)
#pragma unroll 1
        for (int k = 0; k < K; k += CHUNK) {
            u32 bytes = min(n, (int)TILE) * min((int)CHUNK, K - k) * 2;
            p.put(from, bytes);
            from += bytes;
        }
}

/* The same of a block format. */
template <int Type, int K, int Usual, typename Producer>
__device__ __forceinline__ void put_blocks(Producer &p, const u8 *from, int n) {
    typedef stream_of<Type, K, WARPS, Usual> s;
    const int GROUP = s::group() * TILE;
#pragma unroll 1
    for (; n > 0; n -= GROUP)
#pragma unroll 1
        for (int chunk = 0; chunk < s::CHUNKS; chunk++) {
            u32 bytes = min(n, GROUP) * s::row_bytes(chunk == s::CHUNKS - 1);
            p.put(from, bytes);
            from += bytes;
        }
}

/* Keys and values of this block's positions, tile by tile. The first keeps a row for the token itself, which its block puts
 * there. */
template <typename S, typename Producer>
__device__ __forceinline__ void put_cache(Producer &p, const shared &s, const arguments &a, int i) {
    const splits cut = s.now.cut[S::cut(i)];
    if (cut.unit >= tile_of<S>::UNITS)
        return;
    const int SPAN = tile_of<S>::SPAN, position = s.now.position, kv = cut.unit / tile_of<S>::ROUNDS;
    const int begin = first_seen<S>(i, position) + cut.split * cut.span,
              end = min(position, begin + cut.span); /* of what is in the cache */
    const bool last = begin + cut.span > position;
    const u64 *caches = a.caches + S::CACHES_AT + S::CACHES_STEP * i;
    const kept<S::RINGS> cache(begin, a.ctx, S::ring(i));
#pragma unroll 1
    for (int at = begin, room = SPAN - last; at < end || (last && at == begin); at += room, room = SPAN) {
        room = cache.together(at, room);
        u32 bytes = min(room, end - at) * S::HEAD_DIM * 2;
        size_t offset = ((size_t)kv * cache.rows + cache.row(at)) * S::HEAD_DIM * 2;
        p.put((const u8 *)caches[0] + offset, bytes);
        p.put((const u8 *)caches[1] + offset, bytes);
    }
}

__device__ __forceinline__ void produce(shared &s, const arguments &a) {
    const u32 usual = s.now.cut[0].n > 1 ? MERGE_DEPTH : DEPTH;
    producer<SLOTS, SLOT, COPYING, BY_LOADS> p = {s.tiles, usual};
    p.lane = threadIdx.x - THREADS;
    program::each([&](auto phase, int i) {
        typedef decltype(phase) S;
        p.stays = S::DOES == DO_ATTENTION;
        if constexpr (S::DOES == DO_PRODUCTS) {
            p.depth = S::LOGITS ? (u32)HEAD_DEPTH : usual;
            const rows mine = s.now.mine[S::SHARE];
            const u8 *from = a.stream + S::at(i, s.now.mine);
            p.comes(from, S::rest(s.now.mine));
            with_kind<S>(i, [&](auto kind) {
                constexpr int WEIGHT = decltype(kind)::WEIGHT;
                if constexpr (WEIGHT > BF16)
                    put_blocks<WEIGHT, S::K, S::TILES>(p, from, mine.n);
                else
                    put_rows<S::K>(p, from, mine.n);
            });
        } else if constexpr (S::DOES == DO_ATTENTION)
            put_cache<S>(p, s, a, i);
    });
}

/* --- consumers ------------------------------------------------------------------------------------------- */

template <typename S>
__device__ __forceinline__ void run(consumer &c, const arguments &a, carried &k, int i) {
    if constexpr (S::DOES == DO_MERGE)
        if (c.s.now.cut[S::of::cut(i)].n == 1)
            return;
    c.begin(S::PHASE, i);
    if constexpr (S::DOES == DO_PRODUCTS)
        with_kind<S>(i, [&](auto kind) { products<decltype(kind)>(c, a, k, i); });
    else if constexpr (S::DOES == DO_ATTENTION) {
        attention<S>(c, a, i);
        c.places = lane_places(c.thread); /* an attention has no registers to spare for them */
    }
    else if constexpr (S::DOES == DO_MERGE)
        merge<typename S::of>(c, a, i);
    else if constexpr (S::DOES == DO_EMBEDDING)
        embedding<S>(c, a, i);
    else if constexpr (S::DOES == DO_NORM)
        whole_norm<S>(c, a, i);
    else if constexpr (S::DOES == DO_HEADS)
        heads<S>(c, a, i);
    else if constexpr (S::DOES == DO_POINTWISE)
        pointwise<S>(c, a, i);
#ifdef OUTSIDE_ROOM
    else if constexpr (S::DOES == DO_OUTSIDE)
        from_outside<S>(c, a, i);
#endif
    else
        close_parts<S>(c, a);
}

__device__ __forceinline__ void consume(shared &s, const arguments &a, const i32 *tokens, const sampling *settings) {
    consumer c = {s, {0, 0}, 0, {a.fault, 0, nullptr}, threadIdx.x, nullptr, 0, lane_places(threadIdx.x)};
    carried k;
    if constexpr (START_SLOT >= 0)
        k.norm[START_SLOT].load<START_K>(c, a.small + START_AT);
    wait_for_previous();
    let_next_start();
    if (threadIdx.x == 0) {
        s.now.token = tokens[0];
        s.now.penalty = LARGEST ? settings->repeat_penalty : 1.0f;
        if (MARK && blockIdx.x == 0)
            a.seen[s.now.token] = 1;
    }
    consumers_meet();
    k.value = 0.0f;
    if (CARRIED_EMBEDDING) {
        const rows mine = s.now.mine[CARRIED_SHARE];
        const embedded::elem *token = embedded::row(a.table, s.now.token, CARRIED_EMBEDDING);
        k.value = c.thread < mine.n ? embedded::element(token, mine.first + c.thread, CARRIED_EMBEDDING) : 0.0f;
    }
    program::each([&](auto phase, int i) { run<decltype(phase)>(c, a, k, i); });
    c.end();
}

/* What every block knows of the step. */
struct start {
    step &now;
    const i32 *shares;
    template <typename S> __device__ __forceinline__ void cut(int i, int positions) const {
        now.cut[S::cut(i)] = divide<S>(i, positions, gridDim.x);
    }
};

/* epoch[0] counts the steps, epoch[1] the blocks that are through with this one; epoch[2] is the position of the next step.
 *
 * A step that is launched right after another one, `early`, starts while that one's token is still being chosen. It knows its position
 * from the step before, which has ended, and streams weights and caches; its other warps wait for the token. */
extern "C" __global__ void __launch_bounds__(THREADS + PRODUCING, 1)
    persistent(const u8 *stream, const float *small, const u64 *caches, const i32 *shares,
               const embedded::elem *table, const float2 *rope0, const float2 *rope1, const i32 *tokens,
               const i32 *positions, float *exchange, u32 *epoch, float *logits, i32 *fault, i32 *seen,
               const sampling *settings, float *parts, u32 *trace, i32 ctx, i32 early) {
    static_assert(__CUDA_ARCH__ >= 750, "what there is instead of newer instructions is that of sm_75");
    DYNAMIC_SHARED(128, u8, memory);
    shared &s = *kept_in_register<shared>(memory);
    const arguments a = {stream, small, caches, table, exchange, logits, parts, seen, fault, ctx, trace};
    i32 position;
    if (early)
        position = (i32)load_relaxed_one((const float *)&epoch[2]);
    else {
        wait_for_previous();
        position = positions[0];
    }
    if (threadIdx.x == 0) {
        s.now.position = position;
        s.now.epoch = load_relaxed_one((const float *)epoch);
        for (int i = 0; i < SHARES; i++) {
            const i32 *mine = shares + ((size_t)blockIdx.x * SHARES + i) * 2;
            s.now.mine[i] = {mine[0], mine[1]};
        }
        const start begin = {s.now, shares};
        cuts::each([&](auto phase, int i) { begin.template cut<decltype(phase)>(i, position + 1); });
        s.tiles.init(WARPS);
    }
    for (int r = 0; r < ROPES; r++)
        for (int i = threadIdx.x; i < rope_half(r); i += THREADS + PRODUCING)
            s.turn[r][i] = (r ? rope1 : rope0)[(size_t)position * rope_half(r) + i];
    if (!STREAMS) /* weights of 0: numbers, at least */
        for (int slot = 0; slot < SLOTS; slot++)
            for (int i = threadIdx.x; i < SLOT / 16; i += THREADS + PRODUCING)
                ((uint4 *)s.tiles.slot[slot].data)[i] = make_uint4(0, 0, 0, 0);
    for (int i = threadIdx.x; i < 3 * STRIDE; i += THREADS + PRODUCING)
        s.squares[0][i] = 0.0f;
    for (int i = threadIdx.x; i < 2 * STRIDE; i += THREADS + PRODUCING)
        s.attention.whole[0][i] = 0.0f;
    if (TRACE)
        for (int i = threadIdx.x; i < PHASES * WORDS; i += THREADS + PRODUCING)
            s.trace[0][i] = 0;
    __syncthreads();
    if (threadIdx.x >= THREADS) {
        if (COPYING != IN_BULK || threadIdx.x == THREADS)
            produce(s, a);
        wait_for_previous(); /* so that no block ends before the launch before it */
    } else
        consume(s, a, tokens, settings);
    __syncthreads();
    if (threadIdx.x == 0 && atomicAdd(&epoch[1], 1) == gridDim.x - 1) {
        epoch[1] = 0;
        epoch[2] = s.now.position + 1;
        epoch[0]++;
    }
    if (TRACE && blockIdx.x < TRACED_BLOCKS)
        for (int i = threadIdx.x; i < PHASES * WORDS; i += THREADS + PRODUCING)
            a.trace[blockIdx.x * PHASES * WORDS + i] = s.trace[0][i];
}

#ifdef OUTSIDE_ROOM
#include "program.cuh" /* device functions from outside, after all that their macros could change */
#endif
