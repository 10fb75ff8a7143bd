/* All that the kernels ask of the instruction set by name (PTX ISA): no other file has inline assembly. So kernels are C++
 * but for this file, and a program that brings functions of its own in the place of these (and defines WITHOUT_PTX) runs
 * them on a CPU: kernels/cpu/ptx_on_cpu.h. What is written here is therefore one instruction each, and what it means. */
#pragma once

typedef signed int i32;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifndef WITHOUT_PTX

/* --- numbers ---------------------------------------------------------------------------------------------- */

__device__ __forceinline__ float f16_f32(u16 h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}

/* To nearest even, here and below. */
__device__ __forceinline__ u16 f32_f16(float f) {
    u16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}

/* Two floats in 16 bits each; the first in the low half (sm_80; bf16 before that: mma.cuh). */
__device__ __forceinline__ u32 two_bf16(float a, float b) {
    u32 two;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(two) : "f"(b), "f"(a));
    return two;
}

/* Two products and sums of bf16, rounded once. sm_80. */
__device__ __forceinline__ u32 fma_bf16(u32 a, u32 b, u32 c) {
    u32 d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

__device__ __forceinline__ u32 two_f16(float a, float b) {
#if __CUDA_ARCH__ >= 800
    u32 two;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(two) : "f"(b), "f"(a));
    return two;
#else
    return f32_f16(a) | (u32)f32_f16(b) << 16;
#endif
}

/* (a & b) | c, one instruction: with two constants the compiler makes two of it. */
__device__ __forceinline__ u32 and_or(u32 a, u32 b, u32 c) {
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(a) : "r"(a), "r"(b), "r"(c));
    return a;
}

/* Byte `at` of four. */
__device__ __forceinline__ i32 signed_byte(u32 four, u32 at) {
    i32 byte;
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(byte) : "r"(four), "r"(0x8880u + 0x1111u * at));
    return byte;
}

/* The larger of two; NaN if one is (one instruction from sm_80 on). */
__device__ __forceinline__ float larger_or_nan(float a, float b) {
#if __CUDA_ARCH__ >= 800
    float larger;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
    return larger;
#else
    return a != a || b != b ? __uint_as_float(0x7FFFFFFFu) : fmaxf(a, b);
#endif
}

