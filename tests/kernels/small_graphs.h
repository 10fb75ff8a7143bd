#ifndef TESTS_KERNELS_SMALL_GRAPHS_H
#define TESTS_KERNELS_SMALL_GRAPHS_H

#include <string.h>

#include "graph/base/arena.h"
#include "tests/support/cmocka.h"

/* Graphs shaped like those of three families, small enough to be run on a CPU launch by launch. They have their dimensions in
 * common, so that many of their kernels are the same. */

#define SMALL_PARAMS "params: {layers: 2, d: 64, ff: 128, heads: 4, kv: 2, dh: 32, vocab: 160, eps: 1e-6}\n"
#define SMALL_VECTOR(name, n) "  " name ": {per: l, shape: [" n "], gguf: \"{l}." name "\"}\n"
#define SMALL_MATRIX(name, out, in) "  " name ": {per: l, shape: [" out ", " in "], gguf: \"{l}." name "\"}\n"

/* Weights of all of them, caches, inputs. */
#define SMALL_HEAD_OF(name, more, cache, count) SMALL_HEAD_IN("1", name, more, cache, count)
#define SMALL_HEAD_IN(format, name, more, cache, count)                                                    \
    "qgc: " format "\nname: " name "\narch: small\n" SMALL_PARAMS "weights:\n"                             \
    "  embed: {shape: [vocab, d], gguf: embed}\n  out_norm: {shape: [d], gguf: out_norm}\n" SMALL_VECTOR(  \
        "norm1", "d") SMALL_MATRIX("wq", "heads*dh", "d") SMALL_MATRIX("wk", "kv*dh", "d")                 \
        SMALL_MATRIX("wv", "kv*dh", "d") SMALL_MATRIX("wo", "d", "heads*dh") SMALL_VECTOR("norm2", "d")    \
            SMALL_MATRIX("w1", "ff", "d") SMALL_MATRIX("w2", "ff", "d") SMALL_MATRIX("w3", "d", "ff") more \
        "state:\n  kc: {per: l, shape: [kv, ctx, dh], dtype: " cache "}\n"                                 \
        "  vc: {per: l, shape: [kv, ctx, dh], dtype: " cache "}\n  seen: {shape: [vocab], dtype: i32}\n"   \
        "inputs: {tokens: [T], positions: [T], rows: [R]}\ngraph:\n"                                       \
        "  - {op: embedding, in: [tokens, embed], out: x}\n"                                               \
        "  - repeat: {index: l, count: " count ", carry: x}\n    body:\n"
#define SMALL_HEAD(name, more, cache) SMALL_HEAD_OF(name, more, cache, "layers")

#define SMALL_NODE(op, in, more, out) "      - {op: " op ", in: [" in "]" more ", out: " out "}\n"
#define SMALL_NORM(x, weight, out) SMALL_NODE("rms_norm", x ", " weight, ", eps: eps", out)
#define SMALL_ROPE(x, out) \
    SMALL_NODE("rope", x ", positions", ", style: neox, base: 10000, head_dim: dh", out)

/* From q and k to o. */
#define SMALL_ATTENTION(q, k) \
    SMALL_ROPE(q, "qr")       \
    SMALL_ROPE(k, "kr")       \
    SMALL_CACHED("")          \
    SMALL_NODE("linear", "a, wo", "", "o")
#define SMALL_CACHED(more)                                 \
    SMALL_NODE("append", "kc, kr, positions", "", "k_all") \
    SMALL_NODE("append", "vc, v, positions", "", "v_all")  \
    SMALL_NODE("attention", "qr, k_all, v_all, positions", ", scale: dh^-0.5" more, "a")

#define SMALL_MLP(x)                           \
    SMALL_NODE("linear", x ", w1", "", "gate") \
    SMALL_NODE("linear", x ", w2", "", "up")   \
    SMALL_NODE("silu", "gate", "", "act")      \
    SMALL_NODE("mul", "act, up", "", "f") SMALL_NODE("linear", "f, w3", "", "down")

#define SMALL_END                                                            \
    "  - {op: select_rows, in: [x, rows], out: x_rows}\n"                    \
    "  - {op: rms_norm, in: [x_rows, out_norm], eps: eps, out: x_out}\n"     \
    "  - {op: linear, in: [x_out, embed], out: logits}\n"                    \
    "  - {op: mark, in: [seen, tokens], out: seen_now}\n"                    \
    "  - {op: sample, in: [logits, rows, positions, seen_now], out: next}\n" \
    "outputs: [logits, next]\n"

