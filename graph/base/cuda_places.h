#ifndef QGC_BASE_CUDA_PLACES_H
#define QGC_BASE_CUDA_PLACES_H

#include "graph/base/arena.h"

/* Where libraries of the CUDA toolkit may be, which are loaded when they are first needed. In this order:
 *   1. $CUDA_PATH, then $CUDA_HOME: lib64 and lib
 *   2. the bare name: what the loader finds (LD_LIBRARY_PATH, the system)
 *   3. the toolkit that qgc was configured with, /usr/local/cuda, /opt/cuda
 *   4. NVIDIA's Python wheels: ~/.local/share/qgc/cuda, which the hint of qgc_cuda_install fills; $VIRTUAL_ENV, $CONDA_PREFIX;
 *      the user's and the system's site-packages */

/* Paths for dlopen of the library by any of its `names` (n of them: "libnvrtc.so.13", "libnvrtc.so.12"),
 * the first ones to be tried first. `wheel` is the folder in which wheels before CUDA 13 have it
 * ("cuda_nvrtc"). Files of 3 and 4 that are not there are left out. Ended by NULL, in the arena. */
const char **qgc_cuda_candidates(const char *const *names, size_t n_names, const char *wheel, qgc_arena *a);

/* The one command that brings a library as a Python wheel ("nvidia-cuda-nvrtc"), to where qgc finds it. */
const char *qgc_cuda_install(const char *wheel, qgc_arena *a);

#endif
