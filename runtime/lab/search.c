#include "runtime/lab/search.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "graph/base/times.h"
#include "graph/print.h"
#include "passes/bind_weights.h"
#include "passes/edit.h"
#include "runtime/lab/pairs.h"
#include "runtime/lab/search_model.h"

typedef struct {
    const qgc_search_options *o;
    qgc_search *out;
    qgc_diag *d;
    search_model model;     /* that is searched */
    search_candidate best;  /* model.start, or one of its own */
    search_recipe *recipes; /* of the candidates that were tried */
    uint64_t seed;
    double begun;
} search;

enum {
    BATCH = 16, /* changes of one candidate that are tried before the best of them is taken */
    LONGER = 4, /* in the end so many times as many pairs are timed, */
    AGAIN = 3   /* also of so many candidates that may be as fast as the best */
};

/* The part of a step that a candidate may take longer, as far as its interval goes, if it takes less memory. */
static const double MOST_LOSS = 0.005;

/* --- a candidate and the best so far --------------------------------------------------------------------- */

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

static qgc_status is_better(search *s, search_candidate *c, int pairs, qgc_search_try *t, bool *better) {
    qgc_search_try *best = &s->out->tries[s->best.number];
    if (!s->o->run.device) {
        *better = costs_less(t, best);
        return QGC_OK;
    }
    double us_best;
    QGC_TRY(search_candidate_time(&s->model, &s->best, c, pairs, t, &us_best, s->d));
    if (!(best->us >= 0))
        best->us = us_best;
    *better = takes_less(t, best);
    return QGC_OK;
}

static const qgc_search_try nothing_known = {.verdict = QGC_SEARCH_NO_BETTER,
                                             .parent = -1,
                                             .same_as = -1,
                                             .us = NAN,
                                             .saved = NAN,
                                             .low = NAN,
                                             .high = NAN};

static qgc_search_try *new_try(search *s, const char *change, const search_recipe *recipe) {
    qgc_search *out = s->out;
    out->tries = qgc_arena_grow(s->d->arena, out->tries, (size_t)out->n_tries, sizeof *out->tries);
    s->recipes = qgc_arena_grow(s->d->arena, s->recipes, (size_t)out->n_tries, sizeof *s->recipes);
    s->recipes[out->n_tries] = *recipe;
    qgc_search_try *t = &out->tries[out->n_tries++];
    *t = nothing_known;
    t->parent = out->n_tries > 1 ? out->best : -1;
    t->change = change;
    return t;
}

/* The best so far is one no more. The first candidate stays, for its weights. */
static void take_over(search *s, search_candidate *c) {
    if (s->best.number > 0)
        search_candidate_drop(&s->best);
    s->best = *c;
    s->out->best = c->number;
    *c = (search_candidate){.number = -1};
}

static void show_progress(const search *s) {
    if (s->o->run.progress)
        s->o->run.progress(s->o->run.context, (size_t)s->out->n_tries, (size_t)s->out->n_tries + 100);
}

/* Tries a recipe. Where it is better than the best so far, `c` is it; else `c` is dropped. */
static qgc_status try_recipe(search *s, const char *change, const search_recipe *recipe, search_candidate *c,
                             bool *better) {
    qgc_search_try *t = new_try(s, change, recipe);
    *c = (search_candidate){.arena = qgc_arena_new(), .recipe = *recipe, .number = s->out->n_tries - 1};
    *better = false;
    qgc_status status = search_candidate_make(&s->model, c, true, t, s->d);
    if (status == QGC_OK && t->verdict == QGC_SEARCH_NO_BETTER)
        status = is_better(s, c, s->o->pairs, t, better);
    if (*better && status == QGC_OK)
        t->verdict = QGC_SEARCH_BETTER;
    else
        search_candidate_drop(c);
    t->seconds = qgc_seconds() - s->begun;
    show_progress(s);
    return status;
}

static bool is_over(const search *s) {
    return qgc_seconds() - s->begun >= s->o->seconds || (s->o->most > 0 && s->out->n_tries >= s->o->most);
}

/* --- a batch --------------------------------------------------------------------------------------------- */

