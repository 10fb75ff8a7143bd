#ifndef QGC_ENGINE_STATS_H
#define QGC_ENGINE_STATS_H

#include <stddef.h>
#include <stdint.h>

#include "graph/base/arena.h"

/* The statistics of the laboratory and of evaluation. Not a number (NaN) anywhere in what they are given makes the result NaN: it is never
 * left out, and never smaller than a bound. */

/* The p-th percentile (0 to 100) of n numbers, between neighbours by their distance (type 7 of Hyndman and Fan 1996); 50
 * is the median. NaN for n = 0. Scratch in `a`. */
double qgc_percentile(const double *x, size_t n, double p, qgc_arena *a);
double qgc_median(const double *x, size_t n, qgc_arena *a);

/* A median and an interval that holds that of the population with a probability of at least 95%, whatever the
 * distribution, as long as the numbers are independent: the k-th smallest and the k-th largest of the numbers, k by
 * the binomial distribution of how many are below the median (the interval that belongs to the sign test). For n < 6
 * there is none: low and high are -INFINITY and INFINITY. Median, low and high are NaN where one of the numbers is, and
 * for n = 0. */
typedef struct {
    double median, low, high;
} qgc_interval;
qgc_interval qgc_median_interval(const double *x, size_t n, qgc_arena *a);

/* The largest k for which the k-th smallest and k-th largest of n numbers are such an interval; 0 if there is none. */
size_t qgc_interval_rank(size_t n);

/* How far logits are from those that they are compared with, over some positions. */
typedef struct {
    int64_t positions;
    double max_drift; /* largest absolute difference of two logits */
    double squares;   /* sum of squared differences, of so many logits */
    double logits;
    double kl_sum; /* KL divergence in nats, a position: softmax(reference) against softmax(other) */
    double kl_max;
    int64_t flips; /* positions where the largest logit (the lowest of equals) is another token's */
} qgc_drift;

/* Of the `n` logits of one position, at least one. Equal infinities differ by 0. Where there is a NaN the drift and
 * divergence are NaN, and the position counts as a flip. */
qgc_drift qgc_drift_of(const double *reference, const double *other, int64_t n);

/* Of n logits, at least one: the logarithm of the sum of their exponentials, and the token of the largest (the lowest of
 * equals); NaN and -1 where one is not a number. */
typedef struct {
    double log_sum;
    int64_t largest;
} qgc_partition;
qgc_partition qgc_partition_of(const double *logits, int64_t n);

/* qgc_drift_of where those of the two are known. */
qgc_drift qgc_drift_between(const double *reference, const qgc_partition *of_reference, const double *other,
                            const qgc_partition *of_other, int64_t n);

/* Adds the positions of `x`. */
void qgc_drift_add(qgc_drift *sum, const qgc_drift *x);

/* Root of the mean square of the differences; mean KL divergence of a position. NaN where there are no positions. */
double qgc_drift_rms(const qgc_drift *x);
double qgc_drift_kl(const qgc_drift *x);

/* The token of the largest of `vocab` logits, the lowest of equals. */
int32_t qgc_most_likely(const double *logits, int64_t vocab);

#endif
