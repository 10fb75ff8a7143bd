/* A ring of slots in shared memory through which a producer streams global memory and other warps take it. Producer and consumers
 * walk the slots alike. From sm_90 on the producer is one lane, which fills a slot by a bulk copy; on sm_80 to sm_89 all lanes of one or
 * two warps copy 16 bytes at a time, and a slot is full when the copies of each lane have landed (ptx.cuh). On sm_75, which has neither,
 * they load and store, and barriers are numbers that are counted up.
 *
 * Waits for a slot end when a copy has landed or a warp has read, which nothing but a fault of the kernel can stop: they are
 * not bounded. Waits for other multiprocessors are (exchange.cuh). */
#pragma once
#include "common.cuh"

#ifndef INTO_L2 /* bytes that the L2 cache is asked for ahead of bulk copies; 0: none */
#define INTO_L2 0
#endif
#ifndef AHEAD_PACE /* cycles from one AHEAD_BYTES of them to the next */
#define AHEAD_PACE 800
#endif

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
enum { AHEAD_BYTES = 14336 };

/* A barrier without mbarrier: in each turn so many arrive, and its parity is that of the turns that are over. */
struct counted_barrier {
    u32 count, arrivals;

    __device__ __forceinline__ void init(u32 n) { count = 0, arrivals = n; }
    __device__ __forceinline__ void arrive() { count_up(&count, 2 * arrivals - 1); }
    __device__ __forceinline__ bool is_over(u32 parity) const { return (counted(&count) >= arrivals) != (parity != 0); }
};

/* One, by whatever there is. `Loads`: there are no copies that arrive at barriers. */
template <bool Loads> struct meeting {
    u64 b;
    __device__ __forceinline__ void init(int arrivals) { barrier_init(&b, arrivals); }
    __device__ __forceinline__ void arrive() { barrier_arrive(&b); }
    __device__ __forceinline__ void wait(u32 parity) { barrier_wait(&b, parity); }
    __device__ __forceinline__ void wait_patiently(u32 parity) { barrier_wait_patiently(&b, parity); }
    __device__ __forceinline__ bool is_over(u32 parity) { return barrier_is_over(&b, parity); }
    __device__ __forceinline__ bool is_over_soon(u32 parity) { return barrier_is_over_soon(&b, parity); }
};
template <> struct meeting<true> {
    counted_barrier b;
    __device__ __forceinline__ void init(int arrivals) { b.init(arrivals); }
    __device__ __forceinline__ void arrive() { b.arrive(); }
    __device__ __forceinline__ void wait(u32 parity) { wait_patiently(parity); }
    __device__ __forceinline__ bool is_over(u32 parity) { return b.is_over(parity); }
    /* Looks take from what other warps load by. */
    __device__ __forceinline__ void wait_patiently(u32 parity) {
        while (!b.is_over(parity))
            __nanosleep(32);
    }
};

/* A slot and its barriers, which one address finds. Copies in bulk to where 128 bytes do not begin are slow: the step of the 0.5B took 366 us
 * in the place of 345 with slots that begin at multiples of 16. */
template <int Bytes, bool Loads> struct alignas(128) slot_of_ring {
    u8 data[Bytes];
    alignas(16) meeting<Loads> full;
    meeting<Loads> empty;
    static_assert(Bytes % 16 == 0, "barriers right after the data");
};

template <int Slots, int Bytes, int Lanes, bool Loads = false> struct ring {
    enum {
        PRODUCERS = (Lanes + 31) / 32,                 /* warps */
        ARRIVALS = Loads ? (int)PRODUCERS : (int)Lanes /* until a slot is full */
    };
    slot_of_ring<Bytes, Loads> slot[Slots];
    u32 bytes[PRODUCERS][Slots]; /* for the producers */

    __device__ __forceinline__ void init(int consumers) {
        for (int i = 0; i < Slots; i++) {
            slot[i].full.init(ARRIVALS);
            slot[i].empty.init(consumers);
        }
        if constexpr (!Loads)
            fence_barrier_init();
    }

    /* Until a slot is full; and that a warp has read it. */
    __device__ __forceinline__ void wait(u32 i, u32 parity) {
        if constexpr (Loads)
            slot[i].full.wait(parity);
        else
            barrier_wait<sizeof slot[i].data>(slot[i].data, parity);
    }
    __device__ __forceinline__ bool is_full(u32 i, u32 parity) { return slot[i].full.is_over(parity); }
    __device__ __forceinline__ void release(u32 i) {
        if constexpr (Loads)
            slot[i].empty.arrive();
        else
            barrier_arrive<sizeof slot[i].data + sizeof slot[i].full>(slot[i].data);
    }
};

/* What a producing lane knows: where it is, and the copies under way. At most `depth` bytes are in flight, and no more than the ring
 * has room for: deeper queues in front of the memory slow every exchange between multiprocessors down. The lanes of a warp all wait
 * for themselves, as that is faster than to have one wait for all. */
