#include <limits.h>
#include <math.h>
#include <string.h>

#include "graph/load.h"
#include "passes/bind_weights.h"
#include "runtime/engine/stats.h"
#include "runtime/lab/bisect_impl.h"
#include "runtime/mode.h"

/* Held at a time: the reference, and the beginning of the pipeline that is looked at. On a device the whole pipeline's
 * program is held too, as the weights are its. */

typedef struct {
    const qgc_bisect_options *o;
    qgc_diag *d;
    qgc_bisection *out;
    int32_t *tokens; /* [positions] */
    bisect_side right, first;
    int64_t steps;    /* of a run through the text */
    const char *mode; /* of trials on the device: what is asked for, and after the first what that came to */
    size_t done;
} lab;

enum { MUCH = 16 };

static const qgc_pass_limit whole = {SIZE_MAX, INT_MAX}, nothing = {0, 0};

/* --- sides ----------------------------------------------------------------------------------------------- */

typedef struct {
    bool is_reference; /* the graph that is right; else `graph` under `limit` */
    qgc_pass_limit limit;
    bool on_device, keep_values;
} wanted;

static qgc_status load(const qgc_bisect_options *o, bool is_reference, bisect_side *s, qgc_diag *d) {
    if (is_reference && o->against)
        return qgc_graph_load_for(&s->graph, o->against, o->run.weights, s->arena, d);
    if (o->text)
        return qgc_graph_load_text(&s->graph, o->run.graph, o->text, strlen(o->text), s->arena, d);
    return qgc_graph_load_for(&s->graph, o->run.graph, o->run.weights, s->arena, d);
}

static qgc_status check_positions(const qgc_bisect_options *o, const qgc_graph *g, qgc_diag *d) {
    const int64_t limit = qgc_graph_max_positions(g);
    if (limit && o->run.positions > limit)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "%lld steps, and \"%s\" can have at most %lld",
                        (long long)o->run.positions, g->name, (long long)limit);
    return QGC_OK;
}

qgc_status bisect_load(const qgc_bisect_options *o, bool is_reference, bisect_side *s, qgc_diag *d) {
    QGC_TRY(load(o, is_reference, s, d));
    QGC_TRY(check_positions(o, s->graph, d));
    /* Of two graphs over one file each may read what the other does not. */
    return qgc_graph_bind(s->graph, o->run.weights, o->run.allow_unused || o->against, &s->tensors, d);
}

/* Are kernels looked at in steps of a prompt? */
static bool is_prefill(const lab *l) {
    return l->o->run.device && l->o->phase == QGC_PHASE_ONLY_PREFILL;
}

static qgc_status make(lab *l, const wanted *w, bisect_side *s) {
    const qgc_bisect_options *o = l->o;
    s->arena = qgc_arena_new();
    QGC_TRY(bisect_load(o, w->is_reference, s, l->d));
    qgc_pass_options passes = {
        .passes = o->run.passes, .skip = o->run.skip, .limit = &w->limit, .watch = o->run.watch};
    if (w->is_reference)
        passes = (qgc_pass_options){.passes = ""};
    QGC_TRY(qgc_passes_run(s->graph, &passes, &s->report, l->d));
    const qgc_trial_options trial = {.device = w->on_device ? o->run.device : NULL,
                                     .mode = w->on_device ? l->mode : NULL,
                                     .ctx = o->run.positions,
                                     .chunk = is_prefill(l) ? o->run.positions : 0,
                                     .keep_values = w->keep_values,
                                     .cache_folder = o->run.cache_folder,
                                     .pool = o->run.pool,
                                     .share = w->on_device ? l->first.trial : NULL};
    QGC_TRY(qgc_trial_new(&s->trial, s->graph, o->run.weights, s->tensors, &trial, l->d));
    s->vocab = qgc_trial_vocab(s->trial);
    if (l->right.trial && s->vocab != l->right.vocab)
        return qgc_fail(l->d, QGC_ERR_INPUT, s->graph->at, "logits of %lld tokens, and \"%s\" has %lld",
                        (long long)s->vocab, l->right.graph->name, (long long)l->right.vocab);
    return QGC_OK;
}

