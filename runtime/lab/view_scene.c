#include "runtime/lab/view_impl.h"

/* --- which nodes ------------------------------------------------------------------------------------------ */

typedef struct {
    const qgc_view *v;
    const view_part *part;
    const qgc_graph *g;
    view_scene *s;
    qgc_arena *scratch;
    int *box_of;   /* by the id of a node; -1: not drawn */
    int *group_of; /* by the group of the graph; -1 */
    bool *wanted;  /* groups that have a node in the layer */
    qgc_map edges, ends;
} builder;

static int add_box(builder *b, view_box box) {
    view_scene *s = b->s;
    s->boxes = qgc_arena_grow(b->v->arena, s->boxes, s->n_boxes, sizeof *s->boxes);
    s->boxes[s->n_boxes] = box;
    return (int)s->n_boxes++;
}

static int add_group(builder *b, int id) {
    view_scene *s = b->s;
    const qgc_group *group = &b->g->groups[id];
    if (b->group_of[id] >= 0)
        return b->group_of[id];
    s->groups = qgc_arena_grow(b->v->arena, s->groups, s->n_groups, sizeof *s->groups);
    s->groups[s->n_groups] = (view_group){
        id, group->name,
        group->layer < 0 ? group->name : qgc_arena_printf(b->v->arena, "%s[%d]", group->name, group->layer)};
    return b->group_of[id] = (int)s->n_groups++;
}

static bool is_inside(const builder *b, const qgc_node *n) {
    if (b->part->repeat < 0)
        return n->repeat < 0;
    return (n->repeat == b->part->repeat && n->layer == b->part->layer) ||
           (n->group >= 0 && b->wanted[n->group]);
}

static void mark_groups(builder *b) {
    for (const qgc_node *n = b->g->first; n; n = n->next)
        if (n->group >= 0 && b->part->repeat >= 0 && n->repeat == b->part->repeat &&
            n->layer == b->part->layer)
            b->wanted[n->group] = true;
}

/* What a repeat comes down to: its nodes, and the kernels that begin in it. */
static const char *count_fold(const builder *b, int repeat) {
    int nodes = 0, kernels = 0;
    for (const qgc_node *n = b->g->first; n; n = n->next) {
        if (n->repeat != repeat)
            continue;
        nodes++;
        kernels += n->group < 0 || !n->prev || n->prev->group != n->group;
    }
    return qgc_arena_printf(b->v->arena, "%d node%s, %d kernel%s", nodes, nodes == 1 ? "" : "s", kernels,
                            kernels == 1 ? "" : "s");
}

static int add_fold(builder *b, int repeat) {
    const int last = b->g->repeats[repeat].count - 1;
    return add_box(b, (view_box){.kind = VIEW_FOLD,
                                 .was = {.repeat = repeat},
                                 .text = qgc_arena_printf(b->v->arena, "layers 0 to %d", last),
                                 .more = count_fold(b, repeat),
                                 .group = -1});
}

static void add_nodes(builder *b) {
    int *folds = qgc_arena_array(b->scratch, b->g->n_repeats, sizeof *folds);
    for (const qgc_node *n = b->g->first; n; n = n->next) {
        if (is_inside(b, n)) {
            b->box_of[n->id] = add_box(b, (view_box){.kind = VIEW_NODE,
                                                     .node = n,
                                                     .was = *n,
                                                     .group = n->group >= 0 ? add_group(b, n->group) : -1});
            b->s->box_of[n->id] = b->box_of[n->id];
        } else if (b->part->repeat < 0) {
            if (folds[n->repeat] == 0)
                folds[n->repeat] = add_fold(b, n->repeat) + 1;
            b->box_of[n->id] = folds[n->repeat] - 1;
        }
    }
}

/* --- edges ------------------------------------------------------------------------------------------------ */

/* True once for each key. */
static bool is_first(qgc_map *seen, const char *key) {
    return qgc_map_put(seen, key, seen);
}

static void add_edge(builder *b, int from, int to, const qgc_value *value) {
    view_scene *s = b->s;
    if (from == to || !is_first(&b->edges, qgc_arena_printf(b->scratch, "%d %d %d", from, to, value->id)))
        return;
    s->edges = qgc_arena_grow(b->v->arena, s->edges, s->n_edges, sizeof *s->edges);
    s->edges[s->n_edges++] = (view_edge){from, to, value};
}

