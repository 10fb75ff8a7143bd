#ifndef KERNELS_CPU_ON_CPU_H
#define KERNELS_CPU_ON_CPU_H

/* Enough of CUDA to run a kernel on the CPU, so that its logic is tested where there is no GPU: a file that includes this
 * and then a .cu is compiled as C++. Blocks run one after the other, in any order; the threads of a block are fibers that
 * change places at barriers and where the lanes of a warp do something together. Threads of a block that wait at different
 * barriers, or lanes of a warp that do not all take part, are an error, and so are blocks that wait for each other. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "on_cpu_launch.h"

namespace on_cpu {

struct index3 {
    unsigned x, y, z;
};

extern index3 thread_index, block_index, grid_size, block_size;
extern void **arguments;     /* of the launch */
extern char *dynamic_shared; /* at a multiple of 1024 */

/* Runs a kernel without arguments and without dynamic shared memory, of this program; `order`: on_cpu_launch.h. */
typedef void body();
void launch(unsigned blocks, unsigned threads, int order, body *kernel);
void launch(index3 grid, unsigned threads, int order, body *kernel);

/* `place` is a line of the source. All threads of the block get here; all lanes of the warp hand something over, and `what` is
 * called once for all 32. */
void barrier(int place);
typedef void warp_function(void *const *lanes);
void together(void *mine, warp_function *what, int place);

/* Copies of 4, 8 or 16 bytes that are under way: they happen when the thread waits for them, and no sooner; or where they arrive at a
 * barrier, some time before it is over. Until then NaN lies there. */
void copy_later(void *to, const void *from, unsigned bytes);
void copies_done();

/* Addresses in shared memory as numbers of 32 bits, and back. */
unsigned shared_address(const void *p);
void *shared_pointer(unsigned address);

/* Of blocks that run at once: on_cpu_together.cc. A thread that polls gives way; a word that is stored late is seen by other blocks
 * some time later, in no order with others, or after a fence of the thread that stored it. */
void give_way();
void give_up();
void meet_some(unsigned number, unsigned n, int place);
unsigned now_in_cycles();
void store_late(const void *to, unsigned word);
unsigned load_now(const void *from);
void fence();
void mbarrier_init(unsigned long long *b, int arrivals);
void mbarrier_arrive(unsigned long long *b, unsigned bytes);
bool mbarrier_is_over(const unsigned long long *b, unsigned parity);
void mbarrier_wait(const unsigned long long *b, unsigned parity);
void count_up(unsigned *at, unsigned last);
unsigned counted(const unsigned *at);
void bulk_copy(void *to, const void *from, unsigned bytes, unsigned long long *b);
void arrive_with_copies(unsigned long long *b);
void prefetch(const void *from, unsigned bytes);

/* Of clusters, so many blocks side by side: all their threads meet; what a place of this block is in block `rank` of its cluster. */
void meet_cluster(unsigned blocks);
void *place_in_cluster(void *place, unsigned rank, unsigned blocks);

/* So many bytes that the thread keeps until it ends, 0 at first. */
void *room_of_thread(size_t bytes);

/* Called at each of these moments, where it is set: for what watches how a kernel behaves towards the launches beside it. */
enum moment { BLOCK_BEGINS, BLOCK_ENDS, HAS_WAITED, LETS_NEXT_START };
extern void (*look)(moment at);

/* expf, or with `wobble` one that is an ulp off here and there, as another device's may be. */
extern bool wobble;

template <typename T> static T exchange(T value, unsigned from, int place) {
    struct lane {
        T value, got;
        unsigned from;
    } mine = {value, value, from};
    together(
        &mine,
        [](void *const *lanes) {
            for (int i = 0; i < 32; i++)
                ((lane *)lanes[i])->got = ((lane *)lanes[((lane *)lanes[i])->from])->value;
        },
        place);
    return mine.got;
}

static inline unsigned ballot(bool bit, int place) {
    unsigned mine = bit;
    together(
        &mine,
        [](void *const *lanes) {
            unsigned all = 0;
            for (int i = 0; i < 32; i++)
                all |= *(unsigned *)lanes[i] << i;
            for (int i = 0; i < 32; i++)
                *(unsigned *)lanes[i] = all;
        },
        place);
    return mine;
}

static inline void meet_warp(int place) {
    together(
        nullptr, [](void *const *) {}, place);
}

