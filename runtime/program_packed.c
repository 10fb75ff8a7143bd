/* Weights in the order of the persistent step:
 *
 *   weights as they are stored, on the device --------------------- phase pack --> the stream
 *   file ---> room for those that one launch of the phase reads --- phase pack --> the stream
 *        '--> those that persistent mode reads as they are stored
 *
 * The second way needs one copy of the weights. All of it is in the order of the device's one stream of work, so a launch has read
 * the room before the next weights come into it. */

#include <string.h>

#include "runtime/program_impl.h"

enum { ALIGN = 256 };

static int64_t aligned(size_t bytes) {
    return (int64_t)((bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1));
}

/* Places the stream's buffers one after the other, from `at` on. False: more than 2^62 bytes. */
static bool place_stream(const qgc_plan *plan, qgc_address at, qgc_address *addresses, int64_t *bytes) {
    *bytes = 0;
    for (size_t i = 0; i < plan->n_buffers; i++) {
        if (plan->buffers[i].kind != QGC_BUFFER_STREAM)
            continue;
        if (addresses)
            addresses[i] = at + (qgc_address)*bytes;
        if (!qgc_extent_add(bytes, &plan->buffers[i].bytes, &(qgc_sizes){.tokens = 1, .rows = 1}))
            return false;
    }
    return true;
}

static int64_t stream_bytes(const qgc_plan *plan) {
    int64_t bytes;
    return place_stream(plan, 0, NULL, &bytes) ? bytes : (int64_t)1 << 62;
}

qgc_status qgc_program_upload_shares(qgc_program *p, qgc_diag *d) {
    const qgc_plan *plan = p->plan;
    const int n = (int)plan->n_shares, blocks = qgc_device_about(p->dev)->sms;
    if (n == 0)
        return QGC_OK;
    int32_t *table = qgc_arena_array(d->arena, (size_t)2 * QGC_MOST_BLOCKS * (size_t)n, sizeof *table);
    qgc_shares_cut(plan->shares, n, blocks, table);
    for (int i = blocks * n; i < QGC_MOST_BLOCKS * n; i++)
        table[2 * (size_t)i] = (int32_t)plan->shares[i % n].rows;
    return qgc_device_upload(p->dev, p->packed[plan->shares_buffer], table,
                             (size_t)2 * QGC_MOST_BLOCKS * (size_t)n * sizeof *table, d);
}

/* --- from the file --------------------------------------------------------------------------------------- */

typedef struct {
    qgc_program *p;
    bool *stays;      /* [n_weights] */
    qgc_address room; /* for the weights of a launch that do not stay */
} packing;

static bool is_kept(const packing *x, size_t weight) {
    const qgc_placed *w = &x->p->loading->all[weight];
    return w->wanted && w->shared < 0 && x->stays[weight];
}

/* Weights that stay: gives each its place after `at`; returns their bytes. */
static int64_t place_kept(const packing *x, qgc_address at, qgc_address *place) {
    int64_t bytes = 0;
    for (size_t i = 0; i < x->p->plan->n_weights; i++)
        if (is_kept(x, i)) {
            place[i] = at + (qgc_address)bytes;
            bytes += aligned(x->p->loading->all[i].bytes);
        }
    return bytes;
}

static qgc_status send_kept(const packing *x, qgc_diag *d) {
    qgc_program *p = x->p;
    const qgc_plan *plan = p->plan;
    qgc_address *place = qgc_arena_array(d->arena, plan->n_weights, sizeof *place);
    const int64_t bytes = place_kept(x, 0, place);
    if (bytes > 0)
        QGC_TRY(qgc_device_alloc(p->dev, "weights", (size_t)bytes, &p->kept, d));
    place_kept(x, p->kept, place);
    for (size_t i = 0; i < plan->n_weights; i++)
        if (is_kept(x, i))
            QGC_TRY(qgc_program_send(p, (int)i, place[i], d));
    for (size_t i = 0; i < plan->n_buffers; i++)
        if (plan->buffers[i].kind == QGC_BUFFER_WEIGHT)
            p->packed[i] = place[qgc_placed_root(p->loading->all, plan->buffers[i].weight)];
    return QGC_OK;
}

