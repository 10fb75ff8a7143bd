#include "passes/rewrite.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "graph/fusion.h"

struct qgc_rewriter {
    qgc_pass_context *pass;
    qgc_diag *diag;
    const qgc_rule *rule;
    const char *said; /* what the last call had to say about the match at hand */
    qgc_status status;
};

qgc_graph *qgc_rewriter_graph(qgc_rewriter *rw) {
    return rw->pass->graph;
}

const qgc_pass_context *qgc_rewriter_pass(const qgc_rewriter *rw) {
    return rw->pass;
}

/* --- the log --------------------------------------------------------------------------------------------- */

static void log_event(qgc_rewriter *rw, const qgc_node *at, bool fired, const char *text) {
    qgc_pass_run *run = rw->pass->run;
    qgc_arena *a = rw->pass->graph->arena;
    const char *label = qgc_value_label(at->out[0], a);
    for (size_t i = 0; i < run->n_events; i++) { /* a match may come again in the next sweep */
        const qgc_pass_event *e = &run->events[i];
        if (e->fired == fired && strcmp(e->node, label) == 0 && strcmp(e->rule, rw->rule->name) == 0 &&
            strcmp(e->text, text) == 0)
            return;
    }
    run->events = qgc_arena_grow(a, run->events, run->n_events, sizeof *run->events);
    run->events[run->n_events++] = (qgc_pass_event){.rule = rw->rule->name,
                                                    .at = at->at,
                                                    .node = label,
                                                    .layer = at->layer,
                                                    .fired = fired,
                                                    .text = qgc_arena_strdup(a, text)};
    run->n_fired += fired;
}

bool qgc_decline(qgc_rewriter *rw, const qgc_node *at, const char *format, ...) {
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_event(rw, at, false, text);
    return false;
}

/* --- matching -------------------------------------------------------------------------------------------- */

static bool match_value(const qgc_graph *g, const qgc_pattern *p, qgc_value *v, qgc_match *m);

static bool match_inputs(const qgc_graph *g, const qgc_pattern *p, qgc_node *n, bool swapped, qgc_match *m) {
    for (int i = 0; i < QGC_PATTERN_INPUTS; i++) {
        if (!p->in[i])
            continue;
        if (i >= n->n_in || !match_value(g, p->in[i], n->in[swapped && i < 2 ? 1 - i : i], m))
            return false;
    }
    return true;
}

/* The depth of the calls is that of the pattern, which is a constant of the program. */
static bool match_node(const qgc_graph *g, const qgc_pattern *p, qgc_node *n,
                       qgc_match *m) { // NOLINT(misc-no-recursion)
    bool right =
        p->kind == QGC_PATTERN_POINTWISE ? (qgc_ops[n->op].traits & QGC_POINTWISE) != 0 : n->op == p->op;
    if (!right || (p->one_reader && qgc_value_uses(g, n->out[0]) != 1))
        return false;
    if (p->capture >= 0)
        m->node[p->capture] = n;
    if (match_inputs(g, p, n, false, m))
        return true;
    return qgc_ops[n->op].traits & QGC_COMMUTES && n->n_in == 2 && match_inputs(g, p, n, true, m);
}

static bool match_value(const qgc_graph *g, const qgc_pattern *p, qgc_value *v,
                        qgc_match *m) { // NOLINT(misc-no-recursion)
    if (p->kind != QGC_PATTERN_VALUE)
        return v->maker && match_node(g, p, v->maker, m);
    if (p->capture >= 0)
        m->value[p->capture] = v;
    return true;
}

/* --- driving --------------------------------------------------------------------------------------------- */

enum { CHANGES_A_NODE = 1000 };

/* Tries each rule at one node; true if one changed the graph. */
static bool rewrite_at(qgc_rewriter *rw, const qgc_rule *rules, qgc_node *n) {
    for (rw->rule = rules; rw->rule->name; rw->rule++) {
        qgc_match m = {.root = n};
        rw->said = "";
        if (!match_node(rw->pass->graph, rw->rule->pattern, n, &m) || !rw->rule->apply(rw, &m))
            continue;
        log_event(rw, n, true, rw->said);
        return true;
    }
    return false;
}

