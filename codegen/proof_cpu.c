#define _XOPEN_SOURCE 700 /* mkdtemp */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "codegen/cache.h"
#include "codegen/cpu_sources.h"
#include "codegen/kernel_sources.h"
#include "codegen/proof.h"
#include "graph/base/file.h"
#include "graph/base/hash.h"
#include "graph/base/str.h"

/* A folder for a while, with all sources and a file for the kernel; the program that is made of them; what that leaves. Whatever the
 * kernel does, it does in a process of its own, which has so many seconds. */
enum { COMPILE_SECONDS = 120, MOST_LOG = 1 << 16, MOST_LEFT = 1 << 30 };

typedef struct {
    qgc_proof *p;
    qgc_arena *arena;
    qgc_diag *d;
    const char *folder;
    const qgc_cache *cache; /* NULL: none */
    int seconds;
} work;

static const char *path_of(const work *w, const char *name) {
    return qgc_arena_printf(w->arena, "%s/%s", w->folder, name);
}

/* It has files only. */
static void remove_folder(const work *w) {
    DIR *d = opendir(w->folder);
    for (const struct dirent *e; d && (e = readdir(d));)
        unlink(path_of(w, e->d_name));
    if (d)
        closedir(d);
    rmdir(w->folder);
}

static qgc_status write_sources(work *w, const qgc_kernel_source *s) {
    for (; s->name; s++)
        QGC_TRY(qgc_file_write(path_of(w, s->name), s->text, strlen(s->text), w->d));
    return QGC_OK;
}

/* "-DWIDTH=896" is "#define WIDTH 896". The kernel is compiled as for a GPU on which launches wait. */
static qgc_status write_unit(work *w) {
    qgc_str text = qgc_str_new(w->arena);
    qgc_str_add(&text, "#define __CUDA_ARCH__ 900\n");
    for (int i = 0; i < w->p->with.n_options; i++) {
        const char *name = w->p->with.options[i] + 2, *value = strchr(name, '=');
        qgc_str_printf(&text, "#define %.*s %s\n", (int)(value - name), name, value + 1);
    }
    qgc_str_printf(&text,
                   "#include \"on_cpu.h\"\nnamespace {\n#include \"outside.cu\"\n}\nON_CPU_KERNEL(%s)\n",
                   w->p->entry);
    QGC_TRY(qgc_file_write(path_of(w, "outside.cu"), w->p->text, strlen(w->p->text), w->d));
    return qgc_file_write(path_of(w, "unit.cc"), text.text, text.bytes, w->d);
}

/* --- processes ------------------------------------------------------------------------------------------- */

/* The words of a command; NULL comes after them. */
enum { MOST_WORDS = 16 };

typedef struct {
    const char *word[MOST_WORDS];
    int n;
} command;

