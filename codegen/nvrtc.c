/* The compiler of kernels: CUDA text in, a cubin or PTX out. The library is loaded by name when it is first asked
 * for; its functions are reached through a table, so nothing of it is needed to link or to start qgc.
 *
 * A cubin holds the names of its files for profilers. NVRTC puts the working directory before a relative
 * name, and then the bytes would depend on where qgc was run; hence every file has the name /kernels/x, by
 * the name of the program or, for headers, by a #line. In what people read the first slash is dropped. */

#define _GNU_SOURCE /* dladdr */ /* NOLINT(bugprone-reserved-identifier): libc asks for this name */
#include "codegen/nvrtc.h"

#include <assert.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <nvrtc.h>

#include "codegen/arch.h"
#include "graph/base/cuda_places.h"
#include "graph/base/hash.h"
#include "graph/base/str.h"

#define NVRTC_FUNCTIONS(F)       \
    F(nvrtcVersion)              \
    F(nvrtcGetErrorString)       \
    F(nvrtcGetNumSupportedArchs) \
    F(nvrtcGetSupportedArchs)    \
    F(nvrtcCreateProgram)        \
    F(nvrtcDestroyProgram)       \
    F(nvrtcCompileProgram)       \
    F(nvrtcGetCUBINSize)         \
    F(nvrtcGetCUBIN)             \
    F(nvrtcGetPTXSize)           \
    F(nvrtcGetPTX)               \
    F(nvrtcGetProgramLogSize)    \
    F(nvrtcGetProgramLog)

struct qgc_nvrtc {
    void *handle;
    const char *library;
    int version;
    int *archs;
    int n_archs;
#define F(name) __typeof__(&name) name;
    NVRTC_FUNCTIONS(F)
#undef F
};

enum {
    MIN_VERSION = 12040,
    CACHE_VERSION = 1, /* part of the key; raise it when something changes that the key does not see */
    LOG_LINES = 20,
};

static const char *const base_options[] = {"--std=c++17", "-default-device", "--fmad=true", "-lineinfo"};
enum { N_BASE_OPTIONS = sizeof base_options / sizeof *base_options };

static const char *version_text(qgc_arena *a, int version) {
    return qgc_arena_printf(a, "%d.%d", version / 1000, version % 1000 / 10);
}

/* Loading. */

static bool read_archs(qgc_nvrtc *n, qgc_arena *a) {
    if (n->nvrtcGetNumSupportedArchs(&n->n_archs) != NVRTC_SUCCESS || n->n_archs <= 0)
        return false;
    n->archs = qgc_arena_array(a, (size_t)n->n_archs, sizeof *n->archs);
    return n->nvrtcGetSupportedArchs(n->archs) == NVRTC_SUCCESS;
}

/* NVRTC asks for a second library by its bare name, and the loader does not look beside the first one for it:
 * outside the system's folders, as in Python's wheels, it is only found if it is open already. If it cannot be
 * opened here, NVRTC says so in its log. */