static void drop(bisect_side *s) {
    qgc_trial_drop(s->trial);
    if (s->arena)
        qgc_arena_drop(s->arena);
    *s = (bisect_side){0};
}

/* The token that the graph chose, or -1. */
static qgc_status read_next(const bisect_side *s, int32_t *next, qgc_diag *d) {
    const qgc_value *v = qgc_graph_output(s->graph, "next");
    const float *at;
    int64_t n;
    bool kept = false;
    if (v)
        QGC_TRY(qgc_trial_value(s->trial, v, &at, &n, &kept, d));
    *next = kept ? (int32_t)at[0] : -1;
    return QGC_OK;
}

/* The most likely token. */
static qgc_status choose_next(const lab *l, bisect_side *s, int32_t *next) {
    double *logits = qgc_arena_array(s->arena, (size_t)s->vocab, sizeof *logits);
    QGC_TRY(qgc_trial_logits(s->trial, logits, l->d));
    *next = qgc_most_likely(logits, s->vocab);
    return QGC_OK;
}

/* The text, one token a step. The reference goes on after its end. */
static qgc_status read_text(lab *l, bisect_side *s) {
    const int64_t n = l->o->run.positions;
    l->steps = qgc_trial_steps(s->trial, n);
    s->logits = qgc_arena_array(s->arena, (size_t)(l->steps * s->vocab), sizeof *s->logits);
    s->next = qgc_arena_array(s->arena, (size_t)l->steps, sizeof *s->next);
    for (int64_t i = 0, at = 0, end; i < l->steps; i++, at = end) {
        float *logits = s->logits + i * s->vocab;
        end = qgc_trial_step_end(s->trial, n, i);
        QGC_TRY(qgc_trial_feed(s->trial, &l->tokens[at], end - at, logits, l->d));
        QGC_TRY(read_next(s, &s->next[i], l->d));
        if (s == &l->right && !is_prefill(l) && i + 1 >= (int64_t)l->o->run.n_tokens && i + 1 < n)
            QGC_TRY(choose_next(l, s, &l->tokens[i + 1]));
    }
    if (l->o->run.progress) /* so many runs it takes, more or less */
        l->o->run.progress(l->o->run.context, ++l->done < 20 ? l->done : 19, 20);
    return QGC_OK;
}

/* --- how far apart --------------------------------------------------------------------------------------- */

double bisect_distance(const float *good, const float *bad, int64_t n) {
    double largest = 0, apart = 0;
    for (int64_t i = 0; i < n; i++) {
        const double difference = fabs((double)good[i] - (double)bad[i]);
        if (isnan(good[i]) && isnan(bad[i]))
            continue;
        if (!(difference < INFINITY) && good[i] != bad[i]) /* infinities may be equal */
            return INFINITY;
        if (isfinite(good[i])) {
            largest = fmax(largest, fabs((double)good[i]));
            apart = fmax(apart, difference);
        }
    }
    return apart == 0 ? 0 : largest == 0 ? INFINITY : apart / largest;
}

double bisect_choice_distance(const float *logits, int64_t vocab, int64_t want, int64_t got) {
    double largest = 0;
    if (got == want)
        return 0;
    if (want < 0 || want >= vocab || got < 0 || got >= vocab)
        return INFINITY;
    for (int64_t i = 0; i < vocab; i++)
        largest = fmax(largest, fabs((double)logits[i]));
    return largest > 0 ? fabs((double)logits[want] - (double)logits[got]) / largest : INFINITY;
}

/* Of the logits of a position, and of the choice where there is one. */
static double distance_at(const bisect_side *right, const bisect_side *s, int64_t i) {
    const float *good = right->logits + i * right->vocab, *bad = s->logits + i * right->vocab;
    const double apart = bisect_distance(good, bad, right->vocab);
    if (right->next[i] < 0)
        return apart;
    return fmax(apart, bisect_choice_distance(good, right->vocab, right->next[i], s->next[i]));
}

static double distance(const bisect_side *right, const bisect_side *s, int64_t positions) {
    double worst = 0;
    for (int64_t i = 0; i < positions; i++)
        worst = fmax(worst, distance_at(right, s, i));
    return worst;
}

