#ifndef QGC_CLI_LAB_H
#define QGC_CLI_LAB_H

#include "runtime/cli/pipeline.h"
#include "runtime/cli/text.h"
#include "runtime/lab/trial.h"

/* What commands of the laboratory open: a device, weights and a text. */

#define CLI_WEIGHTS_HELP "GGUF, safetensors, Hugging Face folder; \"random\", \"random:q4_k_m\""

/* Are they to be random? */
bool cli_weights_are_random(const char *path);

/* Loads a graph, for the weights at a path if that names a file or a folder: these are opened then, else *w stays NULL. It may be what was
 * opened for that path before. */
QGC_MUST_USE qgc_status cli_lab_graph(qgc_graph **g, qgc_weights **w, const char *graph, const char *weights,
                                      cli_context *c);

/* Opens the weights that a command of the laboratory is given, if they are not open yet: a path, "random" for random ones,
 * "random:q8_0" for random ones of a type. NULL is an error with a hint. */
QGC_MUST_USE qgc_status cli_lab_weights(qgc_weights **out, const char *path, const qgc_graph *g,
                                        cli_context *c);

/* The options of the commands that compare steps over a text. */
typedef struct {
    const char *weights, *device, *card, *cache_folder;
    const char *mode; /* NULL: not given */
    cli_text text;
    cli_pipeline pipeline;
    const qgc_pass_watch *watch; /* set by the command */
    int64_t steps, threads;
    bool allow_unused;
} cli_lab_options;

/* clang-format off */
#define CLI_LAB_TEXT_OPTIONS(o, most_steps) \
    CLI_TEXT_OPTIONS((o).text), \
    {"steps", 0, OPTION_INT, &(o).steps, "N", "tokens of it; where it is shorter, the model goes on", 1, most_steps}

#define CLI_LAB_MODE_OPTION(o) \
    {"mode", 0, OPTION_TEXT, &(o).mode, "auto|stream|graph|pdl|persistent", "how steps run on a GPU; graph if not given", 0, 0}

#define CLI_LAB_RUN_OPTIONS(o) \
    CLI_CARD_OPTION((o).card), \
    CLI_THREADS_OPTION((o).threads), \
    {"cache", 0, OPTION_TEXT, &(o).cache_folder, "DIR", "of compiled kernels", 0, 0}, \
    CLI_ALLOW_UNUSED_OPTION((o).allow_unused)
/* clang-format on */

/* What is held while such a command works; closed whole, however far it was opened. */
typedef struct {
    qgc_device *device; /* NULL: the CPU */
    qgc_pool *pool;
    qgc_weights *weights;
    qgc_tokens tokens;
    const char *text; /* what to call them */
} cli_lab;

/* The positions of --ctx: 512, or as many as the model takes, where 0 is given. */
int64_t cli_lab_ctx(int64_t given, const qgc_graph *g);

/* Errors: a text that does not go with the weights, an unknown mode. */
QGC_MUST_USE qgc_status cli_lab_check(const cli_lab_options *o, qgc_diag *d);

/* The device and the threads, where a mode for the CPU is an error; then, for a graph, the weights and the
 * text. */
QGC_MUST_USE qgc_status cli_lab_open_device(cli_lab *lab, const cli_lab_options *o, qgc_diag *d);
QGC_MUST_USE qgc_status cli_lab_open_weights(cli_lab *lab, const cli_lab_options *o, const qgc_graph *g,
                                             cli_context *c);

/* What is to be run with it, with a bar of progress, which may be NULL. */
qgc_experiment cli_lab_experiment(const cli_lab *lab, const cli_lab_options *o, const char *graph,
                                  cli_progress *progress);
void cli_lab_close(cli_lab *lab);

#endif
