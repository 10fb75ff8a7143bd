#include "runtime/lab/ablate.h"

#include <math.h>
#include <string.h>

#include "graph/base/str.h"
#include "graph/load.h"
#include "passes/bind_weights.h"
#include "passes/passes.h"
#include "runtime/lab/judge.h"
#include "runtime/lab/pairs.h"
#include "runtime/lab/random.h"
#include "runtime/lab/whole.h"

/* Held at a time are three programs: all passes, no pass, and the variant that is looked at. They share the weights, which
 * belong to the first. */

/* The graph under some passes. */
typedef struct {
    qgc_arena *arena; /* of the graph */
    qgc_trial *trial;
    qgc_pass_report report;
    const char *refused; /* why it cannot run in the mode; then there is nothing of the following */
    qgc_trial_cost cost;
    double *logits; /* [positions, vocab] */
    bool is_wrong;
} variant;

typedef struct {
    const qgc_ablate_options *o;
    qgc_diag *d;
    variant all, none;
    int32_t *tokens; /* [positions] */
    int64_t vocab;
    const char *mode; /* of all trials: what is asked for, and after the first what that came to */
    size_t done, parts;
    int64_t n_logits; /* rows of them that are compared */
    int32_t *prompt;  /* [ctx], where prefill is timed */
    qgc_judge *judge;
    qgc_arena *right; /* what the judge goes by */
} lab;

static void part_done(lab *l) {
    l->done++;
    if (l->o->run.progress)
        l->o->run.progress(l->o->run.context, l->done, l->parts);
}

/* --- variants -------------------------------------------------------------------------------------------- */

static qgc_status check_sizes(const lab *l, const qgc_graph *g) {
    const qgc_ablate_options *o = l->o;
    const int64_t limit = qgc_graph_max_positions(g);
    if (o->run.positions > o->ctx)
        return qgc_fail(l->d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "%lld steps do not fit into a context of %lld positions", (long long)o->run.positions,
                        (long long)o->ctx);
    if (limit && o->ctx > limit)
        return qgc_fail(l->d, QGC_ERR_USAGE, QGC_NO_LOC,
                        "a context of %lld positions, \"%s\" can have at most %lld", (long long)o->ctx,
                        g->name, (long long)limit);
    return QGC_OK;
}

/* The graph before any pass is what is right. It needs a text, so it is judged by the tokens that are given. */
static qgc_status start_judging(lab *l) {
    const qgc_ablate_options *o = l->o;
    const int64_t n = (int64_t)o->run.n_tokens, most = 16;
    const qgc_judge_options judging = {.tokens = o->run.tokens,
                                       .n_tokens = n < most ? n : most,
                                       .phase = o->prefill ? QGC_PHASE_ONLY_PREFILL : QGC_PHASE_BOTH,
                                       .pool = o->run.pool};
    const qgc_tensor **tensors;
    qgc_graph *g;
    l->right = qgc_arena_new();
    QGC_TRY(qgc_graph_load_for(&g, o->run.graph, o->run.weights, l->right, l->d));
    QGC_TRY(check_sizes(l, g));
    QGC_TRY(qgc_graph_bind(g, o->run.weights, o->run.allow_unused, &tensors, l->d));
    return qgc_judge_new(&l->judge, g, tensors, &judging, l->d);
}

static qgc_status judge(lab *l, variant *v, const qgc_graph *g, const qgc_tensor *const *tensors) {
    if (!l->judge)
        QGC_TRY(start_judging(l));
    v->is_wrong = qgc_lab_objection(l->judge, g, tensors, &l->o->run, v->arena) != NULL;
    return QGC_OK;
}

static qgc_status open_graph(lab *l, variant *v, const char *passes, const char *skip) {
    const qgc_ablate_options *o = l->o;
    qgc_graph *g;
    const qgc_tensor **tensors;
    QGC_TRY(qgc_graph_load_for(&g, o->run.graph, o->run.weights, v->arena, l->d));
    QGC_TRY(check_sizes(l, g));
    QGC_TRY(qgc_graph_bind(g, o->run.weights, o->run.allow_unused, &tensors, l->d));
    QGC_TRY(qgc_passes_run(g, &(qgc_pass_options){.passes = passes, .skip = skip, .watch = o->run.watch},
                           &v->report, l->d));
    const qgc_trial_options trial = {.device = o->run.device,
                                     .mode = l->mode,
                                     .ctx = o->ctx,
                                     .chunk = o->prefill ? o->ctx : 0,
                                     .in_double = true,
                                     .cache_folder = o->run.cache_folder,
                                     .pool = o->run.pool,
                                     .share = l->all.trial};
    QGC_TRY(judge(l, v, g, tensors));
    v->is_wrong = v->is_wrong || !qgc_lab_is_steady(&o->run, passes, skip, g);
    return qgc_trial_new(&v->trial, g, o->run.weights, tensors, &trial, l->d);
}