qgc_status qgc_rewrite(qgc_pass_context *c, const qgc_rule *rules, qgc_diag *d) {
    qgc_graph *g = c->graph;
    qgc_rewriter rw = {.pass = c, .diag = d};
    size_t changes = 0, most = CHANGES_A_NODE * (g->n_nodes + 1);
    for (bool changed = true; changed;) {
        changed = false;
        /* Rules move and remove nodes, so a sweep goes over those that were there when it began. */
        size_t n = 0;
        qgc_node **nodes = qgc_arena_array(c->scratch, g->n_nodes, sizeof(qgc_node *));
        for (qgc_node *node = g->first; node; node = node->next)
            nodes[n++] = node;
        for (size_t i = 0; i < n; i++) {
            if (nodes[i]->n_out == 0 || !rewrite_at(&rw, rules, nodes[i])) /* erased nodes make nothing */
                continue;
            changed = true;
            if (++changes > most)
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
    int n = 0;
    for (qgc_node *node = rw->pass->graph->first; node; node = node->next)
        for (int i = 0; i < node->n_in; i++)
            if (node->in[i] == v) {
                if (n < room)
                    out[n] = node;
                n++;
                break;
            }
    return n;
}

void qgc_replace(qgc_rewriter *rw, qgc_value *old, qgc_value *now) {
    qgc_graph *g = rw->pass->graph;
    for (qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; i < n->n_in; i++)
            if (n->in[i] == old)
                n->in[i] = now;
    for (size_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i] == old) {
            g->outputs[i] = now;
            now->name = old->name; /* outputs are found by name */
        }
}

qgc_node *qgc_insert(qgc_rewriter *rw, qgc_node *before, qgc_op op, const char *name, qgc_value *const *in,
                     int n_in) {
    qgc_graph *g = rw->pass->graph;
    qgc_node *n = qgc_graph_node(g, op, before, before->at);
    n->repeat = before->repeat;
    n->layer = before->layer;
    n->n_in = n_in;
    for (int i = 0; i < n_in; i++)
        n->in[i] = in[i];
    qgc_node_output(g, n, qgc_arena_strdup(g->arena, name));
    return n;
}

bool qgc_settle(qgc_rewriter *rw, qgc_node *n) {
    rw->status = qgc_ops[n->op].infer(n, rw->diag);
    return rw->status == QGC_OK;
}

void qgc_erase(qgc_rewriter *rw, qgc_node *n) {
    qgc_graph_remove(rw->pass->graph, n);
    n->n_out = 0;
}

/* "mlp", or "mlp_2" if the turn of the repeat has an "mlp" that does not take part. */
static const char *free_name(const qgc_graph *g, const char *name, const qgc_node *n) {
    const char *candidate = name;
    for (int i = 2;; i++) {
        bool taken = false;
        for (size_t k = 0; k < g->n_groups; k++)
            taken = taken || (g->groups[k].repeat == n->repeat && g->groups[k].layer == n->layer &&
                              strcmp(g->groups[k].name, candidate) == 0);
        if (!taken)
            return candidate;
        candidate = qgc_arena_printf(g->arena, "%s_%d", name, i);
    }
}

bool qgc_fuse(qgc_rewriter *rw, const char *name, qgc_node *const *nodes, int n) {
    qgc_graph *g = rw->pass->graph;
    int joined = -1;
    bool apart = n == 0;
    for (int i = 0; i < n; i++) {
        apart = apart || nodes[i]->group < 0 || nodes[i]->group != nodes[0]->group;
        if (joined < 0)
            joined = nodes[i]->group;
    }
    if (!apart)
        return false;

    /* The group that is there takes in the others; the old numbers are kept until it is known to work. */
    const char *group_name = joined >= 0 ? g->groups[joined].name : free_name(g, name, nodes[0]);
    int group = joined >= 0 ? joined
                            : qgc_graph_group(g, group_name, nodes[0]->repeat, nodes[0]->layer, nodes[0]->at);
    int *before = qgc_arena_array(rw->pass->scratch, g->n_nodes, sizeof *before);
    size_t k = 0;
    for (qgc_node *node = g->first; node; node = node->next)
        before[k++] = node->group;
    qgc_node **order = qgc_arena_array(rw->pass->scratch, g->n_nodes, sizeof(qgc_node *));
    k = 0;
    for (qgc_node *node = g->first; node; node = node->next)
        order[k++] = node;
    for (int i = 0; i < n; i++) {
        int other = nodes[i]->group;
        nodes[i]->group = group;
        for (size_t j = 0; other >= 0 && j < k; j++)
            if (order[j]->group == other)
                order[j]->group = group;
    }

    qgc_fusion fusion;
    const char *why = "";
    const qgc_node *between = NULL;
    bool fits = qgc_fusion_of(g, group, &fusion, &why, rw->pass->scratch);
    if (fits && qgc_group_gather(g, group, &between)) {
        rw->said = qgc_arena_printf(g->arena, "in group \"%s\"", group_name);
        return true;
    }
    for (size_t j = 0; j < k; j++)
        order[j]->group = before[j];
    if (joined < 0)
        g->n_groups--; /* made here, and last */
    if (fits)
        why = qgc_arena_printf(rw->pass->scratch, "\"%s\" lies between",
                               qgc_value_label(between->out[0], g->arena));
    return qgc_decline(rw, nodes[n - 1], "%s", why);
}
