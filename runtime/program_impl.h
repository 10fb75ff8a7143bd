#ifndef QGC_RUNTIME_PROGRAM_IMPL_H
#define QGC_RUNTIME_PROGRAM_IMPL_H

#include "runtime/program.h"

/* What the program_*.c files share. Nobody else includes it. */

/* A weight on its way to the device. */
typedef struct {
    const qgc_tensor *from;
    qgc_dtype storage;
    int64_t elems, row; /* all of them, and those of a row */
    size_t bytes;
    size_t offset; /* in the region of all weights */
    int shared;    /* index of the weight whose place this one shares, or -1 */
    bool wanted;   /* by a buffer */
    bool rounded;  /* values changed on the way */
} qgc_placed;

/* What goes up of what. */
typedef struct {
    qgc_placed *all; /* [n_weights] */
    size_t bytes;    /* of the region of all */
    qgc_pool *pool;
    qgc_program_options options;
    qgc_arena *made; /* tensors that the file does not have as they are wanted */
    size_t done, total;
} qgc_loading;

struct qgc_program {
    qgc_arena *arena;
    const qgc_plan *plan;
    qgc_device *dev;
    int arch;                 /* index into plan->archs */
    qgc_function **functions; /* by kernel */
    const char *not_resident; /* why the blocks of the persistent step cannot all run at once, or NULL */
    qgc_address *addresses;   /* by buffer, of weights as they are stored: 0 where they are not there */
    qgc_address
        *packed; /* by buffer, for persistent mode: the stream, and weights that stay; NULL: not there yet */
    bool is_stored; /* all weights are there as they are stored: in `weights`, or another program's */
    qgc_address weights;
    qgc_address kept, stream; /* holds those that stay, if they are not there; and the stream */
    qgc_loading *loading;     /* where weights come from; NULL once they all are there */
    const char **notes;
    size_t n_notes;
};

/* The images to run, see qgc_program_load: the best ones, or those `wanted`. */
QGC_MUST_USE qgc_status qgc_program_choose_image(const qgc_plan *plan, const qgc_device_info *about,
                                                 const char *wanted, qgc_image_choice *out, qgc_diag *d);

/* What to compile for so that a GPU runs it: "sm_90", or where it is for that GPU `alone`, "sm_90a". In arena `a`. */
const char *qgc_image_arch_for(const qgc_device_info *about, bool alone, qgc_arena *a);

/* Binds the weights to the plan, from which they then can be loaded. */
QGC_MUST_USE qgc_status qgc_program_find_weights(qgc_program *p, const qgc_weights *weights, qgc_pool *pool,
                                                 const qgc_program_options *options, qgc_diag *d);

/* All weights as they are stored: allocates their region, converts and uploads them, and fills in the addresses of
 * the weight buffers. */
QGC_MUST_USE qgc_status qgc_program_put_weights(qgc_program *p, qgc_diag *d);

/* The addresses of another program's weights; false if it cannot give them all. */
bool qgc_program_take_weights(qgc_program *p, const qgc_program *from);

/* The stream, from the weights that are there or else from their file, and with it those that stay (runtime/program_packed.c). */
QGC_MUST_USE qgc_status qgc_program_pack(qgc_program *p, qgc_diag *d);

/* Sends a weight to an address; what is sent counts for the progress that is shown. */
QGC_MUST_USE qgc_status qgc_program_send(qgc_program *p, int weight, qgc_address to, qgc_diag *d);

/* Notes for people: what was converted, what is kept in blocks, what is tied. */
void qgc_program_note_conversions(qgc_program *p);

/* The rows of all blocks of the persistent kernel, in the memory of the stream. Blocks that the device does not have begin after the last
 * row, so that a row is found by its first one. */
QGC_MUST_USE qgc_status qgc_program_upload_shares(qgc_program *p, qgc_diag *d);

/* Launches one launch of a phase. */
QGC_MUST_USE qgc_status qgc_program_launch_one(qgc_program *p, const qgc_plan_launch *l,
                                               const qgc_address *addresses, qgc_diag *d);

/* The weight whose place a weight shares, or itself. */
static inline int qgc_placed_root(const qgc_placed *all, int weight) {
    return all[weight].shared >= 0 ? all[weight].shared : weight;
}

#endif