/* What a candidate saves against the one that it is a change of. */
static double gain_of(const qgc_search *out, const qgc_search_try *t) {
    const bool is_known = t->verdict == QGC_SEARCH_BETTER || t->verdict == QGC_SEARCH_NO_BETTER;
    if (!is_known || t->parent < 0)
        return 0;
    return out->mode ? t->saved : out->tries[t->parent].model - t->model;
}

/* What a change saved the last time that it was tried; 0 where it was not. */
static double gain_known(const void *context, const search_edit *e) {
    const search *s = context;
    qgc_arena *a = qgc_arena_new();
    const char *change = search_edit_text(e, a);
    double gain = 0;
    for (int i = s->out->n_tries - 1; i > 0; i--)
        if (strcmp(s->out->tries[i].change, change) == 0) {
            gain = gain_of(s->out, &s->out->tries[i]);
            break;
        }
    qgc_arena_drop(a);
    return gain;
}

/* As many of the next candidates as there are threads. */
static void compile_next(search *s, const search_recipe *recipes, size_t n, size_t i) {
    const size_t at_once = (size_t)qgc_pool_threads(s->o->run.pool);
    if (s->o->run.device && at_once > 1 && i % at_once == 0)
        search_compile_ahead(&s->model, recipes + i, n - i < at_once ? n - i : at_once);
}

/* A change that was better than what it was made to. */
typedef struct {
    const search_move *move;
    double gain;
} success;

typedef struct {
    success all[BATCH];
    size_t n;
    search_candidate most; /* that of the first of them, which saves most */
} successes;

static void add_success(search *s, successes *x, const search_move *m, search_candidate *c) {
    const double gain = gain_of(s->out, &s->out->tries[c->number]);
    size_t at = x->n++;
    for (; at > 0 && x->all[at - 1].gain < gain; at--)
        x->all[at] = x->all[at - 1];
    x->all[at] = (success){m, gain};
    if (at == 0) {
        search_candidate_drop(&x->most);
        x->most = *c;
        *c = (search_candidate){.number = -1};
    }
    search_candidate_drop(c);
}

/* Each of n changes of the best. */
static qgc_status try_batch(search *s, const search_move *moves, size_t n, successes *x) {
    search_recipe recipes[BATCH];
    search_candidate c;
    bool better;
    for (size_t i = 0; i < n; i++) {
        const bool done = search_apply(&s->best.recipe, &moves[i], &recipes[i], s->d->arena);
        assert(done);
        (void)done;
    }
    for (size_t i = 0; i < n && !is_over(s); i++) {
        compile_next(s, recipes, n, i);
        QGC_TRY(try_recipe(s, moves[i].change, &recipes[i], &c, &better));
        if (better)
            add_success(s, x, &moves[i], &c);
    }
    return QGC_OK;
}

/* The recipes of the best with changes from number `from` on, each with those before it. */
static size_t chain_of(const search *s, const successes *x, size_t from, search_recipe *recipes) {
    const search_recipe *r = &s->best.recipe;
    size_t n = 0;
    for (size_t i = from; i < x->n; i++)
        if (search_apply(r, x->all[i].move, &recipes[n], s->d->arena))
            r = &recipes[n++];
    return n;
}

/* The other changes, one on top of the other: what saves something by itself may save nothing after another. */
static qgc_status put_together(search *s, const successes *x) {
    search_recipe recipes[BATCH];
    bool better = false;
    for (size_t i = 1; i < x->n && !is_over(s); i++) {
        search_candidate c;
        search_recipe recipe;
        if (!better) {
            const size_t n = chain_of(s, x, i, recipes);
            compile_next(s, recipes, n, 0);
        }
        if (!search_apply(&s->best.recipe, x->all[i].move, &recipe, s->d->arena))
            continue;
        QGC_TRY(try_recipe(s, x->all[i].move->change, &recipe, &c, &better));
        if (better)
            take_over(s, &c);
    }
    return QGC_OK;
}

/* Changes of the best, batch by batch, until some of a batch are better. */
static qgc_status try_all(search *s, search_moves *moves, bool *better) {
    *better = false;
    search_order(moves, &s->seed, gain_known, s);
    for (size_t i = 0; i < moves->n && !*better && !is_over(s); i += BATCH) {
        successes x = {.most.number = -1};
        const qgc_status status =
            try_batch(s, &moves->all[i], moves->n - i < BATCH ? moves->n - i : BATCH, &x);
        *better = x.n > 0;
        if (*better)
            take_over(s, &x.most);
        QGC_TRY(status);
        QGC_TRY(put_together(s, &x));
    }
    return QGC_OK;
}

