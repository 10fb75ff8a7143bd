#ifndef TESTS_KERNELS_CPU_KERNELS_H
#define TESTS_KERNELS_CPU_KERNELS_H

#include "codegen/lower.h"
#include "tests/support/fake_device.h"

/* The kernels of a plan, compiled by the C++ compiler of this machine (on_cpu.h), so that a program runs on a device in host
 * memory (fake_device.h) as it does on a GPU. */

/* Makes images of all kernels, for `arch` ("sm_80"): libraries in the folder QGC_CPU_KERNELS, of which those that are not there yet
 * are compiled when they are first launched. Then the test fails if one does not compile. */
void cpu_kernels_build(const qgc_lowered *lowered, const char *arch, qgc_arena *a);

/* The path of the library of one kernel, or NULL where it does not compile. */
const char *cpu_kernels_compile(const qgc_plan_kernel *k, const qgc_kernel_job *job, const char *arch,
                                qgc_arena *a);

/* A device that runs them, of that architecture (90) with so many multiprocessors, up to 16; `*order`, of blocks and warps, is
 * looked at in each launch (on_cpu_launch.h). */
qgc_device *cpu_device_new(int arch, int sms, const int *order);

#endif
