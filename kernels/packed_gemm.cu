/* Products of many tokens with the rows of a phase of the persistent kernel, from its stream: prefill needs no other copy of the
 * weights. A warp takes 16 rows as operand A, which are in the stream in the order of its registers: a lane loads 16 bytes of two rows.
 * Activations are operand B (operand.cuh), through shared memory.
 *
 *   rows of the phase          tokens ----->   SPAN for a block
 *     64 for 4 warps    x    K, 64 at a time
 *
 * On sm_90a four warps bring both by bulk copies, up to STAGES steps ahead, tiles of weights whole, and the others multiply, four warps
 * together (wgmma): while the products of a step run, operand A of the next one is loaded. Elsewhere all warps copy one stage ahead, and
 * each multiplies for itself. Products are of bf16, sums float32.
 *
 * Grid: any number of blocks (a multiple of CLUSTER), which take items: SPAN tokens of the rows of CLUSTER blocks, and of each row 1 /
 * SPLIT. Items of the same rows follow each other, so that weights are read once. Needs sm_80. */
#ifndef GROUPS /* of four warps */
#define GROUPS 2
#endif
#define COPYING 4 /* warps that bring operands on sm_90a: as many as give registers back together */
#define THREADS (GROUPS * 128 + COPYING * 32)
#define APPROXIMATE 1
#include "packed_rows.cuh"
#include "mma.cuh"

#ifndef FORMAT /* of the stream: BF16, or F16, which is rounded to bf16 */
#define FORMAT BF16
#endif
#ifndef SPAN /* tokens of a block: 64, 128 or 256 */
#define SPAN 256
#endif
#ifndef STAGES
#define STAGES 4
#endif
#ifndef CLUSTER /* blocks of different rows that share the same tokens, on sm_90a: 1 or 2 */
#define CLUSTER 1
#endif
#ifndef TO_OPERAND /* 1: the results are activations of another such product, in bf16 (operand.cuh) */
#define TO_OPERAND 0
#endif

enum {
    MULTIPLYING = GROUPS * 4, /* warps */
    BLOCK_ROWS = GROUPS * 64,
    BLOCK_UNITS = BLOCK_ROWS / IN_UNIT,
    ROW_ITEMS = (UNITS + BLOCK_UNITS * CLUSTER - 1) / (BLOCK_UNITS * CLUSTER),
    STEP = 64,
    STEPS = K / STEP,
    TOKEN_BYTES = 2 * STEP,
    STAGE_BYTES = SPAN * TOKEN_BYTES,
    WEIGHT_BYTES = (BLOCK_ROWS + 2 * (TILE - 1)) * TOKEN_BYTES, /* the first tile and the last one may have rows of others */
};
static_assert(K % STEP == 0 && STAGES > 1 && (SPLIT == 1 || 2 * SPLIT <= STEPS), "shape");

/* What a block computes at a time. */
struct item {
    int first_row;     /* counted as the phase counts them */
    u32 token, tokens; /* the first, and how many of those there are, rounded up to 8 */
    int part;          /* of each row */
    int step, last;    /* of that part */
};

struct work {
    u32 all, spans, whole, n; /* tokens; their spans; items of SPAN tokens, and with those after them of half as many */
};

/* Where the last round of items would leave half of the blocks idle, these are of half as many tokens. */
__device__ __forceinline__ work work_of(u32 all) {
    work w = {all, (all + SPAN - 1) / SPAN, 0, 0};
    const u32 n = w.spans * ROW_ITEMS * SPLIT, clusters = gridDim.x / CLUSTER, rest = n % clusters;
    const bool halves = SPAN > 64 && n > clusters && 2 * rest <= clusters;
    w.whole = halves ? n - rest : n;
    w.n = halves ? n + rest : n;
    return w;
}

/* Of a part of a row; parts but for the last one have an even number of steps. */
__device__ __forceinline__ int first_step(u32 part) {
    return (int)(part == SPLIT ? STEPS : STEPS / 2 * part / SPLIT * 2);
}

