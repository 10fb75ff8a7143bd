#ifndef QGC_ENGINE_ENGINE_H
#define QGC_ENGINE_ENGINE_H

#include "graph/base/times.h"
#include "graph/graph.h"
#include "models/chat.h"
#include "models/tokenizer.h"
#include "models/weights.h"
#include "runtime/program.h"

/* A model that is ready to run: a graph or an artifact, its weights, its tokenizer, and where it runs: on
 * a GPU as a program, or on the CPU by the evaluator. Commands and the library (include/qgc.h) use it and
 * do not ask which. Texts are made by sequences on it (runtime/engine/sequence.h). One thread at a time
 * uses an engine and its sequences; several engines are independent of each other. */
typedef struct qgc_engine qgc_engine;

/* How the passes of a graph are run. */
typedef struct {
    const char *passes, *skip; /* see qgc_pass_options */
    /* Does it instead; `source`, where it is not NULL, gets the graph before the first pass, with its
     * pipeline. */
    qgc_status (*run)(void *context, qgc_graph *g, qgc_str *source, qgc_diag *d);
    void *context;
} qgc_engine_passes;

QGC_MUST_USE qgc_status qgc_engine_run_passes(const qgc_engine_passes *p, qgc_graph *g, qgc_str *source,
                                              qgc_diag *d);

/* What an engine says on its way; both may be NULL. */
typedef struct {
    void (*progress)(void *context, const char *what, size_t done,
                     size_t total);                /* "weights", "kernels", "prompt" */
    void (*note)(void *context, const char *line); /* a line for people */
    void *context;
} qgc_engine_listener;

typedef struct {
    const char *
        path; /* an artifact, or a graph, which is then compiled in memory; NULL: only the tokenizer is opened */
    const char *weights; /* file or folder; NULL: what the artifact records */
    const char *device;  /* "auto", "gpu", "gpu:1", "cpu" */
    const char *arch;    /* run this image of the artifact and no other, or NULL */
    const char *card;    /* that the GPU stands in for, see runtime/stand_in.h; NULL: none */
    const char *cache_folder, *nvrtc_library; /* where a graph is compiled */
    qgc_engine_passes passes;                 /* likewise */
    int64_t threads;                          /* of the CPU; 0: all */
    bool allow_unused;
    bool sequence_next; /* a sequence is begun next: the tokenizer is read beside that, and not used before */
    qgc_engine_listener listener;
    qgc_times
        *times; /* gets laps of the start, those of sequences included; outlives the engine; may be NULL */
} qgc_engine_options;

/* Texts of the options are copied. Errors: an unknown device; a file that cannot be opened, or is at
 * fault; no weights; a graph that does not compile; what qgc_program_load says; a tokenizer with more ids
 * than the model has rows. `*out` is set at once: where host memory runs out it can be closed, however far
 * it was opened. */
QGC_MUST_USE qgc_status qgc_engine_open(qgc_engine **out, const qgc_engine_options *o, qgc_diag *d);

/* The tokenizer is there, where `sequence_next` let it be read beside other work; qgc_sequence_new calls this. Errors: those of
 * the tokenizer that qgc_engine_open names. */
QGC_MUST_USE qgc_status qgc_engine_want_tokenizer(qgc_engine *e, qgc_diag *d);

/* For who goes on after host memory has run out (qgc_memory_try) in the middle of something: from then on
 * an engine can only be closed. */
void qgc_engine_break(qgc_engine *e);
bool qgc_engine_is_broken(const qgc_engine *e);

/* After its sequences. NULL is allowed. */
void qgc_engine_close(qgc_engine *e);

const qgc_weights *qgc_engine_weights(const qgc_engine *e);
qgc_tokenizer *qgc_engine_tokenizer(const qgc_engine *e);
/* The chat template, opened at the first call, with today's date. Errors: those of qgc_chat_open. */
QGC_MUST_USE qgc_status qgc_engine_chat(qgc_engine *e, qgc_chat **out, qgc_diag *d);
/* Does an answer end with this token? At what ends a text, and what the template ends an answer with, once
 * it was opened. */
bool qgc_engine_is_end(const qgc_engine *e, int32_t id);
const char *qgc_engine_device(const qgc_engine *e); /* "NVIDIA H100 80GB HBM3, sm_90a" or "cpu, 2 threads" */
int64_t qgc_engine_vocab(const qgc_engine *e);      /* rows of the logits; 0 without a graph */

/* Which GPU "auto", "gpu" or "gpu:1" (or "cuda" for "gpu") or "cpu" means; -1 is the CPU. */
QGC_MUST_USE qgc_status qgc_engine_choose_device(const char *text, int *index, qgc_diag *d);

/* An error where a mode is asked for (not NULL, not "auto") and the device is the CPU (-1), which has
 * none. */
QGC_MUST_USE qgc_status qgc_engine_want_no_mode(const char *mode, int device, qgc_diag *d);

/* The architecture to compile for when none is named: the GPU's of this machine, else sm_90a. */
const char *qgc_engine_default_arch(qgc_arena *a);

/* Adds to an error about weights that it is the artifact at `path` that names them. */
void qgc_engine_note_recorded(const char *path, qgc_diag *d);

/* Does a file begin like an artifact? */
bool qgc_engine_is_artifact(const char *path);

#endif