/* Biases on q, k and v. */
static const char small_qwen2[] =
    SMALL_HEAD("small-qwen2",
               SMALL_VECTOR("bq", "heads*dh") SMALL_VECTOR("bk", "kv*dh") SMALL_VECTOR("bv", "kv*dh"),
               "f16") SMALL_NORM("x", "norm1", "h") SMALL_NODE("linear", "h, wq, bq", "", "q")
        SMALL_NODE("linear", "h, wk, bk", "", "k") SMALL_NODE("linear", "h, wv, bv", "", "v")
            SMALL_ATTENTION("q", "k") SMALL_NODE("add", "x, o", "", "x_mid") SMALL_NORM("x_mid", "norm2", "m")
                SMALL_MLP("m") SMALL_NODE("add", "x_mid, down", "", "x") SMALL_END;

/* A layer whose attention has such attributes. */
#define SMALL_WINDOWED_LAYER(attributes)   \
    SMALL_NORM("x", "norm1", "h")          \
    SMALL_NODE("linear", "h, wq", "", "q") \
    SMALL_NODE("linear", "h, wk", "", "k") \
    SMALL_NODE("linear", "h, wv", "", "v") \
    SMALL_ROPE("q", "qr")                  \
    SMALL_ROPE("k", "kr")                  \
    SMALL_CACHED(attributes)               \
    SMALL_NODE("linear", "a, wo", "", "o") \
    SMALL_NODE("add", "x, o", "", "x_mid") \
    SMALL_NORM("x_mid", "norm2", "m") SMALL_MLP("m") SMALL_NODE("add", "x_mid, down", "", "x")

/* Layers with windows; caches that are rings of as few positions as a chunk of 32 tokens needs, beside one that is none. */
#define SMALL_RINGS(name, cache, window, ring)                           \
    SMALL_HEAD_IN("2", name, "", cache ", ring: \"" ring "\"", "layers") \
    SMALL_WINDOWED_LAYER(", window: \"" window "\"") SMALL_END
static const char small_ring_and_none[] =
    SMALL_RINGS("small-ring-and-none", "f16", "l ? 0 : 7", "l ? 0 : 38");
static const char small_none_and_ring[] =
    SMALL_RINGS("small-none-and-ring", "f16", "l ? 7 : 0", "l ? 38 : 0");
static const char small_two_rings[] = SMALL_RINGS("small-two-rings", "f16", "l ? 21 : 1", "l ? 52 : 33");

/* Three layers, the first of which sees all. */
static const char small_windows_of_layers[] =
    SMALL_HEAD_IN("2", "small-windows-of-layers", "", "f16", "layers + 1")
        SMALL_WINDOWED_LAYER(", window: \"l ? 40 : 0\"") SMALL_END;

/* Sinks, as gpt-oss has them, with a window and capped scores. */
static const char small_sinks[] = SMALL_HEAD("small-sinks", SMALL_VECTOR("sinks", "heads"), "f16")
    SMALL_NORM("x", "norm1", "h") SMALL_NODE("linear", "h, wq", "", "q")
        SMALL_NODE("linear", "h, wk", "", "k") SMALL_NODE("linear", "h, wv", "", "v") SMALL_ROPE("q", "qr")
            SMALL_ROPE("k", "kr") SMALL_NODE("append", "kc, kr, positions", "", "k_all")
                SMALL_NODE("append", "vc, v, positions", "", "v_all")
                    SMALL_NODE("attention", "qr, k_all, v_all, positions, sinks",
                               ", scale: dh^-0.5, window: 50, softcap: 4", "a")
                        SMALL_NODE("linear", "a, wo", "", "o") SMALL_NODE("add", "x, o", "", "x_mid")
                            SMALL_NORM("x_mid", "norm2", "m") SMALL_MLP("m")
                                SMALL_NODE("add", "x_mid, down", "", "x") SMALL_END;

/* Norms of q and k, head by head. */
static const char small_qwen3[] =
    SMALL_HEAD("small-qwen3", SMALL_VECTOR("q_norm", "dh") SMALL_VECTOR("k_norm", "dh"), "bf16")
        SMALL_NORM("x", "norm1", "h") SMALL_NODE("linear", "h, wq", "", "q")
            SMALL_NODE("linear", "h, wk", "", "k") SMALL_NODE("linear", "h, wv", "", "v")
                SMALL_NORM("q", "q_norm", "q_normed") SMALL_NORM("k", "k_norm", "k_normed")
                    SMALL_ATTENTION("q_normed", "k_normed") SMALL_NODE("add", "x, o", "", "x_mid")
                        SMALL_NORM("x_mid", "norm2", "m") SMALL_MLP("m")
                            SMALL_NODE("add", "x_mid, down", "", "x") SMALL_END;

