#include "passes/bind_weights.h"

#include <string.h>

#include "graph/load.h"
#include "models/bind.h"

/* From declarations, one for all layers, to wants, one for each tensor: wants of a declaration are adjacent. */

static qgc_weight_want want_of(const qgc_graph *g, const qgc_weight_decl *decl, int i,
                               const int *first_want) {
    const qgc_value *v = decl->values[i];
    qgc_weight_want want = {.label = qgc_value_label(v, g->arena),
                            .gguf = qgc_tensor_name(decl->gguf, decl->index, v->layer, g->arena),
                            .hf = qgc_tensor_name(decl->hf, decl->index, v->layer, g->arena),
                            .tied = -1,
                            .rank = v->shape.rank,
                            .at = decl->at,
                            .gguf_form = decl->gguf_form,
                            .hf_form = decl->hf_form};
    memcpy(want.shape, v->shape.dim, sizeof want.shape);
    if (decl->tied >= 0) /* layer by layer, or all to one */
        want.tied = first_want[decl->tied] + (g->weights[decl->tied].count > 1 ? i : 0);
    return want;
}

static qgc_param_want param_of(const qgc_param *p) {
    return (qgc_param_want){.name = p->name,
                            .value = p->value,
                            .gguf = p->gguf,
                            .hf = p->hf,
                            .n_gguf = p->n_gguf,
                            .n_hf = p->n_hf,
                            .at = p->at,
                            .words = {p->words, p->n_words},
                            .turns = p->index ? p->count : 0,
                            .values = p->values,
                            .otherwise = p->otherwise};
}

static qgc_param_want *params_of(const qgc_graph *g, size_t *n) {
    qgc_param_want *params = qgc_arena_array(g->arena, g->n_params, sizeof *params);
    for (size_t i = 0; i < g->n_params; i++)
        if (qgc_param_counts(&g->params[i]))
            params[(*n)++] = param_of(&g->params[i]);
    return params;
}

/* What is derived has no tensor to be found. */
static int wants_of(const qgc_weight_decl *decl) {
    return decl->derived.kind ? 0 : decl->count;
}

/* Copies are of the type of what they are copies of; what is computed has its own, which is no block format. */
static void take_types(qgc_graph *g) {
    qgc_tensor made = {.name = NULL};
    for (size_t i = 0; i < g->n_weights; i++)
        for (int k = 0; g->weights[i].derived.kind && k < g->weights[i].count; k++) {
            qgc_value *v = g->weights[i].values[k];
            if (!qgc_weight_misfit(g, v, &made, g->arena) &&
                (qgc_derive_copies(g->weights[i].derived.kind) || qgc_dtype_is_quantised(v->dtype)))
                v->dtype = made.dtype;
        }
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
        n_wants += wants_of(&g->weights[i]);
    }
    qgc_weight_want *wants = qgc_arena_array(g->arena, (size_t)n_wants, sizeof *wants);
    for (size_t i = 0; i < g->n_weights; i++)
        for (int k = 0; k < wants_of(&g->weights[i]); k++)
            wants[first_want[i] + k] = want_of(g, &g->weights[i], k, first_want);

    size_t n_params = 0;
    const qgc_param_want *params = params_of(g, &n_params);
    qgc_bind_request request = {.arch = g->arch,
                                .gguf_arch = g->gguf_arch,
                                .hf_arch = g->hf_arch,
                                .at = g->at,
                                .weights = wants,
                                .n_weights = (size_t)n_wants,
                                .params = params,
                                .n_params = n_params,
                                .ignored = g->ignored,
                                .n_ignored = g->n_ignored,
                                .allow_unused = allow_unused,
                                .arena = g->arena};
    const qgc_tensor **found = qgc_arena_array(g->arena, (size_t)n_wants, sizeof *found);
    QGC_TRY(qgc_bind(w, &request, found, d));

    *tensors = qgc_arena_array(g->arena, g->n_values, sizeof **tensors);
    for (size_t i = 0; i < g->n_weights; i++)
        for (int k = 0; k < wants_of(&g->weights[i]); k++)
            take_tensor(g->weights[i].values[k], found[first_want[i] + k], *tensors);
    take_types(g);
    return QGC_OK;
}

/* --- graphs whose parameters are read from weights -------------------------------------------------------- */

static qgc_stated number_of(void *context, const qgc_param *p, const char *key, int turn, double *out) {
    const qgc_question q = {key, {p->words, p->n_words}, turn};
    return qgc_weights_answer(context, &q, out);
}

static const char *shown(void *context, const char *key, qgc_arena *a) {
    const char *text = qgc_weights_shown(context, qgc_weights_key(context, key, a), a);
    return text ? text : "nothing";
}

static size_t count_of(void *context, const char *key) {
    return qgc_weights_values(context, key);
}

qgc_status qgc_graph_load_for(qgc_graph **out, const char *path, const qgc_weights *w, qgc_arena *a,
                              qgc_diag *d) {
    if (!w)
        return qgc_graph_load(out, path, a, d);
    const qgc_load_facts facts = {.path = qgc_weights_path(w),
                                  .is_gguf = qgc_weights_kind(w) == QGC_WEIGHTS_GGUF,
                                  .arch = qgc_weights_arch(w),
                                  .context = (void *)(uintptr_t)w, /* which is only read */
                                  .number = number_of,
                                  .shown = shown,
                                  .count = count_of};
    return qgc_graph_load_stated(out, path, &facts, a, d);
}
