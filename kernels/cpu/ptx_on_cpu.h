#ifndef KERNELS_CPU_PTX_ON_CPU_H
#define KERNELS_CPU_PTX_ON_CPU_H

/* What kernels/ptx.cuh has, in C++. A part of on_cpu.h, which includes it. */

static inline float f16_f32(unsigned short h) {
    const unsigned sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31u, fraction = h & 1023u;
    if (exponent == 0)
        return __uint_as_float(sign | __float_as_uint((float)fraction * 0x1p-24f));
    return __uint_as_float(sign | (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) | fraction << 13);
}

static inline unsigned short f32_f16(float f) {
    const unsigned bits = __float_as_uint(f), sign = bits >> 16 & 0x8000u, size = bits & 0x7FFFFFFFu;
    if (size > 0x7F800000u)
        return 0x7FFFu;
    if (size >= 0x477FF000u) /* from where on infinity is nearer than the largest number */
        return (unsigned short)(sign | 0x7C00u);
    if (size < 0x38800000u) /* subnormal: a whole number of 2^-24 */
        return (unsigned short)(sign | (unsigned)lrintf(__uint_as_float(size) * 0x1p24f));
    return (unsigned short)(sign | (((size + 0xFFFu + (size >> 13 & 1u)) >> 13) - (112u << 10)));
}

static inline unsigned two_f16(float a, float b) {
    return f32_f16(a) | (unsigned)f32_f16(b) << 16;
}

static inline unsigned and_or(unsigned a, unsigned b, unsigned c) {
    return (a & b) | c;
}

static inline int signed_byte(unsigned four, unsigned at) {
    return (signed char)(four >> 8 * at & 0xFFu);
}

static inline float larger_or_nan(float a, float b) {
    return a != a || b != b ? __uint_as_float(0x7FFFFFFFu) : a > b ? a : b;
}

static inline unsigned short bf16_of(float f) {
    const unsigned bits = __float_as_uint(f);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return 0x7FFFu;
    return (unsigned short)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

static inline unsigned two_bf16(float a, float b) {
    return bf16_of(a) | (unsigned)bf16_of(b) << 16;
}

/* Rounded to odd on the way, so that it is rounded once. */
static inline unsigned short bf16_of_double(double d) {
    unsigned bits = __float_as_uint((float)d);
    const double nearest = (double)__uint_as_float(bits);
    if (nearest != d && d == d) {
        if (fabs(nearest) > fabs(d))
            bits--;
        bits |= 1u;
    }
    return bf16_of(__uint_as_float(bits));
}

static inline unsigned fma_bf16(unsigned a, unsigned b, unsigned c) {
    unsigned two = 0;
    for (int i = 0; i < 32; i += 16) {
        const double x = (double)__uint_as_float(a >> i << 16), y = (double)__uint_as_float(b >> i << 16),
                     z = (double)__uint_as_float(c >> i << 16);
        two |= (unsigned)bf16_of_double(x * y + z) << i;
    }
    return two;
}

static inline float exp2_near(float x) {
    return exp2f(x);
}

static inline unsigned or_xor(unsigned a, unsigned b, unsigned c) {
    return a | (b ^ c);
}

static inline void grid_lets_next_start() {
    if (on_cpu::look)
        on_cpu::look(on_cpu::LETS_NEXT_START);
}

static inline void grid_waits() {
    if (on_cpu::look)
        on_cpu::look(on_cpu::HAS_WAITED);
}

static inline unsigned thread_number() {
    return threadIdx.x;
}

/* Lanes are not in step here: each may leave a loop when it has what it waits for. */
static inline bool any_lane(bool it) {
    return it;
}

static inline bool all_lanes(bool it) {
    return on_cpu::ballot(it, __LINE__) == 0xFFFFFFFFu;
}

static inline unsigned cycles() {
    return on_cpu::now_in_cycles();
}

template <int Barrier, int Threads> static inline void some_meet() {
    on_cpu::meet_some(Barrier, Threads, __LINE__);
}

static inline void fence_for_host() {
    on_cpu::fence();
}
static inline void fail() {
    on_cpu::give_up();
}

/* --- products of small matrices --------------------------------------------------------------------------- */

namespace on_cpu {

/* A lane of mma.sync m16n8k16: PTX ISA, matrix fragments. */
struct mma_lane {
    float *d;
    unsigned a[4], b[2];
};

template <bool Bf16> static float half_of(unsigned two, int which) {
    const unsigned bits = which ? two >> 16 : two & 0xFFFFu;
    return Bf16 ? __uint_as_float(bits << 16) : f16_f32((unsigned short)bits);
}

template <bool Bf16> static void multiply(void *const *lanes) {
    float a[16][16], b[16][8];
    for (int l = 0; l < 32; l++) {
        const mma_lane &m = *(const mma_lane *)lanes[l];
        for (int half = 0; half < 2; half++) {
            for (int i = 0; i < 4; i++)
                a[l / 4 + i % 2 * 8][l % 4 * 2 + half + i / 2 * 8] = half_of<Bf16>(m.a[i], half);
            for (int i = 0; i < 2; i++)
                b[l % 4 * 2 + half + i * 8][l / 4] = half_of<Bf16>(m.b[i], half);
        }
    }
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) {
            const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
            float sum = ((const mma_lane *)lanes[l])->d[i];
            for (int k = 0; k < 16; k++)
                sum += a[row][k] * b[k][column];
            ((const mma_lane *)lanes[l])->d[i] = sum;
        }
}

/* A lane of mma.sync m16n8k32: bytes. */
struct mma_bytes_lane {
    signed *d;
    unsigned a[4], b[2];
};

template <bool Signed> static void multiply_bytes(void *const *lanes) {
    int a[16][32], b[32][8];
    for (int l = 0; l < 32; l++) {
        const mma_bytes_lane &m = *(const mma_bytes_lane *)lanes[l];
        for (int byte = 0; byte < 4; byte++) {
            for (int i = 0; i < 4; i++) {
                const unsigned bits = m.a[i] >> 8 * byte & 0xFFu;
                a[l / 4 + i % 2 * 8][l % 4 * 4 + byte + i / 2 * 16] = Signed ? (signed char)bits : (int)bits;
            }
            for (int i = 0; i < 2; i++)
                b[l % 4 * 4 + byte + i * 16][l / 4] = (signed char)(m.b[i] >> 8 * byte & 0xFFu);
        }
    }
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++)
            for (int k = 0; k < 32; k++)
                ((const mma_bytes_lane *)lanes[l])->d[i] += a[l / 4 + i / 2 * 8][k] * b[k][l % 4 * 2 + i % 2];
}

