#include "tests/kernels/on_cpu.h"

#undef expf

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <vector>

/* A sanitizer is told of each change of stacks. */
#if defined(__SANITIZE_ADDRESS__)
#define WATCHED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WATCHED 1
#endif
#endif
#ifdef WATCHED
extern "C" void __sanitizer_start_switch_fiber(void **left, const void *bottom, size_t bytes);
extern "C" void __sanitizer_finish_switch_fiber(void *left, const void **from_bottom, size_t *from_bytes);
#else
static void __sanitizer_start_switch_fiber(void **, const void *, size_t) {}
static void __sanitizer_finish_switch_fiber(void *, const void **, size_t *) {}
#endif

/* Where a few instructions change stacks nothing else has to, for that takes a system call. */
#if defined(__x86_64__)
#define BY_HAND 1
/* Leaves what a function keeps for its caller on this stack, whose end goes to *from, and goes on where another was left. */
extern "C" void on_cpu_change_stacks(void **from, void *to);
asm(".text\n"
    ".type on_cpu_change_stacks, @function\n"
    "on_cpu_change_stacks:\n"
    "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
    "    ret\n"
    ".size on_cpu_change_stacks, . - on_cpu_change_stacks\n");
#else
#define BY_HAND 0
#include <ucontext.h>
#endif

namespace on_cpu {

index3 thread_index, block_index, grid_size, block_size;
void **arguments;
char *dynamic_shared;
bool wobble;

namespace {

enum { STACK = 256 << 10, MAX_THREADS = 1024, MOST_SHARED = 256 << 10 };
enum state { READY, AT_WARP, AT_BARRIER, DONE };

struct copy {
    void *to;
    const void *from;
};

/* Where one that does not run was left. */
struct stack {
#if BY_HAND
    void *end;
#else
    ucontext_t end;
#endif
    const void *bottom;
    size_t bytes;
    void *left; /* the sanitizer's */
};

struct fiber {
    stack own;
    state where;
    int place;
    void *mine; /* for the warp */
    warp_function *what;
    std::vector<copy> copies;
};

fiber fibers[MAX_THREADS];
stack scheduler;
unsigned current;
body *kernel_body;
char *static_shared, *static_shared_end;
alignas(128) char dynamic_room[MOST_SHARED];

[[noreturn]] void broken(const char *what) {
    fprintf(stderr, "on_cpu: block %u %u %u, thread %u, line %d: %s\n", block_index.x, block_index.y,
            block_index.z, current, fibers[current].place, what);
    abort();
}

/* --- orders ----------------------------------------------------------------------------------------------- */

/* Which of n things comes at turn i: as an order says, in a random one by a walk of its own for each launch. */
struct turns {
    int how;
    uint64_t state;

