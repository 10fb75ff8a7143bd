#include "runtime/mode.h"

#include <stdlib.h>
#include <string.h>

#include "codegen/card.h"
#include "graph/base/str.h"

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

int qgc_mode_shared_bytes(const qgc_plan *plan, const char *arch) {
    const qgc_phase *phase = &plan->phases[QGC_PHASE_PERSISTENT];
    int most = 0;
    for (size_t i = 0; i < phase->n_launches; i++) {
        const qgc_plan_launch *l = &phase->launches[i];
        if (!l->on_all || l->kind != QGC_LAUNCH_KERNEL)
            continue;
        const int needs = qgc_kernel_shared_bytes(&plan->kernels[l->kernel], arch);
        most = needs > most ? needs : most;
    }
    return most;
}

static const char *too_little_shared(const qgc_plan *plan, const char *arch, int has, const char *what,
                                     qgc_arena *a) {
    const int needs = qgc_mode_shared_bytes(plan, arch);
    if (needs <= has)
        return NULL;
    return qgc_arena_printf(a, "it needs %d bytes of shared memory a block, %s has %d%s", needs, what, has,
                            plan->n_archs > 1 ? " (compiled for it alone it may need less)" : "");
}

static const char *not_persistent_on(const qgc_plan *plan, const char *arch, qgc_arena *a) {
    if (plan->not_persistent)
        return plan->not_persistent;
    return too_little_shared(plan, arch, qgc_arch_shared_bytes(qgc_arch_number(arch)), arch, a);
}

/* On a GPU, with the images of an architecture. */
static const char *not_persistent_with(const qgc_plan *plan, const char *arch, const qgc_device_info *about,
                                       qgc_arena *a) {
    const char *why = not_persistent_on(plan, arch, a);
    if (why)
        return why;
    if (about->sms < plan->least_sms)
        return qgc_arena_printf(a, "it needs %lld multiprocessors, %s has %d", (long long)plan->least_sms,
                                about->name, about->sms);
    if (about->sms > QGC_MOST_BLOCKS)
        return qgc_arena_printf(a, "it has room for the shares of %d multiprocessors, %s has %d",
                                QGC_MOST_BLOCKS, about->name, about->sms);
    return too_little_shared(plan, arch, about->shared_bytes_max, about->name, a);
}

static const char *not_persistent(const qgc_program *p, qgc_arena *a) {
    const char *why = not_persistent_with(qgc_program_plan(p), qgc_program_arch(p),
                                          qgc_device_about(qgc_program_device(p)), a);
    return why ? why : qgc_program_not_resident(p);
}

static const char *not_overlapping(const qgc_plan *plan, const char *arch, qgc_arena *a) {
    if (qgc_arch_number(arch) < 90)
        return qgc_arena_printf(a, "image %s has no programmatic dependent launch, which sm_90 has", arch);
    const qgc_phase *decode = &plan->phases[QGC_PHASE_DECODE];
    for (size_t i = 0; i < decode->n_launches; i++)
        if (decode->launches[i].early)
            return NULL;
    return "no launch of a decode step may start early";
}

const char *qgc_mode_refusal_on(const qgc_plan *plan, qgc_mode mode, const char *arch, qgc_arena *a) {
    return mode == QGC_MODE_PERSISTENT ? not_persistent_on(plan, arch, a)
           : mode == QGC_MODE_PDL      ? not_overlapping(plan, arch, a)
                                       : NULL;
}

const char *qgc_mode_refusal_with(const qgc_plan *plan, qgc_mode mode, const char *arch,
                                  const qgc_device_info *about, qgc_arena *a) {
    return mode == QGC_MODE_PERSISTENT ? not_persistent_with(plan, arch, about, a)
                                       : qgc_mode_refusal_on(plan, mode, arch, a);
}

