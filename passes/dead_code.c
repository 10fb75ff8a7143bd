#include "passes/passes.h"

/* Nodes whose results nobody reads and that change no state go, last ones first, so that what fed only them goes too. */

static bool is_read(const qgc_node *n, const int *uses) {
    bool read = (qgc_ops[n->op].traits & QGC_IN_PLACE) != 0;
    for (int i = 0; i < n->n_out; i++)
        read = read || uses[n->out[i]->id] > 0;
    return read;
}

qgc_status qgc_pass_dead_code(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    int *uses = qgc_graph_uses(c->graph, c->scratch);
    for (qgc_node *n = c->graph->last, *prev; n; n = prev) {
        prev = n->prev;
        if (c->run->n_fired == c->most)
            return QGC_OK;
        if (is_read(n, uses))
            continue;
        for (int i = 0; i < n->n_in; i++)
            uses[n->in[i]->id]--;
        qgc_graph_remove(c->graph, n);
        c->run->n_fired++;
    }
    return QGC_OK;
}
