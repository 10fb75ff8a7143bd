/* A chain of products in one launch, as the persistent kernel has it, small: blocks hand each other vectors by exchange.cuh, and
 * weights come through the ring of tiles.cuh. With faults that can be planted, for test_exchange.c. */
#include "tests/kernels/exchange_on_cpu.h"

#include "kernels/cpu/on_cpu.h"

namespace {
#include "kernels/exchange.cuh"

/* The fault of the launch. In tiles.cuh it stands at what the lanes of the producing warp do together. */
int planted;

inline void arrive_or_not(u64 *full) {
    static u64 nowhere;
    if (planted == FAULT_ARRIVES_TOO_EARLY)
        barrier_arrive(full);
    else if (planted != FAULT_LANE_DOES_NOT_ARRIVE || threadIdx.x % 32 != 7 || blockIdx.x != 1)
        return arrive_with_copies(full);
    barrier_init(&nowhere, 1);
    arrive_with_copies(&nowhere);
}

#define arrive_with_copies(full) arrive_or_not(full)
#include "kernels/tiles.cuh"
#undef arrive_with_copies

enum {
    WARPS = 2,
    THREADS = 32 * WARPS,
    BY_LANES = 64,
    SLOTS = 3,
    N = EXCHANGE_N,
    X = 0,
    Y = N,
    COPY = 2 * N
};

/* As many lanes as copy; 0: as many as load and store. */
template <int By> struct copying { enum { LANES = By ? By : (int)BY_LANES, LOADS = By == 0 }; };

template <int By> struct shared {
    ring<SLOTS, N * sizeof(float), copying<By>::LANES, copying<By>::LOADS> tiles;
    alignas(16) float x[2][N];
    float sums[2][N][WARPS];
};

struct arguments {
    const float *weights; /* [layers, 2, N, N] */
    const float *first;   /* [N] */
    float *exchange;      /* [COPIES, COPY] */
    float *out;           /* [N] */
    i32 *gave_up;
    i32 layers;
    u32 used; /* how often each vector has been used before */
};

/* Rows of a block. One that is silent reads all vectors and hands nobody anything. */
template <int Fault> struct rows {
    int first, n;
    __device__ __forceinline__ rows() {
        int block = blockIdx.x, blocks = gridDim.x;
        if (Fault == FAULT_SILENT_BLOCK)
            block--, blocks--;
        first = block < 0 ? 0 : N * block / blocks;
        n = block < 0 ? 0 : N * (block + 1) / blocks - first;
    }
};

template <int Fault, int By> __device__ __forceinline__ void produce(shared<By> &s, const arguments &a) {
    producer<SLOTS, N * sizeof(float), copying<By>::LANES, copying<By>::LOADS> p = {
        s.tiles, N * sizeof(float) * 2};
    p.lane = threadIdx.x - THREADS;
    const rows<Fault> mine;
    for (int product = 0; product < 2 * a.layers; product++)
        for (int r = 0; r < mine.n; r++) {
            p.put(a.weights + ((size_t)product * N + mine.first + r) * N, N * sizeof(float));
            if (Fault == FAULT_SLOT_NOT_WAITED_FOR)
                p.later_turn = false;
        }
}

template <int Fault> __device__ __forceinline__ float4 take(const float *p, u32 parity, const waiting &w) {
    if (Fault == FAULT_NO_WAIT) {
        uint4 v = load_relaxed(p);
        return make_float4(bits_f32(v.x), bits_f32(v.y), bits_f32(v.z), bits_f32(v.w));
    }
    const float *const from[1] = {p};
    float4 out[1];
    poll4<false>(from, out, parity, w);
    return out[0];
}

template <int Fault, int By> struct consumer {
    shared<By> &s;
    const arguments &a;
    place<SLOTS> at;

    __device__ __forceinline__ void release() {
        __syncwarp();
        const bool forgets =
            Fault == FAULT_NO_RELEASE && blockIdx.x == 0 && threadIdx.x == 32 && at.slot == 1;
        if (threadIdx.x % 32 == 0 && !forgets)
            s.tiles.slot[at.slot].empty.arrive();
        at.next();
    }

    /* Product number `product`: its vector into shared memory, a row at a time times it, and what comes of it to `to`. */
    __device__ __forceinline__ void multiply(int product, const float *from, u32 parity, float *to,
                                             u32 to_parity) {
        const rows<Fault> mine;
        const int thread = threadIdx.x, buffer = product % 2;
        const waiting w = {a.gave_up, 1 + product, nullptr};
        if (product == 0)
            s.x[0][thread] = a.first[thread];
        else if (thread < 32) {
            float4 v = take<Fault>(from + thread % (N / 4) * 4, parity, w);
            if (thread < N / 4)
                *(float4 *)&s.x[buffer][4 * thread] = v;
        }
        some_meet<1, THREADS>();
        for (int r = 0; r < mine.n; r++) {
            if (Fault != FAULT_TILE_NOT_WAITED_FOR)
                s.tiles.slot[at.slot].full.wait(at.parity);
            const float *tile = (const float *)s.tiles.slot[at.slot].data;
            if (Fault == FAULT_EARLY_RELEASE)
                release();
            float sum = warp_sum(tile[thread] * s.x[buffer][thread]);
            if (Fault != FAULT_EARLY_RELEASE)
                release();
            if (thread % 32 == 0)
                s.sums[buffer][r][thread / 32] = sum;
        }
        if (Fault != FAULT_NO_BARRIER)
            some_meet<1, THREADS>();
        if (thread < mine.n) {
            float y = s.sums[buffer][thread][0] + s.sums[buffer][thread][1];
            publish(to + mine.first + thread, COPY, y, to_parity);
            if (product == 2 * a.layers - 1)
                a.out[mine.first + thread] = y;
        }
    }
};

template <int Fault, int By> __device__ __forceinline__ void consume(shared<By> &s, const arguments &a) {
    consumer<Fault, By> c = {s, a, {0, 0}};
    const float *polled = a.exchange + blockIdx.x % COPIES * COPY;
    for (int layer = 0; layer < a.layers; layer++) {
        u32 parity = Fault == FAULT_PARITY ? 1 : (a.used + layer + 1) & 1,
            before = Fault == FAULT_PARITY ? 1 : parity ^ 1;
        if (Fault == FAULT_ONE_VECTOR) { /* written again by who has read it, though others may not have */
            c.multiply(2 * layer, polled + X, 0, a.exchange + X, 1);
            c.multiply(2 * layer + 1, polled + X, 1, a.exchange + X, 0);
            continue;
        }
        c.multiply(2 * layer, polled + X, before, a.exchange + Y, parity);
        c.multiply(2 * layer + 1, polled + Y, parity, a.exchange + X, parity);
    }
}

template <int Fault, int By>
__global__ void chain(const float *weights, const float *first, float *exchange, float *out, i32 *gave_up,
                      i32 layers, u32 used) {
    DYNAMIC_SHARED(128, u8, memory);
    shared<By> &s = *(shared<By> *)memory;
    planted = Fault;
    const arguments a = {weights, first, exchange, out, gave_up, layers, used};
    if (threadIdx.x == 0)
        s.tiles.init(WARPS);
    __syncthreads();
    if (threadIdx.x >= THREADS) {
        if (By != IN_BULK || threadIdx.x == THREADS)
            produce<Fault>(s, a);
    } else
        consume<Fault>(s, a);
    __syncthreads();
}

template <int Fault, int By> const on_cpu_kernel &kernel() {
    typedef decltype(on_cpu::of(chain<Fault, By>)) called;
    static const on_cpu_kernel k = {[] { called::call(chain<Fault, By>); }, nullptr, nullptr, called::N,
                                    called::bytes()};
    return k;
}
} // namespace

extern "C" const on_cpu_kernel *exchange_kernel(int fault, int copies) {
    switch (fault) {
#define FAULT(name)                                                                        \
    case FAULT_##name:                                                                     \
        return copies == EXCHANGE_IN_BULK    ? &kernel<FAULT_##name, IN_BULK>()            \
               : copies == EXCHANGE_BY_LANES ? &kernel<FAULT_##name, BY_LANES>()           \
                                             : &kernel<FAULT_##name, 0>();
        EXCHANGE_FAULTS
#undef FAULT
    default:
        return nullptr;
    }
}

extern "C" const exchange_shape exchange_of_test = {THREADS + BY_LANES, sizeof(shared<BY_LANES>),
                                                    COPIES *COPY};