__device__ __forceinline__ item item_of(const work &w, u32 i) {
    const u32 half = i < w.whole ? 0 : (i - w.whole) % 2, most = i < w.whole ? SPAN : SPAN / 2;
    i = i < w.whole ? i : w.whole + (i - w.whole) / 2;
    const u32 span = i % w.spans, row = i / w.spans % ROW_ITEMS, part = i / w.spans / ROW_ITEMS;
    item it = {};
    it.first_row = (int)((row * CLUSTER + blockIdx.x % CLUSTER) * BLOCK_ROWS);
    it.token = min(span * SPAN + half * (SPAN / 2), w.all);
    it.tokens = min(most, w.all - it.token);
    it.part = (int)part;
    it.step = first_step(part), it.last = first_step(part + 1);
    return it;
}

template <int Span> struct sums {
    float d[Span / 8][4]; /* rows lane / 4 and 8 on, tokens 8 j + 2 (lane % 4) and one on */
};

#if __CUDA_ARCH__ >= 800

/* What a lane has of its two rows: 16 bytes of each block of 32, both blocks of a step. */
struct two_rows {
    uint4 v[2][2]; /* [block][row] */

    __device__ __forceinline__ void load(const row_place &a, const row_place &b, int step) {
#pragma unroll
        for (int block = 0; block < 2; block++) {
            v[block][0] = *(const uint4 *)(a.at + (size_t)(2 * step + block) * a.stride);
            v[block][1] = *(const uint4 *)(b.at + (size_t)(2 * step + block) * b.stride);
        }
    }
    static __device__ __forceinline__ u32 narrow(u32 two) { return FORMAT == BF16 ? two : two_bf16(f16_low(two), f16_high(two)); }
    /* Register i of operand A for elements 16 k .. 16 k + 15. */
    __device__ __forceinline__ u32 a(int k, int i) const {
        const uint4 &row = v[k / 2][i % 2];
        return narrow(k % 2 ? (i / 2 ? row.w : row.y) : (i / 2 ? row.z : row.x));
    }
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

struct stages {
    u64 full[STAGES], empty[STAGES];
    u32 places[STAGES][BLOCK_ROWS]; /* of the first step of an item: where rows lie */
};

/* Which stage is next, and of which parity its barriers are. */
struct turn {
    u32 at, parity;
    __device__ __forceinline__ void go_on() {
        at++;
        if (at == STAGES)
            at = 0, parity ^= 1;
    }
};

/* A tile of rows in the stream: for each 32 elements `n` rows of 64 bytes. */
struct tile {
    const u8 *from;
    int first, n; /* rows of the phase */
};

__device__ __forceinline__ tile tile_of(const u8 *stream, const i32 *shares, int owner, int row) {
    while (owner + 1 < MOST_OWNERS && shares[((size_t)(owner + 1) * SHARES + SHARE) * 2] <= row)
        owner++;
    const int first = (int)FIRST(SHARE), r = (row - first) / TILE * TILE;
    return {stream + (PLACE) + (size_t)r * K * 2, first + r, min((int)TILE, (int)COUNT(SHARE) - r)};
}

/* What a lane of a warp that copies brings of the rows of an item: tiles that begin at its rows. */
struct copied_tiles {
    enum { MINE = (BLOCK_ROWS + COPYING * 32 - 1) / (COPYING * 32) };
    tile t[MINE];
    int base, end; /* rows of the first tile, and after the last one */

