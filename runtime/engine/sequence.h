#ifndef QGC_ENGINE_SEQUENCE_H
#define QGC_ENGINE_SEQUENCE_H

#include <signal.h>

#include "graph/sampling.h"
#include "runtime/engine/engine.h"
#include "runtime/mode.h"

/* One text on an engine: what was read and written so far, and the choice of what comes next. On a GPU
 * that is a session (runtime/session.h), on the CPU an evaluator. */
typedef struct qgc_sequence qgc_sequence;

typedef struct {
    int64_t ctx;         /* positions; 0: as many as the model allows, up to 4096 */
    const char *mode;    /* "auto" or NULL: the fastest that there is */
    const char *prefill; /* "chunks" (or NULL), "packed", "steps" */
    qgc_sampling sampling;
    const volatile sig_atomic_t *stop; /* where not 0, a prompt is not taken further; may be NULL */
} qgc_sequence_options;

/* Errors: more positions than the model has; an unknown mode or prefill, or one that cannot be had here; a
 * sampling that makes no sense; memory. */
QGC_MUST_USE qgc_status qgc_sequence_new(qgc_sequence **out, qgc_engine *e, const qgc_sequence_options *o,
                                         qgc_diag *d);
void qgc_sequence_drop(qgc_sequence *s); /* NULL is allowed */

/* A line that says what the mode auto has come to. */
const char *qgc_mode_choice_text(const qgc_mode_choice *choice, qgc_arena *a);

qgc_engine *qgc_sequence_engine(const qgc_sequence *s);
const char *qgc_sequence_mode(const qgc_sequence *s); /* "persistent"; "cpu" on the CPU */
/* How prompts are taken: "chunks" (always on the CPU), "packed", "steps". Not always as the options say: see qgc_session_prefill,
 * and a card may multiply no chunks. */
const char *qgc_sequence_prefill(const qgc_sequence *s);
int64_t qgc_sequence_ctx(const qgc_sequence *s);
int64_t qgc_sequence_position(const qgc_sequence *s); /* tokens taken */

/* Takes n >= 1 tokens and chooses the one that follows the last. Where it was stopped on the way, *next is
 * -1, and the position says how many were taken. Errors: no room, a token that is not in the vocabulary,
 * logits that are no numbers. */
QGC_MUST_USE qgc_status qgc_sequence_feed(qgc_sequence *s, const int32_t *tokens, int64_t n, int32_t *next,
                                          qgc_diag *d);

/* Takes the token chosen last, and chooses the next. `wanted` >= 1 is how many of these calls there will
 * be, as far as is known: a GPU begins with the next step while the host still deals with this one.
 * Errors: no room, nothing fed yet, logits that are no numbers. */
QGC_MUST_USE qgc_status qgc_sequence_step(qgc_sequence *s, int64_t wanted, int32_t *next, qgc_diag *d);

/* The logits from which the last token was chosen, [qgc_engine_vocab]. Error: nothing fed yet. */
QGC_MUST_USE qgc_status qgc_sequence_logits(qgc_sequence *s, float *logits, qgc_diag *d);

/* Chooses so from the next feed on. Error: a sampling that makes no sense. */
QGC_MUST_USE qgc_status qgc_sequence_set_sampling(qgc_sequence *s, const qgc_sampling *sampling, qgc_diag *d);

/* Back to an empty text. */
QGC_MUST_USE qgc_status qgc_sequence_reset(qgc_sequence *s, qgc_diag *d);

#endif
