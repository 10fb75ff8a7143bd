/* The functions of codegen/nvrtc.h, by the C++ compiler of this machine: an image is the path of a library
 * (cpu_kernels.h). Linked in place of codegen/nvrtc.c, so that an engine compiles graphs and runs them on a
 * device in host memory. */

#include <string.h>

#include "codegen/nvrtc.h"
#include "graph/base/hash.h"
#include "graph/base/str.h"
#include "tests/kernels/cpu_kernels.h"

struct qgc_nvrtc {
    int version;
};
static qgc_nvrtc the_one = {.version = 13000};

qgc_status qgc_nvrtc_open(qgc_nvrtc **out, const char *library, qgc_diag *d) {
    (void)library, (void)d;
    *out = &the_one;
    return QGC_OK;
}

void qgc_nvrtc_close(qgc_nvrtc *n) {
    (void)n;
}

int qgc_nvrtc_version(const qgc_nvrtc *n) {
    return n->version;
}

const char *qgc_nvrtc_library(const qgc_nvrtc *n) {
    (void)n;
    return "the compiler of this machine";
}

int qgc_nvrtc_archs(const qgc_nvrtc *n, const int **archs) {
    static const int all[] = {75, 80, 90};
    (void)n;
    *archs = all;
    return 3;
}

qgc_status qgc_nvrtc_check_arch(const qgc_nvrtc *n, const char *arch, qgc_diag *d) {
    (void)n, (void)arch, (void)d;
    return QGC_OK;
}

/* The entry of a file is named like it. */
static const char *path_of(const qgc_nvrtc_job *job, qgc_arena *a) {
    const qgc_plan_kernel kernel = {.name = job->file,
                                    .program = job->program,
                                    .entry =
                                        qgc_arena_strndup(a, job->file, strlen(job->file) - strlen(".cu"))};
    const qgc_kernel_job options = {.options = (const char **)(uintptr_t)job->options,
                                    .n_options = job->n_options};
    return cpu_kernels_compile(&kernel, &options, job->arch, a);
}

qgc_status qgc_nvrtc_compile(qgc_nvrtc *n, const qgc_nvrtc_job *job, const void **cubin, size_t *bytes,
                             qgc_diag *d) {
    (void)n;
    const char *path = path_of(job, d->arena);
    if (!path)
        return qgc_fail(d, QGC_ERR_DEVICE, job->at, "%s does not compile", job->file);
    *cubin = path;
    *bytes = strlen(path) + 1;
    return QGC_OK;
}

const char *qgc_nvrtc_key(const qgc_nvrtc *n, const qgc_nvrtc_job *job, qgc_arena *a) {
    qgc_str text = qgc_str_new(a);
    (void)n;
    qgc_str_printf(&text, "%s %s %s", job->file, job->arch, job->program ? job->program : "");
    for (int i = 0; i < job->n_options; i++)
        qgc_str_printf(&text, " %s", job->options[i]);
    return qgc_arena_printf(a, "%016llx", (unsigned long long)qgc_hash64(text.text, text.bytes));
}
