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

typedef struct {
    const char *path; /* of the library */
    const char *text; /* that it is compiled from */
    bool failed;
} library;

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

/* Two tests may make the same library at the same time, so it gets its name when it is whole. */
static void compile(library *l) {
    qgc_arena *a = qgc_arena_new();
    qgc_diag d = qgc_diag_new(a);
    const char *source = qgc_arena_printf(a, "%s.%d.cc", l->path, (int)getpid()),
               *out = qgc_arena_printf(a, "%s.%d", l->path, (int)getpid()),
               *command = qgc_arena_printf(a, COMPILE " '%s' -o '%s'", source, out);
    l->failed = qgc_file_write(source, l->text, strlen(l->text), &d) != QGC_OK || system(command) != 0 ||
                rename(out, l->path) != 0;
    remove(source);
    qgc_arena_drop(a);
}

static void compile_some(void *context, size_t first, size_t last) {
    library *libraries = context;
    for (size_t i = first; i < last; i++)
        if (access(libraries[i].path, R_OK) != 0)
            compile(&libraries[i]);
}

static library library_of(const qgc_plan_kernel *k, const qgc_kernel_job *job, const char *arch, uint64_t all,
                          qgc_arena *a) {
    library l = {.text = text_of(k, job, arch, a)};
    l.path = qgc_arena_printf(a, QGC_CPU_KERNELS "/%s.%016llx.so", k->entry,
                              (unsigned long long)(qgc_hash64(l.text, strlen(l.text)) ^ all));
    return l;
}

const char *cpu_kernels_compile(const qgc_plan_kernel *k, const qgc_kernel_job *job, const char *arch,
                                qgc_arena *a) {
    qgc_diag d = qgc_diag_new(a);
    assert_int_equal(qgc_folder_make(QGC_CPU_KERNELS, &d), QGC_OK);
    library l = library_of(k, job, arch, hash_of_all(a), a);
    compile_some(&l, 0, 1);
    return l.failed ? NULL : l.path;
}

void cpu_kernels_build(const qgc_lowered *lowered, const char *arch, qgc_pool *pool, qgc_arena *a) {
    qgc_plan *p = lowered->plan;
    library *libraries = qgc_arena_array(a, p->n_kernels, sizeof *libraries);
    const uint64_t all = hash_of_all(a);
    qgc_diag d = qgc_diag_new(a);
    assert_int_equal(qgc_folder_make(QGC_CPU_KERNELS, &d), QGC_OK);
    p->archs[0] = qgc_arena_strdup(a, arch);
    p->n_archs = 1;
    p->n_images = p->n_kernels;
    p->images = qgc_arena_array(a, p->n_images, sizeof *p->images);
    for (size_t i = 0; i < p->n_kernels; i++) {
        library *l = &libraries[i];
        *l = library_of(&p->kernels[i], &lowered->jobs[i], arch, all, a);
        p->images[i] = (qgc_plan_image){.kernel = (int)i, .data = l->path, .bytes = strlen(l->path) + 1};
    }
    qgc_pool_for(pool, p->n_kernels, 1, compile_some, libraries);
    for (size_t i = 0; i < p->n_kernels; i++)
        if (libraries[i].failed)
            fail_msg("%s does not compile with %s", p->kernels[i].name, p->kernels[i].options);
}

/* --- running --------------------------------------------------------------------------------------------- */

typedef struct {
    fake_kernel kernel;
    const on_cpu_kernel *code;
} loaded;

enum { MOST_SMS = 16 };

/* A library stays where it is until the test ends. */
static const fake_kernel *load(qgc_device *dev, const char *path, size_t bytes) {
    (void)bytes;
    void *opened = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    loaded *k = qgc_arena_alloc(dev->arena, sizeof *k);
    k->code = opened ? dlsym(opened, "on_cpu_loaded") : NULL;
    if (!k->code) {
        print_error("%s\n", dlerror());
        return NULL;
    }
    char *signature = qgc_arena_alloc(dev->arena, (size_t)k->code->n_args + 1);
    for (int i = 0; i < k->code->n_args; i++)
        signature[i] = k->code->arg_bytes[i] == sizeof(int32_t) ? 'i' : 'p';
    k->kernel = (fake_kernel){.entry = path, .signature = signature};
    return &k->kernel;
}

static qgc_status launch(qgc_device *dev, const fake_kernel *k, const qgc_launch *l, qgc_diag *d) {
    const on_cpu_kernel *code = ((const loaded *)k)->code, *all[MOST_SMS];
    const on_cpu_launch_options o = {.grid = {l->grid[0], l->grid[1], l->grid[2]},
                                     .threads = l->threads,
                                     .shared_bytes = l->shared_bytes,
                                     .order = *(const int *)dev->context,
                                     .args = l->args};
    if (!l->together && !strstr(k->entry, "packed_gemm")) { /* whose blocks may be in clusters */
        on_cpu_launch(code, &o);
        return QGC_OK;
    }
    for (int i = 0; i < MOST_SMS; i++)
        all[i] = code;
    const char *why = on_cpu_launch_together(all, &o);
    return why ? qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "%s: %s", k->entry, why) : QGC_OK;
}

qgc_device *cpu_device_new(int arch, int sms, const int *order) {
    assert_true(sms <= MOST_SMS);
    qgc_device *dev = fake_device_new(NULL);
    dev->load = load;
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
