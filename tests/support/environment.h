#ifndef TESTS_SUPPORT_ENVIRONMENT_H
#define TESTS_SUPPORT_ENVIRONMENT_H

#include <stdlib.h>

#include "graph/base/file.h"
#include "tests/support/fixture.h"

/* A file in the fixture's folder, with the folders that it is in. Returns its path. */
static inline const char *put_file(fixture *f, const char *path, const char *text) {
    char *full = qgc_arena_strdup(f->arena, fixture_path(f, path));
    for (char *p = full + strlen(f->folder) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        ok(f, qgc_folder_make(full, &f->diag));
        *p = '/';
    }
    ok(f, qgc_file_write(full, text, strlen(text), &f->diag));
    return full;
}

/* Sets a variable to a folder there. */
static inline void set_folder(fixture *f, const char *variable, const char *folder) {
    setenv(variable, fixture_path(f, folder), 1);
}

#endif