    __device__ __forceinline__ void find(const u8 *stream, const i32 *shares, int first_row) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 - MULTIPLYING;
        const int first = min(first_row, ROWS - 1), last = min(first_row + BLOCK_ROWS, (int)ROWS) - 1;
        base = tile_of(stream, shares, owner_of(shares, first), first).first;
        const tile t_last = tile_of(stream, shares, owner_of(shares, max(last, first)), max(last, first));
        end = t_last.first + t_last.n;
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            const int chunk = first + (i * COPYING + warp) * 32;
            t[i] = tile_of(stream, shares, owner_of(shares, min(chunk, ROWS - 1)), min(chunk + lane, ROWS - 1));
        }
    }
    __device__ __forceinline__ int row(int i) const {
        return (i * COPYING + (int)threadIdx.x / 32 - MULTIPLYING) * 32 + (int)threadIdx.x % 32;
    }
    /* Where the lanes that multiply find the rows. */
    __device__ __forceinline__ void note(u32 *places, int first_row) const {
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            const int r = min(min(first_row, ROWS - 1) + row(i), ROWS - 1);
            if (row(i) < BLOCK_ROWS)
                places[row(i)] = (u32)((t[i].first - base) * TOKEN_BYTES + (r - t[i].first) * 64) | (u32)t[i].n << 24;
        }
    }
    __device__ __forceinline__ void copy(u8 *room, int first_row, int step, u64 *full) const {
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            const int r = min(first_row, ROWS - 1) + row(i);
            const u32 bytes = (u32)t[i].n * TOKEN_BYTES;
            if ((row(i) == 0 || r == t[i].first) && r < ROWS && row(i) < BLOCK_ROWS)
                bulk_copy(room + (t[i].first - base) * TOKEN_BYTES, t[i].from + (size_t)step * bytes, bytes, full);
        }
    }
};

/* Blocks of a cluster have the same tokens: each brings a part of them to all. */
__device__ __forceinline__ void copy_tokens(u8 *to, const u8 *from, u32 tokens, u64 *full) {
    if (CLUSTER == 1) {
        if (tokens > 0) /* the second half of a span may have none */
            bulk_copy(to, from, tokens * TOKEN_BYTES, full);
        return;
    }
    const u32 part = (tokens / 8 + CLUSTER - 1) / CLUSTER * 8, begin = min(blockIdx.x % CLUSTER * part, tokens),
              n = min(part, tokens - begin);
    if (n > 0)
        bulk_copy_to_all<CLUSTER>(to + begin * TOKEN_BYTES, from + begin * TOKEN_BYTES, n * TOKEN_BYTES, full);
}

/* Of a step of an item: weights into stage `at`, which is told how much comes in all; */
__device__ __forceinline__ void bring_weights(const copied_tiles &tiles, const item &it, int step, u8 *room, stages &s, u32 at) {
    if (step == it.step)
        tiles.note(s.places[at], it.first_row);
    __syncwarp();
    if (threadIdx.x == MULTIPLYING * 32)
        barrier_expect(&s.full[at], it.tokens * TOKEN_BYTES + (u32)(tiles.end - tiles.base) * TOKEN_BYTES);
    else if (threadIdx.x % 32 == 0)
        barrier_arrive(&s.full[at]);
    tiles.copy(room + STAGES * STAGE_BYTES + at * WEIGHT_BYTES, it.first_row, step, &s.full[at]);
    __syncwarp();
}

/* and tokens, by one thread. */
__device__ __forceinline__ void bring_tokens(const u8 *x, const work &w, const item &it, int step, u8 *room, stages &s, u32 at) {
    if (threadIdx.x == MULTIPLYING * 32)
        copy_tokens(room + at * STAGE_BYTES, x + ((size_t)step * w.all + it.token) * TOKEN_BYTES, it.tokens, &s.full[at]);
}