static void take_largest(void *const *lanes) {
    unsigned largest = 0;
    for (int l = 0; l < 32; l++)
        largest = *(unsigned *)lanes[l] > largest ? *(unsigned *)lanes[l] : largest;
    for (int l = 0; l < 32; l++)
        *(unsigned *)lanes[l] = largest;
}

/* A lane of ldmatrix: the address of a row, and what the lane gets. */
struct matrix_lane {
    const unsigned short *row;
    uint4 got;
};

template <bool Transposed> static void load(void *const *lanes) {
    for (int l = 0; l < 32; l++)
        for (int matrix = 0; matrix < 4; matrix++) {
            unsigned two = 0;
            for (int half = 0; half < 2; half++) {
                const int across = l / 4, along = l % 4 * 2 + half;
                const int row = Transposed ? along : across, column = Transposed ? across : along;
                two |= (unsigned)((const matrix_lane *)lanes[8 * matrix + row])->row[column] << 16 * half;
            }
            ((unsigned *)&((matrix_lane *)lanes[l])->got)[matrix] = two;
        }
}

} // namespace on_cpu

static inline void mma_bf16(float *d, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                            unsigned b1) {
    on_cpu::mma_lane mine = {d, {a0, a1, a2, a3}, {b0, b1}};
    on_cpu::together(&mine, on_cpu::multiply<true>, __LINE__);
}

static inline void mma_f16(float *d, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                           unsigned b1) {
    on_cpu::mma_lane mine = {d, {a0, a1, a2, a3}, {b0, b1}};
    on_cpu::together(&mine, on_cpu::multiply<false>, __LINE__);
}

static inline void mma_u8(signed *d, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                          unsigned b1) {
    on_cpu::mma_bytes_lane mine = {d, {a0, a1, a2, a3}, {b0, b1}};
    on_cpu::together(&mine, on_cpu::multiply_bytes<false>, __LINE__);
}

static inline void mma_s8(signed *d, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                          unsigned b1) {
    on_cpu::mma_bytes_lane mine = {d, {a0, a1, a2, a3}, {b0, b1}};
    on_cpu::together(&mine, on_cpu::multiply_bytes<true>, __LINE__);
}

