#include "runtime/lab/cut.h"

#include <string.h>

#include "codegen/stage/stage.h"

const char *qgc_cut_name(qgc_cut cut) {
    static const char *const names[QGC_N_CUTS] = {"prologue", "epilogue", "rows", "part"};
    return names[cut];
}

/* A group of the graph while it is cut: nodes that are taken out have -1, or a new group. */
typedef struct {
    qgc_graph *g;
    qgc_stage stage;
    const char *name;
    int repeat, layer;
    qgc_loc at;
} cutting;

/* Nodes of the graph are the caller's to change; a stage only looks at them. */
static qgc_node *own(const qgc_node *n) {
    return (qgc_node *)(uintptr_t)n;
}

/* Nodes get a group of their own, called after the old one; a single one gets none. */
static void put_apart(const cutting *c, const qgc_node *const *nodes, int n, const char *suffix) {
    int group = -1;
    if (n > 1)
        group = qgc_graph_group(c->g, qgc_arena_printf(c->g->arena, "%s_%s", c->name, suffix), c->repeat,
                                c->layer, c->at);
    for (int i = 0; i < n; i++)
        own(nodes[i])->group = group;
}

static bool cut_prologue(const cutting *c) {
    const qgc_node *const all[] = {c->stage.embedding, c->stage.norm, c->stage.merge};
    bool any = false;
    for (int i = 0; i < 3; i++)
        if (all[i]) {
            own(all[i])->group = -1;
            any = true;
        }
    return any;
}

/* What follows the product of a row. */
static int after_product(const qgc_stage_row *r, const qgc_node **out) {
    int n = 0;
    const qgc_node *const all[] = {r->norm, r->rope, r->append};
    for (int i = 0; i < 3; i++)
        if (all[i])
            out[n++] = all[i];
    return n;
}

static bool cut_epilogue(const cutting *c) {
    const qgc_stage *s = &c->stage;
    const qgc_node *after[3];
    int n = 0;
    if (s->n_rows == 0)
        return false;
    if (s->part)
        own(s->part)->group = -1;
    for (int i = 0; i < s->n_rows; i++) {
        const int some = after_product(&s->rows[i], after);
        for (int k = 0; k < some; k++)
            own(after[k])->group = -1;
        n += some;
    }
    put_apart(c, s->pointwise, s->n_pointwise, "then");
    return n + s->n_pointwise > 0;
}

static bool cut_rows(const cutting *c) {
    const qgc_stage *s = &c->stage;
    if (s->n_rows < 2 || s->n_pointwise)
        return false;
    cut_prologue(c);
    for (int i = 0; i < s->n_rows; i++) {
        const qgc_node *row[4] = {s->rows[i].linear};
        const int n = 1 + after_product(&s->rows[i], row + 1);
        put_apart(c, row, n, qgc_arena_printf(c->g->arena, "row%d", i));
    }
    return true;
}

static bool cut_one(const cutting *c, qgc_cut cut) {
    switch (cut) {
    case QGC_CUT_PROLOGUE:
        return cut_prologue(c);
    case QGC_CUT_EPILOGUE:
        return cut_epilogue(c);
    case QGC_CUT_ROWS:
        return cut_rows(c);
    case QGC_CUT_PART:
        if (c->stage.part)
            own(c->stage.part)->group = -1;
        return c->stage.part != NULL;
    case QGC_N_CUTS:
        break;
    }
    return false;
}

/* A group of one node needs none. */
static void free_singles(qgc_graph *g, qgc_arena *a) {
    int *members = qgc_arena_array(a, g->n_groups + 1, sizeof *members);
    for (const qgc_node *n = g->first; n; n = n->next)
        if (n->group >= 0)
            members[n->group]++;
    for (qgc_node *n = g->first; n; n = n->next)
        if (n->group >= 0 && members[n->group] == 1)
            n->group = -1;
}

/* Do the nodes of each group stand together, or can they? */
static bool gather_all(qgc_graph *g) {
    for (qgc_node *n = g->first; n; n = n->next)
        if (n->group >= 0 && (!n->prev || n->prev->group != n->group) && !qgc_group_gather(g, n->group, NULL))
            return false;
    return true;
}

static bool cut_all(qgc_graph *g, const char *name, qgc_cut cut, qgc_arena *a) {
    const int *uses = qgc_graph_uses(g, a);
    bool any = false;
    const char *why;
    for (int i = 0, n = (int)g->n_groups; i < n; i++) {
        const qgc_node *first = g->first;
        while (first && first->group != i)
            first = first->next;
        const qgc_group group = g->groups[i];
        cutting c = {.g = g, .name = name, .repeat = group.repeat, .layer = group.layer, .at = group.at};
        if (first && !group.kernel && strcmp(group.name, name) == 0 &&
            qgc_stage_at(g, first, uses, &c.stage, &why, a))
            any = cut_one(&c, cut) || any;
    }
    return any;
}

bool qgc_cut_groups(qgc_graph *g, const char *group, qgc_cut cut, qgc_arena *a) {
    int *before = qgc_arena_array(a, (size_t)g->next_node_id + 1, sizeof *before);
    qgc_diag d = qgc_diag_new(a);
    for (const qgc_node *n = g->first; n; n = n->next)
        before[n->id] = n->group;
    bool good = cut_all(g, group, cut, a);
    if (good)
        free_singles(g, a);
    if (good && gather_all(g) && qgc_stages_check(g, &d) == QGC_OK)
        return true;
    for (qgc_node *n = g->first; n; n = n->next)
        n->group = before[n->id];
    gather_all(g);
    return false;
}
