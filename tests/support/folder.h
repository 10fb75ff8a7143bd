#ifndef TESTS_SUPPORT_FOLDER_H
#define TESTS_SUPPORT_FOLDER_H

#include <stddef.h>

#include "graph/base/arena.h"

/* A new, empty folder for the files of one test. */
const char *qgc_test_folder(qgc_arena *a);

/* The path of a file in it. */
const char *qgc_test_path(qgc_arena *a, const char *folder, const char *name);

/* Writes a file and returns its path. */
const char *qgc_test_write(qgc_arena *a, const char *folder, const char *name, const void *data,
                           size_t bytes);

/* Where a test keeps compiled kernels: in the folder $QGC_TEST_CACHE, where others of the same run may have left them, else in
 * `folder`. Not for a test that wants to see something compiled. */
const char *qgc_test_cache(const char *folder);

/* Removes the folder and all that is in it. */
void qgc_test_folder_drop(qgc_arena *a, const char *folder);

#endif