const char *qgc_mode_refusal(const qgc_program *p, qgc_mode mode, qgc_arena *a) {
    return mode == QGC_MODE_PERSISTENT ? not_persistent(p, a)
                                       : qgc_mode_refusal_with(qgc_program_plan(p), mode, qgc_program_arch(p),
                                                               qgc_device_about(qgc_program_device(p)), a);
}

qgc_status qgc_mode_check(const qgc_program *p, qgc_mode mode, qgc_diag *d) {
    const char *why = qgc_mode_refusal(p, mode, d->arena);
    if (!why)
        return QGC_OK;
    qgc_status status = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "\"%s\" cannot run in %s mode: %s",
                                 qgc_program_plan(p)->name, qgc_mode_name(mode), why);
    qgc_hint(d, "Use --mode graph.");
    return status;
}

/* What a session in persistent mode allocates; more than any GPU has where the sum does not fit. */
static int64_t persistent_bytes(const qgc_plan *plan, int64_t ctx) {
    qgc_sizes sizes = qgc_plan_largest(plan);
    sizes.ctx = ctx;
    int64_t bytes = plan->scratch_bytes;
    for (size_t i = 0; i < plan->n_buffers; i++) {
        const qgc_buffer_kind kind = plan->buffers[i].kind;
        if (kind != QGC_BUFFER_WEIGHT && kind != QGC_BUFFER_STREAM && kind != QGC_BUFFER_SCRATCH &&
            !qgc_extent_add(&bytes, &plan->buffers[i].bytes, &sizes))
            return (int64_t)1 << 62;
    }
    return bytes;
}

/* Persistent mode with so many bytes of weights, as far as memory goes: why not, or NULL. */
static const char *no_room_for(const qgc_program *p, int64_t weights, int64_t ctx, qgc_arena *a) {
    const int64_t spare = (int64_t)1 << 29; /* cuBLAS's workspace, and what others may take meanwhile */
    const int64_t needs = weights / 2 + persistent_bytes(qgc_program_plan(p), ctx) / 2 > (int64_t)1 << 60
                              ? (int64_t)1 << 62
                              : weights + persistent_bytes(qgc_program_plan(p), ctx) + spare;
    const int64_t room = (int64_t)qgc_device_about(qgc_program_device(p))->free_bytes;
    if (room > needs)
        return NULL;
    return qgc_arena_printf(a, "%sit needs %.2f GB, and %.2f GB are free",
                            weights > 0 && qgc_program_has_weights(p) ? "with a second copy of the weights "
                                                                      : "",
                            1e-9 * (double)needs, 1e-9 * (double)room);
}

static const char *no_room(const qgc_program *p, int64_t ctx, qgc_arena *a) {
    return no_room_for(p, qgc_program_wants_bytes(p, true), ctx, a);
}

const char *qgc_mode_no_second_copy(const qgc_program *p, int64_t ctx, qgc_arena *a) {
    if (qgc_program_has_weights(p))
        return NULL;
    const int64_t stored = qgc_program_wants_bytes(p, false), packed = qgc_program_wants_bytes(p, true);
    const char *why = no_room_for(
        p, stored / 2 + packed / 2 > (int64_t)1 << 60 ? (int64_t)1 << 61 : stored + packed, ctx, a);
    return why ? qgc_arena_printf(a, "for a copy of them as they are stored %s", why) : NULL;
}

static int64_t weights_read(const qgc_plan *plan, qgc_phase_kind phase) {
    int64_t bytes = 0;
    for (size_t i = 0; i < plan->phases[phase].n_launches; i++)
        bytes += plan->phases[phase].launches[i].weight_bytes;
    return bytes;
}

double qgc_mode_cost(int64_t launches, int64_t bytes) {
    const double launch = 5e6, for_a_byte = 2.3;
    return launch * (double)launches + for_a_byte * (double)bytes;
}

/* Persistent mode, as far as time goes: why not, or NULL. Where block formats meet in one phase it has them in its stream as f16, more
 * bytes than the launches of the other modes read; those take longer for a byte, and each some time of its own. */
