/* Passes that are wrong on purpose, and passes that are right and unusual: the judge has to tell the one
 * from the other, and name the change and the value of a fault. Each row of the tables is a rule, where it
 * is applied, and what has to be said of it. */

#include <math.h>
#include <string.h>
#include <time.h>

#include "graph/base/file.h"
#include "passes/load.h"
#include "passes/rewrite.h"
#include "runtime/lab/bisect.h"
#include "tests/support/cmocka.h"
#include "tests/support/folder.h"
#include "tests/support/graph.h"
#include "tests/support/printed.h"
#include "tests/support/text.h"

#ifndef EVERY /* so many rows is one looked at: more than 1 where a sanitizer makes them slow */
#define EVERY 1
#endif

enum { A, B, C, D, STEPS = 16, MOST_NODES = 4096 };

typedef struct planted {
    const char *name; /* of the pass */
    const char *at;   /* "ff[2]": there; "ff": in each layer; NULL: everywhere */
    const qgc_pattern *pattern;
    qgc_rule_fn *apply;
    double number; /* for the rule */
    qgc_bisect_verdict verdict;
    const char *value;  /* that is named; NULL: any, of a fault none */
    int faults;         /* all there are; 0: one */
    const char *why;    /* part of the reason */
    const char *passes; /* pipeline, %s standing for the pass; NULL: it alone */
} planted;

/* Of the pass that runs: rules are not applied to what they have made. */
static struct {
    const planted *row;
    bool done[MOST_NODES];
} now;

/* --- what rules do --------------------------------------------------------------------------------------- */

static bool is_here(const qgc_rewriter *rw, const qgc_node *n) {
    qgc_graph *g = qgc_rewriter_graph((qgc_rewriter *)(uintptr_t)rw);
    const char *at = now.row->at;
    if (now.done[n->id])
        return false;
    if (!at)
        return true;
    return strcmp(strchr(at, '[') ? qgc_value_label(n->out[0], g->arena) : n->out[0]->name, at) == 0;
}

static qgc_node *mark_done(qgc_node *n) {
    now.done[n->id] = true;
    return n;
}

/* A new node before `before`, called `name`. */
static qgc_value *put(qgc_rewriter *rw, qgc_node *before, qgc_op op, const char *name, qgc_value *a,
                      qgc_value *b) {
    qgc_node *n = mark_done(qgc_insert(rw, before, op, name, (qgc_value *[]){a, b}, b ? 2 : 1));
    assert_true(qgc_settle(rw, n));
    return n->out[0];
}

static qgc_value *put_number(qgc_rewriter *rw, qgc_node *before, qgc_op op, qgc_value *a, double number) {
    qgc_node *n = mark_done(qgc_insert(rw, before, op, "planted", &a, 1));
    n->attr[0].number = number;
    assert_true(qgc_settle(rw, n));
    return n->out[0];
}

/* The same op with the same attributes over other inputs, in place of n; its value keeps its name. */
static qgc_node *rewire_n(qgc_rewriter *rw, qgc_node *n, qgc_value *const *in, int n_in) {
    qgc_node *other = mark_done(qgc_insert(rw, n, n->op, n->out[0]->name, in, n_in));
    memcpy(other->attr, n->attr, sizeof other->attr);
    assert_true(qgc_settle(rw, other));
    qgc_replace(rw, n->out[0], other->out[0]);
    qgc_erase(rw, n);
    return other;
}

static bool rewire(qgc_rewriter *rw, qgc_node *n, qgc_value *a, qgc_value *b, qgc_value *c) {
    rewire_n(rw, n, (qgc_value *[]){a, b, c, n->n_in > 3 ? n->in[3] : NULL}, n->n_in);
    return true;
}

static bool become(qgc_rewriter *rw, qgc_node *n, qgc_value *now_it) {
    qgc_replace(rw, n->out[0], now_it);
    qgc_erase(rw, n);
    return true;
}

/* A value of the graph by its label. */
static qgc_value *named(qgc_rewriter *rw, const char *label) {
    qgc_graph *g = qgc_rewriter_graph(rw);
    for (size_t i = 0; i < g->n_values; i++)
        if (strcmp(qgc_value_label(g->values[i], g->arena), label) == 0)
            return g->values[i];
    fail_msg("no value \"%s\"", label);
    return NULL;
}

static qgc_value *in_layer(qgc_rewriter *rw, const char *name, int layer) {
    return named(rw, qgc_arena_printf(qgc_rewriter_graph(rw)->arena, "%s[%d]", name, layer));
}

#define RULE(name) static bool name(qgc_rewriter *rw, const qgc_match *m)
#define HERE                   \
    if (!is_here(rw, m->root)) \
        return false;          \
    mark_done(m->root)

/* --- wrong rules ----------------------------------------------------------------------------------------- */

static bool change_number(qgc_rewriter *rw, const qgc_match *m, const char *attr, double to) {
    (void)rw;
    m->root->attr[qgc_attr_index(m->root->op, attr)].number = to;
    return true;
}

RULE(add_to_eps) {
    HERE;
    return change_number(rw, m, "eps", m->root->attr[0].number + now.row->number);
}

RULE(scale_base) {
    HERE;
    const int at = qgc_attr_index(QGC_OP_ROPE, "base");
    return change_number(rw, m, "base", m->root->attr[at].number * now.row->number);
}

RULE(scale_scores) {
    HERE;
    const int at = qgc_attr_index(QGC_OP_ATTENTION, "scale");
    return change_number(rw, m, "scale", m->root->attr[at].number * now.row->number);
}

/* A factor on the result. */
RULE(scale_result) {
    HERE;
    qgc_node *n = m->root;
    qgc_node *copy = mark_done(qgc_insert(rw, n, n->op, n->out[0]->name, n->in, n->n_in));
    memcpy(copy->attr, n->attr, sizeof n->attr);
    assert_true(qgc_settle(rw, copy));
    return become(rw, n, put_number(rw, n, QGC_OP_SCALE, copy->out[0], now.row->number));
}

RULE(cap_result) {
    HERE;
    qgc_node *n = m->root;
    qgc_node *copy = mark_done(qgc_insert(rw, n, n->op, n->out[0]->name, n->in, n->n_in));
    memcpy(copy->attr, n->attr, sizeof n->attr);
    assert_true(qgc_settle(rw, copy));
    return become(rw, n, put_number(rw, n, QGC_OP_SOFTCAP, copy->out[0], now.row->number));
}

static bool other_op(qgc_rewriter *rw, const qgc_match *m, qgc_op op) {
    qgc_node *n = m->root;
    return become(rw, n, put(rw, n, op, n->out[0]->name, n->in[0], n->n_in > 1 ? n->in[1] : NULL));
}
RULE(to_gelu) {
    HERE;
    return other_op(rw, m, QGC_OP_GELU);
}
RULE(to_sigmoid) {
    HERE;
    return other_op(rw, m, QGC_OP_SIGMOID);
}
RULE(to_mul) {
    HERE;
    return other_op(rw, m, QGC_OP_MUL);
}
RULE(to_add) {
    HERE;
    return other_op(rw, m, QGC_OP_ADD);
}
/* The result is the first input, or the second. */
RULE(to_first) {
    HERE;
    return become(rw, m->root, m->root->in[0]);
}
RULE(to_second) {
    HERE;
    return become(rw, m->root, m->root->in[1]);
}
RULE(swap_keys_and_values) {
    HERE;
    qgc_value **in = m->root->in;
    return rewire(rw, m->root, in[0], in[2], in[1]);
}
RULE(keys_twice) {
    HERE;
    qgc_value **in = m->root->in;
    return rewire(rw, m->root, in[0], in[1], in[1]);
}
RULE(unrotated_query) {
    HERE;
    qgc_value **in = m->root->in;
    return rewire(rw, m->root, in[0]->maker->in[0], in[1], in[2]);
}
RULE(drop_bias) {
    HERE;
    if (m->root->n_in < 3)
        return false;
    rewire_n(rw, m->root, m->root->in, 2);
    return true;
}
/* The weight (input 1) of the same kind in the next layer. */
RULE(weight_of_next_layer) {
    HERE;
    qgc_node *n = m->root;
    return rewire(rw, n, n->in[0], in_layer(rw, n->in[1]->name, (n->layer + 1) % 4), n->in[2]);
}
RULE(bias_of_next_layer) {
    HERE;
    qgc_node *n = m->root;
    if (n->n_in < 3)
        return false;
    return rewire(rw, n, n->in[0], n->in[1], in_layer(rw, n->in[2]->name, (n->layer + 1) % 4));
}
RULE(weight_of_up) {
    HERE;
    return rewire(rw, m->root, m->root->in[0], in_layer(rw, "w_up", m->root->layer), NULL);
}
RULE(weight_of_values) {
    HERE;
    return rewire(rw, m->root, m->root->in[0], in_layer(rw, "wv", m->root->layer), m->root->in[2]);
}
RULE(bias_of_values) {
    HERE;
    return rewire(rw, m->root, m->root->in[0], m->root->in[1], in_layer(rw, "bv", m->root->layer));
}
RULE(norm_of_mlp) {
    HERE;
    return rewire(rw, m->root, m->root->in[0], in_layer(rw, "mlp_norm", m->root->layer), NULL);
}
/* The MLP reads what attention read. */
RULE(norm_of_older) {
    HERE;
    return rewire(rw, m->root, m->root->in[0]->maker->in[0], m->root->in[1], NULL);
}
RULE(from_unnormed) {
    HERE;
    return rewire(rw, m->root, m->root->in[0]->maker->in[0], m->root->in[1], m->root->in[2]);
}
RULE(norm_twice) {
    HERE;
    qgc_node *again = mark_done(qgc_insert(rw, m->root, QGC_OP_RMS_NORM, "once", m->root->in, 2));
    memcpy(again->attr, m->root->attr, sizeof again->attr);
    assert_true(qgc_settle(rw, again));
    return rewire(rw, m->root, again->out[0], m->root->in[1], NULL);
}
RULE(rope_twice) {
    HERE;
    qgc_node *again = mark_done(qgc_insert(rw, m->root, QGC_OP_ROPE, "once", m->root->in, 2));
    memcpy(again->attr, m->root->attr, sizeof again->attr);
    assert_true(qgc_settle(rw, again));
    return rewire(rw, m->root, again->out[0], m->root->in[1], NULL);
}
/* Values are rotated too. */
RULE(rotated_values) {
    HERE;
    qgc_node *rope = in_layer(rw, "kr", m->root->layer)->maker;
    qgc_value *v[] = {m->root->in[1], rope->in[1]};
    qgc_node *n = mark_done(qgc_insert(rw, m->root, QGC_OP_ROPE, "vr", v, 2));
    memcpy(n->attr, rope->attr, sizeof n->attr);
    assert_true(qgc_settle(rw, n));
    return rewire(rw, m->root, m->root->in[0], n->out[0], m->root->in[2]);
}
RULE(appends_other) {
    HERE;
    return rewire(rw, m->root, m->root->in[0], in_layer(rw, "kr", m->root->layer), m->root->in[2]);
}
RULE(appends_unrotated) {
    HERE;
    return rewire(rw, m->root, m->root->in[0], m->root->in[1]->maker->in[0], m->root->in[2]);
}
/* Attention before this step's keys are in the cache. */
RULE(reads_old_cache) {
    HERE;
    qgc_node *n = m->root, *append = n->in[1]->maker;
    if (append->op != QGC_OP_APPEND)
        return false;
    qgc_node *values = n->in[2]->maker;
    qgc_value *in[] = {n->in[0], append->in[0], values->in[0], n->in[3]};
    qgc_node *old = mark_done(qgc_insert(rw, append, QGC_OP_ATTENTION, n->out[0]->name, in, 4));
    memcpy(old->attr, n->attr, sizeof old->attr);
    assert_true(qgc_settle(rw, old));
    return become(rw, n, old->out[0]);
}
/* Right in this step, and the cache is left with other keys for the next. */
RULE(spoils_cache_after) {
    HERE;
    qgc_node *n = m->root, *append = n->in[1]->maker;
    qgc_value *in[] = {append->out[0], append->in[1]->maker->in[0], append->in[2]};
    qgc_node *spoil = mark_done(qgc_insert(rw, n->next, QGC_OP_APPEND, "spoilt", in, 3));
    assert_true(qgc_settle(rw, spoil));
    return true;
}
RULE(never_marks) {
    HERE;
    qgc_value *state = m->root->in[0];
    return become(rw, m->root, state);
}
/* The choice is made before this step's tokens are marked. */
RULE(chooses_before_mark) {
    HERE;
    qgc_node *n = m->root, *mark = n->in[n->n_in - 1]->maker;
    qgc_value *in[QGC_MAX_INPUTS];
    memcpy(in, n->in, sizeof in);
    in[n->n_in - 1] = mark->in[0];
    qgc_node *early = mark_done(qgc_insert(rw, mark, n->op, n->out[0]->name, in, n->n_in));
    memcpy(early->attr, n->attr, sizeof early->attr);
    assert_true(qgc_settle(rw, early));
    return become(rw, n, early->out[0]);
}
/* Other logits for the choice only. */
RULE(chooses_from_others) {
    HERE;
    qgc_node *n = m->root;
    qgc_value *in[QGC_MAX_INPUTS];
    memcpy(in, n->in, sizeof in);
    in[0] = put_number(rw, n, QGC_OP_SCALE, n->in[0], now.row->number);
    rewire_n(rw, n, in, n->n_in);
    return true;
}
RULE(chooses_from_capped) {
    HERE;
    qgc_node *n = m->root;
    qgc_value *in[QGC_MAX_INPUTS];
    memcpy(in, n->in, sizeof in);
    in[0] = put_number(rw, n, QGC_OP_SOFTCAP, n->in[0], now.row->number);
    rewire_n(rw, n, in, n->n_in);
    return true;
}
RULE(chooses_from_unnormed) {
    HERE;
    qgc_node *n = m->root, *head = n->in[0]->maker;
    qgc_value *in[QGC_MAX_INPUTS];
    memcpy(in, n->in, sizeof in);
    in[0] = put(rw, n, QGC_OP_LINEAR, "others", head->in[0]->maker->in[0], head->in[1]);
    rewire_n(rw, n, in, n->n_in);
    return true;
}
/* Parts of other logits than those that the merge reads. */
RULE(parts_of_others) {
    HERE;
    qgc_node *n = m->root;
    return rewire(rw, n, put_number(rw, n, QGC_OP_SCALE, n->in[0], -1), n->in[1], NULL);
}
RULE(looks_up_positions) {
    HERE;
    return rewire(rw, m->root, named(rw, "positions"), m->root->in[1], NULL);
}
RULE(wrong_and_denied) {
    HERE;
    change_number(rw, m, "eps", 1e-3);
    return false;
}
RULE(renamed_sum_and_denied) { /* right, but a second run of the rules would not know */
    HERE;
    rewire(rw, m->root, m->root->in[1], m->root->in[0], NULL);
    return false;
}
/* A wrong value under the name of a right one, which gets another. */
RULE(new_under_old_name) {
    HERE;
    qgc_node *n = m->root;
    n->out[0]->name = "moved";
    qgc_value *fake = put_number(rw, n->next, QGC_OP_SCALE, n->out[0], now.row->number);
    fake->name = "h";
    qgc_node *readers[8];
    const int k = qgc_readers(rw, n->out[0], readers, 8);
    for (int i = 0; i < k; i++)
        if (readers[i] != fake->maker && strcmp(readers[i]->out[0]->name, "v") == 0)
            return rewire(rw, readers[i], fake, readers[i]->in[1], readers[i]->in[2]);
    return false;
}
/* Not what float32 rounds away: a bias that is doubled through the residual. */
RULE(residual_twice) {
    HERE;
    qgc_value *twice = put(rw, m->root, QGC_OP_ADD, "twice", m->root->in[0], m->root->in[0]);
    return rewire(rw, m->root, twice, m->root->in[1], NULL);
}
RULE(logits_of_unnormed) {
    HERE;
    return rewire(rw, m->root, m->root->in[0]->maker->in[0], m->root->in[1], NULL);
}

