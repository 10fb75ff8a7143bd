/* A ring of slots in shared memory through which a producer streams global memory and other warps take it. Producer and consumers
 * walk the slots alike. From sm_90 on the producer is one lane, which fills a slot by a bulk copy; on sm_80 to sm_89 all lanes of one or
 * two warps copy 16 bytes at a time, and a slot is full when the copies of each lane have landed (ptx.cuh).
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
    /* By 0 to Slots. */
    __device__ __forceinline__ void skip(u32 n) {
        slot += n;
        if (slot >= Slots) {
            slot -= Slots;
            parity ^= 1;
        }
    }
};

enum { IN_BULK = 1 }; /* lane that fills the slots; else it is those of some warps */

template <int Slots, int Bytes, int Lanes> struct ring {
    enum { PRODUCERS = (Lanes + 31) / 32 }; /* warps */
    alignas(128) u8 slot[Slots][Bytes];
    u64 full[Slots], empty[Slots];
    u32 bytes[PRODUCERS][Slots]; /* for the producers */

    __device__ __forceinline__ void init(int consumers) {
        for (int i = 0; i < Slots; i++) {
            barrier_init(&full[i], Lanes);
            barrier_init(&empty[i], consumers);
        }
        fence_barrier_init();
    }
};

/* What a producing lane knows: where it is, and the copies under way. At most `depth` bytes are in flight, and no more than the ring
 * has room for: deeper queues in front of the memory slow every exchange between multiprocessors down. The lanes of a warp all wait
 * for themselves, as that is faster than to have one wait for all. */
template <int Slots, int Bytes, int Lanes> struct producer {
    ring<Slots, Bytes, Lanes> &r;
    u32 depth;
    place<Slots> at;
    place<Slots> landed; /* the oldest copy that may be in flight */
    u32 in_flight;       /* bytes */
    int copies;          /* from `landed` to `at` */
    bool later_turn;
    u32 lane; /* of all that copy; 0 in bulk */

    __device__ __forceinline__ u32 *sizes() const { return r.bytes[Lanes == IN_BULK ? 0 : lane / 32]; }

    __device__ __forceinline__ void put(const void *from, u32 bytes) {
        if (later_turn) /* the slot's last readers have gone */
            barrier_wait_patiently(&r.empty[at.slot], at.parity ^ 1);
        while (copies == Slots || (in_flight > 0 && in_flight + bytes > depth)) {
            barrier_wait_patiently(&r.full[landed.slot], landed.parity);
            in_flight -= sizes()[landed.slot];
            landed.next();
            copies--;
        }
        copies++;
        if constexpr (Lanes == IN_BULK) {
            sizes()[at.slot] = bytes;
            in_flight += bytes;
            send_in_bulk(from, bytes);
        } else {
            __syncwarp(); /* all have read the size of the slot's last tile */
            if (lane % 32 == 0)
                sizes()[at.slot] = bytes;
            in_flight += bytes;
            send_by_lanes((const u8 *)from, bytes);
            __syncwarp();
        }
        at.next();
        if (at.slot == 0)
            later_turn = true;
    }

    __device__ __forceinline__ void send_in_bulk(const void *from, u32 bytes) {
        if (STREAMS && bytes) {
            barrier_expect(&r.full[at.slot], bytes);
            bulk_copy(r.slot[at.slot], from, bytes, &r.full[at.slot]);
        } else
            barrier_arrive(&r.full[at.slot]);
    }

    /* A lane's copies lie so far apart that those of all lanes are consecutive. Of a whole slot their places are constants, so that no
     * register is waited for. */
    __device__ __forceinline__ void send_by_lanes(const u8 *from, u32 bytes) {
        enum { STEP = Lanes * 16, WHOLE = Bytes / STEP };
        const u32 first = lane * 16, to = shared_address(r.slot[at.slot]) + first;
        from += first;
        if (STREAMS && bytes == Bytes) {
#pragma unroll
            for (int i = 0; i < WHOLE; i++)
                copy_16(to + i * STEP, from + i * STEP);
            if (WHOLE * STEP + first < Bytes)
                copy_16(to + WHOLE * STEP, from + WHOLE * STEP);
        } else
#pragma unroll 4
            for (u32 i = 0; STREAMS && i + first < bytes; i += STEP)
                copy_16(to + i, from + i);
        arrive_with_copies(&r.full[at.slot]);
    }
};