/* Norms of all of q and k, and after attention and MLP in place of before. */
static const char small_olmo2[] =
    SMALL_HEAD("small-olmo2", SMALL_VECTOR("q_norm", "heads*dh") SMALL_VECTOR("k_norm", "kv*dh"), "f16")
        SMALL_NODE("linear", "x, wq", "", "q") SMALL_NODE("linear", "x, wk", "", "k")
            SMALL_NODE("linear", "x, wv", "", "v") SMALL_NORM("q", "q_norm", "q_normed")
                SMALL_NORM("k", "k_norm", "k_normed") SMALL_ATTENTION("q_normed", "k_normed")
                    SMALL_NORM("o", "norm1", "o_normed") SMALL_NODE("add", "x, o_normed", "", "x_mid")
                        SMALL_MLP("x_mid") SMALL_NORM("down", "norm2", "down_normed")
                            SMALL_NODE("add", "x_mid, down_normed", "", "x") SMALL_END;

/* Rotation of a part of each head, as StableLM and Phi have it, and of neighbours, as GLM has it; over biased and normed heads. */
#define SMALL_PARTIAL(name, rope)                                                                     \
    SMALL_HEAD(name,                                                                                  \
               SMALL_VECTOR("bq", "heads*dh") SMALL_VECTOR("bk", "kv*dh") SMALL_VECTOR("bv", "kv*dh") \
                   SMALL_VECTOR("q_norm", "dh") SMALL_VECTOR("k_norm", "dh"),                         \
               "f16")                                                                                 \
    SMALL_NORM("x", "norm1", "h")                                                                     \
    SMALL_NODE("linear", "h, wq, bq", "", "q")                                                        \
    SMALL_NODE("linear", "h, wk, bk", "", "k")                                                        \
    SMALL_NODE("linear", "h, wv, bv", "", "v")                                                        \
    SMALL_NORM("q", "q_norm", "q_normed")                                                             \
    SMALL_NORM("k", "k_norm", "k_normed")                                                             \
    SMALL_NODE("rope", "q_normed, positions", rope, "qr")                                             \
    SMALL_NODE("rope", "k_normed, positions", rope, "kr")                                             \
    SMALL_NODE("append", "kc, kr, positions", "", "k_all")                                            \
    SMALL_NODE("append", "vc, v, positions", "", "v_all")                                             \
    SMALL_NODE("attention", "qr, k_all, v_all, positions", ", scale: dh^-0.5", "a")                   \
    SMALL_NODE("linear", "a, wo", "", "o")                                                            \
    SMALL_NODE("add", "x, o", "", "x_mid")                                                            \
    SMALL_NORM("x_mid", "norm2", "m") SMALL_MLP("m") SMALL_NODE("add", "x_mid, down", "", "x") SMALL_END
static const char small_partial[] =
    SMALL_PARTIAL("small-partial", ", style: neox, base: 10000, head_dim: dh, rotary_dim: 12");
static const char small_interleaved[] =
    SMALL_PARTIAL("small-interleaved", ", style: interleaved, base: 10000, head_dim: dh, first: 6");

/* The same without norms, so that heads are of several rows of a warp: kernels/linear_heads.cu. */
static const char small_interleaved_qkv[] = SMALL_HEAD("small-interleaved-qkv", "", "f16")
    SMALL_NORM("x", "norm1", "h") SMALL_NODE("linear", "h, wq", "", "q")
        SMALL_NODE("linear", "h, wk", "", "k") SMALL_NODE("linear", "h, wv", "", "v") SMALL_NODE(
            "rope", "q, positions", ", style: interleaved, base: 10000, head_dim: dh, rotary_dim: 20", "qr")
            SMALL_NODE("rope", "k, positions",
                       ", style: interleaved, base: 10000, head_dim: dh, rotary_dim: 20", "kr")
                SMALL_NODE("append", "kc, kr, positions", "", "k_all")
                    SMALL_NODE("append", "vc, v, positions", "", "v_all")
                        SMALL_NODE("attention", "qr, k_all, v_all, positions", ", scale: dh^-0.5", "a")
                            SMALL_NODE("linear", "a, wo", "", "o") SMALL_NODE("add", "x, o", "", "x_mid")
                                SMALL_NORM("x_mid", "norm2", "m") SMALL_MLP("m")
                                    SMALL_NODE("add", "x_mid, down", "", "x") SMALL_END;

