#include "codegen/lower_impl.h"

/* Where scratch buffers lie in the slab. A buffer lives in one phase, from the launch that first names it to the
 * one that last does; buffers whose lives do not meet may share bytes. Placed in the order of their births, each
 * at the lowest offset where it does not run into one that is alive: within a few percent of the best for chains
 * of layers, and the same for the same plan. */

typedef struct {
    int phase; /* -1: never used */
    size_t first, last;
    int64_t bytes, offset;
    int buffer;
} life;

static void lives_on(life *lives, int buffer, int phase, size_t at) {
    if (buffer < 0)
        return;
    life *x = &lives[buffer];
    if (x->phase < 0)
        *x = (life){.phase = phase, .first = at, .last = at, .bytes = x->bytes, .buffer = buffer};
    x->last = at;
}

static void find_lives(const qgc_plan *p, life *lives) {
    for (int phase = 0; phase < QGC_N_PHASES; phase++)
        for (size_t i = 0; i < p->phases[phase].n_launches; i++) {
            const qgc_plan_launch *launch = &p->phases[phase].launches[i];
            for (int k = 0; k < launch->n_args; k++)
                if (launch->args[k].kind == QGC_ARG_BUFFER)
                    lives_on(lives, launch->args[k].buffer, phase, i);
            lives_on(lives, launch->a, phase, i);
            lives_on(lives, launch->b, phase, i);
            lives_on(lives, launch->c, phase, i);
        }
}

static bool meet(const life *a, const life *b) {
    return a->phase == b->phase && a->first <= b->last && b->first <= a->last;
}

/* The lowest offset for `x` that keeps clear of the `n` placed before it. */
static int64_t place(const life *x, life *const *placed, size_t n) {
    int64_t offset = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t i = 0; i < n; i++) {
            const life *y = placed[i];
            if (meet(x, y) && offset < y->offset + y->bytes && y->offset < offset + x->bytes) {
                offset = y->offset + y->bytes;
                moved = true;
            }
        }
    }
    return offset;
}

/* The bytes of each scratch buffer in the phase that it lives in. Offsets cannot overflow then: none is beyond the sum of all. */
static qgc_status find_sizes(const qgc_plan *p, life *lives, qgc_diag *d) {
    int64_t sum = 0;
    for (size_t i = 0; i < p->n_buffers; i++) {
        const qgc_plan_buffer *b = &p->buffers[i];
        if (b->kind != QGC_BUFFER_SCRATCH)
            continue;
        const qgc_phase_kind phase = lives[i].phase < 0 ? QGC_PHASE_DECODE : (qgc_phase_kind)lives[i].phase;
        const qgc_sizes sizes = qgc_plan_sizes(p, phase);
        const int64_t before = sum;
        if (!qgc_extent_add(&sum, &b->bytes, &sizes))
            return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                            "the results of a step, up to \"%s\", take more than 2^62 bytes in all", b->name);
        lives[i].bytes = sum - before;
    }
    return QGC_OK;
}

qgc_status qgc_plan_memory(qgc_plan *p, bool keep_values, qgc_diag *d) {
    life *lives = qgc_arena_array(d->arena, p->n_buffers, sizeof *lives);
    life **placed = qgc_arena_array(d->arena, p->n_buffers, sizeof(life *));
    size_t n_placed = 0;
    for (size_t i = 0; i < p->n_buffers; i++)
        lives[i] = (life){.phase = -1};
    find_lives(p, lives);
    for (size_t i = 0; keep_values && i < p->n_buffers; i++)
        lives[i].last = SIZE_MAX;
    QGC_TRY(find_sizes(p, lives, d));

    for (size_t i = 0; i < p->n_buffers; i++) { /* buffers are numbered in the order of their births */
        life *x = &lives[i];
        if (p->buffers[i].kind != QGC_BUFFER_SCRATCH || x->phase < 0)
            continue;
        p->buffers[i].offset = x->offset = place(x, placed, n_placed);
        placed[n_placed++] = x;
        if (x->offset + x->bytes > p->scratch_bytes)
            p->scratch_bytes = x->offset + x->bytes;
    }
    return QGC_OK;
}
