#ifndef QGC_BASE_FILE_IMPL_H
#define QGC_BASE_FILE_IMPL_H

#include <sys/stat.h>

#include "graph/base/file.h"

/* What file.c, file_write.c and file_guard.c share. */

/* A place in the file at `path`, in the arena of d. */
qgc_loc qgc_file_place(qgc_diag *d, const char *path);

/* The guard's books: of what was opened for reading, and of what is mapped. They are empty until qgc_file_guard. */
void qgc_file_note_input(const struct stat *st);
bool qgc_file_is_input(const struct stat *st);
void qgc_file_note_mapped(const void *data, size_t bytes, const char *path);
void qgc_file_forget_mapped(const void *data);

#endif
