#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "graph/base/file_impl.h"

bool qgc_file_is_stdout(const char *path) {
    return strcmp(path, "-") == 0 || strcmp(path, "/dev/stdout") == 0 || strcmp(path, "/dev/fd/1") == 0;
}

static qgc_status could_not(const char *path, int why, qgc_diag *d) {
    return qgc_fail(d, QGC_ERR_INPUT, qgc_file_place(d, path), "could not write the file: %s", strerror(why));
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

/* After what was printed before. */
static qgc_status write_stdout(const void *data, size_t bytes, qgc_diag *d) {
    if (fwrite(data, 1, bytes, stdout) == bytes && fflush(stdout) == 0)
        return QGC_OK;
    return could_not("standard output", errno, d);
}

/* A device, a pipe, or a link that leads to no file yet. A pipe without a reader is an error and not waited for. */
static qgc_status write_through(const char *path, const void *data, size_t bytes, qgc_diag *d) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);
    if (fd < 0)
        return could_not(path, errno, d);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    bool ok = write_all(fd, data, bytes);
    int why = errno;
    if (close(fd) != 0 && ok) {
        ok = false;
        why = errno;
    }
    return ok ? QGC_OK : could_not(path, why, d);
}

/* `path` is a regular file or not there; `mode` is that of the file that it replaces. */
static qgc_status write_beside(const char *path, const void *data, size_t bytes, mode_t mode, qgc_diag *d) {
    char *temporary = qgc_arena_printf(d->arena, "%s.%ld.tmp", path, (long)getpid());
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return could_not(path, errno, d);
    bool ok = write_all(fd, data, bytes) && (mode == 0 || fchmod(fd, mode) == 0);
    int why = errno;
    if (close(fd) != 0 && ok) {
        ok = false;
        why = errno;
    }
    if (ok && rename(temporary, path) == 0)
        return QGC_OK;
    why = ok ? errno : why;
    unlink(temporary);
    return could_not(path, why, d);
}

/* Where a link leads in the end. */
static const char *follow(const char *path, qgc_arena *a) {
    char to[PATH_MAX];
    for (int hops = 0; hops < 40; hops++) {
        ssize_t n = readlink(path, to, sizeof to - 1);
        if (n < 0)
            return path;
        to[n] = 0;
        path = to[0] == '/' ? qgc_arena_strdup(a, to)
                            : qgc_arena_printf(a, "%s/%s", qgc_path_folder(a, path), to);
    }
    return path;
}

static qgc_status check_target(const char *path, const struct stat *st, bool may_be_input, qgc_diag *d) {
    if (S_ISDIR(st->st_mode))
        return qgc_fail(d, QGC_ERR_INPUT, qgc_file_place(d, path),
                        "could not write the file: it is a folder");
    if (!may_be_input && qgc_file_is_input(st)) {
        qgc_status s = qgc_fail(d, QGC_ERR_INPUT, qgc_file_place(d, path),
                                "could not write the file: it is an input of this command");
        qgc_hint(d, "Give the output another name.");
        return s;
    }
    return QGC_OK;
}

static qgc_status write_file(const char *path, const void *data, size_t bytes, bool may_be_input,
                             qgc_diag *d) {
    if (qgc_file_is_stdout(path))
        return write_stdout(data, bytes, d);
    struct stat st, name;
    const bool there = stat(path, &st) == 0, named = lstat(path, &name) == 0;
    if (there)
        QGC_TRY(check_target(path, &st, may_be_input, d));
    if ((there && !S_ISREG(st.st_mode)) || (named && !there))
        return write_through(path, data, bytes, d);
    return write_beside(follow(path, d->arena), data, bytes, there ? st.st_mode & 0777 : 0, d);
}

qgc_status qgc_file_write(const char *path, const void *data, size_t bytes, qgc_diag *d) {
    return write_file(path, data, bytes, false, d);
}

qgc_status qgc_file_replace(const char *path, const void *data, size_t bytes, qgc_diag *d) {
    return write_file(path, data, bytes, true, d);
}

qgc_status qgc_file_check_output(const char *path, qgc_diag *d) {
    struct stat st;
    if (!path || qgc_file_is_stdout(path))
        return QGC_OK;
    if (stat(path, &st) == 0) {
        QGC_TRY(check_target(path, &st, false, d));
        if (!S_ISREG(st.st_mode))
            return access(path, W_OK) == 0 ? QGC_OK : could_not(path, errno, d);
    }
    const char *folder = qgc_path_folder(d->arena, path);
    return access(folder, W_OK | X_OK) == 0 ? QGC_OK : could_not(path, errno, d);
}
