#ifndef QGC_ENGINE_RECEIPT_H
#define QGC_ENGINE_RECEIPT_H

#include "runtime/engine/sequence.h"

/* What a text was made of, so that it can be made again and compared. Reproducible means here: the same artifact with the same
 * weights, on the same model of card with the same driver, in the same mode with the same settings, gives the same tokens
 * for the same prompt. Each of these is a link of a chain, in that order; where tokens differ, the first link that differs is
 * the first suspect. */

typedef enum {
    QGC_LINK_QGC,      /* the version of qgc */
    QGC_LINK_GRAPH,    /* hash of its YAML before any pass */
    QGC_LINK_PIPELINE, /* the passes */
    QGC_LINK_IMAGES,   /* hash of the code that runs; "none" on the CPU */
    QGC_LINK_WEIGHTS,  /* hash of all tensors */
    QGC_LINK_DRIVER,   /* "CUDA 13.0" */
    QGC_LINK_CARD,     /* "NVIDIA H100 80GB HBM3, sm_90a", "cpu" */
    QGC_LINK_MODE,     /* "persistent" */
    QGC_LINK_SETTINGS, /* positions, prefill, sampling, seed */
    QGC_LINK_PROMPT,   /* hash of its tokens */
    QGC_N_LINKS
} qgc_link;

const char *qgc_link_name(qgc_link link);

typedef struct {
    const char *path, *weights, *device, *card; /* what was run; card: NULL for none */
    int64_t ctx;
    const char *mode, *prefill;
    qgc_sampling sampling;
    const char *links[QGC_N_LINKS];
    const int32_t *prompt, *ids; /* tokens fed, and made of them */
    size_t n_prompt, n_ids;
} qgc_receipt;

/* Of a sequence, at any time, with the tokens of its prompt: all but `ids`. Reads all weights. Texts are made in arena `a`;
 * tokens stay the caller's. */
qgc_receipt qgc_receipt_of(qgc_sequence *s, const int32_t *prompt, size_t n_prompt, qgc_arena *a);

/* The first link in which two differ, or QGC_N_LINKS; and the first token, or -1. A token that only one has is one that
 * differs. */
qgc_link qgc_receipt_link(const qgc_receipt *a, const qgc_receipt *b);
int64_t qgc_receipt_token(const qgc_receipt *a, const qgc_receipt *b);

/* The file, in JSON. Errors of reading: no receipt, or a field that is missing or makes no sense. */
QGC_MUST_USE qgc_status qgc_receipt_write(const qgc_receipt *r, const char *path, qgc_diag *d);
QGC_MUST_USE qgc_status qgc_receipt_read(qgc_receipt *out, const char *path, qgc_diag *d);

/* An engine as the receipt says; `path` and `weights` are in their places where they are not NULL. The listener and the
 * folders of `o` are kept. */
QGC_MUST_USE qgc_status qgc_receipt_open(qgc_engine **out, const qgc_receipt *r, qgc_engine_options *o,
                                         qgc_diag *d);

/* Makes the tokens again: `out` is the receipt of that. Errors: those of the engine and of a sequence, such as a mode that the
 * device does not have. */
QGC_MUST_USE qgc_status qgc_receipt_again(const qgc_receipt *r, qgc_engine *e, qgc_receipt *out, qgc_diag *d);

#endif
