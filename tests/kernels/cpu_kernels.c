#include "tests/kernels/cpu_kernels.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codegen/arch.h"
#include "codegen/kernel_sources.h"
#include "graph/base/file.h"
#include "graph/base/hash.h"
#include "kernels/cpu/on_cpu_launch.h"
#include "tests/support/cmocka.h"
#include "tests/support/printed.h"

/* --- compiling ------------------------------------------------------------------------------------------- */

#ifndef CPU_KERNELS_FLAGS
#define CPU_KERNELS_FLAGS ""
#endif
/* Kernels need C's headers only, and those of C++ take longer to read than most kernels. */
#define COMPILE                                                                                        \
    "'" QGC_CXX "' -std=c++17 -nostdinc++ -Og -w -ffp-contract=off -fvisibility=hidden -fPIC -shared " \
    "-U_POSIX_C_SOURCE " CPU_KERNELS_FLAGS " -I '" QGC_SOURCE_DIR "'"

static const char *source_of(const char *file) {
    const qgc_kernel_source *s = qgc_kernel_sources;
    while (s->name && strcmp(s->name, file) != 0)
        s++;
    return s->name ? s->text : "__CUDA_ARCH__"; /* from outside */
}

/* A folder with all sources of kernels, and `program` in the place of program.cuh. */
static const char *folder_with(const char *program, qgc_arena *a) {
    qgc_diag d = qgc_diag_new(a);
    const char *folder = qgc_arena_printf(a, QGC_CPU_KERNELS "/%016llx",
                                          (unsigned long long)qgc_hash64(program, strlen(program)));
    qgc_status status = qgc_folder_make(folder, &d);
    for (const qgc_kernel_source *s = qgc_kernel_sources; s->name && status == QGC_OK; s++) {
        const char *text = strcmp(s->name, "program.cuh") == 0 ? program : s->text;
        status = qgc_file_write(qgc_arena_printf(a, "%s/%s", folder, s->name), text, strlen(text), &d);
    }
    if (status != QGC_OK)
        fail_msg("%s", qgc_test_printed(a, &d));
    return folder;
}

/* The file of a kernel. One from outside is the text itself, in a folder with the headers of kernels. */
static const char *file_of(const qgc_plan_kernel *k, qgc_arena *a) {
    qgc_diag d = qgc_diag_new(a);
    if (strncmp(k->name, "outside/", 8) != 0)
        return qgc_arena_printf(a, "%s/%s", k->program ? folder_with(k->program, a) : "kernels", k->name);
    const char *path = qgc_arena_printf(a, "%s/outside.cu", folder_with(k->program, a));
    if (qgc_file_write(path, k->program, strlen(k->program), &d) != QGC_OK)
        fail_msg("%s", qgc_test_printed(a, &d));
    return path;
}

/* A kernel with its options as the preprocessor has them: -DNAME=VALUE is "#define NAME VALUE". The architecture counts where the
 * file asks for it; elsewhere it only says whether a kernel may start early, which is nothing here. */
static const char *text_of(const qgc_plan_kernel *k, const qgc_kernel_job *job, const char *arch,
                           qgc_arena *a) {
    qgc_str text = qgc_str_new(a);
    if (strstr(source_of(k->name), "__CUDA_ARCH__"))
        qgc_str_printf(&text, "#define __CUDA_ARCH__ %d\n", 10 * atoi(arch + 3)); // NOLINT(cert-err34-c)
    if (strstr(source_of(k->name), "__CUDA_ARCH_FEAT_SM90_ALL") && qgc_arch_has_wgmma(arch))
        qgc_str_printf(&text, "#define __CUDA_ARCH_FEAT_SM90_ALL 1\n");
    if (k->least_shared_bytes)
        qgc_str_printf(&text, "#define SHARED_BYTES %d\n", qgc_kernel_shared_bytes(k, arch));
    for (int i = 0; i < job->n_options; i++) {
        const char *name = job->options[i] + 2, *value = strchr(name, '=');
        assert_true(strncmp(job->options[i], "-D", 2) == 0 && value);
        qgc_str_printf(&text, "#define %.*s %s\n", (int)(value - name), name, value + 1);
    }
    qgc_str_printf(&text,
                   "#include \"kernels/cpu/on_cpu.h\"\n"
                   "namespace {\n#include \"%s\"\n}\nON_CPU_KERNEL(%s)\n",
                   file_of(k, a), k->entry);
    return text.text;
}

static void add_file(qgc_str *all, const char *path, qgc_arena *a) {
    enum { MOST = 1 << 20 };
    qgc_diag d = qgc_diag_new(a);
    qgc_source text;
    if (qgc_file_read(&text, path, MOST, "header", &d) != QGC_OK)
        fail_msg("%s cannot be read", path);
    qgc_str_add_bytes(all, text.text, text.bytes);
}

/* What every library depends on: the compiler, and all that may be included. */
static uint64_t hash_of_all(qgc_arena *a) {
    qgc_str all = qgc_str_new(a);
    qgc_str_add(&all, COMPILE);
    for (const qgc_kernel_source *s = qgc_kernel_sources; s->name; s++)
        qgc_str_add(&all, s->text);
    static const char *const headers[] = {"on_cpu.h", "on_cpu_launch.h", "ptx_on_cpu.h"};
    for (int i = 0; i < 3; i++)
        add_file(&all, qgc_arena_printf(a, QGC_SOURCE_DIR "/kernels/cpu/%s", headers[i]), a);
    return qgc_hash64(all.text, all.bytes);
}

/* Two tests may make the same file at the same time, so it gets its name when it is whole. */
static bool is_made(const char *path, const char *text, qgc_arena *a) {
    qgc_diag d = qgc_diag_new(a);
    const char *new = qgc_arena_printf(a, "%s.%d", path, (int)getpid());
    return access(path, R_OK) == 0 ||
           (qgc_file_write(new, text, strlen(text), &d) == QGC_OK && rename(new, path) == 0);
}

