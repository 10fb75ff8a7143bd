/* Kernels from outside that give a device function, in the persistent kernel: small graphs with three of them, replayed on the CPU as
 * in test_replay.c; and with faults in one of them, which have to show. */

#include <string.h>

#include "graph/base/str.h"
#include "kernels/cpu/on_cpu_launch.h"
#include "tests/kernels/replay.h"
#include "tests/kernels/small_graphs.h"
#include "tests/support/cmocka.h"

#ifndef FAULTS /* fewer where a sanitizer makes them slow */
#define FAULTS 6
#endif

#define LINE(text) "      - '" text "'\n"

/* A norm, which reads all of its vector and a weight; silu(gate) * up, which takes pieces of two and a number; a rope by head, which is
 * told the position. Entries are what is launched in other modes. */
static const char kernels[] =
    "kernels:\n"
    "  row_norm:\n"
    "    nodes: [\"n = rms_norm(x, w)\"]\n"
    "    params: [\"x: f32 reads\", \"w: f32 reads\", \"n: f32 writes\"]\n"
    "    options: [WIDTH = x.width, EPS = n.eps]\n    limits: [WIDTH == w.width]\n"
    "    grid: [x.elems by WIDTH]\n    threads: 32\n    starts: [waits]\n    phase: 32\n    text:\n" LINE(
        "#include \"common.cuh\"") LINE("#define PIECE 32") LINE("#ifdef AS_PHASE")
        LINE("__device__ void row_norm_phase(int piece, int lane, const float *x, const float *w, float *n) {") LINE(
            "#else") LINE("extern \"C\" __global__ void row_norm(const float *x, const float *w, float *n) {")
            LINE("    wait_for_previous();") LINE("    const int lane = threadIdx.x;") LINE(
                "    for (int piece = 0; piece < WIDTH / PIECE; piece++, n += PIECE) {") LINE("#endif")
                LINE("    float squares = 0.0f;") LINE(
                    "    for (int e = lane; e < WIDTH; e += 32) squares = fmaf(x[e], x[e], squares);")
                    LINE("    squares = rsqrtf(warp_sum(squares) / WIDTH + EPS);") LINE(
                        "    for (int e = lane; e < PIECE; e += 32) n[e] = x[piece * PIECE + e] * squares * w[piece * PIECE + e];")
                        LINE("#ifndef AS_PHASE") LINE("    }") LINE("#endif") LINE(
                            "}") "  gated:\n"
                                 "    nodes: [\"s = silu(x)\", \"y = mul(s, z)\"]\n"
                                 "    params: [\"x: f32 reads\", \"T: i32 = T\", \"z: f32 reads\", \"y: f32 writes\"]\n"
                                 "    options: [PIECE = 16]\n"
                                 "    grid: [x.elems]\n    threads: 1\n    starts: [waits]\n    phase: 16\n    text:\n" LINE(
                                     "#include \"common.cuh\"") LINE("#include \"pointwise.cuh\"")
                                     LINE("#ifndef AS_PHASE") LINE(
                                         "extern \"C\" __global__ void gated(const float *x, i32 T, const float *z, float *y) {")
                                         LINE("    wait_for_previous();") LINE(
                                             "    y[blockIdx.x] = op_silu(x[blockIdx.x]) * z[blockIdx.x];")
                                             LINE("}") LINE("#endif") LINE(
                                                 "__device__ void gated_phase(int piece, int lane, const float *x, i32 T, const float *z, float *y) {")
                                                 LINE(
                                                     "    if (lane < PIECE * T) y[lane] = op_silu(x[piece * PIECE + lane]) * z[piece * PIECE + lane];")
                                                     LINE(
                                                         "}") "  turned:\n"
                                                              "    nodes: [\"y = rope(x, p, style=neox)\"]\n"
                                                              "    params: [\"x: f32 reads\", \"p: i32 reads\", \"y: f32 writes\"]\n"
                                                              "    options: [WARPS = y.head_dim / 2, BASE = y.base]\n    limits: [WARPS == 16]\n"
                                                              "    grid: [x.width by 2 * WARPS]\n    threads: 32\n    starts: [waits]\n    phase: y.head_dim\n    text:\n" LINE(
                                                                  "#include \"common.cuh\"") LINE("__device__ void turn(int lane, const float *x, int position, float *y) {")
                                                                  LINE("    if (lane >= WARPS) return;") LINE(
                                                                      "    const float angle = position * powf(BASE, -(float)lane / WARPS), c = cosf(angle), s = sinf(angle);")
                                                                      LINE("    y[lane] = x[lane] * c - x[lane + WARPS] * s;") LINE(
                                                                          "    y[lane + WARPS] = x[lane + WARPS] * c + x[lane] * s;")
                                                                          LINE("}") LINE("#ifdef AS_PHASE") LINE(
                                                                              "__device__ void turned_phase(int piece, int lane, const float *x, const i32 *p, float *y) {")
                                                                              LINE(
                                                                                  "    turn(lane, x + 2 * WARPS * piece, p[0], y);")
                                                                                  LINE("}") LINE("#else") LINE(
                                                                                      "extern \"C\" __global__ void turned(const float *x, const i32 *p, float *y) {")
                                                                                      LINE(
                                                                                          "    wait_for_previous();")
                                                                                          LINE(
                                                                                              "    turn(threadIdx.x, x + 2 * WARPS * blockIdx.x, p[0], y + 2 * WARPS * blockIdx.x);")
                                                                                              LINE("}") LINE(
                                                                                                  "#endif");

