#include "graph/print_impl.h"

/* A bare name means the group of the node's own iteration, or one outside of repeats. A group with nodes in several iterations is
 * of the first of them in the list, and the nodes elsewhere name the iteration too. */

static void find_places(printer *p) {
    const qgc_graph *g = p->g;
    for (size_t i = 0; i < g->n_groups; i++)
        p->fused[i] = (print_fused){.repeat = -1, .layer = -1};
    for (const qgc_node *n = g->first; n; n = n->next) {
        if (n->group < 0 || n->layer < 0 || p->fused[n->group].layer >= 0)
            continue;
        p->fused[n->group].repeat = n->repeat;
        p->fused[n->group].layer = n->layer;
    }
}

void qgc_print_groups(printer *p) {
    const qgc_graph *g = p->g;
    qgc_map taken = qgc_map_new(p->scratch);
    p->fused = qgc_arena_array(p->scratch, g->n_groups, sizeof *p->fused);
    find_places(p);
    for (const qgc_node *n = g->first; n; n = n->next) {
        print_fused *f = n->group >= 0 ? &p->fused[n->group] : NULL;
        if (!f || f->name)
            continue;
        const char *base = qgc_print_legal(p->scratch, g->groups[n->group].name);
        f->name = base;
        for (int i = 2;
             !qgc_map_put(&taken, qgc_arena_printf(p->scratch, "%d/%d/%s", f->repeat, f->layer, f->name), p);
             i++)
            f->name = qgc_arena_printf(p->scratch, "%s_%d", base, i);
    }
}

static const char *name_at(const printer *p, const qgc_node *n) {
    const print_fused *f = &p->fused[n->group];
    if (f->layer < 0 || (f->layer == n->layer && f->repeat == n->repeat))
        return f->name;
    return qgc_arena_printf(p->scratch, "%s[%s=%d]", f->name, p->g->repeats[f->repeat].index, f->layer);
}

const char *qgc_print_fuse(const printer *p, const qgc_node *n) {
    const qgc_kernel_row *kernel = qgc_node_kernel(p->g, n);
    if (n->group < 0)
        return NULL;
    return kernel ? qgc_arena_printf(p->scratch, "%s@%s", name_at(p, n), kernel->name) : name_at(p, n);
}