/* Two tables of angles, as Gemma 3 has; here one of Llama 3's frequencies, and longrope's, and one of YaRN's, divided. The second
 * turns a part of each head, and is scaled. */
#define SMALL_TURNED(x, freqs, more, out) \
    SMALL_NODE("rope", x ", positions, " freqs, ", style: neox, head_dim: dh" more, out)
#define SMALL_TURNED_LAYER(freqs, more)                                             \
    SMALL_NORM("x", "norm1", "h")                                                   \
    SMALL_NODE("linear", "h, wq", "", "q")                                          \
    SMALL_TURNED("q", freqs, more, "qr")                                            \
    SMALL_NODE("linear", "h, wk", "", "k")                                          \
    SMALL_TURNED("k", freqs, more, "kr")                                            \
    SMALL_NODE("linear", "h, wv", "", "v")                                          \
    SMALL_NODE("append", "kc, kr, positions", "", "k_all")                          \
    SMALL_NODE("append", "vc, v, positions", "", "v_all")                           \
    SMALL_NODE("attention", "qr, k_all, v_all, positions", ", scale: dh^-0.5", "a") \
    SMALL_NODE("linear", "a, wo", "", "o")                                          \
    SMALL_NODE("add", "x, o", "", "x_mid")                                          \
    SMALL_NORM("x_mid", "norm2", "m") SMALL_MLP("m") SMALL_NODE("add", "x_mid, down", "", "x")
static const char small_frequencies[] = SMALL_HEAD_OF(
    "small-frequencies",
    "  by: {shape: [10], gguf: by}\n  few: {shape: [16], gguf: few}\n  many: {shape: [16], gguf: many}\n",
    "f16", "1") SMALL_NODE("rope_freqs", "", ", base: 5e5, rotary_dim: dh",
                           "fr") SMALL_NODE("rope_longrope", "fr, few, many", ", original: 72", "fl")
    SMALL_NODE("rope_llama3", "fl", ", factor: 8, low: 1, high: 4, original: 32", "fm") SMALL_TURNED_LAYER(
        "fm",
        "") "  - {op: rope_freqs, base: 10000, rotary_dim: 20, out: g}\n"
            "  - {op: rope_yarn, in: [g], base: 10000, factor: 4, original: 64, beta_fast: 4, beta_slow: 1, truncate: 1, out: gy}\n"
            "  - {op: rope_linear, in: [gy], factor: 1.5, out: gl}\n"
            "  - {op: rope_divide, in: [gl, by], out: gd}\n"
            "  - repeat: {index: l, from: 1, count: 1, carry: x}\n    body:\n" SMALL_TURNED_LAYER(
                "gd", ", scale: 1.2") SMALL_END;

/* A window in one layer, no window in the other, capped scores, as Gemma 2 has. */
#define SMALL_WINDOWED(name, first, second) \
    SMALL_HEAD_OF(name, "", "f16", "1")     \
    SMALL_WINDOWED_LAYER(first)             \
    "  - repeat: {index: l, from: 1, count: 1, carry: x}\n    body:\n" SMALL_WINDOWED_LAYER(second) SMALL_END
static const char small_windowed[] =
    SMALL_WINDOWED("small-windowed", ", window: 20, softcap: 0.5", ", softcap: 0.25");
static const char small_windows[] = SMALL_WINDOWED("small-windows", ", window: 66", ", window: 9");

/* LayerNorm, and experts beside one that all tokens go through. */
static const char small_experts[] = SMALL_HEAD(
    "small-experts",
    SMALL_VECTOR("b1", "d") SMALL_MATRIX("router", "6", "d") SMALL_VECTOR(
        "rb",
        "6") "  e_up: {per: l, shape: [6, 40, d], gguf: \"{l}.e_up\"}\n  e_down: {per: l, shape: [6, d, 40], gguf: \"{l}.e_down\"}\n"
             "  e_bias: {per: l, shape: [6, 40], gguf: \"{l}.e_bias\"}\n",
    "f16") SMALL_NODE("layer_norm", "x, norm1, b1", ", eps: 1e-5", "h") SMALL_NODE("linear", "h, wq", "", "q")
    SMALL_NODE("linear", "h, wk", "", "k") SMALL_NODE("linear", "h, wv", "", "v") SMALL_ATTENTION(
        "q", "k") SMALL_NODE("add", "x, o", "", "x_mid") SMALL_NODE("layer_norm", "x_mid, norm2",
                                                                    ", eps: 1e-5", "m")
        SMALL_NODE("linear", "m, router", "", "scores") "      - {op: route, in: [scores, rb], experts: 3, scoring: softmax, normalize: 1, scale: 1.5, out: [ids, by]}\n" SMALL_NODE(
            "expert_linear", "m, e_up, ids, e_bias", "", "e_gate") SMALL_NODE("silu", "e_gate", "", "e_act")
            SMALL_NODE("expert_linear", "e_act, e_down, ids", "", "each")
                SMALL_NODE("expert_sum", "each, by", "", "mixed") SMALL_MLP("m")
                    SMALL_NODE("add", "mixed, down", "", "both") SMALL_NODE("add", "x_mid, both", "", "x")
                        SMALL_END;

