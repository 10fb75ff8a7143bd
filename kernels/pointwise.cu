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
#ifndef WIDTH /* of a row, where ONE_A_ROW is not 0 */
#define WIDTH 1
#endif

/* Element of input k for element i of the result. */
template <int K> __device__ __forceinline__ float input(const float *in, int i) {
    return K < INPUTS ? in[ONE_A_ROW >> K & 1 ? i / WIDTH : i] : 0.0f;
}

extern "C" __global__ void pointwise(const float *in0, const float *in1, const float *in2, const float *in3,
                                     const float *in4, const float *in5, float *out, i32 n) {
    let_next_start();
    wait_for_previous();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    float a0 = input<0>(in0, i), a1 = input<1>(in1, i), a2 = input<2>(in2, i);
    float a3 = input<3>(in3, i), a4 = input<4>(in4, i), a5 = input<5>(in5, i);
    out[i] = EXPRESSION;
}
