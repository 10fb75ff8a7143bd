/* A ring in shared memory through which a producer streams global memory and other warps take it. Copies lie one after the other,
 * whatever their sizes, each in one piece: where one is too long for what is left of the ring it begins at its start again. Producer
 * and consumers walk the places of copies alike; where a copy lies the producer says.
 *
 * From sm_90 on the producer is one lane, which fills a place by a bulk copy; on sm_80 to sm_89 all lanes of one or two warps copy 16
 * bytes at a time, and a place is full when the copies of each lane have landed (ptx.cuh).
 *
 * Waits for a place end when a copy has landed or a warp has read, which nothing but a fault of the kernel can stop: they are
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

enum { IN_BULK = 1 }; /* lane that fills the ring; else it is those of some warps */

/* Of `Room` bytes, for up to Slots copies at a time. A warp that wants N copies of up to B bytes at once gets them if there is room for
 * N + 1: one may not fit at the end. */
template <int Slots, int Room, int Lanes> struct ring {
    enum { PRODUCERS = (Lanes + 31) / 32 /* warps */, ARRIVALS = Lanes == IN_BULK ? 1 : Lanes + 1, UNIT = 16 };
    static_assert(Room % UNIT == 0 && Room / UNIT < 1 << 16, "a word says where a copy is");
    alignas(128) u8 bytes[Room];
    u64 full[Slots], empty[Slots];
    u32 copies[PRODUCERS][Slots]; /* where they begin and, in the low half, how long they are: each warp that copies knows for itself */

    __device__ __forceinline__ void init(int consumers) {
        for (int i = 0; i < Slots; i++) {
            barrier_init(&full[i], ARRIVALS);
            barrier_init(&empty[i], consumers);
        }
        fence_barrier_init();
    }
    static __device__ __forceinline__ u32 begin_of(u32 copy) { return copy >> 16 << 4; }
    static __device__ __forceinline__ u32 bytes_of(u32 copy) { return (copy & 0xFFFFu) << 4; }

    /* What was copied, when it is there. */
    __device__ __forceinline__ u8 *at(u32 slot) { return bytes + begin_of(copies[0][slot]); }
};

/* `Usual`: bytes of most copies. What a producing lane knows: where it is, and the copies under way. At most `depth` bytes are in flight, and no more than the ring
 * has room for: deeper queues in front of the memory slow every exchange between multiprocessors down. The lanes of a warp all wait
 * for themselves, as that is faster than to have one wait for all. */
template <int Slots, int Room, int Lanes, int Usual> struct producer {
    typedef ring<Slots, Room, Lanes> ring_of;
    ring_of &r;
    u32 depth;
    place<Slots> at;
    place<Slots> oldest; /* copy that somebody may still read */
    place<Slots> landed; /* the oldest one that may be in flight */
    u32 head, tail;      /* where the next copy begins, and the oldest one */
    u32 in_flight;       /* bytes */
    int unread, copies;  /* from `oldest` to `at`, from `landed` to `at` */
    u32 lane;            /* of all that copy; 0 in bulk */

    __device__ __forceinline__ u32 *words() const { return r.copies[Lanes == IN_BULK ? 0 : lane / 32]; }

    /* Is there room at `head`, or at the start of the ring, which is `head` then? */
    __device__ __forceinline__ bool finds_room(u32 room) {
        if (unread == 0)
            head = tail = 0;
        else if (head <= tail)
            return head + room <= tail;
        if (head + room <= Room)
            return true;
        if (room > tail)
            return false;
        head = 0;
        return true;
    }
    /* When the oldest copy has been read. It has landed then. */
    __device__ __forceinline__ void pass_oldest() {
        barrier_wait_patiently(&r.empty[oldest.slot], oldest.parity);
        if (copies == unread)
            pass_landed();
        oldest.next();
        unread--;
        tail = ring_of::begin_of(words()[oldest.slot]); /* of no copy, if none is left */
    }
    __device__ __forceinline__ void pass_landed() {
        in_flight -= ring_of::bytes_of(words()[landed.slot]);
        landed.next();
        copies--;
    }

    /* `bytes` of them, and room for more that consumers write: `room` in all, not 0. */
    __device__ __forceinline__ void put(const void *from, u32 bytes, u32 room) {
        room = (room + ring_of::UNIT - 1) / ring_of::UNIT * ring_of::UNIT;
        while (unread == Slots || !finds_room(room))
            pass_oldest();
        while (in_flight > 0 && in_flight + bytes > depth) {
            barrier_wait_patiently(&r.full[landed.slot], landed.parity);
            pass_landed();
        }
        copies++, unread++;
        in_flight += bytes;
        if constexpr (Lanes == IN_BULK) {
            words()[at.slot] = head << 12 | bytes >> 4;
            send_in_bulk(from, bytes);
        } else {
            __syncwarp(); /* all have read the word of the place's last copy */
            if (lane % 32 == 0)
                words()[at.slot] = head << 12 | bytes >> 4;
            send_by_lanes((const u8 *)from, bytes);
            __syncwarp();
        }
        at.next();
        head += room;
    }
    __device__ __forceinline__ void put(const void *from, u32 bytes) { put(from, bytes, bytes); }

    __device__ __forceinline__ void send_in_bulk(const void *from, u32 bytes) {
        if (STREAMS && bytes) {
            barrier_expect(&r.full[at.slot], bytes);
            bulk_copy(r.bytes + head, from, bytes, &r.full[at.slot]);
        } else
            barrier_arrive(&r.full[at.slot]);
    }

    /* A lane's copies lie so far apart that those of all lanes are consecutive. Of the usual size their places are constants, so that no
     * register is waited for. */
    __device__ __forceinline__ void send_by_lanes(const u8 *from, u32 bytes) {
        enum { STEP = Lanes * 16, WHOLE = Usual / STEP };
        const u32 first = lane * 16, to = shared_address(r.bytes + head) + first;
        from += first;
        if (STREAMS && bytes == Usual) {
#pragma unroll
            for (int i = 0; i < WHOLE; i++)
                copy_16(to + i * STEP, from + i * STEP);
            if (WHOLE * STEP + first < Usual)
                copy_16(to + WHOLE * STEP, from + WHOLE * STEP);
        } else
#pragma unroll 4
            for (u32 i = 0; STREAMS && i + first < bytes; i += STEP)
                copy_16(to + i, from + i);
        arrive_with_copies(&r.full[at.slot]);
        if (lane == 0) /* and with the word */
            barrier_arrive(&r.full[at.slot]);
    }
};
