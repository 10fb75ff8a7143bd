#ifndef QGC_BASE_FILE_H
#define QGC_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "graph/base/diag.h"

/* Files as a command meets them. Nothing here waits for a pipe that no process writes to, whatever the path is. "-" and
 * /dev/stdin are standard input, which is read once and remembered; "-" and /dev/stdout are standard output. */

/* A file mapped for reading. The source names it in errors; set source.text to quote its lines. */
typedef struct {
    const unsigned char *data; /* NULL when the file is empty */
    size_t bytes;
    qgc_source source;
    bool mapped; /* standard input is not */
} qgc_file;

/* For the command itself: from now on qgc_file_write refuses to write over a file that was read, and when a mapped file
 * shrinks while it is read, the process ends with exit code 1 and an error that names the file, and not by SIGBUS. */
void qgc_file_guard(void);

/* Maps a regular file. Errors: not there, no permission, a directory, not a regular file; each names the
 * path. The path is copied to d->arena. Unmap with qgc_file_close. */
QGC_MUST_USE qgc_status qgc_file_open(qgc_file *f, const char *path, qgc_diag *d);
void qgc_file_close(qgc_file *f);

/* Reads a whole file of at most `limit` bytes into the arena of `d`; works for pipes too. A zero byte
 * stands after the last. `label` ("prompt file", say) starts the error text. */
QGC_MUST_USE qgc_status qgc_file_read(qgc_source *out, const char *path, size_t limit, const char *label,
                                      qgc_diag *d);

/* Writes a regular file as a whole or not at all: to a temporary name beside it, then renamed over it; a link stays one,
 * and its target is written. What is no regular file (a device, a pipe) is written to as it is. Errors name the path;
 * one of them is that the file is an input of this command. */
QGC_MUST_USE qgc_status qgc_file_write(const char *path, const void *data, size_t bytes, qgc_diag *d);

/* The same for a file that was read in order to be replaced. */
QGC_MUST_USE qgc_status qgc_file_replace(const char *path, const void *data, size_t bytes, qgc_diag *d);

/* The errors that qgc_file_write would give, as far as they can be told before there is anything to write. NULL is no
 * path, and good. For what takes long before it writes. */
QGC_MUST_USE qgc_status qgc_file_check_output(const char *path, qgc_diag *d);

/* Makes a folder, in one that is there, unless it is there already. */
QGC_MUST_USE qgc_status qgc_folder_make(const char *path, qgc_diag *d);

/* Is there something under this name? A link that leads nowhere and a file that may not be read count: opening them says
 * what is wrong, and to take them for absent would be wrong. */
bool qgc_file_exists(const char *path);
bool qgc_file_is_folder(const char *path);
bool qgc_file_is_regular(const char *path); /* or a link to such a file */
bool qgc_file_is_stdout(const char *path);  /* "-" or /dev/stdout */

/* The part after the last slash, and the part before it ("." if there is none), in the arena. */
const char *qgc_path_base(const char *path);
const char *qgc_path_folder(qgc_arena *a, const char *path);

#endif
