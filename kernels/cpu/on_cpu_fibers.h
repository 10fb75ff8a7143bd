#ifndef KERNELS_CPU_ON_CPU_FIBERS_H
#define KERNELS_CPU_ON_CPU_FIBERS_H

/* The threads of kernels as fibers: what on_cpu.cc, which runs a block after the other, and on_cpu_together.cc, which runs all
 * at once, have in common. Nobody else includes it. */

#include "on_cpu.h"

#undef expf
#undef __expf

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#include <deque>
#include <vector>

namespace on_cpu {

enum { MOST_SHARED = 256 << 10 }; /* of a block, dynamic */

/* READY: goes on when it is its turn. */
enum state { READY, AT_WARP, AT_BARRIER, DONE };

struct copy {
    void *to;
    const void *from;
    unsigned bytes;
};

/* Where one that does not run was left. */
struct stack {
#if defined(__x86_64__)
    void *end;
#else
    ucontext_t end;
#endif
    char *bottom;
    size_t bytes;
    void *left; /* the sanitizer's */
};

struct block {
    const on_cpu_kernel *kernel;
    index3 index;
    char *dynamic; /* shared memory */
};

struct fiber {
    block *of;
    unsigned thread;
    stack own;
    bool made; /* so it has to be at its beginning or DONE before it is another block's */
    state where;
    int place;       /* line of the source */
    unsigned number; /* of the barrier, and of threads that meet there; 0: all of the block */
    unsigned meeting;
    void *mine; /* for the warp */
    warp_function *what;
    const volatile void
        *anchor; /* a place from which it loads now and then, with nothing but loads in between, and */
    unsigned rounds, loads; /* how often it has come by there, and how many loads it has done since; */
    unsigned wakes;         /* what had happened to its warp then (on_cpu_together.cc) */
    bool in_vain;           /* it waits for another value in a place that it looked at */
    std::vector<copy> copies;
    std::vector<char> room; /* of room_of_thread */
};

extern fiber *current;

/* Ends the program with what went wrong with this thread. */
[[noreturn]] void broken(const char *what);

/* Numbers that are the same in each run. */
struct randomness {
    uint64_t state;

    uint64_t next() {
        state += 0x9E3779B97F4A7C15u;
        uint64_t z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        return z ^ z >> 31;
    }
    unsigned below(unsigned n) { return (unsigned)(n & (n - 1) ? next() % n : next() & (n - 1)); }
};

/* At least n fibers. They are used again by later launches. */
std::deque<fiber> &fibers(unsigned n);

/* Thread `thread` of a block, READY to begin; and forgets what a fiber was doing, after a launch that was given up. */
void prepare(fiber &f, block *of, unsigned thread);
void forget(fiber &f);

/* Runs lanes of one block, those that are READY, one after the other: each until it gives way. */
void run_lanes(fiber *const *lanes, unsigned n);

/* From a fiber: gives way. */
void give_way_as(state where);

/* What 32 lanes that are AT_WARP came together for; they are READY then. */
void do_together(fiber *const *lanes);

/* Shared memory at the start of a block; and at its end, that nothing was written right after it. */
void clear_shared(block &b, size_t dynamic_bytes);
void check_shared(const block &b, size_t dynamic_bytes);

} // namespace on_cpu

#endif
