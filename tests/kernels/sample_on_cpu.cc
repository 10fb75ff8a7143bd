/* The kernels of sampling for one size of vocabulary and block, as a function that a test in C calls:
 * -DRUN=name -DVOCAB=... -DTHREADS=... [-DCHUNK=...] [-DRING=...]. */
#include "kernels/cpu/on_cpu.h"

#ifndef CHUNK
#define CHUNK 32
#endif

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define sample_part JOIN(part, RUN) // entries are extern "C"
#define sample_merge JOIN(merge, RUN)

namespace { // several variants in one program: all their names are the file's own
#include "kernels/sample.cuh"
namespace part {
#include "kernels/sample_part.cu"
}
namespace merge {
#include "kernels/sample_merge.cu"
}

struct {
    const float *logits;
    const i32 *rows, *seen;
    i32 *positions, *next, *tokens, *ring;
    const sampling *settings;
} a;
float parts[merge::PARTS];
merge::shared_sums sums;

void run_part() {
    part::sample_part(a.logits, a.seen, a.settings, parts);
}

void run_merge() {
    merge::sample_merge(a.logits, parts, a.rows, a.positions, a.seen, a.settings, &sums, a.next, a.tokens,
                        a.ring);
}
} // namespace

/* False if the kernels did not leave the sums as they have to be for the next step. */
extern "C" int RUN(const float *logits, const int32_t *rows, int32_t *positions, const int32_t *seen,
                   const void *settings, int32_t *next, int32_t *tokens, int32_t *ring, int order) {
    a = {logits, rows, seen, positions, next, tokens, ring, (const sampling *)settings};
    on_cpu::launch((part::PARTS + part::WARPS - 1) / part::WARPS, THREADS, order, run_part);
    on_cpu::launch(merge::SLICES, THREADS, order, run_merge);
    bool clean = sums.taken == 0 && sums.finished == 0 && sums.left == 0;
    for (int i = 0; i < merge::DIGITS * merge::BINS; i++)
        clean = clean && sums.bins[i / merge::BINS][i % merge::BINS] == 0;
    return clean;
}
