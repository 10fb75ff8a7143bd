#include "graph/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "graph/base/str.h"

static qgc_loc in_file(qgc_diag *d, const char *path) {
    qgc_source *s = qgc_arena_alloc(d->arena, sizeof *s);
    s->name = qgc_arena_strdup(d->arena, path);
    return (qgc_loc){.source = s};
}

qgc_status qgc_file_open(qgc_file *f, const char *path, qgc_diag *d) {
    *f = (qgc_file){.source.name = qgc_arena_strdup(d->arena, path)};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return qgc_fail(d, QGC_ERR_INPUT, in_file(d, path), "could not open the file: %s", strerror(errno));
    qgc_status status = QGC_OK;
    struct stat st;
    if (fstat(fd, &st) != 0)
        status =
            qgc_fail(d, QGC_ERR_INPUT, in_file(d, path), "could not look at the file: %s", strerror(errno));
    else if (S_ISDIR(st.st_mode))
        status = qgc_fail(d, QGC_ERR_INPUT, in_file(d, path), "is a folder, expected a file");
    else if (!S_ISREG(st.st_mode))
        status = qgc_fail(d, QGC_ERR_INPUT, in_file(d, path), "is not a regular file");
    else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            status =
                qgc_fail(d, QGC_ERR_INPUT, in_file(d, path), "could not map the file: %s", strerror(errno));
        else {
            f->data = p;
            f->bytes = (size_t)st.st_size;
        }
    }
    close(fd);
    return status;
}

void qgc_file_close(qgc_file *f) {
    if (f->data) {
        /* munmap takes a pointer to non-const memory, which the mapping never was */
        munmap((void *)(size_t)f->data, f->bytes);
    }
    f->data = NULL;
    f->bytes = 0;
}

qgc_status qgc_file_read(qgc_source *out, const char *path, size_t limit, const char *label, qgc_diag *d) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return qgc_fail(d, QGC_ERR_INPUT, in_file(d, path), "could not open %s: %s", label, strerror(errno));
    qgc_status status = QGC_OK;
    qgc_str text = qgc_str_new(d->arena);
    char piece[16384];
    for (;;) {
        ssize_t n = read(fd, piece, sizeof piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            status =
                qgc_fail(d, QGC_ERR_INPUT, in_file(d, path), "could not read %s: %s", label, strerror(errno));
            break;
        }
        if (n == 0)
            break;
        qgc_str_add_bytes(&text, piece, (size_t)n);
        if (text.bytes > limit) {
            status =
                qgc_fail(d, QGC_ERR_INPUT, in_file(d, path), "%s is larger than %zu bytes", label, limit);
            break;
        }
    }
    close(fd);
    *out = (qgc_source){.name = qgc_arena_strdup(d->arena, path), .text = text.text, .bytes = text.bytes};
    return status;
}

static bool write_all(int fd, const char *data, size_t bytes) {
    while (bytes > 0) {
        ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        data += n;
        bytes -= (size_t)n;
    }
    return true;
}

qgc_status qgc_file_write(const char *path, const void *data, size_t bytes, qgc_diag *d) {
    char *temporary = qgc_arena_printf(d->arena, "%s.%ld.tmp", path, (long)getpid());
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return qgc_fail(d, QGC_ERR_INPUT, in_file(d, path), "could not write the file: %s", strerror(errno));
    bool ok = write_all(fd, data, bytes);
    if (close(fd) != 0)
        ok = false;
    if (ok && rename(temporary, path) == 0)
        return QGC_OK;
    int why = errno;
    unlink(temporary);
    return qgc_fail(d, QGC_ERR_INPUT, in_file(d, path), "could not write the file: %s", strerror(why));
}

bool qgc_file_exists(const char *path) {
    return access(path, R_OK) == 0;
}

qgc_status qgc_folder_make(const char *path, qgc_diag *d) {
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && qgc_file_is_folder(path)))
        return QGC_OK;
    return qgc_fail(d, QGC_ERR_INPUT, QGC_NO_LOC, "could not make folder \"%s\": %s", path, strerror(errno));
}

bool qgc_file_is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
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
