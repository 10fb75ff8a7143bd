#ifndef TESTS_PASSES_RULE_CASES_H
#define TESTS_PASSES_RULE_CASES_H

#include <ctype.h>
#include <string.h>

#include "graph/base/str.h"

/* Small graphs, each with one rule that fires in it, or does not and says why. tests/passes/test_rules.c
 * checks what the rules say and that each rule has both; test_semantics.c evaluates both sides. */

typedef struct {
    const char *pass;   /* with options, as a pipeline has it */
    const char *rule;   /* NULL: the pass has no rules, and `fires` is about what it counts */
    const char *before; /* passes run first; NULL: none */
    const char *graph;  /* `graph` and `outputs` of the YAML */
    bool fires;
    const char *node; /* of the event */
    const char *text; /* NULL: there is no event of the rule at all */
} rule_case;

/* What a graph may name. Those that it does name are declared. */
static const struct {
    const char *section, *name, *entry;
} rule_declarations[] = {
    {"weights", "embed", "{shape: [40, 8]}"},
    {"weights", "embed_a", "{shape: [40, 8]}"},
    {"weights", "embed_b", "{shape: [40, 8]}"},
    {"weights", "embed_c", "{shape: [40, 8]}"},
    {"weights", "embed_d", "{shape: [40, 8]}"},
    {"weights", "embed_e", "{shape: [40, 8]}"},
    {"weights", "embed_f", "{shape: [40, 8]}"},
    {"weights", "norm", "{shape: [8]}"},
    {"weights", "half_norm", "{shape: [4]}"},
    {"weights", "w_a", "{shape: [8, 8]}"},
    {"weights", "w_b", "{shape: [8, 8]}"},
    {"weights", "w_c", "{shape: [8, 8]}"},
    {"weights", "w_d", "{shape: [8, 8]}"},
    {"weights", "w_e", "{shape: [8, 8]}"},
    {"weights", "w_f32", "{shape: [8, 8], dtype: f32}"},
    {"weights", "bias", "{shape: [8]}"},
    {"weights", "w_one", "{shape: [1, 8]}"},
    {"weights", "w_odd", "{shape: [3, 8]}"},
    {"weights", "w_wide", "{shape: [8200, 8]}"},
    {"weights", "w_narrow", "{shape: [8, 8200]}"},
    {"weights", "router", "{shape: [4, 8]}"},
    {"weights", "e_a", "{shape: [4, 8, 8]}"},
    {"weights", "e_b", "{shape: [4, 8, 8]}"},
    {"weights", "e_bias", "{shape: [4, 8]}"},
    {"weights", "head", "{shape: [40, 8]}"},
    {"weights", "head_b", "{shape: [40, 8]}"},
    {"state", "keys", "{shape: [2, ctx, 4], dtype: f32}"},
    {"state", "values", "{shape: [2, ctx, 4], dtype: f16}"},
    {"state", "keys_odd", "{shape: [1, ctx, 3], dtype: f32}"},
    {"state", "keys_pairs", "{shape: [4, ctx, 2], dtype: f32}"},
    {"state", "keys_wide", "{shape: [1, ctx, 4100], dtype: bf16}"},
    {"state", "values_wide", "{shape: [1, ctx, 4100], dtype: bf16}"},
    {"state", "seen", "{shape: [40], dtype: i32}"},
};

