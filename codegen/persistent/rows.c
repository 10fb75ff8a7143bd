/* Which rows of products are cut alike (codegen/shares.h), and how many warps multiply them. */

#include "codegen/persistent/persistent.h"

enum {
    PAIR = 64,
    TILE = QGC_SHARE_TILE,
    LEAST_WARPS = 8,
    MOST_WARPS = 16,
    MOST_OF_LONG_HEADS = 11,
};

/* Rows that stay together: whole tiles where rows of several matrices take turns; of the logits what a warp finds the largest of. */
static int64_t unit_of(const qgc_instance *i) {
    return i->logits ? QGC_SAMPLE_CHUNK : i->interleaved > 1 ? TILE : 1;
}

/* Does a phase take values of its rows from the thread that finishes them, or give it some? They lie with the thread of a row's number. */
static bool carries_values(const qgc_instance *i) {
    for (int k = 0; k < i->n_outside; k++)
        if (i->outside[k].from == QGC_OUTSIDE_CARRIED)
            return true;
    return i->carries || i->logits;
}

/* Has a phase of products in block formats in every iteration the x of the phase before, which is such a one too? Stages with matrices
 * of several formats become phases like that. What a thread carries from phase to phase is of the same rows in all of them. */
static bool has_x_of_last(const qgc_persistent *p, int phase) {
    if (phase == 0 || p->phases[phase - 1].loop != p->phases[phase].loop)
        return false;
    for (int i = 0; i < qgc_phase_count(p, phase); i++) {
        const qgc_instance *a = qgc_phase_instance(p, phase - 1, i), *b = qgc_phase_instance(p, phase, i);
        if (a->does != QGC_DO_PRODUCTS || b->does != QGC_DO_PRODUCTS || a->x.maker != b->x.maker ||
            a->x.first != b->x.first || a->norm != b->norm || a->embeds != b->embeds || a->k != b->k ||
            !qgc_dtype_is_quantised(a->weight) || !qgc_dtype_is_quantised(b->weight) || carries_values(a) ||
            carries_values(b))
            return false;
    }
    return true;
}

/* How many phases from this one on have the same x: their rows are of different blocks. */
static int phases_apart(const qgc_persistent *p, int phase) {
    int n = 1;
    while (phase + n < p->n_phases && has_x_of_last(p, phase + n))
        n++;
    return n;
}

/* Are shares from `share` on cut for such phases, with the rows of these, and no more of them? */
static bool are_theirs(const qgc_persistent *p, int share, int phase, int n) {
    const int apart = p->shares[share].apart;
    if (!apart || share + n > p->n_shares || (share > 0 && p->shares[share - 1].apart == apart) ||
        (share + n < p->n_shares && p->shares[share + n].apart == apart))
        return false;
    for (int k = 0; k < n; k++)
        if (p->shares[share + k].apart != apart || p->shares[share + k].loop != p->phases[phase].loop ||
            p->shares[share + k].rows != qgc_phase_first(p, phase + k)->rows)
            return false;
    return true;
}

/* The first share of n phases, or -1. */
static int find_shares(const qgc_persistent *p, int phase, int n) {
    const qgc_instance *i = qgc_phase_first(p, phase);
    for (int k = 0; k < p->n_shares; k++)
        if (n > 1 ? are_theirs(p, k, phase, n)
                  : !p->shares[k].apart && p->shares[k].rows == i->rows && p->shares[k].unit == unit_of(i) &&
                        (p->shares[k].loop == p->phases[phase].loop || i->rows == p->carried_width))
            return k;
    return -1;
}

static void new_share(qgc_persistent *p, int phase, int apart) {
    const qgc_instance *i = qgc_phase_first(p, phase);
    p->shares = qgc_arena_grow(p->l->arena, p->shares, (size_t)p->n_shares, sizeof *p->shares);
    p->shares[p->n_shares++] =
        (qgc_share){.rows = i->rows, .unit = unit_of(i), .loop = p->phases[phase].loop, .apart = apart};
}

/* A phase has a share, which costs what all phases of one loop read, of those loops the one that is run most often. */
static void take_share(qgc_persistent *p, int phase, int share) {
    qgc_share *s = &p->shares[share];
    const int loop = p->phases[phase].loop;
    if (s->loop == loop || p->loops[loop].count > p->loops[s->loop].count) {
        if (s->loop != loop)
            s->cost = 0;
        s->loop = loop;
        s->cost += qgc_phase_row_bytes(p, phase);
    }
    p->phases[phase].share = share;
}

