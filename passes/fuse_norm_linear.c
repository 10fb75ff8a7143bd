#include "codegen/stage/stage.h"
#include "passes/rewrite.h"

/* Every block of a product normalizes its vector for itself: a few microseconds less than a kernel before it. All who
 * read the normalized vector have to be in one kernel, but where one chooses experts: it leaves the vector, and chooses them as well. */

enum { FIRST, NORM, ROUTE };

static bool apply(qgc_rewriter *rw, const qgc_match *m) {
    qgc_node *nodes[QGC_MAX_LINEARS + 1];
    int n = qgc_readers(rw, m->node[NORM]->out[0], nodes, QGC_MAX_LINEARS);
    if (n > QGC_MAX_LINEARS)
        return qgc_decline(rw, m->node[NORM], "more than %d nodes read it", QGC_MAX_LINEARS);
    for (int i = 0; i < n; i++)
        if (nodes[i] != nodes[0] && (nodes[i]->group < 0 || nodes[i]->group != nodes[0]->group))
            return qgc_decline(rw, m->node[NORM], "\"%s\" and \"%s\", which read it, are different kernels",
                               nodes[0]->out[0]->name, nodes[i]->out[0]->name);
    nodes[n] = m->node[NORM];
    return qgc_fuse(rw, "norm", nodes, n + 1);
}

/* A router's kernel leaves the normed vector for all who read it. */
static bool apply_route(qgc_rewriter *rw, const qgc_match *m) {
    return qgc_fuse(rw, "router", (qgc_node *[]){m->node[NORM], m->node[FIRST], m->node[ROUTE]}, 3);
}

static const qgc_rule rules[] = {
    {"route(linear(rms_norm))", P(ROUTE, ROUTE, P1(FIRST, LINEAR, P(NORM, RMS_NORM, FREE))), apply_route},
    {"route(linear(layer_norm))", P(ROUTE, ROUTE, P1(FIRST, LINEAR, P(NORM, LAYER_NORM, FREE))), apply_route},
    {"linear(rms_norm)", P(FIRST, LINEAR, P(NORM, RMS_NORM, FREE)), apply},
    {"linear(layer_norm)", P(FIRST, LINEAR, P(NORM, LAYER_NORM, FREE)), apply},
    {0},
};

qgc_status qgc_pass_fuse_norm_linear(qgc_pass_context *c, qgc_diag *d) {
    return qgc_rewrite(c, rules, d);
}
