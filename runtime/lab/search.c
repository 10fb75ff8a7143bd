#include "runtime/lab/search.h"

#include <math.h>
#include <string.h>

#include "codegen/stage/stage.h"
#include "graph/base/times.h"
#include "graph/print.h"
#include "passes/bind_weights.h"
#include "passes/edit.h"
#include "runtime/engine/stats.h"
#include "runtime/lab/disproof.h"
#include "runtime/lab/judge.h"
#include "runtime/lab/pairs.h"
#include "runtime/lab/search_moves.h"
#include "runtime/mode.h"

/* A candidate that is looked at, or the best so far. The first one holds the weights on the device. */
typedef struct {
    qgc_arena *arena; /* of the graph */
    qgc_graph *graph;
    qgc_trial *trial;
    search_recipe recipe;
    int number;
} candidate;

typedef struct {
    const qgc_search_options *o;
    qgc_search *out;
    qgc_diag *d;
    qgc_judge *judge;
    qgc_arena *right; /* what the judge goes by */
    qgc_map seen;     /* the text of a graph, to the number of the candidate that made it */
    candidate start, best;
    uint64_t seed;
    double deadline;
    double *logits; /* on a device: what the start makes of the text, [n_judged, vocab] */
    int64_t vocab;
} search;

enum { JUDGED = 16 }; /* tokens of the text that graphs and kernels are judged by */
_Static_assert((int)JUDGED <= (int)QGC_PAIR_STEPS, "a context that is long enough to be timed holds them");

/* Kernels sum in float32, in other orders: the divergence of two distributions of the next token, in nats. */
static const double MOST_KL = 1e-3;

/* The part of a step that a candidate may take longer, as far as its interval goes, if it takes less memory. */
static const double MOST_LOSS = 0.005;

static int64_t n_judged(const search *s) {
    return s->o->run.n_tokens < JUDGED ? (int64_t)s->o->run.n_tokens : JUDGED;
}

/* --- candidates ------------------------------------------------------------------------------------------ */

static void drop_candidate(candidate *c) {
    qgc_trial_drop(c->trial);
    qgc_arena_drop(c->arena);
    *c = (candidate){.number = -1};
}

static qgc_status cut_groups(const candidate *c, qgc_diag *d) {
    for (size_t i = 0; i < c->recipe.n_cuts; i++) {
        const search_cut *cut = &c->recipe.cuts[i];
        if (!qgc_cut_groups(c->graph, cut->group, cut->cut, c->arena))
            return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "there is no %s to be cut from group \"%s\"",
                            qgc_cut_name(cut->cut), cut->group);
    }
    return QGC_OK;
}

static qgc_status make_graph(const search *s, candidate *c, const qgc_tensor ***tensors, qgc_diag *d) {
    const qgc_experiment *run = &s->o->run;
    qgc_pass_report report;
    const qgc_pass_options passes = {.passes = search_passes_text(&c->recipe, c->arena), .watch = run->watch};
    QGC_TRY(qgc_graph_load_for(&c->graph, run->graph, run->weights, c->arena, d));
    QGC_TRY(qgc_graph_bind(c->graph, run->weights, run->allow_unused, tensors, d));
    QGC_TRY(qgc_passes_run(c->graph, &passes, &report, d));
    QGC_TRY(cut_groups(c, d));
    c->graph->passes = "";
    return qgc_verify(c->graph, d);
}

/* Has an earlier candidate made this graph? */
static bool is_seen(search *s, const candidate *c, int *by) {
    qgc_str text = qgc_str_new(s->d->arena);
    qgc_graph_print_yaml(c->graph, &text);
    const int *found = qgc_map_get(&s->seen, text.text);
    if (found) {
        *by = *found;
        return true;
    }
    int *number = qgc_arena_alloc(s->d->arena, sizeof *number);
    *number = c->number;
    qgc_map_put(&s->seen, text.text, number);
    return false;
}