/* How far the graph under `limit` is from what is right. */
static qgc_status measure(lab *l, qgc_pass_limit limit, bool on_device, double *apart) {
    bisect_side s = {0};
    qgc_status status = make(l, &(wanted){.limit = limit, .on_device = on_device}, &s);
    if (status == QGC_OK)
        status = read_text(l, &s);
    if (status == QGC_OK)
        *apart = distance(&l->right, &s, l->steps);
    drop(&s);
    return status;
}

/* --- searching ------------------------------------------------------------------------------------------- */

/* Between two that are `low` and `high` apart: as far from the one as from the other in digits, so that the first of
 * several faults is found, and not the last. */
static double between(double low, double high) {
    const double least = fmin(ldexp(1, -24), high / 4);
    return isinf(high) ? fmax(1, 2 * low) : sqrt(fmax(low, least) * high);
}

/* The first of `n` passes, or of the `n` changes of pass number `pass` where that is not 0, with which more than `limit` of
 * the distance is there. *before and *with are what is known of the distances at the ends, and then at the place found. */
static qgc_status search(lab *l, bool on_device, size_t pass, int n, double limit, int *found, double *before,
                         double *with) {
    int low = 0, high = n;
    while (high - low > 1) {
        const int middle = low + (high - low) / 2;
        const qgc_pass_limit at =
            pass ? (qgc_pass_limit){pass, middle} : (qgc_pass_limit){(size_t)middle, INT_MAX};
        double apart;
        QGC_TRY(measure(l, at, on_device, &apart));
        if (apart > limit) {
            high = middle;
            *with = apart;
        } else {
            low = middle;
            *before = apart;
        }
    }
    *found = high;
    return QGC_OK;
}

/* The first pass with which more than half of the distance is there. */
static qgc_status find_pass(lab *l, bool on_device, double all, size_t *found) {
    qgc_bisection *b = l->out;
    int pass;
    b->before_pass = b->none;
    b->with_pass = all;
    const double limit = isinf(all) ? between(b->none, all) : all / 2;
    QGC_TRY(search(l, on_device, 0, b->n_passes, limit, &pass, &b->before_pass, &b->with_pass));
    *found = (size_t)pass;
    return QGC_OK;
}

/* The pass makes as many changes as it did in the whole pipeline, of which the beginning is the same. */
static qgc_status find_change(lab *l, bool on_device, size_t pass) {
    qgc_bisection *b = l->out;
    b->n_changes = l->first.report.runs[pass - 1].n_fired;
    b->before_change = b->before_pass;
    b->with_change = b->with_pass;
    const double limit = between(b->before_pass, b->with_pass);
    return search(l, on_device, pass, b->n_changes, limit, &b->change, &b->before_change, &b->with_change);
}

/* --- telling --------------------------------------------------------------------------------------------- */

const char *bisect_place(qgc_loc at, qgc_arena *a) {
    return at.source ? qgc_arena_printf(a, "%s:%d:%d", at.source->name, at.line, at.col) : "";
}

/* The last change that a side's last pass has made. */
static void tell_change(lab *l, const bisect_side *bad) {
    qgc_bisection *b = l->out;
    qgc_arena *a = l->d->arena;
    const qgc_pass_run *run = &bad->report.runs[bad->report.n_runs - 1];
    b->pass = qgc_arena_strdup(a, run->name);
    for (size_t i = run->n_events; i-- > 0;) {
        const qgc_pass_event *e = &run->events[i];
        if (!e->fired)
            continue;
        b->rule = qgc_arena_strdup(a, e->rule);
        b->rule_at = qgc_arena_strdup(a, e->node);
        b->rule_place = bisect_place(e->at, a);
        b->rule_text = qgc_arena_strdup(a, e->text);
        return;
    }
}

const char *bisect_node_text(const qgc_node *n, qgc_arena *a) {
    qgc_str text = qgc_str_new(a);
    qgc_str_printf(&text, "%s(", qgc_ops[n->op].name);
    for (int i = 0; i < n->n_in; i++)
        qgc_str_printf(&text, "%s%s", i ? ", " : "", qgc_value_label(n->in[i], a));
    qgc_str_add(&text, ")");
    return text.text;
}

