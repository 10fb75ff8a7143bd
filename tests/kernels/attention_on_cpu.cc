/* Attention of one head a block and the merge of its parts, for one shape, as a function that a test in C calls:
 * -DRUN=name -DHEAD_DIM=... -DHEADS=... -DKV_HEADS=... -DPARTS=... -DBLOCKS=... -DWINDOW=... -DCAP=... Caches are float32. */
#include "kernels/cpu/on_cpu.h"

#define KEYS F32
#define VALUES F32
#define SCALE 0.7f
#define SOFTCAP (float)CAP
#define THREADS (HEAD_DIM <= 256 ? 256 : 512)

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define attention JOIN(whole, RUN) // entries are extern "C"
#define attention_merge JOIN(merge, RUN)

namespace { // several variants in one program: all their names are the file's own
#include "kernels/merge.cuh"
namespace part {
#include "kernels/attention.cu"
}
namespace merge {
#include "kernels/attention_merge.cu"
}

struct {
    const float *q, *keys, *values;
    const i32 *positions;
    float *parts, *out, *shares;
    u32 *counts;
    i32 ctx;
} a;

void run_part() {
    part::attention(a.q, a.keys, a.values, a.positions, PARTS > 1 ? a.parts : a.out, a.shares, a.counts, a.ctx);
}
void run_merge() {
    merge::attention_merge(a.parts, a.out);
}
} // namespace

extern "C" void RUN(const float *q, const float *keys, const float *values, const int32_t *positions,
                    unsigned tokens, int32_t ctx, float *parts, float *out, float *shares, uint32_t *counts, int order) {
    a = {q, keys, values, positions, parts, out, shares, counts, ctx};
    on_cpu::launch({HEADS, tokens, PARTS * BLOCKS}, THREADS, order, run_part);
    if (PARTS > 1)
        on_cpu::launch(tokens, 256, order, run_merge);
}
