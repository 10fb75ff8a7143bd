#ifndef QGC_CLI_TEXTS_H
#define QGC_CLI_TEXTS_H

#include "runtime/cli/cli.h"
#include "runtime/engine/evaluate.h"

/* The texts of files, of all regular files of a folder, in the order of their names, and of standard input
 * ("-"). They live in the arena of the context. Errors: a file that cannot be read; a folder without any. */
QGC_MUST_USE qgc_status cli_texts_read(const char *const *paths, int n, qgc_evaluate_text **texts,
                                       size_t *n_texts, cli_context *c);

#endif
