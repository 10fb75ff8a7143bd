/* Instances that repeat become loops. Which repeat follows from what they do, not from the layers that they stand in: so layers may
 * differ, and a model whose layers alternate has a loop over pairs. */

#include <string.h>

#include "codegen/persistent/persistent.h"

const qgc_instance *qgc_phase_instance(const qgc_persistent *p, int phase, int iteration) {
    const qgc_loop *l = &p->loops[p->phases[phase].loop];
    return &p->instances[l->first + l->period * iteration + p->phases[phase].slot];
}

const qgc_instance *qgc_phase_first(const qgc_persistent *p, int phase) {
    return qgc_phase_instance(p, phase, 0);
}

int qgc_phase_count(const qgc_persistent *p, int phase) {
    return p->loops[p->phases[phase].loop].count;
}

int qgc_instance_iteration(const qgc_persistent *p, int instance) {
    const qgc_loop *l = &p->loops[p->phases[p->phase_of[instance]].loop];
    return (instance - l->first) / l->period;
}

/* Instances from `first` on that repeat with this period: how many of them, whole periods only. */
static int repeated(const qgc_persistent *p, const int *kind, int first, int period) {
    int n = period;
    while (first + n < p->n_instances && kind[first + n] == kind[first + n - period])
        n++;
    return n / period * period;
}

/* The loop that begins at `first` and covers most; of several the one with the shortest period. */
static qgc_loop longest(const qgc_persistent *p, const int *kind, int first) {
    qgc_loop best = {.first = first, .period = 1, .count = 1};
    for (int period = 1; period <= QGC_MOST_PHASES && first + 2 * period <= p->n_instances; period++) {
        int n = repeated(p, kind, first, period);
        if (n >= 2 * period && n > best.period * best.count)
            best = (qgc_loop){.first = first, .period = period, .count = n / period};
    }
    return best;
}

/* A loop that begins later may cover more: then what is before it stays outside. */
static qgc_loop next_loop(const qgc_persistent *p, const int *kind, int first) {
    qgc_loop best = longest(p, kind, first);
    for (int later = first + 1; later < p->n_instances && later <= first + QGC_MOST_PHASES; later++) {
        qgc_loop other = longest(p, kind, later);
        if (other.count > 1 && other.period * other.count > best.period * best.count)
            best = other;
    }
    return best;
}

static void add_loop(qgc_persistent *p, qgc_loop l) {
    qgc_arena *a = p->l->arena;
    l.first_phase = p->n_phases;
    p->loops = qgc_arena_grow(a, p->loops, (size_t)p->n_loops, sizeof *p->loops);
    p->loops[p->n_loops] = l;
    for (int slot = 0; slot < l.period; slot++) {
        p->phases = qgc_arena_grow(a, p->phases, (size_t)p->n_phases, sizeof *p->phases);
        p->phases[p->n_phases] = (qgc_phase_place){.loop = p->n_loops,
                                                   .slot = slot,
                                                   .vector = -1,
                                                   .norm_at = -1,
                                                   .bias_at = -1,
                                                   .k_norm_at = -1,
                                                   .sinks_at = -1,
                                                   .norm_slot = -1,
                                                   .ahead = -1};
        for (int i = 0; i < l.count; i++)
            p->phase_of[l.first + l.period * i + slot] = p->n_phases;
        p->n_phases++;
    }
    p->n_loops++;
}

/* A number for each shape. */
static int *kinds_of(const qgc_persistent *p) {
    int *kind = qgc_arena_array(p->l->arena, (size_t)p->n_instances + 1, sizeof *kind);
    for (int i = 0; i < p->n_instances; i++) {
        kind[i] = i;
        for (int k = 0; k < i; k++)
            if (kind[k] == k && strcmp(p->instances[k].shape, p->instances[i].shape) == 0)
                kind[i] = k;
    }
    return kind;
}

/* The last vector that all blocks read whole. */
static const qgc_instance *last_whole_reader(const qgc_persistent *p) {
    for (int t = p->n_instances - 1; t >= 0; t--)
        if (p->instances[t].does == QGC_DO_PRODUCTS && p->instances[t].x.maker >= 0)
            return &p->instances[t];
    return NULL;
}