RULE(erase_what_is_read) {
    HERE;
    qgc_erase(rw, m->root);
    return true;
}

/* --- right rules ----------------------------------------------------------------------------------------- */

RULE(swap_operands) {
    HERE;
    return rewire(rw, m->root, m->root->in[1], m->root->in[0], NULL);
}
RULE(rename_it) {
    HERE;
    m->root->out[0]->name = "another_name";
    return true;
}
RULE(swap_names) { /* of gate and up */
    HERE;
    qgc_value *gate = m->root->in[0]->maker->in[0], *up = m->root->in[1];
    gate->name = "up";
    up->name = "gate";
    return true;
}
RULE(compute_twice) {
    HERE;
    qgc_node *n = m->root;
    qgc_node *again = mark_done(qgc_insert(rw, n->next, n->op, "again", n->in, n->n_in));
    memcpy(again->attr, n->attr, sizeof n->attr);
    assert_true(qgc_settle(rw, again));
    qgc_node *readers[8];
    qgc_readers(rw, n->out[0], readers, 8);
    qgc_value *in[QGC_MAX_INPUTS];
    memcpy(in, readers[0]->in, sizeof in);
    in[0] = again->out[0];
    if (readers[0]->in[0] == n->out[0])
        rewire_n(rw, readers[0], in, readers[0]->n_in);
    return true;
}
RULE(add_dead_nodes) {
    HERE;
    put_number(rw, m->root->next, QGC_OP_SCALE, m->root->out[0], 17);
    return true;
}
/* The second operand of a sum, to which a times the first is added and taken away again. */
RULE(cancel_first) {
    HERE;
    qgc_node *n = m->root;
    qgc_value *sum =
        put(rw, n, QGC_OP_ADD, "sum", n->in[1], put_number(rw, n, QGC_OP_SCALE, n->in[0], now.row->number));
    sum = put(rw, n, QGC_OP_ADD, "left", sum, put_number(rw, n, QGC_OP_SCALE, n->in[0], -now.row->number));
    qgc_set_input(rw, n, 1, sum);
    return qgc_settle(rw, n);
}
/* x times a, divided by a after the op: for ops that are linear in their first input. */
RULE(scale_around) {
    HERE;
    qgc_node *n = m->root;
    qgc_value *in[QGC_MAX_INPUTS];
    memcpy(in, n->in, sizeof in);
    in[0] = put_number(rw, n, QGC_OP_SCALE, n->in[0], now.row->number);
    qgc_node *inner = mark_done(qgc_insert(rw, n, n->op, "inner", in, n->n_in));
    memcpy(inner->attr, n->attr, sizeof n->attr);
    assert_true(qgc_settle(rw, inner));
    return become(rw, n, put_number(rw, n, QGC_OP_SCALE, inner->out[0], 1 / now.row->number));
}
/* rms_norm(a x) with a^2 eps */
RULE(scale_into_norm) {
    HERE;
    qgc_node *n = m->root;
    qgc_value *in[] = {put_number(rw, n, QGC_OP_SCALE, n->in[0], now.row->number), n->in[1]};
    qgc_node *other = rewire_n(rw, n, in, 2);
    other->attr[0].number *= now.row->number * now.row->number;
    return true;
}
RULE(silu_by_sigmoid) {
    HERE;
    qgc_node *n = m->root;
    qgc_value *gate = n->in[0], *open = put(rw, n, QGC_OP_SIGMOID, "open", gate, NULL);
    return become(rw, n, put(rw, n, QGC_OP_MUL, n->out[0]->name, open, gate));
}
/* x + (o + down) */
RULE(late_sum) {
    HERE;
    qgc_node *outer = m->root, *inner = m->node[A];
    if (outer->in[0] != inner->out[0])
        return false;
    qgc_value *late = put(rw, outer, QGC_OP_ADD, "late", inner->in[1], outer->in[1]);
    return rewire(rw, outer, inner->in[0], late, NULL);
}
/* (act up) down with a factor on up, taken back on the product */
RULE(scale_and_back) {
    HERE;
    qgc_node *n = m->root;
    qgc_value *in[] = {n->in[0], put_number(rw, n, QGC_OP_SCALE, n->in[1], now.row->number)};
    qgc_node *inner = mark_done(qgc_insert(rw, n, n->op, "inner", in, 2));
    assert_true(qgc_settle(rw, inner));
    return become(rw, n, put_number(rw, n, QGC_OP_SCALE, inner->out[0], 1 / now.row->number));
}
RULE(scale_query) { /* scores are the same */
    HERE;
    qgc_node *n = m->root;
    qgc_value *in[] = {put_number(rw, n, QGC_OP_SCALE, n->in[0], now.row->number), n->in[1], n->in[2],
                       n->in[3]};
    rewire_n(rw, n, in, 4)->attr[qgc_attr_index(QGC_OP_ATTENTION, "scale")].number /= now.row->number;
    return true;
}
/* Keys in another form in the cache. */
RULE(scale_cached_keys) {
    HERE;
    qgc_node *n = m->root, *append = n->in[1]->maker;
    if (append->op != QGC_OP_APPEND)
        return false;
    qgc_value *k = put_number(rw, append, QGC_OP_SCALE, append->in[1], now.row->number);
    qgc_node *other = rewire_n(rw, append, (qgc_value *[]){append->in[0], k, append->in[2]}, 3);
    qgc_value *in[] = {n->in[0], other->out[0], n->in[2], n->in[3]};
    rewire_n(rw, n, in, 4)->attr[qgc_attr_index(QGC_OP_ATTENTION, "scale")].number /= now.row->number;
    return true;
}
RULE(scale_cached_values) {
    HERE;
    qgc_node *n = m->root, *append = n->in[2]->maker;
    qgc_value *v = put_number(rw, append, QGC_OP_SCALE, append->in[1], now.row->number);
    qgc_node *other = rewire_n(rw, append, (qgc_value *[]){append->in[0], v, append->in[2]}, 3);
    qgc_value *in[] = {n->in[0], n->in[1], other->out[0], n->in[3]};
    n = rewire_n(rw, n, in, 4);
    qgc_value *back = put_number(rw, n->next, QGC_OP_SCALE, n->out[0], 1 / now.row->number);
    qgc_node *readers[8];
    const int k = qgc_readers(rw, n->out[0], readers, 8);
    for (int i = 0; i < k; i++)
        if (readers[i] != back->maker)
            return rewire(rw, readers[i], back, readers[i]->in[1], NULL);
    return true;
}
RULE(append_twice) {
    HERE;
    qgc_node *n = m->root;
    qgc_node *first = mark_done(qgc_insert(rw, n, n->op, "first", n->in, n->n_in));
    assert_true(qgc_settle(rw, first));
    return rewire(rw, n, first->out[0], n->in[1], n->in[2]);
}
RULE(spoil_and_mend) { /* a wrong append under the right one */
    HERE;
    qgc_node *n = m->root;
    qgc_value *in[] = {n->in[0], put_number(rw, n, QGC_OP_SCALE, n->in[1], 9), n->in[2]};
    qgc_node *first = mark_done(qgc_insert(rw, n, n->op, "first", in, 3));
    assert_true(qgc_settle(rw, first));
    return rewire(rw, n, first->out[0], n->in[1], n->in[2]);
}
RULE(two_parts_attention) {
    HERE;
    qgc_node *n = m->root;
    qgc_node *part = mark_done(qgc_insert(rw, n, QGC_OP_ATTENTION_PART, "pieces", n->in, 4));
    part->attr[qgc_attr_index(part->op, "scale")] = n->attr[qgc_attr_index(n->op, "scale")];
    part->attr[qgc_attr_index(part->op, "parts")].number = now.row->number;
    assert_true(qgc_settle(rw, part));
    qgc_node *merge = mark_done(qgc_insert(rw, n, QGC_OP_ATTENTION_MERGE, n->out[0]->name, part->out, 1));
    merge->attr[qgc_attr_index(merge->op, "parts")].number = now.row->number;
    merge->attr[qgc_attr_index(merge->op, "head_dim")].number = (double)n->in[1]->shape.dim[2];
    assert_true(qgc_settle(rw, merge));
    return become(rw, n, merge->out[0]);
}
/* Parts that no longer read what is 300 positions back. */
RULE(parts_with_window) {
    const qgc_node *n = m->root;
    if (!two_parts_attention(rw, m))
        return false;
    for (qgc_node *part = qgc_rewriter_graph(rw)->first; part; part = part->next)
        if (part->op == QGC_OP_ATTENTION_PART && part->layer == n->layer)
            part->attr[qgc_attr_index(part->op, "window")].number = 300;
    return true;
}

