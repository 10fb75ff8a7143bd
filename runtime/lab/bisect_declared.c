#include <math.h>
#include <string.h>

#include "graph/base/str.h"
#include "passes/bind_weights.h"
#include "runtime/lab/bisect_impl.h"

/* What a graph declares beside its nodes: parameters, of which tensors its weights are, and what files it is for. */

static double *copy_numbers(const double *x, int n, qgc_arena *a) {
    double *copy = x ? qgc_arena_array(a, (size_t)n + 1, sizeof *copy) : NULL;
    for (int i = 0; x && i < n; i++)
        copy[i] = x[i];
    return copy;
}

static const char **copy_texts(const char *const *texts, int n, qgc_arena *a) {
    const char **copy = qgc_arena_array(a, (size_t)n + 1, sizeof *copy);
    for (int i = 0; i < n; i++)
        copy[i] = texts[i];
    return copy;
}

qgc_graph *bisect_copy_declared(const qgc_graph *g, qgc_arena *a) {
    qgc_graph *copy = qgc_graph_clone(g, a);
    copy->params = qgc_arena_array(a, g->n_params + 1, sizeof *copy->params);
    for (size_t i = 0; i < g->n_params; i++) {
        qgc_param *p = &copy->params[i];
        *p = g->params[i];
        p->values = copy_numbers(p->values, p->count, a);
        p->otherwise = copy_numbers(p->otherwise, p->count, a);
        p->gguf = copy_texts(p->gguf, p->n_gguf, a);
        p->hf = copy_texts(p->hf, p->n_hf, a);
        p->words = copy_texts(p->words, p->n_words, a);
    }
    copy->repeats = qgc_arena_array(a, g->n_repeats + 1, sizeof *copy->repeats);
    for (size_t i = 0; i < g->n_repeats; i++)
        copy->repeats[i] = g->repeats[i];
    copy->ignored = copy_texts(g->ignored, (int)g->n_ignored, a);
    return copy;
}

/* --- parameters ------------------------------------------------------------------------------------------ */

static bool is_same_number(double x, double y) {
    return x == y || (isnan(x) && isnan(y));
}

/* The first of n that is another; n: none is. */
static int first_other(const double *now, const double *was, int n) {
    int i = 0;
    while (now && was && i < n && is_same_number(now[i], was[i]))
        i++;
    return now && was ? i : n;
}

static bool are_same_texts(const char *const *x, int n, const char *const *y, int n_y) {
    bool same = n == n_y;
    for (int i = 0; same && i < n; i++)
        same = qgc_same_text(x[i], y[i]);
    return same;
}

/* What is read of a weights file, and what it means. */
static const char *reading_objection(const qgc_param *now, const qgc_param *was, qgc_arena *a) {
    if (!are_same_texts(now->gguf, now->n_gguf, was->gguf, was->n_gguf) ||
        !are_same_texts(now->hf, now->n_hf, was->hf, was->n_hf))
        return qgc_arena_printf(a, "parameter \"%s\" is not read from the same keys", now->name);
    if (!are_same_texts(now->words, now->n_words, was->words, was->n_words) || now->fixed != was->fixed ||
        !now->otherwise != !was->otherwise ||
        first_other(now->otherwise, was->otherwise, was->count) < was->count)
        return qgc_arena_printf(a, "what a weights file says of parameter \"%s\" means something else",
                                now->name);
    return NULL;
}

static const char *param_objection(const qgc_param *now, const qgc_param *was, qgc_arena *a) {
    if (!qgc_same_text(now->name, was->name) || now->count != was->count)
        return qgc_arena_printf(a, "parameter \"%s\" is gone", was->name);
    if (!is_same_number(now->value, was->value))
        return qgc_arena_printf(a, "parameter \"%s\" is %g and was %g", now->name, now->value, was->value);
    const int other = first_other(now->values, was->values, was->count);
    if (other < was->count)
        return qgc_arena_printf(a, "parameter \"%s\" is %g in layer %d and was %g", now->name,
                                now->values[other], other, was->values[other]);
    return reading_objection(now, was, a);
}

static const char *params_objection(const qgc_graph *was, const qgc_graph *g, qgc_arena *a) {
    const char *why = g->n_params < was->n_params
                          ? qgc_arena_printf(a, "parameter \"%s\" is gone", was->params[g->n_params].name)
                          : NULL;
    for (size_t i = 0; i < was->n_params && !why; i++)
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
    if (g->n_weights < was->n_weights)
        return qgc_arena_printf(a, "weight \"%s\" is gone", was->weights[g->n_weights].name);
    for (size_t i = 0; i < was->n_weights; i++) {
        const qgc_weight_decl *x = &g->weights[i], *y = &was->weights[i];
        if (!qgc_same_text(x->index, y->index) || x->repeat != y->repeat || x->count != y->count)
            return qgc_arena_printf(a, "weight \"%s\" is there for other layers", x->name);
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

/* --- turns, inputs --------------------------------------------------------------------------------------- */

static const char *turns_objection(const qgc_graph *was, const qgc_graph *g, qgc_arena *a) {
    bool same = g->n_repeats == was->n_repeats;
    for (size_t i = 0; i < was->n_repeats && same; i++)
        same = g->repeats[i].count == was->repeats[i].count &&
               qgc_same_text(g->repeats[i].index, was->repeats[i].index);
    if (!same)
        return "the layers of the graph are not counted as they were";
    for (size_t i = 0; i < was->n_states && i < g->n_states; i++) {
        const qgc_state_decl *x = &g->states[i], *y = &was->states[i];
        if (!qgc_same_text(x->index, y->index) || x->repeat != y->repeat || x->count != y->count)
            return qgc_arena_printf(a, "state \"%s\" is there for other layers", x->name);
    }
    return NULL;
}

static const char *inputs_objection(const qgc_graph *was, const qgc_graph *g, qgc_arena *a) {
    for (size_t i = 0; i < was->n_inputs; i++)
        if (!qgc_graph_input(g, was->inputs[i]->name))
            return qgc_arena_printf(a, "input \"%s\" is gone", was->inputs[i]->name);
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
    if (!why)
        why = turns_objection(was, g, a);
    if (!why)
        why = inputs_objection(was, g, a);
    return why ? why : files_objection(was, g, a);
}
