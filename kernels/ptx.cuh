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

/* Two floats in 16 bits each; the first in the low half. */
__device__ __forceinline__ u32 two_bf16(float a, float b) {
    u32 two;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(two) : "f"(b), "f"(a));
    return two;
}

__device__ __forceinline__ u32 two_f16(float a, float b) {
    u32 two;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(two) : "f"(b), "f"(a));
    return two;
}

/* (a & b) | c, one instruction: with two constants the compiler makes two of it. */
__device__ __forceinline__ u32 and_or(u32 a, u32 b, u32 c) {
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(a) : "r"(a), "r"(b), "r"(c));
    return a;
}

/* a * b + c, two halves of 16 bits each, rounded once. */
__device__ __forceinline__ u32 two_f16_fma(u32 a, u32 b, u32 c) {
    u32 two;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(two) : "r"(a), "r"(b), "r"(c));
    return two;
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

/* A barrier of some of a block's warps: number Barrier, 1 to 15, of Threads threads. */
template <int Barrier, int Threads> __device__ __forceinline__ void some_meet() {
    asm volatile("bar.sync %0, %1;" ::"n"(Barrier), "n"(Threads) : "memory");
}

/* Ends the kernel with an error; the host sees what was written before the fence. */
__device__ __forceinline__ void fence_for_host() { asm volatile("fence.sys;" ::: "memory"); }
__device__ __forceinline__ void fail() { asm volatile("trap;"); }

/* --- products of small matrices --------------------------------------------------------------------------- */

/* d += a * b: 16 x 8 += 16 x 16 times 16 x 8, each spread over the lanes of a warp (mma.sync m16n8k16, sm_80). */
__device__ __forceinline__ void mma_bf16(float *d, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void mma_f16(float *d, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* --- shared memory ---------------------------------------------------------------------------------------- */

/* The bytes of shared memory that a launch asks for, as an array. */
#define DYNAMIC_SHARED(alignment, type, name) extern __shared__ __align__(alignment) type name[]

/* Addresses as the instructions for shared memory take them. */
__device__ __forceinline__ u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

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

__device__ __forceinline__ void copies_done() { asm volatile("cp.async.wait_all;" ::: "memory"); }

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

__device__ __forceinline__ void barrier_arrive(u64 *b) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}

/* An arrival, and `bytes` that copies have to bring besides. */
__device__ __forceinline__ void barrier_expect(u64 *b, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes)
                 : "memory");
}

/* An arrival of this thread, counted as one of those that the barrier was made for, when all that it has copied by copy_16 so far
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
__device__ __forceinline__ void barrier_wait(u64 *b, u32 parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n" BARRIER_IS_OVER ".parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra over;\n"
                 "bra again;\n"
                 "over:\n"
                 "}\n" ::"r"(shared_address(b)),
                 "r"(parity)
                 : "memory");
}

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

/* What this thread wrote to shared memory, before a bulk copy writes there. Other copies need none. */
__device__ __forceinline__ void fence_for_copies() {
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

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
