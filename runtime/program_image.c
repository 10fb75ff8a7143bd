#include <string.h>

#include "graph/base/str.h"
#include "runtime/program_impl.h"

static int number_of(const qgc_device_info *about) {
    return 10 * about->major + about->minor;
}

static qgc_arch arch_at(const qgc_plan *plan, int i) {
    qgc_arch arch;
    qgc_arch_read(plan->archs[i], &arch);
    return arch;
}

static int ptx_version_of(const qgc_plan *plan, int arch) {
    for (size_t i = 0; i < plan->n_images; i++)
        if (plan->images[i].arch == arch)
            return qgc_ptx_version(plan->images[i].data, plan->images[i].bytes);
    return 0;
}

/* Is it PTX that the driver does not know yet? A driver without a version is not asked. */
static bool is_too_new(const qgc_plan *plan, int arch, const qgc_device_info *about) {
    return arch_at(plan, arch).ptx && about->driver_version > 0 &&
           qgc_ptx_driver(ptx_version_of(plan, arch)) > about->driver_version;
}

/* A card that the device stands in for may not have what the device has. */
static qgc_fit fit_of(const qgc_plan *plan, int arch, const qgc_device_info *about) {
    const qgc_arch code = arch_at(plan, arch);
    if ((about->newest_code && code.number > about->newest_code) || (about->ptx_only && !code.ptx) ||
        is_too_new(plan, arch, about))
        return QGC_FIT_NONE;
    return qgc_arch_fit(code, number_of(about));
}

qgc_image_choice qgc_image_best(const qgc_plan *plan, const qgc_device_info *about) {
    qgc_image_choice best = {-1, QGC_FIT_NONE};
    int best_rank = 0;
    for (int i = 0; i < plan->n_archs; i++) {
        const int rank = qgc_arch_rank(arch_at(plan, i), number_of(about));
        const qgc_fit fit = fit_of(plan, i, about);
        if (fit == QGC_FIT_NONE || rank <= best_rank)
            continue;
        best_rank = rank;
        best = (qgc_image_choice){i, fit};
    }
    return best;
}

const char *qgc_image_arch_for(const qgc_device_info *about, bool alone, qgc_arena *a) {
    const int number = about->newest_code ? about->newest_code : number_of(about);
    if (about->ptx_only)
        return qgc_arena_printf(a, "compute_%d", number);
    return qgc_arena_printf(a, "sm_%d%s", number, alone && number >= 90 ? "a" : "");
}

static const char *cuda_text(int version, qgc_arena *a) {
    return qgc_arena_printf(a, "%d.%d", version / 1000, version % 1000 / 10);
}

/* Notes PTX that would run if the driver were newer. */
static bool note_too_new(const qgc_plan *plan, const qgc_device_info *about, qgc_diag *d) {
    bool any = false;
    for (int i = 0; i < plan->n_archs; i++) {
        if (!qgc_arch_rank(arch_at(plan, i), number_of(about)) || !is_too_new(plan, i, about))
            continue;
        const int version = ptx_version_of(plan, i);
        qgc_note(d, QGC_NO_LOC,
                 "%s is PTX %d.%d, which a driver of CUDA %s or newer compiles; this one is of CUDA %s",
                 plan->archs[i], version / 10, version % 10, cuda_text(qgc_ptx_driver(version), d->arena),
                 cuda_text(about->driver_version, d->arena));
        any = true;
    }
    return any;
}

static qgc_status none_fits(const qgc_plan *plan, const qgc_device_info *about, qgc_diag *d) {
    qgc_str there = qgc_str_new(d->arena);
    for (int i = 0; i < plan->n_archs; i++)
        qgc_str_printf(&there, "%s%s", i ? ", " : "", plan->archs[i]);
    qgc_status s =
        qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "no image of \"%s\" runs on %s, which is sm_%d; there %s %s",
                 plan->name, about->name, number_of(about), plan->n_archs == 1 ? "is" : "are",
                 plan->n_archs ? there.text : "none");
    if (note_too_new(plan, about, d))
        qgc_hint(
            d,
            "Update the driver, or compile again with --arch %s, or by an NVRTC of CUDA %s or older (--nvrtc).",
            qgc_image_arch_for(about, false, d->arena), cuda_text(about->driver_version, d->arena));
    else
        qgc_hint(d, "Compile again with --arch %s.", qgc_image_arch_for(about, false, d->arena));
    return s;
}

static qgc_status does_not_run(const qgc_plan *plan, int arch, const qgc_device_info *about, qgc_diag *d) {
    qgc_status s =
        qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "the image for \"%s\" does not run on %s, which is sm_%d",
                 plan->archs[arch], about->name, number_of(about));
    if (note_too_new(plan, about, d))
        qgc_hint(d, "Update the driver.");
    return s;
}

static qgc_status only(const qgc_plan *plan, const qgc_device_info *about, const char *wanted,
                       qgc_image_choice *out, qgc_diag *d) {
    int at = 0;
    while (at < plan->n_archs && strcmp(plan->archs[at], wanted) != 0)
        at++;
    if (at == plan->n_archs) {
        qgc_status s =
            qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "\"%s\" has no image for \"%s\"", plan->name, wanted);
        for (int i = 0; i < plan->n_archs; i++)
            qgc_note(d, QGC_NO_LOC, "there is one for %s", plan->archs[i]);
        qgc_hint(d, "Compile again with --arch %s.", wanted);
        return s;
    }
    const qgc_fit fit = fit_of(plan, at, about);
    if (fit == QGC_FIT_NONE)
        return does_not_run(plan, at, about, d);
    *out = (qgc_image_choice){at, fit};
    return QGC_OK;
}

qgc_status qgc_program_choose_image(const qgc_plan *plan, const qgc_device_info *about, const char *wanted,
                                    qgc_image_choice *out, qgc_diag *d) {
    *out = (qgc_image_choice){-1, QGC_FIT_NONE};
    if (wanted)
        return only(plan, about, wanted, out, d);
    *out = qgc_image_best(plan, about);
    return out->arch >= 0 ? QGC_OK : none_fits(plan, about, d);
}