/* The weights that a launch reads and that do not stay, each once. */
static int staged_of(const packing *x, const qgc_plan_launch *l, int weights[QGC_MAX_ARGS]) {
    const qgc_plan *plan = x->p->plan;
    qgc_plan_use uses[QGC_MAX_ARGS];
    int n = 0;
    for (int i = 0, n_uses = qgc_plan_uses(l, uses); i < n_uses; i++) {
        const qgc_plan_buffer *b = &plan->buffers[uses[i].buffer];
        if (b->kind != QGC_BUFFER_WEIGHT)
            continue;
        const int root = qgc_placed_root(x->p->loading->all, b->weight);
        bool is_new = !x->stays[root];
        for (int k = 0; k < n; k++)
            is_new = is_new && weights[k] != root;
        if (is_new)
            weights[n++] = root;
    }
    return n;
}

static int64_t bytes_of_launch(const packing *x, const qgc_plan_launch *l) {
    int weights[QGC_MAX_ARGS];
    int64_t bytes = 0;
    for (int k = 0, n = staged_of(x, l, weights); k < n; k++)
        bytes += aligned(x->p->loading->all[weights[k]].bytes);
    return bytes;
}

/* What is not there but takes the place of an argument is never looked at. */
static void point_at(const packing *x, const qgc_plan_launch *l, const qgc_address *place, qgc_address *at) {
    const qgc_plan *plan = x->p->plan;
    for (int i = 0; i < l->n_args; i++) {
        const int b = l->args[i].buffer;
        if (l->args[i].kind != QGC_ARG_BUFFER || plan->buffers[b].kind != QGC_BUFFER_WEIGHT)
            continue;
        const int root = qgc_placed_root(x->p->loading->all, plan->buffers[b].weight);
        if (!x->p->packed[b])
            at[b] = place[root] ? place[root] : x->room;
    }
}

static qgc_status pack_launch(const packing *x, const qgc_plan_launch *l, qgc_diag *d) {
    qgc_program *p = x->p;
    int weights[QGC_MAX_ARGS];
    qgc_arena *a = qgc_arena_new();
    qgc_address *place = qgc_arena_array(a, p->plan->n_weights, sizeof *place),
                *at = qgc_arena_array(a, p->plan->n_buffers, sizeof *at), to = x->room;
    qgc_status s = QGC_OK;
    for (int k = 0, n = staged_of(x, l, weights); k < n && s == QGC_OK; k++) {
        place[weights[k]] = to;
        s = qgc_program_send(p, weights[k], to, d);
        to += (qgc_address)aligned(p->loading->all[weights[k]].bytes);
    }
    memcpy(at, p->packed, p->plan->n_buffers * sizeof *at);
    point_at(x, l, place, at);
    if (s == QGC_OK)
        s = qgc_program_launch_one(p, l, at, d);
    qgc_arena_drop(a);
    return s;
}

static void sum_up(const packing *x, int64_t *most) {
    const qgc_phase *pack = &x->p->plan->phases[QGC_PHASE_PACK];
    qgc_loading *loading = x->p->loading;
    loading->done = loading->total = 0;
    *most = ALIGN;
    for (size_t i = 0; i < x->p->plan->n_weights; i++)
        loading->total += is_kept(x, i) ? loading->all[i].bytes : 0;
    for (size_t i = 0; i < pack->n_launches; i++) {
        int weights[QGC_MAX_ARGS];
        const int64_t bytes = bytes_of_launch(x, &pack->launches[i]);
        *most = bytes > *most ? bytes : *most;
        for (int k = 0, n = staged_of(x, &pack->launches[i], weights); k < n; k++)
            loading->total += loading->all[weights[k]].bytes;
    }
}

