#ifndef TESTS_KERNELS_EXCHANGE_ON_CPU_H
#define TESTS_KERNELS_EXCHANGE_ON_CPU_H

#include "kernels/cpu/on_cpu_launch.h"

/* The chain of products of exchange_on_cpu.cc: x becomes W x, two products a layer. */

enum { EXCHANGE_N = 64 };

/* How the ring is filled: by bulk copies, by the lanes of two warps that copy 16 bytes each, or that load and store them. */
enum { EXCHANGE_IN_BULK, EXCHANGE_BY_LANES, EXCHANGE_BY_LOADS, EXCHANGE_N_COPIES };

/* What can be wrong with it:
 *   NONE
 *   PARITY               of the words of a vector is the same in each use
 *   NO_WAIT              who takes a vector does not look at the parity
 *   ONE_VECTOR           where there should be two in turn
 *   SILENT_BLOCK         one block reads the vectors and publishes nothing that depends on them
 *   NO_BARRIER           sums are added up before all warps have left theirs
 *   EARLY_RELEASE        a slot is given back before it was read
 *   SLOT_NOT_WAITED_FOR  a slot is filled before it was given back
 *   TILE_NOT_WAITED_FOR  a slot is read before it was filled
 *   NO_RELEASE           a warp gives one slot never back
 * and where slots are filled by copies of the lanes of a warp:
 *   LANE_DOES_NOT_ARRIVE one of them does not say that its copies have landed
 *   ARRIVES_TOO_EARLY    they say so before their copies have */
#define EXCHANGE_FAULTS        \
    FAULT(NONE)                \
    FAULT(PARITY)              \
    FAULT(NO_WAIT)             \
    FAULT(ONE_VECTOR)          \
    FAULT(SILENT_BLOCK)        \
    FAULT(NO_BARRIER)          \
    FAULT(EARLY_RELEASE)       \
    FAULT(SLOT_NOT_WAITED_FOR) \
    FAULT(TILE_NOT_WAITED_FOR) \
    FAULT(NO_RELEASE)          \
    FAULT(LANE_DOES_NOT_ARRIVE) FAULT(ARRIVES_TOO_EARLY)

enum exchange_fault {
#define FAULT(name) FAULT_##name,
    EXCHANGE_FAULTS
#undef FAULT
        EXCHANGE_N_FAULTS,
    EXCHANGE_FIRST_OF_LANES = FAULT_LANE_DOES_NOT_ARRIVE,
};

typedef struct {
    unsigned threads;
    size_t shared_bytes;
    size_t exchange_floats; /* zero at first */
} exchange_shape;

#ifdef __cplusplus
extern "C" {
#endif
extern const exchange_shape exchange_of_test;
/* Arguments: weights [layers, 2, N, N], x [N], the exchange, out [N], i32 *gave_up, i32 layers, u32 uses of each vector before. */
const on_cpu_kernel *exchange_kernel(int fault, int copies);
#ifdef __cplusplus
}
#endif

#endif
