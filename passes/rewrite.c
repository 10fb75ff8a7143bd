#include "passes/rewrite.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "codegen/stage/stage.h"
#include "passes/load.h"

/* The nodes that read a value, each once, in no order. */
typedef struct {
    qgc_node **nodes;
    size_t n;
} reader_list;

/* Nodes of a match that are told of. */
enum { MOST_CONCERNED = 32 };

struct qgc_rewriter {
    qgc_pass_context *pass;
    qgc_diag *diag;
    const qgc_rule *rule;
    const char *said; /* what the last call had to say about the match at hand */
    qgc_status status;
    qgc_map logged;
    const qgc_value *concerned[MOST_CONCERNED]; /* results of the nodes that the match at hand is about */
    int n_concerned;
    /* What the graph does not keep; the calls by which rules change it keep these up to date. */
    reader_list *readers; /* by value id */
    int *uses;            /* by value id: how often it is read */
    size_t n_values;
    int *members; /* by group: nodes */
    size_t n_groups;
};

qgc_graph *qgc_rewriter_graph(qgc_rewriter *rw) {
    return rw->pass->graph;
}

const qgc_pass_context *qgc_rewriter_pass(const qgc_rewriter *rw) {
    return rw->pass;
}

/* --- the log --------------------------------------------------------------------------------------------- */

/* A match may come again in the next sweep. */
static bool is_new(qgc_rewriter *rw, const char *rule, const char *node, bool fired, const char *text) {
    const char *key = qgc_arena_printf(rw->pass->scratch, "%d %s\n%s\n%s", fired, node, rule, text);
    return qgc_map_put(&rw->logged, key, rw);
}

static void add_concerned(qgc_rewriter *rw, const qgc_node *n) {
    bool known = rw->n_concerned == MOST_CONCERNED;
    for (int i = 0; i < rw->n_concerned; i++)
        known = known || rw->concerned[i] == n->out[0];
    if (!known)
        rw->concerned[rw->n_concerned++] = n->out[0];
}

/* The labels of what the match is about, but for `at`. */
static void name_others(const qgc_rewriter *rw, const qgc_value *at, qgc_pass_event *e, qgc_arena *a) {
    const char **names = qgc_arena_array(a, (size_t)rw->n_concerned + 1, sizeof(char *));
    for (int i = 0; i < rw->n_concerned; i++)
        if (rw->concerned[i] != at)
            names[e->n_others++] = qgc_value_label(rw->concerned[i], a);
    e->others = names;
}

static void log_event(qgc_rewriter *rw, const qgc_node *at, bool fired, const char *text) {
    qgc_pass_run *run = rw->pass->run;
    qgc_arena *a = rw->pass->graph->arena;
    const char *label = qgc_value_label(at->out[0], a);
    if (!is_new(rw, rw->rule->name, label, fired, text))
        return;
    run->events = qgc_arena_grow(a, run->events, run->n_events, sizeof *run->events);
    run->events[run->n_events++] = (qgc_pass_event){.rule = rw->rule->name,
                                                    .at = at->at,
                                                    .node = label,
                                                    .layer = at->layer,
                                                    .fired = fired,
                                                    .text = qgc_arena_strdup(a, text)};
    name_others(rw, at->out[0], &run->events[run->n_events - 1], a);
}

bool qgc_decline(qgc_rewriter *rw, const qgc_node *at, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const char *text = qgc_arena_vprintf(rw->pass->scratch, format, args);
    va_end(args);
    log_event(rw, at, false, text);
    return false;
}

/* --- matching -------------------------------------------------------------------------------------------- */

/* One attempt to match a pattern. At each node whose inputs may be swapped there are two choices; an attempt follows a list of
 * them, and what is not in the list is not swapped. After an attempt that failed, the last choice that was not swapped is, and the
 * ones after it are made anew: so all of them are tried, the innermost first. */
enum { MAX_CHOICES = 16 };

typedef struct {
    qgc_rewriter *rw;
    qgc_match *m;
    bool swapped[MAX_CHOICES];
    int n_given, n_made;
} attempt;

static bool match_value(attempt *a, const qgc_pattern *p, qgc_value *v);

static bool match_inputs(attempt *a, const qgc_pattern *p, qgc_node *n, bool swapped) {
    for (int i = 0; i < QGC_PATTERN_INPUTS; i++) {
        if (!p->in[i])
            continue;
        if (i >= n->n_in || !match_value(a, p->in[i], n->in[swapped && i < 2 ? 1 - i : i]))
            return false;
    }
    return true;
}

