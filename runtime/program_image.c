#include <stdio.h>
#include <string.h>

#include "graph/base/str.h"
#include "runtime/program_private.h"

/* Machine code runs on the architecture that it was compiled for, and on later minor versions of the same
 * major one, unless it uses what only one architecture (sm_90a) or family (sm_100f) has.
 * docs.nvidia.com/cuda/cuda-compiler-driver-nvcc, "GPU feature list" */
typedef struct {
    int major, minor;
    char suffix; /* 'a', 'f' or 0 */
} arch_name;

static bool parse(const char *text, arch_name *out) {
    if (strncmp(text, "sm_", 3) != 0)
        return false;
    const char *p = text + 3;
    int number = 0, digits = 0;
    for (; *p >= '0' && *p <= '9' && digits < 4; p++, digits++)
        number = 10 * number + (*p - '0');
    if (digits < 2)
        return false;
    *out = (arch_name){.major = number / 10, .minor = number % 10, .suffix = *p};
    return !*p || ((*p == 'a' || *p == 'f') && !p[1]);
}

/* How well code for an arch suits the device: 0 not at all, more is better. */
static int rank_of(const char *arch, const qgc_device_info *about) {
    arch_name a;
    if (!parse(arch, &a) || a.major != about->major || a.minor > about->minor)
        return 0;
    if (a.minor == about->minor)
        return a.suffix == 'a' ? 102 : a.suffix == 'f' ? 101 : 100;
    return a.suffix ? 0 : 1 + a.minor;
}

const char *qgc_program_arch_for(qgc_device *dev, qgc_arena *a) {
    const qgc_device_info *about = qgc_device_about(dev);
    return qgc_arena_printf(a, "sm_%d%d%s", about->major, about->minor, about->major >= 9 ? "a" : "");
}

static qgc_status none_fits(const qgc_plan *plan, const qgc_device_info *about, qgc_diag *d) {
    qgc_str there = qgc_str_new(d->arena);
    for (int i = 0; i < plan->n_archs; i++)
        qgc_str_printf(&there, "%s%s", i ? ", " : "", plan->archs[i]);
    qgc_status s =
        qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "no image of \"%s\" runs on %s, which is sm_%d%d; there %s %s",
                 plan->name, about->name, about->major, about->minor, plan->n_archs == 1 ? "is" : "are",
                 plan->n_archs ? there.text : "none");
    qgc_hint(d, "Compile again with --arch sm_%d%d.", about->major, about->minor);
    return s;
}

static qgc_status only(const qgc_plan *plan, const qgc_device_info *about, const char *wanted, int *arch,
                       qgc_diag *d) {
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
    if (!rank_of(wanted, about))
        return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC,
                        "the image for \"%s\" does not run on %s, which is sm_%d%d", wanted, about->name,
                        about->major, about->minor);
    *arch = at;
    return QGC_OK;
}

qgc_status qgc_program_choose_image(const qgc_plan *plan, const qgc_device_info *about, const char *wanted,
                                    int *arch, qgc_diag *d) {
    *arch = -1;
    if (wanted)
        return only(plan, about, wanted, arch, d);
    int best = 0;
    for (int i = 0; i < plan->n_archs; i++) {
        int rank = rank_of(plan->archs[i], about);
        if (rank > best) {
            best = rank;
            *arch = i;
        }
    }
    return best ? QGC_OK : none_fits(plan, about, d);
}
