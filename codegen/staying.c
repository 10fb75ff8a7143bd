/* Which weights persistent mode keeps as they are stored, beside its stream, and what that takes. */

#include "codegen/plan.h"

enum { ALIGN = 256 }; /* of weights in a region */

int qgc_plan_weight_root(const qgc_plan *p, int weight) {
    const int tied = p->weights[weight].tied;
    return tied >= 0 && p->weights[tied].storage == p->weights[weight].storage ? tied : weight;
}

static int64_t bytes_of(const qgc_plan_buffer *b) {
    return (b->bytes.fixed + ALIGN - 1) / ALIGN * ALIGN;
}

static void add_phase(const qgc_plan *p, qgc_phase_kind phase, bool *stays) {
    for (size_t i = 0; i < p->phases[phase].n_launches; i++) {
        qgc_plan_use uses[QGC_MAX_ARGS];
        const int n = qgc_plan_uses(&p->phases[phase].launches[i], uses);
        for (int k = 0; k < n; k++) {
            const qgc_plan_buffer *b = &p->buffers[uses[k].buffer];
            if (b->kind == QGC_BUFFER_WEIGHT)
                stays[b->weight] = stays[qgc_plan_weight_root(p, b->weight)] = true;
        }
    }
}

void qgc_plan_staying(const qgc_plan *p, bool *stays) {
    static const qgc_phase_kind phases[] = {QGC_PHASE_INIT, QGC_PHASE_PERSISTENT, QGC_PHASE_BEGIN,
                                            QGC_PHASE_PACKED_PREFILL, QGC_PHASE_LONG_PREFILL};
    for (size_t i = 0; i < p->n_weights; i++)
        stays[i] = false;
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++)
        add_phase(p, phases[i], stays);
    for (size_t i = 0; i < p->n_weights; i++)
        stays[i] = stays[i] || stays[qgc_plan_weight_root(p, (int)i)];
}

int64_t qgc_plan_weight_bytes(const qgc_plan *p, const bool *stays) {
    int64_t bytes = 0;
    for (size_t i = 0; i < p->n_buffers; i++) {
        const qgc_plan_buffer *b = &p->buffers[i];
        if (b->kind == QGC_BUFFER_WEIGHT && qgc_plan_weight_root(p, b->weight) == b->weight &&
            (!stays || stays[b->weight]))
            bytes += bytes_of(b);
    }
    return bytes;
}

int64_t qgc_plan_staging_bytes(const qgc_plan *p, const bool *stays) {
    const qgc_phase *pack = &p->phases[QGC_PHASE_PACK];
    int64_t most = 0;
    for (size_t i = 0; i < pack->n_launches; i++) {
        qgc_plan_use uses[QGC_MAX_ARGS];
        const int n = qgc_plan_uses(&pack->launches[i], uses);
        int64_t bytes = 0;
        for (int k = 0; k < n; k++) {
            const qgc_plan_buffer *b = &p->buffers[uses[k].buffer];
            bytes += b->kind == QGC_BUFFER_WEIGHT && !stays[b->weight] ? bytes_of(b) : 0;
        }
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* All buffers of a kind. */
static int64_t kind_bytes(const qgc_plan *p, qgc_buffer_kind kind, int64_t ctx) {
    qgc_sizes sizes = qgc_plan_largest(p);
    sizes.ctx = ctx;
    int64_t bytes = 0;
    for (size_t i = 0; i < p->n_buffers; i++)
        if (p->buffers[i].kind == kind && !qgc_extent_add(&bytes, &p->buffers[i].bytes, &sizes))
            return (int64_t)1 << 62;
    return bytes;
}

qgc_plan_memory_use qgc_plan_memory_of(const qgc_plan *p, bool persistent, int64_t ctx, qgc_arena *a) {
    qgc_plan_memory_use m = {.weights = qgc_plan_weight_bytes(p, NULL),
                             .states = kind_bytes(p, QGC_BUFFER_STATE, ctx),
                             .tables = kind_bytes(p, QGC_BUFFER_TABLE, ctx),
                             .interface = kind_bytes(p, QGC_BUFFER_IO, ctx),
                             .scratch = p->scratch_bytes};
    if (!persistent || p->not_persistent)
        return m;
    bool *stays = qgc_arena_array(a, p->n_weights + 1, sizeof *stays);
    qgc_plan_staying(p, stays);
    m.weights = qgc_plan_weight_bytes(p, stays);
    m.staging = qgc_plan_staging_bytes(p, stays);
    m.stream = kind_bytes(p, QGC_BUFFER_STREAM, ctx);
    m.exchange = kind_bytes(p, QGC_BUFFER_PACKED, ctx);
    return m;
}
