#include "graph/real.h"

#include <math.h>
#include <string.h>

#include "graph/base/simd.h"

/* Compiled twice, as the references are. */

const qgc_real *qgc_reals(const qgc_call *call, int i) {
    const qgc_operand *o = &call->in[i];
    if (o->is_real)
        return o->data;
    int64_t n = 1;
    for (int k = 0; k < o->rank; k++)
        n *= o->dim[k];
    qgc_real *wide = qgc_arena_array(call->scratch, (size_t)n, sizeof *wide);
    qgc_read_reals(o, 0, wide, n);
    return wide;
}

#ifdef QGC_DOUBLE

/* Widened so many at a time: a multiple of every block. */
enum { PIECE = 256 };

static void read_stored(qgc_dtype dtype, const char *from, double *to, int64_t n) {
    float some[PIECE];
    for (int64_t at = 0; at < n; at += PIECE) {
        const int64_t k = n - at < PIECE ? n - at : PIECE;
        qgc_to_f32(dtype, from + qgc_dtype_bytes(dtype, at), some, k);
        for (int64_t i = 0; i < k; i++)
            to[at + i] = (double)some[i];
    }
}

/* A float that any type of fewer bits rounds as it would x: towards zero, with the last bit set where that
 * is not x. */
static float to_odd(double x) {
    float f = (float)x;
    uint32_t bits;
    if ((double)f == x || isnan(x))
        return f;
    memcpy(&bits, &f, sizeof bits);
    if (fabs((double)f) > fabs(x))
        bits--;
    bits |= 1;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static void write_stored(qgc_dtype dtype, const double *from, char *to, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const float f = to_odd(from[i]);
        qgc_from_f32(dtype, &f, to + qgc_dtype_bytes(dtype, i), 1);
    }
}

#else

static void read_stored(qgc_dtype dtype, const char *from, float *to, int64_t n) {
    qgc_to_f32(dtype, from, to, n);
}

static void write_stored(qgc_dtype dtype, const float *from, char *to, int64_t n) {
    qgc_from_f32(dtype, from, to, n);
}

#endif

void qgc_read_reals(const qgc_operand *o, int64_t first, qgc_real *to, int64_t n) {
    if (o->is_real)
        memcpy(to, (const qgc_real *)o->data + first, (size_t)n * sizeof *to);
    else
        read_stored(o->dtype, (const char *)o->data + qgc_dtype_bytes(o->dtype, first), to, n);
}

void qgc_write_reals(const qgc_operand *o, int64_t first, const qgc_real *from, int64_t n) {
    if (o->is_real)
        memcpy((qgc_real *)o->data + first, from, (size_t)n * sizeof *from);
    else
        write_stored(o->dtype, from, (char *)o->data + qgc_dtype_bytes(o->dtype, first), n);
}

/* A pass of the whole without a branch first, as there mostly is none: x - x is 0 for numbers only. */
QGC_CLONES
int64_t qgc_find_not_finite(const qgc_real *x, int64_t n) {
    qgc_real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i] - x[i];
    if (sum == 0)
        return n;
    int64_t i = 0;
    while (i < n && isfinite(x[i]))
        i++;
    return i;
}
