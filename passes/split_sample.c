#include "codegen/stage/stage.h"
#include "passes/rewrite.h"

/* Sampling begins with the largest logit of each chunk of the vocabulary: apart from the rest it can be found where the
 * logits are made. */

enum { SAMPLE };

static bool apply(qgc_rewriter *rw, const qgc_match *m) {
    qgc_node *whole = m->node[SAMPLE];
    if (whole->group >= 0)
        return qgc_decline(rw, whole, "it is in a group");

    const char *name = whole->out[0]->name;
    qgc_arena *a = qgc_rewriter_graph(rw)->arena;
    qgc_value *logits = whole->in[0], *seen = whole->in[3];
    qgc_node *part = qgc_insert(rw, whole, QGC_OP_SAMPLE_PART, qgc_arena_printf(a, "%s_parts", name),
                                (qgc_value *[]){logits, seen}, 2);
    part->attr[qgc_attr_index(part->op, "chunk")].number = QGC_SAMPLE_CHUNK;
    if (!qgc_settle(rw, part))
        return true;
    qgc_node *merge = qgc_insert(rw, whole, QGC_OP_SAMPLE_MERGE, name,
                                 (qgc_value *[]){logits, part->out[0], whole->in[1], whole->in[2], seen}, 5);
    merge->attr[qgc_attr_index(merge->op, "chunk")].number = QGC_SAMPLE_CHUNK;
    if (!qgc_settle(rw, merge))
        return true;
    qgc_replace(rw, whole->out[0], merge->out[0]);
    qgc_erase(rw, whole);
    return true;
}

static const qgc_rule rules[] = {
    {"sample", P(SAMPLE, SAMPLE, FREE), apply},
    {0},
};

qgc_status qgc_pass_split_sample(qgc_pass_context *c, qgc_diag *d) {
    return qgc_rewrite(c, rules, d);
}