#define GRAPH                                                                                           \
    SMALL_HEAD("small-outside", "", "f16")                                                              \
    SMALL_NODE("rms_norm", "x, norm1", ", eps: eps, fuse: \"normed@row_norm\"", "h")                    \
    SMALL_NODE("linear", "h, wq", "", "q")                                                              \
    SMALL_NODE("linear", "h, wk", "", "k")                                                              \
    SMALL_NODE("linear", "h, wv", "", "v")                                                              \
    SMALL_NODE("rope", "q, positions", ", style: neox, base: 10000, head_dim: dh, fuse: \"qt@turned\"", \
               "qr")                                                                                    \
    SMALL_ROPE("k", "kr")                                                                               \
    SMALL_NODE("append", "kc, kr, positions", "", "k_all")                                              \
    SMALL_NODE("append", "vc, v, positions", "", "v_all")                                               \
    SMALL_NODE("attention", "qr, k_all, v_all, positions", ", scale: dh^-0.5", "a")                     \
    SMALL_NODE("linear", "a, wo", "", "o")                                                              \
    SMALL_NODE("add", "x, o", "", "x_mid")                                                              \
    SMALL_NODE("rms_norm", "x_mid, norm2", ", eps: eps, fuse: \"normed2@row_norm\"", "m")               \
    SMALL_NODE("linear", "m, w1", "", "gate")                                                           \
    SMALL_NODE("linear", "m, w2", "", "up")                                                             \
    SMALL_NODE("silu", "gate", ", fuse: \"ff@gated\"", "act")                                           \
    SMALL_NODE("mul", "act, up", ", fuse: \"ff@gated\"", "f")                                           \
    SMALL_NODE("linear", "f, w3", "", "down") SMALL_NODE("add", "x_mid, down", "", "x") SMALL_END

static const char *graph_with(qgc_arena *a, const char *old, const char *now) {
    static const char head[] = "qgc: 1\n";
    const char *graph = &GRAPH[sizeof head - 1], *rows = kernels;
    if (old) {
        const char *at = strstr(kernels, old);
        assert_non_null(at);
        rows = qgc_arena_printf(a, "%.*s%s%s", (int)(at - kernels), kernels, now, at + strlen(old));
    }
    return qgc_arena_printf(a, "qgc: 2\n%s%s", rows, graph);
}

