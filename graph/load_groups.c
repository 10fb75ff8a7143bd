#include "graph/load_impl.h"

/* The nodes of all groups, in the order of the list: those of group i stand from start[i] to start[i + 1]. */
typedef struct {
    qgc_node **nodes;
    size_t *start;
} members;

static members find_members(const qgc_graph *g, qgc_arena *a) {
    members m = {.nodes = qgc_arena_array(a, g->n_nodes, sizeof(qgc_node *)),
                 .start = qgc_arena_array(a, g->n_groups + 2, sizeof(size_t))};
    for (const qgc_node *n = g->first; n; n = n->next)
        if (n->group >= 0)
            m.start[n->group + 2]++;
    for (size_t i = 0; i < g->n_groups; i++)
        m.start[i + 2] += m.start[i + 1];
    for (qgc_node *n = g->first; n; n = n->next)
        if (n->group >= 0)
            m.nodes[m.start[n->group + 1]++] = n;
    return m;
}

static const char *label(const qgc_loader *ld, const qgc_group *group) {
    return group->layer < 0 ? group->name : qgc_arena_printf(ld->arena, "%s[%d]", group->name, group->layer);
}

/* The nodes of a group come to stand together. Whether one kernel can compute them is not a question for the graph. */
static qgc_status gather(qgc_loader *ld, const qgc_group *group, qgc_node *const *nodes, int n) {
    const qgc_node *between;
    if (qgc_nodes_gather(ld->g, nodes, n, &between))
        return QGC_OK;
    qgc_status s = qgc_fail(ld->d, QGC_ERR_INPUT, group->at,
                            "no kernel computes group \"%s\": \"%s\" has to be computed between its nodes",
                            label(ld, group), qgc_value_label(between->out[0], ld->arena));
    qgc_note(ld->d, between->at, "\"%s\" is made here", qgc_value_label(between->out[0], ld->arena));
    return s;
}

qgc_status qgc_load_groups(qgc_loader *ld) {
    const qgc_graph *g = ld->g;
    qgc_arena *scratch = qgc_arena_new();
    members m = find_members(g, scratch);
    qgc_status status = QGC_OK;
    for (size_t i = 0; i < g->n_groups && status == QGC_OK; i++)
        status = gather(ld, &g->groups[i], &m.nodes[m.start[i]], (int)(m.start[i + 1] - m.start[i]));
    qgc_arena_drop(scratch);
    return status;
}
