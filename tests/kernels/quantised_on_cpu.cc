/* What kernels read of rows of block formats, for a test in C. */
#include "kernels/cpu/on_cpu.h"

namespace {
#include "kernels/common.cuh"

template <int Type> void widen(const u8 *matrix, int row, int n, float *loads, float *elements, float *fours) {
    typedef stored<Type> s;
    const u8 *from = s::row(matrix, row, n);
    for (int i = 0; i < n; i += 8)
        s::widen_load(s::load(from, i, n), loads + i);
    for (int i = 0; i < n; i++)
        elements[i] = s::element(from, i, n);
    for (int i = 0; i < n; i += 4) {
        const float4 four = s::four_elements(from, i, n);
        fours[i] = four.x, fours[i + 1] = four.y, fours[i + 2] = four.z, fours[i + 3] = four.w;
    }
}

template <int Type> float dot(const u8 *matrix, int row, int n, const float *x) {
    typedef stored<Type> s;
    float sum = 0.0f;
    for (int i = 0; i < n; i += 8) {
        float total = 0.0f;
        for (int j = 0; j < 8; j++)
            total += x[i + j];
        sum = s::add_dot(s::load(s::row(matrix, row, n), i, n), x + i, total, sum);
    }
    return sum;
}
} // namespace

/* Row `row` of a matrix of rows of n elements, read in three ways, and its product with x. -1 if no kernel knows the format. */
extern "C" int quantised_row(const char *type, const unsigned char *matrix, int row, int n, const float *x, float *loads,
                             float *elements, float *fours, float *product) {
#define TYPE(name, number)                                            \
    if (strcmp(type, name) == 0) {                                    \
        widen<number>(matrix, row, n, loads, elements, fours);        \
        *product = dot<number>(matrix, row, n, x);                    \
        return stored<number>::row_bytes(n);                          \
    }
    TYPE("q8_0", Q8_0)
    TYPE("q4_0", Q4_0)
    TYPE("q4_1", Q4_1)
    TYPE("q5_0", Q5_0)
    TYPE("q5_1", Q5_1)
    TYPE("q4_k", Q4_K)
    TYPE("q5_k", Q5_K)
    TYPE("q6_k", Q6_K)
    return -1;
}