static void become(const work *w, const command *c) {
    const int log = open(path_of(w, "log"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const struct rlimit core = {0, 0}, file = {MOST_LEFT, MOST_LEFT};
    setrlimit(RLIMIT_CORE, &core);
    setrlimit(RLIMIT_FSIZE, &file);
    if (log < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
        _exit(126);
    execvp(c->word[0], (char *const *)(uintptr_t)c->word);
    _exit(127);
}

/* Runs a command to its end; *end is as waitpid has it, or -1 where it took too long. */
static bool run(work *w, const command *c, int seconds, int *end) {
    const struct timespec some = {0, 5000000};
    const pid_t child = fork();
    if (child == 0)
        become(w, c);
    if (child < 0)
        return false;
    for (int i = 0; i < seconds * 200; i++) {
        const pid_t done = waitpid(child, end, WNOHANG);
        if (done == child || (done < 0 && errno != EINTR))
            return done == child;
        nanosleep(&some, NULL);
    }
    kill(child, SIGKILL);
    waitpid(child, end, 0);
    *end = -1;
    return true;
}

/* The first line of the log that says what is wrong; `mark` is what it has, or NULL. */
static const char *log_line(work *w, const char *mark) {
    qgc_diag quiet = qgc_diag_new(w->arena);
    qgc_source log;
    if (qgc_file_read(&log, path_of(w, "log"), MOST_LOG, "log", &quiet) != QGC_OK)
        return "";
    const char *at = mark ? strstr(log.text, mark) : log.text;
    at = at ? at : log.text;
    while (at > log.text && at[-1] != '\n')
        at--;
    const char *name = strstr(at, "outside.cu");
    at = name && name < at + strcspn(at, "\n") ? name : at;
    return qgc_arena_strndup(w->arena, at, strcspn(at, "\n"));
}

/* --- cases ----------------------------------------------------------------------------------------------- */

static void add_number(qgc_str *s, uint64_t x) {
    qgc_str_add_bytes(s, &x, sizeof x);
}

static void add_case(qgc_str *s, const qgc_proof *p, const qgc_proof_case *c) {
    for (int i = 0; i < 3; i++)
        add_number(s, c->grid[i]);
    add_number(s, (uint64_t)p->with.threads);
    add_number(s, (uint64_t)p->with.shared_bytes);
    add_number(s, (uint64_t)c->orders);
    add_number(s, (uint64_t)c->n_args);
    for (int i = 0; i < c->n_args; i++) {
        const qgc_proof_buffer *b = &c->buffers[i];
        add_number(s, b->bytes);
        add_number(s, (uint32_t)c->numbers[i]);
        add_number(s, b->writes);
        add_number(s, b->late);
        qgc_str_add_bytes(s, b->before ? b->before : "", b->bytes);
    }
}

static void disprove(qgc_proof *p, const char *why) {
    p->result = QGC_DISPROVED;
    p->why = why;
}

static void leave(qgc_proof *p, const char *why) {
    p->result = QGC_UNPROVED;
    p->why = why;
}

/* What the program has left for a case, from *at on. False where it ends too early. */
static bool judge_case(work *w, const qgc_proof_case *c, const char *left, size_t bytes, size_t *at) {
    uint64_t n = 0;
    if (bytes - *at < sizeof n)
        return false;
    memcpy(&n, left + *at, sizeof n);
    *at += sizeof n;
    if (n > bytes - *at)
        return false;
    if (n)
        disprove(w->p, qgc_arena_strndup(w->arena, left + *at, (size_t)n));
    *at += (size_t)n;
    for (int i = 0; i < c->n_args; i++) {
        if (!c->buffers[i].writes)
            continue;
        if (bytes - *at < c->buffers[i].bytes)
            return false;
        const char *why = qgc_proof_judge(c, i, left + *at, w->arena);
        if (why && w->p->result != QGC_DISPROVED)
            disprove(w->p, why);
        *at += c->buffers[i].bytes;
    }
    return true;
}

static qgc_status judge_all(work *w, const qgc_proof_case *cases, int n) {
    qgc_source left;
    size_t at = 0;
    QGC_TRY(qgc_file_read(&left, path_of(w, "left"), MOST_LEFT, "what a kernel left", w->d));
    w->p->result = QGC_PROVED;
    for (int i = 0; i < n && w->p->result == QGC_PROVED; i++)
        if (!judge_case(w, &cases[i], left.text, left.bytes, &at))
            disprove(w->p, "it does not leave what it has to");
    return QGC_OK;
}

/* The program has ended. */
static qgc_status look_at(work *w, int end, const qgc_proof_case *cases, int n) {
    w->p->depends_on_time = end == -1 || (WIFSIGNALED(end) && WTERMSIG(end) == SIGKILL);
    if (end == -1)
        disprove(w->p, qgc_arena_printf(w->arena, "it does not end in %d seconds", w->seconds));
    else if (WIFSIGNALED(end) && strstr(log_line(w, "on_cpu:"), "on_cpu:"))
        disprove(w->p, qgc_arena_printf(w->arena, "it breaks a rule of CUDA: %s", log_line(w, "on_cpu:")));
    else if (WIFSIGNALED(end))
        disprove(w->p, qgc_arena_printf(w->arena, "it crashes (%s)", strsignal(WTERMSIG(end))));
    else if (WEXITSTATUS(end) != 0)
        leave(w->p, qgc_arena_printf(w->arena, "its program ends with code %d", WEXITSTATUS(end)));
    else
        return judge_all(w, cases, n);
    return QGC_OK;
}

/* --- compiling ------------------------------------------------------------------------------------------- */

static command command_of(const work *w, const char *compiler) {
    return (command){{compiler, "-std=c++17", "-O1", "-w", "-ffp-contract=off", "-I", w->folder}, 7};
}

static void add_word(command *c, const char *word) {
    if (c->n < MOST_WORDS - 1)
        c->word[c->n++] = word;
}

/* 0: it has done what it should; 126 and more: it is not there; -1: it does not end. */
static int run_compiler(work *w, const command *c) {
    int end = 0;
    if (!run(w, c, COMPILE_SECONDS, &end))
        return 127;
    return end == -1 ? -1 : WIFEXITED(end) ? WEXITSTATUS(end) : 1;
}

/* What is the same for every kernel: made once by a compiler, and kept under its version and the sources. */
static const char *key_of_runtime(work *w, const char *compiler) {
    const command version = {{compiler, "--version"}, 2};
    const int end = run_compiler(w, &version);
    qgc_diag quiet = qgc_diag_new(w->arena);
    qgc_source said = {0};
    qgc_str all = qgc_str_new(w->arena);
    if (end != 0 || qgc_file_read(&said, path_of(w, "log"), MOST_LOG, "log", &quiet) != QGC_OK)
        return NULL;
    const command c = command_of(w, compiler);
    qgc_str_add_bytes(&all, said.text, said.bytes);
    for (int i = 0; c.word[i] != w->folder; i++)
        qgc_str_printf(&all, "%s ", c.word[i]);
    for (const qgc_kernel_source *s = qgc_cpu_sources; s->name; s++)
        qgc_str_printf(&all, "%s\n%s\n", s->name, s->text);
    return qgc_arena_printf(w->arena, "on-cpu-%s", qgc_hash128(all.text, all.bytes).hex);
}

static bool get_runtime(work *w, const char *key, const char *path) {
    const void *data;
    size_t bytes;
    return key && qgc_cache_get(w->cache, key, w->arena, &data, &bytes) &&
           qgc_file_write(path, data, bytes, w->d) == QGC_OK;
}

static void keep_runtime(work *w, const char *key, const char *path) {
    qgc_diag quiet = qgc_diag_new(w->arena);
    qgc_source object;
    if (key && qgc_file_read(&object, path, MOST_LEFT, "object", &quiet) == QGC_OK)
        qgc_cache_put(w->cache, key, object.text, object.bytes, w->arena);
}

/* As run_compiler. */
static int make_runtime(work *w, const char *compiler, const char *path) {
    static const char *const sources[] = {"prove.cc", "on_cpu.cc", "on_cpu_fibers.cc", "on_cpu_together.cc"};
    const char *key = w->cache ? key_of_runtime(w, compiler) : NULL;
    if (get_runtime(w, key, path))
        return 0;
    command c = command_of(w, compiler);
    add_word(&c, "-r");
    add_word(&c, "-nostdlib");
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++)
        add_word(&c, path_of(w, sources[i]));
    add_word(&c, "-o");
    add_word(&c, path);
    const int end = run_compiler(w, &c);
    if (end == 0)
        keep_runtime(w, key, path);
    return end;
}

static int make_program(work *w, const char *compiler) {
    const char *runtime = path_of(w, "runtime.o");
    const int end = make_runtime(w, compiler, runtime);
    if (end != 0)
        return end;
    command c = command_of(w, compiler);
    add_word(&c, path_of(w, "unit.cc"));
    add_word(&c, runtime);
    add_word(&c, "-o");
    add_word(&c, path_of(w, "prove"));
    return run_compiler(w, &c);
}

/* NULL, or why there is no program. */
static const char *compile(work *w) {
    static const char *const compilers[] = {"c++", "g++", "clang++"};
    for (size_t i = 0; i < sizeof compilers / sizeof *compilers; i++) {
        const int end = make_program(w, compilers[i]);
        if (end == 0)
            return NULL;
        if (end < 126)
            return end == -1
                       ? "the C++ compiler does not end"
                       : qgc_arena_printf(w->arena, "it does not compile as C++: %s", log_line(w, "error:"));
    }
    return "there is no C++ compiler (c++, g++, clang++)";
}

/* Names that outside_phase.c puts in the place of what a device function must not use. */
static const char *of_a_block(work *w) {
    static const char mark[] = "a_device_function_has_no_";
    const char *line = log_line(w, mark), *at = strstr(line, mark);
    at = at ? at + strlen(mark) : NULL;
    return at ? qgc_arena_printf(w->arena, "it uses %.*s, which belongs to a block",
                                 (int)strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"), at)
              : NULL;
}

static qgc_status run_cases(work *w, const qgc_proof_case *cases, int n, const qgc_str *text) {
    QGC_TRY(qgc_file_write(path_of(w, "cases"), text->text, text->bytes, w->d));
    const char *why = compile(w), *used = why && w->p->is_phase ? of_a_block(w) : NULL;
    if (used)
        disprove(w->p, used);
    else if (why)
        leave(w->p, why);
    if (why)
        return QGC_OK;
    const command c = {{path_of(w, "prove"), path_of(w, "cases"), path_of(w, "left")}, 3};
    int end = 0;
    if (!run(w, &c, w->seconds, &end)) {
        leave(w->p, "no process could be started");
        return QGC_OK;
    }
    return look_at(w, end, cases, n);
}

static qgc_status make_cases(work *w, qgc_proof_case **out, int *n, qgc_str *text, const char **why) {
    *n = qgc_proof_cases(w->p->of);
    *out = qgc_arena_array(w->arena, (size_t)*n, sizeof **out);
    add_number(text, (uint64_t)*n);
    add_number(text, w->p->of->row.waits);
    add_number(text, w->p->of->row.next);
    *why = NULL;
    for (int i = 0; i < *n && !*why; i++) {
        QGC_TRY(qgc_proof_case_new(w->p->of, &w->p->with, i, &(*out)[i], why, w->arena, w->d));
        if (!*why)
            add_case(text, w->p, &(*out)[i]);
    }
    return QGC_OK;
}

static qgc_status prove(work *w) {
    qgc_proof_case *cases;
    qgc_str text = qgc_str_new(w->arena);
    const char *why;
    int n;
    QGC_TRY(make_cases(w, &cases, &n, &text, &why));
    if (why) {
        leave(w->p, why);
        return QGC_OK;
    }
    QGC_TRY(write_sources(w, qgc_kernel_sources));
    QGC_TRY(write_sources(w, qgc_cpu_sources));
    QGC_TRY(write_unit(w));
    return run_cases(w, cases, n, &text);
}

qgc_status qgc_prove_on_cpu(qgc_proof *p, const qgc_cache *cache, int seconds, qgc_diag *d) {
    qgc_arena *arena = qgc_arena_new();
    char *folder = qgc_arena_printf(arena, "/tmp/qgc-kernel-%d-XXXXXX", (int)getpid());
    work w = {.p = p, .arena = arena, .d = d, .folder = mkdtemp(folder), .cache = cache, .seconds = seconds};
    qgc_status status = QGC_OK;
    if (!w.folder)
        leave(p, "no folder could be made in /tmp");
    else {
        status = prove(&w);
        remove_folder(&w);
    }
    p->why = p->why ? qgc_arena_strdup(d->arena, p->why) : NULL;
    qgc_arena_drop(arena);
    return status;
}
