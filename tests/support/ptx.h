#ifndef TESTS_SUPPORT_PTX_H
#define TESTS_SUPPORT_PTX_H

#include <stdbool.h>

#include "graph/base/arena.h"

/* What a compiled kernel does with the memory that its parameters point to, read off its PTX. */

enum { PTX_MAX_PARAMS = 24 };

typedef struct {
    bool found;
    bool waits; /* there is a griddepcontrol.wait, and no way around it to the end */
    bool lets_next_start,
        before_wait; /* a griddepcontrol.launch_dependents, and one that is reached before a wait */
    bool hands_on;   /* a pointer to a function that is not inlined, which is not looked into */
    /* QGC_READS and so on (codegen/plan.h); EARLY: of an instruction that is reached before a wait. */
    int access[PTX_MAX_PARAMS];
    const char *
        unclear; /* an instruction that writes to memory nobody knows of, or that is not understood; NULL: none */
} ptx_effects;

ptx_effects ptx_effects_of(const char *ptx, const char *entry, qgc_arena *a);

#endif