/* 2^x, to about 2 units in the last place. */
__device__ __forceinline__ float exp2_near(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* a | (b ^ c), one instruction: left to itself the compiler makes comparisons of it. */
__device__ __forceinline__ u32 or_xor(u32 a, u32 b, u32 c) {
    asm("lop3.b32 %0, %1, %2, %3, 0xF6;" : "=r"(a) : "r"(a), "r"(b), "r"(c));
    return a;
}

/* --- grids and threads ------------------------------------------------------------------------------------ */

/* Programmatic dependent launch, of sm_90 (common.cuh). */
__device__ __forceinline__ void grid_lets_next_start() { asm volatile("griddepcontrol.launch_dependents;"); }
__device__ __forceinline__ void grid_waits() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

/* threadIdx.x, read anew: for who is not to keep it in a register. */
__device__ __forceinline__ u32 thread_number() {
    u32 thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

/* Clock cycles of this multiprocessor, of which the low 32 bits. */
__device__ __forceinline__ u32 cycles() {
    u32 t;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(t)::"memory");
    return t;
}

/* Is it so for any lane of the warp? For loops that a warp leaves as one. */
__device__ __forceinline__ bool any_lane(bool it) { return __any_sync(0xFFFFFFFFu, it); }
/* For all of them? Where the warp does one thing or another by it. */
__device__ __forceinline__ bool all_lanes(bool it) { return __all_sync(0xFFFFFFFFu, it); }

/* The largest number that a lane of the warp has (redux.sync, sm_80; shuffles before that). */
__device__ __forceinline__ u32 warp_largest(u32 mine) {
#if __CUDA_ARCH__ >= 800
    u32 largest;
    asm volatile("redux.sync.max.u32 %0, %1, 0xFFFFFFFF;" : "=r"(largest) : "r"(mine));
    return largest;
#else
    for (int distance = 16; distance > 0; distance /= 2) {
        const u32 theirs = __shfl_xor_sync(0xFFFFFFFFu, mine, distance);
        mine = theirs > mine ? theirs : mine;
    }
    return mine;
#endif
}

/* A barrier of some of a block's warps: number Barrier, 1 to 15, of Threads threads. */
template <int Barrier, int Threads> __device__ __forceinline__ void some_meet() {
    asm volatile("bar.sync %0, %1;" ::"n"(Barrier), "n"(Threads) : "memory");
}

/* Ends the kernel with an error; the host sees what was written before the fence. */
__device__ __forceinline__ void fence_for_host() { asm volatile("fence.sys;" ::: "memory"); }
__device__ __forceinline__ void fail() { asm volatile("trap;"); }

/* --- products of small matrices --------------------------------------------------------------------------- */

/* d += a * b, each spread over the lanes of a warp. */
#define MMA(name, kind, d_type, constraint)                                                                        \
    __device__ __forceinline__ void name(d_type *d, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {              \
        asm("mma.sync.aligned." kind " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                      \
            : constraint(d[0]), constraint(d[1]), constraint(d[2]), constraint(d[3])                               \
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));                                               \
    }

/* 16 x 8 += 16 x 16 times 16 x 8 (m16n8k16, sm_80). */
MMA(mma_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32", float, "+f")

#if __CUDA_ARCH__ >= 800

MMA(mma_f16, "m16n8k16.row.col.f32.f16.f16.f32", float, "+f")
/* 16 x 8 += 16 x 32 times 32 x 8, of bytes (m16n8k32, sm_80); b is signed, a is not or is. */
MMA(mma_u8, "m16n8k32.row.col.s32.u8.s8.s32", i32, "+r")
MMA(mma_s8, "m16n8k32.row.col.s32.s8.s8.s32", i32, "+r")

#else

/* Of f16 on sm_75 in two halves of K (m16n8k8), whose fragments are those of the whole. */
__device__ __forceinline__ void mma_f16(float *d, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(b0));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a2), "r"(a3), "r"(b1));
}

/* Of bytes, in halves of rows and of K (m8n8k16), whose fragments are those of the whole. */
__device__ __forceinline__ void mma_eighth_u8(i32 *d, u32 a, u32 b) {
    asm("mma.sync.aligned.m8n8k16.row.col.s32.u8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
        : "+r"(d[0]), "+r"(d[1])
        : "r"(a), "r"(b));
}

__device__ __forceinline__ void mma_eighth_s8(i32 *d, u32 a, u32 b) {
    asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
        : "+r"(d[0]), "+r"(d[1])
        : "r"(a), "r"(b));
}

__device__ __forceinline__ void mma_u8(i32 *d, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    mma_eighth_u8(d, a0, b0), mma_eighth_u8(d + 2, a1, b0);
    mma_eighth_u8(d, a2, b1), mma_eighth_u8(d + 2, a3, b1);
}

__device__ __forceinline__ void mma_s8(i32 *d, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    mma_eighth_s8(d, a0, b0), mma_eighth_s8(d + 2, a1, b0);
    mma_eighth_s8(d, a2, b1), mma_eighth_s8(d + 2, a3, b1);
}

#endif
#undef MMA

/* --- shared memory ---------------------------------------------------------------------------------------- */

/* The bytes of shared memory that a launch asks for, as an array. */
#define DYNAMIC_SHARED(alignment, type, name) extern __shared__ __align__(alignment) type name[]

/* Addresses as the instructions for shared memory take them. */
__device__ __forceinline__ u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

/* Made once and kept: the compiler cannot make it anew from what it was made of. */
__device__ __forceinline__ void stay(u32 &x) { asm volatile("" : "+r"(x)); }

/* What lies there, by a pointer that is kept in a register. Where there are clusters the compiler would make it anew at each use, of the
 * block's place in one, which takes some 40 cycles; elsewhere it is a constant. */
template <typename T> __device__ __forceinline__ T *kept_in_register(void *p) {
#if __CUDA_ARCH__ >= 900
    u32 at = shared_address(p);
    stay(at);
    return (T *)__cvta_shared_to_generic(at);
#else
    return (T *)p;
#endif
}

/* Four 8 x 8 matrices of 16-bit elements, transposed; lane i gives the address of row i % 8 of matrix i / 8. */
__device__ __forceinline__ uint4 load_transposed(u32 address) {
    uint4 v;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(address)
                 : "memory");
    return v;
}

/* The same, as they lie there. */
__device__ __forceinline__ uint4 load_matrices(u32 address) {
    uint4 v;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(address)
                 : "memory");
    return v;
}

