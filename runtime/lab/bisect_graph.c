#include <math.h>
#include <string.h>

#include "codegen/stage/stage.h"
#include "runtime/lab/bisect_impl.h"
#include "runtime/lab/disproof.h"

/* The pipeline, change by change. A pass is looked at while it runs: what matters is the graph that it
 * makes now, and not one that another run of it would make. */

typedef struct {
    const qgc_bisect_options *o;
    const qgc_tensor *const *tensors;
    qgc_judge *judge;
    qgc_bisection *out;
    qgc_diag *d;
    bisect_print seen;  /* of the graph that was looked at last */
    uint64_t judged;    /* flow of the graph that was judged last */
    double logits;      /* its distance */
    double before_pass; /* that before the pass that runs */
    int first_fault;    /* of the pass */
    bool is_invalid;    /* the graph, since a change of this pass */
    qgc_bisect_fault invalid;
    bisect_print *after; /* each pass */
    size_t n_after;
    qgc_bisect_fault drift;          /* the first change that is not the same but harmless */
    bool has_drift, has_bits;        /* and differs at all */
    bool has_wrong;                  /* one whose numbers are wrong */
    const qgc_kernel_row *disproved; /* a kernel from outside that is wrong */
    const qgc_graph *declared;       /* the graph as it was before any pass */
    const char *objection;           /* to what it declares now; told once */
    size_t n_nodes;                  /* when the pass began */
    bool is_endless;
} tracing;

/* --- faults ---------------------------------------------------------------------------------------------- */

/* All of a fault that the step says. */
static qgc_bisect_fault fault_of(const tracing *t, const qgc_pass_step *step) {
    qgc_arena *a = t->d->arena;
    qgc_bisect_fault f = {
        .before_pass = t->before_pass, .before_change = t->logits, .with_change = t->logits};
    if (!step)
        return f;
    f.pass = qgc_arena_strdup(a, step->run->name);
    f.change = step->rule ? step->run->n_fired + !step->fired : 0;
    if (!step->rule)
        return f;
    f.rule = qgc_arena_strdup(a, step->rule);
    f.rule_at = qgc_arena_strdup(a, step->node);
    f.rule_place = bisect_place(step->at, a);
    return f;
}

static void add_finding(const tracing *t, qgc_bisect_fault *f, const qgc_judge_finding *found) {
    qgc_arena *a = t->d->arena;
    f->with_change = found->logits;
    f->apart = found->apart;
    f->inputs = found->inputs;
    f->position = found->position;
    f->where = found->where ? qgc_arena_strdup(a, found->where) : NULL;
    f->why = found->why ? qgc_arena_strdup(a, found->why) : f->why;
    if (!found->value)
        return;
    f->value = qgc_arena_strdup(a, qgc_value_label(found->value, a));
    f->node = found->value->maker ? bisect_node_text(found->value->maker, a) : "";
    f->place = bisect_place(found->value->at, a);
}

static void add_fault(tracing *t, const qgc_bisect_fault *f) {
    if (t->out->n_faults < QGC_BISECT_FAULTS)
        t->out->faults[t->out->n_faults++] = *f;
    t->out->verdict = QGC_BISECT_WRONG;
}

/* --- one change ------------------------------------------------------------------------------------------ */

static const char lied[] = "the rule changed the graph and says that it did not";

static void judge(tracing *t, const qgc_graph *g, const qgc_pass_step *step, bool is_same, bool is_lie) {
    qgc_judge_finding found;
    qgc_bisect_fault f = fault_of(t, step);
    if (is_lie)
        f.why = lied;
    if (t->out->n_faults < QGC_BISECT_FAULTS) {
        qgc_judge_next(t->judge, g, t->tensors, is_same, &found);
        add_finding(t, &f, &found);
        t->logits = found.logits;
        t->out->choices = found.choices;
        if (found.verdict == QGC_JUDGE_WRONG
                ? !t->has_wrong
                : found.verdict == QGC_JUDGE_DRIFT && !t->has_bits && !t->has_wrong)
            qgc_judge_keep(t->judge);
        t->has_wrong = t->has_wrong || found.verdict == QGC_JUDGE_WRONG;
        if (found.verdict != QGC_JUDGE_SAME && found.verdict != QGC_JUDGE_WRONG) {
            const bool bits = found.verdict == QGC_JUDGE_DRIFT;
            if (!t->has_drift || (bits && !t->has_bits))
                t->drift = f;
            t->has_drift = true;
            t->has_bits = t->has_bits || bits;
        }
        if (found.verdict == QGC_JUDGE_WRONG)
            is_lie = true;
    }
    t->judged = t->seen.flow;
    if (is_lie)
        add_fault(t, &f);
}

