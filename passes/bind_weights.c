#include "passes/bind_weights.h"

#include <string.h>

#include "models/bind.h"

/* From declarations, one for all layers, to wants, one for each tensor: wants of a declaration are adjacent. */

static qgc_weight_want want_of(const qgc_graph *g, const qgc_weight_decl *decl, int i,
                               const int *first_want) {
    const qgc_value *v = decl->values[i];
    qgc_weight_want want = {.label = qgc_value_label(v, g->arena),
                            .gguf = qgc_tensor_name(decl->gguf, decl->index, i, g->arena),
                            .hf = qgc_tensor_name(decl->hf, decl->index, i, g->arena),
                            .tied = -1,
                            .rank = v->shape.rank,
                            .at = decl->at};
    memcpy(want.shape, v->shape.dim, sizeof want.shape);
    if (decl->tied >= 0) /* layer by layer, or all to one */
        want.tied = first_want[decl->tied] + (g->weights[decl->tied].count > 1 ? i : 0);
    return want;
}

static qgc_param_want *params_of(const qgc_graph *g) {
    qgc_param_want *params = qgc_arena_array(g->arena, g->n_params, sizeof *params);
    for (size_t i = 0; i < g->n_params; i++) {
        const qgc_param *p = &g->params[i];
        params[i] = (qgc_param_want){p->name, p->value, p->gguf, p->hf, p->n_gguf, p->n_hf, p->at};
    }
    return params;
}

static void take_tensor(qgc_value *v, const qgc_tensor *t, const qgc_tensor **tensors) {
    tensors[v->id] = t;
    v->dtype = t->dtype;
}

qgc_status qgc_graph_bind(qgc_graph *g, const qgc_weights *w, bool allow_unused, const qgc_tensor ***tensors,
                          qgc_diag *d) {
    int *first_want = qgc_arena_array(g->arena, g->n_weights, sizeof *first_want), n_wants = 0;
    for (size_t i = 0; i < g->n_weights; i++) {
        first_want[i] = n_wants;
        n_wants += g->weights[i].count;
    }
    qgc_weight_want *wants = qgc_arena_array(g->arena, (size_t)n_wants, sizeof *wants);
    for (size_t i = 0; i < g->n_weights; i++)
        for (int k = 0; k < g->weights[i].count; k++)
            wants[first_want[i] + k] = want_of(g, &g->weights[i], k, first_want);

    qgc_bind_request request = {.arch = g->arch,
                                .at = g->at,
                                .weights = wants,
                                .n_weights = (size_t)n_wants,
                                .params = params_of(g),
                                .n_params = g->n_params,
                                .allow_unused = allow_unused};
    const qgc_tensor **found = qgc_arena_array(g->arena, (size_t)n_wants, sizeof *found);
    QGC_TRY(qgc_bind(w, &request, found, d));

    *tensors = qgc_arena_array(g->arena, g->n_values, sizeof **tensors);
    for (size_t i = 0; i < g->n_weights; i++)
        for (int k = 0; k < g->weights[i].count; k++)
            take_tensor(g->weights[i].values[k], found[first_want[i] + k], *tensors);
    return QGC_OK;
}
