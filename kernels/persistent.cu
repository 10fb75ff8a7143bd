/* A whole decode step of a Llama-like model in one kernel, from the token to the logits: one block on each
 * multiprocessor, resident at the same time (cooperative launch). The step is bound by reading the weights, so one warp
 * of each block does nothing but that: it streams the block's rows of all layers, in the order of share.cuh, through
 * shared memory, and never waits for an activation. The other warps compute as the tiles come in. Activations go from
 * block to block through the L2 cache (exchange.cuh).
 *
 * A product is in persistent_product.cuh, attention in persistent_attention.cuh, and what they share in persistent_step.cuh.
 *
 * Grid: x = multiprocessors. Weights and caches are read once; bound by that, and by the chain of 5 exchanges a layer. */
#include "persistent_attention.cuh"
#include "persistent_product.cuh"

/* --- producer -------------------------------------------------------------------------------------------- */

/* All tiles of `n` rows of K elements. */
template <int K, typename Producer> __device__ __forceinline__ const u8 *put_rows(Producer &p, const u8 *from, int n) {
#pragma unroll 1
    for (; n > 0; n -= TILE)
#pragma unroll 1
        for (int k = 0; k < K; k += CHUNK) {
            u32 bytes = min(n, (int)TILE) * min((int)CHUNK, K - k) * 2;
            p.put(from, bytes);
            from += bytes;
        }
    return from;
}

__device__ __forceinline__ void produce(shared &s, const arguments &a) {
    producer<SLOTS, SLOT> p = {s.tiles, (u32)(s.now.cut.n > 1 ? MERGE_DEPTH : DEPTH)};
    const share mine = s.now.mine;
    const rows head = s.now.head;
    const stretches cut = s.now.cut;
    const int position = s.now.position;
    int kv = blockIdx.x / cut.n, begin = blockIdx.x % cut.n * cut.span;
    int end = min(position, begin + cut.span); /* of what is in the cache */
    bool attends = kv < KV_HEADS, last = begin + cut.span > position;
#pragma unroll 1
    for (int layer = 0; layer < LAYERS; layer++) {
        const u8 *from = a.stream + share_at(mine, layer);
        from = put_rows<D>(p, from, mine.qkv.n);
        if (attends)
#pragma unroll 1
            for (int at = begin, room = SPAN - last; at < end || (last && at == begin); at += room, room = SPAN) {
                /* the first tile keeps a row for the token itself, which its block puts there */
                u32 bytes = min(room, end - at) * HEAD_DIM * 2;
                size_t offset = ((size_t)kv * a.ctx + at) * HEAD_DIM * 2;
                p.put((const u8 *)a.caches[2 * layer] + offset, bytes);
                p.put((const u8 *)a.caches[2 * layer + 1] + offset, bytes);
            }
        from = put_rows<QUERIES>(p, from, mine.out.n);
        from = put_rows<D>(p, from, mine.mlp.n);
        put_rows<FF>(p, from, mine.out.n);
    }
    p.depth = HEAD_DEPTH;
    put_rows<D>(p, a.stream + head_at(head), head.n);
}

/* --- phases of a layer, and the head --------------------------------------------------------------------- */

/* A logit of each lane of a warp, `id` that of this one. The token of the step counts as seen, though another block may not
 * have marked it yet. */
__device__ __forceinline__ void put_logits(const arguments &a, const step &now, i32 id, bool there, float logit) {
    if (there)
        a.logits[id] = logit;
    if (SAMPLE) {
        float l = there ? penalised(logit, a.seen, id, now.penalty, now.token) : NOT_A_NUMBER;
        l = warp_max(l);
        if (id % 32 == 0)
            a.parts[id / 32] = l;
    }
}

__device__ __forceinline__ float4 table_row(const weights::elem *row, int element) {
    uint2 v = *(const uint2 *)(row + element);
    return make_float4(low_half<WEIGHT>(v.x), high_half<WEIGHT>(v.x), low_half<WEIGHT>(v.y), high_half<WEIGHT>(v.y));
}

__device__ __forceinline__ normed take_embedding(const consumer &c, const weights::elem *row, const norm_weights &norm) {
    normed n;
    n.squares = 0.0f;
#pragma unroll
    for (int i = 0; i < operand<D>::LOADS; i++)
        if (operand<D>::here(c, 0))
            n.add(c, i, table_row(row, operand<D>::element(c, i)), norm);
    return n;
}

/* What goes from phase to phase in registers. */
struct carried {
    norm_weights attn_norm, mlp_norm; /* loaded a phase ahead */
    float residual; /* of a row of OUT and DOWN, which stays with the thread that finishes the row */
    u32 parity, attention_parity; /* of the exchange in this layer, and of what attention leaves in it */
};

