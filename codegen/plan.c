#include "codegen/plan.h"

#include "codegen/card.h"

const char *qgc_phase_name(qgc_phase_kind phase) {
    static const char *const names[QGC_N_PHASES] = {[QGC_PHASE_INIT] = "init",
                                                    [QGC_PHASE_PREFILL] = "prefill",
                                                    [QGC_PHASE_DECODE] = "decode",
                                                    [QGC_PHASE_PACK] = "pack",
                                                    [QGC_PHASE_PERSISTENT] = "persistent",
                                                    [QGC_PHASE_BEGIN] = "begin",
                                                    [QGC_PHASE_PACKED_PREFILL] = "packed-prefill",
                                                    [QGC_PHASE_LONG_PREFILL] = "long-prefill"};
    return names[phase];
}

bool qgc_phase_is_prefill(qgc_phase_kind phase) {
    return phase == QGC_PHASE_PREFILL || qgc_phase_is_packed(phase);
}

bool qgc_phase_is_packed(qgc_phase_kind phase) {
    return phase == QGC_PHASE_PACKED_PREFILL || phase == QGC_PHASE_LONG_PREFILL;
}

bool qgc_phase_has_gemm(const qgc_phase *phase) {
    for (size_t i = 0; i < phase->n_launches; i++)
        if (phase->launches[i].kind == QGC_LAUNCH_GEMM)
            return true;
    return false;
}

int qgc_kernel_threads(const qgc_plan_kernel *k, const char *arch) {
    return k->threads + (qgc_arch_number(arch) < QGC_FIRST_WITH_BULK_COPIES ? k->copy_threads : 0);
}

int qgc_kernel_shared_bytes(const qgc_plan_kernel *k, const char *arch) {
    enum { ALIGN_SHARED = 128 }; /* of the ring in tiles.cuh, whose size is reckoned so */
    const int has = qgc_code_shared_bytes(arch) / ALIGN_SHARED * ALIGN_SHARED;
    if (k->least_shared_bytes == 0 || has > k->shared_bytes)
        return k->shared_bytes;
    return has > k->least_shared_bytes ? has : k->least_shared_bytes;
}

int qgc_plan_uses(const qgc_plan_launch *l, qgc_plan_use out[QGC_MAX_ARGS]) {
    int n = 0;
    if (l->kind == QGC_LAUNCH_GEMM) {
        out[n++] = (qgc_plan_use){l->a, QGC_READS};
        out[n++] = (qgc_plan_use){l->b, QGC_READS};
        out[n++] = (qgc_plan_use){l->c, QGC_WRITES | (l->accumulate ? QGC_READS : 0)};
        return n;
    }
    for (int i = 0; i < l->n_args; i++)
        if (l->args[i].kind == QGC_ARG_BUFFER && l->args[i].access)
            out[n++] = (qgc_plan_use){l->args[i].buffer, l->args[i].access};
    return n;
}

__extension__ typedef __int128 wide;

static int64_t ctx_of(const qgc_extent *e, const qgc_sizes *at) {
    return e->most_ctx && e->most_ctx < at->ctx ? e->most_ctx : at->ctx;
}

int64_t qgc_extent_size(const qgc_extent *e, const qgc_sizes *at) {
    return e->fixed + e->per_token * at->tokens + e->per_row * at->rows + e->per_ctx * ctx_of(e, at);
}

enum { ALIGN = 256 }; /* of buffers in a region */

int64_t qgc_plan_rows(const qgc_plan *p, qgc_phase_kind phase, int64_t tokens) {
    return p->all_rows && phase == QGC_PHASE_PREFILL ? tokens : 1;
}

qgc_sizes qgc_plan_sizes(const qgc_plan *p, qgc_phase_kind phase) {
    const int64_t tokens = phase == QGC_PHASE_LONG_PREFILL ? p->long_chunk
                           : qgc_phase_is_prefill(phase)   ? p->chunk
                                                           : 1;
    return (qgc_sizes){.tokens = tokens, .rows = qgc_plan_rows(p, phase, tokens)};
}

qgc_sizes qgc_plan_largest(const qgc_plan *p) {
    qgc_sizes most = qgc_plan_sizes(p, QGC_PHASE_PREFILL);
    most.tokens = p->long_chunk > most.tokens ? p->long_chunk : most.tokens;
    return most;
}

bool qgc_extent_add(int64_t *sum, const qgc_extent *bytes, const qgc_sizes *at) {
    const wide size = bytes->fixed + (wide)bytes->per_token * at->tokens + (wide)bytes->per_row * at->rows +
                      (wide)bytes->per_ctx * ctx_of(bytes, at);
    const wide all = *sum + (size + ALIGN - 1) / ALIGN * ALIGN;
    if (size < 0 || all > QGC_PLAN_MOST_BYTES)
        return false;
    *sum = (int64_t)all;
    return true;
}

int64_t qgc_trace_bytes(int n_parts) {
    return (int64_t)4 * QGC_TRACE_BLOCKS * QGC_TRACE_WORDS * n_parts;
}

int64_t qgc_plan_step_bytes(const qgc_plan *p, qgc_phase_kind phase, int64_t position) {
    const qgc_phase *ph = &p->phases[phase];
    int64_t bytes = 0;
    for (size_t i = 0; i < ph->n_launches; i++)
        bytes += ph->launches[i].weight_bytes + ph->launches[i].position_bytes * position;
    return bytes;
}

const qgc_plan_launch *qgc_phase_parts(const qgc_phase *phase) {
    for (size_t i = 0; i < phase->n_launches; i++)
        if (phase->launches[i].n_parts > 0)
            return &phase->launches[i];
    return NULL;
}
