#include <string.h>

#include "graph/base/str.h"
#include "graph/graph.h"

const qgc_kernel_row *qgc_graph_kernel(const qgc_graph *g, const char *name) {
    for (size_t i = 0; i < g->n_kernels; i++)
        if (strcmp(g->kernels[i]->name, name) == 0)
            return g->kernels[i];
    return NULL;
}

static bool same_row(const qgc_kernel_row *a, const qgc_kernel_row *b) {
    return qgc_same_text(a->text, b->text) && qgc_same_text(a->nodes, b->nodes) &&
           qgc_same_text(a->params, b->params) && qgc_same_text(a->options, b->options) &&
           qgc_same_text(a->limits, b->limits) && qgc_same_text(a->grid, b->grid) &&
           qgc_same_text(a->threads, b->threads) && qgc_same_text(a->shared, b->shared) &&
           qgc_same_text(a->starts, b->starts) && qgc_same_text(a->steps, b->steps) &&
           qgc_same_text(a->arch, b->arch) && qgc_same_text(a->phase, b->phase);
}

const qgc_kernel_row *qgc_graph_add_kernel(qgc_graph *g, const qgc_kernel_row *row) {
    for (size_t i = 0; i < g->n_kernels; i++)
        if (strcmp(g->kernels[i]->name, row->name) == 0) {
            if (!same_row(g->kernels[i], row))
                return NULL;
            if (row->brought) /* what a file has is what a plug-in has */
                g->kernels[i] = row;
            return g->kernels[i];
        }
    g->kernels = qgc_arena_grow(g->arena, g->kernels, g->n_kernels, sizeof *g->kernels);
    return g->kernels[g->n_kernels++] = row;
}

const qgc_kernel_row *qgc_node_kernel(const qgc_graph *g, const qgc_node *n) {
    return n->group >= 0 ? g->groups[n->group].kernel : NULL;
}
