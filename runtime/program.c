#include "runtime/program.h"

#include <assert.h>
#include <stdarg.h>

#include "runtime/mode.h"
#include "runtime/program_impl.h"

void qgc_program_note(qgc_program *p, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const char *line = qgc_arena_vprintf(p->arena, format, args);
    va_end(args);
    p->notes = qgc_arena_grow(p->arena, p->notes, p->n_notes, sizeof *p->notes);
    p->notes[p->n_notes++] = line;
}

/* Kernels of the phases that can run: a persistent one may want more shared memory than the device has. */
static const bool *wanted_kernels(const qgc_program *p) {
    const qgc_plan *plan = p->plan;
    bool *wanted = qgc_arena_array(p->arena, plan->n_kernels, sizeof *wanted);
    const bool persistent = !qgc_mode_refusal(p, QGC_MODE_PERSISTENT, p->arena);
    for (int phase = 0; phase < QGC_N_PHASES; phase++) {
        if (!persistent && phase >= QGC_PHASE_PACK)
            continue;
        const qgc_phase *ph = &plan->phases[phase];
        for (size_t i = 0; i < ph->n_launches; i++)
            if (ph->launches[i].kind == QGC_LAUNCH_KERNEL)
                wanted[ph->launches[i].kernel] = true;
    }
    return wanted;
}

static qgc_status load_kernels(qgc_program *p, qgc_diag *d) {
    const qgc_plan *plan = p->plan;
    const bool *wanted = wanted_kernels(p);
    for (size_t i = 0; i < plan->n_images; i++) {
        const qgc_plan_image *image = &plan->images[i];
        if (image->arch != p->arch || !wanted[image->kernel])
            continue;
        const qgc_plan_kernel *k = &plan->kernels[image->kernel];
        qgc_status s =
            qgc_device_load(p->dev, image->data, image->bytes, k->entry,
                            qgc_kernel_shared_bytes(k, qgc_program_arch(p)), &p->functions[image->kernel], d);
        if (s != QGC_OK) {
            qgc_note(d, QGC_NO_LOC, "kernel \"%s\" is %s compiled with %s", k->entry, k->name, k->options);
            return s;
        }
    }
    for (size_t i = 0; i < plan->n_kernels; i++)
        assert(p->functions[i] || !wanted[i]); /* qgc_plan_check: one image for each kernel and arch */
    return QGC_OK;
}

static void forget_source(qgc_program *p) {
    if (p->loading)
        qgc_arena_drop(p->loading->made);
    p->loading = NULL;
}

static qgc_status load_weights(qgc_program *p, const qgc_weights *weights, qgc_pool *pool,
                               const qgc_program_options *options, qgc_diag *d) {
    if (options->share && options->share->dev == p->dev)
        QGC_TRY(qgc_program_want(options->share, false, d));
    if (options->share && qgc_program_take_weights(p, options->share)) {
        qgc_program_note(p, "the weights are those of another program");
        p->is_stored = true;
        return QGC_OK;
    }
    QGC_TRY(qgc_program_find_weights(p, weights, pool, options, d));
    if (options->later)
        return QGC_OK;
    QGC_TRY(qgc_program_put_weights(p, d));
    forget_source(p);
    return QGC_OK;
}

qgc_status qgc_program_want(qgc_program *p, bool packed, qgc_diag *d) {
    if (packed)
        return p->packed ? QGC_OK : qgc_program_pack(p, d);
    return p->is_stored ? QGC_OK : qgc_program_put_weights(p, d);
}

bool qgc_program_has_weights(const qgc_program *p) {
    return p->is_stored;
}

/* A cooperative launch of more blocks than run at once fails; so does one of a block that does not fit at all. */
static qgc_status check_residence(qgc_program *p, qgc_diag *d) {
    const qgc_phase *step = &p->plan->phases[QGC_PHASE_PERSISTENT];
    for (size_t i = 0; i < step->n_launches; i++) {
        const qgc_plan_launch *l = &step->launches[i];
        qgc_function *f = l->kind == QGC_LAUNCH_KERNEL ? p->functions[l->kernel] : NULL;
        if (!l->on_all || !f)
            continue;
        const qgc_plan_kernel *k = &p->plan->kernels[l->kernel];
        const int threads = qgc_kernel_threads(k, qgc_program_arch(p)),
                  shared = qgc_kernel_shared_bytes(k, qgc_program_arch(p));
        qgc_residence has;
        QGC_TRY(qgc_device_residence(p->dev, f, threads, shared, &has, d));
        if (has.blocks < 1)
            p->not_resident = qgc_arena_printf(
                p->arena,
                "a multiprocessor of %s has no room for a block of %d threads of %d registers and %d bytes of shared memory",
                qgc_device_about(p->dev)->name, threads, has.registers, shared);
    }
    return QGC_OK;
}

