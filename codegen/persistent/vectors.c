/* Where things lie: exchanged vectors, the stream, norms and biases, caches; and which phase loads the weights of a norm ahead of the
 * one that needs them, as the memory is busy when they are needed. */

#include "codegen/persistent/persistent.h"
#include "graph/base/str.h"

enum { ALIGN_FLOATS = 32, COPIES = 2, MOST_SPLITS = 160 }; /* the last two as in the kernels */

static int64_t aligned(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

/* --- the exchange ---------------------------------------------------------------------------------------- */

static bool same_attention(const qgc_node *a, const qgc_node *b) {
    return a->in[1]->shape.dim[0] == b->in[1]->shape.dim[0] &&
           a->in[1]->shape.dim[1] == b->in[1]->shape.dim[1] &&
           a->in[1]->shape.dim[2] == b->in[1]->shape.dim[2] &&
           qgc_low_width(a->in[0]) == qgc_low_width(b->in[0]) &&
           qgc_low_attr(a, "window") == qgc_low_attr(b, "window");
}

/* Parts of an attention are used only where positions are cut so. Layers of one phase that are cut in other ways have parts of their own:
 * so each word is written in all iterations that have it, or in none, and its parity goes by them alone. */
static bool cut_alike(const qgc_persistent *p, int phase, int iteration, int other) {
    return same_attention(qgc_phase_instance(p, phase, iteration)->attention,
                          qgc_phase_instance(p, phase, other)->attention);
}

int qgc_parts_uses_before(const qgc_persistent *p, int phase, int iteration) {
    int n = 0;
    for (int k = 0; k < iteration; k++)
        n += cut_alike(p, phase, k, iteration);
    return n;
}

int qgc_parts_next_use(const qgc_persistent *p, int phase, int iteration) {
    for (int k = iteration + 1; k < qgc_phase_count(p, phase); k++)
        if (cut_alike(p, phase, k, iteration))
            return k;
    return -1;
}

bool qgc_parts_end_odd(const qgc_persistent *p, int phase, int iteration) {
    return qgc_parts_next_use(p, phase, iteration) < 0 && qgc_parts_uses_before(p, phase, iteration) % 2 == 0;
}

static int64_t room_of_parts(const qgc_persistent *p, int phase) {
    const qgc_node *n = qgc_phase_first(p, phase)->attention;
    const int64_t head_dim = n->in[1]->shape.dim[2], heads = qgc_low_width(n->in[0]) / head_dim;
    return aligned(heads * MOST_SPLITS * (head_dim + 4), ALIGN_FLOATS);
}

static void place_vectors(qgc_persistent *p) {
    for (int i = 0; i < p->n_phases; i++)
        if (qgc_phase_first(p, i)->published) {
            p->phases[i].vector = p->copy;
            p->copy += aligned(qgc_phase_first(p, i)->out, ALIGN_FLOATS);
        }
    p->copy = aligned(p->copy, 1024);
    p->exchange = COPIES * p->copy;
    for (int i = 0; i < p->n_phases; i++) {
        if (!qgc_phase_first(p, i)->attention)
            continue;
        p->phases[i].parts = p->exchange;
        for (int k = 0; k < qgc_phase_count(p, i); k++)
            if (qgc_parts_uses_before(p, i, k) == 0)
                p->exchange += room_of_parts(p, i);
    }
}

int64_t qgc_parts_at(const qgc_persistent *p, int phase, int iteration) {
    int64_t at = p->phases[phase].parts;
    for (int k = 0; !cut_alike(p, phase, k, iteration); k++)
        if (qgc_parts_uses_before(p, phase, k) == 0)
            at += room_of_parts(p, phase);
    return at;
}

/* --- the stream ------------------------------------------------------------------------------------------ */

static int64_t row_bytes(const qgc_persistent *p, const qgc_instance *i) {
    return i->does == QGC_DO_PRODUCTS ? qgc_stream_row_bytes(i->weight, i->k, p->warps) : 0;
}

int64_t qgc_instance_weights(const qgc_persistent *p, const qgc_instance *i) {
    return row_bytes(p, i) * i->rows;
}

int64_t qgc_phase_row_bytes(const qgc_persistent *p, int phase) {
    int64_t most = 0;
    for (int i = 0; i < qgc_phase_count(p, phase); i++) {
        const int64_t here = row_bytes(p, qgc_phase_instance(p, phase, i));
        most = here > most ? here : most;
    }
    return most;
}

int qgc_phase_formats(const qgc_persistent *p, int phase, qgc_dtype formats[QGC_N_DTYPES]) {
    int n = 0;
    for (int i = 0; i < qgc_phase_count(p, phase); i++) {
        const qgc_dtype here = qgc_phase_instance(p, phase, i)->weight;
        int k = 0;
        while (k < n && formats[k] != here)
            k++;
        formats[k] = here;
        n = k == n ? n + 1 : n;
    }
    return n;
}

static void place_stream(qgc_persistent *p) {
    for (int l = 0; l < p->n_loops; l++) {
        const qgc_loop *loop = &p->loops[l];
        int64_t step = 0;
        for (int i = loop->first_phase; i < loop->first_phase + loop->period; i++)
            step += qgc_phase_row_bytes(p, i) * qgc_phase_first(p, i)->rows;
        for (int i = 0; i < loop->period; i++) {
            qgc_phase_place *place = &p->phases[loop->first_phase + i];
            place->stream_at = p->stream;
            place->stream_step = step;
        }
        p->stream += step * loop->count;
    }
}

/* What a block reads in an iteration lies together, phase after phase: if the shares of a phase lay together instead, all blocks would
 * read at addresses that differ by equal steps, which may be large powers of two (4 % slower on a 7B). */
const char *qgc_persistent_place(const qgc_persistent *p, int phase) {
    const qgc_loop *l = &p->loops[p->phases[phase].loop];
    qgc_str t = qgc_str_new(p->l->arena);
    for (int i = l->first_phase; i < l->first_phase + l->period; i++) {
        const qgc_instance *x = qgc_phase_first(p, i);
        if (x->does != QGC_DO_PRODUCTS)
            continue;
        qgc_str_printf(&t, "%sFIRST(%d)*%lldull", t.bytes ? "+" : "", p->phases[i].share,
                       (long long)qgc_phase_row_bytes(p, i));
        if (i < phase)
            qgc_str_printf(&t, "+COUNT(%d)*%lldull", p->phases[i].share,
                           (long long)qgc_phase_row_bytes(p, i));
    }
    return t.text;
}

const char *qgc_persistent_rest(const qgc_persistent *p, int phase) {
    const qgc_loop *l = &p->loops[p->phases[phase].loop];
    qgc_str t = qgc_str_new(p->l->arena);
    for (int i = phase; i < l->first_phase + l->period; i++)
        if (qgc_phase_first(p, i)->does == QGC_DO_PRODUCTS)
            qgc_str_printf(&t, "%sCOUNT(%d)*%lldull", t.bytes ? "+" : "", p->phases[i].share,
                           (long long)qgc_phase_row_bytes(p, i));
    return t.text;
}

/* --- caches ---------------------------------------------------------------------------------------------- */

int qgc_persistent_cut(const qgc_persistent *p, const qgc_instance *attention) {
    int cut = 0;
    while (cut < p->n_cuts && !same_attention(p->instances[p->cuts[cut]].attention, attention->attention))
        cut++;
    return cut;
}

static void place_caches(qgc_persistent *p) {
    for (int i = 0; i < p->n_phases; i++) {
        const qgc_node *n = qgc_phase_first(p, i)->attention;
        if (!n)
            continue;
        p->phases[i].caches_at = p->n_caches;
        p->phases[i].caches_step = 2;
        p->n_caches += 2 * qgc_phase_count(p, i);
    }
}

/* Attentions of one shape are cut alike. */
static void place_cuts(qgc_persistent *p) {
    p->cuts = qgc_arena_array(p->l->arena, (size_t)p->n_instances + 1, sizeof *p->cuts);
    for (int t = 0; t < p->n_instances; t++)
        if (p->instances[t].attention && qgc_persistent_cut(p, &p->instances[t]) == p->n_cuts)
            p->cuts[p->n_cuts++] = t;
}

/* --- norms ahead ----------------------------------------------------------------------------------------- */

static bool is_products(const qgc_persistent *p, int phase) {
    return qgc_phase_first(p, phase)->does == QGC_DO_PRODUCTS;
}

static bool has_norm(const qgc_persistent *p, int phase) {
    return is_products(p, phase) && qgc_phase_first(p, phase)->norm;
}

/* The last products phase from `first` on before `phase`, or -1. */
static int products_before(const qgc_persistent *p, int phase, int first) {
    for (int i = phase - 1; i >= first; i--)
        if (is_products(p, i))
            return i;
    return -1;
}

static int first_products(const qgc_persistent *p, const qgc_loop *l) {
    for (int i = l->first_phase; i < l->first_phase + l->period; i++)
        if (is_products(p, i))
            return i;
    return -1;
}

static void load_itself(qgc_persistent *p, int phase) {
    p->phases[phase].norm_loaded = true;
    p->phases[phase].norm_slot = p->n_norm_slots++;
}

/* The norm of the first products of a loop: the last ones of the iteration before load it, and what comes before the loop those of the
 * first iteration. That is the start of the kernel, or the end of a loop that loads the norm of its own first products there. */
static void place_first(qgc_persistent *p, int phase) {
    qgc_phase_place *place = &p->phases[phase];
    const qgc_loop *l = &p->loops[place->loop];
    const int last = products_before(p, l->first_phase + l->period, l->first_phase);
    const int before = products_before(p, l->first_phase, 0);
    const bool loops = l->count > 1;
    if (loops && last == phase) {
        load_itself(p, phase);
        return;
    }
    if (before < 0) {
        place->norm_slot = p->n_norm_slots++;
        p->start_slot = place->norm_slot;
        p->start_phase = phase;
        if (loops)
            p->phases[last].ahead = phase;
        return;
    }
    const int loaded = p->phases[before].ahead;
    const qgc_loop *earlier = &p->loops[p->phases[before].loop];
    if (loops) {
        load_itself(p, phase);
    } else if (loaded >= 0 && earlier->count > 1 &&
               qgc_phase_first(p, loaded)->k == qgc_phase_first(p, phase)->k) {
        place->norm_slot = p->phases[loaded].norm_slot; /* in the place of one iteration more */
        place->norm_at = -2 - loaded;
    } else if (earlier->count == 1 && loaded < 0) {
        place->norm_slot = p->n_norm_slots++;
        p->phases[before].ahead = phase;
    } else
        load_itself(p, phase);
}

static void place_norms(qgc_persistent *p) {
    p->start_slot = p->start_phase = -1;
    for (int i = 0; i < p->n_phases; i++) {
        if (!has_norm(p, i))
            continue;
        const qgc_loop *l = &p->loops[p->phases[i].loop];
        if (i == first_products(p, l)) {
            place_first(p, i);
            continue;
        }
        p->phases[i].norm_slot = p->n_norm_slots++;
        p->phases[products_before(p, i, l->first_phase)].ahead = i;
    }
}

/* --- small vectors --------------------------------------------------------------------------------------- */

static int64_t take(int64_t *at, int64_t n) {
    int64_t here = *at;
    *at += aligned(n, 4);
    return here;
}

static void place_outside_weights(const qgc_instance *i, qgc_phase_place *place, int64_t *at) {
    for (int k = 0; i->does == QGC_DO_OUTSIDE && k < i->stage->outside->row.n_params; k++)
        if (i->phase.params[k] == QGC_PHASE_WEIGHT)
            place->weights_at[k] = take(at, i->phase.widths[k]);
}

/* Has the phase a bias in any iteration? */
static bool has_bias(const qgc_persistent *p, int phase) {
    for (int i = 0; i < qgc_phase_count(p, phase); i++) {
        const qgc_instance *instance = qgc_phase_instance(p, phase, i);
        for (int k = 0; k < instance->n_matrices; k++)
            if (instance->linear[k]->n_in > 2)
                return true;
    }
    return false;
}

static void place_small(qgc_persistent *p) {
    for (int k = 0; k < p->n_loops; k++) {
        qgc_loop *l = &p->loops[k];
        int64_t at = l->small_at = p->small;
        for (int i = l->first_phase; i < l->first_phase + l->period; i++) {
            const qgc_instance *first = qgc_phase_first(p, i);
            qgc_phase_place *place = &p->phases[i];
            if (first->norm && place->norm_at == -1)
                place->norm_at = take(&at, qgc_norm_width(first->norm));
            if (first->norm && first->norm->n_in > 2) /* of a layer_norm */
                place->bias_at = take(&at, qgc_norm_width(first->norm));
            if (first->attention && first->q.norm)
                place->norm_at = take(&at, qgc_norm_width(first->q.norm));
            if (first->attention && first->keys.norm)
                place->k_norm_at = take(&at, qgc_norm_width(first->keys.norm));
            if (first->attention && first->attention->n_in > 4)
                place->sinks_at = take(&at, qgc_low_width(first->attention->in[4]));
            if (has_bias(p, i))
                place->bias_at = take(&at, first->rows);
            place_outside_weights(first, place, &at);
        }
        l->small_step = at - l->small_at;
        p->small += l->small_step *
                    (l->count + (l->count > 1)); /* one more: what is loaded ahead in the last iteration */
    }
    for (int i = 0; i < p->n_phases; i++) {
        qgc_phase_place *place = &p->phases[i];
        if (place->norm_at < -1) {
            const int other = -2 - (int)place->norm_at;
            const qgc_loop *l = &p->loops[p->phases[other].loop];
            place->norm_at = p->phases[other].norm_at + l->small_step * l->count;
        }
    }
    for (int i = 0; i < p->n_phases; i++) {
        qgc_phase_place *place = &p->phases[i];
        if (place->ahead < 0)
            continue;
        const qgc_phase_place *next = &p->phases[place->ahead];
        const bool wraps = next->loop == place->loop && place->ahead <= i;
        place->ahead_at = next->norm_at + (wraps ? p->loops[place->loop].small_step : 0);
    }
}

/* --- squares --------------------------------------------------------------------------------------------- */

/* Norms that follow each other have different buffers for their squares, as warps may still read those of one when others write those of
 * the next. */
static void place_squares(qgc_persistent *p) {
    int at = 0;
    for (int k = 0; k < p->n_loops; k++) {
        const qgc_loop *l = &p->loops[k];
        int here = 0;
        for (int i = l->first_phase; i < l->first_phase + l->period; i++)
            if (has_norm(p, i) || qgc_phase_first(p, i)->does == QGC_DO_NORM)
                p->phases[i].squares = at + here++;
        for (int i = l->first_phase; i < l->first_phase + l->period; i++)
            p->phases[i].squares_step = here;
        at += here * l->count;
    }
}

void qgc_persistent_vectors(qgc_persistent *p) {
    place_vectors(p);
    place_stream(p);
    place_caches(p);
    place_cuts(p);
    place_norms(p);
    place_small(p);
    place_squares(p);
}
