#include "tests/kernels/on_cpu.h"

#undef expf

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>
#include <vector>

/* Where a sanitizer watches stacks, it has to see each change of them. */
#if defined(__SANITIZE_ADDRESS__)
#define SWAP_CONTEXTS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SWAP_CONTEXTS 1
#endif
#endif
#ifndef SWAP_CONTEXTS
#define SWAP_CONTEXTS 0 /* setjmp and longjmp do without a system call */
#endif

/* Shared memory of all kernels in the program, by the linker. */
extern "C" char __start_on_cpu_shared[] __attribute__((weak)), __stop_on_cpu_shared[] __attribute__((weak));

namespace on_cpu {

index3 thread_index, block_index, grid_size, block_size;
bool wobble;

namespace {

enum { STACK = 64 << 10, MAX_THREADS = 1024 };
enum state { READY, AT_WARP, AT_BARRIER, DONE };

struct fiber {
    ucontext_t context;
    jmp_buf jump;
    bool started;
    state where;
    int place;
};

fiber fibers[MAX_THREADS];
#if SWAP_CONTEXTS
ucontext_t scheduler_context;
#else
jmp_buf scheduler_jump;
#endif
unsigned current;
body *kernel_body;
uint64_t left[MAX_THREADS]; /* by the lanes of a warp in an exchange */

[[noreturn]] void broken(const char *what) {
    fprintf(stderr, "on_cpu: block %u, thread %u, line %d: %s\n", block_index.x, current, fibers[current].place, what);
    abort();
}

void to_scheduler(state where) {
    fiber &f = fibers[current];
    f.where = where;
#if SWAP_CONTEXTS
    swapcontext(&f.context, &scheduler_context);
#else
    if (_setjmp(f.jump) == 0)
        _longjmp(scheduler_jump, 1);
#endif
}

/* A fiber is for all blocks: it does one after the other. */
void run_thread() {
    for (;;) {
        kernel_body();
        to_scheduler(DONE);
    }
}

void run(unsigned thread) {
    fiber &f = fibers[thread];
    current = thread;
    thread_index = {thread, 0, 0};
#if SWAP_CONTEXTS
    swapcontext(&scheduler_context, &f.context);
#else
    if (_setjmp(scheduler_jump) == 0) {
        if (f.started)
            _longjmp(f.jump, 1);
        f.started = true;
        setcontext(&f.context);
    }
#endif
}

void prepare(unsigned thread) {
    static std::vector<char> stacks((size_t)STACK * MAX_THREADS);
    fiber &f = fibers[thread];
    f.where = READY;
    if (f.context.uc_stack.ss_sp)
        return;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = stacks.data() + (size_t)STACK * thread;
    f.context.uc_stack.ss_size = STACK;
    f.context.uc_link = nullptr;
    f.started = false;
    makecontext(&f.context, run_thread, 0);
}

/* Runs a warp until all its lanes are at a barrier or done. */
void run_warp(unsigned first, unsigned end) {
    for (;;) {
        unsigned n_exchange = 0, n_other = 0;
        int place = 0;
        for (unsigned t = first; t < end; t++) {
            if (fibers[t].where != DONE && fibers[t].where != AT_BARRIER)
                run(t);
            if (fibers[t].where != AT_WARP) {
                n_other++;
                continue;
            }
            if (n_exchange++ && fibers[t].place != place)
                broken("lanes of a warp are in different exchanges");
            place = fibers[t].place;
        }
        if (n_exchange == 0)
            return;
        if (n_other)
            broken("not all lanes of the warp take part in an exchange");
    }
}

void run_block(unsigned threads) {
    size_t bytes = (size_t)(__stop_on_cpu_shared - __start_on_cpu_shared);
    if (bytes)
        memset(__start_on_cpu_shared, 0xA5, bytes);
    for (unsigned t = 0; t < threads; t++)
        prepare(t);
    for (unsigned waiting = 1; waiting;) {
        int place = 0;
        waiting = 0;
        for (unsigned t = 0; t < threads; t += 32)
            run_warp(t, t + 32 < threads ? t + 32 : threads);
        for (unsigned t = 0; t < threads; t++) {
            if (fibers[t].where != AT_BARRIER)
                continue;
            if (waiting++ && fibers[t].place != place)
                broken("threads of the block are at different barriers");
            place = fibers[t].place;
            fibers[t].where = READY;
        }
    }
}

} // namespace

void barrier(int place) {
    fibers[current].place = place;
    to_scheduler(AT_BARRIER);
}

/* Each lane leaves its value and waits for the others; a lane that goes on first must not overwrite what others still have
 * to read, so all wait once more. */
uint64_t exchange(uint64_t bits, unsigned from, int place) {
    fibers[current].place = place;
    left[current] = bits;
    to_scheduler(AT_WARP);
    uint64_t got = left[current / 32 * 32 + from];
    to_scheduler(AT_WARP);
    return got;
}

unsigned ballot(bool bit, int place) {
    fibers[current].place = place;
    left[current] = bit;
    to_scheduler(AT_WARP);
    unsigned bits = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        bits |= (unsigned)left[current / 32 * 32 + lane] << lane;
    to_scheduler(AT_WARP);
    return bits;
}

void launch(unsigned blocks, unsigned threads, order how, body *kernel) {
    launch(index3{blocks, 1, 1}, threads, how, kernel);
}

void launch(index3 grid, unsigned threads, order how, body *kernel) {
    const unsigned blocks = grid.x * grid.y * grid.z;
    grid_size = grid;
    block_size = {threads, 1, 1};
    kernel_body = kernel;
    for (unsigned i = 0; i < blocks; i++) {
        const unsigned at = how == FORWARDS ? i : how == BACKWARDS ? blocks - 1 - i : (i + blocks / 2) % blocks;
        block_index = {at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y};
        run_block(threads);
    }
}

} // namespace on_cpu

extern "C" float on_cpu_expf(float x) {
    float y = expf(x);
    if (!on_cpu::wobble || !(y > 0.0f) || x == 0.0f)
        return y;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits * 2654435761u) >> 30;
    return bits == 0 ? nextafterf(y, 0.0f) : bits == 1 ? nextafterf(y, 2.0f) : y;
}

extern "C" void on_cpu_wobble(int on) { on_cpu::wobble = on != 0; }
