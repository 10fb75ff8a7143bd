#ifndef QGC_PASSES_LOAD_H
#define QGC_PASSES_LOAD_H

#include "passes/passes.h"

/* Passes from outside: a shared object with one function, qgc_pass_plugin, that returns its rows. It is compiled against
 * the headers of graph/ and passes/ and calls what they declare in the executable that loads it.
 * docs/adding_a_pass.md builds one. */

/* What a plug-in and qgc have to agree on: the structs that these headers show, and the tags of the ops. The hundreds
 * are raised with each change of a struct; the ops count by themselves. */
enum { QGC_PASS_ABI = 801 + QGC_N_OPS };

typedef struct {
    int abi;                     /* QGC_PASS_ABI as the plug-in was compiled */
    const qgc_pass_info *passes; /* ended by one without a name */
    /* Kernels that its passes put nodes into (qgc_fuse_as), ended by one without a name; NULL: none. A `file` is beside the
     * plug-in. */
    const qgc_kernel_row *kernels;
} qgc_pass_rows;

/* What a plug-in defines. */
const qgc_pass_rows *qgc_pass_plugin(void);

/* Adds the passes of a plug-in after those that there are, and its kernels, for the rest of the process. Errors, which name
 * the plug-in and leave the table as it is: the file cannot be loaded, has no qgc_pass_plugin, has another ABI version,
 * brings a pass without a function or with a name that is taken, a kernel whose row or text is not in order, or more than
 * there is room for. */
QGC_MUST_USE qgc_status qgc_passes_load(const char *path, qgc_diag *d);

/* The same for rows that are in the program: `from` is what errors call them. They stay where they are for the rest of the
 * process. */
QGC_MUST_USE qgc_status qgc_passes_add(const char *from, const qgc_pass_rows *rows, qgc_diag *d);

enum { QGC_MAX_LOADED_PASSES = 256 };

/* The passes loaded so far, in order, and the plug-in that each came from. */
size_t qgc_loaded_count(void);
const qgc_pass_info *qgc_loaded_at(size_t i);
const char *qgc_loaded_from(size_t i);

/* The kernel of that name that a plug-in has brought, with its text; NULL: there is none. */
const qgc_kernel_row *qgc_loaded_kernel(const char *name);

#endif
