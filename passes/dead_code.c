#include "passes/passes.h"

/* Nodes whose results nobody reads and that change no state go, last ones first, so that what fed only them goes too. */

qgc_status qgc_pass_dead_code(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    for (qgc_node *n = c->graph->last, *prev; n; n = prev) {
        prev = n->prev;
        bool read = (qgc_ops[n->op].traits & QGC_IN_PLACE) != 0;
        for (int i = 0; i < n->n_out; i++)
            read = read || qgc_value_uses(c->graph, n->out[i]) > 0;
        if (read)
            continue;
        qgc_graph_remove(c->graph, n);
        c->run->n_fired++;
    }
    return QGC_OK;
}