static qgc_value *filled(qgc_rewriter *rw, const char *name, qgc_value *like, double number) {
    return qgc_derive(rw, name, &(qgc_derivation){.kind = QGC_DERIVE_FILL, .factor = number}, &like, 1);
}

/* Frequencies that are halved where caches have room for more than `number` positions. */
RULE(halved_far_away) {
    HERE;
    qgc_node *n = m->root, *freqs = mark_done(qgc_insert(rw, n, QGC_OP_ROPE_FREQS, "freqs", NULL, 0));
    qgc_value *bias = in_layer(rw, "bq", n->layer);
    const qgc_derivation rows = {.kind = QGC_DERIVE_ROWS, .first = 0, .last = 16};
    freqs->attr[qgc_attr_index(freqs->op, "base")].number = 1e6;
    freqs->attr[qgc_attr_index(freqs->op, "rotary_dim")].number = 32;
    assert_true(qgc_settle(rw, freqs));
    qgc_value *some = qgc_derive(rw, "some", &rows, &bias, 1);
    qgc_value *in[] = {freqs->out[0], filled(rw, "ones", some, 1), filled(rw, "twos", some, 2)};
    qgc_node *far = mark_done(qgc_insert(rw, n, QGC_OP_ROPE_LONGROPE, "far_freqs", in, 3));
    far->attr[0].number = now.row->number;
    assert_true(qgc_settle(rw, far));
    qgc_node *other = mark_done(
        qgc_insert(rw, n, QGC_OP_ROPE, n->out[0]->name, (qgc_value *[]){n->in[0], n->in[1], far->out[0]}, 3));
    memcpy(other->attr, n->attr, sizeof other->attr);
    other->attr[qgc_attr_index(other->op, "base")].number = 0;
    assert_true(qgc_settle(rw, other));
    return become(rw, n, other->out[0]);
}
/* As many parts as there are, of other tokens: 1000 and 900 make two of 1536. */
RULE(merge_by_another_chunk) {
    HERE;
    qgc_node *part = m->root->in[1]->maker;
    part->attr[0].number = 1000;
    assert_true(qgc_settle(rw, part));
    m->root->attr[0].number = now.row->number;
    return true;
}
RULE(sample_by_parts) {
    HERE;
    qgc_node *n = m->root;
    qgc_node *part =
        mark_done(qgc_insert(rw, n, QGC_OP_SAMPLE_PART, "pieces", (qgc_value *[]){n->in[0], n->in[3]}, 2));
    part->attr[0].number = now.row->number;
    assert_true(qgc_settle(rw, part));
    qgc_value *in[] = {n->in[0], part->out[0], n->in[1], n->in[2], n->in[3]};
    qgc_node *merge = mark_done(qgc_insert(rw, n, QGC_OP_SAMPLE_MERGE, n->out[0]->name, in, 5));
    merge->attr[0].number = now.row->number;
    assert_true(qgc_settle(rw, merge));
    return become(rw, n, merge->out[0]);
}
/* A table in which row `number` is its first row; without a number it is put together again as it was. */
static qgc_value *table_with(qgc_rewriter *rw, qgc_value *table, int64_t row) {
    qgc_derivation low = {.kind = QGC_DERIVE_ROWS, .first = 0, .last = row > 0 ? row : 700},
                   mid = {.kind = QGC_DERIVE_ROWS, .first = 0, .last = 1},
                   high = {.kind = QGC_DERIVE_ROWS,
                           .first = row > 0 ? row + 1 : 700,
                           .last = table->shape.dim[0]};
    const qgc_derivation join = {.kind = QGC_DERIVE_CONCAT_ROWS};
    qgc_value *a = qgc_derive(rw, "low", &low, &table, 1), *c = qgc_derive(rw, "high", &high, &table, 1);
    if (row > 0) {
        qgc_value *b = qgc_derive(rw, "mid", &mid, &table, 1);
        a = qgc_derive(rw, "low_mid", &join, (qgc_value *[]){a, b}, 2);
    }
    return qgc_derive(rw, "joined", &join, (qgc_value *[]){a, c}, 2);
}
/* Tokens look up another row, which the text may not have; or the head. */
RULE(another_row) {
    HERE;
    qgc_node *n = m->root;
    qgc_value *table = table_with(rw, n->in[1], (int64_t)now.row->number);
    return rewire(rw, n, n->in[0], table, NULL);
}
/* The parts are of logits that are smaller by a factor: too small where the largest of them counts. */
RULE(parts_of_smaller) {
    HERE;
    qgc_node *n = m->root;
    return rewire(rw, n, put_number(rw, n, QGC_OP_SCALE, n->in[0], now.row->number), n->in[1], NULL);
}
/* select_rows(op(x)) becomes op(select_rows(x)). */
RULE(select_early) {
    HERE;
    qgc_node *select = m->root, *inner = select->in[0]->maker;
    qgc_value *a = put(rw, inner, QGC_OP_SELECT_ROWS, "a_rows", inner->in[0], select->in[1]),
              *b = put(rw, inner, QGC_OP_SELECT_ROWS, "b_rows", inner->in[1], select->in[1]);
    return become(rw, select, put(rw, select, inner->op, "x_rows", a, b));
}
/* The last norm and head over all rows, of which the wanted are picked after. */
RULE(select_late) {
    HERE;
    qgc_node *norm = m->root, *select = norm->in[0]->maker;
    qgc_node *all = mark_done(
        qgc_insert(rw, norm, QGC_OP_RMS_NORM, "x_all", (qgc_value *[]){select->in[0], norm->in[1]}, 2));
    memcpy(all->attr, norm->attr, sizeof all->attr);
    assert_true(qgc_settle(rw, all));
    return become(rw, norm, put(rw, norm, QGC_OP_SELECT_ROWS, "x_out", all->out[0], select->in[1]));
}
RULE(nothing) {
    (void)rw;
    (void)m;
    return false;
}
RULE(declines) {
    HERE;
    return qgc_decline(rw, m->root, "for no reason");
}

/* --- the tables ------------------------------------------------------------------------------------------ */

#define NORM P(ANY, RMS_NORM, V(A))
#define LIN P(ANY, LINEAR, V(A))
#define ATT P(ANY, ATTENTION, V(A))
#define APP P(ANY, APPEND, V(A))
#define SIL P(ANY, SILU, V(A))
#define MULT P(ANY, MUL, V(A))
#define SUM P(ANY, ADD, V(A))
#define ROTATE P(ANY, ROPE, V(A))
#define CHOOSE P(ANY, SAMPLE, V(A))

#define WRONG QGC_BISECT_WRONG
#define FINE QGC_BISECT_HARMLESS /* or equal */