const char *qgc_program_not_resident(const qgc_program *p) {
    return p->not_resident;
}

static qgc_status load(qgc_program *p, const qgc_weights *weights, qgc_pool *pool,
                       const qgc_program_options *options, qgc_diag *d) {
    const qgc_device_info *about = qgc_device_about(p->dev);
    qgc_image_choice image;
    QGC_TRY(qgc_program_choose_image(p->plan, about, options->arch, &image, d));
    p->arch = image.arch;
    qgc_program_note(p, "image %s runs on %s (sm_%d%d): %s", p->plan->archs[p->arch], about->name,
                     about->major, about->minor, qgc_fit_text(image.fit));
    QGC_TRY(load_kernels(p, d));
    QGC_TRY(check_residence(p, d));
    qgc_times_lap(options->times, "kernels loaded");
    QGC_TRY(load_weights(p, weights, pool, options, d));
    qgc_times_lap(options->times, options->later ? "weights found" : "weights sent");
    return QGC_OK;
}

qgc_status qgc_program_load(qgc_program **out, const qgc_plan *plan, qgc_device *dev,
                            const qgc_weights *weights, qgc_pool *pool, const qgc_program_options *options,
                            qgc_diag *d) {
    *out = NULL;
    qgc_arena *arena = qgc_arena_new();
    qgc_program *p = qgc_arena_alloc(arena, sizeof *p);
    *p = (qgc_program){.arena = arena, .plan = plan, .dev = dev};
    p->functions = qgc_arena_array(arena, plan->n_kernels, sizeof(qgc_function *));
    p->addresses = qgc_arena_array(arena, plan->n_buffers, sizeof *p->addresses);
    qgc_status s = load(p, weights, pool, options, d);
    if (s == QGC_OK)
        *out = p;
    else
        qgc_program_drop(p);
    return s;
}

void qgc_program_drop(qgc_program *p) {
    if (!p)
        return;
    for (size_t i = 0; i < p->plan->n_kernels; i++)
        qgc_device_unload(p->dev, p->functions[i]);
    const qgc_address owned[] = {p->weights, p->kept, p->stream};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        qgc_device_free(p->dev, owned[i]);
    forget_source(p);
    qgc_arena_drop(p->arena);
}

const qgc_plan *qgc_program_plan(const qgc_program *p) {
    return p->plan;
}
qgc_device *qgc_program_device(const qgc_program *p) {
    return p->dev;
}
const char *qgc_program_arch(const qgc_program *p) {
    return p->plan->archs[p->arch];
}
const char *qgc_program_arch_for(qgc_device *dev, qgc_arena *a) {
    return qgc_image_arch_for(qgc_device_about(dev), true, a);
}
const qgc_address *qgc_program_addresses(const qgc_program *p, bool packed) {
    return packed ? p->packed : p->addresses;
}

size_t qgc_program_notes(const qgc_program *p, const char *const **lines) {
    *lines = (const char *const *)p->notes;
    return p->n_notes;
}

bool qgc_program_can_wait(const qgc_program *p) {
    return qgc_arch_number(qgc_program_arch(p)) >= 90;
}

qgc_overlap qgc_program_overlaps(const qgc_program *p, qgc_phase_kind phase) {
    const qgc_phase *ph = &p->plan->phases[phase];
    bool any = false;
    for (size_t i = 1; i < ph->n_launches; i++)
        any = any || ph->launches[i].early;
    if (!qgc_program_can_wait(p) || ph->n_launches == 0)
        return QGC_OVERLAP_NONE;
    return ph->launches[0].early ? QGC_OVERLAP_STEPS : any ? QGC_OVERLAP_WITHIN : QGC_OVERLAP_NONE;
}

/* How a launch is started. */
typedef struct {
    bool early, most_shared;
} start;

/* What runs between persistent steps leaves the memory of a multiprocessor divided as they have it. */
static start start_of(const qgc_phase *phase, size_t i, qgc_overlap overlap) {
    const qgc_plan_launch *l = &phase->launches[i];
    const bool may = overlap == QGC_OVERLAP_STEPS || (overlap == QGC_OVERLAP_WITHIN && i > 0);
    return (start){.early = may && l->early, .most_shared = phase->launches[0].on_all && !l->on_all};
}

