#include "runtime/lab/view.h"

#include <string.h>

#include "runtime/lab/view_impl.h"

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
        add_part(v, (view_part){.key = one ? "layer" : qgc_arena_printf(v->arena, "layer-%s", r->index),
                                .title = qgc_arena_printf(
                                    v->arena, one ? "layer %d (of 0 to %d)" : "layer %d (of 0 to %d), %s",
                                    layer, r->count - 1, r->index),
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
    *v = (qgc_view){.arena = g->arena,
                    .g = g,
                    .path = qgc_arena_strdup(g->arena, path),
                    .times = qgc_map_new(g->arena),
                    .costs = qgc_map_new(g->arena)};
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

size_t view_before(const qgc_view *v, size_t stage) {
    size_t before = stage - 1;
    while (before > 0 && !v->stages[stage].change && v->stages[before].change)
        before--;
    return before;
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

static void add_stage(qgc_view *v, view_stage stage, const qgc_graph *g) {
    stage.n_nodes = (int)g->n_nodes;
    stage.n_kernels = count_kernels(g);
    stage.scenes = qgc_arena_array(v->arena, v->n_parts, sizeof(view_scene));
    for (size_t i = 0; i < v->n_parts; i++)
        stage.scenes[i] = view_scene_of(v, &v->parts[i], g);
    v->stages = qgc_arena_grow(v->arena, v->stages, v->n_stages, sizeof *v->stages);
    v->stages[v->n_stages++] = stage;
}

/* --- changes ---------------------------------------------------------------------------------------------- */

enum { MOST_CHANGES = 150 };

/* Is the node, called "ff[3]", of a layer that is drawn, or of none? */
static bool is_drawn(const qgc_view *v, const char *node) {
    const char *turn = strchr(node, '[');
    for (size_t i = 0; i < v->n_parts; i++)
        if (!turn || strcmp(turn, qgc_arena_printf(v->arena, "[%d]", v->parts[i].layer)) == 0)
            return true;
    return false;
}

static int count_changes(const qgc_view *v) {
    int n = 0;
    for (size_t i = 0; i < v->n_stages; i++)
        n += v->stages[i].change != NULL;
    return n;
}

static void add_change(qgc_view *v, const qgc_pass_step *step, const qgc_graph *g) {
    view_change *change = qgc_arena_alloc(v->arena, sizeof *change);
    const size_t bytes = strcspn(step->run->name, "(?");
    const char *of = free_key(v, qgc_arena_strndup(v->arena, step->run->name, bytes));
    *change = (view_change){.of = of,
                            .rule = qgc_arena_strdup(v->arena, step->rule),
                            .node = qgc_arena_strdup(v->arena, step->node),
                            .at = step->at,
                            .number = step->run->n_fired};
    add_stage(
        v, (view_stage){.key = qgc_arena_printf(v->arena, "%s.%d", of, change->number), .change = change}, g);
}

static void before_step(void *view, const char *pass, const char *rule, const qgc_node *at,
                        const qgc_graph *g) {
    const qgc_pass_watch *other = ((const qgc_view *)view)->other;
    if (other && other->before)
        other->before(other->context, pass, rule, at, g);
}

static qgc_status after_step(void *view, const qgc_pass_step *step, qgc_graph *g, qgc_diag *d) {
    qgc_view *v = view;
    if (v->other && v->other->after)
        QGC_TRY(v->other->after(v->other->context, step, g, d));
    if (step->rule && step->fired && is_drawn(v, step->node) && count_changes(v) < MOST_CHANGES)
        add_change(v, step, g);
    return QGC_OK;
}

static void go_on(void *view, const char *pass, const qgc_graph *g) {
    const qgc_pass_watch *other = ((const qgc_view *)view)->other;
    if (other && other->go_on)
        other->go_on(other->context, pass, g);
}

qgc_pass_watch qgc_view_watch(qgc_view *v, const qgc_pass_watch *other) {
    v->other = other;
    return (qgc_pass_watch){.before = before_step, .after = after_step, .go_on = go_on, .context = v};
}

void qgc_view_say(qgc_view *v, const char *text, const char *pass, const char *node) {
    v->said = qgc_arena_strdup(v->arena, text);
    v->first_stage = pass ? qgc_arena_strndup(v->arena, pass, strcspn(pass, "(?")) : NULL;
    v->first_node = node ? qgc_arena_strdup(v->arena, node) : NULL;
}

/* --- passes ----------------------------------------------------------------------------------------------- */

qgc_status qgc_view_after(void *view, const qgc_pass_info *pass, const qgc_pass_run *run, const qgc_graph *g,
                          qgc_diag *d) {
    qgc_view *v = view;
    (void)d;
    add_stage(v, (view_stage){.key = free_key(v, pass ? pass->name : "loaded"), .pass = pass, .run = run}, g);
    return QGC_OK;
}
