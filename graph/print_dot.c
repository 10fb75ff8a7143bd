#include <string.h>

#include "graph/print.h"

/* Weights stand in the boxes of the nodes that read them: as nodes of their own they would hide the rest. */

static void add_escaped(qgc_str *out, const char *text) {
    for (const char *c = text; *c; c++) {
        if (*c == '"' || *c == '\\')
            qgc_str_add(out, "\\");
        qgc_str_add_bytes(out, c, 1);
    }
}

static void add_value(qgc_str *out, const qgc_value *v) {
    add_escaped(out, qgc_value_label(v, out->arena));
    qgc_str_printf(out, " %s", qgc_shape_text(&v->shape, out->arena));
}

static void add_box(qgc_str *out, const qgc_node *n) {
    qgc_str_printf(out, "  n%d [label=\"%s", n->id, qgc_ops[n->op].name);
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i]->kind == QGC_WEIGHT) {
            qgc_str_add(out, "\\n");
            add_value(out, n->in[i]);
            qgc_str_printf(out, " %s", qgc_dtypes[n->in[i]->dtype].name);
        }
    qgc_str_add(out, "\"];\n");
}

/* One name makes one cluster, however often it is opened. A group's is in that of the layer the group is of, with all
 * its nodes. */
static void add_boxes(const qgc_graph *g, qgc_str *out) {
    for (const qgc_node *n = g->first; n; n = n->next) {
        const qgc_group *group = n->group >= 0 ? &g->groups[n->group] : NULL;
        const int repeat = group ? group->repeat : n->repeat, layer = group ? group->layer : n->layer;
        if (repeat >= 0)
            qgc_str_printf(out, "  subgraph cluster_%d_%d { label=\"%s = %d\";\n  ", repeat, layer,
                           g->repeats[repeat].index, layer);
        if (group) {
            qgc_str_printf(out, "  subgraph cluster_g%d { style=filled; color=lightblue; label=\"", n->group);
            add_escaped(out, group->name);
            qgc_str_add(out, "\";\n  ");
        }
        add_box(out, n);
        qgc_str_add(out, group ? "  }\n" : "");
        qgc_str_add(out, repeat >= 0 ? "  }\n" : "");
    }
}

static void add_ends(const qgc_graph *g, qgc_str *out) {
    for (size_t i = 0; i < g->n_values; i++) {
        const qgc_value *v = g->values[i];
        if (v->kind != QGC_INPUT && v->kind != QGC_STATE)
            continue;
        qgc_str_printf(out, "  v%d [shape=%s, label=\"", v->id,
                       v->kind == QGC_INPUT ? "ellipse" : "cylinder");
        add_value(out, v);
        qgc_str_add(out, "\"];\n");
    }
    for (size_t i = 0; i < g->n_outputs; i++) {
        qgc_str_printf(out, "  out%zu [shape=ellipse, label=\"", i);
        add_escaped(out, g->outputs[i]->name);
        qgc_str_add(out, "\"];\n");
    }
}

static void add_edge(qgc_str *out, const qgc_value *v, const char *to) {
    if (v->kind == QGC_RESULT)
        qgc_str_printf(out, "  n%d -> %s [label=\"", v->maker->id, to);
    else
        qgc_str_printf(out, "  v%d -> %s [label=\"", v->id, to);
    add_value(out, v);
    qgc_str_add(out, "\"];\n");
}

static void add_edges(const qgc_graph *g, qgc_str *out) {
    for (const qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; i < n->n_in; i++)
            if (n->in[i]->kind != QGC_WEIGHT)
                add_edge(out, n->in[i], qgc_arena_printf(out->arena, "n%d", n->id));
    for (size_t i = 0; i < g->n_outputs; i++)
        add_edge(out, g->outputs[i], qgc_arena_printf(out->arena, "out%zu", i));
}

void qgc_graph_print_dot(const qgc_graph *g, qgc_str *out) {
    qgc_str_add(out, "digraph \"");
    add_escaped(out, g->name);
    qgc_str_add(out, "\" {\n  node [shape=box];\n");
    add_boxes(g, out);
    add_ends(g, out);
    add_edges(g, out);
    qgc_str_add(out, "}\n");
}
