/* Addresses as the instructions for shared memory take them. */
#pragma once
#include "common.cuh"

__device__ __forceinline__ u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }
