#include <stdio.h>
#include <string.h>

#include "graph/load.h"
#include "passes/bind_weights.h"
#include "runtime/lab/bisect_impl.h"

/* The reproduction of a fault of the graph: written from the two graphs that the judge has kept, and
 * judged. */

static qgc_status make_side(bisect_side *s, const qgc_judge_graph *g, const qgc_bisect_options *o,
                            const qgc_tensor **tensors, qgc_diag *d) {
    *s = (bisect_side){.arena = qgc_arena_new(), .graph = g->graph, .tensors = tensors};
    const qgc_trial_options trial = {.ctx = o->run.positions, .keep_values = true, .pool = o->run.pool};
    QGC_TRY(qgc_trial_new(&s->trial, s->graph, o->run.weights, s->tensors, &trial, d));
    s->vocab = qgc_trial_vocab(s->trial);
    return QGC_OK;
}

/* The value of that name in another graph, or NULL. */
static const qgc_value *named(const qgc_graph *g, const char *name, qgc_arena *a) {
    for (const qgc_node *n = g->first; n; n = n->next)
        for (int i = 0; i < n->n_out; i++)
            if (strcmp(qgc_value_label(n->out[i], a), name) == 0)
                return n->out[i];
    return NULL;
}

/* As if bisect_compare had found it: what differs ends the small graph, all else that has a twin may begin
 * it. */
static bisect_comparison comparison_of(const qgc_judge_graph *before, const qgc_judge_graph *now,
                                       const qgc_bisection *out, qgc_arena *a) {
    bisect_comparison c = {.values = qgc_arena_array(a, now->graph->n_values, sizeof *c.values)};
    for (const qgc_node *n = now->graph->first; n; n = n->next)
        for (int i = 0; i < n->n_out; i++) {
            const qgc_value *v = n->out[i];
            c.values[v->id].other = now->twin[v->id];
            c.values[v->id].apart = now->differs[v->id];
            if (now->differs[v->id] && !c.part && out->value &&
                strcmp(qgc_value_label(v, a), out->value) == 0)
                c.part = v;
        }
    /* what it was meant to be: where there is a value of its name, not one that happens to be equal */
    const qgc_value *meant = c.part ? named(before->graph, out->value, a) : NULL;
    if (meant)
        c.values[c.part->id].other = meant;
    for (const qgc_node *n = c.part ? now->graph->first : NULL; n && n != c.part->maker; n = n->next)
        for (int i = 0; i < n->n_out; i++)
            if (now->differs[n->out[i]->id])
                c.values[n->out[i]->id].other = NULL; /* not what both agree on */
    return c;
}

/* --- judging what was written ---------------------------------------------------------------------------- */

static qgc_status load_small(bisect_side *s, const char *path, const qgc_weights *w, qgc_diag *d) {
    s->arena = qgc_arena_new();
    QGC_TRY(qgc_graph_load(&s->graph, path, s->arena, d));
    return qgc_graph_bind(s->graph, w, true, &s->tensors, d);
}

static qgc_status judge_small(bisect_side *bad, bisect_side *good, qgc_weights **w,
                              const qgc_bisect_options *o, const qgc_bisection *out, qgc_diag *d) {
    int32_t *tokens = qgc_arena_array(d->arena, (size_t)out->steps, sizeof *tokens);
    for (int64_t i = 0; i < out->steps; i++)
        tokens[i] = (int32_t)i;
    QGC_TRY(qgc_weights_open(w, qgc_arena_printf(d->arena, "%s/inputs.gguf", o->reproduction), d));
    QGC_TRY(load_small(bad, qgc_arena_printf(d->arena, "%s/bad.yaml", o->reproduction), *w, d));
    QGC_TRY(load_small(good, qgc_arena_printf(d->arena, "%s/good.yaml", o->reproduction), *w, d));
    qgc_judge *j;
    qgc_judge_finding found;
    const qgc_judge_options judging = {
        .tokens = tokens, .n_tokens = out->steps, .phase = o->phase, .pool = o->run.pool};
    QGC_TRY(qgc_judge_new(&j, good->graph, good->tensors, &judging, d));
    qgc_judge_next(j, bad->graph, bad->tensors, false, &found);
    const bool shows = found.verdict == QGC_JUDGE_WRONG;
    qgc_judge_drop(j);
    return shows ? QGC_OK
                 : qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "the nodes by themselves compute the same");
}

/* NULL, or why the small graph does not show what the large one does. */
static const char *check(const qgc_bisect_options *o, const qgc_bisection *out, qgc_arena *a) {
    qgc_diag d = qgc_diag_new(a);
    qgc_weights *w = NULL;
    bisect_side bad = {0}, good = {0};
    const qgc_status status = judge_small(&bad, &good, &w, o, out, &d);
    qgc_arena_drop(bad.arena);
    qgc_arena_drop(good.arena);
    qgc_weights_close(w);
    return status == QGC_OK ? NULL : qgc_diag_message(&d);
}

static qgc_status write_checked(const qgc_bisect_options *o, const bisect_side sides[2],
                                const bisect_comparison *c, const int32_t *tokens, qgc_bisection *out,
                                qgc_diag *d) {
    QGC_TRY(bisect_write(o->reproduction, &sides[0], &sides[1], c, tokens, o->run.positions, false, out, d));
    if (out->n_files == 0)
        return QGC_OK;
    const char *why = check(o, out, d->arena);
    if (!why)
        return QGC_OK;
    for (int i = 0; i < out->n_files; i++)
        remove(out->files[i]);
    out->n_files = 0;
    out->not_written = qgc_arena_printf(d->arena, "a small graph does not show it: %s", why);
    return QGC_OK;
}

qgc_status bisect_reproduce(const qgc_bisect_options *o, const bisect_judged *judged, const int32_t *tokens,
                            qgc_bisection *out, qgc_diag *d) {
    qgc_judge_graph before, now;
    out->not_written = "no value differs in its numbers";
    if (!judged->judge || !qgc_judge_kept(judged->judge, &before, &now) || !out->value)
        return QGC_OK;
    bisect_side sides[2] = {{0}, {0}};
    const bool is_other =
        out->n_faults > 0 && !out->faults[0].pass; /* the graph against another, before any pass */
    qgc_status status =
        make_side(&sides[0], &before, o, is_other ? judged->right.tensors : judged->own.tensors, d);
    if (status == QGC_OK)
        status = make_side(&sides[1], &now, o, judged->own.tensors, d);
    if (status == QGC_OK) {
        const bisect_comparison c = comparison_of(&before, &now, out, sides[1].arena);
        if (c.part) {
            out->not_written = NULL;
            status = write_checked(o, sides, &c, tokens, out, d);
        }
    }
    for (int i = 0; i < 2; i++) {
        qgc_trial_drop(sides[i].trial);
        qgc_arena_drop(sides[i].arena);
    }
    return status;
}
