#include "runtime/lab/judge_impl.h"

/* Choices of tokens and experts, which hardly show what they are made of. */

static bool chooses(const qgc_node *n) {
    return n && (n->op == QGC_OP_SAMPLE || n->op == QGC_OP_SAMPLE_MERGE);
}

/* An operand of sample by its place there, also of sample_merge, which has the parts in addition. */
enum { LOGITS, ROWS, POSITIONS, SEEN, N_OPERANDS };
static int operand_class(const judge_known *k, const qgc_node *n, int which) {
    return k->class_of[n->in[which + (which > LOGITS && n->op == QGC_OP_SAMPLE_MERGE)]->id];
}

/* Are the parts by which a choice is made those of its logits and its marks? */
static bool has_own_parts(const judge_known *k, const qgc_node *n) {
    const qgc_node *part = n->op == QGC_OP_SAMPLE_MERGE ? n->in[1]->maker : NULL;
    return n->op != QGC_OP_SAMPLE_MERGE || (part && part->op == QGC_OP_SAMPLE_PART &&
                                            k->class_of[part->in[0]->id] == operand_class(k, n, LOGITS) &&
                                            k->class_of[part->in[1]->id] == operand_class(k, n, SEEN));
}

const char *judge_objection_to_choice(const judge_work *w, const qgc_value *v, const qgc_value *u) {
    static const char *const names[] = {"logits", "rows", "positions", "marks"};
    const qgc_node *now = v->maker, *before = u->maker;
    if (!chooses(now) || !chooses(before))
        return NULL;
    for (int i = 0; i < N_OPERANDS; i++)
        if (operand_class(w->now, now, i) != operand_class(w->before, before, i))
            return qgc_arena_printf(w->j->arena, "the choice is made of other %s", names[i]);
    return has_own_parts(w->now, now) || !has_own_parts(w->before, before)
               ? NULL
               : "the choice goes by parts that are of other logits or marks";
}

/* What biases add to the scores that experts are chosen by; NULL where it is not at hand as doubles. */
static const double *bias_of(const judge_work *w, const judge_known *k, const qgc_node *n) {
    const judge_numbers *x = &w->j->classes[k->class_of[n->in[1]->id]].at[0];
    return x->tensor ? NULL : x->data;
}

/* Do two routes that differ in their biases choose by the same? One number more for all experts changes nothing. */
static bool biases_agree(const judge_work *w, const qgc_node *now, const qgc_node *before) {
    const int64_t n = now->in[0]->shape.dim[1];
    const bool both = now->n_in > 1 && before->n_in > 1;
    if (both && w->now->class_of[now->in[1]->id] == w->before->class_of[before->in[1]->id])
        return true;
    const double *a = now->n_in > 1 ? bias_of(w, w->now, now) : NULL,
                 *b = before->n_in > 1 ? bias_of(w, w->before, before) : NULL;
    if ((now->n_in > 1 && !a) || (before->n_in > 1 && !b))
        return false;
    for (int64_t i = 1; i < n; i++)
        if ((a ? a[i] - a[0] : 0) != (b ? b[i] - b[0] : 0))
            return false;
    return true;
}

const char *judge_objection_to_route(const judge_work *w, const qgc_value *v, const qgc_value *u) {
    const qgc_node *now = v->maker, *before = u->maker;
    if (!before || now->op != QGC_OP_ROUTE || before->op != QGC_OP_ROUTE)
        return NULL;
    const int scoring = qgc_attr_index(QGC_OP_ROUTE, "scoring");
    const bool has_bias = now->n_in > 1 || before->n_in > 1,
               by_the_same = w->now->class_of[now->in[0]->id] == w->before->class_of[before->in[0]->id];
    if (by_the_same && (!has_bias || (now->attr[scoring].choice == before->attr[scoring].choice &&
                                      biases_agree(w, now, before))))
        return NULL;
    return qgc_arena_printf(w->j->arena, "\"%s\": experts are chosen by other scores",
                            qgc_value_label(v, w->j->arena));
}
