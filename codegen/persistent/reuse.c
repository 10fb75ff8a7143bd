/* An exchanged vector lies in the same memory in every iteration of a loop. Before a word is written again all who read it have to be
 * through: its next writer must have a value that was computed from something that every reader published after reading
 * (kernels/exchange.cuh says why that is enough). Here that is shown from the data flow, or the graph is refused.
 *
 * Blocks, and not phases, read and publish: a phase that reads a vector whole does so in every block that has rows of it, and publishes
 * them afterwards; one that reads by rows or heads reads in each block what that block's results need. So, of a vector `u`:
 *
 *   each[S]    every result of S depends on all of u
 *   joint[S]   the results of S together depend on all of u
 *
 * S that reads u whole has each; S that reads it in pieces has joint, for the pieces are all of it; from there both go on: who reads,
 * whole, results that have joint, has each; who reads any result that has each, has each. What threads carry from a phase to another in
 * registers is read in pieces: the same threads finish the same rows of both, and publish the later ones after the earlier ones are
 * computed. A reader R of the vector publishes u. Its
 * next writer must have each. Between steps there is nothing to show: a launch ends before the next one starts. */

#include <string.h>

#include "codegen/persistent/persistent.h"

typedef struct {
    int maker;
    bool whole;
} reading;

enum { MOST_READINGS = QGC_MOST_OUTSIDE + 3 + QGC_OUTSIDE_PARAMS };

/* What an instance is computed from: vectors in the exchange and, if `carried`, what its threads carry. */
static int readings_of(const qgc_instance *i, bool carried, reading *out) {
    int n = 0;
    bool pieces = i->does == QGC_DO_HEADS;
    if (i->x.maker >= 0)
        out[n++] = (reading){i->x.maker, !pieces};
    for (int k = 0; k < i->n_outside; k++)
        if (i->outside[k].from != QGC_OUTSIDE_CARRIED || carried)
            out[n++] = (reading){i->outside[k].source.maker, i->outside[k].from == QGC_OUTSIDE_ONE};
    const qgc_heads_read *const heads[] = {&i->q, &i->keys, &i->values};
    for (int k = 0; k < 3 && i->does == QGC_DO_ATTENTION; k++)
        out[n++] = (reading){heads[k]->source.maker, false};
    for (int k = 0; i->does == QGC_DO_OUTSIDE && k < i->stage->outside->row.n_params; k++)
        if (i->reads[k].maker >= 0)
            out[n++] = (reading){i->reads[k].maker, true};
    return n;
}

static bool reads(const qgc_instance *i, int maker) {
    reading r[MOST_READINGS];
    int n = readings_of(i, false, r);
    for (int k = 0; k < n; k++)
        if (r[k].maker == maker)
            return true;
    return false;
}

/* Does `writer` depend, in every result, on all that `reader` publishes? Both flags are kept for each instance in between. */
static bool depends(const qgc_persistent *p, int reader, int writer, bool *each, bool *joint) {
    memset(each, 0, (size_t)p->n_instances), memset(joint, 0, (size_t)p->n_instances);
    joint[reader] = true;
    for (int t = reader + 1; t <= writer; t++) {
        reading r[MOST_READINGS];
        int n = readings_of(&p->instances[t], true, r);
        for (int k = 0; k < n; k++) {
            if (r[k].maker < reader || !joint[r[k].maker])
                continue;
            each[t] = each[t] || each[r[k].maker] || r[k].whole;
            joint[t] = true;
        }
    }
    return each[writer];
}

/* The instance that writes the same vector next in this step, or -1. */
static int next_writer(const qgc_persistent *p, int instance) {
    const qgc_loop *l = &p->loops[p->phases[p->phase_of[instance]].loop];
    int next = instance + l->period;
    return next < l->first + l->period * l->count ? next : -1;
}

static const char *label(const qgc_persistent *p, int t) {
    const qgc_instance *i = &p->instances[t];
    return i->layer < 0 ? i->name : qgc_arena_printf(p->l->arena, "%s[%d]", i->name, i->layer);
}

/* Parts of attention are read by the merge, which publishes the result in their place: what depends on that depends on the merge. The
 * next writer is the next attention that has the same ones, and at the end of a step the phase that closes them. */
static int writer_of_parts(const qgc_persistent *p, int t) {
    const int phase = p->phase_of[t], next = qgc_parts_next_use(p, phase, qgc_instance_iteration(p, t));
    if (next >= 0)
        return (int)(qgc_phase_instance(p, phase, next) - p->instances);
    for (int c = t + 1; c < p->n_instances; c++)
        if (p->instances[c].does == QGC_DO_CLOSE && p->phase_of[p->instances[c].of] == phase)
            return c;
    return -1;
}

static bool parts_are_read(qgc_persistent *p, int t, bool *each, bool *joint) {
    const int writer = writer_of_parts(p, t);
    if (writer < 0 || depends(p, t, writer, each, joint))
        return true;
    return qgc_persistent_no(p, "\"%s\" could write parts while those of \"%s\" are still merged",
                             label(p, writer), label(p, t));
}

bool qgc_persistent_reuse(qgc_persistent *p) {
    bool *each = qgc_arena_array(p->l->arena, (size_t)p->n_instances + 1, sizeof *each);
    bool *joint = qgc_arena_array(p->l->arena, (size_t)p->n_instances + 1, sizeof *joint);
    for (int t = 0; t < p->n_instances; t++) {
        if (p->instances[t].does == QGC_DO_ATTENTION && !parts_are_read(p, t, each, joint))
            return false;
        const int writer = p->instances[t].published ? next_writer(p, t) : -1;
        if (writer < 0)
            continue;
        for (int r = t + 1; r < p->n_instances; r++) {
            if (!reads(&p->instances[r], t))
                continue;
            if (r >= writer)
                return qgc_persistent_no(
                    p, "\"%s\" reads what \"%s\" leaves after \"%s\" has written there again", label(p, r),
                    label(p, t), label(p, writer));
            if (!depends(p, r, writer, each, joint))
                return qgc_persistent_no(
                    p, "\"%s\" could write while \"%s\" still reads what \"%s\" left in the same place",
                    label(p, writer), label(p, r), label(p, t));
        }
    }
    return true;
}