static int box_of_value(builder *b, const qgc_value *value) {
    int *known = qgc_map_get(&b->ends, qgc_arena_printf(b->scratch, "%d", value->id));
    if (b->box_of[value->maker->id] >= 0)
        return b->box_of[value->maker->id];
    if (known)
        return *known;
    known = qgc_arena_alloc(b->scratch, sizeof *known);
    *known = add_box(b, (view_box){.kind = VIEW_IN, .value = value, .group = -1});
    qgc_map_put(&b->ends, qgc_arena_printf(b->scratch, "%d", value->id), known);
    return *known;
}

/* Where a value goes: "to layer 4, x_rows". */
static void add_exit(builder *b, const qgc_value *value, const char *to) {
    const char *key = qgc_arena_printf(b->scratch, "out %d", value->id);
    int *known = qgc_map_get(&b->ends, key);
    if (known) {
        const char **text = &b->s->boxes[*known].text;
        if (is_first(&b->edges, qgc_arena_printf(b->scratch, "%d to %s", value->id, to)))
            *text = qgc_arena_printf(b->v->arena, "%s, %s", *text, to);
        return;
    }
    is_first(&b->edges, qgc_arena_printf(b->scratch, "%d to %s", value->id, to));
    known = qgc_arena_alloc(b->scratch, sizeof *known);
    *known = add_box(b, (view_box){.kind = VIEW_OUT,
                                   .value = value,
                                   .text = qgc_arena_printf(b->v->arena, "to %s", to),
                                   .group = -1});
    qgc_map_put(&b->ends, key, known);
    add_edge(b, b->box_of[value->maker->id], *known, value);
}

static const char *name_reader(const builder *b, const qgc_node *n) {
    if (n->repeat >= 0 && n->repeat == b->part->repeat)
        return qgc_arena_printf(b->scratch, "layer %d", n->layer);
    return qgc_value_label(n->out[0], b->scratch);
}

static void add_edges(builder *b) {
    for (const qgc_node *n = b->g->first; n; n = n->next)
        for (int i = 0; i < n->n_in; i++) {
            const qgc_value *value = n->in[i];
            if (value->kind != QGC_RESULT)
                continue;
            if (b->box_of[n->id] >= 0)
                add_edge(b, box_of_value(b, value), b->box_of[n->id], value);
            else if (b->box_of[value->maker->id] >= 0)
                add_exit(b, value, name_reader(b, n));
        }
    for (size_t i = 0; i < b->g->n_outputs; i++) {
        const qgc_value *value = b->g->outputs[i];
        if (value->kind == QGC_RESULT && b->box_of[value->maker->id] >= 0)
            add_exit(b, value, "the output");
    }
}

view_scene view_scene_of(const qgc_view *v, const view_part *part, const qgc_graph *g) {
    view_scene s = {.box_of = qgc_arena_array(v->arena, (size_t)g->next_node_id, sizeof(int)),
                    .n_ids = g->next_node_id};
    qgc_arena *scratch = qgc_arena_new();
    builder b = {.v = v,
                 .part = part,
                 .g = g,
                 .s = &s,
                 .scratch = scratch,
                 .box_of = qgc_arena_array(scratch, (size_t)g->next_node_id, sizeof(int)),
                 .group_of = qgc_arena_array(scratch, g->n_groups, sizeof(int)),
                 .wanted = qgc_arena_array(scratch, g->n_groups, sizeof(bool)),
                 .edges = qgc_map_new(scratch),
                 .ends = qgc_map_new(scratch)};
    for (int i = 0; i < g->next_node_id; i++)
        b.box_of[i] = s.box_of[i] = -1;
    for (size_t i = 0; i < g->n_groups; i++)
        b.group_of[i] = -1;
    mark_groups(&b);
    add_nodes(&b);
    add_edges(&b);
    qgc_arena_drop(scratch);
    return s;
}

/* --- looking things up ------------------------------------------------------------------------------------ */

const char *view_label(const view_box *b, qgc_arena *a) {
    return qgc_value_label(b->was.out[0], a);
}

const view_box *view_find(const view_scene *s, const qgc_node *node) {
    return node->id < s->n_ids && s->box_of[node->id] >= 0 ? &s->boxes[s->box_of[node->id]] : NULL;
}
