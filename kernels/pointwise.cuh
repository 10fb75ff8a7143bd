/* The pointwise ops as functions, named op_ and the op's name in the YAML; the words of attributes follow the name, and their numbers
 * the inputs. Where several ops are computed together, the compiler is given an expression of them:
 * -DEXPRESSION="op_mul(op_gelu_tanh(l0),op_scale(l1,0.5f))". */
#pragma once

/* Where an outside value has one number for each row, and not one for each element: bits, for a0 from the lowest on. */
#ifndef ONE_A_ROW
#define ONE_A_ROW 0
#endif

#ifndef APPROXIMATE
#define APPROXIMATE 0
#endif

/* Of N outside values what an expression takes for element `at` of the result, which is in row `row`; of others 0. */
template <int N>
__device__ __forceinline__ void take_outside(const float *const (&in)[4], size_t row, size_t at, float (&a)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++)
        a[i] = i < N ? in[i][ONE_A_ROW >> i & 1 ? row : at] : 0.0f;
}

__device__ __forceinline__ float op_add(float a, float b) { return a + b; }
__device__ __forceinline__ float op_mul(float a, float b) { return a * b; }
__device__ __forceinline__ float op_scale(float x, float factor) { return x * factor; }
__device__ __forceinline__ float op_softcap(float x, float cap) { return cap * tanhf(x / cap); }
__device__ __forceinline__ float op_gelu_none(float x) { return 0.5f * x * (1.0f + erff(0.707106781f * x)); }
#if APPROXIMATE /* to some units in the last place, in a quarter of the time */
__device__ __forceinline__ float op_silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }
__device__ __forceinline__ float op_sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }
/* (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u)) */
__device__ __forceinline__ float op_gelu_tanh(float x) {
    return __fdividef(x, 1.0f + __expf(-1.59576912f * (x + 0.044715f * x * x * x)));
}
#else
__device__ __forceinline__ float op_silu(float x) { return x / (1.0f + expf(-x)); }
__device__ __forceinline__ float op_sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float op_gelu_tanh(float x) {
    return 0.5f * x * (1.0f + tanhf(0.797884561f * (x + 0.044715f * x * x * x)));
}
#endif
