#ifndef QGC_LAB_RANDOM_H
#define QGC_LAB_RANDOM_H

#include <stdint.h>

/* The next number of a sequence that `*state` begins, all 64 bits of it: splitmix64 (prng.di.unimi.it/splitmix64.c). */
static inline uint64_t qgc_random(uint64_t *state) {
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

#endif