/* Blocks along each axis; false if there is nothing to do. */
static bool grid_of(const qgc_plan_launch *l, const qgc_sizes *sizes, unsigned grid[3]) {
    for (int i = 0; i < 3; i++) {
        int64_t extent = qgc_extent_size(&l->grid[i], sizes);
        int64_t blocks = extent <= 0 ? 0 : (extent - 1) / l->per_block[i] + 1;
        if (blocks == 0)
            return false;
        assert(blocks <= INT32_MAX);
        grid[i] = (unsigned)blocks;
    }
    return true;
}

static qgc_status launch_kernel(qgc_program *p, const qgc_plan_launch *l, const qgc_address *addresses,
                                const qgc_sizes *sizes, start how, qgc_diag *d) {
    union {
        qgc_address address;
        int32_t i32;
    } values[QGC_MAX_ARGS];
    void *args[QGC_MAX_ARGS];
    const qgc_plan_kernel *k = &p->plan->kernels[l->kernel];
    qgc_launch launch = {.threads = (unsigned)qgc_kernel_threads(k, qgc_program_arch(p)),
                         .shared_bytes = (unsigned)qgc_kernel_shared_bytes(k, qgc_program_arch(p)),
                         .early = how.early,
                         .most_shared = how.most_shared,
                         .args = args};
    if (!grid_of(l, sizes, launch.grid))
        return QGC_OK;
    if (l->on_all) {
        launch.grid[0] = (unsigned)qgc_device_about(p->dev)->sms;
        launch.together = true;
    }
    for (int i = 0; i < l->n_args; i++) {
        const qgc_plan_arg *a = &l->args[i];
        int64_t value = qgc_extent_size(&a->value, sizes);
        args[i] = &values[i];
        if (a->kind == QGC_ARG_BUFFER) {
            assert(addresses[a->buffer]);
            values[i].address = addresses[a->buffer] + (uint64_t)value;
        } else if (a->kind == QGC_ARG_EARLY)
            values[i].i32 = launch.early;
        else {
            assert(value >= INT32_MIN && value <= INT32_MAX);
            values[i].i32 = (int32_t)value;
        }
    }
    return qgc_device_launch(p->dev, p->functions[l->kernel], &launch, d);
}

static qgc_status launch_gemm(qgc_program *p, const qgc_plan_launch *l, const qgc_address *addresses,
                              const qgc_sizes *sizes, qgc_diag *d) {
    qgc_gemm g = {.a = addresses[l->a],
                  .b = addresses[l->b],
                  .c = addresses[l->c],
                  .m = qgc_extent_size(&l->rows, sizes),
                  .n = l->n,
                  .k = l->k,
                  .accumulate = l->accumulate};
    return g.m > 0 ? qgc_device_gemm(p->dev, &g, d) : QGC_OK;
}

static qgc_status launch(qgc_program *p, const qgc_plan_launch *l, const qgc_address *addresses,
                         const qgc_sizes *sizes, start how, qgc_diag *d) {
    if (l->kind == QGC_LAUNCH_GEMM)
        return launch_gemm(p, l, addresses, sizes, d);
    return launch_kernel(p, l, addresses, sizes, how, d);
}

qgc_status qgc_program_launch_one(qgc_program *p, const qgc_plan_launch *l, const qgc_address *addresses,
                                  qgc_diag *d) {
    qgc_frame frame = {d->top, "launching", l->node, QGC_NO_LOC};
    d->top = &frame;
    const start in_turn = {false, false};
    const qgc_status s = launch(p, l, addresses, &(qgc_sizes){.tokens = 1, .rows = 1}, in_turn, d);
    d->top = frame.up;
    return s;
}

qgc_status qgc_program_launch(qgc_program *p, qgc_phase_kind phase, const qgc_address *addresses,
                              const qgc_sizes *sizes, qgc_overlap overlap, qgc_diag *d) {
    return qgc_program_launch_some(p, phase, NULL, addresses, sizes, overlap, d);
}

qgc_status qgc_program_launch_some(qgc_program *p, qgc_phase_kind phase, const bool *wanted,
                                   const qgc_address *addresses, const qgc_sizes *sizes, qgc_overlap overlap,
                                   qgc_diag *d) {
    const qgc_phase *ph = &p->plan->phases[phase];
    qgc_frame frame = {d->top, "launching", NULL, QGC_NO_LOC};
    d->top = &frame;
    qgc_status s = QGC_OK;
    for (size_t i = 0; i < ph->n_launches && s == QGC_OK; i++) {
        const qgc_plan_launch *l = &ph->launches[i];
        if (wanted && !wanted[i])
            continue;
        frame.name = l->node;
        s = launch(p, l, addresses, sizes, start_of(ph, i, overlap), d);
        if (s != QGC_OK && l->where)
            qgc_note(d, QGC_NO_LOC, "\"%s\" stands at %s", l->node, l->where);
    }
    d->top = frame.up;
    return s;
}
