/* Runs a kernel from outside on the CPU, for codegen/proof_cpu.c: that of the file it is linked with, where ON_CPU_KERNEL makes it
 * on_cpu_loaded. The first argument is the file of cases, the second gets what the kernel left:
 *
 *   u64 cases, waits, next (0: at its end, 1: before, 2: after its wait), and for each case
 *     u64 grid[3], threads, shared bytes, orders, arguments, and for each argument
 *       u64 bytes (0: a number), number, writes, late; the bytes
 *
 *   for each case: u64 bytes of a text, which says what is wrong; the bytes of each argument that is written
 *
 * Around each buffer are bytes that stay as they are. Blocks run forwards, backwards and in two orders that are drawn. What is late
 * is bytes of ones for each block until a thread of it waits; what is written is looked at then, too. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <vector>

#include "on_cpu.h"

extern "C" const on_cpu_kernel on_cpu_loaded;

namespace {

enum { AROUND = 4096, NEXT_BEFORE = 1, NEXT_AFTER = 2 };

struct argument {
    unsigned long long bytes, number, writes, late;
    std::vector<char> before, memory, at_start; /* at_start: of this block */
    char *data() { return memory.data() + AROUND; }
};

std::vector<argument> args;
unsigned long long waits, next_start;
std::string fault;
bool has_waited;

void say(const std::string &what) {
    if (fault.empty())
        fault = what;
}

/* What launches before this one make is there, or not yet. */
void bring(bool there) {
    for (argument &a : args)
        if (a.late && !a.writes) {
            if (there)
                memcpy(a.data(), a.before.data(), a.bytes);
            else
                memset(a.data(), 0xFF, a.bytes);
        }
}

/* What is late, and only read, is as it was brought; or, before the wait, all ones. */
void look_at_operands() {
    for (argument &a : args) {
        if (!a.late || a.writes)
            continue;
        if (has_waited
                ? memcmp(a.data(), a.before.data(), a.bytes) != 0
                : a.bytes && (a.data()[0] != (char)0xFF || memcmp(a.data(), a.data() + 1, a.bytes - 1) != 0))
            say("it writes where it must not: what it only reads");
    }
}

void look(on_cpu::moment at) {
    if (at == on_cpu::BLOCK_BEGINS) {
        has_waited = false;
        bring(!waits);
        for (argument &a : args)
            if (a.writes && a.late)
                a.at_start.assign(a.data(), a.data() + a.bytes);
    } else if (at == on_cpu::LETS_NEXT_START) {
        if (waits && !has_waited && next_start == NEXT_AFTER)
            say("it lets the next launch start before its wait, and its row says after");
    } else if (at == on_cpu::HAS_WAITED && !has_waited) {
        look_at_operands();
        has_waited = true;
        for (argument &a : args)
            if (waits && a.writes && a.late && memcmp(a.at_start.data(), a.data(), a.bytes) != 0)
                say("it writes before it waits for the launch before");
        bring(true);
    } else if (at == on_cpu::BLOCK_ENDS && has_waited)
        look_at_operands();
    else if (at == on_cpu::BLOCK_ENDS && waits)
        say("a block ends without having waited for the launch before, and its row says that it waits");
}

unsigned long long take(FILE *f) {
    unsigned long long x = 0;
    if (fread(&x, sizeof x, 1, f) != 1)
        exit(3);
    return x;
}

void fill(argument &a) {
    a.memory.assign(a.bytes + 2 * AROUND, (char)0xFF);
    memcpy(a.data(), a.before.data(), a.bytes);
}

bool is_whole(argument &a) {
    for (size_t i = 0; i < AROUND; i++)
        if (a.memory[i] != (char)0xFF || a.memory[AROUND + a.bytes + i] != (char)0xFF)
            return false;
    return a.writes || memcmp(a.data(), a.before.data(), a.bytes) == 0;
}

void run(const unsigned long long *head, int order) {
    std::vector<void *> pointers(args.size());
    std::vector<void *> values;
    for (size_t i = 0; i < args.size(); i++) {
        fill(args[i]);
        pointers[i] = args[i].data();
    }
    for (size_t i = 0; i < args.size(); i++)
        values.push_back(args[i].bytes ? (void *)&pointers[i] : (void *)&args[i].number);
    on_cpu_launch_options o = {{(unsigned)head[0], (unsigned)head[1], (unsigned)head[2]},
                               (unsigned)head[3],
                               (size_t)head[4],
                               order,
                               values.data()};
    on_cpu_launch(&on_cpu_loaded, &o);
    bring(true);
    for (size_t i = 0; i < args.size(); i++)
        if (args[i].bytes && !is_whole(args[i]))
            say("it writes where it must not: in or around the buffer of parameter " + std::to_string(i + 1));
}

void prove(FILE *in, FILE *out) {
    unsigned long long head[7];
    for (unsigned long long &x : head)
        x = take(in);
    args.assign(head[6], argument());
    for (argument &a : args) {
        a.bytes = take(in), a.number = take(in), a.writes = take(in), a.late = take(in);
        a.before.resize(a.bytes);
        if (a.bytes && fread(a.before.data(), 1, a.bytes, in) != a.bytes)
            exit(3);
    }
    fault.clear();
    std::vector<std::vector<char>> first;
    const int orders[] = {ON_CPU_FORWARDS, ON_CPU_RANDOM, ON_CPU_BACKWARDS, ON_CPU_RANDOM + 1};
    for (unsigned long long k = 0; k < head[5] && k < sizeof orders / sizeof *orders; k++) {
        const int order = orders[k];
        run(head, order);
        for (size_t i = 0; i < args.size(); i++) {
            std::vector<char> left(args[i].data(), args[i].data() + args[i].bytes);
            if (order == ON_CPU_FORWARDS)
                first.push_back(left);
            else if (args[i].writes && left != first[i])
                say("blocks in another order leave other bits");
        }
    }
    const unsigned long long n = fault.size();
    fwrite(&n, sizeof n, 1, out);
    fwrite(fault.data(), 1, n, out);
    for (size_t i = 0; i < args.size(); i++)
        if (args[i].writes)
            fwrite(first[i].data(), 1, first[i].size(), out);
}

} // namespace

int main(int argc, char **argv) {
    FILE *in = argc > 2 ? fopen(argv[1], "rb") : nullptr, *out = argc > 2 ? fopen(argv[2], "wb") : nullptr;
    if (!in || !out || on_cpu_loaded.n_args < 0)
        return 3;
    const unsigned long long cases = take(in);
    waits = take(in), next_start = take(in);
    on_cpu::look = look;
    for (unsigned long long i = 0; i < cases; i++)
        prove(in, out);
    return fclose(out) == 0 ? 0 : 3;
}