/* Experts with a gate, all of them in an order of each token's own, whose sum is added to what goes on. */
static const char small_mixture[] = SMALL_HEAD(
    "small-mixture",
    SMALL_MATRIX(
        "router", "6",
        "d") "  e_gate: {per: l, shape: [6, 40, d], gguf: \"{l}.e_gate\"}\n"
             "  e_up: {per: l, shape: [6, 40, d], gguf: \"{l}.e_up\"}\n  e_down: {per: l, shape: [6, d, 40], gguf: \"{l}.e_down\"}\n",
    "f32") SMALL_NORM("x", "norm1", "h") SMALL_NODE("linear", "h, wq", "", "q")
    SMALL_NODE("linear", "h, wk", "", "k") SMALL_NODE("linear", "h, wv", "", "v") SMALL_ATTENTION(
        "q", "k") SMALL_NODE("add", "x, o", "", "x_mid") SMALL_NORM("x_mid", "norm2", "m")
        SMALL_NODE("linear", "m, router", "", "scores") "      - {op: route, in: [scores], experts: 6, scoring: softmax, normalize: 1, out: [ids, by]}\n" SMALL_NODE(
            "expert_linear", "m, e_gate, ids", "", "gates")
            SMALL_NODE("expert_linear", "m, e_up, ids", "", "ups") SMALL_NODE("silu", "gates", "", "e_act")
                SMALL_NODE("mul", "e_act, ups", "", "e_ff")
                    SMALL_NODE("expert_linear", "e_ff, e_down, ids", "", "each")
                        SMALL_NODE("expert_sum", "each, by", "", "mixed")
                            SMALL_NODE("add", "x_mid, mixed", "", "x_next") SMALL_MLP("x_next")
                                SMALL_NODE("add", "x_next, down", "", "x") SMALL_END;

/* LayerNorm with and without a bias, before all products, as StableLM has it. */
static const char small_stablelm[] = SMALL_HEAD("small-stablelm", SMALL_VECTOR("b1", "d"), "f16")
    SMALL_NODE("layer_norm", "x, norm1, b1", ", eps: 1e-5", "h") SMALL_NODE("linear", "h, wq", "", "q")
        SMALL_NODE("linear", "h, wk", "", "k") SMALL_NODE("linear", "h, wv", "", "v")
            SMALL_ATTENTION("q", "k") SMALL_NODE("add", "x, o", "", "x_mid")
                SMALL_NODE("layer_norm", "x_mid, norm2", ", eps: 1e-3", "m") SMALL_MLP("m")
                    SMALL_NODE("add", "x_mid, down", "", "x") SMALL_END;

/* Attention and MLP side by side, with a norm for each, as GPT-NeoX has it. */
static const char small_parallel[] =
    SMALL_HEAD("small-parallel", SMALL_VECTOR("b1", "d") SMALL_VECTOR("b2", "d"), "f16")
        SMALL_NODE("layer_norm", "x, norm1, b1", ", eps: 1e-5", "h") SMALL_NODE("linear", "h, wq", "", "q")
            SMALL_NODE("linear", "h, wk", "", "k") SMALL_NODE("linear", "h, wv", "", "v")
                SMALL_ATTENTION("q", "k") SMALL_NODE("add", "x, o", "", "x_mid")
                    SMALL_NODE("layer_norm", "x, norm2, b2", ", eps: 1e-5", "m") SMALL_MLP("m")
                        SMALL_NODE("add", "x_mid, down", "", "x") SMALL_END;

