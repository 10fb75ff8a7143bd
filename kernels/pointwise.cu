/* out[i] = EXPRESSION of a0[i], a1[i], ...: one pointwise op or a tree of them.
 *
 * Grid: x covers n; bound by launch. */
#include "common.cuh"
#include "pointwise.cuh"

#ifndef EXPRESSION
#define EXPRESSION op_add(a0, a1)
#endif
#ifndef INPUTS
#define INPUTS 2
#endif

extern "C" __global__ void pointwise(const float *in0, const float *in1, const float *in2, const float *in3,
                                     const float *in4, const float *in5, float *out, i32 n) {
    let_next_start();
    wait_for_previous();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    float a0 = in0[i], a1 = INPUTS > 1 ? in1[i] : 0.0f, a2 = INPUTS > 2 ? in2[i] : 0.0f;
    float a3 = INPUTS > 3 ? in3[i] : 0.0f, a4 = INPUTS > 4 ? in4[i] : 0.0f, a5 = INPUTS > 5 ? in5[i] : 0.0f;
    out[i] = EXPRESSION;
}
