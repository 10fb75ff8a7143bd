#include <string.h>

#include "graph/print_parts.h"

static bool same_place(const print_stretch *stretch, const qgc_node *n) {
    return stretch->repeat == n->repeat && stretch->layer == n->layer;
}

void qgc_print_stretches(printer *p) {
    const qgc_graph *g = p->g;
    const qgc_node **nodes = qgc_arena_array(p->scratch, g->n_nodes, sizeof(qgc_node *));
    p->stretches = qgc_arena_array(p->scratch, g->n_nodes, sizeof *p->stretches);
    p->stretch_of = qgc_arena_array(p->scratch, (size_t)g->next_node_id, sizeof *p->stretch_of);
    p->index_of = qgc_arena_array(p->scratch, (size_t)g->next_node_id, sizeof *p->index_of);
    int i = 0;
    for (const qgc_node *n = g->first; n; n = n->next, i++) {
        nodes[i] = n;
        if (p->n_stretches == 0 || !same_place(&p->stretches[p->n_stretches - 1], n))
            p->stretches[p->n_stretches++] =
                (print_stretch){.nodes = &nodes[i], .repeat = n->repeat, .layer = n->layer};
        print_stretch *stretch = &p->stretches[p->n_stretches - 1];
        p->stretch_of[n->id] = p->n_stretches - 1;
        p->index_of[n->id] = stretch->n_nodes++;
    }
}

print_origin qgc_print_origin(const printer *p, int stretch, const qgc_value *v) {
    const print_stretch *here = &p->stretches[stretch];
    if (v->kind == QGC_RESULT) {
        int maker = p->stretch_of[v->maker->id];
        print_origin made = {.kind = FROM_STRETCH, .node = p->index_of[v->maker->id], .out = v->out};
        if (maker == stretch)
            return made;
        if (maker == stretch - 1 && p->stretches[maker].repeat == here->repeat &&
            p->stretches[maker].layer == here->layer - 1) {
            made.kind = FROM_PREVIOUS;
            return made;
        }
    }
    bool per_turn = v->kind == QGC_WEIGHT || v->kind == QGC_STATE;
    if (per_turn && v->layer >= 0 && v->repeat == here->repeat && v->layer == here->layer)
        return (print_origin){.kind = FROM_TURN, .decl = v->decl, .out = (int)v->kind};
    return (print_origin){.kind = FROM_OUTSIDE, .value = v};
}

static bool same_origin(print_origin a, print_origin b) {
    return a.kind == b.kind && a.node == b.node && a.out == b.out && a.value == b.value && a.decl == b.decl;
}

/* To the last bit: -0 is not 0, which would be printed another way. */
static bool same_number(double a, double b) {
    uint64_t a_bits, b_bits;
    memcpy(&a_bits, &a, sizeof a_bits);
    memcpy(&b_bits, &b, sizeof b_bits);
    return a_bits == b_bits;
}

static bool same_group(const printer *p, const qgc_node *a, const qgc_node *b) {
    const char *of_a = qgc_print_fuse(p, a), *of_b = qgc_print_fuse(p, b);
    return of_a && of_b ? strcmp(of_a, of_b) == 0 : of_a == of_b;
}

/* Op, attributes, arity, names of results and of groups; inputs are another matter. */
static bool same_op(const printer *p, const qgc_node *a, const qgc_node *b) {
    if (a->op != b->op || a->n_in != b->n_in || a->n_out != b->n_out || !same_group(p, a, b))
        return false;
    for (int i = 0; i < a->n_out; i++)
        if (p->class_of[a->out[i]->id] != p->class_of[b->out[i]->id])
            return false;
    const qgc_attr_spec *attrs = qgc_ops[a->op].attrs;
    for (int i = 0; attrs[i].name; i++)
        if (a->attr[i].choice != b->attr[i].choice || !same_number(a->attr[i].number, b->attr[i].number))
            return false;
    return true;
}

/* Notes that the first turn reads `start` where later ones read what `o` of the turn before made. One
 * carried value can start as one thing only. */
static bool note_carry(printer *p, print_run *run, print_origin o, const qgc_value *start) {
    for (int i = 0; i < run->n_carries; i++)
        if (run->carries[i].node == o.node && run->carries[i].out == o.out)
            return run->carries[i].start == start;
    run->carries = qgc_arena_grow(p->scratch, run->carries, (size_t)run->n_carries, sizeof *run->carries);
    run->carries[run->n_carries++] = (print_carry){o.node, o.out, start};
    return true;
}

/* Does input i of node k fit, where `a` is the first stretch of the run and `b` the second? A value of the
 * turn before can only be read as long as this turn has not made its own of that name. */
static bool fits_first(printer *p, print_run *run, int k, const qgc_value *in_a, const qgc_value *in_b) {
    int a = run->first, b = a + 1;
    print_origin from_a = qgc_print_origin(p, a, in_a), from_b = qgc_print_origin(p, b, in_b);
    bool outside_a = from_a.kind == FROM_OUTSIDE || from_a.kind == FROM_PREVIOUS;
    switch (from_b.kind) {
    case FROM_PREVIOUS:
        return outside_a && k <= from_b.node && note_carry(p, run, from_b, in_a);
    case FROM_OUTSIDE:
        return outside_a && in_a == in_b;
    case FROM_TURN:
    case FROM_STRETCH:
        break;
    }
    return same_origin(from_a, from_b);
}

static bool continues(printer *p, print_run *run, int next) {
    const print_stretch *last = &p->stretches[next - 1], *stretch = &p->stretches[next];
    if (stretch->repeat < 0 || stretch->repeat != last->repeat || stretch->layer != last->layer + 1 ||
        stretch->n_nodes != last->n_nodes)
        return false;
    bool second = run->n_stretches == 1;
    for (int k = 0; k < stretch->n_nodes; k++) {
        const qgc_node *a = last->nodes[k], *b = stretch->nodes[k];
        if (!same_op(p, a, b))
            return false;
        for (int i = 0; i < a->n_in; i++)
            if (second ? !fits_first(p, run, k, a->in[i], b->in[i])
                       : !same_origin(qgc_print_origin(p, next - 1, a->in[i]),
                                      qgc_print_origin(p, next, b->in[i])))
                return false;
    }
    return true;
}

void qgc_print_runs(printer *p) {
    p->runs = qgc_arena_array(p->scratch, (size_t)p->n_stretches, sizeof *p->runs);
    for (int i = 0; i < p->n_stretches;) {
        print_run *run = &p->runs[p->n_runs++];
        *run = (print_run){.first = i, .n_stretches = 1};
        while (++i < p->n_stretches && continues(p, run, i))
            run->n_stretches++;
        if (run->n_stretches == 1)
            run->n_carries = 0; /* noted before the second stretch turned out not to fit */
    }
}
