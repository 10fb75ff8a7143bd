/* parts[r, p] = the largest logit of chunk p of row r, after the repetition penalty; NaN if there are only NaN.
 *
 * Grid: x = chunks / WARPS, y = rows; a warp a chunk. Reads the logits once, from L2; bound by launch. */
#include "sample.cuh"

#ifndef VOCAB
#define VOCAB 151936
#endif
#ifndef CHUNK
#define CHUNK 32
#endif
#ifndef THREADS
#define THREADS 256
#endif

enum { WARPS = THREADS / 32, PARTS = (VOCAB + CHUNK - 1) / CHUNK };

extern "C" __global__ void __launch_bounds__(THREADS)
    sample_part(const float *logits, const i32 *seen, const sampling *settings, float *parts) {
    let_next_start();
    wait_for_previous();
    i32 part = blockIdx.x * WARPS + threadIdx.x / 32;
    if (part >= PARTS)
        return;
    const float penalty = settings->repeat_penalty;
    logits += (size_t)blockIdx.y * VOCAB;
    float largest = NOT_A_NUMBER; /* fmaxf skips NaN */
    i32 end = min((part + 1) * CHUNK, VOCAB);
    for (i32 id = part * CHUNK + threadIdx.x % 32; id < end; id += 32)
        largest = fmaxf(largest, penalised(logits[id], seen, id, penalty));
    largest = warp_max(largest);
    if (threadIdx.x % 32 == 0)
        parts[(size_t)blockIdx.y * PARTS + part] = largest;
}