static bool is_swapped(attempt *a, const qgc_node *n) {
    const bool may_be = qgc_ops[n->op].traits & QGC_COMMUTES && n->n_in == 2 && n->in[0] != n->in[1];
    if (!may_be || a->n_made == MAX_CHOICES)
        return false;
    const int at = a->n_made++;
    if (at >= a->n_given)
        a->swapped[at] = false;
    return a->swapped[at];
}

static bool is_of_kind(const qgc_pattern *p, const qgc_node *n) {
    if (p->kind == QGC_PATTERN_OP)
        return n->op == p->op;
    return p->kind == QGC_PATTERN_ANY_OP || qgc_ops[n->op].traits & QGC_POINTWISE;
}

static bool is_condition(const qgc_pattern *p) {
    return p->kind >= QGC_PATTERN_ATTR;
}

/* The attribute of that name, or -1. */
static int find_attr(qgc_op op, const char *name) {
    const qgc_attr_spec *attrs = qgc_ops[op].attrs;
    for (int i = 0; attrs[i].name; i++)
        if (strcmp(attrs[i].name, name) == 0)
            return i;
    return -1;
}

static bool compares(double a, qgc_comparison how, double b) {
    switch (how) {
    case QGC_IS:
        return a == b;
    case QGC_IS_NOT:
        return a != b;
    case QGC_BELOW:
        return a < b;
    case QGC_ABOVE:
        return a > b;
    }
    return false;
}

static bool is_in_layers(const qgc_graph *g, const qgc_pattern *p, const qgc_node *n) {
    if (n->repeat < 0)
        return false;
    const int turns = g->repeats[n->repeat].count;
    return n->layer >= (p->first < 0 ? turns + p->first : p->first) &&
           n->layer <= (p->last < 0 ? turns + p->last : p->last);
}

static bool holds(const qgc_graph *g, const qgc_pattern *p, const qgc_node *n) {
    if (p->kind == QGC_PATTERN_LAYERS)
        return is_in_layers(g, p, n);
    const int at = find_attr(n->op, p->attr);
    if (at < 0)
        return false;
    const char *const *words = qgc_ops[n->op].attrs[at].choices;
    if (p->kind == QGC_PATTERN_WORD)
        return words[0] && strcmp(words[n->attr[at].choice], p->word) == 0;
    return !words[0] && compares(n->attr[at].number, p->how, p->number);
}

/* The depth of the calls is that of the pattern, which is a constant of the program. */
static bool match_node(attempt *a, const qgc_pattern *p, qgc_node *n) { // NOLINT(misc-no-recursion)
    for (; is_condition(p); p = p->in[0])
        if (!holds(a->rw->pass->graph, p, n))
            return false;
    if (!is_of_kind(p, n) || (p->one_reader && a->rw->uses[n->out[0]->id] != 1))
        return false;
    if (p->capture >= 0) {
        if (a->m->node[p->capture] && a->m->node[p->capture] != n)
            return false;
        a->m->node[p->capture] = n;
    }
    add_concerned(a->rw, n);
    return match_inputs(a, p, n, is_swapped(a, n));
}

static bool match_value(attempt *a, const qgc_pattern *p, qgc_value *v) { // NOLINT(misc-no-recursion)
    if (p->kind != QGC_PATTERN_VALUE)
        return v->maker && match_node(a, p, v->maker);
    if (p->capture < 0)
        return true;
    if (a->m->value[p->capture] && a->m->value[p->capture] != v)
        return false;
    a->m->value[p->capture] = v;
    return true;
}

static bool match_root(qgc_rewriter *rw, const qgc_pattern *p, qgc_node *n, qgc_match *m) {
    attempt a = {.rw = rw, .m = m};
    for (;;) {
        *m = (qgc_match){.root = n};
        a.n_made = 0;
        rw->n_concerned = 0;
        if (match_node(&a, p, n))
            return true;
        int last = a.n_made;
        while (last > 0 && a.swapped[last - 1])
            last--;
        if (last == 0)
            return false;
        a.swapped[last - 1] = true;
        a.n_given = last;
    }
}

static bool has_word(const qgc_attr_spec *attr, const char *word) {
    for (int i = 0; i < QGC_MAX_CHOICES && attr->choices[i]; i++)
        if (strcmp(attr->choices[i], word) == 0)
            return true;
    return false;
}

