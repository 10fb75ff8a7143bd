/* What rows of logits say of the tokens that they are to predict, and how far they are from the rows of
 * another model: runtime/engine/score.h has the numbers. In double precision, as the host computes them;
 * for qgc eval.
 *
 * Grid: a block a row. Reads each row three times, the last two from L2 where all rows fit there. */
#include "common.cuh"

#ifndef THREADS
#define THREADS 512
#endif

/* qgc_row_score of runtime/engine/score.h: [0] of the row, [1] of the other. */
struct row_score {
    double log_sum[2], target[2], top[2], crossed[2];
    double max_drift, squares, kl;
    i32 largest[2], broken[2];
};

/* A logit and its token. */
struct candidate {
    float logit;
    i32 token;
};

__device__ __forceinline__ bool is_finite(float x) {
    return (__float_as_uint(x) & 0x7F800000u) != 0x7F800000u;
}

__device__ __forceinline__ candidate better(candidate a, candidate b) {
    return b.logit > a.logit || (b.logit == a.logit && b.token < a.token) ? b : a;
}

/* What `both` makes of the values of all threads of the block, in one order; every thread gets it. */
template <typename T, typename Both> __device__ T over_block(T x, Both both) {
    __shared__ T part[THREADS];
    __syncthreads(); /* an earlier call may still be reading */
    part[threadIdx.x] = x;
    __syncthreads();
    for (int n = THREADS / 2; n > 0; n /= 2) {
        if (threadIdx.x < n)
            part[threadIdx.x] = both(part[threadIdx.x], part[threadIdx.x + n]);
        __syncthreads();
    }
    return part[0];
}

__device__ double sum_all(double x) {
    return over_block(x, [](double a, double b) { return a + b; });
}

__device__ double max_all(double x) {
    return over_block(x, [](double a, double b) { return b > a ? b : a; });
}

__device__ candidate best_of_all(candidate x) {
    return over_block(x, [](candidate a, candidate b) { return better(a, b); });
}

/* The largest logit of a row, the lowest token of equals, and how many are no numbers or infinite. */
__device__ candidate look(const float *row, i32 vocab, i32 *broken) {
    candidate best = {-INF, 0x7FFFFFFF};
    i32 n = 0;
    for (i32 i = threadIdx.x; i < vocab; i += THREADS) {
        candidate here = {row[i], i};
        n += !is_finite(here.logit);
        best = better(best, here);
    }
    *broken = (i32)sum_all(n);
    return best_of_all(best);
}

__device__ double log_sum_of(const float *row, i32 vocab, float top) {
    double sum = 0;
    for (i32 i = threadIdx.x; i < vocab; i += THREADS)
        sum += exp((double)row[i] - (double)top);
    return (double)top + log(sum_all(sum));
}

__device__ void compare(const float *row, const float *other, i32 vocab, row_score *s) {
    const double sum = s->log_sum[1], shift = sum - s->log_sum[0];
    double kl = 0, squares = 0, most = 0;
    for (i32 i = threadIdx.x; i < vocab; i += THREADS) {
        double its = other[i], difference = its - row[i], p = exp(its - sum);
        squares += difference * difference;
        most = difference > most ? difference : -difference > most ? -difference : most;
        kl += p == 0 ? 0 : p * (difference - shift);
    }
    s->max_drift = max_all(most);
    s->squares = sum_all(squares);
    kl = sum_all(kl);
    s->kl = kl < 0 ? 0 : kl; /* below 0 by rounding */
}

__device__ bool score_one(const float *row, i32 vocab, i32 target, int side, row_score *s) {
    candidate best = look(row, vocab, &s->broken[side]);
    s->largest[side] = best.token;
    if (s->broken[side])
        return false;
    s->top[side] = best.logit;
    s->target[side] = row[target];
    s->log_sum[side] = log_sum_of(row, vocab, best.logit);
    return true;
}

/* `other` may be null: there is none. */
extern "C" __global__ void __launch_bounds__(THREADS)
    score_rows(const float *logits, const float *other, const i32 *targets, row_score *out, i32 vocab) {
    const size_t at = (size_t)blockIdx.x * vocab;
    row_score s = {};
    bool whole = score_one(logits + at, vocab, targets[blockIdx.x], 0, &s);
    if (other)
        whole = score_one(other + at, vocab, targets[blockIdx.x], 1, &s) && whole;
    if (other && whole) {
        s.crossed[0] = logits[at + s.largest[1]];
        s.crossed[1] = other[at + s.largest[0]];
        compare(logits + at, other + at, vocab, &s);
    }
    if (threadIdx.x == 0)
        out[blockIdx.x] = s;
}
