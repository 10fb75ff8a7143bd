/* out = EXPRESSION of l0 = x / sqrt(mean(x^2) + EPS) * weight, over groups of D (arxiv.org/abs/1910.07467), and of the same
 * elements a0, a1, ... of outside values, or the only one of their row (ONE_A_ROW).
 *
 * Grid: x = groups. A block reads its group once into registers and writes it once; bound by launch. */
#include "common.cuh"
#include "pointwise.cuh"

#ifndef D
#define D 896
#endif
#ifndef EPS
#define EPS 1e-6f
#endif
#ifndef THREADS
#define THREADS 256
#endif

#ifndef EXPRESSION
#define EXPRESSION l0
#endif
#ifndef INPUTS /* outside values */
#define INPUTS 0
#endif
#if INPUTS
#define INPUT_PARAMETERS const float *in0, const float *in1, const float *in2, const float *in3,
#else
#define INPUT_PARAMETERS
#endif

/* Of input k for element `at` of this group, which is a whole row then. */
template <int K> __device__ __forceinline__ float input(const float *in, int at) {
    return K < INPUTS ? in[ONE_A_ROW >> K & 1 ? (size_t)blockIdx.x : (size_t)blockIdx.x * D + at] : 0.0f;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    rms_norm(const float *x, const float *weight, INPUT_PARAMETERS float *out) {
    let_next_start();
    wait_for_previous();
    const int PER_THREAD = (D + THREADS - 1) / THREADS;
    float v[PER_THREAD];
    x += (size_t)blockIdx.x * D;
    out += (size_t)blockIdx.x * D;

    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        int at = i * THREADS + threadIdx.x;
        v[i] = at < D ? x[at] : 0.0f;
        squares += v[i] * v[i];
    }
    float scale = 1.0f / sqrtf(block_sum<THREADS / 32>(squares) / D + EPS);
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        int at = i * THREADS + threadIdx.x;
        if (at < D) {
            float l0 = v[i] * scale * weight[at];
#if INPUTS
            float a0 = input<0>(in0, at), a1 = input<1>(in1, at), a2 = input<2>(in2, at), a3 = input<3>(in3, at);
#endif
            out[at] = EXPRESSION;
        }
    }
}