static const char *objection(qgc_graph *g, qgc_arena *a) {
    qgc_diag d = qgc_diag_new(a);
    if (qgc_verify(g, &d) == QGC_OK && qgc_stages_check(g, &d) == QGC_OK)
        return NULL;
    return qgc_diag_message(&d);
}

/* A kernel from outside that the change has put nodes into, or whose nodes it has changed. One that is wrong is told of once. */
static void prove_kernels(tracing *t, const qgc_graph *g, const qgc_pass_step *step) {
    qgc_arena *a = qgc_arena_new();
    const qgc_node *at = NULL;
    const char *why =
        g->n_kernels ? qgc_lab_disproof(g, t->o->run.cache_folder, t->o->asks_devices, &at, a) : NULL;
    const qgc_kernel_row *kernel = at ? qgc_node_kernel(g, at) : NULL;
    if (why && kernel != t->disproved) {
        qgc_bisect_fault f = fault_of(t, step);
        f.why = qgc_arena_strdup(t->d->arena, why);
        add_fault(t, &f);
        t->disproved = kernel;
    }
    qgc_arena_drop(a);
}

/* --- what is declared ------------------------------------------------------------------------------------ */

/* A change of what the graph declares, or of nodes, which may come with a derived weight. True: weights are other tensors now. */
static bool look_at_declared(tracing *t, const qgc_graph *g, const qgc_pass_step *step, bool declares) {
    qgc_arena *a = t->d->arena;
    bool others = false;
    const char *why =
        declares ? bisect_rebind(t->declared, g, t->o->run.weights, &t->tensors, &others, a) : NULL;
    if (!why && !others)
        why = bisect_declared_objection(t->declared, g, t->tensors, a);
    if (why && !(t->objection && strcmp(t->objection, why) == 0)) {
        qgc_bisect_fault f = fault_of(t, step);
        f.why = why;
        add_fault(t, &f);
    }
    t->objection = why;
    return others;
}

/* A rule that never ends is told of sooner than the rewriter would (passes/rewrite.h): each of its changes is judged. */
enum { CHANGES_A_NODE = 16, GROWTH = 8 };

static void look_for_end(tracing *t, const qgc_graph *g, const qgc_pass_step *step) {
    const size_t changes = (size_t)step->run->n_fired;
    if (!step->rule || (changes <= CHANGES_A_NODE * (t->n_nodes + CHANGES_A_NODE) &&
                        g->n_nodes <= GROWTH * (t->n_nodes + GROWTH)))
        return;
    qgc_bisect_fault f = fault_of(t, step);
    f.n_changes = (int)changes;
    f.why = qgc_arena_printf(t->d->arena,
                             "the rule goes on for ever: %zu changes of %zu nodes, which are %zu now",
                             changes, t->n_nodes, g->n_nodes);
    add_fault(t, &f);
    t->is_endless = true;
}

/* --- a graph after a change ------------------------------------------------------------------------------ */

static void note_invalid(tracing *t, const qgc_pass_step *step, const char *why) {
    if (why && !t->is_invalid) {
        t->invalid = fault_of(t, step);
        t->invalid.why = qgc_arena_printf(t->d->arena, "the graph does not hold together: %s", why);
    }
    t->is_invalid = why != NULL;
}

/* One that is broken cannot even be gone over. */
static bool is_broken(tracing *t, const qgc_graph *g, const qgc_pass_step *step) {
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a);
    const bool broken = qgc_verify_links(g, &d) != QGC_OK;
    if (broken)
        note_invalid(t, step, qgc_diag_message(&d));
    qgc_arena_drop(a);
    return broken;
}

/* The graph as a change has left it. Between two changes it may be one that does not hold together, and is
 * judged when it does again. */
static void look(tracing *t, qgc_graph *g, const qgc_pass_step *step) {
    if (is_broken(t, g, step))
        return;
    const bisect_print now = bisect_print_graph(g);
    const bool changed = now.flow != t->seen.flow || now.groups != t->seen.groups ||
                         now.order != t->seen.order || now.declared != t->seen.declared,
               declares = now.declared != t->seen.declared, flows = now.flow != t->seen.flow;
    const bool is_lie = step->rule && !step->fired && changed;
    t->seen = now;
    if (!changed && !(t->is_invalid && !step->rule))
        return;
    qgc_arena *a = qgc_arena_new();
    const char *why = objection(g, a);
    note_invalid(t, step, why);
    qgc_arena_drop(a);
    const bool other_tensors = !why && (declares || flows) && look_at_declared(t, g, step, declares);
    if (!why && (now.flow != t->judged || other_tensors))
        judge(t, g, step, true, is_lie);
    else if (is_lie && !why) {
        qgc_bisect_fault f = fault_of(t, step);
        f.why = lied;
        add_fault(t, &f);
    }
    if (!why)
        prove_kernels(t, g, step);
}

