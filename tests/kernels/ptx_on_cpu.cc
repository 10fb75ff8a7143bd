/* What ptx_on_cpu.h has, as functions that a test in C calls. */
#include "kernels/cpu/on_cpu.h"

namespace {
#include "kernels/digits.cuh"
#include "kernels/mma.cuh"

struct {
    const u16 *a, *b;
    float *d;
    const unsigned char *from;
    unsigned char *early, *late;
} x;

/* d[16, 8] = a[16, 16] times b[16, 8], of 16-bit elements, through shared memory. */
enum { BY_LANES = 100 }; /* of bf16, without tensor cores */
template <int How> void multiply() {
    DYNAMIC_SHARED(16, u16, staged);
    __shared__ __align__(16) u16 more[16 * 8];
    for (int i = threadIdx.x; i < 16 * 16; i += 32)
        staged[i] = x.a[i];
    for (int i = threadIdx.x; i < 16 * 8; i += 32)
        more[i] = x.b[i];
    __syncthreads();
    const int lane = threadIdx.x, row = lane % 8, matrix = lane / 8;
    uint4 a = load_matrices(shared_address(staged + (matrix % 2 * 8 + row) * 16 + matrix / 2 * 8));
    uint4 b = load_transposed(shared_address(more + (matrix % 2 * 8 + row) * 8));
    float d[4] = {};
    if (How == BY_LANES)
        mma_bf16_by_lanes(d, {a.x, a.y, a.z, a.w}, b.x, b.y);
    else
        (How == BF16 ? mma_bf16 : mma_f16)(d, a.x, a.y, a.z, a.w, b.x, b.y);
    for (int i = 0; i < 4; i++)
        x.d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}

struct {
    const unsigned *a, *b;
    int *d;
    bool is_signed;
    unsigned largest;
} bytes;

/* d[16, 8] = a[16, 32] times b[8, 32], four bytes a word. */
void multiply_bytes() {
    const int lane = threadIdx.x, row = lane / 4, quarter = lane % 4;
    const unsigned *a = bytes.a + row * 8 + quarter, *b = bytes.b + row * 8 + quarter;
    int d[4] = {};
    (bytes.is_signed ? mma_s8 : mma_u8)(d, a[0], a[64], a[4], a[68], b[0], b[4]);
    for (int i = 0; i < 4; i++)
        bytes.d[(row + i / 2 * 8) * 8 + quarter * 2 + i % 2] = d[i];
    bytes.largest = warp_largest(lane == 21 ? 0x80000000u : (unsigned)lane);
}

/* What shared memory holds before a copy has been waited for, and after. */
void copy() {
    __shared__ __align__(16) unsigned char here[16];
    copy_16(shared_address(here), x.from);
    memcpy(x.early, here, 16);
    copies_done();
    memcpy(x.late, here, 16);
}

template <int How> void run_multiply() {
    const on_cpu_kernel k = {multiply<How>, __start_on_cpu_shared, __stop_on_cpu_shared, 0, nullptr};
    const on_cpu_launch_options o = {{1, 1, 1}, 32, 16 * 16 * sizeof(u16), ON_CPU_FORWARDS, nullptr};
    on_cpu_launch(&k, &o);
}
} // namespace

extern "C" void ptx_multiply(bool bf16, bool by_lanes, const uint16_t *a, const uint16_t *b, float *d) {
    x = {a, b, d, nullptr, nullptr, nullptr};
    if (by_lanes)
        run_multiply<BY_LANES>();
    else if (bf16)
        run_multiply<BF16>();
    else
        run_multiply<F16>();
}

extern "C" void ptx_copy(const unsigned char *from, unsigned char *early, unsigned char *late) {
    x = {nullptr, nullptr, nullptr, from, early, late};
    on_cpu::launch(1, 1, ON_CPU_FORWARDS, copy);
}

extern "C" float ptx_widen(uint16_t h) {
    return f16_f32(h);
}
extern "C" uint16_t ptx_narrow(float f) {
    return f32_f16(f);
}
extern "C" unsigned ptx_two(bool bf16, float a, float b) {
    return bf16 ? two_bf16(a, b) : two_f16(a, b);
}

extern "C" unsigned ptx_multiply_bytes(bool is_signed, const unsigned *a, const unsigned *b, int *d) {
    bytes = {a, b, d, is_signed, 0};
    on_cpu::launch(1, 32, ON_CPU_FORWARDS, multiply_bytes);
    return bytes.largest;
}

/* The digits of four numbers, [digit][number], and what 1 in the lowest of them stands for. */
extern "C" float ptx_digits(const float *from, signed char *to) {
    const float4 four = make_float4(from[0], from[1], from[2], from[3]);
    const fixed_point numbers(__float_as_uint(largest_of(four)));
    unsigned words[24];
    put_digits(fixed_four(four, numbers.factor), words);
    for (int i = 0; i < 12; i++)
        to[i] = (signed char)(words[i / 4 * 8] >> i % 4 * 8 & 0xFFu);
    return numbers.unit;
}

/* The four digits of the numbers that the two quants of a byte are multiplied by, of four bytes:
 * [first, second half][digit][number]; and the integers, [half][number]. */
extern "C" void ptx_four_digits(const float *from, signed char *to, int *integers) {
    const float4 low = make_float4(from[0], from[1], from[2], from[3]),
                 high = make_float4(from[4], from[5], from[6], from[7]);
    const fixed_point numbers(__float_as_uint(larger_or_nan(largest_of(low), largest_of(high))));
    const fixed_four x[2] = {fixed_four(low, numbers.factor), fixed_four(high, numbers.factor)};
    for (int half = 0; half < 2; half++) {
        const fixed_four &own = x[half], &its = x[1 - half];
        const unsigned other[4] = {its.a, its.b, its.c, its.d}, bits[4] = {own.a, own.b, own.c, own.d};
        unsigned words[32];
        put_four_digits(own, other, half != 0, words);
        for (int i = 0; i < 16; i++)
            to[half * 16 + i] = (signed char)(words[i / 4 * 8] >> i % 4 * 8 & 0xFFu);
        for (int i = 0; i < 4; i++)
            integers[half * 4 + i] = (int)(bits[i] - fixed_four::MORE);
    }
}
