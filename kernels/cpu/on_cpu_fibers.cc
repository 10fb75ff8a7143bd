#include "on_cpu_fibers.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

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

namespace on_cpu {

index3 thread_index, block_index, grid_size, block_size;
void **arguments;
char *dynamic_shared;
bool wobble;
void (*look)(moment at);
fiber *current;

namespace {

enum { STACK = 256 << 10, PAGES = 16384 };

stack scheduler;

/* The lanes that run after the current one, without the scheduler in between. */
fiber *const *next_lane, *const *end_of_lanes;
stack *left; /* the last one that was */

/* Where a few instructions change stacks nothing else has to, for that takes a system call. They stand in the function that gives
 * way, and jump: the lanes of a warp are at the same call, so that the processor predicts where each of them returns to. */
#if defined(__x86_64__)
inline __attribute__((always_inline)) void change_stacks(void **from, void *to) {
    asm volatile("leaq -128(%%rsp), %%rsp\n" /* the red zone */
                 "leaq 1f(%%rip), %%rdx\n"
                 "pushq %%rdx\n"
                 "pushq %%rbp\n"
                 "movq %%rsp, (%%rdi)\n"
                 "movq %%rsi, %%rsp\n"
                 "popq %%rbp\n"
                 "popq %%rdx\n"
                 "jmp *%%rdx\n"
                 "1:\n"
                 "leaq 128(%%rsp), %%rsp\n"
                 : "+D"(from), "+S"(to)
                 :
                 : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0",
                   "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                   "xmm12", "xmm13", "xmm14", "xmm15", "memory", "cc");
}
#endif

inline __attribute__((always_inline)) void change(stack &from, stack &to) {
    left = &from;
    __sanitizer_start_switch_fiber(&from.left, to.bottom, to.bytes);
#if defined(__x86_64__)
    change_stacks(&from.end, to.end);
#else
    swapcontext(&from.end, &to.end);
#endif
    __sanitizer_finish_switch_fiber(from.left, nullptr, nullptr);
}

/* The stack of the next lane that is READY, or the scheduler's. */
inline __attribute__((always_inline)) stack &next_stack() {
    while (next_lane < end_of_lanes && (*next_lane)->where != READY)
        next_lane++;
    if (next_lane == end_of_lanes)
        return scheduler;
    current = *next_lane++;
    thread_index.x = current->thread;
    return current->own;
}

inline __attribute__((always_inline)) void give_way_to_next(state where) {
    stack &own = current->own;
    current->where = where;
    change(own, next_stack());
}

/* A fiber is for many blocks: it does one after the other. */
void run_thread() {
    const void *bottom = nullptr;
    size_t bytes = 0;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
    if (left == &scheduler)
        scheduler.bottom = (char *)(uintptr_t)bottom, scheduler.bytes = bytes;
    for (;;) {
        current->of->kernel->run();
        give_way_to_next(DONE);
    }
}

/* Room for a stack, of which the system gives what is used. Not at the same place of its pages as others, where all would have
 * the same few lines of the cache. */
char *room(unsigned which) {
    void *p = mmap(nullptr, STACK + PAGES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("on_cpu: stacks");
        abort();
    }
    return (char *)p + which * 832 % PAGES;
}

void begin(stack &own) {
#if defined(__x86_64__)
    void **top = (void **)(own.bottom + own.bytes); /* no frame, where to begin, nowhere to return to */
    memset(top - 3, 0, 3 * sizeof *top);
    top[-2] = (void *)run_thread;
    own.end = top - 3;
#else
    getcontext(&own.end);
    own.end.uc_stack.ss_sp = own.bottom;
    own.end.uc_stack.ss_size = own.bytes;
    own.end.uc_link = nullptr;
    makecontext(&own.end, run_thread, 0);
#endif
}

} // namespace

void broken(const char *what) {
    fprintf(stderr, "on_cpu: block %u %u %u, thread %u, line %d: %s\n", block_index.x, block_index.y,
            block_index.z, current ? current->thread : 0, current ? current->place : 0, what);
    abort();
}

std::deque<fiber> &fibers(unsigned n) {
    static std::deque<fiber> all;
    while (all.size() < n) {
        all.emplace_back();
        all.back().own.bottom = room((unsigned)all.size());
        all.back().own.bytes = STACK;
    }
    return all;
}

void prepare(fiber &f, block *of, unsigned thread) {
    f.of = of;
    f.thread = thread;
    f.where = READY;
    f.anchor = nullptr;
    f.in_vain = false;
    f.copies.clear();
    f.room.clear();
    if (!f.made)
        begin(f.own);
    f.made = true;
}

void forget(fiber &f) {
    f.made = false;
}

void run_lanes(fiber *const *lanes, unsigned n) {
    next_lane = lanes;
    end_of_lanes = lanes + n;
    thread_index = {0, 0, 0};
    block_index = lanes[0]->of->index;
    dynamic_shared = lanes[0]->of->dynamic;
    stack &first = next_stack();
    if (&first != &scheduler)
        change(scheduler, first);
}

void give_way_as(state where) {
    give_way_to_next(where);
}

void do_together(fiber *const *lanes) {
    void *mine[32];
    for (unsigned i = 0; i < 32; i++) {
        current = lanes[i];
        if (current->place != lanes[0]->place || current->what != lanes[0]->what)
            broken("lanes of a warp are at different places");
        mine[i] = current->mine;
        current->where = READY;
    }
    lanes[0]->what(mine);
}

/* What lies after the shared memory of a block, of which it must leave so much alone. */
enum { GUARD = 0x5A, GUARD_BYTES = 4096 };

static size_t guard_bytes(size_t dynamic_bytes) {
    return std::min((size_t)GUARD_BYTES, MOST_SHARED - dynamic_bytes);
}

void clear_shared(block &b, size_t dynamic_bytes) {
    if (b.kernel->shared)
        memset(b.kernel->shared, 0xFF, (size_t)(b.kernel->shared_end - b.kernel->shared));
    memset(b.dynamic, 0xFF, dynamic_bytes);
    memset(b.dynamic + dynamic_bytes, GUARD, guard_bytes(dynamic_bytes));
}

void check_shared(const block &b, size_t dynamic_bytes) {
    for (size_t i = 0; i < guard_bytes(dynamic_bytes); i++)
        if ((unsigned char)b.dynamic[dynamic_bytes + i] != GUARD)
            broken("a block wrote after the end of its shared memory");
}

/* --- what kernels call ------------------------------------------------------------------------------------ */

void barrier(int place) {
    current->place = place;
    current->number = current->meeting = 0;
    current->anchor = nullptr;
    give_way_to_next(AT_BARRIER);
}

void together(void *mine, warp_function *what, int place) {
    current->place = place;
    current->mine = mine;
    current->anchor = nullptr;
    current->what = what;
    give_way_to_next(AT_WARP);
}

void copy_later(void *to, const void *from, unsigned bytes) {
    if ((uintptr_t)to % bytes || (uintptr_t)from % bytes)
        broken("a copy of bytes that are not aligned");
    memset(to, 0xFF, bytes);
    current->copies.push_back({to, from, bytes});
}

void copies_done() {
    for (const copy &c : current->copies)
        memcpy(c.to, c.from, c.bytes);
    current->copies.clear();
}

void *room_of_thread(size_t bytes) {
    if (current->room.empty())
        current->room.resize(bytes);
    return current->room.data();
}

/* Dynamic shared memory is counted from 0. Static is that of the kernel's program or library, so it lies near its code. */
static char *near_code() {
    return (char *)current->of->kernel->run - (1 << 30);
}

unsigned shared_address(const void *p) {
    const char *at = (const char *)p;
    if (at >= dynamic_shared && at < dynamic_shared + MOST_SHARED)
        return (unsigned)(at - dynamic_shared);
    if (at < near_code() + MOST_SHARED || at >= near_code() + (2U << 30))
        broken("an address that is not in shared memory");
    return (unsigned)(at - near_code());
}

void *shared_pointer(unsigned address) {
    return (address < MOST_SHARED ? dynamic_shared : near_code()) + address;
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

extern "C" void on_cpu_wobble(int on) {
    on_cpu::wobble = on != 0;
}
