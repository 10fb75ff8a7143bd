#include "runtime/engine/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A sorted copy; NULL where there is nothing to sort, or not a number. */
static const double *sorted(const double *x, size_t n, qgc_arena *a) {
    for (size_t i = 0; i < n; i++)
        if (isnan(x[i]))
            return NULL;
    if (n == 0)
        return NULL;
    double *copy = qgc_arena_array(a, n, sizeof *copy);
    memcpy(copy, x, n * sizeof *copy);
    qsort(copy, n, sizeof *copy, by_value);
    return copy;
}

static double percentile_of_sorted(const double *x, size_t n, double p) {
    double at = p / 100 * (double)(n - 1);
    size_t below = (size_t)at;
    if (below + 1 >= n)
        return x[n - 1];
    double part = at - (double)below;
    return part == 0 ? x[below] : x[below] + part * (x[below + 1] - x[below]);
}

double qgc_percentile(const double *x, size_t n, double p, qgc_arena *a) {
    const double *s = sorted(x, n, a);
    return s ? percentile_of_sorted(s, n, p) : NAN;
}

double qgc_median(const double *x, size_t n, qgc_arena *a) {
    return qgc_percentile(x, n, 50, a);
}

/* At most k - 1 of n numbers fall below the median with probability P(B < k), B binomial(n, 1/2); an interval leaves out
 * that much on each side. */
size_t qgc_interval_rank(size_t n) {
    double each = -(double)n * log(2), outside = 0; /* the logarithm of P(B = k) */
    size_t k = 0;
    while (k < n / 2) {
        outside += exp(each);
        if (!(2 * outside <= 0.05))
            break;
        each += log((double)(n - k)) - log((double)(k + 1));
        k++;
    }
    return k;
}

qgc_interval qgc_median_interval(const double *x, size_t n, qgc_arena *a) {
    const double *s = sorted(x, n, a);
    if (!s)
        return (qgc_interval){NAN, NAN, NAN};
    size_t k = qgc_interval_rank(n);
    return (qgc_interval){percentile_of_sorted(s, n, 50), k ? s[k - 1] : -INFINITY, k ? s[n - k] : INFINITY};
}

/* The larger of two numbers, and NaN where one is. */
static double larger(double x, double y) {
    return isnan(x) || x >= y ? x : y;
}

/* NaN without its sign, which means nothing and would be printed. */
static double unsigned_nan(double x) {
    return isnan(x) ? NAN : x;
}

qgc_partition qgc_partition_of(const double *logits, int64_t n) {
    int64_t largest = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(logits[i]))
            return (qgc_partition){NAN, -1};
        if (logits[i] > logits[largest])
            largest = i;
    }
    double sum = 1, most = logits[largest]; /* 1: the largest itself */
    for (int64_t i = 0; i < n; i++)
        sum += i == largest ? 0 : exp(logits[i] - most);
    return (qgc_partition){most + log(sum), largest};
}

qgc_drift qgc_drift_of(const double *reference, const double *other, int64_t n) {
    const qgc_partition first = qgc_partition_of(reference, n), second = qgc_partition_of(other, n);
    return qgc_drift_between(reference, &first, other, &second, n);
}

qgc_drift qgc_drift_between(const double *reference, const qgc_partition *of_reference, const double *other,
                            const qgc_partition *of_other, int64_t n) {
    const double sum = of_reference->log_sum, shift = sum - of_other->log_sum;
    double kl = 0;
    qgc_drift x = {.positions = 1, .logits = (double)n};
    for (int64_t i = 0; i < n; i++) {
        double a = reference[i], difference = reference[i] == other[i] ? 0 : a - other[i];
        x.max_drift = larger(x.max_drift, fabs(difference));
        x.squares += difference * difference;
        double p = exp(a - sum);
        kl += p == 0 ? 0 : p * (difference - shift);
    }
    x.max_drift = unsigned_nan(x.max_drift);
    x.squares = unsigned_nan(x.squares);
    x.kl_sum = x.kl_max = kl < 0 ? 0 : unsigned_nan(kl); /* below 0 by rounding */
    x.flips = of_reference->largest != of_other->largest || of_reference->largest < 0;
    return x;
}

void qgc_drift_add(qgc_drift *sum, const qgc_drift *x) {
    sum->positions += x->positions;
    sum->max_drift = larger(sum->max_drift, x->max_drift);
    sum->squares += x->squares;
    sum->logits += x->logits;
    sum->kl_sum += x->kl_sum;
    sum->kl_max = larger(sum->kl_max, x->kl_max);
    sum->flips += x->flips;
}

double qgc_drift_rms(const qgc_drift *x) {
    return unsigned_nan(sqrt(x->squares / x->logits));
}

double qgc_drift_kl(const qgc_drift *x) {
    return unsigned_nan(x->kl_sum / (double)x->positions);
}

int32_t qgc_most_likely(const double *logits, int64_t vocab) {
    int64_t best = 0;
    for (int64_t i = 1; i < vocab; i++)
        best = logits[i] > logits[best] ? i : best;
    return (int32_t)best;
}
