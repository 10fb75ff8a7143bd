/* What every kernel needs and NVRTC does not bring: conversions of stored numbers, reductions.
 * No CUDA header is included, so that compiling needs no include path. */
#pragma once
#include "ptx.cuh"

/* Stored types. A kernel that reads or writes one is compiled with -DWEIGHT=BF16 or the like. */
#define F32 0
#define F16 1
#define BF16 2

__device__ __forceinline__ float bits_f32(u32 bits) { return __uint_as_float(bits); }

#define INF bits_f32(0x7F800000u)

__device__ __forceinline__ float bf16_f32(u16 h) { return bits_f32((u32)h << 16); }

/* To nearest even, as the CPU evaluator rounds; sm_75 has no instruction for it. */
__device__ __forceinline__ u16 f32_bf16(float f) {
    u32 bits = __float_as_uint(f);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (u16)((bits >> 16) | 0x40u);
    return (u16)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

/* The same, for the low and the high half of a 32-bit word: elements 2i and 2i + 1. */
__device__ __forceinline__ float bf16_low(u32 two) { return bits_f32(two << 16); }
__device__ __forceinline__ float bf16_high(u32 two) { return bits_f32(two & 0xFFFF0000u); }
__device__ __forceinline__ float f16_low(u32 two) { return f16_f32((u16)(two & 0xFFFFu)); }
__device__ __forceinline__ float f16_high(u32 two) { return f16_f32((u16)(two >> 16)); }

/* `stored<TYPE>` gives a type's element, its conversions, and how many of them fill a 16-byte load; of block formats (quantised.cuh)
 * what a lane takes at once. */
template <int TYPE> struct stored;

/* What types have in common of which a matrix is a plain array: rows, and dot products with 16 bytes of one. */
template <typename Stored, typename Elem, int PerLoad> struct array_rows {
    typedef Elem elem;
    typedef uint4 loaded;
    enum { PER_LOAD = PerLoad };

    static __device__ __forceinline__ const elem *row(const elem *matrix, size_t row, int in) { return matrix + row * in; }
    static __device__ __forceinline__ loaded load(const elem *row, int at, int in) { return *(const uint4 *)(row + at); }
    static __device__ __forceinline__ float element(const elem *row, int i, int in) { return Stored::widen(row[i]); }
    /* Elements i .. i+3; i is a multiple of 4. */
    static __device__ __forceinline__ float4 four_elements(const elem *row, int i, int in) {
        if constexpr (sizeof(elem) == 4)
            return *(const float4 *)(row + i);
        else {
            const uint2 v = *(const uint2 *)(row + i);
            return make_float4(Stored::widen((u16)(v.x & 0xFFFFu)), Stored::widen((u16)(v.x >> 16)),
                               Stored::widen((u16)(v.y & 0xFFFFu)), Stored::widen((u16)(v.y >> 16)));
        }
    }
    /* sum + their products with x, whose sum is `total`. */
    static __device__ __forceinline__ float add_dot(const loaded &l, const float *x, float total, float sum) {
        float w[PER_LOAD];
        Stored::widen_load(l, w);
#pragma unroll
        for (int i = 0; i < PER_LOAD; i++)
            sum = fmaf(w[i], x[i], sum);
        return sum;
    }
};

template <> struct stored<F32> : array_rows<stored<F32>, float, 4> {
    static __device__ __forceinline__ float widen(float x) { return x; }
    static __device__ __forceinline__ float narrow(float x) { return x; }
    static __device__ __forceinline__ void widen_load(const uint4 &v, float *out) {
        out[0] = bits_f32(v.x), out[1] = bits_f32(v.y), out[2] = bits_f32(v.z), out[3] = bits_f32(v.w);
    }
};

template <> struct stored<F16> : array_rows<stored<F16>, u16, 8> {
    static __device__ __forceinline__ float widen(u16 x) { return f16_f32(x); }
    static __device__ __forceinline__ u16 narrow(float x) { return f32_f16(x); }
    static __device__ __forceinline__ void widen_load(const uint4 &v, float *out) {
        out[0] = f16_low(v.x), out[1] = f16_high(v.x), out[2] = f16_low(v.y), out[3] = f16_high(v.y);
        out[4] = f16_low(v.z), out[5] = f16_high(v.z), out[6] = f16_low(v.w), out[7] = f16_high(v.w);
    }
};

template <> struct stored<BF16> : array_rows<stored<BF16>, u16, 8> {
    static __device__ __forceinline__ float widen(u16 x) { return bf16_f32(x); }
    static __device__ __forceinline__ u16 narrow(float x) { return f32_bf16(x); }
    static __device__ __forceinline__ void widen_load(const uint4 &v, float *out) {
        out[0] = bf16_low(v.x), out[1] = bf16_high(v.x), out[2] = bf16_low(v.y), out[3] = bf16_high(v.y);
        out[4] = bf16_low(v.z), out[5] = bf16_high(v.z), out[6] = bf16_low(v.w), out[7] = bf16_high(v.w);
    }
};

#include "quantised.cuh"

/* Programmatic dependent launch (sm_90; CUDA programming guide): a kernel may be started while the one before it still runs.
 * Every kernel that is launched so calls both, and before the wait it touches nothing but weights,
 * and what says which of them (ids of experts), where codegen/edges.c finds that to be there; but packed_gemm.cu may do all its
 * work before, beside the launch before it, where codegen/edges.c finds that the two do not meet. As all of them wait, and
 * a wait ends when the whole grid before has ended and so its own wait too, whatever comes after a wait sees everything
 * that was launched earlier, and disturbs none of it. Without such a launch neither does anything.
 *
 * Kernels that load weights early let the next one start only when their own wait is over: its blocks take places as they
 * become free, and those of attention, few and long, then come to lie two on a multiprocessor. */
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
    grid_lets_next_start();
#endif
}

__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    grid_waits();
#endif
}

/* Sum and maximum over the lanes of a warp; every lane gets the result. The order is fixed, so the same
 * inputs give the same bits. */
__device__ __forceinline__ float warp_sum(float x) {
    for (int distance = 16; distance > 0; distance /= 2)
        x += __shfl_xor_sync(0xFFFFFFFFu, x, distance);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
    for (int distance = 16; distance > 0; distance /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, distance));
    return x;
}

/* Over a block of Warps warps; every thread gets the result. */
template <int Warps> __device__ __forceinline__ float block_sum(float x) {
    __shared__ float part[Warps];
    x = warp_sum(x);
    __syncthreads(); /* an earlier call may still be reading */
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0.0f;
    for (int i = 0; i < Warps; i++)
        x += part[i];
    return x;
}

template <int Warps> __device__ __forceinline__ float block_max(float x) {
    __shared__ float part[Warps];
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = x;
    __syncthreads();
    x = part[0];
    for (int i = 1; i < Warps; i++)
        x = fmaxf(x, part[i]);
    return x;
}
