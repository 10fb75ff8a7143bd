/* The heads and the caches that a kernel of attention is for. HEADS / KV_HEADS query heads share a key-value head. */
#pragma once
#include "common.cuh"

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
