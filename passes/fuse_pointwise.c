#include "passes/rewrite.h"

/* Neighbouring pointwise ops, whichever they are: chains and small trees become one expression. `max` bounds the nodes
 * of a kernel. */

enum { INNER, OUTER };

/* The nodes of a group stand together. */
static int group_size(const qgc_node *node) {
    int n = 1;
    for (const qgc_node *other = node->prev; other && node->group >= 0 && other->group == node->group;
         other = other->prev)
        n++;
    for (const qgc_node *other = node->next; other && node->group >= 0 && other->group == node->group;
         other = other->next)
        n++;
    return n;
}

static bool apply(qgc_rewriter *rw, const qgc_match *m) {
    int max = (int)qgc_pass_option(qgc_rewriter_pass(rw), "max", 8);
    qgc_node *inner = m->node[INNER], *outer = m->node[OUTER];
    if (inner->group >= 0 && inner->group == outer->group)
        return false;
    int n = group_size(inner) + group_size(outer);
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
