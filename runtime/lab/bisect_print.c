#include <string.h>

#include "graph/base/hash.h"
#include "graph/ops.h"
#include "runtime/lab/bisect_impl.h"

typedef struct {
    int64_t id, kind, n_in, in[QGC_MAX_INPUTS], out[QGC_MAX_OUTPUTS], choice[QGC_MAX_ATTRS];
    double number[QGC_MAX_ATTRS];
} node_print;

static uint64_t print_node(const qgc_node *n) {
    node_print p;
    memset(&p, 0, sizeof p);
    p.id = n->id;
    p.kind = n->op;
    p.n_in = n->n_in;
    for (int i = 0; i < n->n_in; i++)
        p.in[i] = n->in[i]->id;
    for (int i = 0; i < n->n_out; i++)
        p.out[i] = n->out[i]->id;
    for (int i = 0; qgc_ops[n->op].attrs[i].name; i++)
        if (qgc_ops[n->op].attrs[i].choices[0])
            p.choice[i] = n->attr[i].choice;
        else
            p.number[i] = n->attr[i].number;
    return qgc_hash64(&p, sizeof p);
}

static uint64_t print_value(const qgc_value *v) {
    node_print p;
    memset(&p, 0, sizeof p);
    p.id = v->id;
    p.kind = -1 - (int)v->kind;
    p.n_in = v->shape.rank;
    p.out[0] = v->dtype;
    for (int i = 0; i < v->shape.rank; i++)
        p.in[i] = v->shape.dim[i];
    return qgc_hash64(&p, sizeof p);
}

static uint64_t print_text(const char *text) {
    return text ? qgc_hash64(text, strlen(text)) : 0;
}

static uint64_t print_number(double x) {
    return qgc_hash64(&x, sizeof x);
}

static uint64_t print_form(const qgc_tensor_form *f) {
    const uint64_t all[] = {print_text(f->stacked_index), (uint64_t)f->stacked, (uint64_t)f->transposed,
                            (uint64_t)f->first,           (uint64_t)f->last,    (uint64_t)f->of,
                            (uint64_t)f->heads,           print_number(f->plus)};
    return qgc_hash64(all, sizeof all);
}

static uint64_t print_weight(const qgc_weight_decl *w, size_t i) {
    const uint64_t decl[] = {i,
                             print_text(w->name),
                             print_text(w->index),
                             (uint64_t)w->repeat,
                             (uint64_t)w->count,
                             print_text(w->gguf),
                             print_text(w->hf),
                             (uint64_t)w->tied,
                             print_form(&w->gguf_form),
                             print_form(&w->hf_form)};
    uint64_t sum = qgc_hash64(decl, sizeof decl);
    for (int k = 0; k < w->count; k++) {
        const int64_t value[] = {
            (int64_t)i, k, w->values[k]->id, w->values[k]->layer, w->values[k]->decl, w->values[k]->dtype};
        sum += qgc_hash64(value, sizeof value);
    }
    return sum;
}

static uint64_t print_texts(const char *const *texts, int n) {
    uint64_t sum = (uint64_t)n;
    for (int i = 0; i < n; i++)
        sum = sum * 31 + print_text(texts[i]);
    return sum;
}

static uint64_t print_numbers(const double *x, int n) {
    uint64_t sum = x != NULL;
    for (int i = 0; x && i < n; i++)
        sum = sum * 31 + print_number(x[i]);
    return sum;
}

static uint64_t print_param(const qgc_param *p, size_t i) {
    const uint64_t param[] = {i,
                              print_text(p->name),
                              print_number(p->value),
                              print_texts(p->gguf, p->n_gguf),
                              print_texts(p->hf, p->n_hf),
                              print_texts(p->words, p->n_words),
                              p->fixed,
                              print_numbers(p->values, p->count),
                              print_numbers(p->otherwise, p->count)};
    return qgc_hash64(param, sizeof param);
}

/* Repeats, and how often there is a state of each kind. */
static uint64_t print_turns(const qgc_graph *g) {
    uint64_t sum = 0;
    for (size_t i = 0; i < g->n_repeats; i++) {
        const uint64_t repeat[] = {1, i, print_text(g->repeats[i].index), (uint64_t)g->repeats[i].count};
        sum += qgc_hash64(repeat, sizeof repeat);
    }
    for (size_t i = 0; i < g->n_states; i++) {
        const qgc_state_decl *s = &g->states[i];
        const uint64_t state[] = {2, i, print_text(s->index), (uint64_t)s->repeat, (uint64_t)s->count};
        sum += qgc_hash64(state, sizeof state);
    }
    return sum;
}

/* What a program takes of a graph beside its nodes. Of weights that passes may add, the derived ones, the value says enough. */
static uint64_t print_declared(const qgc_graph *g) {
    uint64_t sum = print_turns(g);
    for (size_t i = 0; i < g->n_weights; i++)
        sum += g->weights[i].derived.kind == QGC_DERIVE_NONE ? print_weight(&g->weights[i], i) : 0;
    for (size_t i = 0; i < g->n_params; i++)
        sum += print_param(&g->params[i], i);
    const uint64_t files[] = {print_text(g->arch), print_text(g->gguf_arch), print_text(g->hf_arch)};
    sum += qgc_hash64(files, sizeof files);
    for (size_t i = 0; i < g->n_ignored; i++)
        sum += print_text(g->ignored[i]);
    return sum;
}

/* Names that the outside knows. */
static uint64_t print_ends(const qgc_graph *g) {
    uint64_t sum = 0;
    for (size_t i = 0; i < g->n_inputs; i++) {
        const uint64_t input[] = {1, (uint64_t)g->inputs[i]->id, print_text(g->inputs[i]->name)};
        sum += qgc_hash64(input, sizeof input);
    }
    for (size_t i = 0; i < g->n_outputs; i++) {
        const uint64_t output[] = {2, (uint64_t)g->outputs[i]->id, print_text(g->outputs[i]->name)};
        sum += qgc_hash64(output, sizeof output);
    }
    return sum;
}

bisect_print bisect_print_graph(const qgc_graph *g) {
    bisect_print f = {.flow = print_ends(g), .declared = print_declared(g)};
    for (const qgc_node *n = g->first; n; n = n->next) {
        const uint64_t place[] = {f.order, (uint64_t)n->id};
        f.order = qgc_hash64(place, sizeof place);
        const qgc_kernel_row *outside = qgc_node_kernel(g, n);
        const int64_t group[] = {n->id, n->group,
                                 outside ? (int64_t)qgc_hash64(outside->text, strlen(outside->text)) : 0};
        f.flow += print_node(n);
        f.groups += qgc_hash64(group, sizeof group);
    }
    for (const qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; i < n->n_out; i++)
            f.flow += print_value(n->out[i]);
    for (size_t i = 0; i < g->n_values; i++)
        if (g->values[i]->kind != QGC_RESULT)
            f.flow += print_value(g->values[i]);
    return f;
}
