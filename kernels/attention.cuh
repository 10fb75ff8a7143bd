/* The heads and the caches that a kernel of attention is for. HEADS / KV_HEADS query heads share a key-value head. */
#pragma once
#include "kept.cuh"

#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef HEADS
#define HEADS 14
#endif
#ifndef KV_HEADS
#define KV_HEADS 2
#endif
#ifndef KEYS
#define KEYS F16
#endif
#ifndef VALUES
#define VALUES F16
#endif
#ifndef SCALE
#define SCALE 0.125f
#endif
#ifndef WINDOW /* positions that a token sees, itself among them; 0: all up to its own */
#define WINDOW 0
#endif
#ifndef SOFTCAP /* a score s becomes SOFTCAP * tanh(s / SOFTCAP); 0: it stays */
#define SOFTCAP 0.0f
#endif
#ifndef SINKS /* 1: each head has one more score, whose weight has no value */
#define SINKS 0
#endif
#if SINKS
#define SINKS_PARAMETER const float *sinks,
#define SINK_OF(head) sinks[head]
#else
#define SINKS_PARAMETER
#define SINK_OF(head) (-INF)
#endif

/* The first position that is seen from the last of `all`. */
__device__ __forceinline__ int first_seen(int all) { return WINDOW ? max(all - WINDOW, 0) : 0; }

/* A score that was multiplied by `by`, capped. */
__device__ __forceinline__ float capped(float score, float by) {
    const float cap = SOFTCAP * by;
    return SOFTCAP > 0.0f ? cap * tanhf(score / cap) : score;
}