/* Can the condition hold for any node? NULL, or what of it cannot. */
static const char *misfit(const qgc_pattern *condition, qgc_arena *a) {
    const qgc_pattern *node = condition->in[0];
    while (node && is_condition(node))
        node = node->in[0];
    if (!node || node->kind == QGC_PATTERN_VALUE)
        return "has a condition around what is no node";
    if (condition->kind == QGC_PATTERN_LAYERS || node->kind != QGC_PATTERN_OP)
        return NULL;
    const int at = find_attr(node->op, condition->attr);
    const bool is_word = condition->kind == QGC_PATTERN_WORD;
    const char *op = qgc_ops[node->op].name;
    if (at < 0)
        return qgc_arena_printf(a, "asks for attribute \"%s\", which %s does not have", condition->attr, op);
    const qgc_attr_spec *attr = &qgc_ops[node->op].attrs[at];
    if (is_word != (attr->choices[0] != NULL))
        return qgc_arena_printf(a, "asks for attribute \"%s\" of %s as a %s, which it is not", attr->name, op,
                                is_word ? "word" : "number");
    if (is_word && !has_word(attr, condition->word))
        return qgc_arena_printf(a, "asks for attribute \"%s\" of %s to be \"%s\", which is none of its words",
                                attr->name, op, condition->word);
    return NULL;
}

static const char *misfit_in(const qgc_pattern *p, qgc_arena *a) { // NOLINT(misc-no-recursion)
    const char *why = is_condition(p) ? misfit(p, a) : NULL;
    for (int i = 0; i < QGC_PATTERN_INPUTS && !why; i++)
        why = p->in[i] ? misfit_in(p->in[i], a) : NULL;
    return why;
}

static qgc_status check_rules(const qgc_rule *rules, qgc_diag *d) {
    for (const qgc_rule *r = rules; r->name; r++) {
        const char *why = misfit_in(r->pattern, d->arena);
        if (why)
            return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "rule \"%s\" %s", r->name, why);
    }
    return QGC_OK;
}

/* --- who reads what, and how large groups are ------------------------------------------------------------- */

static void add_value(qgc_rewriter *rw) {
    rw->readers = qgc_arena_grow(rw->pass->scratch, rw->readers, rw->n_values, sizeof *rw->readers);
    rw->uses = qgc_arena_grow(rw->pass->scratch, rw->uses, rw->n_values, sizeof *rw->uses);
    rw->readers[rw->n_values] = (reader_list){0};
    rw->uses[rw->n_values++] = 0;
}

static void add_reader(qgc_rewriter *rw, const qgc_value *v, qgc_node *n) {
    reader_list *list = &rw->readers[v->id];
    list->nodes = qgc_arena_grow(rw->pass->scratch, list->nodes, list->n, sizeof(qgc_node *));
    list->nodes[list->n++] = n;
}

static void drop_reader(qgc_rewriter *rw, const qgc_value *v, const qgc_node *n) {
    reader_list *list = &rw->readers[v->id];
    for (size_t i = list->n; i > 0; i--) /* what came last is most likely to go */
        if (list->nodes[i - 1] == n) {
            list->nodes[i - 1] = list->nodes[--list->n];
            return;
        }
}

/* Does a node read v by one of its inputs before number `end`? */
static bool reads_before(const qgc_node *n, const qgc_value *v, int end) {
    for (int i = 0; i < end; i++)
        if (n->in[i] == v)
            return true;
    return false;
}

static void count_inputs(qgc_rewriter *rw, qgc_node *n, int by) {
    while (rw->n_values < rw->pass->graph->n_values)
        add_value(rw);
    for (int i = 0; i < n->n_in; i++) {
        rw->uses[n->in[i]->id] += by;
        if (reads_before(n, n->in[i], i))
            continue;
        if (by > 0)
            add_reader(rw, n->in[i], n);
        else
            drop_reader(rw, n->in[i], n);
    }
}

static void count_member(qgc_rewriter *rw, const qgc_node *n, int by) {
    while (rw->n_groups < rw->pass->graph->n_groups) {
        rw->members = qgc_arena_grow(rw->pass->scratch, rw->members, rw->n_groups, sizeof *rw->members);
        rw->members[rw->n_groups++] = 0;
    }
    if (n->group >= 0)
        rw->members[n->group] += by;
}

