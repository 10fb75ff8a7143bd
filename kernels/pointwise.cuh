/* The pointwise ops as functions, named op_ and the op's name in the YAML. Where several ops are computed together,
 * the compiler is given an expression of them: -DEXPRESSION="op_mul(op_silu(l0),l1)". */
#pragma once

#ifndef APPROXIMATE
#define APPROXIMATE 0
#endif

__device__ __forceinline__ float op_add(float a, float b) { return a + b; }
__device__ __forceinline__ float op_mul(float a, float b) { return a * b; }
#if APPROXIMATE /* to some units in the last place, in a quarter of the time */
__device__ __forceinline__ float op_silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }
#else
__device__ __forceinline__ float op_silu(float x) { return x / (1.0f + expf(-x)); }
#endif
