/* Operands of packed_gemm.cu on sm_90a: four warps bring them to shared memory by bulk copies, some steps ahead of those that multiply. */
#pragma once
#include "packed_operand.cuh"

enum {
#if FORMAT > BF16
    WEIGHT_BYTES = block_stage::BYTES,
    PLACES = 1, /* not used */
#else
    WEIGHT_BYTES = (BLOCK_ROWS + 2 * (TILE - 1)) * TOKEN_BYTES, /* the first tile and the last one may have rows of others */
    PLACES = BLOCK_ROWS,
#endif
};

struct stages {
    u64 full[STAGES], empty[STAGES];
    u32 places[STAGES][PLACES]; /* of the first step of an item: where rows lie */
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

#if FORMAT > BF16

/* What a lane of a warp that copies brings of the rows of an item: one row, piece by piece. */
struct copied_rows {
    enum { ARRIVALS = COPYING + COPYING * 32 }; /* at a stage's barrier: of warps, and of what each lane has copied */
    static_assert(BLOCK_ROWS <= COPYING * 32, "a lane for each row");
    block_row mine;

    __device__ __forceinline__ void find(const u8 *stream, const i32 *shares, const item &it) {
        const int first = min(it.first_row + (row() / 32) * 32, ROWS - 1);
        mine.begin(place_of(stream, shares, owner_of(shares, first), it.first_row + row()), it.step);
    }
    static __device__ __forceinline__ int row() { return (int)threadIdx.x - MULTIPLYING * 32; }
    __device__ __forceinline__ void note(u32 *, int) const {}
    static __device__ __forceinline__ u32 bytes() { return 0; } /* that arrive by bulk copies */
    __device__ __forceinline__ void copy(u8 *room, const item &, int, u64 *full) {
        if (row() < BLOCK_ROWS)
            block_stage::copy_row(room, row(), mine);
        mine.go_on();
        arrive_with_copies(full);
    }
};

#else

/* A tile of rows in the stream: for each 32 elements `n` rows of 64 bytes. */
struct tile {
    const u8 *from;
    int first, n; /* rows of the phase */
};

__device__ __forceinline__ tile tile_of(const u8 *stream, const i32 *shares, int owner, int row) {
    owner = owner_from(shares, owner, row);
    const int first = (int)FIRST(SHARE), r = (row - first) / TILE * TILE;
    return {stream + (PLACE) + (size_t)r * K * 2, first + r, min((int)TILE, (int)COUNT(SHARE) - r)};
}

/* What a lane of a warp that copies brings of the rows of an item: tiles that begin at its rows. */
struct copied_rows {
    enum {
        ARRIVALS = COPYING, /* at a stage's barrier: of warps */
        MINE = (BLOCK_ROWS + COPYING * 32 - 1) / (COPYING * 32),
    };
    tile t[MINE];
    int base, end; /* rows of the first tile, and after the last one */

    __device__ __forceinline__ void find(const u8 *stream, const i32 *shares, const item &it) {
        const int first_row = it.first_row;
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
    __device__ __forceinline__ u32 bytes() const { return (u32)(end - base) * TOKEN_BYTES; }
    __device__ __forceinline__ void copy(u8 *room, const item &it, int step, u64 *full) const {
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            const int r = min(it.first_row, ROWS - 1) + row(i);
            const u32 bytes = (u32)t[i].n * TOKEN_BYTES;
            if ((row(i) == 0 || r == t[i].first) && r < ROWS && row(i) < BLOCK_ROWS)
                bulk_copy(room + (t[i].first - base) * TOKEN_BYTES, t[i].from + (size_t)step * bytes, bytes, full);
        }
    }
};

#endif

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

/* Brings the weights of a step of an item into stage `at`. Its barrier is told how many bytes are to come, tokens included, and that
 * what threads have stored themselves is there. */
__device__ __forceinline__ void bring_weights(copied_rows &rows, const item &it, int step, u8 *room, stages &s, u32 at) {
    if (step == it.step)
        rows.note(s.places[at], it.first_row);
    rows.copy(room + STAGES * STAGE_BYTES + at * WEIGHT_BYTES, it, step, &s.full[at]);
    __syncwarp();
    if (threadIdx.x == MULTIPLYING * 32)
        barrier_expect(&s.full[at], it.tokens * TOKEN_BYTES + rows.bytes());
    else if (threadIdx.x % 32 == 0)
        barrier_arrive(&s.full[at]);
    __syncwarp();
}

/* Brings the tokens of that step; one thread does it. */
__device__ __forceinline__ void bring_tokens(const u8 *x, const work &w, const item &it, int step, u8 *room, stages &s, u32 at) {
    if (threadIdx.x == MULTIPLYING * 32)
        copy_tokens(room + at * STAGE_BYTES, x + ((size_t)step * w.all + it.token) * TOKEN_BYTES, it.tokens, &s.full[at]);
}

/* Weights of the first steps are on their way before the launches before this one have ended, of which tokens are results. */
__device__ __forceinline__ void bring(const u8 *x, const u8 *stream, const i32 *shares, const work &w, u8 *room, stages &s) {
    turn now = {0, 1};
    u32 i = blockIdx.x / CLUSTER;
    item it = {};
    copied_rows rows;
    int ahead = 0; /* steps of the first item */
    if (i < w.n) {
        it = item_of(w, i);
        rows.find(stream, shares, it);
        ahead = min((int)STAGES, it.last - it.step);
#pragma unroll 1
        for (int k = 0; k < ahead; k++, now.go_on())
            bring_weights(rows, it, it.step + k, room, s, k);
    }
    if (!BESIDE)
        wait_for_previous();
#pragma unroll 1
    for (int k = 0; k < ahead; k++)
        bring_tokens(x, w, it, it.step + k, room, s, k);
#pragma unroll 1
    for (; i < w.n; i += gridDim.x / CLUSTER) {
        if (ahead == 0) {
            it = item_of(w, i);
            rows.find(stream, shares, it);
        }
#pragma unroll 1
        for (int k = it.step + ahead; k < it.last; k++, now.go_on()) {
            barrier_wait(&s.empty[now.at], now.parity);
            bring_weights(rows, it, k, room, s, now.at);
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
            barrier_init(&s.full[i], copied_rows::ARRIVALS), barrier_init(&s.empty[i], CLUSTER * MULTIPLYING);
        fence_barrier_init();
    }
    __syncthreads();
    if (CLUSTER > 1)
        cluster_meets<CLUSTER>();
}