static qgc_status pack_from_file(qgc_program *p, qgc_diag *d) {
    const qgc_phase *pack = &p->plan->phases[QGC_PHASE_PACK];
    packing x = {.p = p, .stays = qgc_arena_array(d->arena, p->plan->n_weights + 1, sizeof *x.stays)};
    int64_t room;
    qgc_plan_staying(p->plan, x.stays);
    sum_up(&x, &room);
    QGC_TRY(send_kept(&x, d));
    QGC_TRY(qgc_device_alloc(p->dev, "packed weights", (size_t)room, &x.room, d));
    qgc_status s = QGC_OK;
    for (size_t i = 0; i < pack->n_launches && s == QGC_OK; i++)
        s = pack_launch(&x, &pack->launches[i], d);
    const qgc_status ended = qgc_device_sync(p->dev, d);
    qgc_device_free(p->dev, x.room);
    if (s == QGC_OK && ended == QGC_OK)
        qgc_program_note_conversions(p);
    return s != QGC_OK ? s : ended;
}

/* --- from what is there ---------------------------------------------------------------------------------- */

static qgc_status pack_from_device(qgc_program *p, qgc_diag *d) {
    const qgc_phase *pack = &p->plan->phases[QGC_PHASE_PACK];
    for (size_t i = 0; i < p->plan->n_buffers; i++)
        if (p->plan->buffers[i].kind == QGC_BUFFER_WEIGHT)
            p->packed[i] = p->addresses[i];
    for (size_t i = 0; i < pack->n_launches; i++)
        QGC_TRY(qgc_program_launch_one(p, &pack->launches[i], p->packed, d));
    return QGC_OK;
}

static qgc_status fill(qgc_program *p, qgc_diag *d) {
    int64_t bytes = stream_bytes(p->plan);
    if (bytes == (int64_t)1 << 62)
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "packed weights of more than 2^62 bytes in all");
    if (bytes > 0) {
        QGC_TRY(qgc_device_alloc(p->dev, "packed weights", (size_t)bytes, &p->stream, d));
        QGC_TRY(qgc_device_fill(p->dev, p->stream, 0, (size_t)bytes, d));
    }
    place_stream(p->plan, p->stream, p->packed, &bytes);
    QGC_TRY(qgc_program_upload_shares(p, d));
    return p->is_stored ? pack_from_device(p, d) : pack_from_file(p, d);
}

qgc_status qgc_program_pack(qgc_program *p, qgc_diag *d) {
    qgc_frame frame = {d->top, "packing the weights", NULL, QGC_NO_LOC};
    p->packed = qgc_arena_array(p->arena, p->plan->n_buffers, sizeof *p->packed);
    d->top = &frame;
    const qgc_status s = fill(p, d);
    d->top = frame.up;
    if (s == QGC_OK)
        return QGC_OK;
    qgc_device_free(p->dev, p->stream);
    qgc_device_free(p->dev, p->kept);
    p->stream = p->kept = 0;
    p->packed = NULL;
    return s;
}

int64_t qgc_program_wants_bytes(const qgc_program *p, bool packed) {
    const qgc_plan *plan = p->plan;
    qgc_arena *a = qgc_arena_new();
    bool *stays = qgc_arena_array(a, plan->n_weights + 1, sizeof *stays);
    int64_t bytes = 0;
    if (!packed && !p->is_stored)
        bytes = qgc_plan_weight_bytes(plan, NULL);
    if (packed && !p->packed) {
        bytes = stream_bytes(plan);
        qgc_plan_staying(plan, stays);
        if (!p->is_stored && bytes < (int64_t)1 << 62)
            bytes += qgc_plan_weight_bytes(plan, stays) + qgc_plan_staging_bytes(plan, stays);
    }
    qgc_arena_drop(a);
    return bytes;
}