static qgc_status start_judging(search *s) {
    const qgc_experiment *run = &s->o->run;
    const qgc_judge_options judging = {.tokens = run->tokens, .n_tokens = n_judged(s), .pool = run->pool};
    const qgc_tensor **tensors;
    qgc_graph *g;
    s->right = qgc_arena_new();
    QGC_TRY(qgc_graph_load_for(&g, run->graph, run->weights, s->right, s->d));
    QGC_TRY(qgc_graph_bind(g, run->weights, run->allow_unused, &tensors, s->d));
    return qgc_judge_new(&s->judge, g, tensors, &judging, s->d);
}

/* NULL, or what is wrong with the graph. */
static const char *judge_graph(search *s, const candidate *c, const qgc_tensor *const *tensors) {
    qgc_judge_finding found;
    qgc_judge_restart(s->judge);
    qgc_judge_next(s->judge, c->graph, tensors, true, &found);
    const qgc_node *at;
    if (found.verdict != QGC_JUDGE_WRONG)
        return c->graph->n_kernels
                   ? qgc_lab_disproof(c->graph, s->o->run.cache_folder, !s->o->run.device, &at, s->d->arena)
                   : NULL;
    if (!found.value)
        return found.why ? qgc_arena_strdup(s->d->arena, found.why) : "it computes something else";
    return qgc_arena_printf(s->d->arena, "\"%s\" is %.3g apart", qgc_value_label(found.value, s->d->arena),
                            found.apart);
}

/* --- on a device ----------------------------------------------------------------------------------------- */

/* The text, token by token; the logits go to `to`. */
static qgc_status read_text(const search *s, qgc_trial *t, double *to, qgc_diag *d) {
    QGC_TRY(qgc_trial_reset(t, d));
    for (int64_t i = 0; i < n_judged(s); i++) {
        QGC_TRY(qgc_trial_step(t, s->o->run.tokens[i], NULL, d));
        QGC_TRY(qgc_trial_logits(t, to + i * s->vocab, d));
    }
    return QGC_OK;
}

/* *why stays NULL where the kernels compute what those of the start do. */
static qgc_status check_kernels(search *s, candidate *c, const char **why, qgc_diag *d) {
    double *logits = qgc_arena_array(c->arena, (size_t)(n_judged(s) * s->vocab), sizeof *logits), worst = 0;
    QGC_TRY(read_text(s, c->trial, logits, d));
    for (int64_t i = 0; i < n_judged(s); i++) {
        const qgc_drift drift = qgc_drift_of(s->logits + i * s->vocab, logits + i * s->vocab, s->vocab);
        worst = !(drift.kl_max <= worst) ? drift.kl_max : worst;
    }
    if (!(worst <= MOST_KL))
        *why = qgc_arena_printf(s->d->arena, "the logits of its kernels diverge by %.3g nats", worst);
    return QGC_OK;
}

static qgc_status time_it(search *s, const candidate *c, qgc_search_try *t, qgc_diag *d) {
    const size_t n = (size_t)s->o->pairs;
    const qgc_pairs pairs = {s->o->ctx, s->o->pairs, s->o->run.tokens[0]};
    qgc_arena *a = c->arena;
    double *before = qgc_arena_array(a, n, sizeof *before), *after = qgc_arena_array(a, n, sizeof *after),
           *saved = qgc_arena_array(a, n, sizeof *saved);
    QGC_TRY(qgc_pairs_time(&pairs, s->best.trial, c->trial, before, after, d));
    for (size_t i = 0; i < n; i++)
        saved[i] = before[i] - after[i];
    const qgc_interval interval = qgc_median_interval(saved, n, a);
    t->us = qgc_median(after, n, a);
    t->saved = interval.median;
    t->low = interval.low;
    t->high = interval.high;
    if (s->best.number == 0 && !(s->out->tries[0].us >= 0))
        s->out->tries[0].us = qgc_median(before, n, a);
    return QGC_OK;
}