static inline unsigned warp_largest(unsigned mine) {
    on_cpu::together(&mine, on_cpu::take_largest, __LINE__);
    return mine;
}

/* --- shared memory ---------------------------------------------------------------------------------------- */

static inline void stay(unsigned &) {}

template <typename T> static inline T *kept_in_register(void *p) {
    return (T *)p;
}

#define DYNAMIC_SHARED(alignment, type, name) type *name = (type *)on_cpu::dynamic_shared

static inline unsigned shared_address(const void *p) {
    return on_cpu::shared_address(p);
}

static inline uint4 load_transposed(unsigned address) {
    on_cpu::matrix_lane mine = {(const unsigned short *)on_cpu::shared_pointer(address), {}};
    on_cpu::together(&mine, on_cpu::load<true>, __LINE__);
    return mine.got;
}

static inline uint4 load_matrices(unsigned address) {
    on_cpu::matrix_lane mine = {(const unsigned short *)on_cpu::shared_pointer(address), {}};
    on_cpu::together(&mine, on_cpu::load<false>, __LINE__);
    return mine.got;
}

static inline void copy_16(unsigned to, const void *from) {
    on_cpu::copy_later(on_cpu::shared_pointer(to), from, 16);
}

template <int Bytes> static inline void copy_async(unsigned to, const void *from) {
    on_cpu::copy_later(on_cpu::shared_pointer(to), from, Bytes);
}

static inline void copies_done() {
    on_cpu::copies_done();
}

static inline void count_up(unsigned *at, unsigned last) {
    on_cpu::count_up(at, last);
}

static inline unsigned counted(const unsigned *at) {
    return on_cpu::counted(at);
}

/* --- barriers in shared memory, and copies that arrive at them --------------------------------------------- */

static inline void barrier_init(unsigned long long *b, int arrivals) {
    on_cpu::mbarrier_init(b, arrivals);
}

static inline void fence_barrier_init() {}
static inline void fence_for_copies() {}

static inline void barrier_arrive(unsigned long long *b) {
    on_cpu::mbarrier_arrive(b, 0);
}

template <int At> static inline void barrier_arrive(unsigned char *from) {
    barrier_arrive((unsigned long long *)(from + At));
}

static inline void barrier_expect(unsigned long long *b, unsigned bytes) {
    on_cpu::mbarrier_arrive(b, bytes);
}

static inline void arrive_with_copies(unsigned long long *b) {
    on_cpu::arrive_with_copies(b);
}

static inline void barrier_wait(unsigned long long *b, unsigned parity) {
    on_cpu::mbarrier_wait(b, parity);
}

template <int At> static inline void barrier_wait(unsigned char *from, unsigned parity) {
    barrier_wait((unsigned long long *)(from + At), parity);
}

static inline void barrier_wait_patiently(unsigned long long *b, unsigned parity) {
    barrier_wait(b, parity);
}

static inline void prefetch_bulk(const void *from, unsigned bytes) {
    on_cpu::prefetch(from, bytes);
}

static inline bool barrier_is_over(unsigned long long *b, unsigned parity) {
    return on_cpu::mbarrier_is_over(b, parity);
}

static inline bool barrier_is_over_soon(unsigned long long *b, unsigned parity) {
    if (!on_cpu::mbarrier_is_over(b, parity))
        on_cpu::give_way();
    return on_cpu::mbarrier_is_over(b, parity);
}

static inline void bulk_copy(void *to, const void *from, unsigned bytes, unsigned long long *b) {
    on_cpu::bulk_copy(to, from, bytes, b);
}

static inline unsigned long long evicted_first() {
    return 0;
}

static inline void bulk_copy(void *to, const void *from, unsigned bytes, unsigned long long *b,
                             unsigned long long policy) {
    (void)policy; /* there is no L2 cache */
    bulk_copy(to, from, bytes, b);
}

/* --- clusters ---------------------------------------------------------------------------------------------- */

template <int Blocks> static inline void cluster_meets() {
    on_cpu::meet_cluster(Blocks);
}

template <int Blocks>
static inline void bulk_copy_to_all(void *to, const void *from, unsigned bytes, unsigned long long *b) {
    for (unsigned rank = 0; rank < Blocks; rank++)
        on_cpu::bulk_copy(on_cpu::place_in_cluster(to, rank, Blocks), from, bytes,
                          (unsigned long long *)on_cpu::place_in_cluster(b, rank, Blocks));
}