    uint64_t random() {
        state += 0x9E3779B97F4A7C15u;
        uint64_t z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        return z ^ z >> 31;
    }
    void lay_out(std::vector<unsigned> &order, unsigned n) {
        order.resize(n);
        for (unsigned i = 0; i < n; i++)
            order[i] = how == ON_CPU_BACKWARDS         ? n - 1 - i
                       : how == ON_CPU_FROM_THE_MIDDLE ? (i + n / 2) % n
                                                       : i;
        for (unsigned i = n; how >= ON_CPU_RANDOM && i > 1; i--) {
            const unsigned j = (unsigned)(random() % i), held = order[i - 1];
            order[i - 1] = order[j];
            order[j] = held;
        }
    }
};

/* --- fibers ----------------------------------------------------------------------------------------------- */

void change(stack &from, stack &to) {
    __sanitizer_start_switch_fiber(&from.left, to.bottom, to.bytes);
#if BY_HAND
    on_cpu_change_stacks(&from.end, to.end);
#else
    swapcontext(&from.end, &to.end);
#endif
    __sanitizer_finish_switch_fiber(from.left, nullptr, nullptr);
}

void to_scheduler(state where) {
    fibers[current].where = where;
    change(fibers[current].own, scheduler);
}

/* A fiber is for all blocks: it does one after the other. */
void run_thread() {
    __sanitizer_finish_switch_fiber(nullptr, &scheduler.bottom, &scheduler.bytes);
    for (;;) {
        kernel_body();
        to_scheduler(DONE);
    }
}

void run(unsigned thread) {
    current = thread;
    thread_index = {thread, 0, 0};
    change(scheduler, fibers[thread].own);
}

/* Room for the stacks of all fibers, of which the system gives what is used. */
char *stacks() {
    static char *all = nullptr;
    if (!all) {
        void *room = mmap(nullptr, (size_t)STACK * (MAX_THREADS + 1), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (room == MAP_FAILED) {
            perror("on_cpu: stacks");
            abort();
        }
        all = (char *)room + STACK;
    }
    return all;
}

void begin(stack &own, char *bottom) {
    own.bottom = bottom;
    own.bytes = STACK;
#if BY_HAND
    void **top = (void **)(bottom + STACK); /* six registers, where to begin, and nowhere to return to */
    memset(top - 8, 0, 8 * sizeof *top);
    top[-2] = (void *)run_thread;
    own.end = top - 8;
#else
    getcontext(&own.end);
    own.end.uc_stack.ss_sp = bottom;
    own.end.uc_stack.ss_size = STACK;
    own.end.uc_link = nullptr;
    makecontext(&own.end, run_thread, 0);
#endif
}

void prepare(unsigned thread) {
    fiber &f = fibers[thread];
    f.where = READY;
    f.copies.clear();
    if (!f.own
             .bottom) /* not at the same place of each page, where all would have the same few lines of the cache */
        begin(f.own, stacks() + (size_t)STACK * thread - thread * 832 % 16384);
}

/* What the lanes of a warp have come together for. */
void do_together(unsigned first) {
    void *lanes[32];
    for (unsigned lane = 0; lane < 32; lane++) {
        fiber &f = fibers[first + lane];
        if (f.place != fibers[first].place || f.what != fibers[first].what)
            broken("lanes of a warp are at different places");
        lanes[lane] = f.mine;
        f.where = READY;
    }
    fibers[first].what(lanes);
}

/* Runs a warp until all its lanes are at a barrier or done. */
void run_warp(unsigned first, unsigned end) {
    for (;;) {
        unsigned n_together = 0;
        for (unsigned t = first; t < end; t++) {
            if (fibers[t].where == READY)
                run(t);
            n_together += fibers[t].where == AT_WARP;
        }
        if (n_together == 0)
            return;
        if (n_together != 32)
            broken("not all lanes of the warp take part");
        do_together(first);
    }
}

/* All threads have gone as far as they get: those that wait do so at one barrier. How many they are. */
unsigned pass_barrier(unsigned threads) {
    unsigned waiting = 0;
    int place = 0;
    for (unsigned t = 0; t < threads; t++) {
        if (fibers[t].where != AT_BARRIER)
            continue;
        if (waiting++ && fibers[t].place != place)
            broken("threads of the block are at different barriers");
        place = fibers[t].place;
        fibers[t].where = READY;
    }
    return waiting;
}

void run_block(unsigned threads, size_t shared_bytes, turns &by) {
    static std::vector<unsigned> warps;
    if (static_shared)
        memset(static_shared, 0xFF, (size_t)(static_shared_end - static_shared));
    memset(dynamic_room, 0xFF, shared_bytes);
    for (unsigned t = 0; t < threads; t++)
        prepare(t);
    do {
        by.lay_out(warps, (threads + 31) / 32);
        for (unsigned warp : warps)
            run_warp(32 * warp, 32 * warp + 32 < threads ? 32 * warp + 32 : threads);
    } while (pass_barrier(threads) > 0);
}

void run_blocks(unsigned threads, size_t shared_bytes, int order) {
    static std::vector<unsigned> blocks;
    static uint64_t launches;
    turns by = {order, (uint64_t)order << 32 | launches++};
    by.lay_out(blocks, grid_size.x * grid_size.y * grid_size.z);
    for (unsigned at : blocks) {
        block_index = {at % grid_size.x, at / grid_size.x % grid_size.y, at / grid_size.x / grid_size.y};
        run_block(threads, shared_bytes, by);
    }
}

} // namespace

void barrier(int place) {
    fibers[current].place = place;
    to_scheduler(AT_BARRIER);
}

void together(void *mine, warp_function *what, int place) {
    fiber &f = fibers[current];
    f.place = place;
    f.mine = mine;
    f.what = what;
    to_scheduler(AT_WARP);
}

void copy_later(void *to, const void *from) {
    fibers[current].copies.push_back({to, from});
}

void copies_done() {
    for (const copy &c : fibers[current].copies)
        memcpy(c.to, c.from, 16);
    fibers[current].copies.clear();
}

/* Dynamic shared memory is counted from 0. Static is that of the kernel's program or library, so it lies near its code. */
static char *near_code() {
    return (char *)kernel_body - (1 << 30);
}

unsigned shared_address(const void *p) {
    const char *at = (const char *)p;
    if (at >= dynamic_room && at < dynamic_room + MOST_SHARED)
        return (unsigned)(at - dynamic_room);
    if (at < near_code() + MOST_SHARED || at >= near_code() + (2U << 30))
        broken("an address that is not in shared memory");
    return (unsigned)(at - near_code());
}

void *shared_pointer(unsigned address) {
    return (address < MOST_SHARED ? dynamic_room : near_code()) + address;
}

void launch(unsigned blocks, unsigned threads, int order, body *kernel) {
    launch(index3{blocks, 1, 1}, threads, order, kernel);
}

void launch(index3 grid, unsigned threads, int order, body *kernel) {
    const on_cpu_kernel k = {kernel, __start_on_cpu_shared, __stop_on_cpu_shared, 0, nullptr};
    const on_cpu_launch_options o = {{grid.x, grid.y, grid.z}, threads, 0, order, nullptr};
    on_cpu_launch(&k, &o);
}

} // namespace on_cpu

extern "C" void on_cpu_launch(const on_cpu_kernel *k, const on_cpu_launch_options *o) {
    using namespace on_cpu;
    grid_size = {o->grid[0], o->grid[1], o->grid[2]};
    block_size = {o->threads, 1, 1};
    arguments = o->args;
    dynamic_shared = dynamic_room;
    kernel_body = k->run;
    static_shared = k->shared;
    static_shared_end = k->shared_end;
    if (o->threads > MAX_THREADS || o->shared_bytes > MOST_SHARED)
        broken("a block of that size does not fit");
    run_blocks(o->threads, o->shared_bytes, o->order);
}

extern "C" float on_cpu_expf(float x) {
    float y = expf(x);
    if (!on_cpu::wobble || !(y > 0.0f) || x == 0.0f)
        return y;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits * 2654435761u) >> 30;
    return bits == 0 ? nextafterf(y, 0.0f) : bits == 1 ? nextafterf(y, 2.0f) : y;
}

extern "C" void on_cpu_wobble(int on) {
    on_cpu::wobble = on != 0;
}
