#ifndef QGC_BASE_FILE_H
#define QGC_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "graph/base/diag.h"

/* A file mapped for reading. The source names it in errors; set source.text to quote its lines. */
typedef struct {
    const unsigned char *data; /* NULL when the file is empty */
    size_t bytes;
    qgc_source source;
} qgc_file;

/* Maps a regular file. Errors: not there, no permission, a directory, not a regular file; each names the
 * path. The path is copied to d->arena. Unmap with qgc_file_close. */
QGC_MUST_USE qgc_status qgc_file_open(qgc_file *f, const char *path, qgc_diag *d);
void qgc_file_close(qgc_file *f);

/* Reads a whole file of at most `limit` bytes into the arena of `d`; works for pipes too. A zero byte
 * stands behind the last. `label` ("prompt file", say) starts the error text. */
QGC_MUST_USE qgc_status qgc_file_read(qgc_source *out, const char *path, size_t limit, const char *label,
                                      qgc_diag *d);

/* Writes a file as a whole or not at all: to a temporary name beside it, then renamed over it. */
QGC_MUST_USE qgc_status qgc_file_write(const char *path, const void *data, size_t bytes, qgc_diag *d);

/* Makes a folder, in one that is there, unless it is there already. */
QGC_MUST_USE qgc_status qgc_folder_make(const char *path, qgc_diag *d);

bool qgc_file_exists(const char *path);
bool qgc_file_is_folder(const char *path);

/* The part behind the last slash, and the part before it ("." if there is none), in the arena. */
const char *qgc_path_base(const char *path);
const char *qgc_path_folder(qgc_arena *a, const char *path);

#endif