static void take_stock(qgc_rewriter *rw) {
    const qgc_graph *g = rw->pass->graph;
    for (qgc_node *n = g->first; n; n = n->next) {
        count_inputs(rw, n, 1);
        count_member(rw, n, 1);
    }
    for (size_t i = 0; i < g->n_outputs; i++) {
        assert(rw->uses); /* a node makes it */
        rw->uses[g->outputs[i]->id]++;
    }
}

/* --- driving --------------------------------------------------------------------------------------------- */

enum { CHANGES_A_NODE = 1000, GROWTH = 64 };

static void tell_before(const qgc_rewriter *rw, const qgc_node *n) {
    const qgc_pass_watch *watch = rw->pass->watch;
    if (watch && watch->before)
        watch->before(watch->context, rw->pass->run->name, rw->rule->name, n, rw->pass->graph);
}

/* An error of the op's rule comes first. */
static void tell_after(qgc_rewriter *rw, const qgc_node *n, bool fired) {
    const qgc_pass_watch *watch = rw->pass->watch;
    if (!watch || !watch->after || rw->status != QGC_OK)
        return;
    const qgc_pass_step step = {.run = rw->pass->run,
                                .rule = rw->rule->name,
                                .node = qgc_value_label(n->out[0], rw->pass->graph->arena),
                                .at = n->at,
                                .fired = fired};
    rw->status = watch->after(watch->context, &step, rw->pass->graph, rw->diag);
    if (rw->status == QGC_OK && watch->go_on)
        watch->go_on(watch->context, rw->pass->run->name, rw->pass->graph);
}

/* Tries each rule at one node; true if one changed the graph, or failed. */
static bool rewrite_at(qgc_rewriter *rw, const qgc_rule *rules, qgc_node *n) {
    for (rw->rule = rules; rw->rule->name && n->n_out > 0;
         rw->rule++) { /* a rule may erase it and say that it did nothing */
        qgc_match m;
        rw->said = "";
        if (!match_root(rw, rw->rule->pattern, n, &m))
            continue;
        tell_before(rw, n);
        const bool fired = rw->rule->apply(rw, &m);
        if (fired) {
            log_event(rw, n, true, rw->said);
            rw->pass->run->n_fired++;
        }
        tell_after(rw, n, fired);
        if (fired || rw->status != QGC_OK)
            return true;
    }
    return false;
}

qgc_status qgc_rewrite(qgc_pass_context *c, const qgc_rule *rules, qgc_diag *d) {
    qgc_graph *g = c->graph;
    qgc_rewriter rw = {.pass = c, .diag = d, .logged = qgc_map_new(c->scratch)};
    QGC_TRY(check_rules(rules, d));
    take_stock(&rw);
    for (size_t i = 0; i < c->run->n_events; i++) {
        const qgc_pass_event *e = &c->run->events[i];
        is_new(&rw, e->rule, e->node, e->fired, e->text);
    }
    const size_t most = CHANGES_A_NODE * (g->n_nodes + 1), most_nodes = GROWTH * (g->n_nodes + GROWTH);
    size_t changes = 0;
    for (bool changed = true; changed;) {
        changed = false;
        /* Rules move and remove nodes, so a sweep goes over those that were there when it began. */
        size_t n = 0;
        qgc_node **nodes = qgc_arena_array(c->scratch, g->n_nodes, sizeof(qgc_node *));
        for (qgc_node *node = g->first; node && n < g->n_nodes; node = node->next)
            nodes[n++] = node;
        for (size_t i = 0; i < n; i++) {
            if (c->run->n_fired >= c->most)
                return QGC_OK;
            if (nodes[i]->n_out == 0 || !rewrite_at(&rw, rules, nodes[i])) /* erased nodes make nothing */
                continue;
            changed = true;
            if (++changes > most || g->n_nodes > most_nodes)
                return qgc_fail(d, QGC_ERR_INPUT, nodes[i]->at, "rule \"%s\" goes on for ever",
                                rw.rule->name);
            if (rw.status != QGC_OK)
                return rw.status;
        }
    }
    return QGC_OK;
}

/* --- what rules may do ----------------------------------------------------------------------------------- */

int qgc_readers(const qgc_rewriter *rw, const qgc_value *v, qgc_node **out, int room) {
    const reader_list *list = &rw->readers[v->id];
    int n = 0;
    for (size_t i = 0; i < list->n; i++) { /* the first `room` of them, sorted */
        qgc_node *node = list->nodes[i];
        int at = n < room ? n++ : room;
        if (at == room && (room == 0 || out[--at]->order < node->order))
            continue;
        for (; at > 0 && out[at - 1]->order > node->order; at--)
            out[at] = out[at - 1];
        out[at] = node;
    }
    return (int)list->n;
}

