#include "passes/rewrite.h"

/* The first layer's products look the embedding up themselves, before the norm that goes with them; one of their blocks
 * leaves it for the residual. One launch less. */

enum { FIRST, NORM, EMBEDDING };

static bool apply(qgc_rewriter *rw, const qgc_match *m) {
    qgc_node *first = m->node[FIRST], *norm = m->node[NORM];
    if (first->group < 0 || first->group != norm->group)
        return qgc_decline(rw, m->node[EMBEDDING], "\"%s\", which reads it, is a kernel by itself",
                           norm->out[0]->name);
    return qgc_fuse(rw, "embed", (qgc_node *[]){first, norm, m->node[EMBEDDING]}, 3);
}

static const qgc_rule rules[] = {
    {"linear(rms_norm(embedding))", P(FIRST, LINEAR, P(NORM, RMS_NORM, P(EMBEDDING, EMBEDDING, FREE))),
     apply},
    {0},
};

qgc_status qgc_pass_fuse_embed(qgc_pass_context *c, qgc_diag *d) {
    return qgc_rewrite(c, rules, d);
}