static void end_pass(tracing *t, const qgc_pass_run *run) {
    if (t->is_invalid)
        add_fault(t, &t->invalid);
    for (int i = t->first_fault; i < t->out->n_faults; i++) {
        t->out->faults[i].with_pass = t->logits;
        t->out->faults[i].n_changes = run->n_fired;
    }
    if (t->drift.pass && strcmp(t->drift.pass, run->name) == 0) {
        t->drift.with_pass = t->logits;
        t->drift.n_changes = run->n_fired;
    }
    t->first_fault = t->out->n_faults;
    t->before_pass = t->logits;
    t->n_nodes = 0;
    t->after = qgc_arena_grow(t->d->arena, t->after, t->n_after, sizeof *t->after);
    t->after[t->n_after++] = t->seen;
}

static void before_step(void *context, const char *pass, const char *rule, const qgc_node *at,
                        const qgc_graph *g) {
    tracing *t = context;
    const qgc_pass_watch *other = t->o->run.watch;
    if (other && other->before)
        other->before(other->context, pass, rule, at, g);
    if (t->n_nodes == 0)
        t->n_nodes = g->n_nodes;
}

static void go_on(void *context, const char *pass, const qgc_graph *g) {
    const qgc_pass_watch *other = ((const tracing *)context)->o->run.watch;
    if (other && other->go_on)
        other->go_on(other->context, pass, g);
}

static qgc_status after_step(void *context, const qgc_pass_step *step, qgc_graph *g, qgc_diag *d) {
    tracing *t = context;
    const qgc_pass_watch *other = t->o->run.watch;
    if (other && other->after)
        QGC_TRY(other->after(other->context, step, g, d));
    look(t, g, step);
    look_for_end(t, g, step);
    if (t->is_endless)
        return qgc_fail(d, QGC_ERR_INPUT, step->at, "rule \"%s\" goes on for ever", step->rule);
    if (!step->rule)
        end_pass(t, step->run);
    return QGC_OK;
}

/* --- once more ------------------------------------------------------------------------------------------- */

/* The graph after each pass of another run. */
typedef struct {
    bisect_print *after;
    size_t n;
    qgc_arena *arena;
} rerun;

static qgc_status note_graph(void *context, const qgc_pass_info *pass, const qgc_pass_run *run,
                             const qgc_graph *g, qgc_diag *d) {
    (void)run;
    (void)d;
    rerun *r = context;
    if (!pass)
        return QGC_OK;
    r->after = qgc_arena_grow(r->arena, r->after, r->n, sizeof *r->after);
    r->after[r->n++] = bisect_print_graph(g);
    return QGC_OK;
}

/* The first pass that makes another graph when the same pipeline runs again on the same graph; NULL: none. */
static const char *find_unsteady(const tracing *t, qgc_arena *a) {
    qgc_diag d = qgc_diag_new(a);
    bisect_side s = {.arena = a};
    rerun again = {.arena = a};
    const qgc_pass_options passes = {.passes = t->o->run.passes,
                                     .skip = t->o->run.skip,
                                     .watch = t->o->run.watch,
                                     .after = note_graph,
                                     .context = &again};
    if (bisect_load(t->o, false, &s, &d) == QGC_OK) {
        const qgc_status failed = qgc_passes_run(s.graph, &passes, &s.report, &d);
        (void)failed; /* then there are fewer */
    }
    for (size_t i = 0; i < t->n_after; i++)
        if (i >= again.n || memcmp(&again.after[i], &t->after[i], sizeof *t->after) != 0)
            return i < s.report.n_runs ? s.report.runs[i].name : "";
    return NULL;
}

