#ifndef QGC_CLI_TEXT_H
#define QGC_CLI_TEXT_H

#include "models/tokenizer.h"
#include "runtime/cli/cli.h"

/* The text over which commands of the laboratory compare steps. */
typedef struct {
    const char *file;   /* --tokens */
    const char *prompt; /* --prompt */
    const char *ids;    /* --ids */
} cli_text;

#define CLI_TEXT_OPTIONS(t)                                                                        \
    {"tokens", 0, OPTION_TEXT, &(t).file, "FILE", "the text over which steps are compared", 0, 0}, \
        {"prompt", 'p', OPTION_TEXT, &(t).prompt, "TEXT", "the same, given here", 0, 0}, {         \
        "ids", 0, OPTION_TEXT, &(t).ids, "LIST", "the same as token ids, '5,300,0-15'", 0, 0       \
    }

/* An error if several texts are given, or one that takes a tokenizer with random weights (`random`), which have none. */
QGC_MUST_USE qgc_status cli_text_check(const cli_text *t, bool random, qgc_diag *d);

/* The tokens of the text: of "Once upon a time" where none is given, or with random weights `n_random` ids spread over the
 * vocabulary of `g`. *name is what to call them. */
QGC_MUST_USE qgc_status cli_text_read(const cli_text *t, const qgc_weights *w, const qgc_graph *g,
                                      bool random, int64_t n_random, qgc_tokens *out, const char **name,
                                      cli_context *c);

#endif