static void open_builtins(const qgc_nvrtc *n, qgc_arena *a) {
    const char *slash = strrchr(n->library, '/');
    int folder_bytes = slash ? (int)(slash + 1 - n->library) : 0;
    (void)dlopen(qgc_arena_printf(a, "%.*slibnvrtc-builtins.so.%s", folder_bytes, n->library,
                                  version_text(a, n->version)),
                 RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
}

/* Fills in `n` from a library that is open. Returns NULL, or why it will not do. */
static const char *look_inside(qgc_nvrtc *n, qgc_arena *a) {
    void *symbol = NULL;
#define F(name)                                 \
    symbol = dlsym(n->handle, #name);           \
    if (!symbol)                                \
        return "function " #name " is missing"; \
    memcpy(&n->name, &symbol, sizeof symbol);
    NVRTC_FUNCTIONS(F)
#undef F
    Dl_info info;
    if (dladdr(symbol, &info) && info.dli_fname)
        n->library = qgc_arena_strdup(a, info.dli_fname);
    int major = 0, minor = 0;
    if (n->nvrtcVersion(&major, &minor) != NVRTC_SUCCESS)
        return "could not ask for its version";
    n->version = 1000 * major + 10 * minor;
    if (n->version < MIN_VERSION)
        return qgc_arena_printf(a, "is NVRTC %s, expected 12.4 or newer", version_text(a, n->version));
    open_builtins(n, a);
    return read_archs(n, a) ? NULL : "could not ask for its architectures";
}

/* Returns NULL if the library was loaded, or why not. */
static const char *try_library(qgc_nvrtc *n, const char *path, qgc_arena *a) {
    *n = (qgc_nvrtc){.library = qgc_arena_strdup(a, path)};
    /* NODELETE: what the library keeps for itself would be lost at each close, 72 KB in 13.0 */
    n->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!n->handle) {
        const char *why = dlerror();
        return qgc_arena_strdup(a, why ? why : "could not be loaded");
    }
    const char *why = look_inside(n, a);
    if (why)
        qgc_nvrtc_close(n);
    return why;
}

static qgc_status not_found(const char *const *tried, const char *const *why, size_t n, qgc_diag *d) {
    qgc_status s = qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "could not load NVRTC, the compiler for kernels");
    for (size_t i = 0; i < n; i++)
        qgc_note(d, QGC_NO_LOC, "tried \"%s\": %s", tried[i], why[i]);
    qgc_hint(
        d,
        "This brings it, and needs no GPU: %s. It is part of the CUDA toolkit (12.4 or newer), too; where that is in an "
        "unusual place, set CUDA_PATH, or give --nvrtc FILE.",
        qgc_cuda_install("nvidia-cuda-nvrtc", d->arena));
    return s;
}

qgc_status qgc_nvrtc_open(qgc_nvrtc **out, const char *library, qgc_diag *d) {
    static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12"};
    const char *const named[] = {library, NULL};
    const char *const *paths =
        library ? named : qgc_cuda_candidates(names, sizeof names / sizeof *names, "cuda_nvrtc", d->arena);
    size_t n_paths = 0, n_tried = 0;
    while (paths[n_paths])
        n_paths++;
    const char **why = qgc_arena_array(d->arena, n_paths, sizeof *why);
    qgc_nvrtc *n = qgc_arena_alloc(d->arena, sizeof *n);
    *out = n;
    for (; n_tried < n_paths; n_tried++) {
        why[n_tried] = try_library(n, paths[n_tried], d->arena);
        if (!why[n_tried])
            return QGC_OK;
    }
    *out = NULL;
    return not_found(paths, why, n_tried, d);
}

void qgc_nvrtc_close(qgc_nvrtc *n) {
    if (n && n->handle)
        dlclose(n->handle);
    if (n)
        n->handle = NULL;
}

int qgc_nvrtc_version(const qgc_nvrtc *n) {
    return n->version;
}
const char *qgc_nvrtc_library(const qgc_nvrtc *n) {
    return n->library;
}

int qgc_nvrtc_archs(const qgc_nvrtc *n, const int **archs) {
    *archs = n->archs;
    return n->n_archs;
}

/* Compiling. */

typedef struct {
    const char *name, *text;
    int n_headers;
    const char **header_names, **header_texts;
    int n_options;
    const char **options;
    bool ptx; /* wanted in place of a cubin */
} program;

typedef struct {
    nvrtcResult result;
    const char *stage; /* of a failure: what was being done */
    const char *log;
    void *code;
    size_t bytes; /* with the zero that ends PTX */
} outcome;

static nvrtcResult read_code(const qgc_nvrtc *n, nvrtcProgram p, bool ptx, outcome *o, qgc_arena *a) {
    o->stage = ptx ? "read the PTX of" : "read the machine code of";
    nvrtcResult r = ptx ? n->nvrtcGetPTXSize(p, &o->bytes) : n->nvrtcGetCUBINSize(p, &o->bytes);
    if (r != NVRTC_SUCCESS)
        return r;
    o->code = qgc_arena_alloc(a, o->bytes);
    r = ptx ? n->nvrtcGetPTX(p, o->code) : n->nvrtcGetCUBIN(p, o->code);
    return r == NVRTC_SUCCESS && o->bytes == 0 ? NVRTC_ERROR_INTERNAL_ERROR : r;
}

