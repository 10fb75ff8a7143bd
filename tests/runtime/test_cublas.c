/* What qgc declares of cuBLAS, against cuBLAS's own header, where that is. */

#include "runtime/cublas_api.h"
#include "tests/support/cmocka.h"

#if defined(__has_include)
#if __has_include(<cublas_api.h>)
#include <cublas_api.h>
#define HAS_HEADER 1
#endif
#endif

static void declarations_are_those_of_the_header(void **state) {
    (void)state;
#ifdef HAS_HEADER
    assert_int_equal(QGC_CUBLAS_SUCCESS, CUBLAS_STATUS_SUCCESS);
    assert_int_equal(QGC_CUBLAS_DEFAULT_MATH, CUBLAS_DEFAULT_MATH);
    assert_int_equal(QGC_CUBLAS_OP_N, CUBLAS_OP_N);
    assert_int_equal(QGC_CUBLAS_OP_T, CUBLAS_OP_T);
    assert_int_equal(QGC_CUBLAS_32F, CUDA_R_32F);
    assert_int_equal(QGC_CUBLAS_16BF, CUDA_R_16BF);
    assert_int_equal(QGC_CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F);
    assert_int_equal(QGC_CUBLAS_GEMM_DEFAULT, CUBLAS_GEMM_DEFAULT);
    assert_int_equal(sizeof(cublasStatus_t), sizeof(int));
    assert_int_equal(sizeof(cublasComputeType_t), sizeof(int));
    assert_int_equal(sizeof(cublasGemmAlgo_t), sizeof(int));
    /* the number and kinds of the arguments: these calls compile */
    cublasStatus_t (*gemm)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const void *,
                           const void *, cudaDataType, int, const void *, cudaDataType, int, const void *,
                           void *, cudaDataType, int, cublasComputeType_t, cublasGemmAlgo_t) = NULL;
    cublasStatus_t (*workspace)(cublasHandle_t, void *, size_t) = NULL;
    gemm = 1 ? gemm : cublasGemmEx;
    workspace = 1 ? workspace : cublasSetWorkspace_v2;
    assert_true(gemm == NULL && workspace == NULL);
#else
    skip();
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(declarations_are_those_of_the_header)};
    return cmocka_run_group_tests_name("runtime/cublas", tests, NULL, NULL);
}
