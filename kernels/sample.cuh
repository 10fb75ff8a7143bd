/* What the kernels of sampling share. graph/ops_sample.c states the algorithm; for equal logits the kernels and the
 * reference there choose the same token. Probabilities are whole numbers, w = floor(exp((logit - largest) / temperature)
 * * 2^40), so that sums do not depend on the order in which they are added up. */
#pragma once
#include "common.cuh"

/* graph/sampling.h */
struct sampling {
    float temperature;
    i32 top_k;
    float top_p, min_p, repeat_penalty;
    u32 reserved;
    u64 seed;
};

#define NOT_A_NUMBER bits_f32(0x7FC00000u)

/* A logit after the repetition penalty, which is for tokens seen and for one more. */
__device__ __forceinline__ float penalised(float logit, const i32 *seen, i32 id, float penalty, i32 also = -1) {
    if (penalty == 1.0f || (id != also && !seen[id]))
        return logit;
    return logit > 0.0f ? logit / penalty : __fmul_rn(logit, penalty); /* not to be contracted with what follows */
}
