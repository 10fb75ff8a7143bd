#ifndef KERNELS_CPU_ON_CPU_LAUNCH_H
#define KERNELS_CPU_ON_CPU_LAUNCH_H

#include <stddef.h>
#include <stdint.h>

/* What C knows of kernels that run on the CPU (on_cpu.h). */

#ifdef __cplusplus
extern "C" {
#endif

/* In which order the blocks of a launch run, and the warps of a block between two barriers; a larger number is the seed of a
 * random one. */
enum { ON_CPU_FORWARDS, ON_CPU_BACKWARDS, ON_CPU_FROM_THE_MIDDLE, ON_CPU_RANDOM };

/* A kernel; of a library the symbol on_cpu_loaded (ON_CPU_KERNEL). */
typedef struct {
    void (*run)(void);         /* one thread */
    char *shared, *shared_end; /* static shared memory */
    int n_args;
    const size_t *arg_bytes; /* of each argument */
} on_cpu_kernel;

typedef struct {
    unsigned grid[3];
    unsigned threads;
    size_t shared_bytes; /* dynamic */
    int order;
    void **args; /* pointers to the values, as cuLaunchKernel takes them */
} on_cpu_launch_options;

/* Runs all blocks. A kernel that breaks a rule of CUDA ends the program with a message. */
void on_cpu_launch(const on_cpu_kernel *k, const on_cpu_launch_options *o);

/* Runs all blocks at once, along x; what goes on when is drawn, `order` being the seed. kernels[i] is for block i: where the
 * kernel has static shared memory each block needs the kernel of another copy of its library. Returns NULL, or why it was given
 * up: a thread did, or nobody can go on. The text is there until the next launch. */
const char *on_cpu_launch_together(const on_cpu_kernel *const *kernels, const on_cpu_launch_options *o);

/* Bytes that the L2 cache was asked for in all launches so far, and how many of them bulk copies of the same launch then took. */
typedef struct {
    size_t asked, taken;
} on_cpu_ahead;
extern on_cpu_ahead on_cpu_brought_ahead;

#ifdef __cplusplus
}
#endif

#endif
