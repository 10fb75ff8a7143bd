#include "runtime/lab/search_model.h"

#include <math.h>

#include "graph/print.h"
#include "passes/bind_weights.h"
#include "runtime/engine/stats.h"
#include "runtime/lab/fewer_layers.h"
#include "runtime/lab/pairs.h"
#include "runtime/lab/whole.h"
#include "runtime/mode.h"

enum { JUDGED = 16 }; /* tokens of the text that graphs and kernels are judged by */
_Static_assert((int)JUDGED <= (int)QGC_PAIR_STEPS, "a context that is long enough to be timed holds them");

/* Kernels sum in float32, in other orders: the divergence of two distributions of the next token, in nats. */
static const double MOST_KL = 1e-3;

static int64_t n_judged(const search_model *m) {
    return m->o->run.n_tokens < JUDGED ? (int64_t)m->o->run.n_tokens : JUDGED;
}

/* --- graphs ---------------------------------------------------------------------------------------------- */

void search_candidate_drop(search_candidate *c) {
    qgc_trial_drop(c->trial);
    qgc_arena_drop(c->arena);
    *c = (search_candidate){.number = -1};
}

static qgc_status load(search_model *m, qgc_graph **g, const qgc_tensor ***tensors, qgc_arena *a,
                       qgc_diag *d) {
    const qgc_experiment *run = &m->o->run;
    QGC_TRY(qgc_graph_load_for(g, run->graph, run->weights, a, d));
    QGC_TRY(qgc_graph_bind(*g, run->weights, run->allow_unused, tensors, d));
    return m->layers ? qgc_lab_keep_layers(*g, *tensors, m->layers, &m->layers_left, &m->layers_of, d)
                     : QGC_OK;
}

static qgc_status cut_groups(const search_candidate *c, qgc_diag *d) {
    for (size_t i = 0; i < c->recipe.n_cuts; i++) {
        const search_cut *cut = &c->recipe.cuts[i];
        if (!qgc_cut_groups(c->graph, cut->group, cut->cut, c->arena))
            return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "there is no %s to be cut from group \"%s\"",
                            qgc_cut_name(cut->cut), cut->group);
    }
    return QGC_OK;
}

static qgc_status make_graph(search_model *m, search_candidate *c, const qgc_tensor ***tensors, qgc_diag *d) {
    qgc_pass_report report;
    const qgc_pass_options passes = {.passes = search_passes_text(&c->recipe, c->arena),
                                     .watch = m->o->run.watch};
    QGC_TRY(load(m, &c->graph, tensors, c->arena, d));
    QGC_TRY(qgc_passes_run(c->graph, &passes, &report, d));
    QGC_TRY(cut_groups(c, d));
    c->graph->passes = "";
    return qgc_verify(c->graph, d);
}

/* The number of the candidate that has made this graph; NULL: none has. */
static int *find_seen(const search_model *m, const search_candidate *c, const char **text) {
    qgc_str printed = qgc_str_new(c->arena);
    qgc_graph_print_yaml(c->graph, &printed);
    *text = printed.text;
    return qgc_map_get(&m->seen, printed.text);
}

static bool is_seen(search_model *m, const search_candidate *c, int *by) {
    const char *text;
    const int *found = find_seen(m, c, &text);
    if (found) {
        *by = *found;
        return true;
    }
    int *number = qgc_arena_alloc(m->arena, sizeof *number);
    *number = c->number;
    qgc_map_put(&m->seen, text, number);
    return false;
}

/* --- what is right --------------------------------------------------------------------------------------- */

static qgc_status start_judging(search_model *m, qgc_diag *d) {
    const qgc_experiment *run = &m->o->run;
    const qgc_judge_options judging = {.tokens = run->tokens, .n_tokens = n_judged(m), .pool = run->pool};
    const qgc_tensor **tensors;
    qgc_graph *g;
    QGC_TRY(load(m, &g, &tensors, m->arena, d));
    return qgc_judge_new(&m->judge, g, tensors, &judging, d);
}

