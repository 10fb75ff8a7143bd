#include "passes/rewrite.h"

/* x + linear(y), or x + rms_norm(y) where a model norms what a block of it adds, or x + scale(linear(y)): the sum is made where the
 * row is. So is x + expert_sum(expert_linear(y, ids), weights): what the experts of a token make stays in the kernel. */

enum { FIRST, SUM, SCALED };

static bool apply(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse(rw, "out", (qgc_node *[]){m->node[FIRST], m->node[SUM]}, 2);
}

static bool apply_scaled(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse(rw, "out", (qgc_node *[]){m->node[FIRST], m->node[SCALED], m->node[SUM]}, 3);
}

static bool apply_experts(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse(rw, "mixed", (qgc_node *[]){m->node[FIRST], m->node[SCALED], m->node[SUM]}, 3);
}

static const qgc_rule rules[] = {
    {"residual + linear", P(SUM, ADD, P1(FIRST, LINEAR, FREE)), apply},
    {"residual + rms_norm", P(SUM, ADD, P1(FIRST, RMS_NORM, FREE)), apply},
    {"residual + scale(linear)", P(SUM, ADD, P1(SCALED, SCALE, P1(FIRST, LINEAR, FREE))), apply_scaled},
    {"residual + expert_sum(expert_linear)",
     P(SUM, ADD, P1(SCALED, EXPERT_SUM, P1(FIRST, EXPERT_LINEAR, FREE), FREE)), apply_experts},
    {0},
};

qgc_status qgc_pass_fuse_residual(qgc_pass_context *c, qgc_diag *d) {
    return qgc_rewrite(c, rules, d);
}
