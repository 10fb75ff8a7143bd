#ifndef QGC_RUNTIME_PROGRAM_H
#define QGC_RUNTIME_PROGRAM_H

#include "codegen/plan.h"
#include "graph/base/pool.h"
#include "graph/base/times.h"
#include "models/weights.h"
#include "runtime/device.h"

/* A plan on a device: kernels loaded, weights uploaded. Immutable after loading; sessions run on it. Caches,
 * tables and scratch depend on the number of positions and so are a session's. */
typedef struct qgc_program qgc_program;

/* Which images of a plan run on a GPU, and how they fit it. */
typedef struct {
    int arch; /* index into plan->archs, -1: none */
    qgc_fit fit;
} qgc_image_choice;

/* The best images for a GPU: exactly the device's sm_XYa, else sm_XYf, else sm_XY; else those of its family or of the nearest
 * lower minor version of the same major one; else PTX, the newest that the driver can compile for it. */
qgc_image_choice qgc_image_best(const qgc_plan *plan, const qgc_device_info *about);

typedef struct {
    const char *arch; /* run this image and no other; NULL: the best one for the device */
    bool allow_unused;
    /* Another program on this device, of the same weights file: its weights serve this one too, where the two plans want
     * the same of them, else they are uploaded again. It outlives this one. May be NULL. */
    qgc_program *share;
    /* No weights go up before a session wants them (qgc_program_want), in the order in which its mode reads them. The weights
     * and the pool then outlive the program, and so does the context of `progress`. */
    bool later;
    /* Called while weights go up, with "weights", bytes done and in all; may be NULL. */
    void (*progress)(void *context, const char *what, size_t done, size_t total);
    void *context;
    qgc_times *times; /* gets laps: kernels, weights found; may be NULL */
} qgc_program_options;

/* The plan and the device outlive the program; the weights may be closed after loading.
 * Runs the image that qgc_image_best says. Errors: no image fits (lists those there are; remedy: qgc compile --arch), weights
 * that do not fit the plan (see models/bind.h), device memory. Weights are converted to the plan's storage
 * on the pool: exact where it can be, and qgc_program_notes says where not. */
QGC_MUST_USE qgc_status qgc_program_load(qgc_program **out, const qgc_plan *plan, qgc_device *dev,
                                         const qgc_weights *weights, qgc_pool *pool,
                                         const qgc_program_options *options, qgc_diag *d);
void qgc_program_drop(qgc_program *p);

const qgc_plan *qgc_program_plan(const qgc_program *p);
qgc_device *qgc_program_device(const qgc_program *p);
const char *qgc_program_arch(const qgc_program *p); /* of the images in use */

/* The architecture to compile for where code need run on this device alone: "sm_90a", as a kernel may use what no other has. */
const char *qgc_program_arch_for(qgc_device *dev, qgc_arena *a);

/* Lines for people: which image runs, what was converted ("169 tensors f16 stored as bf16 without loss"), rounded
 * ("12 tensors f32 rounded to bf16: compile with --weights to keep them"), tied. */
size_t qgc_program_notes(const qgc_program *p, const char *const **lines);
/* Adds one. */
void qgc_program_note(qgc_program *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Which launches of a phase start early, of those that the plan lets. */
typedef enum {
    QGC_OVERLAP_NONE,
    QGC_OVERLAP_WITHIN, /* all but the first, which starts when what was launched before it has ended */
    QGC_OVERLAP_STEPS, /* the first too: the launch before it on the stream is the last one of the same phase */
} qgc_overlap;

/* Launches one phase on the stream. `addresses` holds the address of each buffer of the plan. qgc_program_overlaps says how much the
 * launches of a phase can overlap: what the plan says, where the images that run can wait. */
QGC_MUST_USE qgc_status qgc_program_launch(qgc_program *p, qgc_phase_kind phase, const qgc_address *addresses,
                                           const qgc_sizes *sizes, qgc_overlap overlap, qgc_diag *d);
/* The same for those launches of the phase that are `wanted` (one bool each; NULL: all), for measuring: the plan's early starts
 * are proved for all of them, so what is computed then is not to be looked at. */
QGC_MUST_USE qgc_status qgc_program_launch_some(qgc_program *p, qgc_phase_kind phase, const bool *wanted,
                                                const qgc_address *addresses, const qgc_sizes *sizes,
                                                qgc_overlap overlap, qgc_diag *d);
qgc_overlap qgc_program_overlaps(const qgc_program *p, qgc_phase_kind phase);
/* Why the blocks of the persistent step cannot all run at once, as its kernel takes too much of a multiprocessor; NULL if they can, or
 * if it is not loaded. */
const char *qgc_program_not_resident(const qgc_program *p);

/* Do the images that run wait for the launches before them? Code for less than sm_90 does not, on whatever device. */
bool qgc_program_can_wait(const qgc_program *p);

/* Puts on the device what sessions read of the weights: as they are stored, or, `packed`, in the order of the persistent step, with
 * those that persistent mode reads as they are stored. What is there stays until the program is dropped. A program that was
 * loaded with its weights packs a second copy of them. */
QGC_MUST_USE qgc_status qgc_program_want(qgc_program *p, bool packed, qgc_diag *d);

/* Bytes that qgc_program_want is about to allocate. */
int64_t qgc_program_wants_bytes(const qgc_program *p, bool packed);
/* Are all weights there as they are stored? */
bool qgc_program_has_weights(const qgc_program *p);

/* The addresses of what qgc_program_want has put there; the rest are 0 and a session's to fill. */
const qgc_address *qgc_program_addresses(const qgc_program *p, bool packed);

#endif