/* Values are compared where each keeps its place. If outputs are then nearer by far, it is that which parts them. */
static bool is_of_memory(const lab *l, const bisect_side *bad, const bisect_comparison *c) {
    const double shared = l->out->pass ? l->out->with_change : l->out->none;
    double apart = ldexp(1, -20);
    for (size_t i = 0; i < bad->graph->n_outputs; i++) {
        const bisect_value *v = &c->values[bad->graph->outputs[i]->id];
        if (!v->other)
            return false;
        apart = fmax(apart, v->most);
    }
    return l->out->by_kernels && shared > MUCH * apart;
}

static void tell_value(lab *l, const bisect_side *bad, const bisect_comparison *c) {
    qgc_bisection *b = l->out;
    qgc_arena *a = l->d->arena;
    b->n_compared = c->n_compared;
    b->n_unread = c->n_unread;
    b->by_memory = is_of_memory(l, bad, c);
    b->verdict = b->by_memory ? QGC_BISECT_WRONG : QGC_BISECT_HARMLESS;
    if (!c->part || b->by_memory)
        return;
    const bisect_value *v = &c->values[c->part->id];
    b->value = qgc_arena_strdup(a, qgc_value_label(c->part, a));
    b->node = bisect_node_text(c->part->maker, a);
    b->place = bisect_place(c->part->maker->at, a);
    b->position =
        is_prefill(l) ? qgc_trial_step_end(bad->trial, l->o->run.positions, v->position) - 1 : v->position;
    b->apart = v->apart;
    b->inputs = v->inputs;
    b->rounding = v->rounding;
    if (v->ratio > 1)
        b->verdict = QGC_BISECT_WRONG;
}

/* --- the two sides that are left ------------------------------------------------------------------------- */

/* A few nodes of a graph are launched kernel by kernel: no persistent step can be made of them, and the result says so. */
static bool may_reproduce(const lab *l) {
    const bool persistent = l->mode && strcmp(l->mode, qgc_mode_name(QGC_MODE_PERSISTENT)) == 0;
    if (l->out->by_kernels && is_prefill(l)) {
        l->out->not_written = "a few nodes by themselves are looked at in decode steps";
        return false;
    }
    if (!l->out->by_kernels || !persistent)
        return true;
    l->out->not_written = "a few nodes by themselves do not run in persistent mode";
    return false;
}

static qgc_status compare(lab *l, const wanted *bad_one, const wanted *good_one) {
    const qgc_bisect_options *o = l->o;
    bisect_side good = {0}, bad = {0};
    bisect_comparison c;
    qgc_status status = make(l, good_one, &good);
    if (status == QGC_OK)
        status = make(l, bad_one, &bad);
    if (status == QGC_OK)
        status = bisect_compare(&good, &bad, l->tokens, o->run.positions, l->out->by_kernels, &c, l->d);
    if (status == QGC_OK) {
        if (bad.report.n_runs)
            tell_change(l, &bad);
        tell_value(l, &bad, &c);
        if (o->reproduction && c.part && !l->out->by_memory && may_reproduce(l))
            status = bisect_write(o->reproduction, &good, &bad, &c, l->tokens, o->run.positions,
                                  l->out->by_kernels, l->out, l->d);
    }
    drop(&bad);
    drop(&good);
    return status;
}

/* The prefix of the pipeline whose kernels differ, and the one whose kernels do not yet. */
static qgc_status look_at_kernels(lab *l) {
    qgc_bisection *b = l->out;
    wanted bad = {.limit = nothing, .on_device = true, .keep_values = true};
    QGC_TRY(measure(l, nothing, true, &b->none));
    if (b->n_passes > 0 && b->none <= b->all / 2 && isfinite(b->none)) {
        size_t pass = 0;
        QGC_TRY(find_pass(l, true, b->all, &pass));
        QGC_TRY(find_change(l, true, pass));
        bad.limit = (qgc_pass_limit){pass, b->change > 0 ? b->change : INT_MAX};
    }
    /* the graph is right: what its own evaluation gives */
    wanted good = {.limit = bad.limit, .keep_values = true};
    return compare(l, &bad, &good);
}

