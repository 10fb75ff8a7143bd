#include <string.h>

#include "graph/print_impl.h"

static bool same_place(const print_section *section, const qgc_node *n) {
    return section->repeat == n->repeat && section->layer == n->layer;
}

void qgc_print_sections(printer *p) {
    const qgc_graph *g = p->g;
    const qgc_node **nodes = qgc_arena_array(p->scratch, g->n_nodes, sizeof(qgc_node *));
    p->sections = qgc_arena_array(p->scratch, g->n_nodes, sizeof *p->sections);
    p->section_of = qgc_arena_array(p->scratch, (size_t)g->next_node_id, sizeof *p->section_of);
    p->index_of = qgc_arena_array(p->scratch, (size_t)g->next_node_id, sizeof *p->index_of);
    int i = 0;
    for (const qgc_node *n = g->first; n; n = n->next, i++) {
        nodes[i] = n;
        if (p->n_sections == 0 || !same_place(&p->sections[p->n_sections - 1], n))
            p->sections[p->n_sections++] =
                (print_section){.nodes = &nodes[i], .repeat = n->repeat, .layer = n->layer};
        print_section *section = &p->sections[p->n_sections - 1];
        p->section_of[n->id] = p->n_sections - 1;
        p->index_of[n->id] = section->n_nodes++;
    }
}

print_origin qgc_print_origin(const printer *p, int section, const qgc_value *v) {
    const print_section *here = &p->sections[section];
    if (v->kind == QGC_RESULT) {
        int maker = p->section_of[v->maker->id];
        print_origin made = {.kind = FROM_SECTION, .node = p->index_of[v->maker->id], .out = v->out};
        if (maker == section)
            return made;
        if (maker == section - 1 && p->sections[maker].repeat == here->repeat &&
            p->sections[maker].layer == here->layer - 1) {
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

/* Notes that the first iteration reads `start` where later ones read what `o` of the iteration before made. One
 * carried value can start as one thing only. */
static bool note_carry(printer *p, print_run *run, print_origin o, const qgc_value *start) {
    for (int i = 0; i < run->n_carries; i++)
        if (run->carries[i].node == o.node && run->carries[i].out == o.out)
            return run->carries[i].start == start;
    run->carries = qgc_arena_grow(p->scratch, run->carries, (size_t)run->n_carries, sizeof *run->carries);
    run->carries[run->n_carries++] = (print_carry){o.node, o.out, start};
    return true;
}

/* Does input i of node k fit, where `a` is the first section of the run and `b` the second? A value of the
 * iteration before can only be read as long as this iteration has not made its own of that name. */
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
    case FROM_SECTION:
        break;
    }
    return same_origin(from_a, from_b);
}

static bool continues(printer *p, print_run *run, int next) {
    const print_section *last = &p->sections[next - 1], *section = &p->sections[next];
    if (section->repeat < 0 || section->repeat != last->repeat || section->layer != last->layer + 1 ||
        section->n_nodes != last->n_nodes)
        return false;
    bool second = run->n_sections == 1;
    for (int k = 0; k < section->n_nodes; k++) {
        const qgc_node *a = last->nodes[k], *b = section->nodes[k];
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
    p->runs = qgc_arena_array(p->scratch, (size_t)p->n_sections, sizeof *p->runs);
    for (int i = 0; i < p->n_sections;) {
        print_run *run = &p->runs[p->n_runs++];
        *run = (print_run){.first = i, .n_sections = 1};
        while (++i < p->n_sections && continues(p, run, i))
            run->n_sections++;
        if (run->n_sections == 1)
            run->n_carries = 0; /* noted before the second section turned out not to fit */
    }
}