/* The text, token by token; the logits go to `to`. */
static qgc_status read_text(const search_model *m, qgc_trial *t, double *to, qgc_diag *d) {
    QGC_TRY(qgc_trial_reset(t, d));
    for (int64_t i = 0; i < n_judged(m); i++) {
        QGC_TRY(qgc_trial_step(t, m->o->run.tokens[i], NULL, d));
        QGC_TRY(qgc_trial_logits(t, to + i * m->vocab, d));
    }
    return QGC_OK;
}

/* *why stays NULL where the kernels compute what those of the start do. */
static qgc_status check_kernels(const search_model *m, const search_candidate *c, const char **why,
                                qgc_diag *d) {
    double *logits = qgc_arena_array(c->arena, (size_t)(n_judged(m) * m->vocab), sizeof *logits), worst = 0;
    QGC_TRY(read_text(m, c->trial, logits, d));
    for (int64_t i = 0; i < n_judged(m); i++) {
        const qgc_drift drift = qgc_drift_of(m->logits + i * m->vocab, logits + i * m->vocab, m->vocab);
        worst = !(drift.kl_max <= worst) ? drift.kl_max : worst;
    }
    if (!(worst <= MOST_KL))
        *why = qgc_arena_printf(m->texts, "the logits of its kernels diverge by %.3g nats", worst);
    return QGC_OK;
}

/* --- candidates ------------------------------------------------------------------------------------------ */

static qgc_trial_options trial_options(const search_model *m) {
    const qgc_experiment *run = &m->o->run;
    return (qgc_trial_options){.device = run->device,
                               .mode = m->mode ? m->mode : run->mode,
                               .ctx = m->o->ctx,
                               .in_double = true,
                               .cache_folder = run->cache_folder,
                               .pool = run->pool,
                               .share = m->start.trial};
}

static qgc_status open_trial(const search_model *m, search_candidate *c, const qgc_tensor *const *tensors,
                             qgc_search_try *t, qgc_diag *d) {
    const qgc_trial_options trial = trial_options(m);
    QGC_TRY(qgc_trial_new(&c->trial, c->graph, m->o->run.weights, tensors, &trial, d));
    const char *refusal = qgc_trial_refusal(c->trial);
    if (refusal) {
        t->verdict = QGC_SEARCH_REFUSED;
        t->why = qgc_arena_strdup(m->texts, refusal);
        return QGC_OK;
    }
    QGC_TRY(qgc_trial_cost_of(c->trial, &t->cost, d));
    t->model = qgc_mode_cost(t->cost.kernels, t->cost.weight_bytes + t->cost.value_bytes);
    return QGC_OK;
}

static qgc_status make(search_model *m, search_candidate *c, bool once, qgc_search_try *t, qgc_diag *d) {
    const qgc_tensor **tensors;
    QGC_TRY(make_graph(m, c, &tensors, d));
    if (once && is_seen(m, c, &t->same_as)) {
        t->verdict = QGC_SEARCH_SAME;
        return QGC_OK;
    }
    t->why = qgc_lab_objection(m->judge, c->graph, tensors, &m->o->run, m->texts);
    if (!t->why)
        QGC_TRY(open_trial(m, c, tensors, t, d));
    if (!t->why && m->logits)
        QGC_TRY(check_kernels(m, c, &t->why, d));
    if (t->why && t->verdict != QGC_SEARCH_REFUSED)
        t->verdict = QGC_SEARCH_WRONG;
    return QGC_OK;
}

/* What is wrong with a candidate is a result; what is wrong with the device, say, is an error. */
qgc_status search_candidate_make(search_model *m, search_candidate *c, bool once, qgc_search_try *t,
                                 qgc_diag *d) {
    qgc_diag own = qgc_diag_new(c->arena);
    const qgc_status status = make(m, c, once, t, &own);
    if (status == QGC_ERR_INPUT || status == QGC_ERR_USAGE) {
        t->verdict = QGC_SEARCH_REFUSED;
        t->why = qgc_arena_strdup(m->texts, qgc_diag_message(&own));
        return QGC_OK;
    }
    return status == QGC_OK ? QGC_OK : qgc_fail(d, status, QGC_NO_LOC, "%s", qgc_diag_message(&own));
}

