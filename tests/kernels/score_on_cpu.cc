/* kernels/score_rows.cu, as a function that a test in C calls. */
#define THREADS 64
#include "kernels/cpu/on_cpu.h"

namespace {
#include "kernels/score_rows.cu"

struct {
    const float *logits, *other;
    const i32 *targets;
    row_score *out;
    i32 vocab;
} a;

void run() {
    score_rows(a.logits, a.other, a.targets, a.out, a.vocab);
}
} // namespace

extern "C" void score_rows_on_cpu(const float *logits, const float *other, const int32_t *targets, void *out,
                                  int32_t vocab, int rows, int order) {
    a = {logits, other, targets, (row_score *)out, vocab};
    on_cpu::launch(on_cpu::index3{(unsigned)rows, 1, 1}, THREADS, order, run);
}
