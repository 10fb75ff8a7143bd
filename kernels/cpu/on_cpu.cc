/* Blocks one after the other. */
#include "on_cpu_fibers.h"

namespace on_cpu {

namespace {

enum { MOST_THREADS = 1024 };

/* Which of n things comes at turn i: as an order says, in a random one by a walk of its own for each launch. */
struct turns {
    int how;
    randomness random;

    void lay_out(std::vector<unsigned> &order, unsigned n) {
        order.resize(n);
        for (unsigned i = 0; i < n; i++)
            order[i] = how == ON_CPU_BACKWARDS         ? n - 1 - i
                       : how == ON_CPU_FROM_THE_MIDDLE ? (i + n / 2) % n
                                                       : i;
        for (unsigned i = n; how >= ON_CPU_RANDOM && i > 1; i--) {
            const unsigned j = random.below(i), held = order[i - 1];
            order[i - 1] = order[j];
            order[j] = held;
        }
    }
};

fiber *threads[MOST_THREADS];

/* Runs a warp until all its lanes are at a barrier or done. */
void run_warp(unsigned first, unsigned end) {
    for (;;) {
        unsigned n_together = 0;
        run_lanes(threads + first, end - first);
        for (unsigned t = first; t < end; t++)
            n_together += threads[t]->where == AT_WARP;
        if (n_together == 0)
            return;
        if (n_together != 32)
            broken("not all lanes of the warp take part");
        do_together(threads + first);
    }
}

/* All threads have gone as far as they get: those that wait do so at one barrier. How many they are. */
unsigned pass_barrier(unsigned n) {
    unsigned waiting = 0;
    int place = 0;
    for (unsigned t = 0; t < n; t++) {
        if (threads[t]->where != AT_BARRIER)
            continue;
        current = threads[t];
        if (current->meeting)
            broken("a barrier of some warps");
        if (waiting++ && current->place != place)
            broken("threads of the block are at different barriers");
        place = current->place;
        current->where = READY;
    }
    return waiting;
}

void run_block(block &b, unsigned n, size_t shared_bytes, turns &by) {
    static std::vector<unsigned> warps;
    clear_shared(b, shared_bytes);
    block_index = b.index;
    if (look)
        look(BLOCK_BEGINS);
    for (unsigned t = 0; t < n; t++)
        prepare(*threads[t], &b, t);
    do {
        by.lay_out(warps, (n + 31) / 32);
        for (unsigned warp : warps)
            run_warp(32 * warp, 32 * warp + 32 < n ? 32 * warp + 32 : n);
    } while (pass_barrier(n) > 0);
    check_shared(b, shared_bytes);
    if (look)
        look(BLOCK_ENDS);
}

} // namespace

void launch(unsigned blocks, unsigned n_threads, int order, body *kernel) {
    launch(index3{blocks, 1, 1}, n_threads, order, kernel);
}

void launch(index3 grid, unsigned n_threads, int order, body *kernel) {
    const on_cpu_kernel k = {kernel, __start_on_cpu_shared, __stop_on_cpu_shared, 0, nullptr};
    const on_cpu_launch_options o = {{grid.x, grid.y, grid.z}, n_threads, 0, order, nullptr};
    on_cpu_launch(&k, &o);
}

} // namespace on_cpu

extern "C" void on_cpu_launch(const on_cpu_kernel *k, const on_cpu_launch_options *o) {
    using namespace on_cpu;
    alignas(1024) static char dynamic[MOST_SHARED];
    static std::vector<unsigned> order;
    static uint64_t launches;
    if (o->threads > MOST_THREADS || o->shared_bytes > MOST_SHARED)
        broken("a block of that size does not fit");
    grid_size = {o->grid[0], o->grid[1], o->grid[2]};
    block_size = {o->threads, 1, 1};
    arguments = o->args;
    for (unsigned t = 0; t < o->threads; t++)
        threads[t] = &fibers(o->threads)[t];
    turns by = {o->order, {(uint64_t)o->order << 32 | launches++}};
    by.lay_out(order, grid_size.x * grid_size.y * grid_size.z);
    for (unsigned at : order) {
        block b = {
            k, {at % grid_size.x, at / grid_size.x % grid_size.y, at / grid_size.x / grid_size.y}, dynamic};
        run_block(b, o->threads, o->shared_bytes, by);
    }
}
