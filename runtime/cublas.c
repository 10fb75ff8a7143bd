#include "runtime/cublas.h"

#include <dlfcn.h>
#include <limits.h>
#include <string.h>

#include "graph/base/cuda_places.h"
#include "runtime/cublas_api.h"
#include "runtime/device_impl.h"

static const struct {
    const char *symbol;
    size_t offset;
} entry_points[] = {
#define ROW(name, symbol) {#symbol, offsetof(qgc_cublas_calls, name)},
    ROW(create, cublasCreate_v2) ROW(destroy, cublasDestroy_v2) ROW(set_stream, cublasSetStream_v2)
        ROW(set_workspace, cublasSetWorkspace_v2) ROW(set_math_mode, cublasSetMathMode)
            ROW(status_name, cublasGetStatusName) ROW(status_string, cublasGetStatusString)
                ROW(gemm, cublasGemmEx)
#undef ROW
};

static const char *const names[] = {"libcublas.so.13", "libcublas.so.12"};

/* NVIDIA's advice for sm_90; the others need less. docs.nvidia.com/cuda/cublas, cublasSetWorkspace */
enum { WORKSPACE_BYTES = 32 * 1024 * 1024 };

struct qgc_cublas {
    qgc_cublas_calls call;
    const char *missing; /* NULL: loaded */
    void *handle;
    qgc_address workspace;
};

/* Loads the first library found that has all entry points. The error text of the first place is the one worth showing:
 * the others fail because they are fallbacks. */
static const char *load(qgc_cublas_calls *call, qgc_arena *arena) {
    const char *why = NULL;
    const char **paths = qgc_cuda_candidates(names, sizeof names / sizeof *names, "cublas", arena);
    for (size_t i = 0; paths[i]; i++) {
        void *library = dlopen(paths[i], RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            const char *words = dlerror();
            if (!why)
                why = qgc_arena_strdup(arena, words ? words : "dlopen failed");
            continue;
        }
        size_t n = 0;
        for (; n < sizeof entry_points / sizeof *entry_points; n++) {
            void *found = dlsym(library, entry_points[n].symbol);
            if (!found)
                break;
            memcpy((char *)call + entry_points[n].offset, &found, sizeof found);
        }
        if (n == sizeof entry_points / sizeof *entry_points)
            return NULL;
        why = qgc_arena_printf(arena, "%s has no entry point \"%s\"", paths[i], entry_points[n].symbol);
        dlclose(library);
    }
    return why;
}

const char *qgc_cublas_missing(qgc_device *dev) {
    if (!dev->cublas) {
        dev->cublas = qgc_arena_alloc(dev->arena, sizeof *dev->cublas);
        dev->cublas->missing = load(&dev->cublas->call, dev->arena);
    }
    return dev->cublas->missing;
}

static qgc_status try(const struct qgc_cublas *b, int result, const char *call, qgc_diag *d) {
    if (result == QGC_CUBLAS_SUCCESS)
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "%s failed with %s (%d): %s", call,
                    b->call.status_name(result), result, b->call.status_string(result));
}

/* cuBLAS takes addresses on the device as pointers. */
static void *pointer(qgc_address p) {
    return (void *)(uintptr_t)p; /* NOLINT(performance-no-int-to-ptr): see above */
}

qgc_status qgc_cublas_prepare(qgc_device *dev, qgc_diag *d) {
    const char *missing = qgc_cublas_missing(dev);
    if (missing) {
        qgc_status s = qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "could not load cuBLAS: %s", missing);
        qgc_hint(d, "Install the cuBLAS library of CUDA 12 or 13 where the loader finds it.");
        return s;
    }
    struct qgc_cublas *b = dev->cublas;
    if (!b->handle)
        QGC_TRY(try(b, b->call.create(&b->handle), "cublasCreate", d));
    if (b->workspace)
        return QGC_OK;
    qgc_address workspace;
    QGC_TRY(qgc_device_alloc(dev, "cublas", WORKSPACE_BYTES, &workspace, d));
    qgc_status s = try(b, b->call.set_stream(b->handle, dev->stream), "cublasSetStream", d);
    if (s == QGC_OK)
        /* After SetStream, which goes back to cuBLAS's own workspace. */
        s = try(b, b->call.set_workspace(b->handle, pointer(workspace), WORKSPACE_BYTES),
                "cublasSetWorkspace", d);
    if (s == QGC_OK)
        s = try(b, b->call.set_math_mode(b->handle, QGC_CUBLAS_DEFAULT_MATH), "cublasSetMathMode", d);
    if (s == QGC_OK)
        b->workspace = workspace;
    else
        qgc_device_free(dev, workspace);
    return s;
}

/* cuBLAS counts by columns: what is row-major [r, c] here is [c, r] there with the same bytes. So it computes
 * c^T [n, m] = b [n, k] * a^T [k, m], where it sees b as [k, n], to be transposed, and a as [k, m], as wanted. */
qgc_status qgc_cublas_gemm(qgc_device *dev, const qgc_gemm *g, qgc_diag *d) {
    const struct qgc_cublas *b = dev->cublas;
    if (g->m > INT_MAX || g->n > INT_MAX || g->k > INT_MAX)
        return qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC,
                        "product of [%lld, %lld] and [%lld, %lld] is too large for cuBLAS", (long long)g->m,
                        (long long)g->k, (long long)g->n, (long long)g->k);
    const float one = 1, beta = g->accumulate ? 1 : 0;
    const int m = (int)g->m, n = (int)g->n, k = (int)g->k;
    int r = b->call.gemm(b->handle, QGC_CUBLAS_OP_T, QGC_CUBLAS_OP_N, n, m, k, &one, pointer(g->b),
                         QGC_CUBLAS_16BF, k, pointer(g->a), QGC_CUBLAS_16BF, k, &beta, pointer(g->c),
                         QGC_CUBLAS_32F, n, QGC_CUBLAS_COMPUTE_32F, QGC_CUBLAS_GEMM_DEFAULT);
    return try(b, r, "cublasGemmEx", d);
}

/* The library stays loaded: unloading CUDA libraries is not safe while a context lives. */
void qgc_cublas_close(qgc_device *dev) {
    struct qgc_cublas *b = dev->cublas;
    if (!b || !b->handle)
        return;
    b->call.destroy(b->handle);
    qgc_device_free(dev, b->workspace);
    dev->cublas = NULL;
}