static const char *slower(const qgc_plan *plan, qgc_arena *a) {
    const int64_t here = weights_read(plan, QGC_PHASE_PERSISTENT),
                  there = weights_read(plan, QGC_PHASE_DECODE);
    const int64_t launches = (int64_t)plan->phases[QGC_PHASE_DECODE].n_launches;
    if (there >= here || qgc_mode_cost(launches, there) >= (double)here)
        return NULL;
    return qgc_arena_printf(a,
                            "it would read %.2f GB of weights as f16, the launches read %.2f GB as they are",
                            1e-9 * (double)here, 1e-9 * (double)there);
}

/* Images for less than sm_80 fill the ring by loads and stores, and no such card has run them yet; with them an H100 brought 5 GB/s to a
 * multiprocessor, where a T4 could read 8. So what was measured decides: qgc_mode_measured. */
static const char *never_timed(const qgc_program *p, qgc_arena *a) {
    enum { FIRST_WITH_COPIES = 80 };
    if (qgc_arch_number(qgc_program_arch(p)) >= FIRST_WITH_COPIES)
        return NULL;
    return qgc_arena_printf(a, "its code for %s was never timed; qgc tune does that", qgc_program_arch(p));
}

qgc_mode_choice qgc_mode_fastest(const qgc_program *p, int64_t ctx, qgc_arena *a) {
    const char *persistent = not_persistent(p, a);
    if (!persistent)
        persistent = never_timed(p, a);
    if (!persistent)
        persistent = no_room(p, ctx, a);
    if (!persistent)
        persistent = slower(qgc_program_plan(p), a);
    if (!persistent)
        return (qgc_mode_choice){QGC_MODE_PERSISTENT, "the graph and the GPU allow it"};
    const char *pdl = not_overlapping(qgc_program_plan(p), qgc_program_arch(p), a);
    const char *why =
        qgc_arena_printf(a, "not persistent: %s%s%s", persistent, pdl ? "; not pdl: " : "", pdl ? pdl : "");
    return (qgc_mode_choice){pdl ? QGC_MODE_GRAPH : QGC_MODE_PDL, why};
}

const char *qgc_mode_key(const qgc_plan *plan, qgc_arena *a) {
    return qgc_arena_printf(a, "%s, %lld and %lld bytes", plan->name,
                            (long long)weights_read(plan, QGC_PHASE_DECODE),
                            (long long)weights_read(plan, QGC_PHASE_PERSISTENT));
}

qgc_mode_choice qgc_mode_measured(const qgc_program *p, int64_t ctx, const double us[QGC_N_MODES],
                                  qgc_arena *a) {
    const qgc_mode_choice otherwise = qgc_mode_fastest(p, ctx, a);
    qgc_mode best = otherwise.mode;
    qgc_str why = qgc_str_new(a);
    if (!(us[best] > 0))
        return otherwise;
    for (int m = 0; m < QGC_N_MODES; m++) {
        if (!(us[m] > 0) || qgc_mode_refusal(p, (qgc_mode)m, a) ||
            (m == QGC_MODE_PERSISTENT && no_room(p, ctx, a)))
            continue;
        qgc_str_printf(&why, "%s%s %.1f",
                       why.bytes ? ", " : "measured by qgc tune, us a step: ", qgc_mode_name((qgc_mode)m),
                       us[m]);
        if (us[m] < us[best])
            best = (qgc_mode)m;
    }
    return (qgc_mode_choice){best, why.text};
}

qgc_status qgc_mode_choose(const qgc_program *p, const char *name, int64_t ctx, qgc_mode_choice *out,
                           qgc_diag *d) {
    *out = (qgc_mode_choice){0};
    if (strcmp(name, "auto") != 0)
        return qgc_mode_named(name, &out->mode, d);
    *out = qgc_mode_fastest(p, ctx, d->arena);
    return QGC_OK;
}