int qgc_uses(const qgc_rewriter *rw, const qgc_value *v) {
    return rw->uses[v->id];
}

static bool is_output(const qgc_graph *g, const qgc_value *v) {
    for (size_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i] == v)
            return true;
    return false;
}

void qgc_replace(qgc_rewriter *rw, qgc_value *old, qgc_value *now) {
    qgc_graph *g = rw->pass->graph;
    reader_list *list = &rw->readers[old->id];
    for (size_t k = 0; k < list->n; k++) {
        qgc_node *n = list->nodes[k];
        if (!reads_before(n, now, n->n_in))
            add_reader(rw, now, n);
        for (int i = 0; i < n->n_in; i++)
            if (n->in[i] == old)
                n->in[i] = now;
    }
    list->n = 0;
    int stays = 0;
    for (size_t i = 0; i < g->n_outputs; i++) {
        if (g->outputs[i] != old)
            continue;
        if (is_output(g, now)) { /* under another name: one value cannot be two outputs */
            stays++;
            continue;
        }
        g->outputs[i] = now;
        now->name = old->name; /* outputs are found by name */
    }
    rw->uses[now->id] += rw->uses[old->id] - stays;
    rw->uses[old->id] = stays;
}

/* The rule is at fault. What it has done before stays what is told. */
static void misuse(qgc_rewriter *rw, const qgc_node *n, const char *what) {
    if (rw->status == QGC_OK)
        rw->status = qgc_fail(rw->diag, QGC_ERR_INPUT, n->at, "rule \"%s\" %s", rw->rule->name, what);
}

void qgc_set_input(qgc_rewriter *rw, qgc_node *n, int i, qgc_value *v) {
    if (i < 0 || i >= n->n_in) {
        misuse(rw, n,
               qgc_arena_printf(rw->pass->scratch, "sets input %d of %s, which has %d", i,
                                qgc_ops[n->op].name, n->n_in));
        return;
    }
    count_inputs(rw, n, -1);
    n->in[i] = v;
    count_inputs(rw, n, 1);
}

qgc_node *qgc_insert_like(qgc_rewriter *rw, qgc_node *before, const qgc_node *like, const char *name) {
    qgc_node *n = qgc_insert(rw, before, like->op, name, like->in, like->n_in);
    memcpy(n->attr, like->attr, sizeof n->attr);
    return n;
}

qgc_node *qgc_insert(qgc_rewriter *rw, qgc_node *before, qgc_op op, const char *name, qgc_value *const *in,
                     int n_in) {
    qgc_graph *g = rw->pass->graph;
    qgc_node *n = qgc_graph_node(g, op, before, before->at);
    n->repeat = before->repeat;
    n->layer = before->layer;
    if (n_in > QGC_MAX_INPUTS)
        misuse(rw, n, qgc_arena_printf(rw->pass->scratch, "makes %s of %d inputs", qgc_ops[op].name, n_in));
    n->n_in = n_in < QGC_MAX_INPUTS ? n_in : QGC_MAX_INPUTS;
    for (int i = 0; i < n->n_in; i++)
        n->in[i] = in[i];
    qgc_node_output(g, n, qgc_arena_strdup(g->arena, name));
    for (int i = 1; i < qgc_ops[op].n_outputs; i++)
        qgc_node_output(g, n, qgc_arena_printf(g->arena, "%s_%d", name, i + 1));
    count_inputs(rw, n, 1);
    return n;
}

bool qgc_settle(qgc_rewriter *rw, qgc_node *n) {
    const qgc_op_info *op = &qgc_ops[n->op];
    if (n->n_in < op->min_inputs || n->n_in > op->max_inputs)
        misuse(rw, n,
               qgc_arena_printf(rw->pass->scratch, "makes %s of %d inputs, expected %s", op->name, n->n_in,
                                op->signature));
    if (rw->status == QGC_OK)
        rw->status = op->infer(n, rw->diag);
    return rw->status == QGC_OK;
}

void qgc_erase(qgc_rewriter *rw, qgc_node *n) {
    count_inputs(rw, n, -1);
    count_member(rw, n, -1);
    qgc_graph_remove(rw->pass->graph, n);
    n->n_out = 0;
}

/* --- derived weights ------------------------------------------------------------------------------------- */

