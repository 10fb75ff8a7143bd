#ifndef QGC_CLI_WEIGHTS_H
#define QGC_CLI_WEIGHTS_H

#include "runtime/cli/cli.h"

#define CLI_WEIGHTS_HELP "GGUF, safetensors, Hugging Face folder; \"random\": made up, of the right shapes"

/* Are they to be made up? */
bool cli_weights_are_random(const char *path);

/* Opens the weights that a command of the laboratory is given: a path, or "random" for made-up ones. NULL is an error
 * with a hint. */
QGC_MUST_USE qgc_status cli_lab_weights(qgc_weights **out, const char *path, const qgc_graph *g,
                                        cli_context *c);

#endif