static outcome compile(const qgc_nvrtc *n, const program *in, qgc_arena *a) {
    outcome o = {.stage = "compile", .log = ""};
    nvrtcProgram p;
    o.result =
        n->nvrtcCreateProgram(&p, in->text, in->name, in->n_headers, in->header_texts, in->header_names);
    if (o.result != NVRTC_SUCCESS)
        return o;
    o.result = n->nvrtcCompileProgram(p, in->n_options, in->options);
    size_t log_bytes;
    if (o.result == NVRTC_SUCCESS)
        o.result = read_code(n, p, in->ptx, &o, a);
    else if (n->nvrtcGetProgramLogSize(p, &log_bytes) == NVRTC_SUCCESS) {
        char *log = qgc_arena_alloc(a, log_bytes + 1);
        if (n->nvrtcGetProgramLog(p, log) == NVRTC_SUCCESS)
            o.log = log;
    }
    n->nvrtcDestroyProgram(&p);
    return o;
}

static const qgc_kernel_source *sources_of(const qgc_nvrtc_job *job) {
    return job->sources ? job->sources : qgc_kernel_sources;
}

/* The row of that name, or NULL. */
static const qgc_kernel_source *find_source(const qgc_kernel_source *rows, const char *name, size_t bytes) {
    for (; rows->name; rows++)
        if (strlen(rows->name) == bytes && memcmp(rows->name, name, bytes) == 0)
            return rows;
    return NULL;
}

static const qgc_kernel_source *source_of(const qgc_nvrtc_job *job) {
    return find_source(sources_of(job), job->file, strlen(job->file));
}

/* Of the job's file: a source, or what the job brings itself. */
static const char *text_of(const qgc_nvrtc_job *job) {
    const qgc_kernel_source *s = source_of(job);
    return s ? s->text : job->program;
}

static bool is_header(const qgc_kernel_source *s) {
    size_t n = strlen(s->name);
    return n > 4 && strcmp(s->name + n - 4, ".cuh") == 0;
}

static bool is_ptx(const char *arch) {
    qgc_arch read;
    return qgc_arch_read(arch, &read) && read.ptx;
}

static program program_of(const qgc_nvrtc_job *job, qgc_arena *a) {
    program p = {.name = qgc_arena_printf(a, "/kernels/%s", job->file),
                 .text = text_of(job),
                 .ptx = is_ptx(job->arch)};
    const char *header = source_of(job) ? job->program : NULL;
    size_t n_rows = 0;
    for (const qgc_kernel_source *s = sources_of(job); s->name; s++)
        n_rows++;
    p.header_names = qgc_arena_array(a, n_rows, sizeof *p.header_names);
    p.header_texts = qgc_arena_array(a, n_rows, sizeof *p.header_texts);
    for (const qgc_kernel_source *s = sources_of(job); s->name; s++) {
        if (!is_header(s))
            continue;
        p.header_names[p.n_headers] = s->name;
        const char *text = header && strcmp(s->name, "program.cuh") == 0 ? header : s->text;
        p.header_texts[p.n_headers++] = qgc_arena_printf(a, "#line 1 \"/kernels/%s\"\n%s", s->name, text);
    }
    p.options = qgc_arena_array(a, (size_t)job->n_options + N_BASE_OPTIONS + 1, sizeof *p.options);
    p.options[p.n_options++] = qgc_arena_printf(a, "--gpu-architecture=%s", job->arch);
    for (int i = 0; i < N_BASE_OPTIONS; i++)
        p.options[p.n_options++] = base_options[i];
    for (int i = 0; i < job->n_options; i++)
        p.options[p.n_options++] = job->options[i];
    return p;
}

/* The log. A message of the front end is
 *
 *   /kernels/linear.cu(5): error: identifier "y" is undefined
 *             x[0] = foo(y);
 *                        ^
 *
 * and becomes a note at that line and column, for qgc_diag_print to quote the line in its own way. What
 * looks different (ptxas, say) becomes a note as it is, but for the count of errors at the end. */

typedef struct {
    const char *text;
    size_t bytes;
} log_line;

/* The line at `*rest`, which moves behind it; false at the end. */
static bool next_line(const char **rest, log_line *line) {
    if (!**rest)
        return false;
    line->text = *rest;
    line->bytes = strcspn(*rest, "\n");
    *rest += line->bytes + ((*rest)[line->bytes] == '\n');
    return true;
}

static bool is_caret(log_line l) {
    return l.bytes > 0 && strspn(l.text, " \t") == l.bytes - 1 && l.text[l.bytes - 1] == '^';
}

