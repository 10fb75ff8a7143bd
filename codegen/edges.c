#include "codegen/edges.h"

/* Launch i is started early: at once where the launch before it lets it, and it waits, when it likes, until that one has ended.
 *
 *   i-2   ========R==|                   R  reads X
 *   i-1        n.....w=========|         n  lets the next one start    w  its wait is over
 *   i              W.............w====   W  writes X, too early: i-2 still runs
 *
 * What has ended when i starts: everything before a launch that was started the ordinary way; everything before a launch that
 * lets the next one start only after its own wait, or at its end. For if k waits, everything before k has ended with its wait:
 * the launch before has, and by then so had that one's wait, and so on back. So only what waits may start early.
 *
 * Persistent steps that are launched one right after the other are a circle: the launch before the first one is the last one of the step
 * before. The first one may start early only if it lets nothing start before its own wait is over, so nobody looks back beyond it.
 *
 * A launch whose blocks have to run all at once may find no room for some of them at first: they start when what runs before it has ended,
 * which waits for none of them. */

/* --- which memory ---------------------------------------------------------------------------------------- */

typedef struct {
    qgc_plan_use *list;
    size_t n;
} uses;

static void add_use(uses *u, qgc_plan_use use, qgc_arena *a) {
    u->list = qgc_arena_grow(a, u->list, u->n, sizeof *u->list);
    u->list[u->n++] = use;
}

/* A kernel that follows addresses before its wait only reads there so early. */
static void add_states(uses *u, const qgc_plan *p, int early, qgc_arena *a) {
    for (size_t i = 0; i < p->n_buffers; i++)
        if (p->buffers[i].kind == QGC_BUFFER_STATE) {
            add_use(u, (qgc_plan_use){(int)i, QGC_READS | early}, a);
            add_use(u, (qgc_plan_use){(int)i, QGC_WRITES}, a);
        }
}

/* With the states whose addresses it follows. */
static uses uses_of(const qgc_plan *p, const qgc_plan_launch *l, qgc_arena *a) {
    uses u = {0};
    qgc_plan_use named[QGC_MAX_ARGS];
    const int n = qgc_plan_uses(l, named);
    for (int i = 0; i < n; i++) {
        add_use(&u, named[i], a);
        if (named[i].access & QGC_FOLLOWS)
            add_states(&u, p, named[i].access & QGC_EARLY, a);
    }
    return u;
}

/* Do two buffers have bytes in common, in the largest step of the phase? */
static bool meet(const qgc_plan *p, qgc_phase_kind phase, int a, int b) {
    const qgc_plan_buffer *x = &p->buffers[a], *y = &p->buffers[b];
    if (a == b)
        return true;
    if (x->kind == QGC_BUFFER_WEIGHT && y->kind == QGC_BUFFER_WEIGHT)
        return qgc_plan_weight_root(p, x->weight) == qgc_plan_weight_root(p, y->weight);
    if (x->kind != QGC_BUFFER_SCRATCH || y->kind != QGC_BUFFER_SCRATCH)
        return false;
    const qgc_sizes most = qgc_plan_sizes(p, phase);
    return x->offset < y->offset + qgc_extent_size(&y->bytes, &most) &&
           y->offset < x->offset + qgc_extent_size(&x->bytes, &most);
}

/* --- which launches -------------------------------------------------------------------------------------- */

/* Has everything before launch `j` ended when the one after it starts? */
static bool holds_back(const qgc_plan *p, const qgc_plan_launch *j) {
    return !j->early || p->kernels[j->kernel].lets_next != QGC_NEXT_BEFORE_WAIT;
}

/* A launch that is to start early, and one `n` before it that may still be running then. */
typedef struct {
    const qgc_plan *plan;
    qgc_phase_kind phase;
    const qgc_plan_launch *early, *running;
    size_t n;
    uses mine; /* of `early` */
    qgc_arena *arena, *scratch;
} pair;

static const char *distance(const pair *x) {
    static const char *const words[] = {"", "one launch", "two launches", "three launches"};
    return x->n < sizeof words / sizeof *words ? words[x->n]
                                               : qgc_arena_printf(x->arena, "%zu launches", x->n);
}

static const char *hazard(const pair *x, qgc_plan_use mine, const char *does, qgc_plan_use theirs,
                          const char *doing) {
    const qgc_plan_buffer *buffers = x->plan->buffers;
    const char *text = qgc_arena_printf(
        x->arena, "\"%s\" %s \"%s\" before it waits, %s \"%s\" %s earlier may still be %s", x->early->node,
        does, buffers[mine.buffer].name, mine.buffer == theirs.buffer ? "which" : "whose bytes",
        x->running->node, distance(x), doing);
    return mine.buffer == theirs.buffer
               ? text
               : qgc_arena_printf(x->arena, "%s as \"%s\"", text, buffers[theirs.buffer].name);
}