/* --- climbing -------------------------------------------------------------------------------------------- */

/* The names of its groups, each once. */
static const char **groups_of(const qgc_graph *g, size_t *n, qgc_arena *a) {
    const char **names = qgc_arena_array(a, g->n_groups + 1, sizeof(char *));
    qgc_arena *scratch = qgc_arena_new();
    qgc_map known = qgc_map_new(scratch);
    *n = 0;
    for (const qgc_node *node = g->first; node; node = node->next)
        if (node->group >= 0 && qgc_map_put(&known, g->groups[node->group].name, scratch))
            names[(*n)++] = qgc_arena_strdup(a, g->groups[node->group].name);
    qgc_arena_drop(scratch);
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
        search_moves moves = search_moves_of(&s->best.recipe, cuts, n_cuts, s->d->arena);
        QGC_TRY(try_all(s, &moves, &better));
        s->out->is_complete = !better && !is_over(s);
    }
    return QGC_OK;
}

/* --- the end --------------------------------------------------------------------------------------------- */

/* Of the candidates that are changes of the best, the one that may save most against it and was not timed again; -1: none may. */
static int next_contender(const search *s, const bool *done) {
    const qgc_search *out = s->out;
    int most = -1;
    for (int i = 0; i < out->n_tries; i++) {
        const qgc_search_try *t = &out->tries[i];
        if (t->verdict == QGC_SEARCH_NO_BETTER && t->parent == out->best && t->high >= 0 && !done[i] &&
            (most < 0 || t->saved > out->tries[most].saved))
            most = i;
    }
    return most;
}

/* What may be as fast as the best, timed longer: until one is better, or for AGAIN of them. */
static qgc_status time_again(search *s) {
    bool *done = qgc_arena_array(s->d->arena, (size_t)s->out->n_tries + AGAIN, sizeof *done);
    bool better = false;
    for (int n = 0, i; n < AGAIN && !better && (i = next_contender(s, done)) >= 0; n++) {
        const char *change = qgc_arena_printf(s->d->arena, "%s, longer", s->out->tries[i].change);
        qgc_search_try *t = new_try(s, change, &s->recipes[i]);
        search_candidate c = {
            .arena = qgc_arena_new(), .recipe = s->recipes[i], .number = s->out->n_tries - 1};
        done[i] = done[c.number] = true;
        qgc_status status = search_candidate_make(&s->model, &c, false, t, s->d);
        if (status == QGC_OK && t->verdict == QGC_SEARCH_NO_BETTER)
            status = is_better(s, &c, LONGER * s->o->pairs, t, &better);
        if (better) {
            t->verdict = QGC_SEARCH_BETTER;
            take_over(s, &c);
        }
        search_candidate_drop(&c);
        t->seconds = qgc_seconds() - s->begun;
        QGC_TRY(status);
    }
    return QGC_OK;
}

/* From the first layers to the whole model, with the best so far and the start. */
static qgc_status take_all_layers(search *s, qgc_search_try *start) {
    qgc_search *out = s->out;
    const int number = s->best.number;
    if (number > 0)
        search_candidate_drop(&s->best);
    search_model_close(&s->model);
    *start = out->result = nothing_known;
    QGC_TRY(search_model_open(&s->model, s->o, 0, &s->recipes[0], start, s->d));
    s->best = s->model.start;
    out->result = *start;
    if (number == 0)
        return QGC_OK;
    out->result = nothing_known;
    s->best = (search_candidate){.arena = qgc_arena_new(), .recipe = s->recipes[number], .number = number};
    QGC_TRY(search_candidate_make(&s->model, &s->best, false, &out->result, s->d));
    if (out->result.verdict == QGC_SEARCH_NO_BETTER)
        return QGC_OK;
    return qgc_fail(s->d, QGC_ERR_INPUT, QGC_NO_LOC, "what is best with %d layers is not right with all: %s",
                    out->layers_left, out->result.why);
}

