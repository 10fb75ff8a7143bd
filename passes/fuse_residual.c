#include "passes/rewrite.h"

/* x + linear(y): the sum is made where the row is. */

enum { LINEAR, SUM };

static bool apply(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse(rw, "out", (qgc_node *[]){m->node[LINEAR], m->node[SUM]}, 2);
}

static const qgc_rule rules[] = {
    {"residual + linear", P(SUM, ADD, P1(LINEAR, LINEAR, FREE)), apply},
    {0},
};

qgc_status qgc_pass_fuse_residual(qgc_pass_context *c, qgc_diag *d) {
    return qgc_rewrite(c, rules, d);
}