static const planted rows[] = {
    /* numbers that are a little off */
    {"eps-1e-9", "h[1]", NORM, add_to_eps, 1e-9, WRONG, "h[1]", 0, NULL, NULL},
    {"eps-everywhere", NULL, NORM, add_to_eps, 1e-9, WRONG, "h[0]", 9, NULL, NULL},
    {"eps-of-mlp", "m", NORM, add_to_eps, 1e-8, WRONG, "m[0]", 4, NULL, NULL},
    {"eps-last", "x_out", NORM, add_to_eps, 1e-7, WRONG, "x_out", 0, NULL, NULL},
    {"eps-large", "m[3]", NORM, add_to_eps, 1e-3, WRONG, "m[3]", 0, NULL, NULL},
    {"base-0.2-percent", "kr[2]", ROTATE, scale_base, 1.002, WRONG, "kr[2]", 0, NULL, NULL},
    {"base-of-queries", "qr[0]", ROTATE, scale_base, 1.002, WRONG, "qr[0]", 0, NULL, NULL},
    {"base-hardly", "kr[3]", ROTATE, scale_base, 1.000001, WRONG, "kr[3]", 0, NULL, NULL},
    {"base-everywhere", NULL, ROTATE, scale_base, 1.002, WRONG, "qr[0]", 8, NULL, NULL},
    {"scores-0.1-percent", "a[1]", ATT, scale_scores, 1.001, WRONG, "a[1]", 0, NULL, NULL},
    {"scores-hardly", "a[3]", ATT, scale_scores, 1 + 1e-8, WRONG, "a[3]", 0, NULL, NULL},
    {"scores-everywhere", "a", ATT, scale_scores, 0.99, WRONG, "a[0]", 4, NULL, NULL},
    {"gate-hardly", "gate[2]", LIN, scale_result, 1 + 1e-7, WRONG, "planted[2]", 0, NULL, NULL},
    {"down-half", "down[0]", LIN, scale_result, 0.5, WRONG, "planted[0]", 0, NULL, NULL},
    {"embedding-hardly", "x", P(ANY, EMBEDDING, V(A)), scale_result, 1 + 1e-6, WRONG, "planted", 0, NULL,
     NULL},
    {"logits-hardly", "logits", LIN, scale_result, 1 + 1e-9, WRONG, "logits", 0, NULL, NULL},
    {"capped-logits", "logits", LIN, cap_result, 1e4, WRONG, "logits", 0, NULL, NULL},
    {"capped-values", "v[1]", LIN, cap_result, 1e3, WRONG, "planted[1]", 0, NULL, NULL},
    /* numbers that do not fit */
    {"too-large-for-f16", "a[1]", ATT, scale_cached_keys, 1e5, WRONG, "k_all[1]", 0, "too large for float16",
     NULL},
    {"too-small-for-f16", "a[2]", ATT, scale_cached_keys, 1e-6, WRONG, "k_all[2]", 0, "too small for float16",
     NULL},
    {"too-large-for-float32", "up[1]", LIN, scale_around, 8e37, WRONG, "inner[1]", 0, "too large for float32",
     NULL},
    /* float32 would lose most of their digits */
    {"cancels", "x_mid[1]", SUM, cancel_first, 1e5, WRONG, "left[1]", 0, NULL, NULL},
    {"cancels-everywhere", NULL, SUM, cancel_first, 1e6, WRONG, NULL, 8, NULL, NULL},
    /* other ops */
    {"gelu", "act[1]", SIL, to_gelu, 0, WRONG, "act[1]", 0, NULL, NULL},
    {"gelu-everywhere", "act", SIL, to_gelu, 0, WRONG, "act[0]", 4, NULL, NULL},
    {"sigmoid", "act[0]", SIL, to_sigmoid, 0, WRONG, "act[0]", 0, NULL, NULL},
    {"no-silu", "act[2]", SIL, to_first, 0, WRONG, "ff[2]", 0, NULL, NULL},
    {"sum-for-product", "ff[3]", MULT, to_add, 0, WRONG, "ff[3]", 0, NULL, NULL},
    {"product-for-sum", "x_mid[1]", SUM, to_mul, 0, WRONG, "x_mid[1]", 0, NULL, NULL},
    {"no-up", "ff[1]", MULT, to_first, 0, WRONG, "down[1]", 0, NULL, NULL},
    {"no-gate", "ff[1]", MULT, to_second, 0, WRONG, "down[1]", 0, NULL, NULL},
    {"no-residual", "x_mid[2]", SUM, to_second, 0, WRONG, "m[2]", 0, NULL, NULL},
    {"no-attention", "x_mid[2]", SUM, to_first, 0, WRONG, NULL, 0, NULL, NULL},
    {"residual-twice", "x_mid[0]", SUM, residual_twice, 0, WRONG, "x_mid[0]", 0, NULL, NULL},
    {"no-norm", "h[2]", NORM, to_first, 0, WRONG, NULL, 0, NULL, NULL},
    {"norm-twice", "m[1]", NORM, norm_twice, 0, WRONG, "m[1]", 0, NULL, NULL},
    {"no-rope", "kr[1]", ROTATE, to_first, 0, WRONG, "k_all[1]", 0, NULL, NULL},
    {"rope-twice", "qr[3]", ROTATE, rope_twice, 0, WRONG, "qr[3]", 0, NULL, NULL},
    {"rotated-values", "v_all[2]", APP, rotated_values, 0, WRONG, "v_all[2]", 0, NULL, NULL},
    /* other operands */
    {"keys-and-values", "a[0]", ATT, swap_keys_and_values, 0, WRONG, "a[0]", 0, NULL, NULL},
    {"keys-twice", "a[2]", ATT, keys_twice, 0, WRONG, "a[2]", 0, NULL, NULL},
    {"unrotated-query", "a[1]", ATT, unrotated_query, 0, WRONG, "a[1]", 0, NULL, NULL},
    {"no-bias-of-keys", "k[1]", LIN, drop_bias, 0, WRONG, "k[1]", 0, NULL, NULL},
    {"no-bias-of-queries", "q[3]", LIN, drop_bias, 0, WRONG, "q[3]", 0, NULL, NULL},
    {"no-bias-of-values", "v", LIN, drop_bias, 0, WRONG, "v[0]", 4, NULL, NULL},
    {"no-biases", NULL, LIN, drop_bias, 0, WRONG, "q[0]", 12, NULL, NULL},
    {"weight-of-next-layer", "o[1]", LIN, weight_of_next_layer, 0, WRONG, "o[1]", 0, NULL, NULL},
    {"norm-of-next-layer", "h[0]", NORM, weight_of_next_layer, 0, WRONG, "h[0]", 0, NULL, NULL},
    {"bias-of-next-layer", "k[2]", LIN, bias_of_next_layer, 0, WRONG, "k[2]", 0, NULL, NULL},
    {"weight-of-up", "gate[2]", LIN, weight_of_up, 0, WRONG, "gate[2]", 0, NULL, NULL},
    {"weight-of-values", "k[0]", LIN, weight_of_values, 0, WRONG, "k[0]", 0, NULL, NULL},
    {"bias-of-values", "k[3]", LIN, bias_of_values, 0, WRONG, "k[3]", 0, NULL, NULL},
    {"norm-of-mlp", "h[1]", NORM, norm_of_mlp, 0, WRONG, "h[1]", 0, NULL, NULL},
    {"norm-of-older", "m[2]", NORM, norm_of_older, 0, WRONG, "m[2]", 0, NULL, NULL},
    {"from-unnormed", "up[3]", LIN, from_unnormed, 0, WRONG, "up[3]", 0, NULL, NULL},
    {"new-under-old-name", "h[2]", NORM, new_under_old_name, 1.5, WRONG, "v[2]", 0, NULL, NULL},
    {"hardly-new-under-old-name", "h[1]", NORM, new_under_old_name, 1 + 1e-8, WRONG, "v[1]", 0, NULL, NULL},
    {"logits-of-unnormed", "logits", LIN, logits_of_unnormed, 0, WRONG, "logits", 0, NULL, NULL},
    {"positions-for-tokens", "x", P(ANY, EMBEDDING, V(A)), looks_up_positions, 0, WRONG, "x", 0, NULL, NULL},
    /* states */
    {"values-of-keys", "v_all[1]", APP, appends_other, 0, WRONG, "v_all[1]", 0, NULL, NULL},
    {"unrotated-keys", "k_all[2]", APP, appends_unrotated, 0, WRONG, "k_all[2]", 0, NULL, NULL},
    {"old-cache", "a[2]", ATT, reads_old_cache, 0, WRONG, "a[2]", 0, NULL, NULL},
    {"spoilt-cache", "a[1]", ATT, spoils_cache_after, 0, WRONG, "spoilt[1]", 0, NULL, NULL},
    {"spoilt-caches", "a", ATT, spoils_cache_after, 0, WRONG, "spoilt[0]", 4, NULL, NULL},
    /* the choice of a token */
    {"never-marks", "seen_now", P(ANY, MARK, V(A)), never_marks, 0, WRONG, "next", 0, NULL, NULL},
    {"chooses-before-mark", "next", CHOOSE, chooses_before_mark, 0, WRONG, "next", 0, NULL, NULL},
    {"merges-before-mark", "next", P(ANY, SAMPLE_MERGE, V(A)), chooses_before_mark, 0, WRONG, NULL, 0, NULL,
     "split-sample,%s"},
    {"parts-before-mark", "next_parts", P(ANY, SAMPLE_PART, V(A)), chooses_before_mark, 0, WRONG, NULL, 0,
     NULL, "split-sample,%s"},
    {"parts-of-others", "next_parts", P(ANY, SAMPLE_PART, V(A)), parts_of_others, 0, WRONG, NULL, 0, NULL,
     "split-sample,%s"},
    {"parts-of-another-chunk", "next", P(ANY, SAMPLE_MERGE, V(A)), merge_by_another_chunk, 900, WRONG, NULL,
     0, "its parts are of 1000", "split-sample,%s"},
    {"colder", "next", CHOOSE, chooses_from_others, 1.5, WRONG, "next", 0, NULL, NULL},
    {"hardly-colder", "next", CHOOSE, chooses_from_others, 1.02, WRONG, "next", 0, NULL, NULL},
    {"colder-by-1e-4", "next", CHOOSE, chooses_from_others, 1.0001, WRONG, "next", 0, "made of other logits",
     NULL},
    {"colder-by-1e-9", "next", CHOOSE, chooses_from_others, 1 + 1e-9, WRONG, "next", 0,
     "made of other logits", NULL},
    {"choice-capped-at-1e4", "next", CHOOSE, chooses_from_capped, 1e4, WRONG, "next", 0,
     "made of other logits", NULL},
    {"parts-hardly-smaller", "next_parts", P(ANY, SAMPLE_PART, V(A)), parts_of_smaller, 1 - 1e-6, WRONG,
     "next_parts", 0, NULL, "split-sample,%s"},
    {"a-row-that-no-token-has", "x", P(ANY, EMBEDDING, V(A)), another_row, 1234, WRONG, "x", 0,
     "where row 1234 is chosen", NULL},
    {"a-row-that-a-token-has", "x", P(ANY, EMBEDDING, V(A)), another_row, 1400, WRONG, "x", 0, NULL, NULL},
    {"a-row-of-the-head", "logits", LIN, another_row, 1234, WRONG, "logits", 0, NULL, NULL},
    {"opposite", "next", CHOOSE, chooses_from_others, -1, WRONG, "next", 0, NULL, NULL},
    {"capped-choice", "next", CHOOSE, chooses_from_capped, 5, WRONG, "next", 0, NULL, NULL},
    {"unnormed-choice", "next", CHOOSE, chooses_from_unnormed, 0, WRONG, "next", 0, NULL, NULL},
    /* rules that do not say what they do */
    {"window-of-parts", "a[1]", ATT, parts_with_window, 2, WRONG, "a[1]", 0, "at position 300", NULL},
    {"halved-far-away", "qr[1]", ROTATE, halved_far_away, 500, WRONG, "qr[1]", 0, "with room for 501", NULL},
    {"wrong-and-denied", "h[1]", NORM, wrong_and_denied, 0, WRONG, "h[1]", 0, "says that it did not", NULL},
    {"erased-and-read", "act[1]", SIL, erase_what_is_read, 0, WRONG, NULL, 0, "which no node makes", NULL},
    {"right-and-denied", "x_mid[1]", SUM, renamed_sum_and_denied, 0, WRONG, NULL, 0, "says that it did not",
     NULL},
    /* after changes that are harmless, and before larger ones */
    {"after-drift", "h[3]", NORM, add_to_eps, 1e-8, WRONG, "h[3]", 0, NULL, "split-attention,%s"},
    {"before-groups", "m[1]", NORM, add_to_eps, 1e-8, WRONG, "m[1]", 0, NULL,
     "%s,fuse-swiglu,fuse-qkv,plan-memory"},
    {"after-groups", "m[1]", NORM, add_to_eps, 1e-8, WRONG, "m[1]", 0, NULL, "fuse-swiglu,fuse-qkv,%s"},
    {"small-before-large", "h[1]", NORM, add_to_eps, 1e-9, WRONG, "h[1]", 2, NULL, "%s,gelu"},
    {"small-after-large", "h[3]", NORM, add_to_eps, 1e-9, WRONG, "act[1]", 2, NULL, "gelu,%s"},
    {"hidden-by-large", "m[0]", NORM, add_to_eps, 1e-9, WRONG, "act[0]", 6, NULL,
     "gelu-everywhere,%s,down-half"},

    /* right, whatever they look like */
    {"no-change", NULL, NORM, nothing, 0, FINE, NULL, 0, NULL, NULL},
    {"declined", NULL, NORM, declines, 0, FINE, NULL, 0, NULL, NULL},
    {"swapped-sums", NULL, SUM, swap_operands, 0, FINE, NULL, 0, NULL, NULL},
    {"swapped-products", NULL, MULT, swap_operands, 0, FINE, NULL, 0, NULL, NULL},
    {"renamed-norm", "h[2]", NORM, rename_it, 0, FINE, NULL, 0, NULL, NULL},
    {"renamed-norms", "h", NORM, rename_it, 0, FINE, NULL, 0, NULL, NULL},
    {"renamed-linears", "o", LIN, rename_it, 0, FINE, NULL, 0, NULL, NULL},
    {"swapped-names", "ff[1]", MULT, swap_names, 0, FINE, NULL, 0, NULL, NULL},
    {"all-swapped-names", "ff", MULT, swap_names, 0, FINE, NULL, 0, NULL, NULL},
    {"norm-computed-twice", "h", NORM, compute_twice, 0, FINE, NULL, 0, NULL, NULL},
    {"gate-computed-twice", "gate", LIN, compute_twice, 0, FINE, NULL, 0, NULL, NULL},
    {"rope-computed-twice", "qr", ROTATE, compute_twice, 0, FINE, NULL, 0, NULL, NULL},
    {"attention-computed-twice", "a[1]", ATT, compute_twice, 0, FINE, NULL, 0, NULL, NULL},
    {"dead-nodes", "gate", LIN, add_dead_nodes, 0, FINE, NULL, 0, NULL, NULL},
    {"dead-logits", "logits", LIN, add_dead_nodes, 0, FINE, NULL, 0, NULL, NULL},
    {"dead-nodes-gone", "up", LIN, add_dead_nodes, 0, FINE, NULL, 0, NULL, "%s,dead-code"},
    {"cancels-a-little", NULL, SUM, cancel_first, 3, FINE, NULL, 0, NULL, NULL},
    {"twice-and-half", "down", LIN, scale_around, 2, FINE, NULL, 0, NULL, NULL},
    {"three-times-and-third", "down", LIN, scale_around, 3, FINE, NULL, 0, NULL, NULL},
    {"tiny-and-back", "o[1]", LIN, scale_around, 1e-7, FINE, NULL, 0, NULL, NULL},
    {"huge-and-back", "up[1]", LIN, scale_around, 1e9, FINE, NULL, 0, NULL, NULL},
    {"negative-and-back", "gate", LIN, scale_around, -1, FINE, NULL, 0, NULL, NULL},
    {"rope-of-scaled", "qr", ROTATE, scale_around, 7, FINE, NULL, 0, NULL, NULL},
    {"rope-of-negative", "kr[0]", ROTATE, scale_around, -1, FINE, NULL, 0, NULL, NULL},
    {"head-of-scaled", "logits", LIN, scale_around, 10, FINE, NULL, 0, NULL, NULL},
    {"norm-of-scaled", "h", NORM, scale_into_norm, 2, FINE, NULL, 0, NULL, NULL},
    {"norm-of-thirds", "m", NORM, scale_into_norm, 1 / 3.0, FINE, NULL, 0, NULL, NULL},
    {"norm-of-huge", "x_out", NORM, scale_into_norm, 1e6, FINE, NULL, 0, NULL, NULL},
    {"silu-by-sigmoid", "act", SIL, silu_by_sigmoid, 0, FINE, NULL, 0, NULL, NULL},
    {"silu-by-sigmoid-once", "act[3]", SIL, silu_by_sigmoid, 0, FINE, NULL, 0, NULL, NULL},
    {"late-sums", NULL, P(ANY, ADD, P(A, ADD, V(B), FREE), V(C)), late_sum, 0, FINE, NULL, 0, NULL, NULL},
    {"product-of-scaled", "ff", MULT, scale_and_back, 4, FINE, NULL, 0, NULL, NULL},
    {"product-of-fifths", "ff", MULT, scale_and_back, 0.2, FINE, NULL, 0, NULL, NULL},
    {"scaled-query", "a", ATT, scale_query, 4, FINE, NULL, 0, NULL, NULL},
    {"scaled-query-by-three", "a", ATT, scale_query, 3, FINE, NULL, 0, NULL, NULL},
    {"all-of-the-scale", "a", ATT, scale_query, 0.17677669529663687, FINE, NULL, 0, NULL, NULL},
    {"keys-doubled-in-the-cache", "a", ATT, scale_cached_keys, 2, FINE, NULL, 0, NULL, NULL},
    {"keys-thirded-in-the-cache", "a[1]", ATT, scale_cached_keys, 1 / 3.0, FINE, NULL, 0, NULL, NULL},
    {"keys-of-one-cache-times-5", "a[2]", ATT, scale_cached_keys, 5, FINE, NULL, 0, NULL, NULL},
    {"values-scaled-in-the-cache", "a", ATT, scale_cached_values, 5, FINE, NULL, 0, NULL, NULL},
    {"appended-twice", "k_all", APP, append_twice, 0, FINE, NULL, 0, NULL, NULL},
    {"values-appended-twice", "v_all", APP, append_twice, 0, FINE, NULL, 0, NULL, NULL},
    {"spoilt-and-mended", "k_all", APP, spoil_and_mend, 0, FINE, NULL, 0, NULL, NULL},
    {"marked-twice", "seen_now", P(ANY, MARK, V(A)), append_twice, 0, FINE, NULL, 0, NULL, NULL},
    {"one-part", "a", ATT, two_parts_attention, 1, FINE, NULL, 0, NULL, NULL},
    {"two-parts", "a", ATT, two_parts_attention, 2, FINE, NULL, 0, NULL, NULL},
    {"three-parts", "a[0]", ATT, two_parts_attention, 3, FINE, NULL, 0, NULL, NULL},
    {"64-parts", "a[3]", ATT, two_parts_attention, 64, FINE, NULL, 0, NULL, NULL},
    {"halved-further-than-caches-go", "qr[1]", ROTATE, halved_far_away, 1024, FINE, NULL, 0, NULL, NULL},
    {"parts-of-1000", "next", P(ANY, SAMPLE_MERGE, V(A)), merge_by_another_chunk, 1000, FINE, NULL, 0, NULL,
     "split-sample,%s"},
    {"chunk-of-1", "next", CHOOSE, sample_by_parts, 1, FINE, NULL, 0, NULL, NULL},
    {"chunk-of-7", "next", CHOOSE, sample_by_parts, 7, FINE, NULL, 0, NULL, NULL},
    {"chunk-of-all", "next", CHOOSE, sample_by_parts, 1536, FINE, NULL, 0, NULL, NULL},
    {"chunk-of-1000", "next", CHOOSE, sample_by_parts, 1000, FINE, NULL, 0, NULL, NULL},
    {"select-early", "x_rows", P(ANY, SELECT_ROWS, P(A, ADD, V(B))), select_early, 0, FINE, NULL, 0, NULL,
     NULL},
    {"select-late", "x_out", NORM, select_late, 0, FINE, NULL, 0, NULL, NULL},
    {"cap-that-no-number-reaches", "v[1]", LIN, cap_result, 1e9, FINE, NULL, 0, NULL, NULL},
    {"table-cut-and-joined", "x", P(ANY, EMBEDDING, V(A)), another_row, 0, FINE, NULL, 0, NULL, NULL},
    {"head-cut-and-joined", "logits", LIN, another_row, 0, FINE, NULL, 0, NULL, NULL},
    {"choice-of-huge-and-back", "logits", LIN, scale_around, 1e5, FINE, NULL, 0, NULL, NULL},
    {"keys-hardly-scaled-in-the-cache", "a[1]", ATT, scale_cached_keys, 1.00001, FINE, NULL, 0, NULL, NULL},
    {"factor-of-1", "o", LIN, scale_result, 1, FINE, NULL, 0, NULL, NULL},
    {"base-as-it-was", NULL, ROTATE, scale_base, 1, FINE, NULL, 0, NULL, NULL},
    {"right-before-all", "act", SIL, silu_by_sigmoid, 0, FINE, NULL, 0, NULL,
     "silu-by-sigmoid-once,late-sums,two-parts,chunk-of-7,swapped-sums"},
    {"right-among-all", "down", LIN, scale_around, 3, FINE, NULL, 0, NULL,
     "split-attention,%s,late-sums,split-sample,fuse-qkv,fuse-swiglu,fuse-residual"},
    {"caches-in-other-forms", "a", ATT, scale_cached_keys, 2, FINE, NULL, 0, NULL,
     "%s,values-scaled-in-the-cache,fuse-qkv"},
    {"renamed-among-all", "m", NORM, rename_it, 0, FINE, NULL, 0, NULL,
     "fuse-qkv,%s,fuse-swiglu,fuse-norm-linear,plan-memory"},
    {"scaled-among-all", "a", ATT, scale_query, 3, FINE, NULL, 0, NULL,
     "%s,split-attention,fuse-merge-linear?,fuse-residual"},
    {"twice-among-all", "gate", LIN, compute_twice, 0, FINE, NULL, 0, NULL,
     "%s,fuse-swiglu?,fuse-qkv,fuse-norm-linear"},
};
enum { N_ROWS = sizeof rows / sizeof *rows };