/* Weights of the first steps are on their way before the launches before this one have ended, of which tokens are results. */
__device__ __forceinline__ void bring(const u8 *x, const u8 *stream, const i32 *shares, const work &w, u8 *room, stages &s) {
    turn now = {0, 1};
    u32 i = blockIdx.x / CLUSTER;
    item it = {};
    copied_tiles tiles;
    int ahead = 0; /* steps of the first item */
    if (i < w.n) {
        it = item_of(w, i);
        tiles.find(stream, shares, it.first_row);
        ahead = min((int)STAGES, it.last - it.step);
#pragma unroll 1
        for (int k = 0; k < ahead; k++, now.go_on())
            bring_weights(tiles, it, it.step + k, room, s, k);
    }
    wait_for_previous();
#pragma unroll 1
    for (int k = 0; k < ahead; k++)
        bring_tokens(x, w, it, it.step + k, room, s, k);
#pragma unroll 1
    for (; i < w.n; i += gridDim.x / CLUSTER) {
        if (ahead == 0) {
            it = item_of(w, i);
            tiles.find(stream, shares, it.first_row);
        }
#pragma unroll 1
        for (int k = it.step + ahead; k < it.last; k++, now.go_on()) {
            barrier_wait(&s.empty[now.at], now.parity);
            bring_weights(tiles, it, k, room, s, now.at);
            bring_tokens(x, w, it, k, room, s, now.at);
        }
        ahead = 0;
    }
}

/* This warp is through with a stage, for all blocks that bring it. */
__device__ __forceinline__ void release(u64 *empty) {
    const int lane = threadIdx.x % 32;
    if (CLUSTER == 1 && lane == 0)
        barrier_arrive(empty);
    if (CLUSTER > 1 && lane < CLUSTER)
        barrier_arrive_at<CLUSTER>(empty, lane);
}

__device__ __forceinline__ void begin_stages(stages &s) {
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++)
            barrier_init(&s.full[i], COPYING), barrier_init(&s.empty[i], CLUSTER * MULTIPLYING);
        fence_barrier_init();
    }
    __syncthreads();
    if (CLUSTER > 1)
        cluster_meets<CLUSTER>();
}

/* Operand A of a step, from a stage. */
struct operand_a {
    u32 part[4][4];

    __device__ __forceinline__ void load(const u8 *weights, u32 a, u32 b) {
        two_rows w;
#pragma unroll
        for (int n = 0; n < 2; n++) {
            w.v[n][0] = *(const uint4 *)(weights + (a & 0xFFFFFFu) + n * (a >> 24) * 64);
            w.v[n][1] = *(const uint4 *)(weights + (b & 0xFFFFFFu) + n * (b >> 24) * 64);
        }
#pragma unroll
        for (int q = 0; q < 16; q++)
            part[q / 4][q % 4] = w.a(q / 4, q % 4);
    }
};

template <int Span> struct consumer {
    sums<Span> &sum;
    u8 *room;
    stages &s;
    turn &now;
    u32 a, b; /* places of the lane's rows */

    __device__ __forceinline__ void load(operand_a &next) {
        barrier_wait(&s.full[now.at], now.parity);
        next.load(room + STAGES * STAGE_BYTES + now.at * WEIGHT_BYTES, a, b);
    }
    /* Products of the stage `now`, whose operand A is here; then operand A of the next one. */
    __device__ __forceinline__ void step(operand_a &mine, operand_a &next, bool is_first, bool is_last) {
        const u64 operand = wgmma_operand(room) + (u64)(now.at * (STAGE_BYTES / 16));
        const u32 before = now.at == 0 ? STAGES - 1 : now.at - 1;
        __syncwarp();
        wgmma_begin();
#pragma unroll
        for (int q = 0; q < 4; q++)
            wgmma_bf16<Span>(&sum.d[0][0], mine.part[q], operand + (u64)(2 * q));
        wgmma_end();
        wgmma_wait<1>();
        if (!is_first)
            release(&s.empty[before]);
        now.go_on();
        if (!is_last)
            load(next);
    }
};

