/* The end of a step: what was chosen becomes the next step's token, at the next position, and goes to the host
 * through the ring. So a replay of the decode step needs nothing from the host.
 *
 * Grid: one block of one thread. */
#include "common.cuh"

#ifndef RING
#define RING 1024
#endif

extern "C" __global__ void advance(const i32 *next, i32 *tokens, i32 *positions, i32 *ring, i32 n) {
    let_next_start();
    wait_for_previous();
    i32 position = positions[n - 1];
    ring[position % RING] = next[0];
    tokens[0] = next[0];
    positions[0] = position + 1;
}