static qgc_status run_planted(qgc_pass_context *c, qgc_diag *d) {
    memset(&now, 0, sizeof now);
    for (size_t i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i].name, c->run->name) == 0)
            now.row = &rows[i];
    assert_non_null(now.row);
    const qgc_rule rules[] = {{now.row->name, now.row->pattern, now.row->apply}, {0}};
    return qgc_rewrite(c, rules, d);
}

/* --- passes that are no rules ---------------------------------------------------------------------------- */

static qgc_node *node_named(const qgc_graph *g, const char *label) {
    for (qgc_node *n = g->first; n; n = n->next)
        if (strcmp(qgc_value_label(n->out[0], g->arena), label) == 0)
            return n;
    fail_msg("no node \"%s\"", label);
    return NULL;
}

/* Neither counts what it does nor stops where it is told to. */
static qgc_status uncounted(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    node_named(c->graph, "h[2]")->attr[0].number += 1e-7;
    return QGC_OK;
}

static qgc_status ignores_limit(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    for (int i = 0; i < 4; i++) {
        node_named(c->graph, qgc_arena_printf(c->scratch, "m[%d]", i))->attr[0].number += 1e-7;
        c->run->n_fired++;
    }
    return QGC_OK;
}

/* Reorders the list where data flow allows it, and counts nothing. */
static qgc_status moves_a_node(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    qgc_node *up = node_named(c->graph, "up[1]"), *gate = up->prev, *after = up->next;
    gate->prev->next = up;
    up->prev = gate->prev;
    up->next = gate;
    gate->prev = up;
    gate->next = after;
    after->prev = gate;
    const int64_t order = up->order;
    up->order = gate->order;
    gate->order = order;
    return QGC_OK;
}

static int runs_so_far;

static qgc_status wrong_from_the_second_run_on(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    if (runs_so_far++ > 0)
        node_named(c->graph, "h[2]")->attr[0].number = 0.1;
    return QGC_OK;
}

static qgc_status wrong_in_the_first_run(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    if (runs_so_far++ == 0)
        node_named(c->graph, "h[2]")->attr[0].number = 0.1;
    return QGC_OK;
}

static qgc_status right_but_unsteady(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    qgc_node *sum = node_named(c->graph, "x_mid[1]");
    if (runs_so_far++ % 2 == 1) {
        qgc_value *first = sum->in[0];
        sum->in[0] = sum->in[1];
        sum->in[1] = first;
    }
    return QGC_OK;
}

static qgc_status wrong_in_the_third_run(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    if (runs_so_far++ == 2)
        node_named(c->graph, "h[2]")->attr[0].number = 0.1;
    return QGC_OK;
}

/* Caches of another type: the same numbers, and the rounding of another. */
static qgc_status stores_bf16(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    qgc_graph *g = c->graph;
    for (size_t i = 0; i < g->n_values; i++)
        if (g->values[i]->dtype == QGC_F16 && g->values[i]->layer == 1 && g->values[i]->kind != QGC_WEIGHT)
            g->values[i]->dtype = QGC_BF16;
    return QGC_OK;
}