template <int Span>
__device__ __forceinline__ void multiply(sums<Span> &sum, u8 *room, stages &s, turn &now, const item &it, int row_a, int row_b) {
    consumer<Span> c = {sum, room, s, now, 0, 0};
    operand_a one, other;
    barrier_wait(&s.full[now.at], now.parity);
    c.a = s.places[now.at][row_a] + threadIdx.x % 4 * 16, c.b = s.places[now.at][row_b] + threadIdx.x % 4 * 16;
    c.load(one);
    const int n = (it.last - it.step) / 2;
    const bool odd = STEPS % 2 == 1 && it.last == STEPS; /* one more step after `n` twice */
#pragma unroll 1
    for (int i = 0; i < n; i++) {
        c.step(one, other, i == 0, false);
        c.step(other, one, false, i + 1 == n && !odd);
    }
    if (odd)
        c.step(one, other, n == 0, true);
    wgmma_wait<0>();
    release(&s.empty[now.at == 0 ? STAGES - 1 : now.at - 1]);
}

#endif

/* A stage by all threads. */
__device__ __forceinline__ void copy_stage(u8 *to, const u8 *from, u32 n) {
    for (u32 i = threadIdx.x; i < n * (TOKEN_BYTES / 16); i += THREADS)
        copy_16(shared_address(to + 16 * i), from + 16 * i);
}

template <int Span> __device__ __forceinline__ void multiply_step(sums<Span> &sum, const two_rows &w, u32 stage) {
    const int lane = threadIdx.x % 32, token = lane / 16 * 8 + lane % 8;
#pragma unroll
    for (int q = 0; q < 4; q++) {
        const u32 chunk = 2 * q + lane / 8 % 2, at = stage + token * TOKEN_BYTES + (chunk ^ token % 8) * 16;
#pragma unroll
        for (int j = 0; j < Span / 8; j += 2) {
            const uint4 x = load_matrices(at + j * 8 * TOKEN_BYTES);
            mma_bf16(sum.d[j], w.a(q, 0), w.a(q, 1), w.a(q, 2), w.a(q, 3), x.x, x.y);
            mma_bf16(sum.d[j + 1], w.a(q, 0), w.a(q, 1), w.a(q, 2), w.a(q, 3), x.z, x.w);
        }
    }
}

template <int Span>
__device__ __forceinline__ void multiply_by_warps(sums<Span> &sum, const row_place &a, const row_place &b, u8 *room, const u8 *x,
                                                  u32 all, const item &it) {
    const bool multiplies = threadIdx.x / 32 < MULTIPLYING;
    two_rows w, next;
    __syncthreads();
    copy_stage(room, x + ((size_t)it.step * all + it.token) * TOKEN_BYTES, it.tokens);
    next.load(a, b, it.step);
#pragma unroll 1
    for (int k = it.step, i = 0; k < it.last; k++, i++) {
        copies_done();
        __syncthreads();
        if (k + 1 < it.last)
            copy_stage(room + (i + 1) % 2 * STAGE_BYTES, x + ((size_t)(k + 1) * all + it.token) * TOKEN_BYTES, it.tokens);
        w = next;
        next.load(a, b, min(k + 1, it.last - 1));
        if (multiplies)
            multiply_step(sum, w, shared_address(room + i % 2 * STAGE_BYTES));
    }
}

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

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <int Span>
__device__ __forceinline__ void compute(u8 *room, stages &s, turn &now, const item &it, const results &r, u32 tokens) {
    const int lane = threadIdx.x % 32, row = (int)threadIdx.x / 32 * 16;
    sums<Span> sum = {};
    if (IN_UNIT == 2)
        multiply(sum, room, s, now, it, row + lane / 4 * 2, row + lane / 4 * 2 + 1);
    else
        multiply(sum, room, s, now, it, row + lane / 4, row + 8 + lane / 4);
    put(sum, units_of(it), r, it, tokens);
}