static inline bool rule_is_word(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

static inline bool rule_names(const char *graph, const char *word) {
    size_t n = strlen(word);
    for (const char *at = graph; (at = strstr(at, word)); at++)
        if (!rule_is_word(at[n]) && at > graph && !rule_is_word(at[-1]))
            return true;
    return false;
}

/* The whole file. */
static inline const char *rule_yaml(const rule_case *c, qgc_arena *a) {
    qgc_str text = qgc_str_new(a);
    const char *section = "";
    qgc_str_printf(&text, "qgc: 1\nname: case\narch: case\n");
    for (size_t i = 0; i < sizeof rule_declarations / sizeof *rule_declarations; i++) {
        if (!rule_names(c->graph, rule_declarations[i].name))
            continue;
        if (strcmp(section, rule_declarations[i].section) != 0)
            qgc_str_printf(&text, "%s:\n", section = rule_declarations[i].section);
        qgc_str_printf(&text, "  %s: %s\n", rule_declarations[i].name, rule_declarations[i].entry);
    }
    qgc_str_printf(&text, "inputs: {tokens: [T], positions: [T], rows: [R]}\ngraph:\n%s", c->graph);
    return text.text;
}

#define EMBED "  - {op: embedding, in: [tokens, embed], out: x}\n"
#define HEAD_NORM(x, out) "  - {op: rms_norm, in: [" x ", half_norm], eps: 1e-5, out: " out "}\n"
#define NORM "  - {op: rms_norm, in: [x, norm], eps: 1e-6, out: h}\n"
#define LAYER_NORM "  - {op: layer_norm, in: [x, norm, bias], eps: 1e-3, out: h}\n"
#define LINEAR(x, w, y) "  - {op: linear, in: [" x ", " w "], out: " y "}\n"
#define ROPE(x, base, dim, y) \
    "  - {op: rope, in: [" x ", positions], style: neox, base: " base ", head_dim: " dim ", out: " y "}\n"
#define APPEND(cache, x, y) "  - {op: append, in: [" cache ", " x ", positions], out: " y "}\n"
#define CACHES APPEND("keys", "x", "k_all") APPEND("values", "x", "v_all")
#define PAIR(op, a, b, y) "  - {op: " op ", in: [" a ", " b "], out: " y "}\n"
#define SILU(x, y) "  - {op: silu, in: [" x "], out: " y "}\n"
#define GELU(x, y) "  - {op: gelu, in: [" x "], approximate: tanh, out: " y "}\n"
#define SCALE(x, y) "  - {op: scale, in: [" x "], factor: 0.3, out: " y "}\n"
#define SOFTCAP(x, y) "  - {op: softcap, in: [" x "], cap: 2, out: " y "}\n"
#define TABLE(letter) "  - {op: embedding, in: [tokens, embed_" letter "], out: " letter "}\n"
#define TABLES TABLE("a") TABLE("b") TABLE("c") TABLE("d") TABLE("e") TABLE("f")
#define SELECT "  - {op: select_rows, in: [x, rows], out: r}\n"
#define MARK "  - {op: mark, in: [seen, tokens], out: seen_now}\n"
#define PART(logits, chunk) \
    "  - {op: sample_part, in: [" logits ", seen_now], chunk: " chunk ", out: parts}\n"
#define MERGE(logits, chunk)                                                                             \
    "  - {op: sample_merge, in: [" logits ", parts, rows, positions, seen_now], chunk: " chunk ", out: " \
    "next}\n"
#define ROUTE(x)                  \
    LINEAR(x, "router", "scores") \
    "  - {op: route, in: [scores], experts: 2, scoring: softmax, normalize: 1, out: [ids, by]}\n"
#define EXPERTS(x, w, y) "  - {op: expert_linear, in: [" x ", " w "], out: " y "}\n"
#define GATED(act, x)              \
    EXPERTS(x, "e_a, ids", "gate") \
    EXPERTS(x, "e_b, ids", "up") act("gate", "act") PAIR("mul", "act", "up", "ff")
#define ATTENTION_MERGE "  - {op: attention_merge, in: [p], head_dim: 4, parts: 4, out: a}\n"
#define ATTENTION_PART \
    "  - {op: attention_part, in: [x, k_all, v_all, positions], scale: 0.5, parts: 4, out: p}\n"

static const rule_case rule_cases[] = {
    {"dead-code", NULL, NULL, EMBED SILU("x", "y") SILU("y", "z") "outputs: [y]\n", true, NULL, NULL},
    {"dead-code", NULL, NULL, EMBED APPEND("keys", "x", "k_all") SILU("x", "y") "outputs: [y]\n", false, NULL,
     NULL},

    {"plan-memory", NULL, NULL, EMBED SILU("x", "y") "outputs: [y]\n", true, NULL, NULL},
    {"plan-memory", NULL, NULL, EMBED SILU("x", "y") "outputs: [y]\nmemory: shared\n", false, NULL, NULL},

    {"split-attention", "attention", NULL,
     EMBED CACHES "  - {op: attention, in: [x, k_all, v_all, positions], scale: 0.5, out: a}\noutputs: [a]\n",
     true, "a", ""},
    {"split-attention", "attention", NULL,
     EMBED CACHES
     "  - {op: attention, in: [x, k_all, v_all, positions], scale: 0.5, window: 3, softcap: 0.25, out: a}\n"
     "outputs: [a]\n",
     true, "a", ""},
    {"split-attention(parts=1)", "attention", NULL,
     EMBED CACHES "  - {op: attention, in: [x, k_all, v_all, positions], scale: 0.5, out: a}\noutputs: [a]\n",
     false, "a", "option parts is 1, expected 2 to 64"},
    {"split-attention", "attention", NULL, EMBED CACHES ATTENTION_PART ATTENTION_MERGE "outputs: [a]\n",
     false, NULL, NULL},

    {"split-sample", "sample", NULL,
     EMBED SELECT LINEAR("r", "head", "logits") MARK
     "  - {op: sample, in: [logits, rows, positions, seen_now], out: next}\noutputs: [logits, next]\n",
     true, "next", ""},
    {"split-sample", "sample", NULL,
     EMBED SELECT LINEAR("r", "head", "logits") MARK PART("logits", "8")
         MERGE("logits", "8") "outputs: [logits, next]\n",
     false, NULL, NULL},

    {"fuse-swiglu", "silu(gate) * up", NULL,
     EMBED LINEAR("x", "w_a", "gate") LINEAR("x", "w_b", "up") SILU("gate", "act")
         PAIR("mul", "act", "up", "ff") "outputs: [ff]\n",
     true, "ff", "in group \"mlp\""},
    {"fuse-swiglu", "silu(gate) * up", NULL,
     EMBED LINEAR("x", "w_a", "gate") LINEAR("x", "w_b", "up") SILU("gate", "act")
         PAIR("mul", "up", "act", "ff") "outputs: [ff]\n",
     true, "ff", "in group \"mlp\""},
    {"fuse-swiglu", "silu(gate) * up", NULL,
     EMBED LINEAR("x", "w_a", "gate") LINEAR("x", "w_f32", "up") SILU("gate", "act")
         PAIR("mul", "act", "up", "ff") "outputs: [ff]\n",
     true, "ff", "in group \"mlp\""},
    {"fuse-swiglu", "silu(gate) * up", NULL,
     EMBED LINEAR("x", "w_a, bias", "gate") LINEAR("x", "w_b", "up") SILU("gate", "act")
         PAIR("mul", "act", "up", "ff") "outputs: [ff]\n",
     false, "ff", "one of products \"gate\" and \"up\" has a bias"},
    {"fuse-swiglu", "silu(gate) * up", NULL,
     EMBED NORM LINEAR("x", "w_a", "gate") LINEAR("h", "w_b", "up") SILU("gate", "act")
         PAIR("mul", "act", "up", "ff") "outputs: [ff]\n",
     false, "ff", "products \"gate\" and \"up\" read different values"},
    {"fuse-swiglu", "silu(gate) * up", NULL,
     EMBED LINEAR("x", "w_a", "gate") LINEAR("x", "w_b", "up") SILU("gate", "act")
         PAIR("mul", "act", "up", "ff") "outputs: [ff, up]\n",
     false, NULL, NULL},

    {"fuse-swiglu", "gelu(gate) * up", NULL,
     EMBED LINEAR("x", "w_a", "gate") LINEAR("x", "w_b", "up") GELU("gate", "act")
         PAIR("mul", "act", "up", "ff") "outputs: [ff]\n",
     true, "ff", "in group \"mlp\""},
    {"fuse-swiglu", "gelu(gate) * up", NULL,
     EMBED LINEAR("x", "w_a, bias", "gate") LINEAR("x", "w_b", "up") GELU("gate", "act")
         PAIR("mul", "act", "up", "ff") "outputs: [ff]\n",
     false, "ff", "one of products \"up\" and \"gate\" has a bias"},
    {"fuse-swiglu", "silu(gate of experts) * up", NULL,
     EMBED ROUTE("x") GATED(SILU, "x") "outputs: [ff, by]\n", true, "ff", "in group \"mlp\""},
    {"fuse-swiglu", "silu(gate of experts) * up", NULL,
     EMBED ROUTE("x") EXPERTS("x", "e_a, ids, e_bias", "gate") EXPERTS("x", "e_b, ids", "up")
         SILU("gate", "act") PAIR("mul", "act", "up", "ff") "outputs: [ff, by]\n",
     false, "ff", "product \"gate\" of experts has a bias"},
    {"fuse-swiglu", "gelu(gate of experts) * up", NULL,
     EMBED ROUTE("x") GATED(GELU, "x") "outputs: [ff, by]\n", true, "ff", "in group \"mlp\""},
    {"fuse-swiglu", "gelu(gate of experts) * up", NULL,
     EMBED NORM ROUTE("x") EXPERTS("h", "e_a, ids", "gate") EXPERTS("x", "e_b, ids", "up") GELU("gate", "act")
         PAIR("mul", "act", "up", "ff") "outputs: [ff, by]\n",
     false, "ff", "products \"gate\" and \"up\" are of different values or experts"},
    {"fuse-swiglu", "gelu(linear)", NULL, EMBED LINEAR("x", "w_a", "up") GELU("up", "ff") "outputs: [ff]\n",
     true, "ff", "in group \"mlp\""},
    {"fuse-swiglu", "gelu(linear)", "fuse-qkv",
     EMBED LINEAR("x", "w_a", "up") LINEAR("x", "w_b", "k") GELU("up", "ff") "outputs: [ff, k]\n", false,
     "ff", "\"k\" is read outside of the group"},

    {"fuse-qkv", "products of one vector", NULL,
     EMBED LINEAR("x", "w_a", "q") LINEAR("x", "w_b", "k") "outputs: [q, k]\n", true, "q",
     "in group \"qkv\""},
    {"fuse-qkv", "products of one vector", NULL,
     EMBED LINEAR("x", "w_a", "q") LINEAR("x", "w_f32", "k") "outputs: [q, k]\n", true, "q",
     "in group \"qkv\""},
    {"fuse-qkv", "products of one vector", NULL,
     EMBED LINEAR("x", "w_a", "q") LINEAR("x", "w_b, bias", "k") "outputs: [q, k]\n", false, "q",
     "the other products of the vector have a bias"},
    {"fuse-qkv", "products of one vector", NULL,
     EMBED LINEAR("x", "w_a, bias", "q") LINEAR("x", "w_b", "k") "outputs: [q, k]\n", false, "q",
     "the other products of the vector have no bias"},
    {"fuse-qkv", "products of one vector", NULL,
     EMBED LINEAR("x", "w_a", "q") LINEAR("x", "w_b", "k") LINEAR("x", "w_c", "v") LINEAR("x", "w_d", "y")
         LINEAR("x", "w_e", "z") "outputs: [q, k, v, y, z]\n",
     false, "q", "more than 4 nodes read the vector"},
    {"fuse-qkv", "products of one vector", NULL,
     EMBED LINEAR("x", "w_odd", "q") LINEAR("x", "w_odd", "k") "outputs: [q, k]\n", false, "k",
     "product \"q\" has an odd number of rows"},
    {"fuse-qkv", "products of one vector", NULL, EMBED NORM LINEAR("x", "w_a", "q") "outputs: [q, h]\n",
     false, NULL, NULL},

    {"fuse-rope-append", "rope(linear)", NULL,
     EMBED LINEAR("x", "w_a", "q") ROPE("q", "100", "4", "qr") "outputs: [qr]\n", true, "qr",
     "in group \"heads\""},
    {"fuse-rope-append", "rope(linear)", "fuse-qkv",
     EMBED LINEAR("x", "w_a", "q") LINEAR("x", "w_b", "k") ROPE("q", "100", "4", "qr")
         ROPE("k", "1000", "4", "kr") "outputs: [qr, kr]\n",
     false, "kr", "ropes \"qr\" and \"kr\" differ"},
    {"fuse-rope-append", "rope(linear)", NULL,
     EMBED LINEAR("x", "w_a", "q") ROPE("q", "100", "4", "qr") "outputs: [q, qr]\n", false, NULL, NULL},
    {"fuse-rope-append", "append(rope(linear))", NULL,
     EMBED LINEAR("x", "w_a", "k") ROPE("k", "100", "4", "kr")
         APPEND("keys", "kr", "k_all") "outputs: [k_all]\n",
     true, "k_all", "in group \"heads\""},
    {"fuse-rope-append", "append(rope(linear))", NULL,
     EMBED LINEAR("x", "w_a", "k") ROPE("k", "100", "4", "kr")
         APPEND("keys_pairs", "kr", "k_all") "outputs: [k_all]\n",
     false, "k_all", "\"k_all\" has other heads or positions than the rest"},
    {"fuse-rope-append", "rope(norm(linear))", NULL,
     EMBED LINEAR("x", "w_a", "q") HEAD_NORM("q", "qn") ROPE("qn", "100", "4", "qr") "outputs: [qr]\n", true,
     "qr", "in group \"heads\""},
    {"fuse-rope-append", "rope(norm(linear))", NULL,
     EMBED LINEAR("x", "w_a", "q") HEAD_NORM("q", "qn") ROPE("qn", "100", "2", "qr") "outputs: [qr]\n", false,
     "qr", "\"qr\" has other heads or positions than the rest"},
    {"fuse-rope-append", "append(rope(norm(linear)))", NULL,
     EMBED LINEAR("x", "w_a", "k") HEAD_NORM("k", "kn") ROPE("kn", "100", "4", "kr")
         APPEND("keys", "kr", "k_all") "outputs: [k_all]\n",
     true, "k_all", "in group \"heads\""},
    {"fuse-rope-append", "append(rope(norm(linear)))", NULL,
     EMBED LINEAR("x", "w_a", "k") HEAD_NORM("k", "kn") ROPE("kn", "100", "4", "kr")
         APPEND("keys_pairs", "kr", "k_all") "outputs: [k_all]\n",
     false, "k_all", "\"k_all\" has other heads or positions than the rest"},
    {"fuse-rope-append", "append(linear)", NULL,
     EMBED LINEAR("x", "w_a", "v") APPEND("values", "v", "v_all") "outputs: [v_all]\n", true, "v_all",
     "in group \"heads\""},
    {"fuse-rope-append", "append(linear)", NULL,
     EMBED LINEAR("x", "w_odd", "v") APPEND("keys_odd", "v", "v_all") "outputs: [v_all]\n", false, "v_all",
     "product \"v\" has an odd number of rows"},

    {"fuse-residual", "residual + linear", NULL,
     EMBED LINEAR("x", "w_a", "y") PAIR("add", "x", "y", "z") "outputs: [z]\n", true, "z",
     "in group \"out\""},
    {"fuse-residual", "residual + linear", NULL,
     EMBED LINEAR("x", "w_a", "y") PAIR("add", "y", "x", "z") "outputs: [z]\n", true, "z",
     "in group \"out\""},
    {"fuse-residual", "residual + rms_norm", NULL, EMBED NORM PAIR("add", "x", "h", "z") "outputs: [z]\n",
     true, "z", "in group \"out\""},
    {"fuse-residual", "residual + rms_norm", NULL,
     EMBED HEAD_NORM("x", "h") PAIR("add", "x", "h", "z") "outputs: [z]\n", false, "z",
     "rms_norm \"h\" is over parts of a row"},
    {"fuse-residual", "residual + scale(linear)", NULL,
     EMBED LINEAR("x", "w_a", "y") SCALE("y", "s") PAIR("add", "x", "s", "z") "outputs: [z]\n", true, "z",
     "in group \"out\""},
    {"fuse-residual", "residual + scale(linear)", "fuse-qkv",
     EMBED LINEAR("x", "w_a", "y") LINEAR("x", "w_b", "k") SCALE("y", "s")
         PAIR("add", "x", "s", "z") "outputs: [z, k]\n",
     false, "z", "\"k\" is read outside of the group"},
    {"fuse-residual", "residual + linear", "fuse-qkv",
     EMBED LINEAR("x", "w_a", "y") LINEAR("x", "w_b", "k") PAIR("add", "x", "y", "z") "outputs: [z, k]\n",
     false, "z", "\"k\" is read outside of the group"},

    {"fuse-residual", "residual + expert_sum(expert_linear)", NULL,
     EMBED ROUTE("x") EXPERTS("x", "e_a, ids", "each") PAIR("expert_sum", "each", "by", "y")
         PAIR("add", "x", "y", "z") "outputs: [z]\n",
     true, "z", "in group \"mixed\""},
    {"fuse-residual", "residual + expert_sum(expert_linear)", NULL,
     EMBED ROUTE("x") EXPERTS("x", "e_a, ids, e_bias", "each") PAIR("expert_sum", "each", "by", "y")
         PAIR("add", "x", "y", "z") "outputs: [z]\n",
     false, "z", "product \"each\" of experts has a bias"},

    {"fuse-norm-linear", "route(linear(rms_norm))", NULL,
     EMBED NORM ROUTE("h") EXPERTS("h", "e_a, ids", "y") "outputs: [y, by]\n", true, "ids",
     "in group \"router\""},
    {"fuse-norm-linear", "route(linear(rms_norm))", NULL,
     EMBED HEAD_NORM("x", "h") ROUTE("h") EXPERTS("h", "e_a, ids", "y") "outputs: [y, by]\n", false, "ids",
     "rms_norm \"h\" is over parts of a row"},
    {"fuse-norm-linear", "route(linear(layer_norm))", NULL,
     EMBED LAYER_NORM ROUTE("h") EXPERTS("h", "e_a, ids", "y") "outputs: [y, by]\n", true, "ids",
     "in group \"router\""},
    {"fuse-norm-linear", "route(linear(layer_norm))", "fuse-qkv",
     EMBED LAYER_NORM LINEAR("h", "w_a", "q") ROUTE("h")
         EXPERTS("h", "e_a, ids", "y") "outputs: [y, by, q]\n",
     false, "ids", "route \"ids\" does not follow the only product of the group"},

    {"fuse-norm-linear", "linear(rms_norm)", NULL, EMBED NORM LINEAR("h", "w_a", "y") "outputs: [y]\n", true,
     "y", "in group \"norm\""},
    {"fuse-norm-linear", "linear(rms_norm)", NULL,
     EMBED NORM LINEAR("h", "w_a", "y") LINEAR("h", "w_b", "z") "outputs: [y, z]\n", false, "h",
     "\"y\" and \"z\", which read it, are different kernels"},
    {"fuse-norm-linear", "linear(rms_norm)", NULL,
     EMBED NORM LINEAR("h", "w_a", "q") LINEAR("h", "w_b", "k") LINEAR("h", "w_c", "v")
         LINEAR("h", "w_d", "y") LINEAR("h", "w_e", "z") "outputs: [q, k, v, y, z]\n",
     false, "h", "more than 4 nodes read it"},
    {"fuse-norm-linear", "linear(rms_norm)", NULL, EMBED NORM LINEAR("h", "w_a", "y") "outputs: [y, h]\n",
     false, "h", "\"h\" is read outside of the group"},
    {"fuse-norm-linear", "linear(rms_norm)", NULL,
     EMBED
     "  - {op: rms_norm, in: [x, half_norm], eps: 1e-6, out: h}\n" LINEAR("h", "w_a", "y") "outputs: [y]\n",
     false, "h", "rms_norm \"h\" is over parts of a row"},

    {"fuse-norm-linear", "linear(layer_norm)", NULL,
     EMBED LAYER_NORM LINEAR("h", "w_a", "y") "outputs: [y]\n", true, "y", "in group \"norm\""},
    {"fuse-norm-linear", "linear(layer_norm)", NULL,
     EMBED LAYER_NORM LINEAR("h", "w_a", "y") "outputs: [y, h]\n", false, "h",
     "\"h\" is read outside of the group"},

    {"fuse-embed", "linear(rms_norm(embedding))", "fuse-norm-linear",
     EMBED NORM LINEAR("h", "w_a", "y") "outputs: [x, y]\n", true, "y", "in group \"norm\""},
    {"fuse-embed", "linear(rms_norm(embedding))", NULL, EMBED NORM LINEAR("h", "w_a", "y") "outputs: [y]\n",
     false, "x", "\"h\", which reads it, is a kernel by itself"},
    {"fuse-embed", "linear(rms_norm(embedding))", "fuse-norm-linear,fuse-residual",
     EMBED NORM LINEAR("h", "w_a", "y") PAIR("add", "x", "y", "z") "outputs: [z]\n", false, "x",
     "\"z\" of the group reads \"x\" too"},

    {"fuse-head-sample", "sample_part(linear)", NULL,
     EMBED SELECT LINEAR("r", "head", "logits") MARK PART("logits", "32")
         MERGE("logits", "32") "outputs: [logits, next]\n",
     true, "parts", "in group \"head\""},
    {"fuse-head-sample", "sample_part(linear)", NULL,
     EMBED SELECT LINEAR("r", "head", "logits") MARK PART("logits", "16")
         MERGE("logits", "16") "outputs: [logits, next]\n",
     false, "parts",
     "sample_part \"parts\" has chunks of 16, and a kernel of products finds the largest of 32"},
    {"fuse-head-sample", "sample_part(linear)", "fuse-qkv",
     EMBED SELECT LINEAR("r", "head", "logits") LINEAR("r", "head_b", "y") MARK PART("logits", "32")
         MERGE("logits", "32") "outputs: [logits, y, next]\n",
     false, "parts", "sample_part \"parts\" does not follow the only product of the group"},

    {"fuse-head-sample", "sample_part(scale(linear))", NULL,
     EMBED SELECT LINEAR("r", "head", "y") SCALE("y", "logits") MARK PART("logits", "32")
         MERGE("logits", "32") "outputs: [logits, next]\n",
     true, "parts", "in group \"head\""},
    {"fuse-head-sample", "sample_part(scale(linear))", NULL,
     EMBED SELECT LINEAR("r", "head", "y") SCALE("y", "logits") MARK PART("logits", "16")
         MERGE("logits", "16") "outputs: [logits, next]\n",
     false, "parts",
     "sample_part \"parts\" has chunks of 16, and a kernel of products finds the largest of 32"},
    {"fuse-head-sample", "sample_part(softcap(linear))", NULL,
     EMBED SELECT LINEAR("r", "head", "y") SOFTCAP("y", "logits") MARK PART("logits", "32")
         MERGE("logits", "32") "outputs: [logits, next]\n",
     true, "parts", "in group \"head\""},
    {"fuse-head-sample", "sample_part(softcap(linear))", NULL,
     EMBED SELECT LINEAR("r", "head", "y") SOFTCAP("y", "logits") MARK PART("logits", "16")
         MERGE("logits", "16") "outputs: [logits, next]\n",
     false, "parts",
     "sample_part \"parts\" has chunks of 16, and a kernel of products finds the largest of 32"},

    {"fuse-merge-linear", "linear(attention_merge)", NULL,
     EMBED CACHES ATTENTION_PART ATTENTION_MERGE LINEAR("a", "w_a", "y") "outputs: [y]\n", true, "y",
     "in group \"out\""},
    {"fuse-merge-linear", "linear(attention_merge)", NULL,
     EMBED LINEAR("x", "w_wide",
                  "q") "  - {op: attention_part, in: [q, keys_wide, values_wide, positions], "
                       "scale: 0.01, parts: 2, out: p}\n"
                       "  - {op: attention_merge, in: [p], head_dim: 4100, parts: 2, out: a}\n" LINEAR(
                           "a", "w_narrow", "y") "outputs: [y]\n",
     false, "y", "\"a\" has 8200 elements, and a kernel has room for 8192"},
    {"fuse-merge-linear", "linear(attention_merge)", NULL,
     EMBED CACHES ATTENTION_PART ATTENTION_MERGE LINEAR("a", "w_a", "y") "outputs: [y, a]\n", false, NULL,
     NULL},

    {"fuse-pointwise", "pointwise(pointwise, ...)", NULL,
     EMBED SILU("x", "y") PAIR("mul", "x", "y", "z") "outputs: [z]\n", true, "z", "in group \"pointwise\""},
    {"fuse-pointwise(max=1)", "pointwise(pointwise, ...)", NULL,
     EMBED SILU("x", "y") PAIR("mul", "x", "y", "z") "outputs: [z]\n", false, "z",
     "2 nodes, and at most 1 are wanted in a kernel"},
    {"fuse-pointwise(max=1)", "pointwise(pointwise, ...)", NULL,
     EMBED LINEAR("x", "w_a", "y") PAIR("mul", "x", "y", "z") "outputs: [z]\n", false, NULL, NULL},
    {"fuse-pointwise", "pointwise(..., pointwise)", NULL,
     EMBED LINEAR("x", "w_a", "y") SILU("x", "xs") SILU("y", "ys")
         PAIR("mul", "xs", "ys", "z") "outputs: [z]\n",
     true, "z", "in group \"pointwise\""},
    {"fuse-pointwise(max=2)", "pointwise(..., pointwise)", NULL,
     EMBED LINEAR("x", "w_a", "y") SILU("x", "xs") SILU("y", "ys")
         PAIR("mul", "xs", "ys", "z") "outputs: [z]\n",
     false, "z", "3 nodes, and at most 2 are wanted in a kernel"},
    {"fuse-pointwise", "pointwise(..., pointwise)", NULL,
     EMBED LINEAR("x", "w_one", "gate") "  - {op: sigmoid, in: [gate], out: open}\n" PAIR(
         "mul", "x", "open", "z") "outputs: [z]\n",
     false, "z", "\"open\" and \"z\" differ in shape"},
    {"fuse-pointwise", "pointwise(pointwise, ...)", NULL,
     EMBED LINEAR("x", "w_one", "gate") PAIR("mul", "gate", "x", "y")
         PAIR("add", "y", "x", "z") "outputs: [z]\n",
     true, "z", "in group \"pointwise\""},
    {"fuse-pointwise", "pointwise(..., pointwise)", NULL,
     EMBED TABLES PAIR("mul", "a", "b", "ab") PAIR("mul", "c", "d", "cd") PAIR("mul", "ab", "cd", "abcd")
         PAIR("mul", "e", "f", "ef") PAIR("mul", "ef", "x", "efx")
             PAIR("add", "abcd", "efx", "z") "outputs: [z]\n",
     false, "z", "7 values come from outside, and the kernel takes 6"},
};
enum { N_RULE_CASES = sizeof rule_cases / sizeof *rule_cases };

#undef EMBED
#undef NORM
#undef LINEAR
#undef ROPE
#undef APPEND
#undef CACHES
#undef PAIR
#undef SILU
#undef TABLE
#undef TABLES
#undef SELECT
#undef MARK
#undef PART
#undef MERGE
#undef ATTENTION_MERGE
#undef ATTENTION_PART

#endif