/* Closes the parts of the phase of attention `of`. */
static bool close_parts(qgc_persistent *p, int of) {
    const qgc_instance *reader = last_whole_reader(p);
    if (!reader)
        return qgc_persistent_no(p, "no phase reads a whole vector after the last attention");
    p->instances = qgc_arena_grow(p->l->arena, p->instances, (size_t)p->n_instances, sizeof *p->instances);
    p->instances[p->n_instances] = (qgc_instance){.does = QGC_DO_CLOSE,
                                                  .name = "close",
                                                  .layer = -1,
                                                  .shape = "close",
                                                  .x = reader->x,
                                                  .k = reader->k,
                                                  .of = of,
                                                  .interleaved = 1};
    int *phase_of = qgc_arena_array(p->l->arena, (size_t)p->n_instances + 2, sizeof *phase_of);
    memcpy(phase_of, p->phase_of, (size_t)p->n_instances * sizeof *phase_of);
    p->phase_of = phase_of;
    add_loop(p, (qgc_loop){.first = p->n_instances++, .period = 1, .count = 1});
    return true;
}

/* Parts of attention that are used an odd number of times are closed at the end (kernels/persistent_attention.cuh). */
static bool close_odd_ones(qgc_persistent *p) {
    const int n_phases = p->n_phases;
    for (int phase = 0; phase < n_phases; phase++) {
        if (qgc_phase_first(p, phase)->does != QGC_DO_ATTENTION)
            continue;
        bool odd = false;
        for (int i = 0; i < qgc_phase_count(p, phase); i++)
            odd = odd || qgc_parts_end_odd(p, phase, i);
        if (odd && !close_parts(p, (int)(qgc_phase_first(p, phase) - p->instances)))
            return false;
    }
    return true;
}

/* What one instance of a phase does with its result all of them do. */
static void agree(qgc_persistent *p) {
    for (int phase = 0; phase < p->n_phases; phase++) {
        const qgc_loop *l = &p->loops[p->phases[phase].loop];
        bool published = false, carries = false;
        for (int i = 0; i < l->count; i++) {
            const qgc_instance *x = qgc_phase_instance(p, phase, i);
            published = published || x->published;
            carries = carries || x->carries;
        }
        for (int i = 0; i < l->count; i++) {
            qgc_instance *x = &p->instances[l->first + l->period * i + p->phases[phase].slot];
            x->published = published;
            x->carries = carries;
        }
    }
}

/* Is what is carried still that which each reader of it wants? */
static bool carries_what_is_wanted(qgc_persistent *p) {
    int holder = -1;
    for (int t = 0; t < p->n_instances; t++) {
        const qgc_instance *i = &p->instances[t];
        for (int k = 0; k < i->n_outside; k++)
            if (i->outside[k].from == QGC_OUTSIDE_CARRIED && i->outside[k].source.maker != holder)
                return qgc_persistent_no(p, "\"%s\" wants a value that is carried no more", i->name);
        holder = i->carries ? t : holder;
    }
    return true;
}

bool qgc_persistent_loops(qgc_persistent *p) {
    const int *kind = kinds_of(p);
    p->phase_of = qgc_arena_array(p->l->arena, (size_t)p->n_instances + 1, sizeof *p->phase_of);
    for (int at = 0; at < p->n_instances;) {
        qgc_loop l = next_loop(p, kind, at);
        for (; at < l.first; at++)
            add_loop(p, (qgc_loop){.first = at, .period = 1, .count = 1});
        add_loop(p, l);
        at = l.first + l.period * l.count;
    }
    if (!close_odd_ones(p))
        return false;
    agree(p);
    if (!carries_what_is_wanted(p))
        return false;
    return p->n_phases <= QGC_MOST_PHASES ||
           qgc_persistent_no(
               p,
               "its layers differ in so many ways that the kernel would have %d phases, and it has "
               "room for %d",
               p->n_phases, QGC_MOST_PHASES);
}