static void drop_variant(variant *v) {
    qgc_trial_drop(v->trial);
    qgc_arena_drop(v->arena);
    *v = (variant){0};
}

/* The text through a variant; after its end goes what the whole pipeline chooses. */
static qgc_status read_text(lab *l, variant *v) {
    const int64_t n = l->o->run.positions;
    l->n_logits = qgc_trial_steps(v->trial, n);
    v->logits = qgc_arena_array(v->arena, (size_t)(l->n_logits * l->vocab), sizeof *v->logits);
    QGC_TRY(qgc_trial_reset(v->trial, l->d));
    for (int64_t i = 0, at = 0, end; i < l->n_logits; i++, at = end) {
        double *logits = v->logits + i * l->vocab;
        end = qgc_trial_step_end(v->trial, n, i);
        QGC_TRY(qgc_trial_feed(v->trial, &l->tokens[at], end - at, NULL, l->d));
        QGC_TRY(qgc_trial_logits(v->trial, logits, l->d));
        if (v == &l->all && !l->o->prefill && i + 1 >= (int64_t)l->o->run.n_tokens && i + 1 < n)
            l->tokens[i + 1] = qgc_most_likely(logits, l->vocab);
    }
    return QGC_OK;
}

/* One that cannot run in the mode says why; of the whole pipeline that is an error. */
static qgc_status run_variant(lab *l, variant *v) {
    const char *refusal = qgc_trial_refusal(v->trial);
    if (refusal && v != &l->all) {
        v->refused = qgc_arena_strdup(l->d->arena, refusal);
        return QGC_OK;
    }
    l->vocab = qgc_trial_vocab(v->trial);
    QGC_TRY(qgc_trial_cost_of(v->trial, &v->cost, l->d));
    return read_text(l, v);
}

static qgc_status open_variant(lab *l, variant *v, const char *passes, const char *skip) {
    v->arena = qgc_arena_new();
    qgc_frame frame = {l->d->top, "running with passes", passes ? passes : "of the whole pipeline",
                       QGC_NO_LOC};
    l->d->top = &frame;
    qgc_status status = open_graph(l, v, passes, skip);
    if (status == QGC_OK)
        status = run_variant(l, v);
    l->d->top = frame.up;
    return status;
}

/* --- logits ---------------------------------------------------------------------------------------------- */

typedef struct {
    const double *reference, *other;
    int64_t vocab;
    qgc_drift *each;
} comparison;

static void compare_positions(void *context, size_t first, size_t last) {
    comparison *c = context;
    for (size_t i = first; i < last; i++)
        c->each[i] =
            qgc_drift_of(c->reference + (int64_t)i * c->vocab, c->other + (int64_t)i * c->vocab, c->vocab);
}

static qgc_drift compare_logits(const lab *l, const variant *reference, const variant *other) {
    const size_t n = (size_t)l->n_logits;
    comparison c = {reference->logits, other->logits, l->vocab,
                    qgc_arena_array(other->arena, n, sizeof(qgc_drift))};
    qgc_pool_for(l->o->run.pool, n, 1, compare_positions, &c);
    qgc_drift sum = {0};
    for (size_t i = 0; i < n; i++)
        qgc_drift_add(&sum, &c.each[i]);
    return sum;
}

/* --- effects --------------------------------------------------------------------------------------------- */

/* What is saved from `without` to `with`. The medians of the two go to us[0] and us[1]; it may be NULL. */
static qgc_status time_effect(lab *l, const variant *without, const variant *with, qgc_ablate_effect *effect,
                              double *us) {
    const size_t n = (size_t)l->o->pairs;
    qgc_arena *scratch = qgc_arena_new();
    double *a = qgc_arena_array(scratch, n, sizeof *a), *b = qgc_arena_array(scratch, n, sizeof *b),
           *saved = qgc_arena_array(scratch, n, sizeof *saved);
    const qgc_pairs pairs = {l->o->ctx, l->o->pairs, l->tokens[0]};
    qgc_status status = l->o->prefill
                            ? qgc_pairs_time_prefill(&pairs, l->prompt,
                                                     (qgc_trial *[]){without->trial, with->trial}, a, b, l->d)
                            : qgc_pairs_time(&pairs, without->trial, with->trial, a, b, l->d);
    for (size_t i = 0; status == QGC_OK && i < n; i++)
        saved[i] = a[i] - b[i];
    if (status == QGC_OK) {
        effect->us = qgc_median_interval(saved, n, scratch);
        if (us) {
            us[0] = qgc_median(a, n, scratch);
            us[1] = qgc_median(b, n, scratch);
        }
    }
    qgc_arena_drop(scratch);
    return status;
}

