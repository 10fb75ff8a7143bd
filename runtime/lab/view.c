#include "runtime/lab/view.h"

#include <string.h>

#include "runtime/lab/view_parts.h"

static qgc_status check_layer(const qgc_graph *g, int64_t layer, qgc_diag *d) {
    int most = 0;
    for (size_t i = 0; i < g->n_repeats; i++)
        most = g->repeats[i].count > most ? g->repeats[i].count : most;
    if (layer < most)
        return QGC_OK;
    if (most == 0)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "the graph has no layers, and so no layer %lld",
                        (long long)layer);
    return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "the graph has no layer %lld: its layers are 0 to %d",
                    (long long)layer, most - 1);
}

static void add_part(qgc_view *v, view_part part) {
    v->parts = qgc_arena_grow(v->arena, v->parts, v->n_parts, sizeof *v->parts);
    v->parts[v->n_parts++] = part;
}

static void add_layer(qgc_view *v, int repeat, int64_t wanted) {
    const qgc_repeat *r = &v->g->repeats[repeat];
    const int layer = wanted >= 0 ? (int)wanted : r->count > 2 ? 1 : 0;
    const bool one = v->g->n_repeats == 1;
    if (layer < r->count)
        add_part(
            v, (view_part){.key = one ? "layer" : qgc_arena_printf(v->arena, "layer-%s", r->index),
                           .title = qgc_arena_printf(v->arena, one ? "layer %d of %d" : "layer %d of %d, %s",
                                                     layer, r->count, r->index),
                           .repeat = repeat,
                           .layer = layer});
}

static bool has_nodes_outside(const qgc_graph *g) {
    for (const qgc_node *n = g->first; n; n = n->next)
        if (n->repeat < 0)
            return true;
    return false;
}

qgc_status qgc_view_new(qgc_view **out, const qgc_graph *g, const char *path, int64_t layer, qgc_diag *d) {
    if (layer >= 0)
        QGC_TRY(check_layer(g, layer, d));
    qgc_view *v = qgc_arena_alloc(g->arena, sizeof *v);
    *v = (qgc_view){
        .arena = g->arena, .g = g, .path = qgc_arena_strdup(g->arena, path), .times = qgc_map_new(g->arena)};
    for (size_t i = 0; i < g->n_repeats; i++)
        add_layer(v, (int)i, layer);
    if (v->n_parts == 0 || has_nodes_outside(g))
        add_part(v, (view_part){.key = "around",
                                .title = v->n_parts ? "before and after the layers" : "the graph",
                                .repeat = -1,
                                .layer = -1});
    *out = v;
    return QGC_OK;
}

/* Nodes by themselves, and groups. */
static int count_kernels(const qgc_graph *g) {
    int n = 0;
    for (const qgc_node *node = g->first; node; node = node->next)
        n += node->group < 0 || !node->prev || node->prev->group != node->group;
    return n;
}

/* A pass may come twice. */
static const char *free_key(const qgc_view *v, const char *name) {
    const char *key = name;
    for (int i = 2;; i++) {
        size_t k = 0;
        while (k < v->n_stages && strcmp(v->stages[k].key, key) != 0)
            k++;
        if (k == v->n_stages)
            return key;
        key = qgc_arena_printf(v->arena, "%s-%d", name, i);
    }
}

qgc_status qgc_view_after(void *view, const qgc_pass_info *pass, const qgc_pass_run *run, const qgc_graph *g,
                          qgc_diag *d) {
    qgc_view *v = view;
    (void)d;
    view_stage stage = {.key = free_key(v, pass ? pass->name : "loaded"),
                        .pass = pass,
                        .run = run,
                        .n_nodes = (int)g->n_nodes,
                        .n_kernels = count_kernels(g),
                        .scenes = qgc_arena_array(v->arena, v->n_parts, sizeof(view_scene))};
    for (size_t i = 0; i < v->n_parts; i++)
        stage.scenes[i] = view_scene_of(v, &v->parts[i], g);
    v->stages = qgc_arena_grow(v->arena, v->stages, v->n_stages, sizeof *v->stages);
    v->stages[v->n_stages++] = stage;
    return QGC_OK;
}
