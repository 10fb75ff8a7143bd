/* The phases of a decode step of qwen2.5-0.5b, written by codegen/persistent/text.c. */
#pragma once
#define TABLE BF16
enum { WARPS = 14, SHARES = 4, ATTENTIONS = 1, ROPES = 1, PHASES = 7 };
enum { COPY = 9216, MOST_HEAD_DIM = 64, PART_ROOM = 2048 };
enum { SLOT_BYTES = 14336, OPERANDS = 0 };
enum { WORKSPACE_BYTES = 26864 };
enum { NORM_LOADS = 1, NORM_SLOTS = 2, START_SLOT = 0, START_AT = 0, START_K = 896 };
enum { CARRIED_SHARE = 1, CARRIED_EMBEDDING = 896 };
enum { MARK = 1, LARGEST = 1 };
__device__ __forceinline__ constexpr int rope_half(int table) { return 32; }

struct phase0 : phase_defaults { /* qkv */
    enum { DOES = DO_PRODUCTS, PHASE = 0, OUT = 0, SMALL_STEP = 2944 };
    RULE u32 parity(int i, u32 epoch) { return (i + 1) & 1; }
    enum { K = 896, ROWS = 1152, MATRICES = 1, WEIGHT = BF16, SHARE = 0 };
    RULE u64 at(int i, const rows *mine) { return 0ull + i * 29818880ull + FIRST(0)*1792ull+FIRST(1)*1792ull+FIRST(2)*1792ull+FIRST(1)*9728ull; }
    RULE u64 rest(const rows *mine) { return COUNT(0)*1792ull+COUNT(1)*1792ull+COUNT(2)*1792ull+COUNT(1)*9728ull; }
    enum { NORM = 1, NORM_AT = 0, NORM_SLOT = 0, NORM_LOADED = 0 };
    RULE float eps() { return 1e-06f; }
    RULE int squares(int i) { return 0; }
    enum { BIAS = 1, BIAS_AT = 896 };
    RULE bool embeds(int i) { return i == 0; }
    enum { X_CLEAR = 0 };
    RULE int x_from(int i) { return 7808; }
    RULE u32 x_parity(int i, u32 epoch) { return (i + 2) & 1; }
    RULE float result(float l0, float l1, float l2, float l3, float a0, float a1, float a2, float a3) { return l0; }
};

struct phase1 : phase_defaults { /* attention a */
    enum { DOES = DO_ATTENTION, PHASE = 1, OUT = 1152, SMALL_STEP = 2944 };
    RULE u32 parity(int i, u32 epoch) { return (i + 1) & 1; }
    enum { HEADS = 14, KV_HEADS = 2, HEAD_DIM = 64, CACHE = F16 };
    enum { CACHES_AT = 0, CACHES_STEP = 2 };
    RULE int parts_at(int i) { return 18432; }
    RULE float scale() { return 0.125f; }
    RULE int q_rope(int i) { return 0; }
    RULE int k_rope(int i) { return 0; }
    enum { Q_CLEAR = 0 };
    RULE int q_from(int i) { return 0; }
    RULE u32 q_parity(int i, u32 epoch) { return (i + 3) & 1; }
    enum { K_CLEAR = 0 };
    RULE int k_from(int i) { return 896; }
    RULE u32 k_parity(int i, u32 epoch) { return (i + 3) & 1; }
    enum { V_CLEAR = 0 };
    RULE int v_from(int i) { return 1024; }
    RULE u32 v_parity(int i, u32 epoch) { return (i + 3) & 1; }
};

struct phase2 : phase_defaults { /* attention a */
    enum { DOES = DO_MERGE, PHASE = 2, OUT = -1, SMALL_STEP = 2944 };
    RULE u32 parity(int i, u32 epoch) { return (i + 1) & 1; }
    typedef phase1 of;
};

struct phase3 : phase_defaults { /* out */
    enum { DOES = DO_PRODUCTS, PHASE = 3, OUT = 2048, SMALL_STEP = 2944 };
    RULE u32 parity(int i, u32 epoch) { return (i + 1) & 1; }
    enum { K = 896, ROWS = 896, MATRICES = 1, WEIGHT = BF16, SHARE = 1 };
    RULE u64 at(int i, const rows *mine) { return 0ull + i * 29818880ull + FIRST(0)*1792ull+COUNT(0)*1792ull+FIRST(1)*1792ull+FIRST(2)*1792ull+FIRST(1)*9728ull; }
    RULE u64 rest(const rows *mine) { return COUNT(1)*1792ull+COUNT(2)*1792ull+COUNT(1)*9728ull; }
    enum { PREPARES = 1 };
    typedef struct phase4 next;
    enum { AHEAD_SLOT = 1, AHEAD_AT = 2048, AHEAD_K = 896 };
    enum { CARRIES = 1 };
    enum { X_CLEAR = 0 };
    RULE int x_from(int i) { return 1152; }
    RULE u32 x_parity(int i, u32 epoch) { return (i + 3) & 1; }
    RULE float result(float l0, float l1, float l2, float l3, float a0, float a1, float a2, float a3) { return op_add(a0,l0); }
    enum { A0 = CARRIED };
};