template <int Slots, int Bytes, int Lanes, bool Loads = false> struct producer {
    enum { AHEAD = INTO_L2 != 0 && STREAMS && Lanes == IN_BULK };
    ring<Slots, Bytes, Lanes, Loads> &r;
    u32 depth;
    place<Slots> at;
    place<Slots> landed; /* the oldest copy that may be in flight */
    u32 in_flight;       /* bytes */
    int copies;          /* from `landed` to `at` */
    bool later_turn;
    u32 lane;             /* of all that copy; 0 in bulk */
    const u8 *next, *end; /* of what lies together in the stream: the next copy's first byte, and the end */
    const u8 *ahead;      /* up to where it was asked for */
    u32 asked;            /* when, in cycles */
    /* What is put is to stay in the L2 cache. The weights of a step are more than it has room for: they are not to push out code, caches, norms
     * and what is exchanged, all of which a step wants again. */
    bool stays;

    /* What is put next is the first of so many bytes that lie together. */
    __device__ __forceinline__ void comes(const u8 *from, u64 bytes) {
        if constexpr (AHEAD)
            next = from, end = from + bytes;
    }

    /* What follows comes into the L2 cache while the ring is full and the memory would rest; the ring takes it from there faster. At a
     * pace, as all that is under way stands in the queues that exchanges use. */
    __device__ __forceinline__ void look_ahead() {
        if (cycles() - asked < AHEAD_PACE)
            return;
        const u8 *from = ahead > next ? ahead : next, *to = next + INTO_L2 < end ? next + INTO_L2 : end;
        if (from >= to)
            return;
        ahead = to - from > AHEAD_BYTES ? from + AHEAD_BYTES : to;
        asked = cycles();
        prefetch_bulk(from, (u32)(ahead - from));
    }

    /* While copies find their bytes in the L2 cache the memory would rest, too. Others take its time themselves: those of the caches, and
     * of what was not asked for. */
    __device__ __forceinline__ void copied(const u8 *from, u32 bytes) {
        next += from == next ? bytes : 0;
        if (next > ahead || from + bytes != next) {
            ahead = next > ahead ? next : ahead;
            asked = cycles();
        } else
            look_ahead();
    }

    /* Until the slot's last readers have gone. */
    __device__ __forceinline__ void wait_for_room() {
        if constexpr (AHEAD)
            while (!r.slot[at.slot].empty.is_over_soon(at.parity ^ 1))
                look_ahead();
        else
            r.slot[at.slot].empty.wait_patiently(at.parity ^ 1);
    }

    __device__ __forceinline__ u32 *sizes() const { return r.bytes[Lanes == IN_BULK ? 0 : lane / 32]; }

    __device__ __forceinline__ void put(const void *from, u32 bytes) {
        if constexpr (!Loads)
            if (later_turn)
                wait_for_room();
        while (!Loads && (copies == Slots || (in_flight > 0 && in_flight + bytes > depth))) {
            r.slot[landed.slot].full.wait_patiently(landed.parity);
            in_flight -= sizes()[landed.slot];
            landed.next();
            copies--;
        }
        copies++;
        if constexpr (Lanes == IN_BULK) {
            sizes()[at.slot] = bytes;
            in_flight += bytes;
            send_in_bulk(from, bytes);
        } else if constexpr (Loads)
            load_and_store((const u8 *)from, bytes);
        else {
            __syncwarp(); /* all have read the size of the slot's last tile */
            if (lane % 32 == 0)
                sizes()[at.slot] = bytes;
            in_flight += bytes;
            send_by_lanes((const u8 *)from, bytes);
            __syncwarp();
        }
        if constexpr (AHEAD)
            copied((const u8 *)from, bytes);
        at.next();
        if (at.slot == 0)
            later_turn = true;
    }

    __device__ __forceinline__ void send_in_bulk(const void *from, u32 bytes) {
        if (STREAMS && bytes) {
            barrier_expect(&r.slot[at.slot].full.b, bytes);
            if (stays)
                bulk_copy(r.slot[at.slot].data, from, bytes, &r.slot[at.slot].full.b);
            else
                bulk_copy(r.slot[at.slot].data, from, bytes, &r.slot[at.slot].full.b, evicted_first());
        } else
            r.slot[at.slot].full.arrive();
    }

    /* A lane's copies lie so far apart that those of all lanes are consecutive. Of a whole slot their places are constants, so that no
     * register is waited for. */
    __device__ __forceinline__ void send_by_lanes(const u8 *from, u32 bytes) {
        enum { STEP = Lanes * 16, WHOLE = Bytes / STEP };
        const u32 first = lane * 16, to = shared_address(r.slot[at.slot].data) + first;
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
        arrive_with_copies(&r.slot[at.slot].full.b);
    }

    /* Eight loads of a lane are under way together, 4 KB a warp, the first of them before the slot's last readers have gone. */
    __device__ __forceinline__ void load_and_store(const u8 *from, u32 bytes) {
        enum { STEP = Lanes * 16, IN_A_ROW = 8 };
        const u32 first = lane * 16;
        u8 *to = r.slot[at.slot].data;
        if (later_turn && !(STREAMS && bytes))
            r.slot[at.slot].empty.wait_patiently(at.parity ^ 1);
#pragma unroll 1
        for (u32 i = first; STREAMS && i - first < bytes; i += IN_A_ROW * STEP) {
            uint4 v[IN_A_ROW];
#pragma unroll
            for (int k = 0; k < IN_A_ROW; k++)
                if (i + k * STEP < bytes)
                    v[k] = *(const uint4 *)(from + i + k * STEP);
            if (i == first && later_turn)
                r.slot[at.slot].empty.wait_patiently(at.parity ^ 1);
#pragma unroll
            for (int k = 0; k < IN_A_ROW; k++)
                if (i + k * STEP < bytes)
                    *(uint4 *)(to + i + k * STEP) = v[k];
        }
        __syncwarp();
        if (lane % 32 == 0)
            r.slot[at.slot].full.arrive();
    }
};
