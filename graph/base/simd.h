#ifndef QGC_BASE_SIMD_H
#define QGC_BASE_SIMD_H

/* Before a function whose loops are worth it: gcc then makes a second copy of it for AVX2 and FMA, and the one
 * that suits the CPU is picked when the program starts. So one portable binary is fast. Nothing elsewhere:
 * clang learnt target_clones for C late, and the pick happens before a sanitizer is ready. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define QGC_CLONES __attribute__((target_clones("arch=haswell", "default")))
#else
#define QGC_CLONES
#endif

#endif