static bool is_summary(log_line l) {
    static const char words[] = " detected in the compilation of ";
    const char *found = strstr(l.text, words);
    return found && found < l.text + l.bytes;
}

/* Reads `/kernels/FILE(LINE): ` at the start of a line; returns the bytes of it, 0 if there is none. */
static size_t read_place(log_line l, const qgc_nvrtc_job *job, qgc_loc *at, qgc_arena *a) {
    static const char folder[] = "/kernels/";
    if (l.bytes < sizeof folder || strncmp(l.text, folder, sizeof folder - 1) != 0)
        return 0;
    const char *name = l.text + sizeof folder - 1;
    size_t name_bytes = strcspn(name, "(\n");
    const qgc_kernel_source *row = find_source(sources_of(job), name, name_bytes);
    const qgc_kernel_source own = {job->file, job->program};
    if (!row && job->file && strlen(job->file) == name_bytes && memcmp(job->file, name, name_bytes) == 0)
        row = &own;
    if (!row || !row->text || name[name_bytes] != '(')
        return 0;
    char *behind;
    long line = strtol(name + name_bytes + 1, &behind, 10);
    if (line <= 0 || line > INT_MAX || strncmp(behind, "): ", 3) != 0)
        return 0;
    qgc_source *source = qgc_arena_alloc(a, sizeof *source);
    *source = (qgc_source){qgc_arena_printf(a, "kernels/%s", row->name), row->text, strlen(row->text)};
    *at = (qgc_loc){source, (int)line, 1};
    return (size_t)(behind + 3 - l.text);
}

/* NVRTC indents the line that it quotes, and the caret below, by two. */
static int caret_column(log_line caret) {
    return caret.bytes > 2 ? (int)caret.bytes - 2 : 1;
}

static void note_log(const char *log, const qgc_nvrtc_job *job, qgc_diag *d) {
    log_line line, quote, caret;
    int n_left_out = 0, n_notes = 0;
    while (next_line(&log, &line)) {
        if (line.bytes == 0 || is_summary(line))
            continue;
        if (n_notes == LOG_LINES) {
            n_left_out++;
            continue;
        }
        n_notes++;
        qgc_loc at = QGC_NO_LOC;
        size_t skip = read_place(line, job, &at, d->arena);
        const char *ahead = log;
        if (skip && next_line(&ahead, &quote) && next_line(&ahead, &caret) && is_caret(caret)) {
            at.col = caret_column(caret);
            log = ahead;
        }
        qgc_note(d, at, "%.*s", (int)(line.bytes - skip), line.text + skip);
    }
    if (n_left_out > 0)
        qgc_note(d, QGC_NO_LOC, "the log has %d lines more", n_left_out);
}

static qgc_status fail_compile(const qgc_nvrtc *n, const qgc_nvrtc_job *job, const program *p,
                               const outcome *o, qgc_diag *d) {
    bool at_fault = o->result == NVRTC_ERROR_COMPILATION || o->result == NVRTC_ERROR_INVALID_OPTION;
    qgc_status s = qgc_fail(d, at_fault ? QGC_ERR_INPUT : QGC_ERR_DEVICE, job->at,
                            "NVRTC could not %s \"kernels/%s\" for %s", o->stage, job->file, job->arch);
    if (job->node)
        qgc_note(d, job->at, "it is the kernel of \"%s\"", job->node);
    note_log(o->log, job, d);
    if (o->result != NVRTC_ERROR_COMPILATION)
        qgc_note(d, QGC_NO_LOC, "%s", n->nvrtcGetErrorString(o->result));
    qgc_str options = qgc_str_new(d->arena);
    for (int i = 0; i < p->n_options; i++)
        qgc_str_printf(&options, " %s", p->options[i]);
    qgc_note(d, QGC_NO_LOC, "options:%s", options.text);
    return s;
}

qgc_status qgc_nvrtc_compile(qgc_nvrtc *n, const qgc_nvrtc_job *job, const void **code, size_t *bytes,
                             qgc_diag *d) {
    assert(text_of(job));
    program p = program_of(job, d->arena);
    outcome o = compile(n, &p, d->arena);
    if (o.result != NVRTC_SUCCESS)
        return fail_compile(n, job, &p, &o, d);
    *code = o.code;
    *bytes = o.bytes;
    return QGC_OK;
}

