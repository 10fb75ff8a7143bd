#ifndef TESTS_KERNELS_ON_CPU_H
#define TESTS_KERNELS_ON_CPU_H

/* Enough of CUDA to run a kernel on the CPU, so that its logic is tested where there is no GPU: a file that includes this
 * and then a .cu is compiled as C++. Blocks run one after the other, in any order; the threads of a block are fibers that
 * change places at barriers and where a warp exchanges values. Threads of a block that wait at different barriers, or
 * lanes of a warp that do not all take part in an exchange, are an error, and so are blocks that wait for each other. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace on_cpu {

struct index3 {
    unsigned x, y, z;
};

extern index3 thread_index, block_index, grid_size, block_size;

/* Runs one block; `order` of the blocks of a launch: forwards, backwards, or from the middle on. */
typedef void body();
enum order { FORWARDS, BACKWARDS, FROM_THE_MIDDLE };
void launch(unsigned blocks, unsigned threads, order how, body *kernel);
void launch(index3 grid, unsigned threads, order how, body *kernel);

/* `place` is a line of the source. All threads of the block get here; all lanes of the warp leave 8 bytes and get those
 * of lane `from`; or a bit, and get those of all. */
void barrier(int place);
uint64_t exchange(uint64_t bits, unsigned from, int place);
unsigned ballot(bool bit, int place);

/* expf, or with `wobble` one that is an ulp off here and there, as another device's may be. */
extern bool wobble;

} // namespace on_cpu

extern "C" float on_cpu_expf(float x);

#define threadIdx on_cpu::thread_index
#define blockIdx on_cpu::block_index
#define gridDim on_cpu::grid_size
#define blockDim on_cpu::block_size
#define __device__
#define __global__
#define __shared__ static __attribute__((section("on_cpu_shared"))) /* garbage at the start of each block */
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define WITHOUT_PTX /* kernels/ptx.cuh leaves its functions to ptx_on_cpu.h */
#define __syncthreads() on_cpu::barrier(__LINE__)
#define __threadfence() ((void)0)
#define expf on_cpu_expf

struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

template <typename T> static T shuffle(T value, unsigned from, int place) {
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = on_cpu::exchange(bits, from, place);
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline unsigned lane_below(int by) {
    unsigned lane = threadIdx.x % 32;
    return lane >= (unsigned)by ? lane - (unsigned)by : lane;
}
#define __shfl_xor_sync(mask, value, by) shuffle(value, threadIdx.x % 32 ^ (unsigned)(by), __LINE__)
#define __shfl_up_sync(mask, value, by) shuffle(value, lane_below(by), __LINE__)
#define __shfl_sync(mask, value, from) shuffle(value, (unsigned)(from) % 32, __LINE__)
#define __ballot_sync(mask, bit) on_cpu::ballot(bit, __LINE__)

template <typename T, typename U> static T atomicAdd(T *at, U by) {
    T before = *at;
    *at = (T)(before + (T)by);
    return before;
}

static inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
static inline int __clzll(unsigned long long x) {
    return x ? __builtin_clzll(x) : 64;
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    __extension__ typedef unsigned __int128 wide;
    return (unsigned long long)((wide)a * b >> 64);
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
template <typename T> static T min(T a, T b) {
    return b < a ? b : a;
}
template <typename T> static T max(T a, T b) {
    return a < b ? b : a;
}

#include "tests/kernels/ptx_on_cpu.h"

#endif
