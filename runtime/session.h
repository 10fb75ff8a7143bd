#ifndef QGC_RUNTIME_SESSION_H
#define QGC_RUNTIME_SESSION_H

#include "graph/base/times.h"
#include "graph/sampling.h"
#include "runtime/mode.h"

/* One timeline on a program: its caches, its position, its random state. */
typedef struct qgc_session qgc_session;

typedef enum {
    /* Products of `chunk` tokens at a time, by cuBLAS from weights as they are stored. In persistent mode it is QGC_PREFILL_PACKED
     * where that is as fast (wgmma, no matrix in blocks) and no plain copy is there; else there is a second copy of the weights for
     * it, and where that has no room it is QGC_PREFILL_PACKED, too, and a note says so. */
    QGC_PREFILL_CHUNKS,
    QGC_PREFILL_STEPS, /* each token of the prompt through the decode step: slower, the numbers of decode */
    QGC_PREFILL_PACKED, /* persistent mode: chunks, from the order of the persistent step, the one copy of the weights */
} qgc_prefill;

/* By its name: "chunks", "steps" or "packed"; and the name. */
QGC_MUST_USE qgc_status qgc_prefill_named(const char *name, qgc_prefill *out, qgc_diag *d);
const char *qgc_prefill_name(qgc_prefill prefill);

typedef struct {
    int64_t ctx; /* positions that the caches have room for */
    qgc_mode mode;
    qgc_prefill prefill;
    qgc_sampling sampling;
    qgc_times *times; /* gets laps: weights, memory, states, graphs; may be NULL */
} qgc_session_options;

/* Checks that a sampling makes sense: temperature >= 0, top_k >= 0, 0 < top_p <= 1, 0 <= min_p <= 1,
 * repeat_penalty > 0, all finite. */
QGC_MUST_USE qgc_status qgc_sampling_check(const qgc_sampling *s, qgc_diag *d);

/* Allocates everything that the session will need. Errors: ctx beyond what the model allows (both numbers),
 * device memory; chunks asked for where cuBLAS cannot be loaded (the remedy names QGC_PREFILL_STEPS); QGC_PREFILL_PACKED
 * in another mode than persistent. */
QGC_MUST_USE qgc_status qgc_session_new(qgc_session **out, qgc_program *p, const qgc_session_options *o,
                                        qgc_diag *d);
void qgc_session_drop(qgc_session *s);

int64_t qgc_session_position(const qgc_session *s); /* tokens in the caches */
int64_t qgc_session_room(const qgc_session *s);     /* positions left */

/* Takes n >= 1 tokens into the caches and chooses the token that follows the last one. Errors, which leave the
 * session as it was: no room, a token that is not in the vocabulary. */
QGC_MUST_USE qgc_status qgc_session_feed(qgc_session *s, const int32_t *tokens, int64_t n, int32_t *next,
                                         qgc_diag *d);

/* Of a plan with all_rows: takes 1 to `chunk` tokens into the caches, and chooses none. Their logits can be read until
 * the next feed: those of n of them from `first` on, [n, vocab]. Errors: another plan; no room; a token that is not in the
 * vocabulary; tokens that were not fed. */
QGC_MUST_USE qgc_status qgc_session_feed_rows(qgc_session *s, const int32_t *tokens, int64_t n, qgc_diag *d);
QGC_MUST_USE qgc_status qgc_session_read_rows(qgc_session *s, int64_t first, int64_t n, float *logits,
                                              qgc_diag *d);

/* Where row `row` of the logits of the last feed is on the device. */
qgc_address qgc_session_logits_at(const qgc_session *s, int64_t row);

/* One decode step: takes the token chosen last into the caches and chooses the next. The device feeds
 * itself; the host uploads nothing, allocates nothing and patches nothing. Errors: no room, nothing fed yet. */
QGC_MUST_USE qgc_status qgc_session_step(qgc_session *s, int32_t *next, qgc_diag *d);