/* 16 bytes from global to shared memory, on their way when this returns; and a wait for all those of this thread (sm_80). */
__device__ __forceinline__ void copy_16(u32 to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

/* The same of 4 or 8 bytes, which are then in the L1 cache, too. */
template <int Bytes> __device__ __forceinline__ void copy_async(u32 to, const void *from) {
    if constexpr (Bytes == 16)
        copy_16(to, from);
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(from), "n"(Bytes) : "memory");
}

__device__ __forceinline__ void copies_done() { asm volatile("cp.async.wait_all;" ::: "memory"); }

/* Copies since the last such call are a group; and a wait until no more than N groups are on their way. */
__device__ __forceinline__ void copies_end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void groups_done() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* A number in shared memory that goes from 0 to `last` and to 0 again (sm_70). A thread that sees it sees what the threads that counted had
 * written before, and those of their warps before they met. */
__device__ __forceinline__ void count_up(u32 *at, u32 last) {
    asm volatile("red.release.cta.shared.inc.u32 [%0], %1;" ::"r"(shared_address(at)), "r"(last) : "memory");
}

__device__ __forceinline__ u32 counted(const u32 *at) {
    u32 n;
    asm volatile("ld.acquire.cta.shared.u32 %0, [%1];" : "=r"(n) : "r"(shared_address(at)) : "memory");
    return n;
}

/* --- barriers in shared memory, and copies that arrive at them (mbarrier, sm_80; cp.async.bulk, sm_90) ------ */

__device__ __forceinline__ void barrier_init(u64 *b, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals));
}

/* What barrier_init did, for bulk copies to see. Where there are none, the barrier of the block that follows is enough. */
__device__ __forceinline__ void fence_barrier_init() {
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

/* At a barrier that lies At bytes after an address, which need not be added up. */
template <int At> __device__ __forceinline__ void barrier_arrive(u8 *from) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0 + %1];" ::"r"(shared_address(from)), "n"(At) : "memory");
}
__device__ __forceinline__ void barrier_arrive(u64 *b) { barrier_arrive<0>((u8 *)b); }

/* An arrival, and `bytes` that copies have to bring besides. */
__device__ __forceinline__ void barrier_expect(u64 *b, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes)
                 : "memory");
}

/* An arrival of this thread, counted as one of those that the barrier was made for, when all that it has copied by copy_16 and copy_async so far
 * has landed. */
__device__ __forceinline__ void arrive_with_copies(u64 *b) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(b)) : "memory");
}

/* Until the phase of that parity is over: try_wait suspends the thread for a while, which sm_80 does not know. */
#if __CUDA_ARCH__ >= 900
#define BARRIER_IS_OVER "mbarrier.try_wait"
#else
#define BARRIER_IS_OVER "mbarrier.test_wait"
#endif
template <int At> __device__ __forceinline__ void barrier_wait(u8 *from, u32 parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n" BARRIER_IS_OVER ".parity.shared::cta.b64 done, [%0 + %2], %1;\n"
                 "@done bra over;\n"
                 "bra again;\n"
                 "over:\n"
                 "}\n" ::"r"(shared_address(from)),
                 "r"(parity), "n"(At)
                 : "memory");
}
__device__ __forceinline__ void barrier_wait(u64 *b, u32 parity) { barrier_wait<0>((u8 *)b, parity); }

/* The same for a warp whose next work takes long. On sm_80 it sleeps between its looks, which take from what other warps load by;
 * where a thread holds much in registers, as consumers do, the compiler would spill some of them around the sleep. */
__device__ __forceinline__ void barrier_wait_patiently(u64 *b, u32 parity) {
#if __CUDA_ARCH__ >= 900
    barrier_wait(b, parity);
#else
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.test_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra over;\n"
                 "nanosleep.u32 64;\n"
                 "bra again;\n"
                 "over:\n"
                 "}\n" ::"r"(shared_address(b)),
                 "r"(parity)
                 : "memory");
#endif
}

__device__ __forceinline__ void bulk_copy(void *to, const void *from, u32 bytes, u64 *b) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(b))
                 : "memory");
}

/* A policy of the L2 cache: lines that are the first to go. sm_80. */
__device__ __forceinline__ u64 evicted_first() {
    u64 policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

/* bulk_copy by such a policy. */
__device__ __forceinline__ void bulk_copy(void *to, const void *from, u32 bytes, u64 *b, u64 policy) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(b)), "l"(policy)
                 : "memory");
}

/* Bytes of global memory into the L2 cache, in whole 16. sm_90. */
__device__ __forceinline__ void prefetch_bulk(const void *from, u32 bytes) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}