/* --- a candidate and the best so far ---------------------------------------------------------------------- */

static bool has_same_launches(const qgc_trial_cost *a, const qgc_trial_cost *b) {
    return a->kernels == b->kernels && a->weight_bytes == b->weight_bytes && a->value_bytes == b->value_bytes;
}

/* By the model. */
static bool costs_less(const qgc_search_try *t, const qgc_search_try *best) {
    return has_same_launches(&t->cost, &best->cost) ? t->cost.scratch_bytes < best->cost.scratch_bytes
                                                    : t->model < best->model;
}

/* On the clock. */
static bool takes_less(const qgc_search_try *t, const qgc_search_try *best) {
    const bool is_as_fast = t->high >= 0 && t->low >= -MOST_LOSS * t->us;
    return t->low > 0 || (is_as_fast && t->cost.scratch_bytes < best->cost.scratch_bytes);
}

static qgc_status is_better(search *s, candidate *c, qgc_search_try *t, bool *better, qgc_diag *d) {
    const qgc_search_try *best = &s->out->tries[s->best.number];
    if (!s->o->run.device) {
        *better = costs_less(t, best);
        return QGC_OK;
    }
    QGC_TRY(check_kernels(s, c, &t->why, d));
    if (t->why) {
        t->verdict = QGC_SEARCH_WRONG;
        return QGC_OK;
    }
    QGC_TRY(time_it(s, c, t, d));
    *better = takes_less(t, best);
    return QGC_OK;
}

static qgc_trial_options trial_options(const search *s) {
    const qgc_experiment *run = &s->o->run;
    return (qgc_trial_options){.device = run->device,
                               .mode = s->out->mode ? s->out->mode : run->mode,
                               .ctx = s->o->ctx,
                               .in_double = true,
                               .cache_folder = run->cache_folder,
                               .pool = run->pool,
                               .share = s->start.trial};
}

static qgc_status open_trial(search *s, candidate *c, const qgc_tensor *const *tensors, qgc_search_try *t,
                             qgc_diag *d) {
    const qgc_experiment *run = &s->o->run;
    const qgc_trial_options trial = trial_options(s);
    QGC_TRY(qgc_trial_new(&c->trial, c->graph, run->weights, tensors, &trial, d));
    const char *refusal = qgc_trial_refusal(c->trial);
    if (refusal) {
        t->verdict = QGC_SEARCH_REFUSED;
        t->why = qgc_arena_strdup(s->d->arena, refusal);
        return QGC_OK;
    }
    QGC_TRY(qgc_trial_cost_of(c->trial, &t->cost, d));
    t->model = qgc_mode_cost(t->cost.kernels, t->cost.weight_bytes + t->cost.value_bytes);
    return QGC_OK;
}

/* What there is to say of a candidate, with an error where it cannot be looked at. */
static qgc_status look_at(search *s, candidate *c, qgc_search_try *t, bool *better, qgc_diag *d) {
    const qgc_tensor **tensors;
    QGC_TRY(make_graph(s, c, &tensors, d));
    if (is_seen(s, c, &t->same_as)) {
        t->verdict = QGC_SEARCH_SAME;
        return QGC_OK;
    }
    t->why = judge_graph(s, c, tensors);
    if (t->why) {
        t->verdict = QGC_SEARCH_WRONG;
        return QGC_OK;
    }
    QGC_TRY(open_trial(s, c, tensors, t, d));
    if (c->number == 0)
        t->verdict = t->verdict == QGC_SEARCH_REFUSED ? t->verdict : QGC_SEARCH_START;
    return t->verdict == QGC_SEARCH_NO_BETTER ? is_better(s, c, t, better, d) : QGC_OK;
}

