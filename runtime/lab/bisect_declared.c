#include <math.h>
#include <string.h>

#include "graph/base/str.h"
#include "passes/bind_weights.h"
#include "runtime/lab/bisect_impl.h"

/* What a graph declares beside its nodes: parameters, of which tensors its weights are, and what files it is for. */

qgc_graph *bisect_copy_declared(const qgc_graph *g, qgc_arena *a) {
    qgc_graph *copy = qgc_graph_clone(g, a);
    copy->params = qgc_arena_array(a, g->n_params + 1, sizeof *copy->params);
    for (size_t i = 0; i < g->n_params; i++) {
        qgc_param *p = &copy->params[i];
        *p = g->params[i];
        if (!p->values)
            continue;
        p->values = qgc_arena_array(a, (size_t)p->count + 1, sizeof *p->values);
        for (int k = 0; k < p->count; k++)
            p->values[k] = g->params[i].values[k];
    }
    copy->ignored = qgc_arena_array(a, g->n_ignored + 1, sizeof *copy->ignored);
    for (size_t i = 0; i < g->n_ignored; i++)
        copy->ignored[i] = g->ignored[i];
    return copy;
}

/* --- parameters ------------------------------------------------------------------------------------------ */

static bool is_same_number(double x, double y) {
    return x == y || (isnan(x) && isnan(y));
}

static const char *param_objection(const qgc_param *now, const qgc_param *was, qgc_arena *a) {
    if (!is_same_number(now->value, was->value))
        return qgc_arena_printf(a, "parameter \"%s\" is %g and was %g", now->name, now->value, was->value);
    for (int i = 0; now->values && was->values && i < now->count && i < was->count; i++)
        if (!is_same_number(now->values[i], was->values[i]))
            return qgc_arena_printf(a, "parameter \"%s\" is %g in layer %d and was %g", now->name,
                                    now->values[i], i, was->values[i]);
    if (now->n_gguf != was->n_gguf || now->n_hf != was->n_hf)
        return qgc_arena_printf(a, "parameter \"%s\" is not read from the same keys", now->name);
    return NULL;
}

static const char *params_objection(const qgc_graph *was, const qgc_graph *g, qgc_arena *a) {
    const char *why = NULL;
    for (size_t i = 0; i < g->n_params && i < was->n_params && !why; i++)
        why = param_objection(&g->params[i], &was->params[i], a);
    return why;
}

/* --- tensors --------------------------------------------------------------------------------------------- */

static bool is_same_tensor(const qgc_tensor *a, const qgc_tensor *b) {
    return a == b || (a && b && a->dtype == b->dtype && a->bytes == b->bytes &&
                      (a->data == b->data || memcmp(a->data, b->data, a->bytes) == 0));
}

const char *bisect_rebind(const qgc_graph *was, const qgc_graph *g, const qgc_weights *weights,
                          const qgc_tensor *const **tensors, bool *others, qgc_arena *a) {
    qgc_diag d = qgc_diag_new(a);
    qgc_graph *copy = qgc_graph_clone(g, a);
    const qgc_tensor **now;
    const char *why = params_objection(was, g, a);
    if (why)
        return why;
    if (qgc_graph_bind(copy, weights, true, &now, &d) != QGC_OK)
        return qgc_arena_printf(a, "its weights are not found any more: %s", qgc_diag_message(&d));
    for (size_t i = 0; i < g->n_values; i++) {
        const qgc_value *v = g->values[i];
        if (v->kind != QGC_WEIGHT || qgc_weight_is_derived(g, v) || !now[i])
            continue;
        if (v->dtype != now[i]->dtype)
            return qgc_arena_printf(a, "weight \"%s\" is stored as %s and the file has %s",
                                    qgc_value_label(v, a), qgc_dtypes[v->dtype].name,
                                    qgc_dtypes[now[i]->dtype].name);
        if (i < was->n_values && is_same_tensor(now[i], (*tensors)[i]))
            now[i] = (*tensors)[i];
        else
            *others = true;
    }
    *tensors = now;
    return NULL;
}

