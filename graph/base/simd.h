#ifndef QGC_BASE_SIMD_H
#define QGC_BASE_SIMD_H

/* QGC_CLONES stands before a function whose loops are worth it: gcc then makes a second copy of it for CPUs with
 * AVX2 and FMA, and the one that suits is picked when the program starts. So one portable binary is fast. It is
 * nothing elsewhere: clang learnt target_clones for C late, and the pick happens before a sanitizer is ready.
 * ("arch=haswell" would be picked on that one Intel CPU only.)
 *
 * What such a function calls has to be QGC_INLINE, or it stays without AVX2. */
#if defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__) && defined(__x86_64__) && \
    defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define QGC_CLONES __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define QGC_CLONES
#endif

#define QGC_INLINE static inline __attribute__((always_inline))

#endif