/* The declaration, of that name or that with a number, or a new one. */
static int declare(qgc_graph *g, const char *name, const qgc_derivation *how, const qgc_value *like) {
    const char *free_name = name;
    for (size_t i = 0, n = 2; i < g->n_weights; i++) {
        const qgc_weight_decl *decl = &g->weights[i];
        const int repeat = decl->index ? decl->repeat : -1;
        if (repeat == like->repeat && qgc_derivation_equal(&decl->derived, how))
            return (int)i;
        if (strcmp(decl->name, free_name) == 0) {
            free_name = qgc_arena_printf(g->arena, "%s_%zu", name, n++);
            i = (size_t)-1; /* from the start */
        }
    }
    qgc_weight_decl *all = qgc_arena_array(g->arena, g->n_weights + 1, sizeof *all);
    memcpy(all, g->weights, g->n_weights * sizeof *all);
    all[g->n_weights] = (qgc_weight_decl){.name = qgc_arena_strdup(g->arena, free_name),
                                          .at = like->at,
                                          .repeat = like->repeat,
                                          .index = like->repeat < 0 ? NULL : g->repeats[like->repeat].index,
                                          .tied = -1,
                                          .derived = *how};
    g->weights = all;
    return (int)g->n_weights++;
}

/* Its value in a layer: the one that is there, or a new one in its place among the others. */
static qgc_value *declared_value(qgc_graph *g, int at, int layer) {
    qgc_weight_decl *decl = &g->weights[at];
    int place = 0;
    while (place < decl->count && decl->values[place]->layer < layer)
        place++;
    if (place < decl->count && decl->values[place]->layer == layer)
        return decl->values[place];
    qgc_value **values = qgc_arena_array(g->arena, (size_t)decl->count + 1, sizeof(qgc_value *));
    for (int i = 0; i < decl->count; i++)
        values[i < place ? i : i + 1] = decl->values[i];
    qgc_value *v = values[place] = qgc_graph_value(g, QGC_WEIGHT, decl->name, decl->at);
    v->decl = at;
    v->repeat = decl->repeat;
    v->layer = layer;
    decl->values = values;
    decl->count++;
    return v;
}

/* Where they come from, and the source of a layer, if there is one: all others are of it, or of none. NULL, or why not. */
static const char *check_origin(const qgc_graph *g, qgc_derivation *how, qgc_value *const *of, int n,
                                const qgc_value **like) {
    *like = of[0];
    how->n_from = n;
    for (int i = 0; i < n; i++) {
        if (of[i]->kind != QGC_WEIGHT)
            return qgc_arena_printf(g->arena, "\"%s\" is no weight", of[i]->name);
        how->from[i] = of[i]->decl;
        const bool of_layer = of[i]->layer >= 0;
        if (of_layer && (*like)->layer >= 0 &&
            (of[i]->repeat != (*like)->repeat || of[i]->layer != (*like)->layer))
            return "its sources are of several layers";
        if (of_layer)
            *like = of[i];
    }
    return NULL;
}

static qgc_value *derive_failed(qgc_rewriter *rw, const char *name, const qgc_value *like, const char *why) {
    rw->status = qgc_fail(rw->diag, QGC_ERR_INPUT, like->at,
                          "weight \"%s\" of rule \"%s\" cannot be derived: %s", name, rw->rule->name, why);
    return NULL;
}

qgc_value *qgc_derive(qgc_rewriter *rw, const char *name, const qgc_derivation *how, qgc_value *const *of,
                      int n) {
    qgc_graph *g = rw->pass->graph;
    qgc_derivation made = *how;
    const qgc_value *like;
    assert(n >= 1);
    if (n > QGC_MAX_SOURCES)
        return derive_failed(rw, name, of[0], "it has too many sources");
    const char *why = check_origin(g, &made, of, n, &like);
    if (why)
        return derive_failed(rw, name, like, why);
    const qgc_value origin = {.at = like->at, .repeat = like->layer < 0 ? -1 : like->repeat};
    qgc_value *v = declared_value(g, declare(g, name, &made, &origin), like->layer < 0 ? -1 : like->layer);
    if (v->shape.rank)
        return v;
    qgc_tensor shape = {.name = NULL};
    why = qgc_weight_misfit(g, v, &shape, g->arena);
    if (why)
        return derive_failed(rw, name, like, why);
    v->shape.rank = shape.rank;
    memcpy(v->shape.dim, shape.shape, sizeof v->shape.dim);
    v->dtype = shape.dtype;
    while (rw->n_values < g->n_values)
        add_value(rw);
    return v;
}

