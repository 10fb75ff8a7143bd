#ifndef QGC_CUBLAS_API_H
#define QGC_CUBLAS_API_H

#include <stddef.h>

/* Of cuBLAS 12 and 13 what runtime/cublas.c calls, so that its header, which comes with 600 MB of library, need not be there
 * where qgc is built: the library is loaded when it is first needed. tests/runtime/test_cublas.c compares this with the
 * header where there is one. */

enum {
    QGC_CUBLAS_SUCCESS = 0,
    QGC_CUBLAS_DEFAULT_MATH = 0,
    QGC_CUBLAS_OP_N = 0,
    QGC_CUBLAS_OP_T = 1,
    QGC_CUBLAS_32F = 0,   /* cudaDataType */
    QGC_CUBLAS_16BF = 14, /* likewise */
    QGC_CUBLAS_COMPUTE_32F = 68,
    QGC_CUBLAS_GEMM_DEFAULT = -1
};

/* Enumerations are int, handles and streams pointers. */
typedef struct {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, void *stream);
    int (*set_workspace)(void *handle, void *workspace, size_t bytes);
    int (*set_math_mode)(void *handle, int mode);
    const char *(*status_name)(int status);
    const char *(*status_string)(int status);
    int (*gemm)(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a,
                int type_a, int lda, const void *b, int type_b, int ldb, const void *beta, void *c,
                int type_c, int ldc, int compute, int algorithm);
} qgc_cublas_calls;

#endif