static qgc_search_try *new_try(search *s, const char *change) {
    qgc_search *out = s->out;
    out->tries = qgc_arena_grow(s->d->arena, out->tries, (size_t)out->n_tries, sizeof *out->tries);
    out->tries[out->n_tries] = (qgc_search_try){.parent = out->n_tries ? out->best : -1,
                                                .change = change,
                                                .verdict = QGC_SEARCH_NO_BETTER,
                                                .same_as = -1,
                                                .us = NAN,
                                                .saved = NAN,
                                                .low = NAN,
                                                .high = NAN};
    return &out->tries[out->n_tries++];
}

/* The best so far is one no more. The first candidate stays, for its weights. */
static void take_over(search *s, candidate *c) {
    if (s->best.number > 0)
        drop_candidate(&s->best);
    s->best = *c;
    s->out->best = c->number;
}

/* Tries one change of the best; *better says whether it took its place. */
static qgc_status try_move(search *s, const search_move *m, bool *better) {
    qgc_search_try *t = new_try(s, m->change);
    candidate c = {.arena = qgc_arena_new(), .recipe = m->recipe, .number = s->out->n_tries - 1};
    qgc_diag d = qgc_diag_new(c.arena);
    *better = false;
    qgc_status status = look_at(s, &c, t, better, &d);
    if (status == QGC_ERR_INPUT || status == QGC_ERR_USAGE) {
        t->verdict = QGC_SEARCH_REFUSED;
        t->why = qgc_arena_strdup(s->d->arena, qgc_diag_message(&d));
        status = QGC_OK;
    } else if (status != QGC_OK) {
        status = qgc_fail(s->d, status, QGC_NO_LOC, "%s", qgc_diag_message(&d));
    }
    if (*better) {
        t->verdict = QGC_SEARCH_BETTER;
        take_over(s, &c);
    } else {
        drop_candidate(&c);
    }
    if (s->o->run.progress)
        s->o->run.progress(s->o->run.context, (size_t)s->out->n_tries, (size_t)s->out->n_tries + 100);
    return status;
}

/* --- compiling ahead ------------------------------------------------------------------------------------- */

/* A candidate has few kernels that are not in the cache, in persistent mode one, which a single thread compiles for seconds. So those of
 * the next candidates are compiled at once, one on each thread; what is in the way of one is told when it is tried. */
typedef struct {
    candidate c;
    qgc_trial_options trial;
    bool is_new;
} ahead;

static void compile_some(void *context, size_t first, size_t last) {
    ahead *all = context;
    for (size_t i = first; i < last; i++) {
        qgc_diag d = qgc_diag_new(all[i].c.arena);
        qgc_pool *own = qgc_pool_new(1);
        all[i].trial.pool = own;
        if (all[i].is_new && qgc_trial_compile(all[i].c.graph, &all[i].trial, &d) != QGC_OK)
            all[i].is_new = false;
        qgc_pool_drop(own);
    }
}

/* Kernels from outside are checked in processes of their own: they wait until they are tried. */
static bool make_ahead(const search *s, const search_move *m, ahead *a) {
    const qgc_tensor **tensors;
    *a = (ahead){.c = {.arena = qgc_arena_new(), .recipe = m->recipe}, .trial = trial_options(s)};
    qgc_diag d = qgc_diag_new(a->c.arena);
    if (make_graph(s, &a->c, &tensors, &d) != QGC_OK || a->c.graph->n_kernels)
        return false;
    qgc_str text = qgc_str_new(a->c.arena);
    qgc_graph_print_yaml(a->c.graph, &text);
    return !qgc_map_get(&s->seen, text.text);
}

static void compile_ahead(search *s, const search_move *moves, size_t n) {
    qgc_arena *arena = qgc_arena_new();
    ahead *all = qgc_arena_array(arena, n, sizeof *all);
    for (size_t i = 0; i < n; i++)
        all[i].is_new = make_ahead(s, &moves[i], &all[i]);
    qgc_pool_for(s->o->run.pool, n, 1, compile_some, all);
    for (size_t i = 0; i < n; i++)
        qgc_arena_drop(all[i].c.arena);
    qgc_arena_drop(arena);
}

