#ifndef TESTS_SUPPORT_TINY_H
#define TESTS_SUPPORT_TINY_H

#include "models/weights.h"
#include "runtime/lab/trial.h"
#include "tests/support/cmocka.h"
#include "tests/support/folder.h"
#include "tests/support/printed.h"

/* What tests of the laboratory begin with: the weights of the tiny model, a pool of one thread, a folder; and a trial, which a test
 * begins. */
typedef struct {
    qgc_arena *arena;
    qgc_diag diag;
    qgc_pool *pool;
    qgc_weights *weights;
    const char *folder;
    qgc_graph *graph;
    qgc_trial *trial;
} fixture;

static inline void ok(fixture *f, qgc_status s) {
    if (s != QGC_OK)
        fail_msg("%s", qgc_test_printed(f->arena, &f->diag));
}

static inline int setup(void **state) {
    qgc_arena *arena = qgc_arena_new();
    fixture *f = qgc_arena_alloc(arena, sizeof *f);
    *f = (fixture){.arena = arena, .diag = qgc_diag_new(arena), .pool = qgc_pool_new(1)};
    f->folder = qgc_test_folder(arena);
    ok(f, qgc_weights_open(&f->weights, "models/tiny/tiny.gguf", &f->diag));
    *state = f;
    return 0;
}

static inline int teardown(void **state) {
    fixture *f = *state;
    qgc_trial_drop(f->trial);
    qgc_weights_close(f->weights);
    qgc_pool_drop(f->pool);
    qgc_test_folder_drop(f->arena, f->folder);
    qgc_arena_drop(f->arena);
    return 0;
}

#endif