static qgc_status drops_an_output(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    c->graph->n_outputs--;
    return QGC_OK;
}

static qgc_status another_output(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    qgc_graph *g = c->graph;
    g->outputs = qgc_arena_grow(g->arena, g->outputs, g->n_outputs, sizeof(qgc_value *));
    g->outputs[g->n_outputs++] = node_named(g, "x_out")->out[0];
    return QGC_OK;
}

static qgc_status outputs_others(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    qgc_graph *g = c->graph;
    qgc_node *head = node_named(g, "logits");
    qgc_node *n = qgc_graph_node(g, QGC_OP_SCALE, head->next, head->at);
    n->n_in = 1;
    n->in[0] = head->out[0];
    n->attr[0].number = 1.25;
    qgc_value *v = qgc_node_output(g, n, "logits");
    head->out[0]->name = "old";
    g->outputs[0] = v;
    return qgc_ops[n->op].infer(n, d);
}

/* Two changes: the graph does not hold together between them. */
static double second_factor;

RULE(break_shape) {
    (void)rw;
    if (strcmp(m->root->out[0]->name, "gate") != 0 || m->root->layer != 1 || now.done[m->root->id])
        return false;
    mark_done(m->root);
    m->root->out[0]->shape.dim[1]++;
    return true;
}

RULE(mend_shape) {
    (void)rw;
    if (strcmp(m->root->out[0]->name, "up") != 0 || m->root->layer != 1 || now.done[m->root->id])
        return false;
    mark_done(m->root);
    qgc_node *gate = m->root->prev;
    gate->out[0]->shape.dim[1]--;
    gate->in[1] = second_factor > 0 ? gate->in[1] : m->root->in[1];
    return true;
}

static const qgc_rule both_rules[] = {{"break", LIN, break_shape}, {"mend", LIN, mend_shape}, {0}},
                      break_rule[] = {{"break", LIN, break_shape}, {0}};

static qgc_status break_and_mend(qgc_pass_context *c, qgc_diag *d) {
    memset(&now, 0, sizeof now);
    second_factor = 1;
    return qgc_rewrite(c, both_rules, d);
}

static qgc_status break_and_mend_wrongly(qgc_pass_context *c, qgc_diag *d) {
    memset(&now, 0, sizeof now);
    second_factor = 0;
    return qgc_rewrite(c, both_rules, d);
}

static qgc_status only_break(qgc_pass_context *c, qgc_diag *d) {
    memset(&now, 0, sizeof now);
    return qgc_rewrite(c, break_rule, d);
}

/* A group that no kernel computes. */
RULE(group_anything) {
    (void)rw;
    if (strcmp(m->root->out[0]->name, "o") != 0 || m->root->layer != 2 || now.done[m->root->id])
        return false;
    mark_done(m->root);
    qgc_graph *g = qgc_rewriter_graph(rw);
    m->root->group = m->root->prev->group = qgc_graph_group(g, "both", 0, 2, m->root->at);
    return true;
}

static const qgc_rule group_rule[] = {{"group", LIN, group_anything}, {0}};

static qgc_status group_wrongly(qgc_pass_context *c, qgc_diag *d) {
    memset(&now, 0, sizeof now);
    return qgc_rewrite(c, group_rule, d);
}

/* --- what neither a list of nodes nor a text of a few tokens shows ---------------------------------------- */

static qgc_value *value_named(const qgc_graph *g, const char *label) {
    for (size_t i = 0; i < g->n_values; i++)
        if (strcmp(qgc_value_label(g->values[i], g->arena), label) == 0)
            return g->values[i];
    fail_msg("no value \"%s\"", label);
    return NULL;
}

static void exchange_names(qgc_value *a, qgc_value *b) {
    const char *name = a->name;
    a->name = b->name;
    b->name = name;
}

#define ODD(name)                                              \
    static qgc_status name(qgc_pass_context *c, qgc_diag *d) { \
        (void)d;                                               \
        qgc_graph *g = c->graph;                               \
        name##_in(g);                                          \
        return QGC_OK;                                         \
    }

static void inputs_exchanged_in(qgc_graph *g) {
    exchange_names(value_named(g, "tokens"), value_named(g, "positions"));
}
ODD(inputs_exchanged)

static void output_renamed_in(qgc_graph *g) {
    value_named(g, "logits")->name = "scores";
}
ODD(output_renamed)

static void outputs_in_another_order_in(qgc_graph *g) {
    qgc_value *first = g->outputs[0];
    g->outputs[0] = g->outputs[1];
    g->outputs[1] = first;
}
ODD(outputs_in_another_order)

static void set_window(const qgc_graph *g, const char *at, double window) {
    node_named(g, at)->attr[qgc_attr_index(QGC_OP_ATTENTION, "window")].number = window;
}

static void window_of_64_in(qgc_graph *g) {
    set_window(g, "a[1]", 64);
}
ODD(window_of_64)

static void window_of_200_in(qgc_graph *g) {
    set_window(g, "a[2]", 200);
}
ODD(window_of_200)

/* One position less than there can be. */
static void window_of_1023_in(qgc_graph *g) {
    set_window(g, "a[3]", 1023);
}
ODD(window_of_1023)

static void window_of_all_in(qgc_graph *g) {
    set_window(g, "a[3]", 1024);
}
ODD(window_of_all)

/* The tensors that are bound stay, but a program would load others. */
static void layer_of_weight_in(qgc_graph *g) {
    value_named(g, "wo[1]")->layer = 2;
}
ODD(layer_of_weight)

static void tensor_of_another_name_in(qgc_graph *g) {
    for (size_t i = 0; i < g->n_weights; i++)
        if (strcmp(g->weights[i].name, "wv") == 0)
            g->weights[i].gguf = "blk.{l}.attn_k.weight";
}
ODD(tensor_of_another_name)

static void weight_stored_otherwise_in(qgc_graph *g) {
    value_named(g, "w_up[2]")->dtype = QGC_F16;
}
ODD(weight_stored_otherwise)

static qgc_weight_decl *declared(qgc_graph *g, const char *name) {
    for (size_t i = 0; i < g->n_weights; i++)
        if (strcmp(g->weights[i].name, name) == 0)
            return &g->weights[i];
    fail_msg("no weight \"%s\"", name);
    return NULL;
}

/* The file at hand is a GGUF: these change what a folder of safetensors would be read as. */
static void tensor_of_another_format_in(qgc_graph *g) {
    declared(g, "wk")->hf = "model.layers.{l}.self_attn.v_proj.weight";
}
ODD(tensor_of_another_format)

static void form_of_another_format_in(qgc_graph *g) {
    declared(g, "wk")->hf_form.heads = 2;
}
ODD(form_of_another_format)

static void untied_in(qgc_graph *g) {
    declared(g, "head")->tied = -1;
}
ODD(untied)

static qgc_param *param_named(qgc_graph *g, const char *name) {
    for (size_t i = 0; i < g->n_params; i++)
        if (strcmp(g->params[i].name, name) == 0)
            return &g->params[i];
    fail_msg("no parameter \"%s\"", name);
    return NULL;
}

static void reads_no_keys_in(qgc_graph *g) {
    param_named(g, "eps")->n_hf = 0;
}
ODD(reads_no_keys)

/* As many keys as before. */
static void reads_another_key_in(qgc_graph *g) {
    static const char *key = "layer_norm_eps";
    param_named(g, "eps")->hf = &key;
}
ODD(reads_another_key)

static void means_another_number_in(qgc_graph *g) {
    qgc_param *p = param_named(g, "kv_heads");
    assert_non_null(p->otherwise);
    p->otherwise[0] *= 2;
}
ODD(means_another_number)

static void forgets_a_parameter_in(qgc_graph *g) {
    g->n_params--;
}
ODD(forgets_a_parameter)

static void of_no_layer_in(qgc_graph *g) {
    declared(g, "wk")->index = NULL;
}
ODD(of_no_layer)

static void one_layer_more_in(qgc_graph *g) {
    g->repeats[0].count++;
}
ODD(one_layer_more)

static void forgets_an_input_in(qgc_graph *g) {
    g->n_inputs--;
}
ODD(forgets_an_input)

static void weights_renamed_in(qgc_graph *g) {
    declared(g, "wk")->name = "keys";
}
ODD(weights_renamed)

static void ignores_all_tensors_in(qgc_graph *g) {
    static const char *all = "*";
    g->ignored = &all;
    g->n_ignored = 1;
}
ODD(ignores_all_tensors)

static void of_another_family_in(qgc_graph *g) {
    g->hf_arch = "llama";
}
ODD(of_another_family)

static void of_another_name_in(qgc_graph *g) {
    g->name = "other";
}
ODD(of_another_name)

static void fewer_turned_in(qgc_graph *g) {
    qgc_node *n = node_named(g, "kr[2]");
    n->attr[qgc_attr_index(n->op, "rotary_dim")].number = 30;
}
ODD(fewer_turned)

static void other_style_in(qgc_graph *g) {
    const int at = qgc_attr_index(QGC_OP_ROPE, "style");
    node_named(g, "qr[2]")->attr[at].choice ^= 1;
    node_named(g, "kr[2]")->attr[at].choice ^= 1;
}
ODD(other_style)

static void marks_positions_in(qgc_graph *g) {
    node_named(g, "seen_now")->in[1] = qgc_graph_input(g, "positions");
}
ODD(marks_positions)

static void group_of_another_layer_in(qgc_graph *g) {
    qgc_node *act = node_named(g, "act[1]");
    act->group = node_named(g, "ff[1]")->group = qgc_graph_group(g, "both", act->repeat, 2, act->at);
}
ODD(group_of_another_layer)

static void fewer_positions_in(qgc_graph *g) {
    param_named(g, "max_positions")->value = 64;
}
ODD(fewer_positions)

/* Layer 2 writes its keys over those of layer 1. */
static void one_cache_for_two_layers_in(qgc_graph *g) {
    node_named(g, "k_all[2]")->in[0] = value_named(g, "k_all[1]");
}
ODD(one_cache_for_two_layers)

static void exchange_states(qgc_graph *g, const char *a, const char *b) {
    qgc_value *x = node_named(g, a)->in[0], *y = node_named(g, b)->in[0];
    node_named(g, a)->in[0] = y;
    node_named(g, b)->in[0] = x;
}

static void caches_of_layers_exchanged_in(qgc_graph *g) {
    exchange_states(g, "k_all[1]", "k_all[2]");
    exchange_states(g, "v_all[1]", "v_all[2]");
}
ODD(caches_of_layers_exchanged)

static void keys_in_the_cache_of_values_in(qgc_graph *g) {
    exchange_states(g, "k_all[0]", "v_all[0]");
}
ODD(keys_in_the_cache_of_values)

static void states_renamed_in(qgc_graph *g) {
    for (size_t i = 0; i < g->n_values; i++)
        if (g->values[i]->kind == QGC_STATE && strcmp(g->values[i]->name, "k_cache") == 0)
            g->values[i]->name = "keys";
}
ODD(states_renamed)

/* Reads the cache of layer 1 where that of layer 2 is meant, only what other steps have left in it. */
static void cache_of_another_layer_in(qgc_graph *g) {
    node_named(g, "a[2]")->in[1] = value_named(g, "k_all[1]");
}
ODD(cache_of_another_layer)