/* --- climbing -------------------------------------------------------------------------------------------- */

static bool is_over(const search *s) {
    return qgc_seconds() >= s->deadline || (s->o->most > 0 && s->out->n_tries >= s->o->most);
}

/* Until one is better. */
static qgc_status try_all(search *s, search_moves *moves, bool *better) {
    *better = false;
    search_shuffle(moves, &s->seed);
    const size_t at_once = (size_t)qgc_pool_threads(s->o->run.pool);
    for (size_t i = 0; i < moves->n && !*better && !is_over(s); i++) {
        if (s->o->run.device && at_once > 1 && i % at_once == 0)
            compile_ahead(s, &moves->all[i], moves->n - i < at_once ? moves->n - i : at_once);
        QGC_TRY(try_move(s, &moves->all[i], better));
    }
    return QGC_OK;
}

/* The names of its groups, each once. */
static const char **groups_of(const qgc_graph *g, size_t *n, qgc_arena *a) {
    const char **names = qgc_arena_array(a, g->n_groups + 1, sizeof(char *));
    *n = 0;
    for (const qgc_node *node = g->first; node; node = node->next) {
        if (node->group < 0)
            continue;
        const char *name = g->groups[node->group].name;
        bool known = false;
        for (size_t i = 0; i < *n; i++)
            known = known || strcmp(names[i], name) == 0;
        if (!known)
            names[(*n)++] = qgc_arena_strdup(a, name);
    }
    return names;
}

/* The cuts that are possible in a graph. */
static search_cut *cuts_of(const qgc_graph *g, size_t *n, qgc_arena *a) {
    size_t n_groups;
    const char **groups = groups_of(g, &n_groups, a);
    search_cut *cuts = qgc_arena_array(a, n_groups * QGC_N_CUTS + 1, sizeof *cuts);
    *n = 0;
    for (size_t i = 0; i < n_groups * QGC_N_CUTS; i++) {
        const search_cut cut = {groups[i / QGC_N_CUTS], (qgc_cut)(i % QGC_N_CUTS)};
        qgc_arena *scratch = qgc_arena_new();
        if (qgc_cut_groups(qgc_graph_clone(g, scratch), cut.group, cut.cut, scratch))
            cuts[(*n)++] = cut;
        qgc_arena_drop(scratch);
    }
    return cuts;
}

static qgc_status climb(search *s) {
    for (bool better = true; better && !is_over(s);) {
        size_t n_cuts;
        const search_cut *cuts = cuts_of(s->best.graph, &n_cuts, s->d->arena);
        search_moves moves = search_single_moves(&s->best.recipe, cuts, n_cuts, s->d->arena);
        QGC_TRY(try_all(s, &moves, &better));
        if (better || is_over(s))
            continue;
        moves = search_double_moves(&s->best.recipe, s->d->arena);
        QGC_TRY(try_all(s, &moves, &better));
        s->out->is_complete = !better && !is_over(s);
    }
    return QGC_OK;
}

/* --- the result ------------------------------------------------------------------------------------------ */

/* The pipeline, in which a pass that finds nothing to do may find nothing. */
static qgc_status final_passes(search *s, const char **out) {
    qgc_arena *a = qgc_arena_new();
    qgc_graph *g;
    qgc_pass_report report = {0};
    const qgc_experiment *run = &s->o->run;
    const qgc_pass_options passes = {.passes = search_passes_text(&s->best.recipe, a), .watch = run->watch};
    qgc_status status = qgc_graph_load_for(&g, run->graph, run->weights, a, s->d);
    if (status == QGC_OK)
        status = qgc_passes_run(g, &passes, &report, s->d);
    qgc_str text = qgc_str_new(s->d->arena);
    for (size_t i = 0; i < report.n_runs; i++)
        qgc_str_printf(&text, "%s%s%s", i ? "," : "", report.runs[i].name, report.runs[i].n_fired ? "" : "?");
    *out = text.text;
    qgc_arena_drop(a);
    return status;
}

