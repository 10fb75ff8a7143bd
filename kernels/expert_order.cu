/* The items of a step, USED of each token, in the order of the experts that they are for (ids), cut into tiles of at most TILE items
 * of one expert: order[i] is an item; tiles[0] is how many tiles there are, followed by the expert of each, its first place in
 * order and the place after its last. In what order the items of one expert come changes from run to run, and no number does.
 *
 * Grid: one block, of a thread for each expert or more; bound by launch. */
#include "common.cuh"

#ifndef EXPERTS
#define EXPERTS 64
#endif
#ifndef TILE
#define TILE 64
#endif
#ifndef THREADS
#define THREADS 256
#endif

extern "C" __global__ void __launch_bounds__(THREADS) expert_order(const i32 *ids, i32 *order, i32 *tiles, i32 items) {
    __shared__ i32 count[THREADS], place[THREADS], tile[THREADS];
    const int expert = threadIdx.x;
    count[expert] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < items; i += THREADS)
        atomicAdd(&count[ids[i]], 1);
    __syncthreads();
    const int mine = count[expert], my_tiles = (mine + TILE - 1) / TILE;
    place[expert] = mine;
    tile[expert] = my_tiles;
    for (int distance = 1; distance < THREADS; distance *= 2) { /* sums over this expert and all before it */
        __syncthreads();
        const int items_before = expert >= distance ? place[expert - distance] : 0;
        const int tiles_before = expert >= distance ? tile[expert - distance] : 0;
        __syncthreads();
        place[expert] += items_before;
        tile[expert] += tiles_before;
    }
    const int first = place[expert] - mine, first_tile = tile[expert] - my_tiles;
    if (expert == THREADS - 1)
        tiles[0] = tile[expert];
    for (int t = 0; t < my_tiles; t++) {
        i32 *to = tiles + 1 + 3 * (first_tile + t);
        to[0] = expert;
        to[1] = first + t * TILE;
        to[2] = first + min(mine, (t + 1) * TILE);
    }
    __syncthreads();
    place[expert] = first;
    __syncthreads();
    for (int i = threadIdx.x; i < items; i += THREADS)
        order[atomicAdd(&place[ids[i]], 1)] = i;
}