/* Where one of the two cannot run. */
static qgc_ablate_effect refused_effect(const char *why) {
    return (qgc_ablate_effect){
        .refused = why, .us = {NAN, NAN, NAN}, .drift = {.max_drift = NAN, .kl_max = NAN}};
}

/* All but the times; drift is measured from `reference`, one of the two. */
static qgc_ablate_effect compare_costs(const lab *l, const variant *without, const variant *with,
                                       const variant *reference) {
    return (qgc_ablate_effect){
        .us = {NAN, NAN, NAN},
        .kernels = without->cost.kernels - with->cost.kernels,
        .bytes = without->cost.value_bytes - with->cost.value_bytes,
        .drift = compare_logits(l, reference, reference == with ? without : with),
        .is_wrong = reference == with ? without->is_wrong : with->is_wrong,
    };
}

/* What is between two variants, of which `reference` is one, with the times where there is a device. The medians of
 * the two go to us[0] and us[1] where it is not NULL. */
static qgc_status effect_of(lab *l, const variant *const two[2], const variant *reference,
                            qgc_ablate_effect *effect, double *us) {
    const char *refused = two[0]->refused ? two[0]->refused : two[1]->refused;
    *effect = refused ? refused_effect(refused) : compare_costs(l, two[0], two[1], reference);
    if (refused || !l->o->run.device)
        return QGC_OK;
    return time_effect(l, two[0], two[1], effect, us);
}

/* The passes of the whole pipeline but one, "a,b(max=4)". */
static const char *without(const qgc_pass_report *all, size_t left_out, qgc_arena *a) {
    qgc_str text = qgc_str_new(a);
    for (size_t i = 0; i < all->n_runs; i++)
        if (i != left_out)
            qgc_str_printf(&text, "%s%s", text.bytes ? "," : "", all->runs[i].name);
    return text.text;
}

static qgc_status leave_out(lab *l, size_t i, qgc_ablate_row *row) {
    variant v = {0};
    qgc_status status = open_variant(l, &v, without(&l->all.report, i, l->d->arena), NULL);
    if (status == QGC_OK)
        status = effect_of(l, (const variant *[]){&v, &l->all}, &l->all, &row->left_out, NULL);
    drop_variant(&v);
    part_done(l);
    return status;
}

static qgc_status take_alone(lab *l, size_t i, qgc_ablate_row *row) {
    variant v = {0};
    qgc_status status = open_variant(l, &v, l->all.report.runs[i].name, NULL);
    if (status == QGC_OK) {
        row->fired_alone = v.report.runs[0].n_fired;
        status = effect_of(l, (const variant *[]){&l->none, &v}, &l->none, &row->alone, NULL);
    }
    drop_variant(&v);
    part_done(l);
    return status;
}

static qgc_status measure_total(lab *l, qgc_ablation *out) {
    double us[2] = {NAN, NAN};
    QGC_TRY(effect_of(l, (const variant *[]){&l->none, &l->all}, &l->none, &out->total, us));
    out->none = (qgc_ablate_way){l->none.refused, l->none.cost, us[0]};
    out->all = (qgc_ablate_way){NULL, l->all.cost, us[1]};
    return QGC_OK;
}

/* Each pass of the pipeline or not, in any order. */
static const char *random_subset(const qgc_pass_report *all, uint64_t *state, qgc_arena *a) {
    size_t *order = qgc_arena_array(a, all->n_runs, sizeof *order);
    qgc_str text = qgc_str_new(a);
    for (size_t i = 0; i < all->n_runs; i++) { /* Fisher and Yates, inside out */
        const size_t at = qgc_random(state) % (i + 1);
        order[i] = order[at];
        order[at] = i;
    }
    for (size_t i = 0; i < all->n_runs; i++)
        if (qgc_random(state) & 1)
            qgc_str_printf(&text, "%s%s", text.bytes ? "," : "", all->runs[order[i]].name);
    return text.text;
}