struct phase4 : phase_defaults { /* mlp */
    enum { DOES = DO_PRODUCTS, PHASE = 4, OUT = 2944, SMALL_STEP = 2944 };
    RULE u32 parity(int i, u32 epoch) { return (i + 1) & 1; }
    enum { K = 896, ROWS = 9728, MATRICES = 2, WEIGHT = BF16, SHARE = 2 };
    RULE u64 at(int i, const rows *mine) { return 0ull + i * 29818880ull + FIRST(0)*1792ull+COUNT(0)*1792ull+FIRST(1)*1792ull+COUNT(1)*1792ull+FIRST(2)*1792ull+FIRST(1)*9728ull; }
    RULE u64 rest(const rows *mine) { return COUNT(2)*1792ull+COUNT(1)*9728ull; }
    enum { IS_PREPARED = 1 };
    enum { NORM = 1, NORM_AT = 2048, NORM_SLOT = 1, NORM_LOADED = 0 };
    RULE float eps() { return 1e-06f; }
    RULE int squares(int i) { return 1; }
    enum { X_CLEAR = 0 };
    RULE int x_from(int i) { return 2048; }
    RULE u32 x_parity(int i, u32 epoch) { return (i + 3) & 1; }
    RULE float result(float l0, float l1, float l2, float l3, float a0, float a1, float a2, float a3) { return op_mul(op_silu(l0),l1); }
};

struct phase5 : phase_defaults { /* out_2 */
    enum { DOES = DO_PRODUCTS, PHASE = 5, OUT = 7808, SMALL_STEP = 2944 };
    RULE u32 parity(int i, u32 epoch) { return (i + 1) & 1; }
    enum { K = 4864, ROWS = 896, MATRICES = 1, WEIGHT = BF16, SHARE = 1 };
    RULE u64 at(int i, const rows *mine) { return 0ull + i * 29818880ull + FIRST(0)*1792ull+COUNT(0)*1792ull+FIRST(1)*1792ull+COUNT(1)*1792ull+FIRST(2)*1792ull+COUNT(2)*1792ull+FIRST(1)*9728ull; }
    RULE u64 rest(const rows *mine) { return COUNT(1)*9728ull; }
    enum { AHEAD_SLOT = 0, AHEAD_AT = 2944, AHEAD_K = 896 };
    enum { CARRIES = 1 };
    enum { X_CLEAR = 0 };
    RULE int x_from(int i) { return 2944; }
    RULE u32 x_parity(int i, u32 epoch) { return (i + 3) & 1; }
    RULE float result(float l0, float l1, float l2, float l3, float a0, float a1, float a2, float a3) { return op_add(a0,l0); }
    enum { A0 = CARRIED };
};

struct phase6 : phase_defaults { /* norm */
    enum { DOES = DO_PRODUCTS, PHASE = 6, OUT = -1, SMALL_STEP = 0 };
    enum { LOGITS = 1 };
    RULE u32 parity(int i, u32 epoch) { return (i + 1 + epoch) & 1; }
    enum { K = 896, ROWS = 151936, MATRICES = 1, WEIGHT = BF16, SHARE = 3 };
    RULE u64 at(int i, const rows *mine) { return 715653120ull + i * 272269312ull + FIRST(3)*1792ull; }
    RULE u64 rest(const rows *mine) { return COUNT(3)*1792ull; }
    enum { NORM = 1, NORM_AT = 70656, NORM_SLOT = 0, NORM_LOADED = 0 };
    RULE float eps() { return 1e-06f; }
    RULE int squares(int i) { return (i + 0) & 1; }
    enum { X_CLEAR = 0 };
    RULE int x_from(int i) { return 7808; }
    RULE u32 x_parity(int i, u32 epoch) { return (24) & 1; }
    RULE float result(float l0, float l1, float l2, float l3, float a0, float a1, float a2, float a3) { return l0; }
};

/* One attention of each shape: its phase, and an iteration. */
struct cuts {
    template <typename F> RULE void each(F f) {
        f(phase1(), 0);
    }
};

/* All phases in their order: f(phase, iteration). */
struct program {
    template <typename F> RULE void each(F f) {
#pragma unroll 1
        for (int i = 0; i < 24; i++) {
            f(phase0(), i);
            f(phase1(), i);
            f(phase2(), i);
            f(phase3(), i);
            f(phase4(), i);
            f(phase5(), i);
        }
        f(phase6(), 0);
    }
};
