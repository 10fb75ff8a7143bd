/* table[p, i] = (cos, sin) of p times the frequency of pair i, times SCALE; computed in double and rounded once
 * (arxiv.org/abs/2104.09864). HEAD_DIM elements of a head turn, and FREQUENCY is an expression of `pair` and, where DIVIDES,
 * of its divisor `by`. Runs once when a session starts.
 *
 * Grid: x covers ctx * HEAD_DIM / 2. */
#include "common.cuh"

#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef BASE
#define BASE 1000000.0
#endif
#ifndef FREQUENCY
#define FREQUENCY rope_freqs(pair, BASE)
#endif
#ifndef DIVIDES
#define DIVIDES 0
#endif

#ifndef ORIGINAL /* the divisors are others where there are more positions than that; 0: they are not */
#define ORIGINAL 0
#endif

#if ORIGINAL
#define DIVISORS const float *divisors, const float *long_divisors,
#elif DIVIDES
#define DIVISORS const float *divisors,
#else
#define DIVISORS
#endif

/* The ops of the graph that make frequencies, by their names. */
__device__ __forceinline__ double rope_freqs(int pair, double base) { return pow(base, -2.0 * pair / HEAD_DIM); }
__device__ __forceinline__ double rope_linear(double f, double factor) { return f / factor; }
__device__ __forceinline__ double rope_divide(double f, double by) { return f / by; }
__device__ __forceinline__ double rope_longrope(double f, double by) { return f / by; }
__device__ __forceinline__ double ramp(double x, double from, double to) {
    const double r = (x - from) / (to - from);
    return r < 0.0 ? 0.0 : r > 1.0 ? 1.0 : r;
}
__device__ __forceinline__ double rope_llama3(double f, double factor, double low, double high, double original) {
    const double s = ramp(original * f / 6.283185307179586, low, high);
    return f * ((1.0 - s) / factor + s);
}
__device__ __forceinline__ double rope_yarn(double f, int pair, double factor, double low, double high) {
    const double r = ramp(pair, low, high);
    return f * (1.0 - r) + f / factor * r;
}

extern "C" __global__ void rope_table(float2 *table, DIVISORS i32 ctx) {
    const int HALF = HEAD_DIM / 2;
    i32 at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= ctx * HALF)
        return;
    const int pair = at % HALF;
#if ORIGINAL
    const double by = (ctx > ORIGINAL ? long_divisors : divisors)[pair];
#elif DIVIDES
    const double by = divisors[pair];
#endif
    double angle = (at / HALF) * (FREQUENCY);
#ifdef SCALE
    table[at] = make_float2((float)(cos(angle) * SCALE), (float)(sin(angle) * SCALE));
#else
    table[at] = make_float2((float)cos(angle), (float)sin(angle));
#endif
}
