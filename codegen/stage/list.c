#include "codegen/stage/stage.h"

static qgc_stage of_node(const qgc_node *n) {
    qgc_stage s = {.kind = QGC_STAGE_NODE, .node = n};
    if (n->op == QGC_OP_LINEAR) {
        s.kind = QGC_STAGE_PRODUCTS;
        s.rows[s.n_rows++].linear = n;
    } else if (qgc_ops[n->op].traits & QGC_POINTWISE) {
        s.kind = QGC_STAGE_POINTWISE;
        s.pointwise[s.n_pointwise++] = n;
    }
    return s;
}

static const char *name_of(const qgc_graph *g, const qgc_node *n, qgc_arena *a) {
    return n->group >= 0 ? g->groups[n->group].name
                         : qgc_arena_printf(a, "%s %s", qgc_ops[n->op].name, n->out[0]->name);
}

static qgc_status add(const qgc_graph *g, const qgc_node *n, const int *uses, qgc_stage *out, qgc_diag *d) {
    const char *why;
    if (n->group < 0)
        *out = of_node(n);
    else if (!qgc_stage_at(g, n, uses, out, &why, d->arena))
        return qgc_stages_check(g, d);
    out->first = n;
    return QGC_OK;
}

qgc_status qgc_stages_list(const qgc_graph *g, const int *uses, qgc_stage **out, int *n, qgc_arena *a,
                           qgc_diag *d) {
    *out = qgc_arena_array(a, g->n_nodes + 1, sizeof **out);
    *n = 0;
    for (const qgc_node *node = g->first; node; node = node->next) {
        if (node->group >= 0 && node->prev && node->prev->group == node->group)
            continue;
        qgc_stage *s = &(*out)[(*n)++];
        QGC_TRY(add(g, node, uses, s, d));
        s->name = name_of(g, node, a);
    }
    return QGC_OK;
}