/* A function called with the arguments of the launch, for ON_CPU_KERNEL. */
template <typename... A> struct called {
    enum { N = sizeof...(A) };
    static const size_t *bytes() {
        static const size_t all[sizeof...(A) + 1] = {sizeof(A)..., 0};
        return all;
    }
    template <int... I> struct numbers {};
    template <int N, int... I> struct count : count<N - 1, N - 1, I...> {};
    template <int... I> struct count<0, I...> { typedef numbers<I...> type; };
    template <int... I> static void call(void (*f)(A...), numbers<I...>) { f(*(A *)arguments[I]...); }
    static void call(void (*f)(A...)) { call(f, typename count<(int)sizeof...(A)>::type()); }
};
template <typename... A> static constexpr called<A...> of(void (*)(A...)) {
    return {};
}

} // namespace on_cpu

extern "C" float on_cpu_expf(float x);

/* Static shared memory lies in a section of each program or library, whose ends the linker knows. */
extern "C" __attribute__((weak, visibility("hidden"))) char __start_on_cpu_shared[], __stop_on_cpu_shared[];

/* Makes a kernel of a library to what a program loads from it: the symbol on_cpu_loaded. */
#define ON_CPU_KERNEL(name)                                                                     \
    static void run_##name() {                                                                  \
        decltype(on_cpu::of(name))::call(name);                                                 \
    }                                                                                           \
    extern "C" __attribute__((visibility("default"))) const on_cpu_kernel on_cpu_loaded = {     \
        run_##name, __start_on_cpu_shared, __stop_on_cpu_shared, decltype(on_cpu::of(name))::N, \
        decltype(on_cpu::of(name))::bytes()};

#define threadIdx on_cpu::thread_index
#define blockIdx on_cpu::block_index
#define gridDim on_cpu::grid_size
#define blockDim on_cpu::block_size
#define __device__
#define __global__
#define __shared__ \
    static __attribute__((section("on_cpu_shared"))) /* NaN at first; gcc forgets it in templates */
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __align__(n) __attribute__((aligned(n)))
#define WITHOUT_PTX /* kernels/ptx.cuh leaves its functions to ptx_on_cpu.h */
#define __syncthreads() on_cpu::barrier(__LINE__)
#define __syncwarp() on_cpu::meet_warp(__LINE__)
#define __threadfence() on_cpu::fence()
#define __nanosleep(ns) on_cpu::give_way()
#define expf on_cpu_expf
#define __expf on_cpu_expf

struct float2 {
    float x, y;
};
struct uint2 {
    unsigned x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
static inline float2 make_float2(float x, float y) {
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}

static inline unsigned lane_below(int by) {
    unsigned lane = threadIdx.x % 32;
    return lane >= (unsigned)by ? lane - (unsigned)by : lane;
}
static inline unsigned lane_above(int by) {
    unsigned lane = threadIdx.x % 32;
    return lane + (unsigned)by < 32 ? lane + (unsigned)by : lane;
}
#define __shfl_xor_sync(mask, value, by) on_cpu::exchange(value, threadIdx.x % 32 ^ (unsigned)(by), __LINE__)
#define __shfl_up_sync(mask, value, by) on_cpu::exchange(value, lane_below(by), __LINE__)
#define __shfl_down_sync(mask, value, by) on_cpu::exchange(value, lane_above(by), __LINE__)
#define __shfl_sync(mask, value, from) on_cpu::exchange(value, (unsigned)(from) % 32, __LINE__)
#define __ballot_sync(mask, bit) on_cpu::ballot(bit, __LINE__)

template <typename T, typename U> static T atomicAdd(T *at, U by) {
    T before = *at;
    *at = (T)(before + (T)by);
    return before;
}

static inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
static inline int __ffs(unsigned x) {
    return __builtin_ffs((int)x);
}
static inline int __clzll(unsigned long long x) {
    return x ? __builtin_clzll(x) : 64;
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    __extension__ typedef unsigned __int128 wide;
    return (unsigned long long)((wide)a * b >> 64);
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const unsigned long long bytes = (unsigned long long)b << 32 | a;
    unsigned out = 0;
    for (int i = 0; i < 4; i++)
        out |= (unsigned)(bytes >> 8 * (selector >> 4 * i & 7u) & 0xFFu) << 8 * i;
    return out;
}
static inline float __uint_as_float(unsigned bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static inline unsigned __float_as_uint(float f) {
    unsigned bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}
static inline float __fmul_rn(float a, float b) {
    return a * b;
}
static inline float __fdividef(float a, float b) {
    return a / b;
}
static inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
template <typename T> static T min(T a, T b) {
    return b < a ? b : a;
}
template <typename T> static T max(T a, T b) {
    return a < b ? b : a;
}

#include "ptx_on_cpu.h"

#endif
