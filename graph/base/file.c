#include "graph/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "graph/base/file_impl.h"
#include "graph/base/str.h"

qgc_loc qgc_file_place(qgc_diag *d, const char *path) {
    qgc_source *s = qgc_arena_alloc(d->arena, sizeof *s);
    s->name = qgc_arena_strdup(d->arena, path);
    return (qgc_loc){.source = s};
}

static bool is_stdin(const char *path) {
    return strcmp(path, "-") == 0 || strcmp(path, "/dev/stdin") == 0 || strcmp(path, "/dev/fd/0") == 0;
}

/* What kind of thing that is no regular file. */
static const char *kind_of(const struct stat *st) {
    if (S_ISDIR(st->st_mode))
        return "is a folder, expected a file";
    if (S_ISFIFO(st->st_mode))
        return "is a pipe, expected a regular file";
    return "is not a regular file";
}

/* --- reading --------------------------------------------------------------------------------------------- */

/* What is read, and what to call it in errors. */
typedef struct {
    int fd;
    size_t limit; /* bytes */
    const char *label;
    qgc_loc at;
} reading;

/* Bytes of the descriptor until its end. The descriptor may be one that does not wait: where a process holds the
 * other end of a pipe, its bytes are waited for. */
static qgc_status read_all(const reading *r, qgc_str *out, qgc_diag *d) {
    char piece[16384];
    for (;;) {
        ssize_t n = read(r->fd, piece, sizeof piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            poll(&(struct pollfd){.fd = r->fd, .events = POLLIN}, 1, -1);
            continue;
        }
        if (n < 0)
            return qgc_fail(d, QGC_ERR_INPUT, r->at, "could not read %s: %s", r->label, strerror(errno));
        if (n == 0)
            return QGC_OK;
        qgc_str_add_bytes(out, piece, (size_t)n);
        if (out->bytes > r->limit)
            return qgc_fail(d, QGC_ERR_INPUT, r->at, "%s is larger than %zu bytes", r->label, r->limit);
    }
}

/* Standard input can be read once, and some commands read a graph several times. */
static struct {
    pthread_mutex_t lock;
    qgc_arena *arena;
    qgc_str text;
} input = {.lock = PTHREAD_MUTEX_INITIALIZER};

typedef struct {
    reading r;
    qgc_source *out;
    qgc_diag *d;
    qgc_status status;
} asking;

/* With the lock. */
static void read_input(void *context) {
    asking *a = context;
    if (!input.arena) {
        input.arena = qgc_arena_new(); /* for as long as the process */
        input.text = qgc_str_new(input.arena);
        a->status = read_all(&a->r, &input.text, a->d);
    }
    if (a->status == QGC_OK && input.text.bytes > a->r.limit)
        a->status =
            qgc_fail(a->d, QGC_ERR_INPUT, a->r.at, "%s is larger than %zu bytes", a->r.label, a->r.limit);
    a->out->text = qgc_arena_strndup(a->d->arena, input.text.text, input.text.bytes);
    a->out->bytes = input.text.bytes;
}

static qgc_status read_stdin(qgc_source *out, size_t limit, const char *label, qgc_diag *d) {
    const qgc_loc at = qgc_file_place(d, "standard input");
    *out = (qgc_source){.name = at.source->name};
    asking a = {.r = {STDIN_FILENO, limit, label, at}, .out = out, .d = d};
    pthread_mutex_lock(&input.lock);
    const bool whole = qgc_memory_try(read_input, &a);
    pthread_mutex_unlock(&input.lock);
    if (!whole)
        qgc_memory_out(limit);
    return a.status;
}

static qgc_status read_opened(int fd, qgc_source *out, size_t limit, const char *label, qgc_diag *d) {
    const qgc_loc at = qgc_file_place(d, out->name);
    struct stat st;
    if (fstat(fd, &st) != 0)
        return qgc_fail(d, QGC_ERR_INPUT, at, "could not look at %s: %s", label, strerror(errno));
    qgc_file_note_input(&st);
    qgc_str text = qgc_str_new(d->arena);
    qgc_status status = read_all(&(reading){fd, limit, label, at}, &text, d);
    if (status == QGC_OK && text.bytes == 0 && S_ISFIFO(st.st_mode))
        status = qgc_fail(d, QGC_ERR_INPUT, at, "%s is a pipe that nothing is written to", label);
    out->text = text.text;
    out->bytes = text.bytes;
    return status;
}

qgc_status qgc_file_read(qgc_source *out, const char *path, size_t limit, const char *label, qgc_diag *d) {
    *out = (qgc_source){.name = qgc_arena_strdup(d->arena, path)};
    if (is_stdin(path))
        return read_stdin(out, limit, label, d);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return qgc_fail(d, QGC_ERR_INPUT, qgc_file_place(d, path), "could not open %s: %s", label,
                        strerror(errno));
    qgc_status status = read_opened(fd, out, limit, label, d);
    close(fd);
    return status;
}

/* --- mapping --------------------------------------------------------------------------------------------- */

static qgc_status map(qgc_file *f, int fd, qgc_loc at, qgc_diag *d) {
    struct stat st;
    if (fstat(fd, &st) != 0)
        return qgc_fail(d, QGC_ERR_INPUT, at, "could not look at the file: %s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return qgc_fail(d, QGC_ERR_INPUT, at, "%s", kind_of(&st));
    qgc_file_note_input(&st);
    if (st.st_size == 0)
        return QGC_OK;
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return qgc_fail(d, QGC_ERR_INPUT, at, "could not map the file: %s", strerror(errno));
    f->data = p;
    f->bytes = (size_t)st.st_size;
    f->mapped = true;
    qgc_file_note_mapped(p, f->bytes, f->source.name);
    return QGC_OK;
}

qgc_status qgc_file_open(qgc_file *f, const char *path, qgc_diag *d) {
    *f = (qgc_file){.source.name = qgc_arena_strdup(d->arena, path)};
    if (is_stdin(path)) {
        qgc_source text;
        QGC_TRY(read_stdin(&text, SIZE_MAX, "the file", d));
        f->source.name = text.name;
        f->data = text.bytes ? (const unsigned char *)text.text : NULL;
        f->bytes = text.bytes;
        return QGC_OK;
    }
    const qgc_loc at = qgc_file_place(d, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return qgc_fail(d, QGC_ERR_INPUT, at, "could not open the file: %s", strerror(errno));
    qgc_status status = map(f, fd, at, d);
    close(fd);
    return status;
}

void qgc_file_close(qgc_file *f) {
    if (f->mapped) {
        qgc_file_forget_mapped(f->data);
        /* munmap takes a pointer to non-const memory, which the mapping never was */
        munmap((void *)(size_t)f->data, f->bytes);
    }
    f->data = NULL;
    f->bytes = 0;
    f->mapped = false;
}

/* --- names ----------------------------------------------------------------------------------------------- */

bool qgc_file_exists(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

bool qgc_file_is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool qgc_file_is_regular(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

qgc_status qgc_folder_make(const char *path, qgc_diag *d) {
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && qgc_file_is_folder(path)))
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "could not make folder \"%s\": %s", path, strerror(errno));
}

const char *qgc_path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

const char *qgc_path_folder(qgc_arena *a, const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash)
        return ".";
    return slash == path ? "/" : qgc_arena_strndup(a, path, (size_t)(slash - path));
}