__device__ __forceinline__ void take_items(const u8 *x, const u8 *stream, const i32 *shares, const results &r, const work &w,
                                           u32 tokens) {
    DYNAMIC_SHARED(1024, u8, room);
    stages &s = *(stages *)(room + STAGES * (STAGE_BYTES + WEIGHT_BYTES));
    begin_stages(s);
    if (threadIdx.x / 32 >= MULTIPLYING) {
        if (GROUPS == 2)
            registers_less<40>();
        bring(x, stream, shares, w, room, s);
    } else {
        if (GROUPS == 2)
            registers_more<232>();
        wait_for_previous(); /* results meet values of launches before, and go where those may still read */
        let_next_start();
        turn now = {0, 0};
#pragma unroll 1
        for (u32 i = blockIdx.x / CLUSTER; i < w.n; i += gridDim.x / CLUSTER) {
            const item it = item_of(w, i);
            if (SPAN > 64 && it.tokens <= 64)
                compute<64>(room, s, now, it, r, tokens);
            else if (SPAN > 128 && it.tokens <= 128)
                compute<(SPAN > 128 ? 128 : SPAN)>(room, s, now, it, r, tokens);
            else
                compute<SPAN>(room, s, now, it, r, tokens);
        }
    }
    __syncwarp();
    if (CLUSTER > 1) /* others may still arrive at barriers of this block */
        cluster_meets<CLUSTER>();
}

#else

template <int Span>
__device__ __forceinline__ void compute(const u8 *x, const u8 *stream, const i32 *shares, u32 all, const item &it, const results &r,
                                        u32 tokens) {
    DYNAMIC_SHARED(1024, u8, room);
    const lane_units u = units_of(it);
    const int owner = owner_of(shares, min(it.first_row + (int)threadIdx.x / 32 * 16, ROWS - 1));
    row_place a = place_of(stream, shares, owner, u.first * IN_UNIT),
              b = place_of(stream, shares, owner, u.second * IN_UNIT + IN_UNIT - 1);
    a.at += threadIdx.x % 4 * 16, b.at += threadIdx.x % 4 * 16;
    sums<Span> sum = {};
    multiply_by_warps(sum, a, b, room, x, all, it);
    if (threadIdx.x / 32 < MULTIPLYING)
        put(sum, u, r, it, tokens);
}

__device__ __forceinline__ void take_items(const u8 *x, const u8 *stream, const i32 *shares, const results &r, const work &w,
                                           u32 tokens) {
    enum { AT_ONCE = SPAN > 128 ? 128 : SPAN }; /* tokens; sums of more have no room in the registers of these warps */
    wait_for_previous();
    let_next_start();
#pragma unroll 1
    for (u32 i = blockIdx.x / CLUSTER; i < w.n; i += gridDim.x / CLUSTER) {
        const item all = item_of(w, i);
#pragma unroll 1
        for (u32 done = 0; done < all.tokens; done += AT_ONCE) {
            item it = all;
            it.token += done, it.tokens = min((u32)AT_ONCE, all.tokens - done);
            if (SPAN > 64 && it.tokens <= 64)
                compute<64>(x, stream, shares, w.all, it, r, tokens);
            else
                compute<AT_ONCE>(x, stream, shares, w.all, it, r, tokens);
        }
    }
}

#endif

#endif

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define IN_CLUSTERS __cluster_dims__(CLUSTER, 1, 1)
#else
#define IN_CLUSTERS
#endif

extern "C" __global__ void IN_CLUSTERS __launch_bounds__(THREADS, GROUPS == 1 && SPAN == 64 ? 2 : 1)
    packed_gemm(const u8 *x, const u8 *stream, const i32 *shares, const float *b0, const float *b1, const float *b2,
                const float *b3, const float *a0, float *o0, float *o1, float *o2, float *o3, i32 rows) {
#if __CUDA_ARCH__ >= 800
    const u32 tokens = (u32)rows * (1 + TWO);
    const results r = {{b0, b1, b2, b3}, a0, {o0, o1, o2, o3}};
    take_items(x, stream, shares, r, work_of((tokens + 7) / 8 * 8), tokens);
#endif
}
