/* The kernel that chooses, for one of several blocks that run at once: on the CPU each has its own copy of the kernel, as
 * static shared memory belongs to the copy. -DBLOCK=number -DVOCAB=... -DTHREADS=... -DSLICE=... */
#include "kernels/cpu/on_cpu.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)
#define SECTION JOIN(block_shared_, BLOCK)
#undef __shared__
#define __shared__ static __attribute__((section(TEXT(SECTION))))
#define sample_merge JOIN(merge_of_block_, BLOCK) // the entry is extern "C"

namespace {
#include "kernels/sample_merge.cu"
} // namespace

extern "C" __attribute__((visibility("hidden"))) char JOIN(__start_, SECTION)[], JOIN(__stop_, SECTION)[];

static void run() {
    decltype(on_cpu::of(sample_merge))::call(sample_merge);
}

extern "C" const on_cpu_kernel JOIN(sample_block_, BLOCK) = {
    run, JOIN(__start_, SECTION), JOIN(__stop_, SECTION), decltype(on_cpu::of(sample_merge))::N,
    decltype(on_cpu::of(sample_merge))::bytes()};
