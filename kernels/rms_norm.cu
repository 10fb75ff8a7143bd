/* out = x / sqrt(mean(x^2) + EPS) * weight, over groups of D (arxiv.org/abs/1910.07467).
 *
 * Grid: x = groups. A block reads its group once into registers and writes it once; bound by launch. */
#include "common.cuh"

#ifndef D
#define D 896
#endif
#ifndef EPS
#define EPS 1e-6f
#endif
#ifndef THREADS
#define THREADS 256
#endif

extern "C" __global__ void __launch_bounds__(THREADS) rms_norm(const float *x, const float *weight, float *out) {
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
        if (at < D)
            out[at] = v[i] * scale * weight[at];
    }
}