/* Architectures. */

static bool is_listed(const qgc_nvrtc *n, int number) {
    for (int i = 0; i < n->n_archs; i++)
        if (n->archs[i] == number)
            return true;
    return false;
}

/* NVRTC does not list which architectures have a variant with a letter, so it is asked to use it. */
static outcome probe(const qgc_nvrtc *n, const char *arch, qgc_arena *a) {
    const char *option = qgc_arena_printf(a, "--gpu-architecture=%s", arch);
    program p = {.name = "/kernels/probe.cu",
                 .text = "__global__ void probe() {}",
                 .n_options = 1,
                 .ptx = is_ptx(arch)};
    p.options = &option;
    return compile(n, &p, a);
}

static qgc_status malformed(const char *arch, qgc_diag *d) {
    qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "architecture \"%s\" is malformed", arch);
    qgc_hint(d, "An architecture is written like sm_90, sm_90a for that GPU only, or compute_90 for PTX.");
    return s;
}

/* Kernels for an architecture that is listed do not compile: that is not for the variant's sake. */
static qgc_status fail_probe(const qgc_nvrtc *n, const char *arch, const outcome *o, qgc_diag *d) {
    qgc_status s =
        qgc_fail(d, QGC_ERR_DEVICE, QGC_NO_LOC, "NVRTC %s could not compile an empty kernel for \"%s\"",
                 version_text(d->arena, n->version), arch);
    qgc_note(d, QGC_NO_LOC, "\"%s\" says %s", n->library, n->nvrtcGetErrorString(o->result));
    note_log(o->log, &(qgc_nvrtc_job){0}, d);
    return s;
}

qgc_status qgc_nvrtc_check_arch(const qgc_nvrtc *n, const char *arch, qgc_diag *d) {
    qgc_arch read;
    if (!qgc_arch_read(arch, &read))
        return malformed(arch, d);
    const bool listed = is_listed(n, read.number);
    const char *plain = qgc_arena_printf(d->arena, "%s_%d", read.ptx ? "compute" : "sm", read.number);
    outcome o = {.log = ""};
    if (listed && read.letter) {
        o = probe(n, arch, d->arena);
        if (o.result != NVRTC_SUCCESS && probe(n, plain, d->arena).result != NVRTC_SUCCESS)
            return fail_probe(n, arch, &o, d);
    }
    if (listed && o.result == NVRTC_SUCCESS)
        return QGC_OK;
    qgc_status s = qgc_fail(d, QGC_ERR_USAGE, QGC_NO_LOC, "NVRTC %s cannot compile for architecture \"%s\"",
                            version_text(d->arena, n->version), arch);
    qgc_str list = qgc_str_new(d->arena);
    for (int i = 0; i < n->n_archs; i++)
        qgc_str_printf(&list, "%ssm_%d", i ? ", " : "", n->archs[i]);
    qgc_note(d, QGC_NO_LOC, "\"%s\" compiles for %s", n->library, list.text);
    note_log(o.log, &(qgc_nvrtc_job){0}, d);
    if (listed)
        qgc_hint(d, "%s has no variant \"%c\".", plain, read.letter);
    return s;
}

/* The key. Each part is hashed with its length, so that no two lists of parts run into the same bytes. */

static void add_part(qgc_str *s, const char *part) {
    qgc_str_printf(s, "%zu:%s\n", strlen(part), part);
}

const char *qgc_nvrtc_key(const qgc_nvrtc *n, const qgc_nvrtc_job *job, qgc_arena *a) {
    assert(text_of(job));
    program p = program_of(job, a);
    qgc_str s = qgc_str_new(a);
    qgc_str_printf(&s, "qgc cubin %d, NVRTC %d\n", CACHE_VERSION, n->version);
    add_part(&s, p.name);
    add_part(&s, p.text);
    for (int i = 0; i < p.n_options; i++)
        add_part(&s, p.options[i]);
    for (int i = 0; i < p.n_headers; i++) {
        add_part(&s, p.header_names[i]);
        add_part(&s, p.header_texts[i]);
    }
    return qgc_arena_strdup(a, qgc_hash128(s.text, s.bytes).hex);
}
