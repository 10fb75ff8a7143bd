#ifndef QGC_CLI_RUNNER_H
#define QGC_CLI_RUNNER_H

#include <signal.h>

#include "graph/sampling.h"
#include "models/tokenizer.h"
#include "models/weights.h"
#include "runtime/cli/pipeline.h"
#include "runtime/session.h"

/* A model that is ready to make text: on a GPU by a session, or on the CPU by the evaluator. Commands do not
 * ask which. */
typedef struct cli_runner cli_runner;

typedef struct {
    const char *path;                  /* an artifact, or a graph, which is then compiled in memory */
    const char *weights;               /* file or folder */
    const char *device;                /* "auto", "gpu", "gpu:1", "cpu" */
    const char *arch;                  /* run this image of the artifact and no other, or NULL */
    const char *mode;                  /* "auto" or NULL: the fastest that there is */
    const char *prefill;               /* "chunks" or "steps" */
    const char *cache_folder;          /* of compiled kernels, where a graph is compiled */
    cli_pipeline pipeline;             /* where a graph is compiled */
    int64_t ctx;                       /* 0: as much as the model allows, up to 4096 */
    int64_t threads;                   /* of the CPU; 0: all */
    const volatile sig_atomic_t *stop; /* where not 0, a prompt is not taken further */
    bool allow_unused;
    bool quiet;
    qgc_sampling sampling;
} cli_runner_options;

/* Says on standard error what the mode auto has come to. */
void cli_say_mode(const qgc_mode_choice *choice);

QGC_MUST_USE qgc_status cli_runner_open(cli_runner **out, cli_context *c, const cli_runner_options *o);
void cli_runner_close(cli_runner *r);

const qgc_weights *cli_runner_weights(const cli_runner *r);
qgc_tokenizer *cli_runner_tokenizer(const cli_runner *r);
const char *cli_runner_device(const cli_runner *r); /* "NVIDIA H100 80GB HBM3, sm_90a" or "cpu, 2 threads" */
const char *cli_runner_mode(const cli_runner *r);   /* "persistent"; "cpu" on the CPU */
int64_t cli_runner_ctx(const cli_runner *r);
int64_t cli_runner_position(const cli_runner *r); /* tokens in the caches */
int64_t cli_runner_vocab(const cli_runner *r);

/* Takes tokens into the caches and chooses the one that follows (see runtime/session.h). Where it was stopped on the way,
 * *next is -1, and the position says how many were taken. Errors, too: logits that are no numbers. */
QGC_MUST_USE qgc_status cli_runner_feed(cli_runner *r, const int32_t *tokens, int64_t n, int32_t *next,
                                        qgc_diag *d);

/* Takes the token chosen last, and chooses the next. `wanted` >= 1 is how many of these calls there will be, as far as is
 * known: a GPU begins with the next step while the host still deals with this one. */
QGC_MUST_USE qgc_status cli_runner_step(cli_runner *r, int64_t wanted, int32_t *next, qgc_diag *d);

#endif