qgc_status search_candidate_time(const search_model *m, const search_candidate *best,
                                 const search_candidate *c, int pairs, qgc_search_try *t, double *us_best,
                                 qgc_diag *d) {
    const size_t n = (size_t)pairs;
    const qgc_pairs how = {m->o->ctx, pairs, m->o->run.tokens[0]};
    qgc_arena *a = c->arena;
    double *before = qgc_arena_array(a, n, sizeof *before), *after = qgc_arena_array(a, n, sizeof *after),
           *saved = qgc_arena_array(a, n, sizeof *saved);
    QGC_TRY(qgc_pairs_time(&how, best->trial, c->trial, before, after, d));
    for (size_t i = 0; i < n; i++)
        saved[i] = before[i] - after[i];
    const qgc_interval interval = qgc_median_interval(saved, n, a);
    t->us = qgc_median(after, n, a);
    t->saved = interval.median;
    t->low = interval.low;
    t->high = interval.high;
    if (us_best)
        *us_best = qgc_median(before, n, a);
    return QGC_OK;
}

/* --- compiling ahead ------------------------------------------------------------------------------------- */

typedef struct {
    search_candidate c;
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
static bool make_ahead(search_model *m, const search_recipe *recipe, qgc_map *texts, ahead *a) {
    const qgc_tensor **tensors;
    const char *text;
    *a = (ahead){.c = {.arena = qgc_arena_new(), .recipe = *recipe}, .trial = trial_options(m)};
    qgc_diag d = qgc_diag_new(a->c.arena);
    return make_graph(m, &a->c, &tensors, &d) == QGC_OK && !a->c.graph->n_kernels &&
           !find_seen(m, &a->c, &text) && qgc_map_put(texts, text, a);
}

void search_compile_ahead(search_model *m, const search_recipe *recipes, size_t n) {
    qgc_arena *arena = qgc_arena_new();
    ahead *all = qgc_arena_array(arena, n + 1, sizeof *all);
    qgc_map texts = qgc_map_new(arena); /* two of them may make one graph */
    for (size_t i = 0; i < n; i++)
        all[i].is_new = make_ahead(m, &recipes[i], &texts, &all[i]);
    qgc_pool_for(m->o->run.pool, n, 1, compile_some, all);
    for (size_t i = 0; i < n; i++)
        qgc_arena_drop(all[i].c.arena);
    qgc_arena_drop(arena);
}

/* --- the first one --------------------------------------------------------------------------------------- */

qgc_status search_model_open(search_model *m, const qgc_search_options *o, int layers,
                             const search_recipe *start, qgc_search_try *t, qgc_diag *d) {
    qgc_arena *arena = qgc_arena_new();
    *m = (search_model){.o = o,
                        .layers = layers,
                        .arena = arena,
                        .texts = d->arena,
                        .seen = qgc_map_new(arena),
                        .start = {.arena = qgc_arena_new(), .recipe = *start}};
    QGC_TRY(start_judging(m, d));
    QGC_TRY(search_candidate_make(m, &m->start, true, t, d));
    if (t->verdict != QGC_SEARCH_NO_BETTER)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "\"%s\" cannot be searched with passes \"%s\": %s",
                        o->run.graph, search_passes_text(start, d->arena), t->why);
    t->verdict = QGC_SEARCH_START;
    if (!o->run.device)
        return QGC_OK;
    m->mode = qgc_trial_mode(m->start.trial);
    m->vocab = qgc_trial_vocab(m->start.trial);
    m->logits = qgc_arena_array(m->arena, (size_t)(n_judged(m) * m->vocab), sizeof *m->logits);
    return read_text(m, m->start.trial, m->logits, d);
}

void search_model_close(search_model *m) {
    search_candidate_drop(&m->start); /* the weights are its */
    qgc_judge_drop(m->judge);
    qgc_arena_drop(m->arena);
    *m = (search_model){0};
}