/* What one does before its wait to a buffer, and the other at any time to another. */
static const char *clash(const pair *x, qgc_plan_use mine, qgc_plan_use theirs) {
    if (!(mine.access & QGC_EARLY) || !meet(x->plan, x->phase, mine.buffer, theirs.buffer))
        return NULL;
    if ((mine.access & QGC_READS) && (theirs.access & QGC_WRITES))
        return hazard(x, mine, "reads", theirs, "writing");
    if ((mine.access & QGC_WRITES) && (theirs.access & QGC_WRITES))
        return hazard(x, mine, "writes", theirs, "writing");
    if ((mine.access & QGC_WRITES) && (theirs.access & QGC_READS))
        return hazard(x, mine, "writes", theirs, "reading");
    return NULL;
}

static const char *clash_of(const pair *x) {
    const uses theirs = uses_of(x->plan, x->running, x->scratch);
    for (size_t i = 0; i < x->mine.n; i++)
        for (size_t k = 0; k < theirs.n; k++) {
            const char *why = clash(x, x->mine.list[i], theirs.list[k]);
            if (why)
                return why;
        }
    return NULL;
}

/* What forbids an early start whatever is read and written. */
static const char *unfit(const qgc_plan *p, const qgc_plan_launch *l, const qgc_plan_launch *before,
                         qgc_arena *a) {
    if (l->kind != QGC_LAUNCH_KERNEL)
        return "it is a product of cuBLAS, whose kernels do not wait";
    if (!p->kernels[l->kernel].waits)
        return qgc_arena_printf(a, "kernel \"%s\" does not wait for the launches before it",
                                p->kernels[l->kernel].name);
    if (!before)
        return "it is the first launch of its phase";
    if (before->kind != QGC_LAUNCH_KERNEL)
        return qgc_arena_printf(a,
                                "\"%s\" before it is a product of cuBLAS, of which it is not known when "
                                "it lets the next launch start",
                                before->node);
    return NULL;
}

/* The first hazard between launch `i` and those that may still be running when it starts early; before the first one, in a circle, those
 * of the step before. */
static const char *first_hazard(const qgc_plan *p, qgc_phase_kind kind, size_t i, qgc_arena *a) {
    const qgc_phase *phase = &p->phases[kind];
    pair x = {.plan = p, .phase = kind, .early = &phase->launches[i], .arena = a, .scratch = qgc_arena_new()};
    const char *why = NULL;
    x.mine = uses_of(p, x.early, x.scratch);
    for (x.n = 1; !why && x.n <= (i > 0 ? i : phase->n_launches); x.n++) {
        x.running = &phase->launches[(i + phase->n_launches - x.n) % phase->n_launches];
        why = clash_of(&x);
        if (holds_back(p, x.running))
            break;
    }
    qgc_arena_drop(x.scratch);
    return why;
}

/* The launch before launch `i`, or NULL. */
static const qgc_plan_launch *launch_before(const qgc_phase *phase, bool circle, size_t i) {
    if (i > 0)
        return &phase->launches[i - 1];
    return circle ? &phase->launches[phase->n_launches - 1] : NULL;
}

const char *qgc_edge_refusal(const qgc_plan *p, qgc_phase_kind kind, size_t i, qgc_arena *a) {
    const qgc_phase *phase = &p->phases[kind];
    const qgc_plan_launch *l = &phase->launches[i];
    const char *why = unfit(p, l, launch_before(phase, kind == QGC_PHASE_PERSISTENT, i), a);
    if (!why && i == 0 && p->kernels[l->kernel].lets_next == QGC_NEXT_BEFORE_WAIT)
        why = "it is the first launch of its phase, and lets the next one start before its own wait is over";
    return why ? why : first_hazard(p, kind, i, a);
}

bool qgc_phase_may_overlap(qgc_phase_kind phase) {
    return phase == QGC_PHASE_DECODE || phase == QGC_PHASE_PERSISTENT || qgc_phase_is_packed(phase);
}

void qgc_place_edges(qgc_plan *p, qgc_arena *a) {
    for (int phase = 0; phase < QGC_N_PHASES; phase++) {
        const size_t n = qgc_phase_may_overlap((qgc_phase_kind)phase) ? p->phases[phase].n_launches : 0;
        for (size_t i = 1; i <= n; i++) { /* the first one is after the last one, where steps are a circle */
            qgc_plan_launch *l = &p->phases[phase].launches[i % n];
            l->not_early = qgc_edge_refusal(p, (qgc_phase_kind)phase, i % n, a);
            l->early = !l->not_early;
        }
    }
}
