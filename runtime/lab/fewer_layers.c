#include "runtime/lab/fewer_layers.h"

#include <string.h>

#include "graph/base/str.h"

static bool is_in(const qgc_node *n, int repeat, int layer) {
    return n->repeat == repeat && n->layer == layer;
}

/* What a layer computes, but for the numbers of its weights. */
static const char *kind_of(const qgc_graph *g, const qgc_tensor *const *tensors, int repeat, int layer,
                           qgc_arena *a) {
    qgc_str kind = qgc_str_new(a);
    for (const qgc_node *n = g->first; n; n = n->next) {
        if (!is_in(n, repeat, layer))
            continue;
        qgc_str_printf(&kind, "%s ", n->out[0]->name);
        for (int i = 0; qgc_ops[n->op].attrs[i].name; i++)
            qgc_str_printf(&kind, "%.17g/%d ", n->attr[i].number, n->attr[i].choice);
        for (int i = 0; i < n->n_in; i++)
            if (n->in[i])
                qgc_str_printf(&kind, "%s/%d ", n->in[i]->name,
                               tensors[n->in[i]->id] ? (int)tensors[n->in[i]->id]->dtype : -1);
        qgc_str_printf(&kind, "%s\n", qgc_ops[n->op].name);
    }
    return kind.text;
}

static qgc_status check_kinds(const qgc_graph *g, const qgc_tensor *const *tensors, int repeat, int n,
                              qgc_diag *d) {
    const qgc_repeat *r = &g->repeats[repeat];
    qgc_arena *a = qgc_arena_new();
    qgc_map kinds = qgc_map_new(a);
    qgc_status status = QGC_OK;
    for (int layer = 0; layer < r->count && status == QGC_OK; layer++) {
        const char *kind = kind_of(g, tensors, repeat, layer, a);
        if (!qgc_map_put(&kinds, kind, a) || layer < n)
            continue;
        status = qgc_fail(d, QGC_ERR_USAGE, r->at, "layer %d is of another kind than the first %d", layer, n);
        qgc_hint(d, "Search with --layers %d or more, or on all layers.", layer + 1);
    }
    qgc_arena_drop(a);
    return status;
}

/* The last value of that name that a layer makes. */
static qgc_value *value_in(const qgc_graph *g, const char *name, int repeat, int layer) {
    for (const qgc_node *n = g->last; n; n = n->prev)
        for (int i = 0; i < n->n_out && is_in(n, repeat, layer); i++)
            if (strcmp(n->out[i]->name, name) == 0)
                return n->out[i];
    return NULL;
}

static bool is_gone(const qgc_value *v, int repeat, int n) {
    return v && v->maker && v->maker->repeat == repeat && v->maker->layer >= n;
}

/* What a reader outside of the layers that go reads in place of a result of theirs. */
static qgc_status read_last(const qgc_graph *g, int repeat, int n, qgc_value **in, qgc_diag *d) {
    const qgc_value *old = *in;
    qgc_value *now =
        old->maker->layer == g->repeats[repeat].count - 1 ? value_in(g, old->name, repeat, n - 1) : NULL;
    if (!now)
        return qgc_fail(d, QGC_ERR_USAGE, old->at,
                        "\"%s\" is read outside of its layer, so no layers can be left out",
                        qgc_value_label(old, d->arena));
    *in = now;
    return QGC_OK;
}

static qgc_status keep_first(qgc_graph *g, int repeat, int n, qgc_diag *d) {
    for (qgc_node *node = g->first; node; node = node->next)
        for (int i = 0; i < node->n_in && !(node->repeat == repeat && node->layer >= n); i++)
            if (is_gone(node->in[i], repeat, n))
                QGC_TRY(read_last(g, repeat, n, &node->in[i], d));
    for (size_t i = 0; i < g->n_outputs; i++)
        if (is_gone(g->outputs[i], repeat, n))
            QGC_TRY(read_last(g, repeat, n, &g->outputs[i], d));
    for (qgc_node *node = g->last, *prev; node; node = prev) {
        prev = node->prev;
        if (node->repeat == repeat && node->layer >= n)
            qgc_graph_remove(g, node);
    }
    return QGC_OK;
}

qgc_status qgc_lab_keep_layers(qgc_graph *g, const qgc_tensor *const *tensors, int n, int *left, int *of,
                               qgc_diag *d) {
    *left = *of = 0;
    for (int r = 0; r < (int)g->n_repeats; r++) {
        const int count = g->repeats[r].count;
        *of += count;
        *left += count < n ? count : n;
        if (count <= n)
            continue;
        QGC_TRY(check_kinds(g, tensors, r, n, d));
        QGC_TRY(keep_first(g, r, n, d));
    }
    return qgc_verify(g, d);
}