__device__ __forceinline__ void qkv(consumer &c, const arguments &a, carried &k, int layer) {
    const rows mine = c.s.now.mine.qkv;
    const float *small = a.small + (size_t)layer * SMALL, *biases = small + QKV_BIAS + mine.first;
    float bias = BIAS && c.thread < mine.n ? biases[c.thread] : 0.0f;
    held<D, QKV> h;
    h.load(c, mine.n);
    normed n;
    if (layer == 0)
        n = take_embedding(c, a.table + (size_t)c.s.now.token * D, k.attn_norm);
    else
        n = take_normed(c, polled(a, X), k.parity ^ 1, k.attn_norm);
    auto squares = [&] { put_squares(c, c.s.squares[0], n.squares); };
    multiply(c, h, n.x, mine.n, squares, [&](int row, bool there, float product) {
        float y = product * norm_scale(c.s.squares[0]);
        if (row >= THREADS || mine.n > BATCH) /* more rows than the threads that have a bias */
            bias = BIAS && there ? biases[row] : 0.0f;
        if (there)
            publish(exchanged(a, Q) + mine.first + row, COPY, y + bias, k.parity);
    });
}

/* OUT and DOWN: the product of an exchanged vector is added to the residual. */
template <int K>
__device__ __forceinline__ void add_to_residual(consumer &c, const arguments &a, carried &k, int from, u32 parity, int to) {
    const rows mine = c.s.now.mine.out;
    held<K, D> h;
    h.load(c, mine.n);
    operand<K> x;
    take<K>(c, polled(a, from), parity, [&](int i, const float4 &v) { x.set(c, i, v); });
    multiply(c, h, x, mine.n, [] {}, [&](int row, bool there, float product) {
        k.residual += product;
        if (there)
            publish(exchanged(a, to) + mine.first + row, COPY, k.residual, k.parity);
    });
}

__device__ __forceinline__ void mlp(consumer &c, const arguments &a, carried &k) {
    const rows mine = c.s.now.mine.mlp;
    held<D, 2 * FF> h;
    h.load(c, mine.n);
    normed n = take_normed(c, polled(a, MID), k.parity, k.mlp_norm);
    auto squares = [&] { put_squares(c, c.s.squares[1], n.squares); };
    multiply(c, h, n.x, mine.n, squares, [&](int row, bool there, float product) {
        float l0 = product * norm_scale(c.s.squares[1]);
        float l1 = __shfl_down_sync(0xFFFFFFFFu, l0, 1);
        if (there && row % 2 == 0)
            publish(exchanged(a, HIDDEN) + (mine.first + row) / 2, COPY, EXPRESSION, k.parity);
    });
}

__device__ __forceinline__ void head(consumer &c, const arguments &a, carried &k) {
    const rows mine = c.s.now.head;
    held<D, VOCAB> h;
    h.load(c, mine.n);
    normed n = take_normed(c, polled(a, X), k.parity, k.attn_norm);
    auto squares = [&] { put_squares(c, c.s.squares[0], n.squares); };
    multiply(c, h, n.x, mine.n, squares, [&](int row, bool there, float product) {
        put_logits(a, c.s.now, mine.first + row, there, product * norm_scale(c.s.squares[0]));
    });
}

/* The vectors of attention are not written in every step, so their parities begin anew in each, and an odd number of uses
 * must not end with the parity of the next step's first. All of X says that nobody reads them any more. */
__device__ __forceinline__ void close_attention(consumer &c, const arguments &a, const carried &k) {
    const stretches cut = c.s.now.cut;
    take<D>(c, polled(a, X), k.parity, [](int, const float4 &) {});
    consumers_meet();
    auto unused = [&](float *p, int n, size_t stride) {
        for (int i = c.thread; i < n; i += THREADS)
            publish(p + i, stride, 0.0f, 0);
    };
    if (blockIdx.x < KV_HEADS * cut.n)
        for (int i = 0; i < GROUP; i++) {
            int head = blockIdx.x / cut.n * GROUP + i;
            if (cut.n == 1)
                unused(exchanged(a, A) + head * HEAD_DIM, HEAD_DIM, COPY);
            else
                unused(part_of(a, head, blockIdx.x % cut.n), PART, 0);
        }
    if (cut.n > 1)
        for (int unit = gridDim.x - 1 - blockIdx.x; unit < QUERIES / 8; unit += gridDim.x)
            unused(exchanged(a, A) + unit * 8, 8, COPY);
}