/* Is the phase of that parity over? */
__device__ __forceinline__ bool barrier_is_over(u64 *b, u32 parity) {
    u32 over;
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, done;\n"
                 "}\n"
                 : "=r"(over)
                 : "r"(shared_address(b)), "r"(parity)
                 : "memory");
    return over;
}

/* The same; if not, that is said some 200 ns later. sm_90. */
__device__ __forceinline__ bool barrier_is_over_soon(u64 *b, u32 parity) {
    u32 over;
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2, %3;\n"
                 "selp.u32 %0, 1, 0, done;\n"
                 "}\n"
                 : "=r"(over)
                 : "r"(shared_address(b)), "r"(parity), "r"(200)
                 : "memory");
    return over;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* All threads of a cluster of so many blocks meet. */
template <int Blocks> __device__ __forceinline__ void cluster_meets() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/* A bulk copy to the same place of all blocks of the cluster, that arrives at the same barrier of each. */
template <int Blocks> __device__ __forceinline__ void bulk_copy_to_all(void *to, const void *from, u32 bytes, u64 *b) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(b)), "h"((u16)((1 << Blocks) - 1))
                 : "memory");
}

/* An arrival at the same barrier of another block: what this thread has read may be written anew. (With the scope of a cluster it would
 * also wait until the whole card sees what this thread has written, for a microsecond.) */
template <int Blocks> __device__ __forceinline__ void barrier_arrive_at(u64 *b, u32 rank) {
    asm volatile("{\n"
                 ".reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
                 "}\n" ::"r"(shared_address(b)),
                 "r"(rank)
                 : "memory");
}

#endif

/* What this thread wrote to shared memory, before a bulk copy writes there. Other copies need none. */
__device__ __forceinline__ void fence_for_copies() {
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/* --- products of larger matrices by four warps together (wgmma, sm_90a) ------------------------------------ */

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* Operand B in shared memory: tokens of 128 bytes each, 8 of them in 1,024 bytes whose chunks of 16 bytes are swizzled; `room` is a multiple
 * of 1,024. Sixteen elements further on it is 2 more. */
__device__ __forceinline__ u64 wgmma_operand(const void *room) {
    return (u64)(shared_address(room) >> 4 & 0x3FFFu) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

/* Registers of a thread, of all warps of four: some give back what others take. */
template <int N> __device__ __forceinline__ void registers_less() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ __forceinline__ void registers_more() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/* Registers are as they were written; products before it are a group; until no more than N groups run. */
__device__ __forceinline__ void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_end() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* So many sums from the i-th on, as operands. */
#define D8(i)                                                                                                      \
    "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3]), "+f"(d[(i) + 4]), "+f"(d[(i) + 5]),          \
        "+f"(d[(i) + 6]), "+f"(d[(i) + 7])
#define D32(i) D8(i), D8((i) + 8), D8((i) + 16), D8((i) + 24)
#define D64(i) D32(i), D32((i) + 32)

/* d += a * b: 64 x Tokens += 64 x 16 times 16 x Tokens; a warp has 16 rows, as of mma.sync. */
template <int Tokens> __device__ __forceinline__ void wgmma_bf16(float *d, const u32 *a, u64 operand) {
    if constexpr (Tokens == 64)
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
                 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 0;"
                 : D32(0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(operand));
    else if constexpr (Tokens == 128)
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
                 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 0;"
                 : D64(0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(operand));
    else if constexpr (Tokens == 256)
        asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
                 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
                 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
                 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
                 "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
                 "}, {%128, %129, %130, %131}, %132, 1, 1, 1, 0;"
                 : D64(0), D64(64)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(operand));
}
#undef D8
#undef D32
#undef D64

#endif

/* --- words that blocks hand each other (exchange.cuh) ------------------------------------------------------ */

/* No order among different words is promised, only that each one is whole. */
__device__ __forceinline__ uint4 load_relaxed(const float *p) {
    uint4 v;
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}

__device__ __forceinline__ u32 load_relaxed_one(const float *p) {
    u32 v;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}

__device__ __forceinline__ void store_relaxed(float *p, u32 x) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(x) : "memory");
}

__device__ __forceinline__ void store_relaxed(float *p, u32 x, u32 y) {
    asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1,%2};" ::"l"(p), "r"(x), "r"(y) : "memory");
}

__device__ __forceinline__ void store_relaxed(float *p, u32 x, u32 y, u32 z, u32 w) {
    asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(p), "r"(x), "r"(y), "r"(z), "r"(w)
                 : "memory");
}

#endif
