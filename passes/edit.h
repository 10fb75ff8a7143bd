#ifndef QGC_PASSES_EDIT_H
#define QGC_PASSES_EDIT_H

#include "passes/passes.h"

/* A pipeline as text, with what is asked for put in. */

/* Lists of "A=B": B, with options and "?" as in a pipeline, is put before or after pass A, or takes its place. A pass that is put somewhere
 * stands nowhere else. They are applied in the order of the fields, each list from left to right. NULL: none. */
typedef struct {
    const char *without; /* "A,B": left out */
    const char *replace;
    const char *before;
    const char *after;
} qgc_pass_edits;

bool qgc_pass_edits_any(const qgc_pass_edits *e);

/* The pipeline that `passes` and `skip` (qgc_pass_options) name for a graph, edited: one line that can be given as `passes`, in
 * d's arena. Of g only the pipeline of its file is looked at; NULL: there is no file. Errors: an unknown pass, an A that is not
 * in the pipeline, text that is not A=B. */
QGC_MUST_USE qgc_status qgc_pass_pipeline(const char **out, const qgc_graph *g, const char *passes,
                                          const char *skip, const qgc_pass_edits *e, qgc_diag *d);

/* For passes.c: the next entry of a pipeline without the spaces around it, "" for an empty one; *text moves after it. NULL at the
 * end. And the pipeline of all passes. */
char *qgc_pipeline_next(const char **text, qgc_arena *a);
const char *qgc_pipeline_default(qgc_arena *a);

/* The pass of that name; an error with the nearest name, at its place in a file if it has one. */
QGC_MUST_USE qgc_status qgc_pass_find(const char *name, qgc_loc at, const qgc_pass_info **out, qgc_diag *d);

#endif