static qgc_status compare_subsets(lab *l, qgc_ablation *out) {
    uint64_t state = 1;
    double worst = -1;
    for (int i = 0; i < l->o->subsets; i++) {
        variant v = {0};
        const char *passes = random_subset(&l->all.report, &state, l->d->arena);
        qgc_status status = open_variant(l, &v, passes, NULL);
        if (status == QGC_OK && (v.refused || l->none.refused))
            out->n_refused++;
        else if (status == QGC_OK) {
            const qgc_drift drift = compare_logits(l, &l->none, &v);
            qgc_drift_add(&out->subsets, &drift);
            out->n_wrong_subsets += v.is_wrong;
            if (!(drift.max_drift <= worst)) {
                worst = drift.max_drift;
                out->worst_subset = passes;
            }
        }
        drop_variant(&v);
        QGC_TRY(status);
        out->n_subsets++;
        part_done(l);
    }
    return QGC_OK;
}

static qgc_status measure(lab *l, qgc_ablation *out) {
    QGC_TRY(open_variant(l, &l->all, l->o->run.passes, l->o->run.skip));
    const qgc_pass_report *all = &l->all.report;
    out->mode = l->mode = qgc_trial_mode(l->all.trial);
    l->parts = 2 + 2 * all->n_runs + (size_t)l->o->subsets;
    part_done(l);
    QGC_TRY(open_variant(l, &l->none, "", NULL));
    QGC_TRY(measure_total(l, out));
    part_done(l);
    out->rows = qgc_arena_array(l->d->arena, all->n_runs, sizeof *out->rows);
    out->n_rows = all->n_runs;
    for (size_t i = 0; i < all->n_runs; i++) {
        qgc_ablate_row *row = &out->rows[i];
        row->pass = qgc_arena_strdup(l->d->arena, all->runs[i].name);
        row->fired = all->runs[i].n_fired;
        QGC_TRY(leave_out(l, i, row));
        QGC_TRY(take_alone(l, i, row));
    }
    return compare_subsets(l, out);
}

/* A prompt goes on with the text from its beginning. */
static void fill_prompt(lab *l) {
    const qgc_experiment *run = &l->o->run;
    if (!l->o->prefill)
        return;
    for (int64_t i = (int64_t)run->n_tokens; i < run->positions; i++)
        l->tokens[i] = run->tokens[i % (int64_t)run->n_tokens];
    l->prompt = qgc_arena_array(l->d->arena, (size_t)l->o->ctx, sizeof *l->prompt);
    for (int64_t i = 0; i < l->o->ctx; i++)
        l->prompt[i] = run->tokens[i % (int64_t)run->n_tokens];
}

qgc_status qgc_ablate(const qgc_ablate_options *o, qgc_ablation *out, qgc_diag *d) {
    *out =
        (qgc_ablation){.positions = o->run.positions, .prefill = o->prefill, .timed = o->run.device != NULL};
    if (o->prefill && (o->run.positions < 2 || o->ctx < o->run.positions))
        return qgc_fail(
            d, QGC_ERR_USAGE, QGC_NO_LOC,
            "prefill of %lld tokens in a context of %lld, expected 2 or more, and no more than fit",
            (long long)o->run.positions, (long long)o->ctx);
    if (o->run.positions < 1 || o->run.n_tokens < 1)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "no tokens to compare logits on");
    if (o->run.device && (o->pairs < 6 || o->ctx <= QGC_PAIR_STEPS))
        return qgc_fail(
            d, QGC_ERR_USAGE, QGC_NO_LOC,
            "%d pairs of timings in a context of %lld positions, expected 6 or more in %d or more", o->pairs,
            (long long)o->ctx, QGC_PAIR_STEPS + 1);
    lab l = {.o = o, .d = d, .mode = o->run.mode};
    size_t known = o->run.n_tokens < (size_t)o->run.positions ? o->run.n_tokens : (size_t)o->run.positions;
    l.tokens = qgc_arena_array(d->arena, (size_t)o->run.positions, sizeof *l.tokens);
    memcpy(l.tokens, o->run.tokens, known * sizeof *l.tokens);
    fill_prompt(&l);
    qgc_status status = measure(&l, out);
    drop_variant(&l.none);
    drop_variant(&l.all); /* the weights are its */
    qgc_judge_drop(l.judge);
    qgc_arena_drop(l.right);
    return status;
}
