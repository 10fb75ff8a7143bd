#ifndef QGC_RUNTIME_PROGRAM_PRIVATE_H
#define QGC_RUNTIME_PROGRAM_PRIVATE_H

#include "runtime/program.h"

/* What the program_*.c files share. Nobody else includes it. */

struct qgc_program {
    qgc_arena *arena;
    const qgc_plan *plan;
    qgc_device *dev;
    int arch;                  /* index into plan->archs */
    qgc_function **functions;  /* by kernel */
    const char *not_resident;  /* why the blocks of the persistent step cannot all run at once, or NULL */
    qgc_address weight_region; /* holds all weights */
    qgc_address *addresses;    /* by buffer */
    const char **notes;
    size_t n_notes;
};

/* Adds a line to the notes. */
void qgc_program_note(qgc_program *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The images to run, see qgc_program_load: the best ones, or those `wanted`. */
QGC_MUST_USE qgc_status qgc_program_choose_image(const qgc_plan *plan, const qgc_device_info *about,
                                                 const char *wanted, qgc_image_choice *out, qgc_diag *d);

/* What to compile for so that a GPU runs it: "sm_90", or where it is for that GPU `alone`, "sm_90a". In arena `a`. */
const char *qgc_image_arch_for(const qgc_device_info *about, bool alone, qgc_arena *a);

/* Binds the weights, allocates their region, converts and uploads them, and fills in the addresses of the
 * weight buffers. */
QGC_MUST_USE qgc_status qgc_program_put_weights(qgc_program *p, const qgc_weights *weights, qgc_pool *pool,
                                                const qgc_program_options *options, qgc_diag *d);

#endif
