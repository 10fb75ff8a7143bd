#ifndef QGC_CODEGEN_TUNING_H
#define QGC_CODEGEN_TUNING_H

#include <stddef.h>
#include <stdint.h>

#include "graph/base/diag.h"

/* Settings of kernels that were found by measuring (qgc tune), for one architecture, on one card. A setting changes how fast a kernel is
 * and how its sums are ordered, not what it computes. */

/* Of the settings: the value of knob `name` of a kernel, which goes by its file and shape: "linear.cu 896 to 2x4864, bf16, norm".
 * Of the times: the nanoseconds of a decode step of a program, which goes by qgc_mode_key (runtime/mode.h), in the mode `name`. */
typedef struct {
    const char *of, *name;
    int64_t value;
} qgc_tuned;

typedef struct {
    qgc_tuned *rows;
    size_t n;
} qgc_tuned_list;

typedef struct {
    const char *arch; /* "sm_90a" */
    const char *card; /* "h100-sxm", on which they were measured; NULL: not said */
    qgc_tuned_list settings, times;
    qgc_arena *arena; /* of all that is in here */
} qgc_tuning;

qgc_tuning qgc_tuning_new(const char *arch, qgc_arena *a);

/* The value of a setting, or `otherwise`. A tuning may be NULL. */
int64_t qgc_tuning_get(const qgc_tuning *t, const char *kernel, const char *name, int64_t otherwise);
void qgc_tuning_set(qgc_tuning *t, const char *kernel, const char *name, int64_t value);

/* The nanoseconds of a step, 0 where they were not measured. A tuning may be NULL. */
int64_t qgc_tuning_time(const qgc_tuning *t, const char *program, const char *mode);
void qgc_tuning_set_time(qgc_tuning *t, const char *program, const char *mode, int64_t ns);

/* Puts all rows of `from` into `t`, in the place of those that it has of the same. */
void qgc_tuning_add(qgc_tuning *t, const qgc_tuning *from);

/* The file of an architecture on a card in a cache folder (codegen/cache.h), NULL if there is no folder. `card` may be NULL: what was
 * measured last, on whichever card, for compiles that name none. */
const char *qgc_tuning_path(const char *cache_folder, const char *arch, const char *card, qgc_arena *a);

/* Reads a file into *out. Errors name line and column; a file for another architecture is one
 * (any will do where `arch` is NULL). */
QGC_MUST_USE qgc_status qgc_tuning_read(qgc_tuning *out, const char *path, const char *arch, qgc_diag *d);
QGC_MUST_USE qgc_status qgc_tuning_write(const qgc_tuning *t, const char *path, qgc_diag *d);

/* What can be set: collected by lowering, tried by qgc tune. */
typedef struct {
    const char *kernel, *name;
    int64_t value;             /* in this plan */
    const int64_t *candidates; /* ended by 0 */
} qgc_knob;

#endif
