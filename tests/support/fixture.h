#ifndef TESTS_SUPPORT_FIXTURE_H
#define TESTS_SUPPORT_FIXTURE_H

#include <string.h>

#include "graph/base/diag.h"
#include "tests/support/cmocka.h"
#include "tests/support/folder.h"
#include "tests/support/printed.h"

/* What most tests have: an arena, a diagnostic, and a folder of their own that is removed with what is in it. */
typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    const char *folder;
} fixture;

static inline int fixture_setup(void **state) {
    qgc_arena *arena = qgc_arena_new();
    fixture *f = qgc_arena_alloc(arena, sizeof *f);
    *f = (fixture){arena, qgc_diag_new(arena), qgc_test_folder(arena)};
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state) {
    fixture *f = *state;
    qgc_test_folder_drop(f->arena, f->folder);
    qgc_arena_drop(f->arena);
    return 0;
}

#define FIXTURE_TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

static inline void ok(fixture *f, qgc_status s) {
    if (s != QGC_OK)
        fail_msg("%s", qgc_test_printed(f->arena, &f->diag));
}

/* The path of a file in the folder. */
static inline const char *fixture_path(const fixture *f, const char *name) {
    return qgc_test_path(f->arena, f->folder, name);
}

/* Writes a file there and returns its path. */
static inline const char *fixture_write(const fixture *f, const char *name, const char *text) {
    return qgc_test_write(f->arena, f->folder, name, text, strlen(text));
}

#endif