/* Before any pass, with the passes; or with the groups that are cut, and no pass. */
static qgc_status write_best(search *s) {
    qgc_str text = qgc_str_new(s->d->arena);
    QGC_TRY(final_passes(s, &s->out->passes));
    if (s->best.recipe.n_cuts) {
        qgc_graph_print_yaml(s->best.graph, &text);
    } else {
        qgc_graph *g;
        QGC_TRY(qgc_graph_load_for(&g, s->o->run.graph, s->o->run.weights, s->d->arena, s->d));
        g->passes = s->out->passes;
        qgc_graph_print_yaml(g, &text);
    }
    s->out->yaml = text.text;
    return QGC_OK;
}

/* The pipeline that it starts from. */
static qgc_status first_move(const search *s, search_move *m) {
    const qgc_experiment *run = &s->o->run;
    const qgc_pass_edits none = {0};
    qgc_graph *g;
    const char *passes;
    QGC_TRY(qgc_graph_load_for(&g, run->graph, run->weights, s->d->arena, s->d));
    QGC_TRY(qgc_pass_pipeline(&passes, g, run->passes, run->skip, &none, s->d));
    const int64_t limit = qgc_graph_max_positions(g);
    if (limit && s->o->ctx > limit)
        return qgc_fail(s->d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "a context of %lld positions, \"%s\" can have at most %lld", (long long)s->o->ctx,
                        g->name, (long long)limit);
    *m = (search_move){*passes ? passes : "no pass", search_recipe_of(passes, s->d->arena)};
    return QGC_OK;
}

/* The first candidate, which has to run. */
static qgc_status start(search *s) {
    search_move m = {0};
    bool better = false;
    QGC_TRY(first_move(s, &m));
    QGC_TRY(start_judging(s));
    qgc_search_try *t = new_try(s, m.change);
    s->start = (candidate){.arena = qgc_arena_new(), .recipe = m.recipe};
    QGC_TRY(look_at(s, &s->start, t, &better, s->d));
    if (t->verdict != QGC_SEARCH_START)
        return qgc_fail(s->d, QGC_ERR_INPUT, QGC_NO_LOC, "\"%s\" cannot be searched with passes \"%s\": %s",
                        s->o->run.graph, m.change, t->why);
    s->best = s->start;
    s->out->mode = s->o->run.device ? qgc_trial_mode(s->start.trial) : NULL;
    if (!s->o->run.device)
        return QGC_OK;
    s->vocab = qgc_trial_vocab(s->start.trial);
    s->logits = qgc_arena_array(s->start.arena, (size_t)(n_judged(s) * s->vocab), sizeof *s->logits);
    return read_text(s, s->start.trial, s->logits, s->d);
}

qgc_status qgc_search_run(const qgc_search_options *o, qgc_search *out, qgc_diag *d) {
    *out = (qgc_search){.best = 0};
    if (o->run.n_tokens < 1)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "no tokens to judge candidates by");
    if (o->run.device && (o->pairs < 6 || o->ctx <= QGC_PAIR_STEPS))
        return qgc_fail(
            d, QGC_ERR_USAGE, QGC_NO_LOC,
            "%d pairs of timings in a context of %lld positions, expected 6 or more in %d or more", o->pairs,
            (long long)o->ctx, QGC_PAIR_STEPS + 1);
    search s = {.o = o,
                .out = out,
                .d = d,
                .seen = qgc_map_new(d->arena),
                .seed = o->seed,
                .deadline = qgc_seconds() + o->seconds};
    qgc_status status = start(&s);
    if (status == QGC_OK)
        status = climb(&s);
    if (status == QGC_OK)
        status = write_best(&s);
    if (s.best.number > 0)
        drop_candidate(&s.best);
    drop_candidate(&s.start); /* the weights are its */
    qgc_judge_drop(s.judge);
    qgc_arena_drop(s.right);
    return status;
}