template <int Blocks> static inline void barrier_arrive_at(unsigned long long *b, unsigned rank) {
    on_cpu::mbarrier_arrive((unsigned long long *)on_cpu::place_in_cluster(b, rank, Blocks), 0);
}

/* --- products of larger matrices --------------------------------------------------------------------------- */

namespace on_cpu {

/* A lane's part of a product by four warps, of which each has 16 rows; and those that were not waited for yet. Operands in shared
 * memory are read as late as they may be. */
struct wide_product {
    float *d;
    unsigned a[4], tokens;
    unsigned long long operand;
};

struct wide_products {
    enum { MOST = 16, MOST_GROUPS = 4 };
    unsigned n, groups, ends[MOST_GROUPS];
    wide_product list[MOST];
};

static inline wide_products &wide() {
    return *(wide_products *)room_of_thread(sizeof(wide_products));
}

static inline float wide_b(unsigned long long operand, unsigned token, unsigned k) {
    const unsigned at = (unsigned)operand * 16, chunk = at / 16 % 8 + k / 8;
    const void *two = shared_pointer(at / 128 * 128 + token * 128 + (chunk ^ token % 8) * 16 + k % 8 / 2 * 4);
    return half_of<true>(*(const unsigned *)two, (int)k % 2);
}

static inline void multiply_wide(void *const *lanes) {
    const wide_product &first = *(const wide_product *)lanes[0];
    float a[16][16];
    for (int l = 0; l < 32; l++)
        for (int half = 0; half < 2; half++)
            for (int i = 0; i < 4; i++)
                a[l / 4 + i % 2 * 8][l % 4 * 2 + half + i / 2 * 8] =
                    half_of<true>(((const wide_product *)lanes[l])->a[i], half);
    for (unsigned token = 0; token < first.tokens; token++) {
        float b[16];
        for (unsigned k = 0; k < 16; k++)
            b[k] = wide_b(first.operand, token, k);
        for (unsigned row = 0; row < 16; row++) {
            float &sum = ((const wide_product *)lanes[row % 8 * 4 + token % 8 / 2])
                             ->d[token / 8 * 4 + row / 8 * 2 + token % 2];
            for (unsigned k = 0; k < 16; k++)
                sum += a[row][k] * b[k];
        }
    }
}

} // namespace on_cpu

static inline unsigned long long wgmma_operand(const void *room) {
    return on_cpu::shared_address(room) / 16;
}

static inline void wgmma_begin() {}

static inline void wgmma_end() {
    on_cpu::wide_products &w = on_cpu::wide();
    w.ends[w.groups++] = w.n;
}

template <int N> static inline void wgmma_wait() {
    on_cpu::wide_products &w = on_cpu::wide();
    unsigned done = 0;
    for (; w.groups > N; w.groups--) {
        for (; done < w.ends[0]; done++)
            on_cpu::together(&w.list[done], on_cpu::multiply_wide, __LINE__);
        memmove(w.ends, w.ends + 1, sizeof w.ends - sizeof *w.ends);
    }
    memmove(w.list, w.list + done, (w.n - done) * sizeof *w.list);
    w.n -= done;
    for (unsigned i = 0; i < w.groups; i++)
        w.ends[i] -= done;
}

template <int Tokens> static inline void wgmma_bf16(float *d, const unsigned *a, unsigned long long operand) {
    on_cpu::wide_products &w = on_cpu::wide();
    w.list[w.n++] = {d, {a[0], a[1], a[2], a[3]}, Tokens, operand};
}

template <int N> static inline void registers_less() {}
template <int N> static inline void registers_more() {}

/* --- words that blocks hand each other --------------------------------------------------------------------- */

static inline unsigned load_relaxed_one(const float *p) {
    return on_cpu::load_now(p);
}

/* The words of a vector in any order. */
static inline uint4 load_relaxed(const float *p) {
    uint4 v = {};
    v.w = on_cpu::load_now(p + 3);
    v.y = on_cpu::load_now(p + 1);
    v.x = on_cpu::load_now(p);
    v.z = on_cpu::load_now(p + 2);
    return v;
}

static inline void store_relaxed(float *p, unsigned x) {
    on_cpu::store_late(p, x);
}

static inline void store_relaxed(float *p, unsigned x, unsigned y) {
    store_relaxed(p, x);
    store_relaxed(p + 1, y);
}

static inline void store_relaxed(float *p, unsigned x, unsigned y, unsigned z, unsigned w) {
    store_relaxed(p, x, y);
    store_relaxed(p + 2, z, w);
}

#endif
