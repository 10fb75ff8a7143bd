#include "passes/rewrite.h"

/* Neighbouring pointwise ops, whichever they are: chains and small trees become one expression. `max` bounds the nodes
 * of a kernel. */

enum { INNER, OUTER };

static int group_size(const qgc_graph *g, const qgc_node *node) {
    int n = 0;
    for (const qgc_node *other = g->first; other && node->group >= 0; other = other->next)
        n += other->group == node->group;
    return n > 0 ? n : 1;
}

static bool apply(qgc_rewriter *rw, const qgc_match *m) {
    const qgc_graph *g = qgc_rewriter_graph(rw);
    int max = (int)qgc_pass_option(qgc_rewriter_pass(rw), "max", 8);
    qgc_node *inner = m->node[INNER], *outer = m->node[OUTER];
    if (inner->group >= 0 && inner->group == outer->group)
        return false;
    int n = group_size(g, inner) + group_size(g, outer);
    if (n > max)
        return qgc_decline(rw, outer, "%d nodes, and at most %d are wanted in a kernel", n, max);
    return qgc_fuse(rw, "pointwise", (qgc_node *[]){inner, outer}, 2);
}

static const qgc_rule rules[] = {
    {"pointwise(pointwise, ...)", W(OUTER, W1(INNER, FREE)), apply},
    {"pointwise(..., pointwise)", W(OUTER, FREE, W1(INNER, FREE)), apply},
    {0},
};

qgc_status qgc_pass_fuse_pointwise(qgc_pass_context *c, qgc_diag *d) {
    return qgc_rewrite(c, rules, d);
}
