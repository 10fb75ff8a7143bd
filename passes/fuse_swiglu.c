#include "passes/rewrite.h"

/* The first half of an MLP: one product or two of a vector, and what is made of their rows, in one kernel.
 *
 *   m -> gate -> act -\
 *   m -> up -----------> ff
 *
 * Saves three launches a layer, and the way of three vectors through memory. */

enum { GATE, UP, ACT, FF };

static bool apply(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse(rw, "mlp", (qgc_node *[]){m->node[GATE], m->node[UP], m->node[ACT], m->node[FF]}, 4);
}

/* An MLP without a gate. */
static bool apply_single(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse(rw, "mlp", (qgc_node *[]){m->node[UP], m->node[ACT]}, 2);
}

static const qgc_rule rules[] = {
    {"silu(gate) * up", P(FF, MUL, P1(ACT, SILU, P1(GATE, LINEAR, FREE)), P1(UP, LINEAR, FREE)), apply},
    {"gelu(gate) * up", P(FF, MUL, P1(ACT, GELU, P1(GATE, LINEAR, FREE)), P1(UP, LINEAR, FREE)), apply},
    {"silu(gate of experts) * up",
     P(FF, MUL, P1(ACT, SILU, P1(GATE, EXPERT_LINEAR, FREE)), P1(UP, EXPERT_LINEAR, FREE)), apply},
    {"gelu(gate of experts) * up",
     P(FF, MUL, P1(ACT, GELU, P1(GATE, EXPERT_LINEAR, FREE)), P1(UP, EXPERT_LINEAR, FREE)), apply},
    {"gelu(linear)", P(ACT, GELU, P1(UP, LINEAR, FREE)), apply_single},
    {0},
};

qgc_status qgc_pass_fuse_swiglu(qgc_pass_context *c, qgc_diag *d) {
    return qgc_rewrite(c, rules, d);
}