/* The two halves of a step: queue starts one after those that are queued already, and returns at once; take waits for
 * the oldest. So what a step costs the host is hidden by the step before. The device chooses for itself and goes on
 * with that, whatever it is: what was queued and not taken is as if it had not been, from the next feed or reset on (in a graph with
 * more than one state of what was seen, but for the repetition penalty, to which the tokens count that such steps were fed). At most
 * qgc_session_most_steps are queued. Errors of queue: no room, nothing fed yet; of take: nothing queued. */
QGC_MUST_USE qgc_status qgc_session_queue(qgc_session *s, qgc_diag *d);
QGC_MUST_USE qgc_status qgc_session_take(qgc_session *s, int32_t *next, qgc_diag *d);
/* Queues what keeps the device busy while the next step is taken, of `wanted` steps still to take, where fewer than two are queued: in
 * persistent mode, if so many are wanted and there is room for them, several that are launched together (each then starts while the
 * token of the one before is being chosen), else up to two. */
QGC_MUST_USE qgc_status qgc_session_queue_ahead(qgc_session *s, int64_t wanted, qgc_diag *d);
int64_t qgc_session_queued(const qgc_session *s);
int64_t qgc_session_most_steps(const qgc_session *s);

/* n >= 1 decode steps, queued without the host in between, up to qgc_session_most_steps at a time: next[i] is what step i chose. Errors: no
 * room, nothing fed yet. */
QGC_MUST_USE qgc_status qgc_session_steps(qgc_session *s, int64_t n, int32_t *next, qgc_diag *d);

/* The phase that a decode step of this session is. */
qgc_phase_kind qgc_session_phase(const qgc_session *s);

/* Do those launches of a decode step start early that the plan lets? */
bool qgc_session_overlaps(const qgc_session *s);

/* Microseconds of the `wanted` launches of a decode step (one bool each), in the order of the phase and without the others,
 * replayed as a CUDA graph, early starts included: the mean of `repeats`. For measuring: what the session holds is spoilt, and it wants a reset.
 * Errors: nothing fed yet. */
QGC_MUST_USE qgc_status qgc_session_time(qgc_session *s, const bool *wanted, int repeats, double *us,
                                         qgc_diag *d);

/* The same for a chunk of a prompt, of up to as many tokens as were fed last, and the phase that it is; and the most tokens of a chunk,
 * 1 where prompts take decode steps. */
QGC_MUST_USE qgc_status qgc_session_time_prefill(qgc_session *s, int64_t tokens, const bool *wanted,
                                                 int repeats, double *us, qgc_diag *d);
qgc_phase_kind qgc_session_prefill_phase(const qgc_session *s, int64_t tokens);
int64_t qgc_session_largest_chunk(const qgc_session *s);

/* How it takes prompts: as its options say, but for chunks that are taken as QGC_PREFILL_PACKED (above). */
qgc_prefill qgc_session_prefill(const qgc_session *s);

/* The logits of the row chosen from last, [vocab]. */
QGC_MUST_USE qgc_status qgc_session_logits(qgc_session *s, float *logits, qgc_diag *d);

/* The first position since the last reset whose logits are not numbers, or infinite, as far as was seen; -1 if there is
 * none. Of every step sampling sees whether none of them is a number, or the largest is infinite; qgc_session_look sees
 * each, of the row chosen from last, which it puts into `logits` [vocab]. The choice from such a row means nothing. */
int64_t qgc_session_not_finite(const qgc_session *s);
QGC_MUST_USE qgc_status qgc_session_look(qgc_session *s, float *logits, qgc_diag *d);

/* The first bytes of a buffer of the plan, as the last launch that wrote it left them. Scratch is shared by values whose
 * lives do not meet, unless the plan was made to keep them (codegen/lower.h). For tests and for finding faults. */
QGC_MUST_USE qgc_status qgc_session_read(qgc_session *s, int buffer, void *to, size_t bytes, qgc_diag *d);

/* Steps that are queued or fed from now on choose so. */
QGC_MUST_USE qgc_status qgc_session_set_sampling(qgc_session *s, const qgc_sampling *sampling, qgc_diag *d);

/* Back to an empty cache at position 0. */
QGC_MUST_USE qgc_status qgc_session_reset(qgc_session *s, qgc_diag *d);

#endif
