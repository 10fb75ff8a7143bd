#include "codegen/stage/stage.h"
#include "passes/rewrite.h"

/* Products of one vector: queries, keys and values, which are small, fill the card together. The first reader of the
 * vector stands for all of them. */

enum { FIRST, X };

static bool apply(qgc_rewriter *rw, const qgc_match *m) {
    qgc_node *readers[QGC_MAX_LINEARS + 1], *alike[QGC_MAX_LINEARS] = {NULL};
    int n = qgc_readers(rw, m->value[X], readers, QGC_MAX_LINEARS + 1), n_alike = 0, n_linears = 0;
    if (n > QGC_MAX_LINEARS)
        return qgc_decline(rw, m->root, "more than %d nodes read the vector", QGC_MAX_LINEARS);
    for (int i = 0; i < n; i++) {
        if (readers[i]->op != QGC_OP_LINEAR || readers[i]->in[0] != m->value[X])
            continue;
        n_linears++;
        if (readers[i]->n_in == m->root->n_in)
            alike[n_alike++] = readers[i];
    }
    if (n_linears < 2 || alike[0] != m->root)
        return false;
    if (n_alike < 2)
        return qgc_decline(rw, m->root, "the other products of the vector have %s bias",
                           m->root->n_in == 3 ? "no" : "a");
    return qgc_fuse(rw, "qkv", alike, n_alike);
}

static const qgc_rule rules[] = {
    {"products of one vector", P(FIRST, LINEAR, V(X)), apply},
    {0},
};

qgc_status qgc_pass_fuse_qkv(qgc_pass_context *c, qgc_diag *d) {
    return qgc_rewrite(c, rules, d);
}
