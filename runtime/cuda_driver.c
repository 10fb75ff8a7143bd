#include "runtime/cuda_driver.h"

#include <dlfcn.h>
#include <string.h>

typedef struct {
    const char *symbol;
    size_t offset; /* of the member in qgc_cuda_driver */
} entry_point;

static const entry_point entry_points[] = {
#define ROW(name, declaration, symbol) {symbol, offsetof(qgc_cuda_driver, name)},
    QGC_CUDA_DRIVER(ROW)
#undef ROW
};

static qgc_status fill(qgc_cuda_driver *cu, void *library, qgc_diag *d) {
    for (size_t i = 0; i < sizeof entry_points / sizeof *entry_points; i++) {
        void *found = dlsym(library, entry_points[i].symbol);
        if (!found) {
            qgc_status s = qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC,
                                    "the CUDA driver has no entry point \"%s\"", entry_points[i].symbol);
            qgc_hint(d, "The NVIDIA driver is too old: CUDA 12 or newer is needed.");
            return s;
        }
        /* ISO C has no conversion from object to function pointers; POSIX says that the bytes are the same. */
        memcpy((char *)cu + entry_points[i].offset, &found, sizeof found);
    }
    return QGC_OK;
}

qgc_status qgc_cuda_driver_load(qgc_cuda_driver *cu, qgc_diag *d) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        qgc_status s = qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "no CUDA driver: %s", dlerror());
        qgc_hint(d, "Install the NVIDIA driver, or start the container with access to the GPUs (--gpus all); "
                    "compiling and the CPU evaluator need none.");
        return s;
    }
    QGC_TRY(fill(cu, library, d));
    CUresult r = cu->Init(0);
    if (r == CUDA_ERROR_NO_DEVICE) {
        qgc_status s = qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "the CUDA driver shows no GPU");
        qgc_hint(d, "Look at what nvidia-smi lists and at CUDA_VISIBLE_DEVICES.");
        return s;
    }
    return qgc_cuda_try(cu, r, "cuInit", d);
}

/* Errors after which every call on the context fails alike: it was a kernel launched before. */
static bool is_fault(CUresult r) {
    return r == CUDA_ERROR_ILLEGAL_ADDRESS || r == CUDA_ERROR_MISALIGNED_ADDRESS ||
           r == CUDA_ERROR_LAUNCH_FAILED || r == CUDA_ERROR_ILLEGAL_INSTRUCTION ||
           r == CUDA_ERROR_INVALID_PC || r == CUDA_ERROR_HARDWARE_STACK_ERROR ||
           r == CUDA_ERROR_INVALID_ADDRESS_SPACE || r == CUDA_ERROR_ASSERT;
}

qgc_status qgc_cuda_try(const qgc_cuda_driver *cu, CUresult result, const char *call, qgc_diag *d) {
    if (result == CUDA_SUCCESS)
        return QGC_OK;
    const char *name = NULL, *words = NULL;
    if (cu->GetErrorName(result, &name) != CUDA_SUCCESS || !name)
        name = "an unknown error";
    if (cu->GetErrorString(result, &words) != CUDA_SUCCESS || !words)
        words = "the driver has no words for it";
    qgc_status s =
        qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "%s failed with %s (%d): %s", call, name, (int)result, words);
    if (is_fault(result))
        qgc_hint(
            d,
            "A kernel launched before this call is at fault; compute-sanitizer, with every kernel launched "
            "by itself (stream mode), tells which.");
    else if (result == CUDA_ERROR_LAUNCH_TIMEOUT)
        qgc_hint(d, "The GPU also drives a display and stops kernels that take seconds.");
    return s;
}