/* Multipliers, another activation, a gate for each token, capped logits; and an MLP without a gate. */
static const char small_granite[] = SMALL_HEAD(
    "small-granite", SMALL_MATRIX("wg", "1", "d") SMALL_MATRIX("w4", "ff", "d") SMALL_MATRIX("w5", "d", "ff"),
    "f16") SMALL_NODE("scale", "x", ", factor: 1.5",
                      "xs") SMALL_NORM("xs", "norm1", "h") SMALL_NODE("linear", "h, wq", "", "q")
    SMALL_NODE("linear", "h, wk", "", "k") SMALL_NODE("linear", "h, wv", "", "v") SMALL_ATTENTION("q", "k")
        SMALL_NODE("scale", "o", ", factor: 0.22", "os") SMALL_NODE("add", "x, os", "", "x_mid")
            SMALL_NORM("x_mid", "norm2", "m") SMALL_NODE("linear", "m, w1", "", "gate") SMALL_NODE(
                "linear", "m, w2", "", "up") SMALL_NODE("gelu", "gate", ", approximate: tanh", "act")
                SMALL_NODE("mul", "act, up", "", "f") SMALL_NODE("linear", "f, w3", "", "down")
                    SMALL_NODE("linear", "m, wg", "", "g") SMALL_NODE("sigmoid", "g", "", "open") SMALL_NODE(
                        "mul", "open, down", "", "gated") SMALL_NODE("add", "x_mid, gated", "", "x_next")
                        SMALL_NODE("linear", "x_next, w4", "",
                                   "single") SMALL_NODE("gelu", "single", ", approximate: none",
                                                        "s") SMALL_NODE("linear", "s, w5", "", "y")
                            SMALL_NODE("softcap", "y", ", cap: 3", "yc") SMALL_NODE(
                                "add",
                                "x_next, yc", "",
                                "x") "  - {op: select_rows, in: [x, rows], out: x_rows}\n"
                                     "  - {op: rms_norm, in: [x_rows, out_norm], eps: eps, out: x_out}\n"
                                     "  - {op: linear, in: [x_out, embed], out: raw}\n"
                                     "  - {op: softcap, in: [raw], cap: 2, out: logits}\n"
                                     "  - {op: mark, in: [seen, tokens], out: seen_now}\n"
                                     "  - {op: sample, in: [logits, rows, positions, seen_now], out: next}\n"
                                     "outputs: [logits, next]\n";

/* Attention over the caches as they were before the step, which are then appended to. */
static const char small_old_cache[] =
    "qgc: 1\nname: old-cache\narch: small\nparams: {vocab: 160, d: 64, heads: 2, dh: 32}\nweights:\n"
    "  embed: {shape: [vocab, d], gguf: embed}\n  wq: {shape: [d, d], gguf: wq}\n  wo: {shape: [d, d], gguf: wo}\n"
    "state:\n  kc: {shape: [heads, ctx, dh], dtype: f32}\n  vc: {shape: [heads, ctx, dh], dtype: f32}\n"
    "  seen: {shape: [vocab], dtype: i32}\n"
    "inputs: {tokens: [T], positions: [T], rows: [R]}\n"
    "graph:\n"
    "  - {op: embedding, in: [tokens, embed], out: x}\n"
    "  - {op: linear, in: [x, wq], out: q}\n"
    "  - {op: attention, in: [q, kc, vc, positions], scale: 0.2, out: a}\n"
    "  - {op: append, in: [kc, x, positions], out: k_all}\n"
    "  - {op: append, in: [vc, x, positions], out: v_all}\n"
    "  - {op: linear, in: [a, wo], out: o}\n"
    "  - {op: select_rows, in: [o, rows], out: y}\n"
    "  - {op: linear, in: [y, embed], out: logits}\n"
    "  - {op: mark, in: [seen, tokens], out: seen_now}\n"
    "  - {op: sample, in: [logits, rows, positions, seen_now], out: next}\n"
    "outputs: [logits, next]\n";

/* One of these graphs, a matrix of which is stored as `dtype`. */
static inline const char *small_with_dtype(qgc_arena *a, const char *yaml, const char *name,
                                           const char *dtype) {
    const char *key = qgc_arena_printf(a, "gguf: \"{l}.%s\"}", name), *at = strstr(yaml, key);
    if (strcmp(name, "embed") == 0)
        at = strstr(yaml, key = "gguf: embed}");
    assert_non_null(at);
    const size_t before = (size_t)(at - yaml) + strlen(key) - 1;
    return qgc_arena_printf(a, "%.*s, dtype: %s%s", (int)before, yaml, dtype, yaml + before);
}

#endif
