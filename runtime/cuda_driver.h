#ifndef QGC_RUNTIME_CUDA_DRIVER_H
#define QGC_RUNTIME_CUDA_DRIVER_H

#include <cuda.h>

#include "graph/base/diag.h"

/* The entry points of the CUDA driver that qgc uses: name without "cu", declaration in cuda.h, symbol in the
 * library. cuda.h maps names to their newest version (cuMemAlloc is a macro for cuMemAlloc_v2), so the symbol
 * is written out; it is the oldest one that has the signature of the declaration, for the sake of old drivers. */
#define QGC_CUDA_DRIVER(F)                                                                    \
    F(Init, cuInit, "cuInit")                                                                 \
    F(DriverGetVersion, cuDriverGetVersion, "cuDriverGetVersion")                             \
    F(GetErrorName, cuGetErrorName, "cuGetErrorName")                                         \
    F(GetErrorString, cuGetErrorString, "cuGetErrorString")                                   \
    F(DeviceGetCount, cuDeviceGetCount, "cuDeviceGetCount")                                   \
    F(DeviceGet, cuDeviceGet, "cuDeviceGet")                                                  \
    F(DeviceGetName, cuDeviceGetName, "cuDeviceGetName")                                      \
    F(DeviceGetAttribute, cuDeviceGetAttribute, "cuDeviceGetAttribute")                       \
    F(DeviceTotalMem, cuDeviceTotalMem, "cuDeviceTotalMem_v2")                                \
    F(DevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain")           \
    F(DevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2")     \
    F(CtxSetCurrent, cuCtxSetCurrent, "cuCtxSetCurrent")                                      \
    F(MemGetInfo, cuMemGetInfo, "cuMemGetInfo_v2")                                            \
    F(MemAlloc, cuMemAlloc, "cuMemAlloc_v2")                                                  \
    F(MemFree, cuMemFree, "cuMemFree_v2")                                                     \
    F(MemHostAlloc, cuMemHostAlloc, "cuMemHostAlloc")                                         \
    F(MemHostGetDevicePointer, cuMemHostGetDevicePointer, "cuMemHostGetDevicePointer_v2")     \
    F(MemFreeHost, cuMemFreeHost, "cuMemFreeHost")                                            \
    F(MemcpyHtoDAsync, cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2")                             \
    F(MemcpyDtoHAsync, cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2")                             \
    F(MemsetD8Async, cuMemsetD8Async, "cuMemsetD8Async")                                      \
    F(StreamCreate, cuStreamCreate, "cuStreamCreate")                                         \
    F(StreamDestroy, cuStreamDestroy, "cuStreamDestroy_v2")                                   \
    F(StreamSynchronize, cuStreamSynchronize, "cuStreamSynchronize")                          \
    F(StreamQuery, cuStreamQuery, "cuStreamQuery")                                            \
    F(StreamBeginCapture, cuStreamBeginCapture, "cuStreamBeginCapture_v2")                    \
    F(StreamEndCapture, cuStreamEndCapture, "cuStreamEndCapture")                             \
    F(EventCreate, cuEventCreate, "cuEventCreate")                                            \
    F(EventRecord, cuEventRecord, "cuEventRecord")                                            \
    F(EventSynchronize, cuEventSynchronize, "cuEventSynchronize")                             \
    F(EventElapsedTime, cuEventElapsedTime, "cuEventElapsedTime")                             \
    F(EventDestroy, cuEventDestroy, "cuEventDestroy_v2")                                      \
    F(ModuleLoadDataEx, cuModuleLoadDataEx, "cuModuleLoadDataEx")                             \
    F(ModuleGetFunction, cuModuleGetFunction, "cuModuleGetFunction")                          \
    F(ModuleUnload, cuModuleUnload, "cuModuleUnload")                                         \
    F(FuncSetAttribute, cuFuncSetAttribute, "cuFuncSetAttribute")                             \
    F(FuncGetAttribute, cuFuncGetAttribute, "cuFuncGetAttribute")                             \
    F(OccupancyMaxActiveBlocksPerMultiprocessor, cuOccupancyMaxActiveBlocksPerMultiprocessor, \
      "cuOccupancyMaxActiveBlocksPerMultiprocessor")                                          \
    F(LaunchKernelEx, cuLaunchKernelEx, "cuLaunchKernelEx")                                   \
    F(GraphGetNodes, cuGraphGetNodes, "cuGraphGetNodes")                                      \
    F(GraphInstantiate, cuGraphInstantiate, "cuGraphInstantiateWithFlags")                    \
    F(GraphUpload, cuGraphUpload, "cuGraphUpload")                                            \
    F(GraphLaunch, cuGraphLaunch, "cuGraphLaunch")                                            \
    F(GraphExecDestroy, cuGraphExecDestroy, "cuGraphExecDestroy")                             \
    F(GraphDestroy, cuGraphDestroy, "cuGraphDestroy")

typedef struct {
#define MEMBER(name, declaration, symbol) __typeof__(declaration) *name;
    QGC_CUDA_DRIVER(MEMBER)
#undef MEMBER
} qgc_cuda_driver;

/* Fills the table from libcuda.so.1 and calls cuInit. Errors: no driver, a driver without one of the entry
 * points, no GPU; each with what to do. The library stays loaded: it has threads of its own. */
QGC_MUST_USE qgc_status qgc_cuda_driver_load(qgc_cuda_driver *cu, qgc_diag *d);

/* QGC_OK for CUDA_SUCCESS, else an error that names the call and gives CUDA's name and words for `result`. */
QGC_MUST_USE qgc_status qgc_cuda_try(const qgc_cuda_driver *cu, CUresult result, const char *call,
                                     qgc_diag *d);

/* Makes one call through the table and names it in the error. */
#define QGC_CUDA(cu, d, name, ...) qgc_cuda_try((cu), (cu)->name(__VA_ARGS__), "cu" #name, (d))

#endif
