/* A ring of slots in shared memory through which one warp streams global memory and the others take it: bulk copies
 * and barriers of sm_90 (ptx.cuh). Producer and consumers walk the slots alike.
 *
 * Waits for a slot end when a copy has landed or a warp has read, which nothing but a fault of the kernel can stop: they are
 * not bounded. Waits for other multiprocessors are (exchange.cuh). */
#pragma once
#include "common.cuh"

#ifndef STREAMS /* 0: nothing is copied, to time the chain of exchanges alone */
#define STREAMS 1
#endif

/* A place in the ring: slot and parity of its turn. */
template <int Slots> struct place {
    u32 slot, parity;
    __device__ __forceinline__ void next() {
        if (++slot == Slots) {
            slot = 0;
            parity ^= 1;
        }
    }
};

template <int Slots, int Bytes> struct ring {
    alignas(128) u8 slot[Slots][Bytes];
    u64 full[Slots], empty[Slots];
    u32 bytes[Slots]; /* for the producer */

    __device__ __forceinline__ void init(int consumers) {
        for (int i = 0; i < Slots; i++) {
            barrier_init(&full[i], 1);
            barrier_init(&empty[i], consumers);
        }
        fence_barrier_init();
    }
};

/* What the producing lane knows: where it is, and the copies under way. At most `depth` bytes are in flight: deeper
 * queues in front of the memory slow every exchange between multiprocessors down. */
template <int Slots, int Bytes> struct producer {
    ring<Slots, Bytes> &r;
    u32 depth;
    place<Slots> at;
    place<Slots> landed; /* the oldest copy that may be in flight */
    u32 in_flight;       /* bytes */
    int copies;          /* from `landed` to `at` */
    bool later_turn;

    __device__ __forceinline__ void put(const void *from, u32 bytes) {
        if (later_turn) /* the slot's last readers have gone */
            barrier_wait(&r.empty[at.slot], at.parity ^ 1);
        while (copies == Slots || (in_flight > 0 && in_flight + bytes > depth)) {
            barrier_wait(&r.full[landed.slot], landed.parity);
            in_flight -= r.bytes[landed.slot];
            landed.next();
            copies--;
        }
        copies++;
        r.bytes[at.slot] = bytes;
        in_flight += bytes;
        if (STREAMS && bytes) {
            barrier_expect(&r.full[at.slot], bytes);
            bulk_copy(r.slot[at.slot], from, bytes, &r.full[at.slot]);
        } else
            barrier_arrive(&r.full[at.slot]);
        at.next();
        if (at.slot == 0)
            later_turn = true;
    }
};
