#include "runtime/mode.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[QGC_N_MODES] = {[QGC_MODE_STREAM] = "stream",
                                               [QGC_MODE_GRAPH] = "graph",
                                               [QGC_MODE_PDL] = "pdl",
                                               [QGC_MODE_PERSISTENT] = "persistent"};

const char *qgc_mode_name(qgc_mode mode) {
    return names[mode];
}

qgc_status qgc_mode_named(const char *name, qgc_mode *mode, qgc_diag *d) {
    for (int i = 0; i < QGC_N_MODES; i++)
        if (strcmp(name, names[i]) == 0) {
            *mode = (qgc_mode)i;
            return QGC_OK;
        }
    return qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC,
                    "unknown mode \"%s\", expected stream, graph, pdl or persistent", name);
}

static const char *not_persistent(const qgc_program *p, qgc_arena *a) {
    const qgc_plan *plan = qgc_program_plan(p);
    const qgc_device_info *about = qgc_device_about(qgc_program_device(p));
    if (plan->not_persistent)
        return plan->not_persistent;
    if (strtol(qgc_program_arch(p) + strlen("sm_"), NULL, 10) < 90)
        return qgc_arena_printf(a, "image %s has no bulk copies, which sm_90 has", qgc_program_arch(p));
    if (about->sms < plan->least_sms)
        return qgc_arena_printf(a, "it needs %lld multiprocessors, %s has %d", (long long)plan->least_sms,
                                about->name, about->sms);
    if (about->sms > QGC_MOST_BLOCKS)
        return qgc_arena_printf(a, "it has room for the shares of %d multiprocessors, %s has %d", QGC_MOST_BLOCKS,
                                about->name, about->sms);
    const qgc_phase *phase = &plan->phases[QGC_PHASE_PERSISTENT];
    for (size_t i = 0; i < phase->n_launches; i++) {
        const qgc_plan_kernel *k = &plan->kernels[phase->launches[i].kernel];
        if (phase->launches[i].on_all && k->shared_bytes > about->shared_bytes_max)
            return qgc_arena_printf(a, "it needs %d bytes of shared memory a block, %s has %d",
                                    k->shared_bytes, about->name, about->shared_bytes_max);
    }
    return NULL;
}

static const char *not_overlapping(const qgc_program *p, qgc_arena *a) {
    if (!qgc_program_can_wait(p))
        return qgc_arena_printf(a, "image %s has no programmatic dependent launch, which sm_90 has",
                                qgc_program_arch(p));
    return qgc_program_overlaps(p, QGC_PHASE_DECODE) ? NULL : "no launch of a decode step may start early";
}

const char *qgc_mode_refusal(const qgc_program *p, qgc_mode mode, qgc_arena *a) {
    return mode == QGC_MODE_PERSISTENT ? not_persistent(p, a)
           : mode == QGC_MODE_PDL      ? not_overlapping(p, a)
                                       : NULL;
}

/* What a session in persistent mode allocates. */
static int64_t persistent_bytes(const qgc_plan *plan, int64_t ctx) {
    const qgc_sizes sizes = {.tokens = plan->chunk, .rows = 1, .ctx = ctx};
    int64_t bytes = plan->scratch_bytes;
    for (size_t i = 0; i < plan->n_buffers; i++)
        if (plan->buffers[i].kind != QGC_BUFFER_WEIGHT && plan->buffers[i].kind != QGC_BUFFER_SCRATCH)
            bytes += qgc_extent_size(&plan->buffers[i].bytes, &sizes);
    return bytes;
}

qgc_mode qgc_mode_fastest(const qgc_program *p, int64_t ctx, qgc_arena *a) {
    const int64_t spare = (int64_t)1 << 29; /* cuBLAS's workspace, and what others may take meanwhile */
    if (!not_persistent(p, a)) {
        size_t room = qgc_device_about(qgc_program_device(p))->free_bytes;
        if ((int64_t)room > persistent_bytes(qgc_program_plan(p), ctx) + spare)
            return QGC_MODE_PERSISTENT;
    }
    return not_overlapping(p, a) ? QGC_MODE_GRAPH : QGC_MODE_PDL;
}