static bool is_same_form(const qgc_tensor_form *a, const qgc_tensor_form *b) {
    return qgc_same_text(a->stacked_index, b->stacked_index) && a->stacked == b->stacked &&
           a->transposed == b->transposed && a->first == b->first && a->last == b->last && a->of == b->of &&
           a->heads == b->heads && a->plus == b->plus;
}

/* The weights file at hand is of one format; the graph is for both. */
static const char *weights_objection(const qgc_graph *was, const qgc_graph *g, qgc_arena *a) {
    for (size_t i = 0; i < was->n_weights && i < g->n_weights; i++) {
        const qgc_weight_decl *x = &g->weights[i], *y = &was->weights[i];
        const bool gguf = qgc_same_text(x->gguf, y->gguf) && is_same_form(&x->gguf_form, &y->gguf_form),
                   hf = qgc_same_text(x->hf, y->hf) && is_same_form(&x->hf_form, &y->hf_form);
        if (!gguf || !hf)
            return qgc_arena_printf(a, "weight \"%s\" is another tensor of a %s", x->name,
                                    gguf ? "folder of safetensors" : "GGUF");
        if (x->tied != y->tied)
            return qgc_arena_printf(a, "weight \"%s\" is tied to another", x->name);
    }
    return NULL;
}

/* --- derived weights ------------------------------------------------------------------------------------- */

/* Digits of a number as it is stored; a block format is taken for one without. */
static int digits_of(qgc_dtype t) {
    return t == QGC_F32 ? 24 : t == QGC_F16 ? 11 : t == QGC_BF16 ? 8 : 0;
}

/* Of a derived weight, those of the tensor that has the fewest: it may be stored as that one is. */
static int fewest_digits(const qgc_graph *g, const qgc_value *w, const qgc_tensor *const *tensors) {
    int fewest = digits_of(QGC_F32);
    if (!qgc_weight_is_derived(g, w))
        return tensors[w->id] ? digits_of(tensors[w->id]->dtype) : fewest;
    for (int i = 0; i < g->weights[w->decl].derived.n_from; i++) {
        const qgc_value *source = qgc_weight_source(g, w, i);
        const int digits = source ? fewest_digits(g, source, tensors) : fewest;
        fewest = digits < fewest ? digits : fewest;
    }
    return fewest;
}

/* Vectors are stored as float32 whatever they say. */
static const char *derived_objection(const qgc_graph *g, const qgc_tensor *const *tensors, qgc_arena *a) {
    for (size_t i = 0; i < g->n_values; i++) {
        const qgc_value *v = g->values[i];
        if (v->kind == QGC_WEIGHT && v->shape.rank > 1 && qgc_weight_is_derived(g, v) &&
            digits_of(v->dtype) < fewest_digits(g, v, tensors))
            return qgc_arena_printf(
                a, "weight \"%s\" is stored as %s, with fewer digits than what it is made of",
                qgc_value_label(v, a), qgc_dtypes[v->dtype].name);
    }
    return NULL;
}

/* --- files ----------------------------------------------------------------------------------------------- */

static const char *files_objection(const qgc_graph *was, const qgc_graph *g, qgc_arena *a) {
    if (!qgc_same_text(was->arch, g->arch) || !qgc_same_text(was->gguf_arch, g->gguf_arch) ||
        !qgc_same_text(was->hf_arch, g->hf_arch))
        return qgc_arena_printf(a, "the graph is for \"%s\" and was for \"%s\"", g->arch, was->arch);
    bool same = g->n_ignored == was->n_ignored;
    for (size_t i = 0; i < g->n_ignored && same; i++)
        same = qgc_same_text(g->ignored[i], was->ignored[i]);
    return same ? NULL : "other tensors are ignored";
}

const char *bisect_declared_objection(const qgc_graph *was, const qgc_graph *g,
                                      const qgc_tensor *const *tensors, qgc_arena *a) {
    const char *why = weights_objection(was, g, a);
    if (!why)
        why = derived_objection(g, tensors, a);
    return why ? why : files_objection(was, g, a);
}