/* What the best saves against another pipeline. */
static qgc_status compare(search *s, const char *what, const search_candidate *c, const qgc_search_try *of) {
    qgc_search_rival *rival = &s->out->rivals[s->out->n_rivals++];
    *rival = (qgc_search_rival){what, search_passes_text(&c->recipe, s->d->arena), *of};
    if (!s->o->run.device || !c->trial || of->verdict == QGC_SEARCH_WRONG)
        return QGC_OK;
    qgc_search_try timed = nothing_known;
    QGC_TRY(search_candidate_time(&s->model, c, &s->best, LONGER * s->o->pairs, &timed, &rival->of.us, s->d));
    rival->of.saved = timed.saved;
    rival->of.low = timed.low;
    rival->of.high = timed.high;
    s->out->result.us = timed.us;
    return QGC_OK;
}

static qgc_status compare_with_default(search *s) {
    const qgc_experiment *run = &s->o->run;
    const qgc_pass_edits none = {0};
    qgc_search_try t = nothing_known;
    search_candidate c = {.arena = qgc_arena_new(), .number = -1};
    const char *passes;
    qgc_graph *g;
    qgc_status status = qgc_graph_load_for(&g, run->graph, run->weights, c.arena, s->d);
    if (status == QGC_OK)
        status = qgc_pass_pipeline(&passes, g, NULL, NULL, &none, s->d);
    if (status == QGC_OK) {
        c.recipe = search_recipe_of(passes, s->d->arena);
        const char *own = search_passes_text(&c.recipe, c.arena);
        if (strcmp(own, search_passes_text(&s->recipes[0], c.arena)) != 0) {
            status = search_candidate_make(&s->model, &c, false, &t, s->d);
            if (status == QGC_OK)
                status = compare(s, "the default", &c, &t);
        }
    }
    search_candidate_drop(&c);
    return status;
}

static qgc_status end(search *s) {
    qgc_search *out = s->out;
    qgc_search_try start = out->tries[0];
    if (s->o->run.device)
        QGC_TRY(time_again(s));
    out->layers_left = s->model.layers_left;
    out->layers_of = s->model.layers_of;
    out->result = out->tries[out->best];
    if (out->layers_left < out->layers_of)
        QGC_TRY(take_all_layers(s, &start));
    if (out->best > 0)
        QGC_TRY(compare(s, "the start", &s->model.start, &start));
    return compare_with_default(s);
}

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

/* --- the beginning --------------------------------------------------------------------------------------- */

/* The pipeline that it starts from. */
static qgc_status first_recipe(const search *s, search_recipe *r) {
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
    *r = search_recipe_of(passes, s->d->arena);
    return QGC_OK;
}

static qgc_status start(search *s) {
    search_recipe r = {0};
    QGC_TRY(first_recipe(s, &r));
    const char *passes = search_passes_text(&r, s->d->arena);
    qgc_search_try *t = new_try(s, *passes ? passes : "no pass", &r);
    QGC_TRY(search_model_open(&s->model, s->o, s->o->layers, &r, t, s->d));
    t->seconds = qgc_seconds() - s->begun;
    s->best = s->model.start;
    s->out->mode = s->model.mode;
    return QGC_OK;
}

static qgc_status check_options(const qgc_search_options *o, qgc_diag *d) {
    if (o->run.n_tokens < 1)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "no tokens to judge candidates by");
    if (o->run.device && (o->pairs < 6 || o->ctx <= QGC_PAIR_STEPS))
        return qgc_fail(
            d, QGC_ERR_USAGE, QGC_NO_LOC,
            "%d pairs of timings in a context of %lld positions, expected 6 or more in %d or more", o->pairs,
            (long long)o->ctx, QGC_PAIR_STEPS + 1);
    return QGC_OK;
}

qgc_status qgc_search_run(const qgc_search_options *o, qgc_search *out, qgc_diag *d) {
    *out = (qgc_search){.best = 0};
    QGC_TRY(check_options(o, d));
    search s = {.o = o, .out = out, .d = d, .seed = o->seed, .begun = qgc_seconds()};
    qgc_status status = start(&s);
    if (status == QGC_OK)
        status = climb(&s);
    if (status == QGC_OK)
        status = end(&s);
    if (status == QGC_OK)
        status = write_best(&s);
    if (s.best.number > 0)
        search_candidate_drop(&s.best);
    search_model_close(&s.model);
    out->seconds = qgc_seconds() - s.begun;
    return status;
}