/* Three runs are to be alike. A pass that is wrong already is not told of twice. */
static void run_again(tracing *t) {
    for (int i = 0; i < 2; i++) {
        qgc_arena *a = qgc_arena_new();
        const char *pass = find_unsteady(t, a);
        bool told = !pass;
        for (int k = 0; k < t->out->n_faults && pass; k++)
            told = told || (t->out->faults[k].why && strstr(t->out->faults[k].why, "run again"));
        if (!told) {
            qgc_bisect_fault f = {.pass = qgc_arena_strdup(t->d->arena, pass),
                                  .before_pass = t->logits,
                                  .with_pass = t->logits,
                                  .before_change = t->logits,
                                  .with_change = t->logits};
            f.why = "run again on the same graph it makes another one: it keeps something between runs";
            add_fault(t, &f);
        }
        qgc_arena_drop(a);
    }
}

/* --- all ------------------------------------------------------------------------------------------------- */

/* What is told first: the first fault, or what is harmless. */
static void tell(const tracing *t) {
    qgc_bisection *b = t->out;
    const qgc_bisect_fault *f = b->n_faults ? &b->faults[0] : &t->drift;
    b->evaluated = t->logits;
    if (b->n_faults == 0 && !t->has_drift)
        return;
    if (b->n_faults == 0)
        b->verdict = t->has_bits ? QGC_BISECT_HARMLESS : QGC_BISECT_EQUAL;
    b->pass = f->pass;
    b->before_pass = f->before_pass;
    b->with_pass = f->with_pass;
    b->change = f->change;
    b->n_changes = f->n_changes;
    b->before_change = f->before_change;
    b->with_change = f->with_change;
    b->rule = f->rule;
    b->rule_at = f->rule_at;
    b->rule_place = f->rule_place;
    b->rule_text = f->rule ? "" : NULL;
    b->value = f->value;
    b->node = f->node;
    b->place = f->place;
    b->position = f->position;
    b->apart = f->apart;
    b->inputs = f->inputs;
    b->rounding = QGC_JUDGE_BOUND;
    b->where = f->where;
    b->why = f->why;
    if (!f->pass)
        b->none = f->with_change;
}

static qgc_status run_pipeline(tracing *t, bisect_side *s, qgc_diag *d) {
    const qgc_pass_watch watch = {.before = before_step, .after = after_step, .go_on = go_on, .context = t};
    const qgc_pass_options passes = {.passes = t->o->run.passes, .skip = t->o->run.skip, .watch = &watch};
    qgc_diag inner = qgc_diag_new(d->arena);
    t->judged = (t->seen = bisect_print_graph(s->graph)).flow;
    const qgc_status status = qgc_passes_run(s->graph, &passes, &s->report, &inner);
    t->out->n_passes = (int)s->report.n_runs;
    if (status == QGC_OK || t->is_invalid || t->is_endless) /* then that is what was found */
        return QGC_OK;
    return qgc_diag_adopt(d, &inner);
}

static qgc_status trace(tracing *t, const int32_t *tokens, bisect_judged *judged, qgc_diag *d) {
    const qgc_bisect_options *o = t->o;
    bisect_side *right = &judged->right, *s = &judged->own;
    const qgc_judge_options judging = {
        .tokens = tokens, .n_tokens = o->run.positions, .phase = o->phase, .pool = o->run.pool};
    QGC_TRY(bisect_load(o, true, right, d));
    QGC_TRY(bisect_load(o, false, s, d));
    QGC_TRY(qgc_judge_new(&judged->judge, right->graph, right->tensors, &judging, d));
    t->judge = judged->judge;
    t->tensors = s->tensors;
    t->declared = bisect_copy_declared(s->graph, s->arena);
    if (o->against) {
        t->seen = bisect_print_graph(s->graph);
        judge(t, s->graph, NULL, false, false);
        t->before_pass = t->logits;
        t->first_fault = t->out->n_faults;
        for (int i = 0; i < t->out->n_faults; i++)
            t->out->faults[i].with_pass = t->logits;
    }
    QGC_TRY(run_pipeline(t, s, d));
    if (!t->is_invalid && !t->is_endless)
        run_again(t);
    tell(t);
    return QGC_OK;
}

qgc_status bisect_graphs(const qgc_bisect_options *o, const int32_t *tokens, bisect_judged *judged,
                         qgc_bisection *out, qgc_diag *d) {
    tracing t = {.o = o, .out = out, .d = d};
    *judged = (bisect_judged){.right.arena = qgc_arena_new(), .own.arena = qgc_arena_new()};
    return trace(&t, tokens, judged, d);
}

void bisect_judged_drop(bisect_judged *judged) {
    qgc_judge_drop(judged->judge);
    if (judged->own.arena)
        qgc_arena_drop(judged->own.arena);
    if (judged->right.arena)
        qgc_arena_drop(judged->right.arena);
    *judged = (bisect_judged){.judge = NULL};
}
