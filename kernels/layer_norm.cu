/* out = (x - mean) / sqrt(mean of (x - mean)^2 + EPS) * weight + bias, over rows of D (arxiv.org/abs/1607.06450).
 *
 * Grid: x = rows. A block reads its row once into registers and writes it once; bound by launch. */
#include "common.cuh"

#ifndef D
#define D 896
#endif
#ifndef EPS
#define EPS 1e-5f
#endif
#ifndef THREADS
#define THREADS 256
#endif
#ifndef BIAS
#define BIAS 1
#endif

#if BIAS
#define BIAS_PARAMETER const float *bias,
#else
#define BIAS_PARAMETER
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
    layer_norm(const float *x, const float *weight, BIAS_PARAMETER float *out) {
    let_next_start();
    wait_for_previous();
    const int PER_THREAD = (D + THREADS - 1) / THREADS;
    float v[PER_THREAD];
    x += (size_t)blockIdx.x * D;
    out += (size_t)blockIdx.x * D;

    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        int at = i * THREADS + threadIdx.x;
        v[i] = at < D ? x[at] : 0.0f;
        sum += v[i];
    }
    const float mean = block_sum<THREADS / 32>(sum) / D;
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        v[i] = i * THREADS + threadIdx.x < D ? v[i] - mean : 0.0f;
        squares += v[i] * v[i];
    }
    const float scale = 1.0f / sqrtf(block_sum<THREADS / 32>(squares) / D + EPS);
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        int at = i * THREADS + threadIdx.x;
        if (at < D) {
            float y = v[i] * scale * weight[at];
#if BIAS
            y += bias[at];
#endif
            out[at] = y;
        }
    }
}
