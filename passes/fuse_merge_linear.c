#include "passes/rewrite.h"

/* The parts of a split attention are put together by every block of the product that reads the result. */

enum { LINEAR, MERGE };

static bool apply(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse(rw, "out", (qgc_node *[]){m->node[MERGE], m->node[LINEAR]}, 2);
}

static const qgc_rule rules[] = {
    {"linear(attention_merge)", P(LINEAR, LINEAR, P1(MERGE, ATTENTION_MERGE, FREE)), apply},
    {0},
};

qgc_status qgc_pass_fuse_merge_linear(qgc_pass_context *c, qgc_diag *d) {
    return qgc_rewrite(c, rules, d);
}