/* Only the draw: its number is made of seed and position. */
static void draws_by_tokens_in(qgc_graph *g) {
    node_named(g, "next")->in[2] = value_named(g, "tokens");
}
ODD(draws_by_tokens)

static void rotated_by_tokens_in(qgc_graph *g) {
    node_named(g, "qr[1]")->in[1] = value_named(g, "tokens");
}
ODD(rotated_by_tokens)

static void no_selection_in(qgc_graph *g) {
    qgc_node *select = node_named(g, "x_rows");
    test_read_other(select->next, select->out[0], select->in[0]);
    qgc_graph_remove(g, select);
}
ODD(no_selection)

/* A value of layer 0 where that of layer 3 is meant, and the other way round. */
static void values_of_layers_exchanged_in(qgc_graph *g) {
    qgc_value *low = value_named(g, "down[0]"), *high = value_named(g, "o[0]");
    qgc_node *sum = node_named(g, "x_mid[0]"), *last = node_named(g, "x[0]");
    sum->in[1] = sum->in[0]; /* o[0] comes after the norm of the MLP */
    last->in[0] = high;
    (void)low;
}
ODD(values_of_layers_exchanged)

static void depends_on_the_layers_in(qgc_graph *g) {
    int layers = 0;
    for (const qgc_node *n = g->first; n; n = n->next)
        layers = n->layer >= layers ? n->layer + 1 : layers;
    if (layers % 4 == 0)
        node_named(g, "m[3]")->attr[0].number += 1e-9;
}
ODD(depends_on_the_layers)

static void depends_on_the_name_in(qgc_graph *g) {
    if (strcmp(g->name, "tiny") == 0)
        node_named(g, "act[1]")->op = QGC_OP_SIGMOID;
}
ODD(depends_on_the_name)

/* A harmless change of what the caches hold, and a window that no step of the text reaches. */
static void other_caches_and_a_window_in(qgc_graph *g) {
    caches_of_layers_exchanged_in(g);
    set_window(g, "a[2]", 64);
}
ODD(other_caches_and_a_window)

/* The list is no order of the data flow any more. */
static void reads_before_it_is_made_in(qgc_graph *g) {
    qgc_node *up = node_named(g, "up[1]"), *norm = node_named(g, "m[1]");
    up->prev->next = up->next;
    up->next->prev = up->prev;
    up->prev = norm->prev;
    up->next = norm;
    norm->prev->next = up;
    norm->prev = up;
    up->order = norm->order;
    norm->order = up->order + 1;
}
ODD(reads_before_it_is_made)

/* Graphs that nobody can go over. */
static void a_list_without_end_in(qgc_graph *g) {
    node_named(g, "h[2]")->next = node_named(g, "h[1]");
}
ODD(a_list_without_end)

static void an_input_that_is_none_in(qgc_graph *g) {
    node_named(g, "h[2]")->in[0] = NULL;
}
ODD(an_input_that_is_none)

static void an_id_that_is_none_in(qgc_graph *g) {
    node_named(g, "h[2]")->id = 1 << 30;
}
ODD(an_id_that_is_none)

static void a_turn_that_is_none_in(qgc_graph *g) {
    node_named(g, "h[2]")->repeat = 7;
}
ODD(a_turn_that_is_none)

static void a_name_that_is_none_in(qgc_graph *g) {
    node_named(g, "h[2]")->out[0]->name = NULL;
}
ODD(a_name_that_is_none)

/* Broken in one change and mended in the next. */
RULE(break_links) {
    (void)rw;
    if (strcmp(m->root->out[0]->name, "gate") != 0 || m->root->layer != 1 || now.done[m->root->id])
        return false;
    mark_done(m->root);
    m->root->next->prev = NULL;
    return true;
}

RULE(mend_links) {
    (void)rw;
    if (strcmp(m->root->out[0]->name, "up") != 0 || m->root->layer != 1 || m->root->prev)
        return false;
    m->root->prev = node_named(qgc_rewriter_graph(rw), "gate[1]");
    return true;
}

static qgc_status break_links_and_mend(qgc_pass_context *c, qgc_diag *d) {
    const qgc_rule rules[] = {{"break", LIN, break_links}, {"mend", LIN, mend_links}, {0}};
    memset(&now, 0, sizeof now);
    return qgc_rewrite(c, rules, d);
}

static qgc_status wrong_when_nobody_watches(qgc_pass_context *c, qgc_diag *d) {
    (void)d;
    if (!c->watch)
        node_named(c->graph, "h[1]")->attr[0].number = 0.1;
    return QGC_OK;
}

/* Rules that never end. */
RULE(swap_for_ever) {
    if (strcmp(m->root->out[0]->name, "x_mid") != 0)
        return false;
    return rewire(rw, m->root, m->root->in[1], m->root->in[0], NULL);
}

RULE(grow_for_ever) {
    if (strcmp(m->root->out[0]->name, "x_out") != 0)
        return false;
    put_number(rw, m->root, QGC_OP_SCALE, m->root->in[0], 2);
    return true;
}

RULE(drift_for_ever) {
    (void)rw;
    if (strcmp(m->root->out[0]->name, "x_out") != 0)
        return false;
    m->root->attr[0].number += 1e-18;
    return true;
}

static qgc_status swaps_for_ever(qgc_pass_context *c, qgc_diag *d) {
    const qgc_rule rules[] = {{"swap", SUM, swap_for_ever}, {0}};
    memset(&now, 0, sizeof now);
    return qgc_rewrite(c, rules, d);
}

static qgc_status grows_for_ever(qgc_pass_context *c, qgc_diag *d) {
    const qgc_rule rules[] = {{"grow", NORM, grow_for_ever}, {0}};
    memset(&now, 0, sizeof now);
    return qgc_rewrite(c, rules, d);
}

static qgc_status drifts_for_ever(qgc_pass_context *c, qgc_diag *d) {
    const qgc_rule rules[] = {{"drift", NORM, drift_for_ever}, {0}};
    memset(&now, 0, sizeof now);
    return qgc_rewrite(c, rules, d);
}

static const struct {
    qgc_pass_info pass;
    qgc_bisect_verdict verdict;
    const char *value, *why, *rule_at; /* NULL: none is named */
} odd[] = {
    {{"uncounted", uncounted, NULL, "planted"}, WRONG, "h[2]", NULL, NULL},
    {{"ignores-limit", ignores_limit, NULL, "planted"}, WRONG, "m[0]", NULL, NULL},
    {{"moves-a-node", moves_a_node, NULL, "planted"}, FINE, NULL, NULL, NULL},
    {{"wrong-from-the-second-run-on", wrong_from_the_second_run_on, NULL, "planted"},
     WRONG,
     NULL,
     "run again",
     NULL},
    {{"wrong-in-the-first-run", wrong_in_the_first_run, NULL, "planted"}, WRONG, "h[2]", NULL, NULL},
    {{"wrong-in-the-third-run", wrong_in_the_third_run, NULL, "planted"}, WRONG, NULL, "run again", NULL},
    {{"right-but-unsteady", right_but_unsteady, NULL, "planted"}, WRONG, NULL, "run again", NULL},
    {{"stores-bf16", stores_bf16, NULL, "planted"}, WRONG, NULL, "is stored as bf16 and was as f16", NULL},
    {{"drops-an-output", drops_an_output, NULL, "planted"}, WRONG, NULL, "output \"next\" is gone", NULL},
    {{"another-output", another_output, NULL, "planted"}, FINE, NULL, NULL, NULL},
    {{"outputs-others", outputs_others, NULL, "planted"}, WRONG, "logits", NULL, NULL},
    {{"break-and-mend", break_and_mend, NULL, "planted"}, FINE, NULL, NULL, NULL},
    {{"break-and-mend-wrongly", break_and_mend_wrongly, NULL, "planted"}, WRONG, "gate[1]", NULL, "up[1]"},
    {{"only-break", only_break, NULL, "planted"}, WRONG, NULL, "does not hold together", "gate[1]"},
    {{"group-wrongly", group_wrongly, NULL, "planted"}, WRONG, NULL, "does not hold together", "o[2]"},
    {{"inputs-exchanged", inputs_exchanged, NULL, "planted"}, WRONG, NULL, "does not hold together", NULL},
    {{"output-renamed", output_renamed, NULL, "planted"}, WRONG, NULL, "output \"logits\" is gone", NULL},
    {{"outputs-in-another-order", outputs_in_another_order, NULL, "planted"}, FINE, NULL, NULL, NULL},
    {{"window-of-64", window_of_64, NULL, "planted"}, WRONG, "a[1]", NULL, NULL},
    {{"window-of-200", window_of_200, NULL, "planted"}, WRONG, "a[2]", "at position 200", NULL},
    {{"window-of-1023", window_of_1023, NULL, "planted"}, WRONG, "a[3]", "at position 1023", NULL},
    {{"window-of-all", window_of_all, NULL, "planted"}, FINE, NULL, NULL, NULL},
    {{"layer-of-weight", layer_of_weight, NULL, "planted"}, WRONG, "o[1]", NULL, NULL},
    {{"tensor-of-another-name", tensor_of_another_name, NULL, "planted"}, WRONG, "v[0]", NULL, NULL},
    {{"weight-stored-otherwise", weight_stored_otherwise, NULL, "planted"},
     WRONG,
     NULL,
     "stored as f16",
     NULL},
    {{"tensor-of-another-format", tensor_of_another_format, NULL, "planted"},
     WRONG,
     NULL,
     "weight \"wk\" is another tensor of a folder of safetensors",
     NULL},
    {{"form-of-another-format", form_of_another_format, NULL, "planted"},
     WRONG,
     NULL,
     "weight \"wk\" is another tensor of a folder of safetensors",
     NULL},
    {{"untied", untied, NULL, "planted"}, WRONG, NULL, "weights are not found any more", NULL},
    {{"reads-no-keys", reads_no_keys, NULL, "planted"},
     WRONG,
     NULL,
     "parameter \"eps\" is not read from the same keys",
     NULL},
    {{"reads-another-key", reads_another_key, NULL, "planted"},
     WRONG,
     NULL,
     "parameter \"eps\" is not read from the same keys",
     NULL},
    {{"means-another-number", means_another_number, NULL, "planted"},
     WRONG,
     NULL,
     "what a weights file says of parameter \"kv_heads\" means something else",
     NULL},
    {{"forgets-a-parameter", forgets_a_parameter, NULL, "planted"}, WRONG, NULL, "is gone", NULL},
    {{"of-no-layer", of_no_layer, NULL, "planted"}, WRONG, NULL, "weights are not found any more", NULL},
    {{"one-layer-more", one_layer_more, NULL, "planted"},
     WRONG,
     NULL,
     "the layers of the graph are not counted as they were",
     NULL},
    {{"forgets-an-input", forgets_an_input, NULL, "planted"}, WRONG, NULL, "input \"rows\" is gone", NULL},
    {{"weights-renamed", weights_renamed, NULL, "planted"}, FINE, NULL, NULL, NULL},
    {{"ignores-all-tensors", ignores_all_tensors, NULL, "planted"}, WRONG, NULL, "ignored", NULL},
    {{"of-another-family", of_another_family, NULL, "planted"}, WRONG, NULL, "the graph is for", NULL},
    {{"of-another-name", of_another_name, NULL, "planted"}, FINE, NULL, NULL, NULL},
    {{"fewer-turned", fewer_turned, NULL, "planted"}, WRONG, "kr[2]", NULL, NULL},
    {{"other-style", other_style, NULL, "planted"}, WRONG, "qr[2]", NULL, NULL},
    {{"marks-positions", marks_positions, NULL, "planted"}, WRONG, NULL, "does not hold together", NULL},
    {{"group-of-another-layer", group_of_another_layer, NULL, "planted"}, FINE, NULL, NULL, NULL},
    {{"fewer-positions", fewer_positions, NULL, "planted"}, WRONG, NULL, "max_positions", NULL},
    {{"one-cache-for-two-layers", one_cache_for_two_layers, NULL, "planted"}, WRONG, "k_all[2]", NULL, NULL},
    {{"caches-of-layers-exchanged", caches_of_layers_exchanged, NULL, "planted"}, FINE, NULL, NULL, NULL},
    {{"keys-in-the-cache-of-values", keys_in_the_cache_of_values, NULL, "planted"}, FINE, NULL, NULL, NULL},
    {{"states-renamed", states_renamed, NULL, "planted"}, FINE, NULL, NULL, NULL},
    {{"cache-of-another-layer", cache_of_another_layer, NULL, "planted"}, WRONG, "a[2]", NULL, NULL},
    {{"draws-by-tokens", draws_by_tokens, NULL, "planted"}, WRONG, NULL, "does not hold together", NULL},
    {{"rotated-by-tokens", rotated_by_tokens, NULL, "planted"}, WRONG, NULL, "does not hold together", NULL},
    {{"no-selection", no_selection, NULL, "planted"}, WRONG, NULL, "does not hold together", NULL},
    {{"values-of-layers-exchanged", values_of_layers_exchanged, NULL, "planted"},
     WRONG,
     "x_mid[0]",
     NULL,
     NULL},
    {{"depends-on-the-layers", depends_on_the_layers, NULL, "planted"}, WRONG, "m[3]", NULL, NULL},
    {{"depends-on-the-name", depends_on_the_name, NULL, "planted"}, WRONG, "act[1]", NULL, NULL},
    {{"other-caches-and-a-window", other_caches_and_a_window, NULL, "planted"},
     WRONG,
     "k_all[1]",
     NULL,
     NULL},
    {{"reads-before-it-is-made", reads_before_it_is_made, NULL, "planted"},
     WRONG,
     NULL,
     "does not hold together",
     NULL},
    {{"wrong-when-nobody-watches", wrong_when_nobody_watches, NULL, "planted"},
     WRONG,
     NULL,
     "run again",
     NULL},
    {{"a-list-without-end", a_list_without_end, NULL, "planted"},
     WRONG,
     NULL,
     "does not hold together",
     NULL},
    {{"an-input-that-is-none", an_input_that_is_none, NULL, "planted"},
     WRONG,
     NULL,
     "does not hold together",
     NULL},
    {{"an-id-that-is-none", an_id_that_is_none, NULL, "planted"},
     WRONG,
     NULL,
     "does not hold together",
     NULL},
    {{"a-turn-that-is-none", a_turn_that_is_none, NULL, "planted"},
     WRONG,
     NULL,
     "does not hold together",
     NULL},
    {{"a-name-that-is-none", a_name_that_is_none, NULL, "planted"},
     WRONG,
     NULL,
     "does not hold together",
     NULL},
    {{"break-links-and-mend", break_links_and_mend, NULL, "planted"}, FINE, NULL, NULL, NULL},
    {{"swaps-for-ever", swaps_for_ever, NULL, "planted"}, WRONG, NULL, "for ever", "x_mid["},
    {{"grows-for-ever", grows_for_ever, NULL, "planted"}, WRONG, NULL, "for ever", "x_out"},
    {{"drifts-for-ever", drifts_for_ever, NULL, "planted"}, WRONG, NULL, "for ever", "x_out"},
};
enum { N_ODD = sizeof odd / sizeof *odd };

