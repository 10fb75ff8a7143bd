#ifndef TESTS_SUPPORT_RANDOM_H
#define TESTS_SUPPORT_RANDOM_H

#include <stdint.h>

/* splitmix64: numbers for tests, the same everywhere. */
static inline uint64_t test_random(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* In [-1, 1). */
static inline float test_random_float(uint64_t *state) {
    return (float)(test_random(state) >> 40) / (float)(1 << 23) - 1.0f;
}

#endif