/* --- fusing ---------------------------------------------------------------------------------------------- */

/* "mlp", or "mlp_2" if the iteration of the repeat has nodes in an "mlp" that does not take part. */
static const char *free_name(qgc_rewriter *rw, const char *name, const qgc_node *n) {
    const qgc_graph *g = rw->pass->graph;
    const char *candidate = name;
    for (int i = 2;; i++) {
        int group = qgc_graph_find_group(g, candidate, n->repeat, n->layer);
        if (group < 0 || (size_t)group >= rw->n_groups || rw->members[group] == 0)
            return candidate;
        candidate = qgc_arena_printf(g->arena, "%s_%d", name, i);
    }
}

/* Nodes that are to become a group, in the order of the list, and the groups that they are in now. */
typedef struct {
    qgc_node *nodes[QGC_MAX_GROUP];
    int groups[QGC_MAX_GROUP];
    int n;
} gathered;

/* False if there are more than there is room for. */
static bool add_node(gathered *all, qgc_node *n) {
    int at = all->n;
    for (int i = 0; i < all->n; i++)
        if (all->nodes[i] == n)
            return true;
    if (all->n == QGC_MAX_GROUP)
        return false;
    for (; at > 0 && all->nodes[at - 1]->order > n->order; at--) {
        all->nodes[at] = all->nodes[at - 1];
        all->groups[at] = all->groups[at - 1];
    }
    all->nodes[at] = n;
    all->groups[at] = n->group;
    all->n++;
    return true;
}

/* A node and all of its group, whose nodes stand together. */
static bool add_group(gathered *all, qgc_node *n) {
    qgc_node *first = n;
    while (n->group >= 0 && first->prev && first->prev->group == n->group)
        first = first->prev;
    bool fits = add_node(all, first);
    for (qgc_node *node = first->next; node && n->group >= 0 && node->group == n->group; node = node->next)
        fits = fits && add_node(all, node);
    return fits;
}

static bool are_one_group(qgc_node *const *nodes, int n) {
    bool one = n == 0 || nodes[0]->group >= 0;
    for (int i = 1; i < n; i++)
        one = one && nodes[i]->group == nodes[0]->group;
    return one;
}

/* The group that is there takes in the others; else there is a new one. */
static int group_for(qgc_rewriter *rw, const char *name, qgc_node *const *nodes, int n) {
    qgc_graph *g = rw->pass->graph;
    for (int i = 0; i < n; i++)
        if (nodes[i]->group >= 0)
            return nodes[i]->group;
    int group =
        qgc_graph_group(g, free_name(rw, name, nodes[0]), nodes[0]->repeat, nodes[0]->layer, nodes[0]->at);
    g->groups[group].at = nodes[0]->at; /* it may be left from nodes that are gone */
    g->groups[group].kernel = NULL;
    return group;
}

static void put_in_group(qgc_rewriter *rw, gathered *all, int group) {
    for (int i = 0; i < all->n; i++) {
        count_member(rw, all->nodes[i], -1);
        all->nodes[i]->group = group;
        count_member(rw, all->nodes[i], 1);
    }
}

static void put_back(qgc_rewriter *rw, gathered *all) {
    for (int i = 0; i < all->n; i++) {
        count_member(rw, all->nodes[i], -1);
        all->nodes[i]->group = all->groups[i];
        count_member(rw, all->nodes[i], 1);
    }
}

/* NULL where a kernel computes the nodes, which then stand together, or the reason. */
static const char *group_misfit(qgc_rewriter *rw, gathered *all) {
    qgc_graph *g = rw->pass->graph;
    const qgc_kernel_row *kernel = qgc_node_kernel(g, all->nodes[0]);
    qgc_stage stage;
    const char *why = "";
    const qgc_node *between = NULL;
    if (!qgc_stage_by(kernel, (const qgc_node *const *)all->nodes, all->n, rw->uses, &stage, &why,
                      rw->pass->scratch))
        return why;
    if (qgc_nodes_gather(g, all->nodes, all->n, &between))
        return NULL;
    return qgc_arena_printf(rw->pass->scratch, "\"%s\" lies between",
                            qgc_value_label(between->out[0], g->arena));
}