void qgc_persistent_shares(qgc_persistent *p) {
    int n = 1, apart = 0;
    p->carried_share = 0;
    for (int k = 0; k < p->n_phases; k += n) {
        const qgc_instance *i = qgc_phase_first(p, k);
        n = 1;
        if (i->does != QGC_DO_PRODUCTS)
            continue;
        n = phases_apart(p, k);
        int share = find_shares(p, k, n);
        if (share < 0) {
            share = p->n_shares;
            apart += n > 1;
            for (int j = 0; j < n; j++)
                new_share(p, k + j, n > 1 ? apart : 0);
        }
        for (int j = 0; j < n; j++)
            take_share(p, k + j, share + j);
        if (n == 1 && i->rows == p->carried_width && unit_of(i) == 1)
            p->carried_share = share;
    }
}

int64_t qgc_phase_tiles(const qgc_persistent *p, int phase) {
    return qgc_share_most_tiles(p->shares, p->n_shares, p->phases[phase].share, (int)p->l->sms);
}

/* Is there shared memory for a ring beside so many warps? What is not known yet (shares, cuts of attentions) takes a few bytes. */
static bool has_ring(const qgc_persistent *p, int64_t warps) {
    enum { NOT_KNOWN = 512 };
    qgc_persistent with = *p;
    with.warps = warps;
    return qgc_persistent_ring_bytes(&with, false) + NOT_KNOWN <= p->l->most_shared_bytes;
}

bool qgc_persistent_takes_few_bits(const qgc_persistent *p) {
    int64_t elements = 0, bytes = 0;
    for (int k = 0; k < p->n_instances; k++) {
        const qgc_instance *i = &p->instances[k];
        if (i->does != QGC_DO_PRODUCTS || i->logits)
            continue;
        elements += i->rows * i->k;
        bytes += i->rows * qgc_stream_row_bytes(i->weight, i->k, LEAST_WARPS);
    }
    return 8 * bytes < 6 * elements;
}

/* Of 6 bits and more a copy brings but two tiles of 16 warps' chunks.
 *
 * With more than 11 a thread has 128 registers, and an attention over heads of more than 128 elements spills many of them. With 16 it has
 * 96, enough for products of formats of few bits, where bulk copies leave one warp for them. */
static int64_t most_warps(const qgc_persistent *p) {
    if (qgc_persistent_largest_head(p) > 128)
        return MOST_OF_LONG_HEADS;
    return qgc_persistent_takes_few_bits(p) && qgc_persistent_copies_in_bulk(p) ? MOST_WARPS : MOST_WARPS - 1;
}

/* What an instance's products cost with `warps` warps, each of which takes a pair of a chunk: a chunk for itself as much as 4 warps' part of
 * it (measured: 14 warps are best for a width of 896). Tiles of block formats are multiplied as many at a time as a copy brings, and such a
 * pass costs as much for itself as two tiles more do; in K formats it costs more where the last chunk is not full, as there is code of its
 * own for it (docs/performance.md). */
static int64_t cost_of(const qgc_persistent *p, const qgc_instance *i, int64_t warps, bool k_formats) {
    const int64_t pairs = i->k / PAIR, chunks = (pairs + warps - 1) / warps,
                  tiles = qgc_share_tiles(i->rows, p->l->sms);
    const int64_t cost = chunks * (warps + 4);
    if (!qgc_dtype_is_quantised(i->weight))
        return cost * tiles * 3;
    const int64_t group =
        qgc_stream_group(i->weight, i->k, warps, qgc_stream_copy_bytes(p->l->most_shared_bytes), tiles);
    const int64_t passes = cost * ((tiles + group - 1) / group) * (group + 2) * 2;
    return k_formats && pairs % warps != 0 ? passes + passes / 8 : passes;
}

/* How many warps waste least: each takes PAIR elements of a chunk, and a row's last chunk may not be full. With fewer warps copies are
 * smaller, and so is the least ring. */
static int64_t best_warps(const qgc_persistent *p) {
    const bool k_formats = qgc_persistent_has_k_formats(p);
    const int64_t most = most_warps(p);
    int64_t best = LEAST_WARPS, least = 0;
    for (int64_t warps = LEAST_WARPS; warps <= most; warps++) {
        int64_t cost = 0;
        if (warps > LEAST_WARPS && !has_ring(p, warps))
            continue;
        for (int i = 0; i < p->n_instances; i++)
            if (p->instances[i].does == QGC_DO_PRODUCTS && !p->instances[i].logits)
                cost += cost_of(p, &p->instances[i], warps, k_formats);
        if (least == 0 || cost < least) {
            least = cost;
            best = warps;
        }
    }
    return best;
}

int64_t qgc_persistent_warps(const qgc_persistent *p, const char *name) {
    static const int64_t counts[] = {8, 9, 10, 11, 12, 13, 14, 15, 16, 0};
    return qgc_low_setting(p->l, name, "WARPS", best_warps(p), counts);
}

int64_t qgc_persistent_span(const qgc_persistent *p, int64_t head_dim) {
    const int64_t slot = TILE * PAIR * 2 * p->warps, positions = slot / (2 * head_dim);
    return positions >= 64 ? 64 : positions / 16 * 16;
}