__device__ __forceinline__ void consume(shared &s, const arguments &a) {
    consumer c = {s, {0, 0}, 0, {a.fault, 0, nullptr}, threadIdx.x, nullptr, 0};
    carried k;
    k.attn_norm.load(c, a.small + ATTN_NORM);
    {
        const rows mine = s.now.mine.out;
        const weights::elem *token = a.table + (size_t)s.now.token * D;
        k.residual = c.thread < mine.n ? weights::widen(token[mine.first + c.thread]) : 0.0f;
    }
#pragma unroll 1
    for (int layer = 0; layer < LAYERS; layer++) {
        k.parity = (s.now.base + layer + 1) & 1;
        k.attention_parity = (layer + 1) & 1;
        const int here = 1 + layer * PRODUCTS;
        c.begin(here + FOR_QKV);
        if (s.now.mine.qkv.n)
            qkv(c, a, k, layer);
        if (blockIdx.x < KV_HEADS * s.now.cut.n) {
            c.begin(here + FOR_ATTENTION);
            attention(c, a, layer, k.parity, k.attention_parity);
        }
        if (s.now.cut.n > 1) {
            c.begin(here + FOR_MERGE);
#pragma unroll 1
            for (int unit = gridDim.x - 1 - blockIdx.x + c.warp() * gridDim.x; unit < QUERIES / 8;
                 unit += WARPS * gridDim.x)
                merge(c, a, unit, k.attention_parity);
        }
        c.begin(here + FOR_OUT);
        k.mlp_norm.load(c, a.small + (size_t)layer * SMALL + MLP_NORM);
        if (s.now.mine.out.n)
            add_to_residual<QUERIES>(c, a, k, A, k.attention_parity, MID);
        c.begin(here + FOR_MLP);
        if (s.now.mine.mlp.n)
            mlp(c, a, k);
        c.begin(here + FOR_DOWN);
        k.attn_norm.load(c, a.small + (size_t)(layer + 1) * SMALL + ATTN_NORM); /* of the next layer, or the head's */
        if (s.now.mine.out.n)
            add_to_residual<FF>(c, a, k, HIDDEN, k.parity, X);
    }
    c.begin(1 + LAYERS * PRODUCTS + FOR_HEAD);
    if (s.now.head.n)
        head(c, a, k);
    if (LAYERS % 2)
        close_attention(c, a, k);
    c.end();
}

/* epoch[0] counts the tokens, epoch[1] the blocks that are through with this one. */
extern "C" __global__ void __launch_bounds__(THREADS + 32, 1)
    persistent(const u8 *stream, const float *small, const u64 *caches, const weights::elem *table, const float2 *rope,
               const i32 *tokens, const i32 *positions, float *exchange, u32 *epoch, float *logits, i32 *fault,
               i32 *seen, const sampling *settings, float *parts, u32 *trace, i32 ctx) {
#if __CUDA_ARCH__ >= 900
    DYNAMIC_SHARED(128, u8, memory);
    shared &s = *(shared *)memory;
    const arguments a = {stream, small, caches, table, rope, exchange, logits, parts, seen, fault, ctx, trace};
    if (threadIdx.x == 0) {
        const int position = positions[0];
        s.now = {share_of(blockIdx.x, gridDim.x), head_share(blockIdx.x, gridDim.x), divide(position + 1, gridDim.x),
                 tokens[0], position, epoch[0] * LAYERS, SAMPLE ? settings->repeat_penalty : 1.0f};
        s.tiles.init(WARPS);
        if (SAMPLE && blockIdx.x == 0)
            seen[tokens[0]] = 1;
    }
    if (ROPE)
        for (int i = threadIdx.x; i < HALF; i += THREADS + 32)
            s.turn[i] = rope[(size_t)positions[0] * HALF + i];
    for (int i = threadIdx.x; i < 2 * STRIDE; i += THREADS + 32)
        s.squares[0][i] = 0.0f;
    if (TRACE)
        for (int i = threadIdx.x; i < PRODUCTS * WORDS; i += THREADS + 32)
            s.trace[0][i] = 0;
    __syncthreads();
    if (threadIdx.x >= THREADS) {
        if (threadIdx.x == THREADS)
            produce(s, a);
    } else
        consume(s, a);
    __syncthreads();
    if (threadIdx.x == 0 && atomicAdd(&epoch[1], 1) == gridDim.x - 1) {
        epoch[1] = 0;
        epoch[0]++;
    }
    if (TRACE && blockIdx.x < TRACED_BLOCKS)
        for (int i = threadIdx.x; i < PRODUCTS * WORDS; i += THREADS + 32)
            a.trace[blockIdx.x * PRODUCTS * WORDS + i] = s.trace[0][i];
#endif
}