/* One of the nodes is in a group that a kernel from outside computes. */
static const qgc_node *of_outside(const qgc_graph *g, qgc_node *const *nodes, int n) {
    for (int i = 0; i < n; i++)
        if (qgc_node_kernel(g, nodes[i]))
            return nodes[i];
    return NULL;
}

/* `kernel` is one from outside, or NULL. */
static bool fuse(qgc_rewriter *rw, const qgc_kernel_row *kernel, const char *name, qgc_node *const *nodes,
                 int n) {
    qgc_graph *g = rw->pass->graph;
    gathered all = {.n = 0};
    bool fits = true;
    for (int i = 0; i < n; i++)
        add_concerned(rw, nodes[i]);
    const qgc_node *taken = of_outside(g, nodes, n);
    if (taken)
        return qgc_decline(rw, nodes[n - 1], "\"%s\" is computed by \"%s\", a kernel from outside",
                           qgc_value_label(taken->out[0], g->arena), qgc_node_kernel(g, taken)->name);
    for (int i = 0; i < n; i++)
        fits = fits && add_group(&all, nodes[i]);
    if (!fits)
        return qgc_decline(rw, nodes[n - 1], "more than %d nodes", QGC_MAX_GROUP);

    int group = group_for(rw, name, nodes, n);
    const qgc_kernel_row *before = g->groups[group].kernel;
    g->groups[group].kernel = kernel;
    put_in_group(rw, &all, group);
    const char *why = group_misfit(rw, &all);
    if (!why) {
        rw->said = qgc_arena_printf(g->arena, "in group \"%s\"%s%s", g->groups[group].name,
                                    kernel ? ", by kernel " : "", kernel ? kernel->name : "");
        return true;
    }
    g->groups[group].kernel = before;
    put_back(rw, &all);
    return qgc_decline(rw, nodes[n - 1], "%s", why);
}

bool qgc_fuse(qgc_rewriter *rw, const char *name, qgc_node *const *nodes, int n) {
    return !are_one_group(nodes, n) && fuse(rw, NULL, name, nodes, n);
}

/* The row of that name as the graph has it from now on, or NULL and an error of the rule. */
static const qgc_kernel_row *kernel_named(qgc_rewriter *rw, const char *name, const qgc_node *at) {
    qgc_graph *g = rw->pass->graph;
    const qgc_kernel_row *row = qgc_loaded_kernel(name);
    row = row ? qgc_graph_add_kernel(g, row) : qgc_graph_kernel(g, name);
    if (row || rw->status != QGC_OK)
        return row;
    rw->status = qgc_fail(rw->diag, QGC_ERR_INPUT, at->at,
                          qgc_loaded_kernel(name) ? "the graph has another kernel \"%s\" than the plug-in"
                                                  : "no plug-in brings a kernel \"%s\"",
                          name);
    return NULL;
}

bool qgc_fuse_as(qgc_rewriter *rw, const char *kernel, const char *name, qgc_node *const *nodes, int n) {
    const qgc_kernel_row *row = kernel_named(rw, kernel, nodes[0]);
    const bool done = row && are_one_group(nodes, n) && qgc_node_kernel(rw->pass->graph, nodes[0]) == row;
    return row && !done && fuse(rw, row, name, nodes, n);
}

void qgc_put_in_group(qgc_rewriter *rw, qgc_node *n, const qgc_node *member) {
    assert(n->group < 0 && member->group >= 0);
    n->group = member->group;
    count_member(rw, n, 1);
}

/* The nodes of a group, wherever they stand; false if there are more than a kernel computes. */
static bool members_of(const qgc_graph *g, int group, gathered *all) {
    for (qgc_node *n = g->first; n; n = n->next)
        if (n->group == group && !add_node(all, n))
            return false;
    return true;
}

static void dissolve(qgc_rewriter *rw, int group) {
    for (qgc_node *n = rw->pass->graph->first; n; n = n->next)
        if (n->group == group) {
            count_member(rw, n, -1);
            n->group = -1;
        }
}

bool qgc_settle_group(qgc_rewriter *rw, qgc_node *member) {
    gathered all = {.n = 0};
    const int group = member->group;
    assert(group >= 0);
    const char *why = members_of(rw->pass->graph, group, &all)
                          ? group_misfit(rw, &all)
                          : qgc_arena_printf(rw->pass->scratch, "more than %d nodes", QGC_MAX_GROUP);
    if (!why)
        return true;
    dissolve(rw, group);
    return qgc_decline(rw, member, "group \"%s\" is dissolved: %s", rw->pass->graph->groups[group].name, why);
}