static replay new_replay(const char *yaml, const char *passes, int arch, int sms) {
    replay r = replay_new(&(replay_of){.yaml = yaml, .passes = passes, .arch = arch, .sms = sms});
    if (sms && r.lowered.plan->not_persistent)
        fail_msg("%s: %s", r.name, r.lowered.plan->not_persistent);
    return r;
}

static bool agrees(replay *r, const replay_run *what) {
    const apart a = replay_compare(r, what);
    if (!replay_agrees(&a))
        print_message("%s: logits %g and states %g apart, by chunks %g and %g; %d tokens are others\n",
                      r->name, a.logits, a.states, a.prefilled_logits, a.prefilled_states, a.tokens);
    return replay_agrees(&a);
}

/* Of those that follow: all, or fewer where they are slow (tests.cmake). */
#ifndef EVERY
#define EVERY 1
#endif

static void phases_compute_what_launches_do(void **state) {
    (void)state;
    static const struct {
        const char *passes;
        int arch, sms;
    } on[] = {{NULL, 90, 3}, {"", 90, 2}, {"fuse-residual,fuse-qkv,split-attention", 80, 5}, {NULL, 80, 0}};
    qgc_arena *a = qgc_arena_new();
    for (int i = 0; i < 4; i += EVERY) {
        replay r = new_replay(graph_with(a, NULL, NULL), on[i].passes, on[i].arch, on[i].sms);
        assert_true(agrees(&r, &(replay_run){ON_CPU_RANDOM + i, i == 2 ? REPLAY_LONG : 0,
                                             i % 2 ? REPLAY_SHORT : REPLAY_LONG}));
        replay_drop(&r);
    }
    qgc_arena_drop(a);
}

/* Each function once, though two groups use the first. */
static void functions_are_there_once(void **state) {
    (void)state;
    qgc_arena *a = qgc_arena_new();
    replay r = new_replay(graph_with(a, NULL, NULL), NULL, 90, 3);
    const qgc_plan *p = r.lowered.plan;
    const char *program = p->kernels[p->phases[QGC_PHASE_PERSISTENT].launches[0].kernel].program;
    int n = 0;
    for (const char *at = program; (at = strstr(at, "float squares = 0.0f;")); at++)
        n++;
    assert_int_equal(n, 1);
    replay_drop(&r);
    qgc_arena_drop(a);
}

static void faults_of_a_function_show(void **state) {
    (void)state;
    static const char *const faults[FAULTS][2] = {
        {"y[lane] = op_silu(x[piece * PIECE + lane]) * z",
         "if (piece < 7 || lane < 15) y[lane] = op_silu(x[piece * PIECE + lane]) * z"},
        {"p[0], y);", "p[0] - (p[0] > 64), y);"},
        {"* w[piece * PIECE + e];", "* w[e];"},
        {"for (int e = lane; e < WIDTH; e += 32) squares", "for (int e = lane; e < PIECE; e += 32) squares"},
        {"if (lane < PIECE * T) y", "if (lane < PIECE * T - 1) y"},
        {"x + 2 * WARPS * piece, p[0], y);", "x + 2 * WARPS * (piece ^ 1), p[0], y);"},
    };
    qgc_arena *a = qgc_arena_new();
    for (int i = 0; i < FAULTS; i += EVERY) {
        replay r = new_replay(graph_with(a, faults[i][0], faults[i][1]), NULL, 90, 3);
        if (agrees(&r, &(replay_run){ON_CPU_RANDOM + i, 0, REPLAY_LONG}))
            fail_msg("nobody notices \"%s\"", faults[i][1]);
        replay_drop(&r);
    }
    qgc_arena_drop(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(phases_compute_what_launches_do),
        cmocka_unit_test(functions_are_there_once),
        cmocka_unit_test(faults_of_a_function_show),
    };
    return cmocka_run_group_tests_name("kernels/replay_outside", tests, NULL, NULL);
}