/* Without a device the graph, in double precision. */
static qgc_status look_at_graph(lab *l, bool asks_devices) {
    bisect_judged judged = {.judge = NULL};
    qgc_bisect_options o = *l->o;
    o.asks_devices = asks_devices;
    qgc_status status = bisect_graphs(&o, l->tokens, &judged, l->out, l->d);
    if (status == QGC_OK && l->o->reproduction && l->out->n_faults > 0)
        status = bisect_reproduce(l->o, &judged, l->tokens, l->out, l->d);
    bisect_judged_drop(&judged);
    return status;
}

/* The whole pipeline. A kernel from outside that is wrong does not run: what the graph says of it is the verdict, again where it is
 * the device that has shown it. */
static qgc_status make_on_device(lab *l) {
    qgc_diag *const outer = l->d, *const own = qgc_arena_alloc(outer->arena, sizeof *own);
    *own = qgc_diag_new(outer->arena);
    l->d = own;
    qgc_status status = make(l, &(wanted){.limit = whole, .on_device = true}, &l->first);
    l->d = outer;
    if (status != QGC_ERR_INPUT)
        return status == QGC_OK ? status : qgc_diag_adopt(l->d, own);
    drop(&l->first);
    if (l->out->verdict != QGC_BISECT_WRONG) {
        *l->out = (qgc_bisection){.verdict = QGC_BISECT_EQUAL};
        QGC_TRY(look_at_graph(l, true));
    }
    l->out->all = l->out->evaluated;
    l->out->mode = l->mode ? l->mode : qgc_mode_name(QGC_MODE_GRAPH);
    return l->out->verdict == QGC_BISECT_WRONG ? QGC_OK : qgc_diag_adopt(l->d, own);
}

static qgc_status bisect(lab *l) {
    const qgc_bisect_options *o = l->o;
    qgc_bisection *b = l->out;
    QGC_TRY(make(l, &(wanted){.is_reference = true}, &l->right));
    QGC_TRY(read_text(l, &l->right));
    QGC_TRY(look_at_graph(l, !o->run.device)); /* a device that is here is asked again */
    b->all = b->evaluated;
    if (!o->run.device)
        return QGC_OK;
    QGC_TRY(make_on_device(l));
    if (!l->first.trial)
        return QGC_OK;
    b->mode = l->mode = qgc_trial_mode(l->first.trial);
    QGC_TRY(read_text(l, &l->first));
    b->all = distance(&l->right, &l->first, l->steps);
    if (b->verdict == QGC_BISECT_WRONG)
        return QGC_OK;
    if (b->all > 0) {
        *b = (qgc_bisection){.mode = b->mode,
                             .n_passes = b->n_passes,
                             .all = b->all,
                             .evaluated = b->evaluated,
                             .by_kernels = true};
        QGC_TRY(look_at_kernels(l));
    }
    return b->verdict == QGC_BISECT_WRONG || is_prefill(l)
               ? QGC_OK
               : bisect_choices(&l->first, l->tokens, o->run.positions, b, l->d);
}

qgc_status qgc_bisect(const qgc_bisect_options *o, qgc_bisection *out, qgc_diag *d) {
    *out = (qgc_bisection){.verdict = QGC_BISECT_EQUAL};
    if (o->run.positions < 1 || o->run.n_tokens < 1)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "no tokens to compare values on");
    lab l = {.o = o, .d = d, .out = out, .mode = o->run.mode};
    const size_t known =
        o->run.n_tokens < (size_t)o->run.positions ? o->run.n_tokens : (size_t)o->run.positions;
    l.tokens = qgc_arena_array(d->arena, (size_t)o->run.positions, sizeof *l.tokens);
    for (int64_t i = 0; i < o->run.positions; i++) /* of prefill; decode steps go on with what is chosen */
        l.tokens[i] = o->run.tokens[i % (int64_t)known];
    if (is_prefill(&l) && o->run.positions < 2)
        return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "one token is no prefill");
    qgc_status status = bisect(&l);
    drop(&l.right);
    drop(&l.first); /* the weights on the device are its */
    return status;
}
