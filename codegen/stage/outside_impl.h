#ifndef QGC_CODEGEN_STAGE_OUTSIDE_IMPL_H
#define QGC_CODEGEN_STAGE_OUTSIDE_IMPL_H

#include "codegen/stage/outside.h"

/* What reading a row (outside.c) and matching it with nodes (outside_match.c) share. */

/* The next entry of a list, which ends at `between`, without the blanks around it; NULL at the end. */
const char *qgc_outside_entry(const char **list, char between, qgc_arena *a);

/* The index of a name, or -1. */
int qgc_outside_name(const qgc_outside_row *r, const char *name);

/* Does a parameter hand out the value of that name? */
bool qgc_outside_writes(const qgc_outside_row *r, int name);

#endif
