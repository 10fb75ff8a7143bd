#include <string.h>

#include "graph/graph.h"

/* Weights that are derived of others. Sources are declared before what is made of them, so nothing here goes in
 * circles. */

static const qgc_derivation *how_of(const qgc_graph *g, const qgc_value *weight) {
    return &g->weights[weight->decl].derived;
}

bool qgc_weight_is_derived(const qgc_graph *g, const qgc_value *weight) {
    return weight->kind == QGC_WEIGHT && how_of(g, weight)->kind != QGC_DERIVE_NONE;
}

qgc_value *qgc_weight_source(const qgc_graph *g, const qgc_value *weight, int i) {
    const int decl = how_of(g, weight)->from[i];
    if (decl < 0 || decl >= weight->decl)
        return NULL;
    const qgc_weight_decl *from = &g->weights[decl];
    if (!from->index)
        return from->values[0];
    for (int k = 0; k < from->count; k++)
        if (from->repeat == weight->repeat && from->values[k]->layer == weight->layer)
            return from->values[k];
    return NULL;
}

static const char *name_of(const qgc_graph *g, int decl) {
    return decl >= 0 && (size_t)decl < g->n_weights ? g->weights[decl].name : "?";
}

const char *qgc_weight_misfit(const qgc_graph *g, const qgc_value *weight, qgc_tensor *out, qgc_arena *a) {
    const qgc_derivation *how = how_of(g, weight);
    qgc_tensor shapes[QGC_MAX_SOURCES];
    const qgc_tensor *from[QGC_MAX_SOURCES];
    if (how->n_from < 0 || how->n_from > QGC_MAX_SOURCES)
        return qgc_arena_printf(a, "it is made of %d weights", how->n_from);
    for (int i = 0; i < how->n_from; i++) {
        const qgc_value *v = qgc_weight_source(g, weight, i);
        if (!v)
            return qgc_arena_printf(a, "there is no \"%s\" that it could be made of",
                                    name_of(g, how->from[i]));
        shapes[i] = (qgc_tensor){.dtype = v->dtype, .rank = v->shape.rank};
        memcpy(shapes[i].shape, v->shape.dim, sizeof shapes[i].shape);
        from[i] = &shapes[i];
    }
    return qgc_derive_shape(how, from, out, a);
}

/* Vectors are stored as float32. */
static qgc_dtype storage_of(const qgc_value *weight) {
    return weight->shape.rank < 2 ? QGC_F32 : weight->dtype;
}

const qgc_tensor *qgc_weight_tensor(const qgc_graph *g, const qgc_value *weight, // NOLINT(misc-no-recursion)
                                    const qgc_tensor *const *tensors, qgc_pool *pool, qgc_arena *a) {
    const qgc_derivation *how = how_of(g, weight);
    if (how->kind == QGC_DERIVE_NONE)
        return tensors[weight->id];
    const qgc_tensor *from[QGC_MAX_SOURCES];
    for (int i = 0; i < how->n_from; i++) {
        from[i] = qgc_weight_tensor(g, qgc_weight_source(g, weight, i), tensors, pool, a);
        if (!from[i])
            return NULL;
    }
    qgc_tensor *t = qgc_arena_alloc(a, sizeof *t);
    t->name = qgc_value_label(weight, a);
    if (qgc_derive_shape(how, from, t, a))
        return NULL;
    if (!qgc_dtype_is_quantised(t->dtype) && !qgc_dtype_is_quantised(storage_of(weight)))
        t->dtype = storage_of(weight);
    t->bytes = qgc_dtype_bytes(t->dtype, qgc_tensor_rows(t) * qgc_tensor_row_elems(t));
    t->data = qgc_arena_alloc(a, t->bytes);
    qgc_derive_stored(how, from, t, pool); /* what is too large is found where it is read */
    return t;
}

const double *qgc_weight_reals(const qgc_graph *g, const qgc_value *weight, // NOLINT(misc-no-recursion)
                               const qgc_tensor *const *tensors, qgc_pool *pool, qgc_arena *a) {
    const qgc_derivation *how = how_of(g, weight);
    qgc_derive_source sources[QGC_MAX_SOURCES] = {{0}};
    const qgc_tensor *shapes[QGC_MAX_SOURCES];
    for (int i = 0; i < how->n_from; i++) {
        const qgc_value *v = qgc_weight_source(g, weight, i);
        qgc_tensor *t = qgc_arena_alloc(a, sizeof *t);
        t->rank = v->shape.rank;
        memcpy(t->shape, v->shape.dim, sizeof t->shape);
        if (qgc_weight_is_derived(g, v))
            sources[i].reals = qgc_weight_reals(g, v, tensors, pool, a);
        if (!sources[i].reals && !tensors[v->id])
            return NULL;
        shapes[i] = sources[i].tensor = sources[i].reals ? t : tensors[v->id];
    }
    qgc_tensor shape = {.name = NULL};
    if (qgc_derive_shape(how, shapes, &shape, a))
        return NULL;
    double *out =
        qgc_arena_array(a, (size_t)(qgc_tensor_rows(&shape) * qgc_tensor_row_elems(&shape)), sizeof *out);
    qgc_derive_double(how, sources, &shape, out, pool);
    return out;
}