/* Of the library at a path, which need not be there yet. */
static const char *source_path(const char *path, qgc_arena *a) {
    return qgc_arena_printf(a, "%s.cc", path);
}

static bool is_compiled(const char *path, qgc_arena *a) {
    if (access(path, R_OK) == 0)
        return true;
    const char *out = qgc_arena_printf(a, "%s.%d", path, (int)getpid()),
               *command = qgc_arena_printf(a, COMPILE " '%s' -o '%s'", source_path(path, a), out);
    return system(command) == 0 && rename(out, path) == 0;
}

/* Where the library of a kernel will be, with its source beside it. */
static const char *library_of(const qgc_plan_kernel *k, const qgc_kernel_job *job, const char *arch,
                              uint64_t all, qgc_arena *a) {
    const char *text = text_of(k, job, arch, a),
               *path = qgc_arena_printf(a, QGC_CPU_KERNELS "/%s.%016llx.so", k->entry,
                                        (unsigned long long)(qgc_hash64(text, strlen(text)) ^ all));
    if (!is_made(source_path(path, a), text, a))
        fail_msg("%s cannot be written", source_path(path, a));
    return path;
}

const char *cpu_kernels_compile(const qgc_plan_kernel *k, const qgc_kernel_job *job, const char *arch,
                                qgc_arena *a) {
    qgc_diag d = qgc_diag_new(a);
    assert_int_equal(qgc_folder_make(QGC_CPU_KERNELS, &d), QGC_OK);
    const char *path = library_of(k, job, arch, hash_of_all(a), a);
    return is_compiled(path, a) ? path : NULL;
}

void cpu_kernels_build(const qgc_lowered *lowered, const char *arch, qgc_arena *a) {
    qgc_plan *p = lowered->plan;
    const uint64_t all = hash_of_all(a);
    qgc_diag d = qgc_diag_new(a);
    assert_int_equal(qgc_folder_make(QGC_CPU_KERNELS, &d), QGC_OK);
    p->archs[0] = qgc_arena_strdup(a, arch);
    p->n_archs = 1;
    p->n_images = p->n_kernels;
    p->images = qgc_arena_array(a, p->n_images, sizeof *p->images);
    for (size_t i = 0; i < p->n_kernels; i++) {
        const char *path = library_of(&p->kernels[i], &lowered->jobs[i], arch, all, a);
        p->images[i] = (qgc_plan_image){.kernel = (int)i, .data = path, .bytes = strlen(path) + 1};
    }
}

/* --- running --------------------------------------------------------------------------------------------- */

typedef struct {
    fake_kernel kernel;
    const on_cpu_kernel *code; /* NULL: not yet */
} loaded;

enum { MOST_SMS = 32 };

static const fake_kernel *load(qgc_device *dev, const char *path, size_t bytes) {
    (void)bytes;
    loaded *k = qgc_arena_alloc(dev->arena, sizeof *k);
    *k = (loaded){.kernel = {.entry = path}};
    return &k->kernel;
}

/* Before its first launch. A library stays where it is until the test ends. */
static void open_library(qgc_device *dev, loaded *k) {
    const char *path = k->kernel.entry;
    if (!is_compiled(path, dev->arena))
        fail_msg("%s does not compile", source_path(path, dev->arena));
    void *opened = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const on_cpu_kernel *code = opened ? dlsym(opened, "on_cpu_loaded") : NULL;
    if (!code) {
        fail_msg("%s", dlerror());
        return;
    }
    k->code = code;
    char *signature = qgc_arena_alloc(dev->arena, (size_t)code->n_args + 1);
    for (int i = 0; i < code->n_args; i++)
        signature[i] = code->arg_bytes[i] == sizeof(int32_t) ? 'i' : 'p';
    k->kernel.signature = signature;
}

static void ready(qgc_device *dev, const fake_kernel *kernel) {
    loaded *k = (loaded *)(uintptr_t)kernel;
    if (!k->code)
        open_library(dev, k);
}

static qgc_status launch(qgc_device *dev, const fake_kernel *k, const qgc_launch *l, qgc_diag *d) {
    const on_cpu_kernel *code = ((const loaded *)k)->code;
    const on_cpu_launch_options o = {.grid = {l->grid[0], l->grid[1], l->grid[2]},
                                     .threads = l->threads,
                                     .shared_bytes = l->shared_bytes,
                                     .order = *(const int *)dev->context,
                                     .args = l->args};
    if (!l->together && !strstr(k->entry, "packed_gemm")) { /* whose blocks may be in clusters */
        on_cpu_launch(code, &o);
        return QGC_OK;
    }
    enum { MOST_BLOCKS = 1024 };
    const on_cpu_kernel *all[MOST_BLOCKS];
    assert_true(l->grid[0] <= MOST_BLOCKS);
    for (unsigned i = 0; i < l->grid[0]; i++)
        all[i] = code;
    const char *why = on_cpu_launch_together(all, &o);
    return why ? qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "%s: %s", k->entry, why) : QGC_OK;
}

qgc_device *cpu_device_new(int arch, int sms, const int *order) {
    assert_true(sms <= MOST_SMS);
    qgc_device *dev = fake_device_new(NULL);
    dev->load = load;
    dev->ready = ready;
    dev->launch = launch;
    dev->context = order;
    dev->quiet = true;
    dev->noise = 0xFF; /* NaN */
    dev->info.major = arch / 10;
    dev->info.minor = arch % 10;
    dev->info.sms = sms;
    dev->info.shared_bytes_max = 232448; /* of sm_90 */
    return dev;
}