/* --- fixture --------------------------------------------------------------------------------------------- */

typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_pool *pool;
    qgc_weights *weights;
} fixture;

static fixture f;

static void ok(qgc_status s) {
    if (s != QGC_OK)
        fail_msg("%s", qgc_test_printed(f.arena, &f.diag));
}

static int setup(void **state) {
    (void)state;
    f = (fixture){.arena = qgc_arena_new(), .pool = qgc_pool_new(1)};
    f.diag = qgc_diag_new(f.arena);
    ok(qgc_weights_open(&f.weights, "models/tiny/tiny.gguf", &f.diag));
    static qgc_pass_info passes[N_ROWS + N_ODD + 1];
    for (size_t i = 0; i < N_ODD; i++)
        passes[N_ROWS + i] = odd[i].pass;
    for (size_t i = 0; i < N_ROWS; i++)
        passes[i] = (qgc_pass_info){rows[i].name, run_planted, NULL, "planted"};
    static const qgc_pass_rows table = {.abi = QGC_PASS_ABI, .passes = passes};
    ok(qgc_passes_add("the test", &table, &f.diag));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    qgc_weights_close(f.weights);
    qgc_pool_drop(f.pool);
    qgc_arena_drop(f.arena);
    return 0;
}

static qgc_bisection bisect_into(const char *passes, qgc_judge_phase phase, const char *folder) {
    static const int32_t tokens[] = {5, 300, 41, 7, 1000, 2, 77, 8, 41, 5, 1400, 9, 630, 12, 300, 41};
    const qgc_bisect_options o = {.run.graph = "models/tiny/tiny.yaml",
                                  .run.weights = f.weights,
                                  .run.passes = passes,
                                  .run.pool = f.pool,
                                  .run.tokens = tokens,
                                  .run.n_tokens = STEPS,
                                  .run.positions = STEPS,
                                  .reproduction = folder,
                                  .phase = phase};
    qgc_bisection b;
    ok(qgc_bisect(&o, &b, &f.diag));
    return b;
}

static qgc_bisection bisect(const char *passes, qgc_judge_phase phase) {
    return bisect_into(passes, phase, NULL);
}

static const char *pipeline_of(const planted *row) {
    const char *mark = row->passes ? strstr(row->passes, "%s") : NULL;
    if (!row->passes)
        return row->name;
    if (!mark)
        return qgc_arena_printf(f.arena, "%s,%s", row->passes, row->name);
    return qgc_arena_printf(f.arena, "%.*s%s%s", (int)(mark - row->passes), row->passes, row->name, mark + 2);
}

/* --- tests ----------------------------------------------------------------------------------------------- */

static const char *report_of(const qgc_bisection *b) {
    const qgc_bisect_options o = {.run.graph = "tiny", .run.positions = STEPS};
    qgc_str text = qgc_str_new(f.arena);
    qgc_bisect_text(b, &o, &text);
    return text.text;
}

/* What is wrong with the verdict; NULL: nothing. */
static const char *objection(const planted *row, const qgc_bisection *b) {
    if (row->verdict == FINE)
        return b->verdict == WRONG ? "it is right" : NULL;
    if (b->verdict != WRONG)
        return "it is wrong";
    if (b->n_faults != (row->faults ? row->faults : 1))
        return "there are more or fewer faults";
    if (row->value && (!b->value || strcmp(b->value, row->value) != 0))
        return "another value is at fault";
    if (row->why && (!b->why || !strstr(b->why, row->why)))
        return "the reason is another";
    if (!b->rule_at || !b->pass)
        return "no change is named";
    if (!row->passes && b->change != 1)
        return "the first change is another";
    return NULL;
}

static void each_pass_is_judged_as_it_is(void **state) {
    (void)state;
    int failed = 0, wrong = 0, right = 0;
    double slowest = 0;
    for (size_t i = 0; i < N_ROWS; i += EVERY) {
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        const qgc_bisection b = bisect(pipeline_of(&rows[i]), QGC_PHASE_BOTH);
        clock_gettime(CLOCK_MONOTONIC, &end);
        slowest =
            fmax(slowest, (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec));
        const char *why = objection(&rows[i], &b);
        if (why)
            print_error("%s: %s\n%s\n", rows[i].name, why, report_of(&b));
        failed += why != NULL;
        wrong += rows[i].verdict == WRONG;
        right += rows[i].verdict != WRONG;
    }
    print_message("%d wrong and %d right passes, at most %.2f s\n", wrong, right, slowest);
    assert_true(EVERY > 1 || (wrong >= 60 && right >= 60));
    assert_int_equal(failed, 0);
}

static bool is_text(const char *got, const char *want) {
    return want ? got && strstr(got, want) : !got;
}

static void passes_that_break_the_rules_are_found(void **state) {
    (void)state;
    int failed = 0;
    for (size_t i = 0; i < N_ODD; i++) {
        runs_so_far = 0;
        const qgc_bisection b = bisect(odd[i].pass.name, QGC_PHASE_BOTH);
        const bool right = (b.verdict == WRONG) == (odd[i].verdict == WRONG) &&
                           (odd[i].verdict != WRONG ||
                            (is_text(b.value, odd[i].value) && is_text(b.why, odd[i].why) &&
                             is_text(b.rule_at, odd[i].rule_at) && strcmp(b.pass, odd[i].pass.name) == 0));
        if (!right)
            print_error("%s:\n%s\n", odd[i].pass.name, report_of(&b));
        failed += !right;
    }
    assert_int_equal(failed, 0);
}

/* In prefill and in decode alone. */
static void each_phase_finds_them_too(void **state) {
    (void)state;
    int failed = 0;
    for (size_t i = 0; i < 2 * N_ROWS; i += 3 * EVERY) {
        const planted *row = &rows[i / 2];
        const qgc_judge_phase phase = i % 2 ? QGC_PHASE_ONLY_DECODE : QGC_PHASE_ONLY_PREFILL;
        const qgc_bisection b = bisect(pipeline_of(row), phase);
        const char *why = objection(row, &b);
        if (why)
            print_error("%s in %s: %s\n%s\n", row->name, i % 2 ? "decode" : "prefill", why, report_of(&b));
        failed += why != NULL;
        if (b.where && !strstr(b.where, i % 2 ? "decode step" : "prefill"))
            fail_msg("%s: found %s", row->name, b.where);
    }
    assert_int_equal(failed, 0);
}

/* A small graph is only written where it shows the fault, and has few nodes. */
static void most_faults_are_reproduced_by_a_few_nodes(void **state) {
    (void)state;
    const char *folder = qgc_test_folder(f.arena);
    int written = 0, wrong = 0;
    for (size_t i = 0; i < N_ROWS; i += EVERY) {
        if (rows[i].verdict != WRONG || rows[i].passes || rows[i].why)
            continue;
        const qgc_bisection b = bisect_into(rows[i].name, QGC_PHASE_BOTH, folder);
        wrong++;
        if (b.n_files == 0) {
            print_message("%s: not written: %s\n", rows[i].name, b.not_written);
            continue;
        }
        qgc_source bad;
        ok(qgc_file_read(&bad, b.files[0], 1 << 20, "YAML", &f.diag));
        const int nodes = count(bad.text, "- {op:");
        if (nodes > 12)
            fail_msg("%s: %d nodes:\n%s", rows[i].name, nodes, bad.text);
        written++;
    }
    print_message("%d of %d are reproduced\n", written, wrong);
    qgc_test_folder_drop(f.arena, folder);
    assert_true(EVERY > 1 || written * 10 >= wrong * 9);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_pass_is_judged_as_it_is),
        cmocka_unit_test(passes_that_break_the_rules_are_found),
        cmocka_unit_test(each_phase_finds_them_too),
        cmocka_unit_test(most_faults_are_reproduced_by_a_few_nodes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
