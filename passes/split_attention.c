#include "passes/rewrite.h"

/* Attention of one token is one block for each key-value head, and leaves most of the card idle: cut into splits of the
 * positions, it is `parts` times as many blocks. Every block of the product after it puts all parts together, and pays for
 * each even where it is empty; a part that is long is shared by several blocks in its own kernel. So few do:
 * on an H100 4 are better than 8 up to 4,096 positions, and no worse at 16,384. */

enum { ATTENTION };

static bool apply(qgc_rewriter *rw, const qgc_match *m) {
    qgc_node *whole = m->node[ATTENTION];
    double parts = qgc_pass_option(qgc_rewriter_pass(rw), "parts", 4);
    if (parts < 2 || parts > 64)
        return qgc_decline(rw, whole, "option parts is %g, expected 2 to 64", parts);
    if (whole->group >= 0)
        return qgc_decline(rw, whole, "it is in a group");

    const char *name = whole->out[0]->name;
    qgc_arena *a = qgc_rewriter_graph(rw)->arena;
    qgc_node *part = qgc_insert(rw, whole, QGC_OP_ATTENTION_PART, qgc_arena_printf(a, "%s_parts", name),
                                whole->in, whole->n_in);
    static const char *const kept[] = {"scale", "window", "softcap"};
    for (int i = 0; i < 3; i++)
        part->attr[qgc_attr_index(part->op, kept[i])] = whole->attr[qgc_attr_index(whole->op, kept[i])];
    part->attr[qgc_attr_index(part->op, "parts")].number = parts;
    if (!qgc_settle(rw, part))
        return true;
    qgc_node *merge = qgc_insert(rw, whole, QGC_OP_ATTENTION_MERGE, name, part->out, 1);
    merge->attr[qgc_attr_index(merge->op, "head_dim")].number = (double)whole->in[1]->shape.dim[2];
    merge->attr[qgc_attr_index(merge->op, "parts")].number = parts;
    if (!qgc_settle(rw, merge))
        return true;
    qgc_replace(rw, whole->out[0], merge->out[0]);
    qgc_erase(rw, whole);
    return true;
}

static const qgc_rule rules[] = {
    {"attention", P(ATTENTION, ATTENTION, FREE), apply},
    {0},
};

qgc_status qgc_pass_split_attention(qgc_pass_context *c, qgc_diag *d) {
    return qgc_rewrite(c, rules, d);
}
